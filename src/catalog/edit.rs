//! What people do to the personas of the catalogue: add a version, choose one, delete. Staged, as all changes are.

use std::collections::BTreeSet;

use persona::{Persona, PersonaName};

use super::composition::Supposed;
use super::versions::NameRecord;
use super::{
    Added, Authorship, Catalogue, CatalogueError, Composition, DELETED_A_BATCH, Desired,
    ExplicitBinding, Imported, Mapping, PersonaRef, Shift, Version, VersionId, VersionNumber,
    VersionSummary,
};
use crate::store::Batch;

/// What a document may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A persona that is not there yet.
    New,
    /// A further version of one that is.
    Existing,
}

/// Whether a persona in use is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is refused.
    IfUnused,
    /// Its bindings and mappings go with it.
    Forced,
}

impl Catalogue {
    /// Stages a document as the current version of its persona.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::Exists`], [`CatalogueError::NotFound`], [`CatalogueError::SecondDefault`],
    /// [`CatalogueError::Breaks`]; nothing is staged then.
    pub fn add(
        &mut self,
        batch: &mut Batch,
        imported: Imported,
        expect: Expect,
        authorship: Authorship,
    ) -> Result<Added, CatalogueError> {
        let Imported {
            id,
            composed,
            digest,
            extends,
            text,
            format,
        } = imported;
        let VersionId {
            name,
            version: number,
        } = id.clone();
        match (expect, self.current(&name)) {
            (Expect::New, Ok(_)) => return Err(CatalogueError::Exists { name }),
            (Expect::Existing, Err(error)) => return Err(error),
            (_, Ok(current)) if current.digest == digest => {
                return Ok(Added::Unchanged(current.clone()));
            }
            _ => {}
        }
        let supposed = Supposed {
            id: &id,
            extends: &extends,
            text: &text,
            format,
        };
        let bases = self.lineage(&id, &extends, Some(supposed))?;
        self.check_default(&composed.persona)?;
        self.check_builders(supposed)?;
        let old = self.names.get(&name).copied();
        let record = NameRecord {
            current: Some(number),
            newest: number,
            deleted: old.map_or(0, |record| record.deleted),
        };
        let Authorship { author, at, note } = authorship;
        let summary = VersionSummary {
            name: name.clone(),
            number,
            digest,
            extends,
            format,
            author,
            at,
            note,
        };
        let version = Version {
            summary: summary.clone(),
            text,
        };
        batch.put(Version::key(&name, number), &version)?;
        batch.put(name.as_str(), &record)?;
        self.follow_default(&composed.persona);
        self.names.insert(name.clone(), record);
        self.versions.insert((name, number), summary.clone());
        let composition = Composition {
            persona: id,
            bases,
            overrides: Vec::new(),
            adjustments: Vec::new(),
        };
        self.remember(composition, Ok(composed));
        Ok(Added::Stored(summary))
    }

    /// Stages another version as the one in force.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::persona`], and [`CatalogueError::SecondDefault`], [`CatalogueError::Breaks`].
    pub fn set_current(
        &mut self,
        batch: &mut Batch,
        name: &PersonaName,
        number: VersionNumber,
    ) -> Result<Added, CatalogueError> {
        let (summary, persona) = self.persona(&PersonaRef {
            name: name.clone(),
            pin: Some(number),
        })?;
        if self.current(name)?.number == number {
            return Ok(Added::Unchanged(summary));
        }
        self.check_default(&persona)?;
        let stored = self.version(&PersonaRef {
            name: name.clone(),
            pin: Some(number),
        })?;
        self.check_builders(Supposed {
            id: &summary.id(),
            extends: &summary.extends,
            text: &stored.text,
            format: summary.format,
        })?;
        // The version was found, so its name is there.
        let record = self.names.get_mut(name).expect("a version has a name");
        let changed = NameRecord {
            current: Some(number),
            ..*record
        };
        batch.put(name.as_str(), &changed)?;
        *record = changed;
        self.follow_default(&persona);
        Ok(Added::Stored(summary))
    }

    fn check_default(&self, persona: &Persona) -> Result<(), CatalogueError> {
        match &self.default {
            Some(other) if persona.default_persona && *other != persona.name => {
                Err(CatalogueError::SecondDefault {
                    name: persona.name.clone(),
                    other: other.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn follow_default(&mut self, persona: &Persona) {
        if persona.default_persona {
            self.default = Some(persona.name.clone());
        } else if self.default.as_ref() == Some(&persona.name) {
            self.default = None;
        }
    }

    /// Who uses a persona: `domain UUID`, `persona NAME` that builds on it, and `tag TAG`, each sorted.
    pub fn users(&self, name: &PersonaName) -> Vec<String> {
        let tags = self
            .mappings
            .iter()
            .filter(|(_, mapping)| mapping.persona().is_some_and(|of| of.name == *name));
        let tags = tags.map(|(tag, _)| format!("tag {tag}"));
        let bound = self
            .bindings
            .iter()
            .filter(|(_, binding)| binding.persona.name == *name);
        let active = self.activations.iter().filter(|(_, activation)| {
            let desired = [&activation.desired, activation.asked_for()];
            let mut desired = desired.into_iter().filter_map(|desired| match desired {
                Desired::Persona { composition, .. } => Some(composition),
                Desired::Nothing => None,
            });
            desired.any(|of| of.versions().any(|id| id.name == *name))
        });
        let shifted = self.shifts.iter().filter(|(_, shifts)| {
            let mut stack = shifts.stack.iter();
            stack.any(|shift| shift.persona == *name || shift.of.persona.name == *name)
        });
        let builders = self.builders(name);
        let domains: BTreeSet<_> = bound
            .map(|(domain, _)| *domain)
            .chain(active.map(|(domain, _)| *domain))
            .chain(shifted.map(|(domain, _)| *domain))
            .collect();
        domains
            .into_iter()
            .map(|domain| format!("domain {domain}"))
            .chain(builders.iter().map(|other| format!("persona {other}")))
            .chain(tags)
            .collect()
    }

    /// Stages the end of a persona and its versions; forced, of the explicit bindings and mappings to it too. What
    /// is active on domains stays until the domains are resolved anew; what builds on it composes no longer.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NotFound`], [`CatalogueError::Bound`].
    pub fn delete(
        &mut self,
        batch: &mut Batch,
        name: &PersonaName,
        deletion: Deletion,
    ) -> Result<(), CatalogueError> {
        self.current(name)?;
        let by = self.users(name);
        if deletion == Deletion::IfUnused && !by.is_empty() {
            return Err(CatalogueError::Bound {
                name: name.clone(),
                by,
            });
        }
        // It is current, so it has a record.
        let record = self.names.get_mut(name).expect("a persona has a record");
        *record = NameRecord {
            current: None,
            deleted: record.newest.get(),
            newest: record.newest,
        };
        batch.put(name.as_str(), record)?;
        let versions: Vec<_> = self
            .versions
            .keys()
            .filter(|(other, _)| other == name)
            .cloned()
            .collect();
        // What is in force can still be made again after a restart; what was kept for that goes at a later start.
        let held = self.held();
        for (index, key) in versions.into_iter().enumerate() {
            let is_held = held
                .iter()
                .any(|id| (&id.name, id.version) == (&key.0, key.1));
            if index < DELETED_A_BATCH && !is_held {
                batch.remove::<Version>(Version::key(&key.0, key.1));
            }
            self.versions.remove(&key);
        }
        self.mappings.retain(|tag, mapping| {
            let stays = mapping.persona().is_none_or(|of| of.name != *name);
            if !stays {
                batch.remove::<Mapping>(tag.as_str());
            }
            stays
        });
        self.bindings.retain(|domain, binding| {
            let stays = binding.persona.name != *name;
            if !stays {
                batch.remove::<ExplicitBinding>(domain.to_string());
            }
            stays
        });
        if self.default.as_ref() == Some(name) {
            self.default = None;
        }
        for (domain, shifts) in &mut self.shifts {
            let uses = |shift: &Shift| shift.persona == *name || shift.of.persona.name == *name;
            if shifts.stack.iter().any(uses) {
                shifts.stack.clear();
                batch.put(domain.to_string(), shifts)?;
            }
        }
        Ok(())
    }
}
