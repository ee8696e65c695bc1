//! A document's tree in canonical form: the names of keys as the table has them, single values spelt out where a map is
//! the usual form, the root without `persona_NAME`. Places stay those of the text. What the values must be is not checked
//! here; the readers, the merge of documents and the formatter work on what comes out.

use std::ops::Range;

use super::{Key, Names, Others, PACKAGE, ROOT, RULE, SECRET, SOURCE, Shape, Table, WEIGHT};
use super::{choose, frequency, metric_or_label, software};
use crate::document::{Entry, Node, Text, Value};
use crate::limits;
use crate::model::{PersonaName, Reference, host_of};
use crate::problem::{Kind, Problem, Problems};
use crate::quantity::Quantity;
use crate::signal::Unit;

/// The tree in canonical form, and what in it is no key of the language or stands there twice. What is reported is left
/// out of the tree.
pub(crate) fn canonical(tree: &Node, text: &Text) -> (Node, Vec<Problem>) {
    let mut writer = Writer {
        text,
        problems: Vec::new(),
    };
    let root = writer.root(tree);
    (root, writer.problems)
}

struct Writer<'a> {
    text: &'a Text,
    problems: Vec<Problem>,
}

impl Writer<'_> {
    fn root(&mut self, tree: &Node) -> Node {
        let Some((only, name)) = named_root(tree) else {
            return self.table(tree, &ROOT);
        };
        let mut body = self.table(&only.value, &ROOT);
        if let Value::Map(entries) = &mut body.value
            && !entries.iter().any(|entry| entry.key == "name")
        {
            let name = Node {
                value: Value::Plain(name.to_owned()),
                at: only.key_at.clone(),
            };
            let name = self.single(&name, &Shape::PersonaName);
            entries.insert(0, entry("name", name));
        }
        body
    }

    /// A map of known keys.
    fn table(&mut self, node: &Node, table: &Table) -> Node {
        let Value::Map(entries) = &node.value else {
            return node.clone();
        };
        let mut found: Vec<Entry> = Vec::with_capacity(entries.len());
        for given in entries {
            let (name, value) = match table.find(&given.key) {
                Some(key) => (key.name.to_owned(), self.shape(&given.value, &key.shape)),
                None if table.others == Others::Kept && !given.key.trim().is_empty() => {
                    let name = given
                        .key
                        .trim()
                        .to_ascii_lowercase()
                        .replace([' ', '-'], "_");
                    (name, given.value.clone())
                }
                None => {
                    self.unknown_key(given, table);
                    continue;
                }
            };
            self.insert(&mut found, given, name, value);
        }
        Node {
            value: Value::Map(found),
            at: node.at.clone(),
        }
    }

    /// Adds an entry, unless its key is there already.
    fn insert(&mut self, found: &mut Vec<Entry>, given: &Entry, key: String, value: Node) {
        if let Some(first) = found.iter().find(|entry| entry.key == key) {
            let span = self.text.span(&given.key_at);
            let line = self.text.span(&first.key_at).line;
            let written = shown(&given.key);
            let message = if written == key {
                format!("`{key}` stands here a second time; the first is on line {line}")
            } else {
                format!("`{written}` is `{key}`, which stands on line {line} already")
            };
            self.problems
                .push(Problem::error(Kind::Duplicate, span, message));
            return;
        }
        found.push(Entry {
            key,
            key_at: given.key_at.clone(),
            value,
        });
    }

    fn unknown_key(&mut self, given: &Entry, table: &Table) {
        let (key, owner) = (shown(&given.key), table.owner);
        let message = format!("{owner} has no key `{key}`");
        // Nobody reads advice beyond the problems that are kept, and finding it for each of thousands takes long.
        let advised = self.problems.len() < Problems::MOST;
        let help = if !advised {
            String::new()
        } else if given.key == "<<" {
            "merge keys are not part of YAML 1.2; write the keys out".to_owned()
        } else if given.key.to_ascii_lowercase().starts_with("if ") {
            "a rule text that contains `: ` has to stand in quotes".to_owned()
        } else if let Some(near) = table.nearest(&given.key) {
            format!("did you mean `{near}`?")
        } else if let Some(place) = elsewhere(&given.key, table) {
            format!("it belongs under `{place}`")
        } else {
            let names: Vec<_> = table.keys.iter().map(|key| key.name).collect();
            format!("keys are {}", names.join(", "))
        };
        let problem = Problem::error(Kind::UnknownKey, self.text.span(&given.key_at), message);
        self.problems.push(problem.help(help));
    }

    fn shape(&mut self, node: &Node, shape: &Shape) -> Node {
        if node.is_empty() {
            return node.clone();
        }
        match shape {
            Shape::List(inner, _) => self.list(node, inner),
            Shape::Many(inner, _) => match node.value {
                Value::List(_) => self.list(node, inner),
                _ => Node {
                    value: Value::List(vec![self.shape(node, inner)]),
                    at: node.at.clone(),
                },
            },
            Shape::Map(table) => self.table(node, table),
            Shape::Spelt(single, table) => match (&node.value, table.key(single)) {
                (Value::Map(_) | Value::List(_), _) | (_, None) => self.table(node, table),
                (_, Some(key)) => {
                    let value = self.shape(node, &key.shape);
                    map(vec![entry(single, value)], node.at.clone())
                }
            },
            Shape::Dictionary(names, inner, _) => self.dictionary(node, *names, inner),
            Shape::Rule => self.table(node, &RULE),
            Shape::Variable => self.table(node, &SECRET),
            Shape::Source => self.source(node),
            Shape::Software => self.software(node),
            Shape::Weights => self.weights(node),
            _ => self.single(node, shape),
        }
    }

    fn list(&mut self, node: &Node, inner: &Shape) -> Node {
        let Value::List(items) = &node.value else {
            return node.clone();
        };
        let items = items.iter().map(|item| self.shape(item, inner)).collect();
        Node {
            value: Value::List(items),
            at: node.at.clone(),
        }
    }

    fn dictionary(&mut self, node: &Node, names: Names, inner: &Shape) -> Node {
        let Value::Map(entries) = &node.value else {
            return node.clone();
        };
        let mut found = Vec::with_capacity(entries.len());
        for given in entries {
            let name = match names {
                Names::Exact => given.key.clone(),
                Names::Labels => given.key.trim().to_ascii_lowercase(),
            };
            let value = self.shape(&given.value, inner);
            self.insert(&mut found, given, name, value);
        }
        map(found, node.at.clone())
    }

    /// A single value in its one spelling, where it has several that mean the same.
    fn single(&mut self, node: &Node, shape: &Shape) -> Node {
        let Some(text) = node.scalar() else {
            return node.clone();
        };
        let spelling = match shape {
            Shape::Boolean if matches!(node.value, Value::Plain(_)) => {
                let lowered = text.to_ascii_lowercase();
                matches!(lowered.as_str(), "true" | "false").then_some(lowered)
            }
            // `8 cores` is 8 of what the key counts.
            Shape::Whole(..) | Shape::Number => Quantity::parse(text)
                .ok()
                .filter(|quantity| quantity.unit == Unit::Count)
                .map(|quantity| quantity.to_string()),
            Shape::Choice(words) => choose(text, words).map(str::to_owned),
            Shape::Frequency => frequency(text).map(|(_, word)| word.to_owned()),
            Shape::Metric => Some(metric_or_label(text)),
            // Only what is a name then: what is refused is shown as it stands.
            Shape::Package => {
                Some(text.trim().to_ascii_lowercase()).filter(|name| limits::is_package(name))
            }
            Shape::PersonaName | Shape::Label => text
                .trim()
                .parse::<PersonaName>()
                .ok()
                .map(|name| name.to_string()),
            Shape::Reference => text
                .trim()
                .parse::<Reference>()
                .ok()
                .map(|found| found.to_string()),
            Shape::Version => super::constraint(text).map(|constraint| constraint.to_string()),
            _ => None,
        };
        let value = match (spelling, &node.value) {
            (None, _) => return node.clone(),
            // What stood in quotes was meant as text, and stays one.
            (Some(spelling), Value::Quoted(_)) => Value::Quoted(spelling),
            (Some(spelling), _) => Value::Plain(spelling),
        };
        Node {
            value,
            at: node.at.clone(),
        }
    }

    /// An external source, with the name that its URL gives it where it has none.
    fn source(&mut self, node: &Node) -> Node {
        let mut source = self.table(node, &SOURCE);
        if let Value::Map(entries) = &mut source.value
            && !entries.iter().any(|entry| entry.key == "name")
            && let Some(url) = entries.iter().find(|entry| entry.key == "url")
            && let Some(host) = url.value.scalar().and_then(host_of)
        {
            let at = self.part(&url.value, host);
            let name = Node {
                value: Value::Plain(host.to_ascii_lowercase()),
                at,
            };
            entries.insert(0, entry("name", name));
        }
        source
    }

    /// `Nginx (latest version)` as its keys.
    fn software(&mut self, node: &Node) -> Node {
        let Some(text) = node.scalar() else {
            return self.table(node, &PACKAGE);
        };
        let parts = software::parts(text);
        let mut made = |key: &str, (part, _): (&str, Range<usize>)| {
            let at = self.part(node, part);
            let value = Node {
                value: Value::Plain(part.to_owned()),
                at,
            };
            let shape = PACKAGE.key(key).map_or(Shape::Text(0), |key| key.shape);
            entry(key, self.single(&value, &shape))
        };
        let mut entries = vec![made("name", parts.name)];
        if let Some(remark) = parts.remark {
            let key = if software::speaks_of_version(remark.0) {
                "version"
            } else {
                "purpose"
            };
            entries.push(made(key, remark));
        }
        map(entries, node.at.clone())
    }

    /// Weights as a map of names.
    fn weights(&mut self, node: &Node) -> Node {
        let mut found = Vec::new();
        let entries: Vec<Entry> = match &node.value {
            Value::Map(entries) => entries.clone(),
            Value::List(items) => items.iter().filter_map(|item| self.weight(item)).collect(),
            Value::Plain(_) | Value::Quoted(_) => return node.clone(),
        };
        for given in entries {
            let name = metric_or_label(&given.key);
            let value = self.single(&given.value, &Shape::Number);
            self.insert(&mut found, &given, name, value);
        }
        map(found, node.at.clone())
    }

    /// An item of a list of weights: a name, or the keys of [`WEIGHT`].
    fn weight(&mut self, item: &Node) -> Option<Entry> {
        let one = |at: &Range<usize>| Node {
            value: Value::Plain("1".to_owned()),
            at: at.clone(),
        };
        if let Some(name) = item.scalar().filter(|_| !item.is_empty()) {
            return Some(Entry {
                key: name.to_owned(),
                key_at: item.at.clone(),
                value: one(&item.at),
            });
        }
        let spelt = self.table(item, &WEIGHT);
        let Value::Map(entries) = &spelt.value else {
            let message = format!(
                "a weight is a name or a map of keys, not {}",
                item.describe()
            );
            self.error(Kind::WrongType, item, message);
            return None;
        };
        let field = |key: &str| entries.iter().find(|entry| entry.key == key);
        let Some((name, at)) =
            field("name").and_then(|entry| Some((entry.value.scalar()?, &entry.value.at)))
        else {
            self.error(Kind::Missing, item, "the weight has no `name`".to_owned());
            return None;
        };
        Some(Entry {
            key: name.to_owned(),
            key_at: at.clone(),
            value: field("weight").map_or_else(|| one(at), |entry| entry.value.clone()),
        })
    }

    fn error(&mut self, kind: Kind, node: &Node, message: String) {
        self.problems
            .push(Problem::error(kind, self.text.span(&node.at), message));
    }

    /// Where a part of a scalar stands; the whole scalar where escapes or folded lines hide it.
    fn part(&self, node: &Node, part: &str) -> Range<usize> {
        let raw = self.text.text.get(node.at.clone()).unwrap_or_default();
        match raw.find(part) {
            Some(at) if !part.is_empty() => {
                let start = node.at.start + at;
                start..start + part.len()
            }
            _ => node.at.clone(),
        }
    }
}

/// A root `persona_NAME:` stands around the keys and gives the name.
fn named_root(root: &Node) -> Option<(&Entry, &str)> {
    let Value::Map(entries) = &root.value else {
        return None;
    };
    let [only] = entries.as_slice() else {
        return None;
    };
    let prefix = only.key.get(..8)?;
    let name = only.key.get(8..).filter(|name| !name.is_empty())?;
    prefix
        .eq_ignore_ascii_case("persona_")
        .then_some((only, name))
}

/// An entry that the text has in another form; its key stands where its value does.
fn entry(key: &str, value: Node) -> Entry {
    Entry {
        key: key.to_owned(),
        key_at: value.at.clone(),
        value,
    }
}

fn map(entries: Vec<Entry>, at: Range<usize>) -> Node {
    Node {
        value: Value::Map(entries),
        at,
    }
}

/// The start of a key, for messages.
fn shown(key: &str) -> String {
    key.chars().take(60).collect()
}

/// The part of a persona in which a key would be known, where one has it.
fn elsewhere(spelling: &str, table: &Table) -> Option<&'static str> {
    if std::ptr::eq(table, &raw const ROOT) {
        let within = |key: &&Key| match key.shape {
            Shape::Map(inner) => inner.find(spelling).is_some(),
            _ => false,
        };
        return ROOT.keys.iter().find(within).map(|key| key.name);
    }
    ROOT.find(spelling).map(|_| "the root of the document")
}
