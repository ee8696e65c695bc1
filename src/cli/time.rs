//! Moments and durations for people: in the host's time zone, to the second.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use persona::units::Moment;
use persona::{Quantity, Unit};

/// A hold of less than this is over before anything is looked at.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
/// The daemon takes no longer one.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 86_400);

/// A moment that a person gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(pub Moment);

/// Reads a date and time (in the host's time zone unless it says one), a date, a time of today, or how long ago.
pub fn parse_since(text: &str) -> Result<Since, String> {
    parse_since_at(text, Timestamp::now(), &TimeZone::system())
}

fn parse_since_at(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Since, String> {
    let timestamp = if let Ok(timestamp) = text.parse::<Timestamp>() {
        timestamp
    } else if let Some(time) = time_of_day(text) {
        now.to_zoned(zone.clone())
            .date()
            .to_datetime(time)
            .to_zoned(zone.clone())
            .map_err(|error| error.to_string())?
            .timestamp()
    } else if let Ok(ago) = text
        .trim_end_matches("ago")
        .trim()
        .parse::<SignedDuration>()
    {
        now.checked_sub(ago.abs())
            .map_err(|error| error.to_string())?
    } else {
        let civil = text.parse::<DateTime>().map_err(|_| {
            "write a date and time (2026-01-31T12:00), a date, a time of today (14:05), or how long ago (2h, 30 min)"
                .to_owned()
        })?;
        zone.to_timestamp(civil)
            .map_err(|error| error.to_string())?
    };
    u64::try_from(timestamp.as_millisecond())
        .map(|millis| Since(Moment(millis)))
        .map_err(|_| "the moment lies before 1970".to_owned())
}

/// Reads how long: a number with its unit, as in rules.
pub fn parse_length(text: &str) -> Result<Duration, String> {
    let advice = "write how long, with its unit: 30m, 2h, 7d";
    let quantity = Quantity::parse(text).map_err(|error| format!("{error}; {advice}"))?;
    if quantity.unit != Unit::Duration {
        return Err(format!("`{text}` is no time; {advice}"));
    }
    let length = Duration::try_from_secs_f64(quantity.value).unwrap_or(Duration::MAX);
    if (SHORTEST_HOLD..=LONGEST_HOLD).contains(&length) {
        Ok(length)
    } else {
        Err(format!(
            "`{text}` is out of range; a hold lasts 1 s to 30 d"
        ))
    }
}

/// `14:05` or `14:05:09`, which is no length of time here.
fn time_of_day(text: &str) -> Option<Time> {
    let short = text.len() <= "14:05:09".len() && text.contains(':');
    short.then(|| text.parse().ok()).flatten()
}

/// A moment in the host's time zone.
pub(super) fn moment(at: Moment) -> String {
    moment_in(at, &TimeZone::system())
}

fn moment_in(at: Moment, zone: &TimeZone) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .map_or_else(
            || format!("{} ms", at.0),
            |timestamp| {
                timestamp
                    .to_zoned(zone.clone())
                    .strftime("%Y-%m-%d %H:%M:%S")
                    .to_string()
            },
        )
}

/// A duration in its two largest units.
pub(super) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    if seconds == 0 {
        return format!("{} ms", length.as_millis());
    }
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (size, unit) in units {
        if rest >= size {
            parts.push(format!("{} {unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_one_second_to_thirty_days() {
        let seconds = |text| parse_length(text).map(|length| length.as_secs());
        assert_eq!(seconds("1s"), Ok(1));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("1 h"), Ok(3600));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        for bad in [
            "0s", "999ms", "-1h", "31d", "1e300d", "30", "5 MiB", "soon", "",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_is_given_as_a_date_or_as_how_long_ago() {
        let now = Timestamp::from_second(1_000_000).expect("a moment");
        let read = |text| {
            parse_since_at(text, now, &TimeZone::UTC)
                .ok()
                .map(|since| since.0.0 / 1000)
        };
        assert_eq!(read("2h"), Some(1_000_000 - 7200));
        assert_eq!(read("30 min ago"), Some(1_000_000 - 1800));
        assert_eq!(read("-5m"), Some(1_000_000 - 300));
        assert_eq!(read("1970-01-02"), Some(86_400));
        // The day of 1,000,000 s begins at 950,400 s.
        assert_eq!(read("14:05"), Some(950_400 + 14 * 3600 + 300));
        assert_eq!(read("14:05:09"), Some(950_400 + 14 * 3600 + 309));
        assert_eq!(read("1970-01-02T00:00:10"), Some(86_410));
        assert_eq!(read("1970-01-02T01:00:00+01:00"), Some(86_400));
        assert_eq!(read("yesterday"), None);
        assert_eq!(read("1960-01-01"), None);
    }

    #[test]
    fn moments_and_durations_read_well() {
        assert_eq!(
            moment_in(Moment(86_400_000), &TimeZone::UTC),
            "1970-01-02 00:00:00"
        );
        assert_eq!(duration(Duration::from_millis(250)), "250 ms");
        assert_eq!(duration(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(duration(Duration::from_secs(90_061)), "1 d 1 h");
    }
}
