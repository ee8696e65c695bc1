//! An effective persona for people: each value with its path and its origin, and the whole as a document with the origins
//! as comments.

use std::collections::BTreeMap;

use super::EffectiveValue;
use super::clash::name;
use crate::document::{self, Entry, Format, Node, Origin, SourceText, Text, Value, print};
use crate::merge::{self, ListMerge};

/// What is shown instead of a secret.
const HIDDEN: &str = "(secret)";

/// Every value in the order of the tree.
pub(super) fn values(root: &Node, text: &Text) -> Vec<EffectiveValue> {
    let mut found = Vec::new();
    collect(root, text, &mut Vec::new(), String::new(), &mut found);
    found
}

/// Where what is at a path was written: the value itself, the first value below it, or the value that spells it. Paths
/// of a [`Difference`](crate::Difference) are known too. `None` for what nobody wrote, a default.
pub fn origin_of<'v>(values: &'v [EffectiveValue], path: &str) -> Option<&'v Origin> {
    let below = |path: &str, root: &str| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let at = |path: &str| {
        values
            .iter()
            .find(|value| below(&value.path, path) || below(path, &value.path))
            .map(|value| &value.origin)
    };
    let Some(rule) = path
        .strip_prefix("rules[")
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return at(path);
    };
    // A rule of which layers say something each is where its condition is.
    ["adaptation_rules", "telemetry_triggers"]
        .iter()
        .find_map(|list| {
            at(&format!("{list}[{rule}].when")).or_else(|| at(&format!("{list}[{rule}]")))
        })
        .or_else(|| {
            let source = rule.strip_prefix("feed-")?;
            at(&format!("external_data_sources[{source}]"))
        })
        .or_else(|| {
            // A rule without a name has that of its list with its number from 1.
            let (word, number) = rule.rsplit_once('-')?;
            let index = number.parse::<usize>().ok()?.checked_sub(1)?;
            match word {
                "rule" => at(&format!("adaptation_rules[{index}]")),
                "trigger" => at(&format!("telemetry_triggers[{index}]")),
                _ => None,
            }
        })
}

fn collect(
    node: &Node,
    text: &Text,
    keys: &mut Vec<String>,
    path: String,
    found: &mut Vec<EffectiveValue>,
) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                let point = if path.is_empty() { "" } else { "." };
                keys.push(entry.key.clone());
                let below = format!("{path}{point}{}", entry.key);
                collect(&entry.value, text, keys, below, found);
                keys.pop();
            }
        }
        Value::List(items) if !items.is_empty() => {
            let strategy: Vec<&str> = keys.iter().map(String::as_str).collect();
            let key = match merge::strategy(&strategy) {
                ListMerge::ByKey(key) => Some(key),
                ListMerge::Union | ListMerge::Replace => None,
            };
            for (index, item) in items.iter().enumerate() {
                let named = key.and_then(|key| name(item, key));
                let below = match named {
                    Some(name) => format!("{path}[{name}]"),
                    None => format!("{path}[{index}]"),
                };
                collect(item, text, keys, below, found);
            }
        }
        _ => found.push(EffectiveValue {
            text: shown(node, keys),
            path,
            origin: text.origin(&node.at),
        }),
    }
}

fn shown(node: &Node, keys: &[String]) -> String {
    match &node.value {
        _ if is_secret(keys) => HIDDEN.to_owned(),
        Value::Plain(text) | Value::Quoted(text) => text.clone(),
        Value::List(_) => "[]".to_owned(),
        Value::Map(_) => "{}".to_owned(),
    }
}

fn is_secret(keys: &[String]) -> bool {
    matches!(keys, [first, _, last] if first == "environment_variables" && last == "secret")
}

/// The tree as YAML with the origin behind each value, as a comment. Values that stand in one line have their origins in
/// the order of their first.
pub(super) fn document(root: &Node, text: &Text) -> String {
    let hidden = hide(root, &mut Vec::new());
    let printed = print(&hidden, text, &[]).text;
    let source = SourceText {
        name: "",
        text: printed.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    };
    // What was printed reads back as the same tree, so that its values and those of the tree meet one by one.
    let (again, tree) = document::parse(&source, &mut Vec::new());
    let (mut values, mut places) = (Vec::new(), Vec::new());
    leaves(root, &mut values);
    if let Some(tree) = &tree {
        leaves(tree, &mut places);
    }
    let lines: Vec<&str> = printed.lines().collect();
    let mut comments: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (value, place) in values.into_iter().zip(places) {
        let origin = text.origin(&value.at).to_string();
        let number = usize::try_from(again.span(&place.at).line).unwrap_or_default();
        let block = place.scalar().is_some_and(|text| text.contains('\n'));
        let index = number.saturating_sub(1);
        let index = if block { header(&lines, index) } else { index };
        let line = comments.entry(index).or_default();
        if !line.contains(&origin) {
            line.push(origin);
        }
    }
    let mut out = String::with_capacity(printed.len() * 2);
    for (index, line) in lines.iter().enumerate() {
        out.push_str(line);
        if let Some(origins) = comments.get(&index) {
            out.push_str(&format!(" # {}", origins.join(", ")));
        }
        out.push('\n');
    }
    out
}

/// The line with the header of the block whose text begins on a line: a comment further down would be text.
fn header(lines: &[&str], text: usize) -> usize {
    let is_header = |index: &usize| {
        let line = lines.get(*index).copied().unwrap_or_default();
        let line = line.trim_end_matches(|c: char| c.is_ascii_digit() || "+-".contains(c));
        line.ends_with(": |") || line.ends_with("- |") || line == "|"
    };
    (0..text).rev().find(is_header).unwrap_or(text)
}

/// The same tree without secrets.
fn hide(node: &Node, keys: &mut Vec<String>) -> Node {
    let value = match &node.value {
        _ if is_secret(keys) => Value::Quoted(HIDDEN.to_owned()),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| {
                keys.push(entry.key.clone());
                let value = hide(&entry.value, keys);
                keys.pop();
                Entry {
                    value,
                    ..entry.clone()
                }
            });
            Value::Map(entries.collect())
        }
        Value::List(items) => Value::List(items.iter().map(|item| hide(item, keys)).collect()),
        single => single.clone(),
    };
    Node {
        value,
        at: node.at.clone(),
    }
}

/// What has nothing below it, in the order of the text.
fn leaves<'n>(node: &'n Node, found: &mut Vec<&'n Node>) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            entries.iter().for_each(|entry| leaves(&entry.value, found));
        }
        Value::List(items) if !items.is_empty() => {
            items.iter().for_each(|item| leaves(item, found));
        }
        _ => found.push(node),
    }
}
