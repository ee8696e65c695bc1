//! Numbers with units as people write them: `4 GiB`, `32 GB`, `5m`, `80%`, `10 Gbit/s`. One table of units for
//! reading and printing. What a quantity may be used for is not here (the readers and the rule checker know).

use std::fmt;
use std::time::Duration;

use serde::Serializer;

use crate::signal::Unit;
use crate::units::Bytes;

/// A number in the base of its unit: bytes, seconds, percent, bits per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// Finite and not negative.
    pub value: f64,
    /// Its kind.
    pub unit: Unit,
}

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing that starts with a digit.
    #[error("`{0}` is not a number with a unit")]
    NotANumber(String),
    /// An exponent, which nobody writes by hand and which hides huge numbers.
    #[error("`{0}` has an exponent; write the number out, with a larger unit where it is long")]
    Exponent(String),
    /// Beyond any quantity that a rule or a bound could mean.
    #[error("`{0}` is too large or too precise a number")]
    OutOfReach(String),
    /// A unit that does not exist.
    #[error("there is no unit `{unit}`{}", .nearest.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownUnit {
        /// As written.
        unit: String,
        /// What it was probably meant to be.
        nearest: Option<&'static str>,
    },
    /// Bits or bytes.
    #[error("`{0}` could mean bits or bytes; write `{1}` for bytes or `{2}` for bits per second")]
    Ambiguous(String, &'static str, &'static str),
}

/// A spelling of a unit, and the ratio that brings a number into the unit's base. A ratio and not a factor, so that
/// `9 ms` is exactly the number that `0.009` is.
struct Spelling(&'static str, Unit, f64, f64);

/// Quantities are below this in the base of their unit: more than any host has, and few enough digits to print.
const LARGEST: f64 = 1e16;
/// And above this, or zero.
const SMALLEST: f64 = 1e-12;
/// Digits before the point that a quantity below [`LARGEST`] needs.
const MOST_DIGITS: usize = 16;
/// Digits behind the point that the shortest exact spelling of a quantity above [`SMALLEST`] can need, and more.
const MOST_FRACTION_DIGITS: usize = 40;

const KIB: f64 = 1024.0;
const SPELLINGS: [Spelling; 68] = [
    Spelling("%", Unit::Percent, 1.0, 1.0),
    Spelling("percent", Unit::Percent, 1.0, 1.0),
    Spelling("B", Unit::Bytes, 1.0, 1.0),
    Spelling("byte", Unit::Bytes, 1.0, 1.0),
    Spelling("bytes", Unit::Bytes, 1.0, 1.0),
    Spelling("KiB", Unit::Bytes, KIB, 1.0),
    Spelling("MiB", Unit::Bytes, KIB * KIB, 1.0),
    Spelling("GiB", Unit::Bytes, KIB * KIB * KIB, 1.0),
    Spelling("TiB", Unit::Bytes, KIB * KIB * KIB * KIB, 1.0),
    Spelling("KB", Unit::Bytes, 1e3, 1.0),
    Spelling("MB", Unit::Bytes, 1e6, 1.0),
    Spelling("GB", Unit::Bytes, 1e9, 1.0),
    Spelling("TB", Unit::Bytes, 1e12, 1.0),
    Spelling("us", Unit::Duration, 1.0, 1e6),
    Spelling("ms", Unit::Duration, 1.0, 1e3),
    Spelling("millisecond", Unit::Duration, 1.0, 1e3),
    Spelling("milliseconds", Unit::Duration, 1.0, 1e3),
    Spelling("s", Unit::Duration, 1.0, 1.0),
    Spelling("sec", Unit::Duration, 1.0, 1.0),
    Spelling("secs", Unit::Duration, 1.0, 1.0),
    Spelling("second", Unit::Duration, 1.0, 1.0),
    Spelling("seconds", Unit::Duration, 1.0, 1.0),
    Spelling("m", Unit::Duration, 60.0, 1.0),
    Spelling("min", Unit::Duration, 60.0, 1.0),
    Spelling("mins", Unit::Duration, 60.0, 1.0),
    Spelling("minute", Unit::Duration, 60.0, 1.0),
    Spelling("minutes", Unit::Duration, 60.0, 1.0),
    Spelling("h", Unit::Duration, 3600.0, 1.0),
    Spelling("hour", Unit::Duration, 3600.0, 1.0),
    Spelling("hours", Unit::Duration, 3600.0, 1.0),
    Spelling("d", Unit::Duration, 86400.0, 1.0),
    Spelling("day", Unit::Duration, 86400.0, 1.0),
    Spelling("days", Unit::Duration, 86400.0, 1.0),
    Spelling("vcpu", Unit::Count, 1.0, 1.0),
    Spelling("vcpus", Unit::Count, 1.0, 1.0),
    Spelling("cpu", Unit::Count, 1.0, 1.0),
    Spelling("cpus", Unit::Count, 1.0, 1.0),
    Spelling("core", Unit::Count, 1.0, 1.0),
    Spelling("cores", Unit::Count, 1.0, 1.0),
    Spelling("/s", Unit::PerSecond, 1.0, 1.0),
    Spelling("/sec", Unit::PerSecond, 1.0, 1.0),
    Spelling("/min", Unit::PerSecond, 1.0, 60.0),
    Spelling("/m", Unit::PerSecond, 1.0, 60.0),
    Spelling("/h", Unit::PerSecond, 1.0, 3600.0),
    Spelling("bit/s", Unit::BitsPerSecond, 1.0, 1.0),
    Spelling("kbit/s", Unit::BitsPerSecond, 1e3, 1.0),
    Spelling("Kbit/s", Unit::BitsPerSecond, 1e3, 1.0),
    Spelling("Mbit/s", Unit::BitsPerSecond, 1e6, 1.0),
    Spelling("Gbit/s", Unit::BitsPerSecond, 1e9, 1.0),
    Spelling("Tbit/s", Unit::BitsPerSecond, 1e12, 1.0),
    Spelling("bps", Unit::BitsPerSecond, 1.0, 1.0),
    Spelling("kbps", Unit::BitsPerSecond, 1e3, 1.0),
    Spelling("Kbps", Unit::BitsPerSecond, 1e3, 1.0),
    Spelling("Mbps", Unit::BitsPerSecond, 1e6, 1.0),
    Spelling("Gbps", Unit::BitsPerSecond, 1e9, 1.0),
    Spelling("Tbps", Unit::BitsPerSecond, 1e12, 1.0),
    Spelling("B/s", Unit::BytesPerSecond, 1.0, 1.0),
    Spelling("bytes/s", Unit::BytesPerSecond, 1.0, 1.0),
    Spelling("KB/s", Unit::BytesPerSecond, 1e3, 1.0),
    Spelling("kB/s", Unit::BytesPerSecond, 1e3, 1.0),
    Spelling("MB/s", Unit::BytesPerSecond, 1e6, 1.0),
    Spelling("GB/s", Unit::BytesPerSecond, 1e9, 1.0),
    Spelling("TB/s", Unit::BytesPerSecond, 1e12, 1.0),
    Spelling("KiB/s", Unit::BytesPerSecond, KIB, 1.0),
    Spelling("MiB/s", Unit::BytesPerSecond, KIB * KIB, 1.0),
    Spelling("GiB/s", Unit::BytesPerSecond, KIB * KIB * KIB, 1.0),
    Spelling("TiB/s", Unit::BytesPerSecond, KIB * KIB * KIB * KIB, 1.0),
    Spelling("kB", Unit::Bytes, 1e3, 1.0),
];

impl Quantity {
    /// Reads one number with its unit, with or without a space between them; without a unit it is a count.
    ///
    /// # Errors
    /// Where the text is no number, or the unit is none.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        let digits = number_length(text);
        let (number, rest) = text.split_at(digits);
        if digits == 0 {
            return Err(QuantityError::NotANumber(excerpt(text)));
        }
        Self::from_parts(number, rest.trim())
    }

    /// The same from a number and its unit, as the rule parser has them.
    pub(crate) fn from_parts(number: &str, unit: &str) -> Result<Self, QuantityError> {
        let mut letters = unit.chars();
        let exponent = matches!(letters.next(), Some('e' | 'E'))
            && matches!(letters.next(), Some('0'..='9' | '+' | '-'));
        if exponent {
            return Err(QuantityError::Exponent(excerpt(&format!("{number}{unit}"))));
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let too_long = || QuantityError::OutOfReach(excerpt(number));
        if whole.len() > MOST_DIGITS || fraction.len() > MOST_FRACTION_DIGITS {
            return Err(too_long());
        }
        let value: f64 = number
            .parse()
            .map_err(|_| QuantityError::NotANumber(excerpt(number)))?;
        let (unit, multiply, divide) = find_unit(unit)?;
        let value = value * multiply / divide;
        if value >= LARGEST || (value > 0.0 && value < SMALLEST) {
            return Err(too_long());
        }
        Ok(Self { value, unit })
    }
}

/// How much of `text` is a number: digits, and a fraction where a digit follows the point.
pub(crate) fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits_from = |start: usize| {
        bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let whole = digits_from(0);
    if whole == 0 || bytes.get(whole) != Some(&b'.') {
        return whole;
    }
    match digits_from(whole + 1) {
        0 => whole,
        fraction => whole + 1 + fraction,
    }
}

/// Whether a word is a unit, so that the rule parser knows where a quantity ends.
pub(crate) fn is_unit(word: &str) -> bool {
    find_unit(word).is_ok()
}

/// The spellings of a kind of quantity, those that stand for themselves alone and those in any case.
pub(crate) fn spellings(unit: Unit) -> (Vec<&'static str>, Vec<&'static str>) {
    let names = SPELLINGS.iter().filter(|spelling| spelling.1 == unit);
    names
        .map(|spelling| spelling.0)
        .partition(|name| name.len() == 1 || name.contains('/'))
}

fn find_unit(unit: &str) -> Result<(Unit, f64, f64), QuantityError> {
    if unit.is_empty() {
        return Ok((Unit::Count, 1.0, 1.0));
    }
    let bits = match unit {
        "Kb" => Some(("KB", "Kbit/s")),
        "Mb" => Some(("MB", "Mbit/s")),
        "Gb" => Some(("GB", "Gbit/s")),
        "Tb" => Some(("TB", "Tbit/s")),
        _ => None,
    };
    if let Some((bytes, bits)) = bits {
        return Err(QuantityError::Ambiguous(unit.to_owned(), bytes, bits));
    }
    let exact = SPELLINGS.iter().find(|spelling| spelling.0 == unit);
    // One letter means too many things to guess by: `M` is no minute. Bits and bytes differ by case only, too.
    let guessable = unit.len() > 1 && !unit.contains('/');
    let loose = || {
        SPELLINGS
            .iter()
            .find(|spelling| guessable && spelling.0.eq_ignore_ascii_case(unit))
    };
    if let Some(Spelling(_, unit, multiply, divide)) = exact.or_else(loose) {
        return Ok((*unit, *multiply, *divide));
    }
    let nearest = match unit {
        "K" | "k" | "Ki" => Some("KiB"),
        "M" | "Mi" => Some("MiB"),
        "G" | "g" | "Gi" => Some("GiB"),
        "T" | "t" | "Ti" => Some("TiB"),
        "S" => Some("s"),
        "H" => Some("h"),
        "D" => Some("d"),
        "b" => Some("B"),
        _ => crate::problem::nearest(unit, SPELLINGS.iter().map(|spelling| spelling.0)),
    };
    Err(QuantityError::UnknownUnit {
        unit: excerpt(unit),
        nearest,
    })
}

/// Enough of a datum to recognise it.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Quantity {
    /// The shortest spelling that reads back as the same quantity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.unit {
            Unit::Percent => write!(f, "{value}%"),
            Unit::Count => write!(f, "{value}"),
            Unit::PerSecond => match PERIODS.iter().find(|period| period.is_short(value)) {
                Some(period) => write!(f, "{}/{}", (value * period.1).round(), period.0),
                None => write!(f, "{value}/s"),
            },
            Unit::BitsPerSecond => {
                let units = ["Tbit/s", "Gbit/s", "Mbit/s", "kbit/s"];
                let (name, size) = largest_whole(value, &units).unwrap_or(("bit/s", 1.0));
                write!(f, "{} {name}", value / size)
            }
            Unit::BytesPerSecond => {
                let units = ["TiB/s", "GiB/s", "MiB/s", "KiB/s"];
                let (name, size) = largest_whole(value, &units).unwrap_or(("B/s", 1.0));
                write!(f, "{} {name}", value / size)
            }
            Unit::Bytes => {
                let (name, size) =
                    largest_whole(value, &["TiB", "GiB", "MiB", "KiB"]).unwrap_or(("B", 1.0));
                write!(f, "{} {name}", value / size)
            }
            Unit::Duration => match largest_whole(value, &["d", "h", "m", "s"]) {
                Some((name, size)) => write!(f, "{}{name}", value / size),
                // Comparing exactly is the point: only a spelling that reads back the same will do.
                #[allow(clippy::float_cmp)]
                None if (value * 1e3).round() / 1e3 == value => {
                    write!(f, "{}ms", (value * 1e3).round())
                }
                None => write!(f, "{value}s"),
            },
        }
    }
}

/// Spans of time in which things are counted, with their seconds.
struct Period(&'static str, f64);
const PERIODS: [Period; 2] = [Period("min", 60.0), Period("h", 3600.0)];

impl Period {
    /// Whether a rate is a whole number in this time, and not a short one in a second.
    #[allow(
        clippy::float_cmp,
        reason = "only a spelling that reads back the same will do"
    )]
    fn is_short(&self, rate: f64) -> bool {
        let count = (rate * self.1).round();
        let thousandths = rate * 1e3;
        thousandths.fract() != 0.0 && count / self.1 == rate
    }
}

/// The first of the units (given from large to small) of which `value` is a whole number above zero.
fn largest_whole(value: f64, units: &[&'static str]) -> Option<(&'static str, f64)> {
    if value <= 0.0 {
        return units
            .last()
            .filter(|unit| **unit == "s")
            .map(|unit| (*unit, 1.0));
    }
    units.iter().find_map(|name| {
        let spelling = SPELLINGS.iter().find(|spelling| spelling.0 == *name)?;
        let count = value / spelling.2;
        // Beyond 2^53 the quotient may be whole by rounding alone.
        #[allow(clippy::float_cmp)]
        let whole = value >= spelling.2 && count.fract() == 0.0 && count * spelling.2 == value;
        whole.then_some((*name, spelling.2))
    })
}

/// A size as it reads back: never rounded, unlike the display of [`Bytes`], which is for people.
pub(crate) fn exact_size(size: Bytes) -> Quantity {
    // Sizes in documents are below 2^50, which an f64 holds exactly.
    #[allow(clippy::cast_precision_loss)]
    Quantity {
        value: size.0 as f64,
        unit: Unit::Bytes,
    }
}

/// A duration as it reads back; documents keep whole milliseconds.
pub(crate) fn exact_duration(duration: Duration) -> Quantity {
    // A ratio of whole numbers, as it was read; windows are far below 2^53 milliseconds.
    #[allow(clippy::cast_precision_loss)]
    Quantity {
        value: duration.as_millis() as f64 / 1e3,
        unit: Unit::Duration,
    }
}

/// Seconds as a duration in whole milliseconds; larger than any limit where it does not fit.
pub(crate) fn whole_millis(seconds: f64) -> Duration {
    // A cast from f64 saturates, and quantities are never negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Duration::from_millis((seconds * 1e3).round() as u64)
}

/// Serialises a duration as text, such as `5m`.
pub(crate) fn serialize_duration<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&exact_duration(*duration))
}

/// The same for one that may be absent.
pub(crate) fn serialize_some_duration<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serialize_duration(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let read = match Quantity::parse(text) {
            Ok(quantity) => format!("{quantity} [{:?}]", quantity.unit),
            Err(error) => error.to_string(),
        };
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn quantities_read_as_people_write_them() {
        check("4 GiB", "4 GiB [Bytes]");
        check("4GiB", "4 GiB [Bytes]");
        check("1.5 GiB", "1536 MiB [Bytes]");
        check("32 GB", "31250000 KiB [Bytes]");
        check("512 mib", "512 MiB [Bytes]");
        check("0 B", "0 B [Bytes]");
        check("5m", "5m [Duration]");
        check("5 minutes", "5m [Duration]");
        check("90s", "90s [Duration]");
        check("120s", "2m [Duration]");
        check("100ms", "100ms [Duration]");
        check("9ms", "9ms [Duration]");
        check("0s", "0s [Duration]");
        check("80%", "80% [Percent]");
        check("80 percent", "80% [Percent]");
        check("16", "16 [Count]");
        check("16 cores", "16 [Count]");
        check("10 Gbit/s", "10 Gbit/s [BitsPerSecond]");
        check("10 Gbps", "10 Gbit/s [BitsPerSecond]");
        check("1500 bit/s", "1500 bit/s [BitsPerSecond]");
        check("30/min", "0.5/s [PerSecond]");
        check("5/min", "5/min [PerSecond]");
        check("7/h", "7/h [PerSecond]");
        check("0.1/s", "0.1/s [PerSecond]");
        check("500 MiB/s", "500 MiB/s [BytesPerSecond]");
        check("1 MB/s", "1000000 B/s [BytesPerSecond]");
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_its_reason() {
        check("", "`` is not a number with a unit");
        check("lots", "`lots` is not a number with a unit");
        check("-1", "`-1` is not a number with a unit");
        check(".nan", "`.nan` is not a number with a unit");
        check("inf", "`inf` is not a number with a unit");
        check(
            "1e9",
            "`1e9` has an exponent; write the number out, with a larger unit where it is long",
        );
        check(
            "1e400 GiB",
            "`1e400 GiB` has an exponent; write the number out, with a larger unit where it is long",
        );
        check(
            "99999999999999999",
            "`99999999999999999` is too large or too precise a number",
        );
        check("4 G", "there is no unit `G`; did you mean `GiB`?");
        check("5 M", "there is no unit `M`; did you mean `MiB`?");
        check(
            "4 Gb",
            "`Gb` could mean bits or bytes; write `GB` for bytes or `Gbit/s` for bits per second",
        );
        check(
            "4 minuets",
            "there is no unit `minuets`; did you mean `minutes`?",
        );
        check("4 apples", "there is no unit `apples`");
    }
}
