//! How a trace says when: in seconds, as a time of day, or as a date. Every line says it in the same way, and what is
//! printed says it as the trace does.

use jiff::Timestamp;
use persona::Moment;

/// The form of the times of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// Seconds from any beginning: `0`, `12.5`.
    Seconds,
    /// A time of day; the hours go on beyond 24: `08:00`, `25:30:05`.
    Clock,
    /// A date and time with its offset, by RFC 3339: `2026-01-31T08:00:00Z`.
    Date,
}

/// Most seconds and hours that are taken, which is a thousand years.
const MOST_SECONDS: f64 = 3.2e10;

impl TimeForm {
    /// The form of a text, where it is a time at all.
    pub(super) fn of(text: &str) -> Option<Self> {
        [Self::Seconds, Self::Clock, Self::Date]
            .into_iter()
            .find(|form| form.read(text).is_some())
    }

    /// Reads a time of this form.
    pub(super) fn read(self, text: &str) -> Option<Moment> {
        match self {
            Self::Seconds => seconds(text),
            Self::Clock => {
                let mut parts = text.split(':');
                let hours: u32 = parts.next()?.parse().ok()?;
                let minutes: u32 = parts.next()?.parse().ok().filter(|minutes| *minutes < 60)?;
                let rest = parts.next().map_or(Some(Moment(0)), seconds)?;
                let whole = u64::from(hours) * 3600 + u64::from(minutes) * 60;
                let fits = rest.0 < 60_000 && f64::from(hours) * 3600.0 <= MOST_SECONDS;
                (parts.next().is_none() && fits).then_some(Moment(whole * 1000 + rest.0))
            }
            Self::Date => {
                let timestamp: Timestamp = text.parse().ok()?;
                u64::try_from(timestamp.as_millisecond()).ok().map(Moment)
            }
        }
    }

    /// A moment as the trace would say it.
    pub fn show(self, at: Moment) -> String {
        let (whole, millis) = (at.0 / 1000, at.0 % 1000);
        let fraction = match millis {
            0 => String::new(),
            millis => format!(".{millis:03}").trim_end_matches('0').to_owned(),
        };
        match self {
            Self::Seconds => format!("{whole}{fraction}"),
            Self::Clock => {
                let (minutes, seconds) = (whole / 60, whole % 60);
                format!(
                    "{:02}:{:02}:{seconds:02}{fraction}",
                    minutes / 60,
                    minutes % 60
                )
            }
            Self::Date => i64::try_from(at.0)
                .ok()
                .and_then(|millis| Timestamp::from_millisecond(millis).ok())
                // A date that was read is one that can be shown.
                .map_or_else(|| format!("{whole}{fraction}"), |date| date.to_string()),
        }
    }
}

/// Seconds to the millisecond.
fn seconds(text: &str) -> Option<Moment> {
    let seconds: f64 = text.parse().ok()?;
    // In range and rounded, so nothing is cut off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=MOST_SECONDS)
        .contains(&seconds)
        .then(|| Moment((seconds * 1e3).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_three_forms_and_shown_as_they_were_written() {
        for (text, form, shown) in [
            ("0", TimeForm::Seconds, "0"),
            ("12.50", TimeForm::Seconds, "12.5"),
            ("86401", TimeForm::Seconds, "86401"),
            ("08:05", TimeForm::Clock, "08:05:00"),
            ("8:05:09.25", TimeForm::Clock, "08:05:09.25"),
            ("30:00:00", TimeForm::Clock, "30:00:00"),
            (
                "2026-01-31T08:00:00+01:00",
                TimeForm::Date,
                "2026-01-31T07:00:00Z",
            ),
        ] {
            assert_eq!(TimeForm::of(text), Some(form), "{text}");
            assert_eq!(form.show(form.read(text).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "-1",
            "nan",
            "inf",
            "1e99",
            "08:60",
            "08:00:60",
            "8:0:0:0",
            "noon",
            "2026-01-31",
            "2026-01-31T08:00:00",
            "1969-01-01T00:00:00Z",
        ] {
            assert_eq!(TimeForm::of(text), None, "{text}");
        }
    }
}
