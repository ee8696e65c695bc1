//! Signals and their readings: what a rule may look at, in which unit, from which source, how old. The collecting
//! is not here (the daemon's `observe` and the agent's telemetry do it); rules read readings through [`Signals`].
//! The metrics that have a name of their own are in `metric`, and in the table `catalogue` what is known of each; those without
//! a row there in `named`, what happens to a machine in `event`, what is made of counts in `counter`.

mod catalogue;
mod counter;
mod event;
mod metric;
mod named;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::units::Moment;

pub use catalogue::Measured;
pub use counter::{Counter, Growth};
pub use event::{Event, EventError, EventKind};
pub use metric::{Metric, MetricError};
pub use named::{Named, NamedError};

/// Who claims a value, from the least to the most trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Somebody outside says so, through an external source of data.
    External,
    /// The agent in the guest says so.
    Agent,
    /// The guest's kernel says so, through the balloon device.
    Balloon,
    /// The host measured it itself.
    Host,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::External => "external",
            Self::Agent => "agent",
            Self::Balloon => "balloon",
            Self::Host => "host",
        })
    }
}

/// The kind of quantity a value is; two kinds never compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 100.
    Percent,
    /// Bytes.
    Bytes,
    /// A plain number of things.
    Count,
    /// Seconds.
    Duration,
    /// Events per second.
    PerSecond,
    /// Bits per second.
    BitsPerSecond,
    /// Bytes per second.
    BytesPerSecond,
}

impl fmt::Display for Unit {
    /// The kind as a person says it, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Percent => "a percentage",
            Self::Bytes => "a size in bytes",
            Self::Count => "a plain number",
            Self::Duration => "a duration",
            Self::PerSecond => "a rate per second",
            Self::BitsPerSecond => "a rate in bits per second",
            Self::BytesPerSecond => "a rate in bytes per second",
        })
    }
}

/// One value of one metric, with where it came from and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value, in the metric's [`Unit`].
    pub value: f64,
    /// Who claims it.
    pub source: Source,
    /// When it was measured.
    pub at: Moment,
    /// How often its source measures; older than three periods counts as unknown.
    pub period: Duration,
}

impl Reading {
    /// Periods after which a reading no longer counts.
    pub const STALE_AFTER_PERIODS: u32 = 3;

    /// Whether the reading still counts at `now`, and is a number at all.
    #[inline]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.value.is_finite() && stands(self.at, self.period, now)
    }
}

/// Whether what was seen at `at` by a source of this period still counts at `now`.
#[inline]
pub(crate) fn stands(at: Moment, period: Duration, now: Moment) -> bool {
    let age = now.0.saturating_sub(at.0);
    // Whole seconds decide nearly always, and rules ask this for each reading at each tick; arithmetic of durations
    // costs more than all the rest of a comparison.
    let surely = period
        .as_secs()
        .saturating_mul(1000 * u64::from(Reading::STALE_AFTER_PERIODS));
    age <= surely
        || Duration::from_millis(age) <= period.saturating_mul(Reading::STALE_AFTER_PERIODS)
}

/// What a rule may read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// A metric of the catalogue.
    Metric(Metric),
    /// What an application or an external source of data names itself.
    Named(Named),
}

impl Signal {
    /// The unit of its values; `None` where whoever emits it declares it, so that it goes with every unit.
    pub fn unit(&self) -> Option<Unit> {
        match self {
            Self::Metric(metric) => Some(metric.unit()),
            Self::Named(_) => None,
        }
    }
}

impl From<Metric> for Signal {
    fn from(metric: Metric) -> Self {
        Self::Metric(metric)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metric(metric) => metric.fmt(f),
            Self::Named(named) => named.fmt(f),
        }
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a rule's evaluation reads.
pub trait Signals {
    /// The latest reading of a metric, fresh or not; `None` where there has never been one.
    fn reading(&self, metric: Metric) -> Option<Reading>;

    /// The latest reading of what is named by an application or an external source. Look it up by [`Named::id`].
    fn named(&self, _named: &Named) -> Option<Reading> {
        None
    }

    /// When an event last happened to the domain.
    fn happened(&self, _event: &Event) -> Option<Moment> {
        None
    }

    /// The latest reading of either kind.
    fn signal(&self, signal: &Signal) -> Option<Reading> {
        match signal {
            Signal::Metric(metric) => self.reading(*metric),
            Signal::Named(named) => self.named(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_fresh_for_three_of_its_own_periods() {
        let reading = Reading {
            value: 1.0,
            source: Source::Host,
            at: Moment(10_000),
            period: Duration::from_secs(2),
        };
        assert!(reading.is_fresh(Moment(16_000)));
        assert!(!reading.is_fresh(Moment(16_001)));
        assert!(
            !Reading {
                value: f64::NAN,
                ..reading
            }
            .is_fresh(Moment(10_000))
        );
    }
}
