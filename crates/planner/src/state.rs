//! What is carried from tick to tick for each domain: `FOR` windows, effects that wait for their `until`, and for
//! each resource its last change, what is in flight, failures, holds, quarantine and what was in use; and how short the
//! host is. The daemon stores what belongs to domains, so that cooldowns and holds survive a restart; windows start over,
//! because nothing was observed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Action, Knob, Latch, Resource, Rule, Windows};
use persona::units::Moment;
use persona::{Digest, Persona};
use serde::{Deserialize, Serialize};

use crate::consent::Vetoes;
use crate::limit::{LimitState, LimitsHeld, Standing};
use crate::mechanism::Means;
use crate::need::Needs;
use crate::offline::{self, Offline};
use crate::peak::Peak;
use crate::plan::Step;
use crate::policy::Policy;
use crate::propose::Proposals;
use crate::quota::Quota;
use crate::relief::Relief;
use crate::report::Wish;
use crate::shift::ShiftWatch;
use crate::stage::HostState;

/// The wait after a failure doubles so often at most.
const MOST_DOUBLINGS: u32 = 10;

/// The carried state of all domains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// By domain.
    pub domains: BTreeMap<DomainId, DomainState>,
    /// How short the host is.
    #[serde(default)]
    pub host: HostState,
    /// What waits for people.
    #[serde(default)]
    pub proposals: Proposals,
}

/// The carried state of one domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainState {
    /// The persona that the rule states below belong to.
    pub persona: Option<Digest>,
    /// The running instance that the rest belongs to.
    pub instance: Option<u32>,
    /// When this instance was first seen to run.
    #[serde(default)]
    pub seen: Option<Moment>,
    /// `initial` of the base configuration was asked for.
    pub started: bool,
    /// One for each rule, in the order of the document.
    #[serde(skip)]
    pub rules: Vec<RuleState>,
    /// What rules have called for, by name, where there is anything to know: windows begin anew with the daemon, but what was
    /// called for once is not called for again because of that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latches: BTreeMap<String, Latch>,
    /// When rules were last evaluated.
    #[serde(skip)]
    pub evaluated: Option<Moment>,
    /// What happened until then was heard by the persona before this one.
    #[serde(skip)]
    pub heard: Option<Moment>,
    /// What rules with an `until` have done and will undo.
    pub effects: Vec<Effect>,
    /// What the guest says that it needs.
    #[serde(skip)]
    pub needs: Needs,
    /// The guest cannot bring a CPU that was plugged online before it reboots.
    #[serde(default)]
    pub needs_reboot: bool,
    /// vCPUs.
    pub vcpus: ResourceState,
    /// Memory.
    pub memory: ResourceState,
    /// Memory that was taken, as long as it may be missed.
    #[serde(default)]
    pub relief: Relief,
    /// The windows of the `until` that ends a shift of persona.
    #[serde(skip)]
    pub shift: ShiftWatch,
    /// Knobs that were turned, or were to be.
    #[serde(default)]
    pub limits: BTreeMap<Knob, LimitState>,
    /// What rules have set knobs to and what lasts.
    #[serde(default)]
    pub standing: Vec<Standing>,
    /// A person's word that all knobs be left alone.
    #[serde(default)]
    pub limits_held: Option<LimitsHeld>,
    /// CPUs that are plugged and were taken offline.
    #[serde(default)]
    pub offline: Option<Offline>,
    /// A cap that stands for a removal of vCPUs.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// Nothing in the guest could switch CPUs since then.
    #[serde(skip)]
    pub agentless: Option<Moment>,
}

/// The windows of one rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleState {
    /// Of its condition and its `until`, which number their windows apart.
    pub holds: Windows,
    /// What its actions change: a change of it starts the windows anew.
    pub touches: Vec<Resource>,
    /// What it does once was called for, and its condition has held ever since.
    pub called: bool,
    /// What it does once is to be taken back when its `until` holds.
    pub undo: bool,
    /// That it was called for is known from before a restart, and its windows have not filled since: it counts as having
    /// held ever since for as long as nothing says otherwise.
    pub resumed: bool,
    /// Fixed amounts that it called for and that take several steps. They are reached without waiting for the
    /// windows again at each step, as long as what the rule is about goes on.
    pub pursued: Vec<Pursuit>,
}

impl RuleState {
    /// What a rule begins with: fresh windows, and what it had called for before a restart.
    pub(crate) fn fresh(persona: &Persona, rule: &Rule, latch: Option<Latch>) -> Self {
        let latch = latch.unwrap_or_default();
        Self {
            touches: persona.actions(rule).filter_map(Action::resource).collect(),
            called: latch.called,
            undo: latch.undo,
            resumed: latch.called,
            ..Self::default()
        }
    }

    fn latch(&self) -> Latch {
        Latch {
            called: self.called,
            undo: self.undo,
        }
    }
}

/// Whether an action waits for its turn after it was called for, which is known nowhere else: a change of what the guest has. After a
/// restart it is called for again where its rule still holds, which changes nothing where it was carried out. Everything else is
/// carried out or stored in the moment of the call.
pub(crate) fn waits_for_its_turn(action: &Action) -> bool {
    matches!(
        action,
        Action::Apply { .. }
            | Action::InstallPackage(_)
            | Action::RemovePackage(_)
            | Action::ActivatePersona(_)
            | Action::Revert
    )
}

/// Whether that a rule has called for something is to be known after a restart, too.
fn outlives_a_restart(persona: &Persona, rule: &Rule) -> bool {
    let mut once = persona.actions(rule).filter(|action| !action.is_kept_up());
    once.any(|action| !waits_for_its_turn(action))
}

/// A fixed amount that a rule called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pursuit {
    /// Of what.
    pub resource: Resource,
    /// How much, in vCPUs or bytes.
    pub to: u64,
    /// Since when. Once something has changed since, further steps belong to the same call and wait for no cooldown.
    pub since: Moment,
}

/// A change that will be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Name of the rule.
    pub rule: String,
    /// What it changed.
    pub resource: Resource,
    /// What was there before its first change, in vCPUs or bytes.
    pub before: u64,
    /// Its `until` has held, so it goes back step by step, without waiting for the window again at each step.
    pub undoing: bool,
}

/// The carried state of one resource of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// When a change last took place.
    pub changed_at: Option<Moment>,
    /// What was there before the first change of ours, in vCPUs or bytes; nothing where nothing was changed, or where a
    /// hand has had its word since.
    #[serde(default)]
    pub original: Option<u64>,
    /// The step that is being carried out. It is stored too: after a crash [`State::resume`] tells from it what may have
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
    /// The state of a domain, if there is any.
    pub fn domain(&self, id: DomainId) -> Option<&DomainState> {
        self.domains.get(&id)
    }

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

    /// Makes a state that was stored fit for going on with: steps that were under way are over, whatever came of them,
    /// and no date lies further ahead than it can, because the wall clock may have been set back since.
    pub fn resume(&mut self, policy: &Policy, now: Moment) {
        self.proposals.resume(policy, now);
        for state in self.domains.values_mut() {
            state.seen = state.seen.map(|at| at.min(now));
            state.relief.resume(policy, now);
            for resource in [Resource::Vcpus, Resource::Memory] {
                let slot = state.resource_mut(resource);
                slot.changed_at = slot.changed_at.map(|at| at.min(now));
                let longest_wait = longest_wait(policy);
                let hold = match slot.held_by {
                    Some(_) => policy.longest_hold,
                    None => policy.hold,
                };
                for (date, most) in [
                    (&mut slot.held_until, hold),
                    (&mut slot.quarantined_until, policy.quarantine),
                    (&mut slot.retry_at, longest_wait),
                ] {
                    *date = date.map(|date| date.min(now.after(most)));
                }
                if let Some(vetoes) = &mut slot.vetoes {
                    vetoes.bound(policy, now);
                }
                if let Some(flight) = slot.in_flight.take() {
                    // It may have taken place; undoing what did not is no change at all, and what was not taken is there.
                    if resource == Resource::Memory && flight.to < flight.from {
                        state.relief.taken(flight.from);
                    }
                    state.remember(resource, &flight);
                }
            }
            for limit in state.limits.values_mut() {
                limit.resume(policy, now);
            }
            if let Some(held) = &mut state.limits_held {
                held.until = held.until.min(now.after(policy.longest_hold));
            }
        }
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

    /// A guest said that it cannot bring a CPU online that was plugged: no further one is plugged before it reboots.
    pub fn needs_reboot(&mut self, domain: DomainId) {
        self.domains.entry(domain).or_default().needs_reboot = true;
    }

    /// A removal that was asked for did not end in time, and may still come down to `to`.
    pub fn may_come_late(&mut self, domain: DomainId, resource: Resource, to: u64) {
        self.domains
            .entry(domain)
            .or_default()
            .resource_mut(resource)
            .late = Some(to);
    }

    /// The guest has rebooted: its kernel begins anew with what is plugged.
    pub fn rebooted(&mut self, domain: DomainId) {
        if let Some(state) = self.domains.get_mut(&domain) {
            state.needs_reboot = false;
            // A kernel that boots brings up all that is plugged.
            state.try_offline_again();
        }
    }

    /// A person's word: leave the resource alone until then. It holds over restarts of the machine.
    pub fn hold(&mut self, domain: DomainId, resource: Resource, until: Moment, by: &str) {
        let state = self.domains.entry(domain).or_default();
        let slot = state.resource_mut(resource);
        slot.held_until = Some(until);
        slot.held_by = Some(by.to_owned());
    }

    /// A person's word: leave all knobs alone until then. It holds over restarts of the machine.
    pub fn hold_limits(&mut self, domain: DomainId, until: Moment, by: &str) {
        let by = by.to_owned();
        let state = self.domains.entry(domain).or_default();
        state.limits_held = Some(LimitsHeld { until, by });
    }

    /// A person's word: forget holds and quarantine. Whether there was anything to forget.
    pub fn release(&mut self, domain: DomainId) -> bool {
        let mut found = false;
        if let Some(state) = self.domains.get_mut(&domain) {
            for slot in [&mut state.vcpus, &mut state.memory] {
                found |= slot.held_until.is_some()
                    || slot.quarantined_until.is_some()
                    || slot.retry_at.is_some();
                slot.held_until = None;
                slot.held_by = None;
                slot.quarantined_until = None;
                slot.failures = 0;
                slot.retry_at = None;
                slot.vetoes = None;
                slot.repeat = None;
            }
            state.relief.spared_until = None;
            state.needs_reboot = false;
            state.try_offline_again();
            found |= state.limits_held.take().is_some();
            for limit in state.limits.values_mut() {
                found |= limit.release();
            }
        }
        found
    }

    /// Forgets what belongs to a machine that has ended, but for what a person said of it.
    pub fn rest(&mut self, domain: DomainId, now: Moment) {
        if let Some(state) = self.domains.get_mut(&domain) {
            *state = state.of_next_machine(None);
            let held = |slot: &ResourceState| slot.held_until.is_some_and(|until| until > now);
            let limits = state.limits_held.as_ref();
            let limits = limits.is_some_and(|held| held.until > now);
            if !held(&state.vcpus) && !held(&state.memory) && !limits {
                self.domains.remove(&domain);
            }
        }
    }

    /// Forgets a domain that is no longer defined.
    pub fn forget(&mut self, domain: DomainId) {
        self.domains.remove(&domain);
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

impl DomainState {
    /// What the next running machine begins with: nothing but what a person said of the domain.
    #[must_use]
    pub fn of_next_machine(&self, instance: Option<u32>) -> Self {
        let said = |slot: &ResourceState| ResourceState {
            held_until: slot.held_until.filter(|_| slot.held_by.is_some()),
            held_by: slot.held_by.clone(),
            ..ResourceState::default()
        };
        Self {
            instance,
            vcpus: said(&self.vcpus),
            memory: said(&self.memory),
            limits_held: self.limits_held.clone(),
            ..Self::default()
        }
    }

    /// Lets the rules begin anew where another document came in force than the one that they belong to: two changes may
    /// fall between two plans, and a rule that is given again calls again.
    pub fn begin_anew_unless(&mut self, in_force: &Digest) {
        if self.persona.as_ref().is_some_and(|of| of != in_force) {
            self.persona = None;
        }
    }

    /// Keeps what rules have called for. Whether that is otherwise than it was.
    pub(crate) fn keep_latches(&mut self, persona: &Persona) -> bool {
        let rules = persona.rules.iter().zip(&self.rules);
        let kept: BTreeMap<String, Latch> = rules
            .map(|(rule, slot)| (rule, slot.latch()))
            .filter(|(rule, latch)| *latch != Latch::default() && outlives_a_restart(persona, rule))
            .map(|(rule, latch)| (rule.name.to_string(), latch))
            .collect();
        let changed = kept != self.latches;
        self.latches = kept;
        changed
    }

    /// Keeps what was there before the first change of a rule that will be undone.
    fn remember(&mut self, resource: Resource, flight: &InFlight) {
        if let Some(rule) = &flight.effect
            && !self
                .effects
                .iter()
                .any(|effect| effect.rule == *rule && effect.resource == resource)
        {
            self.effects.push(Effect {
                rule: rule.clone(),
                resource,
                before: flight.from,
                undoing: false,
            });
        }
    }

    /// CPUs that were brought back online are taken offline as if that had never happened.
    fn try_offline_again(&mut self) {
        if let Some(offline) = &mut self.offline {
            offline.times = 0;
            offline.back = false;
        }
    }

    /// The state of one resource.
    pub fn resource(&self, resource: Resource) -> &ResourceState {
        match resource {
            Resource::Vcpus => &self.vcpus,
            Resource::Memory => &self.memory,
        }
    }

    /// The state of one resource, to change.
    pub(crate) fn resource_mut(&mut self, resource: Resource) -> &mut ResourceState {
        match resource {
            Resource::Vcpus => &mut self.vcpus,
            Resource::Memory => &mut self.memory,
        }
    }
}
