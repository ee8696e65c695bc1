//! Metrics and their readings: what a rule may look at, in which unit, from which source, how old. The collecting
//! is not here (the daemon's `observe` and the agent's telemetry do it); rules read readings through [`Signals`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Balloon => "balloon",
            Self::Host => "host",
        })
    }
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

impl fmt::Display for Unit {
    /// The kind as a person says it, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Percent => "a percentage",
            Self::Bytes => "a size in bytes",
            Self::Count => "a plain number",
            Self::Duration => "a duration",
            Self::PerSecond => "a rate per second",
            Self::BitsPerSecond => "a rate in bits per second",
            Self::BytesPerSecond => "a rate in bytes per second",
        })
    }
}

/// What can be measured. The table in [`Metric::ALL`] with [`Metric::describe`] is the one catalogue: rule names,
/// units, sources and documentation come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// What the catalogue knows of one metric.
struct Entry {
    metric: Metric,
    name: &'static str,
    unit: Unit,
    best_source: Source,
    meaning: &'static str,
    /// Spellings beside the name, in lower case with single spaces.
    spoken: &'static [&'static str],
}

/// One row for each metric, in the order in which [`Metric`] declares them.
const CATALOGUE: [Entry; 14] = [
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
    },
    Entry {
        metric: Metric::CpuSteal,
        name: "cpu.steal",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "time the vCPU threads waited for a host CPU over the vCPUs online in the guest",
        spoken: &["cpu steal"],
    },
    Entry {
        metric: Metric::CpuThrottled,
        name: "cpu.throttled",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "share of the periods in which the CPU quota held the domain back",
        spoken: &["cpu throttling"],
    },
    Entry {
        metric: Metric::VcpuCount,
        name: "vcpu.count",
        unit: Unit::Count,
        best_source: Source::Host,
        meaning: "vCPUs that the guest shows as online",
        spoken: &["vcpu count", "core count"],
    },
    Entry {
        metric: Metric::MemorySize,
        name: "memory.size",
        unit: Unit::Bytes,
        best_source: Source::Host,
        meaning: "memory that the guest shows as its own",
        spoken: &["memory size"],
    },
    Entry {
        metric: Metric::MemoryUtilization,
        name: "memory.utilization",
        unit: Unit::Percent,
        best_source: Source::Balloon,
        meaning: "share of the guest's memory that is not available",
        spoken: &["memory utilization", "memory utilisation", "memory usage"],
    },
    Entry {
        metric: Metric::MemoryAvailable,
        name: "memory.available",
        unit: Unit::Bytes,
        best_source: Source::Balloon,
        meaning: "memory that the guest could use without swapping",
        spoken: &["available memory"],
    },
    Entry {
        metric: Metric::MemoryHostRss,
        name: "memory.host_rss",
        unit: Unit::Bytes,
        best_source: Source::Host,
        meaning: "resident memory of the emulator on the host",
        spoken: &[],
    },
    Entry {
        metric: Metric::GuestMemoryPressure,
        name: "guest.memory.pressure",
        unit: Unit::Percent,
        best_source: Source::Agent,
        meaning: "the guest kernel's own memory pressure, some avg10",
        spoken: &[],
    },
    Entry {
        metric: Metric::GuestLoad,
        name: "guest.load",
        unit: Unit::Count,
        best_source: Source::Agent,
        meaning: "the guest's load average over one minute",
        spoken: &["load average"],
    },
    Entry {
        metric: Metric::HostCpuUtilization,
        name: "host.cpu.utilization",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "utilisation of all host CPUs",
        spoken: &[],
    },
    Entry {
        metric: Metric::HostMemoryAvailable,
        name: "host.memory.available",
        unit: Unit::Bytes,
        best_source: Source::Host,
        meaning: "memory that the host could use without swapping",
        spoken: &[],
    },
    Entry {
        metric: Metric::HostMemoryPressure,
        name: "host.memory.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "the host's memory pressure, some avg10",
        spoken: &[],
    },
    Entry {
        metric: Metric::HostCpuPressure,
        name: "host.cpu.pressure",
        unit: Unit::Percent,
        best_source: Source::Host,
        meaning: "the host's CPU pressure, some avg10",
        spoken: &[],
    },
];

/// Metrics of the language that this version does not measure; a rule that names one is refused, because it
/// could never become true. A name that ends in a dot stands for all names under it.
const NOT_MEASURED: [&str; 31] = [
    "cpu.pressure",
    "memory.pressure",
    "memory.swap_in",
    "memory.major_faults",
    "disk.read.iops",
    "disk.write.iops",
    "disk.read.bandwidth",
    "disk.write.bandwidth",
    "disk.latency",
    "disk.pressure",
    "network.rx.bandwidth",
    "network.tx.bandwidth",
    "network.rx.packets",
    "network.tx.packets",
    "network.rx.drops",
    "network.tx.drops",
    "network.rx.errors",
    "network.tx.errors",
    "network.latency",
    "guest.processes",
    "guest.disk.free",
    "guest.log.errors",
    "guest.auth.failures",
    "threat.detection_rate",
    "guest.app.",
    "external.",
    "network latency",
    "network bandwidth",
    "disk latency",
    "threat detection rate",
    "error rate",
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
    /// The language has it, but nothing measures it in this version.
    #[error("this version does not measure `{0}`")]
    NotMeasured(String),
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
        let asked = text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_ascii_lowercase();
        let hit = CATALOGUE
            .iter()
            .find(|entry| entry.name == asked || entry.spoken.contains(&asked.as_str()));
        if let Some(entry) = hit {
            return Ok(entry.metric);
        }
        let known =
            |name: &&str| **name == asked || (name.ends_with('.') && asked.starts_with(*name));
        if NOT_MEASURED.iter().any(known) {
            return Err(MetricError::NotMeasured(asked));
        }
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
    fn near_misses_are_suggested_and_unmeasured_ones_are_told_apart() {
        let wrong = "cpu.utilisation".parse::<Metric>().unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "there is no metric `cpu.utilisation`; did you mean `cpu.utilization`?"
        );
        let later = "guest.app.orders".parse::<Metric>().unwrap_err();
        assert_eq!(
            later,
            MetricError::NotMeasured("guest.app.orders".to_owned())
        );
        let far = "weather".parse::<Metric>().unwrap_err();
        assert_eq!(far.to_string(), "there is no metric `weather`");
    }

    #[test]
    fn a_reading_is_fresh_for_three_of_its_own_periods() {
        let reading = Reading {
            value: 1.0,
            source: Source::Host,
            at: Moment(10_000),
            period: Duration::from_secs(2),
        };
        assert!(reading.is_fresh(Moment(16_000)));
        assert!(!reading.is_fresh(Moment(16_001)));
        assert!(
            !Reading {
                value: f64::NAN,
                ..reading
            }
            .is_fresh(Moment(10_000))
        );
    }
}
