//! The personas that are stored, what tags mean, which domain has which, and what is to be active: text -> version ->
//! binding -> activation. Owned by the daemon's one task. It reads and stages; it sends nothing and decides nothing
//! about resources.
//!
//! Every change is staged into a [`Batch`] that the caller commits, with the audit records of the change in the same
//! commit. Should that commit fail, the catalogue in memory is ahead of the disk; the store then takes no more
//! writes, and the daemon must be restarted.

mod activation;
mod adjustment;
mod binding;
mod composition;
mod edit;
mod error;
mod fragment;
mod generation;
mod host;
mod import;
mod lineage;
mod rollout;
mod shift;
mod tags;
mod versions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use persona::{Digest, Moment, Persona, PersonaName, Problems, SourceText};

pub use activation::{
    Activation, ActivationEvent, ActivationState, AgentPresence, Desired, Failure, MOST_ATTEMPTS,
    Occasion, Shown, Transition,
};
pub use adjustment::{Adjustments, Full, Lasting, MOST_ADJUSTMENTS, Wished};
pub use binding::{Insistence, Wanted};
pub use composition::{Composed, Composition, VersionId};
pub use edit::{Deletion, Expect};
pub use error::CatalogueError;
pub use fragment::Fragment;
pub use generation::{Generation, Generations};
pub use host::{HostId, host_id};
pub use import::{Imported, guess_format};
pub use rollout::{Held, HeldWhy};
pub use shift::{DEEPEST_SHIFT, Overtaken, Shift, Shifts};
pub use tags::{
    Binding, Conflict, ExplicitBinding, Laid, Mapping, Origin, PersonaRef, Resolution, Tag, Target,
    resolve,
};
pub use versions::{Added, Authorship, Version, VersionNumber, VersionSummary};

use versions::NameRecord;

use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError};

/// Versions that are removed with a deleted persona in the same batch; more than that go at the next start.
const DELETED_A_BATCH: usize = 900;

/// The catalogue in memory.
#[derive(Debug)]
pub struct Catalogue {
    store: Arc<Store>,
    names: BTreeMap<PersonaName, NameRecord>,
    versions: BTreeMap<(PersonaName, VersionNumber), VersionSummary>,
    mappings: BTreeMap<Tag, Mapping>,
    bindings: BTreeMap<DomainId, ExplicitBinding>,
    activations: BTreeMap<DomainId, Activation>,
    shifts: BTreeMap<DomainId, Shifts>,
    adjustments: BTreeMap<DomainId, Adjustments>,
    held_back: BTreeMap<DomainId, Held>,
    generations: Generations,
    default: Option<PersonaName>,
    /// What compositions come to.
    composed: Mutex<Made>,
    /// Overrides that have been read.
    fragments: Mutex<HashMap<Digest, Arc<Fragment>>>,
    /// Which overrides of equal priority clash.
    clashes: Mutex<HashMap<(Laid, Laid), Option<Conflict>>>,
}

/// What compositions come to, and why where they come to nothing.
type Made = HashMap<Composition, Result<Arc<Composed>, Arc<Problems>>>;

impl Catalogue {
    /// Reads everything but keeps only the texts that are in force.
    ///
    /// # Errors
    ///
    /// What reading the store gives.
    pub fn open(store: Arc<Store>, now: Moment) -> Result<Self, StoreError> {
        let generations = Generations::open(&store, now)?;
        let mut catalogue = Self {
            names: keyed(store.all::<NameRecord>()?),
            versions: BTreeMap::new(),
            mappings: keyed(store.all::<Mapping>()?),
            bindings: keyed_by_domain(store.all::<ExplicitBinding>()?),
            activations: keyed_by_domain(store.all::<Activation>()?),
            shifts: keyed_by_domain(store.all::<Shifts>()?),
            adjustments: keyed_by_domain(store.all::<Adjustments>()?),
            held_back: keyed_by_domain(store.all::<Held>()?),
            generations,
            default: None,
            composed: Mutex::new(HashMap::new()),
            fragments: Mutex::new(HashMap::new()),
            clashes: Mutex::new(HashMap::new()),
            store,
        };
        for shifts in catalogue.shifts.values_mut() {
            shifts.pace.resume(now);
        }
        for adjustments in catalogue.adjustments.values_mut() {
            adjustments.pace.resume(now);
            for at in adjustments.turned.values_mut() {
                *at = (*at).min(now);
            }
        }
        catalogue.clear_up()?;
        for name in catalogue.personas().cloned().collect::<Vec<_>>() {
            match catalogue.persona(&PersonaRef {
                name: name.clone(),
                pin: None,
            }) {
                Ok((_, persona)) if persona.default_persona && catalogue.default.is_none() => {
                    catalogue.default = Some(name);
                }
                Ok(_) => {}
                // It harms this persona alone; whoever asks for it is told. It stays the default all the same: domains
                // that have it keep what is in force.
                Err(error) => {
                    tracing::error!(persona = %name, "{error}");
                    if catalogue.default.is_none() && catalogue.says_default(&name) {
                        catalogue.default = Some(name);
                    }
                }
            }
        }
        Ok(catalogue)
    }

    /// Takes in the versions that there are, and removes those that were deleted and the overrides that nothing names.
    /// What is in force stays, so that it can be made again.
    fn clear_up(&mut self) -> Result<(), StoreError> {
        let held = self.held();
        let mut leftovers = Vec::new();
        for (key, version) in self.store.all::<Version>()? {
            let summary = version.summary;
            match self.names.get(&summary.name) {
                Some(record) if summary.number.get() > record.deleted => {
                    self.versions
                        .insert((summary.name.clone(), summary.number), summary);
                }
                _ if held.contains(&summary.id()) => {}
                _ => leftovers.push(key),
            }
        }
        for keys in leftovers.chunks(DELETED_A_BATCH) {
            let mut batch = Batch::new();
            keys.iter().for_each(|key| batch.remove::<Version>(key));
            self.store.commit(batch)?;
        }
        let named = self.named_overrides();
        let leftovers: Vec<Vec<u8>> = self
            .store
            .all::<Fragment>()?
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| !named.iter().any(|digest| digest.as_str().as_bytes() == key))
            .collect();
        for keys in leftovers.chunks(DELETED_A_BATCH) {
            let mut batch = Batch::new();
            keys.iter().for_each(|key| batch.remove::<Fragment>(key));
            self.store.commit(batch)?;
        }
        Ok(())
    }

    /// Versions that are in force somewhere, or are to be.
    fn held(&self) -> BTreeSet<VersionId> {
        self.compositions()
            .flat_map(Composition::versions)
            .cloned()
            .collect()
    }

    fn named_overrides(&self) -> BTreeSet<Digest> {
        let mapped = self
            .mappings
            .values()
            .filter_map(|mapping| match &mapping.target {
                Target::Override { digest } => Some(digest),
                Target::Persona(_) => None,
            });
        let laid = self
            .compositions()
            .flat_map(|composition| &composition.overrides)
            .map(|laid| &laid.digest);
        mapped.chain(laid).cloned().collect()
    }

    fn compositions(&self) -> impl Iterator<Item = &Composition> {
        let shifts = self.shifts.values().flat_map(|shifts| &shifts.stack);
        self.activations
            .values()
            .flat_map(Activation::compositions)
            .chain(shifts.map(|shift| &shift.of))
    }

    /// Whether the current document of a persona says that it is the default, whatever else is wrong with it.
    fn says_default(&self, name: &PersonaName) -> bool {
        let current = PersonaRef {
            name: name.clone(),
            pin: None,
        };
        self.version(&current).is_ok_and(|version| {
            persona::header(&SourceText {
                name: name.as_str(),
                text: version.text.as_bytes(),
                format: version.summary.format,
                persona_name: Some(name.as_str()),
            })
            .is_ok_and(|header| header.default_persona)
        })
    }

    /// The names that stand for a persona.
    pub fn personas(&self) -> impl Iterator<Item = &PersonaName> {
        self.names
            .iter()
            .filter(|(_, record)| record.current.is_some())
            .map(|(name, _)| name)
    }

    /// The persona that domains without one get.
    pub fn default_persona(&self) -> Option<&PersonaName> {
        self.default.as_ref()
    }

    /// The version in force.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NotFound`].
    pub fn current(&self, name: &PersonaName) -> Result<&VersionSummary, CatalogueError> {
        let record = self.names.get(name).and_then(|record| record.current);
        record
            .and_then(|number| self.versions.get(&(name.clone(), number)))
            .ok_or_else(|| self.not_found(name))
    }

    /// All versions, the oldest first.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NotFound`].
    pub fn history(&self, name: &PersonaName) -> Result<Vec<VersionSummary>, CatalogueError> {
        self.current(name)?;
        Ok(self
            .versions
            .values()
            .filter(|version| version.name == *name)
            .cloned()
            .collect())
    }

    /// The version that a reference means: the pinned one, or the current one.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NotFound`], [`CatalogueError::NoVersion`].
    pub fn summary(&self, reference: &PersonaRef) -> Result<&VersionSummary, CatalogueError> {
        let current = self.current(&reference.name)?;
        let Some(version) = reference.pin else {
            return Ok(current);
        };
        let name = reference.name.clone();
        self.versions.get(&(name.clone(), version)).ok_or_else(|| {
            let newest = self
                .names
                .get(&name)
                .map_or(current.number, |record| record.newest);
            CatalogueError::NoVersion {
                name,
                version,
                newest,
            }
        })
    }

    /// A version with its text, read from the store.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::summary`], and what reading the store gives.
    pub fn version(&self, reference: &PersonaRef) -> Result<Version, CatalogueError> {
        let summary = self.summary(reference)?;
        let version = self
            .store
            .get::<Version>(Version::key(&summary.name, summary.number))?;
        version.ok_or_else(|| self.not_found(&reference.name))
    }

    /// A version and what it means with all that it builds on at present.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::composition`] and [`Catalogue::effective`].
    pub fn persona(
        &self,
        reference: &PersonaRef,
    ) -> Result<(VersionSummary, Arc<Persona>), CatalogueError> {
        let summary = self.summary(reference)?;
        let persona = summary.id();
        let composition = Composition {
            bases: self.lineage(&persona, &summary.extends, None)?,
            persona,
            overrides: Vec::new(),
            adjustments: Vec::new(),
        };
        let composed = self.effective(&composition)?;
        Ok((summary.clone(), composed.persona.clone()))
    }

    fn composed(&self) -> MutexGuard<'_, Made> {
        self.composed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_found(&self, name: &PersonaName) -> CatalogueError {
        CatalogueError::NotFound {
            name: name.clone(),
            known: self.personas().cloned().collect(),
        }
    }
}

/// Keys that are texts. A key that is none was never written; it is named in the log and left where it is.
fn keyed<K: std::str::FromStr + Ord, V>(entries: Vec<(Vec<u8>, V)>) -> BTreeMap<K, V> {
    parsed(entries, |text| text.parse().ok())
}

fn keyed_by_domain<V>(entries: Vec<(Vec<u8>, V)>) -> BTreeMap<DomainId, V> {
    parsed(entries, DomainId::parse)
}

fn parsed<K: Ord, V>(
    entries: Vec<(Vec<u8>, V)>,
    parse: impl Fn(&str) -> Option<K>,
) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    for (key, value) in entries {
        match std::str::from_utf8(&key).ok().and_then(&parse) {
            Some(key) => {
                map.insert(key, value);
            }
            None => {
                tracing::error!(key = ?key, "an entry of the catalogue has a key that cannot be read; left out")
            }
        }
    }
    map
}

#[cfg(test)]
mod tests;
