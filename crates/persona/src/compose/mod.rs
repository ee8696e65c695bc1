//! Layers into one persona: the bases that a persona builds on, the persona, the overrides of tags, a user's own
//! changes. Each layer is read and brought to canonical keys, all are laid over each other, and what comes out is read
//! once, as a single document is; so it is valid as a whole, and each value knows where it was written.
//!
//! Which layers there are is not decided here: the catalogue resolves names, versions and tags, the command line files.

mod clash;
mod header;
mod lineage;
mod values;

use crate::adjust::{self, Adjustment};
use crate::digest::{self, Digest};
use crate::document::{self, Entry, Node, Origin, SourceText, Text, Value};
use crate::language;
use crate::merge;
use crate::model::Persona;
use crate::problem::{Kind, Problem, Problems};
use crate::read::Reader;

pub use clash::{Clash, clash};
pub use header::{Header, header};
pub use lineage::{DEEPEST_LINEAGE, LARGEST_LINEAGE, LineageError, lineage};
pub use values::origin_of;

/// What a layer is, which decides what it may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// A persona on which another builds. Its name, its own bases and whether it is the default are not handed on.
    Base,
    /// The persona itself, whose name the result has.
    Persona,
    /// A fragment that a tag lays over the persona.
    Override,
    /// What the machine's user changed.
    Customisation,
}

/// One document in its place.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The document.
    pub source: SourceText<'a>,
    /// The tag whose override it is.
    pub tag: Option<&'a str>,
    /// What it is.
    pub kind: LayerKind,
}

/// One value of an effective persona.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// The keys that lead to it with points between them; items of lists in brackets, by name or by number from 0.
    pub path: String,
    /// The value as it was written; a secret is not shown.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
}

/// What layers come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The persona. It builds on nothing: all of its bases are in it.
    pub persona: Persona,
    /// Warnings, each with the document in which its place lies; they stop nothing.
    pub warnings: Problems,
    /// Every value with its origin, in the order of the document.
    pub values: Vec<EffectiveValue>,
    /// All of it as one document in YAML, the origin of each value as a comment behind it.
    pub document: String,
}

/// What a layer is by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The digest of what it says; the same keys and values in another order or format have the same.
    pub digest: Digest,
    /// Warnings; they stop nothing.
    pub warnings: Problems,
}

/// Lays layers over each other, the lowest first, and reads what they come to.
///
/// # Errors
/// All errors and warnings, each with the document in which its place lies.
pub fn compose(layers: &[Layer<'_>]) -> Result<Effective, Problems> {
    compose_adjusted(layers, &[])
}

/// The same, with what rules want otherwise laid over all of it, the lowest first.
///
/// # Errors
/// As [`compose`]; the document of what an adjustment got wrong is `rule NAME`.
pub fn compose_adjusted(
    layers: &[Layer<'_>],
    adjustments: &[Adjustment],
) -> Result<Effective, Problems> {
    let own = layers.iter().find(|layer| layer.kind == LayerKind::Persona);
    let source = own.map_or("", |layer| layer.source.name);
    let mut text = Text::default();
    let mut problems = Vec::new();
    let trees: Vec<Option<Node>> = layers
        .iter()
        .map(|layer| tree(&mut text, layer, &mut problems))
        .collect();
    let whole: Option<Vec<Node>> = trees.into_iter().collect();
    let Some(merged) = whole.and_then(|trees| lay(trees, &text, &mut problems)) else {
        return Err(document::collect(source, &text, problems));
    };
    let merged = adjust::lay(merged, adjustments, &mut text, &mut problems);
    let name = own.and_then(|layer| layer.source.persona_name);
    let mut reader = Reader::new(&text, problems);
    let persona = reader.persona(&merged, name);
    let problems = document::collect(source, &text, reader.into_problems());
    match persona {
        Some(persona) if !problems.has_errors() => Ok(Effective {
            values: values::values(&merged, &text),
            document: values::document(&merged, &text),
            persona,
            warnings: problems,
        }),
        _ => Err(problems),
    }
}

/// Reads a layer by itself: what is wrong with it whatever it is laid over. What it leaves out or mentions may be below
/// it, so that nothing is missed here.
///
/// # Errors
/// All errors and warnings, where there is at least one error.
pub fn part(layer: &Layer<'_>) -> Result<Part, Problems> {
    let mut text = Text::default();
    let mut problems = Vec::new();
    let Some(root) = tree(&mut text, layer, &mut problems) else {
        return Err(document::collect(layer.source.name, &text, problems));
    };
    let digest = digest::of_tree(&root);
    let root = merge::settle(root);
    let mut reader = Reader::new(&text, problems);
    // The name of an override is the one of whatever it is laid over.
    let name = layer.source.persona_name.unwrap_or("override");
    let _ = reader.persona(&root, Some(name));
    let mut found = reader.into_problems();
    found.retain(|problem| !matches!(problem.kind, Kind::Missing | Kind::UnknownName));
    let warnings = document::collect(layer.source.name, &text, found);
    if warnings.has_errors() {
        return Err(warnings);
    }
    Ok(Part { digest, warnings })
}

/// The canonical tree of a layer without what is not for others, and with problems about what it may not say.
fn tree(text: &mut Text, layer: &Layer<'_>, problems: &mut Vec<Problem>) -> Option<Node> {
    let root = document::parse_into(text, &layer.source, layer.tag, problems)?;
    let (mut root, found) = language::canonical(&root, text);
    problems.extend(found);
    let Value::Map(entries) = &mut root.value else {
        // The reader says what it is instead.
        return Some(root);
    };
    match layer.kind {
        LayerKind::Persona => {
            if let Some(entry) = take(entries, "extends") {
                let mut reader = Reader::new(text, std::mem::take(problems));
                reader.extends(&entry.value, &None);
                *problems = reader.into_problems();
            }
        }
        LayerKind::Base => {
            for key in OWN {
                take(entries, key);
            }
        }
        LayerKind::Override | LayerKind::Customisation => {
            let what = match layer.kind {
                LayerKind::Override => "an override",
                _ => "a user's customisation",
            };
            for key in OWN {
                if let Some(entry) = take(entries, key) {
                    let message = format!("{what} has no `{key}`");
                    let help = "it is laid over the persona that a domain has; remove the key";
                    let span = text.span(&entry.key_at);
                    problems.push(Problem::error(Kind::UnknownKey, span, message).help(help));
                }
            }
        }
    }
    Some(root)
}

/// What a persona says of itself alone.
const OWN: [&str; 3] = ["name", "extends", "default_persona"];

fn take(entries: &mut Vec<Entry>, key: &str) -> Option<Entry> {
    let at = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(at))
}

/// The name before all else: of the bases it is left out, so it comes behind what they say.
fn name_first(mut merged: Node) -> Node {
    if let Value::Map(entries) = &mut merged.value
        && let Some(name) = take(entries, "name")
    {
        entries.insert(0, name);
    }
    merged
}

/// All trees over each other, the lowest first.
fn lay(trees: Vec<Node>, text: &Text, problems: &mut Vec<Problem>) -> Option<Node> {
    let alone = trees.len() == 1;
    let mut trees = trees.into_iter();
    let first = trees.next()?;
    let merged = trees.try_fold(first, |below, over| {
        let at = over.at.clone();
        merge::merge(below, over, merge::strategy).map_err(|error| (error, at))
    });
    match merged {
        // What takes a value away has done so; in a document that stands alone it is a mistake, and is read as one.
        Ok(merged) if !alone => Some(name_first(merge::settle(merged))),
        Ok(merged) => Some(merged),
        Err((error, at)) => {
            let problem = Problem::error(Kind::TooLarge, text.span(&at), error.to_string());
            problems.push(problem.help("build on fewer personas, or on smaller ones"));
            None
        }
    }
}
