//! What a domain is given: bounds of vCPUs and memory, limits of network and disks.

use serde::Serialize;

use crate::units::Bytes;

/// What a domain is given; a resource on which the document is silent is not managed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct BaseConfiguration {
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuBounds>,
    /// Guest memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryBounds>,
    /// Bits a second in each direction, over all interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_bandwidth: Option<f64>,
    /// Limits of the disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimits>,
}

/// Upper bounds over all disks of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct DiskLimits {
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<f64>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<f64>,
}

/// Bounds of the virtual CPUs. `min <= initial <= max`, `reservation <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CpuBounds {
    /// Never fewer.
    pub min: u32,
    /// How many an activation brings about; `None` leaves what there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<u32>,
    /// Never more; `None` where only the domain and the host set a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Never taken away for another domain.
    pub reservation: u32,
    /// Weight against other domains where there is not enough for all.
    pub share: u32,
}

/// Bounds of the guest's memory. `min <= initial <= max`, `reservation <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryBounds {
    /// Never less.
    pub min: Bytes,
    /// How much an activation brings about; `None` leaves what there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<Bytes>,
    /// Never more; `None` where only the domain and the host set a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Bytes>,
    /// Never taken away for another domain.
    pub reservation: Bytes,
    /// Weight against other domains where there is not enough for all.
    pub share: u32,
}
