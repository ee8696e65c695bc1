//! What applications of a guest say, as readings: each with its own age, and with the interval at which it is said as its
//! period. Counters are made to grow only, also over a restart of the agent, which counts from zero. Nothing is read here;
//! the daemon passes in what came with a report. How many there can be is bounded by the report.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_protocol::{AppKind, CheckedAppFigure};
use persona::signal::{Named, Reading, Source};
use persona::units::Moment;

/// The interval of a figure that was said only once: it counts for three minutes.
const ONCE: Duration = Duration::from_secs(60);
/// The shortest interval that a figure is taken to have: applications are less punctual than agents.
const SHORTEST: Duration = Duration::from_secs(5);

/// The figures of one guest.
#[derive(Debug, Default)]
pub struct Applications {
    figures: BTreeMap<Named, Figure>,
}

#[derive(Debug)]
struct Figure {
    /// `None` while there is no agent.
    reading: Option<Reading>,
    counted: Option<Counted>,
}

/// A counter over restarts of the agent.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// What was counted before the agent began anew.
    before: f64,
    /// What it said last.
    last: f64,
}

impl Applications {
    /// Takes over what came with a report, at `now`; `telemetry` is the interval of reports. What the report no longer has
    /// grows old.
    pub fn take(&mut self, said: &[CheckedAppFigure], telemetry: Duration, now: Moment) {
        let mut before = std::mem::take(&mut self.figures);
        for figure in said {
            // The agent's names are names for rules, too; one that were not could be named by no rule.
            let Ok(named) = format!("guest.app.{}", figure.name).parse::<Named>() else {
                continue;
            };
            let known = before.remove(&named);
            let counted = (figure.kind == AppKind::Counter).then(|| {
                let before = known.and_then(|known| known.counted);
                Counted::next(before, figure.value)
            });
            let (value, age, period) = match counted {
                Some(counted) => (counted.before + counted.last, Duration::ZERO, telemetry),
                None => {
                    let every = figure.every.map_or(ONCE, |every| every.max(SHORTEST));
                    (figure.value, figure.age, every.max(telemetry))
                }
            };
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            let reading = Reading {
                value,
                source: Source::Agent,
                at: Moment(now.0.saturating_sub(age)),
                period,
            };
            self.figures.insert(
                named,
                Figure {
                    reading: Some(reading),
                    counted,
                },
            );
        }
        before.retain(|_, figure| figure.reading.is_some_and(|reading| reading.is_fresh(now)));
        // A guest whose names change with each report keeps no more of them than one report can have, twice.
        let room = (2 * agent_protocol::limits::APP_FIGURES_MAX).saturating_sub(self.figures.len());
        self.figures.extend(before.into_iter().take(room));
    }

    /// The agent is gone: nothing is known. What was counted is kept, since the counters go on when it is back.
    pub fn lose(&mut self) {
        for figure in self.figures.values_mut() {
            figure.reading = None;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.figures.clear();
    }

    /// The latest reading of a figure, fresh or not.
    pub fn reading(&self, named: &Named) -> Option<Reading> {
        self.figures.get(named)?.reading
    }

    /// All readings, by name.
    pub fn readings(&self) -> Vec<(&Named, Reading)> {
        let known = self.figures.iter();
        let mut readings: Vec<_> = known
            .filter_map(|(named, figure)| Some((named, figure.reading?)))
            .collect();
        readings.sort_by_key(|(named, _)| named.as_str());
        readings
    }
}

impl Counted {
    fn next(before: Option<Self>, said: f64) -> Self {
        match before {
            // It went back: the agent counts from zero again.
            Some(Self { before, last }) if said < last => Self {
                before: before + last,
                last: said,
            },
            Some(Self { before, .. }) => Self { before, last: said },
            None => Self {
                before: 0.0,
                last: said,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const TELEMETRY: Duration = Duration::from_secs(1);

    fn figure(name: &str, kind: AppKind, value: f64, every: Option<u64>) -> CheckedAppFigure {
        CheckedAppFigure {
            name: name.to_owned(),
            kind,
            value,
            age: Duration::from_secs(2),
            every: every.map(Duration::from_secs),
        }
    }

    fn named(name: &str) -> Named {
        format!("guest.app.{name}").parse().unwrap()
    }

    #[test]
    fn a_gauge_has_its_own_age_and_interval_and_grows_old() {
        let mut applications = Applications::default();
        let (once, often) = (
            figure("once", AppKind::Gauge, 1.0, None),
            figure("often", AppKind::Gauge, 2.0, Some(1)),
        );
        applications.take(&[once, often], TELEMETRY, Moment(100_000));
        let reading = applications.reading(&named("often")).unwrap();
        assert_eq!(
            (reading.value, reading.source, reading.at, reading.period),
            (2.0, Source::Agent, Moment(98_000), SHORTEST)
        );
        assert!(reading.is_fresh(Moment(113_000)) && !reading.is_fresh(Moment(114_000)));
        let once = applications.reading(&named("once")).unwrap();
        assert!(once.is_fresh(Moment(278_000)) && !once.is_fresh(Moment(279_000)));
        applications.take(&[], TELEMETRY, Moment(120_000));
        assert_eq!(applications.reading(&named("often")), None);
        assert!(applications.reading(&named("once")).is_some());
    }

    #[test]
    fn a_counter_only_grows_also_over_a_restart_of_the_agent() {
        let mut applications = Applications::default();
        let mut values = Vec::new();
        for (at, said) in [(1, 5.0), (2, 9.0), (3, 2.0), (4, 2.0), (5, 3.0)] {
            if at == 4 {
                applications.lose();
                assert_eq!(applications.reading(&named("hits")), None);
            }
            let said = figure("hits", AppKind::Counter, said, None);
            applications.take(&[said], TELEMETRY, Moment(at * 1000));
            let reading = applications.reading(&named("hits")).unwrap();
            assert_eq!(reading.at, Moment(at * 1000), "it is known now");
            values.push(reading.value);
        }
        assert_eq!(values, [5.0, 9.0, 11.0, 11.0, 12.0]);
    }

    #[test]
    fn a_guest_that_changes_its_names_does_not_make_the_host_keep_them_all() {
        let mut applications = Applications::default();
        for round in 0..10 {
            let said: Vec<_> = (0..64)
                .map(|n| figure(&format!("r{round}n{n}"), AppKind::Gauge, 0.0, None))
                .collect();
            applications.take(&said, TELEMETRY, Moment(1000 * round));
            assert!(applications.readings().len() <= 128);
        }
    }
}
