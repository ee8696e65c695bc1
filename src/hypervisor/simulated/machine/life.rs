//! How a simulated domain starts, stops, is paused, restored, reverted and renamed. What a migration or a crash tells is in
//! `simulated`, which calls this.

use super::Machine;
use crate::hypervisor::simulated::AsItWas;
use crate::hypervisor::simulated::scenario::Domain;
use crate::hypervisor::simulated::world::Power;
use crate::hypervisor::{Arrival, HypervisorEvent, Lifecycle, RunState};

impl Machine {
    /// Starts, stops, pauses or resumes it, as a person would.
    pub(in crate::hypervisor::simulated) fn set_state(
        &mut self,
        state: RunState,
        instance: u32,
    ) -> Vec<HypervisorEvent> {
        let before = self.description.state;
        let mut told = Vec::new();
        if before == state {
            return told;
        }
        if before == RunState::Off {
            self.start(instance);
            told.push(self.lifecycle(Lifecycle::Started));
        }
        self.description.state = state;
        match (before, state) {
            (_, RunState::Off) => {
                self.description.instance = None;
                self.description.process = None;
                told.push(self.lifecycle(Lifecycle::Stopped));
            }
            (_, RunState::Paused) => {
                // The library tells how it came to run only until it is paused.
                self.description.arrival = Arrival::Started;
                told.push(self.lifecycle(Lifecycle::Suspended));
            }
            (RunState::Paused, RunState::Running) => told.push(self.lifecycle(Lifecycle::Resumed)),
            _ => {}
        }
        self.power.send_replace(Power {
            instance: self.description.instance,
            runs: state == RunState::Running,
        });
        told
    }

    /// A start from the definition: what was plugged before is gone, metadata stays.
    fn start(&mut self, instance: u32) {
        let scenario = Domain {
            state: RunState::Running,
            tags: self.description.tags.clone(),
            faults: Vec::new(),
            ..self.scenario.clone()
        };
        let fresh = Self::new(self.id(), scenario, instance);
        self.description = fresh.description;
        self.description.arrival = Arrival::Started;
        self.emulator_vcpus = fresh.emulator_vcpus;
        self.inside.start(self.emulator_vcpus);
        self.balloon_target = fresh.balloon_target;
        self.stale = false;
        self.limits.clear();
        self.balloon_limit = None;
    }

    /// A start from a saved state: what was plugged is there again.
    pub(in crate::hypervisor::simulated) fn restore(&mut self, instance: u32) {
        self.description.instance = Some(instance);
        self.description.state = RunState::Paused;
    }

    /// Makes the machine what it was at a snapshot, with what was asked for then.
    pub(in crate::hypervisor::simulated) fn revert(&mut self, to: AsItWas) {
        self.emulator_vcpus = to.vcpus;
        self.description.vcpus_plugged = to.vcpus;
        self.inside.unplugged(to.vcpus);
        for device in &mut self.description.virtio_mem {
            device.requested = to.device;
            device.current = to.device;
        }
        self.limits.clear();
    }

    /// Gives it another name.
    pub(in crate::hypervisor::simulated) fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.description.name);
        name.clone_into(&mut self.scenario.name);
    }

    fn lifecycle(&self, change: Lifecycle) -> HypervisorEvent {
        HypervisorEvent::Lifecycle {
            domain: self.id(),
            change,
        }
    }
}
