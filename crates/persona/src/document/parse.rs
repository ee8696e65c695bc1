//! Bytes into the tree: encoding, size, syntax, depth, aliases. The first error of syntax ends it, because nothing
//! behind it can be placed; everything else is found in one pass.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span as Mark, Tag};

use super::{Entry, Format, Node, SourceText, Text, Value};
use crate::limits;
use crate::problem::{Kind, Problem, Span};

/// The text and its tree. Where the tree is missing, `problems` says why.
pub(crate) fn parse(source: &SourceText<'_>, problems: &mut Vec<Problem>) -> (Text, Option<Node>) {
    let bytes = source.text;
    if bytes.len() > limits::LARGEST_DOCUMENT {
        let text = Text::new("");
        let most = limits::LARGEST_DOCUMENT;
        let message = format!(
            "the document has {} bytes; at most {most} are read",
            bytes.len()
        );
        problems.push(Problem::error(Kind::TooLarge, text.span(&(0..0)), message));
        return (text, None);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Text::new(text),
        Err(error) => {
            let text = Text::new(&String::from_utf8_lossy(bytes));
            // Up to here the text is as given but for a byte order mark and carriage returns, which are left out.
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let at = Text::new(&before).text.len();
            let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            let message =
                format!("the document is not UTF-8: byte 0x{byte:02x} starts no character");
            let problem = Problem::error(Kind::NotUtf8, text.span(&(at..at + 1)), message);
            problems.push(problem.help("save the file as UTF-8"));
            return (text, None);
        }
    };
    let root = match source.format {
        Format::Yaml => tree(&text, &text.text, problems),
        Format::Json => json(&text, problems),
    };
    (text, root)
}

/// JSON is YAML but for a few corners. It is checked as JSON first, and what YAML reads differently is evened out.
fn json(text: &Text, problems: &mut Vec<Problem>) -> Option<Node> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&text.text) {
        let said = error.to_string();
        let sentence = said
            .rsplit_once(" at line ")
            .map_or(said.as_str(), |(sentence, _)| sentence);
        let at = text.at_line_and_byte(error.line(), error.column());
        problems.push(Problem::error(
            Kind::Syntax,
            text.span(&at),
            format!("this is not JSON: {sentence}"),
        ));
        return None;
    }
    tree(text, &as_yaml(&text.text), problems)
}

/// Valid JSON as YAML of the same length. Tabs stand only between tokens and become spaces; two escapes for one
/// character become one, and the space that this saves is put behind the string, so that all places stay.
fn as_yaml(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    let mut in_string = false;
    let mut saved = 0;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '\t' => out.push(' '),
            '"' => {
                in_string = !in_string;
                out.push('"');
                if !in_string {
                    out.extend(std::iter::repeat_n(' ', saved));
                    saved = 0;
                }
            }
            '\\' if in_string => match surrogates(rest) {
                Some(code) => {
                    taken = 12;
                    saved += 2;
                    out.push_str(&format!("\\U{code:08X}"));
                }
                None => {
                    taken = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
                    out.push_str(&rest[..taken]);
                }
            },
            c => out.push(c),
        }
        rest = &rest[taken..];
    }
    out
}

/// The character that two escapes at the start of `rest` stand for.
fn surrogates(rest: &str) -> Option<u32> {
    let half = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let high = half(0).filter(|high| (0xd800..0xdc00).contains(high))?;
    let low = half(6).filter(|low| (0xdc00..0xe000).contains(low))?;
    Some(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

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
    problems: &'a mut Vec<Problem>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    root: Option<Node>,
}

/// The tree of `yaml`, whose places are those of `text`.
fn tree(text: &Text, yaml: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder = Builder {
        text,
        problems,
        frames: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        root: None,
    };
    let mut documents = 0;
    for event in Parser::new_from_str(yaml) {
        let (event, mark) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.text.len());
                builder.syntax(at, &error.info());
                return None;
            }
        };
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                let at = range(&mark);
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
            builder.report(Kind::Missing, &(0..0), "the document is empty");
            None
        }
    }
}

fn range(mark: &Mark) -> Range<usize> {
    mark.byte_range().unwrap_or(0..0)
}

impl Builder<'_> {
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
        let at = range(mark);
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
    /// string (see [`as_yaml`]), so its own end is not the one in the text.
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

    fn open(&mut self, open: Open, at: &Range<usize>, anchor: usize) -> Option<()> {
        self.count(1, at)?;
        if self.frames.len() >= limits::DEEPEST_DOCUMENT {
            let message = format!(
                "lists and maps nest deeper than {} levels",
                limits::DEEPEST_DOCUMENT
            );
            self.report(Kind::TooLarge, at, message);
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

/// Values in a tree, itself included. Long text counts as several, so that aliases of it are bounded as well.
fn size(node: &Node) -> usize {
    match &node.value {
        Value::Plain(text) | Value::Quoted(text) => 1 + text.len() / 32,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| 1 + size(&entry.value))
                .sum::<usize>()
        }
    }
}
