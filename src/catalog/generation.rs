//! Generations: the numbers by which receivers tell a later order from an earlier one. Taken by the catalogue for
//! activations and by the daemon for plans.

use std::fmt;

use persona::Moment;
use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError, Stored, Tree};

/// Number of an activation or a plan, strictly increasing over everything that the daemon ever starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Generations that are taken from the store at once, so that not each costs a sync. What is unused at the end of
/// the daemon is skipped.
const BLOCK: u64 = 64;

/// Hands out generations. They begin with the Unix time in milliseconds of the store's beginning, so that even after a
/// store was lost or set aside they exceed all that agents have seen, and no guest's word is needed for it: nobody
/// activates a thousand personas a second for as long as a store lives.
#[derive(Debug)]
pub struct Generations {
    next: u64,
    reserved: u64,
}

/// All generations below it may have been handed out.
#[derive(Serialize, Deserialize)]
struct Reserved {
    below: u64,
}

impl Stored for Reserved {
    const TREE: Tree = Tree::Meta;
}

impl Generations {
    const KEY: &str = "generations";

    /// Continues where the store says, or begins.
    ///
    /// # Errors
    ///
    /// What reading the store gives.
    pub fn open(store: &Store, now: Moment) -> Result<Self, StoreError> {
        let stored = store.get::<Reserved>(Self::KEY)?;
        let next = stored.map_or(now.0, |reserved| reserved.below);
        Ok(Self {
            next,
            reserved: next,
        })
    }

    /// The next generation. Blocks for a sync once in some dozen calls.
    ///
    /// # Errors
    ///
    /// What writing the store gives; no generation is handed out then.
    pub fn take(&mut self, store: &Store) -> Result<Generation, StoreError> {
        if self.next == self.reserved {
            let below = self.reserved + BLOCK;
            store.put(Self::KEY, &Reserved { below })?;
            self.reserved = below;
        }
        let generation = Generation(self.next);
        self.next += 1;
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_rise_over_restarts_and_over_a_lost_store() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let store = Store::open(dir.path()).unwrap();
            let mut generations = Generations::open(&store, Moment(1_800_000_000_000)).unwrap();
            seen.extend((0..70).map(|_| generations.take(&store).unwrap()));
        }
        assert_eq!(seen[0], Generation(1_800_000_000_000));
        assert!(seen.is_sorted_by(|a, b| a < b));
        let fresh = tempfile::tempdir().unwrap();
        let store = Store::open(fresh.path()).unwrap();
        let mut generations = Generations::open(&store, Moment(1_800_000_900_000)).unwrap();
        assert!(generations.take(&store).unwrap() > seen[seen.len() - 1]);
    }
}
