//! What is printed: tables and lines for people, JSON for programs. Colour only on a terminal and without `NO_COLOR`.
//! Text that comes from elsewhere is printed without its control characters, which could deceive a terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// A style for a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

/// Whether styles are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    On,
    Off,
}

impl Colour {
    /// On for a terminal, unless `NO_COLOR` is there and not empty (no-color.org).
    fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !refused {
            Self::On
        } else {
            Self::Off
        }
    }

    /// The text in this style.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        let code = match (self, style) {
            (Self::Off, _) | (_, Style::Plain) => return text.to_owned(),
            (_, Style::Bold) => "1",
            (_, Style::Dim) => "2",
            (_, Style::Good) => "32",
            (_, Style::Warning) => "33",
            (_, Style::Bad) => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Standard output with its colour.
pub(super) struct Screen {
    out: Box<dyn Write>,
    colour: Colour,
}

impl Screen {
    pub(super) fn stdout() -> Self {
        let stdout = io::stdout();
        Self {
            colour: Colour::of(&stdout),
            out: Box::new(stdout),
        }
    }

    pub(super) fn stderr() -> Self {
        let stderr = io::stderr();
        Self {
            colour: Colour::of(&stderr),
            out: Box::new(stderr),
        }
    }

    pub(super) fn colour(&self) -> Colour {
        self.colour
    }

    /// One line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", text.trim_end())
    }

    /// Text as it is, a document for example.
    pub(super) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// A heading.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.colour.paint(Style::Bold, text);
        self.line(&text)
    }

    /// A table.
    pub(super) fn table(&mut self, table: &Table) -> io::Result<()> {
        let text = table.render(self.colour);
        self.raw(&text)
    }

    /// One JSON document, indented.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(&text)
    }

    /// One JSON document in one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.line(&text)
    }

    /// Writes out what is buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Text without control characters; a tab or a line break becomes a space.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\t' | '\n' | '\r' => Some(' '),
            // These reorder what a person reads, as control characters do.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
            c if c.is_control() => None,
            c => Some(c),
        })
        .collect()
}

/// One cell.
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::styled(Style::Plain, text)
    }

    pub(super) fn styled(style: Style, text: impl AsRef<str>) -> Self {
        Self {
            text: clean(text.as_ref()),
            style,
        }
    }

    /// A value that may not be known.
    pub(super) fn maybe(value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => Self::new(value.to_string()),
            None => Self::styled(Style::Dim, "-"),
        }
    }
}

/// A table with left-aligned columns.
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    fn render(&self, colour: Colour) -> String {
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.head.iter().map(|name| width(name)).collect();
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate() {
                let cell = width(&cell.text);
                match widths.get_mut(index) {
                    Some(most) => *most = (*most).max(cell),
                    None => widths.push(cell),
                }
            }
        }
        let mut text = String::new();
        let mut write = |cells: Vec<(Style, &str)>| {
            let mut line = String::new();
            let last = cells.len().saturating_sub(1);
            for (index, (style, cell)) in cells.into_iter().enumerate() {
                line.push_str(&colour.paint(style, cell));
                if index < last {
                    let pad = widths.get(index).copied().unwrap_or(0) - width(cell);
                    line.push_str(&" ".repeat(pad + 2));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        if !self.head.is_empty() {
            write(self.head.iter().map(|name| (Style::Bold, *name)).collect());
        }
        for row in &self.rows {
            write(
                row.iter()
                    .map(|cell| (cell.style, cell.text.as_str()))
                    .collect(),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec![Cell::new("a-long-name"), Cell::new("running")]);
        table.row(vec![Cell::new("b"), Cell::maybe(None::<u32>)]);
        assert_eq!(
            table.render(Colour::Off),
            "NAME         STATE\na-long-name  running\nb            -\n"
        );
    }

    #[test]
    fn text_from_elsewhere_cannot_control_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\nc\u{202e}d"), "a[31mb cd");
    }

    #[test]
    fn colour_is_only_there_when_it_is_on() {
        assert_eq!(Colour::Off.paint(Style::Bad, "x"), "x");
        assert_eq!(Colour::On.paint(Style::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
