//! What is to be active on a domain, and how far that has come. What events make of it is in `transition`, what is in force
//! meanwhile in `in_force`; both are pure. The catalogue keeps the result, and the daemon sends what a transition calls for.

mod in_force;
mod transition;

use persona::{Adjustment, Digest, Moment};
use serde::{Deserialize, Serialize};

use super::composition::Composition;
use super::generation::Generation;
use super::tags::Origin;
use crate::store::{Stored, Tree};

pub use transition::{ActivationEvent, MOST_ATTEMPTS, Shown, Transition};

/// What a guest is to have active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// A persona.
    Persona {
        /// What it is made of.
        #[serde(flatten)]
        composition: Composition,
        /// Digest of what all of that means.
        digest: Digest,
        /// Why this one.
        origin: Origin,
    },
    /// No persona.
    Nothing,
}

impl Desired {
    /// Whether a guest that has the one has the other: why it is desired makes no difference to the guest.
    fn same_in_guest(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (
                Self::Persona {
                    composition,
                    digest,
                    ..
                },
                Self::Persona {
                    composition: other,
                    digest: other_digest,
                    ..
                },
            ) => composition.persona == other.persona && digest == other_digest,
            _ => false,
        }
    }

    /// Whether the one is the other but for what rules adjusted.
    fn same_persona(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Persona { composition, .. },
                Self::Persona {
                    composition: other, ..
                },
            ) => composition.plain() == other.plain(),
            _ => self == other,
        }
    }
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ActivationState {
    /// It is to be sent.
    Pending,
    /// There is no agent to send it to. The host's part of the persona is in force all the same.
    AgentAbsent,
    /// It was sent and not answered yet.
    Sent {
        /// When.
        at: Moment,
    },
    /// The guest says that it has it.
    Active {
        /// Since when that is known.
        since: Moment,
    },
    /// The guest refused it, or never answered. It is not tried again until a person asks or something else is
    /// desired.
    Failed {
        /// Why, as a sentence.
        reason: String,
    },
}

/// Why there is an activation at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// Another persona, or the same once more because a person asked for it.
    #[default]
    Persona,
    /// Nothing but what rules adjusted of the persona has changed.
    Adjustment,
}

/// One activation of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Its number.
    pub generation: Generation,
    /// What is to be active.
    pub desired: Desired,
    /// How far that has come.
    #[serde(flatten)]
    pub state: ActivationState,
    /// How often it was sent since it was wanted, or since the guest lost it.
    pub attempts: u32,
    /// When this was wanted first.
    pub wanted_at: Moment,
    /// What was in force before this one, and stays so until this one is.
    #[serde(default)]
    pub standing: Option<Composition>,
    /// What the guest said of its settings when it became active.
    #[serde(default)]
    pub remark: Option<String>,
    /// Why there is one at all.
    #[serde(default)]
    pub occasion: Occasion,
    /// What the guest confirmed last before this one. What is in force without that is what nobody could ask it to have.
    #[serde(default)]
    pub confirmed: Option<Composition>,
    /// Why `standing` is in force.
    #[serde(default)]
    pub standing_origin: Option<Origin>,
    /// What the domain is to have and failed in the guest, while this one, which goes on, is adjusted.
    #[serde(default)]
    pub failed: Option<Failure>,
}

/// What failed in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was to be active.
    pub desired: Desired,
    /// Why it is not, as a sentence.
    pub reason: String,
}

impl Stored for Activation {
    const TREE: Tree = Tree::Activations;
}

/// Whether a domain's agent is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPresence {
    /// It is.
    Present,
    /// It is not.
    Absent,
}

impl Activation {
    /// The beginning.
    pub fn new(
        generation: Generation,
        desired: Desired,
        agent: AgentPresence,
        now: Moment,
    ) -> Self {
        let state = match agent {
            AgentPresence::Present => ActivationState::Pending,
            AgentPresence::Absent => ActivationState::AgentAbsent,
        };
        Self {
            generation,
            desired,
            state,
            attempts: 0,
            wanted_at: now,
            standing: None,
            remark: None,
            occasion: Occasion::Persona,
            confirmed: None,
            standing_origin: None,
            failed: None,
        }
    }

    /// What the domain is to have, also where that has failed and what was there before goes on.
    pub fn asked_for(&self) -> &Desired {
        let failed = self.failed.as_ref();
        failed.map_or(&self.desired, |failed| &failed.desired)
    }

    /// Why the domain does not have what it is to have, where that failed in the guest.
    pub fn failure(&self) -> Option<&str> {
        match (&self.state, &self.failed) {
            (_, Some(failed)) => Some(&failed.reason),
            (ActivationState::Failed { reason }, None) => Some(reason),
            _ => None,
        }
    }

    /// What rules adjust of the persona that is to be active.
    pub fn adjustments(&self) -> &[Adjustment] {
        match &self.desired {
            Desired::Persona { composition, .. } => &composition.adjustments,
            Desired::Nothing => &[],
        }
    }

    /// Whether the guest may be at it, or may have done it: the agent was asked and is away since.
    pub fn is_under_way(&self) -> bool {
        match self.state {
            ActivationState::Pending | ActivationState::Sent { .. } => true,
            ActivationState::AgentAbsent => self.attempts > 0,
            ActivationState::Active { .. } | ActivationState::Failed { .. } => false,
        }
    }

    /// Whether it is in force: the guest has it, or nobody could ask it to have it.
    pub fn holds(&self) -> bool {
        matches!(
            self.state,
            ActivationState::Active { .. } | ActivationState::AgentAbsent
        )
    }

    /// Whether it is an activation of `desired` already, however far it has come, or stands in its place because that failed.
    pub fn satisfies(&self, desired: &Desired) -> bool {
        self.desired.same_in_guest(desired) || self.has_failed_at(desired)
    }

    /// Whether `desired` failed, and what was there before goes on in its place.
    pub fn has_failed_at(&self, desired: &Desired) -> bool {
        let failed = self.failed.as_ref();
        failed.is_some_and(|failed| failed.desired.same_in_guest(desired))
    }

    /// Whether it is to be sent.
    pub fn is_due(&self) -> bool {
        self.state == ActivationState::Pending
    }
}

#[cfg(test)]
mod tests;
