//! Why the catalogue says no. The daemon turns these into refusals for people; nothing else reads them.

use persona::{PersonaName, Problems};

use super::tags::Tag;
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
    /// A mapping to a fragment of a document.
    #[error(
        "tag `{tag}` cannot be mapped to an override: this version lays no fragments over a persona; \
         map the tag to a persona that has these values"
    )]
    OverridesNotSupported {
        /// The tag.
        tag: Tag,
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
