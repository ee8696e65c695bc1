//! The control path, once a tick: figures are read, the planner makes one plan for the host, drift and notices are
//! recorded, and each step is begun in a task of its own. What was asked for is in the store before it is begun.

use std::time::Duration;

use persona::rule::Resource;
use persona::units::{Bytes, Moment};
use planner::report::amount_text;
use planner::snapshot::{Host, Run};
use planner::state::DomainState;
use planner::{Ending, Plan, Snapshot, State, Step};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::event::Event;
use super::tracked::slot;
use super::{Daemon, systemd};
use crate::act::{self, Outcome, Settings};
use crate::audit::AuditKind;
use crate::config::Config;
use crate::hypervisor::DomainId;
use crate::observe::guest;
use crate::store::{Batch, Store, StoreError, Stored, Tree};
use crate::view::{DecisionView, OutcomeWord};

/// Domains are listed anew this often, in case an event was lost.
const LIST_AGAIN: Duration = Duration::from_secs(300);

/// States that are stored together: well below what the store takes at once, at some hundred bytes each.
const STATES_A_BATCH: usize = 100;

/// How steps are carried out under a configuration.
pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        vcpu_deadline: Duration::from_secs(config.vcpu.deadline_s),
        memory_deadline: Duration::from_secs(config.memory.deadline_s),
        removal: config.vcpu.removal,
    }
}

/// The planner's state of one domain, as it is stored.
#[derive(Serialize, Deserialize)]
struct Carried(DomainState);

impl Stored for Carried {
    const TREE: Tree = Tree::Planner;
}

/// What the planner carried when the daemon last ran.
pub(super) fn carried_state(store: &Store) -> Result<State, StoreError> {
    let mut state = State::default();
    for (key, Carried(carried)) in store.all::<Carried>()? {
        if let Ok(id) = <[u8; 16]>::try_from(key.as_slice()) {
            state.domains.insert(DomainId(id), carried);
        }
    }
    Ok(state)
}

impl Daemon {
    pub(super) fn tick(&mut self) {
        let began = Instant::now();
        let now = self.clock.now();
        self.ticks += 1;
        self.ask_for_slow_figures(now);
        self.sample(now);
        if let Some(host) = &self.host {
            let budget = self.config.budget.of(host);
            let plan = self.plan(budget, now);
            self.begin_plan(plan, now);
        }
        self.publish();
        if began.elapsed() > self.config.tick.interval() {
            self.overruns += 1;
            tracing::warn!(took = ?began.elapsed(), domains = self.domains.len(), "a tick took longer than its interval");
        }
        systemd::alive(&format!(
            "{} domains, {} ticks",
            self.domains.len(),
            self.ticks
        ));
    }

    fn ask_for_slow_figures(&mut self, now: Moment) {
        if self.connection.state != crate::view::HypervisorState::Connected {
            return;
        }
        let due = |last: Option<Moment>, every| last.is_none_or(|last| now.since(last) >= every);
        if due(self.last_slow, self.config.tick.slow_interval()) && !self.asking_stats {
            self.last_slow = Some(now);
            self.asking_stats = true;
            let hypervisor = self.hypervisor.clone();
            self.spawn(async move { Event::Stats(hypervisor.bulk_stats().await) });
        }
        if due(self.last_list, LIST_AGAIN) {
            self.last_list = Some(now);
            self.list_domains();
        }
    }

    fn sample(&mut self, now: Moment) {
        let host = self.observer.sample_host(now);
        let slow = self.config.tick.slow_interval();
        for (id, domain) in &mut self.domains {
            if domain.run() != Run::Running {
                continue;
            }
            let sample = self.observer.sample_domain(*id, domain.online(now), now);
            domain.readings = sample.readings;
            domain.vcpu_basis = sample.vcpu_basis;
            // The guest may update more often than the bulk call looks; what is in hand is as old as the rarer of both.
            let period = domain
                .description
                .balloon_period
                .map(|period| period.max(slow));
            let report = domain.agent.report.as_ref();
            guest::add_claims(&mut domain.readings, &domain.balloon, period, report, now);
            domain.readings.absorb(&host.readings, now);
        }
        self.host_readings = Some(host);
    }

    fn plan(&mut self, budget: Host, now: Moment) -> Plan {
        // A pinned vCPU keeps a host CPU to itself, so it weighs as much as the budget gives a CPU.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let pinned = self.config.budget.vcpus_per_core.ceil() as u32;
        let domains = self
            .domains
            .values()
            .map(|domain| domain.snapshot(now, pinned))
            .collect();
        planner::plan(
            &Snapshot {
                host: budget,
                domains,
            },
            &mut self.state,
            &self.policy,
            now,
        )
    }

    fn begin_plan(&mut self, plan: Plan, now: Moment) {
        let mut entries = Vec::new();
        let mut touched = Vec::new();
        for drift in &plan.drifts {
            let text = format!(
                "somebody changed it by hand from {} to {}; that is respected for {} s",
                amount_text(drift.resource, drift.from),
                amount_text(drift.resource, drift.to),
                drift.until.since(now).as_secs()
            );
            entries.push(self.entry(AuditKind::Drift, Some(drift.domain), &text, json(drift)));
            touched.push(drift.domain);
        }
        for notice in &plan.notices {
            let text = format!("rule {} says: {}", notice.rule, notice.text);
            entries.push(self.entry(
                AuditKind::Decision,
                Some(notice.domain),
                &text,
                json(notice),
            ));
        }
        for step in &plan.steps {
            self.state.begin(step, now);
            touched.push(step.domain);
            let line = plan
                .reports
                .iter()
                .find(|report| report.domain == step.domain);
            let text = format!("{}: {}", resource_name(step.resource), step.sentence());
            entries.push(self.entry(AuditKind::Decision, Some(step.domain), &text, json(&line)));
        }
        touched.sort_unstable();
        touched.dedup();
        // What a step is going to ask for is on disk before it is asked: after a crash it is not taken for a hand's work.
        self.keep_states(&touched);
        self.record_all(entries);
        self.ledger = Some(plan.host);
        for report in plan.reports {
            if let Some(domain) = self.domains.get_mut(&report.domain) {
                domain.report = Some(report);
            }
        }
        for step in plan.steps {
            self.begin_step(step, now);
        }
    }

    fn begin_step(&mut self, step: Step, now: Moment) {
        if let Some(domain) = self.domains.get_mut(&step.domain) {
            domain.decision = Some(decision(&step, now, None, step.sentence()));
        }
        self.acting += 1;
        let hands = self.hands.clone();
        self.spawn(async move {
            let lost = Box::new(step.clone());
            // A task of its own once more, so that a fault of ours in it ends as "unknown" and not as silence.
            match tokio::spawn(async move { act::act(&hands, step).await }).await {
                Ok(outcome) => Event::Acted(Box::new(outcome)),
                Err(_) => Event::ActLost(lost),
            }
        });
    }

    pub(super) fn step_ended(&mut self, outcome: Outcome) {
        self.acting = self.acting.saturating_sub(1);
        let now = self.clock.now();
        let (id, resource) = (outcome.step.domain, outcome.step.resource);
        self.state.finish(
            id,
            resource,
            outcome.ending,
            outcome.asked,
            &self.policy,
            now,
        );
        self.keep_state(id);
        let text = outcome.sentence();
        self.record(AuditKind::Action, Some(id), &text, json(&outcome));
        self.observer.refresh(id);
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.decision = Some(decision(
                &outcome.step,
                now,
                Some(word(outcome.ending)),
                text,
            ));
            domain.outcomes[slot(resource)] = Some(outcome);
        }
        self.look(id);
        self.publish_soon();
    }

    pub(super) fn step_lost(&mut self, step: &Step) {
        let outcome = Outcome {
            step: step.clone(),
            ending: Ending::Unknown,
            requested: step.to,
            plugged: None,
            guest: None,
            asked: None,
            note: Some("the daemon's own task failed; its log has more".into()),
        };
        self.step_ended(outcome);
    }

    /// Puts the planner's state of a domain into the store.
    pub(super) fn keep_state(&mut self, id: DomainId) {
        self.keep_states(&[id]);
    }

    /// Puts the planner's state of several domains into the store: with one wait for the disk for many of them, because
    /// a tick can begin a step in every domain.
    fn keep_states(&mut self, domains: &[DomainId]) {
        let carried: Vec<(DomainId, Carried)> = domains
            .iter()
            .filter_map(|id| Some((*id, Carried(self.state.domain(*id)?.clone()))))
            .collect();
        let kept = tokio::task::block_in_place(|| {
            carried.chunks(STATES_A_BATCH).try_for_each(|states| {
                let mut batch = Batch::new();
                for (id, state) in states {
                    batch.put(id.0, state)?;
                }
                self.store.commit(batch)
            })
        });
        if let Err(error) = kept {
            let error = act::sentence_of(&error);
            tracing::error!(%error, "cooldowns and holds could not be stored");
            self.problems.insert(
                "store-write",
                format!("the store could not be written: {error}"),
            );
        } else if !carried.is_empty() {
            self.problems.remove("store-write");
        }
    }
}

fn decision(step: &Step, at: Moment, outcome: Option<OutcomeWord>, text: String) -> DecisionView {
    let rule = match &step.by {
        planner::report::Wish::Rule(name) | planner::report::Wish::Undo(name) => Some(name.clone()),
        _ => None,
    };
    DecisionView {
        at,
        resource: super::show::resource(step.resource),
        rule,
        from: Some(step.from),
        to: step.to,
        outcome,
        text,
    }
}

/// The word of an ending.
pub(super) fn word(ending: Ending) -> OutcomeWord {
    match ending {
        Ending::Applied => OutcomeWord::Applied,
        Ending::Partial => OutcomeWord::Partial,
        Ending::Refused => OutcomeWord::Refused,
        Ending::Unknown => OutcomeWord::Unknown,
    }
}

/// A resource, for people.
pub(super) fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Vcpus => "vCPUs",
        Resource::Memory => "memory",
    }
}

/// The detail of a record. What cannot be written as JSON (there is no such thing among our own types) is left out.
pub(super) fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Memory as people write it.
pub(super) fn memory_text(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".into(), |bytes| Bytes(bytes).to_string())
}
