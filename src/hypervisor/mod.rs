//! What the daemon asks of a hypervisor, and what a hypervisor tells the daemon. `libvirt` is the real one,
//! `simulated` the one of tests and of `virt-personad --simulate`. Nothing outside this folder names libvirt or QMP;
//! `adopt` knows what a definition says, and reads and changes its text by `tree` and `edit`.
//!
//! Every call has a deadline and may be slow; calls that change one domain run one after another, calls for
//! different domains do not wait for each other. Nothing here decides anything.

pub mod libvirt;
pub mod limits;
pub mod simulated;

pub(crate) mod edit;
mod meter;
mod queue;
pub(crate) mod tree;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

pub use self::meter::{VcpuMeter, VcpuTimes};
pub use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::units::Bytes;
use serde::{Deserialize, Serialize};

pub use limits::Limits;

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

/// Figures of one domain from the bulk call, without waiting for its monitor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainStats {
    /// vCPUs plugged.
    pub vcpus_plugged: Option<u32>,
    /// What the balloon knows.
    pub balloon: BalloonStats,
    /// Disks; `None` where the hypervisor tells nothing of them.
    pub disks: Option<Vec<DiskStats>>,
}

/// One disk, CD-ROM drives and the like included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// The name that the definition gives it in the guest, such as `vda`.
    pub target: String,
    /// What the emulator has counted; absent where it could not be asked, or does not count this disk.
    pub counters: Option<DiskCounters>,
}

/// What the emulator has counted of a disk since it was attached. Requests count when they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Bytes read.
    pub read: Bytes,
    /// Bytes written.
    pub written: Bytes,
    /// Time from begin to end, summed over all read requests.
    pub read_time: Duration,
    /// The same of all write requests.
    pub write_time: Duration,
}

/// The balloon device's view of the guest's memory: the guest kernel's own claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStats {
    /// Memory left to the guest by the balloon.
    pub current: Option<Bytes>,
    /// MemTotal of the guest.
    pub available: Option<Bytes>,
    /// MemAvailable of the guest.
    pub usable: Option<Bytes>,
    /// When the guest last updated these, Unix seconds.
    pub last_update: Option<u64>,
    /// Major faults since boot.
    pub major_faults: Option<u64>,
    /// Bytes swapped in since boot.
    pub swap_in: Option<Bytes>,
    /// Resident size of the emulator on the host.
    pub rss: Option<Bytes>,
}

/// A group of vCPUs that can be plugged as one, from `query-hotpluggable-cpus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotpluggableVcpu {
    /// vCPUs in the group.
    pub vcpus: u32,
    /// QOM path where it is plugged.
    pub plugged: Option<String>,
}

/// Facts of the host that bound what all domains may have together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Logical CPUs that are online.
    pub cores: u32,
    /// Memory of the host.
    pub memory: Bytes,
    /// Version of the management library's daemon, `9.0.0`.
    pub library_version: String,
    /// Version of the emulator, `7.2.22`.
    pub emulator_version: String,
}

/// Which metadata element is meant; each has its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetadataElement {
    /// `https://virtpersona.org/xmlns/domain/1`: tags, set by people.
    Tags,
    /// `https://virtpersona.org/xmlns/status/1`: the active persona, set by the daemon.
    Status,
}

impl MetadataElement {
    /// The namespace URI, by which libvirt keys the element.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Tags => "https://virtpersona.org/xmlns/domain/1",
            Self::Status => "https://virtpersona.org/xmlns/status/1",
        }
    }

    /// The XML prefix.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Tags => "vp",
            Self::Status => "vps",
        }
    }
}

/// What happened, told by the hypervisor without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HypervisorEvent {
    /// The connection is there (again): everything may have changed meanwhile.
    Connected,
    /// The connection is lost; it is being re-established with back-off.
    Disconnected {
        /// Why, as a sentence.
        reason: String,
    },
    /// A domain was defined, undefined, started, stopped, paused or resumed: describe it again.
    Lifecycle {
        /// Which.
        domain: DomainId,
        /// What.
        change: Lifecycle,
    },
    /// The guest rebooted or was reset; one reset may give several of these.
    Rebooted {
        /// Which.
        domain: DomainId,
    },
    /// Its metadata changed.
    MetadataChanged {
        /// Which.
        domain: DomainId,
        /// Namespace of the element, where it is told.
        uri: Option<String>,
    },
    /// A device was added, removed, or refused its removal; or a memory device changed its size.
    Device {
        /// Which.
        domain: DomainId,
        /// libvirt's alias, possibly the backend's.
        alias: String,
        /// What.
        change: DeviceChange,
    },
    /// The balloon reached a size.
    Balloon {
        /// Which.
        domain: DomainId,
        /// Memory left to the guest.
        current: Bytes,
    },
    /// The guest opened or closed the port of the persona agent.
    AgentPort {
        /// Which.
        domain: DomainId,
        /// Its state now.
        state: PortState,
    },
    /// Its weight, its cap or a limit of its disks was set, by whomever: describe it again.
    Tuned {
        /// Which.
        domain: DomainId,
    },
    /// ACPI's word of the guest on a vCPU or memory operation.
    AcpiStatus {
        /// Which.
        domain: DomainId,
        /// Of what kind of device.
        slot: AcpiSlot,
        /// `ACPI_DEVICE_OST` status: 0 done, 130 refused, 132 in progress.
        status: u32,
    },
}

/// What became of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Defined or redefined.
    Defined,
    /// No longer defined.
    Undefined,
    /// Started from its definition.
    Started,
    /// Started from a saved state: the guest goes on where it was.
    Restored,
    /// Stopped, because it goes back to a snapshot: what runs next, if anything does, is as it was then.
    Reverting,
    /// It is as it was when a snapshot of it was taken, in the same or in another emulator. One revert may be told twice: that
    /// the machine is there, and that it runs or is paused.
    Reverted,
    /// It is about to come from another host.
    Arriving,
    /// It has come from another host and runs here.
    Arrived,
    /// Paused.
    Suspended,
    /// Runs again.
    Resumed,
    /// Stopped, saved or shut down.
    Stopped,
    /// Ended by itself and not as it should: the guest's panic, or the emulator's.
    Crashed,
    /// It has gone to another host.
    Departed,
}

/// What became of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// Added.
    Added,
    /// Removed.
    Removed,
    /// The guest refused the removal.
    RemovalFailed,
    /// A memory device has this size in the guest.
    Resized(Bytes),
}

/// The kind of device on which a guest reports by ACPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiSlot {
    /// A vCPU.
    Vcpu,
    /// A DIMM.
    Memory,
    /// Something else.
    Other,
}

/// Whether the guest has a port open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Open.
    Open,
    /// Closed.
    Closed,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The connection is down.
    #[error(
        "the hypervisor is not reachable, so `{operation}` was not tried; is libvirtd running?"
    )]
    NotConnected {
        /// The call.
        operation: &'static str,
    },
    /// The call did not end in time; whether it took effect is not known.
    #[error(
        "`{operation}` of domain {domain} did not end within {seconds} s; whether it took effect is not known"
    )]
    TimedOut {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
        /// The deadline.
        seconds: u64,
    },
    /// Earlier calls for this domain still hang, so this one was not started.
    #[error(
        "`{operation}` of domain {domain} was not tried because an earlier call to its monitor still hangs"
    )]
    Busy {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
    },
    /// There is no such domain (any more).
    #[error("there is no domain {domain}")]
    NoDomain {
        /// Which.
        domain: String,
    },
    /// The hypervisor refused; its own words are the source.
    #[error("`{operation}` of domain {domain} failed")]
    Failed {
        /// The call.
        operation: &'static str,
        /// Which domain, or `-` for the host.
        domain: String,
        /// The library's own words.
        #[source]
        source: LibraryError,
    },
    /// The connection broke while the call ran; whether it took effect is not known.
    #[error(
        "the connection broke during `{operation}` of domain {domain}; whether it took effect is not known"
    )]
    Lost {
        /// The call.
        operation: &'static str,
        /// Which domain, or `-` for the host.
        domain: String,
        /// The library's own words.
        #[source]
        source: LibraryError,
    },
    /// No thread is free for the call, so it was not started.
    #[error(
        "`{operation}` of domain {domain} was not tried because {calls} earlier calls still hang; is libvirtd stuck?"
    )]
    Overloaded {
        /// The call.
        operation: &'static str,
        /// Which domain, or `-` for the host.
        domain: String,
        /// How many calls may run at once.
        calls: usize,
    },
    /// The domain has no such device (any more).
    #[error("`{operation}` of domain {domain} was not tried because it has no device `{alias}`")]
    NoDevice {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
        /// The alias that was asked for.
        alias: String,
    },
    /// The definition is no longer the one that was to be replaced.
    #[error(
        "`{operation}` of domain {domain} was not tried because its definition was changed meanwhile"
    )]
    DefinitionChanged {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
    },
    /// The hypervisor answered something that cannot be understood.
    #[error("`{operation}` of domain {domain} gave an answer that cannot be read: {detail}")]
    BadAnswer {
        /// The call.
        operation: &'static str,
        /// Which domain.
        domain: String,
        /// What was wrong with it.
        detail: String,
    },
}

impl HypervisorError {
    /// Whether the call was not tried because nothing at all can be: it says nothing of the domain.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::NotConnected { .. })
    }

    /// Whether the call may have taken effect all the same, so that only a look at the domain tells.
    pub const fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Lost { .. } | Self::BadAnswer { .. } => true,
            Self::NotConnected { .. }
            | Self::Busy { .. }
            | Self::Overloaded { .. }
            | Self::NoDomain { .. }
            | Self::NoDevice { .. }
            | Self::DefinitionChanged { .. }
            | Self::Failed { .. } => false,
        }
    }
}

/// The words of the management library, free of its types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LibraryError {
    /// The library's message.
    pub message: String,
    /// Its error number (`virErrorNumber`), where it has one.
    pub code: Option<u32>,
}

/// An answer in the making.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, HypervisorError>> + Send + 'a>>;

/// A hypervisor. Each call returns within its deadline or fails as [`HypervisorError::TimedOut`].
pub trait Hypervisor: Send + Sync + 'static {
    /// What the host has.
    fn host(&self) -> Answer<'_, HostFacts>;
    /// All domains, running or not.
    fn domains(&self) -> Answer<'_, Vec<DomainDescription>>;
    /// One domain.
    fn describe(&self, domain: DomainId) -> Answer<'_, DomainDescription>;
    /// Figures of all running domains, in one call that waits for none of them.
    fn bulk_stats(&self) -> Answer<'_, Vec<(DomainId, DomainStats)>>;
    /// Sets the number of plugged vCPUs of the running domain. Growing returns when plugged; shrinking may time out.
    fn set_vcpus(&self, domain: DomainId, count: u32) -> Answer<'_, ()>;
    /// Asks a virtio-mem device for a size; returns when asked, not when the guest has followed.
    fn set_virtio_mem(&self, domain: DomainId, alias: String, requested: Bytes) -> Answer<'_, ()>;
    /// Adds a DIMM of this size to the guest's first NUMA node; returns when the device is there, not when the guest has
    /// taken it over.
    fn attach_dimm(&self, domain: DomainId, size: Bytes) -> Answer<'_, ()>;
    /// Sets the balloon's target; returns when asked, not when the guest has followed.
    fn set_balloon(&self, domain: DomainId, target: Bytes) -> Answer<'_, ()>;
    /// Turns the balloon's statistics on with this period.
    fn set_balloon_period(&self, domain: DomainId, period: Duration) -> Answer<'_, ()>;
    /// What the emulator itself says of its vCPUs: for reconciling a time-out, because the library may be wrong.
    fn hotpluggable_vcpus(&self, domain: DomainId) -> Answer<'_, Vec<HotpluggableVcpu>>;
    /// Turns a knob of the running domain; its next start takes its own definition.
    fn set_limit(&self, domain: DomainId, knob: Knob, to: KnobValue) -> Answer<'_, ()>;
    /// What limits the running domain as the kernel and the emulator themselves show it, where they can be asked: the
    /// library's own record of it may be wrong.
    fn limits(&self, domain: DomainId) -> Answer<'_, Limits>;
    /// Writes (`Some`) or removes a metadata element of the live and the persistent definition.
    fn set_metadata(
        &self,
        domain: DomainId,
        element: MetadataElement,
        xml: Option<String>,
    ) -> Answer<'_, ()>;
    /// The definitions as text, the persistent one with its secrets.
    fn definitions(&self, domain: DomainId) -> Answer<'_, Definitions>;
    /// Puts `to` in the place of the persistent definition if that is `from` still, after the hypervisor has checked it,
    /// and gives it as the hypervisor keeps it.
    fn redefine(&self, domain: DomainId, from: String, to: String) -> Answer<'_, Definition>;
    /// Gives the running domain a device, and its persistent definition none.
    fn attach_device(&self, domain: DomainId, device: String) -> Answer<'_, ()>;
    /// Sends a command (qemu-ga-ref(7), JSON as text) to the guest's qemu-guest-agent and gives its answer. What that agent
    /// refuses is an error in its own words. An agent that is not there is noticed within `deadline`.
    fn guest_agent_command(
        &self,
        domain: DomainId,
        command: String,
        deadline: Duration,
    ) -> Answer<'_, String>;
}

/// How events arrive: unbounded, because the callbacks that send them must never block.
pub type Events = tokio::sync::mpsc::UnboundedReceiver<HypervisorEvent>;
