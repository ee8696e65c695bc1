//! The rule language: `IF condition THEN action …`. What a persona's other keys mean is not here. The planner and the
//! agent evaluate rules; the document reader parses them.

mod action;
mod ast;
mod check;
mod condition;
mod describe;
mod eval;
mod knob;
mod latch;
mod lex;
mod named;
pub(crate) mod parse;
mod phrase;
mod print;
mod spoken;
mod value;
mod visit;
pub mod window;

use crate::document::{self, Text};
use crate::problem::Problems;

pub use ast::{Action, Condition, Direction, Limit, MemoryAmount, Performed, Resource, Rule};
pub(crate) use ast::{Arithmetic, Comparison, Expr, Value};
pub use eval::{Looked, Trail, Truth, Windows};
pub use knob::{Knob, KnobValue};
pub use latch::{Edge, Latch};
pub use phrase::{Phrase, phrases};
pub(crate) use spoken::comparisons as spoken_comparisons;
pub use window::Function;

impl Rule {
    /// Reads a rule in text form, apart from any document.
    ///
    /// # Errors
    /// All problems of the text.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        let parts = alone(text, parse::rule)?;
        Ok(crate::read::rule(name.to_owned(), parts, None, 1))
    }
}

impl Condition {
    /// Reads a condition, apart from any rule.
    ///
    /// # Errors
    /// All problems of the text.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        alone(text, |text, found| parse::condition(text, &mut 0, found))
    }
}

/// Reads a text that is not part of a document.
fn alone<T>(
    text: &str,
    parse: impl FnOnce(&str, &mut Vec<parse::TextProblem>) -> Option<T>,
) -> Result<T, Problems> {
    let source = Text::new(text);
    let mut found = Vec::new();
    let parsed = parse(&source.text, &mut found);
    let problems = found.into_iter().map(|problem| {
        let span = source.span(&problem.at);
        problem.placed(span)
    });
    let problems = document::collect("rule", &source, problems.collect());
    parsed.ok_or(problems)
}
