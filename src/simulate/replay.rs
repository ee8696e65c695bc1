//! The replay: a tick a second from the trace's first line to its end, each through the same planner as the daemon's,
//! on one simulated domain. Steps take effect at once. A recording is played at the ticks that were recorded, and follows
//! what was done then as long as the same is decided: that is in `recorded`. Why something happened is in `cause`.

mod cause;
mod recorded;

use std::io::{BufRead, Read};

use persona::signal::{Metric, Signals};
use persona::{DomainId, Moment, Persona};
use planner::proposal::{Subject, Turn};
use planner::report::{Reason, Verdict, Wish};
use planner::snapshot::{Domain, Host, Strain};
use planner::{Detail, Ending, LimitStep, Other, Policy, Snapshot, State, Step};
use serde::Serialize;

use super::happening::{Bound, Happening, What};
use super::machine::Machine;
use super::sizes::{Follows, Sizes};
use super::survey::{Recorded, Survey};
use super::tally::{
    Refused, RuleOutcome, SATURATED, Saturated, Tally, Totals, is_limit, kind_of_step,
};
use super::trace::{Moments, Row, Rows, TraceError};
use crate::record::Trace;

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The rules, in the order of the document.
    pub rules: Vec<RuleOutcome>,
    /// The totals.
    pub totals: Totals,
}

/// Why a replay ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E: std::error::Error> {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// Whoever is told of what happens.
    #[error(transparent)]
    Told(E),
}

/// The one domain.
const DOMAIN: DomainId = DomainId([1; 16]);

/// Plays a trace, which was surveyed before, and tells each thing that happens.
///
/// # Errors
/// Where the trace is no longer what was surveyed, or `tell` fails.
pub fn replay<E: std::error::Error>(
    persona: &Persona,
    sizes: Sizes,
    survey: &Survey,
    trace: impl Read,
    tell: &mut dyn FnMut(Happening) -> Result<(), E>,
) -> Result<Outcome, ReplayError<E>> {
    let rows = Rows::open(trace)?;
    if !rows
        .signals()
        .map(|column| &column.signal)
        .eq(survey.columns.iter().map(|column| &column.signal))
    {
        return Err(TraceError::Changed.into());
    }
    moments(persona, sizes, survey, rows, Detail::All, tell)
}

/// Plays moments wherever they come from. Without detail nothing is told of rules, only of what was done.
pub(super) fn moments<E: std::error::Error>(
    persona: &Persona,
    sizes: Sizes,
    survey: &Survey,
    mut rows: impl Moments,
    detail: Detail,
    tell: &mut dyn FnMut(Happening) -> Result<(), E>,
) -> Result<Outcome, ReplayError<E>> {
    let mut replay = Replay::new(persona, sizes, survey);
    replay.detail = detail;
    let mut row = Row::default();
    let mut more = rows.next(&mut row)?;
    let mut now = survey.first;
    while now < survey.end {
        while more && row.at <= now {
            replay.machine.take(&row);
            more = rows.next(&mut row)?;
        }
        let scene = Scene {
            host: sizes.host,
            strain: replay.strain(now),
            others: Vec::new(),
            steps: None,
            turns: &[],
        };
        replay.tick(now, &scene, tell).map_err(ReplayError::Told)?;
        now = now.after(survey.tick);
    }
    if more && row.at >= survey.end {
        return Err(TraceError::Changed.into());
    }
    Ok(replay.finish().0)
}

/// Plays a recording, which was surveyed before, and tells each thing that happens.
///
/// As long as the plans are those that were made then, sizes are those that were recorded and steps end as they did. From
/// the first other decision on the domain has sizes of its own; the moment of that is the second result. A persona that was
/// in force at some time of the recording is in force at those times only, any other one throughout.
///
/// # Errors
/// Where the recording is no longer what was surveyed, or `tell` fails.
pub fn replay_recording<E: std::error::Error>(
    persona: &Persona,
    (sizes, follows): (Sizes, Follows),
    (survey, about): (&Survey, &Recorded),
    mut trace: Trace<impl BufRead>,
    tell: &mut dyn FnMut(Happening) -> Result<(), E>,
) -> Result<(Outcome, Option<Moment>), ReplayError<E>> {
    let mut replay = Replay::new(persona, sizes, survey);
    replay.machine.follows = follows;
    if follows == Follows::Itself {
        replay.left = Some(survey.first);
    }
    replay.id = trace.id;
    if about.has(persona) {
        replay.force = Force::AsRecorded;
    }
    let wished = (follows == Follows::Itself).then_some(sizes.host);
    while let Some(tick) = trace.tick().map_err(TraceError::from)? {
        if tick.at >= survey.end {
            return Err(TraceError::Changed.into());
        }
        replay.carry(&tick);
        replay.machine.show(tick.domain);
        let scene = Scene {
            host: wished.unwrap_or(tick.host.budget),
            strain: tick.host.strain,
            others: tick.host.domains.values().cloned().collect(),
            steps: Some(&tick.steps),
            turns: &tick.turns,
        };
        replay
            .tick(tick.at, &scene, tell)
            .map_err(ReplayError::Told)?;
    }
    Ok(replay.finish())
}

/// When the persona is in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    Always,
    /// When it was then.
    AsRecorded,
}

/// What a plan is made from besides the domain.
struct Scene<'a> {
    host: Host,
    strain: Strain,
    others: Vec<Other>,
    /// The steps that were begun, where that is recorded.
    steps: Option<&'a [Step]>,
    /// The turns of knobs that were begun, likewise.
    turns: &'a [LimitStep],
}

struct Replay<'a> {
    id: DomainId,
    force: Force,
    detail: Detail,
    /// When the replay decided otherwise than it was decided then.
    left: Option<Moment>,
    persona: &'a Persona,
    survey: &'a Survey,
    machine: Machine,
    state: State,
    policy: Policy,
    tally: Tally,
    /// The wish of each resource that a limit refuses at present, in the order of a report: it is told when it begins
    /// and not once a tick.
    refused: [Option<(Wish, std::mem::Discriminant<Reason>)>; 2],
}

impl<'a> Replay<'a> {
    fn new(persona: &'a Persona, sizes: Sizes, survey: &'a Survey) -> Self {
        Self {
            id: DOMAIN,
            force: Force::Always,
            detail: Detail::All,
            left: None,
            persona,
            survey,
            machine: Machine::new(persona, sizes, survey),
            state: State::default(),
            policy: Policy {
                // A trace of readings does not tell what the machine booted with.
                memory_growth_ratio: u32::MAX,
                ..Policy::default()
            },
            tally: Tally::new(persona.rules.len(), survey.tick),
            refused: [None, None],
        }
    }

    fn finish(self) -> (Outcome, Option<Moment>) {
        let (rules, totals) = self.tally.finish(self.persona, &self.machine, self.survey);
        (Outcome { rules, totals }, self.left)
    }

    fn tick<E>(
        &mut self,
        now: Moment,
        scene: &Scene<'_>,
        tell: &mut dyn FnMut(Happening) -> Result<(), E>,
    ) -> Result<(), E> {
        self.machine.now = now;
        let in_force = self.force == Force::Always || self.machine.has(&self.persona.digest);
        let plan = {
            let snapshot = Snapshot {
                host: scene.host,
                strain: scene.strain,
                domains: vec![Domain {
                    persona: in_force.then_some(self.persona),
                    ..self.machine.domain(self.id, self.persona)
                }],
            };
            let others = &scene.others;
            let (state, policy) = (&mut self.state, &self.policy);
            planner::plan_among(&snapshot, others, state, policy, now, self.detail)
        };
        for news in &plan.proposals {
            if let (Turn::Made, Subject::Call { .. }) = (news.turn, &news.proposal.what) {
                // Nobody is there to decide, so what a person would be asked is played as if it were approved: it is called
                // for at the next look. One that was just made is open.
                let _ = self
                    .state
                    .proposals
                    .approve(news.proposal.id, "the replay", now);
            }
        }
        let follows = self.machine.follows == Follows::Recording;
        if follows && !in_force {
            // Another persona's steps count in the ledger as well.
            for step in scene.steps.unwrap_or_default() {
                self.state.begin(step, now);
            }
            for turn in scene.turns {
                self.state.begin_limit(turn, now);
            }
        } else if follows
            && (scene.steps != Some(plan.steps.as_slice()) || scene.turns != plan.limits)
        {
            self.leave(now);
        }
        let Some(report) = plan.reports.first() else {
            // There is one report for each domain, and one domain.
            return Ok(());
        };
        self.tally.tick(self.persona, report, &self.machine);
        let mut short = Refused::No;
        for (slot, line) in report.resources.iter().enumerate() {
            let refusal = match (&line.verdict, &line.by, line.wanted) {
                (Verdict::No(reason), Some(by), Some(wanted))
                    if is_limit(reason) == Refused::Yes =>
                {
                    if wanted > line.present {
                        short = Refused::Yes;
                    }
                    Some((by, reason, wanted))
                }
                _ => None,
            };
            let is = refusal.map(|(by, reason, _)| (by.clone(), std::mem::discriminant(reason)));
            let begins = is.is_some() && self.refused.get(slot) != Some(&is);
            if let (true, Some((by, reason, wanted))) = (begins, refusal) {
                tell(self.refusal(&plan, line, by, reason, wanted))?;
            }
            if let Some(known) = self.refused.get_mut(slot) {
                *known = is;
            }
        }
        self.tally.shortage(self.saturation(now), short);
        for call in &plan.calls {
            let index = self.index(&call.rule);
            self.tally.call(index, &call.action, call.edge, now);
            let by = match call.edge {
                planner::Edge::Begins => Wish::Rule(call.rule.clone()),
                planner::Edge::Ends => Wish::Undo(call.rule.clone()),
            };
            let what = What::Call {
                action: call.action.to_string(),
                edge: call.edge,
                performed: call.action.performed() == persona::rule::Performed::Here,
            };
            let cause = self.cause(&plan, &by);
            tell(Happening::new(
                self.moment(now),
                cause,
                what,
                Some(&call.action),
            ))?;
        }
        for step in &plan.steps {
            let line = report
                .resources
                .iter()
                .find(|line| line.resource == step.resource);
            let what = What::Change {
                resource: step.resource,
                from: step.from,
                wanted: line.and_then(|line| line.wanted).unwrap_or(step.to),
                clamps: line.map_or_else(Vec::new, |line| Bound::all(&line.clamps)),
                to: step.to,
            };
            let cause = self.cause(&plan, &step.by);
            tell(Happening::new(self.moment(now), cause, what, None))?;
            let index = match &step.by {
                Wish::Rule(rule) => self.index(rule),
                _ => None,
            };
            let kind = kind_of_step(step.resource, step.from, step.to);
            self.tally.step(index, kind, now);
            self.state.begin(step, now);
            if self.machine.follows == Follows::Recording {
                // Its end is recorded too.
                continue;
            }
            self.machine.change(step.resource, step.to);
            self.state
                .finish(step, Ending::Applied, Some(step.to), &self.policy, now);
        }
        for turn in &plan.limits {
            if follows && !in_force && !scene.turns.contains(turn) {
                // Another persona had the say.
                continue;
            }
            let what = What::Limit {
                knob: turn.knob,
                from: turn.from.value(),
                to: turn.to,
            };
            let cause = self.cause(&plan, &turn.by);
            tell(Happening::new(self.moment(now), cause, what, None))?;
            let index = match &turn.by {
                Wish::Rule(rule) => self.index(rule),
                _ => None,
            };
            self.tally.step(index, "set-limit", now);
            self.state.begin_limit(turn, now);
            if self.machine.follows == Follows::Recording {
                continue;
            }
            let shown = self.machine.turn(turn.knob, turn.to);
            self.state
                .finish_limit(turn, Ending::Applied, Some(shown), &self.policy, now);
        }
        Ok(())
    }

    fn saturation(&self, now: Moment) -> Saturated {
        let busy = self
            .machine
            .reading(Metric::CpuUtilization)
            .is_some_and(|reading| reading.is_fresh(now) && reading.value >= SATURATED);
        if busy { Saturated::Yes } else { Saturated::No }
    }

    /// What the trace says of the host's own need. How much memory the host has in all it does not say.
    fn strain(&self, now: Moment) -> Strain {
        let value = |metric| {
            let reading = self.machine.reading(metric)?;
            reading.is_fresh(now).then_some(reading.value)
        };
        Strain {
            memory: None,
            memory_pressure: value(Metric::HostMemoryPressure),
            cpu_pressure: value(Metric::HostCpuPressure),
        }
    }
}
