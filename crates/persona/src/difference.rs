//! In what two personas differ in meaning: paths with the values of both. Style, order of keys, aliases and units are no
//! meaning, as the digest has it; where digests are the same there is no difference.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::model::{EnvironmentValue, Persona};
use crate::units::Bytes;

/// A value in which two personas differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The keys of the language that lead to it with points between them; items of lists in brackets.
    pub path: String,
    /// The value in the first; `None` where it has none.
    pub before: Option<String>,
    /// The value in the second; `None` where it has none.
    pub after: Option<String>,
}

/// The language's word for a part of the model, where the two differ.
const KEYS: [(&str, &str); 14] = [
    ("base", "base_configuration"),
    ("software", "software_stack"),
    ("priorities", "priority_metrics"),
    ("learning", "learning_domains"),
    ("decay", "decay_rate"),
    ("rules", "rules"),
    ("responses", "automated_responses"),
    ("sources", "external_data_sources"),
    ("environment", "environment_variables"),
    ("pre_activation", "pre_activation_script"),
    ("post_activation", "post_activation_script"),
    ("trust", "trust_levels"),
    ("lifecycle", "lifecycle_expectations"),
    ("cost", "cost_tolerance"),
];

/// What names an item of a list.
const NAMES: [&str; 3] = ["name", "at", "package"];

/// The differences by path. The names of the personas count as any other value.
pub fn difference(before: &Persona, after: &Persona) -> Vec<Difference> {
    if before.digest == after.digest {
        return Vec::new();
    }
    let (old, new) = (facts(before), facts(after));
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut found: Vec<Difference> = paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| Difference {
            path: path.clone(),
            before: old.get(path).map(Fact::shown),
            after: new.get(path).map(Fact::shown),
        })
        .collect();
    found.extend(order(before, after));
    if found.is_empty() {
        // Every part of the meaning is a fact. Should one be forgotten, it is at least said that there is one.
        found.push(Difference {
            path: "digest".to_owned(),
            before: Some(before.digest.to_string()),
            after: Some(after.digest.to_string()),
        });
    }
    found
}

/// All that a persona means, as differences from nothing.
pub fn contents(persona: &Persona) -> Vec<Difference> {
    facts(persona)
        .into_iter()
        .map(|(path, fact)| Difference {
            path,
            before: None,
            after: Some(fact.shown()),
        })
        .collect()
}

/// One value of a persona.
#[derive(PartialEq, Eq)]
enum Fact {
    Text(String),
    /// Compared, and not shown.
    Secret(String),
}

impl Fact {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Secret(_) => "(secret)".to_owned(),
        }
    }
}

fn facts(persona: &Persona) -> BTreeMap<String, Fact> {
    let mut facts = BTreeMap::new();
    // The model has text keys and nothing in it refuses to serialise.
    let model = serde_json::to_value(persona).unwrap_or_default();
    for (key, value) in model.as_object().into_iter().flatten() {
        // These follow in their own words.
        if matches!(
            key.as_str(),
            "rules" | "responses" | "environment" | "digest"
        ) {
            continue;
        }
        let word = KEYS.iter().find(|(part, _)| part == key);
        let path = word.map_or(key.as_str(), |(_, word)| word);
        flatten(path.to_owned(), value, &mut facts);
    }
    for (name, value) in &persona.environment {
        let fact = match value {
            EnvironmentValue::Text(text) => Fact::Text(text.clone()),
            EnvironmentValue::Secret { secret } => Fact::Secret(secret.expose().to_owned()),
        };
        facts.insert(format!("environment_variables.{name}"), fact);
    }
    for (name, actions) in &persona.responses {
        let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
        let path = format!("automated_responses.{name}");
        facts.insert(path, Fact::Text(actions.join(", ")));
    }
    for rule in &persona.rules {
        let source = rule.source.map_or_else(String::new, |source| {
            format!(" with evidence by {source} or better")
        });
        let fact = Fact::Text(format!("{}{source}", rule.text));
        facts.insert(format!("rules[{}]", rule.name), fact);
    }
    facts
}

/// The rules that both have, where they stand in another order: the earlier of two of equal priority wins.
fn order(before: &Persona, after: &Persona) -> Option<Difference> {
    let common = |of: &Persona, other: &Persona| {
        let has = |name: &str| other.rules.iter().any(|rule| rule.name == name);
        let names = of.rules.iter().map(|rule| rule.name.as_str());
        names
            .filter(|name| has(name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (old, new) = (common(before, after), common(after, before));
    (old != new).then(|| Difference {
        path: "rules".to_owned(),
        before: Some(old),
        after: Some(new),
    })
}

fn flatten(path: String, value: &Value, facts: &mut BTreeMap<String, Fact>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            // The levels of trust stand by themselves in the model.
            for (key, value) in map {
                let below = if key == "levels" && path == "trust_levels" {
                    path.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(below, value, facts);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let name = NAMES.iter().find_map(|name| item.get(name)?.as_str());
                let below = match name {
                    Some(name) => format!("{path}[{name}]"),
                    None => format!("{path}[{index}]"),
                };
                flatten(below, item, facts);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(scalar).collect();
            facts.insert(path, Fact::Text(items.join(", ")));
        }
        value => {
            let text = match value.as_u64() {
                Some(bytes) if is_size(&path) => Bytes(bytes).to_string(),
                _ => scalar(value),
            };
            facts.insert(path, Fact::Text(text));
        }
    }
}

fn is_size(path: &str) -> bool {
    path.contains(".memory.") && !path.ends_with(".share")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
