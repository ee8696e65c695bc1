//! What an agent says of its guest's disks, logs, round trips and processes, as readings, and what it saw happen. Each part has
//! the age that it was said with. Counters are made to grow only, also over a restart of the agent, which counts from zero; a
//! rate over the last minute is made of them, because failed logins come in bursts. Nothing is read here; the daemon passes
//! in what came with a report. What it keeps of one guest is bounded, whatever the guest says.

use std::time::Duration;

use agent_protocol::{CheckedReport, Part, Parts};
use persona::signal::{Counter, Growth, Metric, Reading, Source};
use persona::units::Moment;

use super::reading::{Missing, Readings};

/// Agents look at disks, logs and other machines no oftener than every five seconds, so that what they say counts for at
/// least three of these.
const SHORTEST: Duration = Duration::from_secs(5);

/// The metrics, in the order of the outcomes of a [`GuestFigures`].
const METRICS: [Metric; 6] = [
    Metric::GuestDiskFree,
    Metric::GuestDiskInodes,
    Metric::NetworkLatency,
    Metric::GuestProcesses,
    Metric::GuestLogErrors,
    Metric::GuestAuthFailures,
];

type Outcome = Result<Reading, Missing>;

/// The figures of one guest.
#[derive(Debug)]
pub struct GuestFigures {
    outcomes: [Outcome; METRICS.len()],
    errors: Counter,
    failed_logins: Counter,
    oom_kills: Option<u64>,
}

/// What happened in the guest since the report before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The kernel killed a process for want of memory.
    pub oom: Seen,
    /// Somebody failed to log in.
    pub failed_login: Seen,
}

/// Whether something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// No.
    #[default]
    No,
    /// Yes, once or more.
    Yes,
}

impl From<bool> for Seen {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Default for GuestFigures {
    fn default() -> Self {
        Self {
            outcomes: [Err(Missing::NoAgent); METRICS.len()],
            errors: Counter::default(),
            failed_logins: Counter::default(),
            oom_kills: None,
        }
    }
}

impl GuestFigures {
    /// Takes over what came with a report, at `now`, of the parts that are wanted; `telemetry` is the interval of reports.
    pub fn take(
        &mut self,
        report: &CheckedReport,
        parts: Parts,
        telemetry: Duration,
        now: Moment,
    ) -> Noticed {
        let dated = |age_ms: u64| Stamp {
            at: Moment(now.0.saturating_sub(age_ms)),
            period: telemetry.max(SHORTEST),
        };
        let fresh = Stamp {
            at: now,
            period: telemetry,
        };

        let disk = wanted(parts, Part::Disk, report.disk);
        let share = |share: &dyn Fn(agent_protocol::DiskFigures) -> Option<f64>, absent| {
            let disk = disk?;
            let value = share(disk).ok_or(absent)?;
            Ok(dated(disk.age_ms).reading(value))
        };
        let space = share(&|disk| disk.space_free, Missing::NoFileSystem);
        let inodes = share(&|disk| disk.inodes_free, Missing::NoInodes);

        let latency = wanted(parts, Part::Network, report.network).and_then(|network| {
            let micros = network.round_trip_us.ok_or(Missing::NoProbe)?;
            let value = Duration::from_micros(micros).as_secs_f64();
            Ok(dated(network.age_ms).reading(value))
        });
        let processes = wanted(parts, Part::Processes, report.process_count);
        let processes = processes.map(|count| fresh.reading(float(count)));

        let logs = wanted(parts, Part::Logs, report.logs);
        let mut failed = Seen::No;
        let [errors, failures] = match logs {
            Ok(logs) => {
                let stamp = dated(logs.age_ms);
                let absent = Missing::NoLogPriorities;
                let (_, errors) = take(&mut self.errors, logs.errors, stamp, absent);
                let (said, absent) = (logs.failed_logins, Missing::NoLoginRecords);
                let (grew, failures) = take(&mut self.failed_logins, said, stamp, absent);
                failed = grew;
                [errors, failures]
            }
            Err(reason) => {
                self.errors.pause();
                self.failed_logins.pause();
                [Err(reason); 2]
            }
        };
        self.outcomes = [space, inodes, latency, processes, errors, failures];

        // It counts from the guest's start, so less than before is another start.
        let oom = match (self.oom_kills, report.oom_kills) {
            (Some(before), Some(said)) if said < before => said > 0,
            (Some(before), Some(said)) => said > before,
            _ => false,
        };
        self.oom_kills = report.oom_kills.or(self.oom_kills);
        Noticed {
            oom: oom.into(),
            failed_login: failed,
        }
    }

    /// The agent is gone: nothing is known. What was counted is kept, since the counters go on when it is back.
    pub fn lose(&mut self) {
        self.outcomes = [Err(Missing::NoAgent); METRICS.len()];
        self.errors.pause();
        self.failed_logins.pause();
    }

    /// Puts the readings into a sample.
    pub fn add_to(&self, readings: &mut Readings, now: Moment) {
        for (metric, outcome) in METRICS.into_iter().zip(self.outcomes) {
            let outcome = outcome.and_then(|reading| match reading.is_fresh(now) {
                true => Ok(reading),
                false => Err(Missing::Stale),
            });
            readings.set(metric, outcome);
        }
    }
}

/// A part of a report, or why there is none.
fn wanted<T>(parts: Parts, part: Part, said: Option<T>) -> Result<T, Missing> {
    if parts.has(part) {
        said.ok_or(Missing::NoAgent)
    } else {
        Err(Missing::NotCollected)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counters are below 10^15, which an f64 counts exactly"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// When something was measured, and how often it is.
#[derive(Clone, Copy)]
struct Stamp {
    at: Moment,
    period: Duration,
}

impl Stamp {
    fn reading(self, value: f64) -> Reading {
        Reading {
            value,
            source: Source::Agent,
            at: self.at,
            period: self.period,
        }
    }
}

/// What a count comes to: whether more have come, and how fast. Without one nobody counts for a while.
fn take(
    counter: &mut Counter,
    said: Option<u64>,
    stamp: Stamp,
    absent: Missing,
) -> (Seen, Outcome) {
    let Some(said) = said else {
        counter.pause();
        return (Seen::No, Err(absent));
    };
    let Growth { come, rate } = counter.take(said, stamp.at);
    let rate = rate.map(|rate| stamp.reading(rate));
    ((come > 0).into(), rate.ok_or(Missing::ShortWindow))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use agent_protocol::{DiskFigures, LogFigures, NetworkFigures, Report};
    use persona::signal::Signals;
    use proptest::prelude::*;

    use super::*;

    const TELEMETRY: Duration = Duration::from_secs(1);
    const ALL: Parts = Parts::BASE
        .with(Part::Disk)
        .with(Part::Logs)
        .with(Part::Network);

    fn report(change: impl FnOnce(&mut Report)) -> CheckedReport {
        let mut report = Report {
            online: "0".into(),
            online_count: 1,
            present_count: 1,
            memory_total_kib: 2,
            ..Report::default()
        };
        change(&mut report);
        report.check().unwrap()
    }

    fn logins(count: u64, age_ms: u64) -> CheckedReport {
        report(|report| {
            report.logs = Some(LogFigures {
                age_ms,
                failed_logins: Some(count),
                errors: None,
            });
        })
    }

    fn outcome(figures: &GuestFigures, metric: Metric, now: u64) -> Result<f64, Missing> {
        let mut readings = Readings::default();
        figures.add_to(&mut readings, Moment(now));
        readings
            .reading(metric)
            .map(|reading| reading.value)
            .ok_or_else(|| readings.missing(metric).unwrap())
    }

    #[test]
    fn figures_have_their_age_and_grow_old() {
        let mut figures = GuestFigures::default();
        let said = report(|report| {
            report.process_count = Some(80);
            report.disk = Some(DiskFigures {
                age_ms: 4_000,
                space_free: Some(12.5),
                inodes_free: None,
            });
            report.network = Some(NetworkFigures {
                age_ms: 0,
                round_trip_us: Some(1_500),
            });
        });
        figures.take(&said, ALL, TELEMETRY, Moment(100_000));
        let mut readings = Readings::default();
        figures.add_to(&mut readings, Moment(100_000));
        let free = readings.reading(Metric::GuestDiskFree).unwrap();
        assert_eq!(
            (free.value, free.source, free.at),
            (12.5, Source::Agent, Moment(96_000))
        );
        for (metric, expected) in [
            (Metric::GuestDiskInodes, Err(Missing::NoInodes)),
            (Metric::NetworkLatency, Ok(0.0015)),
            (Metric::GuestProcesses, Ok(80.0)),
            (Metric::GuestLogErrors, Err(Missing::NoAgent)),
        ] {
            assert_eq!(outcome(&figures, metric, 100_000), expected, "{metric}");
        }
        assert_eq!(outcome(&figures, Metric::GuestDiskFree, 111_000), Ok(12.5));
        let stale = outcome(&figures, Metric::GuestDiskFree, 112_000);
        assert_eq!(stale, Err(Missing::Stale));
    }

    #[test]
    fn a_rate_is_over_the_last_minute_and_unknown_until_one_has_passed() {
        let mut figures = GuestFigures::default();
        let metric = Metric::GuestAuthFailures;
        for second in (0..=55).step_by(5) {
            let count = if second >= 20 { 6 } else { 0 };
            let noticed = figures.take(&logins(count, 0), ALL, TELEMETRY, Moment(second * 1000));
            assert_eq!(noticed.failed_login, (second == 20).into());
            let rate = outcome(&figures, metric, second * 1000);
            assert_eq!(rate, Err(Missing::ShortWindow));
        }
        for (second, expected) in [(60, 0.1), (75, 0.1), (80, 0.0), (200, 0.0)] {
            figures.take(&logins(6, 0), ALL, TELEMETRY, Moment(second * 1000));
            assert_eq!(
                outcome(&figures, metric, second * 1000),
                Ok(expected),
                "{second}"
            );
        }
        figures.lose();
        assert_eq!(outcome(&figures, metric, 200_000), Err(Missing::NoAgent));
        // The agent is back and has counted two since it began.
        let noticed = figures.take(&logins(2, 0), ALL, TELEMETRY, Moment(300_000));
        assert_eq!(noticed.failed_login, Seen::Yes);
        let rate = outcome(&figures, metric, 300_000);
        assert_eq!(rate, Err(Missing::ShortWindow));
    }

    #[test]
    fn parts_that_are_not_wanted_are_left_out_and_what_a_guest_lacks_has_its_reason() {
        let mut figures = GuestFigures::default();
        let said = report(|report| {
            report.process_count = Some(1);
            report.disk = Some(DiskFigures::default());
            report.logs = Some(LogFigures {
                failed_logins: Some(1),
                ..LogFigures::default()
            });
            report.network = Some(NetworkFigures::default());
        });
        figures.take(&said, Parts::NONE, TELEMETRY, Moment(0));
        for metric in METRICS {
            assert_eq!(
                outcome(&figures, metric, 0),
                Err(Missing::NotCollected),
                "{metric}"
            );
        }
        figures.take(&said, ALL, TELEMETRY, Moment(0));
        for (metric, reason) in [
            (Metric::GuestDiskFree, Missing::NoFileSystem),
            (Metric::NetworkLatency, Missing::NoProbe),
            (Metric::GuestLogErrors, Missing::NoLogPriorities),
        ] {
            assert_eq!(outcome(&figures, metric, 0), Err(reason));
        }
    }

    #[test]
    fn a_killed_process_is_noticed_once_and_not_when_the_daemon_begins() {
        let mut figures = GuestFigures::default();
        let kills = |count| report(|report| report.oom_kills = count);
        for (count, expected) in [
            (Some(4), Seen::No),
            (Some(4), Seen::No),
            (Some(6), Seen::Yes),
            (None, Seen::No),
            (Some(6), Seen::No),
            // The guest was rebooted.
            (Some(0), Seen::No),
            (Some(1), Seen::Yes),
        ] {
            let noticed = figures.take(&kills(count), Parts::NONE, TELEMETRY, Moment(0));
            assert_eq!(noticed.oom, expected, "{count:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_guest_says_a_rate_is_no_less_than_zero(
            said in proptest::collection::vec((any::<u64>(), any::<u64>(), 0_u64..90_000), 1..200)
        ) {
            let mut figures = GuestFigures::default();
            let mut now = 1_000_000;
            for (count, age_ms, later) in said {
                now += later;
                figures.take(&logins(count, age_ms % 120_000), ALL, TELEMETRY, Moment(now));
                if let Ok(rate) = outcome(&figures, Metric::GuestAuthFailures, now) {
                    prop_assert!(rate >= 0.0 && rate.is_finite());
                }
            }
        }
    }
}
