//! What must hold between the parts of a persona that are each right in themselves: names of rules, rules that undo
//! each other, never fire or never get their way, rules that reach beyond the bounds. Single values are checked where
//! they are read, and what this version does not act on is said there.

mod flapping;
mod interval;
mod never;
mod shadow;

use crate::limits;
use crate::model::BaseConfiguration;
use crate::problem::{Kind, Problem, Span};
use crate::rule::{Action, Rule, Value};

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
        never::fires(placed, problems);
        flapping::with_itself(placed, base, problems);
    }
    too_many_functions(rules, problems);
    for (index, one) in rules.iter().enumerate() {
        for (other_index, other) in rules.iter().enumerate() {
            flapping::between(one, other, base, problems);
            if other_index != index {
                shadow::shadowed(one, other, other_index < index, problems);
            }
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
