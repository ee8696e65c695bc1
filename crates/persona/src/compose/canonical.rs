//! The tree of a document with the canonical names of its keys at the root, and without a root `persona_NAME:`.

use crate::document::{Entry, Node, Text, Value};
use crate::problem::Problem;
use crate::read;

/// The same tree in canonical keys, and what is wrong with its keys. Places stay.
pub(super) fn canonical(root: &Node, _text: &Text) -> (Node, Vec<Problem>) {
    let (body, name) = read::named_root(root);
    let mut body = body.clone();
    if let Value::Map(entries) = &mut body.value {
        for entry in entries.iter_mut() {
            if let Some(key) = read::root_key(&entry.key) {
                entry.key = key.to_owned();
            }
        }
        if let Some(name) = name
            && !entries.iter().any(|entry| entry.key == "name")
        {
            let at = root.at.start..root.at.start;
            let value = Node {
                value: Value::Quoted(name),
                at: at.clone(),
            };
            entries.insert(
                0,
                Entry {
                    key: "name".to_owned(),
                    key_at: at,
                    value,
                },
            );
        }
    }
    (body, Vec::new())
}
