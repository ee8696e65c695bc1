//! What conditions compare: sums of numbers and of what `named` reads, each with its type.

use std::ops::Range;

use super::ast::{Arithmetic, Value};
use super::check::{self, Type};
use super::lex::{Measured, What};
use super::parse::{Parsed, Parser, Stop, is_keyword};
use crate::limits;
use crate::problem::Kind;
use crate::signal::Unit;

/// A value with its type and place.
pub(super) struct Typed {
    pub(super) value: Value,
    pub(super) of: Type,
    pub(super) at: Range<usize>,
}

impl Typed {
    /// Stands for what was reported; the rule never comes out.
    pub(super) fn reported(at: Range<usize>) -> Self {
        let value = Value::Number {
            value: 0.0,
            unit: Unit::Count,
        };
        Self {
            value,
            of: Type::Reported,
            at,
        }
    }
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
            if self.operations > limits::MOST_OPERATIONS {
                let message = format!(
                    "more than {} operations in one rule",
                    limits::MOST_OPERATIONS
                );
                self.report(Kind::TooLarge, at, message);
                return Err(Stop);
            }
            let of = match check::combine(left.of, op, right.of) {
                Ok(of) => of,
                Err(message) => {
                    self.report(Kind::UnitMismatch, at.clone(), message);
                    Type::Reported
                }
            };
            let value = Value::Binary {
                left: Box::new(left.value),
                op,
                right: Box::new(right.value),
            };
            left = Typed { value, of, at };
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
        let at = self.since(start);
        if !negative {
            return Ok(Typed { at, ..inner });
        }
        if inner.of == Type::Level {
            let message = format!(
                "`{}` has no opposite: it is {}",
                self.text_at(inner.at),
                Type::Level
            );
            self.report(Kind::UnitMismatch, at.clone(), message);
            return Ok(Typed::reported(at));
        }
        Ok(Typed {
            value: Value::Negate(Box::new(inner.value)),
            of: inner.of,
            at,
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
            What::Word(word) if !is_keyword(word) => self.named(word),
            _ => self.expected("a metric or a number"),
        }
    }

    fn measured(&mut self, measured: &Measured, at: Range<usize>) -> Typed {
        match &measured.quantity {
            Ok(quantity) => Typed {
                value: Value::Number {
                    value: quantity.value,
                    unit: quantity.unit,
                },
                of: Type::Of(quantity.unit),
                at,
            },
            Err(error) => {
                self.report(Kind::BadQuantity, at.clone(), error.to_string());
                Typed::reported(at)
            }
        }
    }
}
