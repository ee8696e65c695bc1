//! The texts of documents and their places: one buffer for all that is read together, so that a range of bytes names
//! the document, the line and the column. What stands there is the parsers' business; readers and problems ask here.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Format, Node, place};
use crate::problem::Span;

/// The texts that are read together, one segment a document.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// All segments, each without a byte order mark and with line ends as `\n`, a line end between two of them.
    pub(crate) text: String,
    lines: Vec<usize>,
    segments: Vec<Segment>,
}

/// One document in the buffer.
#[derive(Debug)]
struct Segment {
    /// The file, or `NAME@VERSION`; none for a text that stands by itself.
    name: Option<String>,
    /// The tag whose override it is.
    tag: Option<String>,
    format: Format,
    start: usize,
    /// Index of its first line in [`Text::lines`].
    first_line: usize,
}

/// Where a value of a persona was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The document: a file, or `NAME@VERSION`.
    pub document: String,
    /// The line in that document, from 1.
    pub line: u32,
    /// The tag whose override the document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.document, self.line)?;
        match &self.tag {
            Some(tag) => write!(f, " (tag {tag})"),
            None => Ok(()),
        }
    }
}

impl Text {
    /// A single text that has no name of its own.
    pub(crate) fn new(text: &str) -> Self {
        let mut alone = Self::default();
        alone.append(None, None, Format::Yaml, text);
        alone
    }

    /// Adds a document and returns where it lies.
    pub(crate) fn add(
        &mut self,
        name: &str,
        tag: Option<&str>,
        format: Format,
        text: &str,
    ) -> Range<usize> {
        self.append(Some(name.to_owned()), tag.map(str::to_owned), format, text)
    }

    fn append(
        &mut self,
        name: Option<String>,
        tag: Option<String>,
        format: Format,
        text: &str,
    ) -> Range<usize> {
        if !self.segments.is_empty() {
            // The end of a document and the start of the next are two places.
            self.text.push('\n');
        }
        let start = self.text.len();
        self.segments.push(Segment {
            name,
            tag,
            format,
            start,
            first_line: self.lines.len(),
        });
        self.text.push_str(&normalised(text));
        self.lines.push(start);
        let added = self.text.get(start..).unwrap_or_default();
        let ends = added.match_indices('\n').map(|(at, _)| start + at + 1);
        self.lines.extend(ends);
        start..self.text.len()
    }

    /// Lines and columns of a range of bytes, within its document. What covers several lines is marked to the end of
    /// its first.
    pub(crate) fn span(&self, at: &Range<usize>) -> Span {
        let start = self.boundary(at.start);
        let segment = self.segment_at(start);
        let line = self.line_index(start);
        let first = self.lines.get(line).copied().unwrap_or(0);
        let end_of_line = first + self.line_at(first).len();
        let end = self.boundary(at.end.clamp(start, end_of_line.max(start)));
        let characters = |range: Range<usize>| {
            let count = self.text.get(range).unwrap_or_default().chars().count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let before = self
            .segments
            .get(segment)
            .map_or(0, |segment| segment.first_line);
        Span {
            segment: u32::try_from(segment).unwrap_or(u32::MAX),
            line: u32::try_from(line.saturating_sub(before) + 1).unwrap_or(u32::MAX),
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
        let segment = self.segments.get(self.segment_at(node.at.start));
        let format = segment.map_or(Format::Yaml, |segment| segment.format);
        let found = place::locate(raw, format, decoded, part);
        self.span(&(node.at.start + found.start..node.at.start + found.end))
    }

    /// The document, line and tag of a range of bytes.
    pub(crate) fn origin(&self, at: &Range<usize>) -> Origin {
        let span = self.span(at);
        let segment = self.segment_of(span);
        Origin {
            document: segment
                .and_then(|segment| segment.name.clone())
                .unwrap_or_default(),
            line: span.line,
            tag: segment.and_then(|segment| segment.tag.clone()),
        }
    }

    /// The name of the document in which a span lies.
    pub(crate) fn document_of(&self, span: Span) -> Option<&str> {
        self.segment_of(span)?.name.as_deref()
    }

    /// The bytes of the document in which a place lies.
    pub(crate) fn document_around(&self, at: usize) -> Range<usize> {
        let index = self.segment_at(at);
        let start = self.segments.get(index).map_or(0, |segment| segment.start);
        let end = self
            .segments
            .get(index + 1)
            .map_or(self.text.len(), |next| next.start.saturating_sub(1));
        start..end
    }

    /// The line of the document at a span.
    pub(crate) fn source_line(&self, span: Span) -> &str {
        let line = usize::try_from(span.line).unwrap_or(1).saturating_sub(1);
        let before = self
            .segment_of(span)
            .map_or(0, |segment| segment.first_line);
        self.lines
            .get(before + line)
            .map(|first| self.line_at(*first))
            .unwrap_or_default()
    }

    /// The start of the line in which a place lies.
    pub(crate) fn start_of_line(&self, at: usize) -> usize {
        self.lines.get(self.line_index(at)).copied().unwrap_or(0)
    }

    /// A place by line and column as other parsers count them in the document that starts at `start`: lines from 1,
    /// columns in bytes from 1.
    pub(crate) fn at_line_and_byte(
        &self,
        start: usize,
        line: usize,
        column: usize,
    ) -> Range<usize> {
        let first = self
            .lines
            .get(self.line_index(start) + line.saturating_sub(1))
            .copied()
            .unwrap_or(self.text.len());
        let at = (first + column.saturating_sub(1)).min(first + self.line_at(first).len());
        at..at + 1
    }

    /// The line without its end that starts at a byte.
    fn line_at(&self, first: usize) -> &str {
        let rest = self.text.get(first..).unwrap_or_default();
        rest.split_once('\n').map_or(rest, |(line, _)| line)
    }

    fn line_index(&self, at: usize) -> usize {
        self.lines
            .partition_point(|first| *first <= at)
            .saturating_sub(1)
    }

    fn segment_at(&self, at: usize) -> usize {
        self.segments
            .partition_point(|segment| segment.start <= at)
            .saturating_sub(1)
    }

    fn segment_of(&self, span: Span) -> Option<&Segment> {
        self.segments.get(usize::try_from(span.segment).ok()?)
    }

    /// The nearest start of a character at or before a byte.
    fn boundary(&self, at: usize) -> usize {
        char_start(&self.text, at)
    }
}

/// The text without a byte order mark, with line ends as `\n`.
pub(super) fn normalised(text: &str) -> String {
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n")
        .replace('\r', "\n")
}

/// The start of the character at byte `at`, or the end of the text where it is shorter.
pub(super) fn char_start(text: &str, at: usize) -> usize {
    let mut start = at.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_document_in_which_they_lie() {
        let mut text = Text::default();
        let base = text.add("base@1", None, Format::Yaml, "a: 1\nb: é2\n");
        let empty = text.add("none", None, Format::Json, "");
        let over = text.add(
            "over.yaml",
            Some("web"),
            Format::Toml,
            "\u{feff}c: 3\r\nd: 4",
        );
        let place = |range: &Range<usize>, word: &str| {
            let at = range.start + text.text[range.clone()].find(word).unwrap();
            at..at + word.len()
        };
        for (range, word, document, line, column) in [
            (&base, "a", "base@1", 1, 1),
            (&base, "2", "base@1", 2, 5),
            (&over, "3", "over.yaml", 1, 4),
            (&over, "d", "over.yaml", 2, 1),
        ] {
            let at = place(range, word);
            let (span, origin) = (text.span(&at), text.origin(&at));
            assert_eq!((span.line, span.column), (line, column), "{word}");
            assert_eq!(
                (origin.document.as_str(), origin.line),
                (document, line),
                "{word}"
            );
            assert!(text.source_line(span).contains(word), "{word}");
            assert_eq!(text.document_around(at.start), *range, "{word}");
        }
        assert_eq!(text.origin(&over).tag.as_deref(), Some("web"));
        assert_eq!(text.origin(&base).tag, None);
        assert_eq!(text.origin(&empty).document, "none");
        // The end of a document lies in it, also where another follows.
        assert_eq!(text.origin(&(base.end..base.end)).document, "base@1");
    }

    #[test]
    fn lines_and_bytes_of_other_parsers_count_from_the_start_of_their_document() {
        let mut text = Text::default();
        text.add("a", None, Format::Yaml, "1\n2\n3");
        let second = text.add("b", None, Format::Yaml, "x\nyz");
        assert_eq!(
            text.at_line_and_byte(second.start, 2, 2),
            second.start + 3..second.start + 4
        );
    }
}
