//! What libvirt's notices mean: each becomes at most one [`HypervisorEvent`]. Pure, but for the memory of what the last
//! description said, without which the monitor's names of ports can't be read. Called on the event loop's thread.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use persona::domain::DomainId;
use persona::units::Bytes;
use serde::Deserialize;
use virt::sys;

use super::super::{AcpiSlot, DeviceChange, HypervisorEvent, Lifecycle, PortState};
use super::ffi::What;
use super::xml::Read;

/// What is remembered of a domain between its descriptions.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Alias of the persona agent's channel; outer `None` when it has to be looked up.
    agent_alias: Option<Option<String>>,
    /// What each virtio-mem device has plugged.
    virtio_mem: HashMap<String, Bytes>,
}

/// What is remembered of all domains.
#[derive(Debug, Default)]
pub(super) struct Memory {
    domains: Mutex<HashMap<DomainId, Known>>,
}

/// What to do about a notice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Tell this.
    Tell(HypervisorEvent),
    /// A port changed, but whether it is the agent's is not known: describe the domain, then ask again.
    LookUp,
    /// Of no interest.
    Nothing,
}

impl Memory {
    /// Notes what a description said.
    pub(super) fn learn(&self, read: &Read) {
        let description = &read.description;
        let virtio_mem = description.virtio_mem.iter();
        let known = Known {
            agent_alias: Some(read.agent_alias.clone()),
            virtio_mem: virtio_mem
                .map(|device| (device.alias.clone(), device.current))
                .collect(),
        };
        self.lock().insert(description.id, known);
    }

    /// What virtio-mem devices have plugged together; `None` when the domain was never described.
    pub(super) fn virtio_mem(&self, domain: DomainId) -> Option<Bytes> {
        let domains = self.lock();
        let devices = domains.get(&domain)?.virtio_mem.values();
        Some(Bytes(devices.map(|current| current.0).sum()))
    }

    /// Reads a notice.
    pub(super) fn read(&self, domain: DomainId, what: &What) -> Meaning {
        let event = match what {
            What::Lifecycle { event, detail } => {
                let Some(change) = lifecycle(*event, *detail) else {
                    return Meaning::Nothing;
                };
                // Started from another definition or gone: what was known holds no longer. A definition that changes
                // while the domain runs changes nothing live.
                match change {
                    Lifecycle::Suspended
                    | Lifecycle::Resumed
                    | Lifecycle::Arrived
                    | Lifecycle::Defined => {}
                    Lifecycle::Started
                    | Lifecycle::Restored
                    | Lifecycle::Reverting
                    | Lifecycle::Reverted
                    | Lifecycle::Arriving
                    | Lifecycle::Stopped
                    | Lifecycle::Crashed
                    | Lifecycle::Departed
                    | Lifecycle::Undefined => {
                        self.lock().remove(&domain);
                    }
                }
                HypervisorEvent::Lifecycle { domain, change }
            }
            What::Reboot => HypervisorEvent::Rebooted { domain },
            What::Metadata { kind, uri } => HypervisorEvent::MetadataChanged {
                domain,
                // Title and description have no namespace.
                uri: uri
                    .clone()
                    .filter(|_| u32::try_from(*kind) == Ok(sys::VIR_DOMAIN_METADATA_ELEMENT)),
            },
            What::DeviceAdded { alias } => {
                if let Some(known) = self.lock().get_mut(&domain) {
                    known.agent_alias = None;
                }
                device(domain, alias, DeviceChange::Added)
            }
            What::DeviceRemoved { alias } => {
                if let Some(known) = self.lock().get_mut(&domain) {
                    known.agent_alias = None;
                }
                device(domain, alias, DeviceChange::Removed)
            }
            What::DeviceRemovalFailed { alias } => {
                device(domain, alias, DeviceChange::RemovalFailed)
            }
            What::MemoryDevice { alias, kib } => {
                let size = Bytes::from_kib(*kib);
                if let Some(known) = self.lock().get_mut(&domain) {
                    known.virtio_mem.insert(alias.clone(), size);
                }
                device(domain, alias, DeviceChange::Resized(size))
            }
            What::Balloon { kib } => HypervisorEvent::Balloon {
                domain,
                current: Bytes::from_kib(*kib),
            },
            What::Tunable => HypervisorEvent::Tuned { domain },
            What::Monitor { event, details } => {
                return self.monitor(domain, event, details.as_deref().unwrap_or("{}"));
            }
        };
        Meaning::Tell(event)
    }

    fn monitor(&self, domain: DomainId, event: &str, details: &str) -> Meaning {
        match event {
            "RESET" => Meaning::Tell(HypervisorEvent::Rebooted { domain }),
            "ACPI_DEVICE_OST" => match serde_json::from_str::<Acpi>(details) {
                Ok(Acpi { info }) => Meaning::Tell(HypervisorEvent::AcpiStatus {
                    domain,
                    slot: info.slot(),
                    status: info.status,
                }),
                Err(_) => Meaning::Nothing,
            },
            // Of other devices the library tells in its own words; of vCPUs it tells nothing, or not in each version.
            "DEVICE_DELETED" | "DEVICE_UNPLUG_GUEST_ERROR" => {
                match serde_json::from_str::<Deleted>(details) {
                    Ok(Deleted {
                        device: Some(alias),
                    }) if alias.starts_with("vcpu") => {
                        let change = if event == "DEVICE_DELETED" {
                            DeviceChange::Removed
                        } else {
                            DeviceChange::RemovalFailed
                        };
                        Meaning::Tell(device(domain, &alias, change))
                    }
                    Ok(_) | Err(_) => Meaning::Nothing,
                }
            }
            "VSERPORT_CHANGE" => {
                let Ok(Port { id, open }) = serde_json::from_str::<Port>(details) else {
                    return Meaning::Nothing;
                };
                let domains = self.lock();
                match domains.get(&domain).map(|known| &known.agent_alias) {
                    Some(Some(Some(alias))) if *alias == id => {
                        let state = if open {
                            PortState::Open
                        } else {
                            PortState::Closed
                        };
                        Meaning::Tell(HypervisorEvent::AgentPort { domain, state })
                    }
                    Some(Some(_)) => Meaning::Nothing,
                    Some(None) | None => Meaning::LookUp,
                }
            }
            _ => Meaning::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DomainId, Known>> {
        // Each change is one insert or remove, so a panic elsewhere leaves nothing half done.
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Port {
    id: String,
    open: bool,
}

#[derive(Deserialize)]
struct Acpi {
    info: AcpiInfo,
}

#[derive(Deserialize)]
struct AcpiInfo {
    status: u32,
    #[serde(default, rename = "slot-type")]
    slot_type: String,
}

impl AcpiInfo {
    fn slot(&self) -> AcpiSlot {
        match self.slot_type.as_str() {
            "CPU" => AcpiSlot::Vcpu,
            "DIMM" => AcpiSlot::Memory,
            _ => AcpiSlot::Other,
        }
    }
}

#[derive(Deserialize)]
struct Deleted {
    device: Option<String>,
}

fn device(domain: DomainId, alias: &str, change: DeviceChange) -> HypervisorEvent {
    HypervisorEvent::Device {
        domain,
        alias: alias.to_owned(),
        change,
    }
}

/// `virDomainEventType` with its detail. "Shutdown" is the guest's half of a stop, of which the other half is told too. A
/// domain that is renamed is "undefined" under its old name and stays the same domain.
fn lifecycle(event: i32, detail: i32) -> Option<Lifecycle> {
    let detail = u32::try_from(detail).unwrap_or_default();
    let change = match u32::try_from(event).ok()? {
        sys::VIR_DOMAIN_EVENT_DEFINED => Lifecycle::Defined,
        sys::VIR_DOMAIN_EVENT_UNDEFINED => match detail {
            sys::VIR_DOMAIN_EVENT_UNDEFINED_RENAMED => Lifecycle::Defined,
            _ => Lifecycle::Undefined,
        },
        sys::VIR_DOMAIN_EVENT_STARTED => match detail {
            sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED => Lifecycle::Arriving,
            sys::VIR_DOMAIN_EVENT_STARTED_RESTORED => Lifecycle::Restored,
            sys::VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT => Lifecycle::Reverted,
            _ => Lifecycle::Started,
        },
        sys::VIR_DOMAIN_EVENT_SUSPENDED => match detail {
            sys::VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT => Lifecycle::Reverted,
            _ => Lifecycle::Suspended,
        },
        sys::VIR_DOMAIN_EVENT_PMSUSPENDED => Lifecycle::Suspended,
        sys::VIR_DOMAIN_EVENT_RESUMED => match detail {
            sys::VIR_DOMAIN_EVENT_RESUMED_MIGRATED => Lifecycle::Arrived,
            sys::VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT => Lifecycle::Reverted,
            _ => Lifecycle::Resumed,
        },
        sys::VIR_DOMAIN_EVENT_STOPPED => match detail {
            sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED | sys::VIR_DOMAIN_EVENT_STOPPED_FAILED => {
                Lifecycle::Crashed
            }
            sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED => Lifecycle::Departed,
            sys::VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT => Lifecycle::Reverting,
            _ => Lifecycle::Stopped,
        },
        sys::VIR_DOMAIN_EVENT_CRASHED => Lifecycle::Crashed,
        _ => return None,
    };
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::super::super::RunState;
    use super::super::xml::read_domain;
    use super::*;

    const STARTED: &str = include_str!("../../../tests/fixtures/domains/started.xml");
    const GROWN: &str = include_str!("../../../tests/fixtures/domains/grown.xml");

    fn domain() -> DomainId {
        DomainId::parse("51da93fd-10ac-4dab-ac1a-a09d0d4bca20").unwrap()
    }

    fn described(xml: &str) -> Memory {
        let memory = Memory::default();
        memory.learn(&read_domain(xml, RunState::Running).unwrap());
        memory
    }

    fn monitor(event: &str, details: &str) -> What {
        What::Monitor {
            event: event.into(),
            details: Some(details.into()),
        }
    }

    fn lifecycle_event(event: u32) -> What {
        detailed(event, 0)
    }

    #[test]
    fn only_the_agents_port_is_told() {
        let memory = described(STARTED);
        let opened = |id: &str| {
            monitor(
                "VSERPORT_CHANGE",
                &format!(r#"{{"open":true,"id":"{id}"}}"#),
            )
        };
        assert_eq!(
            memory.read(domain(), &opened("channel0")),
            Meaning::Tell(HypervisorEvent::AgentPort {
                domain: domain(),
                state: PortState::Open
            })
        );
        assert_eq!(memory.read(domain(), &opened("channel1")), Meaning::Nothing);
    }

    #[test]
    fn a_port_is_looked_up_when_its_name_may_have_changed() {
        let closed = monitor("VSERPORT_CHANGE", r#"{"open":false,"id":"channel0"}"#);
        assert_eq!(Memory::default().read(domain(), &closed), Meaning::LookUp);
        for change in [
            lifecycle_event(sys::VIR_DOMAIN_EVENT_STARTED),
            What::DeviceAdded {
                alias: "channel2".into(),
            },
            What::DeviceRemoved {
                alias: "channel0".into(),
            },
        ] {
            let memory = described(STARTED);
            memory.read(domain(), &change);
            assert_eq!(
                memory.read(domain(), &closed),
                Meaning::LookUp,
                "{change:?}"
            );
        }
    }

    #[test]
    fn the_guests_word_on_a_hot_plug_is_told() {
        // As QEMU 7.2 sends it when the guest refuses to let a vCPU go.
        let refused = monitor(
            "ACPI_DEVICE_OST",
            r#"{"info":{"device":"vcpu1","source":3,"status":130,"slot":"1","slot-type":"CPU"}}"#,
        );
        assert_eq!(
            Memory::default().read(domain(), &refused),
            Meaning::Tell(HypervisorEvent::AcpiStatus {
                domain: domain(),
                slot: AcpiSlot::Vcpu,
                status: 130
            })
        );
    }

    #[test]
    fn a_vcpu_that_went_is_told_and_other_devices_are_left_to_the_library() {
        let read = |event, details| Memory::default().read(domain(), &monitor(event, details));
        let deleted = r#"{"device":"vcpu2","path":"/machine/peripheral/vcpu2"}"#;
        assert_eq!(
            read("DEVICE_DELETED", deleted),
            Meaning::Tell(device(domain(), "vcpu2", DeviceChange::Removed))
        );
        assert_eq!(
            read("DEVICE_UNPLUG_GUEST_ERROR", deleted),
            Meaning::Tell(device(domain(), "vcpu2", DeviceChange::RemovalFailed))
        );
        for details in [
            r#"{"path":"/machine/peripheral/vcpu2/lapic"}"#,
            r#"{"device":"net1","path":"/machine/peripheral/net1"}"#,
        ] {
            assert_eq!(read("DEVICE_DELETED", details), Meaning::Nothing);
        }
    }

    #[test]
    fn monitor_events_that_cannot_be_read_are_passed_over() {
        let memory = described(STARTED);
        for (event, details) in [
            ("VSERPORT_CHANGE", "{}"),
            ("VSERPORT_CHANGE", "no json"),
            ("ACPI_DEVICE_OST", r#"{"info":{"status":-1}}"#),
            ("STOP", "{}"),
        ] {
            assert_eq!(
                memory.read(domain(), &monitor(event, details)),
                Meaning::Nothing,
                "{event} {details}"
            );
        }
    }

    #[test]
    fn plugged_memory_is_known_from_the_description_and_then_from_events() {
        assert_eq!(Memory::default().virtio_mem(domain()), None);
        let memory = described(GROWN);
        assert_eq!(memory.virtio_mem(domain()), Some(Bytes::from_mib(256)));
        let resized = What::MemoryDevice {
            alias: "virtiomem0".into(),
            kib: 524_288,
        };
        assert_eq!(
            memory.read(domain(), &resized),
            Meaning::Tell(HypervisorEvent::Device {
                domain: domain(),
                alias: "virtiomem0".into(),
                change: DeviceChange::Resized(Bytes::from_mib(512)),
            })
        );
        assert_eq!(memory.virtio_mem(domain()), Some(Bytes::from_mib(512)));
        memory.read(domain(), &lifecycle_event(sys::VIR_DOMAIN_EVENT_STOPPED));
        assert_eq!(memory.virtio_mem(domain()), None);
    }

    fn detailed(event: u32, detail: u32) -> What {
        What::Lifecycle {
            event: i32::try_from(event).unwrap(),
            detail: i32::try_from(detail).unwrap(),
        }
    }

    #[test]
    fn the_detail_tells_migrations_reverts_crashes_and_renames_from_starts_and_stops() {
        let check = |event: u32, detail: u32, expected: Lifecycle| {
            let meaning = Memory::default().read(domain(), &detailed(event, detail));
            let told = Meaning::Tell(HypervisorEvent::Lifecycle {
                domain: domain(),
                change: expected,
            });
            assert_eq!(meaning, told, "{event} {detail}");
        };
        use Lifecycle::{
            Arrived, Arriving, Crashed, Defined, Departed, Restored, Resumed, Reverted, Reverting,
            Stopped, Suspended,
        };
        let (started, stopped) = (sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STOPPED);
        let (suspended, resumed) = (
            sys::VIR_DOMAIN_EVENT_SUSPENDED,
            sys::VIR_DOMAIN_EVENT_RESUMED,
        );
        check(started, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED, Arriving);
        check(resumed, sys::VIR_DOMAIN_EVENT_RESUMED_MIGRATED, Arrived);
        check(
            suspended,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
            Suspended,
        );
        check(stopped, sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED, Departed);
        check(started, sys::VIR_DOMAIN_EVENT_STARTED_RESTORED, Restored);
        check(stopped, sys::VIR_DOMAIN_EVENT_STOPPED_SAVED, Stopped);
        check(
            stopped,
            sys::VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT,
            Reverting,
        );
        check(
            started,
            sys::VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT,
            Reverted,
        );
        check(
            resumed,
            sys::VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT,
            Reverted,
        );
        check(
            suspended,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT,
            Reverted,
        );
        check(resumed, sys::VIR_DOMAIN_EVENT_RESUMED_UNPAUSED, Resumed);
        check(stopped, sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED, Crashed);
        check(stopped, sys::VIR_DOMAIN_EVENT_STOPPED_FAILED, Crashed);
        check(sys::VIR_DOMAIN_EVENT_CRASHED, 0, Crashed);
        check(
            sys::VIR_DOMAIN_EVENT_UNDEFINED,
            sys::VIR_DOMAIN_EVENT_UNDEFINED_RENAMED,
            Defined,
        );
    }

    #[test]
    fn each_change_of_a_domains_life_is_told_once() {
        let check = |event: u32, expected: Option<Lifecycle>| {
            let meaning = Memory::default().read(domain(), &lifecycle_event(event));
            let expected = expected.map_or(Meaning::Nothing, |change| {
                Meaning::Tell(HypervisorEvent::Lifecycle {
                    domain: domain(),
                    change,
                })
            });
            assert_eq!(meaning, expected, "{event}");
        };
        check(sys::VIR_DOMAIN_EVENT_DEFINED, Some(Lifecycle::Defined));
        check(sys::VIR_DOMAIN_EVENT_UNDEFINED, Some(Lifecycle::Undefined));
        check(sys::VIR_DOMAIN_EVENT_STARTED, Some(Lifecycle::Started));
        check(sys::VIR_DOMAIN_EVENT_SUSPENDED, Some(Lifecycle::Suspended));
        check(sys::VIR_DOMAIN_EVENT_RESUMED, Some(Lifecycle::Resumed));
        check(sys::VIR_DOMAIN_EVENT_SHUTDOWN, None);
        check(sys::VIR_DOMAIN_EVENT_STOPPED, Some(Lifecycle::Stopped));
        check(99, None);
    }

    #[test]
    fn metadata_of_an_element_carries_its_namespace() {
        let changed = |kind: i32, uri: Option<&str>| What::Metadata {
            kind,
            uri: uri.map(Into::into),
        };
        let told = |uri: Option<&str>| {
            Meaning::Tell(HypervisorEvent::MetadataChanged {
                domain: domain(),
                uri: uri.map(Into::into),
            })
        };
        let memory = Memory::default();
        assert_eq!(
            memory.read(domain(), &changed(2, Some("urn:a"))),
            told(Some("urn:a"))
        );
        assert_eq!(memory.read(domain(), &changed(0, None)), told(None));
    }
}
