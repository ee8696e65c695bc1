//! The first step of a document's way: text to a persona that may become a version, or all its problems. What it
//! builds on comes from the catalogue; nothing else is read.

use std::sync::Arc;

use persona::{Digest, Format, Layer, LayerKind, SourceText};

use super::composition::{Composed, Composition, Supposed, VersionId};
use super::{Catalogue, CatalogueError, PersonaRef, VersionNumber};

/// A document that was found valid, with the text that it came from.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The version that it would be.
    pub id: VersionId,
    /// What it means, with all that it builds on.
    pub composed: Arc<Composed>,
    /// The digest of its meaning; where it builds on others, of what it says itself.
    pub digest: Digest,
    /// What it builds on, the later over the earlier.
    pub extends: Vec<PersonaRef>,
    /// The text as given.
    pub text: String,
    /// How it is written.
    pub format: Format,
}

impl Catalogue {
    /// Reads one document as the next version of its persona.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::Invalid`] with all problems; where it builds on others, what is wrong with those.
    pub fn import(&self, source: &SourceText<'_>) -> Result<Imported, CatalogueError> {
        let header = persona::header(source).map_err(|found| {
            // The whole document says more than its header.
            let whole = persona::load(source).err();
            CatalogueError::Invalid(whole.unwrap_or(found))
        })?;
        let layer = Layer {
            source: *source,
            tag: None,
            kind: LayerKind::Persona,
        };
        let extends: Vec<PersonaRef> = header.extends.iter().map(PersonaRef::from).collect();
        let id = VersionId {
            version: self.next_number(&header.name),
            name: header.name,
        };
        // What is not UTF-8 does not come as far as to be stored.
        let text = String::from_utf8_lossy(source.text).into_owned();
        if extends.is_empty() {
            let effective = persona::compose(&[layer]).map_err(CatalogueError::Invalid)?;
            return Ok(Imported {
                id,
                digest: effective.persona.digest.clone(),
                composed: Arc::new(Composed::from(effective)),
                extends,
                text,
                format: source.format,
            });
        }
        // What is wrong with it whatever it builds on is said first, all of it.
        let part = persona::part(&layer).map_err(CatalogueError::Invalid)?;
        let supposed = Supposed {
            id: &id,
            extends: &extends,
            text: &text,
            format: source.format,
        };
        let composition = Composition {
            bases: self.lineage(&id, &extends, Some(supposed))?,
            persona: id.clone(),
            overrides: Vec::new(),
            adjustments: Vec::new(),
        };
        let composed = self
            .make(&composition, Some(supposed))?
            .map_err(|problems| CatalogueError::Invalid(Arc::unwrap_or_clone(problems)))?;
        Ok(Imported {
            composed,
            digest: part.digest,
            extends,
            id,
            text,
            format: source.format,
        })
    }

    /// The number that a further version of this name gets.
    pub(super) fn next_number(&self, name: &persona::PersonaName) -> VersionNumber {
        let newest = self.names.get(name).map_or(0, |record| record.newest.get());
        // It is at least 1.
        VersionNumber::new(newest.saturating_add(1)).expect("a successor is not 0")
    }
}

/// The format of a document that nobody named: by the ending of its file name, else by what its text looks like.
pub fn guess_format(file_name: &str, text: &[u8]) -> Format {
    Format::of_file_name(file_name).unwrap_or_else(|| Format::of_text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_by_ending_then_by_the_text() {
        for (name, text, expected) in [
            ("web.json", "name: x", Format::Json),
            ("web.YML", "{}", Format::Yaml),
            ("-", " \n{\"name\": \"x\"}", Format::Json),
            ("-", "\u{feff}{}", Format::Json),
            ("web.v2", "name: x", Format::Yaml),
            ("web.toml", "", Format::Toml),
            ("-", "name = 'x'", Format::Toml),
            ("", "", Format::Yaml),
        ] {
            assert_eq!(
                guess_format(name, text.as_bytes()),
                expected,
                "{name:?} {text:?}"
            );
        }
    }
}
