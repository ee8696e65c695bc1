//! A firing of a rule from its intent on, and what is carried of a rule: the words of the files. The log reads and writes them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_protocol::{
    RequestId,
    rules::{RuleBy, RuleDeed, RuleEdge, RuleReading},
};
use persona::rule::Latch;
use serde::{Deserialize, Serialize};

use crate::telemetry::boot_time;

/// When a rule fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fired {
    pub(crate) boot_id: String,
    /// Milliseconds since that boot.
    pub(crate) boot_ms: u64,
    /// Milliseconds since 1970 by the guest's clock.
    pub(crate) unix_ms: u64,
}

impl Fired {
    /// Now.
    pub(crate) fn now(boot_id: &str) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            boot_id: boot_id.to_owned(),
            boot_ms: millis(boot_time()),
            unix_ms: millis(unix.unwrap_or_default()),
        }
    }

    /// How long ago that was; long ago where the clock was put back since.
    pub(crate) fn ago(&self, now: &Self) -> Duration {
        let (then, now) = if self.boot_id == now.boot_id {
            (self.boot_ms, now.boot_ms)
        } else {
            (self.unix_ms, now.unix_ms)
        };
        now.checked_sub(then)
            .map_or(Duration::MAX, Duration::from_millis)
    }
}

/// What is carried of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) latch: Latch,
    #[serde(default)]
    pub(crate) fired: Option<Fired>,
}

/// What is carried of all rules of a persona.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Which persona's.
    pub(crate) digest: String,
    pub(crate) rules: BTreeMap<String, Kept>,
}

/// A firing that is about to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) generation: u64,
    pub(crate) persona: String,
    pub(crate) digest: String,
    pub(crate) rule: String,
    pub(crate) edge: RuleEdge,
    /// All actions, as text.
    pub(crate) actions: Vec<String>,
    pub(crate) readings: Vec<RuleReading>,
    /// Who evaluated the rule.
    #[serde(default)]
    pub(crate) by: RuleBy,
    /// The host's request, where it evaluated the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<RequestId>,
    /// What is carried of the rule from here on; of the host's nothing is.
    pub(crate) kept: Option<Kept>,
    /// When it fired.
    pub(crate) fired: Fired,
    /// What came of the first actions.
    #[serde(default)]
    pub(crate) deeds: Vec<RuleDeed>,
}

/// An intent that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(super) number: u64,
    /// Marks the processes of its actions.
    pub(crate) request: RequestId,
}

/// Unique for ever, also over restarts that give the number once more: the moment goes with it.
pub(super) fn request_of(intent: &Intent, number: u64) -> String {
    format!("rule-{number}-{}", intent.fired.unix_ms)
}
