//! What is carried of rules: their windows, what they have called for, and what they have changed and will undo. What a rule
//! makes of it is in `evaluate`.

use std::collections::BTreeMap;

use persona::Persona;
use persona::rule::{Action, Latch, Resource, Rule, Windows};
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::{DomainState, InFlight};

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

impl DomainState {
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
    pub(super) fn remember(&mut self, resource: Resource, flight: &InFlight) {
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
}
