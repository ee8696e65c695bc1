//! One simulated domain: what the hypervisor knows of it and how its memory follows. It changes only when it is told to
//! and reads no clock; who waits between the steps is `simulated`. What the guest does inside is in `guest`.
//!
//! ```text
//! life    starts, stops, pauses, reverts      vcpus   plugged and unplugged      memory   asked for, and followed step by step
//! ```

mod life;
mod memory;
mod vcpus;

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
    AddressBits, BalloonStats, DomainDescription, DomainStats, HypervisorEvent, MetadataElement,
    RunState,
};
use super::Shown;
use super::conduct::Conduct;
use super::fault::{CallName, Fault};
use super::guest::{Inside, Truth};
use super::scenario::{Balloon, Domain};
use super::world::Power;

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

    fn runs(&self) -> Result<(), Outcome> {
        if self.description.state == RunState::Off {
            return Err(Outcome::Refused("domain is not running".into()));
        }
        Ok(())
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
