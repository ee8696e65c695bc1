//! How far an activation comes: each event makes of it another one, or nothing. Pure; the catalogue keeps what is different,
//! and what is in force meanwhile is in `in_force`.
//!
//! ```text
//!             wanted, agent there          sent               acknowledged
//!   (want) ─────────────────────▶ Pending ──────▶ Sent ─────────────────────▶ Active
//!      │  agent away                 ▲  ▲          │ │ refused, or no answer
//!      └──────────▶ AgentAbsent ─────┘  └──────────┘ └─────────────────────▶ Failed
//!                  agent comes         no answer yet     after MOST_ATTEMPTS
//! ```
//!
//! Answers carry the generation; those of another one change nothing. When an agent comes (also after a reboot of
//! the guest or a restart of either side) it says what it has active: that settles an activation whose
//! acknowledgement was lost, and starts anew one that the guest no longer shows.

use persona::{Digest, Moment};

use super::{Activation, ActivationState, Desired};
use crate::catalog::generation::Generation;

/// How often an activation is sent before silence counts as failure.
pub const MOST_ATTEMPTS: u32 = 3;

/// What an agent says that it has active: a claim of the guest, compared and never adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A persona.
    Persona {
        /// Of which activation.
        generation: Generation,
        /// Digest of its meaning.
        digest: Digest,
    },
    /// Nothing.
    Nothing,
}

/// What happened to an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivationEvent {
    /// The agent connected and says what it has.
    AgentCame(Shown),
    /// The agent is gone.
    AgentLeft,
    /// The activation was put on its way.
    Sent,
    /// The agent did it.
    Acknowledged(Generation),
    /// The agent did it and said this of the settings; that it is active is told by another event.
    Remarked(Generation, Option<String>),
    /// The agent refused it or failed, for this reason.
    Refused(Generation, String),
    /// The agent did not answer in time.
    Silent(Generation),
}

/// What an event made of an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and none is kept"
)]
pub enum Transition {
    /// It is different, and is to be kept.
    Changed(Activation),
    /// Nothing to do.
    Same,
    /// The event belongs to another generation.
    Stale,
}

impl Activation {
    /// What `event` makes of it.
    #[must_use]
    pub fn next(&self, event: ActivationEvent, now: Moment) -> Transition {
        match self.transition(event, now) {
            Transition::Changed(next) => Transition::Changed(Self {
                standing: if next.holds() { None } else { self.in_force() },
                standing_origin: if next.holds() {
                    None
                } else {
                    self.origin_in_force()
                },
                ..next
            }),
            other => other,
        }
    }

    fn transition(&self, event: ActivationEvent, now: Moment) -> Transition {
        use ActivationState::{Active, AgentAbsent, Failed, Pending, Sent};
        let stale = |generation: Generation| generation != self.generation;
        match event {
            ActivationEvent::Acknowledged(generation)
            | ActivationEvent::Remarked(generation, _)
            | ActivationEvent::Refused(generation, _)
            | ActivationEvent::Silent(generation)
                if stale(generation) =>
            {
                Transition::Stale
            }
            ActivationEvent::AgentCame(shown) if self.is_shown(&shown) => match self.state {
                Active { .. } => Transition::Same,
                _ => self.with(Active { since: now }),
            },
            // The guest lost what it had, or never got it. Attempts go on being counted, so an activation that
            // takes the agent down with it each time ends. What failed is not tried again by itself.
            ActivationEvent::AgentCame(_) => match self.state {
                Failed { .. } | Pending => Transition::Same,
                Active { .. } => Transition::Changed(Self {
                    state: Pending,
                    attempts: 0,
                    ..self.clone()
                }),
                AgentAbsent | Sent { .. } => self.try_again(),
            },
            // A guest that shows it keeps it while its agent is away.
            ActivationEvent::AgentLeft => match self.state {
                Pending | Sent { .. } => self.with(AgentAbsent),
                _ => Transition::Same,
            },
            ActivationEvent::Sent => match self.state {
                Pending => Transition::Changed(Self {
                    state: Sent { at: now },
                    attempts: self.attempts.saturating_add(1),
                    ..self.clone()
                }),
                _ => Transition::Same,
            },
            // Late but true: the guest did it, whatever had been concluded meanwhile.
            ActivationEvent::Acknowledged(_) => match self.state {
                Active { .. } => Transition::Same,
                _ => self.with(Active { since: now }),
            },
            ActivationEvent::Remarked(_, remark) => Transition::Changed(Self {
                remark,
                ..self.clone()
            }),
            ActivationEvent::Refused(_, reason) => self.with(Failed { reason }),
            ActivationEvent::Silent(_) => match self.state {
                Sent { .. } => self.try_again(),
                _ => Transition::Same,
            },
        }
    }

    /// Pending once more, unless it was sent often enough.
    fn try_again(&self) -> Transition {
        if self.attempts < MOST_ATTEMPTS {
            return self.with(ActivationState::Pending);
        }
        let reason = format!(
            "the agent was asked {} times and never said that it is done",
            self.attempts
        );
        self.with(ActivationState::Failed { reason })
    }

    fn with(&self, state: ActivationState) -> Transition {
        Transition::Changed(Self {
            state,
            ..self.clone()
        })
    }

    /// Whether what a guest shows is this activation. The generation must agree too: the same persona of an earlier
    /// generation may have been changed in between.
    fn is_shown(&self, shown: &Shown) -> bool {
        match (&self.desired, shown) {
            (Desired::Nothing, Shown::Nothing) => true,
            (
                Desired::Persona { digest, .. },
                Shown::Persona {
                    generation,
                    digest: shown,
                },
            ) => *generation == self.generation && digest == shown,
            _ => false,
        }
    }
}
