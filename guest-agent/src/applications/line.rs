//! One line of an application: a name with a value, in our own spelling or in that of StatsD. Values with a unit become
//! the figure that rules compare with: bytes, seconds, a rate per second, bits per second. Used by both ends of the socket.

use agent_protocol::{
    AppKind,
    application::{is_name, is_value},
};

/// What a line does to the figure that it names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    /// A gauge has this value.
    Set(f64),
    /// A gauge moves by this.
    Move(f64),
    /// A counter has counted so many more.
    Count(f64),
}

/// A line that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("{0:?} is not NAME=VALUE, NAME+=VALUE or NAME:VALUE|TYPE")]
    Form(String),
    #[error("{0:?} is no name; it has letters, digits, `_` and `-`, and points between its parts")]
    Name(String),
    #[error("{0:?} is no number, or too large a one")]
    Value(String),
    #[error(
        "{0:?} is no unit; there are %, B to TiB, us, ms, s, min, h, /s, /min, /h, bit/s to Gbit/s and B/s to GiB/s"
    )]
    Unit(String),
    #[error("{0:?} is no type that is taken; there are `g`, `c` and `ms`")]
    Type(String),
}

/// Units, each with what it is multiplied and divided by to become the figure that rules see; both are exact.
const UNITS: [(&str, f64, f64); 35] = [
    ("%", 1.0, 1.0),
    ("B", 1.0, 1.0),
    ("KB", 1e3, 1.0),
    ("MB", 1e6, 1.0),
    ("GB", 1e9, 1.0),
    ("TB", 1e12, 1.0),
    ("KiB", 1024.0, 1.0),
    ("MiB", 1_048_576.0, 1.0),
    ("GiB", 1_073_741_824.0, 1.0),
    ("TiB", 1_099_511_627_776.0, 1.0),
    ("us", 1.0, 1e6),
    ("ms", 1.0, 1e3),
    ("s", 1.0, 1.0),
    ("min", 60.0, 1.0),
    ("m", 60.0, 1.0),
    ("h", 3600.0, 1.0),
    ("d", 86_400.0, 1.0),
    ("/s", 1.0, 1.0),
    ("/min", 1.0, 60.0),
    ("/h", 1.0, 3600.0),
    ("bit/s", 1.0, 1.0),
    ("kbit/s", 1e3, 1.0),
    ("Mbit/s", 1e6, 1.0),
    ("Gbit/s", 1e9, 1.0),
    ("B/s", 1.0, 1.0),
    ("KB/s", 1e3, 1.0),
    ("MB/s", 1e6, 1.0),
    ("GB/s", 1e9, 1.0),
    ("KiB/s", 1024.0, 1.0),
    ("MiB/s", 1_048_576.0, 1.0),
    ("GiB/s", 1_073_741_824.0, 1.0),
    ("requests/s", 1.0, 1.0),
    ("requests/min", 1.0, 60.0),
    ("ops/s", 1.0, 1.0),
    ("iops", 1.0, 1.0),
];

/// Reads a line: `NAME=VALUE[UNIT]`, `NAME+=VALUE`, or StatsD's `NAME:VALUE|g`, `|c`, `|ms`, with a rate of sampling
/// (`|@0.1`) and tags, which make no figures of their own.
pub(crate) fn parse(line: &str) -> Result<(String, Change), LineError> {
    let (name, change) = if let Some((name, value)) = line.split_once('=') {
        match name.strip_suffix('+') {
            Some(name) => (name, Change::Count(quantity(value)?)),
            None => (name, Change::Set(quantity(value)?)),
        }
    } else if let Some((name, rest)) = line.split_once(':') {
        (name, statsd(rest)?)
    } else {
        return Err(LineError::Form(excerpt(line)));
    };
    let name = name.trim().to_ascii_lowercase();
    if !is_name(&name) {
        return Err(LineError::Name(excerpt(&name)));
    }
    let holds = match change {
        Change::Set(value) | Change::Move(value) => is_value(value, AppKind::Gauge),
        Change::Count(value) => is_value(value, AppKind::Counter),
    };
    if holds {
        Ok((name, change))
    } else {
        Err(LineError::Value(excerpt(line)))
    }
}

fn statsd(rest: &str) -> Result<Change, LineError> {
    let mut fields = rest.split('|');
    let (value, kind) = (
        fields.next().unwrap_or_default(),
        fields.next().unwrap_or_default(),
    );
    let number = number(value)?;
    match kind {
        // A sign makes it a change, also from and to what is not known: then from zero.
        "g" if value.starts_with(['+', '-']) => Ok(Change::Move(number)),
        "g" => Ok(Change::Set(number)),
        "ms" => Ok(Change::Set(number / 1e3)),
        "c" => {
            let sampled = fields.find_map(|field| field.strip_prefix('@'));
            let rate = sampled.map_or(Ok(1.0), self::number)?;
            if rate > 0.0 && rate <= 1.0 {
                Ok(Change::Count(number / rate))
            } else {
                Err(LineError::Value(excerpt(rest)))
            }
        }
        other => Err(LineError::Type(excerpt(other))),
    }
}

/// A number with a unit or without.
fn quantity(text: &str) -> Result<f64, LineError> {
    let text = text.trim();
    let in_number = |at: usize, c: char| {
        c.is_ascii_digit()
            || matches!(c, '.' | '-' | '+')
            || (matches!(c, 'e' | 'E')
                && text[at + 1..]
                    .starts_with(|next: char| next.is_ascii_digit() || matches!(next, '-' | '+')))
    };
    let end = text
        .char_indices()
        .find(|(at, c)| !in_number(*at, *c))
        .map_or(text.len(), |(at, _)| at);
    let (value, unit) = text.split_at(end);
    let unit = unit.trim();
    let (times, over) = match unit {
        "" => (1.0, 1.0),
        _ => UNITS
            .iter()
            .find(|(name, ..)| *name == unit)
            .map(|(_, times, over)| (*times, *over))
            .ok_or_else(|| LineError::Unit(excerpt(unit)))?,
    };
    Ok(number(value)? * times / over)
}

fn number(text: &str) -> Result<f64, LineError> {
    let value: Result<f64, _> = text.trim().parse();
    value
        .ok()
        .filter(|value| value.is_finite())
        .ok_or_else(|| LineError::Value(excerpt(text)))
}

/// Enough of a datum to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, name: &str, change: Change) {
        assert_eq!(parse(line), Ok((name.to_owned(), change)), "{line}");
    }

    #[test]
    fn lines_in_both_spellings_are_read() {
        check("queue=7", "queue", Change::Set(7.0));
        check("Jobs.Waiting = 1.5e3", "jobs.waiting", Change::Set(1500.0));
        check("heap=2 GiB", "heap", Change::Set(2_147_483_648.0));
        check("checkout=350ms", "checkout", Change::Set(0.35));
        check("hits=-40%", "hits", Change::Set(-40.0));
        check("rate=30/min", "rate", Change::Set(0.5));
        check("requests+=3", "requests", Change::Count(3.0));
        check("queue:7|g", "queue", Change::Set(7.0));
        check("queue:-2|g", "queue", Change::Move(-2.0));
        check("latency:320|ms", "latency", Change::Set(0.32));
        check("requests:1|c", "requests", Change::Count(1.0));
        check(
            "requests:1|c|@0.1|#host:a",
            "requests",
            Change::Count(1.0 / 0.1),
        );
    }

    #[test]
    fn what_says_nothing_is_refused_with_what_is_wrong() {
        use LineError::{Form, Name, Type, Unit, Value};
        for (line, error) in [
            ("", Form(String::new())),
            ("queue", Form("queue".to_owned())),
            ("=1", Name(String::new())),
            ("a..b=1", Name("a..b".to_owned())),
            ("a\u{1b}b=1", Name("a\u{1b}b".to_owned())),
            ("a=", Value(String::new())),
            ("a=nan", Unit("nan".to_owned())),
            ("a=1e400", Value("1e400".to_owned())),
            ("a=1e16", Value("a=1e16".to_owned())),
            ("a=1 furlong", Unit("furlong".to_owned())),
            ("a+=-1", Value("a+=-1".to_owned())),
            ("a:inf|g", Value("inf".to_owned())),
            ("a:1|h", Type("h".to_owned())),
            ("a:1|c|@0", Value("1|c|@0".to_owned())),
            ("a:1", Type(String::new())),
        ] {
            assert_eq!(parse(line), Err(error), "{line:?}");
        }
    }
}
