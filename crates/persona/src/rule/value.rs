//! What conditions compare: sums of numbers and metrics, each with its kind.

use std::ops::Range;

use super::ast::{Arithmetic, Value};
use super::check;
use super::lex::{Measured, What};
use super::parse::{Parsed, Parser, Stop, is_keyword};
use crate::problem::Kind;
use crate::signal::{Metric, MetricError, Unit};

/// Most arithmetic operations in one text, so that trees of them are bounded.
const MOST_OPERATIONS: usize = 64;

/// Functions of the language that this version does not compute.
const FUNCTIONS: [&str; 11] = [
    "avg",
    "min",
    "max",
    "p50",
    "p90",
    "p95",
    "p99",
    "rate",
    "delta",
    "anomaly",
    "predicted",
];

/// A value with its kind and place.
pub(super) struct Typed {
    pub(super) value: Value,
    pub(super) kind: check::Kind,
    pub(super) at: Range<usize>,
}

impl Parser<'_> {
    pub(super) fn sum(&mut self) -> Parsed<Typed> {
        self.joined(
            &[("+", Arithmetic::Add), ("-", Arithmetic::Subtract)],
            Self::term,
        )
    }

    fn term(&mut self) -> Parsed<Typed> {
        self.joined(
            &[("*", Arithmetic::Multiply), ("/", Arithmetic::Divide)],
            Self::factor,
        )
    }

    fn joined(
        &mut self,
        symbols: &[(&str, Arithmetic)],
        part: impl Fn(&mut Self) -> Parsed<Typed>,
    ) -> Parsed<Typed> {
        let mut left = part(self)?;
        while let Some(op) = symbols
            .iter()
            .find(|(symbol, _)| self.take_symbol(symbol))
            .map(|(_, op)| *op)
        {
            let right = part(self)?;
            let at = left.at.start..right.at.end;
            self.operations += 1;
            if self.operations > MOST_OPERATIONS {
                self.report(
                    Kind::TooLarge,
                    at,
                    format!("more than {MOST_OPERATIONS} operations in one rule"),
                );
                return Err(Stop);
            }
            let kind = match check::combine(left.kind, op, right.kind) {
                Ok(kind) => kind,
                Err(message) => {
                    self.report(Kind::UnitMismatch, at.clone(), message);
                    None
                }
            };
            let value = Value::Binary {
                left: Box::new(left.value),
                op,
                right: Box::new(right.value),
            };
            left = Typed { value, kind, at };
        }
        Ok(left)
    }

    fn factor(&mut self) -> Parsed<Typed> {
        let start = self.here().start;
        let negative = self.take_symbol("-");
        let inner = if self.peek().is_some_and(|token| token.is_symbol("(")) {
            self.nested(|parser| {
                let inner = parser.sum()?;
                if parser.take_symbol(")") {
                    Ok(inner)
                } else {
                    parser.expected("`)`")
                }
            })?
        } else {
            self.value()?
        };
        let value = if negative {
            Value::Negate(Box::new(inner.value))
        } else {
            inner.value
        };
        Ok(Typed {
            value,
            kind: inner.kind,
            at: self.since(start),
        })
    }

    fn value(&mut self) -> Parsed<Typed> {
        let Some(token) = self.peek() else {
            return self.expected("a metric or a number");
        };
        match &token.what {
            What::Quantity(measured) => {
                self.advance();
                Ok(self.measured(measured, token.at.clone()))
            }
            What::Word(word) if !is_keyword(word) => Ok(self.name(word, token.at.start)),
            _ => self.expected("a metric or a number"),
        }
    }

    fn measured(&mut self, measured: &Measured, at: Range<usize>) -> Typed {
        match &measured.quantity {
            Ok(quantity) => {
                let value = Value::Number {
                    value: quantity.value,
                    unit: quantity.unit,
                };
                Typed {
                    value,
                    kind: Some(quantity.unit),
                    at,
                }
            }
            Err(error) => {
                self.report(Kind::BadQuantity, at.clone(), error.to_string());
                unknown(at)
            }
        }
    }

    /// A metric, of one word or several, or something of the language that has no value in this version.
    fn name(&mut self, word: &str, start: usize) -> Typed {
        let lowered = word.to_ascii_lowercase();
        let second = self.peek_second();
        let called = second.is_some_and(|token| token.is_symbol("("));
        let indexed = second.is_some_and(|token| token.is_symbol("["));
        let looked_up = indexed && ["priority_metrics", "trust_levels"].contains(&lowered.as_str());
        if called || looked_up {
            self.advance();
            self.skip_arguments();
            let at = self.since(start);
            if looked_up {
                self.report(
                    Kind::NotYetSupported,
                    at.clone(),
                    format!("this version does not read `{lowered}` in rules"),
                );
            } else if FUNCTIONS.contains(&lowered.as_str()) {
                let message = format!("this version does not compute the function `{lowered}`");
                self.report(Kind::NotYetSupported, at.clone(), message).help = Some(
                    "compare the metric itself and let a FOR window ride out short peaks"
                        .to_owned(),
                );
            } else {
                let near = crate::problem::nearest(&lowered, FUNCTIONS);
                let help = near.map(|near| format!("did you mean `{near}`?"));
                self.report(
                    Kind::UnknownMetric,
                    at.clone(),
                    format!("there is no function `{word}`"),
                )
                .help = help;
            }
            return unknown(at);
        }
        self.metric(start)
    }

    /// The longest run of words that names a metric; where none does, all of them are the unknown name.
    fn metric(&mut self, start: usize) -> Typed {
        let words = self.tokens[self.next..]
            .iter()
            .map_while(|token| match &token.what {
                What::Word(word) if !is_keyword(word) => Some(word.as_str()),
                _ => None,
            })
            .take(8)
            .collect::<Vec<_>>();
        for count in (1..=words.len()).rev() {
            let error = match words[..count].join(" ").parse::<Metric>() {
                Ok(metric) => {
                    self.next += count;
                    return Typed {
                        value: Value::Signal(metric.into()),
                        kind: Some(metric.unit()),
                        at: self.since(start),
                    };
                }
                Err(MetricError::Unknown { .. }) if count > 1 => continue,
                Err(_) => {
                    self.next += words.len();
                    match words.join(" ").parse::<Metric>() {
                        Err(error) => error,
                        Ok(_) => continue,
                    }
                }
            };
            let at = self.since(start);
            self.report_metric(&error, at.clone());
            return unknown(at);
        }
        unknown(self.since(start))
    }

    fn report_metric(&mut self, error: &MetricError, at: Range<usize>) {
        let names = || Metric::ALL.map(Metric::name).join(", ");
        let (kind, message, help) = match error {
            MetricError::Unknown { name, nearest } => {
                let message = format!("there is no metric `{name}`");
                let help = match nearest {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("metrics are {}", names()),
                };
                (Kind::UnknownMetric, message, help)
            }
        };
        self.report(kind, at, message).help = Some(help);
    }
}

/// Stands for what was reported; the rule never comes out.
fn unknown(at: Range<usize>) -> Typed {
    Typed {
        value: Value::Number {
            value: 0.0,
            unit: Unit::Count,
        },
        kind: None,
        at,
    }
}
