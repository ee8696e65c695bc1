//! Rules that never get their way, because another one that goes first always fires with them.

use super::Placed;
use super::interval::{Facts, Sign};
use crate::problem::{Kind, Problem};
use crate::rule::{Action, Direction, Resource, Rule};

/// Warns where `rule` changes a resource only when `first` changes it the same way and goes first. `earlier` says how
/// the two stand in the document, which decides between equal priorities.
pub(super) fn shadowed(
    placed: &Placed,
    first: &Placed,
    earlier: bool,
    problems: &mut Vec<Problem>,
) {
    let (rule, other) = (&placed.rule, &first.rule);
    let goes_first = other.priority > rule.priority || (other.priority == rule.priority && earlier);
    if !goes_first || other.source > rule.source || !fires_with(rule, other) {
        return;
    }
    for resource in [Resource::Vcpus, Resource::Memory] {
        let way = relative(rule, resource);
        if way.is_none() || way != relative(other, resource) {
            continue;
        }
        let message = format!(
            "`{}` never changes {resource}: whenever it fires, `{}` fires too and goes first",
            rule.name, other.name
        );
        let help = format!(
            "give `{}` a higher priority, or let `{}` fire for less",
            rule.name, other.name
        );
        problems.push(Problem::warning(Kind::Contradiction, placed.at, message).help(help));
    }
}

/// The way in which a rule moves a resource by a step, which it wants as long as it fires.
fn relative(rule: &Rule, resource: Resource) -> Option<Direction> {
    let mut steps = rule
        .then
        .iter()
        .filter(|action| action.resource() == Some(resource))
        .map(Action::direction);
    steps.next().flatten().filter(|way| *way != Direction::To)
}

/// Whether `other` fires whenever `rule` does.
fn fires_with(rule: &Rule, other: &Rule) -> bool {
    let (narrow, wide) = (
        Facts::of(&rule.when.expr, Sign::Said),
        Facts::of(&other.when.expr, Sign::Said),
    );
    wide.complete
        && !wide.all.is_empty()
        && wide.all.iter().all(|asked| {
            narrow.all.iter().any(|given| {
                given.subject == asked.subject
                    && asked.interval.covers(&given.interval)
                    && asked.held <= given.held
            })
        })
}
