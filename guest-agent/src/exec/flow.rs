//! How fast output goes to the host: no more waits in this agent than a window, and no more is sent in a second than the
//! host takes of a guest, of all commands together. A command that writes faster waits in its write.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agent_protocol::limits::{OUTPUT_PIECE_COST, OUTPUT_RATE, OUTPUT_WINDOW};

/// How much output waits for the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window(Arc<AtomicUsize>);

/// A part of a window, given back when it is dropped: the piece has gone, or nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Share {
    window: Arc<AtomicUsize>,
    bytes: usize,
}

impl Window {
    /// Whether another piece may wait.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) < OUTPUT_WINDOW
    }

    pub(super) fn share(&self, bytes: usize) -> Share {
        self.0.fetch_add(bytes, Ordering::AcqRel);
        Share {
            window: Arc::clone(&self.0),
            bytes,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.window.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// What all commands together may send: a bucket that holds half a second's worth and may be overdrawn by a piece.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<Mutex<Bucket>>);

#[derive(Debug)]
struct Bucket {
    /// Millionths of a byte; below zero where more was sent than was due.
    micro: i64,
    filled: Instant,
}

const MICRO: i64 = 1_000_000;
const MOST: i64 = OUTPUT_RATE / 2 * MICRO;

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Bucket {
            micro: MOST,
            filled: now,
        })))
    }

    /// Accounts for a piece that is sent; says how long nothing may follow it.
    pub(super) fn spend(&self, bytes: usize, now: Instant) -> Duration {
        let cost = i64::try_from(bytes)
            .unwrap_or(i64::MAX)
            .max(OUTPUT_PIECE_COST);
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.filled);
        let elapsed = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        bucket.filled = bucket.filled.max(now);
        bucket.micro = bucket
            .micro
            .saturating_add(elapsed.saturating_mul(OUTPUT_RATE))
            .min(MOST)
            .saturating_sub(cost.saturating_mul(MICRO));
        let missing = bucket.micro.min(0).unsigned_abs();
        Duration::from_micros(missing.div_ceil(OUTPUT_RATE.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::limits::OUTPUT_RAW_MAX;

    #[test]
    fn a_window_closes_when_it_is_full_and_opens_when_a_share_goes() {
        let window = Window::default();
        let share = window.share(OUTPUT_WINDOW);
        assert!(!window.is_open());
        drop(share);
        assert!(window.is_open());
    }

    #[test]
    fn in_any_second_no_more_goes_than_a_second_and_a_half_of_the_rate_and_few_pieces() {
        for piece in [1, OUTPUT_RAW_MAX] {
            let start = Instant::now();
            let (pace, mut now) = (Pace::new(start), start);
            let (mut pieces, mut bytes) = (0_usize, 0_usize);
            while now <= start + Duration::from_secs(1) {
                now += pace.spend(piece, now);
                (pieces, bytes) = (pieces + 1, bytes + piece);
            }
            assert!(pieces > 20 && pieces <= 100, "{pieces} pieces of {piece}");
            // In base64 and in frames it stays below what a host takes in a second.
            assert!(bytes * 4 / 3 + pieces * 200 < 1_200_000, "{bytes}");
        }
    }

    #[test]
    fn after_the_wait_the_bucket_is_level_and_a_long_rest_fills_it_only_once() {
        let now = Instant::now();
        let pace = Pace::new(now);
        while pace.spend(OUTPUT_RAW_MAX, now).is_zero() {}
        let wait = pace.spend(0, now);
        assert!(wait > Duration::ZERO);
        let later = now + Duration::from_secs(3600);
        let half = usize::try_from(OUTPUT_RATE / 2).unwrap();
        assert_eq!(pace.spend(half, later), Duration::ZERO);
        assert!(pace.spend(1, later) > Duration::ZERO);
    }
}
