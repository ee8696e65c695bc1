//! What is wrong with a document: kind, severity, place, sentence and help, and how it is printed for people. What
//! is checked is not here (the readers and the rule parser find problems); the command line prints them.

use std::fmt;

use serde::Serialize;

/// Whether a document with this problem can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document means something, but probably not what was wanted.
    Warning,
    /// The document is refused.
    Error,
}

/// What sort of problem it is; programs match on this, people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Larger, deeper or more numerous than a limit allows.
    TooLarge,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not YAML or not JSON.
    Syntax,
    /// A key that the language does not have.
    UnknownKey,
    /// A key, metric, function or action of the language on which this version does not act.
    NotYetSupported,
    /// The same key, rule name or variable twice.
    Duplicate,
    /// A key without which its surroundings mean nothing.
    Missing,
    /// A value of the wrong form: a list where a number belongs.
    WrongType,
    /// A number or quantity that does not read as one.
    BadQuantity,
    /// A value outside what is possible.
    OutOfRange,
    /// Two values that contradict each other.
    Contradiction,
    /// A name that breaks the rules for names.
    BadName,
    /// A rule text that does not parse.
    RuleSyntax,
    /// A metric that does not exist.
    UnknownMetric,
    /// A name of something else in the document that is not there.
    UnknownName,
    /// Two quantities of different kinds in one comparison.
    UnitMismatch,
    /// Two rules that would undo each other without end.
    Flapping,
}

/// A place in the document. Lines and columns count from 1, columns in characters, as editors show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// Which of the documents that were read together.
    #[serde(skip)]
    pub(crate) segment: u32,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// How many characters of that line are meant; at least 1.
    pub length: u32,
}

/// One thing that is wrong, complete enough to be printed without the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What sort of problem.
    pub kind: Kind,
    /// Whether it stops the document.
    pub severity: Severity,
    /// One sentence that names the datum.
    pub message: String,
    /// The document in which it is, where that is another than [`Problems::source`]: a base, or an override.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Where it is.
    pub span: Span,
    /// A few words under the marked source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The source line at [`Span::line`]; of a very long one, the part around the place.
    pub source_line: String,
    /// The column of the first character of `source_line`: 1, but for a part of a very long line.
    pub source_column: u32,
}

impl Problem {
    /// An error at `span`; the source line is filled in when it joins a document's [`Problems`].
    pub fn error(kind: Kind, span: Span, message: impl Into<String>) -> Self {
        Self {
            kind,
            severity: Severity::Error,
            message: message.into(),
            document: None,
            span,
            label: None,
            help: None,
            source_line: String::new(),
            source_column: 1,
        }
    }

    /// A warning at `span`.
    pub fn warning(kind: Kind, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(kind, span, message)
        }
    }

    /// The same problem with words under the marked source.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self {
            label: Some(label.into()),
            ..self
        }
    }

    /// The same problem with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// How problems are printed; the caller knows whether it writes to a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences.
    Plain,
    /// ANSI colours.
    Colour,
}

/// All that was found in one document, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The document's file name, for the arrows.
    pub source: String,
    /// The problems, by line and column.
    pub problems: Vec<Problem>,
    /// How many more there were beyond [`Problems::MOST`].
    pub left_out: usize,
}

impl Problems {
    /// More than these are counted, not kept: nobody reads them, and a hostile document must not fill memory.
    pub const MOST: usize = 100;

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// The problems in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.problems.iter()
    }

    /// Whether one of them stops the document.
    pub fn has_errors(&self) -> bool {
        self.left_out > 0
            || self
                .iter()
                .any(|problem| problem.severity == Severity::Error)
    }

    /// The text for people.
    pub fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            render_problem(&mut out, &self.source, problem, style);
        }
        if self.left_out > 0 {
            out.push_str(&format!("and {} more problems\n", self.left_out));
        }
        out
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Problems {}

fn render_problem(out: &mut String, source: &str, problem: &Problem, style: Style) {
    let (strong, dim, reset) = match (style, problem.severity) {
        (Style::Plain, _) => ("", "", ""),
        (Style::Colour, Severity::Error) => ("\u{1b}[1;31m", "\u{1b}[1;34m", "\u{1b}[0m"),
        (Style::Colour, Severity::Warning) => ("\u{1b}[1;33m", "\u{1b}[1;34m", "\u{1b}[0m"),
    };
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Span { line, column, .. } = problem.span;
    let gutter = " ".repeat(line.to_string().len());
    let document = problem.document.as_deref().unwrap_or(source);
    let (shown, marked) = (printable(&problem.source_line), marks(problem));
    let label = problem
        .label
        .as_deref()
        .map(|label| format!(" {label}"))
        .unwrap_or_default();
    out.push_str(&format!(
        "{strong}{severity}{reset}: {}\n",
        printable(&problem.message)
    ));
    out.push_str(&format!(
        "{gutter} {dim}-->{reset} {document}:{line}:{column}\n"
    ));
    out.push_str(&format!("{gutter} {dim}|{reset}\n"));
    out.push_str(&format!("{dim}{line} |{reset} {shown}\n"));
    out.push_str(&format!(
        "{gutter} {dim}|{reset} {strong}{marked}{}{reset}\n",
        printable(&label)
    ));
    if let Some(help) = &problem.help {
        out.push_str(&format!(
            "{gutter} {dim}={reset} help: {}\n",
            printable(help)
        ));
    }
}

/// The marks under the source line of a problem.
fn marks(problem: &Problem) -> String {
    let left = problem.span.column.saturating_sub(problem.source_column);
    let shown = u32::try_from(problem.source_line.chars().count()).unwrap_or(u32::MAX);
    let length = problem
        .span
        .length
        .clamp(1, shown.saturating_sub(left).max(1));
    let times = |count: u32, mark: &str| mark.repeat(usize::try_from(count).unwrap_or_default());
    format!("{}{}", times(left.min(shown), " "), times(length, "^"))
}

/// Control characters would move the terminal's cursor or change its state; each is shown as one visible character,
/// so that the marks stay under what they mean.
fn printable(text: &str) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() || is_invisible(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

/// Characters that change the direction of text or hide in it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The candidate that `asked` was probably meant to be; none when nothing is near.
pub(crate) fn nearest<'a>(
    asked: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long text is no slip of the pen, and the distance costs its length squared.
    if asked.len() > 64 {
        return None;
    }
    let allowed = (asked.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(asked, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
