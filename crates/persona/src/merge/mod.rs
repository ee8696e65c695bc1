//! Documents laid over each other: bases, the persona, overrides of tags. Trees come canonical (one name for each key,
//! lists where the language has lists), and each value keeps its own place, so that an effective persona still knows
//! who wrote what. What keys mean and what is refused is the readers' business; they call this before they read.
//!
//! Merging is associative, with the empty map as its neutral element, where nothing removes a whole map or a list that
//! merges by key. It is therefore done from the lowest layer to the highest: a removal counts for the layers below it,
//! and what a layer above writes starts anew.

mod strategy;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::document::{Entry, Node, Value, size};
use crate::limits;

pub(crate) use strategy::ListMerge;
pub(crate) use strategy::strategy;

/// Why documents do not merge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MergeError {
    /// Each is within the limit, and all together are not.
    #[error("together the documents have {values} values; at most {most} are read", most = limits::MOST_VALUES)]
    TooLarge {
        /// Values of what was merged.
        values: usize,
    },
}

/// `over` laid over `base`. Where both have a map it is merged key by key, lists are merged as `strategy` says for their
/// path (the keys from the root; items of a list add nothing to it), and else `over` wins. A key without a value in
/// `over` takes the key of `base` away: it stays as such, so that it can be merged further, until [`settle`] removes it.
///
/// # Errors
/// [`MergeError::TooLarge`]. The result nests no deeper than the deeper of the two.
pub(crate) fn merge(
    base: Node,
    over: Node,
    strategy: fn(&[&str]) -> ListMerge,
) -> Result<Node, MergeError> {
    let merged = Merger { strategy }.values(base, over, &mut Vec::new());
    let values = size(&merged);
    if values > limits::MOST_VALUES {
        return Err(MergeError::TooLarge { values });
    }
    Ok(merged)
}

/// The tree without the keys that were taken away; the last step after all layers have been merged.
pub(crate) fn settle(mut tree: Node) -> Node {
    tree.value = match tree.value {
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .filter(|entry| !entry.value.is_empty())
                .map(|entry| Entry {
                    value: settle(entry.value),
                    ..entry
                })
                .collect(),
        ),
        Value::List(items) => Value::List(items.into_iter().map(settle).collect()),
        scalar => scalar,
    };
    tree
}

struct Merger {
    strategy: fn(&[&str]) -> ListMerge,
}

impl Merger {
    fn values(&self, base: Node, over: Node, path: &mut Vec<String>) -> Node {
        if over.is_empty() {
            // What is only ever added to is not taken away as a whole either.
            let kept = matches!(base.value, Value::List(_)) && self.list(path) == ListMerge::Union;
            return if kept { base } else { over };
        }
        match (base.value, over.value) {
            (Value::Map(below), Value::Map(above)) => {
                // A map of both is said to be where the later wrote something.
                let at = if above.is_empty() { base.at } else { over.at };
                let value = Value::Map(self.entries(below, above, path));
                Node { value, at }
            }
            (Value::List(below), Value::List(above)) => {
                let items = match self.list(path) {
                    ListMerge::Replace => above,
                    ListMerge::Union => union(below, above),
                    ListMerge::ByKey(key) => self.by_key(below, above, key, path),
                };
                let (value, at) = (Value::List(items), over.at);
                Node { value, at }
            }
            (_, above) => Node {
                value: above,
                at: over.at,
            },
        }
    }

    fn list(&self, path: &[String]) -> ListMerge {
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        (self.strategy)(&keys)
    }

    /// Keys of `below` keep their order and those that only `above` has follow. The same key more than once in one
    /// document is an error that the reader reports: the second meets the second, so that none hides the other.
    fn entries(&self, below: Vec<Entry>, above: Vec<Entry>, path: &mut Vec<String>) -> Vec<Entry> {
        let mut places = Places::of(below.iter().map(|entry| Some(entry.key.as_str())));
        let mut merged: Vec<Option<Entry>> = below.into_iter().map(Some).collect();
        for entry in above {
            let slot = places
                .next(&entry.key)
                .and_then(|place| merged.get_mut(place));
            match slot {
                Some(slot) => {
                    let Some(first) = slot.take() else { continue };
                    path.push(entry.key.clone());
                    let value = self.values(first.value, entry.value, path);
                    path.pop();
                    *slot = Some(Entry { value, ..entry });
                }
                None => merged.push(Some(entry)),
            }
        }
        merged.into_iter().flatten().collect()
    }

    /// Items that are maps with one text under `key` are one item. Those without it have no name by which an override
    /// could mean them: they are appended, but for a text that stands there already.
    fn by_key(
        &self,
        below: Vec<Node>,
        above: Vec<Node>,
        key: &str,
        path: &mut Vec<String>,
    ) -> Vec<Node> {
        let mut names = Places::of(below.iter().map(|item| named(item, key)));
        let mut texts = Places::of(below.iter().map(Node::scalar));
        let mut merged: Vec<Option<Node>> = below.into_iter().map(Some).collect();
        for item in above {
            if let Some(text) = item.scalar() {
                if texts.next(text).is_none() {
                    merged.push(Some(item));
                }
                continue;
            }
            let place = named(&item, key).and_then(|name| names.next(name));
            match place.and_then(|place| merged.get_mut(place)) {
                Some(slot) => {
                    let Some(first) = slot.take() else { continue };
                    *slot = Some(self.values(first, item, path));
                }
                None => merged.push(Some(item)),
            }
        }
        merged.into_iter().flatten().collect()
    }
}

/// The texts of both lists, each once, in the order of their first appearance.
fn union(below: Vec<Node>, above: Vec<Node>) -> Vec<Node> {
    let mut seen = BTreeSet::new();
    let mut items = below;
    items.extend(above);
    items.retain(|item| {
        item.scalar()
            .is_none_or(|text| seen.insert(text.to_owned()))
    });
    items
}

/// The text under `key` of an item that is a map.
fn named<'n>(item: &'n Node, key: &str) -> Option<&'n str> {
    let Value::Map(entries) = &item.value else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == key)?;
    entry.value.scalar()
}

/// Where each name stands, each place to be met once: the second of a name meets the second of it. What is there twice
/// by mistake is so not merged into one, and its reader can say so.
struct Places(BTreeMap<String, VecDeque<usize>>);

impl Places {
    fn of<'n>(names: impl Iterator<Item = Option<&'n str>>) -> Self {
        let mut places: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
        for (place, name) in names.enumerate() {
            if let Some(name) = name {
                places.entry(name.to_owned()).or_default().push_back(place);
            }
        }
        Self(places)
    }

    fn next(&mut self, name: &str) -> Option<usize> {
        self.0.get_mut(name)?.pop_front()
    }
}

#[cfg(test)]
mod tests;
