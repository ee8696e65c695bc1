//! What a sample holds: one slot a metric, with a reading or the reason why there is none. The collecting is next
//! door; rules read a sample through [`Signals`], `explain` and `doctor` also ask [`Readings::missing`].

use std::fmt;
use std::io;
use std::time::Duration;

use persona::signal::{Metric, Reading, Signals, Source};
use persona::units::Moment;

use super::parse::FormatError;

/// Slots of a sample: the last metric of the catalogue and all before it. A `Metric` is its own index, so that a
/// sample is a plain array: nothing is hashed and nothing allocated in a tick.
const SLOTS: usize = Metric::HostCpuPressure as usize + 1;

/// One reading a metric, or the reason why it is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Readings {
    slots: [Result<Reading, Missing>; SLOTS],
}

impl Readings {
    /// A sample in which everything is unknown, for the same reason.
    pub const fn unknown(reason: Missing) -> Self {
        Self {
            slots: [Err(reason); SLOTS],
        }
    }

    /// Sets the metrics that are read of a domain at each tick or turn to one reason.
    pub(super) const fn fill_domain(&mut self, reason: Missing) {
        const READ: [Metric; 17] = [
            Metric::CpuUtilization,
            Metric::CpuSteal,
            Metric::CpuThrottled,
            Metric::CpuPressure,
            Metric::MemoryHostRss,
            Metric::MemoryPressure,
            Metric::MemorySwapIn,
            Metric::MemoryMajorFaults,
            Metric::DiskPressure,
            Metric::NetworkRxBandwidth,
            Metric::NetworkTxBandwidth,
            Metric::NetworkRxPackets,
            Metric::NetworkTxPackets,
            Metric::NetworkRxErrors,
            Metric::NetworkTxErrors,
            Metric::NetworkRxDrops,
            Metric::NetworkTxDrops,
        ];
        let mut index = 0;
        while index < READ.len() {
            self.slots[READ[index] as usize] = Err(reason);
            index += 1;
        }
    }

    /// The reason why `metric` is unknown; `None` where there is a reading, fresh or not.
    pub fn missing(&self, metric: Metric) -> Option<Missing> {
        match self.slots.get(metric as usize) {
            Some(Ok(_)) => None,
            Some(Err(reason)) => Some(*reason),
            None => Some(Missing::NotMeasured),
        }
    }

    /// The first reason among all metrics that says more than "not measured": what a status line shows.
    pub fn problem(&self) -> Option<Missing> {
        self.slots
            .iter()
            .filter_map(|slot| slot.err())
            .find(|reason| !matches!(reason, Missing::NotMeasured | Missing::FirstSample))
    }

    /// Puts the outcome of one measurement into the sample. A value that is no finite number is kept out.
    pub fn set(&mut self, metric: Metric, outcome: Result<Reading, Missing>) {
        let outcome = match outcome {
            Ok(reading) if !reading.value.is_finite() => Err(Missing::Implausible),
            other => other,
        };
        if let Some(slot) = self.slots.get_mut(metric as usize) {
            *slot = outcome;
        }
    }

    /// Takes over from `other` what is better than what is here: fresh before stale before unknown, then the more
    /// trusted source, then the later one. A reason replaces only "not measured".
    pub fn absorb(&mut self, other: &Self, now: Moment) {
        for (mine, theirs) in self.slots.iter_mut().zip(&other.slots) {
            let better = match (&mine, theirs) {
                (Ok(mine), Ok(theirs)) => rank(theirs, now) > rank(mine, now),
                (Err(_), Ok(_)) | (Err(Missing::NotMeasured), Err(_)) => true,
                (Ok(_) | Err(_), Err(_)) => false,
            };
            if better {
                *mine = *theirs;
            }
        }
    }
}

/// Readings in their order of preference.
fn rank(reading: &Reading, now: Moment) -> (bool, Source, Moment) {
    (reading.is_fresh(now), reading.source, reading.at)
}

impl Default for Readings {
    fn default() -> Self {
        Self::unknown(Missing::NotMeasured)
    }
}

impl Signals for Readings {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        self.slots.get(metric as usize).and_then(|slot| slot.ok())
    }
}

/// A stamp for what the host measures itself: who, when, how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) at: Moment,
    pub(super) period: Duration,
}

impl Stamp {
    /// `value`, as measured by the host.
    pub(super) const fn host(self, value: f64) -> Reading {
        Reading {
            value,
            source: Source::Host,
            at: self.at,
            period: self.period,
        }
    }
}

/// What is read from files: named in reasons, so that a person knows where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// `/proc/PID/stat`: whether the process is still the same.
    ProcessIdentity,
    /// `/proc/PID/task`: the vCPU threads.
    Threads,
    /// `/proc/PID/task/TID/schedstat`: run time and wait of a thread.
    ThreadTimes,
    /// `/proc/PID/statm`: resident memory.
    ResidentMemory,
    /// `/proc/PID/cgroup`: which control groups.
    Groups,
    /// `cpuacct.usage`, or `usage_usec` of `cpu.stat`.
    GroupCpuUsage,
    /// `nr_periods` and `nr_throttled` of `cpu.stat`.
    GroupThrottling,
    /// `cpu.max`, or `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    GroupQuota,
    /// `memory.current`, or `memory.usage_in_bytes`.
    GroupMemory,
    /// `memory.stat`.
    GroupMemoryParts,
    /// `cpu.pressure` of the group.
    GroupCpuPressure,
    /// `memory.pressure` of the group.
    GroupMemoryPressure,
    /// `io.pressure` of the group.
    GroupIoPressure,
    /// `pswpin` of `memory.stat`, or the refaults of anonymous pages there.
    GroupSwapIns,
    /// `majflt` of `/proc/PID/stat`.
    MajorFaults,
    /// The balloon driver's count of the guest's own major faults.
    GuestMajorFaults,
    /// `/proc/net/dev`: the counters of the host's network devices.
    NetworkDevices,
    /// What the emulator counted of its disks.
    DiskCounters,
    /// `/proc/meminfo`.
    HostMemory,
    /// `/proc/stat`.
    HostCpuTimes,
    /// `/proc/pressure/cpu`.
    HostCpuPressure,
    /// `/proc/pressure/memory`.
    HostMemoryPressure,
    /// `/proc/pressure/io`.
    HostIoPressure,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProcessIdentity => "/proc/PID/stat of the emulator",
            Self::Threads => "/proc/PID/task of the emulator",
            Self::ThreadTimes => "schedstat of a vCPU thread",
            Self::ResidentMemory => "/proc/PID/statm of the emulator",
            Self::Groups => "/proc/PID/cgroup of the emulator",
            Self::GroupCpuUsage => "the CPU usage of the domain's control group",
            Self::GroupThrottling => "cpu.stat of the domain's control group",
            Self::GroupQuota => "the CPU quota of the domain's control group",
            Self::GroupMemory => "the memory usage of the domain's control group",
            Self::GroupMemoryParts => "memory.stat of the domain's control group",
            Self::GroupCpuPressure => "cpu.pressure of the domain's control group",
            Self::GroupMemoryPressure => "memory.pressure of the domain's control group",
            Self::GroupIoPressure => "io.pressure of the domain's control group",
            Self::GroupSwapIns => {
                "the count of swap-ins in memory.stat of the domain's control group"
            }
            Self::MajorFaults => "the count of major faults in /proc/PID/stat of the emulator",
            Self::GuestMajorFaults => "the balloon driver's count of the guest's major faults",
            Self::NetworkDevices => "/proc/net/dev",
            Self::DiskCounters => "the emulator's counter of a disk",
            Self::HostMemory => "/proc/meminfo",
            Self::HostCpuTimes => "/proc/stat",
            Self::HostCpuPressure => "/proc/pressure/cpu",
            Self::HostMemoryPressure => "/proc/pressure/memory",
            Self::HostIoPressure => "/proc/pressure/io",
        })
    }
}

/// Why a metric is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Nothing on this path measures it.
    #[error("nothing has measured it yet")]
    NotMeasured,
    /// A rate is the difference of two samples.
    #[error("a rate needs two samples and this was the first")]
    FirstSample,
    /// Two samples with the same moment.
    #[error("no time passed since the previous sample, so there is no rate")]
    NoTimePassed,
    /// A counter that only grows was lower than before.
    #[error("{0} went back, so the rate over this sample is not known")]
    CounterWentBack(Figure),
    /// Nobody attached the domain.
    #[error("the domain is not observed; it is observed from its start to its end")]
    NotAttached,
    /// The emulator is gone.
    #[error("the emulator's process has ended")]
    ProcessEnded,
    /// The process number was given to another process.
    #[error("the emulator's process number belongs to another process by now")]
    ProcessReplaced,
    /// No thread of the process carries a vCPU's name.
    #[error(
        "the process has no thread named like a vCPU; libvirt starts QEMU with `-name ...,debug-threads=on` for that"
    )]
    NoVcpuThreads,
    /// The group that holds the emulator holds other processes too.
    #[error(
        "the emulator has no control group of its own, so its group's figures would be those of others too"
    )]
    NoOwnGroup,
    /// Version 2 of the control groups is not there.
    #[error("only control groups of version 2 have it, and they are not mounted on this host")]
    NoUnifiedHierarchy,
    /// The kernel does not have it, or it is switched off.
    #[error("{0} is not offered by this host's kernel or its control group hierarchy")]
    NotOffered(Figure),
    /// No interface in the definition.
    #[error("the domain has no network interface")]
    NoInterface,
    /// An interface whose packets no device of the host counts.
    #[error(
        "a network interface of the domain has no device on this host that counts its packets, as in user mode"
    )]
    NoTap,
    /// No disk in the definition.
    #[error("the domain has no disk")]
    NoDisk,
    /// A disk that the emulator does not serve itself.
    #[error("the emulator does not count a disk of the domain, as with vhost-user")]
    DiskNotCounted,
    /// The hypervisor answered without asking the emulator.
    #[error("the emulator was busy when the hypervisor was asked for its counters")]
    EmulatorBusy,
    /// The mean of nothing.
    #[error("no request of a disk ended since the previous sample, so none took any time")]
    NoRequests,
    /// It was there and went away; it is looked for again at the next sample.
    #[error("{0} went away while it was observed; it is looked for again")]
    Gone(Figure),
    /// Reading failed.
    #[error("{figure} could not be read: {kind}")]
    Unreadable {
        /// What.
        figure: Figure,
        /// How the system said no.
        kind: io::ErrorKind,
    },
    /// It was read and is not what the kernel documents.
    #[error("{figure} could not be understood: {problem}")]
    Malformed {
        /// What.
        figure: Figure,
        /// What was wrong with it.
        problem: FormatError,
    },
    /// The balloon reports nothing because nobody asked it to.
    #[error(
        "the balloon's statistics are off; `virsh dommemstat DOMAIN --period 5 --live` turns them on"
    )]
    StatisticsOff,
    /// The guest's balloon driver has not reported, or not this figure.
    #[error("the guest's balloon driver has not reported it")]
    NotReported,
    /// The last report is too old to say anything.
    #[error("the last report of the guest is older than three of its periods")]
    Stale,
    /// A value that cannot be: no finite number, a share above one, more available than there is.
    #[error("the value that was reported cannot be true")]
    Implausible,
    /// A rate over a minute, before a minute has passed.
    #[error("a rate over the last minute is known when a minute has passed")]
    ShortWindow,
    /// The persona wants nothing of the kind.
    #[error(
        "the persona in force does not have it collected: no rule of it reads it, or `learning_domains` leaves it out"
    )]
    NotCollected,
    /// Nothing on a disk.
    #[error("the guest has no file system on a disk of its own that it can write to")]
    NoFileSystem,
    /// Nothing that counts inodes.
    #[error("no file system of the guest counts its inodes")]
    NoInodes,
    /// Neither a journal nor a file that says priorities.
    #[error("the guest has no journal, and no log file that says priorities")]
    NoLogPriorities,
    /// No file for it.
    #[error("the guest keeps no record of failed logins (/var/log/btmp)")]
    NoLoginRecords,
    /// No target, or none that can be reached.
    #[error("the guest can probe nothing: no target of agent.toml and no default gateway answers")]
    NoProbe,
    /// No agent in the guest reports.
    #[error("no agent in the guest reports it")]
    NoAgent,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn reading(value: f64, source: Source, at: u64) -> Reading {
        Reading {
            value,
            source,
            at: Moment(at),
            period: Duration::from_secs(1),
        }
    }

    #[test]
    fn every_metric_has_a_slot_of_its_own() {
        let all = Metric::ALL;
        let mut readings = Readings::default();
        for (value, metric) in all.into_iter().enumerate() {
            readings.set(metric, Ok(reading(value as f64, Source::Host, 0)));
        }
        for (value, metric) in all.into_iter().enumerate() {
            assert_eq!(readings.reading(metric).unwrap().value, value as f64);
        }
    }

    #[test]
    fn absorb_prefers_fresh_then_the_more_trusted_source() {
        let now = Moment(10_000);
        let metric = Metric::MemoryUtilization;
        let cases = [
            (
                Ok((1.0, Source::Balloon, 9_500)),
                Ok((2.0, Source::Agent, 9_900)),
                1.0,
            ),
            (
                Ok((1.0, Source::Agent, 9_900)),
                Ok((2.0, Source::Balloon, 9_500)),
                2.0,
            ),
            (
                Ok((1.0, Source::Balloon, 1_000)),
                Ok((2.0, Source::Agent, 9_900)),
                2.0,
            ),
            (
                Ok((1.0, Source::Agent, 9_000)),
                Ok((2.0, Source::Agent, 9_900)),
                2.0,
            ),
            (Ok((1.0, Source::Agent, 9_000)), Err(Missing::Stale), 1.0),
            (Err(Missing::Stale), Ok((2.0, Source::Agent, 1_000)), 2.0),
        ];
        for (mine, theirs, expected) in cases {
            let sample = |slot: Result<(f64, Source, u64), Missing>| {
                let mut readings = Readings::default();
                readings.set(
                    metric,
                    slot.map(|(value, source, at)| reading(value, source, at)),
                );
                readings
            };
            let mut merged = sample(mine);
            merged.absorb(&sample(theirs), now);
            assert_eq!(
                merged.reading(metric).unwrap().value,
                expected,
                "{mine:?} and {theirs:?}"
            );
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_unknown() {
        let mut readings = Readings::default();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            readings.set(Metric::GuestLoad, Ok(reading(value, Source::Agent, 0)));
            assert_eq!(
                readings.missing(Metric::GuestLoad),
                Some(Missing::Implausible)
            );
            assert_eq!(readings.reading(Metric::GuestLoad), None);
        }
    }
}
