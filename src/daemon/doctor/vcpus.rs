//! The part of `doctor` on a domain's vCPUs: whether they can be added and removed, and whether the guest has online what
//! it was given.

use planner::snapshot::Run;

use super::{Add, Look};
use crate::config::VcpuRemoval;
use crate::hypervisor::{Acceleration, Arrival};
use crate::view::CheckState;
use persona::rule::Resource;

/// How the kernel names the error with which a vCPU cannot be brought online after a migration.
const INPUT_OUTPUT: &str = "nput/output error";

pub(super) fn check(look: &Look<'_>, add: &mut Add<'_>) {
    let description = &look.tracked.description;
    if description.vcpus_maximum <= description.vcpus_fixed {
        add(
            "vcpu-hotplug",
            CheckState::Fail,
            &format!(
                "all {} vCPUs are there from the boot and none can be added or removed",
                description.vcpus_maximum
            ),
            Some(
                "`virt-persona adopt` sets <vcpu current='1'>MAX</vcpu> in the definition; then start the domain anew",
            ),
        );
        return;
    }
    let emulated = description.acceleration == Acceleration::Emulated;
    let removal = if emulated {
        "; under emulation removed vCPUs are only taken offline in the guest"
    } else {
        ""
    };
    add(
        "vcpu-hotplug",
        CheckState::Ok,
        &format!(
            "{} to {} vCPUs{removal}",
            description.vcpus_fixed, description.vcpus_maximum
        ),
        None,
    );
    removal_check(look, add);
    if look.tracked.run() == Run::Running {
        online(look, add);
        migration(look, add);
    }
}

/// Whether what was added can be taken away again.
fn removal_check(look: &Look<'_>, add: &mut Add<'_>) {
    let description = &look.tracked.description;
    let windows = description
        .guest_os
        .as_deref()
        .is_some_and(|system| system.contains("microsoft.com/win"));
    if windows {
        add(
            "vcpu-removal",
            CheckState::Warn,
            "Windows takes vCPUs that are added and never gives one back",
            Some(
                "let its persona grow vCPUs only; the next start of the domain begins with the fewest",
            ),
        );
    } else if look.removal == VcpuRemoval::Unplug
        && description.acceleration == Acceleration::Emulated
    {
        add(
            "vcpu-removal",
            CheckState::Warn,
            "vCPUs are to be unplugged, which never ends as success under emulation and breaks the next growth",
            Some("set vcpu.removal to auto in the daemon's configuration"),
        );
    }
}

/// Whether the guest has online what is plugged, no less and no more.
fn online(look: &Look<'_>, add: &mut Add<'_>) {
    let description = &look.tracked.description;
    let plugged = description.vcpus_plugged;
    let added = plugged > description.vcpus_fixed;
    if look.tracked.agent.facts.is_none() {
        if added {
            add(
                "vcpu-online",
                CheckState::Warn,
                "vCPUs were added, and without an agent nobody tells whether the guest has brought them online",
                Some(
                    "install virt-persona-agent in the guest, which brings them online, or the udev rule of docs/troubleshooting.md",
                ),
            );
        }
        return;
    }
    let Some(online) = look.tracked.online(look.now) else {
        return;
    };
    let settled = look.vcpus.is_none_or(|state| state.in_flight.is_none());
    let target = look
        .vcpus
        .and_then(|state| state.target)
        .and_then(|target| u32::try_from(target).ok());
    if look.stays_plugged() || look.offline.is_some() {
        let sentence = match (target, look.offline) {
            // Fewer than are plugged is as it should be; more than the last step left is not.
            (Some(target), _) if settled && online > target => format!(
                "the guest was to keep {target} vCPUs online and has {online}: something in it brings those back that were taken offline"
            ),
            (_, Some(offline)) if offline.times > 0 => format!(
                "something in the guest brought vCPUs back that were taken offline, {} times so far; they were taken offline again",
                offline.times
            ),
            _ => return,
        };
        add(
            "vcpu-reonlined",
            CheckState::Warn,
            &sentence,
            Some(
                "look in the guest's udev rules (/etc/udev/rules.d, /usr/lib/udev/rules.d) for one that sets ATTR online of SUBSYSTEM cpu, and narrow it to ACTION add",
            ),
        );
    } else if settled && online < plugged {
        add(
            "vcpu-online",
            CheckState::Warn,
            &format!("{plugged} vCPUs are plugged, and the guest has only {online} online"),
            Some(
                "bring them online in the guest (/sys/devices/system/cpu/cpu*/online); `virt-persona audit` says what its agent answered",
            ),
        );
    }
}

/// What a migration may have done to it.
fn migration(look: &Look<'_>, add: &mut Add<'_>) {
    let failed = look
        .tracked
        .outcome(Resource::Vcpus)
        .and_then(|outcome| outcome.note.as_deref())
        .is_some_and(|note| note.contains(INPUT_OUTPUT));
    let mend = Some(
        "stop and start the domain where an added vCPU stays offline with an input/output error; a reboot inside it may not be enough",
    );
    if failed {
        add(
            "vcpu-after-migration",
            CheckState::Fail,
            "the guest could not bring an added vCPU online: input/output error, as after a live migration",
            mend,
        );
    } else if look.tracked.description.arrival == Arrival::Migrated {
        add(
            "vcpu-after-migration",
            CheckState::Warn,
            "the domain came to this host by live migration, after which some emulators add vCPUs that the guest cannot bring online",
            mend,
        );
    }
}
