//! The daemon's clock: Unix time at its start, moved on by the time since, suspension included. It never goes back
//! while the daemon runs, whatever is done to the wall clock. The only place besides the guest's channel that reads one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use persona::units::Moment;

/// Hands out moments that never go back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Moment,
    boot_time: Duration,
}

impl Clock {
    /// Starts at the present Unix time.
    pub fn start() -> Self {
        Self {
            start: wall(),
            boot_time: boot_time(),
        }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.start.after(boot_time().saturating_sub(self.boot_time))
    }

    /// The moment on this clock of a date on the wall clock, for dates that others tell.
    pub fn of_wall(&self, unix_seconds: u64) -> Moment {
        let age = wall().0.saturating_sub(unix_seconds.saturating_mul(1000));
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
