//! Memory steps: the requested size of virtio-mem devices, the balloon's target, or a DIMM, as the step says. The first
//! two are only requests; the guest follows in its own time, wholly, partly or not at all, so they are watched until the
//! deadline.
//!
//! What a machine has is what the balloon leaves of boot memory and DIMMs, and what virtio-mem devices have plugged.

mod follow;

use std::time::Duration;

use persona::units::Bytes;
use planner::{Ending, Means, Step};

use super::{Aftermath, Hands, Outcome, sentence_of};
use crate::hypervisor::{DomainDescription, HypervisorError, VirtioMem};
use follow::{End, follow};

/// How long the guest may take to answer what it sees of its memory.
const GUEST_ANSWER: Duration = Duration::from_secs(3);

pub(super) async fn act(hands: &Hands, step: Step) -> Outcome {
    let before = match hands.hypervisor.describe(step.domain).await {
        Ok(description) => description,
        Err(error) => {
            return Outcome {
                untried: error.is_unreachable(),
                ..refused(&step, sentence_of(&error), None)
            };
        }
    };
    if before.instance != step.instance {
        return refused(
            &step,
            "the domain was started anew since the plan was made".into(),
            Some(&before),
        );
    }
    let guest_before = hands
        .guest
        .memory_total(step.domain, GUEST_ANSWER)
        .await
        .ok();
    let mut notes = Vec::new();
    let goal = Goal::of(&step, &before);
    let watched = match request(hands, &before, &goal).await {
        Ok(()) => follow(hands, &step, &goal, before.clone()).await,
        Err(Failed {
            note,
            happened,
            untried,
        }) => {
            notes.push(note);
            match hands.hypervisor.describe(step.domain).await {
                // The call failed, but it may have done something: what is seen counts.
                Ok(now) if in_doubt(&now, &before, &goal, happened) => {
                    follow(hands, &step, &goal, now).await
                }
                shown => {
                    let ending = if happened {
                        Ending::Unknown
                    } else {
                        Ending::Refused
                    };
                    let seen = shown.unwrap_or(before);
                    return Outcome {
                        ending,
                        untried,
                        ..refused(&step, notes.join("; "), Some(&seen))
                    };
                }
            }
        }
    };
    if watched.nudged {
        notes.push("the device was stuck and had to be asked twice".into());
    }
    let (start, plugged) = (plugged(&before), plugged(&watched.last));
    let mut asked = asked(&watched.last);
    let ending = match watched.end {
        End::Gone => {
            notes.push("the domain was stopped or started anew meanwhile".into());
            return Outcome {
                ending: Ending::Unknown,
                ..refused(&step, notes.join("; "), None)
            };
        }
        End::Overtaken => {
            notes.push(
                "the devices are asked for another size than the step asked for, by somebody else or by a revert to a snapshot, \
                 and that is left alone"
                    .into(),
            );
            return Outcome {
                ending: Ending::Unknown,
                aftermath: Aftermath::AskedByOthers,
                ..refused(&step, notes.join("; "), Some(&watched.last))
            };
        }
        End::Reached => Ending::Applied,
        // What has not come by now is not left pending: a request that completes an hour later would surprise everybody.
        End::TimedOut => match take_back(hands, &watched.last, &goal).await {
            Err(Failed { note, .. }) => {
                notes.push(format!("the pending rest could not be taken back: {note}"));
                Ending::Unknown
            }
            Ok(()) => {
                asked = plugged;
                notes.push(
                    "the guest did not follow all the way in time; the rest of the request was taken back"
                        .into(),
                );
                if plugged == start {
                    Ending::Refused
                } else {
                    Ending::Partial
                }
            }
        },
    };
    let guest = hands
        .guest
        .memory_total(step.domain, GUEST_ANSWER)
        .await
        .ok();
    let ending = match (ending, guest_before, guest) {
        (Ending::Applied, Some(before), Some(after))
            if !guest_followed(start, plugged, before, after) =>
        {
            notes.push("the hypervisor shows the change, but the guest does not".into());
            Ending::Unknown
        }
        (ending, _, _) => ending,
    };
    if ending == Ending::Applied && guest.is_none() {
        notes.push("the guest's own driver reports the size; no agent could confirm it".into());
    }
    Outcome {
        requested: step.to,
        plugged: Some(plugged.0),
        guest: guest.map(|bytes| bytes.0),
        asked: Some(asked.0),
        step,
        ending,
        aftermath: Aftermath::Nothing,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        veto: None,
        untried: false,
    }
}

/// Whether something may be under way after a failed request. Virtio-mem devices and DIMMs show what was asked for; a
/// balloon does not, so only the kind of the failure tells.
fn in_doubt(
    now: &DomainDescription,
    before: &DomainDescription,
    goal: &Goal,
    happened: bool,
) -> bool {
    let shown = asked(now) != asked(before);
    shown || (happened && goal.left.is_some() && goal.devices.is_none())
}

fn refused(step: &Step, note: String, seen: Option<&DomainDescription>) -> Outcome {
    Outcome {
        requested: step.to,
        plugged: seen.map(|seen| plugged(seen).0),
        guest: None,
        asked: seen.map(|seen| asked(seen).0),
        step: step.clone(),
        ending: Ending::Refused,
        aftermath: Aftermath::Nothing,
        note: Some(note),
        veto: None,
        untried: false,
    }
}

/// What is there without virtio-mem and with the balloon deflated.
fn base(description: &DomainDescription) -> Bytes {
    description
        .memory_boot
        .saturating_add(description.memory_dimms)
}

/// What the balloon leaves of it.
fn left(description: &DomainDescription) -> Bytes {
    let base = base(description);
    let left = description.balloon_current.unwrap_or(base);
    // Without devices the balloon's own word counts, whatever it is.
    if description.virtio_mem.is_empty() {
        left
    } else {
        left.min(base)
    }
}

fn sum(description: &DomainDescription, size: fn(&VirtioMem) -> Bytes) -> Bytes {
    let devices = description.virtio_mem.iter();
    Bytes(devices.map(|device| size(device).0).sum())
}

/// What is plugged, as the guest's driver told the device.
fn plugged(description: &DomainDescription) -> Bytes {
    left(description).saturating_add(sum(description, |device| device.current))
}

/// What the hypervisor shows as asked for.
fn asked(description: &DomainDescription) -> Bytes {
    left(description).saturating_add(sum(description, |device| device.requested))
}

/// Why a size could not be asked for.
struct Failed {
    note: String,
    /// It may have taken effect all the same, or in part.
    happened: bool,
    /// The hypervisor could not be reached before anything was asked.
    untried: bool,
}

/// `begun`: something was asked for already.
#[allow(clippy::needless_pass_by_value, reason = "it stands behind `map_err`")]
fn failed(error: HypervisorError, begun: bool) -> Failed {
    Failed {
        note: sentence_of(&error),
        happened: begun || error.may_have_taken_effect(),
        untried: !begun && error.is_unreachable(),
    }
}

/// What a step asks for; what it leaves alone is absent.
struct Goal {
    /// What the balloon leaves.
    left: Option<Bytes>,
    /// What all virtio-mem devices have together.
    devices: Option<Bytes>,
    /// A DIMM of this size.
    dimm: Option<Bytes>,
    /// What the machine has then.
    total: Bytes,
}

impl Goal {
    fn of(step: &Step, before: &DomainDescription) -> Self {
        let to = Bytes(step.to);
        let (left, base) = (left(before), base(before));
        let nothing = Self {
            left: None,
            devices: None,
            dimm: None,
            total: to,
        };
        match step.means {
            Means::Dimm => Self {
                dimm: Some(Bytes(step.to.saturating_sub(step.from))),
                ..nothing
            },
            Means::Balloon => {
                let change = Bytes(step.to.abs_diff(step.from));
                let target = if step.to < step.from {
                    left.saturating_sub(change)
                } else {
                    left.saturating_add(change).min(base)
                };
                Self {
                    left: Some(target),
                    ..nothing
                }
            }
            Means::Usual if before.virtio_mem.is_empty() => Self {
                left: Some(to),
                ..nothing
            },
            // What the balloon took in place of the devices comes back before they grow.
            Means::Usual if to > asked(before) && left < base => {
                let devices = sum(before, |device| device.requested);
                let deflated = base.min(to.saturating_sub(devices));
                Self {
                    left: Some(deflated),
                    devices: Some(to.saturating_sub(deflated)),
                    ..nothing
                }
            }
            Means::Usual => Self {
                devices: Some(to.saturating_sub(left)),
                ..nothing
            },
        }
    }

    fn is_reached(&self, now: &DomainDescription) -> bool {
        match (self.left, self.devices) {
            (Some(target), None) => left(now) == target,
            _ => plugged(now) == self.total,
        }
    }
}

/// Asks for what a step wants.
async fn request(
    hands: &Hands,
    description: &DomainDescription,
    goal: &Goal,
) -> Result<(), Failed> {
    let mut begun = false;
    if let Some(size) = goal.dimm {
        hands
            .hypervisor
            .attach_dimm(description.id, size)
            .await
            .map_err(|error| failed(error, false))?;
        begun = true;
    }
    if let Some(target) = goal.left {
        hands
            .hypervisor
            .set_balloon(description.id, target)
            .await
            .map_err(|error| failed(error, begun))?;
        begun = true;
    }
    if let Some(size) = goal.devices {
        resize(hands, description, size, begun).await?;
    }
    Ok(())
}

/// Asks for what is there already, so that nothing stays pending.
async fn take_back(hands: &Hands, now: &DomainDescription, goal: &Goal) -> Result<(), Failed> {
    let there = Goal {
        left: goal.left.map(|_| left(now)),
        devices: None,
        dimm: None,
        total: plugged(now),
    };
    request(hands, now, &there).await?;
    if goal.devices.is_some() {
        for device in &now.virtio_mem {
            ask(hands, now, device, device.current, true).await?;
        }
    }
    Ok(())
}

/// Asks the devices for a size of all together.
async fn resize(
    hands: &Hands,
    description: &DomainDescription,
    total: Bytes,
    mut begun: bool,
) -> Result<(), Failed> {
    for (device, size) in spread(&description.virtio_mem, total) {
        begun |= ask(hands, description, device, size, begun).await?;
    }
    Ok(())
}

/// Asks a device for a size, unless it was asked for it already; whether it was asked now.
async fn ask(
    hands: &Hands,
    description: &DomainDescription,
    device: &VirtioMem,
    size: Bytes,
    begun: bool,
) -> Result<bool, Failed> {
    if device.requested == size {
        return Ok(false);
    }
    hands
        .hypervisor
        .set_virtio_mem(description.id, device.alias.clone(), size)
        .await
        .map_err(|error| failed(error, begun))?;
    Ok(true)
}

/// Fills the devices in their order, each in its own blocks.
fn spread(devices: &[VirtioMem], total: Bytes) -> Vec<(&VirtioMem, Bytes)> {
    let mut left = total.0;
    devices
        .iter()
        .map(|device| {
            let block = device.block.0.max(1);
            let size = left.min(device.size.0) / block * block;
            left -= size;
            (device, Bytes(size))
        })
        .collect()
}

/// Whether what the guest shows moved as far as the device did. Guests count a little less than what is plugged, and
/// they bring memory online in blocks of their own, so half of the change is demanded.
fn guest_followed(start: Bytes, plugged: Bytes, before: Bytes, after: Bytes) -> bool {
    let moved = plugged.0.abs_diff(start.0);
    let grew = plugged > start;
    let seen = after.0.abs_diff(before.0);
    (after > before) == grew && seen >= moved / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(alias: &str, size: u64, block: u64) -> VirtioMem {
        VirtioMem {
            alias: alias.into(),
            node: 0,
            size: Bytes::from_mib(size),
            block: Bytes::from_mib(block),
            requested: Bytes(0),
            current: Bytes(0),
        }
    }

    #[test]
    fn devices_are_filled_in_order_and_in_their_blocks() {
        let devices = [device("a", 512, 2), device("b", 1024, 128)];
        let sizes = |total| {
            spread(&devices, Bytes::from_mib(total))
                .iter()
                .map(|(_, size)| size.as_mib())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), [0, 0]);
        assert_eq!(sizes(301), [300, 0]);
        assert_eq!(sizes(700), [512, 128]);
        assert_eq!(sizes(9000), [512, 1024]);
    }

    #[test]
    fn a_guest_that_shows_nothing_of_the_change_has_not_followed() {
        let mib = Bytes::from_mib;
        assert!(guest_followed(mib(512), mib(640), mib(480), mib(608)));
        assert!(guest_followed(mib(640), mib(512), mib(600), mib(480)));
        assert!(!guest_followed(mib(512), mib(640), mib(480), mib(480)));
        assert!(!guest_followed(mib(512), mib(640), mib(480), mib(400)));
    }
}
