//! What matters to a persona: weights of metrics, what may be learnt from, how fast it is forgotten.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::signal::Metric;

/// Weights of metrics and metric groups, normalised to the sum 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PriorityMetrics {
    pub(crate) weights: BTreeMap<String, f64>,
}

impl PriorityMetrics {
    /// Groups that a document need not define, with the metrics that they stand for.
    pub const BUILT_IN: [(&'static str, &'static [&'static str]); 4] = [
        (
            "performance",
            &[
                "cpu.utilization",
                "memory.utilization",
                "disk.latency",
                "network.latency",
            ],
        ),
        (
            "security",
            &["threat.detection_rate", "guest.auth.failures"],
        ),
        ("cost", &["vcpu.count", "memory.size"]),
        ("availability", &["guest.log.errors", "network.latency"]),
    ];

    /// The weight of a metric or a group, 0 to 1; `None` where the document gives none. Metrics have their spoken names,
    /// too, and blanks, hyphens and underscores in names of groups are the same.
    pub fn weight(&self, name: &str) -> Option<f64> {
        if let Some(weight) = self.weights.get(name) {
            return Some(*weight);
        }
        if let Ok(metric) = name.parse::<Metric>() {
            return self.weights.get(metric.name()).copied();
        }
        let letters = |name: &str| name.replace([' ', '-'], "_").to_ascii_lowercase();
        let wanted = letters(name);
        let mut weights = self.weights.iter();
        weights
            .find(|(name, _)| letters(name) == wanted)
            .map(|(_, weight)| *weight)
    }

    /// Names and weights, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.weights
            .iter()
            .map(|(name, weight)| (name.as_str(), *weight))
    }

    /// Whether the document is silent.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}

/// A kind of data that may be collected in the guest and learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearningDomain {
    /// `network.*`.
    NetworkTraffic,
    /// `guest.log.*` and `guest.auth.*`.
    SystemLogs,
    /// `guest.app.*`.
    ApplicationCalls,
    /// `guest.processes` and what runs.
    Processes,
    /// `disk.*` and `guest.disk.*`.
    Disk,
    /// `cpu.*` and `guest.load`.
    Cpu,
    /// `memory.*` and `guest.memory.*`.
    Memory,
}

impl LearningDomain {
    /// Every domain with its words in documents.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::NetworkTraffic, "network traffic"),
        (Self::SystemLogs, "system logs"),
        (Self::ApplicationCalls, "application API calls"),
        (Self::Processes, "processes"),
        (Self::Disk, "disk"),
        (Self::Cpu, "cpu"),
        (Self::Memory, "memory"),
    ];
}

impl fmt::Display for LearningDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Self::ALL.iter().find(|(domain, _)| domain == self);
        f.write_str(words.map_or("", |(_, words)| words))
    }
}

impl Serialize for LearningDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How fast what was learnt is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DecayRate {
    /// After this time it counts half, in whole milliseconds.
    #[serde(serialize_with = "crate::quantity::serialize_duration")]
    pub half_life: Duration,
}
