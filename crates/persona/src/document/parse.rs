//! Bytes into the tree: encoding, size, syntax, depth, aliases. The first error of syntax ends it, because nothing
//! behind it can be placed; everything else is found in one pass. The trees themselves are built in `yaml` and
//! `toml`.

use std::ops::Range;

use super::text::normalised;
use super::{Format, Node, SourceText, Text, Value, toml, yaml};
use crate::limits;
use crate::problem::{Kind, Problem};

/// The text and its tree. Where the tree is missing, `problems` says why.
pub(crate) fn parse(source: &SourceText<'_>, problems: &mut Vec<Problem>) -> (Text, Option<Node>) {
    let mut text = Text::default();
    let root = parse_into(&mut text, source, None, problems);
    (text, root)
}

/// The tree of one more document, whose text joins those that were read before; `tag` is the tag whose override it is.
/// Where the tree is missing, `problems` says why.
pub(crate) fn parse_into(
    text: &mut Text,
    source: &SourceText<'_>,
    tag: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let bytes = source.text;
    if bytes.len() > limits::LARGEST_DOCUMENT {
        let at = text.add(source.name, tag, source.format, "");
        let most = limits::LARGEST_DOCUMENT;
        let message = format!(
            "the document has {} bytes; at most {most} are read",
            bytes.len()
        );
        problems.push(Problem::error(Kind::TooLarge, text.span(&at), message));
        return None;
    }
    let at = match std::str::from_utf8(bytes) {
        Ok(given) => text.add(source.name, tag, source.format, given),
        Err(error) => {
            let lossy = String::from_utf8_lossy(bytes);
            let range = text.add(source.name, tag, source.format, &lossy);
            // Up to here the text is as given but for a byte order mark and carriage returns, which are left out.
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let at = range.start + normalised(&before).len();
            let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            let message =
                format!("the document is not UTF-8: byte 0x{byte:02x} starts no character");
            let problem = Problem::error(Kind::NotUtf8, text.span(&(at..at + 1)), message);
            problems.push(problem.help("save the file as UTF-8"));
            return None;
        }
    };
    match source.format {
        Format::Yaml => {
            let given = &text.text[at.clone()];
            yaml::tree(text, at.start, given, yaml::LONGEST_KEY, problems)
        }
        Format::Json => json(text, at, problems),
        Format::Toml => toml::tree(text, &at, problems),
    }
}

/// JSON is YAML but for a few corners. It is checked as JSON first, and what YAML reads differently is evened out.
fn json(text: &Text, at: Range<usize>, problems: &mut Vec<Problem>) -> Option<Node> {
    let given = &text.text[at.clone()];
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(given) {
        let said = error.to_string();
        let sentence = said
            .rsplit_once(" at line ")
            .map_or(said.as_str(), |(sentence, _)| sentence);
        let at = text.at_line_and_byte(at.start, error.line(), error.column());
        problems.push(Problem::error(
            Kind::Syntax,
            text.span(&at),
            format!("this is not JSON: {sentence}"),
        ));
        return None;
    }
    yaml::tree(text, at.start, &as_yaml(given), given.len(), problems)
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

/// Values in a tree, itself included. Long text counts as several, so that aliases of it are bounded as well.
pub(crate) fn size(node: &Node) -> usize {
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
