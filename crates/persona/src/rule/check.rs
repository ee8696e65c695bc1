//! Kinds of quantities in a condition: what may be added, divided, compared. The parser asks while it reads, so that
//! each message has its place.

use super::ast::Arithmetic;
use crate::signal::Unit;

/// The kind of a value; `None` after a problem that was already reported, which goes with everything.
pub(crate) type Kind = Option<Unit>;

/// The kind of `left op right`.
///
/// # Errors
/// A sentence that names both kinds, where the operation means nothing.
pub(crate) fn combine(left: Kind, op: Arithmetic, right: Kind) -> Result<Kind, String> {
    let (Some(one), Some(other)) = (left, right) else {
        return Ok(None);
    };
    match op {
        Arithmetic::Add | Arithmetic::Subtract if one == other => Ok(left),
        Arithmetic::Multiply if one == Unit::Count => Ok(right),
        Arithmetic::Multiply | Arithmetic::Divide if other == Unit::Count => Ok(left),
        Arithmetic::Divide if one == other => Ok(Some(Unit::Count)),
        Arithmetic::Add => Err(format!("{other} cannot be added to {one}")),
        Arithmetic::Subtract => Err(format!("{other} cannot be subtracted from {one}")),
        Arithmetic::Multiply => Err(format!("{one} cannot be multiplied by {other}")),
        Arithmetic::Divide => Err(format!("{one} cannot be divided by {other}")),
    }
}

/// What a number without a unit was probably meant to be, beside a quantity of this kind.
pub(crate) fn example(number: &str, unit: Unit) -> String {
    match unit {
        Unit::Percent => format!("{number}%"),
        Unit::Bytes => format!("{number} MiB"),
        Unit::Count => number.to_owned(),
        Unit::Duration => format!("{number}s"),
        Unit::PerSecond => format!("{number}/s"),
        Unit::BitsPerSecond => format!("{number} Mbit/s"),
        Unit::BytesPerSecond => format!("{number} MiB/s"),
    }
}
