//! The host's part of `doctor`: the hypervisor and its versions, what the kernel offers, what all domains hold together.

use persona::units::Bytes;
use planner::stage::Stage;

use super::super::{Daemon, tick};
use super::Add;
use crate::hypervisor::RunState;
use crate::observe::{Facilities, Groups, Kvm, Pressure};
use crate::view::{CheckState, HypervisorState};

pub(super) fn check(daemon: &Daemon, facilities: &Facilities, add: &mut Add<'_>) {
    hypervisor(daemon, add);
    kernel(facilities, add);
    shares(daemon, add);
    itself(daemon, add);
}

fn hypervisor(daemon: &Daemon, add: &mut Add<'_>) {
    let connection = &daemon.connection;
    match connection.state {
        HypervisorState::Connected => {
            let versions = match (&connection.library, &connection.emulator) {
                (Some(library), Some(emulator)) => {
                    format!(" (libvirt {library}, QEMU {emulator})")
                }
                _ => String::new(),
            };
            let text = format!("connected to {}{versions}", connection.uri);
            add("hypervisor", CheckState::Ok, &text, None);
        }
        HypervisorState::Disconnected => add(
            "hypervisor",
            CheckState::Fail,
            &format!(
                "not connected to {}: {}",
                connection.uri,
                connection.detail.as_deref().unwrap_or("no answer yet")
            ),
            Some(
                "start libvirtd (`systemctl start libvirtd`) and see that this daemon runs as root",
            ),
        ),
    }
    if let (Some(library), Some(emulator)) = (&connection.library, &connection.emulator) {
        versions(library, emulator, add);
    }
}

/// Versions whose trouble is known from their users' reports.
fn versions(library: &str, emulator: &str, add: &mut Add<'_>) {
    let mut known = false;
    let library_number = number(library);
    let emulator_number = number(emulator);
    if library_number < Some((7, 9)) || emulator_number < Some((5, 1)) {
        known = true;
        add(
            "versions",
            CheckState::Warn,
            &format!(
                "libvirt {library} with QEMU {emulator} has no virtio-mem, so memory cannot grow beyond what a domain boots with"
            ),
            Some("use libvirt 7.9 and QEMU 5.1 or later"),
        );
    }
    if emulator_number == Some((10, 1)) {
        known = true;
        add(
            "versions",
            CheckState::Warn,
            &format!(
                "with QEMU {emulator} a guest may not be able to bring vCPUs online that are added after a live migration"
            ),
            Some("update QEMU, or stop and start domains after they have been migrated"),
        );
    }
    if !known {
        let text = format!("no trouble is known of libvirt {library} with QEMU {emulator}");
        add("versions", CheckState::Ok, &text, None);
    }
}

/// The first two numbers of a version.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn kernel(facilities: &Facilities, add: &mut Add<'_>) {
    match facilities.kvm {
        Kvm::Offered => add(
            "kvm",
            CheckState::Ok,
            "the kernel offers hardware virtualisation (KVM)",
            None,
        ),
        Kvm::Absent => add(
            "kvm",
            CheckState::Warn,
            "the kernel offers no hardware virtualisation (KVM), so domains are emulated: slow, and their vCPUs are never unplugged",
            Some(
                "allow virtualisation in the firmware and load kvm_intel or kvm_amd; inside a virtual machine, allow nested virtualisation",
            ),
        ),
    }
    let has = |found: &[String], name: &str| found.iter().any(|found| found == name);
    match &facilities.groups {
        Groups::Version2(found) if has(found, "cpu") && has(found, "memory") => add(
            "control-groups",
            CheckState::Ok,
            &format!("control groups of version 2 with {}", found.join(", ")),
            None,
        ),
        Groups::Version2(found) => add(
            "control-groups",
            CheckState::Warn,
            &format!(
                "control groups of version 2 lack a controller of cpu and memory; there are {}",
                found.join(", ")
            ),
            Some(
                "see that nothing has taken the controllers away (/sys/fs/cgroup/cgroup.subtree_control), and start libvirtd anew",
            ),
        ),
        Groups::Version1(found) => add(
            "control-groups",
            CheckState::Ok,
            &format!(
                "control groups of version 1 with {}; the pressure of single domains needs version 2",
                found.join(", ")
            ),
            None,
        ),
        Groups::Absent => add(
            "control-groups",
            CheckState::Warn,
            "no control groups are mounted, so throttling and pressure of domains are not known",
            Some("mount them at /sys/fs/cgroup, as systemd does"),
        ),
    }
    match facilities.pressure {
        Pressure::Told => add(
            "pressure",
            CheckState::Ok,
            "the kernel tells how long work waits (PSI)",
            None,
        ),
        Pressure::NotTold => add(
            "pressure",
            CheckState::Warn,
            "the kernel does not tell how long work waits (PSI), so a host that is short is seen by its free memory alone",
            Some("start the kernel with psi=1 on its command line"),
        ),
    }
}

/// What all domains may have and hold.
fn shares(daemon: &Daemon, add: &mut Add<'_>) {
    if let Some(host) = &daemon.host {
        let budget = daemon.config.budget.of(host);
        let held = daemon.ledger.map_or(0, |ledger| ledger.memory_granted);
        let over = held > budget.memory.0;
        add(
            "budget",
            if over {
                CheckState::Warn
            } else {
                CheckState::Ok
            },
            &format!(
                "{} vCPUs and {} for all domains; {} of the memory is held",
                budget.vcpus,
                budget.memory,
                tick::memory_text(Some(held))
            ),
            over.then_some(
                "domains hold more memory than the budget; none can grow until some is given back",
            ),
        );
        commitment(daemon, budget.memory, add);
    }
    if let Some(ledger) = &daemon.ledger {
        let short = ledger.vcpus_stage.max(ledger.memory_stage) >= Stage::Scarce;
        add(
            "need",
            if short { CheckState::Warn } else { CheckState::Ok },
            &format!("the host's state is {} for vCPUs and {} for memory", ledger.vcpus_stage, ledger.memory_stage),
            short.then_some("the host itself is short, so domains grow up to their share or their reservation only; stop or move some, or see what else takes its memory and CPUs"),
        );
    }
}

/// What the definitions promise together. libvirt itself asks nobody before it starts one more.
fn commitment(daemon: &Daemon, budget: Bytes, add: &mut Add<'_>) {
    let (mut running, mut boot, mut most) = (0_u32, Bytes(0), Bytes(0));
    for tracked in daemon.domains.values() {
        let description = &tracked.description;
        if matches!(description.state, RunState::Off | RunState::Other) {
            continue;
        }
        running += 1;
        let held = description
            .memory_boot
            .saturating_add(description.memory_dimms);
        boot = boot.saturating_add(held);
        most = most.saturating_add(held);
        for device in &description.virtio_mem {
            most = most.saturating_add(device.size);
        }
    }
    let over = boot > budget;
    add(
        "commitment",
        if over { CheckState::Warn } else { CheckState::Ok },
        &format!("{running} domains run; their definitions come to {boot} at boot and {most} at most, of a budget of {budget}"),
        over.then_some("they were started with more memory than the host has for them: when all use it the host runs out; stop or move some, or give them less at boot"),
    );
}

/// The daemon itself.
fn itself(daemon: &Daemon, add: &mut Add<'_>) {
    if daemon.overruns > 0 {
        add(
            "tick",
            CheckState::Warn,
            &format!(
                "{} of {} ticks took longer than their interval",
                daemon.overruns, daemon.ticks
            ),
            Some("raise tick.interval_ms, or see what slows the host down"),
        );
    }
    for problem in daemon.problems.values() {
        add("daemon", CheckState::Fail, problem, None);
    }
    for aside in daemon.store.stores_aside() {
        add(
            "store",
            CheckState::Warn,
            &format!(
                "a store that could not be read was set aside at {}",
                aside.display()
            ),
            Some(
                "personas and bindings in it are not in force; keep it for a repair, or remove it",
            ),
        );
    }
}
