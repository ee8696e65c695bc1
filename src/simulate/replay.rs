//! The replay: a tick a second from the trace's first line to its end, each through the same planner as the daemon's,
//! on one simulated domain. Steps take effect at once.

use std::io::Read;

use persona::rule::{Condition, Truth};
use persona::signal::{Metric, Signals};
use persona::{DomainId, Moment, Persona};
use planner::propose::{Subject, Turn};
use planner::report::{Reason, ResourceReport, Verdict, Wish};
use planner::snapshot::Strain;
use planner::{Ending, Plan, Policy, Snapshot, State};
use serde::Serialize;

use super::happening::{Bound, Cause, Happening, Sample, What};
use super::machine::{Machine, Sizes};
use super::survey::{Survey, TICK};
use super::tally::{
    Refused, RuleOutcome, SATURATED, Saturated, Tally, Totals, is_limit, kind_of_step,
};
use super::trace::{Row, Rows, TraceError};

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
    let mut rows = Rows::open(trace)?;
    if !rows
        .signals()
        .map(|column| &column.signal)
        .eq(survey.columns.iter().map(|column| &column.signal))
    {
        return Err(TraceError::Changed.into());
    }
    let mut replay = Replay {
        persona,
        survey,
        machine: Machine::new(persona, sizes, survey),
        state: State::default(),
        policy: Policy {
            // A trace does not tell what the machine booted with.
            memory_growth_ratio: u32::MAX,
            ..Policy::default()
        },
        tally: Tally::new(persona.rules.len()),
        refused: [None, None],
    };
    let mut row = Row::default();
    let mut more = rows.next(&mut row)?;
    let mut now = survey.first;
    while now < survey.end {
        while more && row.at <= now {
            replay.machine.take(&row);
            more = rows.next(&mut row)?;
        }
        replay.tick(now, tell).map_err(ReplayError::Told)?;
        now = now.after(TICK);
    }
    if more && row.at >= survey.end {
        return Err(TraceError::Changed.into());
    }
    let (rules, totals) = replay.tally.finish(persona, &replay.machine, survey);
    Ok(Outcome { rules, totals })
}

struct Replay<'a> {
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

impl Replay<'_> {
    fn tick<E>(
        &mut self,
        now: Moment,
        tell: &mut dyn FnMut(Happening) -> Result<(), E>,
    ) -> Result<(), E> {
        self.machine.now = now;
        let plan = {
            let snapshot = Snapshot {
                host: self.machine.sizes.host,
                strain: self.strain(now),
                domains: vec![self.machine.domain(DOMAIN, self.persona)],
            };
            planner::plan(&snapshot, &mut self.state, &self.policy, now)
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
            self.machine.change(step.resource, step.to);
            self.state
                .finish(step, Ending::Applied, Some(step.to), &self.policy, now);
        }
        Ok(())
    }

    fn refusal(
        &self,
        plan: &Plan,
        line: &ResourceReport,
        by: &Wish,
        reason: &Reason,
        wanted: u64,
    ) -> Happening {
        let what = What::Refused {
            resource: line.resource,
            present: line.present,
            wanted,
            clamps: Bound::all(&line.clamps),
            reason: reason.sentence(line.resource),
        };
        let cause = self.cause(plan, by);
        Happening::new(self.moment(plan.at), cause, what, None)
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

    /// Who has a wish, and what it rests on.
    fn cause(&self, plan: &Plan, by: &Wish) -> Cause {
        let rule = match by {
            Wish::Rule(name) | Wish::Undo(name) => self.index(name),
            Wish::Minimum
            | Wish::Maximum
            | Wish::Initial
            | Wish::Return
            | Wish::Need
            | Wish::Donation(_) => None,
        };
        let rule = rule.map(|index| &self.persona.rules[index]);
        let condition = rule.and_then(|rule| match by {
            Wish::Undo(_) => rule.until.as_ref(),
            _ => Some(&rule.when),
        });
        let samples = self.samples(plan, by);
        Cause {
            rule: rule.map(|rule| rule.name.clone()),
            by: by.to_string(),
            condition: condition
                .filter(|_| samples.is_empty())
                .map(Condition::text),
            samples,
        }
    }

    /// What was looked at for a wish.
    fn samples(&self, plan: &Plan, by: &Wish) -> Vec<Sample> {
        match by {
            Wish::Rule(name) => {
                let reports = plan.reports.iter().flat_map(|report| &report.rules);
                let looked = reports
                    .filter(|report| report.name == *name && report.truth == Truth::True)
                    .flat_map(|report| &report.looked);
                looked
                    .map(|looked| Sample::looked(looked, plan.at))
                    .collect()
            }
            Wish::Undo(name) => self
                .index(name)
                .and_then(|index| self.persona.rules[index].until.as_ref())
                .map_or_else(Vec::new, |until| {
                    Sample::read(until, &self.machine, plan.at)
                }),
            Wish::Minimum
            | Wish::Maximum
            | Wish::Initial
            | Wish::Return
            | Wish::Need
            | Wish::Donation(_) => Vec::new(),
        }
    }

    fn index(&self, rule: &str) -> Option<usize> {
        self.persona
            .rules
            .iter()
            .position(|known| known.name == rule)
    }

    /// A moment as the trace says it, and in seconds since its beginning.
    fn moment(&self, now: Moment) -> (String, f64) {
        (
            self.survey.form.show(now),
            now.since(self.survey.first).as_secs_f64(),
        )
    }
}
