//! When jobs are due, and the count of what became of them. Pure: the time is an argument, as the span since the
//! program started.
//!
//! The load is open loop: jobs become due at a constant rate, whether or not the ones before are done, as requests
//! reach a server. What waits is bounded: past the bound the oldest waiting jobs are given up and counted as dropped, so a
//! machine that was too small does not have to work off the past after it has grown.

use std::time::Duration;

/// The time that a job may wait before it is given up. Long enough that a hiccup of the host loses nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// The fewest jobs that may wait, for rates so low that [`PATIENCE`] holds less than one.
const MIN_WAITING: u64 = 4;
/// Thousandths of a job in a nanosecond-second: the scale between a rate in thousandths and nanoseconds.
const SCALE: u128 = 1_000_000_000_000;

/// The jobs of one load.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    started: Duration,
    rate_milli: u64,
    max_waiting: u64,
    /// The index of the job that is handed out next; all before it were handed out or dropped.
    next: u64,
    dropped: u64,
}

impl Schedule {
    /// A load that starts at `now` with `rate_milli` thousandths of a job a second. A rate of 0 counts as the smallest.
    pub(crate) fn new(now: Duration, rate_milli: u64) -> Self {
        let rate_milli = rate_milli.max(1);
        let patience =
            u64::try_from(u128::from(rate_milli) * PATIENCE.as_nanos() / SCALE).unwrap_or(u64::MAX);
        Self {
            started: now,
            rate_milli,
            max_waiting: patience.max(MIN_WAITING),
            next: 0,
            dropped: 0,
        }
    }

    /// Hands out the next job and says when it is due: at once when that is not later than `now`.
    pub(crate) fn take(&mut self, now: Duration) -> Duration {
        let excess = self.waiting(now).saturating_sub(self.max_waiting);
        self.dropped += excess;
        self.next += excess;
        let due = self.due(self.next);
        self.next += 1;
        due
    }

    /// Jobs that were due by `now`, whatever became of them.
    pub(crate) fn offered(&self, now: Duration) -> u64 {
        let elapsed = now.saturating_sub(self.started).as_nanos();
        // The first job is due at the start, so one more than whole intervals have passed.
        u64::try_from(elapsed * u128::from(self.rate_milli) / SCALE)
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    /// Jobs that are due and that no worker has taken.
    pub(crate) fn waiting(&self, now: Duration) -> u64 {
        self.offered(now).saturating_sub(self.next)
    }

    /// Jobs that were given up because too many waited.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The offered rate in jobs a second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate_milli as f64 / 1000.0
    }

    fn due(&self, index: u64) -> Duration {
        // Rounded up, so that a job is never due before `offered` counts it.
        let nanos = (u128::from(index) * SCALE).div_ceil(u128::from(self.rate_milli));
        self.started + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Jobs that were completed, in seconds of the program's clock, for a rate over a sliding window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Completions {
    total: u64,
    first_second: Option<u64>,
    /// Second and count; the slot of a second is its remainder.
    slots: [(u64, u64); Self::WINDOW_SLOTS],
}

impl Completions {
    /// The window in seconds: short enough to see a step, long enough that one job more or less does not matter.
    pub(crate) const WINDOW: u64 = 4;
    const WINDOW_SLOTS: usize = 8;

    /// The load starts at `now`: rates are over what follows. The total goes on.
    pub(crate) fn restart(&mut self, now: Duration) {
        self.first_second = Some(now.as_secs());
        self.slots = Default::default();
    }

    /// Counts one job that ended at `now`.
    pub(crate) fn record(&mut self, now: Duration) {
        self.total += 1;
        let second = now.as_secs();
        let slot = &mut self.slots[Self::slot(second)];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += 1;
    }

    /// Jobs completed since the program started.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Jobs a second over the last [`Self::WINDOW`] whole seconds of this load, or over as many as there are; `None`
    /// before the first whole second.
    pub(crate) fn rate(&self, now: Duration) -> Option<f64> {
        let end = now.as_secs();
        // The second in which the load started is not whole.
        let begin = end.saturating_sub(Self::WINDOW).max(self.first_second? + 1);
        if begin >= end {
            return None;
        }
        let jobs: u64 = self
            .slots
            .iter()
            .filter(|(second, _)| (begin..end).contains(second))
            .map(|(_, count)| count)
            .sum();
        Some(jobs as f64 / (end - begin) as f64)
    }

    const fn slot(second: u64) -> usize {
        // The remainder is smaller than the number of slots, so it fits.
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of 8")]
        let slot = (second % Self::WINDOW_SLOTS as u64) as usize;
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn jobs_are_due_at_the_offered_rate() {
        let mut schedule = Schedule::new(ms(1000), 10_000);
        let dues: Vec<_> = (0..4).map(|_| schedule.take(ms(1000))).collect();
        assert_eq!(dues, [ms(1000), ms(1100), ms(1200), ms(1300)]);
    }

    #[test]
    fn a_job_is_offered_from_the_moment_it_is_due() {
        // A rate that does not divide a second, so that rounding would show.
        let mut schedule = Schedule::new(Duration::ZERO, 7_000);
        for index in 0..100 {
            let due = schedule.take(Duration::ZERO);
            assert_eq!(schedule.offered(due), index + 1);
            if index > 0 {
                assert_eq!(schedule.offered(due - Duration::from_nanos(1)), index);
            }
        }
    }

    #[test]
    fn every_offered_job_is_taken_or_waits_or_was_dropped() {
        let mut schedule = Schedule::new(Duration::ZERO, 100_000);
        let mut taken = 0;
        // A worker that manages 40 of 100 jobs a second.
        for step in 0..400 {
            let now = ms(step * 25);
            schedule.take(now);
            taken += 1;
            assert_eq!(
                schedule.offered(now),
                taken + schedule.waiting(now) + schedule.dropped()
            );
            assert!(
                schedule.waiting(now) <= 50,
                "what waits is bounded by half a second of jobs"
            );
        }
        assert!(
            schedule.dropped() > 500,
            "the rest is given up: {}",
            schedule.dropped()
        );
    }

    #[test]
    fn a_worker_that_keeps_up_loses_nothing() {
        let mut schedule = Schedule::new(Duration::ZERO, 50_000);
        let mut now = Duration::ZERO;
        for _ in 0..1000 {
            now = now.max(schedule.take(now)) + ms(19);
        }
        assert_eq!(schedule.dropped(), 0);
    }

    #[test]
    fn the_rate_is_over_whole_seconds_of_this_load() {
        let mut completions = Completions::default();
        assert_eq!(completions.rate(ms(900)), None);
        completions.restart(ms(900));
        for n in 0..60 {
            completions.record(ms(1000 + n * 50));
        }
        assert_eq!(completions.rate(ms(1900)), None, "no whole second yet");
        assert_eq!(completions.rate(ms(3500)), Some(20.0));
        assert_eq!(
            completions.rate(ms(5500)),
            Some(15.0),
            "one idle second of four"
        );
        assert_eq!(completions.rate(ms(60_000)), Some(0.0), "long idle");
        assert_eq!(completions.total(), 60);
        completions.restart(ms(61_000));
        assert_eq!(completions.rate(ms(61_500)), None);
        assert_eq!(completions.total(), 60, "the total goes on");
    }
}
