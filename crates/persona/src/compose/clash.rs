//! Two layers of equal rank: whether they want different things of one value. Layers that leave each other's values
//! alone come to the same in either order.

use super::{Layer, tree};
use crate::document::{Entry, Node, Origin, Text, Value};
use crate::merge::{self, ListMerge};
use crate::quantity::Quantity;

/// A value that two layers set differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The keys that lead to it with points between them; items of lists in brackets, by name.
    pub path: String,
    /// Where the first layer sets it.
    pub one: Origin,
    /// Where the second does.
    pub other: Origin,
}

/// The first value that the layers set differently, in the order of the first. Layers that cannot be read do not clash:
/// what is wrong with them is said where they are laid over something.
pub fn clash(one: &Layer<'_>, other: &Layer<'_>) -> Option<Clash> {
    let mut text = Text::default();
    let mut problems = Vec::new();
    let one = tree(&mut text, one, &mut problems)?;
    let other = tree(&mut text, other, &mut problems)?;
    let mut walk = Walk {
        text: &text,
        keys: Vec::new(),
        path: String::new(),
    };
    walk.values(&one, &other)
}

struct Walk<'t> {
    text: &'t Text,
    /// The keys from the root, as strategies know lists.
    keys: Vec<String>,
    /// The same for people, with the items of lists.
    path: String,
}

impl Walk<'_> {
    fn values(&mut self, one: &Node, other: &Node) -> Option<Clash> {
        match (&one.value, &other.value) {
            (Value::Map(these), Value::Map(those)) => self.entries(these, those),
            (Value::List(these), Value::List(those)) => {
                let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
                match merge::strategy(&keys) {
                    ListMerge::Union => None,
                    ListMerge::ByKey(key) => self.items(these, those, key),
                    ListMerge::Replace => self.differ(one, other),
                }
            }
            _ => self.differ(one, other),
        }
    }

    fn entries(&mut self, these: &[Entry], those: &[Entry]) -> Option<Clash> {
        these.iter().find_map(|entry| {
            let twin = those.iter().find(|twin| twin.key == entry.key)?;
            let length = self.path.len();
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(&entry.key);
            self.keys.push(entry.key.clone());
            let found = self.values(&entry.value, &twin.value);
            self.keys.pop();
            self.path.truncate(length);
            found
        })
    }

    /// Items without a name are added by both, so they do not meet.
    fn items(&mut self, these: &[Node], those: &[Node], key: &str) -> Option<Clash> {
        these.iter().find_map(|item| {
            let name = name(item, key)?;
            let twin = those
                .iter()
                .find(|twin| self::name(twin, key) == Some(name))?;
            let length = self.path.len();
            self.path.push_str(&format!("[{name}]"));
            let found = self.values(item, twin);
            self.path.truncate(length);
            found
        })
    }

    fn differ(&self, one: &Node, other: &Node) -> Option<Clash> {
        (!same(one, other)).then(|| Clash {
            path: self.path.clone(),
            one: self.text.origin(&one.at),
            other: self.text.origin(&other.at),
        })
    }
}

/// The text under `key` of an item that is a map.
pub(super) fn name<'n>(item: &'n Node, key: &str) -> Option<&'n str> {
    let Value::Map(entries) = &item.value else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == key)?;
    entry.value.scalar()
}

/// Whether two values say the same: `4 GiB` and `4096 MiB` do.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Map(these), Value::Map(those)) => {
            these.len() == those.len()
                && these.iter().all(|entry| {
                    let twin = those.iter().find(|twin| twin.key == entry.key);
                    twin.is_some_and(|twin| same(&entry.value, &twin.value))
                })
        }
        (Value::List(these), Value::List(those)) => {
            these.len() == those.len() && these.iter().zip(those).all(|(a, b)| same(a, b))
        }
        _ if one.is_empty() || other.is_empty() => one.is_empty() && other.is_empty(),
        (Value::Plain(a), Value::Plain(b)) => {
            let quantity = |text: &str| Quantity::parse(text).ok();
            a == b || quantity(a).is_some_and(|a| quantity(b) == Some(a))
        }
        _ => one.scalar().is_some() && one.scalar() == other.scalar(),
    }
}
