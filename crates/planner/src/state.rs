//! What is carried from tick to tick for each domain: `FOR` windows, effects that wait for their `until`, and for
//! each resource its last change, what is in flight, failures, holds, quarantine and what was in use; and how short the
//! host is. The daemon stores what belongs to domains, so that cooldowns and holds survive a restart; windows start over,
//! because nothing was observed meanwhile.
//!
//! ```text
//! rule      what is carried of rules
//! resource  what is carried of vCPUs and of memory
//! step      what a step that begins or ends makes of it
//! ```
//! Here are the whole of it, what a restart makes of it, and what people say of a domain.

mod resource;
mod rule;
mod step;

use std::collections::BTreeMap;

use persona::Digest;
use persona::domain::DomainId;
use persona::rule::{Knob, Latch, Resource};
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::limit::{LimitState, LimitsHeld, Standing};
use crate::need::Needs;
use crate::offline::Offline;
use crate::policy::Policy;
use crate::propose::Proposals;
use crate::quota::Quota;
use crate::relief::Relief;
use crate::shift::ShiftWatch;
use crate::stage::HostState;

pub use resource::{InFlight, Lag, Repeat, ResourceState};
pub(crate) use rule::waits_for_its_turn;
pub use rule::{Effect, Pursuit, RuleState};
pub use step::Ending;
pub(crate) use step::{failed, longest_wait};

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

impl State {
    /// The state of a domain, if there is any.
    pub fn domain(&self, id: DomainId) -> Option<&DomainState> {
        self.domains.get(&id)
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

    /// A guest said that it cannot bring a CPU online that was plugged: no further one is plugged before it reboots.
    pub fn needs_reboot(&mut self, domain: DomainId) {
        self.domains.entry(domain).or_default().needs_reboot = true;
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
