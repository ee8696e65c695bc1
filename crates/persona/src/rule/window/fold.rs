//! What `avg`, `min` and `max` need: all values that count, folded into one. Which readings come here, and whether the
//! window is covered, is decided by [`super::Window`].
//!
//! A queue of two stacks, laid out in one ring:
//!
//! ```text
//!   oldest                                 latest
//!   [ settled ......... | closed ........ | open ]
//!     each with the fold   one fold of      may still
//!     from it to the end   them all         be amended
//! ```
//!
//! When the settled part is used up, the closed part becomes the settled one, which costs O(1) for each slice once.
//! Nothing is ever subtracted, so a sum carries no rounding of values that have left, however large they were.

use super::ring::Ring;
use crate::units::Moment;

/// How two values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By their sum, which is divided at last.
    Mean,
    Least,
    Greatest,
}

impl How {
    /// What changes nothing that it is folded with.
    const fn nothing(self) -> f64 {
        match self {
            Self::Mean => 0.0,
            Self::Least => f64::INFINITY,
            Self::Greatest => f64::NEG_INFINITY,
        }
    }

    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Mean => a + b,
            Self::Least => a.min(b),
            Self::Greatest => a.max(b),
        }
    }
}

/// The value of each slice, and the folds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fold {
    how: How,
    ring: Ring<Part>,
    /// Length of the settled part. The open slice is never in it.
    settled: usize,
    /// The fold of the closed part.
    closed: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    value: f64,
    /// In the settled part: the fold from here to that part's end. Elsewhere without a meaning.
    onwards: f64,
}

impl Fold {
    pub(super) const fn new(how: How) -> Self {
        Self {
            how,
            ring: Ring::new(),
            settled: 0,
            closed: how.nothing(),
        }
    }

    pub(super) fn drop_lapsed(&mut self, now: Moment, length: u64) {
        while self.ring.len() > 0 && !self.ring.oldest_counts(now, length) {
            if self.settled == 0 {
                self.settle();
            }
            self.ring.pop();
            // The open slice, which goes last, was in no fold.
            self.settled = self.settled.saturating_sub(1);
        }
    }

    pub(super) fn open(&mut self, start: Moment, value: f64) {
        if let Some(latest) = self.ring.latest() {
            self.closed = self.how.of(self.closed, latest.value);
        }
        let onwards = self.how.nothing();
        self.ring.push(start, Part { value, onwards });
    }

    pub(super) fn amend(&mut self, value: f64) {
        if let Some(latest) = self.ring.latest_mut() {
            latest.value = value;
        }
    }

    /// `None` when nothing counts.
    pub(super) fn value(&self, now: Moment, length: u64) -> Option<f64> {
        let lapsed = self.ring.lapsed(now, length);
        let open = self.ring.latest()?.value;
        let count = self.ring.len() - lapsed;
        if count == 0 {
            return None;
        }
        let how = self.how;
        let folded = if lapsed < self.settled {
            let settled = self.ring.get(lapsed)?.onwards;
            how.of(how.of(settled, self.closed), open)
        } else if lapsed == self.settled {
            how.of(self.closed, open)
        } else {
            // More has lapsed since the latest reading than is settled, which happens to few evaluations of each turn.
            let rest = self.ring.iter().skip(lapsed);
            rest.fold(how.nothing(), |folded, part| how.of(folded, part.value))
        };
        Some(match how {
            // There are at most 1024.
            #[allow(clippy::cast_precision_loss)]
            How::Mean => folded / count as f64,
            How::Least | How::Greatest => folded,
        })
    }

    pub(super) fn reserve(&mut self, slices: usize) {
        self.ring.reserve(slices);
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.settled = 0;
        self.closed = self.how.nothing();
    }

    /// Makes the closed part the settled one.
    fn settle(&mut self) {
        let how = self.how;
        let mut onwards = how.nothing();
        for part in self.ring.iter_mut().rev().skip(1) {
            onwards = how.of(part.value, onwards);
            part.onwards = onwards;
        }
        self.settled = self.ring.len().saturating_sub(1);
        self.closed = how.nothing();
    }
}
