//! What the guest claims: whom to prefer, what is too old, what cannot be true.

use std::time::Duration;

use persona::signal::{Metric, Signals, Source};
use persona::units::{Bytes, Moment};
use virt_persona::hypervisor::BalloonStats;
use virt_persona::observe::guest::{add_claims, online_vcpus};
use virt_persona::observe::{GuestReport, Missing, Readings};

const NOW: Moment = Moment(1_000_000_000);
const PERIOD: Duration = Duration::from_secs(5);

fn balloon() -> BalloonStats {
    BalloonStats {
        available: Some(Bytes::from_mib(1000)),
        usable: Some(Bytes::from_mib(250)),
        last_update: Some(999_998),
        ..BalloonStats::default()
    }
}

fn report() -> GuestReport {
    GuestReport {
        online_count: Some(2),
        present_count: Some(4),
        memory_total: Some(Bytes::from_mib(2000)),
        memory_available: Some(Bytes::from_mib(1000)),
        memory_pressure: Some(1.5),
        load1: Some(3.25),
        at: Moment(999_999_500),
        period: Duration::from_secs(1),
    }
}

fn claims(
    balloon: &BalloonStats,
    period: Option<Duration>,
    report: Option<&GuestReport>,
) -> Readings {
    let mut readings = Readings::default();
    add_claims(&mut readings, balloon, period, report, NOW);
    readings
}

/// The value and its source, or the reason.
fn outcome(readings: &Readings, metric: Metric) -> Result<(f64, Source), Missing> {
    match readings.reading(metric) {
        Some(reading) => Ok((reading.value, reading.source)),
        None => Err(readings.missing(metric).unwrap()),
    }
}

#[test]
fn the_balloon_is_preferred_for_memory_in_use_and_the_agent_for_what_the_guest_sees() {
    let readings = claims(&balloon(), Some(PERIOD), Some(&report()));
    let mib = |count| Bytes::from_mib(count).0 as f64;
    assert_eq!(
        outcome(&readings, Metric::MemoryUtilization),
        Ok((75.0, Source::Balloon))
    );
    assert_eq!(
        outcome(&readings, Metric::MemoryAvailable),
        Ok((mib(250), Source::Balloon))
    );
    assert_eq!(
        outcome(&readings, Metric::MemorySize),
        Ok((mib(2000), Source::Agent))
    );
    assert_eq!(
        outcome(&readings, Metric::VcpuCount),
        Ok((2.0, Source::Agent))
    );
    assert_eq!(
        outcome(&readings, Metric::GuestMemoryPressure),
        Ok((1.5, Source::Agent))
    );
    assert_eq!(
        outcome(&readings, Metric::GuestLoad),
        Ok((3.25, Source::Agent))
    );
    let reading = readings.reading(Metric::MemoryUtilization).unwrap();
    assert_eq!((reading.at, reading.period), (Moment(999_998_000), PERIOD));
}

#[test]
fn balloon_statistics_that_say_nothing_leave_the_word_to_the_agent() {
    let stale = BalloonStats {
        last_update: Some(999_984),
        ..balloon()
    };
    let ahead = BalloonStats {
        last_update: Some(1_000_016),
        ..balloon()
    };
    let never = BalloonStats {
        last_update: Some(0),
        ..balloon()
    };
    let undated = BalloonStats {
        last_update: None,
        ..balloon()
    };
    let impossible = BalloonStats {
        usable: Some(Bytes::from_mib(1001)),
        ..balloon()
    };
    let empty = BalloonStats {
        available: Some(Bytes(0)),
        usable: Some(Bytes(0)),
        ..balloon()
    };
    let partly = BalloonStats {
        usable: None,
        ..balloon()
    };
    let cases = [
        (stale, Some(PERIOD), Missing::Stale),
        (ahead, Some(PERIOD), Missing::Stale),
        (never, Some(PERIOD), Missing::NotReported),
        (undated, Some(PERIOD), Missing::NotReported),
        (impossible, Some(PERIOD), Missing::Implausible),
        (empty, Some(PERIOD), Missing::Implausible),
        (partly, Some(PERIOD), Missing::NotReported),
        (balloon(), None, Missing::StatisticsOff),
        (balloon(), Some(Duration::ZERO), Missing::StatisticsOff),
    ];
    for (stats, period, reason) in cases {
        let with_agent = claims(&stats, period, Some(&report()));
        let agents = Ok((50.0, Source::Agent));
        assert_eq!(
            outcome(&with_agent, Metric::MemoryUtilization),
            agents,
            "{stats:?}"
        );
        let alone = claims(&stats, period, None);
        assert_eq!(
            outcome(&alone, Metric::MemoryUtilization),
            Err(reason),
            "{stats:?}"
        );
    }
}

#[test]
fn a_report_that_is_old_or_cannot_be_true_is_not_taken_over() {
    let none = BalloonStats::default();
    let old = GuestReport {
        at: Moment(NOW.0 - 3_001),
        ..report()
    };
    let readings = claims(&none, None, Some(&old));
    assert_eq!(outcome(&readings, Metric::VcpuCount), Err(Missing::Stale));
    assert_eq!(online_vcpus(&old, NOW), None);
    assert_eq!(online_vcpus(&report(), NOW), Some(2));

    let lies = [
        (
            Metric::VcpuCount,
            GuestReport {
                online_count: Some(0),
                ..report()
            },
        ),
        (
            Metric::VcpuCount,
            GuestReport {
                online_count: Some(5),
                ..report()
            },
        ),
        (
            Metric::GuestLoad,
            GuestReport {
                load1: Some(f64::NAN),
                ..report()
            },
        ),
        (
            Metric::GuestLoad,
            GuestReport {
                load1: Some(-1.0),
                ..report()
            },
        ),
        (
            Metric::GuestLoad,
            GuestReport {
                load1: Some(f64::INFINITY),
                ..report()
            },
        ),
        (
            Metric::GuestMemoryPressure,
            GuestReport {
                memory_pressure: Some(100.5),
                ..report()
            },
        ),
        (
            Metric::MemorySize,
            GuestReport {
                memory_total: Some(Bytes(0)),
                ..report()
            },
        ),
    ];
    for (metric, lie) in lies {
        let readings = claims(&none, None, Some(&lie));
        assert_eq!(
            outcome(&readings, metric),
            Err(Missing::Implausible),
            "{lie:?}"
        );
    }
}

#[test]
fn without_agent_the_balloon_says_how_much_memory_the_guest_sees() {
    let readings = claims(&balloon(), Some(PERIOD), None);
    let size = Bytes::from_mib(1000).0 as f64;
    assert_eq!(
        outcome(&readings, Metric::MemorySize),
        Ok((size, Source::Balloon))
    );
    assert_eq!(outcome(&readings, Metric::VcpuCount), Err(Missing::NoAgent));
}
