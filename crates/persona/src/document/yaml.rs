//! YAML into the tree, with our limits checked at each event, so that no document can fill memory or the stack. JSON
//! comes here as YAML; bytes, sizes and encodings are looked at in `parse`, which calls this.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span as Mark, Tag};

use super::parse::size;
use super::{Entry, Node, Text, Value};
use crate::limits;
use crate::problem::{Kind, Problem, Span};

/// A list or map that is being read.
enum Open {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Range<usize>)>,
    },
}

struct Frame {
    open: Open,
    start: usize,
    anchor: usize,
}

struct Builder<'a> {
    text: &'a Text,
    /// Where the document starts in the text.
    start: usize,
    problems: &'a mut Vec<Problem>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    root: Option<Node>,
}

/// The longest key, in characters, that YAML takes for one without a question mark before it.
pub(super) const LONGEST_KEY: usize = 1024;

/// The tree of `yaml`, which has the places of the document that starts at `start` of `text`. A key without a question
/// mark has at most `longest_key` characters.
pub(super) fn tree(
    text: &Text,
    start: usize,
    yaml: &str,
    longest_key: usize,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let mut builder = Builder {
        text,
        start,
        problems,
        frames: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        root: None,
    };
    let mut documents = 0;
    let options = granit_parser::options! {
        emit_comments: false,
        simple_key_max_lookahead: longest_key,
    };
    for event in Parser::new_from_str_with_options(yaml, options) {
        let (event, mark) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(yaml.len());
                let at = start + at;
                // The parser looks ahead and may meet a limit of its own, which is higher, before ours is checked.
                if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
                    builder.too_deep(&(at..at + 1));
                } else {
                    builder.syntax(at, &error.info());
                }
                return None;
            }
        };
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                let at = builder.range(&mark);
                builder.report(
                    Kind::Syntax,
                    &at,
                    "a second document starts here; one file holds one persona",
                );
                return None;
            }
        }
        builder.event(event, &mark)?;
    }
    match builder.root {
        Some(root) if !root.is_empty() => Some(root),
        _ => {
            builder.report(Kind::Missing, &(start..start), "the document is empty");
            None
        }
    }
}

impl Builder<'_> {
    fn range(&self, mark: &Mark) -> Range<usize> {
        let found = mark.byte_range().unwrap_or(0..0);
        self.start + found.start..self.start + found.end
    }

    fn report(&mut self, kind: Kind, at: &Range<usize>, message: impl Into<String>) {
        self.problems
            .push(Problem::error(kind, self.text.span(at), message));
    }

    fn syntax(&mut self, at: usize, info: &str) {
        let span = self.text.span(&(at..at + 1));
        let tab = self
            .text
            .source_line(span)
            .chars()
            .take_while(|c| c.is_whitespace())
            .position(|c| c == '\t');
        let problem = if let Some(before) = tab {
            let column = u32::try_from(before + 1).unwrap_or(u32::MAX);
            Problem::error(
                Kind::Syntax,
                Span { column, ..span },
                "a tab stands in the indentation, which YAML does not allow",
            )
            .help("indent with spaces")
        } else {
            Problem::error(Kind::Syntax, span, format!("this does not parse: {info}"))
        };
        self.problems.push(problem);
    }

    /// Takes one event in; `None` stops the reading, and the reason has been reported.
    fn event(&mut self, event: Event<'_>, mark: &Mark) -> Option<()> {
        let at = self.range(mark);
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                self.tag(tag.as_deref(), &at)?;
                let value = value.into_owned();
                let value = if style == ScalarStyle::Plain && tag.is_none() {
                    Value::Plain(value)
                } else {
                    Value::Quoted(value)
                };
                let at = match style {
                    ScalarStyle::DoubleQuoted => at.start..self.end_of_string(at.start),
                    _ => at,
                };
                let node = Node {
                    value,
                    at: at.clone(),
                };
                self.count(size(&node), &at)?;
                self.place(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &at)?;
                self.open(Open::List(Vec::new()), &at, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &at)?;
                self.open(
                    Open::Map {
                        entries: Vec::new(),
                        key: None,
                    },
                    &at,
                    anchor,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&at),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, size)) => {
                    self.count(size, &at)?;
                    self.place(node, 0)
                }
                None => {
                    self.report(
                        Kind::Syntax,
                        &at,
                        "this alias stands inside of what it stands for",
                    );
                    None
                }
            },
            _ => Some(()),
        }
    }

    /// Behind the quote that closes the string at `start`. The parser may have read a shorter spelling of the same
    /// string (see `parse`), so its own end is not the one in the text.
    fn end_of_string(&self, start: usize) -> usize {
        let mut escaped = false;
        let rest = self.text.text.get(start..).unwrap_or_default();
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return start + at + 1,
                _ => {}
            }
        }
        self.text.text.len()
    }

    /// Only the tag that says "text" means anything here.
    fn tag(&mut self, tag: Option<&Tag>, at: &Range<usize>) -> Option<()> {
        match tag {
            Some(tag) if tag.core_suffix() != Some("str") => {
                self.report(
                    Kind::Syntax,
                    at,
                    format!("the tag `{}` means nothing in a persona", tag.original()),
                );
                None
            }
            _ => Some(()),
        }
    }

    fn count(&mut self, values: usize, at: &Range<usize>) -> Option<()> {
        self.values = self.values.saturating_add(values);
        if self.values <= limits::MOST_VALUES {
            return Some(());
        }
        let most = limits::MOST_VALUES;
        let message =
            format!("the document has more than {most} values, counting what aliases stand for");
        self.report(Kind::TooLarge, at, message);
        None
    }

    fn too_deep(&mut self, at: &Range<usize>) {
        let most = limits::DEEPEST_DOCUMENT;
        let message = format!("lists and maps nest deeper than {most} levels");
        self.report(Kind::TooLarge, at, message);
    }

    fn open(&mut self, open: Open, at: &Range<usize>, anchor: usize) -> Option<()> {
        self.count(1, at)?;
        if self.frames.len() >= limits::DEEPEST_DOCUMENT {
            self.too_deep(at);
            return None;
        }
        self.frames.push(Frame {
            open,
            start: at.start,
            anchor,
        });
        Some(())
    }

    fn close(&mut self, at: &Range<usize>) -> Option<()> {
        let frame = self.frames.pop()?;
        let value = match frame.open {
            Open::List(items) => Value::List(items),
            Open::Map { entries, .. } => Value::Map(entries),
        };
        self.place(
            Node {
                value,
                at: frame.start..at.end.max(frame.start),
            },
            frame.anchor,
        )
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Option<()> {
        if anchor > 0 {
            let size = size(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, key } => match key.take() {
                Some((name, key_at)) => entries.push(Entry {
                    key: name,
                    key_at,
                    value: node,
                }),
                None => match node.scalar() {
                    Some(name) => *key = Some((name.to_owned(), node.at)),
                    None => {
                        let at = node.at;
                        self.report(Kind::WrongType, &at, "a key is a word, not a list or a map");
                        return None;
                    }
                },
            },
        }
        Some(())
    }
}
