//! Documents and what they build on, where they are compared or checked without being stored: files of the command line
//! and versions that the daemon has. Which verb wants what is not here.

use persona::{
    Digest, Effective, Format, Header, Layer, LayerKind, LineageError, Persona, PersonaName,
    Problems, Reference, SourceText,
};

/// A document that was read.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// What messages call it: the file, or `NAME@VERSION`.
    pub(super) shown: String,
    pub(super) text: Vec<u8>,
    pub(super) format: Format,
    /// A name for a document that does not say its own.
    pub(super) name: Option<String>,
}

impl Given {
    pub(super) fn source(&self) -> SourceText<'_> {
        SourceText {
            name: &self.shown,
            text: &self.text,
            format: self.format,
            persona_name: self.name.as_deref(),
        }
    }

    fn layer(&self, kind: LayerKind) -> Layer<'_> {
        Layer {
            source: self.source(),
            tag: None,
            kind,
        }
    }
}

/// What a document comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is a persona with all that it builds on.
    Whole(Box<Effective>),
    /// It is right as far as can be told without this, which it builds on.
    Part {
        name: PersonaName,
        digest: Digest,
        warnings: Problems,
        missing: Reference,
    },
    /// It is not valid.
    Wrong(Problems),
    /// What it builds on comes to no order; the sentence says why.
    Tangled { reason: String },
}

impl Outcome {
    /// The persona, where it is whole.
    pub(super) fn persona(&self) -> Option<&Persona> {
        match self {
            Self::Whole(effective) => Some(&effective.persona),
            _ => None,
        }
    }
}

/// Documents by what they say that they are.
#[derive(Debug, Default)]
pub(super) struct Known {
    documents: Vec<(Header, Option<u32>, Given)>,
}

impl Known {
    /// Adds a document, as the current version of its name or as a certain one. One that has no header is no base.
    pub(super) fn add(&mut self, version: Option<u32>, given: Given) {
        if let Ok(header) = persona::header(&given.source()) {
            self.documents.push((header, version, given));
        }
    }

    /// A document for a base: the version that is meant, else one that is no certain version.
    fn find(&self, base: &Reference) -> Option<usize> {
        let named = |version: Option<u32>| {
            self.documents
                .iter()
                .position(|(header, of, _)| header.name == base.name && *of == version)
        };
        base.version
            .and_then(|version| named(Some(version)))
            .or_else(|| named(None))
    }

    /// A base of these documents that is not among them.
    pub(super) fn missing(&self) -> Option<Reference> {
        self.documents
            .iter()
            .flat_map(|(header, _, _)| &header.extends)
            .find(|base| self.find(base).is_none())
            .cloned()
    }

    /// Reads a document with all that it builds on, as far as that is known.
    pub(super) fn read(&self, given: &Given) -> Outcome {
        let header = match persona::header(&given.source()) {
            Ok(header) if !header.extends.is_empty() => header,
            // A document that stands alone says all its problems by itself.
            _ => return whole(&[given.layer(LayerKind::Persona)]),
        };
        let own = self
            .documents
            .iter()
            .position(|(_, _, other)| other.shown == given.shown);
        let order = persona::lineage(own, &header.extends, |_, base| {
            let index = self.find(base).ok_or_else(|| base.clone())?;
            Ok((Some(index), self.documents[index].0.extends.clone()))
        });
        match order {
            Ok(order) => {
                let bases = order
                    .into_iter()
                    .flatten()
                    .map(|index| self.documents[index].2.layer(LayerKind::Base));
                let layers: Vec<Layer<'_>> =
                    bases.chain([given.layer(LayerKind::Persona)]).collect();
                whole(&layers)
            }
            Err(LineageError::NotFound(missing)) => {
                match persona::part(&given.layer(LayerKind::Persona)) {
                    Ok(part) => Outcome::Part {
                        name: header.name,
                        digest: part.digest,
                        warnings: part.warnings,
                        missing,
                    },
                    Err(problems) => Outcome::Wrong(problems),
                }
            }
            Err(LineageError::Circle(circle)) => {
                let names: Vec<_> = circle
                    .into_iter()
                    .flatten()
                    .map(|index| self.documents[index].0.name.to_string())
                    .collect();
                let reason = format!(
                    "personas build on each other in a circle: {}",
                    names.join(" -> ")
                );
                Outcome::Tangled { reason }
            }
            Err(LineageError::TooDeep) => Outcome::Tangled {
                reason: format!(
                    "it builds on too much: at most {} personas one on the other and {} in all",
                    persona::DEEPEST_LINEAGE,
                    persona::LARGEST_LINEAGE
                ),
            },
        }
    }
}

fn whole(layers: &[Layer<'_>]) -> Outcome {
    match persona::compose(layers) {
        Ok(effective) => Outcome::Whole(Box::new(effective)),
        Err(problems) => Outcome::Wrong(problems),
    }
}
