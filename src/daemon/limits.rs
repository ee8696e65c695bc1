//! Knobs in the daemon: turns are begun and their ends recorded, as for the steps of vCPUs and memory; and what `explain`
//! and the view tell of them. Also the daemon's retirement, which turns everything back. What is turned is the planner's; how is in `act::limit`.

use persona::rule::Knob;
use planner::limit::{LimitReport, LimitVerdict, reading_text};
use planner::offline::Then;
use planner::report::{DomainReport, Idle};
use planner::snapshot::{KnobReading, Knobs, Obstacle, Run};
use planner::state::DomainState;
use planner::{BackOnline, Ending, LimitDrift, LimitStep};

use super::event::Event;
use super::tick::{json, word};
use super::tracked::Tracked;
use super::{Daemon, Flow};
use crate::act::limit::{self, LimitOutcome, reading};
use crate::audit::{AuditKind, Entry};
use crate::command::Caller;
use crate::hypervisor::DomainDescription;
use crate::view::{LimitActionView, LimitLineView, LimitView, RetiredView};

impl Daemon {
    /// What is to be recorded of knobs that somebody turned by hand.
    pub(super) fn limit_drift(&self, drift: &LimitDrift, seconds: u64) -> Entry {
        let text = format!(
            "somebody changed the {} by hand from {} to {}; that is respected for {seconds} s",
            drift.knob,
            reading_text(drift.knob, drift.from),
            reading_text(drift.knob, drift.to),
        );
        self.entry(AuditKind::Drift, Some(drift.domain), &text, json(drift))
    }

    /// What is to be recorded of CPUs that something in the guest brought back online.
    pub(super) fn back_online(&self, back: &BackOnline) -> Entry {
        let then = match back.then {
            Then::Again => "they are taken offline again",
            Then::Left => "that has been tried often enough, so they are left",
        };
        let text = format!(
            "something in the guest brought CPUs back online, for the {}. time: {} are, and {} were to stay; {then}",
            back.times, back.online, back.wanted
        );
        self.entry(AuditKind::Decision, Some(back.domain), &text, json(back))
    }

    /// What is to be recorded before a turn is begun.
    pub(super) fn limit_decision(&self, step: &LimitStep, reports: &[DomainReport]) -> Entry {
        let line = reports.iter().find(|report| report.domain == step.domain);
        let text = format!("{}: {}", step.knob, step.sentence());
        self.entry(AuditKind::Decision, Some(step.domain), &text, json(&line))
    }

    pub(super) fn begin_limit(&mut self, step: LimitStep) {
        self.acting += 1;
        let hands = self.hands.clone();
        self.spawn(async move {
            let lost = Box::new(step.clone());
            let hypervisor = hands.hypervisor.clone();
            match tokio::spawn(async move { limit::act(&hands, step).await }).await {
                Ok(outcome) => {
                    // As for steps: under way until what it changed is known.
                    let description = hypervisor.describe(outcome.step.domain).await.ok();
                    Event::Limited(Box::new(outcome), description.map(Box::new))
                }
                Err(_) => Event::LimitLost(lost),
            }
        });
    }

    pub(super) fn limit_ended(
        &mut self,
        outcome: LimitOutcome,
        description: Option<DomainDescription>,
    ) -> Flow {
        self.acting = self.acting.saturating_sub(1);
        self.ended.0 += 1;
        let now = self.clock.now();
        let (id, knob) = (outcome.step.domain, outcome.step.knob);
        let shown = description
            .as_ref()
            .map(|description| reading(&description.limits, knob));
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.changed = self.ended;
            if let Some(description) = description {
                self.take_description(description);
            }
        }
        self.state
            .finish_limit(&outcome.step, outcome.ending, shown, &self.policy, now);
        self.recording
            .turn_ended(now, &outcome.step, outcome.ending, shown);
        let text = outcome.sentence();
        let entry = self.entry(AuditKind::Action, Some(id), &text, json(&outcome));
        self.keep_states(&[id], vec![entry]);
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.limit_outcomes.insert(knob, outcome);
        }
        self.look(id);
        self.publish_soon();
        Flow::On
    }

    pub(super) fn limit_lost(&mut self, step: LimitStep) -> Flow {
        let outcome = LimitOutcome {
            step,
            ending: Ending::Unknown,
            shown: None,
            note: Some("the daemon's own task failed; its log has more".into()),
        };
        self.limit_ended(outcome, None)
    }

    /// Every knob that is other than before, or than somebody wants.
    pub(super) fn limit_views(&self, tracked: &Tracked) -> Vec<LimitView> {
        let lines = tracked.report.iter().flat_map(|report| &report.limits);
        let carried = self.state.domain(tracked.description.id);
        lines
            .filter(|line| line.verdict != LimitVerdict::Content || line.original.is_some())
            .map(|line| LimitView {
                limit: line.knob,
                present: reading_text(line.knob, line.present),
                original: line.original.map(|value| line.knob.text(value)),
                wanted: line.wanted.map(|value| line.knob.text(value)),
                by: line.by.as_ref().map(ToString::to_string),
                held_until: carried
                    .and_then(|carried| carried.limits.get(&line.knob))
                    .and_then(|knob| knob.held_until),
            })
            .collect()
    }
}

impl Daemon {
    /// From the next tick on nobody has the say over any domain, so everything goes back.
    pub(super) fn retire(&mut self, caller: &Caller) -> RetiredView {
        if !self.retired {
            self.retired = true;
            let text = format!(
                "{} retires the daemon: it gives back what it changed, and manages nothing until it is started anew",
                caller.name
            );
            self.record(AuditKind::Daemon, None, &text, serde_json::Value::Null);
            self.problems.insert(
                "retired",
                "the daemon is retired: it gives back what it changed, and manages nothing until it is started anew".into(),
            );
        }
        let left = self.domains.values();
        RetiredView {
            left: left.flat_map(|tracked| self.left(tracked)).collect(),
        }
    }

    /// What of a domain is not given back yet.
    fn left(&self, tracked: &Tracked) -> Vec<String> {
        let carried = self.state.domain(tracked.description.id);
        let owes = carried.is_some_and(DomainState::has_something_to_give_back);
        if !owes || tracked.run() == Run::Off {
            return Vec::new();
        }
        let name = &tracked.description.name;
        // The report may be of a tick before the daemon retired.
        let report = tracked.report.iter();
        let report = report.filter(|report| report.idle == Some(Idle::NoPersona));
        let told: Vec<String> = report
            .flat_map(|report| {
                let resources = report.resources.iter().map(super::explain::verdict_text);
                resources.chain(unsettled(report))
            })
            .map(|sentence| format!("{name}: {sentence}"))
            .collect();
        if told.is_empty() {
            vec![format!(
                "{name}: what was changed is about to be given back"
            )]
        } else {
            told
        }
    }
}

/// What the knobs of a domain show.
pub(super) fn knobs(description: &DomainDescription) -> Knobs {
    Knobs::new(|knob| reading(&description.limits, knob))
}

/// The knobs of a domain that cannot be asked about at the moment.
pub(super) fn out_of_reach() -> Knobs {
    Knobs::new(|_| KnobReading::Unable(Obstacle::NoHypervisor))
}

/// What became of one knob in the latest tick.
pub(super) fn limit_view(line: &LimitReport, tracked: &Tracked) -> LimitLineView {
    let outcome = tracked.limit_outcomes.get(&line.knob);
    LimitLineView {
        limit: line.knob,
        present: reading_text(line.knob, line.present),
        original: line.original.map(|value| line.knob.text(value)),
        wanted: line.wanted.map(|value| line.knob.text(value)),
        by: line.by.as_ref().map(ToString::to_string),
        sentence: verdict_text(line),
        action: outcome.map(|outcome| LimitActionView {
            outcome: word(outcome.ending),
            sentence: outcome.sentence(),
        }),
    }
}

/// What was decided of a knob, as a sentence without its point.
pub(super) fn verdict_text(line: &LimitReport) -> String {
    let knob = line.knob;
    let present = reading_text(knob, line.present);
    let by = line
        .by
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    match (&line.verdict, line.wanted) {
        (LimitVerdict::Step(to), _) => {
            format!(
                "{knob} goes from {present} to {} because of {by}",
                knob.text(*to)
            )
        }
        (LimitVerdict::Content, Some(_)) => {
            format!("{knob} stays at {present}, which {by} wants")
        }
        (LimitVerdict::Content, None) => {
            format!("{knob} stays at {present}, because nothing wants a change")
        }
        (LimitVerdict::No(reason), wanted) => {
            let wish = wanted.map_or_else(String::new, |wanted| {
                format!(" although {by} wants {}", knob.text(wanted))
            });
            format!(
                "{knob} stays at {present}{wish}, because {}",
                reason.sentence(knob)
            )
        }
    }
}

/// Knobs that are not as they shall be, for the summary.
pub(super) fn unsettled(report: &DomainReport) -> impl Iterator<Item = String> + '_ {
    let lines = report.limits.iter();
    lines
        .filter(|line| line.verdict != LimitVerdict::Content)
        .map(verdict_text)
}

/// The knobs, as keys of what ended last.
pub(super) type Outcomes = std::collections::BTreeMap<Knob, LimitOutcome>;
