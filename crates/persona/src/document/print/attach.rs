//! Which comment belongs to which key or item. They are found by their places in the document, so a tree whose keys were
//! renamed or put into another order takes its comments along.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry as Slot};

use crate::document::comments::{Comment, Stands};
use crate::document::{Node, Text, Value};

/// The comments of a tree by the number of the key or item with which they stand. Keys and items are counted from 0, each
/// before what is in it, in the order of the tree.
#[derive(Debug, Default)]
pub(super) struct Attached<'a> {
    before: BTreeMap<usize, Vec<&'a Comment>>,
    behind: BTreeMap<usize, &'a Comment>,
    /// Numbers before which a blank line stood.
    blank: BTreeSet<usize>,
    /// Comments behind everything.
    pub(super) footer: Vec<&'a Comment>,
}

impl<'a> Attached<'a> {
    pub(super) fn has(&self, number: usize) -> bool {
        self.before.contains_key(&number) || self.behind.contains_key(&number)
    }

    pub(super) fn take_before(&mut self, number: usize) -> Vec<&'a Comment> {
        self.before.remove(&number).unwrap_or_default()
    }

    pub(super) fn take_behind(&mut self, number: usize) -> Option<&'a Comment> {
        self.behind.remove(&number)
    }

    pub(super) fn blank_before(&self, number: usize) -> bool {
        self.blank.contains(&number)
    }
}

/// The words of a comment.
pub(super) fn words<'t>(text: &'t Text, comment: &Comment) -> &'t str {
    let words = text.text.get(comment.at.clone()).unwrap_or_default();
    words.trim_end()
}

/// Whether the line before the one with this place is blank.
pub(super) fn blank_before(text: &Text, at: usize) -> bool {
    let first = text.document_around(at).start;
    let line = text.start_of_line(at);
    let before = text.text.get(first..line).unwrap_or_default();
    let Some(before) = before.strip_suffix('\n') else {
        return false;
    };
    before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .trim()
        .is_empty()
}

/// A key or item.
struct Place {
    number: usize,
    start: usize,
    end: usize,
    of: Of,
}

/// What stands at a place.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Key,
    Item,
    /// A text of several lines, whose place is behind its indicator: what is before it there is not before the item.
    BlockItem,
}

#[derive(Default)]
struct Walk {
    places: Vec<Place>,
    /// Items that are maps or lists.
    nests: Vec<usize>,
    numbers: usize,
    /// Starts that were met, of keys and of items: what an alias repeats is met again, and is not the place itself.
    seen: BTreeSet<(usize, bool)>,
}

impl Walk {
    fn node(&mut self, node: &Node, text: &Text) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let header = entry.value.at.start;
                    // The key of a table in TOML stands inside of the header that is its value's place.
                    let opens = text.text.get(header..entry.key_at.start);
                    let opens =
                        opens.is_some_and(|between| between.trim_matches(['[', ' ']).is_empty());
                    let start = if opens { header } else { entry.key_at.start };
                    let end = if entry.value.at.start >= start {
                        entry.value.at.end.max(entry.key_at.end)
                    } else {
                        entry.key_at.end
                    };
                    self.place(start, end, Of::Key);
                    self.node(&entry.value, text);
                }
            }
            Value::List(items) => {
                for item in items {
                    let of = match item.scalar() {
                        Some(text) if text.contains('\n') => Of::BlockItem,
                        _ => Of::Item,
                    };
                    let number = self.place(item.at.start, item.at.end, of);
                    let nests = match &item.value {
                        Value::Map(entries) => !entries.is_empty(),
                        Value::List(items) => !items.is_empty(),
                        Value::Plain(_) | Value::Quoted(_) => false,
                    };
                    if nests {
                        self.nests.push(number);
                    }
                    self.node(item, text);
                }
            }
            Value::Plain(_) | Value::Quoted(_) => {}
        }
    }

    fn place(&mut self, start: usize, end: usize, of: Of) -> usize {
        let number = self.numbers;
        self.numbers += 1;
        if self.seen.insert((start, of == Of::Key)) {
            self.places.push(Place {
                number,
                start,
                end,
                of,
            });
        }
        number
    }
}

/// Gives each comment its key or item; those that have none come back.
pub(super) fn attach<'a>(
    tree: &Node,
    text: &Text,
    comments: &'a [Comment],
) -> (Attached<'a>, Vec<Comment>) {
    let mut walk = Walk::default();
    walk.node(tree, text);
    let mut attached = Attached::default();
    let mut left_out = Vec::new();
    let mut by_start: Vec<&Place> = walk.places.iter().collect();
    by_start.sort_by_key(|place| (place.start, place.number));
    // Where several end at one byte the outermost is last.
    let mut by_end: Vec<&Place> = walk.places.iter().collect();
    by_end.sort_by_key(|place| (place.end, std::cmp::Reverse(place.number)));
    for place in &walk.places {
        if place.of != Of::BlockItem
            && begins_line(text, place.start)
            && blank_before(text, place.start)
        {
            attached.blank.insert(place.number);
        }
    }
    for comment in comments {
        let at = comment.at.start;
        let line = text.start_of_line(at);
        let before = text.text.get(line..at).unwrap_or_default();
        let behind = match comment.stands {
            Stands::Alone => None,
            Stands::Behind => ended(&by_end, text, line, at).or_else(|| begun(&by_start, line, at)),
        };
        if let Some(place) = behind {
            match attached.behind.entry(place.number) {
                Slot::Vacant(slot) => {
                    slot.insert(comment);
                }
                // A line has room for one; what more is said stands before it.
                Slot::Occupied(_) => attached
                    .before
                    .entry(place.number)
                    .or_default()
                    .push(comment),
            }
        } else if before
            .chars()
            .all(|c| c.is_whitespace() || "-?:,[]{}|>+".contains(c))
        {
            let document = text.document_around(at);
            let next = by_start.partition_point(|place| place.start <= at);
            match by_start
                .get(next)
                .filter(|place| place.start <= document.end)
            {
                Some(place) => attached
                    .before
                    .entry(place.number)
                    .or_default()
                    .push(comment),
                None => attached.footer.push(comment),
            }
        } else {
            left_out.push(comment.clone());
        }
    }
    lift(&mut attached, &walk.nests);
    (attached, left_out)
}

/// The outermost key or item of this line that ends last before a comment.
fn ended<'p>(by_end: &[&'p Place], text: &Text, line: usize, at: usize) -> Option<&'p Place> {
    let index = by_end
        .partition_point(|place| place.end <= at)
        .checked_sub(1)?;
    let place = by_end.get(index)?;
    let here = text.text.get(line..place.end)?;
    (!here.trim().is_empty()).then_some(place)
}

/// The innermost key or item that begins last in this line before a comment.
fn begun<'p>(by_start: &[&'p Place], line: usize, at: usize) -> Option<&'p Place> {
    let index = by_start
        .partition_point(|place| place.start < at)
        .checked_sub(1)?;
    by_start
        .get(index)
        .filter(|place| place.start >= line)
        .copied()
}

/// Whether nothing but dashes and brackets stands before a place in its line.
fn begins_line(text: &Text, at: usize) -> bool {
    let before = text
        .text
        .get(text.start_of_line(at)..at)
        .unwrap_or_default();
    before.trim_matches(['-', ' ', '[', '?']).is_empty()
}

/// An item that is a map or a list begins in the line of its dash, so what is said before its first key or behind the
/// dash stands before the dash. Innermost first, so that it rises all the way.
fn lift(attached: &mut Attached<'_>, nests: &[usize]) {
    for nest in nests.iter().rev() {
        let behind = attached.behind.remove(nest);
        let inner = attached.before.remove(&(nest + 1));
        let lifted: Vec<_> = behind
            .into_iter()
            .chain(inner.into_iter().flatten())
            .collect();
        if !lifted.is_empty() {
            attached.before.entry(*nest).or_default().extend(lifted);
        }
    }
}
