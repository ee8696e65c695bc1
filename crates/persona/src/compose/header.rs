//! What a document says of its name, its bases and whether it is the default, without the rest: the catalogue looks the
//! bases up before it can read the whole.

use crate::document::{self, SourceText};
use crate::language;
use crate::merge;
use crate::model::{PersonaName, Reference};
use crate::problem::Problems;
use crate::read::Reader;

/// A persona's name, what it builds on, and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: PersonaName,
    /// Its bases, the later over the earlier.
    pub extends: Vec<Reference>,
    /// Whether it is for every new domain that no tag maps.
    pub default_persona: bool,
}

/// Reads the name and the bases of a document, and nothing else of it.
///
/// # Errors
/// What is wrong with the text or with these two keys.
pub fn header(source: &SourceText<'_>) -> Result<Header, Problems> {
    let mut problems = Vec::new();
    let (text, root) = document::parse(source, &mut problems);
    // A key without a value takes one of a base away, and is no mistake here.
    let root = root.map(|root| merge::settle(language::canonical(&root, &text).0));
    let mut reader = Reader::new(&text, problems);
    let header = root.and_then(|root| reader.header(&root, source.persona_name));
    let problems = document::collect(source.name, &text, reader.into_problems());
    match header {
        Some((name, extends, default_persona)) if !problems.has_errors() => Ok(Header {
            name,
            extends,
            default_persona,
        }),
        _ => Err(problems),
    }
}
