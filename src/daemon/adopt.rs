//! Adoption of domains: their definitions are read, planned on (`adopt`), replaced and added to by the hypervisor, and put
//! back. The definition as it was is in the store before anything is changed. One adoption of a domain at a time; each is
//! answered when it is carried out, recorded and shown.

use persona::Digest;
use serde_json::json;
use tokio::sync::oneshot;

use super::Daemon;
use super::adopted::Adopted;
use super::event::{Asked, Event};
use super::unsettled::{self, Replacement, Settled};
use crate::act::sentence_of;
use crate::adopt::{self, AdoptWish, Adoption, Line, LiveStep, When};
use crate::audit::AuditKind;
use crate::command::{Caller, DomainName, Mode, Refusal, Reply};
use crate::hypervisor::{Definitions, DomainDescription, DomainId, HypervisorError};
use crate::observe::{Facilities, Places};
use crate::store::StoreError;
use crate::view::{AdoptionLine, AdoptionState, AdoptionView, AdoptionWhen};

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Add what is missing; `plan` is the one that was looked at, where one was.
    Prepare {
        wish: AdoptWish,
        plan: Option<String>,
    },
    /// Put the definition back.
    PutBack,
}

/// Somebody's wish under way.
#[derive(Debug)]
pub struct Job {
    domain: DomainId,
    aim: Aim,
    mode: Mode,
    caller: Caller,
    reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// How far the hypervisor has come with it.
#[derive(Debug)]
pub enum Adopting {
    /// The definitions have been read.
    Looked(Job, Box<Result<Definitions, HypervisorError>>),
    /// It has been carried out, as far as it could be.
    Ended(Job, Box<Ended>),
    /// How one ended that nobody had seen end.
    Settled(Box<Settled>),
}

/// What came of it.
#[derive(Debug)]
pub struct Ended {
    view: AdoptionView,
    record: Adopted,
    /// What was kept before that record.
    previous: Option<Adopted>,
    /// What came of the definition; absent where it was not to be replaced.
    defined: Option<Replacement>,
    live: Vec<(LiveStep, Result<(), HypervisorError>)>,
    asked: Asked,
    description: Option<DomainDescription>,
}

impl Daemon {
    /// Begins with a look at the definitions.
    pub(super) fn adopt(
        &mut self,
        domain: &DomainName,
        aim: Aim,
        mode: Mode,
        caller: Caller,
        reply: oneshot::Sender<Result<Reply, Refusal>>,
    ) {
        let domain = self.domain(domain).and_then(|id| {
            // Who only looks keeps nobody from a change, and nobody else from a look.
            let (free, reason) = match mode {
                Mode::Apply => (
                    self.adopting.insert(id),
                    "the domain's definition is being changed already",
                ),
                Mode::DryRun => (
                    self.previewing.insert((id, caller.uid)),
                    "you are looking at what would change of this domain already",
                ),
            };
            if free {
                Ok(id)
            } else {
                Err(Refusal::Busy {
                    reason: reason.into(),
                })
            }
        });
        let domain = match domain {
            Ok(domain) => domain,
            Err(refusal) => {
                // A caller that went away needs no answer; so below.
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        let job = Job {
            domain,
            aim,
            mode,
            caller,
            reply,
        };
        let hypervisor = self.hypervisor.clone();
        self.spawn(async move {
            let read = hypervisor.definitions(domain).await;
            Event::Adoption(Box::new(Adopting::Looked(job, Box::new(read))))
        });
    }

    /// Goes on with what the hypervisor has answered.
    pub(super) fn adoption_goes_on(&mut self, adopting: Adopting) {
        let (job, answer) = match adopting {
            Adopting::Looked(job, read) => match self.looked(&job, *read) {
                Ok(Next::Answer(view)) => (job, Ok(view)),
                Ok(Next::CarryOut(work)) => {
                    self.carry_out_adoption(job, *work);
                    return;
                }
                Err(refused) => (job, Err(refused)),
            },
            Adopting::Settled(settled) => {
                self.adoption_is_settled(*settled);
                return;
            }
            Adopting::Ended(job, ended) => {
                let answer = self.adoption_ended(&job, *ended);
                (job, answer.map_err(Refused::from))
            }
        };
        match job.mode {
            Mode::Apply => self.adopting.remove(&job.domain),
            Mode::DryRun => self.previewing.remove(&(job.domain, job.caller.uid)),
        };
        if let Err(refused) = &answer
            && job.mode == Mode::Apply
        {
            let what = match job.aim {
                Aim::Prepare { .. } => "wanted to prepare the definition",
                Aim::PutBack => "wanted to put the definition back",
            };
            let text = format!("{} {what}: {}", job.caller.name, refused.recorded);
            self.record(
                AuditKind::Refusal,
                Some(job.domain),
                &text,
                serde_json::Value::Null,
            );
        }
        self.publish();
        let _ = job.reply.send(match answer {
            Ok(view) => Ok(Reply::Adoption(Box::new(view))),
            Err(refused) => Err(refused.answer),
        });
    }

    fn looked(
        &mut self,
        job: &Job,
        read: Result<Definitions, HypervisorError>,
    ) -> Result<Next, Refused> {
        let definitions = read.map_err(|error| hypervisor_refusal(&error))?;
        let kept = self
            .store
            .get::<Adopted>(job.domain.0)
            .map_err(|error| store_refusal(&error))?;
        match &job.aim {
            Aim::Prepare { wish, plan } => {
                let host = self.adopting_host()?;
                let adoption = adopt::prepare(&definitions, *wish, &host)
                    .map_err(|error| refused(error.to_string()))?;
                let view = self.adoption_view(job, &adoption);
                if adoption.is_empty() || job.mode == Mode::DryRun {
                    return Ok(Next::Answer(view));
                }
                if plan.as_ref().is_some_and(|plan| *plan != view.plan) {
                    return Err(Refused::from(Refusal::Conflict {
                        reason: "the domain was changed since this plan was made, so it is not carried out; look at the plan again".into(),
                    }));
                }
                // A plan is made of a persistent definition only.
                let Some(persistent) = definitions.persistent else {
                    return Err(refused(adopt::AdoptError::Transient.to_string()).into());
                };
                let before = persistent.text;
                let instance = definitions
                    .live
                    .as_ref()
                    .and_then(|live| live.description.instance);
                let record = Adopted::begin(
                    kept.as_ref(),
                    &before,
                    self.clock.now(),
                    job.caller.name.clone(),
                    instance,
                );
                if adoption.definition.is_some() {
                    self.keep(job.domain, Some(&record))
                        .map_err(|error| store_refusal(&error))?;
                }
                Ok(Next::CarryOut(Box::new(Work {
                    view,
                    record,
                    previous: kept,
                    replace: adoption.definition.map(|to| (before, to)),
                    live: adoption.live,
                })))
            }
            Aim::PutBack => {
                let record = kept.ok_or_else(|| {
                    refused("this daemon has not prepared the domain's definition, so there is none to put back".into())
                })?;
                let now = definitions
                    .persistent
                    .ok_or_else(|| refused(adopt::AdoptError::Transient.to_string()))?
                    .text;
                let running = definitions
                    .live
                    .as_ref()
                    .map(|live| live.description.instance);
                let to = adopt::put_back(&record.before, record.after.as_deref(), &now).map_err(
                    |error| Refused {
                        answer: refused(error.with_difference()),
                        recorded: error.to_string(),
                    },
                )?;
                let view = self.undo_view(job, &record, to.is_some(), running);
                let replace = match to {
                    // The call that was to change it may be on its way still. One that changes nothing waits behind it.
                    None if job.mode == Mode::Apply && record.after.is_none() => (now.clone(), now),
                    None if job.mode == Mode::Apply => {
                        self.keep(job.domain, None)
                            .map_err(|error| store_refusal(&error))?;
                        return Ok(Next::Answer(view));
                    }
                    Some(to) if job.mode == Mode::Apply => (now, to),
                    None | Some(_) => return Ok(Next::Answer(view)),
                };
                Ok(Next::CarryOut(Box::new(Work {
                    view,
                    record,
                    previous: None,
                    replace: Some(replace),
                    live: Vec::new(),
                })))
            }
        }
    }

    /// What the host has to do with it.
    fn adopting_host(&self) -> Result<adopt::Host, Refusal> {
        let facts = self.host.clone().ok_or_else(|| {
            refused("what the host has is not known yet, so nothing is planned; `virt-persona doctor` says why".into())
        })?;
        let facilities = Facilities::read(&Places::default());
        Ok(adopt::Host {
            facts,
            address_bits: facilities.address_bits,
            huge_page: facilities.huge_page,
            reserved_page: facilities.reserved_page,
        })
    }

    /// The definition first: what is added to the running domain alone would be gone after its next start.
    fn carry_out_adoption(&mut self, job: Job, work: Work) {
        let hypervisor = self.hypervisor.clone();
        let asked = self.ended;
        let domain = job.domain;
        self.spawn(async move {
            let Work {
                view,
                record,
                previous,
                replace,
                live,
            } = work;
            let defined = match replace {
                Some((from, to)) => {
                    Some(unsettled::replace(hypervisor.as_ref(), domain, from, to).await)
                }
                None => None,
            };
            let mut added = Vec::new();
            if matches!(defined, None | Some(Replacement::Done(..))) {
                for step in live {
                    let result = match &step {
                        LiveStep::Attach { device, .. } => {
                            hypervisor.attach_device(domain, device.clone()).await
                        }
                        LiveStep::BalloonPeriod(seconds) => {
                            let period = std::time::Duration::from_secs(*seconds);
                            hypervisor.set_balloon_period(domain, period).await
                        }
                    };
                    added.push((step, result));
                }
            }
            let description = hypervisor.describe(domain).await.ok();
            Event::Adoption(Box::new(Adopting::Ended(
                job,
                Box::new(Ended {
                    view,
                    record,
                    previous,
                    defined,
                    live: added,
                    asked,
                    description,
                }),
            )))
        });
    }

    /// Keeps what came of it, records and shows it.
    fn adoption_ended(&mut self, job: &Job, ended: Ended) -> Result<AdoptionView, Refusal> {
        let Ended {
            mut view,
            mut record,
            previous,
            defined,
            live,
            asked,
            description,
        } = ended;
        let id = job.domain;
        match description {
            Some(description) if !self.is_out_of_date(id, asked) => {
                self.take_description(description);
            }
            _ => self.look(id),
        }
        let replaced = match defined {
            None => false,
            Some(Replacement::Done(definition, failed)) => {
                record.after = Some(definition.text);
                view.notes.extend(failed.map(|error| {
                    format!(
                        "the definition was replaced, although the answer was: {}",
                        sentence_of(&error)
                    )
                }));
                true
            }
            Some(Replacement::Unknown(error)) => {
                // What is kept says how to go back, in case that it has taken effect.
                if job.aim != Aim::PutBack {
                    self.unsettled.insert(id);
                }
                return Err(Refusal::Hypervisor {
                    reason: format!(
                        "{}; whether the definition was replaced is not known yet and will be in the audit, and the running domain was given nothing",
                        sentence_of(&error)
                    ),
                });
            }
            Some(Replacement::NotDone(error)) => {
                if job.aim != Aim::PutBack {
                    self.keep_again(id, &record, previous.as_ref());
                }
                return Err(match error {
                    HypervisorError::DefinitionChanged { .. } => Refusal::Busy {
                        reason: "the definition was changed by somebody else in this moment".into(),
                    },
                    error => hypervisor_refusal(&error),
                });
            }
        };
        for (step, result) in &live {
            let what = step_name(step);
            match result {
                Ok(()) => record.live.push(what.to_owned()),
                Err(error) => {
                    let failed = if error.may_have_taken_effect() {
                        "it is not known whether the running domain was given the"
                    } else {
                        "the running domain could not be given the"
                    };
                    view.notes.push(format!(
                        "{failed} {what}, which comes with its next start: {}",
                        sentence_of(error)
                    ));
                    for line in view.lines.iter_mut().filter(|line| line.subject == what) {
                        line.when = AdoptionWhen::NextStart;
                    }
                }
            }
        }
        let changed = view.state == AdoptionState::Planned;
        if changed {
            view.state = AdoptionState::Done;
        }
        let text = match job.aim {
            Aim::Prepare { .. } => format!(
                "{} prepared the domain for live scaling: {}",
                job.caller.name,
                summary(&view)
            ),
            Aim::PutBack if !changed => format!(
                "{} found the definition as it was before {} wanted to prepare it",
                job.caller.name, record.by
            ),
            Aim::PutBack => format!(
                "{} put the definition back as it was before {} prepared it",
                job.caller.name, record.by
            ),
        };
        let detail = json!({ "lines": view.lines, "notes": view.notes });
        self.record(AuditKind::Adoption, Some(id), &text, detail);
        let kept = match job.aim {
            Aim::PutBack => self.keep(id, None),
            // Of a domain that has gone meanwhile nothing is kept.
            Aim::Prepare { .. } if replaced && self.domains.contains_key(&id) => {
                self.keep(id, Some(&record))
            }
            Aim::Prepare { .. } => Ok(()),
        };
        if let Err(error) = kept {
            // What was kept before the change still says how to go back.
            self.problems.insert(
                "store",
                format!("the store could not be written: {}", sentence_of(&error)),
            );
        }
        Ok(view)
    }

    fn domain_name(&self, id: DomainId) -> String {
        let tracked = self.domains.get(&id);
        tracked.map_or_else(String::new, |tracked| tracked.description.name.clone())
    }

    fn adoption_view(&self, job: &Job, adoption: &Adoption) -> AdoptionView {
        let mut notes = Vec::new();
        if adoption
            .lines
            .iter()
            .any(|line| line.when == When::NextStart)
        {
            notes.push("what comes with the next start comes when the domain is stopped and started again; a reboot inside it is not enough".to_owned());
        }
        if adoption
            .lines
            .iter()
            .any(|line| line.subject == "agent channel")
        {
            notes.push("the guest needs virt-persona-agent too: install it there".to_owned());
        }
        let plan = format!("{:?} {:?}", adoption.lines, adoption.live);
        AdoptionView {
            domain: job.domain,
            name: self.domain_name(job.domain),
            state: if adoption.is_empty() {
                AdoptionState::Unchanged
            } else {
                AdoptionState::Planned
            },
            plan: Digest::of_bytes(plan.as_bytes()).as_str().to_owned(),
            lines: adoption.lines.iter().map(line_view).collect(),
            notes,
        }
    }

    /// `running` is the instance that runs.
    fn undo_view(
        &self,
        job: &Job,
        record: &Adopted,
        changes: bool,
        running: Option<Option<u32>>,
    ) -> AdoptionView {
        let mut notes = Vec::new();
        if running.is_some() {
            notes.push("the running domain keeps all that it was started with or given until it is stopped and started again".to_owned());
        }
        if running == Some(record.instance) && !record.live.is_empty() {
            notes.push(format!(
                "it was given, while it ran, and keeps: {}",
                record.live.join(", ")
            ));
        }
        AdoptionView {
            domain: job.domain,
            name: self.domain_name(job.domain),
            state: if changes {
                AdoptionState::Planned
            } else {
                AdoptionState::Unchanged
            },
            plan: Digest::of_bytes(record.before.as_bytes())
                .as_str()
                .to_owned(),
            lines: vec![AdoptionLine {
                subject: "definition".into(),
                now: if changes {
                    format!("as {} prepared it", record.by)
                } else {
                    "as it was before".into()
                },
                then: "as it was before".into(),
                when: if changes {
                    AdoptionWhen::NextStart
                } else {
                    AdoptionWhen::Already
                },
                why: "nobody has changed it since".into(),
            }],
            notes,
        }
    }
}

/// A "no", as it is answered and as it goes into the audit, which anybody reads and which shall hold no line of a
/// definition.
struct Refused {
    answer: Refusal,
    recorded: String,
}

impl From<Refusal> for Refused {
    fn from(answer: Refusal) -> Self {
        Self {
            recorded: answer.to_string(),
            answer,
        }
    }
}

/// What follows a look at the definitions.
enum Next {
    Answer(AdoptionView),
    CarryOut(Box<Work>),
}

/// What is carried out.
struct Work {
    view: AdoptionView,
    record: Adopted,
    /// What was kept before that record.
    previous: Option<Adopted>,
    /// The persistent definition as it is, and as it is to be.
    replace: Option<(String, String)>,
    live: Vec<LiveStep>,
}

fn line_view(line: &Line) -> AdoptionLine {
    AdoptionLine {
        subject: line.subject.to_owned(),
        now: line.now.clone(),
        then: line.then.clone(),
        when: match line.when {
            When::Already => AdoptionWhen::Already,
            When::Now => AdoptionWhen::Now,
            When::NextStart => AdoptionWhen::NextStart,
            When::Never => AdoptionWhen::Never,
        },
        why: line.why.clone(),
    }
}

fn step_name(step: &LiveStep) -> &'static str {
    match step {
        LiveStep::Attach { what, .. } => what,
        LiveStep::BalloonPeriod(_) => "balloon statistics",
    }
}

/// The parts that change, in one line.
fn summary(view: &AdoptionView) -> String {
    let parts: Vec<String> = view
        .lines
        .iter()
        .filter(|line| matches!(line.when, AdoptionWhen::Now | AdoptionWhen::NextStart))
        .map(|line| {
            let when = if line.when == AdoptionWhen::Now {
                "at once"
            } else {
                "with its next start"
            };
            format!("{} {} {when}", line.subject, line.then)
        })
        .collect();
    parts.join("; ")
}

fn refused(reason: String) -> Refusal {
    Refusal::Refused { reason }
}

fn hypervisor_refusal(error: &HypervisorError) -> Refusal {
    Refusal::Hypervisor {
        reason: sentence_of(error),
    }
}

fn store_refusal(error: &StoreError) -> Refusal {
    Refusal::Failed {
        operation: "keeping the definition as it was".into(),
        reason: sentence_of(error),
    }
}
