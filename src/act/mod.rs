//! Carries out one step of a plan and looks at what came of it. Nothing is chosen here: the step says what shall be in
//! force, and the outcome says what host and guest show afterwards. A hypervisor's "ok" is not success.
//!
//! ```text
//! Step -> ask -> vcpu | memory -> ask guest and hypervisor -> look at both until they agree or the deadline passes -> Outcome
//! LimitStep -> limit -> ask the hypervisor -> look at kernel and emulator -> LimitOutcome
//! ```
//!
//! The daemon runs each step in a task of its own; a domain has at most one step a resource under way. Every step is
//! idempotent: it names the amount that shall be in force, so doing it again after a crash changes nothing more.

mod ask;
mod guest;
pub mod limit;
mod memory;
mod notices;
mod stand_in;
mod vcpu;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use persona::rule::Resource;
use planner::report::amount_text;
use planner::{Ending, Step, Veto};
use serde::Serialize;

use crate::config::VcpuRemoval;
use crate::hypervisor::Hypervisor;

pub use guest::{Answer, CpusOnline, Guest, GuestFault};
pub use notices::Notices;
pub use stand_in::GuestOrStandIn;

/// What carries steps out.
#[derive(Clone)]
pub struct Hands {
    /// The host's side.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The guest's side.
    pub guest: Arc<dyn Guest>,
    /// What the hypervisor tells while steps are under way.
    pub notices: Notices,
    /// Deadlines and the policy of removal.
    pub settings: Settings,
}

/// How steps are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A vCPU step has to be seen within this.
    pub vcpu_deadline: Duration,
    /// A memory step has to be seen within this.
    pub memory_deadline: Duration,
    /// The guest has to agree to a shrink within this, and to hear of a growth.
    pub consent_deadline: Duration,
    /// Whether a vCPU that the guest no longer uses is unplugged too.
    pub removal: VcpuRemoval,
}

/// How a step ended, and what was seen.
#[must_use = "an outcome that is not recorded leaves the step in flight for ever"]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// How it ended.
    pub ending: Ending,
    /// What was asked for, in vCPUs or bytes.
    pub requested: u64,
    /// What the hypervisor shows as plugged, where it could be asked.
    pub plugged: Option<u64>,
    /// What the guest shows, where it could be asked.
    pub guest: Option<u64>,
    /// What the hypervisor shows as asked for, which is what a change by hand would change.
    pub asked: Option<u64>,
    /// What the step leaves behind.
    pub aftermath: Aftermath,
    /// Anything out of the ordinary, as one sentence.
    pub note: Option<String>,
    /// The guest was asked and did not agree; nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub veto: Option<Veto>,
    /// The hypervisor could not be reached before anything was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untried: bool,
}

/// What a step leaves behind that later ones have to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aftermath {
    /// Nothing.
    #[default]
    Nothing,
    /// The guest cannot bring a plugged CPU online before it reboots.
    NeedsReboot,
    /// The removal of a device was asked for and may still take place.
    RemovalPending,
    /// Somebody else asked the machine for another size meanwhile, which the step has left alone.
    AskedByOthers,
}

impl Outcome {
    /// One line for the log and the audit.
    pub fn sentence(&self) -> String {
        let resource = self.step.resource;
        let seen = |amount: Option<u64>| {
            amount.map_or_else(|| "unknown".into(), |amount| amount_text(resource, amount))
        };
        let ending = match self.ending {
            Ending::Applied => "applied",
            Ending::Partial => "partly applied",
            Ending::Refused => "refused",
            Ending::Unknown => "of unknown outcome",
        };
        let what = match resource {
            Resource::Vcpus => "vCPUs",
            Resource::Memory => "memory",
        };
        let note = self
            .note
            .as_ref()
            .map(|note| format!("; {note}"))
            .unwrap_or_default();
        format!(
            "{what} {}: {ending} (requested {}, plugged {}, guest-visible {}){note}",
            self.step.sentence(),
            amount_text(resource, self.requested),
            seen(self.plugged),
            seen(self.guest),
        )
    }
}

/// Carries out one step.
pub async fn act(hands: &Hands, step: Step) -> Outcome {
    let before = match ask::before(hands, &step).await {
        Ok(note) => note,
        Err(outcome) => return *outcome,
    };
    let outcome = match step.resource {
        Resource::Vcpus => vcpu::act(hands, step).await,
        Resource::Memory => memory::act(hands, step).await,
    };
    ask::after(hands, outcome, before).await
}

/// An error with its causes, in one line.
pub(crate) fn sentence_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
