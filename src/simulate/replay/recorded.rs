//! What a recording tells the replay beside the domain's readings: the host's stages, steps that ended, carried state. And how
//! the replay goes its own way, once it decides otherwise than it was decided then. Called by `replay` at each recorded tick.

use persona::Moment;
use persona::rule::{Knob, Resource};
use planner::consent::Consent;
use planner::report::Wish;
use planner::snapshot::KnobReading;
use planner::{Ending, LimitStep, Means, Step};

use super::Replay;
use crate::record::{Tick, Why};
use crate::simulate::sizes::Follows;

impl Replay<'_> {
    /// What a recorded tick tells of the time before its plan: the host's stage, steps that ended, and carried state.
    pub(super) fn carry(&mut self, tick: &Tick<'_>) {
        self.state.host = tick.host.stages;
        if self.policy != tick.host.policy {
            self.policy = tick.host.policy.clone();
        }
        if self.machine.follows == Follows::Itself {
            return;
        }
        for ended in &tick.ended {
            self.state.finish(
                &ended.step,
                ended.ending,
                ended.asked,
                &self.policy,
                ended.at,
            );
        }
        for turned in &tick.turned {
            let (step, ending, shown) = (&turned.step, turned.ending, turned.shown);
            self.state
                .finish_limit(step, ending, shown, &self.policy, turned.at);
        }
        for need in &tick.needs {
            // Whether it was heard shows in the plan.
            let _ = self.state.need(self.id, need.more, &self.policy, need.at);
        }
        let Some(note) = &tick.state else { return };
        let Some(mut told) = note.state.clone() else {
            self.state.forget(self.id);
            return;
        };
        let before = self.state.domains.remove(&self.id);
        if let Some(before) = before.filter(|_| note.why != Why::Start) {
            if told.persona.as_ref() != Some(&self.persona.digest) {
                // What the rules of another persona did is not what these do.
                told.persona = before.persona;
                told.effects = before.effects;
                told.standing = before.standing;
                told.quota = before.quota;
                told.started = before.started;
            }
            // Windows are not told; they go on.
            told.rules = before.rules;
            told.shift = before.shift;
            told.agentless = before.agentless;
            told.needs = before.needs;
            told.vcpus.peak = before.vcpus.peak;
            told.memory.peak = before.memory.peak;
            told.vcpus.lag = before.vcpus.lag;
            told.memory.lag = before.memory.lag;
        }
        self.state.domains.insert(self.id, told);
    }

    /// From here on the domain goes its own way: what is under way takes effect at once.
    pub(super) fn leave(&mut self, now: Moment) {
        self.left = Some(now);
        self.machine.follows = Follows::Itself;
        for resource in [Resource::Vcpus, Resource::Memory] {
            let flight = self
                .state
                .domain(self.id)
                .and_then(|state| state.resource(resource).in_flight.clone());
            if let Some(flight) = flight {
                let step = Step {
                    domain: self.id,
                    instance: flight.instance,
                    resource,
                    from: flight.from,
                    to: flight.to,
                    means: Means::Usual,
                    by: Wish::Minimum,
                    effect: flight.effect,
                    consent: Consent::default(),
                };
                self.machine.change(resource, step.to);
                let to = Some(step.to);
                self.state
                    .finish(&step, Ending::Applied, to, &self.policy, now);
            }
        }
        for knob in Knob::ALL {
            let state = self.state.domain(self.id);
            let slot = state.and_then(|state| state.limits.get(&knob));
            let Some(flight) = slot.and_then(|slot| slot.in_flight) else {
                continue;
            };
            let turn = LimitStep {
                domain: self.id,
                instance: flight.instance,
                knob,
                from: KnobReading::Unknown,
                to: flight.to,
                by: Wish::Base,
            };
            let shown = Some(self.machine.turn(knob, turn.to));
            self.state
                .finish_limit(&turn, Ending::Applied, shown, &self.policy, now);
        }
    }
}
