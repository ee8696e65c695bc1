//! Why a call to a hypervisor failed, and what is known of the domain then. The words of the management library stay words:
//! nothing outside this folder has its types.

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The connection is down.
    #[error(
        "the hypervisor is not reachable, so `{operation}` was not tried; is libvirtd running?"
    )]
    NotConnected {
        /// The call.
        operation: &'static str,
    },
    /// The call did not end in time; whether it took effect is not known.
    #[error(
        "`{operation}` of domain {domain} did not end within {seconds} s; whether it took effect is not known"
    )]
    TimedOut {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
        /// The deadline.
        seconds: u64,
    },
    /// Earlier calls for this domain still hang, so this one was not started.
    #[error(
        "`{operation}` of domain {domain} was not tried because an earlier call to its monitor still hangs"
    )]
    Busy {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
    },
    /// There is no such domain (any more).
    #[error("there is no domain {domain}")]
    NoDomain {
        /// Which.
        domain: String,
    },
    /// The hypervisor refused; its own words are the source.
    #[error("`{operation}` of domain {domain} failed")]
    Failed {
        /// The call.
        operation: &'static str,
        /// Which domain, or `-` for the host.
        domain: String,
        /// The library's own words.
        #[source]
        source: LibraryError,
    },
    /// The connection broke while the call ran; whether it took effect is not known.
    #[error(
        "the connection broke during `{operation}` of domain {domain}; whether it took effect is not known"
    )]
    Lost {
        /// The call.
        operation: &'static str,
        /// Which domain, or `-` for the host.
        domain: String,
        /// The library's own words.
        #[source]
        source: LibraryError,
    },
    /// No thread is free for the call, so it was not started.
    #[error(
        "`{operation}` of domain {domain} was not tried because {calls} earlier calls still hang; is libvirtd stuck?"
    )]
    Overloaded {
        /// The call.
        operation: &'static str,
        /// Which domain, or `-` for the host.
        domain: String,
        /// How many calls may run at once.
        calls: usize,
    },
    /// The domain has no such device (any more).
    #[error("`{operation}` of domain {domain} was not tried because it has no device `{alias}`")]
    NoDevice {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
        /// The alias that was asked for.
        alias: String,
    },
    /// The definition is no longer the one that was to be replaced.
    #[error(
        "`{operation}` of domain {domain} was not tried because its definition was changed meanwhile"
    )]
    DefinitionChanged {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
    },
    /// The hypervisor answered something that cannot be understood.
    #[error("`{operation}` of domain {domain} gave an answer that cannot be read: {detail}")]
    BadAnswer {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
        /// What was wrong with it.
        detail: String,
    },
}

impl HypervisorError {
    /// Whether the call was not tried because nothing at all can be: it says nothing of the domain.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::NotConnected { .. })
    }

    /// Whether the call may have taken effect all the same, so that only a look at the domain tells.
    pub const fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Lost { .. } | Self::BadAnswer { .. } => true,
            Self::NotConnected { .. }
            | Self::Busy { .. }
            | Self::Overloaded { .. }
            | Self::NoDomain { .. }
            | Self::NoDevice { .. }
            | Self::DefinitionChanged { .. }
            | Self::Failed { .. } => false,
        }
    }
}

/// The words of the management library, free of its types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LibraryError {
    /// The library's message.
    pub message: String,
    /// Its error number (`virErrorNumber`), where it has one.
    pub code: Option<u32>,
}
