//! Trees as text: canonical YAML whatever they were read from, and JSON for those who gave JSON. Which keys there are and
//! in which order they stand is the caller's: the tree is printed as it is. How a single text is written is in `scalar`,
//! where comments go in `attach`.
//!
//! What is printed reads back as the same tree and prints the same again.

mod attach;
mod json;
mod scalar;

use super::comments::Comment;
use super::{Entry, Node, Text, Value};
use attach::Attached;
#[allow(unused_imports, reason = "for those who print documents")]
pub(crate) use json::print_json;
use scalar::Around;

/// A list of single values stands in one line where that line has at most so many characters.
const WIDEST_LINE: usize = 80;
/// And where each of them has at most so many: rules and sentences stand on lines of their own.
const WIDEST_ITEM: usize = 24;
/// YAML takes a key for one only up to 1024 characters, unless a question mark says that it is one.
const LONGEST_PLAIN_KEY: usize = 1000;

/// A tree as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Printed {
    /// The YAML.
    pub(crate) text: String,
    /// Comments whose place is not in the tree, so that the caller can say that they are lost.
    pub(crate) left_out: Vec<Comment>,
}

/// The tree in block style, two spaces a level, quotes only where a reader would misunderstand, texts of several lines
/// as they are, with a blank line where its author left one or more. `comments` are those of one document in `text`;
/// they stand with what they stood with.
pub(crate) fn print(tree: &Node, text: &Text, comments: &[Comment]) -> Printed {
    let (attached, left_out) = attach::attach(tree, text, comments);
    let mut printer = Printer {
        out: String::new(),
        text,
        attached,
        next: 0,
    };
    printer.document(tree);
    Printed {
        text: printer.out,
        left_out,
    }
}

struct Printer<'a> {
    out: String,
    text: &'a Text,
    attached: Attached<'a>,
    /// The number of the next key or item, as [`attach`] counts them.
    next: usize,
}

impl Printer<'_> {
    fn document(&mut self, tree: &Node) {
        match &tree.value {
            Value::Map(entries) if !entries.is_empty() => self.map(entries, 0, Start::OwnLine),
            Value::List(items) if !items.is_empty() => self.list(items, 0, Start::OwnLine),
            _ => {
                let text = match tree.scalar() {
                    Some(text) if text.contains('\n') => scalar::quoted(text),
                    _ => inline(tree, Around::Block).unwrap_or_default(),
                };
                self.out.push_str(&text);
                self.out.push('\n');
            }
        }
        for comment in std::mem::take(&mut self.attached.footer) {
            self.comment(comment, 0);
        }
    }

    fn map(&mut self, entries: &[Entry], indent: usize, start: Start) {
        for (index, entry) in entries.iter().enumerate() {
            let number = self.number();
            if index > 0 || start == Start::OwnLine {
                self.before(number, indent);
                self.indent(indent);
            }
            let key = scalar::key(&entry.key);
            if key.len() > LONGEST_PLAIN_KEY {
                self.out.push_str(&format!("? {key}"));
                self.behind(number);
                self.indent(indent);
            } else {
                self.out.push_str(&key);
            }
            self.out.push(':');
            self.value(&entry.value, number, indent, key.chars().count());
        }
    }

    /// What follows the colon behind a key at `indent`.
    fn value(&mut self, node: &Node, number: usize, indent: usize, key: usize) {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => {
                self.behind(number);
                self.map(entries, indent + 2, Start::OwnLine);
            }
            Value::List(items) if !items.is_empty() => {
                match self.in_one_line(items, indent + key) {
                    Some(line) => {
                        self.out.push_str(&format!(" {line}"));
                        self.behind(number);
                    }
                    None => {
                        self.behind(number);
                        self.list(items, indent + 2, Start::OwnLine);
                    }
                }
            }
            _ => {
                self.out.push(' ');
                self.scalar(node, number, indent);
            }
        }
    }

    fn list(&mut self, items: &[Node], indent: usize, start: Start) {
        for (index, item) in items.iter().enumerate() {
            let number = self.number();
            if index > 0 || start == Start::OwnLine {
                self.before(number, indent);
                self.indent(indent);
            }
            self.out.push_str("- ");
            match &item.value {
                Value::Map(entries) if !entries.is_empty() => {
                    self.map(entries, indent + 2, Start::SameLine);
                }
                Value::List(items) if !items.is_empty() => match self.in_one_line(items, indent) {
                    Some(line) => {
                        self.out.push_str(&line);
                        self.behind(number);
                    }
                    None => self.list(items, indent + 2, Start::SameLine),
                },
                _ => self.scalar(item, number, indent),
            }
        }
    }

    /// A single value, or what is empty, to the end of its last line.
    fn scalar(&mut self, node: &Node, number: usize, indent: usize) {
        if let Some(text) = inline(node, Around::Block) {
            self.out.push_str(&text);
            self.behind(number);
            return;
        }
        let text = node.scalar().unwrap_or_default();
        self.out.push_str(&scalar::block_header(text));
        self.behind(number);
        for line in scalar::block_lines(text) {
            if !line.is_empty() {
                self.indent(indent + 2);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }

    /// A list as `[a, b]` where all of it is short and nothing is said about its items; `before` characters stand in the
    /// line already.
    fn in_one_line(&mut self, items: &[Node], before: usize) -> Option<String> {
        let numbers = self.next..self.next + items.len();
        if numbers.clone().any(|number| self.attached.has(number)) {
            return None;
        }
        let mut parts = Vec::new();
        for item in items {
            let part = match item.value {
                Value::Plain(_) | Value::Quoted(_) => inline(item, Around::Flow)?,
                Value::List(_) | Value::Map(_) => return None,
            };
            if part.chars().count() > WIDEST_ITEM {
                return None;
            }
            parts.push(part);
        }
        let line = format!("[{}]", parts.join(", "));
        // Two more: the colon and the space, or the dash and the space.
        if before + 2 + line.chars().count() > WIDEST_LINE {
            return None;
        }
        self.next = numbers.end;
        Some(line)
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn indent(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// The comments before a key or item, and the blank line that was before it.
    fn before(&mut self, number: usize, indent: usize) {
        for comment in self.attached.take_before(number) {
            self.comment(comment, indent);
        }
        if self.attached.blank_before(number) {
            self.blank();
        }
    }

    fn comment(&mut self, comment: &Comment, indent: usize) {
        if attach::blank_before(self.text, comment.at.start) {
            self.blank();
        }
        self.indent(indent);
        self.out.push_str(attach::words(self.text, comment));
        self.out.push('\n');
    }

    /// A blank line, one at most, and none at the start.
    fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// The comment behind a key or item, and the end of the line.
    fn behind(&mut self, number: usize) {
        if let Some(comment) = self.attached.take_behind(number) {
            self.out.push(' ');
            self.out.push_str(attach::words(self.text, comment));
        }
        self.out.push('\n');
    }
}

/// Whether the first key or item of a map or list follows a dash.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    OwnLine,
    SameLine,
}

/// What fits into the line that has begun; `None` for a text that stands in lines of its own.
fn inline(node: &Node, around: Around) -> Option<String> {
    match &node.value {
        Value::Map(_) => Some("{}".to_owned()),
        Value::List(_) => Some("[]".to_owned()),
        _ if node.is_empty() => Some("null".to_owned()),
        Value::Plain(text) if scalar::is_value(text) => Some(text.clone()),
        Value::Plain(text) | Value::Quoted(text) => scalar::text(text, around),
    }
}

#[cfg(test)]
mod tests;
