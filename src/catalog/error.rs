//! Why the catalogue says no. The daemon turns these into refusals for people; nothing else reads them.

use persona::{PersonaName, Problems};

use super::composition::Composition;
use super::tags::{PersonaRef, Tag};
use super::versions::VersionNumber;
use crate::store::StoreError;

/// A refusal of the catalogue, or a fault of its store.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The document has errors; all of them are here.
    #[error("the document is not a valid persona; it has {}", count(.0))]
    Invalid(Problems),
    /// A persona of that name is there already.
    #[error("there is a persona `{name}` already; update it to add a version")]
    Exists {
        /// The name.
        name: PersonaName,
    },
    /// No persona has that name.
    #[error("there is no persona `{name}`{}", those(.known))]
    NotFound {
        /// What was asked for.
        name: PersonaName,
        /// The names that there are.
        known: Vec<PersonaName>,
    },
    /// The persona has no such version.
    #[error("persona `{name}` has no version {version}; its newest is {newest}")]
    NoVersion {
        /// The persona.
        name: PersonaName,
        /// What was asked for.
        version: VersionNumber,
        /// The highest that there is.
        newest: VersionNumber,
    },
    /// Two personas would be the default.
    #[error(
        "persona `{name}` says `default_persona: true`, and so does `{other}`; \
         at most one may, so change one of them"
    )]
    SecondDefault {
        /// The one that was refused.
        name: PersonaName,
        /// The one that is the default.
        other: PersonaName,
    },
    /// The persona is in use.
    #[error("persona `{name}` is in use by {}; free them of it first, or force it", .by.join(", "))]
    Bound {
        /// The persona.
        name: PersonaName,
        /// `domain UUID` and `tag TAG`.
        by: Vec<String>,
    },
    /// The tag is mapped to nothing.
    #[error("tag `{tag}` is not mapped to a persona")]
    NotMapped {
        /// The tag.
        tag: Tag,
    },
    /// The text cannot be a tag.
    #[error("`{text}` cannot be a tag: {reason}")]
    BadTag {
        /// What was given, shortened.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// An override has errors; all of them are here.
    #[error("the override is not valid; it has {}", count(.0))]
    InvalidOverride(Problems),
    /// An override that does not go with a persona that a domain has.
    #[error("with this override domain `{domain}` would have no valid persona: {}", first(.problems))]
    BreaksDomain {
        /// The domain, as people name it.
        domain: String,
        /// What would be wrong.
        problems: Problems,
    },
    /// A persona builds on one that is not stored.
    #[error("persona `{name}` builds on `{base}`, and there is no persona `{}`{}", .base.name, those(.known))]
    NoBase {
        /// The persona, or the base of it, that says so.
        name: PersonaName,
        /// What it builds on.
        base: PersonaRef,
        /// The names that there are.
        known: Vec<PersonaName>,
    },
    /// Personas that build on each other.
    #[error("personas build on each other in a circle: {}; take one of them out of `extends`", arrows(.circle))]
    Circle {
        /// From one persona on to itself.
        circle: Vec<PersonaName>,
    },
    /// Too many layers.
    #[error(
        "persona `{name}` builds on too much: at most {} personas one on the other and {} in all",
        persona::DEEPEST_LINEAGE,
        persona::LARGEST_LINEAGE
    )]
    TooDeep {
        /// The persona.
        name: PersonaName,
    },
    /// Layers that are each valid and come to nothing together.
    #[error("{composition} is no valid persona: {}", first(.problems))]
    DoesNotCompose {
        /// The layers.
        composition: Box<Composition>,
        /// What is wrong with all of them together.
        problems: Problems,
    },
    /// Personas that build on this one would not be valid with it.
    #[error("others build on `{name}` and would not be valid with it: {}", each(.broken))]
    Breaks {
        /// The persona that was to be changed.
        name: PersonaName,
        /// Each of the others with the reason.
        broken: Vec<(PersonaName, Box<CatalogueError>)>,
    },
    /// A text that is in force is not in the store.
    #[error(
        "the text of {what} is not in the store any more; apply another persona or map the tag anew"
    )]
    TextLost {
        /// Which.
        what: String,
    },
    /// The text is no `NAME` or `NAME@VERSION`.
    #[error("`{text}` names no persona: {reason}")]
    BadReference {
        /// What was given, shortened.
        text: String,
        /// Why not.
        reason: String,
    },
    /// A version was stored that this version of the daemon no longer accepts.
    #[error(
        "version {version} of persona `{name}` was stored by another version of the daemon, and this one cannot \
         read it: it has {}; update the persona",
        count(.problems)
    )]
    NoLongerValid {
        /// The persona.
        name: PersonaName,
        /// The version.
        version: VersionNumber,
        /// What is wrong with it.
        problems: Problems,
    },
    /// The store failed or refused.
    #[error("the catalogue's store failed")]
    Store(#[from] StoreError),
}

/// The first error with its place, and how many more there are.
fn first(problems: &Problems) -> String {
    let errors: Vec<_> = problems
        .iter()
        .filter(|problem| problem.severity == persona::Severity::Error)
        .collect();
    let Some(problem) = errors.first() else {
        return "it has no problem that is known".to_owned();
    };
    let document = problem.document.as_deref().unwrap_or(&problems.source);
    let place = format!("{document}, line {}", problem.span.line);
    let more = match errors.len() + problems.left_out - 1 {
        0 => String::new(),
        1 => "; and 1 more".to_owned(),
        n => format!("; and {n} more"),
    };
    format!("{} ({place}){more}", problem.message)
}

fn arrows(circle: &[PersonaName]) -> String {
    let names: Vec<_> = circle.iter().map(PersonaName::as_str).collect();
    names.join(" -> ")
}

fn each(broken: &[(PersonaName, Box<CatalogueError>)]) -> String {
    let reasons: Vec<_> = broken
        .iter()
        .map(|(name, error)| format!("`{name}`: {error}"))
        .collect();
    reasons.join("; ")
}

fn count(problems: &Problems) -> String {
    match problems.len() + problems.left_out {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

fn those(names: &[PersonaName]) -> String {
    if names.is_empty() {
        return "; none is stored yet".to_owned();
    }
    let shown: Vec<_> = names.iter().take(10).map(PersonaName::as_str).collect();
    let more = if names.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("; there are {}{more}", shown.join(", "))
}
