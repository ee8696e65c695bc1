//! Which domains a changed persona has not reached yet. A rollout goes from domain to domain and stops at the first failure;
//! who waits stays on what it has, also over restarts. What begins, goes on and stops it is the daemon's.

use std::collections::BTreeMap;

use persona::PersonaName;
use serde::{Deserialize, Serialize};

use super::{Catalogue, Desired};
use crate::hypervisor::DomainId;
use crate::store::{Batch, StoreError, Stored, Tree};

/// A domain that a changed persona has not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The persona that was changed: its own, or one that its own builds on.
    pub changed: PersonaName,
    /// What it waits for.
    pub why: HeldWhy,
}

/// What a domain that is held back waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldWhy {
    /// Its turn.
    Waits,
    /// It is its turn.
    Turn,
    /// A person, because the rollout stopped.
    Stopped {
        /// Where and why, as a sentence.
        reason: String,
    },
}

impl Stored for Held {
    const TREE: Tree = Tree::Rollouts;
}

impl Catalogue {
    /// Domains that are held back, and those whose turn it is.
    pub fn held_back(&self) -> &BTreeMap<DomainId, Held> {
        &self.held_back
    }

    /// Whether a domain stays on what it has although `desired` is what it would get now: it is held back, and it would get
    /// the same persona. Another one it gets at once.
    pub fn stays(&self, domain: DomainId, desired: &Desired) -> bool {
        let held = self.held_back.get(&domain);
        let now = self
            .activation(domain)
            .map(|activation| &activation.desired);
        match (held, now, desired) {
            (
                Some(held),
                Some(Desired::Persona { composition, .. }),
                Desired::Persona {
                    composition: other, ..
                },
            ) => held.why != HeldWhy::Turn && composition.persona.name == other.persona.name,
            _ => false,
        }
    }

    /// Stages that a domain is held back, or that it is its turn.
    ///
    /// # Errors
    ///
    /// What writing the store gives.
    pub fn hold_back(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        held: Held,
    ) -> Result<(), StoreError> {
        batch.put(domain.to_string(), &held)?;
        self.held_back.insert(domain, held);
        Ok(())
    }

    /// Stages that a domain gets what is desired now because of something else than its turn.
    pub fn let_go_unless_turn(&mut self, batch: &mut Batch, domain: DomainId) {
        let held = self.held_back.get(&domain);
        if held.is_some_and(|held| held.why != HeldWhy::Turn) {
            self.let_go(batch, domain);
        }
    }

    /// Stages that a domain is held back no longer.
    pub fn let_go(&mut self, batch: &mut Batch, domain: DomainId) {
        if self.held_back.remove(&domain).is_some() {
            batch.remove::<Held>(domain.to_string());
        }
    }
}
