//! Adoption of domains: their definitions are read, planned on (`adopt`), replaced and added to by the hypervisor, and put
//! back. The definition as it was is in the store before anything is changed. One adoption of a domain at a time; each is
//! answered when it is carried out, recorded and shown.
//!
//! ```text
//! here -> what is asked, the look at the definitions, the plan      carry_out -> what is done, and what came of it      show -> views
//! ```

mod carry_out;
mod show;

use tokio::sync::oneshot;

use super::Daemon;
use super::adopted::Adopted;
use super::event::Event;
use super::unsettled::Settled;
use crate::act::sentence_of;
use crate::adopt::{self, AdoptWish};
use crate::audit::AuditKind;
use crate::command::{Caller, DomainName, Mode, Refusal, Reply};
use crate::hypervisor::{Definitions, DomainId, HypervisorError};
use crate::observe::{Facilities, Places};
use crate::store::StoreError;
use crate::view::AdoptionView;

use carry_out::{Ended, Work};

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
