//! What is counted in a guest, such as failed logins, as what a rule may look at: whether more have come, and how many came a
//! second over the last minute, because such things come in bursts. Whoever counts may begin anew from zero. Reading counts is
//! not here: the daemon does it with what agents report, an agent with what it reports.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::Moment;

/// The window of a rate.
const WINDOW: Duration = Duration::from_secs(60);
/// Samples are at least this far apart, which bounds how many there are in a window.
const APART: Duration = Duration::from_secs(2);

/// A count that only grows, however often whoever counts begins anew. What it keeps is bounded, whatever it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// What was counted last; `None` before the first time.
    counted: Option<u64>,
    total: u64,
    /// Oldest first, and one from before the window.
    past: VecDeque<(Moment, u64)>,
}

/// What a count says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// How many have come since the last time; none at the first time, because what was before happened to nobody who listens.
    pub come: u64,
    /// How many came a second over the last minute; `None` until one was looked at.
    pub rate: Option<f64>,
}

impl Counter {
    /// Takes in what was counted until `at`.
    pub fn take(&mut self, counted: u64, at: Moment) -> Growth {
        let come = match self.counted.replace(counted) {
            None => 0,
            // It went back: it is counted from zero again.
            Some(before) if counted < before => counted,
            Some(before) => counted - before,
        };
        self.total = self.total.saturating_add(come);
        let due = |(last, _): &(Moment, u64)| at.since(*last) >= APART;
        if self.past.back().is_none_or(due) {
            self.past.push_back((at, self.total));
        }
        // The oldest is the newest of those that the window does not reach.
        let passed = |(sampled, _): &(Moment, u64)| at.since(*sampled) >= WINDOW;
        while self.past.get(1).is_some_and(passed) {
            self.past.pop_front();
        }
        let oldest = self.past.front().filter(|sample| passed(sample));
        let rate = oldest.map(|(sampled, total)| {
            // Counts are far below what an f64 holds exactly, or nobody believes them.
            #[allow(clippy::cast_precision_loss)]
            let grown = (self.total - total) as f64;
            grown / at.since(*sampled).as_secs_f64()
        });
        Growth { come, rate }
    }

    /// Nobody looks for a while: a rate needs a window of its own afterwards. What has come meanwhile still has come.
    pub fn pause(&mut self) {
        self.past.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_before_the_first_look_has_not_come_and_a_count_from_zero_has() {
        let mut counter = Counter::default();
        let counts = [(7, 0), (7, 0), (9, 2), (3, 3), (0, 0), (1, 1)];
        for (second, (count, come)) in (0..).zip(counts) {
            let growth = counter.take(count, Moment(second * 5_000));
            assert_eq!((growth.come, growth.rate), (come, None), "{second}");
        }
        let growth = counter.take(1, Moment(60_000));
        assert_eq!(growth.rate, Some(0.1), "six in a minute");
        counter.pause();
        let growth = counter.take(4, Moment(65_000));
        assert_eq!((growth.come, growth.rate), (3, None));
    }

    proptest! {
        #[test]
        fn a_rate_is_what_came_within_the_window_and_little_is_kept(
            looks in proptest::collection::vec((0_u64..50, 1_u64..30_000), 1..200)
        ) {
            let mut counter = Counter::default();
            let (mut count, mut now) = (0, 1_000_000);
            for (come, later) in looks {
                count += come;
                now += later;
                let growth = counter.take(count, Moment(now));
                if let Some(rate) = growth.rate {
                    prop_assert!(rate >= 0.0 && rate * 60.0 <= count as f64);
                }
                prop_assert!(counter.past.len() <= 33);
            }
        }
    }
}
