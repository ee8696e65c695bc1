//! What a replay comes to: for each rule how often it did something and else why not, and the totals.

use std::collections::BTreeMap;
use std::time::Duration;

use persona::rule::{Action, Resource, Rule, Truth};
use persona::signal::Signal;
use persona::{Moment, Persona};
use planner::Edge;
use planner::report::{DomainReport, Reason, RuleReport, Verdict, Wish};
use serde::Serialize;

use super::machine::Machine;
use super::survey::Survey;
use super::when::TimeForm;
use super::words;

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleOutcome {
    /// Its name.
    pub name: String,
    /// Its line in the document.
    pub line: u32,
    /// The rule in canonical text form.
    pub text: String,
    /// How often something was done or called for because of it.
    pub fired: u64,
    /// When it first was, as the trace says it.
    pub first: Option<String>,
    /// Seconds for which its condition was true.
    pub true_seconds: f64,
    /// Seconds for which it was false.
    pub false_seconds: f64,
    /// Seconds for which it was unknown.
    pub unknown_seconds: f64,
    /// Why it never fired, where it did not.
    pub why: Option<Why>,
}

/// Why a rule never fired.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// The kind.
    pub kind: Silence,
    /// A sentence.
    pub text: String,
}

/// The kinds of reasons for which a rule never fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// A metric that its condition needs was unknown.
    Unknown,
    /// The event that it waits for never happened.
    NoEvent,
    /// Its condition was never true.
    NeverTrue,
    /// It held, and a limit or a cooldown kept it from acting.
    HeldBack,
    /// It held, and another rule's wish went before.
    Outvoted,
    /// It held, and what it asks for was there already.
    NothingToDo,
}

/// The totals of a replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Seconds played.
    pub seconds: f64,
    /// Steps and calls by kind, such as `vcpus-grow`, `memory-shrink`, `notify`, `enable-feature`.
    pub actions: BTreeMap<&'static str, u64>,
    /// Steps of vCPUs and memory.
    pub changes: u64,
    /// The same for each hour.
    pub changes_per_hour: f64,
    /// vCPUs times hours.
    pub vcpu_hours: f64,
    /// Memory in GiB times hours.
    pub gib_hours: f64,
    /// Seconds for which the domain had too little: either of the two below.
    pub short_seconds: f64,
    /// Seconds for which `cpu.utilization` was 95 % or more.
    pub saturated_seconds: f64,
    /// Seconds for which a limit refused to let it grow.
    pub refused_seconds: f64,
    /// The work of a closed load; nothing where the load is open.
    pub work: Option<Work>,
}

/// What the work of a closed load came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// All of it, as vCPUs times hours.
    pub vcpu_hours: f64,
    /// What of it was beyond what the vCPUs of the moment could do.
    pub waiting_vcpu_hours: f64,
    /// Seconds for which there was more of it than vCPUs.
    pub waiting_seconds: f64,
}

/// From this utilisation on the domain has too few vCPUs, in percent: nobody sees the last few.
pub(super) const SATURATED: f64 = 95.0;

/// What is counted of one rule.
#[derive(Clone, Debug, Default)]
struct Count {
    fired: u64,
    first: Option<Moment>,
    of_truth: [u64; 3],
    /// The longest that its `FOR` held in vain, with what it needs.
    nearest: Option<(Duration, Duration)>,
    distrusted: Option<Signal>,
    held_back: Option<String>,
    outvoted: Option<String>,
}

/// What is counted while a replay goes.
#[derive(Default)]
pub(super) struct Tally {
    rules: Vec<Count>,
    totals: Totals,
    /// Time between two plans.
    tick: Duration,
    ticks: u64,
    vcpu_ticks: u64,
    mib_ticks: u64,
}

impl Tally {
    pub(super) fn new(rules: usize, tick: Duration) -> Self {
        Self {
            tick,
            rules: vec![Count::default(); rules],
            ..Self::default()
        }
    }

    /// One tick: what the domain had in it, and what its rules were worth.
    pub(super) fn tick(&mut self, persona: &Persona, report: &DomainReport, machine: &Machine) {
        self.ticks += 1;
        self.vcpu_ticks += u64::from(machine.vcpus);
        self.mib_ticks += machine.memory.as_mib();
        if let Some(work) = machine.work() {
            let hours = self.tick.as_secs_f64() / 3600.0;
            let waiting = (work - f64::from(machine.vcpus)).max(0.0);
            let total = self.totals.work.get_or_insert_default();
            total.vcpu_hours += work * hours;
            total.waiting_vcpu_hours += waiting * hours;
            if waiting > 0.0 {
                total.waiting_seconds += self.tick.as_secs_f64();
            }
        }
        for ((count, seen), rule) in self.rules.iter_mut().zip(&report.rules).zip(&persona.rules) {
            count.see(seen, rule);
            if seen.truth != Truth::True {
                continue;
            }
            for resource in persona.actions(rule).filter_map(Action::resource) {
                let line = report
                    .resources
                    .iter()
                    .find(|line| line.resource == resource);
                match line.map(|line| (&line.by, &line.verdict)) {
                    Some((Some(Wish::Rule(by)), Verdict::No(reason))) if *by == rule.name => {
                        count.held_back = Some(reason.sentence(resource));
                    }
                    Some((Some(by), _)) if !matches!(by, Wish::Rule(by) if *by == rule.name) => {
                        count.outvoted = Some(by.to_string());
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether the domain had too little in a tick.
    pub(super) fn shortage(&mut self, saturated: Saturated, refused: Refused) {
        let tick = self.tick.as_secs_f64();
        if saturated == Saturated::Yes {
            self.totals.saturated_seconds += tick;
        }
        if refused == Refused::Yes {
            self.totals.refused_seconds += tick;
        }
        if saturated == Saturated::Yes || refused == Refused::Yes {
            self.totals.short_seconds += tick;
        }
    }

    /// A step was taken.
    pub(super) fn step(&mut self, index: Option<usize>, kind: &'static str, now: Moment) {
        self.totals.changes += 1;
        self.act(index, kind, now);
    }

    /// Something was called for.
    pub(super) fn call(&mut self, index: Option<usize>, action: &Action, edge: Edge, now: Moment) {
        // What is taken back is no firing, it is the end of one.
        let index = index.filter(|_| edge == Edge::Begins);
        self.act(index, kind_of(action), now);
    }

    fn act(&mut self, index: Option<usize>, kind: &'static str, now: Moment) {
        *self.totals.actions.entry(kind).or_default() += 1;
        if let Some(count) = index.and_then(|index| self.rules.get_mut(index)) {
            count.fired += 1;
            count.first.get_or_insert(now);
        }
    }

    /// The end of the replay.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn finish(
        mut self,
        persona: &Persona,
        machine: &Machine,
        survey: &Survey,
    ) -> (Vec<RuleOutcome>, Totals) {
        let tick = self.tick.as_secs_f64();
        let hours = |ticks: u64| ticks as f64 * tick / 3600.0;
        self.totals.seconds = self.ticks as f64 * tick;
        self.totals.vcpu_hours = hours(self.vcpu_ticks);
        self.totals.gib_hours = hours(self.mib_ticks) / 1024.0;
        if self.ticks > 0 {
            self.totals.changes_per_hour = self.totals.changes as f64 / hours(self.ticks);
        }
        let rules = self
            .rules
            .into_iter()
            .zip(&persona.rules)
            .map(|(count, rule)| count.outcome(rule, machine, survey))
            .collect();
        (rules, self.totals)
    }
}

/// Whether the CPUs were as busy as they can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saturated {
    Yes,
    No,
}

/// Whether a limit refused growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Yes,
    No,
}

/// Whether a reason is a limit, as against something that passes by itself.
pub(super) fn is_limit(reason: &Reason) -> Refused {
    match reason {
        Reason::Cooldown(_)
        | Reason::InFlight { .. }
        | Reason::Waiting { .. }
        | Reason::Spared { .. }
        | Reason::Vetoed { .. }
        | Reason::Capped { .. }
        | Reason::Uncapping
        | Reason::Awaiting { .. } => Refused::No,
        Reason::AtLimit(_)
        | Reason::Held { .. }
        | Reason::Quarantined { .. }
        | Reason::Pressed(_)
        | Reason::NeedsReboot
        | Reason::ComesBack { .. }
        | Reason::Unable(_)
        | Reason::WouldGrowAgain { .. }
        | Reason::CannotJudge
        | Reason::Budget { .. }
        | Reason::GuestAlone { .. }
        | Reason::HostShort(_)
        | Reason::HostMemory { .. }
        | Reason::TooSmall { .. }
        | Reason::NotTrusted(_)
        | Reason::GuestClaim
        | Reason::HeldFor { .. }
        | Reason::Proposed { .. }
        | Reason::Rejected { .. }
        | Reason::TooManyProposals => Refused::Yes,
    }
}

impl Count {
    fn see(&mut self, seen: &RuleReport, rule: &Rule) {
        let slot = match seen.truth {
            Truth::True => 0,
            Truth::False => 1,
            Truth::Unknown => 2,
        };
        self.of_truth[slot] += 1;
        if self.fired > 0 {
            return;
        }
        for looked in &seen.looked {
            if let (Some(held), Some(needs)) = (looked.held_for, looked.needs)
                && self.nearest.is_none_or(|(nearest, _)| nearest < held)
            {
                self.nearest = Some((held, needs));
            }
            if let (Some(demanded), Some(reading)) = (rule.source, looked.reading)
                && reading.source < demanded
                && self.distrusted.is_none()
            {
                self.distrusted = Some(looked.signal.clone());
            }
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn outcome(self, rule: &Rule, machine: &Machine, survey: &Survey) -> RuleOutcome {
        let seconds = |ticks: u64| ticks as f64 * survey.tick.as_secs_f64();
        let [held, not, unknown] = self.of_truth.map(seconds);
        let form: TimeForm = survey.form;
        RuleOutcome {
            name: rule.name.to_string(),
            line: rule.line,
            text: rule.text.to_string(),
            fired: self.fired,
            first: self.first.map(|at| form.show(at)),
            true_seconds: held,
            false_seconds: not,
            unknown_seconds: unknown,
            why: (self.fired == 0).then(|| self.why(rule, machine, survey)),
        }
    }

    fn why(&self, rule: &Rule, machine: &Machine, survey: &Survey) -> Why {
        let [held, _, unknown] = self.of_truth;
        let why = |kind, text: String| Why { kind, text };
        if held > 0 {
            return match (&self.held_back, &self.outvoted) {
                (Some(reason), _) => why(Silence::HeldBack, format!("it held, but {reason}")),
                (None, Some(by)) => why(
                    Silence::Outvoted,
                    format!("it held, but {by} wanted something else and goes before"),
                ),
                (None, None) => why(
                    Silence::NothingToDo,
                    "it held, and what it asks for was there already".into(),
                ),
            };
        }
        let missing: Vec<String> = rule
            .when
            .signals()
            .filter(|signal| !machine.knows(signal))
            .map(|signal| format!("`{signal}`"))
            .collect();
        if !missing.is_empty() && unknown > 0 {
            let text = format!("unknown: the trace has no column {}", missing.join(", "));
            return why(Silence::Unknown, text);
        }
        if let Some(signal) = self.distrusted.as_ref().filter(|_| unknown > 0) {
            let text = format!(
                "unknown: `{signal}` comes from a source that is less trusted than the rule's `source`"
            );
            return why(Silence::Unknown, text);
        }
        let events: Vec<String> = rule
            .when
            .events()
            .filter(|event| persona::Signals::happened(machine, event).is_none())
            .map(ToString::to_string)
            .collect();
        if !events.is_empty() {
            let text = format!("{} never happened in the trace", events.join(", "));
            return why(Silence::NoEvent, text);
        }
        if unknown > 0 && self.of_truth[1] == 0 {
            let text = "unknown throughout: readings were missing or too old, or a function's window was never covered";
            return why(Silence::Unknown, text.into());
        }
        let mut text = "never true".to_owned();
        if let Some((nearest, needs)) = self.nearest.filter(|(nearest, _)| !nearest.is_zero()) {
            text.push_str(&format!(
                "; it held for at most {} of {}",
                words::seconds(nearest.as_secs_f64()),
                words::seconds(needs.as_secs_f64())
            ));
        }
        for signal in rule.when.signals() {
            if let Some((least, most)) = survey.column(signal).and_then(|column| column.range) {
                let show = |value| words::value(value, signal.unit());
                text.push_str(&format!("; {signal} was {} to {}", show(least), show(most)));
            }
        }
        why(Silence::NeverTrue, text)
    }
}

/// A step's kind.
pub(super) fn kind_of_step(resource: Resource, from: u64, to: u64) -> &'static str {
    match (resource, to > from) {
        (Resource::Vcpus, true) => "vcpus-grow",
        (Resource::Vcpus, false) => "vcpus-shrink",
        (Resource::Memory, true) => "memory-grow",
        (Resource::Memory, false) => "memory-shrink",
    }
}

/// An action's kind.
fn kind_of(action: &Action) -> &'static str {
    match action {
        Action::SetVcpus(_) | Action::AddVcpus(_) | Action::RemoveVcpus(_) => "vcpus",
        Action::SetMemory(_) | Action::AddMemory(_) | Action::RemoveMemory(_) => "memory",
        Action::SetLimit(_) => "set-limit",
        Action::EnableFeature(_) => "enable-feature",
        Action::DisableFeature(_) => "disable-feature",
        Action::Run(_) => "run",
        Action::Respond(_) => "respond",
        Action::Apply { .. } => "apply",
        Action::InstallPackage(_) => "install-package",
        Action::RemovePackage(_) => "remove-package",
        Action::BlockAddresses { .. } => "block-addresses",
        Action::UnblockAddresses { .. } => "unblock-addresses",
        Action::Isolate => "isolate",
        Action::Restore => "restore",
        Action::Redirect { .. } => "redirect",
        Action::ActivatePersona(_) => "activate-persona",
        Action::Revert => "revert",
        Action::Notify(_) => "notify",
        Action::CallWebhook(_) => "call-webhook",
    }
}
