//! What one guest may cost the host: a token bucket over bytes and frames, and the pause between two connections. Pure:
//! the caller owns the clock. The link feeds both; a guest that overflows its bucket loses its connection for a while,
//! and nobody else notices.

use std::time::Duration;

use tokio::time::Instant;

/// How fast a guest may talk, and how much of it may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bytes a second. 1 MiB/s by default: a hundred times what a busy agent sends, a thousandth of what one port can do.
    pub bytes: u64,
    /// Frames a second, whole or broken. 200 by default: telemetry is one, a reply to each of 64 requests at once still fits.
    pub frames: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            frames: 200,
        }
    }
}

/// Which of the two rates was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Bytes a second.
    Bytes,
    /// Frames a second.
    Frames,
}

/// One bucket: holds one second's worth, fills evenly. It counts in millionths, so that short intervals do not round away.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    micro: u64,
}

const MICRO: u64 = 1_000_000;

impl Bucket {
    fn full(rate: u64) -> Self {
        Self {
            rate,
            micro: rate.saturating_mul(MICRO),
        }
    }

    fn fill(&mut self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let most = self.rate.saturating_mul(MICRO);
        self.micro = self
            .micro
            .saturating_add(self.rate.saturating_mul(micros))
            .min(most);
    }

    /// Takes `amount`; false when that much is not there, and then the bucket is empty.
    fn take(&mut self, amount: u64) -> bool {
        let wanted = amount.saturating_mul(MICRO);
        let enough = wanted <= self.micro;
        self.micro = self.micro.saturating_sub(wanted);
        enough
    }
}

/// The bucket of one guest, kept over its connections: reconnecting does not fill it.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: Bucket,
    frames: Bucket,
    filled: Instant,
}

impl Budget {
    /// A full bucket.
    pub(super) fn new(rates: Rates, now: Instant) -> Self {
        Self {
            bytes: Bucket::full(rates.bytes),
            frames: Bucket::full(rates.frames),
            filled: now,
        }
    }

    /// Accounts for what was read.
    ///
    /// # Errors
    /// [`Overflow`] names the rate that was exceeded.
    pub(super) fn spend(&mut self, bytes: u64, frames: u64, now: Instant) -> Result<(), Overflow> {
        let elapsed = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.bytes.fill(elapsed);
        self.frames.fill(elapsed);
        let within_bytes = self.bytes.take(bytes);
        let within_frames = self.frames.take(frames);
        match (within_bytes, within_frames) {
            (false, _) => Err(Overflow::Bytes),
            (true, false) => Err(Overflow::Frames),
            (true, true) => Ok(()),
        }
    }
}

/// A pause that doubles with each failure and starts again after a success.
#[derive(Debug)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `least` to `most`.
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            next: least,
        }
    }

    /// The pause to make; the one after it is twice as long.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.most);
        pause
    }

    /// The next pause is the shortest one.
    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(rates: Rates) -> (Budget, Instant) {
        let start = Instant::now();
        (Budget::new(rates, start), start)
    }

    #[test]
    fn a_second_of_the_rate_passes_at_once_and_one_more_does_not() {
        let (mut budget, now) = second(Rates {
            bytes: 1000,
            frames: 10,
        });
        assert_eq!(budget.spend(1000, 10, now), Ok(()));
        assert_eq!(budget.spend(0, 1, now), Err(Overflow::Frames));
        assert_eq!(budget.spend(1, 0, now), Err(Overflow::Bytes));
    }

    #[test]
    fn the_bucket_fills_with_time_but_never_beyond_a_second() {
        let (mut budget, now) = second(Rates {
            bytes: 1000,
            frames: 10,
        });
        assert_eq!(budget.spend(1000, 0, now), Ok(()));
        let later = now + Duration::from_millis(100);
        assert_eq!(budget.spend(100, 1, later), Ok(()));
        assert_eq!(budget.spend(1, 0, later), Err(Overflow::Bytes));
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(budget.spend(1001, 0, much_later), Err(Overflow::Bytes));
    }

    #[test]
    fn many_short_intervals_fill_as_much_as_a_long_one() {
        let (mut budget, mut now) = second(Rates {
            bytes: 3,
            frames: 10,
        });
        assert_eq!(budget.spend(3, 0, now), Ok(()));
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            assert_eq!(budget.spend(0, 0, now), Ok(()));
        }
        assert_eq!(budget.spend(3, 0, now), Ok(()));
    }

    #[test]
    fn absurd_amounts_and_times_do_not_overflow() {
        let (mut budget, now) = second(Rates {
            bytes: u64::MAX,
            frames: u64::MAX,
        });
        assert_eq!(
            budget.spend(u64::MAX, u64::MAX, now + Duration::from_secs(1 << 40)),
            Ok(())
        );
    }

    #[test]
    fn pauses_double_to_their_limit_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..5).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.pause(), Duration::from_secs(1));
    }
}
