//! Conditions that cannot be true, whatever is measured. What stays unknown is said where the rule names it.

use super::Placed;
use super::interval::{Facts, Interval, Sign};
use crate::problem::{Kind, Problem};
use crate::quantity::Quantity;
use crate::rule::Expr;
use crate::signal::Unit;

/// Warns of a rule that never fires or is never undone.
pub(super) fn fires(placed: &Placed, problems: &mut Vec<Problem>) {
    let rule = &placed.rule;
    if let Some(why) = never(&rule.when.expr, Sign::Said) {
        let message = format!("`{}` never fires: {why}", rule.name);
        let help = "change the condition so that some value fulfils it";
        problems.push(Problem::warning(Kind::Contradiction, placed.at, message).help(help));
    }
    if let Some(until) = &rule.until
        && let Some(why) = never(&until.expr, Sign::Said)
    {
        let message = format!("`{}` is never undone: {why}", rule.name);
        let help = "leave `until` out where the effect is to stay";
        problems.push(Problem::warning(Kind::Contradiction, placed.name_at, message).help(help));
    }
}

/// Why a condition is never true, where that can be said of it.
fn never(expr: &Expr, sign: Sign) -> Option<String> {
    let facts = Facts::of(expr, sign);
    for (index, fact) in facts.all.iter().enumerate() {
        let domain = fact.subject.domain();
        if fact.interval.and(domain).is_empty() {
            return Some(format!(
                "{} is never {}; it is {}",
                fact.subject,
                fact.text,
                shown(domain)
            ));
        }
        let others = facts.all[..index]
            .iter()
            .filter(|other| other.subject == fact.subject);
        for other in others {
            if fact.interval.and(other.interval).is_empty() {
                return Some(format!(
                    "{} is never {} and {} at once",
                    fact.subject, other.text, fact.text
                ));
            }
        }
    }
    facts.choices.iter().find_map(|(parts, sign)| {
        let mut reasons = parts.iter().map(|part| never(part, *sign));
        let first = reasons.next()??;
        reasons.all(|reason| reason.is_some()).then_some(first)
    })
}

fn shown(domain: Interval) -> String {
    // Only percentages have an upper end.
    let percent = |value: f64| {
        let minus = if value < 0.0 { "-" } else { "" };
        let quantity = Quantity {
            value: value.abs(),
            unit: Unit::Percent,
        };
        format!("{minus}{quantity}")
    };
    if domain.high.is_finite() {
        format!("{} to {}", percent(domain.low), percent(domain.high))
    } else {
        "never below zero".to_owned()
    }
}
