//! The functions over windows against a slow reference that keeps every reading and computes all anew, and cases whose
//! result can be told by hand.
#![allow(clippy::cast_precision_loss, reason = "the counts of tests are small")]

use std::time::Duration;

use persona::Moment;
use persona::rule::window::{Function, MOST_SLICES, Window};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A reading as it was pushed; moments and periods in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Pushed {
    at: u64,
    value: f64,
    period: u64,
}

/// Everything that was taken in, and nothing else.
#[derive(Default)]
struct Reference(Vec<Pushed>);

impl Reference {
    fn push(&mut self, pushed: Pushed) {
        let later = self.0.last().is_none_or(|last| pushed.at > last.at);
        if later && pushed.value.is_finite() {
            self.0.push(pushed);
        }
    }

    /// The value, and how far rounding may take another way of computing it from here.
    fn value(&self, function: Function, length: u64, now: u64) -> Option<(f64, f64)> {
        let last = self.0.last()?;
        let now = now.max(last.at);
        if now - last.at > 3 * last.period {
            return None;
        }
        let gaps = self.0.windows(2);
        let begins = gaps
            .rev()
            .position(|pair| pair[1].at - pair[0].at > 3 * pair[0].period)
            .map_or(0, |after| self.0.len() - 1 - after);
        let run = &self.0[begins..];
        if now - run[0].at + 3 * run[0].period < length {
            return None;
        }
        let mut slices: Vec<Vec<Pushed>> = Vec::new();
        for &reading in run {
            match slices.last_mut() {
                Some(slice) if (reading.at - slice[0].at) * u64::from(MOST_SLICES) < length => {
                    slice.push(reading);
                }
                _ => slices.push(vec![reading]),
            }
        }
        slices.retain(|slice| now - slice[0].at < length);
        assert!(slices.len() <= 1024);
        let exact = slices.iter().all(|slice| slice.len() == 1);
        let all = || slices.iter().flatten().map(|reading| reading.value);
        let means = || {
            let mean = |slice: &Vec<Pushed>| {
                slice.iter().map(|reading| reading.value).sum::<f64>() / slice.len() as f64
            };
            slices.iter().map(mean).collect::<Vec<_>>()
        };
        let rounding = 1e-12 * all().map(f64::abs).fold(0.0, f64::max);
        let percentile = |percent: usize| {
            let mut sorted = means();
            sorted.sort_by(f64::total_cmp);
            // The nearest rank by its definition: the first value that enough of them do not exceed.
            let enough = |value: f64| {
                let up_to = sorted.iter().filter(|other| **other <= value).count();
                up_to * 100 >= percent * sorted.len()
            };
            let value = sorted.iter().copied().find(|value| enough(*value))?;
            Some((value, if exact { 0.0 } else { rounding }))
        };
        let ends = || {
            let first = slices.first()?.last()?;
            let last = slices.last()?.last()?;
            (slices.len() > 1).then_some((first, last))
        };
        let (value, rounding) = match function {
            Function::Avg => {
                let means = means();
                let mean = means.iter().sum::<f64>() / means.len() as f64;
                (mean, rounding)
            }
            Function::Min => (all().reduce(f64::min)?, 0.0),
            Function::Max => (all().reduce(f64::max)?, 0.0),
            Function::P50 => percentile(50)?,
            Function::P90 => percentile(90)?,
            Function::P95 => percentile(95)?,
            Function::P99 => percentile(99)?,
            Function::Delta => ends().map(|(first, last)| (last.value - first.value, 0.0))?,
            Function::Rate => {
                let (first, last) = ends()?;
                let seconds = (last.at - first.at) as f64 / 1000.0;
                ((last.value - first.value) / seconds, 0.0)
            }
        };
        value.is_finite().then_some((value, rounding))
    }
}

/// All functions over one metric, beside the reference.
struct Compared {
    length: u64,
    windows: Vec<(Function, Window)>,
    reference: Reference,
    /// How many values were known, so that a test can tell that it has seen some.
    known: usize,
}

impl Compared {
    fn new(length: u64) -> Self {
        let window = |function| {
            (
                function,
                Window::new(function, Duration::from_millis(length)),
            )
        };
        Self {
            length,
            windows: Function::ALL.map(window).to_vec(),
            reference: Reference::default(),
            known: 0,
        }
    }

    fn push(&mut self, pushed: Pushed) {
        for (_, window) in &mut self.windows {
            let period = Duration::from_millis(pushed.period);
            window.push(Moment(pushed.at), pushed.value, period);
        }
        self.reference.push(pushed);
    }

    fn check(&mut self, now: u64) {
        for (function, window) in &self.windows {
            let got = window.value(Moment(now));
            let want = self.reference.value(*function, self.length, now);
            let agree = match (got, want) {
                (Some(got), Some((want, rounding))) => (got - want).abs() <= rounding,
                (None, None) => true,
                _ => false,
            };
            assert!(
                agree,
                "{function} over {} ms at {now}: {got:?} instead of {want:?}",
                self.length
            );
            self.known += usize::from(got.is_some());
        }
    }
}

/// How long after the one before a reading comes.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many thousandths of a period.
    Jitter(u64),
    /// So many thousandths of what a slice is wide at most.
    Dense(u64),
    /// As long as the one before stands.
    JustInTime,
    /// A millisecond later than that.
    TooLate,
    Twice,
    Backwards(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (500_u64..1500).prop_map(Step::Jitter),
        10 => (0_u64..2500).prop_map(Step::Dense),
        4 => Just(Step::JustInTime),
        1 => Just(Step::TooLate),
        1 => Just(Step::Twice),
        1 => (1_u64..5000).prop_map(Step::Backwards),
    ]
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (0_u32..6).prop_map(f64::from),
        8 => -1000.0..1000.0,
        1 => Just(-0.0),
        1 => Just(1e15),
        1 => -1e-300..1e-300,
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ]
}

/// Length of a window and how many periods it has.
fn shape() -> impl Strategy<Value = (u64, u64)> {
    let length = prop_oneof![
        Just(0_u64),
        Just(1),
        2_u64..50,
        1000_u64..10_000,
        60_000_u64..10_000_000
    ];
    let periods = prop_oneof![
        Just(1_u64),
        Just(2),
        Just(5),
        Just(20),
        Just(60),
        Just(3000)
    ];
    (length, periods)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn every_function_agrees_with_the_reference(
        (length, periods) in shape(),
        came in proptest::collection::vec((step(), value(), 0_u8..4, 0_u64..4000), 1..150),
        changed in proptest::option::of(1_u64..4),
    ) {
        let mut compared = Compared::new(length);
        let declared = (length / periods).max(1);
        let mut last = 1_000_000_000_u64;
        let mut stands = 3 * declared;
        for (index, (step, value, look, later)) in came.into_iter().enumerate() {
            // In some runs the source changes its period half way.
            let period = match changed {
                Some(times) if index > 60 => declared * times,
                _ => declared,
            };
            let at = match step {
                Step::Jitter(thousandths) => last + period * thousandths / 1000,
                Step::Dense(thousandths) => last + length * thousandths / 1000 / 1024,
                Step::JustInTime => last + stands,
                Step::TooLate => last + stands + 1,
                Step::Twice => last,
                Step::Backwards(by) => last - by,
            };
            compared.push(Pushed { at, value, period });
            if value.is_finite() && at > last {
                (last, stands) = (at, 3 * period);
            }
            if look == 0 {
                compared.check(at);
                compared.check(last + period * later / 1000);
            }
        }
        compared.check(last);
        compared.check(last + stands);
    }

    #[test]
    fn what_a_window_was_before_it_was_cleared_or_had_a_gap_leaves_no_trace(
        values in proptest::collection::vec(-100.0_f64..100.0, 1..60),
        split in 0_usize..60,
    ) {
        for function in Function::ALL {
            let mut cleared = Window::new(function, 10 * SECOND);
            let mut after_gap = cleared.clone();
            let mut fresh = cleared.clone();
            let split = split.min(values.len());
            let push = |window: &mut Window, start: u64, values: &[f64]| {
                let mut at = start;
                for value in values {
                    window.push(Moment(at), *value, SECOND);
                    at += 1000;
                }
            };
            push(&mut cleared, 0, &values[..split]);
            cleared.clear();
            push(&mut after_gap, 0, &values[..split]);
            for window in [&mut cleared, &mut after_gap, &mut fresh] {
                push(window, 100_000, &values[split..]);
            }
            prop_assert_eq!(&cleared, &fresh);
            if split < values.len() {
                prop_assert_eq!(&after_gap, &fresh);
            }
        }
    }
}

/// Numbers without an order, the same in each run.
fn scattered(n: u64) -> u64 {
    let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

#[test]
fn windows_that_are_full_to_the_last_slice_agree_with_the_reference() {
    // Lengths in units of the slices: readings as dense as slices, a little denser, and many to a slice.
    for (length, period, jitter) in [
        (1_024_000, 1000, 0),
        (1_024_000, 1000, 900),
        (1_500_000, 1000, 400),
        (9_000_000, 1000, 700),
    ] {
        let mut compared = Compared::new(length);
        let readings = 2 * length / period + 500;
        for n in 0..readings {
            let at = 50_000 + n * period + scattered(n) % (jitter + 1);
            let value = (scattered(n + 7) % 1000) as f64 / 8.0;
            compared.push(Pushed { at, value, period });
            if n % (readings / 25) == 0 {
                compared.check(at);
                compared.check(at + 3 * period / 2);
            }
        }
        assert!(
            compared.known > 50,
            "only {} values were known",
            compared.known
        );
    }
}

/// One reading a second, from moment 0 on.
fn seconds(function: Function, length: u64, values: &[f64]) -> Window {
    let mut window = Window::new(function, Duration::from_secs(length));
    let mut at = Moment(0);
    for value in values {
        window.push(at, *value, SECOND);
        at = at.after(SECOND);
    }
    window
}

#[test]
fn each_function_gives_what_its_name_says() {
    let values = [90.0, 5.0, 1.0, 4.0, 2.0, 3.0];
    for (function, expected) in [
        (Function::Avg, 3.0),
        (Function::Min, 1.0),
        (Function::Max, 5.0),
        (Function::P50, 3.0),
        (Function::P90, 5.0),
        (Function::P95, 5.0),
        (Function::P99, 5.0),
        (Function::Rate, -0.5),
        (Function::Delta, -2.0),
    ] {
        // At 5 s the first reading is 5 s old, and so does not count.
        let window = seconds(function, 5, &values);
        assert_eq!(window.value(Moment(5000)), Some(expected), "{function}");
    }
}

#[test]
fn percentiles_are_values_that_came_and_of_the_nearest_rank() {
    let values: Vec<f64> = (1..=100).map(|n| f64::from((n * 37) % 101)).collect();
    for (function, expected) in [
        (Function::P50, 50.0),
        (Function::P90, 90.0),
        (Function::P95, 95.0),
        (Function::P99, 99.0),
    ] {
        let window = seconds(function, 100, &values);
        assert_eq!(window.value(Moment(99_000)), Some(expected), "{function}");
    }
}

#[test]
fn a_window_is_unknown_until_it_is_covered_and_after_three_periods_without_a_reading() {
    let at = |window: &Window, millis| window.value(Moment(millis)).is_some();
    for function in Function::ALL {
        let mut window = Window::new(function, 10 * SECOND);
        assert!(!at(&window, 0), "{function} of nothing");
        for second in 0..=20 {
            window.push(Moment(second * 1000), 1.0, SECOND);
            // Seven seconds and the three periods of the first reading are the ten.
            assert_eq!(
                at(&window, second * 1000),
                second >= 7,
                "{function} at {second} s"
            );
        }
        assert!(
            at(&window, 23_000),
            "{function} while the last reading stands"
        );
        assert!(!at(&window, 23_001), "{function} after the last reading");
        window.push(Moment(23_001), 1.0, SECOND);
        assert!(!at(&window, 23_001), "{function} after a gap");
        for second in 24..=31 {
            window.push(Moment(second * 1000), 1.0, SECOND);
        }
        assert!(at(&window, 31_000), "{function} covered anew");
    }
}

#[test]
fn what_is_late_double_or_no_number_changes_nothing() {
    for function in Function::ALL {
        let window = seconds(function, 5, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut disturbed = window.clone();
        for (at, value) in [
            (5000, 100.0),
            (4999, 100.0),
            (0, 100.0),
            (5500, f64::NAN),
            (5500, f64::INFINITY),
            (u64::MAX, f64::NEG_INFINITY),
        ] {
            disturbed.push(Moment(at), value, SECOND);
        }
        assert_eq!(disturbed, window, "{function}");
    }
}

#[test]
fn a_huge_value_that_has_left_takes_no_digits_with_it() {
    let mut values = vec![0.25; 8];
    values.push(1e300);
    values.extend([0.25; 5]);
    let window = seconds(Function::Avg, 5, &values);
    assert_eq!(window.value(Moment(13_000)), Some(0.25));
}

#[test]
fn a_result_that_overflows_is_unknown_and_does_not_stay_so() {
    for function in [Function::Avg, Function::Rate, Function::Delta] {
        let signs: [f64; 4] = match function {
            Function::Avg => [1.0; 4],
            _ => [-1.0, -1.0, 1.0, 1.0],
        };
        let huge = signs.map(|sign| sign * f64::MAX);
        let mut window = seconds(function, 3, &huge);
        assert_eq!(window.value(Moment(3000)), None, "{function}");
        for second in 4..8 {
            window.push(Moment(second * 1000), 1.0, SECOND);
        }
        assert!(window.value(Moment(7000)).is_some(), "{function}");
    }
}

#[test]
fn one_reading_shows_no_change() {
    let long_period = Duration::from_secs(60);
    for (function, expected) in [
        (Function::Avg, Some(7.0)),
        (Function::Rate, None),
        (Function::Delta, None),
    ] {
        let mut window = Window::new(function, long_period);
        window.push(Moment(0), 7.0, long_period);
        assert_eq!(window.value(Moment(0)), expected, "{function}");
        // Nothing counts any more, though the reading itself still stands.
        assert_eq!(window.value(Moment(60_000)), None, "{function}");
    }
}

#[test]
fn a_slice_gives_one_value_however_many_readings_it_holds() {
    // Slices of one second. The second one holds a burst.
    let came = [(0, 8.0), (1000, 1.0), (1300, 2.0), (1600, 6.0), (2000, 4.0)];
    let period = Duration::from_secs(1000);
    for (function, expected) in [
        (Function::Avg, 5.0),
        (Function::P50, 4.0),
        (Function::Min, 1.0),
        (Function::Max, 8.0),
        (Function::Delta, -4.0),
        (Function::Rate, -2.0),
    ] {
        let mut window = Window::new(function, Duration::from_secs(1024));
        for (at, value) in came {
            window.push(Moment(at), value, period);
        }
        assert_eq!(window.value(Moment(2000)), Some(expected), "{function}");
    }
    // The latest of a slice is an end with its own moment: from (1600, 6) to (2000, 4).
    let mut window = Window::new(Function::Rate, Duration::from_secs(1024));
    for (at, value) in &came[1..] {
        window.push(Moment(*at), *value, period);
    }
    assert_eq!(window.value(Moment(2000)), Some(-5.0));
}

#[test]
fn lengths_periods_and_moments_may_be_as_large_as_they_can() {
    for function in Function::ALL {
        for length in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for period in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let mut window = Window::new(function, length);
                for at in [0, 1, u64::MAX - 1, u64::MAX] {
                    window.push(Moment(at), 1.0, period);
                    let value = window.value(Moment(u64::MAX));
                    assert!(value.is_none_or(f64::is_finite), "{function}");
                    assert!(value.is_none() || !length.is_zero(), "{function}");
                }
            }
        }
    }
}

#[test]
fn functions_are_found_by_their_names() {
    for function in Function::ALL {
        assert_eq!(Function::named(function.name()), Some(function));
        let upper = function.to_string().to_ascii_uppercase();
        assert_eq!(Function::named(&upper), Some(function));
    }
    assert_eq!(Function::named("p42"), None);
}
