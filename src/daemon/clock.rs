//! The daemon's clock: Unix time at its start, moved on by the time since, suspension included. It never goes back
//! while the daemon runs, whatever is done to the wall clock. The only place besides the guest's channel that reads one.
//!
//! A clock of the run time goes with tokio's own, which tests pause: a simulated day takes minutes then.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
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
    /// The host's clocks as a dial turns them, and its time since boot at the start.
    Host(Duration, &'static Dial),
    /// tokio's clock, and what it showed at the start.
    RunTime(Instant),
}

impl Clock {
    /// The host's, from the present Unix time on.
    pub fn start() -> Self {
        Self {
            start: wall(&STILL),
            source: Source::Host(boot_time(&STILL), &STILL),
        }
    }

    /// The host's as a dial turns them, for tests: a host's own clocks are not a test's to step.
    pub fn turned_by(dial: &'static Dial) -> Self {
        Self {
            start: wall(dial),
            source: Source::Host(boot_time(dial), dial),
        }
    }

    /// That of the tokio run time, from the present Unix time on: where it is paused, time stands still, and a date that
    /// others tell is taken for one of this clock.
    pub fn of_run_time() -> Self {
        Self {
            start: wall(&STILL),
            source: Source::RunTime(Instant::now()),
        }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.start.after(match self.source {
            Source::Host(start, dial) => boot_time(dial).saturating_sub(start),
            Source::RunTime(start) => start.elapsed(),
        })
    }

    /// The moment on this clock of a date on the wall clock, for dates that others tell.
    pub fn of_wall(&self, unix_seconds: u64) -> Moment {
        let wall = match self.source {
            Source::Host(_, dial) => wall(dial),
            Source::RunTime(_) => self.now(),
        };
        let age = wall.0.saturating_sub(unix_seconds.saturating_mul(1000));
        Moment(self.now().0.saturating_sub(age))
    }
}

/// By how much a host's clocks are off from those of the machine that a test runs on.
#[derive(Debug, Default)]
pub struct Dial {
    /// The wall clock was stepped, in milliseconds.
    stepped: AtomicI64,
    /// The host was suspended, in milliseconds.
    suspended: AtomicU64,
}

/// What nobody turns.
static STILL: Dial = Dial {
    stepped: AtomicI64::new(0),
    suspended: AtomicU64::new(0),
};

impl Dial {
    /// Somebody steps the wall clock, back where it is negative.
    pub fn step_wall_clock(&self, milliseconds: i64) {
        self.stepped.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// The host sleeps for so long: both its clocks are later, and no timer has run.
    pub fn suspend(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.suspended.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn suspended(&self) -> Duration {
        Duration::from_millis(self.suspended.load(Ordering::Relaxed))
    }
}

fn wall(dial: &Dial) -> Moment {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from((since + dial.suspended()).as_millis()).unwrap_or(u64::MAX);
    Moment(now.saturating_add_signed(dial.stepped.load(Ordering::Relaxed)))
}

/// Time since the host's boot, suspension included (clock_gettime(2), CLOCK_BOOTTIME).
fn boot_time(dial: &Dial) -> Duration {
    // The clock exists on every kernel that can run this; without it time would stand still, which holds everything.
    let shown = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    shown + dial.suspended()
}
