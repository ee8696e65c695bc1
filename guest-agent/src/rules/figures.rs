//! The guest's figures as readings for its own rules: from the same reports, and the same figures of applications, as go to
//! the host. Nothing is measured here.

use std::time::Duration;

use agent_protocol::{AppFigure, AppKind, Part, Parts, Report};
use persona::{
    signal::{Metric, Named, Reading, Signal, Signals, Source},
    units::Moment,
};

/// The interval of a figure that was said only once: it counts for three minutes.
const ONCE: Duration = Duration::from_secs(60);
/// The shortest interval that a figure is taken to have: applications are less punctual than agents.
const SHORTEST: Duration = Duration::from_secs(5);

/// File systems are looked at this often at least.
const DISK: Duration = Duration::from_secs(5);

/// What is known at a moment.
#[derive(Debug)]
pub(super) struct Figures {
    report: Option<Report>,
    named: Vec<(Named, Reading)>,
    at: Moment,
    period: Duration,
}

impl Figures {
    /// Of a report and of what applications said, where figures are looked at so often.
    pub(super) fn new(
        report: Option<Report>,
        said: &[AppFigure],
        at: Moment,
        period: Duration,
    ) -> Self {
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
            named,
            at,
            period,
        }
    }
}

impl Signals for Figures {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let report = self.report.as_ref()?;
        let looked = report.disk.filter(|_| is_of_disk(metric));
        let (age_ms, period) = looked.map_or((0, self.period), |disk| {
            (disk.age_ms, self.period.max(DISK))
        });
        Some(Reading {
            value: value(report, metric)?,
            source: Source::Agent,
            at: Moment(self.at.0.saturating_sub(age_ms)),
            period,
        })
    }

    fn named(&self, wanted: &Named) -> Option<Reading> {
        let found = self.named.iter().find(|(named, _)| named == wanted);
        found.map(|(_, reading)| *reading)
    }
}

/// What a report says of a metric.
fn value(report: &Report, metric: Metric) -> Option<f64> {
    match metric {
        Metric::GuestLoad => report.load1,
        Metric::GuestMemoryPressure => report.psi_memory_some_avg10,
        // A number of processes is far below what an f64 holds exactly.
        #[allow(clippy::cast_precision_loss)]
        Metric::GuestProcesses => report.process_count.map(|count| count as f64),
        Metric::GuestDiskFree => report.disk?.space_free,
        Metric::GuestDiskInodes => report.disk?.inodes_free,
        _ => None,
    }
}

fn is_of_disk(metric: Metric) -> bool {
    matches!(metric, Metric::GuestDiskFree | Metric::GuestDiskInodes)
}

/// Whether this agent measures it, or hears it of an application.
pub(super) fn is_measured(signal: &Signal) -> bool {
    match signal {
        Signal::Metric(metric) => matches!(
            metric,
            Metric::GuestLoad
                | Metric::GuestMemoryPressure
                | Metric::GuestProcesses
                | Metric::GuestDiskFree
                | Metric::GuestDiskInodes
        ),
        Signal::Named(named) => named.source().is_none(),
    }
}

/// The part of a report in which a signal is; `None` where it is always there.
pub(super) fn part(signal: &Signal) -> Option<Part> {
    match signal {
        Signal::Metric(Metric::GuestLoad) => Some(Part::Cpu),
        Signal::Metric(Metric::GuestProcesses) => Some(Part::Processes),
        Signal::Metric(metric) if is_of_disk(*metric) => Some(Part::Disk),
        Signal::Named(_) => Some(Part::Applications),
        Signal::Metric(_) => None,
    }
}

/// The parts that some signals need.
pub(super) fn parts<'a>(signals: impl Iterator<Item = &'a Signal>) -> Parts {
    signals.filter_map(part).collect()
}
