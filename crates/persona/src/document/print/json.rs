//! Trees as JSON, for those who gave JSON.

use crate::document::{Node, Value};

/// The tree as JSON, two spaces a level, keys in the order of the tree. Numbers stand as they were written; what JSON
/// has no way to write without quotes is a text.
pub(crate) fn print_json(tree: &Node) -> String {
    let mut out = String::new();
    value(tree, 0, &mut out);
    out.push('\n');
    out
}

fn value(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for (index, entry) in entries.iter().enumerate() {
                out.push(if index == 0 { '{' } else { ',' });
                line(indent + 2, out);
                out.push_str(&string(&entry.key));
                out.push_str(": ");
                value(&entry.value, indent + 2, out);
            }
            line(indent, out);
            out.push('}');
        }
        Value::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { '[' } else { ',' });
                line(indent + 2, out);
                value(item, indent + 2, out);
            }
            line(indent, out);
            out.push(']');
        }
        Value::Map(_) => out.push_str("{}"),
        Value::List(_) => out.push_str("[]"),
        _ if node.is_empty() => out.push_str("null"),
        Value::Plain(text) if is_plain(text) => out.push_str(text),
        Value::Plain(text) | Value::Quoted(text) => out.push_str(&string(text)),
    }
}

fn line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether JSON has this word, or this number.
fn is_plain(text: &str) -> bool {
    let number = text.strip_prefix('-').unwrap_or(text);
    let starts = number.starts_with(|c: char| c.is_ascii_digit());
    let word = matches!(text, "true" | "false");
    word || (starts && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}
