//! What a domain is: as it runs, and as its definitions say. `libvirt` reads it from XML, `simulated` makes it up; it is
//! never changed in place, each look at a domain is another one.

use std::path::PathBuf;
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;
use serde::{Deserialize, Serialize};

use super::{Limits, libvirt};

/// The run state of a domain, as far as the daemon tells states apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its vCPUs run.
    Running,
    /// Paused by a person, by an I/O error, or for a migration.
    Paused,
    /// Not running.
    Off,
    /// Crashed, or in a state that the hypervisor does not name.
    Other,
}

/// How the hypervisor emulates the machine: hot-unplug of a vCPU ends differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's software emulation, or another hypervisor.
    Emulated,
}

/// How the instance that runs came to run here, as far as the hypervisor tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// It was started, or nothing else is known.
    #[default]
    Started,
    /// By live migration.
    Migrated,
    /// From a saved state or a snapshot.
    Restored,
}

/// How many bits of physical address a domain's CPU model has. What the machine may hold at most has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressBits {
    /// So many; under hardware virtualisation no more than the host's CPU has.
    Of(u8),
    /// As many as the host's CPU has.
    OfHost,
}

impl AddressBits {
    /// What every 64-bit CPU of this architecture has at least, for a host that does not say.
    pub const LEAST: u8 = 36;

    /// The bits on a host that has so many, where that is known.
    pub fn on(self, acceleration: Acceleration, host: Option<u8>) -> u8 {
        let host = host.unwrap_or(Self::LEAST);
        match (self, acceleration) {
            (Self::Of(bits), Acceleration::Emulated) => bits,
            (Self::Of(bits), Acceleration::Kvm) => bits.min(host),
            (Self::OfHost, _) => host,
        }
    }
}

/// A virtio-mem device of the live definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioMem {
    /// libvirt's alias, by which it is resized.
    pub alias: String,
    /// The guest's NUMA node.
    pub node: u32,
    /// The most that it can plug.
    pub size: Bytes,
    /// The granularity in which it plugs.
    pub block: Bytes,
    /// What was asked for last.
    pub requested: Bytes,
    /// What the guest has plugged.
    pub current: Bytes,
}

/// A network interface of the definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The host's network device that carries its packets; absent where it has none, as in user mode, and while the
    /// domain does not run.
    pub device: Option<String>,
}

/// A domain as its live (or, when off, persistent) definition and libvirt's state describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainDescription {
    /// UUID.
    pub id: DomainId,
    /// Name.
    pub name: String,
    /// libvirt's number of the running instance; changes at each start.
    pub instance: Option<u32>,
    /// Run state.
    pub state: RunState,
    /// How it came to run here.
    pub arrival: Arrival,
    /// The guest's system as its installer noted it (libosinfo), `http://debian.org/debian/12`.
    pub guest_os: Option<String>,
    /// How it is emulated.
    pub acceleration: Acceleration,
    /// vCPUs that the definition allows at most.
    pub vcpus_maximum: u32,
    /// vCPUs plugged.
    pub vcpus_plugged: u32,
    /// vCPUs that can never be unplugged (`hotpluggable='no'`), at least 1.
    pub vcpus_fixed: u32,
    /// vCPU threads are pinned to host CPUs (`<vcpupin>`), so they are never overcommitted.
    pub vcpus_pinned: bool,
    /// Boot memory: what is there without hot-plugged devices and with the balloon deflated.
    pub memory_boot: Bytes,
    /// `<maxMemory>`, absent where memory hot-plug was not prepared.
    pub memory_maximum: Option<Bytes>,
    /// Physical addresses of its CPU model.
    pub address_bits: AddressBits,
    /// NUMA nodes of the guest; memory hot-plug needs at least one.
    pub numa_nodes: u32,
    /// virtio-mem devices.
    pub virtio_mem: Vec<VirtioMem>,
    /// DIMMs beside boot memory, from the start or added since; one that was added goes with the domain's end.
    pub memory_dimms: Bytes,
    /// DIMMs that can still be added: as many as slots are free.
    pub dimm_slots: u32,
    /// Memory left to the guest by the balloon; absent without a working balloon device.
    pub balloon_current: Option<Bytes>,
    /// The balloon device's statistics period; absent when statistics are off.
    pub balloon_period: Option<Duration>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// What limits it beside vCPUs and memory.
    pub limits: Limits,
    /// Whether a virtio-serial controller is there, which a channel added live needs.
    pub virtio_serial: bool,
    /// Host socket of the persona agent's channel.
    pub agent_channel: Option<PathBuf>,
    /// Whether a channel of the QEMU guest agent is there.
    pub qemu_guest_agent: bool,
    /// Tags in the domain's metadata, in document order.
    pub tags: Vec<String>,
    /// The tag metadata element is there but cannot be read; the sentence says why.
    pub tags_problem: Option<String>,
    /// Process of the emulator, for procfs and cgroup figures.
    pub process: Option<u32>,
}

/// A definition: its text, and what that says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// XML, secrets included.
    pub text: String,
    /// What it says; as of a domain that does not run.
    pub description: DomainDescription,
}

impl Definition {
    /// Reads a text.
    ///
    /// # Errors
    /// What is missing or unreadable, as a sentence.
    pub fn read(text: String) -> Result<Self, String> {
        let description = libvirt::read_definition(&text)?;
        Ok(Self { text, description })
    }
}

/// The definitions of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definitions {
    /// What its next start takes; absent for a transient domain.
    pub persistent: Option<Definition>,
    /// What runs; absent while it does not.
    pub live: Option<Definition>,
}
