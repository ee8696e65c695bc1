//! Memory beyond what a domain boots with: `<maxMemory>`, a NUMA cell, and a virtio-mem device that is empty at the
//! start. The device is the one thing of the three that a running domain can get, where it has the other two.

use persona::units::Bytes;

use super::machine::{Machine, amount};
use super::vcpus::range;
use super::{DEFAULT_GROWTH, LiveStep, When, Work};

const LIMIT: &str = "memory at most";
const CELL: &str = "NUMA cell";
const DEVICE: &str = "virtio-mem device";

/// Slots of `<maxMemory>`: one for the device, the others for hands. QEMU sets a GiB of addresses aside for each.
pub const SLOTS: u64 = 4;

/// Linux plugs memory in blocks of this size; a device of another size would have a rest of no use.
const LINUX_BLOCK: u64 = 128 * Bytes::MIB;

/// With devices of the host passed through, each block is a mapping of its own, of which the kernel allows 65535.
const MAPPINGS: u64 = 32_768;

/// What of the address space is not for memory: the first 4 GiB, the window for devices (32 GiB, q35), and what
/// aligning both to a GiB may take.
const NOT_FOR_MEMORY: u64 = (4 + 32 + 3) * Bytes::GIB;

/// Plans the memory; `vcpus` is how many the definition has at most then.
pub(super) fn prepare(work: &mut Work<'_>, wish: Option<Bytes>, vcpus: u32) {
    let machine = work.machine;
    let description = machine.description;
    let boot = description.memory_boot;
    let devices = machine.device_memory();
    let held = boot.saturating_add(devices);
    let cap = Cap::of(work);
    let has_device = !description.virtio_mem.is_empty();
    let asked = match (wish, description.memory_maximum) {
        (Some(wish), _) => wish,
        (None, _) if has_device => held,
        // Somebody has said how far it may grow.
        (None, Some(most)) => most,
        (None, None) => Bytes(boot.0.saturating_mul(DEFAULT_GROWTH.into())),
    };
    let (wanted, cut) = cap.cut(asked);
    let most = wanted.max(held);
    if let Some(why) = obstacle(work, most) {
        let now = most_text(&machine);
        work.cannot(LIMIT, now, &why);
        return;
    }
    let block = block(work, most);
    if has_device && wanted <= held {
        let why = match wish {
            Some(wish) if wish < held => "less was asked for, and nothing is taken away",
            _ => "memory can be added while it runs",
        };
        there(work, why);
        return;
    }
    if has_device && description.virtio_mem.len() > 1 {
        work.cannot(
            LIMIT,
            most_text(&machine),
            &format!("it has {} virtio-mem devices, and which of them is to grow is yours to say (`virsh edit`)", description.virtio_mem.len()),
        );
        return;
    }
    let others = devices.saturating_sub(Bytes(
        description
            .virtio_mem
            .iter()
            .map(|device| device.size.0)
            .sum(),
    ));
    let room = wanted.saturating_sub(boot).saturating_sub(others);
    let grain = block.0.max(LINUX_BLOCK);
    let size = Bytes(room.0 / grain * grain);
    let had = Bytes(
        description
            .virtio_mem
            .iter()
            .map(|device| device.size.0)
            .sum(),
    );
    if size.0 == 0 || size <= had {
        let why = cut.unwrap_or_else(|| {
            format!("no block of {} fits between what it has and {wanted}; ask for more with --max-memory", Bytes(grain))
        });
        if has_device {
            there(work, &why);
        } else {
            work.cannot(LIMIT, most_text(&machine), &why);
        }
        return;
    }
    let why = cut.unwrap_or_else(|| match wish {
        Some(_) => "as was asked for".to_owned(),
        None if description.memory_maximum.is_some() => "as the definition has it".to_owned(),
        None => format!("{DEFAULT_GROWTH} times the boot memory, where the host has it"),
    });
    write(
        work,
        &Plan {
            boot,
            others,
            size,
            block,
            vcpus,
        },
        &why,
    );
}

/// What is to be in the definition.
struct Plan {
    boot: Bytes,
    /// Memory devices that are none of virtio-mem.
    others: Bytes,
    /// Of the virtio-mem device.
    size: Bytes,
    block: Bytes,
    vcpus: u32,
}

fn write(work: &mut Work<'_>, plan: &Plan, why: &str) {
    let machine = work.machine;
    let root = machine.root;
    let description = machine.description;
    let most = plan
        .boot
        .saturating_add(plan.others)
        .saturating_add(plan.size);
    let devices = machine.memory_devices() + usize::from(description.virtio_mem.is_empty());
    let running = work.live.as_ref().map(|live| live.machine);
    let limit_runs = running.is_some_and(|live| {
        live.description.memory_maximum.is_some() && live.description.numa_nodes > 0
    });

    match root.child("maxMemory") {
        Some(element) => {
            let slots = machine.slots();
            let has = amount(element).unwrap_or_default();
            if slots < devices {
                work.edits
                    .set_attribute(element, "slots", &devices.to_string());
            }
            if has < most {
                work.edits.set_attribute(element, "unit", "KiB");
                work.edits.set_text(element, &most.as_kib().to_string());
            }
            if slots < devices || has < most {
                work.line(
                    LIMIT,
                    has.to_string(),
                    most.max(has).to_string(),
                    When::NextStart,
                    why,
                );
            } else {
                work.is_there(LIMIT, has.to_string(), why, limit_runs);
            }
        }
        None => {
            let element = format!(
                "<maxMemory slots='{}' unit='KiB'>{}</maxMemory>",
                SLOTS.max(u64::try_from(devices).unwrap_or(SLOTS)),
                most.as_kib()
            );
            if let Some(memory) = root.child("memory") {
                work.edits.insert_before(memory, &element);
            }
            let now = format!("{}, all from the boot", plan.boot);
            work.line(LIMIT, now, most.to_string(), When::NextStart, why);
        }
    }

    let cells = "memory that is plugged belongs to a cell; with one, all is as near as before";
    if description.numa_nodes == 0 {
        let cell = format!(
            "<numa><cell id='0' cpus='{}' memory='{}' unit='KiB'/></numa>",
            range(plan.vcpus),
            plan.boot.as_kib()
        );
        match root.child("cpu") {
            Some(cpu) => work.edits.append(cpu, &cell),
            None => work.edits.append(root, &format!("<cpu>{cell}</cpu>")),
        }
        work.line(
            CELL,
            "none".into(),
            "one with all vCPUs and all boot memory".into(),
            When::NextStart,
            cells,
        );
    } else {
        work.is_there(CELL, description.numa_nodes.to_string(), cells, limit_runs);
    }
    device(work, plan);
}

/// The device itself: in the definition, and in the running domain where that has room for it.
fn device(work: &mut Work<'_>, plan: &Plan) {
    let machine = work.machine;
    let why = "memory is added and taken away in small blocks; it is empty at each start";
    let named = |size: Bytes| format!("up to {size} in blocks of {}", plan.block);
    if let Some(device) = virtio_mem(&machine) {
        let had = machine
            .description
            .virtio_mem
            .iter()
            .map(|device| device.size.0)
            .sum();
        if let Some(size) = device.at(&["target", "size"]) {
            work.edits.set_attribute(size, "unit", "KiB");
            work.edits.set_text(size, &plan.size.as_kib().to_string());
        }
        work.line(
            DEVICE,
            format!("up to {}", Bytes(had)),
            format!("up to {}", plan.size),
            When::NextStart,
            why,
        );
        return;
    }
    if let Some(devices) = machine.devices() {
        work.edits.append(devices, &markup(plan.size, plan.block));
    }
    let live = work.live.as_ref().and_then(|live| room(live.machine, plan));
    let when = match live {
        Some(size) => {
            work.steps.push(LiveStep::Attach {
                what: DEVICE,
                device: markup(size, plan.block),
            });
            When::Now
        }
        None => When::NextStart,
    };
    work.line(DEVICE, "none".into(), named(plan.size), when, why);
}

/// What the running domain has room for; absent where a device cannot be added to it.
fn room(live: Machine<'_>, plan: &Plan) -> Option<Bytes> {
    let most = live.description.memory_maximum?;
    let possible = live.description.numa_nodes > 0
        && live.description.virtio_mem.is_empty()
        && live.memory_devices() < live.slots();
    let free = most
        .saturating_sub(live.description.memory_boot)
        .saturating_sub(live.device_memory());
    let size = free.0.min(plan.size.0) / plan.block.0 * plan.block.0;
    (possible && size > 0).then_some(Bytes(size))
}

fn markup(size: Bytes, block: Bytes) -> String {
    format!(
        "<memory model='virtio-mem'><target><size unit='KiB'>{}</size><node>0</node><block unit='KiB'>{}</block><requested unit='KiB'>0</requested></target></memory>",
        size.as_kib(),
        block.as_kib()
    )
}

fn virtio_mem<'a>(machine: &Machine<'a>) -> Option<&'a crate::hypervisor::tree::Element> {
    machine
        .devices()?
        .all("memory")
        .find(|device| device.attribute("model") == Some("virtio-mem"))
}

/// All of it is there.
fn there(work: &mut Work<'_>, why: &str) {
    let description = work.machine.description;
    let size = Bytes(
        description
            .virtio_mem
            .iter()
            .map(|device| device.size.0)
            .sum(),
    );
    let now = description
        .memory_boot
        .saturating_add(work.machine.device_memory());
    let running = work
        .live
        .as_ref()
        .is_some_and(|live| !live.machine.description.virtio_mem.is_empty());
    work.is_there(LIMIT, now.to_string(), why, running);
    // One that the running domain lacks, and has room for, it gets.
    let live = work.live.as_ref().filter(|_| !running).and_then(|live| {
        let block = description.virtio_mem.first().map(|device| device.block)?;
        let plan = Plan {
            boot: description.memory_boot,
            others: Bytes(0),
            size,
            block,
            vcpus: 0,
        };
        Some((room(live.machine, &plan)?, block))
    });
    match live {
        Some((size, block)) => {
            work.steps.push(LiveStep::Attach {
                what: DEVICE,
                device: markup(size, block),
            });
            let now = format!("up to {size}");
            work.line(
                DEVICE,
                now.clone(),
                now,
                When::Now,
                "the definition has it, and the running domain has room for it",
            );
        }
        None => work.is_there(
            DEVICE,
            format!("up to {size}"),
            "memory is added and taken away in small blocks; it is empty at each start",
            running,
        ),
    }
}

fn most_text(machine: &Machine<'_>) -> String {
    let description = machine.description;
    match description.memory_maximum {
        Some(most) => most.to_string(),
        None => format!("{}, all from the boot", description.memory_boot),
    }
}

/// The block in which the device plugs: the host's huge page, so that none is broken up. `most` is all the memory that the
/// domain may have then.
fn block(work: &Work<'_>, most: Bytes) -> Bytes {
    let page = work.host.huge_page.unwrap_or(Bytes(2 * Bytes::MIB));
    let backing = work.machine.backing_page(work.host.reserved_page);
    let block = page.0.max(backing.map_or(0, |page| page.0)).max(Bytes::MIB);
    if !work.machine.passes_devices_through() {
        return Bytes(block);
    }
    Bytes(block.max(most.0.div_ceil(MAPPINGS).next_power_of_two()))
}

/// What stands against memory that is added at all, up to `most`.
fn obstacle(work: &Work<'_>, most: Bytes) -> Option<String> {
    let machine = &work.machine;
    let root = machine.root;
    if !machine.has_acpi() {
        return Some(
            "the machine has no ACPI (<features><acpi/>), by which a guest is told of its memory"
                .into(),
        );
    }
    let facts = &work.host.facts;
    for (name, has, needs) in [
        ("libvirt", &facts.library_version, (7, 9)),
        ("QEMU", &facts.emulator_version, (5, 1)),
    ] {
        if version(has).is_some_and(|version| version < needs) {
            return Some(format!(
                "{name} {has} has no virtio-mem; {}.{} is the first that has",
                needs.0, needs.1
            ));
        }
    }
    if root.at(&["memoryBacking", "locked"]).is_some() {
        return Some(
            "its memory is locked (<memoryBacking><locked/>), and virtio-mem cannot be".into(),
        );
    }
    if root.child("launchSecurity").is_some() {
        return Some(
            "its memory is encrypted (<launchSecurity>), and what is encrypted is not given back"
                .into(),
        );
    }
    let boot = machine.description.memory_boot;
    if let Some(page) = machine.backing_page(work.host.reserved_page)
        && !boot.0.is_multiple_of(page.0.max(1))
    {
        return Some(format!(
            "its memory is backed by pages of {page}, and the {boot} at boot are no multiple of that; change <memory> first"
        ));
    }
    if let Some(limit) = root.at(&["memtune", "hard_limit"]).and_then(amount)
        && limit < most
    {
        return Some(format!(
            "<memtune> has a hard_limit of {limit}, at which the host kills a domain that has grown to {most}; raise it or take it away first"
        ));
    }
    let cells = root
        .at(&["cpu", "numa"])
        .map_or(0, |numa| numa.all("cell").count());
    if cells > 0
        && !root.at(&["cpu", "numa"]).is_some_and(|numa| {
            numa.all("cell")
                .all(|cell| cell.attribute("memory").is_some())
        })
    {
        return Some("its NUMA cells do not say how much memory each has; write it there first (`virsh edit`)".into());
    }
    None
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// The memory at most that so many bits of physical address hold beside all that is not memory, with so many slots.
pub fn room_for_memory(bits: u8, slots: u64) -> Bytes {
    let all = 1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    Bytes(all.saturating_sub(NOT_FOR_MEMORY + slots * Bytes::GIB))
}

/// What memory at most may be.
struct Cap {
    host: Bytes,
    addresses: Bytes,
    bits: u8,
    hardware: bool,
}

impl Cap {
    fn of(work: &Work<'_>) -> Self {
        let bits = work.address_bits();
        let slots = SLOTS.max(u64::try_from(work.machine.slots()).unwrap_or(SLOTS));
        Self {
            host: work.host.facts.memory,
            addresses: room_for_memory(bits, slots),
            bits,
            hardware: work.is_hardware(),
        }
    }

    /// The amount within both bounds, and a sentence where it had to be cut.
    fn cut(&self, asked: Bytes) -> (Bytes, Option<String>) {
        if asked <= self.host.min(self.addresses) {
            return (asked, None);
        }
        if self.host <= self.addresses {
            let why = format!(
                "{asked} would be more than the {} that the host has",
                self.host
            );
            return (self.host, Some(why));
        }
        let whose = if self.hardware {
            "CPU model and host"
        } else {
            "CPU model"
        };
        let why = format!(
            "{asked} would not fit into the {} bits of physical address of its {whose}: a machine whose memory at most does not fit does not start",
            self.bits
        );
        (self.addresses, Some(why))
    }
}
