//! What `rate` and `delta` need: the earliest and the latest value that count. Which readings come here, and whether the
//! window is covered, is decided by [`super::Window`].

use super::elapsed;
use super::ring::Ring;
use crate::units::Moment;

/// What is asked of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// By the seconds between the ends.
    PerSecond,
    /// As it is.
    Whole,
}

/// The latest reading of each slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ends {
    change: Change,
    ring: Ring<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct End {
    at: Moment,
    value: f64,
}

impl Ends {
    pub(super) const fn new(change: Change) -> Self {
        Self {
            change,
            ring: Ring::new(),
        }
    }

    pub(super) fn drop_lapsed(&mut self, now: Moment, length: u64) {
        while self.ring.len() > 0 && !self.ring.oldest_counts(now, length) {
            self.ring.pop();
        }
    }

    pub(super) fn open(&mut self, at: Moment, value: f64) {
        self.ring.push(at, End { at, value });
    }

    pub(super) fn amend(&mut self, at: Moment, value: f64) {
        if let Some(latest) = self.ring.latest_mut() {
            *latest = End { at, value };
        }
    }

    /// `None` when fewer than two slices count.
    pub(super) fn value(&self, now: Moment, length: u64) -> Option<f64> {
        let first = self.ring.get(self.ring.lapsed(now, length))?;
        let last = self.ring.latest()?;
        let between = elapsed(first.at, last.at);
        if between == 0 {
            return None;
        }
        let change = last.value - first.value;
        Some(match self.change {
            Change::Whole => change,
            Change::PerSecond => {
                // Exact below 2^53 ms, which is 285,000 years.
                #[allow(clippy::cast_precision_loss)]
                let seconds = between as f64 / 1000.0;
                change / seconds
            }
        })
    }

    pub(super) fn reserve(&mut self, slices: usize) {
        self.ring.reserve(slices);
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
    }
}
