//! What tags mean, and which persona a domain gets: an explicit binding first, then the tag of the highest priority,
//! then the default; and which overrides its tags lay over it. Pure; the catalogue keeps the mappings and the bindings.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use persona::{Digest, Moment, PersonaName};
use serde::{Deserialize, Serialize};

use super::composition::VersionId;
use super::error::CatalogueError;
use super::versions::VersionNumber;
use crate::store::{Stored, Tree};

/// A word in a domain's metadata: 1 to 63 bytes without white space, control characters or `<>&"'`, and not starting
/// with `+` or `-`, by which the command line adds and removes tags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// Longest tag, in bytes.
    pub const LONGEST: usize = 63;

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = CatalogueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > Self::LONGEST {
            "it is longer than 63 bytes"
        } else if text.starts_with(['+', '-']) {
            "it starts with `+` or `-`"
        } else if text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "<>&\"'".contains(c))
        {
            "it has white space, a control character or one of < > & \" ' in it"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(CatalogueError::BadTag {
            text: text.chars().take(Self::LONGEST + 1).collect(),
            reason,
        })
    }
}

impl TryFrom<String> for Tag {
    type Error = CatalogueError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `NAME`, which follows the persona's current version, or `NAME@VERSION`, which stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersonaRef {
    /// The persona.
    pub name: PersonaName,
    /// The version that is pinned; `None` follows the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<VersionNumber>,
}

impl FromStr for PersonaRef {
    type Err = CatalogueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason: String| {
            let text = text.chars().take(100).collect();
            CatalogueError::BadReference { text, reason }
        };
        let (name, pin) = match text.split_once('@') {
            None => (text, None),
            Some((name, version)) => {
                let pin = version.parse().ok().and_then(VersionNumber::new);
                (
                    name,
                    Some(pin.ok_or_else(|| refuse("a version is a number from 1".to_owned()))?),
                )
            }
        };
        let name = name
            .parse()
            .map_err(|error: persona::PersonaNameError| refuse(error.to_string()))?;
        Ok(Self { name, pin })
    }
}

impl fmt::Display for PersonaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pin {
            None => write!(f, "{}", self.name),
            Some(pin) => write!(f, "{}@{pin}", self.name),
        }
    }
}

impl From<&persona::Reference> for PersonaRef {
    fn from(reference: &persona::Reference) -> Self {
        Self {
            name: reference.name.clone(),
            pin: reference.version.and_then(VersionNumber::new),
        }
    }
}

/// What a tag means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// What a domain with the tag gets.
    #[serde(flatten)]
    pub target: Target,
    /// The persona of the highest priority wins; of overrides, the higher is laid over the lower.
    pub priority: i32,
}

/// What a domain with a tag gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A persona.
    Persona(PersonaRef),
    /// A fragment that is laid over whatever persona the domain has.
    Override {
        /// The digest of its text.
        digest: Digest,
    },
}

impl Mapping {
    /// The persona, where it means one.
    pub fn persona(&self) -> Option<&PersonaRef> {
        match &self.target {
            Target::Persona(persona) => Some(persona),
            Target::Override { .. } => None,
        }
    }
}

/// An override that a tag of a domain lays over its persona.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Laid {
    /// Its priority; a higher one is laid over a lower one. First, because overrides are ordered by it.
    pub priority: i32,
    /// The tag; orders those of equal priority, which differ in no value.
    pub tag: Tag,
    /// The digest of its text.
    pub digest: Digest,
}

impl Stored for Mapping {
    const TREE: Tree = Tree::Mappings;
}

/// A persona that a person gave to a domain; it wins over tags until it is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplicitBinding {
    /// The persona.
    pub persona: PersonaRef,
    /// Who gave it.
    pub by: String,
    /// When.
    pub at: Moment,
}

impl Stored for ExplicitBinding {
    const TREE: Tree = Tree::Bindings;
}

/// Why a domain has its persona.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Origin {
    /// A person gave it.
    Explicit,
    /// A tag maps to it.
    Tag {
        /// The tag; of several with the same priority for the same persona, the first in order.
        tag: Tag,
        /// Its priority.
        priority: i32,
    },
    /// No tag maps, and the persona is the default.
    Default,
    /// A rule of the persona before it gave it.
    Shift {
        /// The rule.
        rule: String,
        /// The version that has the rule.
        of: VersionId,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit => f.write_str("explicit"),
            Self::Tag { tag, priority } => write!(f, "tag {tag} (priority {priority})"),
            Self::Default => f.write_str("default"),
            Self::Shift { rule, of } => write!(f, "rule {rule} of {of}"),
        }
    }
}

/// Which persona a domain has, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The persona.
    pub persona: PersonaRef,
    /// Where that comes from.
    pub origin: Origin,
    /// What the domain's tags lay over it, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Laid>,
}

/// Tags of equal priority that want different things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// Different personas.
    Personas {
        /// Their priority.
        priority: i32,
        /// What each of them wants, by tag.
        candidates: Vec<(Tag, PersonaRef)>,
    },
    /// Different values in their overrides.
    Overrides {
        /// Their priority.
        priority: i32,
        /// A tag and the line of its override that sets the value.
        one: (Tag, u32),
        /// Another tag and the line of its override.
        other: (Tag, u32),
        /// The keys that lead to the value.
        path: String,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Personas {
                priority,
                candidates,
            } => {
                write!(f, "tags of priority {priority} want different personas: ")?;
                for (index, (tag, persona)) in candidates.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}`{tag}` wants {persona}")?;
                }
            }
            Self::Overrides {
                priority,
                one: (one, line),
                other: (other, other_line),
                path,
            } => write!(
                f,
                "overrides of priority {priority} set `{path}` differently: that of tag `{one}` on line {line}, that \
                 of tag `{other}` on line {other_line}"
            )?,
        }
        f.write_str("; give one of them a higher priority")
    }
}

/// What a domain's tags and bindings come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// One persona.
    Bound(Binding),
    /// No decision; the last good state holds.
    Conflict(Conflict),
    /// No persona.
    Unbound,
}

/// Which persona a domain gets, and what is laid over it. The order of the tags does not matter, nor does a tag that is
/// there twice or that nothing maps. Overrides of equal priority are not compared here: that needs their texts.
pub fn resolve(
    explicit: Option<&ExplicitBinding>,
    tags: &[String],
    mappings: &BTreeMap<Tag, Mapping>,
    default: Option<&PersonaName>,
) -> Resolution {
    // In the order of the mappings, so the answer does not depend on that of the tags.
    let mapped: Vec<(&Tag, &Mapping)> = mappings
        .iter()
        .filter(|(tag, _)| tags.iter().any(|text| text == tag.as_str()))
        .collect();
    let (persona, origin) = match persona(explicit, &mapped, default) {
        Ok(Some(found)) => found,
        Ok(None) => return Resolution::Unbound,
        Err(conflict) => return Resolution::Conflict(conflict),
    };
    let mut overrides: Vec<Laid> = mapped
        .iter()
        .filter_map(|(tag, mapping)| match &mapping.target {
            Target::Persona(_) => None,
            Target::Override { digest } => Some(Laid {
                priority: mapping.priority,
                tag: (*tag).clone(),
                digest: digest.clone(),
            }),
        })
        .collect();
    overrides.sort();
    Resolution::Bound(Binding {
        persona,
        origin,
        overrides,
    })
}

fn persona(
    explicit: Option<&ExplicitBinding>,
    mapped: &[(&Tag, &Mapping)],
    default: Option<&PersonaName>,
) -> Result<Option<(PersonaRef, Origin)>, Conflict> {
    if let Some(explicit) = explicit {
        return Ok(Some((explicit.persona.clone(), Origin::Explicit)));
    }
    let wanted: Vec<(&Tag, &PersonaRef, i32)> = mapped
        .iter()
        .filter_map(|(tag, mapping)| Some((*tag, mapping.persona()?, mapping.priority)))
        .collect();
    let Some(priority) = wanted.iter().map(|(_, _, priority)| *priority).max() else {
        let default = default.map(|name| {
            let persona = PersonaRef {
                name: name.clone(),
                pin: None,
            };
            (persona, Origin::Default)
        });
        return Ok(default);
    };
    let candidates: Vec<(Tag, PersonaRef)> = wanted
        .into_iter()
        .filter(|(_, _, of)| *of == priority)
        .map(|(tag, persona, _)| (tag.clone(), persona.clone()))
        .collect();
    match candidates.first() {
        Some((tag, first)) if candidates.iter().all(|(_, persona)| persona == first) => {
            let origin = Origin::Tag {
                tag: tag.clone(),
                priority,
            };
            Ok(Some((first.clone(), origin)))
        }
        _ => Err(Conflict::Personas {
            priority,
            candidates,
        }),
    }
}

#[cfg(test)]
mod tests;
