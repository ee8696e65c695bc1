//! An adoption is carried out: the definition is replaced, the running domain is given what it can be given, and what came of
//! both is kept, recorded and told. What is to be done was planned by then; called by `adopt` alone.

use serde_json::json;

use super::show::{step_name, summary};
use super::{Adopting, Aim, Job, hypervisor_refusal};
use crate::act::sentence_of;
use crate::adopt::LiveStep;
use crate::audit::AuditKind;
use crate::command::Refusal;
use crate::daemon::Daemon;
use crate::daemon::adopted::Adopted;
use crate::daemon::event::{Asked, Event};
use crate::daemon::unsettled::{self, Replacement};
use crate::hypervisor::{DomainDescription, HypervisorError};
use crate::view::{AdoptionState, AdoptionView, AdoptionWhen};

/// What is carried out.
pub(super) struct Work {
    pub(super) view: AdoptionView,
    pub(super) record: Adopted,
    /// What was kept before that record.
    pub(super) previous: Option<Adopted>,
    /// The persistent definition as it is, and as it is to be.
    pub(super) replace: Option<(String, String)>,
    pub(super) live: Vec<LiveStep>,
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
    /// The definition first: what is added to the running domain alone would be gone after its next start.
    pub(super) fn carry_out_adoption(&mut self, job: Job, work: Work) {
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
    pub(super) fn adoption_ended(
        &mut self,
        job: &Job,
        ended: Ended,
    ) -> Result<AdoptionView, Refusal> {
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
}
