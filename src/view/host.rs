//! The daemon and its host as readers see them, and what stands in the way of live scaling. Filled by `daemon/`,
//! shown by the bus interface `Manager` and by `virt-persona doctor`.

use persona::units::{Bytes, Moment};
use serde::{Deserialize, Serialize};

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerView {
    /// The daemon's version.
    pub version: String,
    /// When it started.
    pub started: Moment,
    /// Its connection to the hypervisor.
    pub hypervisor: HypervisorView,
    /// What the host has and what of it is granted.
    #[serde(default)]
    pub host: HostView,
    /// Ticks since the start.
    pub ticks: u64,
    /// Ticks that took longer than their period.
    pub overruns: u64,
    /// What is wrong with the daemon itself, each a sentence that a person can act on.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// The connection to the hypervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorView {
    /// Whether it is there.
    pub state: HypervisorState,
    /// Where it is, `qemu:///system`.
    pub uri: String,
    /// Version of the management library's daemon.
    #[serde(default)]
    pub library: Option<String>,
    /// Version of the emulator.
    #[serde(default)]
    pub emulator: Option<String>,
    /// Why it is not there, as a sentence.
    #[serde(default)]
    pub detail: Option<String>,
}

/// Whether the hypervisor is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HypervisorState {
    /// It answers.
    Connected,
    /// It does not; the daemon keeps trying.
    Disconnected,
}

/// What the host has for all domains together, and what of it is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Logical CPUs that are online.
    #[serde(default)]
    pub cores: Option<u32>,
    /// vCPUs that all domains may have together.
    #[serde(default)]
    pub vcpus_budget: Option<u32>,
    /// vCPUs granted, with what is in flight.
    #[serde(default)]
    pub vcpus_granted: Option<u32>,
    /// Memory of the host.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// Memory that all domains may have together.
    #[serde(default)]
    pub memory_budget: Option<Bytes>,
    /// Memory granted, with what is in flight.
    #[serde(default)]
    pub memory_granted: Option<Bytes>,
    /// How short the host is of CPUs.
    #[serde(default)]
    pub vcpus_state: Option<HostState>,
    /// How short the host is of memory.
    #[serde(default)]
    pub memory_state: Option<HostState>,
}

/// How short the host is of a resource. The later ones are the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// There is enough.
    Plenty,
    /// Domains give way to those that hold less for their share.
    Tight,
    /// And nobody grows above its share of the host.
    Scarce,
    /// And memory grows up to reservations only.
    Critical,
}

/// What works for live scaling and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorView {
    /// The checks, the host's first, then domain by domain.
    #[serde(default)]
    pub checks: Vec<CheckView>,
}

/// What is left to be given back before nothing that the daemon changed is other than before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredView {
    /// Each a sentence that begins with the name of the domain and says what it waits for.
    #[serde(default)]
    pub left: Vec<String>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// The domain's name; absent for the host and the daemon.
    #[serde(default)]
    pub domain: Option<String>,
    /// The stable name of the check, `memory-hotplug`.
    pub name: String,
    /// How it ended.
    pub state: CheckState,
    /// What was found, as a sentence.
    pub sentence: String,
    /// How to mend it.
    #[serde(default)]
    pub mend: Option<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It works.
    Ok,
    /// It works with limits, or whether it works is not known.
    Warn,
    /// It does not work.
    Fail,
}
