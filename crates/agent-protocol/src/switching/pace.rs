//! How often something may be asked; each end of the channel holds the other, and the guest its users, to it.

/// How often something may be asked: a bucket that fills by one each interval. The caller's clock is any that only rises.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval_ms: u64,
    burst: u64,
    spare_ms: u64,
    at_ms: u64,
}

impl Pace {
    /// A full bucket of `burst`, one more each `interval_ms`.
    #[must_use]
    pub fn new(interval_ms: u64, burst: u64) -> Self {
        Self {
            interval_ms,
            burst,
            spare_ms: interval_ms.saturating_mul(burst),
            at_ms: 0,
        }
    }

    /// Takes one, if there is one.
    ///
    /// # Errors
    /// [`TooSoon`] when the bucket is empty.
    pub fn take(&mut self, now_ms: u64) -> Result<(), TooSoon> {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let most = self.interval_ms.saturating_mul(self.burst);
        self.spare_ms = self.spare_ms.saturating_add(passed).min(most);
        match self.spare_ms.checked_sub(self.interval_ms) {
            Some(left) => {
                self.spare_ms = left;
                Ok(())
            }
            None => Err(TooSoon),
        }
    }
}

/// Nothing is left in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that was asked too often; wait a moment")]
pub struct TooSoon;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_a_burst_pass_and_then_one_each_interval() {
        let mut pace = Pace::new(1_000, 2);
        assert_eq!(pace.take(5), Ok(()));
        assert_eq!(pace.take(5), Ok(()));
        assert_eq!(pace.take(900), Err(TooSoon));
        assert_eq!(pace.take(1_005), Ok(()));
        // A clock that goes back gives nothing.
        assert_eq!(pace.take(0), Err(TooSoon));
        assert_eq!(pace.take(2_005), Ok(()));
    }
}
