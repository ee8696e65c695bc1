//! What an effective persona is made of, and the making: stored texts -> layers -> one persona. A composition names
//! immutable texts only, so the same one comes to the same persona after every restart.

use std::fmt;
use std::sync::Arc;

use persona::{
    Adjustment, Digest, Effective, EffectiveValue, Format, Layer, LayerKind, Persona, PersonaName,
    Problems, SourceText,
};
use serde::{Deserialize, Serialize};

use super::tags::{Binding, Laid};
use super::versions::{Version, VersionNumber};
use super::{Catalogue, CatalogueError};

/// How much of one kind is remembered. Beyond it all is forgotten, and made anew or read again when it is asked for.
pub(super) const MOST_REMEMBERED: usize = 1000;

/// The name that the text of an override has in messages and origins, beside its tag.
pub(super) const OVERRIDE: &str = "override";

/// One stored version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// The persona.
    pub name: PersonaName,
    /// Its version.
    pub version: VersionNumber,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// The layers of an effective persona.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Composition {
    /// The persona itself.
    #[serde(flatten)]
    pub persona: VersionId,
    /// What it builds on, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<VersionId>,
    /// What tags lay over it, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Laid>,
    /// What rules adjusted of all of that, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<Adjustment>,
}

impl Composition {
    /// Every stored version in it.
    pub fn versions(&self) -> impl Iterator<Item = &VersionId> {
        self.bases.iter().chain([&self.persona])
    }
}

impl fmt::Display for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.persona.fmt(f)?;
        for (index, base) in self.bases.iter().enumerate() {
            let word = if index == 0 { " on " } else { ", " };
            write!(f, "{word}{base}")?;
        }
        for laid in &self.overrides {
            write!(f, " with the override of tag {}", laid.tag)?;
        }
        for (index, adjustment) in self.adjustments.iter().enumerate() {
            let word = if index == 0 { " with" } else { "," };
            write!(f, "{word} {adjustment}")?;
        }
        Ok(())
    }
}

/// What a composition comes to.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The effective persona.
    pub persona: Arc<Persona>,
    /// Warnings; they stop nothing.
    pub warnings: Problems,
    /// Each value with its origin.
    pub values: Vec<EffectiveValue>,
    /// All of it as a document in YAML with origins as comments.
    pub document: String,
}

impl From<Effective> for Composed {
    fn from(effective: Effective) -> Self {
        Self {
            persona: Arc::new(effective.persona),
            warnings: effective.warnings,
            values: effective.values,
            document: effective.document,
        }
    }
}

/// A version that is taken as the current one of its persona to see what that would do; it need not be stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supposed<'a> {
    pub(super) id: &'a VersionId,
    pub(super) extends: &'a [super::PersonaRef],
    pub(super) text: &'a str,
    pub(super) format: Format,
}

/// One text in its place.
struct Text {
    name: String,
    text: String,
    format: Format,
    persona: Option<PersonaName>,
    tag: Option<String>,
    kind: LayerKind,
}

impl Catalogue {
    /// What a binding is made of at present.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::summary`], and where its bases cannot be resolved.
    pub fn composition(&self, binding: &Binding) -> Result<Composition, CatalogueError> {
        let summary = self.summary(&binding.persona)?;
        let persona = summary.id();
        Ok(Composition {
            bases: self.lineage(&persona, &summary.extends, None)?,
            persona,
            overrides: binding.overrides.clone(),
            adjustments: Vec::new(),
        })
    }

    /// What a composition comes to. Made the first time, remembered later; also that it comes to nothing.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NoLongerValid`] for a version by itself, [`CatalogueError::DoesNotCompose`] for several layers,
    /// [`CatalogueError::TextLost`], and what reading the store gives.
    pub fn effective(&self, composition: &Composition) -> Result<Arc<Composed>, CatalogueError> {
        let known = self.composed().get(composition).cloned();
        let made = match known {
            Some(made) => made,
            None => {
                let made = self.make(composition, None)?;
                self.remember(composition.clone(), made.clone());
                made
            }
        };
        made.map_err(|problems| not_valid(composition, problems))
    }

    /// Remembers what a composition comes to.
    pub(super) fn remember(
        &self,
        composition: Composition,
        made: Result<Arc<Composed>, Arc<Problems>>,
    ) {
        let mut composed = self.composed();
        if composed.len() >= MOST_REMEMBERED {
            composed.clear();
        }
        composed.insert(composition, made);
    }

    /// Lays the texts of a composition over each other.
    pub(super) fn make(
        &self,
        composition: &Composition,
        supposed: Option<Supposed<'_>>,
    ) -> Result<Result<Arc<Composed>, Arc<Problems>>, CatalogueError> {
        let mut texts = Vec::new();
        for id in composition.versions() {
            let kind = if *id == composition.persona {
                LayerKind::Persona
            } else {
                LayerKind::Base
            };
            let (text, format) = match supposed {
                Some(supposed) if supposed.id == id => (supposed.text.to_owned(), supposed.format),
                _ => {
                    let stored = self
                        .store
                        .get::<Version>(Version::key(&id.name, id.version))?;
                    let stored = stored.ok_or_else(|| CatalogueError::TextLost {
                        what: format!("version {id}"),
                    })?;
                    (stored.text, stored.summary.format)
                }
            };
            texts.push(Text {
                name: id.to_string(),
                text,
                format,
                persona: Some(id.name.clone()),
                tag: None,
                kind,
            });
        }
        for laid in &composition.overrides {
            let fragment = self.fragment(&laid.digest)?;
            texts.push(Text {
                name: OVERRIDE.to_owned(),
                text: fragment.text.clone(),
                format: fragment.format,
                persona: None,
                tag: Some(laid.tag.to_string()),
                kind: LayerKind::Override,
            });
        }
        let layers: Vec<Layer<'_>> = texts
            .iter()
            .map(|text| Layer {
                source: SourceText {
                    name: &text.name,
                    text: text.text.as_bytes(),
                    format: text.format,
                    persona_name: text.persona.as_ref().map(PersonaName::as_str),
                },
                tag: text.tag.as_deref(),
                kind: text.kind,
            })
            .collect();
        Ok(
            match persona::compose_adjusted(&layers, &composition.adjustments) {
                Ok(effective) => Ok(Arc::new(Composed::from(effective))),
                Err(problems) => Err(Arc::new(problems)),
            },
        )
    }

    /// The digest that a composition is told by.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::effective`].
    pub fn digest(&self, composition: &Composition) -> Result<Digest, CatalogueError> {
        Ok(self.effective(composition)?.persona.digest.clone())
    }
}

/// Why a composition comes to nothing.
pub(super) fn not_valid(composition: &Composition, problems: Arc<Problems>) -> CatalogueError {
    let problems = Arc::unwrap_or_clone(problems);
    let alone = composition.bases.is_empty() && composition.overrides.is_empty();
    if alone && composition.adjustments.is_empty() {
        CatalogueError::NoLongerValid {
            name: composition.persona.name.clone(),
            version: composition.persona.version,
            problems,
        }
    } else {
        CatalogueError::DoesNotCompose {
            composition: Box::new(composition.clone()),
            problems,
        }
    }
}
