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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mappings(entries: &[(&str, &str, i32)]) -> BTreeMap<Tag, Mapping> {
        let mapping = |persona: &str, priority| Mapping {
            target: Target::Persona(persona.parse().unwrap()),
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
            Resolution::Conflict(Conflict::Personas { candidates, .. }) => {
                let tags: Vec<_> = candidates.iter().map(|(tag, _)| tag.as_str()).collect();
                format!("conflict {}", tags.join(" "))
            }
            Resolution::Conflict(conflict) => conflict.to_string(),
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

    #[test]
    fn overrides_are_laid_by_rising_priority_over_whatever_persona_there_is() {
        let mut mappings = mappings(&[("web", "front", 5)]);
        for (tag, priority) in [("z", 1), ("b", 7), ("a", 7), ("other", 9)] {
            let target = Target::Override {
                digest: Digest::of_bytes(tag.as_bytes()),
            };
            mappings.insert(tag.parse().unwrap(), Mapping { target, priority });
        }
        let explicit = ExplicitBinding {
            persona: "own@2".parse().unwrap(),
            by: "root".to_owned(),
            at: Moment(1),
        };
        let default = "base".parse().unwrap();
        let check = |explicit, tags: &[&str], persona: &str, laid: &str| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let resolution = resolve(explicit, &tags, &mappings, Some(&default));
            let Resolution::Bound(binding) = resolution else {
                panic!("{resolution:?}")
            };
            let order: Vec<_> = binding
                .overrides
                .iter()
                .map(|laid| laid.tag.as_str())
                .collect();
            assert_eq!(
                (
                    binding.persona.to_string().as_str(),
                    order.join(" ").as_str()
                ),
                (persona, laid),
                "{tags:?}"
            );
        };
        check(None, &["b", "web", "z", "a"], "front", "z a b");
        check(None, &["a", "z"], "base", "z a");
        check(Some(&explicit), &["a", "web", "b"], "own@2", "a b");
        let nothing = resolve(None, &["a".to_owned()], &mappings, None);
        assert_eq!(
            nothing,
            Resolution::Unbound,
            "an override alone is no persona"
        );
    }

    #[test]
    fn mappings_of_earlier_versions_of_the_store_are_read() {
        let old = serde_json::json!({"persona": {"name": "web", "pin": 3}, "priority": 4});
        let mapping: Mapping = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(mapping.persona().unwrap().to_string(), "web@3");
        assert_eq!(serde_json::to_value(&mapping).unwrap(), old);
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
                Resolution::Bound(Binding { persona, origin: Origin::Tag { tag, priority }, .. }) => {
                    prop_assert_eq!(&mappings[&tag], &Mapping { target: Target::Persona(persona.clone()), priority });
                    prop_assert!(tags.contains(&tag.0));
                    let rules = carried.iter().all(|(_, m)| m.priority < priority || (m.priority == priority && m.persona() == Some(&persona)));
                    prop_assert!(rules);
                }
                Resolution::Bound(binding) => prop_assert!(false, "bound without a tag: {binding:?}"),
                Resolution::Conflict(Conflict::Personas { priority, candidates }) => {
                    prop_assert!(carried.iter().all(|(_, m)| m.priority <= priority));
                    let rivals = carried.iter().filter(|(_, m)| m.priority == priority).count();
                    prop_assert_eq!(candidates.len(), rivals);
                    prop_assert!(candidates.iter().any(|(_, persona)| *persona != candidates[0].1));
                }
                Resolution::Conflict(conflict) => prop_assert!(false, "no override is mapped: {conflict}"),
                Resolution::Unbound => prop_assert!(carried.is_empty()),
            }
        }
    }
}
