//! The client of the daemon's bus: typed calls that give views. The command line uses nothing else of the bus.

mod domains;
mod personas;
mod watch;

use std::collections::HashMap;
use std::time::Duration;

use persona::units::Moment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, DynamicType, Proxy, Variant};

pub use self::watch::{Watch, Watched};

use super::dict::{Dict, from_dict};
use super::error::word_of;
use super::record::record_from_dict;
use super::{BusChoice, names};
use crate::view::{
    AuditView, DoctorView, DocumentFormat, HostView, HypervisorView, ManagerView, ProblemView,
    ProposalView, RetiredView,
};

/// Longer than the daemon takes for any answer, also with a person at a password prompt.
const ANSWER: Duration = Duration::from_secs(150);

/// Why a call did not give an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The bus or the daemon on it is not there.
    #[error("{reason}")]
    Unreachable {
        /// What is not there and what to do, as a sentence.
        reason: String,
        /// The library's own words.
        #[source]
        source: Option<zbus::Error>,
    },
    /// The daemon refused.
    #[error("{message}")]
    Refused {
        /// The last part of the error's name, `NotFound`.
        error: String,
        /// The daemon's sentence.
        message: String,
        /// Problems of the document, where that is what was refused.
        problems: Vec<ProblemView>,
    },
    /// The answer cannot be understood: a daemon of another version.
    #[error("the daemon's answer to {member} cannot be read; is the daemon of this version?")]
    Answer {
        /// The method.
        member: &'static str,
        /// What was wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

type Answer<T> = Result<T, ClientError>;
/// Options on their way out.
type Given = HashMap<&'static str, Variant<'static>>;

/// A connection to the daemon.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    choice: BusChoice,
}

impl Client {
    /// Connects to the bus. Whether the daemon is there shows at the first call.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] where the bus is not there.
    pub async fn connect(choice: BusChoice) -> Answer<Self> {
        let connection = choice
            .builder()
            .method_timeout(ANSWER)
            .build()
            .await
            .map_err(|source| ClientError::Unreachable {
                reason: format!("cannot connect to {choice}; is a message bus running there?"),
                source: Some(source),
            })?;
        Ok(Self { connection, choice })
    }

    /// The daemon itself.
    ///
    /// # Errors
    /// As every call here: see [`ClientError`].
    pub async fn manager(&self) -> Answer<ManagerView> {
        let mut all: Dict = self
            .call(
                names::ROOT,
                "org.freedesktop.DBus.Properties",
                "GetAll",
                &(names::MANAGER,),
            )
            .await?;
        let mut part = |name: &str| all.remove(name);
        let bad = || ClientError::Answer {
            member: "GetAll",
            source: "a property is absent or has another type".into(),
        };
        let nested = |value: Option<zbus::OwnedVariant>| -> Answer<Dict> {
            value.and_then(|v| Dict::try_from(v).ok()).ok_or_else(bad)
        };
        let number = |value: Option<zbus::OwnedVariant>| -> Answer<u64> {
            value.and_then(|v| u64::try_from(v).ok()).ok_or_else(bad)
        };
        Ok(ManagerView {
            version: part("Version")
                .and_then(|v| String::try_from(v).ok())
                .ok_or_else(bad)?,
            started: Moment(number(part("Started"))?),
            hypervisor: read::<HypervisorView>("GetAll", nested(part("Hypervisor"))?)?,
            host: read::<HostView>("GetAll", nested(part("Host"))?)?,
            ticks: number(part("Ticks"))?,
            overruns: number(part("Overruns"))?,
            problems: part("Problems")
                .and_then(|v| Vec::<String>::try_from(v).ok())
                .ok_or_else(bad)?,
        })
    }

    /// Has everything given back; gives what is left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retire(&self) -> Answer<RetiredView> {
        self.view(names::ROOT, names::MANAGER, "Retire", &(Given::new(),))
            .await
    }

    /// Audit records, the latest last.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(
        &self,
        domain: Option<String>,
        since: Option<Moment>,
        limit: u32,
    ) -> Answer<AuditView> {
        let options = options([
            ("domain", domain.map(Variant::from)),
            ("since", since.map(|moment| Variant::from(moment.0))),
            ("limit", Some(Variant::from(limit))),
        ]);
        let records: Vec<Dict> = self.manager_call("Audit", &(options,)).await?;
        let records = records
            .into_iter()
            .map(|record| record_from_dict(record).map_err(|error| unreadable("Audit", error)))
            .collect::<Answer<_>>()?;
        Ok(AuditView { records })
    }

    /// What works for live scaling and what does not.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self, domain: Option<String>) -> Answer<DoctorView> {
        let options = options([("domain", domain.map(Variant::from))]);
        let checks: Vec<Dict> = self.manager_call("Doctor", &(options,)).await?;
        Ok(DoctorView {
            checks: read_all("Doctor", checks)?,
        })
    }

    /// What waits for a person's word.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn approvals(&self) -> Answer<Vec<ProposalView>> {
        self.list("Approvals", Given::new()).await
    }

    /// Lets be done what a proposal wants.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn approve(&self, id: u64) -> Answer<ProposalView> {
        let arguments = (id, Given::new());
        self.view(names::ROOT, names::MANAGER, "Approve", &arguments)
            .await
    }

    /// Lets it not be done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reject(&self, id: u64) -> Answer<ProposalView> {
        let arguments = (id, Given::new());
        self.view(names::ROOT, names::MANAGER, "Reject", &arguments)
            .await
    }

    /// Begins to watch what is decided and done. The watch must be polled without end, or dropped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(&self) -> Answer<Watch> {
        let proxy = self.proxy(names::ROOT, names::MANAGER).await?;
        let records = proxy
            .receive_signal("Audited")
            .await
            .map_err(|error| self.failed("Audited", error))?;
        let owners = proxy
            .receive_owner_changed()
            .await
            .map_err(|error| self.failed("NameOwnerChanged", error))?;
        // A watch on a daemon that is not there would wait for ever without a word.
        self.manager().await?;
        Ok(Watch { records, owners })
    }

    async fn list<T: DeserializeOwned>(
        &self,
        member: &'static str,
        options: Given,
    ) -> Answer<Vec<T>> {
        let dicts: Vec<Dict> = self.manager_call(member, &(options,)).await?;
        read_all(member, dicts)
    }

    async fn view<T: DeserializeOwned, B: Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &'static str,
        member: &'static str,
        arguments: &B,
    ) -> Answer<T> {
        read(member, self.call(path, interface, member, arguments).await?)
    }

    async fn manager_call<R, B>(&self, member: &'static str, arguments: &B) -> Answer<R>
    where
        R: for<'d> zbus::wire::DynamicDeserialize<'d>,
        B: Serialize + DynamicType,
    {
        self.call(names::ROOT, names::MANAGER, member, arguments)
            .await
    }

    async fn call<R, B>(
        &self,
        path: &str,
        interface: &'static str,
        member: &'static str,
        arguments: &B,
    ) -> Answer<R>
    where
        R: for<'d> zbus::wire::DynamicDeserialize<'d>,
        B: Serialize + DynamicType,
    {
        let proxy = self.proxy(path, interface).await?;
        // polkit may ask the person at this terminal or desktop for a password.
        let reply = proxy
            .call_with_flags(member, MethodFlags::ALLOW_INTERACTIVE_AUTH, arguments)
            .await
            .map_err(|error| self.failed(member, error))?;
        reply.ok_or_else(|| ClientError::Answer {
            member,
            source: "there is none".into(),
        })
    }

    async fn proxy<'p>(&self, path: &str, interface: &'static str) -> Answer<Proxy<'p>> {
        let proxy = async {
            zbus::proxy::Builder::new(&self.connection)
                .destination(names::SERVICE)
                .path(path.to_owned())
                .interface(interface)
                .cache_properties(CacheProperties::No)
                .build()
                .await
        };
        proxy.await.map_err(|error| self.failed(interface, error))
    }

    fn failed(&self, member: &'static str, error: zbus::Error) -> ClientError {
        use zbus::fdo;
        let unreachable = |error| ClientError::Unreachable {
            reason: match self.choice {
                BusChoice::System => {
                    "virt-personad is not running; start it with `systemctl start virt-personad`"
                        .to_owned()
                }
                _ => format!("virt-personad does not run on {}", self.choice),
            },
            source: Some(error),
        };
        match error {
            zbus::Error::MethodError(name, message, reply) => {
                let word = word_of(name.as_str()).unwrap_or(name.as_str()).to_owned();
                let problems = reply
                    .body()
                    .deserialize::<(String, Vec<Dict>)>()
                    .ok()
                    .and_then(|(_, problems)| read_all(member, problems).ok())
                    .unwrap_or_default();
                ClientError::Refused {
                    message: message.unwrap_or_else(|| format!("{member} failed: {word}")),
                    error: word,
                    problems,
                }
            }
            zbus::Error::FDO(ref inner) => match **inner {
                fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::NoReply(_)
                | fdo::Error::NoServer(_)
                | fdo::Error::Disconnected(_)
                | fdo::Error::SpawnExecFailed(_)
                | fdo::Error::SpawnServiceNotFound(_)
                | fdo::Error::SpawnChildExited(_)
                | fdo::Error::SpawnFailed(_) => unreachable(error),
                _ => ClientError::Refused {
                    error: "Bus".to_owned(),
                    message: error.to_string(),
                    problems: Vec::new(),
                },
            },
            zbus::Error::InputOutput(_) => unreachable(error),
            other => ClientError::Answer {
                member,
                source: Box::new(other),
            },
        }
    }
}

fn options<const N: usize>(given: [(&'static str, Option<Variant<'static>>); N]) -> Given {
    given
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn format_word(format: DocumentFormat) -> Variant<'static> {
    Variant::from(match format {
        DocumentFormat::Yaml => "yaml",
        DocumentFormat::Json => "json",
        DocumentFormat::Toml => "toml",
    })
}

fn read<T: DeserializeOwned>(member: &'static str, dict: Dict) -> Answer<T> {
    from_dict(dict).map_err(|error| unreadable(member, error))
}

fn read_all<T: DeserializeOwned>(member: &'static str, dicts: Vec<Dict>) -> Answer<Vec<T>> {
    dicts.into_iter().map(|dict| read(member, dict)).collect()
}

fn unreadable(
    member: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> ClientError {
    ClientError::Answer {
        member,
        source: Box::new(error),
    }
}
