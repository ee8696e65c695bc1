//! Counters that only grow, made into rates, and the turns at which figures are read that are not read at each tick.
//! Pure: the clock is the caller's. `disk`, `network` and `paging` make rates here; `pressure` and `paging` have turns.

use std::time::Duration;

use persona::units::Moment;

use super::reading::{Figure, Missing, Stamp};

/// The last values of counters that are read together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters<const N: usize> {
    figure: Figure,
    previous: Option<(Moment, [u64; N])>,
}

impl<const N: usize> Counters<N> {
    /// Counters of which nothing is known yet; `figure` names them in reasons.
    pub(super) const fn new(figure: Figure) -> Self {
        Self {
            figure,
            previous: None,
        }
    }

    /// What each counter grew by a second since the call before.
    ///
    /// # Errors
    /// Why there is no rate. Whatever it is, the values are the base of the next call.
    pub(super) fn advance(&mut self, now: Moment, values: [u64; N]) -> Result<[f64; N], Missing> {
        let previous = self.previous.replace((now, values));
        let (then, before) = previous.ok_or(Missing::FirstSample)?;
        let elapsed = elapsed(then, now)?;
        let mut rates = [0.0; N];
        for ((rate, before), after) in rates.iter_mut().zip(before).zip(values) {
            let change = after
                .checked_sub(before)
                .ok_or(Missing::CounterWentBack(self.figure))?;
            *rate = per_second(change, elapsed);
        }
        Ok(rates)
    }

    /// Makes the next values the first: they are not of what was counted before.
    pub(super) const fn forget(&mut self) {
        self.previous = None;
    }
}

/// The time between two samples.
///
/// # Errors
/// [`Missing::NoTimePassed`], and [`Missing::FirstSample`] for a clock that went back, because nothing lies between.
pub(super) fn elapsed(then: Moment, now: Moment) -> Result<Duration, Missing> {
    match now.cmp(&then) {
        std::cmp::Ordering::Greater => Ok(now.since(then)),
        std::cmp::Ordering::Equal => Err(Missing::NoTimePassed),
        std::cmp::Ordering::Less => Err(Missing::FirstSample),
    }
}

/// `change` a second; `elapsed` is not zero.
#[allow(
    clippy::cast_precision_loss,
    reason = "what is counted between two samples is far below 2^53"
)]
pub(super) fn per_second(change: u64, elapsed: Duration) -> f64 {
    change as f64 / elapsed.as_secs_f64()
}

/// When a figure is read that changes too slowly, or costs too much, for each tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    period: Duration,
    /// Shifts the turns of one domain against those of others, so that no tick has all of them.
    offset: u64,
    last: Option<u64>,
}

impl Turns {
    /// Turns a `period` apart, which is at least a millisecond; the first is at once. `seed` tells domains apart.
    pub(super) fn new(period: Duration, seed: u32) -> Self {
        // Numbers of processes are near each other; the golden ratio spreads them evenly over the period.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let spread = u64::from(seed).wrapping_mul(SPREAD) >> 32;
        let mut turns = Self {
            period,
            offset: 0,
            last: None,
        };
        turns.offset = spread % turns.millis();
        turns
    }

    fn millis(self) -> u64 {
        u64::try_from(self.period.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Whether there has been no turn since `now` was due for one. Asking takes the turn.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let turn = now.0.saturating_add(self.offset) / self.millis();
        self.last.replace(turn) != Some(turn)
    }

    /// The stamp of what is read at a turn: the ticks may be further apart than the turns.
    pub(super) fn stamp(self, tick: Stamp) -> Stamp {
        Stamp {
            period: tick.period.max(self.period),
            ..tick
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    const FIGURE: Figure = Figure::MajorFaults;

    #[test]
    fn a_rate_is_the_change_over_the_time_and_every_value_is_the_next_base() {
        let mut counters = Counters::new(FIGURE);
        let cases = [
            (1_000, [10, 0], Err(Missing::FirstSample)),
            (3_000, [14, 1], Ok([2.0, 0.5])),
            (3_500, [14, 2], Ok([0.0, 2.0])),
            // One that goes back makes both unknown, because they are of one source.
            (4_500, [3, 9], Err(Missing::CounterWentBack(FIGURE))),
            (5_500, [4, 9], Ok([1.0, 0.0])),
            (5_500, [6, 9], Err(Missing::NoTimePassed)),
            (6_500, [7, 9], Ok([1.0, 0.0])),
            (2_000, [8, 9], Err(Missing::FirstSample)),
            (3_000, [9, 9], Ok([1.0, 0.0])),
        ];
        for (at, values, expected) in cases {
            assert_eq!(
                counters.advance(Moment(at), values),
                expected,
                "{at} {values:?}"
            );
        }
        counters.forget();
        let first = counters.advance(Moment(9_000), [100, 100]);
        assert_eq!(first, Err(Missing::FirstSample));
    }

    #[test]
    fn turns_of_many_domains_are_spread_over_the_period() {
        let at = |now| {
            let due = |seed: &u32| {
                let mut turns = Turns::new(Duration::from_secs(5), 1_000 + 6 * seed);
                turns.take(Moment(now - 1_000));
                turns.take(Moment(now))
            };
            (0..200).filter(due).count()
        };
        for now in [60_000, 61_000, 62_000, 63_000, 64_000] {
            // A fifth of them would be 40.
            assert!((20..=60).contains(&at(now)), "{now}: {}", at(now));
        }
    }

    #[test]
    fn a_reading_lasts_as_long_as_the_rarer_of_tick_and_turn() {
        for (tick, turn, expected) in [(1, 5, 5), (10, 5, 10)] {
            let stamp = Stamp {
                at: Moment(0),
                period: Duration::from_secs(tick),
            };
            let turns = Turns::new(Duration::from_secs(turn), 7);
            assert_eq!(turns.stamp(stamp).period.as_secs(), expected);
        }
    }

    proptest! {
        #[test]
        fn there_is_one_turn_in_each_period_however_often_is_asked(seed: u32, start in 0..1_000_000_u64,
                                                                   step in 1..3_000_u64) {
            let mut turns = Turns::new(Duration::from_millis(3_000), seed);
            prop_assert!(turns.take(Moment(start)));
            let asked = 30_000 / step + 1;
            let taken = (1..=asked).filter(|index| turns.take(Moment(start + index * step))).count() as u64;
            let periods = asked * step / 3_000;
            prop_assert!((periods..=periods + 1).contains(&taken), "{taken} in {periods}");
        }
    }
}
