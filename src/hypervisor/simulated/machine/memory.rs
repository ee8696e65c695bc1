//! The memory of a simulated domain: what devices and balloon are asked for, DIMMs, and the steps in which the guest follows.
//! How long a step takes is not here. Called by `simulated` and by its calls.

use std::time::Duration;

use persona::units::Bytes;

use super::{Machine, Outcome, Progress};
use crate::hypervisor::simulated::conduct::Conduct;
use crate::hypervisor::{DeviceChange, HypervisorEvent, RunState};

impl Machine {
    /// Asks each device for this, whatever it was asked for before.
    pub(in crate::hypervisor::simulated) fn ask_devices(&mut self, each: Bytes) {
        for device in &mut self.description.virtio_mem {
            device.requested = each;
        }
        self.limits.clear();
    }

    /// Asks a device for a size; the guest follows by [`Machine::step`], no further than `limit`.
    pub(in crate::hypervisor::simulated) fn set_virtio_mem(
        &mut self,
        alias: &str,
        requested: Bytes,
        limit: Option<Bytes>,
    ) -> Outcome {
        if let Err(outcome) = self.runs() {
            return outcome;
        }
        let devices = &mut self.description.virtio_mem;
        let Some(device) = devices.iter_mut().find(|device| device.alias == alias) else {
            let alias = alias.to_owned();
            return Outcome::NoDevice { alias };
        };
        if requested > device.size {
            return Outcome::Refused("requested size must be smaller than the size".into());
        }
        if !requested.0.is_multiple_of(device.block.0.max(1)) {
            return Outcome::Refused("requested size must be a multiple of the block size".into());
        }
        device.requested = requested;
        let half =
            Bytes(device.current.0.midpoint(requested.0) / device.block.0.max(1) * device.block.0);
        match limit.or(self.goes_half_way().then_some(half)) {
            Some(limit) => self.limits.insert(alias.to_owned(), limit),
            None => self.limits.remove(alias),
        };
        Outcome::Done
    }

    /// Asks the balloon for a size; the guest follows by [`Machine::step`], no further than `limit`.
    pub(in crate::hypervisor::simulated) fn set_balloon(
        &mut self,
        target: Bytes,
        limit: Option<Bytes>,
    ) -> Outcome {
        if let Err(outcome) = self.runs() {
            return outcome;
        }
        if self.description.balloon_current.is_none() {
            return Outcome::Refused(
                "Unable to change memory of active domain without the balloon device".into(),
            );
        }
        self.balloon_target = target.min(self.base());
        let half = Bytes(self.balloon_current().0.midpoint(self.balloon_target.0));
        self.balloon_limit = limit.or(self.goes_half_way().then_some(half));
        Outcome::Done
    }

    /// Adds a DIMM, which the guest takes over at once.
    pub(in crate::hypervisor::simulated) fn attach_dimm(
        &mut self,
        size: Bytes,
    ) -> (Outcome, Vec<HypervisorEvent>) {
        let refused = |words: &str| (Outcome::Refused(words.into()), Vec::new());
        if let Err(outcome) = self.runs() {
            return (outcome, Vec::new());
        }
        let devices: u64 = self
            .description
            .virtio_mem
            .iter()
            .map(|device| device.size.0)
            .sum();
        let Some(maximum) = self.description.memory_maximum else {
            return refused("cannot hotplug memory: maxMemory is not set");
        };
        if self.description.numa_nodes == 0 {
            return refused("can't add memory backend as guest has no NUMA nodes configured");
        }
        if self.description.dimm_slots == 0 {
            return refused("memory device count exceeds slots count");
        }
        if self.base().0 + devices + size.0 > maximum.0 {
            return refused("memory device total size exceeds hotplug space");
        }
        self.description.dimm_slots -= 1;
        self.description.memory_dimms = self.description.memory_dimms.saturating_add(size);
        self.balloon_target = self.balloon_target.saturating_add(size);
        if let Some(current) = &mut self.description.balloon_current {
            *current = current.saturating_add(size);
        }
        let told = HypervisorEvent::Device {
            domain: self.id(),
            alias: "dimm0".into(),
            change: DeviceChange::Added,
        };
        (Outcome::Done, vec![told])
    }

    /// What is there without virtio-mem and with the balloon deflated.
    fn base(&self) -> Bytes {
        self.description
            .memory_boot
            .saturating_add(self.description.memory_dimms)
    }

    fn goes_half_way(&self) -> bool {
        self.inside.conduct == Some(Conduct::Partly)
    }

    pub(in crate::hypervisor::simulated) fn set_balloon_period(
        &mut self,
        period: Duration,
    ) -> Outcome {
        if let Err(outcome) = self.runs() {
            return outcome;
        }
        if self.description.balloon_current.is_none() {
            return Outcome::Refused("No memory balloon device configured".into());
        }
        self.description.balloon_period = Some(period);
        Outcome::Done
    }

    pub(super) fn virtio_mem_current(&self) -> Bytes {
        let devices = self.description.virtio_mem.iter();
        Bytes(devices.map(|device| device.current.0).sum())
    }

    pub(super) fn balloon_current(&self) -> Bytes {
        self.description.balloon_current.unwrap_or(self.base())
    }

    /// Lets the guest follow what was asked by one step.
    pub(in crate::hypervisor::simulated) fn step(&mut self) -> (Progress, Vec<HypervisorEvent>) {
        match self.description.state {
            RunState::Running => {}
            // It goes on when it runs again.
            RunState::Paused => return (Progress::Moving, Vec::new()),
            RunState::Off | RunState::Other => return (Progress::Arrived, Vec::new()),
        }
        if let Some(Conduct::RefusesMemory | Conduct::Hangs) = self.inside.conduct {
            // It goes on when the guest behaves again.
            return (Progress::Arrived, Vec::new());
        }
        let domain = self.id();
        let mut told = Vec::new();
        for index in 0..self.description.virtio_mem.len() {
            let elsewhere = self.balloon_current().0 + self.virtio_mem_current().0;
            let device = &mut self.description.virtio_mem[index];
            // What is in use and has no place elsewhere stays where it is.
            let held = self
                .memory_used
                .0
                .saturating_sub(elsewhere - device.current.0);
            let held = held
                .next_multiple_of(device.block.0.max(1))
                .min(device.current.0);
            let limit = self.limits.get(&device.alias).map(|limit| limit.0);
            let stride = (device.size.0 / 4).next_multiple_of(device.block.0.max(1));
            let next = towards(device.current.0, device.requested.0, held, limit, stride);
            if next != device.current.0 {
                device.current = Bytes(next);
                told.push(HypervisorEvent::Device {
                    domain,
                    alias: device.alias.clone(),
                    change: DeviceChange::Resized(device.current),
                });
            }
        }
        if let Some(current) = self.description.balloon_current {
            let held = self
                .memory_used
                .0
                .saturating_sub(self.virtio_mem_current().0);
            let limit = self.balloon_limit.map(|limit| limit.0);
            let stride = self.description.memory_boot.0 / 4;
            let next = towards(
                current.0,
                self.balloon_target.0,
                held.min(current.0),
                limit,
                stride.max(1),
            );
            if next != current.0 {
                self.description.balloon_current = Some(Bytes(next));
                told.push(HypervisorEvent::Balloon {
                    domain,
                    current: Bytes(next),
                });
            }
        }
        if told.is_empty() {
            (Progress::Arrived, told)
        } else {
            (Progress::Moving, told)
        }
    }
}

/// The next size on the way from `current` to `goal`: never below what is `held`, never beyond a `limit` in the
/// direction of the way.
fn towards(current: u64, goal: u64, held: u64, limit: Option<u64>, stride: u64) -> u64 {
    if goal >= current {
        let goal = limit.map_or(goal, |limit| goal.min(limit)).max(current);
        goal.min(current.saturating_add(stride))
    } else {
        let goal = limit
            .map_or(goal, |limit| goal.max(limit))
            .max(held)
            .min(current);
        goal.max(current.saturating_sub(stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_goes_step_by_step_and_stops_where_it_must() {
        let way = |mut current: u64, goal, held, limit| {
            let mut way = vec![current];
            loop {
                let next = towards(current, goal, held, limit, 25);
                if next == current {
                    return way;
                }
                way.push(next);
                current = next;
            }
        };
        assert_eq!(way(0, 60, 0, None), [0, 25, 50, 60]);
        assert_eq!(way(60, 0, 0, None), [60, 35, 10, 0]);
        assert_eq!(way(60, 0, 40, None), [60, 40]);
        assert_eq!(way(0, 60, 0, Some(30)), [0, 25, 30]);
        assert_eq!(way(60, 0, 0, Some(30)), [60, 35, 30]);
        assert_eq!(way(60, 60, 70, Some(10)), [60]);
        assert_eq!(way(60, 50, 70, None), [60]);
    }
}
