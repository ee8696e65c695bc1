//! A changed persona goes to the domains that have it one after another, by name, and stops at the first that fails: who has
//! not been reached stays on what it has until a person says so. A domain whose agent is away takes its turn at once and
//! goes on waiting for the agent. Begun by `requests`, taken further when an activation ends and once a tick.

use std::collections::BTreeSet;
use std::time::Duration;

use persona::PersonaName;
use persona::units::Moment;
use planner::snapshot::Run;

use super::Daemon;
use crate::act::sentence_of;
use crate::audit::AuditKind;
use crate::catalog::{
    ActivationState, CatalogueError, Desired, Held, HeldWhy, Insistence, Resolution,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{RolloutState, RolloutView};

/// Domains without an agent have the persona at once, and each waits for the disk; so many in one go leave time for what
/// else the daemon has to do.
const TURNS_AT_ONCE: usize = 20;

/// Agents of running guests are back within this after the daemon's start; until then their absence says nothing.
const AGENTS_RETURN: Duration = Duration::from_secs(10);

/// Entries in one commit, well below what the store takes at once.
const ENTRIES_A_COMMIT: usize = 500;

/// A rollout that goes on.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    /// The domain whose turn it is.
    at: Option<DomainId>,
    /// How many have had theirs.
    done: usize,
    /// Agents that are away before this may be on their way back.
    patience: Moment,
}

/// Why a persona is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is another than before.
    Changed,
    /// It is the same, and a person wants it tried again where it failed.
    Again,
}

impl Daemon {
    /// Rollouts that the last daemon did not end go on.
    pub(super) fn resume_rollouts(&mut self) {
        let patience = self.started.after(AGENTS_RETURN);
        for (id, held) in self.catalog.held_back() {
            let turn = match held.why {
                HeldWhy::Stopped { .. } => continue,
                HeldWhy::Turn => Some(*id),
                HeldWhy::Waits => None,
            };
            let rollout = self
                .rollouts
                .entry(held.changed.clone())
                .or_insert(Rollout {
                    at: None,
                    done: 0,
                    patience,
                });
            rollout.at = rollout.at.or(turn);
        }
    }

    /// Takes a persona to the domains that have it, and resolves all others at once.
    pub(super) fn roll_out(&mut self, changed: &PersonaName, cause: Cause) {
        let mut waiting = Vec::new();
        let mut others = Vec::new();
        for id in self.domains.keys().copied() {
            if self.is_reached_by(id, changed, cause) {
                waiting.push(id);
            } else {
                others.push(id);
            }
        }
        waiting.sort_by_key(|id| self.domains[id].description.name.clone());
        if let Err(error) = self.hold_all(&waiting, changed, &HeldWhy::Waits) {
            // Then nothing can be stored, and nothing is begun either; who asked was told so already.
            tracing::error!(error = sentence_of(&error), "a rollout could not be stored");
        }
        for id in others {
            self.resolve(id);
        }
        if waiting.is_empty() {
            return;
        }
        if waiting.len() > 1 {
            let text = format!(
                "{} goes to {} domains, one after another",
                self.version_text(changed),
                waiting.len()
            );
            self.record(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        }
        self.rollouts.insert(
            changed.clone(),
            Rollout {
                at: None,
                done: 0,
                patience: self.started,
            },
        );
        self.roll_on();
    }

    /// Whether a rollout stopped, so that the same persona is to be tried again.
    pub(super) fn is_stopped(&self, changed: &PersonaName) -> bool {
        let mut held = self.catalog.held_back().values();
        held.any(|held| held.changed == *changed && matches!(held.why, HeldWhy::Stopped { .. }))
    }

    /// Whether a domain has the persona, or one that builds on it, in another version than it would get now; and, where it
    /// is to be tried again, whether it failed there.
    fn is_reached_by(&self, id: DomainId, changed: &PersonaName, cause: Cause) -> bool {
        let Some(activation) = self.catalog.activation(id) else {
            return false;
        };
        let Desired::Persona { composition, .. } = &activation.desired else {
            return false;
        };
        if composition.versions().all(|id| id.name != *changed) {
            return false;
        }
        let desired = match self
            .catalog
            .resolve(id, &self.domains[&id].description.tags)
        {
            Resolution::Bound(binding) => self.catalog.desired_on(id, &binding),
            Resolution::Unbound | Resolution::Conflict(_) => return false,
        };
        let failed = activation.failure().is_some();
        desired.is_ok_and(|desired| {
            !activation.satisfies(&desired) || (failed && cause == Cause::Again)
        })
    }

    /// Takes every rollout as far as it goes now, but no more than [`TURNS_AT_ONCE`]; the next tick goes on.
    pub(super) fn roll_on(&mut self) {
        let rolling: Vec<PersonaName> = self.rollouts.keys().cloned().collect();
        let mut left = TURNS_AT_ONCE;
        for changed in rolling {
            while left > 0 && self.roll_on_one(&changed) {
                left -= 1;
            }
        }
    }

    /// Says whether there is more to do at once.
    fn roll_on_one(&mut self, changed: &PersonaName) -> bool {
        let Some(rollout) = self.rollouts.get(changed) else {
            return false;
        };
        let patience = rollout.patience;
        if let Some(at) = rollout.at {
            let activation = self.catalog.activation(at);
            if let Some(reason) = activation.and_then(|of| of.failure()).map(str::to_owned) {
                self.stop_rollout(changed, at, &reason);
                return false;
            }
            match activation.map(|of| &of.state) {
                Some(ActivationState::Pending | ActivationState::Sent { .. }) => return false,
                // It has it, or will have it when its agent comes, or is gone.
                _ => {
                    if self.may_come_back(at, patience) {
                        return false;
                    }
                    let mut batch = Batch::new();
                    self.catalog.let_go(&mut batch, at);
                    self.store_rollout(batch);
                }
            }
            if let Some(rollout) = self.rollouts.get_mut(changed) {
                rollout.at = None;
                rollout.done += 1;
            }
        }
        let waiting: Vec<DomainId> = self
            .catalog
            .held_back()
            .iter()
            .filter(|(_, held)| held.changed == *changed && held.why == HeldWhy::Waits)
            .map(|(id, _)| *id)
            .collect();
        let next = waiting
            .iter()
            .filter_map(|id| Some((&self.domains.get(id)?.description.name, *id)))
            .min()
            .map(|(_, id)| id);
        let Some(next) = next else {
            // Those that are not known yet are found soon after the start.
            if waiting.is_empty() {
                self.end_rollout(changed);
            }
            return false;
        };
        if self.may_come_back(next, patience) {
            return false;
        }
        self.take_turn(changed, next);
        true
    }

    /// Whether the domain's agent is away only because the daemon has just started.
    fn may_come_back(&self, id: DomainId, patience: Moment) -> bool {
        self.clock.now() < patience
            && self.domains.get(&id).is_none_or(|tracked| {
                tracked.run() == Run::Running
                    && tracked.description.agent_channel.is_some()
                    && tracked.agent.facts.is_none()
            })
    }

    fn take_turn(&mut self, changed: &PersonaName, id: DomainId) {
        if let Some(rollout) = self.rollouts.get_mut(changed) {
            rollout.at = Some(id);
        }
        if let Err(error) = self.hold_all(&[id], changed, &HeldWhy::Turn) {
            self.stop_rollout(changed, id, &sentence_of(&error));
            return;
        }
        let activation = self.catalog.activation(id);
        let insistence = match activation.and_then(|of| of.failure()) {
            // The same once more, where it failed.
            Some(_) => Insistence::Again,
            _ => Insistence::Keep,
        };
        if let Err(error) = self.resolve_with(id, insistence) {
            self.stop_rollout(changed, id, &sentence_of(&error));
        }
    }

    fn stop_rollout(&mut self, changed: &PersonaName, at: DomainId, reason: &str) {
        self.rollouts.remove(changed);
        let name = self
            .domains
            .get(&at)
            .map_or_else(|| at.to_string(), |of| of.description.name.clone());
        let left: Vec<DomainId> = self
            .catalog
            .held_back()
            .iter()
            .filter(|(id, held)| held.changed == *changed && **id != at)
            .map(|(id, _)| *id)
            .collect();
        let mut batch = Batch::new();
        self.catalog.let_go(&mut batch, at);
        self.store_rollout(batch);
        if left.is_empty() {
            return;
        }
        let version = self.version_text(changed);
        let reason = format!("{version} failed on domain {name}: {reason}");
        let stopped = HeldWhy::Stopped {
            reason: reason.clone(),
        };
        if let Err(error) = self.hold_all(&left, changed, &stopped) {
            tracing::error!(
                error = sentence_of(&error),
                "the end of a rollout could not be stored"
            );
        }
        let text = format!(
            "{reason}; it goes no further, and {} {} what {} until somebody says `virt-persona update {changed}` or applies it",
            left.len(),
            if left.len() == 1 {
                "domain keeps"
            } else {
                "domains keep"
            },
            if left.len() == 1 {
                "it has"
            } else {
                "they have"
            },
        );
        self.record(
            AuditKind::Activation,
            Some(at),
            &text,
            serde_json::Value::Null,
        );
        self.publish_soon();
    }

    fn end_rollout(&mut self, changed: &PersonaName) {
        let Some(rollout) = self.rollouts.remove(changed) else {
            return;
        };
        if rollout.done > 1 {
            let text = format!(
                "{} has gone to {} domains",
                self.version_text(changed),
                rollout.done
            );
            self.record(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        }
        self.publish_soon();
    }

    fn hold_all(
        &mut self,
        ids: &[DomainId],
        changed: &PersonaName,
        why: &HeldWhy,
    ) -> Result<(), CatalogueError> {
        for ids in ids.chunks(ENTRIES_A_COMMIT) {
            let mut batch = Batch::new();
            for id in ids {
                let held = Held {
                    changed: changed.clone(),
                    why: why.clone(),
                };
                self.catalog.hold_back(&mut batch, *id, held)?;
            }
            self.commit(batch, Vec::new())?;
        }
        Ok(())
    }

    fn store_rollout(&mut self, batch: Batch) {
        if let Err(error) = self.commit(batch, Vec::new()) {
            tracing::error!(
                error = sentence_of(&error),
                "the state of a rollout could not be stored"
            );
        }
    }

    fn version_text(&self, name: &PersonaName) -> String {
        match self.catalog.current(name) {
            Ok(current) => current.id().to_string(),
            Err(_) => name.to_string(),
        }
    }

    /// What holds a domain back, as a sentence.
    pub(super) fn held_text(&self, id: DomainId) -> Option<String> {
        let held = self.catalog.held_back().get(&id)?;
        let version = self.version_text(&held.changed);
        match &held.why {
            HeldWhy::Turn => None,
            HeldWhy::Waits => Some(format!(
                "{version} goes to one domain after another, and this one waits for its turn"
            )),
            HeldWhy::Stopped { reason } => Some(format!(
                "{reason}; this domain keeps what it has until somebody says `virt-persona update {}` or applies it here",
                held.changed
            )),
        }
    }

    /// How far the current version of a persona has come; nothing where it is everywhere.
    pub(super) fn rollout_view(&self, name: &PersonaName) -> Option<RolloutView> {
        let names = |ids: BTreeSet<DomainId>| {
            let mut names: Vec<String> = ids
                .iter()
                .filter_map(|id| Some(self.domains.get(id)?.description.name.clone()))
                .collect();
            names.sort_unstable();
            names
        };
        let held = || {
            let all = self.catalog.held_back().iter();
            all.filter(|(_, held)| held.changed == *name)
        };
        let waiting = held()
            .filter(|(_, held)| held.why != HeldWhy::Turn)
            .map(|(id, _)| *id)
            .collect();
        let stopped = held().find_map(|(_, held)| match &held.why {
            HeldWhy::Stopped { reason } => Some(reason.clone()),
            HeldWhy::Waits | HeldWhy::Turn => None,
        });
        held().next()?;
        Some(RolloutView {
            state: if stopped.is_some() {
                RolloutState::Stopped
            } else {
                RolloutState::Going
            },
            at: self
                .rollouts
                .get(name)
                .and_then(|rollout| self.domains.get(&rollout.at?))
                .map(|tracked| tracked.description.name.clone()),
            waiting: names(waiting),
            reason: stopped,
        })
    }
}
