//! What tags mean, and which persona a domain gets: an explicit binding first, then the tag of the highest priority,
//! then the default. Pure; the catalogue keeps the mappings and the bindings.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use persona::{Moment, PersonaName};
use serde::{Deserialize, Serialize};

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

/// What a tag means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The persona.
    pub persona: PersonaRef,
    /// The highest among a domain's tags wins.
    pub priority: i32,
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
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit => f.write_str("explicit"),
            Self::Tag { tag, priority } => write!(f, "tag {tag} (priority {priority})"),
            Self::Default => f.write_str("default"),
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
}

/// Tags of equal priority that want different things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Their priority.
    pub priority: i32,
    /// What each of them wants, by tag.
    pub candidates: Vec<(Tag, PersonaRef)>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tags of priority {} want different personas: ",
            self.priority
        )?;
        for (index, (tag, persona)) in self.candidates.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{tag}` wants {persona}")?;
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

/// Which persona a domain gets. The order of the tags does not matter, nor does a tag that is there twice or that
/// nothing maps.
pub fn resolve(
    explicit: Option<&ExplicitBinding>,
    tags: &[String],
    mappings: &BTreeMap<Tag, Mapping>,
    default: Option<&PersonaName>,
) -> Resolution {
    if let Some(explicit) = explicit {
        return Resolution::Bound(Binding {
            persona: explicit.persona.clone(),
            origin: Origin::Explicit,
        });
    }
    // In the order of the mappings, so the answer does not depend on that of the tags.
    let mapped = || {
        mappings
            .iter()
            .filter(|(tag, _)| tags.iter().any(|text| text == tag.as_str()))
    };
    let Some(priority) = mapped().map(|(_, mapping)| mapping.priority).max() else {
        return default.map_or(Resolution::Unbound, |name| {
            let persona = PersonaRef {
                name: name.clone(),
                pin: None,
            };
            Resolution::Bound(Binding {
                persona,
                origin: Origin::Default,
            })
        });
    };
    let candidates: Vec<_> = mapped()
        .filter(|(_, mapping)| mapping.priority == priority)
        .collect();
    let (tag, first) = candidates[0];
    if candidates
        .iter()
        .all(|(_, mapping)| mapping.persona == first.persona)
    {
        let origin = Origin::Tag {
            tag: tag.clone(),
            priority,
        };
        return Resolution::Bound(Binding {
            persona: first.persona.clone(),
            origin,
        });
    }
    let candidates = candidates
        .into_iter()
        .map(|(tag, mapping)| (tag.clone(), mapping.persona.clone()))
        .collect();
    Resolution::Conflict(Conflict {
        priority,
        candidates,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mappings(entries: &[(&str, &str, i32)]) -> BTreeMap<Tag, Mapping> {
        let mapping = |persona: &str, priority| Mapping {
            persona: persona.parse().unwrap(),
            priority,
        };
        entries
            .iter()
            .map(|(tag, persona, priority)| (tag.parse().unwrap(), mapping(persona, *priority)))
            .collect()
    }

    /// `persona via origin`, `conflict TAGS`, or `unbound`.
    fn outcome(
        explicit: Option<&str>,
        tags: &[&str],
        entries: &[(&str, &str, i32)],
        default: Option<&str>,
    ) -> String {
        let explicit = explicit.map(|text| ExplicitBinding {
            persona: text.parse().unwrap(),
            by: "root".to_owned(),
            at: Moment(1),
        });
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let default = default.map(|name| name.parse().unwrap());
        match resolve(
            explicit.as_ref(),
            &tags,
            &mappings(entries),
            default.as_ref(),
        ) {
            Resolution::Bound(binding) => format!("{} via {}", binding.persona, binding.origin),
            Resolution::Conflict(conflict) => {
                let tags: Vec<_> = conflict
                    .candidates
                    .iter()
                    .map(|(tag, _)| tag.as_str())
                    .collect();
                format!("conflict {}", tags.join(" "))
            }
            Resolution::Unbound => "unbound".to_owned(),
        }
    }

    #[test]
    fn explicit_wins_over_tags_and_tags_over_the_default() {
        let entries = [
            ("web", "front", 5),
            ("db", "database@3", 9),
            ("prod", "front", 5),
        ];
        let check = |explicit, tags: &[&str], default, expected: &str| {
            assert_eq!(
                outcome(explicit, tags, &entries, default),
                expected,
                "{explicit:?} {tags:?} {default:?}"
            );
        };
        check(
            Some("other@2"),
            &["web", "db"],
            Some("base"),
            "other@2 via explicit",
        );
        check(
            None,
            &["web", "db"],
            Some("base"),
            "database@3 via tag db (priority 9)",
        );
        check(
            None,
            &["web"],
            Some("base"),
            "front via tag web (priority 5)",
        );
        check(
            None,
            &["web", "prod", "web"],
            None,
            "front via tag prod (priority 5)",
        );
        check(None, &["unknown"], Some("base"), "base via default");
        check(None, &[], None, "unbound");
    }

    #[test]
    fn equal_priorities_for_different_personas_are_a_conflict_unless_outranked() {
        let entries = [
            ("a", "one", 5),
            ("b", "two", 5),
            ("c", "one@1", 5),
            ("top", "three", 6),
        ];
        let check = |tags: &[&str], expected: &str| {
            assert_eq!(outcome(None, tags, &entries, Some("base")), expected)
        };
        check(&["b", "a"], "conflict a b");
        check(&["a", "c"], "conflict a c");
        check(&["a", "b", "top"], "three via tag top (priority 6)");
    }

    #[test]
    fn tags_and_references_are_checked() {
        for good in ["web", "tier:front/eu-1", "käse", "a+b"] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "+web",
            "-web",
            "a b",
            "a\tb",
            "a<b",
            "a\u{0}",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "Web@12".parse::<PersonaRef>().unwrap().to_string(),
            "web@12"
        );
        for bad in [
            "web@",
            "web@0",
            "web@-1",
            "web@1@2",
            "@1",
            "web@4294967296",
            "-",
        ] {
            assert!(bad.parse::<PersonaRef>().is_err(), "{bad:?}");
        }
    }

    fn any_entries() -> impl Strategy<Value = Vec<(String, String, i32)>> {
        proptest::collection::vec(("[a-f]", "[p-r](@[12])?", 0..3_i32), 0..8)
    }

    proptest! {
        #[test]
        fn the_order_of_tags_does_not_matter(entries in any_entries(), tags in proptest::collection::vec("[a-h]", 0..6), seed in 0..720_usize) {
            let entries: Vec<_> = entries.iter().map(|(t, p, n)| (t.as_str(), p.as_str(), *n)).collect();
            let mappings = mappings(&entries);
            let mut shuffled = tags.clone();
            (0..shuffled.len()).for_each(|n| { let len = shuffled.len(); shuffled.swap(n, (seed + n * 5) % len) });
            shuffled.extend(tags.first().cloned());
            prop_assert_eq!(resolve(None, &tags, &mappings, None), resolve(None, &shuffled, &mappings, None));
        }

        #[test]
        fn nothing_outranks_what_is_bound_and_a_conflict_has_rivals(entries in any_entries(), tags in proptest::collection::vec("[a-h]", 0..6)) {
            let entries: Vec<_> = entries.iter().map(|(t, p, n)| (t.as_str(), p.as_str(), *n)).collect();
            let mappings = mappings(&entries);
            let carried: Vec<_> = mappings.iter().filter(|(tag, _)| tags.contains(&tag.0)).collect();
            match resolve(None, &tags, &mappings, None) {
                Resolution::Bound(Binding { persona, origin: Origin::Tag { tag, priority } }) => {
                    prop_assert_eq!(&mappings[&tag], &Mapping { persona: persona.clone(), priority });
                    prop_assert!(tags.contains(&tag.0));
                    let rules = carried.iter().all(|(_, m)| m.priority < priority || (m.priority == priority && m.persona == persona));
                    prop_assert!(rules);
                }
                Resolution::Bound(binding) => prop_assert!(false, "bound without a tag: {binding:?}"),
                Resolution::Conflict(conflict) => {
                    prop_assert!(carried.iter().all(|(_, m)| m.priority <= conflict.priority));
                    let rivals = carried.iter().filter(|(_, m)| m.priority == conflict.priority).count();
                    prop_assert_eq!(conflict.candidates.len(), rivals);
                    prop_assert!(conflict.candidates.iter().any(|(_, persona)| *persona != conflict.candidates[0].1));
                }
                Resolution::Unbound => prop_assert!(carried.is_empty()),
            }
        }
    }
}
