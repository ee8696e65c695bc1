//! A document as a tree of values, each with its place in the text. What keys mean is not here; YAML and JSON are the
//! same from here on. The readers in `read` walk the tree.

mod parse;
mod place;

use std::ops::Range;

use crate::problem::{Problem, Problems, Severity, Span};

pub(crate) use parse::parse;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// YAML 1.2, core schema.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

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

/// The text of a document and where its lines start.
#[derive(Debug)]
pub(crate) struct Text {
    /// Without a byte order mark, line ends as `\n`.
    pub(crate) text: String,
    lines: Vec<usize>,
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

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        let text = text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .replace("\r\n", "\n")
            .replace('\r', "\n");
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Self { text, lines }
    }

    /// Lines and columns of a range of bytes. What covers several lines is marked to the end of its first.
    pub(crate) fn span(&self, at: &Range<usize>) -> Span {
        let start = self.boundary(at.start);
        let line = self
            .lines
            .partition_point(|first| *first <= start)
            .saturating_sub(1);
        let first = self.lines.get(line).copied().unwrap_or(0);
        let end_of_line = first + self.line_at(first).len();
        let end = self.boundary(at.end.clamp(start, end_of_line.max(start)));
        let characters = |range: Range<usize>| {
            let count = self.text.get(range).unwrap_or_default().chars().count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        Span {
            line: u32::try_from(line + 1).unwrap_or(u32::MAX),
            column: characters(first..start).saturating_add(1),
            length: characters(start..end).max(1),
        }
    }

    /// The span of a part of a scalar's text, in bytes of the text without quotes and escapes.
    pub(crate) fn span_within(&self, node: &Node, part: &Range<usize>) -> Span {
        let Some(decoded) = node.scalar() else {
            return self.span(&node.at);
        };
        let raw = self.text.get(node.at.clone()).unwrap_or_default();
        let found = place::locate(raw, decoded, part);
        self.span(&(node.at.start + found.start..node.at.start + found.end))
    }

    /// The line of the document at a span.
    pub(crate) fn source_line(&self, span: Span) -> &str {
        let line = usize::try_from(span.line).unwrap_or(1).saturating_sub(1);
        self.lines
            .get(line)
            .map(|first| self.line_at(*first))
            .unwrap_or_default()
    }

    /// A place by line and column as other parsers count them: lines from 1, columns in bytes from 1.
    pub(crate) fn at_line_and_byte(&self, line: usize, column: usize) -> Range<usize> {
        let first = self
            .lines
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(self.text.len());
        let at = (first + column.saturating_sub(1)).min(first + self.line_at(first).len());
        at..at + 1
    }

    fn line_at(&self, first: usize) -> &str {
        let rest = self.text.get(first..).unwrap_or_default();
        rest.split_once('\n').map_or(rest, |(line, _)| line)
    }

    /// The nearest start of a character at or before a byte.
    fn boundary(&self, at: usize) -> usize {
        char_start(&self.text, at)
    }
}

/// The start of the character at byte `at`, or the end of the text where it is shorter.
fn char_start(text: &str, at: usize) -> usize {
    let mut start = at.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    start
}

/// Characters of a source line that problems show; a document may be one line.
const SHOWN: usize = 160;

/// Problems in the order of the text, with the source lines that they show, each once.
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
