//! Why qemu-guest-agent did not do what it was asked for.

use crate::hypervisor::HypervisorError;

/// Switches CPUs.
pub(super) const SET_CPUS: &str = "guest-set-vcpus";

/// What went wrong. Words of the guest in it are cut and free of control characters.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// No answer, or the hypervisor's word that the guest's agent refused.
    #[error("qemu-guest-agent does not carry out `{command}`")]
    Unanswered {
        /// The command.
        command: &'static str,
        /// The hypervisor's own words.
        #[source]
        source: HypervisorError,
    },
    /// The guest's owner has switched a command off, or the agent is too old for it.
    #[error(
        "qemu-guest-agent of the guest does not allow `{command}`: allow it in its configuration (block-rpcs and allow-rpcs of /etc/qemu/qemu-ga.conf, or /etc/default/qemu-guest-agent), or install virt-persona-agent"
    )]
    NotAllowed {
        /// The command.
        command: &'static str,
    },
    /// It answered what it is not documented to.
    #[error("the answer of qemu-guest-agent to `{command}` cannot be read: {detail}")]
    Strange {
        /// The command.
        command: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A program in the guest did not end in time. Whether it ends later is not known.
    #[error("`{program}` in the guest did not end within {seconds} s")]
    Overran {
        /// What ran.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A file that would be written belongs to somebody else.
    #[error("{path} in the guest was not written by virt-persona; move it away")]
    Foreign {
        /// Which.
        path: &'static str,
    },
    /// A step of an activation failed in the guest; what was before is back.
    #[error("{doing} failed in the guest: {words}")]
    Failed {
        /// Which step.
        doing: String,
        /// What the guest said.
        words: String,
    },
    /// What was written is not what is read back.
    #[error("{path} in the guest does not hold what was written to it")]
    NotKept {
        /// Which file.
        path: String,
    },
}

impl StandInError {
    /// Whether CPUs were asked for and are as they were: what fails after that leaves it open.
    pub fn is_a_refusal_to_switch(&self) -> bool {
        matches!(self, Self::Unanswered { command, source }
            if *command == SET_CPUS && !source.may_have_taken_effect())
    }

    /// Whether another try may end differently without anybody's doing in the persona: the guest was not reached, or does
    /// not allow it yet. What failed in the guest is settled.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unanswered { .. } | Self::NotAllowed { .. } | Self::Strange { .. } => true,
            Self::Overran { .. }
            | Self::Foreign { .. }
            | Self::Failed { .. }
            | Self::NotKept { .. } => false,
        }
    }
}
