//! What must hold between the parts of a persona that are each right in themselves: names of rules, rules that undo
//! each other, rules that reach beyond the bounds. Single values are checked where they are read.

use crate::limits;
use crate::model::BaseConfiguration;
use crate::problem::{Kind, Problem, Span};
use crate::quantity::Quantity;
use crate::rule::{Action, Comparison, Condition, Direction, Expr, Resource, Rule, Value};
use crate::signal::Signal;

/// A rule and where it stands.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) rule: Rule,
    /// Its condition.
    pub(crate) at: Span,
    /// Its name, or the rule where it has none.
    pub(crate) name_at: Span,
}

/// Checks all rules of a persona against each other and against its bounds.
pub(crate) fn rules(rules: &[Placed], base: &BaseConfiguration, problems: &mut Vec<Problem>) {
    for (index, placed) in rules.iter().enumerate() {
        let name = &placed.rule.name;
        if let Some(first) = rules[..index].iter().find(|other| other.rule.name == *name) {
            let line = first.name_at.line;
            let message = format!("there is a rule `{name}` already, on line {line}");
            let problem = Problem::error(Kind::Duplicate, placed.name_at, message);
            problems.push(problem.help("rules are told apart by name"));
        }
        beyond_bounds(placed, base, problems);
        undone_at_once(placed, problems);
    }
    too_many_functions(rules, problems);
    for grow in rules {
        for shrink in rules {
            flapping(grow, shrink, problems);
        }
    }
}

/// Each function keeps readings for as long as the persona is in force.
fn too_many_functions(rules: &[Placed], problems: &mut Vec<Problem>) {
    let mut functions = 0;
    for placed in rules {
        let conditions = std::iter::once(&placed.rule.when).chain(&placed.rule.until);
        for condition in conditions {
            condition.expr.visit_leaves(&mut |value| {
                functions += usize::from(matches!(value, Value::Function { .. }));
            });
        }
        if functions > limits::MOST_FUNCTIONS_IN_ALL {
            let message = format!(
                "the rules of a persona have at most {} functions over windows",
                limits::MOST_FUNCTIONS_IN_ALL
            );
            problems.push(Problem::error(Kind::TooLarge, placed.at, message));
            return;
        }
    }
}

fn changes(rule: &Rule, resource: Resource, direction: Direction) -> bool {
    rule.then
        .iter()
        .any(|action| action.resource() == Some(resource) && action.direction() == Some(direction))
}

/// One rule grows what another shrinks, and both conditions can be true at once.
fn flapping(grow: &Placed, shrink: &Placed, problems: &mut Vec<Problem>) {
    for resource in [Resource::Vcpus, Resource::Memory] {
        if !changes(&grow.rule, resource, Direction::Grow)
            || !changes(&shrink.rule, resource, Direction::Shrink)
        {
            continue;
        }
        let (Some(up), Some(down)) = (
            Threshold::of(&grow.rule.when),
            Threshold::of(&shrink.rule.when),
        ) else {
            continue;
        };
        if !up.overlaps(&down) {
            continue;
        }
        let message = format!(
            "`{}` removes {resource} when {down}, and `{}` adds {resource} when {up}: they would undo each other",
            shrink.rule.name, grow.rule.name
        );
        let help = format!(
            "leave a gap between the two, so that `{}` is false where `{}` is true",
            shrink.rule.name, grow.rule.name
        );
        problems.push(Problem::warning(Kind::Flapping, shrink.at, message).help(help));
    }
}

/// A rule's `until` can be true at the same time as what fires it.
fn undone_at_once(placed: &Placed, problems: &mut Vec<Problem>) {
    let rule = &placed.rule;
    let Some(until) = &rule.until else { return };
    let (Some(on), Some(off)) = (Threshold::of(&rule.when), Threshold::of(until)) else {
        return;
    };
    if on.overlaps(&off) {
        let message = format!(
            "`{}` fires when {on} and is undone when {off}: it would undo itself",
            rule.name
        );
        problems.push(
            Problem::warning(Kind::Flapping, placed.at, message)
                .help("leave a gap between the two"),
        );
    }
}

/// A fixed amount that the persona's own bounds do not allow.
fn beyond_bounds(placed: &Placed, base: &BaseConfiguration, problems: &mut Vec<Problem>) {
    let (cpu, memory) = (base.cpu, base.memory);
    for action in &placed.rule.then {
        let outside = match action {
            Action::SetVcpus(count) => match cpu {
                Some(cpu) if cpu.max.is_some_and(|max| *count > max) => {
                    cpu.max.map(|max| format!("`max` is {max}"))
                }
                Some(cpu) if *count < cpu.min => Some(format!("`min` is {}", cpu.min)),
                _ => None,
            },
            Action::SetMemory(size) => match memory {
                Some(memory) if memory.max.is_some_and(|max| *size > max) => {
                    memory.max.map(|max| format!("`max` is {max}"))
                }
                Some(memory) if *size < memory.min => Some(format!("`min` is {}", memory.min)),
                _ => None,
            },
            _ => None,
        };
        if let Some(bound) = outside {
            let message = format!("`{}` would {action}, but {bound}", placed.rule.name);
            let problem = Problem::warning(Kind::Contradiction, placed.name_at, message);
            problems
                .push(problem.help("the bound of base_configuration holds; change one of the two"));
        }
    }
}

/// A condition that is one comparison of a metric with a number, with or without a window.
struct Threshold {
    signal: Signal,
    side: Side,
    value: f64,
    text: String,
}

/// On which side of its value a threshold is true.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Above,
    Below,
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Threshold {
    fn of(condition: &Condition) -> Option<Self> {
        let mut expr = &condition.expr;
        while let Expr::Held { inner, .. } = expr {
            expr = inner;
        }
        let Expr::Compare { left, op, right } = expr else {
            return None;
        };
        let side = match op {
            Comparison::Greater | Comparison::GreaterOrEqual => Side::Above,
            Comparison::Less | Comparison::LessOrEqual => Side::Below,
            Comparison::Equal | Comparison::NotEqual => return None,
        };
        let (signal, side, value, unit) = match (left, right) {
            (Value::Signal(signal), Value::Number { value, unit }) => {
                (signal.clone(), side, *value, *unit)
            }
            (Value::Number { value, unit }, Value::Signal(signal)) => {
                let turned = if side == Side::Above {
                    Side::Below
                } else {
                    Side::Above
                };
                (signal.clone(), turned, *value, *unit)
            }
            _ => return None,
        };
        let sign = if side == Side::Above {
            "above"
        } else {
            "below"
        };
        let text = format!("{signal} is {sign} {}", Quantity { value, unit });
        Some(Self {
            signal,
            side,
            value,
            text,
        })
    }

    /// Whether both can be true at once, or change over at the same value.
    fn overlaps(&self, other: &Self) -> bool {
        self.signal == other.signal
            && match (self.side, other.side) {
                (Side::Above, Side::Below) => self.value <= other.value,
                (Side::Below, Side::Above) => other.value <= self.value,
                (Side::Above, Side::Above) | (Side::Below, Side::Below) => true,
            }
    }
}
