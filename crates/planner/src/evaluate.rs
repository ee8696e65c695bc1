//! Rules over readings: for each resource at most one wish. The highest priority wins; among equals growth goes before
//! shrinking, because a machine that is too small hurts more than one that is too large; then the order of the
//! document. What bounds a wish is in `guard`. Called by `plan` for each domain.
//!
//! ```text
//! since_change  readings, without those that a change has made meaningless
//! base          what the base configuration wants
//! wish          what one rule wants
//! ```

mod base;
mod since_change;
mod wish;

use std::time::Duration;

use persona::Persona;
use persona::rule::{Action, Latch, Resource, Rule, Trail, Truth};
use persona::signal::Source;
use persona::units::Moment;

use crate::limit::{Turn, turns};
use crate::need::prefer_need;
use crate::news::News;
use crate::offline;
use crate::plan::{Detail, Edge};
use crate::policy::Policy;
use crate::relief::{outdone, returned};
use crate::report::{RuleReport, Wish};
use crate::snapshot::Domain;
use crate::state::{DomainState, RuleState, waits_for_its_turn};
use crate::trust::{evidence, evidence_of};

use base::base_wishes;
pub(crate) use base::{BASE_PRIORITY, Bounds, bounds};
pub(crate) use since_change::SinceChange;
use wish::{continued, pursue, rule_wish, undo_wishes};

/// What somebody wants of one resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) resource: Resource,
    pub(crate) to: u64,
    pub(crate) by: Wish,
    pub(crate) priority: i64,
    pub(crate) cooldown: Duration,
    /// Whose word it rests on: the least trusted source that was looked at.
    pub(crate) evidence: Source,
    /// The rule, where its effect will be undone later.
    pub(crate) effect: Option<String>,
}

/// What the rules of one domain come to.
pub(crate) struct Evaluation {
    pub(crate) rules: Vec<RuleReport>,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) calls: Vec<(String, Action, Edge)>,
    /// What rules say of knobs.
    pub(crate) turns: Vec<Turn>,
}

/// After the base configuration comes what a guest misses.
const RETURN_PRIORITY: i64 = BASE_PRIORITY - 1;

/// Evaluates all rules, so that every window advances, and picks one wish a resource.
pub(crate) fn evaluate(
    domain: &Domain<'_>,
    persona: &Persona,
    state: &mut DomainState,
    policy: &Policy,
    now: Moment,
    detail: Detail,
) -> Evaluation {
    align(persona, domain.adjusted_by, state);
    state.evaluated = Some(now);
    let news = News {
        signals: domain.signals,
        heard: state.heard,
    };
    let domain = &Domain {
        signals: &news,
        ..*domain
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut rules = Vec::new();
    if detail == Detail::All {
        rules.reserve_exact(persona.rules.len());
    }
    let (mut calls, mut turned) = (Vec::new(), Vec::new());
    base_wishes(domain, persona, state, &mut wanted);
    wanted.extend(returned(domain, state, RETURN_PRIORITY, now));
    wanted.extend(offline::wish(domain, state));
    for (index, rule) in persona.rules.iter().enumerate() {
        let mut trail = match detail {
            Detail::All => Trail::recording(),
            Detail::Deeds => Trail::Off,
        };
        let changed = (state.vcpus.changed_at, state.memory.changed_at);
        let slot = &mut state.rules[index];
        let truth = rule.when.evaluate(
            domain.signals,
            rule.source,
            &mut slot.holds,
            now,
            &mut trail,
        );
        let until = rule.until.as_ref().map_or(Truth::False, |until| {
            until.evaluate(
                domain.signals,
                rule.source,
                &mut slot.holds,
                now,
                &mut Trail::Off,
            )
        });
        let looked = trail.into_looked();
        let evidence = match detail {
            Detail::All => evidence(&looked),
            // It is the same, and asked for only where something may rest on it.
            Detail::Deeds
                if truth == Truth::True
                    || !slot.pursued.is_empty()
                    || !state.effects.is_empty() =>
            {
                evidence_of(&rule.when, domain.signals)
            }
            Detail::Deeds => Source::Agent,
        };
        if truth == Truth::True {
            let wishes = persona.actions(rule);
            let wishes = wishes.filter_map(|action| rule_wish(domain, rule, action, evidence));
            wanted.extend(wishes.map(|wish| continued(wish, slot, changed)));
        }
        pursue(
            domain,
            persona,
            rule,
            truth,
            evidence,
            slot,
            now,
            &mut wanted,
        );
        // With the windows anew it is not known before they are full that a condition went on to hold.
        let lasted = slot.resumed && truth == Truth::True;
        if slot.resumed {
            let lasts = || rule.when.would_hold(domain.signals, now) != Truth::False;
            slot.resumed = truth != Truth::True && lasts();
        }
        call(persona, rule, truth, until, slot, &mut calls);
        if lasted {
            let waited = persona.actions(rule).filter(|of| waits_for_its_turn(of));
            let again = |action: &Action| (rule.name.to_string(), action.clone(), Edge::Begins);
            calls.extend(waited.map(again));
        }
        turned.extend(turns(persona, rule, truth, until));
        undo_wishes(domain, rule, truth, until, evidence, state, &mut wanted);
        if detail == Detail::Deeds {
            continue;
        }
        let cooldown_left = state.rules[index]
            .touches
            .iter()
            .filter_map(|resource| cooldown_left(state, *resource, rule.cooldown, now))
            .max();
        rules.push(RuleReport {
            name: rule.name.clone(),
            line: rule.line,
            text: rule.text.clone(),
            truth,
            demands: rule.source,
            looked,
            cooldown_left,
        });
    }
    let mut best = Vec::new();
    for resource in [Resource::Vcpus, Resource::Memory] {
        let present = domain.present(resource);
        // `max_by_key` takes the last of equals, so the document is walked backwards to favour the first.
        let pick = wanted
            .iter()
            .rev()
            .filter(|wish| wish.resource == resource && wish.to != present)
            .max_by_key(|wish| (wish.priority, wish.to > present));
        let pick = pick.map(|pick| outdone(pick, &wanted, domain, persona, state, now));
        best.extend(pick.cloned());
    }
    prefer_need(domain, persona, state, policy, now, &mut best);
    Evaluation {
        rules,
        wanted: best,
        calls,
        turns: turned,
    }
}

/// What is to be done once when a rule begins to hold, and taken back once when its `until` does.
fn call(
    persona: &Persona,
    rule: &Rule,
    truth: Truth,
    until: Truth,
    slot: &mut RuleState,
    calls: &mut Vec<(String, Action, Edge)>,
) {
    let mut latch = Latch {
        called: slot.called,
        undo: slot.undo,
    };
    let edge = latch.turn(truth, rule.until.is_some().then_some(until));
    (slot.called, slot.undo) = (latch.called || slot.resumed, latch.undo);
    let Some(edge) = edge else { return };
    let once = persona.actions(rule).filter(|action| !action.is_kept_up());
    let asked = once.filter(|action| edge == Edge::Begins || action.lasts());
    calls.extend(asked.map(|action| (rule.name.to_string(), action.clone(), edge)));
}

/// How long a resource's last change still holds a rule with this cooldown back.
pub(crate) fn cooldown_left(
    state: &DomainState,
    resource: Resource,
    cooldown: Duration,
    now: Moment,
) -> Option<Duration> {
    let changed = state.resource(resource).changed_at?;
    cooldown
        .checked_sub(now.since(changed))
        .filter(|left| !left.is_zero())
}

/// Makes the rule states fit the persona: another document starts with fresh windows and forgets effects. What rules have
/// adjusted outlives them, so the `until` of such a rule is waited for from the start.
fn align(persona: &Persona, adjusted_by: &[String], state: &mut DomainState) {
    if state.persona.as_ref() != Some(&persona.digest) {
        state.persona = Some(persona.digest.clone());
        // Nothing was evaluated before a machine's first persona, so that one hears of what has just happened, as of its start.
        state.heard = state.evaluated;
        state.rules.clear();
        state.latches.clear();
        state.effects.clear();
        state.standing.clear();
        state.started = false;
    }
    if state.rules.len() != persona.rules.len() {
        state.rules = persona
            .rules
            .iter()
            .map(|rule| {
                let latch = state.latches.get(rule.name.as_str()).copied();
                let fresh = RuleState::fresh(persona, rule, latch);
                let undo = fresh.undo || adjusted_by.iter().any(|name| rule.name == *name);
                RuleState { undo, ..fresh }
            })
            .collect();
    }
}
