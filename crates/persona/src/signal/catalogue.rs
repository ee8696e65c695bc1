//! The metrics that have a name of their own: one table with names, units, sources and spoken spellings. Rules, units
//! and the documentation come from it. What measures them is not here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Source, Unit};

/// What can be measured. The table in [`Metric::ALL`] with [`Metric::describe`] is the one catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Run time of the vCPU threads over the vCPUs online in the guest.
    CpuUtilization,
    /// Time the vCPU threads waited for a host CPU over the vCPUs online in the guest.
    CpuSteal,
    /// Share of the periods in which the CPU quota held the domain back.
    CpuThrottled,
    /// CPU pressure of the domain's cgroup, some avg10 (cgroup v2).
    CpuPressure,
    /// VCPUs that the guest shows as online.
    VcpuCount,
    /// Memory that the guest shows as its own.
    MemorySize,
    /// Share of the guest's memory that is not available.
    MemoryUtilization,
    /// Memory that the guest could use without swapping.
    MemoryAvailable,
    /// Resident memory of the emulator on the host.
    MemoryHostRss,
    /// Memory pressure of the domain's cgroup, some avg10 (cgroup v2).
    MemoryPressure,
    /// Pages of the domain's cgroup that came back from swap.
    MemorySwapIn,
    /// Page faults of the emulator's threads that had to read from a disk. Under KVM those that the kernel serves in the
    /// background for a guest that goes on meanwhile are not among them.
    MemoryMajorFaults,
    /// Read requests of all disks that ended.
    DiskReadIops,
    /// Write requests of all disks that ended.
    DiskWriteIops,
    /// Bytes read from all disks.
    DiskReadBandwidth,
    /// Bytes written to all disks.
    DiskWriteBandwidth,
    /// Mean time of the read and write requests that ended, over all disks.
    DiskLatency,
    /// I/O pressure of the domain's cgroup, some avg10 (cgroup v2).
    DiskPressure,
    /// Bits that the guest received on all interfaces.
    NetworkRxBandwidth,
    /// Bits that the guest sent on all interfaces.
    NetworkTxBandwidth,
    /// Packets that the guest received on all interfaces.
    NetworkRxPackets,
    /// Packets that the guest sent on all interfaces.
    NetworkTxPackets,
    /// Packets to the guest that the host counts as broken.
    NetworkRxErrors,
    /// Packets of the guest that the host counts as broken.
    NetworkTxErrors,
    /// Packets to the guest that were dropped, because it did not take them in time.
    NetworkRxDrops,
    /// Packets of the guest that the host dropped.
    NetworkTxDrops,
    /// Round trip from the guest to the slowest of the machines that it probes.
    NetworkLatency,
    /// The guest's load average over one minute.
    GuestLoad,
    /// Processes in the guest.
    GuestProcesses,
    /// Free space of the guest's fullest file system.
    GuestDiskFree,
    /// Free inodes of the guest's file system that has the fewest.
    GuestDiskInodes,
    /// The guest kernel's own memory pressure, some avg10.
    GuestMemoryPressure,
    /// Page faults in the guest that had to read from a disk, its swap included.
    GuestMajorFaults,
    /// Log records of priority error or worse in the guest.
    GuestLogErrors,
    /// Failed logins in the guest.
    GuestAuthFailures,
    /// Derived: failed logins, refused restricted commands and hits on blocked addresses.
    ThreatDetectionRate,
    /// Utilisation of all host CPUs.
    HostCpuUtilization,
    /// Memory that the host could use without swapping.
    HostMemoryAvailable,
    /// The host's memory pressure, some avg10.
    HostMemoryPressure,
    /// The host's CPU pressure, some avg10.
    HostCpuPressure,
}

/// Whether this version has readings of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Yes.
    Here,
    /// No; rules may name it, and it is unknown to them. The sentence says why.
    NotYet(&'static str),
}

/// What the catalogue knows of one metric.
struct Entry {
    metric: Metric,
    name: &'static str,
    unit: Unit,
    best_source: Source,
    meaning: &'static str,
    /// Spellings beside the name, in lower case with single spaces.
    spoken: &'static [&'static str],
    measured: Measured,
}

/// Why a metric that the language has is unknown.
const UNMEASURED: Measured = Measured::NotYet("nothing in this version measures it");

/// One row for each metric, in the order in which [`Metric`] declares them.
const CATALOGUE: [Entry; 40] = [
    Entry {
        metric: Metric::CpuUtilization,
        name: "cpu.utilization",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "run time of the vCPU threads over the vCPUs online in the guest",
        spoken: &[
            "cpu utilization",
            "cpu utilisation",
            "cpu load",
            "cpu usage",
        ],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::CpuSteal,
        name: "cpu.steal",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "time the vCPU threads waited for a host CPU over the vCPUs online in the guest",
        spoken: &["cpu steal"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::CpuThrottled,
        name: "cpu.throttled",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "share of the periods in which the CPU quota held the domain back",
        spoken: &["cpu throttling"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::CpuPressure,
        name: "cpu.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "share of time in which something in the domain's cgroup waited for a CPU (cgroup v2, some avg10)",
        spoken: &["cpu pressure"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::VcpuCount,
        name: "vcpu.count",
        unit: Unit::Count,
        best_source: Source::Host,
        meaning: "vCPUs that the guest shows as online",
        spoken: &["vcpu count", "core count"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemorySize,
        name: "memory.size",
        unit: Unit::Bytes,
        best_source: Source::Host,
        meaning: "memory that the guest shows as its own",
        spoken: &["memory size"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemoryUtilization,
        name: "memory.utilization",
        unit: Unit::Percent,
        best_source: Source::Balloon,
        meaning: "share of the guest's memory that is not available",
        spoken: &[
            "memory utilization",
            "memory utilisation",
            "memory usage",
            "memory load",
        ],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemoryAvailable,
        name: "memory.available",
        unit: Unit::Bytes,
        best_source: Source::Balloon,
        meaning: "memory that the guest could use without swapping",
        spoken: &["available memory", "memory available"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemoryHostRss,
        name: "memory.host_rss",
        unit: Unit::Bytes,
        best_source: Source::Host,
        meaning: "resident memory of the emulator on the host",
        spoken: &[],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemoryPressure,
        name: "memory.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "share of time in which something in the domain's cgroup waited for memory (cgroup v2, some avg10)",
        spoken: &["memory pressure"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemorySwapIn,
        name: "memory.swap_in",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "pages of the domain's cgroup that came back from swap",
        spoken: &["swap in"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::MemoryMajorFaults,
        name: "memory.major_faults",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "page faults of the emulator's threads that had to read from a disk",
        spoken: &["major faults"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::DiskReadIops,
        name: "disk.read.iops",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "read requests of all disks that ended",
        spoken: &["disk read iops"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::DiskWriteIops,
        name: "disk.write.iops",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "write requests of all disks that ended",
        spoken: &["disk write iops"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::DiskReadBandwidth,
        name: "disk.read.bandwidth",
        unit: Unit::BytesPerSecond,
        best_source: Source::Host,
        meaning: "bytes read from all disks",
        spoken: &["disk read bandwidth", "disk read throughput"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::DiskWriteBandwidth,
        name: "disk.write.bandwidth",
        unit: Unit::BytesPerSecond,
        best_source: Source::Host,
        meaning: "bytes written to all disks",
        spoken: &["disk write bandwidth", "disk write throughput"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::DiskLatency,
        name: "disk.latency",
        unit: Unit::Duration,
        best_source: Source::Host,
        meaning: "mean time of the read and write requests that ended, over all disks",
        spoken: &["disk latency"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::DiskPressure,
        name: "disk.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "share of time in which something in the domain's cgroup waited for I/O (cgroup v2, some avg10)",
        spoken: &["disk pressure", "io pressure"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkRxBandwidth,
        name: "network.rx.bandwidth",
        unit: Unit::BitsPerSecond,
        best_source: Source::Host,
        meaning: "bits that the guest received on all interfaces",
        spoken: &["network receive bandwidth", "network rx bandwidth"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkTxBandwidth,
        name: "network.tx.bandwidth",
        unit: Unit::BitsPerSecond,
        best_source: Source::Host,
        meaning: "bits that the guest sent on all interfaces",
        spoken: &["network transmit bandwidth", "network tx bandwidth"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkRxPackets,
        name: "network.rx.packets",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "packets that the guest received on all interfaces",
        spoken: &["network rx packets"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkTxPackets,
        name: "network.tx.packets",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "packets that the guest sent on all interfaces",
        spoken: &["network tx packets"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkRxErrors,
        name: "network.rx.errors",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "packets to the guest that the host counts as broken",
        spoken: &["network rx errors"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkTxErrors,
        name: "network.tx.errors",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "packets of the guest that the host counts as broken",
        spoken: &["network tx errors"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkRxDrops,
        name: "network.rx.drops",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "packets to the guest that were dropped, because it did not take them in time",
        spoken: &["network rx drops"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkTxDrops,
        name: "network.tx.drops",
        unit: Unit::PerSecond,
        best_source: Source::Host,
        meaning: "packets of the guest that the host dropped",
        spoken: &["network tx drops"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::NetworkLatency,
        name: "network.latency",
        unit: Unit::Duration,
        best_source: Source::Agent,
        meaning: "round trip from the guest to the slowest of the machines that it probes",
        spoken: &["network latency"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestLoad,
        name: "guest.load",
        unit: Unit::Count,
        best_source: Source::Agent,
        meaning: "the guest's load average over one minute",
        spoken: &["load average"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestProcesses,
        name: "guest.processes",
        unit: Unit::Count,
        best_source: Source::Agent,
        meaning: "processes in the guest",
        spoken: &["process count"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestDiskFree,
        name: "guest.disk.free",
        unit: Unit::Percent,
        best_source: Source::Agent,
        meaning: "free space of the guest's fullest file system",
        spoken: &["free disk space", "disk free"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestDiskInodes,
        name: "guest.disk.inodes",
        unit: Unit::Percent,
        best_source: Source::Agent,
        meaning: "free inodes of the guest's file system that has the fewest",
        spoken: &["free inodes"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestMemoryPressure,
        name: "guest.memory.pressure",
        unit: Unit::Percent,
        best_source: Source::Agent,
        meaning: "the guest kernel's own memory pressure, some avg10",
        spoken: &["guest memory pressure"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestMajorFaults,
        name: "guest.memory.major_faults",
        unit: Unit::PerSecond,
        best_source: Source::Balloon,
        meaning: "page faults in the guest that had to read from a disk, its swap included, as its balloon driver counts them",
        spoken: &["guest major faults"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestLogErrors,
        name: "guest.log.errors",
        unit: Unit::PerSecond,
        best_source: Source::Agent,
        meaning: "log records of priority error or worse in the guest, over the last minute",
        spoken: &["error rate", "error rates", "log errors"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::GuestAuthFailures,
        name: "guest.auth.failures",
        unit: Unit::PerSecond,
        best_source: Source::Agent,
        meaning: "failed logins in the guest, over the last minute",
        spoken: &["failed logins", "authentication failures"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::ThreatDetectionRate,
        name: "threat.detection_rate",
        unit: Unit::PerSecond,
        best_source: Source::Agent,
        meaning: "derived: failed logins, refused restricted commands and hits on blocked addresses",
        spoken: &["threat detection rate"],
        measured: UNMEASURED,
    },
    Entry {
        metric: Metric::HostCpuUtilization,
        name: "host.cpu.utilization",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "utilisation of all host CPUs",
        spoken: &["host cpu utilization"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::HostMemoryAvailable,
        name: "host.memory.available",
        unit: Unit::Bytes,
        best_source: Source::Host,
        meaning: "memory that the host could use without swapping",
        spoken: &["host available memory"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::HostMemoryPressure,
        name: "host.memory.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "the host's memory pressure, some avg10",
        spoken: &["host memory pressure"],
        measured: Measured::Here,
    },
    Entry {
        metric: Metric::HostCpuPressure,
        name: "host.cpu.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "the host's CPU pressure, some avg10",
        spoken: &["host cpu pressure"],
        measured: Measured::Here,
    },
];

impl Metric {
    /// Every metric, in the order of the catalogue.
    pub const ALL: [Self; CATALOGUE.len()] = {
        let mut all = [Self::CpuUtilization; CATALOGUE.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = CATALOGUE[i].metric;
            i += 1;
        }
        all
    };

    fn entry(self) -> &'static Entry {
        // The catalogue has one row for each variant in declaration order; a test holds it to that.
        &CATALOGUE[self as usize]
    }

    /// The name in rules, such as `cpu.utilization`.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The metric of that name or spoken spelling, in any case; reading one from text also finds what was probably
    /// meant.
    pub fn named(text: &str) -> Option<Self> {
        let is = |name: &str| {
            let (mut asked, mut words) = (text.split_whitespace(), name.split(' '));
            loop {
                match (asked.next(), words.next()) {
                    (None, None) => return true,
                    (Some(asked), Some(word)) if asked.eq_ignore_ascii_case(word) => {}
                    _ => return false,
                }
            }
        };
        CATALOGUE
            .iter()
            .find(|entry| is(entry.name) || entry.spoken.iter().any(|spoken| is(spoken)))
            .map(|entry| entry.metric)
    }

    /// The unit of its values.
    pub fn unit(self) -> Unit {
        self.entry().unit
    }

    /// The most trusted source that can give it.
    pub fn best_source(self) -> Source {
        self.entry().best_source
    }

    /// What it means, in a few words.
    pub fn describe(self) -> &'static str {
        self.entry().meaning
    }

    /// Whether there are readings of it.
    pub fn measured(self) -> Measured {
        self.entry().measured
    }

    /// Other spellings that rules accept, in lower case with single spaces.
    pub fn spoken(self) -> &'static [&'static str] {
        self.entry().spoken
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text names no metric that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// No such metric.
    #[error("there is no metric `{name}`{}", suggestion(*.nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The metric whose name is nearest, where one is near.
        nearest: Option<Metric>,
    },
}

fn suggestion(nearest: Option<Metric>) -> String {
    nearest
        .map(|metric| format!("; did you mean `{metric}`?"))
        .unwrap_or_default()
}

impl FromStr for Metric {
    type Err = MetricError;

    /// Accepts the name or a spoken spelling, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(metric) = Self::named(text) {
            return Ok(metric);
        }
        let asked = text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_ascii_lowercase();
        let nearest = crate::problem::nearest(&asked, CATALOGUE.iter().map(|entry| entry.name));
        let nearest = nearest.and_then(|name| CATALOGUE.iter().find(|entry| entry.name == name));
        Err(MetricError::Unknown {
            name: asked,
            nearest: nearest.map(|entry| entry.metric),
        })
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_rows_stand_in_the_order_of_the_variants() {
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, index, "{metric}");
            assert_eq!(metric.name().parse(), Ok(metric));
        }
    }

    #[test]
    fn spoken_spellings_name_one_metric_each_in_any_case() {
        for metric in Metric::ALL {
            for spoken in metric.spoken() {
                assert_eq!(spoken.to_uppercase().parse(), Ok(metric));
            }
        }
    }

    #[test]
    fn near_misses_are_suggested() {
        let wrong = "cpu.utilisation".parse::<Metric>().unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "there is no metric `cpu.utilisation`; did you mean `cpu.utilization`?"
        );
        let far = "weather".parse::<Metric>().unwrap_err();
        assert_eq!(far.to_string(), "there is no metric `weather`");
    }
}
