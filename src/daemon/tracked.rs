//! One domain as the daemon knows it: its definition, the latest figures, its agent, the persona in force, and what the
//! last plan said. Changed by the daemon's one task alone; the planner sees it as a `snapshot::Domain`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::{CheckedReport, Part, Parts};
use persona::Persona;
use persona::rule::Resource;
use persona::signal::EventKind;
use persona::units::{Bytes, Moment};
use planner::Means;
use planner::report::DomainReport;
use planner::snapshot::{self, Ability, Run};

use super::event::Asked;
use super::happened::Happened;
use super::limits::Outcomes;
use super::shift::ShiftSide;
use super::switching::SwitchSide;
use super::tags::TagWish;
use super::wishes::AdjustSide;
use crate::act::Outcome;
use crate::agent::{ActivePersona, AgentFacts, GuestWords};
use crate::catalog::Composed;
use crate::config::DimmGrowth;
use crate::hypervisor::{BalloonStats, DomainDescription, RunState, VirtioMem};
use crate::observe::{
    Applications, DiskRates, GuestFaults, GuestFigures, GuestReport, Missing, Readings, Seen,
    VcpuBasis, guest,
};
use crate::view::{ActivationState, AgentState, BoundPersona, DecisionView};

/// What the balloon may leave at least, when the persona does not say: less does not keep a kernel alive.
const BALLOON_FLOOR: Bytes = Bytes::from_mib(128);

/// The balloon works in pages; whole MiB are what people and libvirt's tools use.
const BALLOON_BLOCK: Bytes = Bytes::from_mib(1);

/// DIMMs come in whole pieces of this: two of the blocks of 128 MiB in which a guest takes memory over, because a smaller
/// one is not worth the slot that it takes until the domain ends.
const DIMM_PIECE: Bytes = Bytes::from_mib(256);

/// One domain.
pub(super) struct Tracked {
    pub(super) description: DomainDescription,
    /// Whether the configuration lets DIMMs be added.
    pub(super) dimm_growth: DimmGrowth,
    pub(super) balloon: BalloonStats,
    pub(super) disks: DiskRates,
    pub(super) faults: GuestFaults,
    pub(super) readings: Readings,
    pub(super) vcpu_basis: Option<VcpuBasis>,
    /// What has happened to the running instance.
    pub(super) happened: Happened,
    pub(super) agent: AgentSide,
    pub(super) persona: PersonaSide,
    /// What the last plan said.
    pub(super) report: Option<DomainReport>,
    /// The last step of each resource that ended.
    pub(super) outcomes: [Option<Outcome>; 2],
    /// The last turn of each knob that ended.
    pub(super) limit_outcomes: Outcomes,
    pub(super) decision: Option<DecisionView>,
    /// A description was asked for and has not come yet; a further wish for one is remembered.
    pub(super) looking: Looking,
    /// Descriptions that were asked for before this are out of date.
    pub(super) changed: Asked,
    /// Wishes for other tags that wait for the one being written.
    pub(super) tag_wishes: VecDeque<TagWish>,
    /// Tags are being written.
    pub(super) writing_tags: bool,
}

/// Whether the hypervisor is being asked about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looking {
    No,
    Yes,
    /// And what is being told now is out of date already.
    AndAgain,
}

/// The agent of a domain.
#[derive(Default)]
pub(super) struct AgentSide {
    pub(super) facts: Option<AgentFacts>,
    pub(super) report: Option<GuestReport>,
    /// What applications say.
    pub(super) applications: Applications,
    /// What it says of disks, logs, round trips and processes.
    pub(super) figures: GuestFigures,
    pub(super) heard: Option<Moment>,
    pub(super) trouble: Option<(AgentState, String)>,
    /// The daemon renews the session, which is no loss as long as the agent comes back.
    pub(super) renewed: Option<Renewed>,
    /// CPUs as qemu-guest-agent shows them, where it stands in.
    pub(super) stand_in: Option<ShownCpus>,
}

impl AgentSide {
    /// The guest has confirmed what it has active from this generation on: a persona or none.
    pub(super) fn confirmed(&mut self, generation: u64, active: Option<ActivePersona>) {
        let Some(facts) = &mut self.facts else {
            // It says so itself in its next hello.
            return;
        };
        let known = facts.active.as_ref();
        // Two answers may be heard in another order than they were given.
        if known.is_none_or(|known| known.generation <= generation) {
            facts.active = active;
        }
    }

    /// The agent says more of itself than in its hello, in which alone it says what it has active. What was known before.
    pub(super) fn deviated(&mut self, facts: AgentFacts) -> Option<AgentFacts> {
        let before = self.facts.take();
        let active = match &before {
            Some(before) => before.active.clone(),
            None => facts.active.clone(),
        };
        self.facts = Some(AgentFacts { active, ..facts });
        before
    }
}

/// What a stand-in for the agent shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShownCpus {
    pub(super) online: u32,
    pub(super) at: Moment,
}

impl ShownCpus {
    /// It is asked three times as often.
    const FRESH: Duration = Duration::from_secs(30);

    fn is_fresh(self, now: Moment) -> bool {
        now.since(self.at) < Self::FRESH
    }
}

/// A session that ended because the daemon wanted another.
#[derive(Clone, Debug)]
pub(super) struct Renewed {
    /// When.
    pub(super) at: Moment,
    /// The guest's boot, by which the agent of the next session is known for the same.
    pub(super) boot: Option<GuestWords>,
}

/// The persona of a domain.
pub(super) struct PersonaSide {
    /// What the domain is bound to.
    pub(super) bound: Option<BoundPersona>,
    /// What its rules are evaluated by: what the guest has activated, or what waits for an agent that is not there.
    pub(super) in_force: Option<Arc<Persona>>,
    /// Those of its rules that the guest evaluates.
    pub(super) in_guest: BTreeSet<String>,
    /// What the agent is asked to report.
    pub(super) parts: Parts,
    /// Where each of its values was written.
    pub(super) layers: Option<Arc<Composed>>,
    pub(super) state: ActivationState,
    pub(super) detail: Option<String>,
    pub(super) since: Option<Moment>,
    /// What the daemon last wrote into the domain's metadata; `Some(None)` is its removal.
    pub(super) status: Option<Option<String>>,
    /// It is being written.
    pub(super) writing_status: bool,
    /// What is wrong with tags and mappings, as a sentence.
    pub(super) problem: Option<String>,
    /// What its rules want of the persona itself.
    pub(super) shift: ShiftSide,
    /// What its rules want otherwise of the persona in the guest.
    pub(super) adjust: AdjustSide,
    /// What users of the guest ask for.
    pub(super) switching: SwitchSide,
}

impl Default for PersonaSide {
    fn default() -> Self {
        Self {
            bound: None,
            in_force: None,
            in_guest: BTreeSet::new(),
            parts: Parts::default(),
            layers: None,
            state: ActivationState::None,
            detail: None,
            since: None,
            status: None,
            writing_status: false,
            problem: None,
            shift: ShiftSide::default(),
            adjust: AdjustSide::default(),
            switching: SwitchSide::default(),
        }
    }
}

impl Tracked {
    pub(super) fn new(description: DomainDescription) -> Self {
        Self {
            description,
            dimm_growth: DimmGrowth::default(),
            balloon: BalloonStats::default(),
            disks: DiskRates::default(),
            faults: GuestFaults::default(),
            readings: Readings::unknown(Missing::NotMeasured),
            vcpu_basis: None,
            happened: Happened::default(),
            agent: AgentSide::default(),
            persona: PersonaSide::default(),
            report: None,
            outcomes: [None, None],
            limit_outcomes: Outcomes::new(),
            decision: None,
            looking: Looking::No,
            changed: Asked::default(),
            tag_wishes: VecDeque::new(),
            writing_tags: false,
        }
    }

    /// Another running instance: what was known of the earlier one is forgotten. The agent's session is not, because it
    /// tells its end itself, and that of the present instance may have begun before this was seen.
    pub(super) fn restarted(&mut self) {
        let before = std::mem::replace(self, Self::new(self.description.clone()));
        self.persona = before.persona;
        self.looking = before.looking;
        self.changed = before.changed;
        self.tag_wishes = before.tag_wishes;
        self.writing_tags = before.writing_tags;
        self.agent = AgentSide {
            facts: before.agent.facts,
            heard: before.agent.heard,
            renewed: before.agent.renewed,
            ..AgentSide::default()
        };
        if self.agent.facts.is_some()
            && let Some(at) = before.happened.last(EventKind::AgentConnected)
        {
            self.happened.note(EventKind::AgentConnected, at);
        }
    }

    pub(super) fn run(&self) -> Run {
        match self.description.state {
            RunState::Running => Run::Running,
            RunState::Paused => Run::Paused,
            // One that crashed and is kept for a look at it holds what it had.
            RunState::Other if self.description.instance.is_some() => Run::Paused,
            RunState::Off | RunState::Other => Run::Off,
        }
    }

    /// vCPUs online, as far as the guest is believed: not when more than it says have just run on the host.
    pub(super) fn online(&self, now: Moment) -> Option<u32> {
        let contradicted = matches!(self.vcpu_basis, Some(VcpuBasis::Contradicted(_)));
        self.claimed_online(now).filter(|_| !contradicted)
    }

    /// vCPUs online, of a fresh report of the guest.
    pub(super) fn claimed_online(&self, now: Moment) -> Option<u32> {
        let online = match &self.agent.report {
            Some(report) => guest::online_vcpus(report, now)?,
            None => {
                self.agent
                    .stand_in
                    .filter(|cpus| cpus.is_fresh(now))?
                    .online
            }
        };
        // A guest cannot have more online than are plugged; such a claim is worth nothing.
        (online <= self.description.vcpus_plugged).then_some(online)
    }

    /// Takes over what the agent reports; it counts from its arrival, since the guest's own clock is not asked.
    pub(super) fn take_report(&mut self, report: &CheckedReport, period: Duration, now: Moment) {
        self.agent.heard = Some(now);
        // An agent that does not know the wish reports more than it is asked for.
        let parts = self.persona.parts;
        let noticed = self.agent.figures.take(report, parts, period, now);
        for (seen, kind) in [
            (noticed.oom, EventKind::GuestOom),
            (noticed.failed_login, EventKind::LoginFailed),
        ] {
            if seen == Seen::Yes {
                self.happened.note(kind, now);
            }
        }
        let applications = &mut self.agent.applications;
        if parts.has(Part::Applications) {
            applications.take(&report.app, period, now);
        } else {
            applications.clear();
        }
        self.agent.report = Some(GuestReport {
            online_count: Some(report.online.count()),
            present_count: Some(report.present_count),
            memory_total: Some(Bytes::from_kib(report.memory_total_kib)),
            memory_available: Some(Bytes::from_kib(report.memory_available_kib)),
            memory_pressure: report.psi_memory_some_avg10,
            load1: report.load1.filter(|_| parts.has(Part::Cpu)),
            at: now,
            period,
        });
    }

    /// What a step that has just ended saw of the guest's CPUs counts at once: the report in hand is of before, and by it
    /// the domain would seem to hold less than it does. Where nothing is known, it holds what is plugged.
    pub(super) fn step_showed(&mut self, outcome: &Outcome) {
        if outcome.step.resource != Resource::Vcpus {
            return;
        }
        let shown = outcome.guest.and_then(|online| u32::try_from(online).ok());
        let Some(report) = &mut self.agent.report else {
            self.agent.stand_in = self
                .agent
                .stand_in
                .and_then(|cpus| shown.map(|online| ShownCpus { online, ..cpus }));
            return;
        };
        if shown.is_some() || outcome.ending == planner::Ending::Unknown {
            report.online_count = shown;
            report.present_count = report.present_count.max(shown);
        }
    }

    /// The domain as the planner sees it.
    /// `pinned_weight` is what a pinned vCPU counts for.
    pub(super) fn snapshot(&self, now: Moment, pinned_weight: u32) -> snapshot::Domain<'_> {
        let description = &self.description;
        snapshot::Domain {
            id: description.id,
            name: &description.name,
            persona: self.persona.in_force.as_deref(),
            run: self.run(),
            instance: description.instance,
            vcpus: snapshot::Vcpus {
                maximum: description.vcpus_maximum,
                fixed: description.vcpus_fixed,
                plugged: description.vcpus_plugged,
                online: self.online(now),
                weight: if description.vcpus_pinned {
                    pinned_weight
                } else {
                    1
                },
                ability: self.vcpu_ability(now),
            },
            memory: self.memory(self.dimm_growth),
            knobs: super::limits::knobs(description),
            signals: self,
            shifted_by: self.persona.shift.rule.as_deref(),
            adjusted_by: &self.persona.adjust.rules,
        }
    }

    fn vcpu_ability(&self, now: Moment) -> Ability {
        if self.description.vcpus_maximum <= self.description.vcpus_fixed {
            Ability::NoHotplugVcpus
        } else if self.agent.facts.is_none()
            && !self.agent.stand_in.is_some_and(|cpus| cpus.is_fresh(now))
        {
            Ability::NoGuestAgent
        } else {
            Ability::Both
        }
    }

    fn memory(&self, growth: DimmGrowth) -> snapshot::Memory {
        let description = &self.description;
        let boot = description.memory_boot;
        // What is there without virtio-mem devices and with the balloon deflated, and what the balloon leaves of it.
        let base = boot.saturating_add(description.memory_dimms);
        let left = description.balloon_current.unwrap_or(base);
        let sum = |size: fn(&VirtioMem) -> Bytes| {
            let devices = description.virtio_mem.iter();
            Bytes(devices.map(|device| size(device).0).sum())
        };
        let capacity = sum(|device| device.size);
        let room = description
            .memory_maximum
            .map_or(Bytes(0), |maximum| maximum.saturating_sub(base))
            .saturating_sub(capacity);
        let dimm = snapshot::Dimm {
            most: Bytes(base.0 + capacity.0 + room.0 / DIMM_PIECE.0 * DIMM_PIECE.0),
            piece: DIMM_PIECE,
        };
        let fits = growth == DimmGrowth::Growth
            && room >= DIMM_PIECE
            && description.numa_nodes > 0
            && description.dimm_slots > 0;
        let dimm = fits.then_some(dimm);
        if !description.virtio_mem.is_empty() {
            let left = left.min(base);
            let with = |devices: Bytes| left.saturating_add(devices);
            return snapshot::Memory {
                boot,
                requested: with(sum(|device| device.requested)),
                plugged: with(sum(|device| device.current)),
                maximum: base.saturating_add(capacity),
                minimum: left,
                block: description
                    .virtio_mem
                    .iter()
                    .map(|device| device.block)
                    .max()
                    .unwrap_or_default(),
                means: Means::Usual,
                balloon: description.balloon_current.map(|_| snapshot::Balloon {
                    left,
                    minimum: BALLOON_FLOOR.min(base),
                    most: base,
                    block: BALLOON_BLOCK,
                }),
                dimm,
                ability: Ability::Both,
            };
        }
        snapshot::Memory {
            boot,
            requested: left,
            plugged: left,
            maximum: base,
            minimum: BALLOON_FLOOR.min(base),
            block: BALLOON_BLOCK,
            means: Means::Usual,
            balloon: None,
            dimm: dimm.filter(|_| description.balloon_current.is_some()),
            ability: if description.balloon_current.is_some() {
                Ability::Both
            } else {
                Ability::NoMemoryDevice
            },
        }
    }

    /// The last step of one resource that ended.
    pub(super) fn outcome(&self, resource: Resource) -> Option<&Outcome> {
        self.outcomes[slot(resource)].as_ref()
    }
}

/// Where the outcome of a resource is kept.
pub(super) fn slot(resource: Resource) -> usize {
    match resource {
        Resource::Vcpus => 0,
        Resource::Memory => 1,
    }
}
