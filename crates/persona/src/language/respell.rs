//! Texts of the rule language within a canonical tree, in their one spelling: spoken phrases become the words that they
//! stand for. For printing alone, because the places within such a text are no longer those of the document. The
//! formatter calls it for documents that were found valid.

use super::{Names, RULE, SOURCE, Shape, Table};
use crate::document::{Node, Value};
use crate::rule::Action;
use crate::rule::parse;

/// The tree of a valid document with every rule, condition and action as it is printed.
pub(crate) fn respell(tree: &mut Node) {
    table(tree, &super::ROOT);
}

fn table(node: &mut Node, table: &Table) {
    let Value::Map(entries) = &mut node.value else {
        return;
    };
    for entry in entries {
        if let Some(key) = table.key(&entry.key) {
            shape(&mut entry.value, &key.shape);
        }
    }
}

fn shape(node: &mut Node, of: &Shape) {
    match of {
        Shape::List(inner, _) | Shape::Many(inner, _) => {
            if let Value::List(items) = &mut node.value {
                items.iter_mut().for_each(|item| shape(item, inner));
            }
        }
        Shape::Dictionary(Names::Exact | Names::Labels, inner, _) => {
            if let Value::Map(entries) = &mut node.value {
                entries
                    .iter_mut()
                    .for_each(|entry| shape(&mut entry.value, inner));
            }
        }
        Shape::Map(of) | Shape::Spelt(_, of) => table(node, of),
        Shape::Source => table(node, &SOURCE),
        Shape::Rule if matches!(node.value, Value::Map(_)) => table(node, &RULE),
        Shape::Rule => text(node, rule),
        Shape::Condition => text(node, condition),
        Shape::Action => text(node, actions),
        _ => {}
    }
}

/// Puts another spelling in place of a text, where it has one.
fn text(node: &mut Node, spell: impl FnOnce(&str) -> Option<String>) {
    if let Value::Plain(text) | Value::Quoted(text) = &mut node.value
        && let Some(spelling) = spell(text)
    {
        *text = spelling;
    }
}

fn condition(text: &str) -> Option<String> {
    parse::condition(text, &mut Default::default(), &mut Vec::new())
        .map(|condition| condition.to_string())
}

/// Nothing where an action means what stands around it: `block malicious IPs` names no source by itself.
fn actions(text: &str) -> Option<String> {
    list(&parse::actions(text, &mut Vec::new())?)
}

fn list(found: &[Action]) -> Option<String> {
    let by_surroundings = |action: &Action| matches!(action, Action::BlockAddresses { source } | Action::UnblockAddresses { source } if source.is_empty());
    if found.iter().any(by_surroundings) {
        return None;
    }
    let spelt: Vec<String> = found.iter().map(Action::to_string).collect();
    Some(spelt.join(", "))
}

/// A rule in one text, with the clauses that it has.
fn rule(text: &str) -> Option<String> {
    let parts = parse::rule(text, &mut Vec::new())?;
    let then = list(&parts.then)?;
    let mut spelt = format!("IF {} THEN {then}", parts.when);
    if let Some(until) = &parts.until {
        spelt.push_str(&format!(" UNTIL {until}"));
    }
    if let Some(cooldown) = parts.cooldown {
        let cooldown = crate::quantity::exact_duration(cooldown);
        spelt.push_str(&format!(" COOLDOWN {cooldown}"));
    }
    if let Some(priority) = parts.priority {
        spelt.push_str(&format!(" PRIORITY {priority}"));
    }
    Some(spelt)
}
