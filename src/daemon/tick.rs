//! The control path, once a tick: figures are read, the planner makes one plan for the host, drift and notices are
//! recorded, and each step is begun in a task of its own (`step`). What was asked for is in the store before it is begun
//! (`carried`).

mod carried;
mod step;

use std::time::Duration;

use persona::rule::{Action, Performed, Resource};
use persona::signal::{Metric, Signals};
use persona::units::{Bytes, Moment};
use planner::report::amount_text;
use planner::snapshot::{Ability, Host, HostMemory, Run, Strain};
use planner::{Call, Plan, Snapshot};
use serde::Serialize;
use tokio::time::Instant;

use super::event::Event;
use super::{Daemon, limits, systemd};
use crate::audit::AuditKind;
use crate::observe::guest;
use crate::view::HypervisorState;

pub(super) use carried::{Carried, carried_state, host_boot};
pub(super) use step::{settings, word};

/// Domains are listed anew this often, in case an event was lost.
const LIST_AGAIN: Duration = Duration::from_secs(300);

impl Daemon {
    pub(super) fn tick(&mut self) {
        let began = Instant::now();
        let now = self.clock.now();
        self.ticks += 1;
        self.ask_for_slow_figures(now);
        self.sample(now);
        self.give_up_agents(now);
        self.roll_on();
        self.plan_and_begin(now);
        self.measure_impacts(now);
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

    /// Makes a plan of what is known and begins its steps.
    pub(super) fn plan_and_begin(&mut self, now: Moment) {
        if let Some(host) = &self.host {
            let budget = self.config.budget.of(host);
            let plan = self.plan(budget, now);
            let plan = self.without_guests_rules(plan);
            let (calls, returns) = (plan.calls.clone(), plan.returns.clone());
            self.begin_plan(plan, now);
            self.call_guests(&calls);
            self.follow_shifts(&calls, &returns, now);
            self.follow_adjustments(&calls, now);
        }
    }

    fn ask_for_slow_figures(&mut self, now: Moment) {
        if self.connection.state != HypervisorState::Connected {
            return;
        }
        if self.host.is_none() && !self.asking_host {
            self.ask_for_host();
        }
        let due = |last: Option<Moment>, every| last.is_none_or(|last| now.since(last) >= every);
        if due(self.last_slow, self.config.tick.slow_interval()) && !self.asking_stats {
            self.last_slow = Some(now);
            self.asking_stats = true;
            let hypervisor = self.hypervisor.clone();
            self.spawn(async move { Event::Stats(hypervisor.bulk_stats().await) });
            self.ask_guests_again();
            self.ask_all_calls();
            self.stand_in(now);
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
            domain.dimm_growth = self.config.memory.dimm;
            let sample = self
                .observer
                .sample_domain(*id, domain.claimed_online(now), now);
            domain.readings = sample.readings;
            domain.vcpu_basis = sample.vcpu_basis;
            // The guest may update more often than the bulk call looks; what is in hand is as old as the rarer of both.
            let period = domain
                .description
                .balloon_period
                .map(|period| period.max(slow));
            let report = domain.agent.report.as_ref();
            guest::add_claims(&mut domain.readings, &domain.balloon, period, report, now);
            domain.agent.figures.add_to(&mut domain.readings, now);
            domain.disks.add_to(&mut domain.readings);
            domain.faults.add_to(&mut domain.readings);
            domain.readings.absorb(&host.readings, now);
        }
        self.host_readings = Some(host);
    }

    fn plan(&mut self, budget: Host, now: Moment) -> Plan {
        // A pinned vCPU keeps a host CPU to itself, so it weighs as much as the budget gives a CPU.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let pinned = self.config.budget.vcpus_per_core.ceil() as u32;
        let connected = self.connection.state == HypervisorState::Connected;
        let domains = self
            .domains
            .iter()
            .map(|(id, domain)| {
                let mut seen = domain.snapshot(now, pinned);
                if seen.run == Run::Off && self.starting.contains_key(id) {
                    // Its start was told and its description is on its way.
                    seen.run = Run::Starting;
                }
                if self.retired {
                    // Nobody has the say over it any more, so the planner gives back.
                    seen.persona = None;
                }
                if !connected {
                    // Windows go on, but no step would be more than a failure that counts against the mechanism.
                    seen.vcpus.ability = Ability::NoHypervisor;
                    seen.memory.ability = Ability::NoHypervisor;
                    seen.knobs = limits::out_of_reach();
                }
                seen
            })
            .collect();
        let snapshot = Snapshot {
            host: budget,
            strain: self.strain(now),
            domains,
        };
        let before = self.recording.before(&snapshot, &self.state, now);
        let plan = planner::plan(&snapshot, &mut self.state, &self.policy, now);
        self.recording
            .planned(&snapshot, before, &plan, &self.policy);
        plan
    }

    /// What the host shows of its own need.
    fn strain(&self, now: Moment) -> Strain {
        let Some(host) = &self.host_readings else {
            return Strain::default();
        };
        let value = |metric| {
            let reading = host.readings.reading(metric)?;
            reading.is_fresh(now).then_some(reading.value)
        };
        // Both are of one file; an amount of bytes is a whole number that is not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let available = value(Metric::HostMemoryAvailable).map(|bytes| Bytes(bytes as u64));
        let memory = host.memory_total.ok().zip(available);
        Strain {
            memory: memory.map(|(total, available)| HostMemory { total, available }),
            memory_pressure: value(Metric::HostMemoryPressure),
            cpu_pressure: value(Metric::HostCpuPressure),
        }
    }

    fn begin_plan(&mut self, plan: Plan, now: Moment) {
        let is_approved = |call: &&Call| call.approved.is_some();
        let mut outdone = self.take_calls(plan.calls.iter().filter(is_approved), now);
        self.proposals_changed(&plan.proposals);
        let others = plan.calls.iter().filter(|call| !is_approved(call));
        outdone.extend(self.take_calls(others, now));
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
            self.impacts.open.disturb(drift.domain, now);
        }
        for stall in &plan.stalls {
            let text = format!(
                "{} was asked for and {} is there, and nothing has moved for long; it is left alone for {} s",
                amount_text(stall.resource, stall.asked),
                amount_text(stall.resource, stall.shown),
                stall.until.since(now).as_secs()
            );
            entries.push(self.entry(AuditKind::Decision, Some(stall.domain), &text, json(stall)));
            touched.push(stall.domain);
        }
        for back in &plan.back_online {
            entries.push(self.back_online(back));
            touched.push(back.domain);
        }
        for call in &plan.calls {
            let text = call_text(call);
            entries.push(self.entry(AuditKind::Decision, Some(call.domain), &text, json(call)));
            touched.push(call.domain);
        }
        entries.extend(outdone);
        for call in &plan.forbidden {
            let text = format!(
                "{}; the persona's trust level for {} is none, which forbids it",
                wish_text(call),
                call.action.class()
            );
            entries.push(self.entry(AuditKind::Refusal, Some(call.domain), &text, json(call)));
        }
        for step in &plan.steps {
            self.state.begin(step, now);
            self.impacts.open.begin(step, now);
            touched.push(step.domain);
            let line = plan
                .reports
                .iter()
                .find(|report| report.domain == step.domain);
            let text = format!("{}: {}", resource_name(step.resource), step.sentence());
            entries.push(self.entry(AuditKind::Decision, Some(step.domain), &text, json(&line)));
        }
        for drift in &plan.limit_drifts {
            let seconds = drift.until.since(now).as_secs();
            entries.push(self.limit_drift(drift, seconds));
            touched.push(drift.domain);
        }
        for step in &plan.limits {
            self.state.begin_limit(step, now);
            touched.push(step.domain);
            entries.push(self.limit_decision(step, &plan.reports));
        }
        touched.extend(&plan.noted);
        touched.sort_unstable();
        touched.dedup();
        // What a step is going to ask for is on disk before it is asked: after a crash it is not taken for a hand's work.
        self.keep_states(&touched, entries);
        self.ledger = Some(plan.host);
        for report in plan.reports {
            if let Some(domain) = self.domains.get_mut(&report.domain) {
                domain.report = Some(report);
            }
        }
        self.record_plan();
        for step in plan.steps {
            self.begin_step(step, now);
        }
        for step in plan.limits {
            self.begin_limit(step);
        }
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

/// What a rule says or asks for, as a line.
fn call_text(call: &planner::Call) -> String {
    let wish = wish_text(call);
    match (&call.action, call.action.performed()) {
        (Action::Notify(text), _) => format!("rule {} says: {text}", call.rule),
        (_, Performed::Here) => wish,
        (_, Performed::NotYet(_)) => format!("{wish}; this version only records it"),
    }
}

/// What a rule asks for, as a part of a line.
pub(super) fn wish_text(call: &planner::Call) -> String {
    let planner::Call {
        rule, action, edge, ..
    } = call;
    match edge {
        planner::Edge::Begins => format!("rule {rule} asks for: {action}"),
        planner::Edge::Ends => format!("the until of rule {rule} takes back: {action}"),
    }
}
