//! The language of persona documents as one table: every key at every level, how else it may be spelt, the shape of its
//! value, what it means, and whether this version acts on it. The readers in `read`, the canonical form, the JSON Schema
//! and the documentation come from it. What the values come to is in `read`; the rule language has tables of its own.

mod canonical;
mod documentation;
mod guest;
#[cfg(test)]
mod laws;
mod profile;
mod resources;
mod respell;
mod root;
mod rules;
#[cfg(test)]
mod sample;
mod schema;
mod software;
mod words;

pub(crate) use canonical::canonical;
pub use documentation::documentation;
pub(crate) use guest::{APPLICATION, BEHAVIOUR, OS, SCRIPT, SECRET};
pub(crate) use profile::{
    COST, CPU_NEED, LIFECYCLE, MEMORY_NEED, POINT, RATE_NEED, REQUEST_NEED, SECURITY,
};
pub(crate) use resources::{BASE, CPU, DISK, MEMORY, PACKAGE};
pub(crate) use respell::respell;
pub(crate) use root::{ROOT, TRUST, WEIGHT};
pub(crate) use rules::{RULE, SOURCE};
pub use schema::schema;
pub(crate) use software::constraint;
pub(crate) use words::{
    FORMATS, LEARNING, LOGGING, ON_FAILURE, SCALING, SOURCES, Word, choose, frequency,
    metric_or_label, percentage_per, time_of_day,
};

use crate::signal::Unit;

/// A map of known keys.
pub(crate) struct Table {
    /// What has the keys, at the start of a sentence: "a rule", "cpu".
    pub(crate) owner: &'static str,
    pub(crate) keys: &'static [Key],
    pub(crate) others: Others,
}

/// What keys beside the known ones are.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Others {
    /// Mistakes.
    Refused,
    /// Settings that a plugin of the guest may know.
    Kept,
}

/// One key of a map.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    /// The canonical name.
    pub(crate) name: &'static str,
    /// Other words for it. Case, hyphens, underscores and blanks make no other word.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) shape: Shape,
    /// One sentence for people, without the key.
    pub(crate) meaning: &'static str,
    pub(crate) absent: Absent,
    pub(crate) effect: Effect,
}

/// What holds where a key is not there.
#[derive(Clone, Copy)]
pub(crate) enum Absent {
    /// It has to be there.
    Refused,
    /// In a few words.
    Means(&'static str),
    /// Nothing that would have to be said.
    Nothing,
}

/// Whether this version acts on a key.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// It does.
    Acts,
    /// It reads and keeps the value; the sentence says what does not happen.
    Inactive(&'static str),
}

/// The shape of a value.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Text of at most so many bytes.
    Text(usize),
    /// The name of a persona.
    PersonaName,
    /// `NAME` or `NAME@VERSION`.
    Reference,
    /// A name within the document.
    Label,
    /// `true` or `false`.
    Boolean,
    /// A whole number from one to the other.
    Whole(u32, u32),
    /// A plain number from zero.
    Number,
    /// A number with a unit of one of these kinds, and an example.
    Quantity(&'static [Unit], &'static str),
    /// One of these words.
    Choice(&'static [Word]),
    /// `never` to `monthly`, or a duration that equals one.
    Frequency,
    /// A half-life, or percent a time.
    Decay,
    /// `HH:MM`.
    TimeOfDay,
    /// `http`, `https` or `file`.
    Url,
    /// An absolute path.
    Path,
    /// A command's name, without a path.
    Command,
    /// The name of a metric.
    Metric,
    /// `tcp/443 from 0.0.0.0/0`.
    Endpoint,
    /// A level of trust, as a word or a number from 0 to 1.
    Level,
    /// The version of a package.
    Version,
    /// The name of a package.
    Package,
    /// One action of the rule language.
    Action,
    /// A condition of the rule language.
    Condition,
    /// A rule as text, or as the keys of [`RULE`].
    Rule,
    /// A package as text, or as the keys of [`PACKAGE`].
    Software,
    /// The keys of [`SOURCE`]; its name may come from its URL.
    Source,
    /// Names and weights: a map, a list of [`WEIGHT`], or a list of names.
    Weights,
    /// The value of an environment variable: text, or the keys of [`SECRET`].
    Variable,
    /// A list of at most so many.
    List(&'static Shape, usize),
    /// One, or a list of at most so many.
    Many(&'static Shape, usize),
    /// A map of these keys.
    Map(&'static Table),
    /// A map of these keys, or the value of one of them alone.
    Spelt(&'static str, &'static Table),
    /// A map of at most so many names of one's own.
    Dictionary(Names, &'static Shape, usize),
}

/// What the keys of a map of one's own names are.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Names {
    /// As written: variables, commands, kernel parameters.
    Exact,
    /// Names within the document, which are lowered.
    Labels,
}

impl Key {
    const fn new(name: &'static str, shape: Shape, meaning: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            shape,
            meaning,
            absent: Absent::Nothing,
            effect: Effect::Acts,
        }
    }

    const fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn absent(self, means: &'static str) -> Self {
        Self {
            absent: Absent::Means(means),
            ..self
        }
    }

    const fn required(self) -> Self {
        Self {
            absent: Absent::Refused,
            ..self
        }
    }

    const fn inactive(self, sentence: &'static str) -> Self {
        Self {
            effect: Effect::Inactive(sentence),
            ..self
        }
    }
}

impl Table {
    const fn new(owner: &'static str, keys: &'static [Key]) -> Self {
        Self {
            owner,
            keys,
            others: Others::Refused,
        }
    }

    /// The key that a spelling means.
    pub(crate) fn find(&self, spelling: &str) -> Option<&'static Key> {
        let squashed = squash(spelling);
        let same = |name: &str| squash(name) == squashed;
        self.keys
            .iter()
            .find(|key| same(key.name) || key.aliases.iter().any(|alias| same(alias)))
    }

    /// The key with this canonical name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The canonical name of the key whose spelling is nearest to a text.
    pub(crate) fn nearest(&self, text: &str) -> Option<&'static str> {
        let lowered = text.to_ascii_lowercase();
        let spellings = self
            .keys
            .iter()
            .flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()));
        let near = crate::problem::nearest(&lowered, spellings)?;
        self.find(near).map(|key| key.name)
    }
}

/// `BaseConfiguration`, `base-configuration` and `base configuration` are `base_configuration`.
pub(crate) fn squash(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every table of the language, each once.
    fn tables() -> Vec<&'static Table> {
        fn visit(shape: &Shape, found: &mut Vec<&'static Table>) {
            let table = match shape {
                Shape::List(inner, _) | Shape::Many(inner, _) | Shape::Dictionary(_, inner, _) => {
                    return visit(inner, found);
                }
                Shape::Map(table) | Shape::Spelt(_, table) => table,
                Shape::Rule => &RULE,
                Shape::Software => &PACKAGE,
                Shape::Source => &SOURCE,
                Shape::Weights => &WEIGHT,
                Shape::Variable => &SECRET,
                _ => return,
            };
            if !found.iter().any(|known| std::ptr::eq(*known, table)) {
                found.push(table);
                for key in table.keys {
                    visit(&key.shape, found);
                }
            }
        }
        let mut found = Vec::new();
        visit(&Shape::Map(&ROOT), &mut found);
        found
    }

    #[test]
    fn no_two_keys_of_a_map_share_a_spelling() {
        let tables = tables();
        assert!(tables.len() > 15, "{} tables", tables.len());
        for table in tables {
            let mut spellings: Vec<String> = Vec::new();
            for key in table.keys {
                spellings.push(squash(key.name));
                spellings.extend(key.aliases.iter().map(|alias| squash(alias)));
            }
            let count = spellings.len();
            spellings.sort();
            spellings.dedup();
            assert_eq!(spellings.len(), count, "{}", table.owner);
        }
    }

    #[test]
    fn what_is_said_of_a_key_is_a_sentence() {
        for table in tables() {
            for key in table.keys {
                let whole = |text: &str| !text.is_empty() && !text.ends_with('.');
                assert!(whole(key.meaning), "{}", key.name);
                if let Effect::Inactive(sentence) = key.effect {
                    assert!(whole(sentence), "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn a_single_value_stands_for_a_key_that_exists() {
        for table in tables() {
            for key in table.keys {
                if let Shape::Spelt(single, inner) = key.shape {
                    assert!(inner.key(single).is_some(), "{}", key.name);
                }
            }
        }
    }
}
