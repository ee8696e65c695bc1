//! Metrics and their readings: what a rule may look at, in which unit, from which source, how old. The collecting
//! is not here (the daemon's `observe` and the agent's telemetry do it); rules read readings through [`Signals`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Moment;

/// Who claims a value, from the least to the most trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The agent in the guest says so.
    Agent,
    /// The guest's kernel says so, through the balloon device.
    Balloon,
    /// The host measured it itself.
    Host,
}

/// The kind of quantity a value is; two kinds never compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 100.
    Percent,
    /// Bytes.
    Bytes,
    /// A plain number of things.
    Count,
    /// Seconds.
    Duration,
    /// Events per second.
    PerSecond,
    /// Bits per second.
    BitsPerSecond,
    /// Bytes per second.
    BytesPerSecond,
}

/// What can be measured. The table in [`Metric::ALL`] with [`Metric::describe`] is the one catalogue: rule names,
/// units, sources and documentation come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// Run time of the vCPU threads over the vCPUs online in the guest.
    CpuUtilization,
    /// Run-queue wait of the vCPU threads over the vCPUs online in the guest.
    CpuSteal,
    /// Share of the periods in which the CPU quota held the domain back.
    CpuThrottled,
    /// vCPUs that the guest shows as online.
    VcpuCount,
    /// Memory that the guest shows as its own.
    MemorySize,
    /// Share of the guest's memory that is not available.
    MemoryUtilization,
    /// Memory that the guest could use without swapping.
    MemoryAvailable,
    /// Resident memory of the emulator on the host.
    MemoryHostRss,
    /// The guest kernel's own memory pressure, `some avg10`.
    GuestMemoryPressure,
    /// The guest's load average over one minute.
    GuestLoad,
    /// Utilisation of all host CPUs.
    HostCpuUtilization,
    /// Memory that the host could use without swapping.
    HostMemoryAvailable,
    /// The host's memory pressure, `some avg10`.
    HostMemoryPressure,
    /// The host's CPU pressure, `some avg10`.
    HostCpuPressure,
}

/// One value of one metric, with where it came from and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value, in the metric's [`Unit`].
    pub value: f64,
    /// Who claims it.
    pub source: Source,
    /// When it was measured.
    pub at: Moment,
    /// How often its source measures; older than three periods counts as unknown.
    pub period: Duration,
}

impl Reading {
    /// Periods after which a reading no longer counts.
    pub const STALE_AFTER_PERIODS: u32 = 3;

    /// Whether the reading still counts at `now`, and is a number at all.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.value.is_finite() && now.since(self.at) <= self.period * Self::STALE_AFTER_PERIODS
    }
}

/// Where a rule's evaluation reads metrics.
pub trait Signals {
    /// The latest reading, fresh or not; `None` where there has never been one.
    fn reading(&self, metric: Metric) -> Option<Reading>;
}
