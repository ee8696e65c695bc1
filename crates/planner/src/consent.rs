//! A guest's word against becoming smaller: how long it is respected, and when it no longer counts. `guard` asks whether a
//! shrink waits, `plan` and `settle` whether the guest is asked at all, and the daemon tells when a guest has refused.
//!
//! What its own rules want of a domain waits for its consent for as long as it refuses: it costs nobody but who set it up.
//! What belongs to others is lent only: memory above a domain's reservation that another needs by the host's own evidence,
//! and what is above the persona's max, go after a few refusals without it.

use std::time::Duration;

use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::plan::Step;
use crate::policy::Policy;
use crate::report::{Reason, Wish};
use crate::state::{ResourceState, State};

/// A guest's refusal of one shrink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// The guest's reason, made safe to show.
    pub reason: String,
    /// When it wants to be asked again, counted from now.
    pub retry_after: Option<Duration>,
}

/// Whether the guest is asked before a step that makes it smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consent {
    /// It is, and may refuse.
    #[default]
    Asked,
    /// It has refused so often that it is not asked again.
    Overruled {
        /// How often it refused in a row.
        vetoes: u32,
    },
}

/// Refusals in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vetoes {
    /// How many.
    pub count: u32,
    /// When the first one came.
    pub first: Moment,
    /// The guest is not asked again before.
    pub until: Moment,
    /// The last one's reason.
    pub reason: String,
}

impl Vetoes {
    /// Whether they still belong together with what happens now.
    fn last(&self, policy: &Policy, now: Moment) -> bool {
        now.since(self.until) < policy.veto_patience
    }

    /// Keeps dates of a stored state from lying further ahead than they can.
    pub(crate) fn bound(&mut self, policy: &Policy, now: Moment) {
        self.first = self.first.min(now);
        self.until = self.until.min(now.after(policy.veto_patience));
    }
}

impl State {
    /// Notes that the guest refused `step`, so that nothing was done. It is no failure of the mechanism: it neither counts
    /// towards the quarantine nor holds growth back. `asked` is as in [`State::finish`].
    pub fn veto(
        &mut self,
        step: &Step,
        veto: &Veto,
        asked: Option<u64>,
        policy: &Policy,
        now: Moment,
    ) {
        let Some(state) = self.domains.get_mut(&step.domain) else {
            return;
        };
        let slot = state.resource_mut(step.resource);
        let own = |flight: &mut crate::state::InFlight| {
            flight.instance == step.instance && flight.to == step.to
        };
        if slot.in_flight.take_if(own).is_none() {
            return;
        }
        slot.asked = asked;
        // Nothing was asked of the machine, so nothing of it may still follow.
        slot.target = None;
        let before = slot.vetoes.take().filter(|vetoes| vetoes.last(policy, now));
        let wait = veto
            .retry_after
            .unwrap_or(policy.veto_wait)
            .clamp(policy.veto_wait_minimum, policy.veto_patience);
        slot.vetoes = Some(Vetoes {
            count: before
                .as_ref()
                .map_or(0, |vetoes| vetoes.count)
                .saturating_add(1),
            first: before.map_or(now, |vetoes| vetoes.first),
            until: now.after(wait),
            reason: veto.reason.clone(),
        });
    }
}

/// Whether the guest is to be asked before a shrink that somebody wants.
pub(crate) fn consent(by: &Wish, slot: &ResourceState, policy: &Policy, now: Moment) -> Consent {
    let lent = matches!(by, Wish::Donation(_) | Wish::Maximum);
    match &slot.vetoes {
        Some(vetoes)
            if lent
                && vetoes.last(policy, now)
                && (vetoes.count >= policy.vetoes_before_overruling
                    || now.since(vetoes.first) >= policy.veto_patience) =>
        {
            Consent::Overruled {
                vetoes: vetoes.count,
            }
        }
        _ => Consent::Asked,
    }
}

/// Whether a shrink waits because the guest has refused one lately.
pub(crate) fn respects(
    by: &Wish,
    slot: &ResourceState,
    policy: &Policy,
    now: Moment,
) -> Result<(), Reason> {
    let Some(vetoes) = &slot.vetoes else {
        return Ok(());
    };
    let left = vetoes.until.since(now);
    if left.is_zero() || consent(by, slot, policy, now) != Consent::Asked {
        return Ok(());
    }
    Err(Reason::Vetoed {
        left,
        reason: vetoes.reason.clone(),
    })
}
