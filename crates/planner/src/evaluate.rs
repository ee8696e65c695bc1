//! Rules over readings: for each resource at most one wish. The highest priority wins; among equals growth goes before
//! shrinking, because a machine that is too small hurts more than one that is too large; then the order of the
//! document. What bounds a wish is in `guard`.

use std::time::Duration;

use persona::Persona;
use persona::rule::{Action, Latch, MemoryAmount, Resource, Rule, Trail, Truth};
use persona::signal::{Event, Metric, Named, Reading, Signals, Source};
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
use crate::state::{DomainState, Pursuit, RuleState, waits_for_its_turn};
use crate::trust::{evidence, evidence_of};

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

/// The readings, without those from before the last change of what they measure: such a reading describes a machine
/// that is no more, and would make the same rule fire twice for one need.
pub(crate) struct SinceChange<'a> {
    pub(crate) signals: &'a dyn Signals,
    pub(crate) vcpus: Option<Moment>,
    pub(crate) memory: Option<Moment>,
}

impl<'a> SinceChange<'a> {
    /// The readings of a domain, by what is carried for it.
    pub(crate) fn of(domain: &Domain<'a>, carried: &DomainState) -> Self {
        Self {
            signals: domain.signals,
            vcpus: carried.vcpus.changed_at,
            memory: carried.memory.changed_at,
        }
    }
}

impl Signals for SinceChange<'_> {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let changed = match metric {
            Metric::CpuUtilization
            | Metric::CpuSteal
            | Metric::CpuThrottled
            | Metric::CpuPressure
            | Metric::VcpuCount => self.vcpus,
            Metric::MemorySize
            | Metric::MemoryUtilization
            | Metric::MemoryAvailable
            | Metric::MemoryPressure
            | Metric::MemorySwapIn
            | Metric::MemoryMajorFaults
            | Metric::GuestMemoryPressure
            | Metric::GuestMajorFaults => self.memory,
            _ => None,
        };
        let reading = self.signals.reading(metric)?;
        match changed {
            // Rates are averages over the time since the sample before, so one whole period must lie after the change.
            Some(changed)
                if matches!(
                    metric,
                    Metric::CpuUtilization
                        | Metric::MemorySwapIn
                        | Metric::MemoryMajorFaults
                        | Metric::GuestMajorFaults
                ) && reading.at < changed.after(reading.period) =>
            {
                None
            }
            Some(changed) if reading.at < changed => None,
            _ => Some(reading),
        }
    }

    // What applications and others say is no measure of a resource, and what has happened stays so after a change.

    fn named(&self, named: &Named) -> Option<Reading> {
        self.signals.named(named)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        self.signals.happened(event)
    }
}

/// The base configuration goes before every rule.
pub(crate) const BASE_PRIORITY: i64 = i64::MAX;
/// Then what a guest misses.
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

/// A rule that called for a fixed amount keeps wanting it until it is there: one call, carried out in steps of which
/// each is verified. It ends where what the rule is about is over, where its source is no longer good enough, and it
/// waits where nothing is known.
#[allow(clippy::too_many_arguments)]
fn pursue(
    domain: &Domain<'_>,
    persona: &Persona,
    rule: &Rule,
    truth: Truth,
    evidence: Source,
    slot: &mut RuleState,
    now: Moment,
    wanted: &mut Vec<Wanted>,
) {
    if truth == Truth::True {
        let fixed = |action: &Action| match action {
            Action::SetVcpus(count) => Some((Resource::Vcpus, u64::from(*count))),
            Action::SetMemory(size) => Some((Resource::Memory, size.0)),
            _ => None,
        };
        let earlier = std::mem::take(&mut slot.pursued);
        let fixed = persona.actions(rule).filter_map(fixed);
        slot.pursued = fixed
            .filter(|(resource, to)| domain.present(*resource) != *to)
            .map(|(resource, to)| {
                let same = |pursuit: &&Pursuit| pursuit.resource == resource && pursuit.to == to;
                let since = earlier
                    .iter()
                    .find(same)
                    .map_or(now, |pursuit| pursuit.since);
                Pursuit {
                    resource,
                    to,
                    since,
                }
            })
            .collect();
        return;
    }
    slot.pursued
        .retain(|pursuit| domain.present(pursuit.resource) != pursuit.to);
    if slot.pursued.is_empty() {
        return;
    }
    match rule.when.would_hold(domain.signals, now) {
        Truth::False => slot.pursued.clear(),
        Truth::Unknown => {}
        Truth::True if rule.source.is_some_and(|least| evidence < least) => {}
        Truth::True => wanted.extend(slot.pursued.iter().map(|pursuit| Wanted {
            resource: pursuit.resource,
            to: pursuit.to,
            by: Wish::Rule(rule.name.to_string()),
            priority: rule.priority.into(),
            cooldown: Duration::ZERO,
            evidence,
            effect: rule.until.is_some().then(|| rule.name.to_string()),
        })),
    }
}

/// A wish for a fixed amount towards which a step was taken already: the further ones belong to the same call and wait
/// for no cooldown.
fn continued(
    wish: Wanted,
    slot: &RuleState,
    (vcpus, memory): (Option<Moment>, Option<Moment>),
) -> Wanted {
    let changed = match wish.resource {
        Resource::Vcpus => vcpus,
        Resource::Memory => memory,
    };
    let under_way = slot.pursued.iter().any(|pursuit| {
        pursuit.resource == wish.resource
            && pursuit.to == wish.to
            && changed.is_some_and(|changed| changed >= pursuit.since)
    });
    Wanted {
        cooldown: if under_way {
            Duration::ZERO
        } else {
            wish.cooldown
        },
        ..wish
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

/// What the base configuration wants: at least `min`, at most `max`, and `initial` once.
fn base_wishes(
    domain: &Domain<'_>,
    persona: &Persona,
    state: &mut DomainState,
    wanted: &mut Vec<Wanted>,
) {
    let mut wish = |resource, to, by| {
        wanted.push(Wanted {
            resource,
            to,
            by,
            priority: BASE_PRIORITY,
            cooldown: Duration::ZERO,
            evidence: Source::Host,
            effect: None,
        });
    };
    for resource in [Resource::Vcpus, Resource::Memory] {
        let Some(bounds) = bounds(persona, resource) else {
            continue;
        };
        let present = domain.present(resource);
        if present < bounds.min {
            wish(resource, bounds.min, Wish::Minimum);
        } else if let Some(max) = bounds.max.filter(|max| present > *max) {
            wish(resource, max, Wish::Maximum);
        } else if !state.started
            && let Some(initial) = bounds.initial.filter(|initial| present < *initial)
        {
            // Only upwards: a machine that somebody started larger is shrunk by its rules, on evidence.
            wish(resource, initial, Wish::Initial);
        }
    }
    let reached = |resource| {
        bounds(persona, resource)
            .and_then(|bounds| bounds.initial)
            .is_none_or(|initial| domain.present(resource) >= initial)
    };
    if reached(Resource::Vcpus) && reached(Resource::Memory) {
        state.started = true;
    }
}

/// The persona's numbers for one resource, in vCPUs or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) min: u64,
    pub(crate) initial: Option<u64>,
    pub(crate) max: Option<u64>,
    pub(crate) reservation: u64,
    pub(crate) share: u32,
}

/// The persona's numbers, or nothing where the document is silent about the resource.
pub(crate) fn bounds(persona: &Persona, resource: Resource) -> Option<Bounds> {
    match resource {
        Resource::Vcpus => persona.base.cpu.as_ref().map(|cpu| Bounds {
            min: cpu.min.into(),
            initial: cpu.initial.map(u64::from),
            max: cpu.max.map(u64::from),
            reservation: cpu.reservation.into(),
            share: cpu.share,
        }),
        Resource::Memory => persona.base.memory.as_ref().map(|memory| Bounds {
            min: memory.min.0,
            initial: memory.initial.map(|bytes| bytes.0),
            max: memory.max.map(|bytes| bytes.0),
            reservation: memory.reservation.0,
            share: memory.share,
        }),
    }
}

/// What one action of a rule that holds wants.
fn rule_wish(
    domain: &Domain<'_>,
    rule: &Rule,
    action: &Action,
    evidence: Source,
) -> Option<Wanted> {
    let resource = action.resource()?;
    let present = domain.present(resource);
    let to = match action {
        Action::SetVcpus(count) => u64::from(*count),
        Action::AddVcpus(count) => present.saturating_add(u64::from(*count)),
        Action::RemoveVcpus(count) => present.saturating_sub(u64::from(*count)).max(1),
        Action::SetMemory(size) => size.0,
        Action::AddMemory(amount) => present.saturating_add(memory_amount(*amount, present)),
        Action::RemoveMemory(amount) => present.saturating_sub(memory_amount(*amount, present)),
        _ => return None,
    };
    Some(Wanted {
        resource,
        to,
        by: Wish::Rule(rule.name.to_string()),
        priority: rule.priority.into(),
        cooldown: rule.cooldown,
        evidence,
        effect: rule.until.is_some().then(|| rule.name.to_string()),
    })
}

/// A relative amount of memory in bytes.
fn memory_amount(amount: MemoryAmount, present: u64) -> u64 {
    match amount {
        MemoryAmount::Size(size) => size.0,
        // Percentages are validated to be finite and positive; the cast saturates, and bounds follow anyway.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        MemoryAmount::Percent(percent) => (present as f64 * percent / 100.0) as u64,
    }
}

/// What goes back: effects of the rule whose `until` holds, until they are back where they began.
fn undo_wishes(
    domain: &Domain<'_>,
    rule: &Rule,
    truth: Truth,
    until: Truth,
    evidence: Source,
    state: &mut DomainState,
    wanted: &mut Vec<Wanted>,
) {
    for effect in state
        .effects
        .iter_mut()
        .filter(|effect| effect.rule == rule.name)
    {
        if truth == Truth::True {
            effect.undoing = false;
        } else if until == Truth::True {
            effect.undoing = true;
        }
        if effect.undoing {
            wanted.push(Wanted {
                resource: effect.resource,
                to: effect.before,
                by: Wish::Undo(rule.name.to_string()),
                priority: rule.priority.into(),
                cooldown: Duration::ZERO,
                evidence,
                effect: None,
            });
        }
    }
    state.effects.retain(|effect| {
        !(effect.rule == rule.name
            && effect.undoing
            && domain.present(effect.resource) == effect.before)
    });
}

#[cfg(test)]
mod tests {
    use persona::signal::EventKind;

    use super::*;
    use crate::testing::{AT, All};

    #[test]
    fn a_change_hides_what_was_measured_before_it_and_neither_names_nor_events() {
        let since = SinceChange {
            signals: &All,
            vcpus: Some(AT.after(Duration::from_secs(1))),
            memory: Some(AT.after(Duration::from_secs(1))),
        };
        assert_eq!(since.reading(Metric::CpuUtilization), None);
        assert_eq!(since.reading(Metric::MemoryAvailable), None);
        assert!(since.reading(Metric::GuestLoad).is_some());
        let orders: Named = "guest.app.orders".parse().unwrap();
        assert_eq!(since.named(&orders), All.named(&orders));
        let event = Event {
            kind: EventKind::AgentLost,
            source: None,
        };
        assert_eq!(since.happened(&event), Some(AT));
    }
}
