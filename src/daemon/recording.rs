//! What of each tick is recorded: the very snapshot that was planned, what each domain claimed, the steps with how they
//! ended, and the explanation of each decision that differs from the one before. `record` writes it; who changes carried
//! state between two ticks calls [`Recording::touched`], or a replay would not know.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use persona::units::{Bytes, Moment};
use planner::limit::LimitVerdict;
use planner::report::{DomainReport, Verdict};
use planner::snapshot::KnobReading;
use planner::stage::HostState;
use planner::state::DomainState;
use planner::{Ending, LimitStep, Other, Plan, Policy, Snapshot, State, Step};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Daemon, explain, tick};
use crate::act::sentence_of;
use crate::command::{DomainName, Handed, Refusal, Reply};
use crate::config::Config;
use crate::hypervisor::DomainId;
use crate::record::{
    Batch, DomainFrame, Ended, Entry, HostFrame, Needed, ReadError, Reader, Recorder, StateNote,
    TurnEnded, Why, decision_at, export,
};
use crate::view::ExplainView;

/// The carried state is told so often, as a place to begin a replay at: a recording that is asked for from some time on
/// begins no earlier than this before it.
const POINT: Duration = Duration::from_secs(600);

/// So many read recordings at a time: each takes a thread and a whole pass over the rings, and the tick shares disk and
/// CPUs with them.
const READINGS: usize = 2;

/// A tick that could not be recorded is a problem for so long.
const TOLD: Duration = Duration::from_secs(600);

/// The daemon's side of the recording.
#[derive(Default)]
pub(super) struct Recording {
    /// Nothing where it is off, or could not be started.
    recorder: Option<Recorder>,
    /// Why it could not be started.
    failed: Option<String>,
    domains: BTreeMap<DomainId, Known>,
    /// States that are told as soon as possible.
    wanted: BTreeSet<DomainId>,
    touched: BTreeSet<DomainId>,
    ended: BTreeMap<DomainId, Vec<Ended>>,
    turned: BTreeMap<DomainId, Vec<TurnEnded>>,
    needs: BTreeMap<DomainId, Vec<Needed>>,
    /// What was seen of the tick that is being carried out.
    batch: Option<Batch>,
    lost: u64,
    lost_at: Option<Moment>,
    readings: Readings,
}

/// Those who read recordings.
struct Readings(Arc<Semaphore>);

impl Default for Readings {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READINGS)))
    }
}

impl Readings {
    /// Room for one more, until it is dropped.
    fn begin(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let room = self.0.clone().try_acquire_owned();
        room.map_err(|_| Refusal::Busy {
            reason: format!("{READINGS} others read recordings"),
        })
    }
}

/// What is known of the recording of one domain.
#[derive(Default)]
struct Known {
    /// When its state was told last.
    told: Option<Moment>,
    /// What tells its last decision from another.
    decision: Option<u64>,
    /// A step has ended since, so that the decision has an outcome.
    outcome: bool,
}

/// What is carried before a plan.
pub(super) struct Before {
    stages: HostState,
    states: BTreeMap<DomainId, StateNote>,
}

impl Recording {
    /// Starts as the configuration says.
    pub(super) fn start(config: &Config) -> Self {
        let mut recording = Self::default();
        let Some(bound) = config.recording.bound() else {
            return recording;
        };
        let folder = config.paths.state.join("recordings");
        match Recorder::start(&folder, bound) {
            Ok(recorder) => recording.recorder = Some(recorder),
            Err(error) => {
                recording.failed = Some(format!(
                    "nothing is recorded: {} cannot be used: {error}",
                    folder.display()
                ));
            }
        }
        recording
    }

    /// The carried state of a domain was changed by something else than a plan or the end of a step.
    pub(super) fn touched(&mut self, id: DomainId) {
        self.touched.insert(id);
    }

    /// A domain is no longer there: if it comes back it is looked at anew.
    pub(super) fn forget(&mut self, id: DomainId) {
        self.domains.remove(&id);
        self.ended.remove(&id);
        self.turned.remove(&id);
        self.needs.remove(&id);
    }

    /// A guest says that it needs more memory.
    pub(super) fn needed(&mut self, id: DomainId, more: Bytes, at: Moment) {
        if self.recorder.is_some() {
            self.needs.entry(id).or_default().push(Needed { at, more });
        }
    }

    /// A step has ended.
    pub(super) fn step_ended(
        &mut self,
        at: Moment,
        step: &Step,
        ending: Ending,
        asked: Option<u64>,
    ) {
        if self.recorder.is_none() {
            return;
        }
        // A step of a domain that is gone meanwhile ends for nobody.
        let Some(known) = self.domains.get_mut(&step.domain) else {
            return;
        };
        known.outcome = true;
        let ended = Ended {
            at,
            step: step.clone(),
            ending,
            asked,
        };
        self.ended.entry(step.domain).or_default().push(ended);
    }

    /// A turn of a knob has ended.
    pub(super) fn turn_ended(
        &mut self,
        at: Moment,
        step: &LimitStep,
        ending: Ending,
        shown: Option<KnobReading>,
    ) {
        if self.recorder.is_none() {
            return;
        }
        let Some(known) = self.domains.get_mut(&step.domain) else {
            return;
        };
        known.outcome = true;
        let step = step.clone();
        let turned = TurnEnded {
            at,
            step,
            ending,
            shown,
        };
        self.turned
            .entry(turned.step.domain)
            .or_default()
            .push(turned);
    }

    /// What the plan that is about to be made begins with, as far as it is to be told.
    pub(super) fn before(&mut self, snapshot: &Snapshot<'_>, state: &State, now: Moment) -> Before {
        let mut states = BTreeMap::new();
        if let Some(recorder) = &self.recorder {
            let health = recorder.health();
            self.wanted.extend(health.wanted);
            if health.lost > self.lost {
                self.lost = health.lost;
                self.lost_at = Some(now);
                // What the lost tick did is in the states.
                self.touched
                    .extend(snapshot.domains.iter().map(|domain| domain.id));
            }
            for domain in &snapshot.domains {
                let id = domain.id;
                let told = self.domains.get(&id).and_then(|known| known.told);
                let due = match told {
                    None => Some(Why::Start),
                    Some(_) if self.touched.contains(&id) => Some(Why::Touched),
                    Some(told) if self.wanted.contains(&id) || now.since(told) >= POINT => {
                        Some(Why::Point)
                    }
                    Some(_) => None,
                };
                if let Some(why) = due {
                    let state: Option<DomainState> = state.domain(id).cloned();
                    states.insert(id, StateNote { why, state });
                    self.domains.entry(id).or_default().told = Some(now);
                }
            }
            self.touched.clear();
            self.wanted.clear();
        }
        Before {
            stages: state.host,
            states,
        }
    }

    /// Takes over what was planned.
    pub(super) fn planned(
        &mut self,
        snapshot: &Snapshot<'_>,
        mut before: Before,
        plan: &Plan,
        policy: &Policy,
    ) {
        if self.recorder.is_none() {
            return;
        }
        let [vcpus, memory] = &plan.stakes;
        let stakes = snapshot.domains.iter().zip(vcpus.iter().zip(memory));
        let host = HostFrame {
            budget: snapshot.host,
            strain: snapshot.strain,
            stages: before.stages,
            policy: policy.clone(),
            domains: stakes
                .map(|(domain, (vcpus, memory))| {
                    let other = Other {
                        name: domain.name.to_owned(),
                        stakes: [vcpus.clone(), memory.clone()],
                    };
                    (domain.id, other)
                })
                .collect(),
        };
        let domains = snapshot.domains.iter().map(|domain| Entry {
            id: domain.id,
            frame: DomainFrame::of(domain),
            state: before.states.remove(&domain.id),
            ended: self.ended.remove(&domain.id).unwrap_or_default(),
            turned: self.turned.remove(&domain.id).unwrap_or_default(),
            needs: self.needs.remove(&domain.id).unwrap_or_default(),
            turns: plan
                .limits
                .iter()
                .filter(|turn| turn.domain == domain.id)
                .cloned()
                .collect(),
            steps: plan
                .steps
                .iter()
                .filter(|step| step.domain == domain.id)
                .cloned()
                .collect(),
            decision: None,
        });
        self.batch = Some(Batch {
            at: plan.at,
            host,
            domains: domains.collect(),
        });
    }

    /// What is wrong with it, as a sentence.
    pub(super) fn problem(&self, now: Moment) -> Option<String> {
        let recorder = self.recorder.as_ref();
        let problem = recorder.and_then(Recorder::problem);
        let lost = self.lost_at.filter(|at| now.since(*at) < TOLD).map(|_| {
            format!(
                "{} ticks were not recorded since the start, because the disk is too slow for it",
                self.lost
            )
        });
        self.failed.clone().or(problem).or(lost)
    }

    fn reader(&self) -> Result<Reader, Refusal> {
        let reader = self.recorder.as_ref().and_then(Recorder::reader);
        reader.ok_or_else(|| Refusal::Refused {
            reason: self.failed.clone().unwrap_or_else(|| {
                "nothing is recorded: [recording] mib_per_domain is 0 in the configuration".into()
            }),
        })
    }
}

/// What tells one decision from another: what the rules were worth, what was wanted by whom, and what became of it. That a
/// figure or a remaining time has changed makes no other decision.
fn mark(report: &DomainReport) -> u64 {
    let mut hasher = DefaultHasher::new();
    report
        .idle
        .map(|idle| discriminant(&idle))
        .hash(&mut hasher);
    for rule in &report.rules {
        rule.name.hash(&mut hasher);
        discriminant(&rule.truth).hash(&mut hasher);
        rule.cooldown_left.is_some().hash(&mut hasher);
    }
    for line in &report.resources {
        discriminant(&line.resource).hash(&mut hasher);
        line.present.hash(&mut hasher);
        line.by.as_ref().map(ToString::to_string).hash(&mut hasher);
        line.wanted.hash(&mut hasher);
        for clamp in &line.clamps {
            discriminant(&clamp.limit).hash(&mut hasher);
            clamp.to.hash(&mut hasher);
        }
        match &line.verdict {
            Verdict::Step(to) => to.hash(&mut hasher),
            Verdict::No(reason) => discriminant(reason).hash(&mut hasher),
            Verdict::Content => {}
        }
        discriminant(&line.verdict).hash(&mut hasher);
    }
    for line in &report.limits {
        (line.knob, line.present, line.wanted).hash(&mut hasher);
        line.by.as_ref().map(ToString::to_string).hash(&mut hasher);
        discriminant(&line.verdict).hash(&mut hasher);
        if let LimitVerdict::No(reason) = &line.verdict {
            discriminant(reason).hash(&mut hasher);
        }
    }
    hasher.finish()
}

impl Daemon {
    /// Gives what was planned to the recorder, with the decisions that differ.
    pub(super) fn record_plan(&mut self) {
        match self.recording.problem(self.clock.now()) {
            Some(problem) => self.problems.insert("recording", problem),
            None => self.problems.remove("recording"),
        };
        let Some(mut batch) = self.recording.batch.take() else {
            return;
        };
        for entry in &mut batch.domains {
            let Some(tracked) = self.domains.get(&entry.id) else {
                continue;
            };
            let known = self.recording.domains.entry(entry.id).or_default();
            let decision = tracked.report.as_ref().map(mark);
            let outcome = std::mem::take(&mut known.outcome);
            if outcome || known.decision != decision {
                known.decision = decision;
                let proposals = self.proposal_views(entry.id, batch.at);
                let explained = explain::explain(tracked, &proposals, batch.at);
                entry.decision = Some(tick::json(&explained));
            }
        }
        if let Some(recorder) = &mut self.recording.recorder {
            recorder.give(batch);
        }
    }

    /// Answers with the decision that was in force at a time.
    pub(super) fn explain_at(
        &self,
        domain: &DomainName,
        at: Moment,
        reply: oneshot::Sender<Result<Reply, Refusal>>,
    ) {
        self.read_recording(domain, reply, move |reader, id| {
            let decided = decision_at(reader.flushed(), id, at)?;
            let explained: Result<ExplainView, _> = serde_json::from_value(decided.explanation);
            explained
                .map(|mut explained| {
                    explained.problems.extend(decided.missing);
                    Reply::Explain(Box::new(explained))
                })
                .map_err(|error| ReadError::Read(error.into()))
        });
    }

    /// Answers with a file that holds the trace of a domain.
    pub(super) fn recording_of(
        &self,
        domain: &DomainName,
        (since, until): (Option<Moment>, Option<Moment>),
        reply: oneshot::Sender<Result<Reply, Refusal>>,
    ) {
        self.read_recording(domain, reply, move |reader, id| {
            let (file, read) = Handed::file(reader.flushed()).map_err(ReadError::Write)?;
            export(
                reader.folder(),
                id,
                since,
                until,
                std::io::BufWriter::new(file),
            )?;
            Ok(Reply::Recording(read))
        });
    }

    /// Reads in a thread of its own: it may take a second, and no tick waits for it. Few do so at a time.
    fn read_recording(
        &self,
        domain: &DomainName,
        reply: oneshot::Sender<Result<Reply, Refusal>>,
        read: impl FnOnce(&Reader, DomainId) -> Result<Reply, ReadError> + Send + 'static,
    ) {
        let found = self.domain(domain).and_then(|id| {
            let reader = self.recording.reader()?;
            Ok((id, reader, self.recording.readings.begin()?))
        });
        match found {
            Ok((id, reader, room)) => {
                tokio::task::spawn_blocking(move || {
                    let answer = read(&reader, id).map_err(|error| match error {
                        ReadError::Read(_) | ReadError::Write(_) => Refusal::Failed {
                            operation: "reading the recording".into(),
                            reason: sentence_of(&error),
                        },
                        other => Refusal::Refused {
                            reason: other.to_string(),
                        },
                    });
                    // Before the answer, so that who asks one after another is never too many.
                    drop(room);
                    // A caller that went away needs no answer.
                    let _ = reply.send(answer);
                });
            }
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_read_at_a_time_and_a_third_is_told_to_come_again() {
        let readings = Readings::default();
        let first = readings.begin().unwrap();
        let second = readings.begin().unwrap();
        assert_eq!(
            readings.begin().unwrap_err().to_string(),
            "2 others read recordings; try again in a moment"
        );
        drop(first);
        let third = readings.begin().unwrap();
        assert!(readings.begin().is_err());
        drop((second, third));
        assert!(readings.begin().is_ok());
    }
}
