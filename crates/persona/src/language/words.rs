//! Words that stand for one value of a few, and the small forms that are no quantity: frequencies, times of day, percent
//! a time. Used by the readers, the canonical form and the schema.

use std::time::Duration;

use super::squash;
use crate::model::{Frequency, LearningDomain};
use crate::quantity::{Quantity, whole_millis};
use crate::signal::{Metric, Unit};

/// A word that stands for a value, and other spellings of it. The word is the one under which the value is serialised.
#[derive(Clone, Copy)]
pub(crate) struct Word(pub(crate) &'static str, pub(crate) &'static [&'static str]);

const fn word(word: &'static str) -> Word {
    Word(word, &[])
}

/// How a failed script counts.
pub(crate) const ON_FAILURE: &[Word] = &[word("rollback"), word("keep")];
/// Who claims a value, for the demand of a rule.
pub(crate) const SOURCES: &[Word] = &[word("host"), word("balloon"), word("agent")];
/// Forms of answers of external sources.
pub(crate) const FORMATS: &[Word] = &[word("json"), word("csv"), word("lines")];
/// How a machine is expected to grow.
pub(crate) const SCALING: &[Word] = &[word("none"), word("vertical"), word("horizontal")];
/// Levels of log messages.
pub(crate) const LOGGING: &[Word] = &[
    Word("emergency", &["emerg", "panic"]),
    word("alert"),
    Word("critical", &["crit"]),
    Word("error", &["err"]),
    Word("warning", &["warn"]),
    word("notice"),
    Word("info", &["information", "informational"]),
    word("debug"),
];
/// What may be learnt from, in the order of [`LearningDomain::ALL`].
pub(crate) const LEARNING: &[Word] = &{
    let mut words = [word(""); LearningDomain::ALL.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = word(LearningDomain::ALL[i].1);
        i += 1;
    }
    words
};

/// The word that a text means, in any case.
pub(crate) fn choose(text: &str, words: &[Word]) -> Option<&'static str> {
    let squashed = squash(text);
    let same = |spelling: &str| squash(spelling) == squashed;
    words
        .iter()
        .find(|Word(word, others)| same(word) || others.iter().any(|other| same(other)))
        .map(|Word(word, _)| *word)
}

/// The canonical words of frequencies with the durations that equal them.
const FREQUENCIES: [(Frequency, &str, Option<u64>); 5] = [
    (Frequency::Never, "never", None),
    (Frequency::Hourly, "hourly", Some(3600)),
    (Frequency::Daily, "daily", Some(86_400)),
    (Frequency::Weekly, "weekly", Some(7 * 86_400)),
    (Frequency::Monthly, "monthly", Some(30 * 86_400)),
];

/// A frequency as a word or as a duration that equals one, with its word.
pub(crate) fn frequency(text: &str) -> Option<(Frequency, &'static str)> {
    let seconds = Quantity::parse(text)
        .ok()
        .filter(|quantity| quantity.unit == Unit::Duration)
        .map(|quantity| whole_millis(quantity.value));
    FREQUENCIES
        .iter()
        .find(|(_, word, equal)| {
            word.eq_ignore_ascii_case(text.trim())
                || (equal.is_some() && equal.map(Duration::from_secs) == seconds)
        })
        .map(|(frequency, word, _)| (*frequency, *word))
}

/// Minutes after midnight of `HH:MM`; seconds, where a format insists on them, are zero.
pub(crate) fn time_of_day(text: &str) -> Option<u16> {
    let mut parts = text.trim().split(':');
    let mut part = |most: u16| {
        let digits = parts.next()?;
        let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let number = digits.parse::<u16>().ok().filter(|_| plain)?;
        (number <= most).then_some(number)
    };
    let (hours, minutes) = (part(23)?, part(59)?);
    match (parts.next(), parts.next()) {
        (None | Some("00"), None) => Some(hours * 60 + minutes),
        _ => None,
    }
}

/// `10%/day`, `10% per day`: percent, and the time in seconds.
pub(crate) fn percentage_per(text: &str) -> Option<(f64, f64)> {
    let lowered = text.to_ascii_lowercase();
    let (percent, time) = lowered
        .split_once('/')
        .or_else(|| lowered.split_once(" per "))?;
    let seconds = match time.trim() {
        "h" | "hour" => 3600.0,
        "d" | "day" => 86_400.0,
        "w" | "week" => 7.0 * 86_400.0,
        _ => return None,
    };
    let quantity = Quantity::parse(percent).ok()?;
    (quantity.unit == Unit::Percent).then_some((quantity.value, seconds))
}

/// The name of a metric in canonical spelling, else the text as a name within the document would be.
pub(crate) fn metric_or_label(text: &str) -> String {
    match text.parse::<Metric>() {
        Ok(metric) => metric.name().to_owned(),
        Err(_) => text.trim().to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_in_any_case_and_by_their_other_spellings() {
        assert_eq!(choose("WARN", LOGGING), Some("warning"));
        assert_eq!(choose("Informational", LOGGING), Some("info"));
        assert_eq!(
            choose("application api-calls", LEARNING),
            Some("application API calls")
        );
        assert_eq!(choose("verbose", LOGGING), None);
    }

    #[test]
    fn a_duration_that_equals_a_frequency_is_that_frequency() {
        for (text, expected) in [
            ("daily", Some("daily")),
            ("Never", Some("never")),
            ("24h", Some("daily")),
            ("7d", Some("weekly")),
            ("168 hours", Some("weekly")),
            ("30 days", Some("monthly")),
            ("8d", None),
            ("0s", None),
            ("7", None),
        ] {
            assert_eq!(frequency(text).map(|(_, word)| word), expected, "{text}");
        }
    }

    #[test]
    fn times_of_day_are_hours_and_minutes() {
        for (text, expected) in [
            ("08:00", Some(480)),
            ("8:05", Some(485)),
            ("23:59", Some(1439)),
            ("08:00:00", Some(480)),
            ("24:00", None),
            ("08:60", None),
            ("08", None),
            ("08:00:01", None),
            ("+8:00", None),
            ("008:00", None),
        ] {
            assert_eq!(time_of_day(text), expected, "{text}");
        }
    }

    #[test]
    fn percent_a_time_reads_with_a_slash_or_a_word() {
        assert_eq!(percentage_per("10%/day"), Some((10.0, 86_400.0)));
        assert_eq!(percentage_per("5 % per week"), Some((5.0, 604_800.0)));
        assert_eq!(percentage_per("10/day"), None);
        assert_eq!(percentage_per("10%/fortnight"), None);
    }
}
