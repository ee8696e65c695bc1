//! The vCPUs of a simulated domain: plugging and unplugging as its guest lets it, and what emulator and library believe of
//! them. What the guest runs on them is in `guest`. Called by `simulated` and by its calls.

use std::cmp::Ordering;

use persona::units::Bytes;

use super::{Machine, Outcome};
use crate::hypervisor::simulated::scenario::Unplug;
use crate::hypervisor::{AcpiSlot, HotpluggableVcpu, HypervisorEvent, RunState};

impl Machine {
    /// vCPUs that the guest finds plugged.
    pub(in crate::hypervisor::simulated) fn present(&self) -> u32 {
        self.emulator_vcpus
    }

    /// Something in the guest brings up all that is plugged.
    pub(in crate::hypervisor::simulated) fn bring_cpus_online(&mut self) {
        let plugged = self.present();
        self.inside.bring_online(plugged);
    }

    /// The library reads the vCPUs anew, as it does when it starts.
    pub(in crate::hypervisor::simulated) fn resynchronise(&mut self) {
        self.description.vcpus_plugged = self.emulator_vcpus;
        self.stale = false;
    }

    /// Plugs or unplugs vCPUs; a part of it is one fewer.
    pub(in crate::hypervisor::simulated) fn set_vcpus(
        &mut self,
        count: u32,
        part: Option<Bytes>,
    ) -> (Outcome, Vec<HypervisorEvent>) {
        let plugged = self.description.vcpus_plugged;
        let count = match count.cmp(&plugged) {
            Ordering::Greater if part.is_some() => count - 1,
            Ordering::Less if part.is_some() => count + 1,
            _ => count,
        };
        let outcome = self.change_vcpus(count);
        self.inside.unplugged(self.emulator_vcpus);
        outcome
    }

    fn change_vcpus(&mut self, count: u32) -> (Outcome, Vec<HypervisorEvent>) {
        let refused = |words: &str| (Outcome::Refused(words.into()), Vec::new());
        if let Err(outcome) = self.runs() {
            return (outcome, Vec::new());
        }
        if count == 0 || count > self.description.vcpus_maximum {
            return refused("requested vcpus is not within the maximum of the live domain");
        }
        if count < self.description.vcpus_fixed {
            return refused("didn't find enough vcpus that can be unplugged");
        }
        if self.stale {
            return refused("An error occurred, but the cause is unknown");
        }
        let acpi = |status| HypervisorEvent::AcpiStatus {
            domain: self.id(),
            slot: AcpiSlot::Vcpu,
            status,
        };
        let paused = self.description.state == RunState::Paused;
        match (
            count < self.description.vcpus_plugged,
            self.scenario.guest.unplug,
        ) {
            (false, _) => {
                let told = if count > self.description.vcpus_plugged {
                    vec![acpi(0)]
                } else {
                    Vec::new()
                };
                self.emulator_vcpus = count;
                self.description.vcpus_plugged = count;
                (Outcome::Done, told)
            }
            (true, Unplug::Refused) => (Outcome::TimesOut, vec![acpi(130)]),
            (true, Unplug::Ignored) => (Outcome::TimesOut, Vec::new()),
            (true, Unplug::Completes) if !paused => {
                let told = vec![acpi(132), acpi(0)];
                self.emulator_vcpus = count;
                self.description.vcpus_plugged = count;
                (Outcome::Done, told)
            }
            (true, Unplug::TimesOut) if !paused => {
                let told = vec![acpi(132), acpi(0)];
                self.emulator_vcpus -= 1;
                self.stale = true;
                (Outcome::TimesOut, told)
            }
            // A guest that does not run answers nothing.
            (true, Unplug::Completes | Unplug::TimesOut) => (Outcome::TimesOut, Vec::new()),
        }
    }

    pub(in crate::hypervisor::simulated) fn vcpu_groups(&self) -> Vec<HotpluggableVcpu> {
        // The emulator lists the highest first.
        let groups = (0..self.description.vcpus_maximum).rev();
        groups
            .map(|index| HotpluggableVcpu {
                vcpus: 1,
                plugged: (index < self.emulator_vcpus)
                    .then(|| format!("/machine/peripheral/vcpu{index}")),
            })
            .collect()
    }
}
