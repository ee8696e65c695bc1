//! Personas, versions and what tags mean: stored, made current, deleted, mapped. Each change is durable with its record
//! before any domain is resolved anew.

use super::{parse_tag, problem_views, refusal, version_number};
use crate::audit::AuditKind;
use crate::catalog::{Added, Authorship, CatalogueError, Deletion, Expect, Imported, Mapping};
use crate::command::{Caller, Force, PersonaRef, Refusal, Reply};
use crate::daemon::{Daemon, tick};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{Change, StoredView};

impl Daemon {
    pub(in crate::daemon) fn store_version(
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
            let entry = self.entry(AuditKind::Catalogue, None, &text, tick::json(&summary));
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

    pub(in crate::daemon) fn map(
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
