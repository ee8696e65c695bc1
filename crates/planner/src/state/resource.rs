//! What is carried of one resource of a domain: its last change, the step under way, failures, holds, quarantine. It is changed
//! as steps begin and end (`step`), and as the stages of a plan see the machine.

use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::consent::Vetoes;
use crate::peak::Peak;

/// The carried state of one resource of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// When a change last took place.
    pub changed_at: Option<Moment>,
    /// What was there before the first change of ours, in vCPUs or bytes; nothing where nothing was changed, or where a
    /// hand has had its word since.
    #[serde(default)]
    pub original: Option<u64>,
    /// The step that is being carried out. It is stored too: after a crash [`State::resume`](super::State::resume) tells from it what may have
    /// been done.
    #[serde(default)]
    pub in_flight: Option<InFlight>,
    /// What the hypervisor was asked for when it was last looked at, to see changes by hand.
    pub asked: Option<u64>,
    /// Where the last step went: a slow guest may still move towards it. Nothing after a change by hand.
    pub target: Option<u64>,
    /// A removal that was asked for may still come down to this, however late: the guest was paused, or was not heard.
    #[serde(default)]
    pub late: Option<u64>,
    /// A change by hand, or a person's word, is respected until then.
    pub held_until: Option<Moment>,
    /// Whose word it is; nobody's where somebody changed the machine itself.
    #[serde(default)]
    pub held_by: Option<String>,
    /// Steps in a row that did not take effect.
    pub failures: u32,
    /// Not tried again before.
    pub retry_at: Option<Moment>,
    /// Left alone until then, because it is stuck.
    pub quarantined_until: Option<Moment>,
    /// The guest's refusals to become smaller, in a row.
    #[serde(default)]
    pub vetoes: Option<Vetoes>,
    /// The step that was called applied last, and how often in a row.
    #[serde(default)]
    pub repeat: Option<Repeat>,
    /// The most that was in use lately, in thousandths of a vCPU or in bytes.
    #[serde(skip)]
    pub peak: Peak,
    /// What was asked for and is not there.
    #[serde(skip)]
    pub lag: Option<Lag>,
}

/// A step that was called applied once or several times in a row, with no other between. A machine that is back each time
/// where it was before has not followed, whatever was shown in the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// How often.
    pub times: u32,
}

/// A guest that does not follow what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Nothing has moved since.
    pub since: Moment,
    /// What was asked for.
    pub asked: u64,
    /// What is there.
    pub shown: u64,
}

/// A step that is being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Of which running instance.
    pub instance: Option<u32>,
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// Since.
    pub since: Moment,
    /// The rule behind it, when there is one, and whether it will be undone.
    pub effect: Option<String>,
}
