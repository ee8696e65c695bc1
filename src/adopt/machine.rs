//! What a definition says of its machine that decides what can be added to it. Read off the text by the parts.

use persona::units::Bytes;

use super::AdoptError;
use crate::hypervisor::DomainDescription;
use crate::hypervisor::tree::Element;

/// A definition with its tree.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) root: &'a Element,
    pub(super) description: &'a DomainDescription,
}

impl<'a> Machine<'a> {
    /// A machine that can be prepared.
    pub(super) fn of(
        root: &'a Element,
        description: &'a DomainDescription,
    ) -> Result<Self, AdoptError> {
        let kind = root.attribute("type").unwrap_or_default();
        if !matches!(kind, "kvm" | "qemu") {
            let kind = kind.to_owned();
            return Err(AdoptError::Kind { kind });
        }
        let system = root.at(&["os", "type"]);
        let word = |name| system.and_then(|system| system.attribute(name));
        let arch = word("arch").unwrap_or("unknown");
        if arch != "x86_64" {
            let arch = arch.to_owned();
            return Err(AdoptError::Architecture { arch });
        }
        let machine = word("machine").unwrap_or("unknown");
        let hot_plug = machine == "q35"
            || machine == "pc"
            || machine.starts_with("pc-")
            // The same machines by the names of an enterprise distribution.
            || machine.starts_with("rhel")
            || machine.starts_with("pc_");
        if !hot_plug {
            let machine = machine.to_owned();
            return Err(AdoptError::MachineType { machine });
        }
        Ok(Self { root, description })
    }

    /// The element that holds the devices.
    pub(super) fn devices(&self) -> Option<&'a Element> {
        self.root.child("devices")
    }

    /// Whether the guest can be told of what is plugged.
    pub(super) fn has_acpi(&self) -> bool {
        self.root.at(&["features", "acpi"]).is_some()
    }

    /// Memory devices of any kind.
    pub(super) fn memory_devices(&self) -> usize {
        self.devices()
            .map_or(0, |devices| devices.all("memory").count())
    }

    /// The size of all memory devices.
    pub(super) fn device_memory(&self) -> Bytes {
        let sizes = self.devices().into_iter().flat_map(|devices| {
            devices
                .all("memory")
                .filter_map(|device| amount(device.at(&["target", "size"])?))
        });
        Bytes(sizes.map(|size| size.0).sum())
    }

    /// Slots of `<maxMemory>`.
    pub(super) fn slots(&self) -> usize {
        self.root
            .child("maxMemory")
            .and_then(|most| most.attribute("slots")?.parse().ok())
            .unwrap_or(0)
    }

    /// The page size that backs its memory, where that is of reserved huge pages; `default` is theirs where none is named.
    pub(super) fn backing_page(&self, default: Option<Bytes>) -> Option<Bytes> {
        let pages = self.root.at(&["memoryBacking", "hugepages"])?;
        let largest = pages.all("page").filter_map(|page| {
            let size: u64 = page.attribute("size")?.parse().ok()?;
            Some(Bytes(size.saturating_mul(unit(page.attribute("unit")))))
        });
        largest.max().or(default).or(Some(Bytes(2 * Bytes::MIB)))
    }

    /// Whether devices of the host are passed through, whose direct memory access has to be mapped block by block.
    pub(super) fn passes_devices_through(&self) -> bool {
        let of_kind = |devices: &Element, name: &str, kinds: &[&str]| {
            devices
                .all(name)
                .any(|device| kinds.contains(&device.attribute("type").unwrap_or_default()))
        };
        self.devices().is_some_and(|devices| {
            devices.child("hostdev").is_some()
                || of_kind(devices, "interface", &["hostdev", "vdpa"])
                || of_kind(devices, "disk", &["nvme", "vhostvdpa"])
        })
    }
}

/// The amount in an element with libvirt's `unit`.
pub(super) fn amount(element: &Element) -> Option<Bytes> {
    let number: u64 = element.text.trim().parse().ok()?;
    Some(Bytes(
        number.saturating_mul(unit(element.attribute("unit"))),
    ))
}

/// Bytes of libvirt's unit of memory; KiB where there is none. libvirt itself writes KiB always.
fn unit(name: Option<&str>) -> u64 {
    match name.unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "M" | "MiB" => Bytes::MIB,
        "G" | "GiB" => Bytes::GIB,
        _ => Bytes::KIB,
    }
}
