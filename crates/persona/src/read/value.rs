//! Single values, lists and maps of known keys: what every other reader here stands on. The tree is in canonical form, so
//! a key has one name.

use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::Reader;
use crate::document::{Entry, Node, Value};
use crate::language::{Effect, Table, Word, choose};
use crate::limits;
use crate::problem::{self, Kind, Problem};
use crate::quantity::{Quantity, whole_millis};
use crate::rule::parse::TextProblem;
use crate::signal::Unit;
use crate::units::Bytes;

/// The values of a map by the names of their keys.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    table: &'static Table,
}

impl<'n> Fields<'n> {
    /// The value of a key, where it has one.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key)
            .map(|entry| &entry.value)
            .filter(|value| !value.is_empty())
    }

    /// Whether a key stands there, with or without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where a key stands.
    pub(super) fn key_at(&self, key: &str) -> Option<&'n Range<usize>> {
        self.entry(key).map(|entry| &entry.key_at)
    }

    /// What a plugin of the guest may know.
    pub(super) fn others(&self) -> impl Iterator<Item = &'n Entry> {
        self.entries
            .iter()
            .filter(|entry| self.table.key(&entry.key).is_none())
    }

    /// What a value of it is called: its key, or what has the keys where the text gave the value alone.
    pub(super) fn shown(&self, key: &'static str) -> &'static str {
        let alone = self
            .entries
            .iter()
            .all(|entry| entry.key_at == entry.value.at);
        if alone { self.table.owner } else { key }
    }

    fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Reader<'_> {
    /// The entries of a map under the names of their keys. `None` where it is no map.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        table: &'static Table,
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let message = format!("{} is a map of keys, not {}", table.owner, node.describe());
            self.report(Kind::WrongType, node, message, None);
            return None;
        };
        for entry in entries {
            let span = self.text.span(&entry.key_at);
            let name = &entry.key;
            if entry.value.is_empty() {
                self.no_value(entry, name);
            } else if let Some(Effect::Inactive(sentence)) = table.key(name).map(|key| key.effect) {
                let message = format!("this version does not act on `{name}`: {sentence}");
                let help =
                    "the value is checked and kept, and the rest of the document takes effect";
                self.problems
                    .push(Problem::warning(Kind::NotYetSupported, span, message).help(help));
            }
        }
        Some(Fields { entries, table })
    }

    /// The entries of a map of one's own names, at most so many.
    pub(super) fn dictionary<'n>(
        &mut self,
        node: &'n Node,
        key: &str,
        what: &str,
        most: usize,
    ) -> &'n [Entry] {
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "`{key}` is a map of names to values, not {}",
                node.describe()
            );
            self.report(Kind::WrongType, node, message, None);
            return &[];
        };
        self.at_most(node, what, entries.len(), most);
        // What is too much has been refused; there is no need to explain it all.
        entries.get(..most).unwrap_or(entries)
    }

    /// The items of a list, at most so many.
    pub(super) fn items<'n>(
        &mut self,
        node: &'n Node,
        key: &str,
        what: &str,
        most: usize,
    ) -> &'n [Node] {
        let Value::List(items) = &node.value else {
            let message = format!("`{key}` is a list, not {}", node.describe());
            self.report(Kind::WrongType, node, message, None);
            return &[];
        };
        self.at_most(node, what, items.len(), most);
        items.get(..most).unwrap_or(items)
    }

    fn at_most(&mut self, node: &Node, what: &str, count: usize, most: usize) {
        if count > most {
            let message = format!("{count} {what} are too many; at most {most}");
            self.report(Kind::TooLarge, node, message, None);
        }
    }

    /// Reports an entry whose value is missing.
    pub(super) fn no_value(&mut self, entry: &Entry, shown: &str) {
        let span = self.text.span(&entry.key_at);
        let message = format!("`{shown}` has no value");
        let help = "give it one, or remove the key";
        self.problems
            .push(Problem::error(Kind::Missing, span, message).help(help));
    }

    /// Reports a required key that is not there at all.
    pub(super) fn missing(&mut self, node: &Node, owner: &str, key: &str, help: Option<&str>) {
        let message = format!("{owner} has no `{key}`");
        self.report(Kind::Missing, node, message, help.map(str::to_owned));
    }

    /// A single value as its text; numbers and truth values are the text that stands there.
    pub(super) fn text_of(&mut self, node: &Node, key: &str, longest: usize) -> Option<String> {
        let Some(text) = node.scalar().filter(|_| !node.is_empty()) else {
            self.report(
                Kind::WrongType,
                node,
                format!("`{key}` is a text, not {}", node.describe()),
                None,
            );
            return None;
        };
        if text.len() > longest {
            let message = format!(
                "`{key}` has {} bytes; at most {longest} are read",
                text.len()
            );
            self.report(Kind::TooLarge, node, message, None);
            return None;
        }
        if let Some(at) = text.find('\0') {
            let span = self.text.span_within(node, &(at..at + 1));
            self.problems.push(Problem::error(
                Kind::OutOfRange,
                span,
                format!("`{key}` contains a NUL character"),
            ));
            return None;
        }
        Some(text.to_owned())
    }

    /// A text of one line that says something.
    pub(super) fn line_of(&mut self, node: &Node, key: &str, longest: usize) -> Option<String> {
        let text = self.text_of(node, key, longest)?;
        let text = text.trim();
        if text.is_empty() {
            let message = format!("`{key}` is empty");
            self.report(Kind::Missing, node, message, None);
            return None;
        }
        if text.chars().any(char::is_control) {
            let message = format!("`{key}` has a line break or another control character");
            let help = Some("write one line".to_owned());
            self.report(Kind::OutOfRange, node, message, help);
            return None;
        }
        Some(text.to_owned())
    }

    /// One text or several, each of one line.
    pub(super) fn lines(&mut self, node: &Node, key: &str, most: usize) -> Vec<String> {
        let items = self.items(node, key, "entries", most);
        items
            .iter()
            .filter_map(|item| self.line_of(item, key, limits::LONGEST_LINE))
            .collect()
    }

    pub(super) fn boolean(&mut self, node: &Node, key: &str) -> Option<bool> {
        match &node.value {
            Value::Plain(text) if text == "true" => Some(true),
            Value::Plain(text) if text == "false" => Some(false),
            _ => {
                let found = node
                    .scalar()
                    .map_or_else(|| node.describe().to_owned(), |text| format!("`{text}`"));
                let help = Some("write true or false, without quotes".to_owned());
                self.report(
                    Kind::WrongType,
                    node,
                    format!("`{key}` is true or false, not {found}"),
                    help,
                );
                None
            }
        }
    }

    /// One of a few words, as the value that is serialised under it.
    pub(super) fn choice<T: for<'d> Deserialize<'d>>(
        &mut self,
        node: &Node,
        key: &str,
        words: &'static [Word],
    ) -> Option<T> {
        let word = self.word(node, key, words)?;
        let named: StrDeserializer<'_, Error> = word.into_deserializer();
        T::deserialize(named).ok()
    }

    /// One of a few words.
    pub(super) fn word(
        &mut self,
        node: &Node,
        key: &str,
        words: &'static [Word],
    ) -> Option<&'static str> {
        let text = self.text_of(node, key, limits::LONGEST_LINE)?;
        let found = choose(&text, words);
        if found.is_none() {
            let names = || words.iter().map(|Word(word, _)| *word);
            let near = problem::nearest(&text.to_ascii_lowercase(), names());
            let help = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!("`{key}` is {}, not `{text}`", one_of(names()));
            self.report(Kind::OutOfRange, node, message, help);
        }
        found
    }

    /// A name within the document: `[a-z0-9][a-z0-9._-]{0,62}`, in lower case.
    pub(super) fn label(&mut self, text: &str, node: &Node, what: &str) -> Option<String> {
        let lowered = text.to_ascii_lowercase();
        if limits::is_name(&lowered) {
            return Some(lowered);
        }
        let shown: String = text.chars().take(60).collect();
        let message = format!("`{shown}` is no name of {what}");
        self.report(Kind::BadName, node, message, Some(limits::NAMES.to_owned()));
        None
    }

    /// A quantity of one of these kinds.
    pub(super) fn quantity(
        &mut self,
        node: &Node,
        key: &str,
        units: &[Unit],
        example: &str,
    ) -> Option<f64> {
        let text = self.text_of(node, key, 256)?;
        let help = Some(format!("write a number such as `{example}`"));
        match Quantity::parse(&text) {
            Ok(quantity) if units.contains(&quantity.unit) => Some(quantity.value),
            Ok(quantity) => {
                let wanted = units.last().copied().unwrap_or(Unit::Count);
                let message = format!("`{key}` is {wanted}, and `{text}` is {}", quantity.unit);
                self.report(Kind::UnitMismatch, node, message, help);
                None
            }
            Err(error) => {
                self.report(Kind::BadQuantity, node, format!("`{key}`: {error}"), help);
                None
            }
        }
    }

    /// A quantity within a range; a rate per second may leave its unit out.
    pub(super) fn ranged(&mut self, node: &Node, key: &str, range: &limits::Range) -> Option<f64> {
        let bare: &[Unit] = match range.unit {
            Unit::PerSecond => &[Unit::Count, Unit::PerSecond],
            _ => &[],
        };
        let units = [bare, &[range.unit]].concat();
        let value = self.quantity(node, key, &units, range.example)?;
        if value < range.least || value > range.most {
            let unit = range.unit;
            let [least, most] = [range.least, range.most].map(|value| Quantity { value, unit });
            let found = node.scalar().unwrap_or_default();
            let message = format!("`{key}` of {found} is out of range; it is {least} to {most}");
            self.report(Kind::OutOfRange, node, message, None);
            return None;
        }
        Some(value)
    }

    /// A plain number from zero to a limit.
    pub(super) fn number(&mut self, node: &Node, key: &str, most: f64) -> Option<f64> {
        let value = self.quantity(node, key, &[Unit::Count], "0.5")?;
        if value > most {
            let found = node.scalar().unwrap_or_default();
            let message = format!("`{key}` of {found} is out of range; it is 0 to {most}");
            self.report(Kind::OutOfRange, node, message, None);
            return None;
        }
        Some(value)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn whole(
        &mut self,
        node: &Node,
        key: &str,
        least: u32,
        most: u32,
        example: &str,
    ) -> Option<u32> {
        let value = self.quantity(node, key, &[Unit::Count], example)?;
        if value.fract() != 0.0 || value < f64::from(least) || value > f64::from(most) {
            let found = node.scalar().unwrap_or_default();
            let message =
                format!("`{key}` is a whole number from {least} to {most}, not `{found}`");
            self.report(Kind::OutOfRange, node, message, None);
            return None;
        }
        // Whole and in range, checked above.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(value as u32)
    }

    pub(super) fn memory(&mut self, node: &Node, key: &str) -> Option<Bytes> {
        let value = self.quantity(node, key, &[Unit::Bytes], "4 GiB")?;
        match limits::memory(value) {
            Ok(size) => Some(size),
            Err(range) => {
                let found = node.scalar().unwrap_or_default();
                self.report(
                    Kind::OutOfRange,
                    node,
                    format!("`{key}` of {found} is out of range; {range}"),
                    None,
                );
                None
            }
        }
    }

    /// A duration from one length to another.
    pub(super) fn duration(
        &mut self,
        node: &Node,
        key: &str,
        range: (Duration, Duration),
        example: &str,
    ) -> Option<Duration> {
        let duration = whole_millis(self.quantity(node, key, &[Unit::Duration], example)?);
        let (least, most) = range;
        if duration < least || duration > most {
            let found = node.scalar().unwrap_or_default();
            let exact = crate::quantity::exact_duration;
            let message = format!(
                "`{key}` of {found} is out of range; it is {} to {}",
                exact(least),
                exact(most)
            );
            self.report(Kind::OutOfRange, node, message, None);
            return None;
        }
        Some(duration)
    }

    /// Reads a text of the rule language, and gives its problems their place in the document.
    pub(super) fn rule_text<T>(
        &mut self,
        node: &Node,
        key: &str,
        parse: impl FnOnce(&str, &mut Vec<TextProblem>) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = node.scalar().filter(|_| !node.is_empty()) else {
            self.report(
                Kind::WrongType,
                node,
                format!("`{key}` is a text, not {}", node.describe()),
                None,
            );
            return None;
        };
        let mut found = Vec::new();
        let parsed = parse(text, &mut found);
        for problem in found {
            let span = self.text.span_within(node, &problem.at);
            self.problems.push(problem.placed(span));
        }
        parsed
    }

    pub(super) fn line(&self, at: &Range<usize>) -> u32 {
        self.text.span(at).line
    }
}

/// `a, b or c`.
fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    match words.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}
