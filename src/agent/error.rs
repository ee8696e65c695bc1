//! Why a request to an agent failed, each as a sentence a person can act on. The link makes these, `act` and the bus
//! show them. A guest's own words are in here only as [`GuestWords`].

use std::path::PathBuf;
use std::time::Duration;

use agent_protocol::activation::ActivationRefusal;
use agent_protocol::command::CommandRefusal;
use agent_protocol::version::NoCommonVersion;
use persona::domain::DomainId;

use super::words::GuestWords;

/// Why a request has no good answer. Whether it may have taken effect is said by [`AgentError::effect`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AgentError {
    /// The domain has no link: it is off, or its definition has no channel for the agent.
    #[error(
        "domain {domain} has no channel to an agent; it is off, or its definition lacks the port org.virtpersona.agent.0"
    )]
    NotAttached {
        /// Which.
        domain: DomainId,
    },
    /// There is a channel, but no agent answers on it.
    #[error(
        "no agent answers in domain {domain}; is virt-persona-agent installed and running in the guest?"
    )]
    NotConnected {
        /// Which.
        domain: DomainId,
    },
    /// Another process owns the channel.
    #[error("the channel of domain {domain} belongs to another process, which holds {}; stop that one", path.display())]
    OwnedElsewhere {
        /// Which.
        domain: DomainId,
        /// The lock file.
        path: PathBuf,
    },
    /// Agent and daemon have no protocol version in common.
    #[error("daemon and agent of domain {domain} cannot talk")]
    VersionMismatch {
        /// Which.
        domain: DomainId,
        /// Both ranges.
        #[source]
        source: NoCommonVersion,
    },
    /// The guest sent more than it may and was disconnected for a while.
    #[error("the agent of domain {domain} sent more than it may; it is disconnected for {} s", pause.as_secs())]
    Flooding {
        /// Which.
        domain: DomainId,
        /// How long from the moment of the overflow.
        pause: Duration,
    },
    /// Too much is under way already.
    #[error(
        "`{operation}` was not sent to domain {domain}: {in_flight} requests to its agent wait for their answer; try again later"
    )]
    Busy {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// Requests under way.
        in_flight: usize,
    },
    /// A request of the same id is under way.
    #[error("`{operation}` was not sent to domain {domain}: a request of the id {id} is under way")]
    AlreadyUnderWay {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// The id.
        id: String,
    },
    /// The activation breaks a bound that the agent holds it to.
    #[error("the activation for domain {domain} was not sent because it is not valid")]
    InvalidActivation {
        /// Which domain.
        domain: DomainId,
        /// What is wrong with it.
        #[source]
        source: ActivationRefusal,
    },
    /// The command breaks a bound that the agent holds it to.
    #[error("the command for domain {domain} was not sent because it is not valid")]
    InvalidCommand {
        /// Which domain.
        domain: DomainId,
        /// What is wrong with it.
        #[source]
        source: CommandRefusal,
    },
    /// The request cannot be put into frames.
    #[error("`{operation}` for domain {domain} is too large to send: {detail}")]
    TooLarge {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// Sizes.
        detail: String,
    },
    /// No answer came in time.
    #[error("the agent of domain {domain} did not answer `{operation}` within {} s; whether it took effect is not known", deadline.as_secs_f64())]
    TimedOut {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// The deadline.
        deadline: Duration,
    },
    /// The connection was lost before the answer came, and the request is not one to repeat.
    #[error(
        "the connection to the agent of domain {domain} was lost before it answered `{operation}`: {reason}"
    )]
    Interrupted {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: super::LostReason,
    },
    /// The agent refused, in its own words.
    #[error("the agent of domain {domain} refused `{operation}` ({code}): {message}")]
    Refused {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// Its error code.
        code: GuestWords,
        /// Its sentence.
        message: GuestWords,
        /// Whether it says that a later try may succeed.
        retry: Retry,
    },
    /// The agent answered something that does not fit the request.
    #[error("the agent of domain {domain} answered `{operation}` with something else: {detail}")]
    BadAnswer {
        /// Which domain.
        domain: DomainId,
        /// The operation.
        operation: &'static str,
        /// What was wrong with it; none of the guest's words.
        detail: String,
    },
}

/// What a refusing agent says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request may succeed later.
    Later,
    /// It will not.
    Never,
}

/// Whether a failed request may have changed the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was not sent, or the agent said no.
    None,
    /// It may have; ask again with the same id, or look at the guest.
    Unknown,
}

impl AgentError {
    /// Whether the request may have changed the guest although it failed.
    pub fn effect(&self) -> Effect {
        match self {
            Self::NotAttached { .. }
            | Self::NotConnected { .. }
            | Self::OwnedElsewhere { .. }
            | Self::VersionMismatch { .. }
            | Self::Flooding { .. }
            | Self::Busy { .. }
            | Self::AlreadyUnderWay { .. }
            | Self::TooLarge { .. }
            | Self::InvalidActivation { .. }
            | Self::InvalidCommand { .. }
            | Self::Refused { .. } => Effect::None,
            Self::TimedOut { .. } | Self::Interrupted { .. } | Self::BadAnswer { .. } => {
                Effect::Unknown
            }
        }
    }
}
