//! The overrides that tags lay over personas: texts that are kept by their digest, never changed, and gone when nothing
//! names them any more. What a tag means is in `binding`, which of a domain's overrides hold in `tags`.

use std::sync::{Arc, MutexGuard, PoisonError};

use persona::{Digest, Format, Layer, LayerKind, Problems, SourceText};
use serde::{Deserialize, Serialize};

use super::composition::{MOST_REMEMBERED, OVERRIDE};
use super::tags::{Conflict, Laid, Mapping, Tag, Target};
use super::versions::format_name;
use super::{Catalogue, CatalogueError};
use crate::store::{Batch, Stored, Tree};

/// The text of an override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// How it is written.
    #[serde(with = "format_name")]
    pub format: Format,
    /// As it was given.
    pub text: String,
}

impl Stored for Fragment {
    const TREE: Tree = Tree::Overrides;
}

impl Fragment {
    /// The digest of the text and of how it is written, which names it.
    pub fn digest(&self) -> Digest {
        let mut bytes = format_name::word(self.format).as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.extend_from_slice(self.text.as_bytes());
        Digest::of_bytes(&bytes)
    }

    fn layer<'a>(&'a self, tag: &'a Tag) -> Layer<'a> {
        Layer {
            source: SourceText {
                name: OVERRIDE,
                text: self.text.as_bytes(),
                format: self.format,
                persona_name: None,
            },
            tag: Some(tag.as_str()),
            kind: LayerKind::Override,
        }
    }

    /// What is to be said of it whatever it is laid over.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::InvalidOverride`] with all problems.
    pub fn check(&self, tag: &Tag) -> Result<Problems, CatalogueError> {
        persona::part(&self.layer(tag))
            .map(|part| part.warnings)
            .map_err(CatalogueError::InvalidOverride)
    }
}

impl Catalogue {
    /// The text of an override, from memory or from the store.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::TextLost`], and what reading the store gives.
    pub fn fragment(&self, digest: &Digest) -> Result<Arc<Fragment>, CatalogueError> {
        if let Some(fragment) = self.fragments().get(digest) {
            return Ok(fragment.clone());
        }
        let stored = self.store.get::<Fragment>(digest.as_str())?;
        let fragment = Arc::new(stored.ok_or_else(|| CatalogueError::TextLost {
            what: format!("override {}", digest.short()),
        })?);
        self.fragments().insert(digest.clone(), fragment.clone());
        Ok(fragment)
    }

    /// Keeps an override in memory, so that it can be tried before it is stored. The digest names one text for ever.
    pub fn hold(&self, fragment: Fragment) -> Digest {
        let digest = fragment.digest();
        let mut fragments = self.fragments();
        if fragments.len() >= MOST_REMEMBERED {
            fragments.clear();
        }
        fragments.insert(digest.clone(), Arc::new(fragment));
        digest
    }

    /// Stages that a tag lays an override, held by [`Catalogue::hold`], over whatever persona a domain has; gives what
    /// the tag meant.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::fragment`].
    pub fn map_override(
        &mut self,
        batch: &mut Batch,
        tag: Tag,
        digest: Digest,
        priority: i32,
    ) -> Result<Option<Mapping>, CatalogueError> {
        let fragment = self.fragment(&digest)?;
        batch.put(digest.as_str(), &*fragment)?;
        let mapping = Mapping {
            target: Target::Override { digest },
            priority,
        };
        batch.put(tag.as_str(), &mapping)?;
        Ok(self.mappings.insert(tag, mapping))
    }

    /// The first two overrides of equal priority that set one value differently.
    pub(super) fn override_conflict(&self, overrides: &[Laid]) -> Option<Conflict> {
        overrides.iter().enumerate().find_map(|(index, one)| {
            overrides[index + 1..]
                .iter()
                .filter(|other| other.priority == one.priority)
                .find_map(|other| self.clash(one, other))
        })
    }

    fn clash(&self, one: &Laid, other: &Laid) -> Option<Conflict> {
        if one.digest == other.digest {
            return None;
        }
        let pair = (one.clone(), other.clone());
        if let Some(known) = self.clashes().get(&pair) {
            return known.clone();
        }
        let (first, second) = match (self.fragment(&one.digest), self.fragment(&other.digest)) {
            (Ok(first), Ok(second)) => (first, second),
            // What cannot be read cannot be laid over anything either, and is reported there.
            _ => return None,
        };
        let clash = persona::clash(&first.layer(&one.tag), &second.layer(&other.tag));
        let conflict = clash.map(|clash| Conflict::Overrides {
            priority: one.priority,
            one: (one.tag.clone(), clash.one.line),
            other: (other.tag.clone(), clash.other.line),
            path: clash.path,
        });
        let mut clashes = self.clashes();
        if clashes.len() >= MOST_REMEMBERED {
            clashes.clear();
        }
        clashes.insert(pair, conflict.clone());
        conflict
    }

    fn fragments(&self) -> MutexGuard<'_, std::collections::HashMap<Digest, Arc<Fragment>>> {
        self.fragments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn clashes(&self) -> MutexGuard<'_, std::collections::HashMap<(Laid, Laid), Option<Conflict>>> {
        self.clashes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
