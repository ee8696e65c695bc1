//! Values, amounts and lengths of time as a replay prints them: short, and never rounded to something else.

use persona::rule::Resource;
use persona::{Bytes, Unit};

/// A value with its unit.
pub(super) fn value(value: f64, unit: Option<Unit>) -> String {
    match unit {
        None | Some(Unit::Count) => short(value),
        Some(Unit::Percent) => format!("{} %", short(value)),
        Some(Unit::Bytes) => bytes(value),
        Some(Unit::Duration) if value < 1.0 => format!("{} ms", short(value * 1000.0)),
        Some(Unit::Duration) => format!("{} s", short(value)),
        Some(Unit::PerSecond) if value < 1.0 => format!("{}/min", short(value * 60.0)),
        Some(Unit::PerSecond) => format!("{}/s", short(value)),
        Some(Unit::BitsPerSecond) => format!("{} Mbit/s", short(value / 1e6)),
        Some(Unit::BytesPerSecond) => format!("{}/s", bytes(value)),
    }
}

/// An amount of a resource; the resource itself is named beside it.
pub(super) fn amount(resource: Resource, amount: u64) -> String {
    match resource {
        Resource::Vcpus => amount.to_string(),
        // Two sizes that differ shall read differently.
        Resource::Memory
            if !amount.is_multiple_of(Bytes::GIB) && amount.is_multiple_of(Bytes::MIB) =>
        {
            format!("{} MiB", amount / Bytes::MIB)
        }
        Resource::Memory => Bytes(amount).to_string(),
    }
}

/// A length of time in its two largest units.
pub(super) fn seconds(seconds: f64) -> String {
    // Lengths of a replay are below some years, and a part of a second says nothing here.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = seconds.round() as u64;
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let largest = units
        .iter()
        .position(|(size, _)| whole >= *size)
        .unwrap_or(3);
    let mut rest = whole;
    let mut parts = Vec::new();
    for (size, unit) in units.iter().skip(largest).take(2) {
        if rest >= *size || parts.is_empty() {
            parts.push(format!("{} {unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// At most two digits behind the point, and none that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn bytes(value: f64) -> String {
    // Readings are finite and mostly whole; a negative one saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Bytes(value as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_not_rounded() {
        let show = |mib| amount(Resource::Memory, Bytes::from_mib(mib).0);
        assert_eq!(
            (show(1408), show(2048)),
            ("1408 MiB".into(), "2 GiB".into())
        );
    }

    #[test]
    fn values_and_lengths_read_well() {
        for (amount, unit, shown) in [
            (91.0, Some(Unit::Percent), "91 %"),
            (91.256, Some(Unit::Percent), "91.26 %"),
            (536_870_912.0, Some(Unit::Bytes), "512 MiB"),
            (0.12, Some(Unit::Duration), "120 ms"),
            (0.5, Some(Unit::PerSecond), "30/min"),
            (2e9, Some(Unit::BitsPerSecond), "2000 Mbit/s"),
            (-3.0, None, "-3"),
        ] {
            assert_eq!(value(amount, unit), shown);
        }
        for (length, shown) in [
            (0.0, "0 s"),
            (59.0, "59 s"),
            (300.0, "5 min"),
            (90.0, "1 min 30 s"),
            (86_460.0, "1 d"),
        ] {
            assert_eq!(seconds(length), shown);
        }
    }
}
