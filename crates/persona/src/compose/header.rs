//! What a document says of its name and its bases, without the rest: the catalogue looks the bases up before it can
//! read the whole.

use crate::document::{self, Entry, Node, SourceText, Text, Value};
use crate::language;
use crate::model::{PersonaName, Reference};
use crate::problem::{Kind, Problem, Problems};

/// The most bases that one document names.
const MOST_BASES: usize = 16;

/// A persona's name and what it builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: PersonaName,
    /// Its bases, the later over the earlier.
    pub extends: Vec<Reference>,
}

/// Reads the name and the bases of a document, and nothing else of it.
///
/// # Errors
/// What is wrong with the text or with these two keys.
pub fn header(source: &SourceText<'_>) -> Result<Header, Problems> {
    let mut problems = Vec::new();
    let (text, root) = document::parse(source, &mut problems);
    let root = root.map(|root| language::canonical(&root, &text).0);
    let header = root.and_then(|root| read(&root, source, &text, &mut problems));
    let problems = document::collect(source.name, &text, problems);
    match header {
        Some(header) if !problems.has_errors() => Ok(header),
        _ => Err(problems),
    }
}

fn read(
    root: &Node,
    source: &SourceText<'_>,
    text: &Text,
    problems: &mut Vec<Problem>,
) -> Option<Header> {
    let Value::Map(entries) = &root.value else {
        let message = format!("a persona is a map of keys, not {}", root.describe());
        problems.push(Problem::error(
            Kind::WrongType,
            text.span(&root.at),
            message,
        ));
        return None;
    };
    let entry = |key: &str| entries.iter().find(|entry| entry.key == key);
    let named = entry("name").and_then(|entry| Some((entry.value.scalar()?, &entry.value.at)));
    let name = match named.or(source.persona_name.map(|name| (name, &root.at))) {
        Some((name, at)) => match name.parse::<PersonaName>() {
            Ok(name) => Some(name),
            Err(error) => {
                problems.push(Problem::error(
                    Kind::BadName,
                    text.span(at),
                    error.to_string(),
                ));
                None
            }
        },
        None => {
            let problem =
                Problem::error(Kind::Missing, text.span(&(0..0)), "the persona has no name");
            problems.push(problem.help("add `name: …`, or give one with --name"));
            None
        }
    };
    let extends = entry("extends").map_or_else(Vec::new, |entry| references(entry, text, problems));
    Some(Header {
        name: name?,
        extends,
    })
}

/// The bases that `extends` names: one `NAME` or `NAME@VERSION`, or a list of them.
pub(super) fn references(
    entry: &Entry,
    text: &Text,
    problems: &mut Vec<Problem>,
) -> Vec<Reference> {
    let nodes = match &entry.value.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(&entry.value),
    };
    if nodes.len() > MOST_BASES {
        let message = format!("a persona builds on at most {MOST_BASES} others");
        problems.push(Problem::error(
            Kind::TooLarge,
            text.span(&entry.value.at),
            message,
        ));
        return Vec::new();
    }
    let mut found: Vec<Reference> = Vec::new();
    for node in nodes {
        let Some(given) = node.scalar().filter(|_| !node.is_empty()) else {
            let message = format!("`extends` names personas, not {}", node.describe());
            let problem = Problem::error(Kind::WrongType, text.span(&node.at), message);
            problems.push(problem.help("write NAME, NAME@VERSION or a list of them"));
            continue;
        };
        match reference(given) {
            Ok(reference) if found.contains(&reference) => {
                let message = format!("`{reference}` stands here a second time");
                problems.push(Problem::error(
                    Kind::Duplicate,
                    text.span(&node.at),
                    message,
                ));
            }
            Ok(reference) => found.push(reference),
            Err(message) => {
                let problem = Problem::error(Kind::BadName, text.span(&node.at), message);
                problems.push(
                    problem.help("write NAME, which follows the current version, or NAME@VERSION"),
                );
            }
        }
    }
    found
}

fn reference(text: &str) -> Result<Reference, String> {
    let (name, version) = match text.split_once('@') {
        None => (text, None),
        Some((name, version)) => {
            let number = version.parse::<u32>().ok().filter(|number| *number > 0);
            let number =
                number.ok_or_else(|| "the version of a base is a number from 1".to_owned())?;
            (name, Some(number))
        }
    };
    let name = name
        .trim()
        .parse()
        .map_err(|error: crate::model::PersonaNameError| error.to_string())?;
    Ok(Reference { name, version })
}
