//! The slices of a window by time, oldest first: which of them have lapsed, and how their memory grows. What they are
//! worth is not here. Used by each shape in which a window keeps its values.

use std::collections::VecDeque;

use super::{MOST_SLICES, elapsed};
use crate::units::Moment;

/// Slices by the moment of their first reading, each with what the owner keeps of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ring<T> {
    slices: VecDeque<Slice<T>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Slice<T> {
    start: Moment,
    content: T,
}

impl<T> Ring<T> {
    pub(super) const fn new() -> Self {
        Self {
            slices: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slices.len()
    }

    /// How many of the oldest slices do not count at `now`.
    pub(super) fn lapsed(&self, now: Moment, length: u64) -> usize {
        // Most evaluations come with the reading that they are about, and find that nothing has lapsed since.
        if self.oldest_counts(now, length) {
            return 0;
        }
        self.slices
            .partition_point(|slice| elapsed(slice.start, now) >= length)
    }

    /// Whether there is a slice and the oldest counts at `now`.
    pub(super) fn oldest_counts(&self, now: Moment, length: u64) -> bool {
        self.slices
            .front()
            .is_some_and(|slice| elapsed(slice.start, now) < length)
    }

    pub(super) fn push(&mut self, start: Moment, content: T) {
        if self.slices.len() == self.slices.capacity() {
            self.slices.reserve_exact(growth(self.slices.len()));
        }
        self.slices.push_back(Slice { start, content });
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.slices.pop_front().map(|slice| slice.content)
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.slices.get(index).map(|slice| &slice.content)
    }

    pub(super) fn latest(&self) -> Option<&T> {
        self.slices.back().map(|slice| &slice.content)
    }

    pub(super) fn latest_mut(&mut self) -> Option<&mut T> {
        self.slices.back_mut().map(|slice| &mut slice.content)
    }

    /// From the oldest on.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.slices.iter().map(|slice| &slice.content)
    }

    /// From the oldest on.
    pub(super) fn iter_mut(
        &mut self,
    ) -> impl DoubleEndedIterator<Item = &mut T> + ExactSizeIterator {
        self.slices.iter_mut().map(|slice| &mut slice.content)
    }

    /// Makes room for so many slices in all.
    pub(super) fn reserve(&mut self, slices: usize) {
        self.slices
            .reserve_exact(slices.saturating_sub(self.slices.len()));
    }

    /// Forgets all slices and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
    }
}

/// For how many more slices there is to be room when there are `len`: twice the room, but no more than may ever be used.
pub(super) fn growth(len: usize) -> usize {
    let most = usize::try_from(MOST_SLICES).unwrap_or(usize::MAX);
    len.max(4).min(most.saturating_sub(len)).max(1)
}
