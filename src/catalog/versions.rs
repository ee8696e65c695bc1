//! Immutable versions of personas, and which of them a name stands for. What happens to them is in the catalogue.

use std::fmt;

use persona::{Digest, Format, Moment, PersonaName};
use serde::{Deserialize, Serialize};

use super::composition::VersionId;
use super::tags::PersonaRef;
use crate::store::{Stored, Tree};

/// Number of a version, counted from 1 for each name; never used again, not even after the persona was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(u32);

impl VersionNumber {
    /// `number`, unless it is 0.
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who stores a version, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorship {
    /// The caller, as the bus knows it.
    pub author: String,
    /// When.
    pub at: Moment,
    /// In the author's words.
    pub note: Option<String>,
}

/// What is known of a version without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// The persona.
    pub name: PersonaName,
    /// Its number.
    pub number: VersionNumber,
    /// Digest of its meaning; where it builds on others, of what it says itself.
    pub digest: Digest,
    /// What it builds on, the later over the earlier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extends: Vec<PersonaRef>,
    /// How the text is written.
    #[serde(with = "format_name")]
    pub format: Format,
    /// Who stored it.
    pub author: String,
    /// When.
    pub at: Moment,
    /// In the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl VersionSummary {
    /// Its name and number.
    pub fn id(&self) -> VersionId {
        VersionId {
            name: self.name.clone(),
            version: self.number,
        }
    }
}

/// A version with its text as given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// All but the text.
    #[serde(flatten)]
    pub summary: VersionSummary,
    /// The text as given.
    pub text: String,
}

impl Stored for Version {
    const TREE: Tree = Tree::Versions;
}

impl Version {
    /// Where it is kept. A slash is in no name.
    pub(super) fn key(name: &PersonaName, number: VersionNumber) -> String {
        format!("{name}/{:010}", number.0)
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRecord {
    /// The version in force; `None` after the persona was deleted.
    pub(super) current: Option<VersionNumber>,
    /// The highest number that was ever given.
    pub(super) newest: VersionNumber,
    /// Versions up to this number were deleted with the persona; what is left of them goes at the next start.
    pub(super) deleted: u32,
}

impl Stored for NameRecord {
    const TREE: Tree = Tree::Names;
}

/// What storing a document did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is a new version, and the current one.
    Stored(VersionSummary),
    /// It means the same as the current version, which stays.
    Unchanged(VersionSummary),
}

/// The catalogue's format names, apart from the document crate's own type.
pub(super) mod format_name {
    use persona::Format;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::catalog) fn word(format: Format) -> &'static str {
        match format {
            Format::Yaml => "yaml",
            Format::Json => "json",
            Format::Toml => "toml",
        }
    }

    pub(in crate::catalog) fn serialize<S: Serializer>(
        format: &Format,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*format))
    }

    pub(in crate::catalog) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Format, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "yaml" => Ok(Format::Yaml),
            "json" => Ok(Format::Json),
            "toml" => Ok(Format::Toml),
            other => Err(de::Error::unknown_variant(other, &["yaml", "json", "toml"])),
        }
    }
}
