//! From tags to what is to be active: mappings, bindings and activations of the catalogue. Staged, as all changes are.

use std::collections::{BTreeMap, BTreeSet};

use persona::Moment;

use super::{
    Activation, ActivationEvent, Adjustments, AgentPresence, Binding, Catalogue, CatalogueError,
    Desired, ExplicitBinding, Generation, Mapping, PersonaRef, Resolution, Shifts, Tag, Target,
    Transition, resolve,
};
use crate::hypervisor::DomainId;
use crate::store::{Batch, StoreError};

/// Whether something is activated that is desired already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insistence {
    /// No: what is under way, active or failed stays.
    Keep,
    /// Yes, under a generation of its own: a person asked for it.
    Again,
}

/// What wanting something for a domain did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is a new activation.
    Started(Activation),
    /// It was wanted already; at most the reason why has changed.
    Unchanged(Activation),
}

impl Catalogue {
    /// What tags mean.
    pub fn mappings(&self) -> &BTreeMap<Tag, Mapping> {
        &self.mappings
    }

    /// Stages which persona a tag means, over what it meant; gives what it meant.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::summary`].
    pub fn map(
        &mut self,
        batch: &mut Batch,
        tag: Tag,
        persona: PersonaRef,
        priority: i32,
    ) -> Result<Option<Mapping>, CatalogueError> {
        self.summary(&persona)?;
        let mapping = Mapping {
            target: Target::Persona(persona),
            priority,
        };
        batch.put(tag.as_str(), &mapping)?;
        Ok(self.mappings.insert(tag, mapping))
    }

    /// Stages that a tag means nothing; gives what it meant.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NotMapped`].
    pub fn unmap(&mut self, batch: &mut Batch, tag: &Tag) -> Result<Mapping, CatalogueError> {
        let mapping = self
            .mappings
            .remove(tag)
            .ok_or_else(|| CatalogueError::NotMapped { tag: tag.clone() })?;
        batch.remove::<Mapping>(tag.as_str());
        Ok(mapping)
    }

    /// The persona that a person gave to a domain.
    pub fn explicit(&self, domain: DomainId) -> Option<&ExplicitBinding> {
        self.bindings.get(&domain)
    }

    /// Stages that a person gives a persona to a domain; gives what was there.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::summary`].
    pub fn bind(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        binding: ExplicitBinding,
    ) -> Result<Option<ExplicitBinding>, CatalogueError> {
        self.summary(&binding.persona)?;
        batch.put(domain.to_string(), &binding)?;
        Ok(self.bindings.insert(domain, binding))
    }

    /// Stages that a domain's tags decide again; gives what a person had given it, if anything.
    pub fn unbind(&mut self, batch: &mut Batch, domain: DomainId) -> Option<ExplicitBinding> {
        batch.remove::<ExplicitBinding>(domain.to_string());
        self.bindings.remove(&domain)
    }

    /// Which persona a domain with these tags has. On a conflict the last good state holds: leave its activation be.
    pub fn resolve(&self, domain: DomainId, tags: &[String]) -> Resolution {
        let resolution = self.resolve_as(self.explicit(domain), tags, &self.mappings);
        self.shifted(domain, resolution)
    }

    /// What tags come to by themselves: without what a person or a rule gave.
    pub fn resolve_unshifted(&self, tags: &[String]) -> Resolution {
        self.resolve_as(None, tags, &self.mappings)
    }

    /// As [`Catalogue::resolve`], were a person to give the domain this persona.
    pub fn resolve_with(&self, binding: &ExplicitBinding, tags: &[String]) -> Resolution {
        self.resolve_as(Some(binding), tags, &self.mappings)
    }

    /// As [`Catalogue::resolve`], were a tag to have this meaning.
    pub fn resolve_mapped(
        &self,
        domain: DomainId,
        tags: &[String],
        tag: &Tag,
        mapping: &Mapping,
    ) -> Resolution {
        let mut mappings = self.mappings.clone();
        mappings.insert(tag.clone(), mapping.clone());
        let resolution = self.resolve_as(self.explicit(domain), tags, &mappings);
        self.shifted(domain, resolution)
    }

    fn resolve_as(
        &self,
        explicit: Option<&ExplicitBinding>,
        tags: &[String],
        mappings: &BTreeMap<Tag, Mapping>,
    ) -> Resolution {
        let resolution = resolve(explicit, tags, mappings, self.default_persona());
        if let Resolution::Bound(binding) = &resolution
            && let Some(conflict) = self.override_conflict(&binding.overrides)
        {
            return Resolution::Conflict(conflict);
        }
        resolution
    }

    /// What a binding comes to at present.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::composition`] and [`Catalogue::effective`].
    pub fn desired(&self, binding: &Binding) -> Result<Desired, CatalogueError> {
        let composition = self.composition(binding)?;
        Ok(Desired::Persona {
            digest: self.digest(&composition)?,
            composition,
            origin: binding.origin.clone(),
        })
    }

    /// What is to be active on a domain.
    pub fn activation(&self, domain: DomainId) -> Option<&Activation> {
        self.activations.get(&domain)
    }

    /// What is to be active, of every domain that ever had something.
    pub fn activations(&self) -> impl Iterator<Item = (DomainId, &Activation)> {
        self.activations
            .iter()
            .map(|(domain, activation)| (*domain, activation))
    }

    /// Domains of which anything is kept.
    pub fn domains(&self) -> BTreeSet<DomainId> {
        let kept = self.activations.keys().chain(self.bindings.keys());
        let kept = kept.chain(self.shifts.keys());
        let kept = kept.chain(self.adjustments.keys());
        kept.chain(self.held_back.keys()).copied().collect()
    }

    /// Stages what is to be active on a domain. A domain that never had anything and is to have nothing has no
    /// activation, unless that is insisted on because its guest shows something: `Ok(None)`.
    ///
    /// # Errors
    ///
    /// What writing the store gives.
    pub fn want(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        desired: Desired,
        insistence: Insistence,
        agent: AgentPresence,
        now: Moment,
    ) -> Result<Option<Wanted>, StoreError> {
        match self.activations.get_mut(&domain) {
            None if desired == Desired::Nothing && insistence == Insistence::Keep => {
                return Ok(None);
            }
            Some(activation)
                if insistence == Insistence::Keep && activation.satisfies(&desired) =>
            {
                // What failed is not tried again, and what goes on in its place is as it was.
                let goes_on = activation.has_failed_at(&desired);
                if !goes_on && (activation.desired != desired || activation.failed.is_some()) {
                    (activation.desired, activation.failed) = (desired, None);
                    batch.put(domain.to_string(), activation)?;
                }
                return Ok(Some(Wanted::Unchanged(activation.clone())));
            }
            _ => {}
        }
        let generation = self.generations.take(&self.store)?;
        let activation = Activation::new(generation, desired, agent, now)
            .following(self.activations.get(&domain));
        batch.put(domain.to_string(), &activation)?;
        self.activations.insert(domain, activation.clone());
        Ok(Some(Wanted::Started(activation)))
    }

    /// Stages what an event makes of a domain's activation. [`Transition::Stale`] where it has none.
    ///
    /// # Errors
    ///
    /// What writing the store gives.
    pub fn advance(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        event: ActivationEvent,
        now: Moment,
    ) -> Result<Transition, StoreError> {
        let Some(activation) = self.activations.get_mut(&domain) else {
            return Ok(Transition::Stale);
        };
        let transition = activation.next(event, now);
        if let Transition::Changed(next) = &transition {
            batch.put(domain.to_string(), next)?;
            activation.clone_from(next);
        }
        Ok(transition)
    }

    /// Stages that a domain is gone for good: its explicit binding, its shifts, what rules adjusted and its activation go.
    pub fn forget(&mut self, batch: &mut Batch, domain: DomainId) {
        self.unbind(batch, domain);
        if self.shifts.remove(&domain).is_some() {
            batch.remove::<Shifts>(domain.to_string());
        }
        if self.adjustments.remove(&domain).is_some() {
            batch.remove::<Adjustments>(domain.to_string());
        }
        self.let_go(batch, domain);
        if self.activations.remove(&domain).is_some() {
            batch.remove::<Activation>(domain.to_string());
        }
    }

    /// A generation for something that is no activation, such as a plan. Blocks for a sync once in some dozen calls.
    ///
    /// # Errors
    ///
    /// What writing the store gives.
    pub fn next_generation(&mut self) -> Result<Generation, StoreError> {
        self.generations.take(&self.store)
    }
}
