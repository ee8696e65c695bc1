//! The number of vCPUs that a domain may have at most. Those of the boot stay what they are; further ones are plugged
//! while it runs.

use super::{DEFAULT_GROWTH, When, Work};

const SUBJECT: &str = "vCPUs at most";

/// More need an interrupt controller of another kind, and with it a virtual IOMMU.
const MOST: u32 = 255;

/// Plans the maximum; gives the one that the definition has then.
pub(super) fn prepare(work: &mut Work<'_>, wish: Option<u32>) -> u32 {
    let description = work.machine.description;
    let (boot, most) = (description.vcpus_plugged, description.vcpus_maximum);
    let host = work.host.facts.cores.min(MOST);
    let (wanted, mut why) = match wish {
        Some(wish) if wish > host => (
            host,
            format!("{wish} were asked for, and no more can run at once on this host"),
        ),
        Some(wish) if wish < most => (
            most,
            "fewer were asked for, and nothing is taken away".to_owned(),
        ),
        Some(wish) => (wish, "vCPUs can be added while it runs".to_owned()),
        // Somebody has prepared it.
        None if most > boot => (most, "vCPUs can be added while it runs".to_owned()),
        None => (
            boot.saturating_mul(DEFAULT_GROWTH).min(host),
            format!(
                "vCPUs can be added while it runs: {DEFAULT_GROWTH} times those at boot, but no more than the host has"
            ),
        ),
    };
    let running = work
        .live
        .as_ref()
        .is_some_and(|live| live.definition.description.vcpus_maximum >= most);
    if wanted <= most {
        if most > boot || wish.is_some_and(|wish| wish <= most) {
            work.is_there(SUBJECT, most.to_string(), &why, running);
        } else {
            work.cannot(
                SUBJECT,
                most.to_string(),
                "the host has no more CPUs than it boots with, and more vCPUs than CPUs gain nothing",
            );
        }
        return most;
    }
    if !work.machine.has_acpi() {
        work.cannot(
            SUBJECT,
            most.to_string(),
            "the machine has no ACPI (<features><acpi/>), by which a guest is told of new vCPUs",
        );
        return most;
    }
    let root = work.machine.root;
    let numa = root.at(&["cpu", "numa"]);
    let cells: Vec<_> = numa.into_iter().flat_map(|numa| numa.all("cell")).collect();
    if cells.len() > 1 {
        work.cannot(
            SUBJECT,
            most.to_string(),
            &format!("its vCPUs are spread over {} NUMA cells, and to which of them further ones belong is yours to say (`virsh edit`)", cells.len()),
        );
        return most;
    }
    let mut then = wanted;
    if let Some(topology) = root.at(&["cpu", "topology"]) {
        let part = |name| {
            topology
                .attribute(name)
                .and_then(|count| count.parse::<u32>().ok())
                .unwrap_or(1)
        };
        let socket = ["dies", "clusters", "cores", "threads"]
            .into_iter()
            .map(part)
            .fold(1, u32::saturating_mul)
            .max(1);
        then = wanted / socket * socket;
        if then <= most {
            work.cannot(
                SUBJECT,
                most.to_string(),
                &format!("its topology adds vCPUs by sockets of {socket}, and there is no room for another; write another <topology>, or a larger --max-vcpus"),
            );
            return most;
        }
        work.edits
            .set_attribute(topology, "sockets", &(then / socket).to_string());
        why.push_str(&format!("; added as sockets of {socket} by its topology"));
    }
    if let [cell] = cells.as_slice() {
        work.edits.set_attribute(cell, "cpus", &range(then));
    }
    if let Some(vcpu) = root.child("vcpu") {
        work.edits.set_attribute(vcpu, "current", &boot.to_string());
        work.edits.set_text(vcpu, &then.to_string());
    }
    if let Some(each) = root.child("vcpus") {
        for id in most..then {
            work.edits.append(
                each,
                &format!("<vcpu id='{id}' enabled='no' hotpluggable='yes'/>"),
            );
        }
    }
    let now = if most == boot {
        format!("{boot}, all from the boot")
    } else {
        most.to_string()
    };
    work.line(
        SUBJECT,
        now,
        format!("{then}, {boot} of them at boot"),
        When::NextStart,
        &why,
    );
    then
}

/// All of so many, as libvirt writes a set of CPUs.
pub(super) fn range(count: u32) -> String {
    match count {
        0 | 1 => "0".to_owned(),
        _ => format!("0-{}", count - 1),
    }
}
