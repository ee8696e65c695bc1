//! libvirt's domain XML read into a [`DomainDescription`], and the one piece of it that is written back: a virtio-mem
//! device with another requested size. Elements that are not known are passed over; what is known must be as libvirt
//! documents it (formatdomain). Called by the libvirt hypervisor.

use std::path::PathBuf;
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;

use super::super::tree::{Element, parse};
use super::super::{
    Acceleration, AddressBits, Arrival, DomainDescription, Interface, MetadataElement, RunState,
    VirtioMem,
};
use super::tune;

/// The virtio-serial port of the persona agent.
pub(super) const AGENT_PORT: &str = "org.virtpersona.agent.0";
/// The virtio-serial port of the QEMU guest agent.
const QEMU_GUEST_AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// A description, and what only this folder needs.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) description: DomainDescription,
    /// Alias of the persona agent's channel, by which the monitor names it.
    pub(super) agent_alias: Option<String>,
}

/// Reads a domain. `state` comes from libvirt and not from the XML; the process is left open.
///
/// # Errors
///
/// What is missing or unreadable, as a sentence.
pub(super) fn read_domain(xml: &str, state: RunState) -> Result<Read, String> {
    let domain = parse(xml)?;
    if domain.name != "domain" {
        return Err(format!(
            "the root element is `{}` instead of `domain`",
            domain.name
        ));
    }
    let id = required(&domain, "uuid")?;
    let id = DomainId::parse(id).ok_or_else(|| format!("the UUID `{id}` cannot be read"))?;
    let name = required(&domain, "name")?.to_owned();
    let instance = domain.attribute("id").and_then(|id| id.parse().ok());
    let acceleration = match domain.attribute("type") {
        Some("kvm") => Acceleration::Kvm,
        _ => Acceleration::Emulated,
    };

    let vcpu = domain.child("vcpu").ok_or("there is no `vcpu` element")?;
    let vcpus_maximum = number(&vcpu.text, "vcpu")?;
    let vcpus_plugged = match vcpu.attribute("current") {
        Some(current) => number(current, "vcpu current")?,
        None => vcpus_maximum,
    };

    let none = Element::default();
    let devices = domain.child("devices").unwrap_or(&none);
    let cells = domain.at(&["cpu", "numa"]).map_or(0, |numa| {
        u32::try_from(numa.all("cell").count()).unwrap_or(u32::MAX)
    });
    let virtio_mem = devices
        .all("memory")
        .filter(|device| device.attribute("model") == Some("virtio-mem"))
        .map(read_virtio_mem)
        .collect::<Result<Vec<_>, _>>()?;
    let plugged_by_virtio_mem: u64 = virtio_mem.iter().map(|device| device.current.0).sum();

    let balloon = devices.child("memballoon").filter(|device| {
        device
            .attribute("model")
            .is_none_or(|model| model != "none")
    });
    let balloon_current = match (balloon, domain.child("currentMemory")) {
        // libvirt adds what virtio-mem has plugged to the balloon's own figure, and takes it for nothing when it sets it.
        (Some(_), Some(current)) => {
            let left = memory(current)?.saturating_sub(Bytes(plugged_by_virtio_mem));
            // A definition that does not run may count the devices at their full size.
            Some(match state {
                RunState::Off => left.min(without_virtio_mem(&domain, &virtio_mem)?),
                _ => left,
            })
        }
        _ => None,
    };
    let balloon_period = balloon
        .and_then(|device| device.child("stats"))
        .and_then(|stats| stats.attribute("period"))
        .and_then(|period| period.parse().ok())
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);

    let agent = channel(devices, AGENT_PORT);
    let (tags, tags_problem) = match read_tags(&domain) {
        Ok(tags) => (tags, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };

    Ok(Read {
        agent_alias: agent
            .and_then(|channel| channel.at(&["alias"]))
            .and_then(|alias| alias.attribute("name"))
            .map(Into::into),
        description: DomainDescription {
            id,
            name,
            instance,
            state,
            arrival: Arrival::Started,
            guest_os: guest_os(&domain),
            acceleration,
            vcpus_maximum,
            vcpus_plugged,
            vcpus_fixed: fixed_vcpus(&domain, vcpus_plugged, vcpus_maximum),
            vcpus_pinned: domain
                .child("cputune")
                .is_some_and(|tune| tune.child("vcpupin").is_some()),
            memory_boot: boot_memory(&domain, devices)?,
            memory_maximum: domain.child("maxMemory").map(memory).transpose()?,
            memory_dimms: dimms(devices)?,
            address_bits: address_bits(&domain),
            numa_nodes: cells,
            virtio_mem,
            dimm_slots: free_slots(&domain, devices)?,
            balloon_current,
            balloon_period,
            interfaces: devices.all("interface").map(read_interface).collect(),
            limits: tune::read(&domain, devices)?,
            virtio_serial: devices
                .all("controller")
                .any(|controller| controller.attribute("type") == Some("virtio-serial")),
            agent_channel: agent.and_then(bound_socket),
            qemu_guest_agent: channel(devices, QEMU_GUEST_AGENT_PORT).is_some(),
            tags,
            tags_problem,
            process: None,
        },
    })
}

/// The device of this alias, with another requested size, as `virDomainUpdateDeviceFlags` takes it: the whole element
/// as it is, and one number changed. `None` when there is no such device.
///
/// # Errors
///
/// What is wrong with the XML, as a sentence.
pub(super) fn resize_virtio_mem(
    xml: &str,
    alias: &str,
    requested: Bytes,
) -> Result<Option<String>, String> {
    let domain = parse(xml)?;
    let Some(device) = domain.child("devices").and_then(|devices| {
        devices.all("memory").find(|device| {
            device.attribute("model") == Some("virtio-mem")
                && device.child("alias").and_then(|a| a.attribute("name")) == Some(alias)
        })
    }) else {
        return Ok(None);
    };
    let size = device
        .at(&["target", "requested"])
        .ok_or("the virtio-mem device has no requested size")?;
    Ok(Some(format!(
        "{}<requested unit='KiB'>{}</requested>{}",
        &xml[device.span.start..size.span.start],
        requested.as_kib(),
        &xml[size.span.end..device.span.end],
    )))
}

fn required<'a>(domain: &'a Element, name: &str) -> Result<&'a str, String> {
    let element = domain.child(name);
    element
        .map(|element| element.text.trim())
        .filter(|text| !text.is_empty())
        .ok_or_else(|| format!("there is no `{name}` element"))
}

fn number(text: &str, what: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{}` of `{what}` is not a number", text.trim()))
}

fn memory(element: &Element) -> Result<Bytes, String> {
    amount(&element.text, element.attribute("unit"), &element.name)
}

/// An amount with libvirt's `unit` attribute; KiB where there is none.
fn amount(text: &str, unit: Option<&str>, what: &str) -> Result<Bytes, String> {
    let text = text.trim();
    let amount: u64 = text
        .parse()
        .map_err(|_| format!("`{text}` of `{what}` is not an amount of memory"))?;
    let unit: u64 = match unit.unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => Bytes::KIB,
        "MB" => 1000 * 1000,
        "M" | "MiB" => Bytes::MIB,
        "GB" => 1000 * 1000 * 1000,
        "G" | "GiB" => Bytes::GIB,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "T" | "TiB" => Bytes::GIB << 10,
        unit => return Err(format!("`{unit}` of `{what}` is not a unit of memory")),
    };
    Ok(Bytes(amount.saturating_mul(unit)))
}

fn device_memory(device: &Element, what: &str) -> Result<Bytes, String> {
    device.at(&["target", what]).map_or(Ok(Bytes(0)), memory)
}

fn read_virtio_mem(device: &Element) -> Result<VirtioMem, String> {
    let node = device.at(&["target", "node"]);
    Ok(VirtioMem {
        alias: device
            .child("alias")
            .and_then(|alias| alias.attribute("name"))
            .unwrap_or_default()
            .to_owned(),
        node: node.map_or(Ok(0), |node| number(&node.text, "node"))?,
        size: device_memory(device, "size")?,
        block: device_memory(device, "block")?,
        requested: device_memory(device, "requested")?,
        // Absent in the persistent definition, where nothing is plugged.
        current: device_memory(device, "current")?,
    })
}

/// libvirt names the host's device in the definition of a running domain, and leaves out names of its own making in
/// one that does not run.
fn read_interface(device: &Element) -> Interface {
    let target = device.child("target");
    Interface {
        device: target
            .and_then(|target| target.attribute("dev"))
            .filter(|name| !name.is_empty())
            .map(Into::into),
    }
}

/// Memory without memory devices. The cells of the guest's NUMA topology hold exactly that; without a topology libvirt
/// counts the devices into `memory`.
fn boot_memory(domain: &Element, devices: &Element) -> Result<Bytes, String> {
    if let Some(numa) = domain.at(&["cpu", "numa"]) {
        let mut total = Bytes(0);
        for cell in numa.all("cell") {
            let memory = cell.attribute("memory").unwrap_or_default();
            total = total.saturating_add(amount(memory, cell.attribute("unit"), "cell")?);
        }
        return Ok(total);
    }
    let mut total = memory(
        domain
            .child("memory")
            .ok_or("there is no `memory` element")?,
    )?;
    for device in devices.all("memory") {
        total = total.saturating_sub(device_memory(device, "size")?);
    }
    Ok(total)
}

/// DIMMs; what they hold is always there.
fn dimms(devices: &Element) -> Result<Bytes, String> {
    let mut total = Bytes(0);
    for device in devices.all("memory") {
        if device.attribute("model") == Some("dimm") {
            total = total.saturating_add(device_memory(device, "size")?);
        }
    }
    Ok(total)
}

/// Slots that no memory device takes. libvirt counts every one against them, virtio-mem devices too.
fn free_slots(domain: &Element, devices: &Element) -> Result<u32, String> {
    let slots = domain
        .child("maxMemory")
        .and_then(|maximum| maximum.attribute("slots"));
    let slots = slots.map_or(Ok(0), |slots| number(slots, "maxMemory slots"))?;
    let taken = u32::try_from(devices.all("memory").count()).unwrap_or(u32::MAX);
    Ok(slots.saturating_sub(taken))
}

/// A DIMM of this size for the first NUMA node, as `virDomainAttachDeviceFlags` takes it.
pub(super) fn dimm(size: Bytes) -> String {
    format!(
        "<memory model='dimm'><target><size unit='KiB'>{}</size><node>0</node></target></memory>",
        size.as_kib()
    )
}

/// `memory` less what virtio-mem devices may plug.
fn without_virtio_mem(domain: &Element, devices: &[VirtioMem]) -> Result<Bytes, String> {
    let total = memory(
        domain
            .child("memory")
            .ok_or("there is no `memory` element")?,
    )?;
    let devices = devices.iter().map(|device| device.size.0).sum();
    Ok(total.saturating_sub(Bytes(devices)))
}

/// The system that installers note in the metadata.
fn guest_os(domain: &Element) -> Option<String> {
    const LIBOSINFO: &str = "http://libosinfo.org/xmlns/libvirt/domain/1.0";
    let ours = |element: &&Element| element.namespace.as_deref() == Some(LIBOSINFO);
    let noted = domain.child("metadata")?.children.iter().find(ours)?;
    let system = noted.children.iter().find(|child| child.name == "os")?;
    system.attribute("id").map(str::to_owned)
}

/// Physical addresses of the CPU model that QEMU makes of this. Its named models have 40 bits whatever the host has, and
/// 36 where they know no 64-bit mode.
fn address_bits(domain: &Element) -> AddressBits {
    const NARROW: [&str; 10] = [
        "486",
        "pentium",
        "pentium2",
        "pentium3",
        "pentiumpro",
        "athlon",
        "n270",
        "coreduo",
        "kvm32",
        "qemu32",
    ];
    let none = Element::default();
    let cpu = domain.child("cpu").unwrap_or(&none);
    let wanted = cpu.child("maxphysaddr");
    let number = |name| wanted.and_then(|wanted| wanted.attribute(name)?.parse().ok());
    if let Some(bits) = number("bits").or_else(|| number("limit")) {
        return AddressBits::Of(bits);
    }
    let of_host = wanted.and_then(|wanted| wanted.attribute("mode")) == Some("passthrough")
        || matches!(cpu.attribute("mode"), Some("host-passthrough" | "maximum"));
    if of_host && domain.attribute("type") == Some("kvm") {
        return AddressBits::OfHost;
    }
    let narrow = cpu
        .child("model")
        .is_some_and(|model| NARROW.contains(&model.text.trim()));
    AddressBits::Of(if narrow { AddressBits::LEAST } else { 40 })
}

/// vCPUs that can't be unplugged. Without individual `vcpus` those that the machine starts with can't be.
fn fixed_vcpus(domain: &Element, plugged: u32, maximum: u32) -> u32 {
    let fixed = match domain.child("vcpus") {
        Some(vcpus) => vcpus
            .all("vcpu")
            .filter(|vcpu| {
                vcpu.attribute("enabled") == Some("yes")
                    && vcpu.attribute("hotpluggable") == Some("no")
            })
            .count(),
        None => usize::try_from(plugged).unwrap_or(usize::MAX),
    };
    u32::try_from(fixed).unwrap_or(maximum).max(1)
}

fn channel<'a>(devices: &'a Element, port: &str) -> Option<&'a Element> {
    devices.all("channel").find(|channel| {
        channel.child("target").is_some_and(|target| {
            target.attribute("type") == Some("virtio") && target.attribute("name") == Some(port)
        })
    })
}

/// The socket that the emulator listens on. One that it connects to belongs to somebody else.
fn bound_socket(channel: &Element) -> Option<PathBuf> {
    let source = channel
        .child("source")
        .filter(|_| channel.attribute("type") == Some("unix"))?;
    source
        .attribute("path")
        .filter(|_| source.attribute("mode").is_none_or(|mode| mode == "bind"))
        .map(PathBuf::from)
}

/// The tags, whatever the prefix of their namespace.
fn read_tags(domain: &Element) -> Result<Vec<String>, String> {
    let ours =
        |element: &&Element| element.namespace.as_deref() == Some(MetadataElement::Tags.uri());
    let Some(instance) = domain
        .child("metadata")
        .and_then(|metadata| metadata.children.iter().find(ours))
    else {
        return Ok(Vec::new());
    };
    if instance.name != "instance" {
        return Err(format!(
            "the tag metadata holds `{}` instead of `instance`",
            instance.name
        ));
    }
    let mut tags: Vec<String> = Vec::new();
    for child in &instance.children {
        if !ours(&child) {
            return Err(format!(
                "`{}` inside the tag metadata is not in its namespace",
                child.name
            ));
        }
        // Other elements of this namespace may come with a later version.
        if child.name != "tag" {
            continue;
        }
        let tag = child.text.trim();
        if tag.is_empty() {
            return Err("a tag in the metadata is empty".into());
        }
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests;
