//! One simulated domain: what the hypervisor knows of it and how its memory follows. It changes only when it is told to
//! and reads no clock; who waits between the steps is `simulated`. What the guest does inside is in `guest`.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use agent_protocol::Report;
use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::units::Bytes;
use tokio::sync::watch;

use super::super::limits::Reading;
use super::super::tree;
use super::super::{
    AcpiSlot, AddressBits, Arrival, BalloonStats, DeviceChange, DomainDescription, DomainStats,
    HotpluggableVcpu, HypervisorEvent, Lifecycle, MetadataElement, RunState,
};
use super::conduct::Conduct;
use super::fault::{CallName, Fault};
use super::guest::{Inside, Truth};
use super::scenario::{Balloon, Domain, Unplug};
use super::world::Power;
use super::{AsItWas, Shown};

/// How often the events of the last change are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    Once,
    Twice,
    Never,
    Late(Duration),
}

/// How a request ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// In the hypervisor's words.
    Refused(String),
    /// The hypervisor itself waits in vain.
    TimesOut,
    NoDevice {
        alias: String,
    },
    /// The definition is another than the one that was to be replaced.
    DefinitionChanged,
}

/// How far the guest is behind what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has arrived, or goes no further.
    Arrived,
    /// Another step is needed.
    Moving,
}

pub(super) struct Machine {
    pub(super) scenario: Domain,
    /// The persistent definition, where somebody has replaced it.
    pub(super) definition: Option<String>,
    pub(super) description: DomainDescription,
    /// vCPUs that the emulator really has; the library may be wrong about them.
    emulator_vcpus: u32,
    /// The library lost track of the vCPUs.
    stale: bool,
    pub(super) faults: VecDeque<(CallName, Fault)>,
    metadata: HashMap<MetadataElement, String>,
    pub(super) memory_used: Bytes,
    /// The guest goes no further than this with a device.
    limits: HashMap<String, Bytes>,
    balloon_target: Bytes,
    balloon_limit: Option<Bytes>,
    pub(super) telling: Telling,
    /// Whether somebody makes the guest follow already.
    pub(super) followed: bool,
    /// It has no definition, and is gone when it stops.
    pub(super) transient: bool,
    pub(super) inside: Inside,
    /// For the agent in the guest, which lives and dies with it.
    pub(super) power: watch::Sender<Power>,
}

impl Machine {
    /// A machine as its scenario describes it. `instance` is its number when it runs.
    pub(super) fn new(id: DomainId, scenario: Domain, instance: u32) -> Self {
        let runs = scenario.state != RunState::Off;
        let boot = Bytes::from_mib(scenario.memory_mib);
        let description = DomainDescription {
            id,
            name: scenario.name.clone(),
            instance: runs.then_some(instance),
            state: scenario.state,
            arrival: scenario.arrival,
            guest_os: scenario.guest_os.clone(),
            acceleration: scenario.acceleration,
            vcpus_maximum: scenario.vcpus_maximum,
            vcpus_plugged: scenario.vcpus,
            vcpus_fixed: scenario.vcpus_fixed,
            vcpus_pinned: scenario.vcpus_pinned,
            memory_boot: boot,
            memory_maximum: scenario.memory_maximum_mib.map(Bytes::from_mib),
            memory_dimms: Bytes::from_mib(scenario.dimms_mib),
            address_bits: AddressBits::Of(40),
            numa_nodes: scenario.numa_nodes,
            virtio_mem: scenario
                .virtio_mem
                .iter()
                .map(super::scenario::Device::empty)
                .collect(),
            dimm_slots: scenario.dimm_slots,
            balloon_current: (scenario.balloon != Balloon::None)
                .then_some(boot.saturating_add(Bytes::from_mib(scenario.dimms_mib))),
            balloon_period: (scenario.balloon == Balloon::Statistics)
                .then_some(Duration::from_secs(1)),
            interfaces: Vec::new(),
            limits: scenario.limits(),
            virtio_serial: scenario.virtio_serial,
            agent_channel: scenario.agent_channel.clone(),
            qemu_guest_agent: scenario.qemu_guest_agent,
            tags: scenario.tags.clone(),
            tags_problem: None,
            process: scenario.process.filter(|_| runs),
        };
        let faults = scenario.faults.iter();
        Self {
            inside: Inside::new(scenario.load, scenario.vcpus),
            power: watch::Sender::new(Power {
                instance: description.instance,
                runs: description.state == RunState::Running,
            }),
            emulator_vcpus: scenario.vcpus,
            stale: false,
            faults: faults
                .map(|planned| (planned.call, planned.fault.clone()))
                .collect(),
            metadata: HashMap::new(),
            memory_used: Bytes::from_mib(scenario.guest.memory_used_mib),
            limits: HashMap::new(),
            balloon_target: boot.saturating_add(Bytes::from_mib(scenario.dimms_mib)),
            balloon_limit: None,
            telling: Telling::Once,
            followed: false,
            transient: false,
            definition: None,
            description,
            scenario,
        }
    }

    /// What its definition makes of it when it is off: metadata stays.
    pub(super) fn at_next_start(&self) -> DomainDescription {
        let scenario = Domain {
            state: RunState::Off,
            tags: self.description.tags.clone(),
            faults: Vec::new(),
            ..self.scenario.clone()
        };
        Self::new(self.id(), scenario, 0).description
    }

    fn id(&self) -> DomainId {
        self.description.id
    }

    /// The first fault that is planned for this call.
    pub(super) fn take_fault(&mut self, call: CallName) -> Option<Fault> {
        let place = self.faults.iter().position(|(of, _)| *of == call)?;
        self.faults.remove(place).map(|(_, fault)| fault)
    }

    /// Time of one step of the guest.
    pub(super) fn pace(&self) -> Duration {
        let pace = Duration::from_millis(self.scenario.guest.follow_ms);
        pace + self.inside.conduct.map_or(Duration::ZERO, Conduct::delay)
    }

    /// Lets the guest have done what it had to do until `now`.
    pub(super) fn advance(&mut self, now: Duration) {
        let cap = match self.description.limits.shown(Knob::CpuCap) {
            Reading::Set {
                value: KnobValue::At(cap),
                ..
            } => Duration::from_micros(cap).as_secs_f64(),
            _ => f64::INFINITY,
        };
        if self.description.state == RunState::Running
            && let Some(used) = self.inside.advance(now, cap)
        {
            self.memory_used = used;
        }
    }

    pub(super) fn shown(&self) -> Shown {
        let devices = self.description.virtio_mem.iter();
        let asked: u64 = devices.map(|device| device.requested.0).sum();
        let left = self.balloon_current();
        Shown {
            instance: self.description.instance,
            statistics: self.description.balloon_period,
            persona: self
                .inside
                .active
                .as_ref()
                .map(|active| active.persona.clone()),
            vcpus: self.emulator_vcpus,
            online: self.inside.online(),
            memory: left.saturating_add(self.virtio_mem_current()),
            requested: self.balloon_target.saturating_add(Bytes(asked)),
        }
    }

    /// vCPUs that the guest finds plugged.
    pub(super) fn present(&self) -> u32 {
        self.emulator_vcpus
    }

    /// Something in the guest brings up all that is plugged.
    pub(super) fn bring_cpus_online(&mut self) {
        let plugged = self.present();
        self.inside.bring_online(plugged);
    }

    /// What the guest's agent reports.
    pub(super) fn report(&mut self, now: Duration) -> Report {
        let memory = self
            .balloon_current()
            .saturating_add(self.virtio_mem_current());
        let truth = Truth {
            plugged: self.emulator_vcpus,
            memory,
            used: self.memory_used.min(memory),
        };
        self.inside.report(truth, now)
    }

    fn lifecycle(&self, change: Lifecycle) -> HypervisorEvent {
        HypervisorEvent::Lifecycle {
            domain: self.id(),
            change,
        }
    }

    /// Starts, stops, pauses or resumes it, as a person would.
    pub(super) fn set_state(&mut self, state: RunState, instance: u32) -> Vec<HypervisorEvent> {
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

    /// A start from a saved state: what was plugged is there again.
    pub(super) fn restore(&mut self, instance: u32) {
        self.description.instance = Some(instance);
        self.description.state = RunState::Paused;
    }

    /// Makes the machine what it was at a snapshot, with what was asked for then.
    pub(super) fn revert(&mut self, to: AsItWas) {
        self.emulator_vcpus = to.vcpus;
        self.description.vcpus_plugged = to.vcpus;
        self.inside.unplugged(to.vcpus);
        for device in &mut self.description.virtio_mem {
            device.requested = to.device;
            device.current = to.device;
        }
        self.limits.clear();
    }

    /// Asks each device for this, whatever it was asked for before.
    pub(super) fn ask_devices(&mut self, each: Bytes) {
        for device in &mut self.description.virtio_mem {
            device.requested = each;
        }
        self.limits.clear();
    }

    /// Gives it another name.
    pub(super) fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.description.name);
        name.clone_into(&mut self.scenario.name);
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

    /// The library reads the vCPUs anew, as it does when it starts.
    pub(super) fn resynchronise(&mut self) {
        self.description.vcpus_plugged = self.emulator_vcpus;
        self.stale = false;
    }

    fn runs(&self) -> Result<(), Outcome> {
        if self.description.state == RunState::Off {
            return Err(Outcome::Refused("domain is not running".into()));
        }
        Ok(())
    }

    /// Plugs or unplugs vCPUs; a part of it is one fewer.
    pub(super) fn set_vcpus(
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

    pub(super) fn vcpu_groups(&self) -> Vec<HotpluggableVcpu> {
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

    /// Asks a device for a size; the guest follows by [`Machine::step`], no further than `limit`.
    pub(super) fn set_virtio_mem(
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
    pub(super) fn set_balloon(&mut self, target: Bytes, limit: Option<Bytes>) -> Outcome {
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
    pub(super) fn attach_dimm(&mut self, size: Bytes) -> (Outcome, Vec<HypervisorEvent>) {
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

    pub(super) fn set_balloon_period(&mut self, period: Duration) -> Outcome {
        if let Err(outcome) = self.runs() {
            return outcome;
        }
        if self.description.balloon_current.is_none() {
            return Outcome::Refused("No memory balloon device configured".into());
        }
        self.description.balloon_period = Some(period);
        Outcome::Done
    }

    /// Turns a knob; partly where a fault says so: then only the first device has it.
    pub(super) fn set_limit(
        &mut self,
        knob: Knob,
        to: KnobValue,
        limit: Option<Bytes>,
    ) -> (Outcome, Vec<HypervisorEvent>) {
        if let Err(outcome) = self.runs() {
            return (outcome, Vec::new());
        }
        let refused = match self.description.limits.shown(knob) {
            Reading::NoDevice => Some("the domain has no such device"),
            Reading::NoHostDevice => {
                Some("setting bandwidth on interfaces of type 'user' is not implemented yet")
            }
            _ => None,
        };
        if let Some(words) = refused {
            return (Outcome::Refused(words.into()), Vec::new());
        }
        let before = self.description.limits.clone();
        self.description.limits.set(knob, to);
        if limit.is_some() {
            let now = &mut self.description.limits;
            let disks = now.disks.iter_mut().zip(before.disks);
            disks.skip(1).for_each(|(now, before)| *now = before);
            let interfaces = now.interfaces.iter_mut().zip(before.interfaces);
            interfaces.skip(1).for_each(|(now, before)| *now = before);
        }
        (
            Outcome::Done,
            vec![HypervisorEvent::Tuned { domain: self.id() }],
        )
    }

    pub(super) fn set_metadata(
        &mut self,
        element: MetadataElement,
        xml: Option<&str>,
    ) -> (Outcome, Vec<HypervisorEvent>) {
        if element == MetadataElement::Tags {
            let tags = match xml.map(tree::parse).transpose() {
                Ok(root) => root.map_or_else(Vec::new, |root| {
                    let tags = root.children.iter().filter(|child| child.name == "tag");
                    tags.map(|tag| tag.text.trim().to_owned()).collect()
                }),
                Err(problem) => return (Outcome::Refused(problem), Vec::new()),
            };
            self.description.tags = tags;
            self.description.tags_problem = None;
        }
        match xml {
            Some(xml) => self.metadata.insert(element, xml.to_owned()),
            None => self.metadata.remove(&element),
        };
        let told = HypervisorEvent::MetadataChanged {
            domain: self.id(),
            uri: Some(element.uri().into()),
        };
        (Outcome::Done, vec![told])
    }

    pub(super) fn metadata(&self, element: MetadataElement) -> Option<String> {
        self.metadata.get(&element).cloned()
    }

    fn virtio_mem_current(&self) -> Bytes {
        let devices = self.description.virtio_mem.iter();
        Bytes(devices.map(|device| device.current.0).sum())
    }

    fn balloon_current(&self) -> Bytes {
        self.description.balloon_current.unwrap_or(self.base())
    }

    /// Lets the guest follow what was asked by one step.
    pub(super) fn step(&mut self) -> (Progress, Vec<HypervisorEvent>) {
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

    /// Figures as the bulk call gives them. `now` is the time since the epoch of Unix.
    pub(super) fn stats(&mut self, now: Duration) -> Option<DomainStats> {
        if self.description.state == RunState::Off {
            return None;
        }
        let mut balloon = BalloonStats {
            current: self.description.balloon_current,
            ..BalloonStats::default()
        };
        if self.description.balloon_current.is_some() && self.description.balloon_period.is_some() {
            let available = self
                .balloon_current()
                .saturating_add(self.virtio_mem_current());
            balloon.available = Some(available);
            balloon.usable = Some(available.saturating_sub(self.memory_used));
            balloon.last_update = Some(now.as_secs());
            balloon.major_faults = Some(0);
            balloon.swap_in = Some(Bytes(0));
            balloon.rss = Some(self.memory_used);
            balloon = self.inside.claim_balloon(balloon, now.as_secs());
        }
        Some(DomainStats {
            vcpus_plugged: Some(self.description.vcpus_plugged),
            balloon,
            disks: Some(
                self.scenario
                    .disks
                    .iter()
                    .map(|disk| disk.stats(now))
                    .collect(),
            ),
        })
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
