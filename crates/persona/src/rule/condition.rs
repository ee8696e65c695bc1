//! Conditions: logic, windows, comparisons, and whether two quantities compare.

use std::time::Duration;

use super::ast::{Comparison, Condition, Expr, Value};
use super::check;
use super::lex::What;
use super::parse::{Parsed, Parser};
use super::value::Typed;
use crate::problem::Kind;
use crate::signal::Unit;

/// Events of the language to which this version does not listen.
const EVENTS: [&str; 8] = [
    "domain.started",
    "domain.rebooted",
    "agent.lost",
    "migration.finished",
    "guest.oom",
    "login.failed",
    "feed.changed",
    "event",
];

impl Parser<'_> {
    pub(super) fn condition(&mut self) -> Parsed<Condition> {
        let start = self.here().start;
        let before = self.problems.len();
        let expr = self.or()?;
        let condition = Condition { expr };
        if self.problems.len() == before
            && condition.signals().next().is_none()
            && condition.events().next().is_none()
        {
            let at = self.since(start);
            self.report(
                Kind::RuleSyntax,
                at,
                "this compares numbers with numbers and measures nothing",
            )
            .help = Some("name a metric, such as `cpu.utilization`".to_owned());
        }
        Ok(condition)
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn not(&mut self) -> Parsed<Expr> {
        if self.take_word("not") {
            return Ok(Expr::Not(Box::new(self.held()?)));
        }
        self.held()
    }

    fn held(&mut self) -> Parsed<Expr> {
        let opens = self.peek().is_some_and(|token| token.is_symbol("("));
        let inner = if opens && self.is_condition_group() {
            self.nested(|parser| {
                let inner = parser.or()?;
                if parser.take_symbol(")") {
                    Ok(inner)
                } else {
                    parser.expected("`)`, AND, OR or FOR")
                }
            })?
        } else {
            self.comparison()?
        };
        if !self.take_word("for") {
            return Ok(inner);
        }
        let window = self.duration("a FOR window", Duration::from_millis(1))?;
        let slot = self.slot;
        self.slot += 1;
        Ok(Expr::Held {
            inner: Box::new(inner),
            window,
            slot,
        })
    }

    /// Whether the parenthesis that opens here holds a condition and not a sum: a comparison stands in it.
    fn is_condition_group(&self) -> bool {
        let mut open = 0_usize;
        for token in &self.tokens[self.next..] {
            match token.what {
                What::Symbol("(") => open += 1,
                What::Symbol(")") if open <= 1 => return false,
                What::Symbol(")") => open -= 1,
                What::Symbol("<" | "<=" | ">" | ">=" | "==" | "!=" | "=" | "&&" | "||" | "!") => {
                    return true;
                }
                _ if ["between", "and", "or", "not", "for"]
                    .iter()
                    .any(|word| token.is_word(word)) =>
                {
                    return true;
                }
                _ => {}
            }
        }
        true
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        if let Some(event) = self.event() {
            return Ok(event);
        }
        let left = self.sum()?;
        if self.take_word("between") {
            let low = self.sum()?;
            if !self.take_word("and") {
                return self.expected("AND and the upper end of BETWEEN");
            }
            let high = self.sum()?;
            self.comparable(&left, &low);
            self.comparable(&left, &high);
            if let (Value::Number { value: from, .. }, Value::Number { value: to, .. }) =
                (&low.value, &high.value)
                && from > to
                && low.kind == high.kind
            {
                let (from, to) = (&self.text[low.at.clone()], &self.text[high.at.clone()]);
                let message =
                    format!("nothing is BETWEEN {from} and {to}: the lower end comes first");
                self.report(Kind::Contradiction, low.at.start..high.at.end, message);
            }
            return Ok(Expr::Between {
                value: left.value,
                low: low.value,
                high: high.value,
            });
        }
        let op = match self.peek().map(|token| &token.what) {
            Some(What::Symbol("<")) => Comparison::Less,
            Some(What::Symbol("<=")) => Comparison::LessOrEqual,
            Some(What::Symbol(">")) => Comparison::Greater,
            Some(What::Symbol(">=")) => Comparison::GreaterOrEqual,
            Some(What::Symbol("==")) => Comparison::Equal,
            Some(What::Symbol("!=")) => Comparison::NotEqual,
            _ => return self.expected("a comparison (<, <=, >, >=, ==, != or BETWEEN)"),
        };
        self.advance();
        let right = self.sum()?;
        self.comparable(&left, &right);
        Ok(Expr::Compare {
            left: left.value,
            op,
            right: right.value,
        })
    }

    /// An event, which stands without a comparison. It is reported, and the rest of the rule is read on.
    fn event(&mut self) -> Option<Expr> {
        let What::Word(word) = &self.peek()?.what else {
            return None;
        };
        let lowered = word.to_ascii_lowercase();
        if !EVENTS.contains(&lowered.as_str()) {
            return None;
        }
        let start = self.here().start;
        self.advance();
        self.skip_arguments();
        let at = self.since(start);
        self.report(
            Kind::NotYetSupported,
            at,
            format!("this version does not react to the event `{word}`"),
        )
        .help = Some("compare a metric, such as `cpu.utilization > 80%`".to_owned());
        let nothing = || Value::Number {
            value: 0.0,
            unit: Unit::Count,
        };
        Some(Expr::Compare {
            left: nothing(),
            op: Comparison::Equal,
            right: nothing(),
        })
    }

    fn comparable(&mut self, left: &Typed, right: &Typed) {
        let (Some(one), Some(other)) = (left.kind, right.kind) else {
            return;
        };
        if one == other {
            return;
        }
        let (left_text, right_text) = (&self.text[left.at.clone()], &self.text[right.at.clone()]);
        let message =
            format!("`{left_text}` is {one} and `{right_text}` is {other}; they do not compare");
        // A number without a unit is the one that was forgotten; else the right one is shown.
        let bare = |typed: &Typed, text: &str| {
            typed.kind == Some(Unit::Count) && text.parse::<f64>().is_ok()
        };
        let (at, kind, help) = if bare(right, right_text) {
            (
                right.at.clone(),
                other,
                Some(check::example(right_text, one)),
            )
        } else if bare(left, left_text) {
            (left.at.clone(), one, Some(check::example(left_text, other)))
        } else {
            (right.at.clone(), other, None)
        };
        let problem = self.report(Kind::UnitMismatch, at, message);
        problem.label = Some(kind.to_string());
        problem.help = help.map(|example| format!("write the unit, such as `{example}`"));
    }
}

fn one_or(mut parts: Vec<Expr>, join: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            join(parts)
        }
    }
}
