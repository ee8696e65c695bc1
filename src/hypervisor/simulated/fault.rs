//! What can go wrong with a call of the simulated hypervisor, and the record of the calls that were made.

use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;
use serde::Deserialize;

use super::super::MetadataElement;

/// A call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallName {
    /// `describe`.
    Describe,
    /// `set_vcpus`.
    SetVcpus,
    /// `set_virtio_mem`.
    SetVirtioMem,
    /// `set_balloon`.
    SetBalloon,
    /// `set_balloon_period`.
    SetBalloonPeriod,
    /// `hotpluggable_vcpus`.
    HotpluggableVcpus,
    /// `set_metadata`.
    SetMetadata,
}

impl CallName {
    /// As the trait names it.
    pub(super) const fn operation(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::SetVcpus => "set_vcpus",
            Self::SetVirtioMem => "set_virtio_mem",
            Self::SetBalloon => "set_balloon",
            Self::SetBalloonPeriod => "set_balloon_period",
            Self::HotpluggableVcpus => "hotpluggable_vcpus",
            Self::SetMetadata => "set_metadata",
        }
    }
}

/// What goes wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// The hypervisor refuses with these words; nothing changes.
    Refuse {
        /// Its words.
        message: String,
    },
    /// The call works, this much later.
    Slow {
        /// How much later, in milliseconds.
        ms: u64,
    },
    /// The domain's monitor hangs for this long; nothing changes. Longer than the deadline, the caller is told of a
    /// time-out, and further calls find the domain busy meanwhile.
    Hang {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// The call takes effect, but its answer comes only after the deadline.
    AnswerLost,
    /// The call works, but the guest stops at this size of the memory device or the balloon, until it is asked again.
    Partial {
        /// The size that it reaches, in MiB.
        reaches_mib: u64,
    },
    /// The call works, but the events that it leads to are not told.
    EventsLost,
    /// The call works, and the events that it leads to are told twice.
    EventsDuplicated,
}

/// A call that asked for a change, or asked the emulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// `set_vcpus`.
    SetVcpus {
        /// Which domain.
        domain: DomainId,
        /// The number asked for.
        count: u32,
    },
    /// `set_virtio_mem`.
    SetVirtioMem {
        /// Which domain.
        domain: DomainId,
        /// Which device.
        alias: String,
        /// The size asked for.
        requested: Bytes,
    },
    /// `set_balloon`.
    SetBalloon {
        /// Which domain.
        domain: DomainId,
        /// The size asked for.
        target: Bytes,
    },
    /// `set_balloon_period`.
    SetBalloonPeriod {
        /// Which domain.
        domain: DomainId,
        /// The period asked for.
        period: Duration,
    },
    /// `hotpluggable_vcpus`.
    HotpluggableVcpus {
        /// Which domain.
        domain: DomainId,
    },
    /// `set_metadata`.
    SetMetadata {
        /// Which domain.
        domain: DomainId,
        /// Which element.
        element: MetadataElement,
        /// What was written; absent for a removal.
        xml: Option<String>,
    },
}
