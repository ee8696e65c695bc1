//! What people ask: each command is carried out on catalogue and state, recorded, shown in the published view, and only
//! then answered. The caller is authorised already.

use std::str::FromStr;

use persona::{PersonaName, Problems, SourceText};

use super::tags::TagWish;
use super::{Daemon, explain, show};
use crate::act::sentence_of;
use crate::audit::{AuditKind, AuditQuery};
use crate::catalog::{
    self, Added, Authorship, CatalogueError, Deletion, Expect, ExplicitBinding, Imported,
    Insistence, Mapping, Tag, VersionNumber, guess_format, import,
};
use crate::command::{
    Caller, Command, DomainName, Force, Mode, Noun, PersonaRef, Refusal, Reply, Request,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{
    AppliedView, AuditView, Change, DocumentFormat, DocumentView, PlanLine, PlanView, ProblemView,
    Severity, StoredView,
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
                let imported = read(&document, format, name.as_deref())?;
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
                let imported = read(&document, format, Some(&name))?;
                if imported.persona.name.as_str() != name {
                    let reason = format!(
                        "the document says its name is `{}`, so it is no version of `{name}`",
                        imported.persona.name
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
                        .map(|summary| show::version_view(summary, summary.number == current))
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
            Command::Unmap { tag } => self.unmap(&tag, caller),
            Command::Explain { domain } => {
                let id = self.domain(&domain)?;
                Ok(Reply::Explain(Box::new(explain::explain(
                    &self.domains[&id],
                    self.clock.now(),
                ))))
            }
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
            Command::Reload => match self.reload(&caller.name) {
                Ok(()) => Ok(Reply::Done(Change::Changed)),
                Err(error) => Err(Refusal::Refused {
                    reason: format!("the configuration stays as it was: {}", sentence_of(&error)),
                }),
            },
            // Answered when the hypervisor has written them.
            Command::Tag { .. } => Err(Refusal::Stopping),
        }
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
        Err(Refusal::NotFound {
            what: Noun::Domain,
            name: text.to_owned(),
            nearest: nearest(text, names),
        })
    }

    fn persona_name(&self, text: &str) -> Result<PersonaName, Refusal> {
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

    fn reference(&self, reference: &PersonaRef) -> Result<catalog::PersonaRef, Refusal> {
        let name = self.persona_name(&reference.name)?;
        let pin = reference.version.map(version_number).transpose()?;
        let reference = catalog::PersonaRef { name, pin };
        self.catalog.summary(&reference).map_err(refusal)?;
        Ok(reference)
    }

    fn store_version(
        &mut self,
        imported: Imported,
        expect: Expect,
        note: Option<String>,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let warnings = problem_views(&imported.warnings);
        let authorship = Authorship {
            author: caller.name.clone(),
            at: self.clock.now(),
            note,
        };
        let mut batch = Batch::new();
        let added = self
            .catalog
            .add(&mut batch, imported, expect, authorship)
            .map_err(refusal)?;
        let (summary, change) = match added {
            Added::Stored(summary) => (summary, Change::Changed),
            Added::Unchanged(summary) => (summary, Change::Unchanged),
        };
        if change == Change::Changed {
            let text = format!("{} stored {}@{}", caller.name, summary.name, summary.number);
            let entry = self.entry(
                AuditKind::Catalogue,
                None,
                &text,
                super::tick::json(&summary),
            );
            self.commit(batch, vec![entry]).map_err(refusal)?;
            self.resolve_all();
        }
        Ok(Reply::Stored(StoredView {
            name: summary.name.to_string(),
            version: summary.number.get(),
            digest: summary.digest.to_string(),
            change,
            warnings,
        }))
    }

    fn delete(&mut self, name: &str, force: Force, caller: &Caller) -> Result<Reply, Refusal> {
        let name = self.persona_name(name)?;
        let deletion = match force {
            Force::No => Deletion::IfUnused,
            Force::Yes => Deletion::Forced,
        };
        let mut batch = Batch::new();
        self.catalog
            .delete(&mut batch, &name, deletion)
            .map_err(|error| self.named(error))?;
        let text = format!("{} deleted persona {name}", caller.name);
        let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(Reply::Done(Change::Changed))
    }

    /// Users of a persona are known by number to the catalogue; people know them by name.
    fn named(&self, error: CatalogueError) -> Refusal {
        match error {
            CatalogueError::Bound { name, by } => {
                let by = by
                    .into_iter()
                    .map(|user| {
                        let id = user.strip_prefix("domain ").and_then(DomainId::parse);
                        let tracked = id.and_then(|id| self.domains.get(&id));
                        tracked.map_or(user.clone(), |tracked| {
                            format!("domain {}", tracked.description.name)
                        })
                    })
                    .collect();
                refusal(CatalogueError::Bound { name, by })
            }
            error => refusal(error),
        }
    }

    fn set_current(&mut self, name: &str, version: u32, caller: &Caller) -> Result<Reply, Refusal> {
        let name = self.persona_name(name)?;
        let mut batch = Batch::new();
        let added = self
            .catalog
            .set_current(&mut batch, &name, version_number(version)?)
            .map_err(refusal)?;
        let (summary, change) = match added {
            Added::Stored(summary) => (summary, Change::Changed),
            Added::Unchanged(summary) => (summary, Change::Unchanged),
        };
        if change == Change::Changed {
            let text = format!("{} made {name}@{version} current", caller.name);
            let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
            self.commit(batch, vec![entry]).map_err(refusal)?;
            self.resolve_all();
        }
        Ok(Reply::Stored(StoredView {
            name: name.to_string(),
            version: summary.number.get(),
            digest: summary.digest.to_string(),
            change,
            warnings: Vec::new(),
        }))
    }

    fn apply(
        &mut self,
        domain: &DomainName,
        persona: &PersonaRef,
        mode: Mode,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let reference = self.reference(persona)?;
        if mode == Mode::DryRun {
            return self.plan_of(id, &reference);
        }
        let mut batch = Batch::new();
        let binding = ExplicitBinding {
            persona: reference.clone(),
            by: caller.name.clone(),
            at: self.clock.now(),
        };
        self.catalog
            .bind(&mut batch, id, binding)
            .map_err(refusal)?;
        let text = format!("{} applied {reference}", caller.name);
        let entry = self.entry(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_with(id, Insistence::Again).map_err(refusal)?;
        Ok(Reply::Applied(self.applied(id)))
    }

    fn deactivate(&mut self, domain: &DomainName, caller: &Caller) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let mut batch = Batch::new();
        if self.catalog.unbind(&mut batch, id).is_none() {
            let side = &self.domains[&id].persona;
            let reason = match side.bound.as_ref() {
                Some(bound) if bound.tag.is_some() => format!(
                    "domain `{}` has persona `{}` because of its tag `{}`; remove the tag or its mapping",
                    domain.0,
                    bound.name,
                    bound.tag.as_deref().unwrap_or_default()
                ),
                Some(bound) => format!(
                    "domain `{}` has `{}` because that is the default persona; apply another, or make it no default",
                    domain.0, bound.name
                ),
                None => format!("domain `{}` has no persona", domain.0),
            };
            return Err(Refusal::Refused { reason });
        }
        let text = format!("{} took the applied persona back", caller.name);
        let entry = self.entry(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_with(id, Insistence::Keep).map_err(refusal)?;
        Ok(Reply::Applied(self.applied(id)))
    }

    fn applied(&self, id: DomainId) -> AppliedView {
        let tracked = &self.domains[&id];
        AppliedView {
            domain: id,
            name: tracked.description.name.clone(),
            persona: tracked.persona.bound.clone(),
            activation: show::activation_view(tracked),
            generation: self
                .catalog
                .activation(id)
                .map_or(0, |activation| activation.generation.0),
        }
    }

    /// What an activation would change, without changing anything.
    fn plan_of(&self, id: DomainId, reference: &catalog::PersonaRef) -> Result<Reply, Refusal> {
        let (summary, persona) = self.catalog.persona(reference).map_err(refusal)?;
        let tracked = &self.domains[&id];
        let now = tracked.persona.in_force.as_deref();
        let origin = format!("{}@{}", summary.name, summary.number);
        let mut lines = Vec::new();
        let mut line = |subject: String, now: Option<String>, then: Option<String>| {
            if now != then {
                lines.push(PlanLine {
                    subject,
                    now,
                    then,
                    from: origin.clone(),
                });
            }
        };
        let cpu = |persona: &persona::Persona| persona.base.cpu;
        let memory = |persona: &persona::Persona| persona.base.memory;
        let (old, new) = (now.and_then(cpu), cpu(&persona));
        line(
            "vcpus.min".into(),
            old.as_ref().map(|c| c.min.to_string()),
            new.as_ref().map(|c| c.min.to_string()),
        );
        line(
            "vcpus.max".into(),
            old.as_ref().and_then(|c| c.max).map(|max| max.to_string()),
            new.as_ref().and_then(|c| c.max).map(|max| max.to_string()),
        );
        let (old, new) = (now.and_then(memory), memory(&persona));
        line(
            "memory.min".into(),
            old.as_ref().map(|m| m.min.to_string()),
            new.as_ref().map(|m| m.min.to_string()),
        );
        line(
            "memory.max".into(),
            old.as_ref().and_then(|m| m.max).map(|max| max.to_string()),
            new.as_ref().and_then(|m| m.max).map(|max| max.to_string()),
        );
        let names = now
            .into_iter()
            .flat_map(|now| now.environment.keys())
            .chain(persona.environment.keys());
        let mut names: Vec<&String> = names.collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let old = now.and_then(|now| now.environment.get(name)).cloned();
            line(
                format!("environment.{name}"),
                old,
                persona.environment.get(name).cloned(),
            );
        }
        for rule in &persona.rules {
            let old = now.and_then(|now| now.rules.iter().find(|old| old.name == rule.name));
            line(
                format!("rule.{}", rule.name),
                old.map(|old| old.text.clone()),
                Some(rule.text.clone()),
            );
        }
        for old in now.into_iter().flat_map(|now| &now.rules) {
            if !persona.rules.iter().any(|rule| rule.name == old.name) {
                line(format!("rule.{}", old.name), Some(old.text.clone()), None);
            }
        }
        let script = |script: &Option<persona::Script>| {
            script
                .as_ref()
                .map(|script| format!("{} as {}", script.interpreter, script.user))
        };
        line(
            "pre_activation_script".into(),
            None,
            script(&persona.pre_activation),
        );
        line(
            "post_activation_script".into(),
            None,
            script(&persona.post_activation),
        );
        let bad = |check: &&crate::view::CheckView| check.state != crate::view::CheckState::Ok;
        let obstacles = self
            .doctor(Some(id))
            .checks
            .iter()
            .filter(bad)
            .map(|check| check.sentence.clone())
            .collect();
        Ok(Reply::Plan(PlanView {
            domain: id,
            name: tracked.description.name.clone(),
            persona: summary.name.to_string(),
            version: summary.number.get(),
            lines,
            obstacles,
        }))
    }

    fn map(
        &mut self,
        tag: &str,
        persona: &str,
        priority: i32,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let tag = parse_tag(tag)?;
        let persona = self.reference(&PersonaRef::parse(persona)?)?;
        let mapping = Mapping { persona, priority };
        let mut batch = Batch::new();
        let before = self
            .catalog
            .map(&mut batch, tag.clone(), mapping.clone())
            .map_err(refusal)?;
        if before.as_ref() == Some(&mapping) {
            return Ok(Reply::Done(Change::Unchanged));
        }
        let text = format!(
            "{} made tag {tag} mean {} with priority {priority}",
            caller.name, mapping.persona
        );
        let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(Reply::Done(Change::Changed))
    }

    fn unmap(&mut self, tag: &str, caller: &Caller) -> Result<Reply, Refusal> {
        let tag = parse_tag(tag)?;
        let mut batch = Batch::new();
        self.catalog.unmap(&mut batch, &tag).map_err(refusal)?;
        let text = format!("{} made tag {tag} mean nothing", caller.name);
        let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(Reply::Done(Change::Changed))
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
            tokio::task::block_in_place(|| self.audit.query(&query)).map_err(|error| {
                Refusal::Failed {
                    operation: "reading the audit".into(),
                    reason: sentence_of(&error),
                }
            })?;
        Ok(Reply::Audit(AuditView {
            records: records.into_iter().map(show::record_view).collect(),
        }))
    }
}

fn read(
    document: &str,
    format: Option<DocumentFormat>,
    name: Option<&str>,
) -> Result<Imported, Refusal> {
    let format = match format {
        Some(DocumentFormat::Yaml) => persona::Format::Yaml,
        Some(DocumentFormat::Json) => persona::Format::Json,
        None => guess_format("", document.as_bytes()),
    };
    let source = SourceText {
        name: "document",
        text: document.as_bytes(),
        format,
        persona_name: name,
    };
    import(&source).map_err(refusal)
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
    problems
        .iter()
        .map(|problem| ProblemView {
            severity: match problem.severity {
                persona::Severity::Error => Severity::Error,
                persona::Severity::Warning => Severity::Warning,
            },
            kind: super::tick::json(&problem.kind)
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            message: problem.message.clone(),
            line: problem.span.line,
            column: problem.span.column,
            length: problem.span.length,
            help: problem.help.clone(),
        })
        .collect()
}

/// The catalogue's "no" in the words of the bus.
fn refusal(error: CatalogueError) -> Refusal {
    match error {
        CatalogueError::Invalid(problems) => Refusal::InvalidPersona {
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

/// The known name that a mistyped one most likely means.
fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name.to_owned())
}
