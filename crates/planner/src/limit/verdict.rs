//! What became of one knob in one pass, as values and in words.

use persona::rule::{Knob, KnobValue};
use serde::Serialize;

use crate::report::{Reason, Wish};
use crate::snapshot::{KnobReading, Obstacle};

/// What a knob shows, for people.
pub fn reading_text(knob: Knob, reading: KnobReading) -> String {
    match reading {
        KnobReading::Set { value, .. } => knob.text(value),
        KnobReading::Uneven { .. } => "each device its own".into(),
        KnobReading::Unable(_) | KnobReading::Unknown => "unknown".into(),
    }
}

/// What became of one knob in one pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitReport {
    /// Which.
    pub knob: Knob,
    /// What it showed.
    pub present: KnobReading,
    /// What it showed before our first turn, where we have turned it.
    pub original: Option<KnobValue>,
    /// What is wanted.
    pub wanted: Option<KnobValue>,
    /// Who wants it.
    pub by: Option<Wish>,
    /// What will be done, or why nothing is.
    pub verdict: LimitVerdict,
}

/// What becomes of a wish for a knob.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitVerdict {
    /// It is what it shall be.
    Content,
    /// It is turned to this.
    Step(KnobValue),
    /// Nothing is done, and this is why.
    No(LimitReason),
}

impl LimitVerdict {
    /// Whether the knob is turned, or will be without anybody's doing.
    pub(crate) fn is_under_way(&self) -> bool {
        match self {
            Self::Step(_) | Self::No(LimitReason::InFlight(_)) => true,
            Self::No(LimitReason::Guard(reason)) => {
                matches!(reason, Reason::Waiting { .. } | Reason::Quarantined { .. })
            }
            Self::Content | Self::No(_) => false,
        }
    }
}

/// Why a wish for a knob is not followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitReason {
    /// What stands against a change of vCPUs and memory stands against this too.
    Guard(Reason),
    /// An earlier turn is being carried out and verified.
    InFlight(KnobValue),
    /// It cannot be turned.
    Unable(Obstacle),
    /// Its devices are not limited alike, and not by us.
    Uneven,
    /// Nobody has looked yet.
    Unknown,
}

impl LimitReason {
    /// One sentence that a person can act on.
    pub fn sentence(&self, knob: Knob) -> String {
        match self {
            // None of those that stand against a knob shows an amount of the resource.
            Self::Guard(reason) => reason.sentence(persona::rule::Resource::Vcpus),
            Self::InFlight(to) => {
                format!("a turn to {} is being carried out and verified", knob.text(*to))
            }
            Self::Unable(Obstacle::NoDevice) if knob == Knob::NetworkBandwidth => {
                "the domain has no network interface, so there is nothing to limit".into()
            }
            Self::Unable(Obstacle::NoDevice) => {
                "the domain has no disk, so there is nothing to limit".into()
            }
            Self::Unable(Obstacle::NoHostDevice) => {
                "an interface has no device on the host, as in user mode, so nothing there can limit it; give it a bridge or a network".into()
            }
            Self::Unable(Obstacle::OwnLimits) => format!(
                "the domain's definition limits devices in its own way, which one {knob} over all would overwrite; take <{}> out of it",
                if knob == Knob::NetworkBandwidth { "bandwidth" } else { "iotune" }
            ),
            Self::Unable(Obstacle::NoHypervisor) => {
                "the hypervisor is not connected, so nothing can be changed or verified; `virt-persona doctor` says why".into()
            }
            Self::Uneven => format!(
                "the domain's devices are not limited alike, and one {knob} over all could not give that back; make them alike"
            ),
            Self::Unknown => "nobody has looked at it yet".into(),
        }
    }
}
