//! Single values and maps of known keys: what every other reader here stands on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::Reader;
use crate::document::{Entry, Node, Value};
use crate::limits;
use crate::problem::{self, Kind, Problem, Problems};
use crate::quantity::{Quantity, whole_millis};
use crate::rule::parse::TextProblem;
use crate::signal::Unit;
use crate::units::Bytes;

/// A key that may stand in a map.
pub(crate) struct Key {
    name: &'static str,
    status: Status,
}

/// Whether this version acts on a key.
#[derive(PartialEq)]
enum Status {
    Read,
    Later,
}

impl Key {
    pub(super) const fn read(name: &'static str) -> Self {
        Self {
            name,
            status: Status::Read,
        }
    }

    /// A key of the language on which this version does not act. It is refused: a document that asks for something
    /// that does not happen is worse than one that is sent back.
    pub(super) const fn later(name: &'static str) -> Self {
        Self {
            name,
            status: Status::Later,
        }
    }
}

/// `BaseConfiguration`, `base-configuration` and `base configuration` are `base_configuration`.
fn squash(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// The name of the key that is meant.
pub(super) fn canonical(keys: &[Key], key: &str) -> Option<&'static str> {
    let squashed = squash(key);
    let found = keys.iter().find(|key| squash(key.name) == squashed);
    found.map(|key| key.name)
}

impl Reader<'_> {
    /// The entries of a map under the names of their keys. `None` where it is no map.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        owner: &str,
        keys: &[Key],
    ) -> Option<BTreeMap<&'static str, &'n Entry>> {
        let Value::Map(entries) = &node.value else {
            let message = format!("{owner} is a map of keys, not {}", node.describe());
            self.report(Kind::WrongType, node, message, None);
            return None;
        };
        let mut found: BTreeMap<&'static str, &Entry> = BTreeMap::new();
        for entry in entries {
            let squashed = squash(&entry.key);
            let Some(key) = keys.iter().find(|key| squash(key.name) == squashed) else {
                self.unknown_key(entry, owner, keys);
                continue;
            };
            let span = self.text.span(&entry.key_at);
            if let Some(first) = found.get(key.name) {
                let line = self.text.span(&first.key_at).line;
                let message = format!(
                    "`{}` stands here a second time; the first is on line {line}",
                    key.name
                );
                self.problems
                    .push(Problem::error(Kind::Duplicate, span, message));
            } else if key.status == Status::Later {
                let message = format!("this version does not act on `{}`", key.name);
                let help = "remove it; a persona is stored only where all of it takes effect";
                self.problems
                    .push(Problem::error(Kind::NotYetSupported, span, message).help(help));
            } else if entry.value.is_empty() {
                let message = format!("`{}` has no value", key.name);
                let help = "give it one, or remove the key";
                self.problems
                    .push(Problem::error(Kind::Missing, span, message).help(help));
            } else {
                found.insert(key.name, entry);
            }
        }
        Some(found)
    }

    fn unknown_key(&mut self, entry: &Entry, owner: &str, keys: &[Key]) {
        let shown: String = entry.key.chars().take(60).collect();
        let message = format!("{owner} has no key `{shown}`");
        let names = || {
            keys.iter()
                .filter(|key| key.status == Status::Read)
                .map(|key| key.name)
        };
        let lowered = entry.key.to_ascii_lowercase();
        // Nobody reads advice beyond the problems that are kept, and finding it for each of thousands takes long.
        let advised = self.problems.len() < Problems::MOST;
        let help = if !advised {
            String::new()
        } else if entry.key == "<<" {
            "merge keys are not part of YAML 1.2; write the keys out".to_owned()
        } else if lowered.starts_with("if ") {
            "a rule text that contains `: ` has to stand in quotes".to_owned()
        } else if let Some(near) = problem::nearest(&lowered, keys.iter().map(|key| key.name)) {
            format!("did you mean `{near}`?")
        } else {
            format!("keys are {}", names().collect::<Vec<_>>().join(", "))
        };
        let problem = Problem::error(Kind::UnknownKey, self.text.span(&entry.key_at), message);
        self.problems.push(problem.help(help));
    }

    /// The items of a list.
    pub(super) fn items<'n>(&mut self, node: &'n Node, owner: &str) -> &'n [Node] {
        if let Value::List(items) = &node.value {
            return items;
        }
        self.report(
            Kind::WrongType,
            node,
            format!("`{owner}` is a list, not {}", node.describe()),
            None,
        );
        &[]
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

    pub(super) fn boolean(&mut self, node: &Node, key: &str) -> Option<bool> {
        match &node.value {
            Value::Plain(text) if matches!(text.as_str(), "true" | "True" | "TRUE") => Some(true),
            Value::Plain(text) if matches!(text.as_str(), "false" | "False" | "FALSE") => {
                Some(false)
            }
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

    /// A quantity of one kind.
    pub(super) fn quantity(
        &mut self,
        node: &Node,
        key: &str,
        unit: Unit,
        example: &str,
    ) -> Option<f64> {
        let text = self.text_of(node, key, 256)?;
        let help = Some(format!("write a number such as `{example}`"));
        match Quantity::parse(&text) {
            Ok(quantity) if quantity.unit == unit => Some(quantity.value),
            Ok(quantity) => {
                let message = format!("`{key}` is {unit}, and `{text}` is {}", quantity.unit);
                self.report(Kind::UnitMismatch, node, message, help);
                None
            }
            Err(error) => {
                self.report(Kind::BadQuantity, node, format!("`{key}`: {error}"), help);
                None
            }
        }
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
        let value = self.quantity(node, key, Unit::Count, example)?;
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
        let value = self.quantity(node, key, Unit::Bytes, "4 GiB")?;
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

    pub(super) fn timeout(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let duration = whole_millis(self.quantity(node, key, Unit::Duration, "60s")?);
        if duration < Duration::from_secs(1) || duration > limits::LONGEST_TIMEOUT {
            let found = node.scalar().unwrap_or_default();
            self.report(
                Kind::OutOfRange,
                node,
                format!("`{key}` of {found} is out of range; it is 1s to 1h"),
                None,
            );
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
