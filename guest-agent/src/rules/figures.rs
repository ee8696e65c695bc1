//! The guest's figures as readings for its own rules, and what happened in it: from the same reports, and the same figures of
//! applications, as go to the host, by the same laws. Nothing is measured here; which figures there are is the planner's `place`.

use std::time::Duration;

use agent_protocol::{AppFigure, AppKind, Part, Parts, Report};
use persona::{
    rule::Condition,
    signal::{Counter, Event, EventKind, Metric, Named, Reading, Signal, Signals, Source},
    units::Moment,
};

/// The interval of a figure that was said only once: it counts for three minutes.
const ONCE: Duration = Duration::from_secs(60);
/// The shortest interval that a figure is taken to have: applications are less punctual than agents.
const SHORTEST: Duration = Duration::from_secs(5);

/// Disks, logs and other machines are looked at this often at most.
const LOOK: Duration = Duration::from_secs(5);

/// What is counted from report to report, and so known of what happened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    errors: Counter,
    failed_logins: Counter,
    oom_kills: Counter,
    error_rate: Option<f64>,
    failure_rate: Option<f64>,
    failed_login: Option<Moment>,
    oom: Option<Moment>,
}

impl Counts {
    /// Takes in what a report counts. What has come since the one before happens now.
    fn take(&mut self, report: &Report, now: Moment) {
        if let Some(kills) = report.oom_kills
            && self.oom_kills.take(kills, now).come > 0
        {
            self.oom = Some(now);
        }
        let Some(logs) = report.logs else {
            return self.pause();
        };
        let at = Moment(now.0.saturating_sub(logs.age_ms));
        let grown = |counter: &mut Counter, count: Option<u64>| match count {
            Some(count) => Some(counter.take(count, at)),
            None => {
                counter.pause();
                None
            }
        };
        let errors = grown(&mut self.errors, logs.errors);
        let failures = grown(&mut self.failed_logins, logs.failed_logins);
        self.error_rate = errors.and_then(|errors| errors.rate);
        self.failure_rate = failures.and_then(|failures| failures.rate);
        if failures.is_some_and(|failures| failures.come > 0) {
            self.failed_login = Some(now);
        }
    }

    fn pause(&mut self) {
        self.errors.pause();
        self.failed_logins.pause();
        (self.error_rate, self.failure_rate) = (None, None);
    }

    /// Other rules come in force: what those before have heard of has not happened, for nothing acts twice on one event. What
    /// happens between their evaluations is heard of by the later ones.
    pub(super) fn begin_anew(&mut self) {
        (self.failed_login, self.oom) = (None, None);
    }

    /// Nobody reads logs any more: what comes from here on happened to nobody.
    pub(super) fn close_logs(&mut self) {
        let (oom_kills, oom) = (std::mem::take(&mut self.oom_kills), self.oom);
        *self = Self {
            oom_kills,
            oom,
            ..Self::default()
        };
    }
}

/// What is known at a moment.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    report: Option<Report>,
    counts: &'a Counts,
    named: Vec<(Named, Reading)>,
    at: Moment,
    period: Duration,
}

impl<'a> Figures<'a> {
    /// Of a report and of what applications said, where figures are looked at so often.
    pub(super) fn new(
        report: Option<Report>,
        counts: &'a mut Counts,
        said: &[AppFigure],
        at: Moment,
        period: Duration,
    ) -> Self {
        if let Some(report) = &report {
            counts.take(report, at);
        }
        let named = said.iter().filter_map(|figure| {
            let named = format!("guest.app.{}", figure.name).parse().ok()?;
            let (age_ms, every) = match figure.kind {
                AppKind::Counter => (0, period),
                _ => {
                    let every = figure.every_ms.map(Duration::from_millis);
                    let every = every.map_or(ONCE, |every| every.max(SHORTEST));
                    (figure.age_ms, every.max(period))
                }
            };
            let reading = Reading {
                value: figure.value,
                source: Source::Agent,
                at: Moment(at.0.saturating_sub(age_ms)),
                period: every,
            };
            Some((named, reading))
        });
        let named = named.collect();
        Self {
            report,
            counts,
            named,
            at,
            period,
        }
    }

    /// What is known of a metric.
    fn value(&self, metric: Metric) -> Option<f64> {
        let report = self.report.as_ref()?;
        match metric {
            Metric::GuestLoad => report.load1,
            Metric::GuestMemoryPressure => report.psi_memory_some_avg10,
            // A number of processes is far below what an f64 holds exactly.
            #[allow(clippy::cast_precision_loss)]
            Metric::GuestProcesses => report.process_count.map(|count| count as f64),
            Metric::GuestDiskFree => report.disk?.space_free,
            Metric::GuestDiskInodes => report.disk?.inodes_free,
            Metric::GuestLogErrors => self.counts.error_rate,
            Metric::GuestAuthFailures => self.counts.failure_rate,
            Metric::NetworkLatency => {
                let micros = report.network?.round_trip_us?;
                Some(Duration::from_micros(micros).as_secs_f64())
            }
            _ => None,
        }
    }

    /// How old it is, where it comes of a look at disks, logs or other machines.
    fn age_ms(&self, metric: Metric) -> Option<u64> {
        let report = self.report.as_ref()?;
        match part(&metric.into()) {
            Some(Part::Disk) => report.disk.map(|disk| disk.age_ms),
            Some(Part::Logs) => report.logs.map(|logs| logs.age_ms),
            Some(Part::Network) => report.network.map(|network| network.age_ms),
            _ => None,
        }
    }
}

impl Signals for Figures<'_> {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let looked = self.age_ms(metric);
        let (age_ms, period) =
            looked.map_or((0, self.period), |age_ms| (age_ms, self.period.max(LOOK)));
        Some(Reading {
            value: self.value(metric)?,
            source: Source::Agent,
            at: Moment(self.at.0.saturating_sub(age_ms)),
            period,
        })
    }

    fn named(&self, wanted: &Named) -> Option<Reading> {
        let found = self.named.iter().find(|(named, _)| named == wanted);
        found.map(|(_, reading)| *reading)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        match event.kind {
            EventKind::GuestOom => self.counts.oom,
            EventKind::LoginFailed => self.counts.failed_login,
            _ => None,
        }
    }
}

/// The part of a report in which a signal is; `None` where it is always there.
fn part(signal: &Signal) -> Option<Part> {
    match signal {
        Signal::Metric(metric) => match metric {
            Metric::GuestLoad => Some(Part::Cpu),
            Metric::GuestProcesses => Some(Part::Processes),
            Metric::GuestDiskFree | Metric::GuestDiskInodes => Some(Part::Disk),
            Metric::GuestLogErrors | Metric::GuestAuthFailures => Some(Part::Logs),
            Metric::NetworkLatency => Some(Part::Network),
            _ => None,
        },
        Signal::Named(_) => Some(Part::Applications),
    }
}

/// The parts that some conditions need.
pub(super) fn parts<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Parts {
    let of = |condition: &'a Condition| {
        let logins = condition
            .events()
            .any(|event| event.kind == EventKind::LoginFailed);
        let signals = condition.signals().filter_map(part);
        signals.chain(logins.then_some(Part::Logs))
    };
    conditions.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use agent_protocol::{DiskFigures, LogFigures, NetworkFigures};
    use planner::place;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    /// A report that says everything, with so many failed logins and killed processes.
    fn report(failed_logins: u64, oom_kills: u64) -> Report {
        Report {
            load1: Some(0.5),
            psi_memory_some_avg10: Some(1.0),
            process_count: Some(80),
            oom_kills: Some(oom_kills),
            disk: Some(DiskFigures {
                age_ms: 4_000,
                space_free: Some(12.5),
                inodes_free: Some(50.0),
            }),
            logs: Some(LogFigures {
                age_ms: 0,
                errors: Some(failed_logins),
                failed_logins: Some(failed_logins),
            }),
            network: Some(NetworkFigures {
                age_ms: 2_000,
                round_trip_us: Some(1_500),
            }),
            ..Report::default()
        }
    }

    fn look(counts: &mut Counts, report: Report, second: u64) -> Figures<'_> {
        Figures::new(Some(report), counts, &[], Moment(second * 1_000), PERIOD)
    }

    fn event(name: &str) -> Event {
        Event {
            kind: name.parse().unwrap(),
            source: None,
        }
    }

    #[test]
    fn all_that_a_rule_of_the_guest_may_look_at_is_known_once_a_minute_has_passed() {
        let mut counts = Counts::default();
        for second in (0..60).step_by(10) {
            look(&mut counts, report(second, 1), second);
        }
        let figures = look(&mut counts, report(60, 2), 60);
        let mut known = 0;
        for metric in Metric::ALL {
            let placed = place::is_measured_in_guest(&metric.into());
            assert_eq!(figures.reading(metric).is_some(), placed, "{metric}");
            known += usize::from(placed);
        }
        assert!(known >= 8, "{known}");
        for kind in EventKind::ALL {
            let event = event(kind.name());
            let placed = place::is_noticed_in_guest(&event);
            assert_eq!(figures.happened(&event).is_some(), placed, "{event}");
        }
        for (metric, value, age) in [
            (Metric::GuestAuthFailures, 1.0, 0),
            (Metric::NetworkLatency, 0.0015, 2_000),
            (Metric::GuestDiskFree, 12.5, 4_000),
            (Metric::GuestLoad, 0.5, 0),
        ] {
            let reading = figures.reading(metric).unwrap();
            assert_eq!((reading.value, reading.source), (value, Source::Agent));
            assert_eq!(reading.at, Moment(60_000 - age), "{metric}");
        }
    }

    #[test]
    fn what_happens_is_what_came_since_the_first_look_and_not_what_rules_before_have_heard_of() {
        let (oom, failed) = (event("guest.oom"), event("login.failed"));
        let mut counts = Counts::default();
        let happened = |counts: &mut Counts, report: Report, second: u64| {
            let figures = look(counts, report, second);
            let seconds = |event| figures.happened(event).map(|at| at.0 / 1_000);
            (seconds(&oom), seconds(&failed))
        };
        assert_eq!(happened(&mut counts, report(3, 7), 0), (None, None));
        assert_eq!(happened(&mut counts, report(3, 8), 10), (Some(10), None));
        let unread = Report {
            logs: None,
            ..report(9, 8)
        };
        assert_eq!(happened(&mut counts, unread, 20), (Some(10), None));
        let both = (Some(10), Some(30));
        assert_eq!(happened(&mut counts, report(4, 8), 30), both);
        counts.begin_anew();
        assert_eq!(happened(&mut counts, report(4, 8), 40), (None, None));
        assert_eq!(happened(&mut counts, report(5, 8), 50), (None, Some(50)));
        counts.close_logs();
        assert_eq!(happened(&mut counts, report(9, 9), 60), (Some(60), None));
    }

    #[test]
    fn what_was_not_looked_at_is_unknown_and_what_was_long_ago_grows_old() {
        let mut counts = Counts::default();
        let figures = look(&mut counts, Report::default(), 100);
        for metric in Metric::ALL {
            assert_eq!(figures.reading(metric), None, "{metric}");
        }
        let mut old = report(0, 0);
        old.network = Some(NetworkFigures {
            age_ms: 30_001,
            round_trip_us: Some(1),
        });
        let figures = look(&mut counts, old, 100);
        let latency = figures.reading(Metric::NetworkLatency).unwrap();
        assert!(!latency.is_fresh(Moment(100_000)));
        let free = figures.reading(Metric::GuestDiskFree).unwrap();
        assert!(free.is_fresh(Moment(100_000)));
    }

    #[test]
    fn only_what_rules_need_is_looked_at() {
        let parts = |text: &str| {
            let rule = persona::rule::Rule::parse("r", text).unwrap();
            parts(std::iter::once(&rule.when).chain(&rule.until))
        };
        let run = "THEN run a";
        assert_eq!(parts(&format!("IF EVENT(guest.oom) {run}")), Parts::NONE);
        let logs = Parts::NONE.with(Part::Logs);
        assert_eq!(parts(&format!("IF NOT EVENT(login.failed) {run}")), logs);
        let text = format!("IF network.latency > 1 ms {run} UNTIL guest.log.errors < 1/s");
        assert_eq!(parts(&text), logs.with(Part::Network));
    }
}
