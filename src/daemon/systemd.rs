//! What systemd is told: ready, alive, reloading, stopping (sd_notify(3)). Does nothing where systemd did not start us.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

/// Objects are on the bus and the name is ours.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; systemd wants the moment with it.
pub fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    let microseconds = i128::try_from(now.as_micros()).unwrap_or(i128::MAX);
    tell(&[
        NotifyState::Reloading,
        NotifyState::MonotonicUsec(microseconds),
    ]);
}

/// No more changes are begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The one task that owns the state has just finished a tick, so it is not stuck.
pub fn alive(status: &str) {
    tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
