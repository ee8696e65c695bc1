//! The guest's side of an action, as `act` needs it: CPUs brought online and taken offline, and what the guest sees of
//! its memory. Implemented by the agent's registry; tests have their own.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use agent_protocol::message::ErrorCode;
use agent_protocol::{Operation, Resize};
use persona::domain::DomainId;
use persona::units::Bytes;

use crate::agent::{AgentError, AgentReply, Consent, Effect, Registry};

/// An answer in the making.
pub(crate) type GuestAnswer<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, GuestFault>> + Send + 'a>>;

/// CPUs as the guest shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpusOnline {
    /// Online.
    pub online: u32,
    /// Plugged, online or not.
    pub present: u32,
}

/// What a guest says about becoming smaller. The text is free of control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It agrees.
    Agreed,
    /// Its agent knows no such question, or its owner does not want it asked.
    NotAsked,
    /// It does not agree.
    Refused {
        /// Why.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
}

/// What can be asked of a guest.
pub trait Guest: Send + Sync + 'static {
    /// Makes exactly `target` CPUs online, and says what is online then.
    fn online_cpus(
        &self,
        domain: DomainId,
        target: u32,
        deadline: Duration,
    ) -> GuestAnswer<'_, CpusOnline>;
    /// The memory that the guest shows as its own.
    fn memory_total(&self, domain: DomainId, deadline: Duration) -> GuestAnswer<'_, Bytes>;
    /// Whether it agrees to become smaller.
    fn prepare_shrink(&self, _: DomainId, _: Resize, _: Duration) -> GuestAnswer<'_, Answer> {
        Box::pin(async { Ok(Answer::NotAsked) })
    }
    /// Tells it that it has grown. Returns what failed in the guest because of it.
    fn grown(&self, _: DomainId, _: Resize, _: Duration) -> GuestAnswer<'_, Option<String>> {
        Box::pin(async { Ok(None) })
    }
}

/// Why the guest did not answer as asked. The text is free of control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// Nobody there to ask: nothing has happened.
    #[error("the guest was not asked: {0}")]
    Absent(String),
    /// It refused, or could not: nothing has happened.
    #[error("the guest refused: {0}")]
    Refused(String),
    /// It cannot, and will not be able to before it reboots: nothing has happened.
    #[error("the guest cannot before it reboots: {0}")]
    NeedsReboot(String),
    /// It is not known whether it did it.
    #[error("the guest did not answer: {0}")]
    Unknown(String),
}

impl Guest for Registry {
    fn online_cpus(
        &self,
        domain: DomainId,
        target: u32,
        deadline: Duration,
    ) -> GuestAnswer<'_, CpusOnline> {
        Box::pin(async move {
            let operation = Operation::OnlineCpus { target };
            match self.request(domain, None, operation, deadline).await {
                Ok(AgentReply::OnlineCpus {
                    online, present, ..
                }) => Ok(CpusOnline {
                    online: online.count(),
                    present: present.count(),
                }),
                Ok(other) => Err(strange(&other)),
                Err(error) => Err(fault(&error)),
            }
        })
    }

    fn memory_total(&self, domain: DomainId, deadline: Duration) -> GuestAnswer<'_, Bytes> {
        Box::pin(async move {
            match self
                .request(domain, None, Operation::Report, deadline)
                .await
            {
                Ok(AgentReply::Report(report)) => Ok(Bytes::from_kib(report.memory_total_kib)),
                Ok(other) => Err(strange(&other)),
                Err(error) => Err(fault(&error)),
            }
        })
    }

    fn prepare_shrink(
        &self,
        domain: DomainId,
        resize: Resize,
        deadline: Duration,
    ) -> GuestAnswer<'_, Answer> {
        Box::pin(async move {
            let operation = Operation::PrepareShrink { resize };
            match self.request(domain, None, operation, deadline).await {
                Ok(AgentReply::Consent(Consent::Agreed)) => Ok(Answer::Agreed),
                Ok(AgentReply::Consent(Consent::Refused {
                    reason,
                    retry_after,
                })) => Ok(Answer::Refused {
                    reason: reason.as_str().to_owned(),
                    retry_after,
                }),
                Ok(other) => Err(strange(&other)),
                Err(error) if has_no_say(&error) => Ok(Answer::NotAsked),
                Err(error) => Err(fault(&error)),
            }
        })
    }

    fn grown(
        &self,
        domain: DomainId,
        resize: Resize,
        deadline: Duration,
    ) -> GuestAnswer<'_, Option<String>> {
        Box::pin(async move {
            let operation = Operation::Grown { resize };
            match self.request(domain, None, operation, deadline).await {
                Ok(AgentReply::Grown { failed }) => {
                    Ok(failed.map(|words| words.as_str().to_owned()))
                }
                Ok(other) => Err(strange(&other)),
                Err(error) if has_no_say(&error) => Ok(None),
                Err(error) => Err(fault(&error)),
            }
        })
    }
}

/// Whether an agent knows nothing of the question, or its guest's owner does not want it asked.
fn has_no_say(error: &AgentError) -> bool {
    matches!(error, AgentError::Refused { code, .. } if matches!(code.as_str(), "unsupported" | "forbidden"))
}

/// The link gives each operation the answer that belongs to it; anything else says nothing of the guest.
fn strange(reply: &AgentReply) -> GuestFault {
    GuestFault::Unknown(format!("it answered something else: {reply:?}"))
}

fn fault(error: &AgentError) -> GuestFault {
    let text = super::sentence_of(error);
    match (error.effect(), error) {
        (Effect::Unknown, _) => GuestFault::Unknown(text),
        (Effect::None, AgentError::Refused { code, .. })
            if code.as_str() == ErrorCode::CpuStuck.as_str() =>
        {
            GuestFault::NeedsReboot(text)
        }
        (Effect::None, AgentError::Refused { .. }) => GuestFault::Refused(text),
        (Effect::None, _) => GuestFault::Absent(text),
    }
}
