//! Conditions: logic, windows, events, comparisons, and whether two values compare.

use std::ops::Range;
use std::time::Duration;

use super::ast::{Comparison, Condition, Expr, Value};
use super::check::{self, Type};
use super::lex::What;
use super::parse::{Parsed, Parser};
use super::spoken;
use super::value::Typed;
use crate::limits;
use crate::model::Level;
use crate::problem::Kind;
use crate::signal::{Event, EventError, EventKind, Measured, Unit};

impl Parser<'_> {
    pub(super) fn condition(&mut self) -> Parsed<Condition> {
        let start = self.here().start;
        let before = self.problems.len();
        let expr = self.or()?;
        let condition = Condition::new(expr);
        if !self.failed_since(before)
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
        let for_at = self.here();
        if !self.take_word("for") {
            return Ok(inner);
        }
        let window = self.duration("a FOR window", Duration::from_millis(1))?;
        if window > EventKind::LASTS && is_momentary(&inner) {
            let at = self.since(for_at.start);
            let lasts = crate::quantity::exact_duration(EventKind::LASTS);
            let message = format!("an event counts as true for {lasts}, so this is never true");
            self.report(Kind::Contradiction, at, message).help = Some(
                "let FOR stand behind what lasts, or leave it out and use COOLDOWN".to_owned(),
            );
        }
        let slot = self.slot;
        self.slot += 1;
        Ok(Expr::Held {
            inner: Box::new(inner),
            window,
            slot,
        })
    }

    /// Whether the parenthesis that opens here holds a condition and not a sum: a comparison or an event stands in it.
    fn is_condition_group(&self) -> bool {
        let mut open = 0_usize;
        for (index, token) in self.tokens.iter().enumerate().skip(self.next) {
            match &token.what {
                What::Symbol("(") => open += 1,
                What::Symbol(")") if open <= 1 => return false,
                What::Symbol(")") => open -= 1,
                What::Symbol("<" | "<=" | ">" | ">=" | "==" | "!=" | "=" | "&&" | "||" | "!") => {
                    return true;
                }
                What::Word(word)
                    if ["between", "and", "or", "not", "for", "event"]
                        .iter()
                        .any(|own| word.eq_ignore_ascii_case(own))
                        || self.comparison_at(index).is_some()
                        || EventKind::named(word).is_some() =>
                {
                    return true;
                }
                _ => {}
            }
        }
        true
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        if let Some(event) = self.event()? {
            return Ok(event);
        }
        let left = self.sum()?;
        if self
            .peek_second()
            .is_some_and(|token| token.is_word("between"))
        {
            self.take_word("is");
        }
        if self.take_word("between") {
            return self.between(left);
        }
        let Some(op) = self.operator() else {
            return self.expected("a comparison (<, <=, >, >=, ==, != or BETWEEN)");
        };
        let right = self.sum()?;
        let (left_type, right_type) = (left.of, right.of);
        let left = self.beside(left, right_type);
        let right = self.beside(right, left_type);
        self.comparable(&left, &right);
        Ok(Expr::Compare {
            left: left.value,
            op,
            right: right.value,
        })
    }

    fn operator(&mut self) -> Option<Comparison> {
        let written = match self.peek()?.what {
            What::Symbol("<") => Some(Comparison::Less),
            What::Symbol("<=") => Some(Comparison::LessOrEqual),
            What::Symbol(">") => Some(Comparison::Greater),
            What::Symbol(">=") => Some(Comparison::GreaterOrEqual),
            What::Symbol("==") => Some(Comparison::Equal),
            What::Symbol("!=") => Some(Comparison::NotEqual),
            _ => None,
        };
        let (op, length) = match written {
            Some(op) => (op, 1),
            None => self.comparison_at(self.next)?,
        };
        self.next += length;
        Some(op)
    }

    /// The comparison in words that stands at a token, and how many tokens it takes.
    pub(super) fn comparison_at(&self, index: usize) -> Option<(Comparison, usize)> {
        let words = self.tokens.get(index..)?.iter();
        spoken::comparison(words.map_while(|token| match &token.what {
            What::Word(word) => Some(word.as_str()),
            _ => None,
        }))
    }

    fn between(&mut self, value: Typed) -> Parsed<Expr> {
        let low = self.sum()?;
        if !self.take_word("and") {
            return self.expected("AND and the upper end of BETWEEN");
        }
        let high = self.sum()?;
        let ends = if low.of == Type::Level {
            low.of
        } else {
            high.of
        };
        let value_type = value.of;
        let value = self.beside(value, ends);
        let low = self.beside(low, value_type);
        let high = self.beside(high, value_type);
        self.comparable(&value, &low);
        self.comparable(&value, &high);
        let turned = match (&low.value, &high.value) {
            (Value::Number { value: from, .. }, Value::Number { value: to, .. }) => {
                from > to && low.of == high.of
            }
            (Value::Level(from), Value::Level(to)) => from > to,
            _ => false,
        };
        if turned {
            let (from, to) = (self.text_at(low.at.clone()), self.text_at(high.at.clone()));
            let message = format!("nothing is BETWEEN {from} and {to}: the lower end comes first");
            self.report(Kind::Contradiction, low.at.start..high.at.end, message);
        }
        Ok(Expr::Between {
            value: value.value,
            low: low.value,
            high: high.value,
        })
    }

    /// An event, which stands without a comparison: `EVENT(NAME)`, or its name alone.
    fn event(&mut self) -> Parsed<Option<Expr>> {
        let Some(What::Word(word)) = self.peek().map(|token| &token.what) else {
            return Ok(None);
        };
        let opens = self.peek_second().is_some_and(|token| token.is_symbol("("));
        if word.eq_ignore_ascii_case("event") && opens {
            self.advance();
            let event = self.nested(|parser| {
                let Some(What::Word(name)) = parser.peek().map(|token| &token.what) else {
                    return parser.expected("the name of an event");
                };
                let event = parser.event_named(name, name.parse())?;
                if parser.take_symbol(")") {
                    Ok(event)
                } else {
                    parser.expected("`)`")
                }
            })?;
            return Ok(Some(event));
        }
        match EventKind::named(word) {
            Some(kind) => self.event_named(word, Ok(kind)).map(Some),
            None => Ok(None),
        }
    }

    /// The event whose name stands here, with its source.
    fn event_named(&mut self, name: &str, kind: Result<EventKind, EventError>) -> Parsed<Expr> {
        let start = self.here().start;
        self.advance();
        let name_at = self.since(start);
        let source = if self.peek().is_some_and(|token| token.is_symbol("(")) {
            Some(self.nested(|parser| {
                let source = parser.event_source()?;
                if parser.take_symbol(")") {
                    Ok(source)
                } else {
                    parser.expected("`)`")
                }
            })?)
        } else {
            None
        };
        let at = self.since(start);
        let kind = match kind {
            Ok(kind) => kind,
            Err(EventError::Unknown { nearest, .. }) => {
                let help = match nearest {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "events are {}",
                        EventKind::ALL.map(EventKind::name).join(", ")
                    ),
                };
                let message = format!("there is no event `{name}`");
                self.report(Kind::UnknownMetric, name_at, message).help = Some(help);
                EventKind::FeedChanged
            }
        };
        if source.is_some() && kind != EventKind::FeedChanged {
            let message = format!("`{}` has no source", kind.name());
            self.report(Kind::RuleSyntax, at, message).help =
                Some("only `feed.changed(SOURCE)` names one".to_owned());
        } else if let Measured::NotYet(_) = kind.measured() {
            let message = format!("nothing in this version notices `{}`", kind.name());
            self.inactive(
                at,
                message,
                "it never happens, so the rule does not fire by it",
            );
        }
        Ok(Expr::Event(Event { kind, source }))
    }

    fn event_source(&mut self) -> Parsed<String> {
        let first = self.next;
        // Between parentheses a word of the language is a name like any other.
        let word = self
            .peek()
            .filter(|token| matches!(token.what, What::Word(_)))
            .map(|_| first + 1);
        let Some(next) = self.glued(first).or(word) else {
            return self.expected("the name of an external source");
        };
        self.next = next;
        let at = self.place(first, next);
        let name = self.text_at(at.clone()).to_ascii_lowercase();
        if !limits::is_name(&name) {
            let message = format!("`{name}` is no name of an external source");
            self.report(Kind::BadName, at, message).help = Some(limits::NAMES.to_owned());
        }
        Ok(name)
    }

    /// A number beside a level of trust stands for a level.
    fn beside(&mut self, value: Typed, other: Type) -> Typed {
        let Value::Number {
            value: number,
            unit: Unit::Count,
        } = value.value
        else {
            return value;
        };
        if other != Type::Level || value.of == Type::Reported {
            return value;
        }
        if number > 1.0 {
            let found = self.text_at(value.at.clone());
            let message = format!("`{found}` is no level of trust");
            self.report(Kind::OutOfRange, value.at.clone(), message)
                .help = Some("write none, low, medium, high, or a number from 0 to 1".to_owned());
            return Typed::reported(value.at);
        }
        Typed {
            value: Value::Level(Level::from_number(number)),
            of: Type::Level,
            at: value.at,
        }
    }

    fn comparable(&mut self, left: &Typed, right: &Typed) {
        if check::compare(left.of, right.of) {
            return;
        }
        let (left_text, right_text) = (
            self.text_at(left.at.clone()),
            self.text_at(right.at.clone()),
        );
        let message = format!(
            "`{left_text}` is {} and `{right_text}` is {}; they do not compare",
            left.of, right.of
        );
        // A number without a unit is the one that was forgotten; else the right one is shown.
        let bare = |typed: &Typed, text: &str| {
            typed.of == Type::Of(Unit::Count) && text.parse::<f64>().is_ok()
        };
        let (shown, beside): (&Typed, Option<(&str, Type)>) = if bare(right, right_text) {
            (right, Some((right_text, left.of)))
        } else if bare(left, left_text) {
            (left, Some((left_text, right.of)))
        } else {
            (right, None)
        };
        let example = beside.and_then(|(number, other)| check::example(number, other));
        let (at, of): (Range<usize>, Type) = (shown.at.clone(), shown.of);
        let problem = self.report(Kind::UnitMismatch, at, message);
        problem.label = Some(of.to_string());
        problem.help = example.map(|example| format!("write the unit, such as `{example}`"));
    }
}

/// Whether the condition can be true only for as long as an event counts.
fn is_momentary(expr: &Expr) -> bool {
    match expr {
        Expr::Event(_) => true,
        Expr::And(parts) => parts.iter().any(is_momentary),
        Expr::Or(parts) => parts.iter().all(is_momentary),
        Expr::Held { inner, .. } => is_momentary(inner),
        Expr::Not(_) | Expr::Compare { .. } | Expr::Between { .. } => false,
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
