//! What a rule wants otherwise of the guest than the document says: the value of a setting, a package more or less. Here
//! is what such a change is, how it is laid over the merged tree of a persona, and how its value is held to what the
//! document itself would be held to. Which adjustments are in force, and in which order, is the daemon's business.
//!
//! An adjustment is one more layer: its tree is merged and read with all others, so that whatever comes out has passed
//! the one validation that there is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::document::{Entry, Format, Node, Text, Value};
use crate::language;
use crate::merge::{self, MergeError};
use crate::problem::{Kind, Problem};
use crate::read::Reader;
use crate::rule::Action;

/// What an adjustment changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A setting has another value.
    Set {
        /// Its key, such as `os_settings.theme`.
        key: String,
        /// The value.
        value: String,
    },
    /// A package is part of `software_stack`.
    Install(String),
    /// A package is no part of `software_stack`.
    Remove(String),
}

impl Change {
    /// What an action changes of the persona itself; `None` where it changes nothing of it.
    pub fn of(action: &Action) -> Option<Self> {
        match action {
            Action::Apply { key, value } => Some(Self::Set {
                key: key.clone(),
                value: value.clone(),
            }),
            Action::InstallPackage(name) => Some(Self::Install(name.clone())),
            Action::RemovePackage(name) => Some(Self::Remove(name.clone())),
            _ => None,
        }
    }

    /// The action that calls for it.
    pub fn action(&self) -> Action {
        match self {
            Self::Set { key, value } => Action::Apply {
                key: key.clone(),
                value: value.clone(),
            },
            Self::Install(name) => Action::InstallPackage(name.clone()),
            Self::Remove(name) => Action::RemovePackage(name.clone()),
        }
    }

    /// Whether both change one thing, so that the later has its way.
    pub fn same_subject(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Set { key, .. }, Self::Set { key: other, .. }) => key == other,
            (
                Self::Install(name) | Self::Remove(name),
                Self::Install(other) | Self::Remove(other),
            ) => name == other,
            _ => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, value } => write!(f, "{key} = {value}"),
            Self::Install(name) => write!(f, "package {name}"),
            Self::Remove(name) => write!(f, "no package {name}"),
        }
    }
}

/// A change and the rule that wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Adjustment {
    /// Name of the rule.
    pub rule: String,
    /// What it wants.
    pub change: Change,
}

impl fmt::Display for Adjustment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by rule {}", self.change, self.rule)
    }
}

/// Keys of settings whose values are maps of names as they are.
const DICTIONARIES: [&str; 2] = ["os_settings.sysctl", "os_settings.services"];

/// Keys of settings that are lists: their value is written with commas.
const LISTS: [&str; 2] = [
    "application_settings.ide_extensions",
    "application_settings.browser_extensions",
];

/// The keys that lead to a setting, from the root.
fn path(key: &str) -> Vec<&str> {
    let dictionary = DICTIONARIES.iter().find_map(|dictionary| {
        let name = key.strip_prefix(dictionary)?.strip_prefix('.')?;
        Some((dictionary, name))
    });
    match dictionary {
        Some((dictionary, name)) => dictionary.split('.').chain([name]).collect(),
        None => match key.split_once('.') {
            Some((section, setting)) => vec![section, setting],
            None => vec![key],
        },
    }
}

/// All adjustments over a merged tree, the lowest first. What does not go with it is reported, and the rest goes on.
pub(crate) fn lay(
    mut tree: Node,
    adjustments: &[Adjustment],
    text: &mut Text,
    problems: &mut Vec<Problem>,
) -> Node {
    for Adjustment { rule, change } in adjustments {
        if let Change::Remove(name) = change {
            remove(&mut tree, name);
            continue;
        }
        if let Change::Install(name) = change
            && packages(&mut tree).is_some_and(|items| items.iter().any(|item| is_of(item, name)))
        {
            continue;
        }
        let over = written(change, &format!("rule {rule}"), text);
        let (over, found) = language::canonical(&over, text);
        problems.extend(found);
        let at = over.at.clone();
        match merge::merge(tree.clone(), over, merge::strategy) {
            Ok(merged) => tree = merged,
            Err(error @ MergeError::TooLarge { .. }) => {
                let span = text.span(&at);
                problems.push(Problem::error(Kind::TooLarge, span, error.to_string()));
            }
        }
    }
    tree
}

/// What is wrong with a change whatever it is laid over, with places in a text of its own.
pub(crate) fn check(change: &Change) -> Vec<Problem> {
    let mut text = Text::default();
    let tree = written(change, "", &mut text);
    let (tree, found) = language::canonical(&tree, &text);
    let mut reader = Reader::new(&text, found);
    let _ = reader.persona(&tree, Some("adjusted"));
    let mut found = reader.into_problems();
    found.retain(|problem| problem.kind != Kind::UnknownName);
    found
}

/// A change as a document would write it; every place is that of its one line.
fn written(change: &Change, document: &str, text: &mut Text) -> Node {
    let at = text.add(document, None, Format::Yaml, &change.to_string());
    let node = |value| Node {
        value,
        at: at.clone(),
    };
    let entry = |key: &str, value| Entry {
        key: key.to_owned(),
        key_at: at.clone(),
        value,
    };
    match change {
        Change::Set { key, value } => {
            let single = |text: &str| {
                let plain = node(Value::Plain(text.to_owned()));
                // A word that would take the value away is a value here.
                if plain.is_empty() {
                    node(Value::Quoted(text.to_owned()))
                } else {
                    plain
                }
            };
            let value = if LISTS.contains(&key.as_str()) {
                let items = value.split(',').map(str::trim);
                let items = items.filter(|item| !item.is_empty());
                node(Value::List(items.map(single).collect()))
            } else {
                single(value)
            };
            path(key).into_iter().rev().fold(value, |below, key| {
                node(Value::Map(vec![entry(key, below)]))
            })
        }
        Change::Install(name) | Change::Remove(name) => {
            let item = node(Value::Plain(name.clone()));
            let item = node(Value::Map(vec![entry("name", item)]));
            let list = node(Value::List(vec![item]));
            node(Value::Map(vec![entry(STACK, list)]))
        }
    }
}

const STACK: &str = "software_stack";

/// The packages of a canonical tree.
fn packages(tree: &mut Node) -> Option<&mut Vec<Node>> {
    let Value::Map(entries) = &mut tree.value else {
        return None;
    };
    let entry = entries.iter_mut().find(|entry| entry.key == STACK)?;
    match &mut entry.value.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// Whether an item is this package; names of packages are in lower case, however they are written.
fn is_of(item: &Node, name: &str) -> bool {
    let Value::Map(entries) = &item.value else {
        return false;
    };
    let mut names = entries.iter().filter(|entry| entry.key == "name");
    names.any(|entry| {
        let written = entry.value.scalar();
        written.is_some_and(|written| written.trim().eq_ignore_ascii_case(name))
    })
}

fn remove(tree: &mut Node, name: &str) {
    let Some(items) = packages(tree) else { return };
    items.retain(|item| !is_of(item, name));
    if items.is_empty()
        && let Value::Map(entries) = &mut tree.value
    {
        entries.retain(|entry| entry.key != STACK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{Effective, Layer, LayerKind, compose, compose_adjusted};
    use crate::document::SourceText;

    const WEB: &str = "name: web\nsoftware_stack: [Nginx (>=1.22), htop]\nos_settings: {theme: light, sysctl: {vm.swappiness: 60}}\nenvironment_variables: {TIER: front}\n";

    fn layer(text: &str) -> Layer<'_> {
        Layer {
            source: SourceText {
                name: "web@1",
                text: text.as_bytes(),
                format: Format::Yaml,
                persona_name: None,
            },
            tag: None,
            kind: LayerKind::Persona,
        }
    }

    fn set(key: &str, value: &str) -> Change {
        let (key, value) = (key.to_owned(), value.to_owned());
        Change::Set { key, value }
    }

    fn adjusted(text: &str, changes: &[Change]) -> Effective {
        let adjustments: Vec<Adjustment> = changes
            .iter()
            .map(|change| Adjustment {
                rule: "night".into(),
                change: change.clone(),
            })
            .collect();
        compose_adjusted(&[layer(text)], &adjustments).unwrap_or_else(|problems| {
            panic!("{changes:?}: {problems:?}");
        })
    }

    #[test]
    fn an_adjusted_persona_is_the_one_that_a_document_with_those_values_gives() {
        let changes = [
            set("os_settings.theme", "dark"),
            set("os_settings.sysctl.vm.swappiness", "10"),
            set("os_settings.services.ssh.service", "true"),
            set("application_settings.ide_extensions", "a.b, c.d"),
            set("behavioral_settings.logging_level", "debug"),
            set("environment_variables.EMPTY", ""),
            set("environment_variables.WORD", "null"),
            Change::Install("curl".into()),
            Change::Remove("htop".into()),
        ];
        let written = "name: web\nsoftware_stack: [Nginx (>=1.22), curl]\nos_settings: {theme: dark, sysctl: {vm.swappiness: 10}, services: {ssh.service: true}}\napplication_settings: {ide_extensions: [a.b, c.d]}\nbehavioral_settings: {logging_level: debug}\nenvironment_variables: {TIER: front, EMPTY: \"\", WORD: \"null\"}\n";
        let adjusted = adjusted(WEB, &changes).persona;
        let written = compose(&[layer(written)]).unwrap().persona;
        assert_eq!(adjusted, written);
        assert_ne!(
            adjusted.digest,
            compose(&[layer(WEB)]).unwrap().persona.digest
        );
    }

    #[test]
    fn the_later_of_two_changes_of_one_thing_has_its_way() {
        let dark = set("os_settings.theme", "dark");
        let light = set("os_settings.theme", "light");
        let plain = compose(&[layer(WEB)]).unwrap().persona;
        assert_eq!(adjusted(WEB, &[dark.clone(), light]).persona, plain);
        let (install, remove) = (
            Change::Install("curl".into()),
            Change::Remove("curl".into()),
        );
        assert_eq!(
            adjusted(WEB, &[install.clone(), remove.clone()]).persona,
            plain
        );
        assert!(install.same_subject(&remove) && !install.same_subject(&dark));
    }

    #[test]
    fn a_package_that_is_there_keeps_its_version_and_the_last_one_goes_with_the_list() {
        let plain = compose(&[layer(WEB)]).unwrap().persona;
        let nginx = Change::Install("nginx".into());
        assert_eq!(adjusted(WEB, &[nginx]).persona, plain);
        let all = [
            Change::Remove("nginx".into()),
            Change::Remove("htop".into()),
        ];
        assert!(adjusted(WEB, &all).persona.software.is_empty());
    }

    #[test]
    fn a_value_is_told_to_be_the_rules() {
        let effective = adjusted(WEB, &[set("os_settings.theme", "dark")]);
        let theme = effective
            .values
            .iter()
            .find(|value| value.path == "os_settings.theme")
            .unwrap();
        assert_eq!(theme.text, "dark");
        assert_eq!(theme.origin.document, "rule night");
        assert!(effective.document.contains("theme: dark # rule night"));
    }

    #[test]
    fn a_change_is_the_action_that_calls_for_it() {
        for change in [
            set("os_settings.theme", "dark"),
            Change::Install("curl".into()),
            Change::Remove("curl".into()),
        ] {
            assert_eq!(Change::of(&change.action()), Some(change));
        }
    }

    #[test]
    fn a_value_that_the_document_could_not_have_is_refused_with_its_rule() {
        let adjustment = Adjustment {
            rule: "night".into(),
            change: set("behavioral_settings.logging_level", "loud"),
        };
        let problems = compose_adjusted(&[layer(WEB)], &[adjustment]).unwrap_err();
        assert!(format!("{problems:?}").contains("rule night"));
    }
}
