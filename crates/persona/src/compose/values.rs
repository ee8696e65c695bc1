//! An effective persona for people: each value with its path and its origin, and the whole as a document with the origins
//! as comments.

use super::EffectiveValue;
use super::clash::name;
use crate::document::{Node, Origin, Text, Value};
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
    ["adaptation_rules", "telemetry_triggers"]
        .iter()
        .find_map(|list| at(&format!("{list}[{rule}]")))
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

/// The tree as YAML in block style, with the origin behind each value.
pub(super) fn document(root: &Node, text: &Text) -> String {
    let mut printer = Printer {
        text,
        keys: Vec::new(),
        out: String::new(),
    };
    printer.node(root, 0);
    printer.out
}

struct Printer<'t> {
    text: &'t Text,
    keys: Vec<String>,
    out: String,
}

impl Printer<'_> {
    /// A node whose first line begins where the output stands; further lines are indented by `depth` levels.
    fn node(&mut self, node: &Node, depth: usize) {
        let indent = |out: &mut String, first: bool| {
            if !first {
                out.push_str(&"  ".repeat(depth));
            }
        };
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => {
                for (index, entry) in entries.iter().enumerate() {
                    indent(&mut self.out, index == 0);
                    self.out.push_str(&quoted(&entry.key));
                    self.out.push(':');
                    self.keys.push(entry.key.clone());
                    if is_branch(&entry.value) {
                        self.out.push('\n');
                        self.out.push_str(&"  ".repeat(depth + 1));
                        self.node(&entry.value, depth + 1);
                    } else {
                        self.out.push(' ');
                        self.leaf(&entry.value, depth + 1);
                    }
                    self.keys.pop();
                }
            }
            Value::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    indent(&mut self.out, index == 0);
                    self.out.push_str("- ");
                    if is_branch(item) {
                        self.node(item, depth + 1);
                    } else {
                        self.leaf(item, depth + 1);
                    }
                }
            }
            _ => self.leaf(node, depth),
        }
    }

    /// A value on the present line; the lines of a longer text follow, indented by `depth` levels.
    fn leaf(&mut self, node: &Node, depth: usize) {
        let origin = self.text.origin(&node.at);
        let value = shown(node, &self.keys);
        let block = matches!(node.value, Value::Quoted(_)) && is_block(&value);
        if block {
            let end = if value.ends_with('\n') { "|" } else { "|-" };
            self.out.push_str(&format!("{end} # {origin}\n"));
            for line in value.lines() {
                if !line.is_empty() {
                    self.out.push_str(&"  ".repeat(depth));
                }
                self.out.push_str(line);
                self.out.push('\n');
            }
            return;
        }
        let value = match &node.value {
            Value::Quoted(_) => quoted(&value),
            _ => value,
        };
        self.out.push_str(&format!("{value} # {origin}\n"));
    }
}

fn is_branch(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => !entries.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Plain(_) | Value::Quoted(_) => false,
    }
}

/// Whether a text can stand as a literal block.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !body.is_empty()
        && !body.ends_with('\n')
        && !text.starts_with([' ', '\n'])
        && !text.chars().any(|c| c.is_control() && c != '\n')
}

/// A text as a key or value that every reader of YAML takes for text.
fn quoted(text: &str) -> String {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let lowered = text.to_ascii_lowercase();
    if first && text.chars().all(plain) && !words.contains(&lowered.as_str()) {
        return text.to_owned();
    }
    // A JSON string is a YAML string in double quotes.
    serde_json::Value::from(text).to_string()
}
