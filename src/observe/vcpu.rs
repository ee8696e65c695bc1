//! The arithmetic of a domain's CPU figures: work of the vCPU threads over what their vCPUs could have had. Pure;
//! `domain` reads the counters and calls this.

use std::time::Duration;

use super::procfs::ThreadTimes;
use super::reading::{Figure, Missing};

/// A vCPU thread that ran for this share of a sample was not that of an offline vCPU, whatever the guest says.
const ACTIVE_SHARE: f64 = 0.05;

/// What a domain's CPU figures were divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuBasis {
    /// The vCPUs that the guest says are online.
    Guest(u32),
    /// The vCPUs plugged on the host: the guest said nothing.
    Plugged(u32),
    /// The vCPUs that ran on the host: the guest claims fewer online than did, and is not believed, because the
    /// fewer it claims the busier it would seem.
    Contradicted(u32),
}

impl VcpuBasis {
    /// The number itself.
    pub const fn vcpus(self) -> u32 {
        match self {
            Self::Guest(vcpus) | Self::Plugged(vcpus) | Self::Contradicted(vcpus) => vcpus,
        }
    }
}

/// Work of all vCPU threads between two samples, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuWork {
    /// Time on host CPUs.
    pub run: u64,
    /// Time of waiting for one.
    pub wait: u64,
    /// Threads that are known at both ends of the sample.
    pub threads: u32,
    /// Those that ran enough for their vCPU to be online.
    pub active: u32,
}

impl VcpuWork {
    /// Adds one thread's work.
    ///
    /// # Errors
    /// [`Missing::CounterWentBack`] when a counter is lower than before.
    pub fn add(
        &mut self,
        before: ThreadTimes,
        after: ThreadTimes,
        elapsed: Duration,
    ) -> Result<(), Missing> {
        let change = |before: u64, after: u64| {
            after
                .checked_sub(before)
                .ok_or(Missing::CounterWentBack(Figure::ThreadTimes))
        };
        let run = change(before.run, after.run)?;
        self.wait = self.wait.saturating_add(change(before.wait, after.wait)?);
        self.run = self.run.saturating_add(run);
        self.threads += 1;
        if Duration::from_nanos(run).as_secs_f64() > elapsed.as_secs_f64() * ACTIVE_SHARE {
            self.active += 1;
        }
        Ok(())
    }

    /// By how many vCPUs to divide. Only threads that were measured count, because the work of a vCPU plugged
    /// during the sample is not in the sum, and because emulation in one thread has no more than that to give.
    pub fn basis(&self, online: Option<u32>) -> VcpuBasis {
        match online {
            None => VcpuBasis::Plugged(self.threads),
            Some(claimed) if claimed < self.active => VcpuBasis::Contradicted(self.active),
            Some(claimed) => VcpuBasis::Guest(claimed.clamp(1, self.threads.max(1))),
        }
    }
}

/// `time` as a share of what `vcpus` could have had in `elapsed`, in percent from 0 to 100; `None` without either.
#[allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds of one sample are far below 2^53"
)]
pub fn percent_of(time: u64, elapsed: Duration, vcpus: u32) -> Option<f64> {
    let capacity = elapsed.as_nanos() as f64 * f64::from(vcpus);
    // The counters are read a little before or after the moment that the caller names, so a busy vCPU may seem to
    // have run for longer than there was.
    (capacity > 0.0).then(|| (time as f64 / capacity * 100.0).clamp(0.0, 100.0))
}
