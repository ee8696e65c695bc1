//! What is carried of one knob: the turn under way, what a hand did, failures; and whether it may be turned now.

use std::time::Duration;

use persona::Digest;
use persona::rule::KnobValue;
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::LimitStep;
use super::verdict::LimitReason;
use crate::policy::Policy;
use crate::report::{Reason, Wish};
use crate::snapshot::KnobReading;
use crate::state::{Ending, State, failed, longest_wait};

/// What is carried of one knob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// What was there before our first turn; nothing where a hand has had its word since.
    pub original: Option<KnobValue>,
    /// The turn that is being carried out.
    pub in_flight: Option<LimitFlight>,
    /// What it showed when it was last looked at, to see changes by hand.
    pub shown: Option<KnobReading>,
    /// Where our last turn brought it, as far as that was verified: what it shows may be that in the mechanism's own
    /// granularity.
    pub reached: Option<KnobValue>,
    /// When it was last turned.
    pub changed_at: Option<Moment>,
    /// A change by hand is respected until then.
    pub held_until: Option<Moment>,
    /// Turns in a row that did not take effect.
    pub failures: u32,
    /// Not tried again before.
    pub retry_at: Option<Moment>,
    /// Left alone until then, because it is stuck.
    pub quarantined_until: Option<Moment>,
    /// The rule whose `until` held last, as long as what follows from that is not reached.
    #[serde(default)]
    pub undone: Option<String>,
    /// What people have approved, for as long as those who wanted it have a say.
    #[serde(default)]
    pub granted: Vec<LimitGrant>,
}

/// A turn that a person has approved: it may be done again where devices come, or a turn fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitGrant {
    /// The persona whose wish it is, by what it means.
    pub digest: Digest,
    /// Who wants it.
    pub by: Wish,
    /// To.
    pub to: KnobValue,
}

/// A person's word that all knobs of a domain be left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsHeld {
    /// Until then.
    pub until: Moment,
    /// Whose word it is.
    pub by: String,
}

impl LimitsHeld {
    /// Whether it stands against every turn.
    pub(crate) fn stands(held: Option<&Self>, now: Moment) -> Result<(), LimitReason> {
        match held {
            Some(held) if held.until > now => Err(LimitReason::Guard(Reason::HeldFor {
                by: held.by.clone(),
                left: held.until.since(now),
            })),
            _ => Ok(()),
        }
    }
}

/// A turn that is being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFlight {
    /// Of which running instance.
    pub instance: Option<u32>,
    /// To.
    pub to: KnobValue,
    /// Since.
    pub since: Moment,
}

impl LimitState {
    /// Looks at what the knob shows. Where a hand has turned it: what it had shown, and until when that is respected. Where devices came or went, what was set is no longer
    /// what is meant, and that is nobody's word.
    pub(super) fn notice(
        &mut self,
        present: KnobReading,
        policy: &Policy,
        now: Moment,
    ) -> Option<(KnobReading, Moment)> {
        if self.in_flight.is_some()
            || matches!(present, KnobReading::Unable(_) | KnobReading::Unknown)
        {
            return None;
        }
        let before = self.shown.replace(present)?;
        if before == present {
            return None;
        }
        self.reached = None;
        if before.devices() != present.devices() {
            return None;
        }
        let until = now.after(policy.hold);
        self.held_until = Some(until);
        self.original = None;
        // What was approved was approved of another state.
        self.granted.clear();
        Some((before, until))
    }

    /// Whether the knob may be turned at this moment, apart from trust.
    pub(crate) fn may_turn(
        &self,
        present: KnobReading,
        cooldown: Duration,
        now: Moment,
    ) -> Result<(), LimitReason> {
        match present {
            KnobReading::Unable(obstacle) => return Err(LimitReason::Unable(obstacle)),
            KnobReading::Unknown => return Err(LimitReason::Unknown),
            // What is uneven by our own doing, because a device was added, is made even again.
            KnobReading::Uneven { .. } if self.original.is_none() => {
                return Err(LimitReason::Uneven);
            }
            KnobReading::Uneven { .. } | KnobReading::Set { .. } => {}
        }
        if let Some(flight) = &self.in_flight {
            return Err(LimitReason::InFlight(flight.to));
        }
        let left = |until: Option<Moment>| {
            until
                .map(|until| until.since(now))
                .filter(|left| !left.is_zero())
        };
        let reason = if let Some(left) = left(self.held_until) {
            Reason::Held { left }
        } else if let Some(left) = left(self.quarantined_until) {
            Reason::Quarantined { left }
        } else if let Some(left) = left(self.retry_at) {
            Reason::Waiting {
                left,
                failures: self.failures,
            }
        } else if let Some(left) = left(self.changed_at.map(|at| at.after(cooldown))) {
            Reason::Cooldown(left)
        } else {
            return Ok(());
        };
        Err(LimitReason::Guard(reason))
    }

    /// After a restart of the daemon: what was under way is over, whatever came of it.
    pub(crate) fn resume(&mut self, policy: &Policy, now: Moment) {
        self.changed_at = self.changed_at.map(|at| at.min(now));
        for (date, most) in [
            (&mut self.held_until, policy.hold),
            (&mut self.quarantined_until, policy.quarantine),
            (&mut self.retry_at, longest_wait(policy)),
        ] {
            *date = date.map(|date| date.min(now.after(most)));
        }
        if self.in_flight.take().is_some() {
            // It may have taken place, so what is shown next is no hand's work.
            self.shown = None;
            self.reached = None;
        }
    }

    /// A person's word: forget holds and quarantine. Whether there was anything to forget.
    pub(crate) fn release(&mut self) -> bool {
        let found = self.held_until.is_some()
            || self.quarantined_until.is_some()
            || self.retry_at.is_some();
        self.held_until = None;
        self.quarantined_until = None;
        self.failures = 0;
        self.retry_at = None;
        found
    }
}

impl State {
    /// Notes that a knob is being turned.
    pub fn begin_limit(&mut self, step: &LimitStep, now: Moment) {
        let state = self.domains.entry(step.domain).or_default();
        let slot = state.limits.entry(step.knob).or_default();
        if slot.original.is_none() {
            slot.original = step.from.value();
        }
        slot.reached = None;
        slot.in_flight = Some(LimitFlight {
            instance: step.instance,
            to: step.to,
            since: now,
        });
    }

    /// Notes how a turn ended. `shown` is what the knob shows now, where it is known. A turn that is not the one under
    /// way, because the domain was started anew since, changes nothing.
    pub fn finish_limit(
        &mut self,
        step: &LimitStep,
        ending: Ending,
        shown: Option<KnobReading>,
        policy: &Policy,
        now: Moment,
    ) {
        let own =
            |flight: &mut LimitFlight| flight.instance == step.instance && flight.to == step.to;
        let Some(slot) = self
            .domains
            .get_mut(&step.domain)
            .and_then(|state| state.limits.get_mut(&step.knob))
            .filter(|slot| slot.in_flight.is_some())
        else {
            return;
        };
        if slot.in_flight.take_if(own).is_none() {
            return;
        }
        slot.shown = shown;
        if matches!(ending, Ending::Applied | Ending::Partial) {
            slot.changed_at = Some(now);
        }
        if ending == Ending::Applied {
            slot.reached = Some(step.to);
            slot.failures = 0;
            slot.retry_at = None;
            slot.quarantined_until = None;
        } else {
            let (retry_at, quarantined_until) = failed(&mut slot.failures, policy, now);
            slot.retry_at = Some(retry_at);
            slot.quarantined_until = quarantined_until.or(slot.quarantined_until);
        }
    }
}
