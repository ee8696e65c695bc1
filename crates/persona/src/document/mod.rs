//! A document as a tree of values, each with its place in the text. What keys mean is not here; YAML, JSON and TOML
//! are the same from here on. The readers in `read` walk the tree.

#[allow(dead_code, reason = "for those who print documents")]
mod comments;
mod format;
mod parse;
mod place;
#[allow(dead_code, reason = "for those who print documents")]
mod print;
mod text;
mod toml;
mod yaml;

use std::ops::Range;

use crate::problem::{Problem, Problems, Severity};

pub(crate) use comments::comments;
pub use format::Format;
pub(crate) use parse::{parse, parse_into, size};
pub(crate) use print::{print, print_json};
pub use text::Origin;
pub(crate) use text::Text;

/// A document as given.
#[derive(Clone, Copy, Debug)]
pub struct SourceText<'a> {
    /// The file name, for messages.
    pub name: &'a str,
    /// The bytes of the file.
    pub text: &'a [u8],
    /// How it is written.
    pub format: Format,
    /// The name for a persona whose document has none.
    pub persona_name: Option<&'a str>,
}

/// One value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Bytes of the text.
    pub(crate) at: Range<usize>,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text without quotes: a number, a truth value, nothing, or text.
    Plain(String),
    /// Text in quotes or in a block.
    Quoted(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the text.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Range<usize>,
    pub(crate) value: Node,
}

impl Node {
    /// The text of a scalar, quoted or not.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether nothing stands where a value belongs.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            _ if self.is_empty() => "nothing",
            Value::Plain(_) | Value::Quoted(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map of keys",
        }
    }
}

/// Characters of a source line that problems show; a document may be one line.
const SHOWN: usize = 160;

/// Problems in the order of the text, with the source lines that they show, each once. `name` is the document that was
/// asked for; problems of others that were read with it say so.
pub(crate) fn collect(name: &str, text: &Text, mut found: Vec<Problem>) -> Problems {
    found.sort_by_key(|problem| (problem.span, std::cmp::Reverse(problem.severity)));
    found.dedup_by(|later, first| later.span == first.span && later.message == first.message);
    let errors_beyond = found
        .iter()
        .skip(Problems::MOST)
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    found.truncate(Problems::MOST);
    for problem in &mut found {
        problem.document = text
            .document_of(problem.span)
            .filter(|document| *document != name)
            .map(str::to_owned);
        let line = text.source_line(problem.span);
        let column = usize::try_from(problem.span.column).unwrap_or(usize::MAX);
        let long = line.chars().nth(SHOWN).is_some();
        // A quarter of what is shown stands before the place.
        let skip = if long {
            column.saturating_sub(SHOWN / 4)
        } else {
            0
        };
        problem.source_line = line.chars().skip(skip).take(SHOWN).collect();
        problem.source_column = u32::try_from(skip + 1).unwrap_or(u32::MAX);
    }
    Problems {
        source: name.to_owned(),
        problems: found,
        left_out: errors_beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    #[test]
    fn a_problem_of_another_document_names_it() {
        let mut text = Text::default();
        let mut problems = Vec::new();
        let mut read = |name: &str, document: &[u8]| {
            let source = SourceText {
                name,
                text: document,
                format: Format::Yaml,
                persona_name: None,
            };
            parse_into(&mut text, &source, None, &mut problems)
        };
        let base = read("base@1", b"# c\nname: [").is_none();
        let own = read("own.yaml", b"x: 1\ny: [").is_none();
        assert!(base && own);
        let problems = collect("own.yaml", &text, problems);
        let documents: Vec<_> = problems.iter().map(|problem| &problem.document).collect();
        assert_eq!(documents, [&Some("base@1".to_owned()), &None]);
        assert!(problems.iter().all(|problem| problem.kind == Kind::Syntax));
        let printed = problems.to_string();
        for line in [
            " --> base@1:2:",
            " --> own.yaml:2:",
            "2 | name: [",
            "2 | y: [",
        ] {
            assert!(printed.contains(line), "{line:?} in {printed}");
        }
        let json = serde_json::to_value(&problems).unwrap();
        assert_eq!(json["problems"][0]["document"], "base@1");
        assert_eq!(json["problems"][1].get("document"), None);
        assert_eq!(json["problems"][1]["span"].get("segment"), None);
    }
}
