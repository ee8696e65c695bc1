//! What can go wrong with a call of the simulated hypervisor, and the record of the calls that were made.

use std::time::Duration;

use agent_protocol::Operation;
use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
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
    /// `attach_dimm`.
    AttachDimm,
    /// `set_balloon`.
    SetBalloon,
    /// `set_balloon_period`.
    SetBalloonPeriod,
    /// `hotpluggable_vcpus`.
    HotpluggableVcpus,
    /// `set_limit`.
    SetLimit,
    /// `limits`.
    Limits,
    /// `set_metadata`.
    SetMetadata,
    /// What the guest's agent is asked to do with its CPUs.
    GuestCpus,
    /// An activation or deactivation in the guest.
    GuestActivation,
    /// A report that the guest's agent is asked for.
    GuestReport,
    /// The guest's agent is asked before a shrink.
    GuestConsent,
    /// The guest's agent is told of a growth.
    GuestGrowth,
    /// `definitions`.
    Definitions,
    /// `redefine`.
    Redefine,
    /// `attach_device`.
    AttachDevice,
}

impl CallName {
    /// What an agent is asked; absent for what has no faults.
    pub(super) const fn of_guest(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::OnlineCpus { .. } => Some(Self::GuestCpus),
            Operation::Activate { .. } | Operation::Deactivate { .. } => {
                Some(Self::GuestActivation)
            }
            Operation::Report => Some(Self::GuestReport),
            Operation::PrepareShrink { .. } => Some(Self::GuestConsent),
            Operation::Grown { .. } => Some(Self::GuestGrowth),
            Operation::OpStatus { .. }
            | Operation::Exec { .. }
            | Operation::Perform { .. }
            | Operation::RuleRecords { .. }
            | Operation::Unknown(_) => None,
        }
    }

    /// As the trait names it.
    pub(super) const fn operation(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::SetVcpus => "set_vcpus",
            Self::SetVirtioMem => "set_virtio_mem",
            Self::AttachDimm => "attach_dimm",
            Self::SetBalloon => "set_balloon",
            Self::SetBalloonPeriod => "set_balloon_period",
            Self::HotpluggableVcpus => "hotpluggable_vcpus",
            Self::SetLimit => "set_limit",
            Self::Limits => "limits",
            Self::SetMetadata => "set_metadata",
            Self::GuestCpus => "online_cpus",
            Self::GuestActivation => "activate",
            Self::GuestReport => "report",
            Self::GuestConsent => "prepare_shrink",
            Self::GuestGrowth => "grown",
            Self::Definitions => "definitions",
            Self::Redefine => "redefine",
            Self::AttachDevice => "attach_device",
        }
    }
}

/// What goes wrong with one call. Of what the guest's agent is asked the answer counts as the event: lost, told twice or
/// late.
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
    /// The call works, but the guest stops at this size of the memory device or the balloon, until it is asked again. Of
    /// vCPUs and CPUs one fewer is switched than was asked for, whatever the size; an activation fails at its end; a
    /// hook of the guest fails, which is against a shrink and no matter to a growth;
    /// of a limit over several devices only the first has it.
    Partial {
        /// The size that it reaches, in MiB.
        reaches_mib: u64,
    },
    /// The call works, but the events that it leads to are not told.
    EventsLost,
    /// The call works, and the events that it leads to are told twice.
    EventsDuplicated,
    /// The call works, and the events that it leads to are told this much later.
    EventsLate {
        /// How much later, in milliseconds.
        ms: u64,
    },
    /// The call takes effect, and the connection breaks before the answer; it comes back after this time.
    ConnectionLost {
        /// How long it is away, in milliseconds.
        ms: u64,
    },
    /// The call takes effect, and the domain is started anew before the answer.
    Dies,
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
    /// `attach_dimm`.
    AttachDimm {
        /// Which domain.
        domain: DomainId,
        /// The size asked for.
        size: Bytes,
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
    /// `set_limit`.
    SetLimit {
        /// Which domain.
        domain: DomainId,
        /// Which knob.
        knob: Knob,
        /// The value asked for.
        to: KnobValue,
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
    /// `redefine`.
    Redefine {
        /// Which domain.
        domain: DomainId,
        /// What it was to become.
        to: String,
    },
    /// `attach_device`.
    AttachDevice {
        /// Which domain.
        domain: DomainId,
        /// The device's element.
        device: String,
    },
}
