//! Parsers of the kernel's small text formats, from bytes already read. No file is opened here and nothing is
//! allocated. `cgroup`, `procfs` and `host` call it with what they read.
//!
//! The formats: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/` ("flat keyed" files),
//! `Documentation/accounting/psi.rst` (pressure), `Documentation/scheduler/sched-stats.rst` (schedstat) and
//! proc(5). Where the `procfs` crate parses the same from a buffer, it is used off the tick only: its parsers
//! build a `String` and, for `meminfo` and pressure, a map of every line, which `benches/tick.rs` measures beside
//! these; its pressure parser also panics on a line cut short, and asks for the `full` line that older kernels do
//! not have for CPU.

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A field that it always has is not there.
    #[error("`{0}` is missing")]
    MissingField(&'static str),
    /// A field is not a number without sign, or does not fit into 64 bits.
    #[error("`{0}` is not a number that can be counted with")]
    NotANumber(&'static str),
    /// A share is not between 0 and 100.
    #[error("`{0}` is not between 0 and 100")]
    OutOfRange(&'static str),
}

/// A decimal number without sign, and nothing else.
pub fn parse_count(text: &[u8], field: &'static str) -> Result<u64, FormatError> {
    if text.is_empty() {
        return Err(FormatError::MissingField(field));
    }
    let mut value = 0_u64;
    for byte in text {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte - b'0'),
            _ => return Err(FormatError::NotANumber(field)),
        };
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit))
            .ok_or(FormatError::NotANumber(field))?;
    }
    Ok(value)
}

/// A file that holds one number.
pub fn parse_single(text: &[u8], field: &'static str) -> Result<u64, FormatError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    parse_count(text, field)
}

/// The value of `key` in a file of `key value` lines, with an optional unit behind the value and an optional colon
/// behind the key; `None` when no line has the key.
///
/// The last line counts only when it ends in a newline, because a text cut short may have cut a number short.
pub fn parse_keyed(text: &[u8], key: &'static str) -> Result<Option<u64>, FormatError> {
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(rest) = line.strip_prefix(key.as_bytes()) else {
            continue;
        };
        let rest = rest.strip_prefix(b":").unwrap_or(rest);
        if !rest.starts_with(b" ") && !rest.starts_with(b"\t") {
            continue;
        }
        if !line.ends_with(b"\n") {
            return Err(FormatError::MissingField(key));
        }
        let rest = rest.trim_ascii();
        let end = rest
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(rest.len());
        return parse_count(&rest[..end], key).map(Some);
    }
    Ok(None)
}

/// The value of `key`, which the file always has.
pub fn require_keyed(text: &[u8], key: &'static str) -> Result<u64, FormatError> {
    parse_keyed(text, key)?.ok_or(FormatError::MissingField(key))
}

/// `some avg10` of a pressure file, in percent.
pub fn parse_pressure(text: &[u8]) -> Result<f64, FormatError> {
    const FIELD: &str = "some avg10";
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    let value = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"some "))
        .and_then(|line| {
            // The field must be followed by the next one, or it may be cut short.
            let mut fields = line.split(|byte| *byte == b' ');
            let first = fields.next()?.strip_prefix(b"avg10=")?;
            fields.next().map(|_| first)
        })
        .ok_or(FormatError::MissingField(FIELD))?;
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    // The kernel prints digits, a point and two digits. Rust's float parser accepts more (`inf`, exponents).
    let plain = value.split(|byte| *byte == b'.').all(digits);
    let value = std::str::from_utf8(value)
        .ok()
        .filter(|_| plain)
        .and_then(|text| text.parse::<f64>().ok())
        .ok_or(FormatError::NotANumber(FIELD))?;
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        Err(FormatError::OutOfRange(FIELD))
    }
}

/// The fields of one line, split at white space.
pub fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::type_complexity, reason = "tables of cases")]
    use super::*;

    #[test]
    fn counts_are_digits_that_fit() {
        let cases: [(&[u8], Result<u64, FormatError>); 8] = [
            (b"0\n", Ok(0)),
            (b"18446744073709551615\n", Ok(u64::MAX)),
            (b"18446744073709551616\n", Err(FormatError::NotANumber("x"))),
            (b"-1\n", Err(FormatError::NotANumber("x"))),
            (b"+1\n", Err(FormatError::NotANumber("x"))),
            (b"1 2\n", Err(FormatError::NotANumber("x"))),
            (b"max\n", Err(FormatError::NotANumber("x"))),
            (b"\n", Err(FormatError::Empty)),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_single(text, "x"),
                expected,
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn keyed_files_give_the_whole_key_and_whole_lines_only() {
        let cases: [(&[u8], Result<Option<u64>, FormatError>); 10] = [
            (b"a 1\nkey 7\nb 2\n", Ok(Some(7))),
            (b"key:     24684084 kB\n", Ok(Some(24_684_084))),
            (b"key2 1\nmykey 2\n", Ok(None)),
            (b"key 123", Err(FormatError::MissingField("key"))),
            (b"key \n", Err(FormatError::MissingField("key"))),
            (b"key -3\n", Err(FormatError::NotANumber("key"))),
            (
                b"key 99999999999999999999999\n",
                Err(FormatError::NotANumber("key")),
            ),
            (b"key", Ok(None)),
            (b"key 1\nkey 2\n", Ok(Some(1))),
            (b"", Err(FormatError::Empty)),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_keyed(text, "key"),
                expected,
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn pressure_is_the_ten_second_average_of_some() {
        let missing = Err(FormatError::MissingField("some avg10"));
        let no_number = Err(FormatError::NotANumber("some avg10"));
        let cases: [(&[u8], Result<f64, FormatError>); 12] = [
            (b"some avg10=2.08 avg60=0.77 avg300=0.86 total=20206970\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", Ok(2.08)),
            (b"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", Ok(0.0)),
            (b"some avg10=100.00 avg60=0.00 avg300=0.00 total=0\n", Ok(100.0)),
            (b"some avg10=100.01 avg60=0.00\n", Err(FormatError::OutOfRange("some avg10"))),
            (b"full avg10=1.00 avg60=0.00 avg300=0.00 total=0\n", missing),
            (b"some\n", missing),
            (b"some avg10=1", missing),
            (b"some avg60=1.00 avg10=1.00 total=1\n", missing),
            (b"some avg10=-1.00 avg60=0.00\n", no_number),
            (b"some avg10=inf avg60=0.00\n", no_number),
            (b"some avg10=1e1 avg60=0.00\n", no_number),
            (b"", Err(FormatError::Empty)),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_pressure(text),
                expected,
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }
}
