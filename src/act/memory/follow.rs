//! Watching a guest follow what a memory step has asked for, until it has, or until the deadline. A device that is stuck
//! is asked once more; one that somebody else has asked meanwhile is left alone. Called by `memory` alone.

use std::time::Duration;

use persona::units::Bytes;
use planner::Step;
use tokio::time::{Instant, sleep};

use super::{Goal, plugged, resize, spread};
use crate::act::Hands;
use crate::hypervisor::{DomainDescription, HypervisorError, VirtioMem};

/// How often the hypervisor is looked at while the guest follows. The device itself reports about once a second.
const LOOK: Duration = Duration::from_millis(400);

/// A shrinking device that has not moved for this long is asked for another size and then for the target again, which
/// makes the guest's driver try at once instead of at its own next retry, some fifty seconds later.
const NUDGE_AFTER: Duration = Duration::from_secs(4);

/// How watching ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The size is there.
    Reached,
    /// The deadline passed.
    TimedOut,
    /// It is another running instance, or none.
    Gone,
    /// The devices are asked for what the step did not ask for: by a hand, or because the machine went back to a snapshot in
    /// the same emulator.
    Overtaken,
}

/// What watching saw.
pub(super) struct Watched {
    pub(super) end: End,
    pub(super) last: DomainDescription,
    /// The device had to be asked twice.
    pub(super) nudged: bool,
}

/// Watches until the size is reached or the deadline passes. `before` has what the devices were asked for before the step, or
/// when a call for it had failed in a way that leaves open what it did.
pub(super) async fn follow(
    hands: &Hands,
    step: &Step,
    goal: &Goal,
    before: DomainDescription,
) -> Watched {
    let end = Instant::now() + hands.settings.memory_deadline;
    let mut own = Own::of_devices(&before.virtio_mem, goal.devices);
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
        } else if !own.shows(&last.virtio_mem) {
            Some(End::Overtaken)
        } else if goal.is_reached(&last) {
            Some(End::Reached)
        } else {
            (Instant::now() >= end).then_some(End::TimedOut)
        };
        if let Some(end) = end {
            return Watched { end, last, nudged };
        }
        let devices = goal.devices.filter(|_| step.to < step.from);
        if let Some(size) = devices.filter(|_| !nudged && moved_at.elapsed() >= NUDGE_AFTER) {
            nudged = true;
            let block = last
                .virtio_mem
                .iter()
                .map(|device| device.block.0)
                .max()
                .unwrap_or(0);
            let other = size.saturating_add(Bytes(block));
            own.nudge(other);
            // Both are requests only; when one of them fails the deadline decides as before.
            if resize(hands, &last, other, true).await.is_ok() {
                if let Ok(now) = hands.hypervisor.describe(step.domain).await {
                    last = now;
                }
                if own.shows(&last.virtio_mem) && last.instance == step.instance {
                    let _ = resize(hands, &last, size, true).await;
                }
            }
        }
    }
}

/// What devices may be asked for without anybody else having had a hand in it.
struct Own {
    devices: Vec<OwnSizes>,
    /// The hypervisor has shown what the step asked for, so that what was there before would be another's doing.
    taken_over: bool,
}

/// The sizes of one device.
struct OwnSizes {
    before: VirtioMem,
    /// What the step wants; what there was, where it leaves the devices alone.
    goal: Bytes,
    /// What it is asked for in between when it is stuck.
    nudge: Bytes,
}

impl Own {
    /// `total` is what the step wants of all together, where it wants anything of them.
    fn of_devices(before: &[VirtioMem], total: Option<Bytes>) -> Self {
        let goals = total.map(|total| spread(before, total));
        let devices = before.iter().enumerate();
        Self {
            devices: devices
                .map(|(index, device)| {
                    let goal = goals.as_ref().map_or(device.requested, |of| of[index].1);
                    OwnSizes {
                        before: device.clone(),
                        goal,
                        nudge: goal,
                    }
                })
                .collect(),
            taken_over: false,
        }
    }

    /// From now on the devices may also be asked for this of all together.
    fn nudge(&mut self, total: Bytes) {
        let devices: Vec<VirtioMem> = self.devices.iter().map(|of| of.before.clone()).collect();
        for (own, (_, size)) in self.devices.iter_mut().zip(spread(&devices, total)) {
            own.nudge = size;
        }
    }

    /// Whether what the hypervisor shows as asked for is what the step asked for, or what was there before that is seen. What
    /// was added since is not looked at.
    fn shows(&mut self, now: &[VirtioMem]) -> bool {
        let asked = |own: &OwnSizes| {
            let devices = now.iter();
            devices
                .filter(|device| device.alias == own.before.alias)
                .map(|device| device.requested)
                .next()
        };
        let taken_over = self.taken_over;
        let mut all_taken = true;
        for own in &self.devices {
            let Some(asked) = asked(own) else {
                return false;
            };
            let taken = asked == own.goal || asked == own.nudge;
            if !taken && (taken_over || asked != own.before.requested) {
                return false;
            }
            all_taken &= taken;
        }
        self.taken_over |= all_taken;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sizes: [u64; 2]) -> Vec<VirtioMem> {
        let device = |alias: &str, requested| VirtioMem {
            alias: alias.into(),
            node: 0,
            size: Bytes::from_mib(256),
            block: Bytes::from_mib(2),
            requested: Bytes::from_mib(requested),
            current: Bytes(0),
        };
        vec![device("one", sizes[0]), device("two", sizes[1])]
    }

    #[test]
    fn what_a_step_asks_of_devices_is_its_own_and_what_was_there_is_only_until_that_is_seen() {
        let own = || Own::of_devices(&asked([256, 100]), Some(Bytes::from_mib(200)));
        // Before it is seen, each device may be asked for either.
        for sizes in [[256, 100], [200, 100], [256, 0], [200, 0]] {
            assert!(own().shows(&asked(sizes)), "{sizes:?}");
        }
        for sizes in [[128, 100], [200, 2], [0, 0]] {
            assert!(!own().shows(&asked(sizes)), "{sizes:?}");
        }
        let mut own = own();
        assert!(own.shows(&asked([200, 0])));
        assert!(!own.shows(&asked([256, 100])), "it went back");
        assert!(!own.shows(&asked([202, 0])), "nobody has nudged it");
        own.nudge(Bytes::from_mib(202));
        assert!(own.shows(&asked([202, 0])));
        assert!(own.shows(&asked([200, 0])));
        assert!(!own.shows(&asked([200, 0])[..1]), "a device is gone");
        let mut more = asked([200, 0]);
        more.extend(asked([4, 4]).into_iter().map(|device| VirtioMem {
            alias: format!("another {}", device.alias),
            ..device
        }));
        assert!(own.shows(&more), "what was added is not looked at");
    }

    #[test]
    fn a_step_that_leaves_the_devices_alone_asks_nothing_of_them() {
        let mut own = Own::of_devices(&asked([256, 100]), None);
        assert!(own.shows(&asked([256, 100])));
        assert!(!own.shows(&asked([256, 0])));
    }
}
