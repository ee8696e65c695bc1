//! The daemon's clock: Unix time at its start, moved on by the time since, suspension included. It never goes back
//! while the daemon runs, whatever is done to the wall clock. The only place besides the guest's channel that reads one.
//!
//! A clock of the run time goes with tokio's own, which tests pause: a simulated day takes minutes then.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use persona::units::Moment;
use tokio::time::Instant;

/// Hands out moments that never go back. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Moment,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The host's clocks, and its time since boot at the start.
    Host(Duration),
    /// tokio's clock, and what it showed at the start.
    RunTime(Instant),
}

impl Clock {
    /// The host's, from the present Unix time on.
    pub fn start() -> Self {
        Self {
            start: wall(),
            source: Source::Host(boot_time()),
        }
    }

    /// That of the tokio run time, from the present Unix time on: where it is paused, time stands still, and a date that
    /// others tell is taken for one of this clock.
    pub fn of_run_time() -> Self {
        Self {
            start: wall(),
            source: Source::RunTime(Instant::now()),
        }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.start.after(match self.source {
            Source::Host(start) => boot_time().saturating_sub(start),
            Source::RunTime(start) => start.elapsed(),
        })
    }

    /// The moment on this clock of a date on the wall clock, for dates that others tell.
    pub fn of_wall(&self, unix_seconds: u64) -> Moment {
        let wall = match self.source {
            Source::Host(_) => wall(),
            Source::RunTime(_) => self.now(),
        };
        let age = wall.0.saturating_sub(unix_seconds.saturating_mul(1000));
        Moment(self.now().0.saturating_sub(age))
    }
}

fn wall() -> Moment {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time since the host's boot, suspension included (clock_gettime(2), CLOCK_BOOTTIME).
fn boot_time() -> Duration {
    // The clock exists on every kernel that can run this; without it time would stand still, which holds everything.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}
