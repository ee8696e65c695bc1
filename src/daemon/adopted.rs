//! What is kept of an adoption until it is undone: where the definition began, and what it was made into. How an adoption
//! goes is in `adopt`; that a domain is gone, and this with it, is told by `follow`.

use std::collections::BTreeSet;

use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::Daemon;
use super::disk::wait_for_disk;
use crate::act::sentence_of;
use crate::adopt;
use crate::audit::{AuditKind, Entry};
use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError, Stored, Tree};

/// What is kept of an adoption, under the domain's UUID, until it is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Adopted {
    /// The persistent definition before it.
    pub(super) before: String,
    /// The one that this adoption was to replace; as `before`, but for an adoption after another.
    #[serde(default)]
    pub(super) from: Option<String>,
    /// And after it, as the hypervisor keeps it; absent while that is not known.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// When.
    pub(super) at: Moment,
    /// By whom.
    pub(super) by: String,
    /// The instance that ran then, and what it was given.
    #[serde(default)]
    pub(super) instance: Option<u32>,
    #[serde(default)]
    pub(super) live: Vec<String>,
}

impl Stored for Adopted {
    const TREE: Tree = Tree::Adoptions;
}

impl Adopted {
    /// The record of one more adoption, of the definition `now`. Where that is what the one before left, the way back leads
    /// to where that one began, and what it gave the instance that still runs is told with the rest.
    pub(super) fn begin(
        kept: Option<&Self>,
        now: &str,
        at: Moment,
        by: String,
        instance: Option<u32>,
    ) -> Self {
        let earlier = kept.filter(|kept| adopt::is_as_left(kept.after.as_deref(), now));
        Self {
            before: earlier.map_or_else(|| now.to_owned(), |kept| kept.before.clone()),
            from: Some(now.to_owned()),
            after: None,
            at,
            by,
            instance,
            live: earlier
                .filter(|kept| kept.instance == instance)
                .map_or_else(Vec::new, |kept| kept.live.clone()),
        }
    }

    /// The definition that was to be replaced.
    pub(super) fn replaced(&self) -> &str {
        self.from.as_deref().unwrap_or(&self.before)
    }
}

/// The domains of which something is kept.
pub(super) fn adopted_domains(store: &Store) -> BTreeSet<DomainId> {
    match store.all::<Adopted>() {
        Ok(all) => all
            .into_iter()
            .filter_map(|(key, _)| Some(DomainId(key.try_into().ok()?)))
            .collect(),
        Err(error) => {
            tracing::warn!(
                error = sentence_of(&error),
                "definitions are kept that cannot be read, so those of domains that are gone stay"
            );
            BTreeSet::new()
        }
    }
}

impl Daemon {
    /// Of a domain that is gone: what was kept cannot be put back, and it holds secrets. The record of it, where something
    /// was kept.
    pub(super) fn forget_adoption(
        &mut self,
        batch: &mut Batch,
        id: DomainId,
        name: &str,
    ) -> Option<Entry> {
        self.adopted.remove(&id);
        self.unsettled.remove(&id);
        batch.remove::<Adopted>(id.0);
        // One that cannot be read was kept as well.
        let nothing = matches!(self.store.get::<Adopted>(id.0), Ok(None));
        (!nothing).then(|| {
            let text = format!(
                "domain {name} is no longer defined, so its definition as it was before it was prepared is forgotten"
            );
            self.entry(AuditKind::Adoption, None, &text, serde_json::Value::Null)
        })
    }

    pub(super) fn keep(&self, id: DomainId, record: Option<&Adopted>) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        match record {
            Some(record) => batch.put(id.0, record)?,
            None => batch.remove::<Adopted>(id.0),
        }
        wait_for_disk(|| self.store.commit(batch))
    }

    /// A replacement that was refused leaves what was kept before it, unless the domain and all that was kept of it have gone
    /// meanwhile.
    pub(super) fn keep_again(&self, id: DomainId, record: &Adopted, before: Option<&Adopted>) {
        let kept = self.store.get::<Adopted>(id.0).ok().flatten();
        if kept.as_ref() == Some(record)
            && let Err(error) = self.keep(id, before)
        {
            tracing::warn!(domain = %id, error = sentence_of(&error), "what was kept of the definition could not be put back");
        }
    }
}
