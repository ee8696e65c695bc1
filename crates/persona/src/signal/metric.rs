//! A metric that has a name of its own: which there are, what the catalogue says of each, and how one is read from a rule in its
//! name or in words. The catalogue's rows, and what measures them, are not here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::catalogue::{CATALOGUE, Entry};
use super::{Measured, Source, Unit};

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
