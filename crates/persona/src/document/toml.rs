//! TOML into the tree. Depth is checked on the tokens, before anything is built: keys with dots nest as deep as their
//! text is long. Bytes, sizes and encodings are looked at in `parse`, which calls this.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Source, Span as Mark};

use super::parse::size;
use super::{Entry, Node, Text, Value};
use crate::limits;
use crate::problem::{Kind, Problem, Problems};

/// The tree of the document at `at` of `text`.
pub(super) fn tree(text: &Text, at: &Range<usize>, problems: &mut Vec<Problem>) -> Option<Node> {
    let given = text.text.get(at.clone()).unwrap_or_default();
    let mut reader = Reader {
        text,
        start: at.start,
        given,
        problems,
        values: 0,
    };
    if let Some(too_deep) = deeper_than_allowed(given) {
        reader.too_deep(too_deep);
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(given);
    if errors.is_empty() {
        return reader.root(root.get_ref());
    }
    for error in errors.iter().take(Problems::MOST) {
        reader.refused(error);
    }
    None
}

struct Reader<'a> {
    text: &'a Text,
    /// Where the document starts in the text.
    start: usize,
    given: &'a str,
    problems: &'a mut Vec<Problem>,
    values: usize,
}

impl Reader<'_> {
    fn at(&self, range: Range<usize>) -> Range<usize> {
        self.start + range.start..self.start + range.end
    }

    fn report(&mut self, kind: Kind, at: &Range<usize>, message: String) {
        self.problems
            .push(Problem::error(kind, self.text.span(at), message));
    }

    fn too_deep(&mut self, range: Range<usize>) {
        let most = limits::DEEPEST_DOCUMENT;
        let message = format!("lists and maps nest deeper than {most} levels");
        self.report(Kind::TooLarge, &self.at(range), message);
    }

    fn refused(&mut self, error: &toml::de::Error) {
        let range = error.span().unwrap_or(0..0);
        let at = self.at(range.clone());
        if error.message() == "duplicate key" {
            let key: String = self.given.get(range).map_or_else(String::new, |key| {
                key.chars().take(60).filter(|c| *c != '`').collect()
            });
            let message = format!("`{key}` stands here a second time");
            self.report(Kind::Duplicate, &at, message);
        } else {
            let message = format!("this is not TOML: {}", error.message());
            self.report(Kind::Syntax, &at, message);
        }
    }

    fn root(&mut self, table: &DeTable<'_>) -> Option<Node> {
        if table.is_empty() {
            let at = self.start..self.start;
            self.report(Kind::Missing, &at, "the document is empty".to_owned());
            return None;
        }
        let value = self.map(table, 1)?;
        // What is said of the whole document is said at its first key.
        let at = match &value {
            Value::Map(entries) => entries.first().map(|entry| entry.key_at.clone()),
            _ => None,
        };
        let at = at.unwrap_or(self.start..self.start);
        Some(Node { value, at })
    }

    /// One value, with as many lists and maps around it as `depth` says. `None` stops the reading, and the reason has
    /// been reported.
    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Option<Node> {
        let range = value.span();
        let raw = self.given.get(range.clone()).unwrap_or_default();
        let nests = matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_));
        if nests && depth >= limits::DEEPEST_DOCUMENT {
            self.too_deep(range);
            return None;
        }
        let at = self.at(range);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Quoted(text.to_string()),
            DeValue::Integer(number) => Value::Plain(decimal(number.as_str(), number.radix(), raw)),
            DeValue::Float(number) => Value::Plain(number.as_str().to_owned()),
            DeValue::Boolean(true) => Value::Plain("true".to_owned()),
            DeValue::Boolean(false) => Value::Plain("false".to_owned()),
            // The language has no dates; what looks like one is the text that stands there.
            DeValue::Datetime(_) => Value::Quoted(raw.to_owned()),
            DeValue::Array(items) => {
                self.count(1, &at)?;
                let mut list = Vec::new();
                for item in items.iter() {
                    list.push(self.node(item, depth + 1)?);
                }
                return Some(Node {
                    value: Value::List(list),
                    at,
                });
            }
            DeValue::Table(table) => {
                let value = self.map(table, depth + 1)?;
                return Some(Node { value, at });
            }
        };
        let node = Node { value, at };
        self.count(size(&node), &node.at)?;
        Some(node)
    }

    fn map(&mut self, table: &DeTable<'_>, depth: usize) -> Option<Value> {
        self.count(1, &(self.start..self.start))?;
        // The library keeps tables by name; a document is read in the order in which it was written.
        let mut written: Vec<_> = table.iter().collect();
        written.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Vec::new();
        for (key, value) in written {
            let key_at = self.at(key.span());
            self.count(1, &key_at)?;
            entries.push(Entry {
                key: key.get_ref().to_string(),
                key_at,
                value: self.node(value, depth)?,
            });
        }
        Some(Value::Map(entries))
    }

    fn count(&mut self, values: usize, at: &Range<usize>) -> Option<()> {
        self.values = self.values.saturating_add(values);
        if self.values <= limits::MOST_VALUES {
            return Some(());
        }
        let most = limits::MOST_VALUES;
        let message = format!("the document has more than {most} values");
        self.report(Kind::TooLarge, at, message);
        None
    }
}

/// A whole number as the other formats write it; one that no integer holds stays as it was written.
fn decimal(digits: &str, radix: u32, raw: &str) -> String {
    if radix == 10 {
        return digits.strip_prefix('+').unwrap_or(digits).to_owned();
    }
    u128::from_str_radix(digits, radix).map_or_else(|_| raw.to_owned(), |number| number.to_string())
}

/// Where tables, lists and keys with dots first nest deeper than a document may.
fn deeper_than_allowed(given: &str) -> Option<Range<usize>> {
    let tokens = Source::new(given).lex().into_vec();
    let mut depth = Depth::default();
    // Errors are the reader's to report, in their order and with their places.
    parse_document(&tokens, &mut depth, &mut ());
    depth.exceeded.map(|mark| mark.start()..mark.end())
}

/// Levels that are open where the tokens have been read to.
#[derive(Default)]
struct Depth {
    /// Keys of the header of the table that is being read.
    header: usize,
    /// Levels of the lists and inline tables that are open, each with those of the dotted key before it.
    open: Vec<usize>,
    /// Their sum.
    levels: usize,
    /// Dots of the key that was read last.
    dots: usize,
    in_key: bool,
    exceeded: Option<Mark>,
}

impl Depth {
    fn check(&mut self, mark: Mark) -> bool {
        let within = self.header + self.levels + self.dots < limits::DEEPEST_DOCUMENT;
        if !within {
            self.exceeded.get_or_insert(mark);
        }
        within
    }

    fn begin(&mut self, mark: Mark) -> bool {
        let levels = self.dots + 1;
        self.open.push(levels);
        self.levels += levels;
        self.dots = 0;
        self.check(mark)
    }

    fn end(&mut self) {
        self.levels -= self.open.pop().unwrap_or(0);
        self.dots = 0;
    }

    fn begin_header(&mut self) {
        *self = Self {
            exceeded: self.exceeded,
            ..Self::default()
        };
    }

    fn end_header(&mut self) {
        self.header = self.dots + 1;
        self.dots = 0;
    }
}

impl EventReceiver for Depth {
    fn std_table_open(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.begin_header();
    }
    fn std_table_close(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.end_header();
    }
    fn array_table_open(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.begin_header();
    }
    fn array_table_close(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.end_header();
    }
    fn inline_table_open(&mut self, mark: Mark, _: &mut dyn ErrorSink) -> bool {
        self.begin(mark)
    }
    fn inline_table_close(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.end();
    }
    fn array_open(&mut self, mark: Mark, _: &mut dyn ErrorSink) -> bool {
        self.begin(mark)
    }
    fn array_close(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.end();
    }
    fn simple_key(
        &mut self,
        mark: Mark,
        _: Option<toml_parser::decoder::Encoding>,
        _: &mut dyn ErrorSink,
    ) {
        if !self.in_key {
            self.dots = 0;
        }
        self.in_key = false;
        self.check(mark);
    }
    fn key_sep(&mut self, _: Mark, _: &mut dyn ErrorSink) {
        self.dots += 1;
        self.in_key = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and values as one line, and each with the text at its place.
    fn shown(node: &Node, text: &str) -> String {
        match &node.value {
            Value::Plain(value) => format!("{value}<{}>", &text[node.at.clone()]),
            Value::Quoted(value) => format!("{value:?}<{}>", &text[node.at.clone()]),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(|item| shown(item, text)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Map(entries) => {
                let entry = |entry: &Entry| {
                    let key_at = &text[entry.key_at.clone()];
                    format!("{}<{key_at}>: {}", entry.key, shown(&entry.value, text))
                };
                let entries: Vec<_> = entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn read(document: &str) -> Result<(Text, Node), Vec<Problem>> {
        let mut text = Text::default();
        text.add("before", None, super::super::Format::Yaml, "x: y\n");
        let at = text.add("test.toml", None, super::super::Format::Toml, document);
        let mut problems = Vec::new();
        let node = tree(&text, &at, &mut problems);
        node.map(|node| (text, node)).ok_or(problems)
    }

    #[test]
    fn every_kind_of_value_comes_with_its_place() {
        for (document, expected) in [
            (
                "a = 1\n'b c' = +1_000 # c\n",
                "{a<a>: 1<1>, b c<'b c'>: 1000<+1_000>}",
            ),
            ("a = 0x1F", "{a<a>: 31<0x1F>}"),
            ("a = 1.50\nb = inf", "{a<a>: 1.50<1.50>, b<b>: inf<inf>}"),
            ("a = true", "{a<a>: true<true>}"),
            (
                "a = 1979-05-27\nb = 08:00:00",
                "{a<a>: \"1979-05-27\"<1979-05-27>, b<b>: \"08:00:00\"<08:00:00>}",
            ),
            (
                "z.y = 'é'\nb = \"x\\ty\"\nz.x = 2",
                "{z<z>: {y<y>: \"é\"<'é'>, x<x>: 2<2>}, b<b>: \"x\\ty\"<\"x\\ty\">}",
            ),
            (
                "[b.c]\nx = 1\n[a]\n[[r]]\nn = 1\n[[r]]\nn = 2\n[r.s]\nm = 3\n",
                "{b<b>: {c<c>: {x<x>: 1<1>}}, a<a>: {}, r<r>: [{n<n>: 1<1>}, {n<n>: 2<2>, s<s>: {m<m>: 3<3>}}]}",
            ),
            (
                "a = [1, {b = [], c.d = 2},\n # c\n 3]",
                "{a<a>: [1<1>, {b<b>: [], c<c>: {d<d>: 2<2>}}, 3<3>]}",
            ),
            (
                "a = '''\nx\ny'''\nb = \"\"\"p \\\n  q\"\"\"",
                "{a<a>: \"x\\ny\"<'''\nx\ny'''>, b<b>: \"p q\"<\"\"\"p \\\n  q\"\"\">}",
            ),
        ] {
            let (text, root) = read(document).unwrap();
            assert_eq!(shown(&root, &text.text), expected);
        }
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_place() {
        for (document, expected) in [
            ("a = 1\na = 2", (2, 1, "`a` stands here a second time")),
            ("[t]\nx = 1\n[t]", (3, 2, "`t` stands here a second time")),
            (
                "a = 1\nb: 2",
                (2, 4, "this is not TOML: key with no value, expected `=`"),
            ),
            ("", (1, 1, "the document is empty")),
        ] {
            let problems = read(document).unwrap_err();
            let first = &problems[0];
            let found = (first.span.line, first.span.column, first.message.as_str());
            assert_eq!(found, expected, "{document:?}");
        }
    }

    #[test]
    fn depth_is_bounded_however_it_is_written() {
        let most = limits::DEEPEST_DOCUMENT;
        let dotted = |levels: usize| vec!["a"; levels].join(".");
        // The root is a level of its own.
        for (within, beyond) in [
            (
                format!("{} = 1", dotted(most)),
                format!("{} = 1", dotted(most + 1)),
            ),
            (
                format!("[{}]\n", dotted(most - 1)),
                format!("[{}]\n", dotted(most)),
            ),
            (
                format!("[{}]\n{} = 1", dotted(most / 2), dotted(most / 2)),
                format!("[{}]\n{} = 1", dotted(most / 2), dotted(most / 2 + 1)),
            ),
            (
                format!("a = {}{}", "[".repeat(most - 1), "]".repeat(most - 1)),
                format!("a = {}{}", "[".repeat(most), "]".repeat(most)),
            ),
            (
                format!("a = {}1{}", "{a.a = ".repeat(15), "}".repeat(15)),
                format!("a = {}1{}", "{a.a = ".repeat(16), "}".repeat(16)),
            ),
            (
                "a = 1".to_owned(),
                (1..most).fold(String::new(), |text, levels| {
                    format!("{text}[[{}]]\n", dotted(levels))
                }),
            ),
            ("a = 1".to_owned(), format!("{} = 1", dotted(120_000))),
            ("a = 1".to_owned(), format!("[{}]", dotted(120_000))),
            ("a = 1".to_owned(), format!("a = {}", "[".repeat(200_000))),
            (
                "a = 1".to_owned(),
                format!("a = {}", "{a.a=".repeat(50_000)),
            ),
        ] {
            let shown: String = beyond.chars().take(60).collect();
            assert!(read(&within).is_ok(), "{within}");
            let problems = read(&beyond).unwrap_err();
            assert_eq!(
                problems[0].message, "lists and maps nest deeper than 32 levels",
                "{shown}"
            );
        }
    }
}
