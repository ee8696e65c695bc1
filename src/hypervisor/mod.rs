//! What the daemon asks of a hypervisor, and what a hypervisor tells the daemon. `libvirt` is the real one,
//! `simulated` the one of tests and of `virt-personad --simulate`. Nothing outside this folder names libvirt or QMP;
//! `adopt` knows what a definition says, and reads and changes its text by `tree` and `edit`.
//!
//! Every call has a deadline and may be slow; calls that change one domain run one after another, calls for
//! different domains do not wait for each other. Nothing here decides anything.

pub mod libvirt;
pub mod limits;
pub mod simulated;

mod description;
pub(crate) mod edit;
mod error;
mod event;
mod meter;
mod queue;
mod stats;
pub(crate) mod tree;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use self::description::{
    Acceleration, AddressBits, Arrival, Definition, Definitions, DomainDescription, Interface,
    RunState, VirtioMem,
};
pub use self::error::{HypervisorError, LibraryError};
pub use self::event::{AcpiSlot, DeviceChange, HypervisorEvent, Lifecycle, PortState};
pub use self::meter::{VcpuMeter, VcpuTimes};
pub use self::stats::{BalloonStats, DiskCounters, DiskStats, DomainStats};
pub use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::units::Bytes;
use serde::{Deserialize, Serialize};

pub use limits::Limits;

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
