//! What people ask: each command is carried out on catalogue and state, recorded, shown in the published view, and only
//! then answered. The caller is authorised already.

mod bindings;
mod personas;

use std::str::FromStr;

use persona::{PersonaName, Problems, SourceText};

use super::adopt::Aim;
use super::disk::wait_for_disk;
use super::tags::TagWish;
use super::{Daemon, explain, show};
use crate::act::sentence_of;
use crate::adopt::AdoptWish;
use crate::audit::AuditQuery;
use crate::catalog::{self, CatalogueError, Expect, Imported, Tag, VersionNumber, guess_format};
use crate::command::{Caller, Command, DomainName, Noun, PersonaRef, Refusal, Reply, Request};
use crate::hypervisor::DomainId;
use crate::view::{
    AuditView, Change, DocumentFormat, DocumentView, ProblemView, VersionView, nearest,
    no_such_domain,
};

/// More records than this are not sent in one answer.
const MOST_RECORDS: u32 = 10_000;
impl Daemon {
    pub(super) fn answer(&mut self, request: Request) {
        let Request {
            command,
            caller,
            reply,
        } = request;
        if let Command::Tag {
            domain,
            add,
            remove,
        } = command
        {
            self.tag(
                &domain,
                TagWish {
                    add,
                    remove,
                    caller,
                    reply,
                },
            );
            return;
        }
        let command = match command {
            Command::Adopt {
                domain,
                max_vcpus,
                max_memory,
                plan,
                mode,
            } => {
                let wish = AdoptWish {
                    max_vcpus,
                    max_memory,
                };
                self.adopt(&domain, Aim::Prepare { wish, plan }, mode, caller, reply);
                return;
            }
            Command::UndoAdoption { domain, mode } => {
                self.adopt(&domain, Aim::PutBack, mode, caller, reply);
                return;
            }
            Command::Execute { domain, execution } => {
                return self.execute(&domain, *execution, &caller, reply);
            }
            Command::Explain {
                domain,
                at: Some(at),
            } => return self.explain_at(&domain, at, reply),
            Command::Recording {
                domain,
                since,
                until,
            } => return self.recording_of(&domain, (since, until), reply),
            command => command,
        };
        let answer = self.carry_out(command, &caller);
        // What was changed is shown before the caller knows that it was done.
        self.publish();
        // A caller that went away needs no answer.
        let _ = reply.send(answer);
    }

    fn carry_out(&mut self, command: Command, caller: &Caller) -> Result<Reply, Refusal> {
        match command {
            Command::CreatePersona {
                document,
                format,
                name,
                note,
            } => {
                let imported = self.read(&document, format, name.as_deref())?;
                self.store_version(imported, Expect::New, note, caller)
            }
            Command::UpdatePersona {
                name,
                document,
                format,
                note,
            } => {
                // A mistyped name is said first: the document's own would only look like the contradiction.
                self.persona_name(&name)?;
                let imported = self.read(&document, format, Some(&name))?;
                if imported.id.name.as_str() != name {
                    let reason = format!(
                        "the document says its name is `{}`, so it is no version of `{name}`",
                        imported.id.name
                    );
                    return Err(Refusal::Conflict { reason });
                }
                self.store_version(imported, Expect::Existing, note, caller)
            }
            Command::DeletePersona { name, force } => self.delete(&name, force, caller),
            Command::SetCurrent { name, version } => self.set_current(&name, version, caller),
            Command::ShowPersona(reference) => {
                let version = self
                    .catalog
                    .version(&self.reference(&reference)?)
                    .map_err(refusal)?;
                let current = self
                    .catalog
                    .current(&version.summary.name)
                    .is_ok_and(|current| current.number == version.summary.number);
                Ok(Reply::Document(DocumentView {
                    version: show::version_view(&version.summary, current),
                    document: version.text,
                }))
            }
            Command::History { name } => {
                let name = self.persona_name(&name)?;
                let current = self.catalog.current(&name).map_err(refusal)?.number;
                let history = self.catalog.history(&name).map_err(refusal)?;
                Ok(Reply::History(
                    history
                        .iter()
                        .map(|summary| {
                            let current = summary.number == current;
                            VersionView {
                                rollout: self.rollout_view(&name).filter(|_| current),
                                ..show::version_view(summary, current)
                            }
                        })
                        .collect(),
                ))
            }
            Command::Apply {
                domain,
                persona,
                mode,
            } => self.apply(&domain, &persona, mode, caller),
            Command::Deactivate { domain } => self.deactivate(&domain, caller),
            Command::Map {
                tag,
                persona,
                priority,
            } => self.map(&tag, &persona, priority, caller),
            Command::MapOverride {
                tag,
                document,
                format,
                priority,
            } => self.map_override(&tag, document, format, priority, caller),
            Command::Unmap { tag } => self.unmap(&tag, caller),
            Command::ShowOverride { tag } => self.show_override(&tag),
            Command::Effective { domain } => self.effective(&domain),
            Command::Explain { domain, .. } => {
                let id = self.domain(&domain)?;
                let now = self.clock.now();
                let proposals = self.proposal_views(id, now);
                let mut explained = explain::explain(&self.domains[&id], &proposals, now);
                self.say_where(id, &mut explained);
                self.say_adjusted(id, &mut explained);
                Ok(Reply::Explain(Box::new(explained)))
            }
            Command::Retire => Ok(Reply::Retired(self.retire(caller))),
            Command::Audit {
                domain,
                since,
                limit,
            } => self.read_audit(domain.as_ref(), since, limit),
            Command::Doctor { domain } => {
                let only = domain
                    .as_ref()
                    .map(|domain| self.domain(domain))
                    .transpose()?;
                Ok(Reply::Doctor(self.doctor(only)))
            }
            Command::Approve { id } => self.approve(id, caller),
            Command::Reject { id } => self.reject(id, caller),
            Command::Hold {
                domain,
                resource,
                length,
            } => self.hold(&domain, resource, length, caller),
            Command::Release { domain } => self.release(&domain, caller),
            Command::Reload => match self.reload(&caller.name) {
                Ok(()) => Ok(Reply::Done(Change::Changed)),
                Err(error) => Err(Refusal::Refused {
                    reason: format!("the configuration stays as it was: {}", sentence_of(&error)),
                }),
            },
            // Answered when the hypervisor has carried them out, or the recording has been read.
            Command::Tag { .. }
            | Command::Adopt { .. }
            | Command::UndoAdoption { .. }
            | Command::Execute { .. }
            | Command::Recording { .. } => Err(Refusal::Stopping),
        }
    }

    fn read(
        &self,
        document: &str,
        format: Option<DocumentFormat>,
        name: Option<&str>,
    ) -> Result<Imported, Refusal> {
        let source = SourceText {
            name: "document",
            text: document.as_bytes(),
            format: format_of(document, format),
            persona_name: name,
        };
        self.catalog.import(&source).map_err(refusal)
    }

    /// The domain that a person means, in the order of `virsh`: number, UUID, name.
    pub(super) fn domain(&self, name: &DomainName) -> Result<DomainId, Refusal> {
        let text = name.0.as_str();
        let instance = text.parse::<u32>().ok();
        let by_number = instance.and_then(|number| {
            self.domains
                .values()
                .find(|tracked| tracked.description.instance == Some(number))
        });
        let by_id = || DomainId::parse(text).and_then(|id| self.domains.get(&id));
        let by_name = || {
            self.domains
                .values()
                .find(|tracked| tracked.description.name == text)
        };
        if let Some(tracked) = by_number.or_else(by_id).or_else(by_name) {
            return Ok(tracked.description.id);
        }
        let names = self
            .domains
            .values()
            .map(|tracked| tracked.description.name.as_str());
        Err(no_such_domain(text, names, self.listing, &self.connection))
    }

    pub(super) fn persona_name(&self, text: &str) -> Result<PersonaName, Refusal> {
        let known = self
            .catalog
            .personas()
            .find(|name| name.as_str() == text)
            .cloned();
        known.ok_or_else(|| {
            let names = self.catalog.personas().map(PersonaName::as_str);
            Refusal::NotFound {
                what: Noun::Persona,
                name: text.to_owned(),
                nearest: nearest(text, names),
            }
        })
    }

    pub(super) fn reference(&self, reference: &PersonaRef) -> Result<catalog::PersonaRef, Refusal> {
        let name = self.persona_name(&reference.name)?;
        let pin = reference.version.map(version_number).transpose()?;
        let reference = catalog::PersonaRef { name, pin };
        self.catalog.summary(&reference).map_err(refusal)?;
        Ok(reference)
    }

    fn read_audit(
        &self,
        domain: Option<&DomainName>,
        since: Option<persona::Moment>,
        limit: u32,
    ) -> Result<Reply, Refusal> {
        let query = AuditQuery {
            domain: domain.map(|domain| self.domain(domain)).transpose()?,
            since,
            after: None,
            limit: usize::try_from(limit.min(MOST_RECORDS)).ok(),
        };
        let records =
            wait_for_disk(|| self.audit.query(&query)).map_err(|error| Refusal::Failed {
                operation: "reading the audit".into(),
                reason: sentence_of(&error),
            })?;
        Ok(Reply::Audit(AuditView {
            records: records.into_iter().map(show::record_view).collect(),
        }))
    }
}

/// How a text is written: as its giver says, else as it looks.
fn format_of(document: &str, format: Option<DocumentFormat>) -> persona::Format {
    format.map_or_else(|| guess_format("", document.as_bytes()), Into::into)
}

fn version_number(version: u32) -> Result<VersionNumber, Refusal> {
    VersionNumber::new(version).ok_or_else(|| Refusal::BadArgument {
        argument: "version".into(),
        reason: "versions are numbered from 1".into(),
    })
}

pub(super) fn parse_tag(text: &str) -> Result<Tag, Refusal> {
    Tag::from_str(text).map_err(|error| Refusal::BadArgument {
        argument: "tag".into(),
        reason: sentence_of(&error),
    })
}

fn problem_views(problems: &Problems) -> Vec<ProblemView> {
    problems.iter().map(ProblemView::from).collect()
}

/// The catalogue's "no" in the words of the bus.
fn refusal(error: CatalogueError) -> Refusal {
    match error {
        CatalogueError::Invalid(problems)
        | CatalogueError::InvalidOverride(problems)
        | CatalogueError::DoesNotCompose { problems, .. } => Refusal::InvalidPersona {
            problems: problem_views(&problems),
            rendered: problems.to_string(),
        },
        CatalogueError::Exists { name } => Refusal::AlreadyExists {
            name: name.to_string(),
        },
        CatalogueError::NotFound { name, known } => Refusal::NotFound {
            what: Noun::Persona,
            nearest: nearest(name.as_str(), known.iter().map(PersonaName::as_str)),
            name: name.to_string(),
        },
        CatalogueError::NoVersion { name, version, .. } => Refusal::NotFound {
            what: Noun::Version,
            name: format!("{name}@{version}"),
            nearest: None,
        },
        CatalogueError::NotMapped { tag } => Refusal::NotFound {
            what: Noun::Mapping,
            name: tag.to_string(),
            nearest: None,
        },
        CatalogueError::Store(error) => Refusal::Failed {
            operation: "writing the store".into(),
            reason: sentence_of(&error),
        },
        CatalogueError::BadTag { .. } | CatalogueError::BadReference { .. } => {
            Refusal::BadArgument {
                argument: "name".into(),
                reason: sentence_of(&error),
            }
        }
        other => Refusal::Refused {
            reason: sentence_of(&other),
        },
    }
}
