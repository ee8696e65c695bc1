//! Personas, versions and what tags mean: stored, made current, deleted, mapped. Each change is durable with its record
//! before any domain is resolved anew.

use super::{format_of, parse_tag, problem_views, refusal, version_number};
use crate::audit::AuditKind;
use crate::catalog::{
    Activation, Added, Authorship, CatalogueError, Deletion, Expect, Fragment, Imported, Mapping,
    Resolution, Tag, Target,
};
use crate::command::{Caller, DomainName, Force, Noun, PersonaRef, Refusal, Reply};
use crate::daemon::rollout::Cause;
use crate::daemon::{Daemon, show, tick};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{Change, DocumentFormat, EffectiveView, FragmentView, MappedView, StoredView};

impl Daemon {
    pub(in crate::daemon) fn store_version(
        &mut self,
        imported: Imported,
        expect: Expect,
        note: Option<String>,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let warnings = problem_views(&imported.composed.warnings);
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
            let entry = self.entry(AuditKind::Catalogue, None, &text, tick::json(&summary));
            self.commit(batch, vec![entry]).map_err(refusal)?;
            self.roll_out(&summary.name, Cause::Changed);
        } else if self.is_stopped(&summary.name) {
            self.roll_out(&summary.name, Cause::Again);
        }
        Ok(Reply::Stored(StoredView {
            name: summary.name.to_string(),
            version: summary.number.get(),
            digest: summary.digest.to_string(),
            change,
            warnings,
        }))
    }

    pub(in crate::daemon) fn delete(
        &mut self,
        name: &str,
        force: Force,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let name = self.persona_name(name)?;
        let deletion = match force {
            Force::No => Deletion::IfUnused,
            Force::Yes => Deletion::Forced,
        };
        let mut batch = Batch::new();
        self.catalog
            .delete(&mut batch, &name, deletion)
            .map_err(|error| self.named(error))?;
        self.forget_impacts(name.as_str(), &mut batch);
        let text = format!("{} deleted persona {name}", caller.name);
        let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(Reply::Done(Change::Changed))
    }

    /// Users of a persona are known by number to the catalogue; people know them by name.
    pub(in crate::daemon) fn named(&self, error: CatalogueError) -> Refusal {
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

    pub(in crate::daemon) fn set_current(
        &mut self,
        name: &str,
        version: u32,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
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
            self.roll_out(&name, Cause::Changed);
        } else if self.is_stopped(&name) {
            self.roll_out(&name, Cause::Again);
        }
        Ok(Reply::Stored(StoredView {
            name: name.to_string(),
            version: summary.number.get(),
            digest: summary.digest.to_string(),
            change,
            warnings: Vec::new(),
        }))
    }

    pub(in crate::daemon) fn map(
        &mut self,
        tag: &str,
        persona: &str,
        priority: i32,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let tag = parse_tag(tag)?;
        let persona = self.reference(&PersonaRef::parse(persona)?)?;
        let mapping = Mapping {
            target: Target::Persona(persona.clone()),
            priority,
        };
        let mut batch = Batch::new();
        let before = self
            .catalog
            .map(&mut batch, tag.clone(), persona.clone(), priority)
            .map_err(refusal)?;
        if before.as_ref() == Some(&mapping) {
            return Ok(Reply::Done(Change::Unchanged));
        }
        let text = format!(
            "{} made tag {tag} mean {persona} with priority {priority}",
            caller.name
        );
        let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(Reply::Done(Change::Changed))
    }

    /// Maps a tag to an override, unless the override is wrong, or takes a valid persona from a domain that has the tag.
    pub(in crate::daemon) fn map_override(
        &mut self,
        tag: &str,
        document: String,
        format: Option<DocumentFormat>,
        priority: i32,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let tag = parse_tag(tag)?;
        let fragment = Fragment {
            format: format_of(&document, format),
            text: document,
        };
        let warnings = problem_views(&fragment.check(&tag).map_err(refusal)?);
        let digest = self.catalog.hold(fragment);
        let mapping = Mapping {
            target: Target::Override {
                digest: digest.clone(),
            },
            priority,
        };
        let mapped = |change| {
            Reply::Mapped(MappedView {
                tag: tag.to_string(),
                change,
                warnings,
            })
        };
        if self.catalog.mappings().get(&tag) == Some(&mapping) {
            return Ok(mapped(Change::Unchanged));
        }
        self.check_override(&tag, &mapping)?;
        let mut batch = Batch::new();
        self.catalog
            .map_override(&mut batch, tag.clone(), digest.clone(), priority)
            .map_err(refusal)?;
        let text = format!(
            "{} made tag {tag} mean the override {} with priority {priority}",
            caller.name,
            digest.short()
        );
        let entry = self.entry(AuditKind::Catalogue, None, &text, tick::json(&mapping));
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(mapped(Change::Changed))
    }

    /// Refuses an override that would leave a domain without a valid persona that has one now.
    fn check_override(&self, tag: &Tag, mapping: &Mapping) -> Result<(), Refusal> {
        for (id, tracked) in &self.domains {
            let description = &tracked.description;
            let tags = &description.tags;
            if !tags.iter().any(|text| text == tag.as_str()) {
                continue;
            }
            let valid = match self.catalog.resolve(*id, tags) {
                Resolution::Bound(binding) => self.catalog.desired(&binding).is_ok(),
                Resolution::Conflict(_) | Resolution::Unbound => false,
            };
            if let Resolution::Bound(binding) = self.catalog.resolve_mapped(*id, tags, tag, mapping)
                && valid
                && let Err(CatalogueError::DoesNotCompose { problems, .. }) =
                    self.catalog.desired(&binding)
            {
                return Err(refusal(CatalogueError::BreaksDomain {
                    domain: description.name.clone(),
                    problems,
                }));
            }
        }
        Ok(())
    }

    /// The override that a tag means.
    pub(in crate::daemon) fn show_override(&self, tag: &str) -> Result<Reply, Refusal> {
        let tag = parse_tag(tag)?;
        let mapping = self.catalog.mappings().get(&tag);
        let Some(Target::Override { digest }) = mapping.map(|mapping| &mapping.target) else {
            return Err(Refusal::NotFound {
                what: Noun::Override,
                name: tag.to_string(),
                nearest: None,
            });
        };
        let fragment = self.catalog.fragment(digest).map_err(refusal)?;
        Ok(Reply::Fragment(FragmentView {
            tag: tag.to_string(),
            digest: digest.to_string(),
            format: show::format(fragment.format),
            document: fragment.text.clone(),
        }))
    }

    /// What is in force on a domain, each value with its origin.
    pub(in crate::daemon) fn effective(&self, domain: &DomainName) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let in_force = self.catalog.activation(id).and_then(Activation::in_force);
        let Some(composition) = in_force else {
            let name = &self.domains[&id].description.name;
            return Err(Refusal::Refused {
                reason: format!("no persona is in force on domain `{name}`"),
            });
        };
        let composed = self.catalog.effective(&composition).map_err(refusal)?;
        Ok(Reply::Effective(Box::new(EffectiveView {
            document: composed.document.clone(),
            values: composed.values.iter().map(Into::into).collect(),
        })))
    }

    pub(in crate::daemon) fn unmap(
        &mut self,
        tag: &str,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let tag = parse_tag(tag)?;
        let mut batch = Batch::new();
        self.catalog.unmap(&mut batch, &tag).map_err(refusal)?;
        let text = format!("{} made tag {tag} mean nothing", caller.name);
        let entry = self.entry(AuditKind::Catalogue, None, &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_all();
        Ok(Reply::Done(Change::Changed))
    }
}
