//! The way of a step through the carried state: it begins, and it ends, which consumes a cooldown, counts as a failure or puts
//! its mechanism in quarantine. Whoever carries steps out calls it. Turns of knobs have their own in `limit`.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::{InFlight, Repeat, State};
use crate::mechanism::Means;
use crate::offline;
use crate::plan::Step;
use crate::policy::Policy;
use crate::report::Wish;

/// The wait after a failure doubles so often at most.
const MOST_DOUBLINGS: u32 = 10;

/// How a step ended, as host and guest show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Host and guest show what was asked for.
    Applied,
    /// Something changed, but not all of it.
    Partial,
    /// Nothing changed, and it is known why.
    Refused,
    /// It is not known what happened.
    Unknown,
}

impl State {
    /// Notes that `step` is being carried out.
    pub fn begin(&mut self, step: &Step, now: Moment) {
        let state = self.domains.entry(step.domain).or_default();
        if step.by == Wish::Need {
            state.needs.begin(now);
        }
        let slot = state.resource_mut(step.resource);
        slot.target = Some(step.to);
        if step.by != Wish::Restore {
            slot.original.get_or_insert(step.from);
        }
        slot.in_flight = Some(InFlight {
            instance: step.instance,
            from: step.from,
            to: step.to,
            since: now,
            effect: step.effect.clone(),
        });
    }

    /// Notes how a step ended. `asked` is what the hypervisor shows as asked for now, where it is known. A step that is
    /// not the one under way, because the domain was started anew since, changes nothing.
    ///
    /// A cooldown is consumed only by a change that took place; a failure waits longer each time, and a mechanism
    /// that keeps failing is put in quarantine. So is one whose successes do not last: the very same step as often in a
    /// row, each within twice the time of a quarantine from the one before.
    pub fn finish(
        &mut self,
        step: &Step,
        ending: Ending,
        asked: Option<u64>,
        policy: &Policy,
        now: Moment,
    ) {
        let resource = step.resource;
        let Some(state) = self.domains.get_mut(&step.domain) else {
            return;
        };
        let slot = state.resource_mut(resource);
        let own = |flight: &mut InFlight| flight.instance == step.instance && flight.to == step.to;
        let Some(flight) = slot.in_flight.take_if(own) else {
            return;
        };
        if asked > slot.asked {
            // What was asked for anew is counted anew.
            slot.late = None;
        }
        slot.asked = asked.map(|asked| own_part(step, slot.asked, asked));
        slot.target = Some(flight.to);
        let changed = matches!(ending, Ending::Applied | Ending::Partial);
        // A machine that is where it was a day later was brought there by something else, as a reboot of the guest may.
        let lately = |at: Moment| now.since(at) <= policy.quarantine * 2;
        let before = slot.repeat.filter(|_| slot.changed_at.is_some_and(lately));
        if changed {
            slot.changed_at = Some(now);
            slot.vetoes = None;
        }
        let mut times = 0;
        // What is taken offline again and again has a count of its own.
        if changed && step.by != Wish::BackOnline {
            let same = |repeat: &Repeat| (repeat.from, repeat.to) == (flight.from, flight.to);
            times = before.filter(same).map_or(0, |repeat| repeat.times);
            times = times.saturating_add(1);
            slot.repeat = Some(Repeat {
                from: flight.from,
                to: flight.to,
                times,
            });
        }
        // The balloon's success says nothing of the device in whose place it was used, and its failure is no other.
        if step.means == Means::Balloon {
            if ending != Ending::Applied {
                slot.retry_at = Some(now.after(policy.retry_after));
            }
        } else if ending == Ending::Applied && times < policy.failures_before_quarantine {
            slot.failures = 0;
            slot.retry_at = None;
            slot.quarantined_until = None;
        } else if ending == Ending::Applied {
            slot.quarantined_until = Some(now.after(policy.quarantine));
        } else {
            let (retry_at, quarantined_until) = failed(&mut slot.failures, policy, now);
            slot.retry_at = Some(retry_at);
            slot.quarantined_until = quarantined_until.or(slot.quarantined_until);
        }
        if changed {
            // Evidence from before the change says nothing about the state after it.
            for rule in state
                .rules
                .iter_mut()
                .filter(|rule| rule.touches.contains(&resource))
            {
                rule.holds.clear();
            }
        }
        offline::note(state, step, ending, asked);
        // What may have taken place is undone as well as what did.
        if ending != Ending::Refused {
            if resource == Resource::Memory && flight.to < flight.from {
                state.relief.taken(flight.from);
            }
            state.remember(resource, &flight);
        }
    }

    /// Notes that `step` was not tried, because the hypervisor could not be reached: that says nothing of the mechanism, so
    /// it is no failure. `asked` is as in [`State::finish`].
    pub fn untried(&mut self, step: &Step, asked: Option<u64>) {
        let Some(state) = self.domains.get_mut(&step.domain) else {
            return;
        };
        let slot = state.resource_mut(step.resource);
        let own = |flight: &mut InFlight| flight.instance == step.instance && flight.to == step.to;
        if slot.in_flight.take_if(own).is_some() {
            slot.asked = asked;
            // Nothing was asked of the machine, so nothing of it may still follow.
            slot.target = None;
        }
    }

    /// A removal that was asked for did not end in time, and may still come down to `to`.
    pub fn may_come_late(&mut self, domain: DomainId, resource: Resource, to: u64) {
        self.domains
            .entry(domain)
            .or_default()
            .resource_mut(resource)
            .late = Some(to);
    }
}

/// What a step may have to do with what is asked for after it. A step for vCPUs leaves what was plugged before it, what it is
/// to bring about, or something between the two; what lies beyond is somebody else's doing, and the next plan sees it as that.
/// Of memory the step itself tells, since it watches what each device is asked for.
fn own_part(step: &Step, before: Option<u64>, asked: u64) -> u64 {
    match (step.resource, before) {
        (Resource::Vcpus, Some(before)) => asked.clamp(before.min(step.to), before.max(step.to)),
        _ => asked,
    }
}

/// The longest wait after a failure.
pub(crate) fn longest_wait(policy: &Policy) -> Duration {
    policy.retry_after * (1 << MOST_DOUBLINGS)
}

/// One more failure of a mechanism: when it is tried again, and until when it is left alone if it is stuck.
pub(crate) fn failed(failures: &mut u32, policy: &Policy, now: Moment) -> (Moment, Option<Moment>) {
    *failures = failures.saturating_add(1);
    let doublings = failures.saturating_sub(1).min(MOST_DOUBLINGS);
    let retry_at = now.after(policy.retry_after * (1 << doublings));
    if *failures < policy.failures_before_quarantine {
        return (retry_at, None);
    }
    // The next failure after the quarantine puts it back at once; a success clears it.
    *failures = policy.failures_before_quarantine - 1;
    (retry_at, Some(now.after(policy.quarantine)))
}
