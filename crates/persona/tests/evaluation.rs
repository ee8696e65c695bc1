//! What conditions are worth: readings that count and that do not, windows over time, and what `explain` is shown.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::time::Duration;

use persona::rule::{Condition, Rule, Trail, Truth, Windows};
use persona::signal::{Event, EventKind, Named};
use persona::{Metric, Moment, PriorityMetrics, Reading, Signals, Source, TrustLevels};

/// Readings by metric.
#[derive(Default)]
struct Fixed(BTreeMap<Metric, Reading>);

impl Fixed {
    fn with(mut self, metric: Metric, value: f64, source: Source, at: u64) -> Self {
        let period = Duration::from_secs(1);
        self.0.insert(
            metric,
            Reading {
                value,
                source,
                at: Moment(at),
                period,
            },
        );
        self
    }
}

impl Signals for Fixed {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        self.0.get(&metric).copied()
    }
}

fn cpu(value: f64, at: u64) -> Fixed {
    Fixed::default().with(Metric::CpuUtilization, value, Source::Host, at)
}

fn truth(condition: &str, signals: &Fixed, demanded: Option<Source>, now: u64) -> Truth {
    let condition = Condition::parse(condition).unwrap();
    condition.evaluate(
        signals,
        demanded,
        &mut Windows::default(),
        Moment(now),
        &mut Trail::Off,
    )
}

/// Evaluates at each `(milliseconds, value)`; a value that is not a number stands for a metric without a reading.
fn over_time(condition: &str, moments: &[(u64, f64)]) -> Vec<Truth> {
    let condition = Condition::parse(condition).unwrap();
    let mut holds = Windows::default();
    let step = |(at, value): &(u64, f64)| {
        let signals = if value.is_nan() {
            Fixed::default()
        } else {
            cpu(*value, *at)
        };
        condition.evaluate(&signals, None, &mut holds, Moment(*at), &mut Trail::Off)
    };
    moments.iter().map(step).collect()
}

use Truth::{False, True, Unknown};

#[test]
fn absent_stale_distrusted_and_impossible_readings_are_unknown() {
    let hot = "cpu.utilization > 50%";
    assert_eq!(truth(hot, &cpu(80.0, 1000), None, 1000), True);
    assert_eq!(truth(hot, &cpu(20.0, 1000), None, 1000), False);
    assert_eq!(truth(hot, &cpu(80.0, 1000), None, 4000), True);
    assert_eq!(truth(hot, &cpu(80.0, 1000), None, 4001), Unknown);
    assert_eq!(truth(hot, &Fixed::default(), None, 1000), Unknown);
    assert_eq!(truth(hot, &cpu(f64::NAN, 1000), None, 1000), Unknown);
    assert_eq!(truth(hot, &cpu(f64::INFINITY, 1000), None, 1000), Unknown);
    let claimed = Fixed::default().with(Metric::MemoryUtilization, 95.0, Source::Agent, 1000);
    let full = "memory.utilization > 90%";
    assert_eq!(truth(full, &claimed, Some(Source::Agent), 1000), True);
    assert_eq!(truth(full, &claimed, Some(Source::Balloon), 1000), Unknown);
}

#[test]
fn what_the_known_parts_decide_is_known() {
    let signals = cpu(80.0, 1000);
    assert_eq!(
        truth(
            "cpu.utilization > 50% OR guest.load > 1",
            &signals,
            None,
            1000
        ),
        True
    );
    assert_eq!(
        truth(
            "cpu.utilization > 90% AND guest.load > 1",
            &signals,
            None,
            1000
        ),
        False
    );
    assert_eq!(
        truth(
            "cpu.utilization > 50% AND guest.load > 1",
            &signals,
            None,
            1000
        ),
        Unknown
    );
    assert_eq!(truth("NOT guest.load > 1", &signals, None, 1000), Unknown);
}

#[test]
fn sums_are_computed_and_a_division_by_zero_is_unknown() {
    let signals = Fixed::default()
        .with(Metric::MemorySize, 1000.0, Source::Host, 0)
        .with(Metric::MemoryAvailable, 250.0, Source::Balloon, 0)
        .with(Metric::GuestLoad, 0.0, Source::Agent, 0);
    assert_eq!(
        truth(
            "(memory.size - memory.available) / memory.size == 0.75",
            &signals,
            None,
            0
        ),
        True
    );
    assert_eq!(
        truth(
            "memory.size > 2 * memory.available + 499 B",
            &signals,
            None,
            0
        ),
        True
    );
    assert_eq!(truth("-memory.available < -249 B", &signals, None, 0), True);
    assert_eq!(
        truth(
            "memory.available BETWEEN 250 B AND 300 B",
            &signals,
            None,
            0
        ),
        True
    );
    assert_eq!(
        truth(
            "memory.available BETWEEN 251 B AND 300 B",
            &signals,
            None,
            0
        ),
        False
    );
    assert_eq!(truth("1 / guest.load > 1", &signals, None, 0), Unknown);
    assert_eq!(
        truth("guest.load / guest.load != 1", &signals, None, 0),
        Unknown
    );
}

#[test]
fn a_window_is_satisfied_when_it_was_true_throughout() {
    let hot = "cpu.utilization > 50% FOR 2s";
    let found = over_time(
        hot,
        &[
            (0, 80.0),
            (1000, 80.0),
            (1999, 80.0),
            (2000, 80.0),
            (3000, 80.0),
        ],
    );
    assert_eq!(found, [False, False, False, True, True]);
    let found = over_time(
        hot,
        &[
            (0, 80.0),
            (1000, 20.0),
            (2000, 80.0),
            (3000, 80.0),
            (4000, 80.0),
        ],
    );
    assert_eq!(found, [False, False, False, False, True]);
    let found = over_time(
        hot,
        &[
            (0, 80.0),
            (1000, f64::NAN),
            (2000, 80.0),
            (3000, 80.0),
            (4000, 80.0),
        ],
    );
    assert_eq!(found, [False, Unknown, False, False, True]);
}

#[test]
fn a_missing_sample_that_is_not_yet_stale_does_not_reset_a_window() {
    let condition = Condition::parse("cpu.utilization > 50% FOR 4s").unwrap();
    let mut holds = Windows::default();
    let mut at = |measured: u64, now: u64| {
        condition.evaluate(
            &cpu(80.0, measured),
            None,
            &mut holds,
            Moment(now),
            &mut Trail::Off,
        )
    };
    assert_eq!(at(0, 0), False);
    assert_eq!(at(0, 2000), False);
    assert_eq!(at(0, 3000), False);
    assert_eq!(at(3500, 4000), True);
    assert_eq!(at(3500, 6600), Unknown);
    assert_eq!(at(6700, 6700), False);
}

#[test]
fn a_window_starts_anew_where_nobody_looked_for_too_long() {
    let hot = "cpu.utilization > 50% FOR 5s";
    assert_eq!(
        over_time(hot, &[(0, 80.0), (3000, 80.0), (6000, 80.0)]),
        [False, False, True]
    );
    assert_eq!(
        over_time(hot, &[(0, 80.0), (3001, 80.0), (6000, 80.0)]),
        [False, False, False]
    );
    assert_eq!(over_time(hot, &[(0, 80.0), (60_000, 80.0)]), [False, False]);
}

#[test]
fn windows_advance_behind_a_branch_that_decides_already() {
    let condition = Condition::parse("guest.load > 9 AND cpu.utilization > 50% FOR 2s").unwrap();
    let mut holds = Windows::default();
    let mut at = |load: f64, now: u64| {
        let signals = cpu(80.0, now).with(Metric::GuestLoad, load, Source::Agent, now);
        condition.evaluate(&signals, None, &mut holds, Moment(now), &mut Trail::Off)
    };
    assert_eq!(at(0.0, 0), False);
    assert_eq!(at(0.0, 1000), False);
    assert_eq!(at(10.0, 2000), True);
}

#[test]
fn when_and_until_of_one_rule_keep_their_windows_apart() {
    let rule = Rule::parse(
        "test",
        "IF cpu.utilization > 50% FOR 2s THEN add 1 vcpus UNTIL cpu.utilization < 30% FOR 1s",
    )
    .unwrap();
    let until = rule.until.unwrap();
    let mut holds = Windows::default();
    let mut at = |value: f64, now: u64| {
        let signals = cpu(value, now);
        let mut worth = |condition: &Condition| {
            condition.evaluate(&signals, None, &mut holds, Moment(now), &mut Trail::Off)
        };
        (worth(&rule.when), worth(&until))
    };
    assert_eq!(at(80.0, 0), (False, False));
    assert_eq!(at(80.0, 1000), (False, False));
    assert_eq!(at(80.0, 2000), (True, False));
    assert_eq!(at(20.0, 3000), (False, False));
    assert_eq!(at(20.0, 4000), (False, True));
}

#[test]
fn carried_windows_survive_being_stored() {
    let condition = Condition::parse("cpu.utilization > 50% FOR 2s").unwrap();
    let mut holds = Windows::default();
    condition.evaluate(&cpu(80.0, 0), None, &mut holds, Moment(0), &mut Trail::Off);
    condition.evaluate(
        &cpu(80.0, 1000),
        None,
        &mut holds,
        Moment(1000),
        &mut Trail::Off,
    );
    let stored = serde_json::to_string(&holds).unwrap();
    let mut restored: Windows = serde_json::from_str(&stored).unwrap();
    assert_eq!(restored, holds);
    assert_eq!(
        condition.evaluate(
            &cpu(80.0, 2000),
            None,
            &mut restored,
            Moment(2000),
            &mut Trail::Off
        ),
        True
    );
}

#[test]
fn a_projection_takes_windows_as_long_enough() {
    let condition = Condition::parse("cpu.utilization > 50% FOR 1h").unwrap();
    assert_eq!(condition.would_hold(&cpu(80.0, 0), Moment(0)), True);
    assert_eq!(condition.would_hold(&cpu(20.0, 0), Moment(0)), False);
    assert_eq!(condition.would_hold(&Fixed::default(), Moment(0)), Unknown);
}

/// The truth of a rule's condition at each second, with a value each; one that is no number stands for no reading.
fn each_second(condition: &str, values: &[f64]) -> Vec<Truth> {
    let moments: Vec<_> = (0_u64..)
        .step_by(1000)
        .zip(values.iter().copied())
        .collect();
    over_time(condition, &moments)
}

#[test]
fn a_function_is_known_once_its_window_is_covered() {
    // A reading stands for three periods, so two readings cover five seconds.
    let found = each_second(
        "avg(cpu.utilization, 5s) > 50%",
        &[40.0, 40.0, 90.0, 90.0, 90.0, 0.0],
    );
    assert_eq!(found, [Unknown, Unknown, True, True, True, True]);
    let found = each_second(
        "max(cpu.utilization, 5s) == 90%",
        &[0.0, 0.0, 90.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    );
    assert_eq!(
        found,
        [Unknown, Unknown, True, True, True, True, True, False]
    );
    let found = each_second(
        "delta(cpu.utilization, 4s) >= 30%",
        &[0.0, 10.0, 20.0, 30.0, 35.0],
    );
    assert_eq!(found, [Unknown, False, False, True, False]);
    let found = each_second(
        "rate(cpu.utilization, 4s) > 9.9/s",
        &[0.0, 10.0, 20.0, 30.0, 30.0],
    );
    assert_eq!(found, [Unknown, True, True, True, False]);
}

#[test]
fn a_gap_makes_a_function_unknown_until_it_is_covered_again() {
    let no = f64::NAN;
    let found = each_second(
        "min(cpu.utilization, 5s) > 10%",
        &[20.0, 20.0, 20.0, no, no, no, no, 20.0, 20.0, 20.0],
    );
    assert_eq!(
        found,
        [
            Unknown, Unknown, True, True, True, True, Unknown, Unknown, Unknown, True
        ]
    );
}

#[test]
fn the_windows_of_functions_see_every_reading_that_counts_and_no_other() {
    let condition = Condition::parse("guest.load > 9 AND avg(cpu.utilization, 5s) > 50%").unwrap();
    let mut windows = Windows::default();
    let mut at = |source: Source, load: f64, now: u64| {
        let signals = Fixed::default()
            .with(Metric::CpuUtilization, 80.0, source, now)
            .with(Metric::GuestLoad, load, Source::Host, now);
        condition.evaluate(
            &signals,
            Some(Source::Host),
            &mut windows,
            Moment(now),
            &mut Trail::Off,
        )
    };
    // The first part decides alone, and the window fills all the same.
    assert_eq!(at(Source::Host, 0.0, 0), False);
    assert_eq!(at(Source::Host, 0.0, 1000), False);
    assert_eq!(at(Source::Host, 10.0, 2000), True);
    // What does not count is no reading, and the last one that does stands for three periods.
    assert_eq!(at(Source::Agent, 10.0, 5000), True);
    assert_eq!(at(Source::Agent, 10.0, 5001), Unknown);
}

#[test]
fn the_windows_of_functions_are_not_stored_and_can_be_cleared() {
    let condition = Condition::parse("avg(cpu.utilization, 3s) > 50%").unwrap();
    let evaluate = |windows: &mut Windows, now: u64| {
        condition.evaluate(&cpu(80.0, now), None, windows, Moment(now), &mut Trail::Off)
    };
    let mut windows = Windows::default();
    assert_eq!(evaluate(&mut windows, 0), True);
    assert_eq!(serde_json::to_string(&windows).unwrap(), "[]");
    let long = Condition::parse("avg(cpu.utilization, 5s) > 50%").unwrap();
    let evaluate = |windows: &mut Windows, now: u64| {
        long.evaluate(&cpu(80.0, now), None, windows, Moment(now), &mut Trail::Off)
    };
    let mut windows = Windows::default();
    for (now, expected) in [(0, Unknown), (1000, Unknown), (2000, True)] {
        assert_eq!(evaluate(&mut windows, now), expected);
    }
    windows.clear();
    assert_eq!(evaluate(&mut windows, 3000), Unknown);
}

#[test]
fn in_a_projection_readings_last() {
    let hot = |text: &str| {
        let condition = Condition::parse(text).unwrap();
        condition.would_hold(&cpu(80.0, 0), Moment(0))
    };
    for function in ["avg", "min", "max", "p50", "p90", "p95", "p99"] {
        assert_eq!(
            hot(&format!("{function}(cpu.utilization, 1h) == 80%")),
            True,
            "{function}"
        );
    }
    assert_eq!(hot("delta(cpu.utilization, 1h) == 0%"), True);
    assert_eq!(hot("rate(cpu.utilization, 1h) == 0/s"), True);
    assert_eq!(hot("predicted(cpu.utilization, 1h) == 80%"), Unknown);
    assert_eq!(hot("anomaly(cpu.utilization) < 3"), Unknown);
    assert_eq!(hot("avg(guest.load, 1h) > 1"), Unknown);
}

/// Something that happened, and values by name.
struct Outside {
    happened: u64,
    source: Option<&'static str>,
}

impl Signals for Outside {
    fn reading(&self, _: Metric) -> Option<Reading> {
        None
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        let known = "external.threatintel.count".parse::<Named>().unwrap();
        (named.id() == known.id()).then_some(Reading {
            value: 7.0,
            source: Source::External,
            at: Moment(0),
            period: Duration::from_secs(60),
        })
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        let same = event
            .source
            .as_deref()
            .is_none_or(|source| Some(source) == self.source);
        (event.kind == EventKind::FeedChanged && same).then_some(Moment(self.happened))
    }
}

#[test]
fn an_event_counts_for_half_a_minute_and_what_has_no_name_here_is_unknown() {
    let truth = |text: &str, demanded: Option<Source>, now: u64| {
        let outside = Outside {
            happened: 100_000,
            source: Some("threatintel"),
        };
        let condition = Condition::parse(text).unwrap();
        let mut windows = Windows::default();
        condition.evaluate(
            &outside,
            demanded,
            &mut windows,
            Moment(now),
            &mut Trail::Off,
        )
    };
    assert_eq!(truth("feed.changed", None, 99_999), False);
    assert_eq!(truth("feed.changed", None, 100_000), True);
    assert_eq!(
        truth("EVENT(feed.changed(threatintel))", None, 130_000),
        True
    );
    assert_eq!(truth("feed.changed(threatintel)", None, 130_001), False);
    assert_eq!(truth("feed.changed(other)", None, 100_000), False);
    assert_eq!(truth("agent.lost", None, 100_000), False);
    assert_eq!(truth("external.threatintel.count > 0", None, 1000), True);
    assert_eq!(
        truth("external.threatintel.count > 0", Some(Source::Agent), 1000),
        Unknown
    );
    assert_eq!(truth("external.other.count > 0", None, 1000), Unknown);
    assert_eq!(truth("guest.app.orders > 0", None, 1000), Unknown);
}

#[test]
fn what_a_rule_looks_up_is_unknown_until_its_document_is_known() {
    let text = "IF cpu.utilization > 50% AND trust_levels[notify] == high THEN add 1 vcpus \
                UNTIL cpu.utilization < 30% OR priority_metrics[cost] > 0.5";
    let mut rule = Rule::parse("test", text).unwrap();
    let worth = |rule: &Rule| {
        let evaluate = |condition: &Condition| {
            let mut windows = Windows::default();
            condition.evaluate(
                &cpu(80.0, 0),
                None,
                &mut windows,
                Moment(0),
                &mut Trail::Off,
            )
        };
        (evaluate(&rule.when), evaluate(rule.until.as_ref().unwrap()))
    };
    assert_eq!(worth(&rule), (Unknown, Unknown));
    assert_eq!(rule.priorities().collect::<Vec<_>>(), ["cost"]);
    // Where a document is silent, trust is high and a metric has no weight.
    rule.resolve(&PriorityMetrics::default(), &TrustLevels::default());
    assert_eq!(worth(&rule), (True, Unknown));
}

#[test]
fn the_trail_tells_what_was_looked_at_and_for_how_long_it_held() {
    let condition =
        Condition::parse("cpu.utilization > 50% FOR 5s OR memory.size < memory.available").unwrap();
    let mut holds = Windows::default();
    condition.evaluate(&cpu(80.0, 0), None, &mut holds, Moment(0), &mut Trail::Off);
    let mut trail = Trail::recording();
    condition.evaluate(&cpu(80.0, 2000), None, &mut holds, Moment(2000), &mut trail);
    let found: Vec<_> = trail
        .looked()
        .iter()
        .map(|looked| {
            let value = looked.reading.map(|reading| reading.value);
            (
                looked.signal.to_string(),
                value,
                looked.verdict,
                looked.comparison.as_str(),
                looked.held_for,
                looked.needs,
            )
        })
        .collect();
    let seconds = |n| Some(Duration::from_secs(n));
    let memory = "memory.size < memory.available";
    assert_eq!(
        found,
        [
            (
                Metric::CpuUtilization.to_string(),
                Some(80.0),
                True,
                "cpu.utilization > 50%",
                seconds(2),
                seconds(5)
            ),
            (
                Metric::MemorySize.to_string(),
                None,
                Unknown,
                memory,
                None,
                None
            ),
            (
                Metric::MemoryAvailable.to_string(),
                None,
                Unknown,
                memory,
                None,
                None
            ),
        ]
    );
}

#[test]
fn the_logic_is_kleenes() {
    const ALL: [Truth; 3] = [True, False, Unknown];
    for a in ALL {
        assert_eq!(a.not().not(), a);
        assert_eq!(a.and(True), a);
        assert_eq!(a.or(False), a);
        assert_eq!(a.and(False), False);
        assert_eq!(a.or(True), True);
        for b in ALL {
            assert_eq!(a.and(b), b.and(a));
            assert_eq!(a.or(b), b.or(a));
            assert_eq!(a.and(b).not(), a.not().or(b.not()));
            assert_eq!(a.or(a.and(b)), a);
            for c in ALL {
                assert_eq!(a.and(b).and(c), a.and(b.and(c)));
                assert_eq!(a.or(b).or(c), a.or(b.or(c)));
                assert_eq!(a.and(b.or(c)), a.and(b).or(a.and(c)));
            }
        }
    }
    assert_eq!(Unknown.or(Unknown.not()), Unknown);
}
