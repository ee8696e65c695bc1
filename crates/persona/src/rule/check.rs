//! Types of values in a condition: what may be added, divided, compared. The parser asks while it reads, so that each
//! message has its place.

use std::fmt;

use super::ast::Arithmetic;
use super::window::Function;
use crate::signal::Unit;

/// What sort of value stands in a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// A quantity of one kind.
    Of(Unit),
    /// A number whose kind only its emitter knows: it goes with every kind.
    Declared,
    /// A level of trust, which has an order and no arithmetic.
    Level,
    /// What was reported already, and goes with everything.
    Reported,
}

impl fmt::Display for Type {
    /// As a person says it, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(unit) => unit.fmt(f),
            Self::Level => f.write_str("a level of trust"),
            Self::Declared | Self::Reported => f.write_str("a number of unknown kind"),
        }
    }
}

/// The type of `left op right`.
///
/// # Errors
/// A sentence that names both types, where the operation means nothing.
pub(crate) fn combine(left: Type, op: Arithmetic, right: Type) -> Result<Type, String> {
    use Type::{Declared, Level, Of, Reported};
    match (left, op, right) {
        (Reported, _, _) | (_, _, Reported) => Ok(Reported),
        (Level, _, _) | (_, _, Level) => Err(format!("{Level} cannot be part of a sum")),
        (Of(_), Arithmetic::Add | Arithmetic::Subtract, Declared) => Ok(left),
        (Declared, Arithmetic::Add | Arithmetic::Subtract, _) => Ok(right),
        (Declared, _, _) | (_, _, Declared) => Ok(Declared),
        (Of(one), _, Of(other)) => units(one, op, other).map(Of),
    }
}

fn units(one: Unit, op: Arithmetic, other: Unit) -> Result<Unit, String> {
    match op {
        Arithmetic::Add | Arithmetic::Subtract if one == other => Ok(one),
        Arithmetic::Multiply if one == Unit::Count => Ok(other),
        Arithmetic::Multiply | Arithmetic::Divide if other == Unit::Count => Ok(one),
        Arithmetic::Divide if one == other => Ok(Unit::Count),
        Arithmetic::Add => Err(format!("{other} cannot be added to {one}")),
        Arithmetic::Subtract => Err(format!("{other} cannot be subtracted from {one}")),
        Arithmetic::Multiply => Err(format!("{one} cannot be multiplied by {other}")),
        Arithmetic::Divide => Err(format!("{one} cannot be divided by {other}")),
    }
}

/// The type of a function over values of this type.
pub(crate) fn over(function: Function, of: Type) -> Type {
    match (function, of) {
        // There is no unit for the change of most kinds in a second, so all but bytes change by their number.
        (Function::Rate, Type::Of(Unit::Bytes)) => Type::Of(Unit::BytesPerSecond),
        (Function::Rate, Type::Of(_)) => Type::Of(Unit::PerSecond),
        _ => of,
    }
}

/// Whether values of these types compare.
pub(crate) fn compare(left: Type, right: Type) -> bool {
    match (left, right) {
        (Type::Reported, _) | (_, Type::Reported) => true,
        (Type::Declared, other) | (other, Type::Declared) => other != Type::Level,
        _ => left == right,
    }
}

/// What a number without a unit was probably meant to be, beside a value of this type.
pub(crate) fn example(number: &str, beside: Type) -> Option<String> {
    let Type::Of(unit) = beside else { return None };
    Some(match unit {
        Unit::Percent => format!("{number}%"),
        Unit::Bytes => format!("{number} MiB"),
        Unit::Count => number.to_owned(),
        Unit::Duration => format!("{number}s"),
        Unit::PerSecond => format!("{number}/s"),
        Unit::BitsPerSecond => format!("{number} Mbit/s"),
        Unit::BytesPerSecond => format!("{number} MiB/s"),
    })
}
