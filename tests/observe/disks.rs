//! What goes through a domain's disks, by the counters of two answers of the hypervisor.

use std::time::Duration;

use persona::signal::{Metric, Signals, Source};
use persona::units::Bytes;
use proptest::prelude::*;
use virt_persona::hypervisor::{DiskCounters, DiskStats};
use virt_persona::observe::{DiskRates, Figure, Missing, Readings};

use super::tree::at;

const METRICS: [Metric; 5] = [
    Metric::DiskReadIops,
    Metric::DiskWriteIops,
    Metric::DiskReadBandwidth,
    Metric::DiskWriteBandwidth,
    Metric::DiskLatency,
];
const PERIOD: Duration = Duration::from_secs(5);

/// Reads, writes, bytes read, bytes written, and milliseconds of both.
fn disk(target: &str, [reads, writes, read, written, read_ms, write_ms]: [u64; 6]) -> DiskStats {
    DiskStats {
        target: target.into(),
        counters: Some(DiskCounters {
            reads,
            writes,
            read: Bytes(read),
            written: Bytes(written),
            read_time: Duration::from_millis(read_ms),
            write_time: Duration::from_millis(write_ms),
        }),
    }
}

fn uncounted(target: &str) -> DiskStats {
    DiskStats {
        target: target.into(),
        counters: None,
    }
}

fn readings(rates: &DiskRates) -> Readings {
    let mut readings = Readings::default();
    rates.add_to(&mut readings);
    readings
}

fn outcomes(rates: &DiskRates) -> [Result<f64, Missing>; 5] {
    let readings = readings(rates);
    METRICS.map(|metric| match readings.missing(metric) {
        Some(reason) => Err(reason),
        None => Ok(readings.reading(metric).unwrap().value),
    })
}

/// The rates after these answers, five seconds apart.
fn after(answers: impl IntoIterator<Item = Vec<DiskStats>>) -> DiskRates {
    let mut rates = DiskRates::default();
    for (second, disks) in (0..).step_by(5).zip(answers) {
        rates.take(disks, at(second), PERIOD);
    }
    rates
}

const ZERO: [u64; 6] = [0; 6];

#[test]
fn rates_lie_between_two_answers_and_are_dated_when_the_hypervisor_was_asked() {
    assert_eq!(
        outcomes(&DiskRates::default()),
        [Err(Missing::NotMeasured); 5]
    );
    let first = vec![disk("vda", [10, 20, 4_096, 8_192, 30, 40])];
    let mut rates = after([first]);
    assert_eq!(outcomes(&rates), [Err(Missing::FirstSample); 5]);
    let second = vec![disk("vda", [30, 25, 14_096, 8_692, 40, 55])];
    rates.take(second, at(5), PERIOD);
    let latency = (10.0 + 15.0) / 25.0 / 1_000.0;
    let expected = [4.0, 1.0, 2_000.0, 100.0, latency].map(Ok);
    assert_eq!(outcomes(&rates), expected);
    let reading = readings(&rates).reading(Metric::DiskLatency).unwrap();
    assert_eq!((reading.source, reading.at), (Source::Host, at(5)));
    assert_eq!(reading.period, PERIOD);
    assert!(reading.is_fresh(at(20)) && !reading.is_fresh(at(21)));
}

#[test]
fn disks_count_together_whatever_is_plugged_unplugged_or_counted_anew() {
    /// What it is, two answers, and reads and writes a second.
    type Case = (&'static str, [Vec<DiskStats>; 2], Result<[f64; 2], Missing>);
    let busy = [50, 5, 0, 0, 0, 0];
    let ten = Ok([10.0, 1.0]);
    let cases: [Case; 8] = [
        (
            "two disks, in another order",
            [
                vec![disk("vda", ZERO), disk("vdb", ZERO)],
                vec![disk("vdb", busy), disk("vda", busy)],
            ],
            Ok([20.0, 2.0]),
        ),
        (
            "one was unplugged",
            [
                vec![disk("vda", [9; 6]), disk("vdb", ZERO)],
                vec![disk("vdb", busy)],
            ],
            ten,
        ),
        (
            "one was plugged, and counts from the next answer on",
            [
                vec![disk("vda", ZERO)],
                vec![disk("vda", busy), disk("vdb", [9; 6])],
            ],
            ten,
        ),
        (
            "all were exchanged",
            [vec![disk("vda", ZERO)], vec![disk("vdb", busy)]],
            Err(Missing::FirstSample),
        ),
        (
            "a counter went back",
            [vec![disk("vda", [51; 6])], vec![disk("vda", busy)]],
            Err(Missing::CounterWentBack(Figure::DiskCounters)),
        ),
        (
            "the emulator does not count one of them",
            [
                vec![disk("vda", ZERO), uncounted("vdb")],
                vec![disk("vda", busy), uncounted("vdb")],
            ],
            Err(Missing::DiskNotCounted),
        ),
        (
            "the emulator was busy from the beginning",
            [vec![uncounted("vda")], vec![uncounted("vda")]],
            Err(Missing::EmulatorBusy),
        ),
        (
            "the last disk was unplugged",
            [vec![disk("vda", ZERO)], Vec::new()],
            Err(Missing::NoDisk),
        ),
    ];
    for (name, answers, expected) in cases {
        let [reads, writes, ..] = outcomes(&after(answers));
        assert_eq!(reads, expected.map(|rates| rates[0]), "{name}");
        assert_eq!(writes, expected.map(|rates| rates[1]), "{name}");
    }
}

#[test]
fn an_answer_without_the_emulators_lets_the_last_rates_grow_old_and_the_next_goes_on() {
    let mut rates = after([
        vec![disk("vda", ZERO)],
        vec![disk("vda", [50, 0, 0, 0, 0, 0])],
        vec![uncounted("vda")],
    ]);
    let reading = readings(&rates).reading(Metric::DiskReadIops).unwrap();
    assert_eq!((reading.value, reading.at), (10.0, at(5)));
    rates.take(vec![disk("vda", [250, 0, 0, 0, 0, 0])], at(15), PERIOD);
    let reading = readings(&rates).reading(Metric::DiskReadIops).unwrap();
    assert_eq!((reading.value, reading.at), (20.0, at(15)));
}

#[test]
fn without_a_request_there_is_no_latency_and_the_rates_are_known_zeros() {
    let idle = || vec![disk("vda", [7, 7, 7, 7, 7, 7])];
    let [reads, writes, read, written, latency] = outcomes(&after([idle(), idle()]));
    assert_eq!([reads, writes, read, written], [Ok(0.0); 4]);
    assert_eq!(latency, Err(Missing::NoRequests));
}

#[test]
fn a_clock_that_stands_or_goes_back_gives_no_rate() {
    let mut rates = after([vec![disk("vda", ZERO)], vec![disk("vda", [50; 6])]]);
    rates.take(vec![disk("vda", [60; 6])], at(5), PERIOD);
    assert_eq!(outcomes(&rates), [Err(Missing::NoTimePassed); 5]);
    rates.take(vec![disk("vda", [60; 6])], at(4), PERIOD);
    assert_eq!(outcomes(&rates), [Err(Missing::FirstSample); 5]);
    rates.take(vec![disk("vda", [70; 6])], at(9), PERIOD);
    assert_eq!(outcomes(&rates)[0], Ok(2.0));
}

proptest! {
    #[test]
    fn no_counters_make_a_rate_that_is_no_number_or_below_zero(before: [u64; 6], after_all: [u64; 6], two in any::<bool>()) {
        let answer = |values: [u64; 6]| {
            let mut disks = vec![disk("vda", values)];
            if two {
                disks.push(disk("vdb", values));
            }
            disks
        };
        let grew = before.iter().zip(&after_all).all(|(before, after)| after >= before);
        for outcome in outcomes(&after([answer(before), answer(after_all)])) {
            match outcome {
                Ok(rate) => prop_assert!(grew && rate.is_finite() && rate >= 0.0),
                Err(Missing::NoRequests) => prop_assert!(grew),
                Err(reason) => prop_assert_eq!((grew, reason), (false, Missing::CounterWentBack(Figure::DiskCounters))),
            }
        }
    }
}
