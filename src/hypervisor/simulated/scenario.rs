//! What a simulated host consists of, as a TOML file says it. Nothing runs here. Read by `virt-personad --simulate FILE`
//! and written by hand in tests.
//!
//! ```toml
//! deadline_ms = 500            # how long a call may take
//!
//! [host]
//! cores = 4
//! memory_mib = 8192
//!
//! [[domain]]
//! name = "web"
//! vcpus_maximum = 4
//! memory_mib = 512
//! tags = ["web"]
//! virtio_mem = [{ alias = "virtiomem0", size_mib = 1024 }]
//! interfaces = ["vnet0"]
//! disks = [{ target = "vda", reads_per_s = 200, writes_per_s = 50 }]
//! agent_channel = "/tmp/sim/web.sock"
//! guest = { agent = "simulated", unplug = "times-out" }
//! load = { cpu = { curve = "sine", low = 0.2, high = 3.0, period_s = 600 }, memory = { curve = "constant", value = 200 } }
//! spells = [{ from_s = 60, until_s = 120, how = "claims-cpus" }]
//! faults = [{ call = "set-vcpus", fault = "refuse", message = "no" }]
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;
use serde::Deserialize;

use super::super::limits::{DiskLimits, InterfaceLimits, Limits};
use super::super::{
    Acceleration, Arrival, DiskCounters, DiskStats, HostFacts, RunState, VirtioMem,
};
use super::conduct::Spell;
use super::fault::{CallName, Fault};
use super::load::Load;

/// A host and its domains.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// How long a call may take, in milliseconds; short, so that tests of time-outs are.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// The host.
    #[serde(default)]
    pub host: Host,
    /// Its domains.
    #[serde(default, rename = "domain")]
    pub domains: Vec<Domain>,
}

/// The host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Logical CPUs.
    pub cores: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

/// A domain.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Name.
    pub name: String,
    /// UUID; one made of its place in the file when it is left out.
    pub id: Option<DomainId>,
    /// Run state at the beginning.
    #[serde(default = "running")]
    pub state: RunState,
    /// How it is emulated.
    #[serde(default = "emulated")]
    pub acceleration: Acceleration,
    /// vCPUs at most.
    #[serde(default = "one")]
    pub vcpus_maximum: u32,
    /// vCPUs at each start.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// vCPUs that can't be unplugged.
    #[serde(default = "one")]
    pub vcpus_fixed: u32,
    /// Whether vCPU threads are pinned.
    #[serde(default)]
    pub vcpus_pinned: bool,
    /// Boot memory, in MiB.
    pub memory_mib: u64,
    /// Memory in DIMMs besides, in MiB.
    #[serde(default)]
    pub dimms_mib: u64,
    /// How it came to run.
    #[serde(default)]
    pub arrival: Arrival,
    /// The guest's system as its installer noted it.
    pub guest_os: Option<String>,
    /// `<maxMemory>`, in MiB.
    pub memory_maximum_mib: Option<u64>,
    /// Free slots for DIMMs.
    #[serde(default)]
    pub dimm_slots: u32,
    /// NUMA nodes of the guest.
    #[serde(default = "one")]
    pub numa_nodes: u32,
    /// virtio-mem devices.
    #[serde(default)]
    pub virtio_mem: Vec<Device>,
    /// Disks.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Devices of the host that carry its network interfaces' packets; an empty name is an interface in user mode, which
    /// has none.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// The balloon device.
    #[serde(default)]
    pub balloon: Balloon,
    /// Whether a virtio-serial controller is there.
    #[serde(default = "yes")]
    pub virtio_serial: bool,
    /// Socket of the persona agent's channel.
    pub agent_channel: Option<PathBuf>,
    /// Whether a channel of the QEMU guest agent is there.
    #[serde(default)]
    pub qemu_guest_agent: bool,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A process to be observed in place of the emulator.
    pub process: Option<u32>,
    /// How its guest behaves.
    #[serde(default)]
    pub guest: Guest,
    /// What its guest has to do over time.
    #[serde(default)]
    pub load: Load,
    /// When its guest misbehaves. Spells that overlap end with the end of the first.
    #[serde(default)]
    pub spells: Vec<Spell>,
    /// What goes wrong, in order; each once.
    #[serde(default)]
    pub faults: Vec<Planned>,
}

/// A virtio-mem device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Alias.
    pub alias: String,
    /// The guest's NUMA node.
    #[serde(default)]
    pub node: u32,
    /// The most that it can plug, in MiB.
    pub size_mib: u64,
    /// Granularity, in MiB.
    #[serde(default = "two")]
    pub block_mib: u64,
}

/// A disk under a load that never changes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name in the guest.
    pub target: String,
    /// Read requests a second.
    #[serde(default)]
    pub reads_per_s: u64,
    /// Write requests a second.
    #[serde(default)]
    pub writes_per_s: u64,
}

/// The balloon device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balloon {
    /// There, with statistics each second.
    #[default]
    Statistics,
    /// There, statistics off.
    Silent,
    /// Not there.
    None,
}

/// How a guest behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guest {
    /// Memory in use, in MiB: below it virtio-mem and the balloon cannot shrink the guest.
    pub memory_used_mib: u64,
    /// Time of each quarter of the way to a requested size of memory, in milliseconds.
    pub follow_ms: u64,
    /// How the unplug of a vCPU ends.
    pub unplug: Unplug,
    /// Who answers on the agent's channel.
    pub agent: Agent,
}

/// Who answers on the agent's channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agent {
    /// Nobody, or somebody from outside: the real agent can be started on the socket.
    #[default]
    None,
    /// An agent in the simulated guest, on the socket that `agent_channel` names.
    Simulated,
}

/// How the unplug of a vCPU ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unplug {
    /// As asked.
    #[default]
    Completes,
    /// As under software emulation: the guest lets one vCPU go, the library does not learn of it, waits in vain and then
    /// refuses each further change of vCPUs until it is connected anew.
    TimesOut,
    /// The guest refuses (ACPI status 130), and the library waits in vain.
    Refused,
    /// The guest says nothing, and the library waits in vain.
    Ignored,
}

/// A fault of the beginning.
#[derive(Clone, Debug, Deserialize)]
pub struct Planned {
    /// Of which call.
    pub call: CallName,
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            cores: 4,
            memory_mib: 8192,
        }
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory_used_mib: 0,
            follow_ms: 20,
            unplug: Unplug::default(),
            agent: Agent::default(),
        }
    }
}

fn deadline_ms() -> u64 {
    500
}

fn running() -> RunState {
    RunState::Running
}

fn emulated() -> Acceleration {
    Acceleration::Emulated
}

fn one() -> u32 {
    1
}

fn two() -> u64 {
    2
}

fn yes() -> bool {
    true
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a scenario.
    #[error("the scenario cannot be understood")]
    Parse {
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// An agent without a channel.
    #[error("the domain {domain} has a simulated agent and no `agent_channel` for its socket")]
    NoChannel {
        /// Which domain.
        domain: String,
    },
}

impl Scenario {
    /// Parses the text of a scenario file.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Parse`], with line and column in its source, and [`ScenarioError::NoChannel`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|source| ScenarioError::Parse { source })?;
        let mut domains = scenario.domains.iter();
        match domains.find(|domain| domain.lacks_channel()) {
            Some(domain) => Err(ScenarioError::NoChannel {
                domain: domain.name.clone(),
            }),
            None => Ok(scenario),
        }
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`].
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// How long a call may take.
    pub(super) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl Domain {
    fn lacks_channel(&self) -> bool {
        self.guest.agent == Agent::Simulated && self.agent_channel.is_none()
    }
}

impl Host {
    pub(super) fn facts(&self) -> HostFacts {
        HostFacts {
            cores: self.cores,
            memory: Bytes::from_mib(self.memory_mib),
            library_version: "9.0.0".into(),
            emulator_version: "7.2.0".into(),
        }
    }
}

impl Domain {
    /// Nothing limits it, whatever devices it has.
    pub(super) fn limits(&self) -> Limits {
        let interface = |name: &String| InterfaceLimits {
            device: Some(name.clone()).filter(|name| !name.is_empty()),
            ..InterfaceLimits::default()
        };
        let disk = |disk: &Disk| DiskLimits {
            target: disk.target.clone(),
            ..DiskLimits::default()
        };
        Limits {
            interfaces: self.interfaces.iter().map(interface).collect(),
            disks: self.disks.iter().map(disk).collect(),
            ..Limits::default()
        }
    }
}

impl Disk {
    /// Bytes of each request.
    const REQUEST: u64 = 4096;
    /// Time of each request.
    const TIME_MS: u64 = 2;

    /// What is counted after so long a time of the load.
    pub(super) fn stats(&self, time: Duration) -> DiskStats {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let requests = |a_second: u64| a_second.saturating_mul(millis) / 1_000;
        let (reads, writes) = (requests(self.reads_per_s), requests(self.writes_per_s));
        let bytes = |requests: u64| Bytes(requests.saturating_mul(Self::REQUEST));
        let time = |requests: u64| Duration::from_millis(requests.saturating_mul(Self::TIME_MS));
        DiskStats {
            target: self.target.clone(),
            counters: Some(DiskCounters {
                reads,
                writes,
                read: bytes(reads),
                written: bytes(writes),
                read_time: time(reads),
                write_time: time(writes),
            }),
        }
    }
}

impl Device {
    /// The device at a start: nothing is plugged.
    pub(super) fn empty(&self) -> VirtioMem {
        VirtioMem {
            alias: self.alias.clone(),
            node: self.node,
            size: Bytes::from_mib(self.size_mib),
            block: Bytes::from_mib(self.block_mib),
            requested: Bytes(0),
            current: Bytes(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_scenario_is_understood() {
        let source = include_str!("scenario.rs");
        let text: String = source
            .lines()
            .skip_while(|line| !line.contains("```toml"))
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .map(|line| format!("{}\n", line.trim_start_matches("//!")))
            .collect();
        let scenario = Scenario::parse(&text).unwrap();
        let web = &scenario.domains[0];
        assert_eq!(web.guest.unplug, Unplug::TimesOut);
        assert_eq!(web.virtio_mem[0].block_mib, 2);
        assert_eq!(web.disks[0].reads_per_s, 200);
        assert_eq!(web.faults[0].call, CallName::SetVcpus);
        assert_eq!(
            web.faults[0].fault,
            Fault::Refuse {
                message: "no".into()
            }
        );
    }

    #[test]
    fn a_word_that_is_not_known_is_an_error_with_its_line() {
        let error = Scenario::parse("[host]\ncors = 4\n").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("line 2"), "{source}");
        assert!(source.contains("cors"), "{source}");
    }
}
