//! Memory steps: the requested size of virtio-mem devices, or the balloon's target where there are none. Both are only
//! requests; the guest follows in its own time, wholly, partly or not at all, so they are watched until the deadline.

use std::time::Duration;

use persona::units::Bytes;
use planner::{Ending, Step};
use tokio::time::{Instant, sleep};

use super::{Hands, Outcome, sentence_of};
use crate::hypervisor::{DomainDescription, HypervisorError, VirtioMem};

/// How often the hypervisor is looked at while the guest follows. The device itself reports about once a second.
const LOOK: Duration = Duration::from_millis(400);

/// A shrinking device that has not moved for this long is asked for another size and then for the target again, which
/// makes the guest's driver try at once instead of at its own next retry, some fifty seconds later.
const NUDGE_AFTER: Duration = Duration::from_secs(4);

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
    let watched = match request(hands, &before, Bytes(step.to)).await {
        Ok(()) => follow(hands, &step, before.clone()).await,
        Err(Failed {
            note,
            happened,
            untried,
        }) => {
            notes.push(note);
            match hands.hypervisor.describe(step.domain).await {
                // The call failed, but it may have done something: what is seen counts.
                Ok(now) if in_doubt(&now, &before, happened) => follow(hands, &step, now).await,
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
        End::Reached => Ending::Applied,
        // What has not come by now is not left pending: a request that completes an hour later would surprise everybody.
        End::TimedOut => match request(hands, &watched.last, plugged).await {
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
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        veto: None,
        untried: false,
    }
}

/// Whether something may be under way after a failed request. A virtio-mem device shows what it was asked for; a balloon
/// does not, so only the kind of the failure tells.
fn in_doubt(now: &DomainDescription, before: &DomainDescription, happened: bool) -> bool {
    if now.virtio_mem.is_empty() {
        happened
    } else {
        asked(now) != asked(before)
    }
}

fn refused(step: &Step, note: String, seen: Option<&DomainDescription>) -> Outcome {
    Outcome {
        requested: step.to,
        plugged: seen.map(|seen| plugged(seen).0),
        guest: None,
        asked: seen.map(|seen| asked(seen).0),
        step: step.clone(),
        ending: Ending::Refused,
        note: Some(note),
        veto: None,
        untried: false,
    }
}

/// What is plugged, as the guest's driver told the device.
fn plugged(description: &DomainDescription) -> Bytes {
    if description.virtio_mem.is_empty() {
        return description
            .balloon_current
            .unwrap_or(description.memory_boot);
    }
    let devices: u64 = description
        .virtio_mem
        .iter()
        .map(|device| device.current.0)
        .sum();
    Bytes(description.memory_boot.0 + devices)
}

/// What the hypervisor shows as asked for.
fn asked(description: &DomainDescription) -> Bytes {
    if description.virtio_mem.is_empty() {
        return plugged(description);
    }
    let devices: u64 = description
        .virtio_mem
        .iter()
        .map(|device| device.requested.0)
        .sum();
    Bytes(description.memory_boot.0 + devices)
}

/// Why a size could not be asked for.
struct Failed {
    note: String,
    /// It may have taken effect all the same, or in part.
    happened: bool,
    /// The hypervisor could not be reached before anything was asked.
    untried: bool,
}

/// Asks for a size of the whole machine.
async fn request(hands: &Hands, description: &DomainDescription, to: Bytes) -> Result<(), Failed> {
    let failed = |error: HypervisorError, begun: bool| Failed {
        note: sentence_of(&error),
        happened: begun || error.may_have_taken_effect(),
        untried: !begun && error.is_unreachable(),
    };
    if description.virtio_mem.is_empty() {
        return hands
            .hypervisor
            .set_balloon(description.id, to)
            .await
            .map_err(|error| failed(error, false));
    }
    let mut begun = false;
    for (device, size) in spread(
        &description.virtio_mem,
        to.saturating_sub(description.memory_boot),
    ) {
        if device.requested != size {
            hands
                .hypervisor
                .set_virtio_mem(description.id, device.alias.clone(), size)
                .await
                .map_err(|error| failed(error, begun))?;
            begun = true;
        }
    }
    Ok(())
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

/// How watching ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The size is there.
    Reached,
    /// The deadline passed.
    TimedOut,
    /// It is another running instance, or none.
    Gone,
}

/// What watching saw.
struct Watched {
    end: End,
    last: DomainDescription,
    /// The device had to be asked twice.
    nudged: bool,
}

/// Watches until the size is reached or the deadline passes.
async fn follow(hands: &Hands, step: &Step, before: DomainDescription) -> Watched {
    let end = Instant::now() + hands.settings.memory_deadline;
    let (mut last, mut moved_at, mut nudged) = (before, Instant::now(), false);
    loop {
        sleep(LOOK).await;
        let mut gone = false;
        match hands.hypervisor.describe(step.domain).await {
            Ok(now) => {
                if plugged(&now) != plugged(&last) {
                    moved_at = Instant::now();
                }
                gone = now.instance != step.instance;
                last = now;
            }
            Err(HypervisorError::NoDomain { .. }) => gone = true,
            // Perhaps the next look succeeds.
            Err(_) => {}
        }
        let end = if gone {
            Some(End::Gone)
        } else if plugged(&last) == Bytes(step.to) {
            Some(End::Reached)
        } else {
            (Instant::now() >= end).then_some(End::TimedOut)
        };
        if let Some(end) = end {
            return Watched { end, last, nudged };
        }
        let shrinking = step.to < step.from && !last.virtio_mem.is_empty();
        if shrinking && !nudged && moved_at.elapsed() >= NUDGE_AFTER {
            nudged = true;
            let block = last
                .virtio_mem
                .iter()
                .map(|device| device.block.0)
                .max()
                .unwrap_or(0);
            let other = Bytes(step.to.saturating_add(block));
            // Both are requests only; when one of them fails the deadline decides as before.
            if request(hands, &last, other).await.is_ok() {
                if let Ok(now) = hands.hypervisor.describe(step.domain).await {
                    last = now;
                }
                let _ = request(hands, &last, Bytes(step.to)).await;
            }
        }
    }
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
