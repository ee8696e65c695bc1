//! The part of `doctor` on a domain's memory: whether it can grow and shrink, whether it does, and whether what the guest
//! says of it is fresh.

use persona::units::Bytes;
use planner::snapshot::Run;

use super::{Add, Look};
use crate::adopt;
use crate::view::CheckState;

/// Linux keeps 64 bytes for each page of 4 KiB that is plugged.
const BOOKKEEPING: u64 = 64;

/// When the bookkeeping of all that may be plugged takes this part of what the guest boots with, it is too much: 1/4.
const TOO_MUCH: u64 = 4;

/// Memory that moves pauses for a moment now and then.
const STANDING_MS: u64 = 10_000;

pub(super) fn check(look: &Look<'_>, add: &mut Add<'_>) {
    device(look, add);
    addresses(look, add);
    if look.tracked.run() == Run::Running {
        stuck(look, add);
        statistics(look, add);
    }
}

fn device(look: &Look<'_>, add: &mut Add<'_>) {
    let description = &look.tracked.description;
    if description.memory_dimms.0 > 0 {
        add(
            "memory-dimm",
            CheckState::Warn,
            &format!(
                "{} of its memory are in DIMMs, which a guest rarely gives back; they are never taken out",
                description.memory_dimms
            ),
            Some("use a virtio-mem device for memory that comes and goes (`virt-persona adopt`)"),
        );
    }
    if let Some(most) = description
        .virtio_mem
        .iter()
        .map(|device| device.size.0)
        .reduce(u64::saturating_add)
    {
        let bookkeeping = Bytes(most / BOOKKEEPING);
        let risky = bookkeeping.0 > description.memory_boot.0 / TOO_MUCH;
        add(
            "memory",
            if risky { CheckState::Warn } else { CheckState::Ok },
            &format!("virtio-mem adds up to {} to the {} at boot, of which the bookkeeping of all that takes {bookkeeping}", Bytes(most), description.memory_boot),
            risky.then_some("give the guest more boot memory: page structs of what is plugged have to fit into it"),
        );
        return;
    }
    let mend_device = if description.numa_nodes == 0 || description.memory_maximum.is_none() {
        "for growth `virt-persona adopt` adds <maxMemory>, one <numa> cell and a virtio-mem device to the definition; then start the domain anew"
    } else {
        "for growth `virt-persona adopt` attaches a virtio-mem device"
    };
    if description.balloon_current.is_none() {
        add(
            "memory",
            CheckState::Fail,
            "the domain has neither a virtio-mem device nor a balloon, so its memory cannot be changed",
            Some(mend_device),
        );
    } else {
        add(
            "memory",
            CheckState::Warn,
            &format!(
                "only the balloon: memory can be taken away and given back, up to the {} at boot",
                description.memory_boot
            ),
            Some(mend_device),
        );
    }
}

/// Whether the maximum fits into the CPU's physical addresses.
fn addresses(look: &Look<'_>, add: &mut Add<'_>) {
    let description = &look.tracked.description;
    let Some(most) = description.memory_maximum else {
        return;
    };
    let bits = description
        .address_bits
        .on(description.acceleration, look.facilities.address_bits);
    if most <= adopt::room_for_memory(bits, adopt::SLOTS) {
        return;
    }
    let all = 1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    let mend = Some(
        "write a smaller <maxMemory>, or a CPU with more address bits: <cpu mode='host-passthrough'>, or <maxphysaddr> in <cpu>",
    );
    if most.0 >= all {
        let text = format!(
            "<maxMemory> is {most}, which {bits} bits of physical address do not hold: the domain does not start"
        );
        add("address-bits", CheckState::Fail, &text, mend);
    } else {
        let text = format!(
            "<maxMemory> is {most}, which leaves too few of {bits} bits of physical address for devices: the domain may not start"
        );
        add("address-bits", CheckState::Warn, &text, mend);
    }
}

/// Whether what was asked for comes.
fn stuck(look: &Look<'_>, add: &mut Add<'_>) {
    let Some(state) = look.memory else { return };
    let mend = Some(
        "look in the guest's kernel log for virtio_mem or virtio_balloon; asking for another size and back makes its driver try again, and a restart of the guest ends it for sure",
    );
    if let Some(until) = state.quarantined_until.filter(|until| *until > look.now) {
        let left = until.since(look.now).as_secs();
        add(
            "memory-stuck",
            CheckState::Fail,
            &format!(
                "the guest does not follow what is asked of its memory, which is left alone for another {left} s"
            ),
            mend,
        );
    } else if let Some(lag) = &state.lag {
        let since = look.now.since(lag.since);
        if since.as_millis() >= STANDING_MS.into() {
            add(
                "memory-stuck",
                CheckState::Warn,
                &format!(
                    "{} of memory were asked for, the guest has {}, and nothing has moved for {} s",
                    Bytes(lag.asked),
                    Bytes(lag.shown),
                    since.as_secs()
                ),
                mend,
            );
        }
    }
}

/// Whether the balloon's figures are on and fresh.
fn statistics(look: &Look<'_>, add: &mut Add<'_>) {
    let description = &look.tracked.description;
    if description.balloon_current.is_none() {
        return;
    }
    let Some(period) = description.balloon_period else {
        add(
            "balloon-statistics",
            CheckState::Warn,
            "the balloon's statistics are off, so what the guest uses is known only from its agent",
            Some(
                "they are turned on when a persona that manages memory is in force, by `virt-persona adopt`, or with `virsh dommemstat DOMAIN --period 2 --live`",
            ),
        );
        return;
    };
    let Some(updated) = look.tracked.balloon.last_update.filter(|at| *at > 0) else {
        add(
            "balloon-statistics",
            CheckState::Warn,
            "the guest's balloon driver has reported no statistics",
            Some(
                "wait until the guest is up; then see that it has a balloon driver (Linux: virtio_balloon; Windows: the driver and its service)",
            ),
        );
        return;
    };
    let age = (look.now.0 / 1000).saturating_sub(updated);
    let stale = age > 3 * period.as_secs() + 2 * look.asked_s;
    add(
        "balloon-statistics",
        if stale { CheckState::Warn } else { CheckState::Ok },
        &format!("the balloon's statistics are {age} s old, with a period of {} s", period.as_secs()),
        stale.then_some("old ones are not believed; see whether the guest hangs, and on Windows whether the balloon's service runs"),
    );
}
