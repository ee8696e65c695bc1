//! What a hypervisor tells without being asked. `daemon` takes them in, one after the other.

use persona::domain::DomainId;
use persona::units::Bytes;

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
