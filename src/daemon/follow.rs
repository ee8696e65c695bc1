//! What the hypervisor tells, and what that makes known of each domain. Nothing is decided here: descriptions are asked
//! for, channels and observations are attached and detached, and the persona path is told of what concerns it. What
//! agents tell is in `agents`.

use agent_protocol::message::HelloReason;
use persona::signal::EventKind;
use planner::snapshot::Run;

use super::event::{Asked, Event};
use super::tracked::{AgentSide, Looking, Tracked};
use super::{Daemon, tick};
use crate::act::sentence_of;
use crate::agent::Running;
use crate::audit::AuditKind;
use crate::hypervisor::{
    Arrival, DomainDescription, DomainId, DomainStats, HostFacts, HypervisorError, HypervisorEvent,
    Lifecycle, MetadataElement, PortState,
};
use crate::observe::Emulator;
use crate::view::{HypervisorState, Listing};

impl Daemon {
    pub(super) fn hypervisor_tells(&mut self, event: HypervisorEvent) {
        self.hands.notices.tell(&event);
        match event {
            HypervisorEvent::Connected => self.connected(),
            HypervisorEvent::Disconnected { reason } => self.disconnected(reason),
            HypervisorEvent::Lifecycle {
                domain,
                change: Lifecycle::Undefined,
            } => self.undefined(domain),
            HypervisorEvent::Lifecycle { domain, change } => {
                self.life_changes(domain, change);
                self.look(domain);
            }
            HypervisorEvent::Rebooted { domain } => {
                self.state.rebooted(domain);
                self.recording.touched(domain);
                self.registry.renew(domain, HelloReason::Reboot);
                self.note(domain, EventKind::DomainRebooted);
                if let Some(tracked) = self.domains.get_mut(&domain) {
                    tracked.agent.report = None;
                }
            }
            HypervisorEvent::MetadataChanged { domain, uri } => {
                // What the daemon itself writes there needs no second look.
                if uri.as_deref() != Some(MetadataElement::Status.uri()) {
                    self.look(domain);
                }
            }
            HypervisorEvent::Tuned { domain } => self.look(domain),
            HypervisorEvent::Device { domain, .. } => {
                self.observer.refresh(domain);
                self.look(domain);
            }
            HypervisorEvent::Balloon { domain, current } => {
                match self.domains.get_mut(&domain) {
                    // The figure may count what virtio-mem has plugged; the description tells the two apart.
                    Some(tracked) if !tracked.description.virtio_mem.is_empty() => {
                        self.look(domain);
                    }
                    Some(tracked) if tracked.description.balloon_current.is_some() => {
                        tracked.description.balloon_current = Some(current);
                    }
                    Some(_) | None => {}
                }
            }
            HypervisorEvent::AgentPort { domain, state } => {
                if state == PortState::Open {
                    self.registry.renew(domain, HelloReason::Connect);
                }
            }
            HypervisorEvent::AcpiStatus {
                domain,
                slot,
                status,
            } => {
                tracing::debug!(%domain, ?slot, status, "the guest told of a device operation");
            }
        }
    }

    /// Notes that something happens to a domain now.
    pub(super) fn note(&mut self, id: DomainId, kind: EventKind) {
        let now = self.clock.now();
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.happened.note(kind, now);
        }
    }

    fn connected(&mut self) {
        self.connection.state = HypervisorState::Connected;
        self.connection.detail = None;
        let text = format!("connected to {}", self.connection.uri);
        self.record(AuditKind::Connection, None, &text, serde_json::Value::Null);
        self.ask_for_host();
        self.list_domains();
    }

    /// Asks what the host has.
    pub(super) fn ask_for_host(&mut self) {
        self.asking_host = true;
        let hypervisor = self.hypervisor.clone();
        self.spawn(async move { Event::Host(hypervisor.host().await) });
    }

    fn disconnected(&mut self, reason: String) {
        if self.connection.state == HypervisorState::Connected || self.connection.detail.is_none() {
            let text = format!("not connected to {}: {reason}", self.connection.uri);
            self.record(AuditKind::Connection, None, &text, serde_json::Value::Null);
        }
        // What begins meanwhile is not told, and neither is how it ended.
        self.starting.clear();
        self.half_told.clear();
        self.connection.state = HypervisorState::Disconnected;
        self.connection.detail = Some(reason);
        self.publish_soon();
    }

    /// Asks for all domains.
    pub(super) fn list_domains(&mut self) {
        self.last_list = Some(self.clock.now());
        let hypervisor = self.hypervisor.clone();
        let asked = self.ended;
        self.spawn(async move { Event::Domains(asked, hypervisor.domains().await) });
    }

    pub(super) fn host_is_known(&mut self, result: Result<HostFacts, HypervisorError>) {
        self.asking_host = false;
        match result {
            Ok(host) => {
                self.connection.library = Some(host.library_version.clone());
                self.connection.emulator = Some(host.emulator_version.clone());
                self.host = Some(host);
                self.problems.remove("host");
            }
            Err(error) => {
                let text = format!("what the host has is not known: {}", sentence_of(&error));
                tracing::warn!(text);
                self.problems.insert("host", text);
            }
        }
        self.publish_soon();
    }

    pub(super) fn domains_are_known(
        &mut self,
        asked: Asked,
        result: Result<Vec<DomainDescription>, HypervisorError>,
    ) {
        let descriptions = match result {
            Ok(descriptions) => descriptions,
            Err(error) => {
                tracing::warn!(
                    error = sentence_of(&error),
                    "the domains could not be listed"
                );
                return;
            }
        };
        let gone: Vec<DomainId> = self
            .domains
            .keys()
            .filter(|id| {
                !descriptions
                    .iter()
                    .any(|description| description.id == **id)
            })
            .copied()
            .collect();
        // A domain whose definition cannot be read at the moment is left out of the list as well, so each is asked for.
        for id in gone {
            self.look(id);
        }
        self.look_for_gone(&descriptions);
        for description in descriptions {
            if self.is_out_of_date(description.id, asked) {
                self.look(description.id);
            } else {
                let id = description.id;
                let known = self.domains.contains_key(&id);
                self.take_description(description);
                if known {
                    // In case that they could not be turned on before.
                    self.statistics_on(id);
                }
            }
        }
        if self.listing == Listing::Awaited {
            self.listing = Listing::Complete;
            // Who starts the daemon waits for this one before anybody can ask.
            self.publish();
        }
        self.publish_soon();
    }

    /// Asks for the description of one domain; while one is under way, once more after it.
    pub(super) fn look(&mut self, id: DomainId) {
        if let Some(tracked) = self.domains.get_mut(&id) {
            if tracked.looking != Looking::No {
                tracked.looking = Looking::AndAgain;
                return;
            }
            tracked.looking = Looking::Yes;
        }
        let hypervisor = self.hypervisor.clone();
        let asked = self.ended;
        self.spawn(
            async move { Event::Described(id, asked, Box::new(hypervisor.describe(id).await)) },
        );
    }

    /// Whether a step of the domain has ended since its description was asked for.
    pub(super) fn is_out_of_date(&self, id: DomainId, asked: Asked) -> bool {
        self.domains
            .get(&id)
            .is_some_and(|tracked| tracked.changed > asked)
    }

    pub(super) fn domain_is_known(
        &mut self,
        id: DomainId,
        asked: Asked,
        result: Result<DomainDescription, HypervisorError>,
    ) {
        let out_of_date = self.is_out_of_date(id, asked);
        let again = self.domains.get_mut(&id).map(|tracked| {
            std::mem::replace(&mut tracked.looking, Looking::No) == Looking::AndAgain
        });
        match result {
            Ok(_) if out_of_date => {}
            Ok(description) => self.take_description(description),
            Err(HypervisorError::NoDomain { .. }) => self.domain_is_gone(id),
            Err(error) => {
                tracing::debug!(domain = %id, error = sentence_of(&error), "a domain could not be described");
            }
        }
        if again == Some(true) || out_of_date {
            self.look(id);
        }
        self.publish_soon();
    }

    /// What is known of a domain is replaced by what it is now.
    pub(super) fn take_description(&mut self, description: DomainDescription) {
        let id = description.id;
        let now = self.clock.now();
        let fresh = !self.domains.contains_key(&id);
        if let Some(carried) = self.carried_processes.remove(&id)
            && description
                .process
                .is_some_and(|process| process != carried)
        {
            // The number of the instance is the same by chance.
            self.state.rest(id, now);
            self.recording.touched(id);
        }
        let tracked = self
            .domains
            .entry(id)
            .or_insert_with(|| Tracked::new(description.clone()));
        let old = std::mem::replace(&mut tracked.description, description);
        let restarted = old.instance != tracked.description.instance;
        // The hypervisor forgets it when the domain is paused.
        if !restarted && old.arrival != Arrival::Started {
            tracked.description.arrival = old.arrival;
        }
        if restarted {
            tracked.restarted();
        }
        let run = tracked.run();
        let named = old.name != tracked.description.name;
        self.begin_instance(id, restarted, now);
        if named {
            self.renamed(id, &old.name);
        }
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        let tags_changed = old.tags != tracked.description.tags
            || old.tags_problem != tracked.description.tags_problem;
        if run == Run::Off || tracked.description.agent_channel.is_none() {
            tracked.agent = AgentSide::default();
        }
        let channel = tracked.description.agent_channel.clone();
        let emulator = Emulator::of(&tracked.description);
        match (run, channel) {
            (Run::Off, _) | (_, None) => self.registry.detach(id),
            (run, Some(socket)) => {
                let running = if run == Run::Paused {
                    Running::Paused
                } else {
                    Running::Yes
                };
                self.registry.attach(id, socket, running);
                self.registry.set_running(id, running);
                self.registry.collect(id, tracked.persona.parts);
            }
        }
        match emulator.filter(|_| run != Run::Off) {
            Some(emulator) => {
                self.observer.attach(id, emulator);
                self.observer
                    .follow_interfaces(id, &tracked.description.interfaces);
            }
            None => self.observer.detach(id),
        }
        if fresh {
            tracing::info!(domain = %id, name = self.domains[&id].description.name, ?run, "found a domain");
        }
        if fresh || tags_changed || restarted {
            self.resolve(id);
        } else {
            // In case that it could not be written before.
            self.show_status(id);
        }
        if fresh || restarted || run != run_of(&old) {
            self.statistics_on(id);
        }
    }

    /// Turns the balloon's statistics on where the persona wants memory managed and nobody has done it yet: without
    /// them the guest's memory is unknown, and unknown never shrinks anything.
    pub(super) fn statistics_on(&mut self, id: DomainId) {
        let Some(tracked) = self.domains.get(&id) else {
            return;
        };
        let managed = tracked
            .persona
            .in_force
            .as_ref()
            .is_some_and(|persona| persona.base.memory.is_some());
        let description = &tracked.description;
        if !managed
            || tracked.run() != Run::Running
            || description.balloon_current.is_none()
            || description.balloon_period.is_some()
        {
            return;
        }
        let hypervisor = self.hypervisor.clone();
        let period = std::time::Duration::from_secs(2);
        let asked = self.ended;
        self.spawn(async move {
            if let Err(error) = hypervisor.set_balloon_period(id, period).await {
                tracing::warn!(domain = %id, error = sentence_of(&error), "the balloon's statistics could not be turned on");
            }
            Event::Described(id, asked, Box::new(hypervisor.describe(id).await))
        });
    }

    pub(super) fn domain_is_gone(&mut self, id: DomainId) {
        self.starting.remove(&id);
        self.impacts.open.forget(id);
        self.half_told.remove(&id);
        if !self.domains.contains_key(&id) {
            // It was defined when the daemon last ran.
            self.state.forget(id);
            let ended = planner::proposal::Turn::NotRunning;
            self.state.proposals.leave(id, ended);
            self.forget_persona(id, &id.to_string());
        }
        if let Some(tracked) = self.domains.remove(&id) {
            let name = tracked.description.name;
            tracing::info!(domain = %id, name, "a domain is no longer defined");
            self.registry.detach(id);
            self.observer.detach(id);
            self.state.forget(id);
            self.state
                .proposals
                .leave(id, planner::proposal::Turn::NotRunning);
            self.recording.forget(id);
            self.forget_persona(id, &name);
        }
    }

    pub(super) fn stats_are_known(
        &mut self,
        result: Result<Vec<(DomainId, DomainStats)>, HypervisorError>,
    ) {
        self.asking_stats = false;
        let stats = match result {
            Ok(stats) => stats,
            Err(error) => {
                tracing::debug!(
                    error = sentence_of(&error),
                    "the bulk figures could not be had"
                );
                return;
            }
        };
        self.settle_adoptions();
        let asked = self.last_slow.unwrap_or_else(|| self.clock.now());
        let slow = self.config.tick.slow_interval();
        for (id, mut stats) in stats {
            let Some(tracked) = self.domains.get_mut(&id) else {
                self.look(id);
                continue;
            };
            // The device tells dates of the wall clock; the daemon's own clock does not follow its steps.
            stats.balloon.last_update = stats
                .balloon
                .last_update
                .map(|seconds| self.clock.of_wall(seconds).0 / 1000);
            let period = tracked
                .description
                .balloon_period
                .map_or(slow, |period| period.max(slow));
            tracked.faults.take(&stats.balloon, period);
            tracked.balloon = stats.balloon;
            if let Some(disks) = stats.disks {
                tracked.disks.take(disks, asked, slow);
            }
            let description = &tracked.description;
            let vcpus = stats
                .vcpus_plugged
                .is_some_and(|plugged| plugged != description.vcpus_plugged);
            let balloon = description.balloon_current.is_some()
                && stats.balloon.current.is_some()
                && stats.balloon.current != description.balloon_current;
            if vcpus || balloon {
                self.look(id);
            }
        }
    }

    /// Reads the configuration again; what is bound for a running daemon (paths, the hypervisor, the
    /// agents' interval, the audit's length) needs a restart.
    pub(super) fn reload(&mut self, by: &str) -> Result<(), crate::config::ConfigError> {
        match crate::config::Config::read(&self.config_path) {
            Ok(mut config) => {
                let restart = config.hypervisor != self.config.hypervisor
                    || config.paths != self.config.paths
                    || config.tick.telemetry_ms != self.config.tick.telemetry_ms
                    || config.audit != self.config.audit
                    || config.recording != self.config.recording;
                // The agents go on at the interval that they were told, so their reports age by that one.
                config.tick.telemetry_ms = self.config.tick.telemetry_ms;
                // Readings are too old after some of these periods, and windows start anew after a gap of them.
                self.observer.set_period(config.tick.interval());
                self.policy = config.policy();
                self.hands.settings = tick::settings(&config);
                self.impacts.open.set_timing(config.effects.timing());
                self.config = config;
                self.problems.remove("configuration");
                let note = if restart {
                    "; the hypervisor, the paths, the agents' interval, the audit's length and the recording are taken over at the next start"
                } else {
                    ""
                };
                let text = format!("the configuration was read again because of {by}{note}");
                self.record(AuditKind::Daemon, None, &text, serde_json::Value::Null);
                self.publish_soon();
                Ok(())
            }
            Err(error) => {
                let text = format!("the configuration stays as it was: {}", sentence_of(&error));
                self.record(AuditKind::Refusal, None, &text, serde_json::Value::Null);
                self.problems.insert("configuration", text);
                self.publish_soon();
                Err(error)
            }
        }
    }
}

fn run_of(description: &DomainDescription) -> Run {
    Tracked::new(description.clone()).run()
}
