//! What a machine is expected to need, allow, last and cost: what a negotiation starts from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// Predicted need from one time of day until the next point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerformancePoint {
    /// Minutes after midnight, in the guest's time zone.
    pub at: u16,
    /// vCPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Need<f64>>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Need<Bytes>>,
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<Need<f64>>,
    /// Bits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Need<f64>>,
}

/// How much of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Need<T> {
    /// At the highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<T>,
    /// On average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<T>,
    /// Over long times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sustained: Option<T>,
}

/// The trust boundary that the machine needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SecurityProfile {
    /// Roles that have access.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_levels: Vec<String>,
    /// Classification of its data, in the owner's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_sensitivity: Option<String>,
    /// Rules that it has to comply with, such as `PCI DSS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compliance: Vec<String>,
    /// What may come in; `None` where the document is silent, empty for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Endpoint>>,
    /// What may go out; `None` where the document is silent, empty for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Endpoint>>,
}

/// Connections that are allowed: `tcp/443 from 0.0.0.0/0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Which protocol.
    pub protocol: Protocol,
    /// The first and last port; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
    /// A network in CIDR notation; `None` for everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// What a connection is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, of either version of IP.
    Icmp,
    /// Every protocol.
    Any,
}

/// How long and how reliably a machine is to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LifecycleExpectations {
    /// Percent of the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime: Option<f64>,
    /// How long it is needed.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::quantity::serialize_some_duration"
    )]
    pub duration: Option<Duration>,
    /// How it is expected to grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
}

/// How a machine is expected to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all.
    None,
    /// By more vCPUs and memory.
    Vertical,
    /// By more machines, which is not this project's business; the machine itself keeps its size.
    Horizontal,
}

/// What a machine may cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CostTolerance {
    /// At most an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hourly: Option<f64>,
    /// At most a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_monthly: Option<f64>,
    /// ISO 4217, such as `EUR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}
