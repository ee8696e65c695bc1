//! Who may do what. Reading is for every local user. A change, and a copy of a recording, is asked of polkit on the system
//! bus; where polkit does not answer, and on any other bus than the system's, only root and the daemon's own user may do it.

use std::collections::HashMap;
use std::time::Duration;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus::names::BusName;
use zbus::proxy::CacheProperties;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use super::error::Failure;
use super::names::Action;
use crate::command::{Caller, Refusal};

/// A person at a password prompt gets this long; then the call is refused rather than kept.
const PROMPT: Duration = Duration::from_secs(120);

/// Whether polkit is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polkit {
    /// It is: this is the bus on which it serves.
    Ask,
    /// It is not: it could not know the callers on this bus.
    Absent,
}

/// Identifies callers and decides about them.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    connection: Connection,
    polkit: Polkit,
}

impl Authority {
    pub(super) fn new(connection: Connection, polkit: Polkit) -> Self {
        Self { connection, polkit }
    }

    /// Who sent this call, as the bus itself says.
    pub(super) async fn caller(&self, call: &Header<'_>) -> Result<Caller, Failure> {
        let unknown = |reason: String| {
            Failure::from(Refusal::Failed {
                operation: "identifying the caller".to_owned(),
                reason,
            })
        };
        let Some(sender) = call.sender() else {
            return Err(unknown("the call names no sender".to_owned()));
        };
        let bus = DBusProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(|error| unknown(error.to_string()))?;
        let uid = bus
            .get_connection_unix_user(BusName::from(sender.to_owned()))
            .await
            .map_err(|error| unknown(error.to_string()))?;
        // The user database may be a directory on the network, so it is not asked on a thread of the run time.
        let name = tokio::task::spawn_blocking(move || {
            nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
                .ok()
                .flatten()
                .map_or_else(|| format!("uid {uid}"), |user| user.name)
        })
        .await
        .unwrap_or_else(|_| format!("uid {uid}"));
        Ok(Caller { uid, name })
    }

    /// Whether this caller may do this. The details are what polkit's rules can look up.
    pub(super) async fn check(
        &self,
        call: &Header<'_>,
        caller: &Caller,
        action: Action,
        details: &HashMap<&str, &str>,
    ) -> Result<(), Failure> {
        // polkit grants root everything, so it is not asked; a polkit that hangs does not lock root out.
        if caller.uid == 0 || caller.uid == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        let reason = match self.polkit {
            Polkit::Absent => "on this bus only root and the daemon's own user may do it",
            Polkit::Ask => match self.ask(call, action, details).await {
                Answer::Granted => return Ok(()),
                Answer::Denied => "polkit's rules do not allow it",
                Answer::NeedsPassword => {
                    "polkit asks for an administrator's password, and no one was there to give it"
                }
                Answer::Silent(error) => {
                    tracing::warn!(
                        action = action.id(),
                        error,
                        "polkit does not answer, so only root may do it"
                    );
                    "polkit does not answer on this host, so only root may do it"
                }
            },
        };
        Err(Failure::from(Refusal::NotAuthorized {
            caller: caller.name.clone(),
            action: action.id().to_owned(),
            reason: reason.to_owned(),
        }))
    }

    async fn ask(
        &self,
        call: &Header<'_>,
        action: Action,
        details: &HashMap<&str, &str>,
    ) -> Answer {
        let interactive = call
            .primary()
            .flags()
            .contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let flags = if interactive {
            CheckAuthorizationFlags::ALLOW_USER_INTERACTION
        } else {
            CheckAuthorizationFlags::empty()
        };
        let question = async {
            let polkit = AuthorityProxy::builder(&self.connection)
                .cache_properties(CacheProperties::No)
                .build()
                .await
                .map_err(|error| error.to_string())?;
            let subject =
                Subject::new_for_message_header(call).map_err(|error| error.to_string())?;
            polkit
                .check_authorization(&subject, action.id(), details, flags, "")
                .await
                .map_err(|error| error.to_string())
        };
        match tokio::time::timeout(PROMPT, question).await {
            Ok(Ok(result)) if result.is_authorized => Answer::Granted,
            Ok(Ok(result)) if result.is_challenge => Answer::NeedsPassword,
            Ok(Ok(_)) => Answer::Denied,
            Ok(Err(error)) => Answer::Silent(error),
            Err(_) => Answer::Silent("no answer in time".to_owned()),
        }
    }
}

/// What polkit said.
enum Answer {
    Granted,
    Denied,
    NeedsPassword,
    Silent(String),
}
