//! The functions over windows of the rule language, such as `avg(cpu.utilization, 5m)`: which there are, and the state
//! of one function over one metric. How the text of one is read is not here, nor where readings come from. Whoever
//! evaluates conditions owns one [`Window`] for each function that they name and pushes every reading into it.
//!
//! # What counts
//!
//! Moments are whole milliseconds, so a length is rounded up to them.
//!
//! - A reading stands for three of its own periods ([`Reading::STALE_AFTER_PERIODS`]), as everywhere in the language.
//!   When the next one comes later than that there is a gap, and nothing before the gap counts any more. The readings
//!   since then are the *run*.
//! - Readings of the run with `now - at < length` count.
//! - The value is known when the latest reading still stands and the run covers the window: the run began at least
//!   `length` less three periods (of its first reading) ago. Else it is unknown, as it is when nothing counts, which
//!   can only be where the length is shorter than the distance of readings.
//! - `rate` and `delta` need two readings: one alone shows no change, which is not the same as a change of zero.
//! - A result that overflows is unknown.
//!
//! # Slices
//!
//! At most [`MOST_SLICES`] values are kept. For that the run is cut into slices: a slice begins with a reading and takes
//! in all that follow within less than `length / MOST_SLICES`. So with readings at least that far apart, which is to say
//! nearly always, each is a slice of its own and the functions are exact. A slice counts as long as its first reading
//! does, and gives one value: the mean of its readings for `avg` and the percentiles, the least for `min`, the greatest
//! for `max`, the latest (with its moment) for `rate` and `delta`. A slice weighs the same whatever it holds, so a burst
//! of readings does not outvote the rest of the window.

mod ends;
mod fold;
mod percentile;
mod ring;

use std::fmt;
use std::time::Duration;

use crate::signal::Reading;
use crate::units::Moment;

use ends::{Change, Ends};
use fold::{Fold, How};
use percentile::Ranking;

/// The most values that one window keeps. At this number a percentile takes 64 KiB, any other function 32 KiB or less,
/// and the slices of one hour are of 3.5 s: finer than what readings over so long a time have to tell.
pub const MOST_SLICES: u32 = 1024;

/// A function over a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// The arithmetic mean, in the metric's unit.
    Avg,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The median, by nearest rank: the least value that at least half of all do not exceed.
    P50,
    /// The 90th percentile, by nearest rank.
    P90,
    /// The 95th percentile, by nearest rank.
    P95,
    /// The 99th percentile, by nearest rank.
    P99,
    /// The latest value less the earliest, by the seconds between them: the metric's unit per second.
    Rate,
    /// The latest value less the earliest.
    Delta,
}

impl Function {
    /// All functions, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::P50,
        Self::P90,
        Self::P95,
        Self::P99,
        Self::Rate,
        Self::Delta,
    ];

    /// The word that stands for it in a rule.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Rate => "rate",
            Self::Delta => "delta",
        }
    }

    /// The function of that name, in upper or lower case as all words of the language.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|function| function.name().eq_ignore_ascii_case(name))
    }

    /// What a slice is worth that was worth `held`, when `value` comes as its `nth` reading (from 2).
    fn joined(self, held: f64, value: f64, nth: u64) -> f64 {
        match self {
            Self::Avg | Self::P50 | Self::P90 | Self::P95 | Self::P99 => {
                // The count of readings in a slice is far below what an f64 holds exactly. Divided before subtracted,
                // because the difference of two finite values need not be finite.
                #[allow(clippy::cast_precision_loss)]
                let count = nth as f64;
                held + (value / count - held / count)
            }
            Self::Min => held.min(value),
            Self::Max => held.max(value),
            Self::Rate | Self::Delta => value,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of one function over one metric. It is not stored over restarts: the function is unknown until its window
/// is covered anew.
///
/// Taking a reading in costs O(1) amortised, for percentiles O(log n). Memory grows with the first readings, to what
/// their period lets expect and never past [`MOST_SLICES`] values, and is kept from then on: neither [`Window::push`] nor
/// [`Window::value`] allocates once a window's worth of readings has passed, unless they come more than twice as often.
///
/// Two windows are equal when they have taken in the same readings since they were empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    function: Function,
    /// In milliseconds.
    length: u64,
    run: Option<Run>,
    kept: Kept,
}

/// Readings without a gap between them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    /// Moment of its first reading.
    since: Moment,
    /// How long the first reading stands, in milliseconds.
    first_stands: u64,
    /// Moment of its latest reading.
    latest: Moment,
    /// How long the latest reading stands, in milliseconds.
    latest_stands: u64,
    slice: OpenSlice,
}

/// The slice that the next reading may still fall into.
#[derive(Clone, Copy, Debug, PartialEq)]
struct OpenSlice {
    start: Moment,
    readings: u64,
    value: f64,
}

/// The values of the slices, in the shape in which the function needs them.
#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Folded(Fold),
    Ends(Ends),
    Ranked(Ranking),
}

impl Window {
    /// A window into which no reading has come. Of no length, it is never known.
    pub fn new(function: Function, length: Duration) -> Self {
        let kept = match function {
            Function::Avg => Kept::Folded(Fold::new(How::Mean)),
            Function::Min => Kept::Folded(Fold::new(How::Least)),
            Function::Max => Kept::Folded(Fold::new(How::Greatest)),
            Function::P50 => Kept::Ranked(Ranking::new(50)),
            Function::P90 => Kept::Ranked(Ranking::new(90)),
            Function::P95 => Kept::Ranked(Ranking::new(95)),
            Function::P99 => Kept::Ranked(Ranking::new(99)),
            Function::Rate => Kept::Ends(Ends::new(Change::PerSecond)),
            Function::Delta => Kept::Ends(Ends::new(Change::Whole)),
        };
        let whole = millis(length);
        let rest = Duration::from_millis(whole) < length;
        Self {
            function,
            length: whole.saturating_add(u64::from(rest)),
            run: None,
            kept,
        }
    }

    /// Takes in what was measured at `at` by a source that measures once a `period`. A value that is no finite number,
    /// and one that is not later than the latest, changes nothing.
    pub fn push(&mut self, at: Moment, value: f64, period: Duration) {
        if !value.is_finite() || self.run.is_some_and(|run| at <= run.latest) {
            return;
        }
        if self.run.is_some_and(|run| !run.stands(at)) {
            self.clear();
        }
        self.kept.drop_lapsed(at, self.length);
        let stands = millis(period.saturating_mul(Reading::STALE_AFTER_PERIODS));
        let slice = match self.run {
            Some(run) if self.is_within(run.slice, at) => {
                let readings = run.slice.readings + 1;
                let value = self.function.joined(run.slice.value, value, readings);
                self.kept.amend(at, value);
                OpenSlice {
                    readings,
                    value,
                    ..run.slice
                }
            }
            _ => {
                if self.run.is_none() {
                    self.kept.reserve(self.expected_slices(period));
                }
                self.kept.open(at, value);
                OpenSlice {
                    start: at,
                    readings: 1,
                    value,
                }
            }
        };
        let (since, first_stands) = self
            .run
            .map_or((at, stands), |run| (run.since, run.first_stands));
        self.run = Some(Run {
            since,
            first_stands,
            latest: at,
            latest_stands: stands,
            slice,
        });
    }

    /// What the function is worth at `now`, or `None` when it is [unknown](self). A `now` before the latest reading is
    /// taken for the moment of that reading.
    pub fn value(&self, now: Moment) -> Option<f64> {
        let run = self.run?;
        let now = now.max(run.latest);
        let covered = elapsed(run.since, now).saturating_add(run.first_stands) >= self.length;
        if !covered || !run.stands(now) {
            return None;
        }
        self.kept
            .value(now, self.length)
            .filter(|value| value.is_finite())
    }

    /// Forgets all readings, as after a change that makes them evidence no more.
    pub fn clear(&mut self) {
        self.run = None;
        self.kept.clear();
    }

    /// Whether a reading falls into the slice. Multiplied instead of divided, so that slices never begin nearer to each
    /// other than the exact fraction of the length, and no more of them than allowed begin within one length.
    fn is_within(&self, slice: OpenSlice, at: Moment) -> bool {
        elapsed(slice.start, at).saturating_mul(u64::from(MOST_SLICES)) < self.length
    }

    /// Slices to make room for: twice as many as readings are expected within the length, because they do not come on
    /// time to the millisecond.
    fn expected_slices(&self, period: Duration) -> usize {
        let readings = self.length.checked_div(millis(period)).unwrap_or(0);
        let most = u64::from(MOST_SLICES);
        usize::try_from(readings.saturating_mul(2).saturating_add(2).min(most)).unwrap_or(0)
    }
}

impl Run {
    /// Whether the latest reading still stands.
    const fn stands(&self, now: Moment) -> bool {
        elapsed(self.latest, now) <= self.latest_stands
    }
}

impl Kept {
    fn drop_lapsed(&mut self, now: Moment, length: u64) {
        match self {
            Self::Folded(fold) => fold.drop_lapsed(now, length),
            Self::Ends(ends) => ends.drop_lapsed(now, length),
            Self::Ranked(ranking) => ranking.drop_lapsed(now, length),
        }
    }

    /// Begins a slice.
    fn open(&mut self, at: Moment, value: f64) {
        match self {
            Self::Folded(fold) => fold.open(at, value),
            Self::Ends(ends) => ends.open(at, value),
            Self::Ranked(ranking) => ranking.open(at, value),
        }
    }

    /// Gives the latest slice, whose latest reading is of `at`, another value.
    fn amend(&mut self, at: Moment, value: f64) {
        match self {
            Self::Folded(fold) => fold.amend(value),
            Self::Ends(ends) => ends.amend(at, value),
            Self::Ranked(ranking) => ranking.amend(value),
        }
    }

    fn value(&self, now: Moment, length: u64) -> Option<f64> {
        match self {
            Self::Folded(fold) => fold.value(now, length),
            Self::Ends(ends) => ends.value(now, length),
            Self::Ranked(ranking) => ranking.value(now, length),
        }
    }

    fn reserve(&mut self, slices: usize) {
        match self {
            Self::Folded(fold) => fold.reserve(slices),
            Self::Ends(ends) => ends.reserve(slices),
            Self::Ranked(ranking) => ranking.reserve(slices),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Folded(fold) => fold.clear(),
            Self::Ends(ends) => ends.clear(),
            Self::Ranked(ranking) => ranking.clear(),
        }
    }
}

/// Whole milliseconds, rounded down.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds from `earlier` to `later`; zero when they are the other way round.
const fn elapsed(earlier: Moment, later: Moment) -> u64 {
    later.0.saturating_sub(earlier.0)
}
