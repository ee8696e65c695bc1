//! Rules that would undo each other without end: both can fire at once, or one fires in the state to which the other
//! leads.
//!
//! The state after a change is estimated: what the guest does stays the same, so its utilisation goes with the inverse
//! of the size. vCPUs are changed one at a time with a new look at the readings after each, so a change of them counts
//! as one; what a rule does to memory it does at once. The worst case is the smallest size that the persona allows.

use super::Placed;
use super::interval::{Facts, Interval, Sign};
use crate::model::BaseConfiguration;
use crate::problem::{Kind, Problem};
use crate::quantity::Quantity;
use crate::rule::{Action, Condition, Direction, Expr, MemoryAmount, Resource, Rule};
use crate::signal::{Metric, Signal, Unit};

/// A rule's `until` can be true at the same time as what fires it, or as soon as it has acted.
pub(super) fn with_itself(placed: &Placed, base: &BaseConfiguration, problems: &mut Vec<Problem>) {
    let rule = &placed.rule;
    let Some(until) = &rule.until else { return };
    if let Some((on, off)) = overlap(&rule.when, until) {
        let message = format!(
            "`{}` fires when {on} and is undone when {off}: it would undo itself",
            rule.name
        );
        problems.push(
            Problem::warning(Kind::Flapping, placed.at, message)
                .help("leave a gap between the two"),
        );
        return;
    }
    for resource in [Resource::Vcpus, Resource::Memory] {
        let Some(change) = Change::of(rule, resource, Direction::Grow, base) else {
            continue;
        };
        let Some(after) = change.leads_to(&rule.when, until) else {
            continue;
        };
        let message = format!(
            "`{}` is undone when {}, and that is so once it has acted: {after}",
            rule.name,
            text_of(until, &change.utilization)
        );
        let help = "let `until` wait for less".to_owned();
        problems.push(Problem::warning(Kind::Flapping, placed.at, message).help(help));
    }
}

/// One rule grows what another shrinks, and both conditions can be true at once, or one is where the other leads.
pub(super) fn between(
    grow: &Placed,
    shrink: &Placed,
    base: &BaseConfiguration,
    problems: &mut Vec<Problem>,
) {
    for resource in [Resource::Vcpus, Resource::Memory] {
        if !moves(&grow.rule, resource, Direction::Grow)
            || !moves(&shrink.rule, resource, Direction::Shrink)
        {
            continue;
        }
        let (up, down) = (&grow.rule.name, &shrink.rule.name);
        if let Some((high, low)) = overlap(&grow.rule.when, &shrink.rule.when) {
            let message = format!(
                "`{down}` removes {resource} when {low}, and `{up}` adds {resource} when {high}: they would undo each other"
            );
            let help = format!(
                "leave a gap between the two, so that `{down}` is false where `{up}` is true"
            );
            problems.push(Problem::warning(Kind::Flapping, shrink.at, message).help(help));
            continue;
        }
        // Whether the growth leads to the shrinking is the same question from the other side for steps of one size, so
        // it is asked only where the shrinking does not lead to the growth.
        let back = Change::of(&shrink.rule, resource, Direction::Shrink, base).and_then(|change| {
            Some((
                change.leads_to(&shrink.rule.when, &grow.rule.when)?,
                shrink,
                grow,
                change,
            ))
        });
        let forth = || {
            let change = Change::of(&grow.rule, resource, Direction::Grow, base)?;
            Some((
                change.leads_to(&grow.rule.when, &shrink.rule.when)?,
                grow,
                shrink,
                change,
            ))
        };
        let Some((after, acts, answers, change)) = back.or_else(forth) else {
            continue;
        };
        let message = format!(
            "`{}` acts when {}, and then `{}` fires, as {}: {after}",
            acts.rule.name,
            text_of(&acts.rule.when, &change.utilization),
            answers.rule.name,
            text_of(&answers.rule.when, &change.utilization)
        );
        let help = format!("leave more room between the two, or raise `min` of {resource}");
        problems.push(Problem::warning(Kind::Flapping, acts.at, message).help(help));
    }
}

/// Whether a rule moves a resource that way. One that sets it grows it where it fires for a high utilisation, and shrinks
/// it where it fires for a low one; in a band between the two one fixed size undoes nothing.
fn moves(rule: &Rule, resource: Resource, way: Direction) -> bool {
    let range = facts(&rule.when).range_of(&utilization(resource));
    let sets = range.is_some_and(|range| match way {
        Direction::Grow => range.low > 0.0 && range.high >= 100.0,
        Direction::Shrink => range.high < 100.0 && range.low <= 0.0,
        Direction::To => false,
    });
    rule.then
        .iter()
        .filter(|action| action.resource() == Some(resource))
        .any(|action| match action.direction() {
            Some(Direction::To) => sets,
            other => other == Some(way),
        })
}

fn utilization(resource: Resource) -> Signal {
    Signal::Metric(match resource {
        Resource::Vcpus => Metric::CpuUtilization,
        Resource::Memory => Metric::MemoryUtilization,
    })
}

/// What both conditions say of the one metric on which they depend, where both can be true at once or change over at
/// the same value.
fn overlap(one: &Condition, other: &Condition) -> Option<(String, String)> {
    let (one, other) = (facts(one), facts(other));
    let signal = one.only_signal()?;
    if other.only_signal() != Some(signal) {
        return None;
    }
    let (range, other_range) = (one.range_of(signal)?, other.range_of(signal)?);
    range
        .meets(&other_range)
        .then(|| (one.text_of(signal), other.text_of(signal)))
}

fn facts(condition: &Condition) -> Facts<'_> {
    Facts::of(&condition.expr, Sign::Said)
}

fn text_of(condition: &Condition, signal: &Signal) -> String {
    let facts = facts(condition);
    let said = facts.text_of(signal);
    if said.is_empty() {
        condition.text()
    } else {
        said
    }
}

/// What a rule does to the size of a resource, from the smallest size at which it can.
struct Change {
    utilization: Signal,
    from: Size,
    to: Size,
}

/// A number of vCPUs, or bytes.
#[derive(Clone, Copy)]
struct Size {
    resource: Resource,
    amount: f64,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (value, unit) = match self.resource {
            Resource::Vcpus => (self.amount, Unit::Count),
            // Shares of a size need no more than whole MiB to be understood.
            Resource::Memory => ((self.amount / MIB).round() * MIB, Unit::Bytes),
        };
        Quantity { value, unit }.fmt(f)?;
        f.write_str(match self.resource {
            Resource::Vcpus => " vcpus",
            Resource::Memory => "",
        })
    }
}

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

impl Change {
    /// What the rule does in one direction; `None` where it does nothing that way, or the size is not known.
    fn of(
        rule: &Rule,
        resource: Resource,
        direction: Direction,
        base: &BaseConfiguration,
    ) -> Option<Self> {
        let (from, to) = rule.then.iter().find_map(|action| match resource {
            Resource::Vcpus => vcpus(action, direction, base),
            Resource::Memory => memory(action, direction, base),
        })?;
        let size = |amount| Size { resource, amount };
        Some(Self {
            utilization: utilization(resource),
            from: size(from),
            to: size(to),
        })
    }

    /// How the utilisation changes, where a rule that acts on `when` makes `answer` true by it.
    fn leads_to(&self, when: &Condition, answer: &Condition) -> Option<String> {
        let range = facts(when).range_of(&self.utilization)?;
        let range = range.and(Interval::closed(0.0, 100.0));
        if range.is_empty() {
            return None;
        }
        let after = range.scaled(self.from.amount / self.to.amount, 100.0);
        if !can_be_true(&answer.expr, &self.utilization, after) {
            return None;
        }
        let growing = self.to.amount > self.from.amount;
        let (before, then) = if growing {
            (range.low, after.low)
        } else {
            (range.high, after.high)
        };
        let percent = |value: f64| format!("{}%", (value * 10.0).round() / 10.0);
        Some(format!(
            "{} of {} is {} of {}",
            percent(before),
            self.from,
            percent(then),
            self.to
        ))
    }
}

/// Whether a condition that depends on the utilisation alone is true for a value of the range.
fn can_be_true(expr: &Expr, utilization: &Signal, range: Interval) -> bool {
    if let Expr::Or(parts) = expr {
        return parts
            .iter()
            .any(|part| can_be_true(part, utilization, range));
    }
    let facts = Facts::of(expr, Sign::Said);
    facts.only_signal() == Some(utilization)
        && facts
            .range_of(utilization)
            .is_some_and(|asked| !asked.and(range).is_empty())
}

/// From how many vCPUs to how many one step leads, at the smallest size.
fn vcpus(action: &Action, way: Direction, base: &BaseConfiguration) -> Option<(f64, f64)> {
    let least = base.cpu.map_or(1, |cpu| cpu.min.max(1));
    let (from, to) = match (action, way) {
        (Action::AddVcpus(_), Direction::Grow) => (least, least + 1),
        (Action::RemoveVcpus(_), Direction::Shrink) => (least + 1, least),
        (Action::SetVcpus(count), Direction::Grow) if *count > least => (least, least + 1),
        (Action::SetVcpus(count), Direction::Shrink) => {
            let least = least.max(*count);
            (least + 1, least)
        }
        _ => return None,
    };
    Some((f64::from(from), f64::from(to)))
}

/// The same for bytes of memory; `None` without a bound that tells the size.
fn memory(action: &Action, way: Direction, base: &BaseConfiguration) -> Option<(f64, f64)> {
    // Sizes are below 2^53, which an f64 holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let bytes = |size: crate::units::Bytes| size.0 as f64;
    let memory = base.memory?;
    let least = bytes(memory.min);
    let (from, to) = match (action, way) {
        (Action::AddMemory(MemoryAmount::Percent(percent)), Direction::Grow) => {
            (least, least * (1.0 + percent / 100.0))
        }
        (Action::RemoveMemory(MemoryAmount::Percent(percent)), Direction::Shrink) => {
            (least / (1.0 - percent / 100.0), least)
        }
        (Action::AddMemory(MemoryAmount::Size(size)), Direction::Grow) => {
            (least, least + bytes(*size))
        }
        (Action::RemoveMemory(MemoryAmount::Size(size)), Direction::Shrink) => {
            (least + bytes(*size), least)
        }
        (Action::SetMemory(size), Direction::Grow) => {
            (bytes(memory.initial.unwrap_or(memory.min)), bytes(*size))
        }
        (Action::SetMemory(size), Direction::Shrink) => {
            (bytes(memory.max.or(memory.initial)?), bytes(*size))
        }
        _ => return None,
    };
    let right = match way {
        Direction::Grow => to > from,
        _ => to < from,
    };
    right.then_some((from, to))
}
