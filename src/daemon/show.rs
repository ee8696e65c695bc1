//! What is known, as the view that readers get. Nothing is computed that somebody else would have to compute too; what
//! is unknown stays unknown.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_protocol::GateState;
use persona::rule::Resource;
use persona::signal::{Metric, Reading, Signals, Unit};
use persona::units::{Bytes, Moment};
use planner::report::{Reason, Verdict};
use planner::snapshot::{Ability, Run};
use planner::stage::Stage;
use tokio::time::Instant;

use super::tracked::Tracked;
use super::{Daemon, SHOW_A_DOMAIN};
use crate::act::sentence_of;
use crate::audit::AuditRecord;
use crate::catalog::{self, Activation, Desired, Origin};
use crate::hypervisor::DomainId;
use crate::view::{
    self, ActivationState, ActivationView, AgentState, AgentView, AuditRecordView, BoundPersona,
    DocumentFormat, DomainView, Held, HoldView, HostView, ManagerView, MappingView,
    MemoryMechanism, MemoryView, PersonaView, ReadingView, VcpuView, VersionView, View,
};

impl Daemon {
    /// Publishes what is known now. Readers never see the state itself.
    pub(super) fn publish(&mut self) {
        let view = Arc::new(self.view());
        // Readers may all be gone; the next one finds the latest view.
        self.views.send_replace(view);
        self.unshown = false;
        let domains = u32::try_from(self.domains.len()).unwrap_or(u32::MAX);
        self.show_at = Instant::now() + self.show.max(SHOW_A_DOMAIN.saturating_mul(domains));
    }

    /// Publishes once everything that waits has been handled, and not too often. A view of many domains costs milliseconds, and whatever
    /// happens to one happens to many at once: a hypervisor that comes back, a persona that is mapped.
    pub(super) fn publish_soon(&mut self) {
        self.unshown = true;
    }

    fn view(&self) -> View {
        let now = self.clock.now();
        let domains: BTreeMap<DomainId, DomainView> = self
            .domains
            .iter()
            .map(|(id, tracked)| (*id, self.domain_view(tracked, now)))
            .collect();
        View {
            manager: self.manager_view(),
            personas: self.persona_views(),
            mappings: self.mapping_views(),
            domains,
            listing: self.listing,
        }
    }

    fn manager_view(&self) -> ManagerView {
        let budget = self.host.as_ref().map(|host| self.config.budget.of(host));
        let count = |amount: u64| u32::try_from(amount).ok();
        ManagerView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            hypervisor: self.connection.clone(),
            host: HostView {
                cores: self.host.as_ref().map(|host| host.cores),
                vcpus_budget: budget.map(|budget| budget.vcpus),
                vcpus_granted: self.ledger.and_then(|ledger| count(ledger.vcpus_granted)),
                memory: self.host.as_ref().map(|host| host.memory),
                memory_budget: budget.map(|budget| budget.memory),
                memory_granted: self.ledger.map(|ledger| Bytes(ledger.memory_granted)),
                vcpus_state: self.ledger.map(|ledger| host_state(ledger.vcpus_stage)),
                memory_state: self.ledger.map(|ledger| host_state(ledger.memory_stage)),
            },
            ticks: self.ticks,
            overruns: self.overruns,
            problems: self.problems.values().cloned().collect(),
        }
    }

    fn domain_view(&self, tracked: &Tracked, now: Moment) -> DomainView {
        let description = &tracked.description;
        let runs = tracked.run() != Run::Off;
        DomainView {
            id: description.id,
            name: description.name.clone(),
            instance: description.instance,
            state: description.state,
            tags: description.tags.clone(),
            persona: tracked.persona.bound.clone(),
            activation: activation_view(tracked),
            vcpus: self.vcpu_view(tracked, now),
            memory: self.memory_view(tracked, now),
            agent: agent_view(tracked, now),
            readings: if runs {
                reading_views(tracked, now)
            } else {
                Vec::new()
            },
            last_decision: tracked.decision.clone(),
            holds: self.hold_views(description.id, now),
            proposals: self.proposal_views(description.id, now),
            limits: self.limit_views(tracked),
            problems: self.domain_problems(tracked, now),
        }
    }

    fn vcpu_view(&self, tracked: &Tracked, now: Moment) -> VcpuView {
        let description = &tracked.description;
        let runs = tracked.run() != Run::Off;
        let bounds = tracked
            .persona
            .in_force
            .as_ref()
            .and_then(|persona| persona.base.cpu);
        let target = self
            .state
            .domain(description.id)
            .and_then(|state| state.vcpus.target);
        VcpuView {
            persona_min: bounds.as_ref().map(|bounds| bounds.min),
            persona_max: bounds.as_ref().and_then(|bounds| bounds.max),
            domain_max: Some(description.vcpus_maximum),
            requested: target
                .filter(|_| runs)
                .and_then(|target| u32::try_from(target).ok()),
            plugged: runs.then_some(description.vcpus_plugged),
            guest: tracked.online(now),
        }
    }

    fn memory_view(&self, tracked: &Tracked, now: Moment) -> MemoryView {
        let description = &tracked.description;
        let runs = tracked.run() != Run::Off;
        let bounds = tracked
            .persona
            .in_force
            .as_ref()
            .and_then(|persona| persona.base.memory);
        let memory = tracked.snapshot(now, 1).memory;
        // Sizes are whole numbers well within what an f64 holds exactly.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let guest = value(tracked, Metric::MemorySize, now).map(|bytes| Bytes(bytes as u64));
        MemoryView {
            persona_min: bounds.as_ref().map(|bounds| bounds.min),
            persona_max: bounds.as_ref().and_then(|bounds| bounds.max),
            domain_max: Some(memory.maximum),
            requested: runs.then_some(memory.requested),
            plugged: runs.then_some(memory.plugged),
            guest,
            mechanism: Some(match memory.ability {
                Ability::NoMemoryDevice => MemoryMechanism::None,
                _ if description.virtio_mem.is_empty() => MemoryMechanism::Balloon,
                _ => MemoryMechanism::VirtioMem,
            }),
        }
    }

    pub(super) fn hold_views(&self, id: DomainId, now: Moment) -> Vec<HoldView> {
        let Some(state) = self.state.domain(id) else {
            return Vec::new();
        };
        let mut holds = Vec::new();
        for (resource, part) in [
            (Resource::Vcpus, Held::Vcpus),
            (Resource::Memory, Held::Memory),
        ] {
            let slot = state.resource(resource);
            let held = match &slot.held_by {
                Some(by) => format!("{by} wants it left alone"),
                None => "somebody changed it by hand".to_owned(),
            };
            let stuck = "the last steps did not take effect, so the mechanism is left alone";
            let reasons = [
                (slot.held_until, held),
                (slot.quarantined_until, stuck.to_owned()),
            ];
            for (until, reason) in reasons {
                if let Some(until) = until.filter(|until| *until > now) {
                    holds.push(HoldView {
                        resource: part,
                        reason,
                        until: Some(until),
                    });
                }
            }
        }
        let limits = state.limits_held.as_ref();
        let limits = limits.map(|held| (held.until, format!("{} wants them left alone", held.by)));
        let knobs = state.limits.iter().flat_map(|(knob, slot)| {
            let by_hand = format!("somebody changed the {knob} by hand");
            let stuck =
                format!("the last turns of the {knob} did not take effect, so it is left alone");
            let until = [(slot.held_until, by_hand), (slot.quarantined_until, stuck)];
            until
                .into_iter()
                .filter_map(|(until, reason)| Some((until?, reason)))
        });
        let limits = limits.into_iter().chain(knobs);
        holds.extend(
            limits
                .filter(|(until, _)| *until > now)
                .map(|(until, reason)| HoldView {
                    resource: Held::Limits,
                    reason,
                    until: Some(until),
                }),
        );
        holds
    }

    fn domain_problems(&self, tracked: &Tracked, now: Moment) -> Vec<String> {
        let mut problems: Vec<String> = tracked.persona.problem.iter().cloned().collect();
        problems.extend(self.held_text(tracked.description.id));
        problems.extend(tracked.persona.shift.problem(tracked.report.as_ref()));
        problems.extend(tracked.persona.adjust.problem(tracked.report.as_ref()));
        problems.extend(self.guest_rule_problems(tracked));
        problems.extend(self.waiting_calls(tracked.description.id));
        if let Some((_, text)) = &tracked.agent.trouble {
            problems.push(text.clone());
        }
        if let Some(persona) = &tracked.persona.in_force
            && tracked.run() == Run::Running
        {
            let snapshot = tracked.snapshot(now, 1);
            for resource in [Resource::Vcpus, Resource::Memory] {
                let ability = snapshot.ability(resource);
                if ability != Ability::Both && manages(persona, resource) {
                    problems.push(planner::report::Reason::Unable(ability).sentence(resource));
                }
                problems.extend(self.stuck(tracked.description.id, resource, now));
            }
            problems.extend(capped(tracked));
        }
        problems
    }

    /// What stands against a mechanism that is there, and lasts until somebody looks at it.
    fn stuck(&self, id: DomainId, resource: Resource, now: Moment) -> Option<String> {
        let state = self.state.domain(id)?;
        let until = state.resource(resource).quarantined_until;
        let left = until
            .map(|until| until.since(now))
            .filter(|left| !left.is_zero());
        let reason = match (left, resource) {
            (Some(left), _) => planner::report::Reason::Quarantined { left },
            (None, Resource::Vcpus) if state.needs_reboot => planner::report::Reason::NeedsReboot,
            (None, _) => return None,
        };
        let name = super::tick::resource_name(resource);
        Some(format!("{name}: {}", reason.sentence(resource)))
    }

    fn persona_views(&self) -> BTreeMap<String, PersonaView> {
        let mut views = BTreeMap::new();
        for name in self.catalog.personas() {
            let Ok(current) = self.catalog.current(name) else {
                continue;
            };
            let versions = self
                .catalog
                .history(name)
                .map_or(0, |history| history.len());
            let reference = catalog::PersonaRef {
                name: name.clone(),
                pin: None,
            };
            let (description, problem) = match self.catalog.persona(&reference) {
                Ok((_, persona)) => (persona.description.clone(), None),
                Err(error) => (None, Some(sentence_of(&error))),
            };
            let bound = self.domains.values().filter(|tracked| {
                tracked
                    .persona
                    .bound
                    .as_ref()
                    .is_some_and(|bound| bound.name == name.as_str())
            });
            views.insert(
                name.to_string(),
                PersonaView {
                    name: name.to_string(),
                    description,
                    extends: current.extends.iter().map(ToString::to_string).collect(),
                    problem,
                    versions: u32::try_from(versions).unwrap_or(u32::MAX),
                    current: current.number.get(),
                    digest: current.digest.to_string(),
                    default: self.catalog.default_persona() == Some(name),
                    domains: bound
                        .map(|tracked| tracked.description.name.clone())
                        .collect(),
                    effects: self.impacts.views(name.as_str()),
                },
            );
        }
        views
    }

    fn mapping_views(&self) -> Vec<MappingView> {
        let mappings = self.catalog.mappings().iter();
        mappings
            .map(|(tag, mapping)| MappingView {
                tag: tag.to_string(),
                persona: mapping.persona().map(ToString::to_string),
                fragment: match &mapping.target {
                    catalog::Target::Override { digest } => Some(digest.to_string()),
                    catalog::Target::Persona(_) => None,
                },
                priority: mapping.priority,
                domains: self
                    .domains
                    .values()
                    .filter(|tracked| {
                        tracked
                            .description
                            .tags
                            .iter()
                            .any(|text| text == tag.as_str())
                    })
                    .map(|tracked| tracked.description.name.clone())
                    .collect(),
            })
            .collect()
    }
}

/// Whether a persona says anything about a resource.
fn manages(persona: &persona::Persona, resource: Resource) -> bool {
    let base = match resource {
        Resource::Vcpus => persona.base.cpu.is_some(),
        Resource::Memory => persona.base.memory.is_some(),
    };
    let mut actions = persona.rules.iter().flat_map(|rule| &rule.then);
    base || actions.any(|action| action.resource() == Some(resource))
}

fn value(tracked: &Tracked, metric: Metric, now: Moment) -> Option<f64> {
    tracked
        .readings
        .reading(metric)
        .filter(|reading| reading.is_fresh(now))
        .map(|reading| reading.value)
}

fn reading_views(tracked: &Tracked, now: Moment) -> Vec<ReadingView> {
    let shown = |metric: &Metric| {
        let reading = tracked.readings.reading(*metric)?;
        Some(reading_view(metric.name(), metric.unit(), reading, now))
    };
    let applications = tracked.agent.applications.readings().into_iter();
    // Rules compare such a figure with whatever they like; it is shown as the number that it is.
    let said = applications
        .map(|(named, reading)| reading_view(named.as_str(), Unit::Count, reading, now));
    Metric::ALL.iter().filter_map(shown).chain(said).collect()
}

fn reading_view(name: &str, unit: Unit, reading: Reading, now: Moment) -> ReadingView {
    ReadingView {
        metric: name.to_owned(),
        // What is too old counts for no rule, so it is not shown as a value either.
        value: reading.is_fresh(now).then_some(reading.value),
        unit,
        source: Some(reading.source),
        age_ms: u64::try_from(now.since(reading.at).as_millis()).ok(),
    }
}

fn agent_view(tracked: &Tracked, now: Moment) -> AgentView {
    let agent = &tracked.agent;
    let state = match (&agent.facts, &agent.trouble) {
        _ if tracked.description.agent_channel.is_none() => AgentState::NoChannel,
        (Some(_), _) => AgentState::Connected,
        (None, Some((state, _))) => *state,
        (None, None) => AgentState::Absent,
    };
    AgentView {
        state,
        version: agent
            .facts
            .as_ref()
            .map(|facts| facts.agent_version.as_str().to_owned()),
        last_seen_ms: agent
            .heard
            .and_then(|heard| u64::try_from(now.since(heard).as_millis()).ok()),
    }
}

/// How far a domain's activation has come.
pub(super) fn activation_view(tracked: &Tracked) -> ActivationView {
    let side = &tracked.persona;
    ActivationView {
        state: side.state,
        detail: side.detail.clone(),
        since: side.since,
    }
}

/// Whether people who log in to a guest are held to restricted commands, as it says.
/// The agent can write nothing.
pub(super) const FROZEN: &str = "the guest's file system is frozen or its disk does not answer: nothing is made active there meanwhile";

pub(super) fn gate_text(gate: GateState) -> &'static str {
    match gate {
        GateState::Holds => "people who log in to the guest are held to restricted_commands now",
        GateState::Away => {
            "people who log in to the guest are not held to restricted_commands now: virt-persona-gate does not run there"
        }
        GateState::Denied => {
            "people who log in to the guest are not held to restricted_commands: its owner does not want that"
        }
        GateState::Unknown => {
            "the guest says of restricted_commands for people who log in what this daemon does not know"
        }
    }
}

/// The catalogue's state of an activation, in the words of the view.
pub(super) fn activation_state(
    activation: Option<&Activation>,
) -> (ActivationState, Option<String>, Option<Moment>) {
    use catalog::ActivationState as State;
    let Some(activation) = activation else {
        return (ActivationState::None, None, None);
    };
    let nothing = activation.desired == Desired::Nothing;
    if let Some(failed) = &activation.failed {
        let reason = Some(failed.reason.clone());
        return (ActivationState::Failed, reason, Some(activation.wanted_at));
    }
    match &activation.state {
        State::Active { since } if nothing => (ActivationState::None, None, Some(*since)),
        State::Active { since } => (
            ActivationState::Active,
            activation.remark.clone(),
            Some(*since),
        ),
        State::AgentAbsent if nothing => (ActivationState::None, None, Some(activation.wanted_at)),
        State::AgentAbsent => {
            let detail = "the agent in the guest is not connected; vCPUs and memory are kept as the persona says all the same";
            (
                ActivationState::WaitingForAgent,
                Some(detail.into()),
                Some(activation.wanted_at),
            )
        }
        State::Pending => (ActivationState::Pending, None, Some(activation.wanted_at)),
        State::Sent { at } if nothing => (ActivationState::Deactivating, None, Some(*at)),
        State::Sent { at } => (ActivationState::Sent, None, Some(*at)),
        State::Failed { reason } => (
            ActivationState::Failed,
            Some(reason.clone()),
            Some(activation.wanted_at),
        ),
    }
}

/// The persona that a domain is to have by an activation.
pub(super) fn bound(activation: &Activation, pinned: bool) -> Option<BoundPersona> {
    let Desired::Persona {
        composition,
        digest,
        origin,
    } = activation.asked_for()
    else {
        return None;
    };
    let (word, tag) = match origin {
        Origin::Explicit => (view::Origin::Applied, None),
        Origin::Tag { tag, .. } => (view::Origin::Tag, Some(tag.to_string())),
        Origin::Default => (view::Origin::Default, None),
        Origin::Shift { .. } => (view::Origin::Shift, None),
    };
    let (rule, shifted_from) = match origin {
        Origin::Shift { rule, of } => (Some(rule.clone()), Some(of.to_string())),
        _ => (None, None),
    };
    Some(BoundPersona {
        name: composition.persona.name.to_string(),
        version: composition.persona.version.get(),
        digest: digest.to_string(),
        origin: word,
        tag,
        rule,
        shifted_from,
        pinned,
        generation: activation.generation.0,
        bases: composition.bases.iter().map(ToString::to_string).collect(),
        overrides: composition
            .overrides
            .iter()
            .map(|laid| laid.tag.to_string())
            .collect(),
    })
}

/// A record, as readers see it.
pub(super) fn record_view(record: AuditRecord) -> AuditRecordView {
    AuditRecordView {
        seq: record.seq,
        at: record.at,
        domain: record.domain,
        domain_name: record.domain_name,
        kind: record.kind.to_string(),
        text: record.text,
        detail: record.detail,
    }
}

/// A stored version, as readers see it.
pub(super) fn version_view(summary: &catalog::VersionSummary, current: bool) -> VersionView {
    VersionView {
        name: summary.name.to_string(),
        version: summary.number.get(),
        digest: summary.digest.to_string(),
        current,
        format: format(summary.format),
        author: summary.author.clone(),
        at: summary.at,
        note: summary.note.clone(),
        rollout: None,
    }
}

/// How a document is written, in the words of the view.
pub(super) fn format(format: persona::Format) -> DocumentFormat {
    format.into()
}

fn host_state(stage: Stage) -> view::HostState {
    match stage {
        Stage::Plenty => view::HostState::Plenty,
        Stage::Tight => view::HostState::Tight,
        Stage::Scarce => view::HostState::Scarce,
        Stage::Critical => view::HostState::Critical,
    }
}

/// A resource, in the words of the view.
pub(super) fn resource(resource: Resource) -> view::Resource {
    match resource {
        Resource::Vcpus => view::Resource::Vcpus,
        Resource::Memory => view::Resource::Memory,
    }
}

/// That vCPUs stay and a cap is there in place of their removal.
fn capped(tracked: &Tracked) -> Option<String> {
    let mut lines = tracked.report.iter().flat_map(|report| &report.resources);
    lines.find_map(|line| match &line.verdict {
        Verdict::No(reason @ Reason::Capped { .. }) => Some(reason.sentence(line.resource)),
        _ => None,
    })
}
