//! What one rule wants of vCPUs and memory: while it holds, until a fixed amount is reached, and back when its `until` holds.
//! Which wish is followed is decided in `evaluate`.

use std::time::Duration;

use persona::Persona;
use persona::rule::{Action, MemoryAmount, Resource, Rule, Truth};
use persona::signal::Source;
use persona::units::Moment;

use super::Wanted;
use crate::report::Wish;
use crate::snapshot::Domain;
use crate::state::{DomainState, Pursuit, RuleState};

/// A rule that called for a fixed amount keeps wanting it until it is there: one call, carried out in steps of which
/// each is verified. It ends where what the rule is about is over, where its source is no longer good enough, and it
/// waits where nothing is known.
#[allow(clippy::too_many_arguments)]
pub(super) fn pursue(
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
pub(super) fn continued(
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

/// What one action of a rule that holds wants.
pub(super) fn rule_wish(
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
pub(super) fn undo_wishes(
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
