//! Rule text into rules: the clauses of a rule, and the cursor that the rest of the grammar shares (`condition`,
//! `value`, `action`). Each problem has its place in the text; the document reader turns that into one in the file.

use std::ops::Range;
use std::time::Duration;

use super::ast::{Action, Condition};
use super::lex::{Token, What, tokens};
use crate::problem::{Kind, Problem, Severity, Span};
use crate::signal::Unit;

/// Longest rule text, in bytes. A person reads rules; this is far beyond what one reads.
pub(crate) const LONGEST_TEXT: usize = 4096;
/// Deepest nesting of parentheses, so that recursion is bounded.
const DEEPEST: usize = 32;
/// Longest `FOR` window and cooldown.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// A problem with its place in the rule text, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextProblem {
    pub(crate) severity: Severity,
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) at: Range<usize>,
    pub(crate) label: Option<String>,
    pub(crate) help: Option<String>,
}

impl TextProblem {
    /// The same problem where the rule text stands in its document.
    pub(crate) fn placed(self, span: Span) -> Problem {
        Problem {
            severity: self.severity,
            label: self.label,
            help: self.help,
            ..Problem::error(self.kind, span, self.message)
        }
    }
}

/// What one rule text says; what it leaves out has no value yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleParts {
    pub(crate) when: Condition,
    pub(crate) then: Vec<Action>,
    pub(crate) until: Option<Condition>,
    pub(crate) cooldown: Option<Duration>,
    pub(crate) priority: Option<i32>,
}

/// A whole rule: `IF … THEN … UNTIL … COOLDOWN … PRIORITY …`.
pub(crate) fn rule(text: &str, problems: &mut Vec<TextProblem>) -> Option<RuleParts> {
    run(text, &mut 0, problems, |parser| parser.rule())
}

/// A condition alone; `slot` is the number of the next window of the rule that it belongs to, of a `FOR` or of a
/// function.
pub(crate) fn condition(
    text: &str,
    slot: &mut usize,
    problems: &mut Vec<TextProblem>,
) -> Option<Condition> {
    run(text, slot, problems, |parser| {
        parser.take_word("if");
        parser.condition()
    })
}

/// One or more actions alone.
pub(crate) fn actions(text: &str, problems: &mut Vec<TextProblem>) -> Option<Vec<Action>> {
    run(text, &mut 0, problems, |parser| parser.actions())
}

/// A duration alone, within the limits of cooldowns.
pub(crate) fn cooldown(text: &str, problems: &mut Vec<TextProblem>) -> Option<Duration> {
    run(text, &mut 0, problems, |parser| {
        parser.duration("a cooldown", Duration::ZERO)
    })
}

/// A priority alone.
pub(crate) fn priority(text: &str, problems: &mut Vec<TextProblem>) -> Option<i32> {
    run(text, &mut 0, problems, |parser| parser.priority())
}

/// Reads all of `text` with `part`; nothing comes out where there was an error.
fn run<T>(
    text: &str,
    slot: &mut usize,
    problems: &mut Vec<TextProblem>,
    part: impl FnOnce(&mut Parser<'_>) -> Parsed<T>,
) -> Option<T> {
    if text.len() > LONGEST_TEXT {
        let message = format!(
            "{} bytes are too long for a rule; at most {LONGEST_TEXT} are read",
            text.len()
        );
        problems.push(TextProblem {
            severity: Severity::Error,
            kind: Kind::TooLarge,
            message,
            at: 0..1,
            label: None,
            help: None,
        });
        return None;
    }
    let before = problems.len();
    let tokens = tokens(text);
    let mut parser = Parser {
        text,
        tokens: &tokens,
        next: 0,
        depth: 0,
        operations: 0,
        functions: 0,
        slot: *slot,
        problems,
    };
    let parsed = part(&mut parser).and_then(|value| parser.end().map(|()| value));
    *slot = parser.slot;
    let whole = problems[before..]
        .iter()
        .all(|problem| problem.severity == Severity::Warning);
    parsed.ok().filter(|_| whole)
}

/// A syntax error ends the reading of one text; it has been reported when this is returned.
pub(crate) struct Stop;
/// What a part of the grammar yields.
pub(crate) type Parsed<T> = Result<T, Stop>;

/// Words that end a name of several words.
const KEYWORDS: [&str; 10] = [
    "if", "then", "until", "cooldown", "priority", "and", "or", "not", "between", "for",
];

/// Words of a rule that end an action.
const CLAUSES: [&str; 3] = ["until", "cooldown", "priority"];

/// Where the reading of one text stands. Its grammar is here for clauses, in `condition` for conditions, in `value`
/// and `named` for sums and what they are made of, in `phrase` and `action` for actions.
pub(crate) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [Token],
    pub(super) next: usize,
    depth: usize,
    pub(super) operations: usize,
    pub(super) functions: usize,
    pub(super) slot: usize,
    pub(super) problems: &'a mut Vec<TextProblem>,
}

impl<'a> Parser<'a> {
    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    pub(crate) fn peek_second(&self) -> Option<&'a Token> {
        self.tokens.get(self.next + 1)
    }

    pub(crate) fn advance(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.next)?;
        self.next += 1;
        Some(token)
    }

    pub(crate) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_word(word));
        self.next += usize::from(found);
        found
    }

    pub(crate) fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_symbol(symbol));
        self.next += usize::from(found);
        found
    }

    /// The place of the next token, or the end of the text.
    pub(crate) fn here(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        self.peek().map_or(end..end, |token| token.at.clone())
    }

    /// From `start` to the end of the last token that was read.
    pub(crate) fn since(&self, start: usize) -> Range<usize> {
        let end = self
            .next
            .checked_sub(1)
            .and_then(|last| self.tokens.get(last))
            .map_or(start, |token| token.at.end);
        start..end.max(start)
    }

    pub(crate) fn report(
        &mut self,
        kind: Kind,
        at: Range<usize>,
        message: impl Into<String>,
    ) -> &mut TextProblem {
        let at_index = self.problems.len();
        self.problems.push(TextProblem {
            severity: Severity::Error,
            kind,
            message: message.into(),
            at,
            label: None,
            help: None,
        });
        &mut self.problems[at_index]
    }

    /// Says that something of the language changes nothing in this version, and what follows from that.
    pub(super) fn inactive(&mut self, at: Range<usize>, message: impl Into<String>, follows: &str) {
        let problem = self.report(Kind::NotYetSupported, at, message);
        problem.severity = Severity::Warning;
        problem.help = Some(follows.to_owned());
    }

    /// Whether an error was reported behind the first `before` problems.
    pub(super) fn failed_since(&self, before: usize) -> bool {
        self.problems[before..]
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Reports what was expected at the next token instead of what is there.
    pub(crate) fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        let at = self.here();
        let help = self.peek().and_then(|token| match token.what {
            What::Symbol("=") => Some("write `==` to compare"),
            What::Symbol("&&") => Some("write AND"),
            What::Symbol("||") => Some("write OR"),
            What::Symbol("!") => Some("write NOT"),
            What::Stray('≥') => Some("write `>=`"),
            What::Stray('≤') => Some("write `<=`"),
            What::OpenQuote => Some("close the quotes"),
            _ => None,
        });
        let message = match self.text.get(at.clone()) {
            Some(found) if !found.is_empty() => format!("expected {what}, found `{found}`"),
            _ => format!("expected {what}, but the rule ends here"),
        };
        let problem = self.report(Kind::RuleSyntax, at, message);
        problem.help = help.map(str::to_owned);
        Err(Stop)
    }

    /// Whether an action may end before the token of this number.
    pub(super) fn ends_action(&self, index: usize) -> bool {
        match self.tokens.get(index) {
            None => true,
            Some(token) if token.is_symbol(".") => index + 1 == self.tokens.len(),
            Some(token) => {
                token.is_symbol(",") || CLAUSES.iter().any(|clause| token.is_word(clause))
            }
        }
    }

    /// The number of the token behind a run of tokens that starts at `first` and has no space in it, such as
    /// `cdn-caching` or `10.0.0.1:80`: what is one name to a person is many tokens here. None where no name starts.
    pub(super) fn glued(&self, first: usize) -> Option<usize> {
        let starts = match &self.tokens.get(first)?.what {
            What::Word(_) | What::Quantity(_) => true,
            What::Symbol(symbol) => *symbol == "[",
            What::Stray(_) | What::Text(_) | What::OpenQuote => false,
        };
        let mut next = first + 1;
        while let Some(token) = self.tokens.get(next) {
            let glued = token.at.start == self.tokens[next - 1].at.end;
            let joins = match &token.what {
                What::Word(_) | What::Quantity(_) | What::Stray(_) => true,
                // The point that ends a sentence is no part of its last name.
                What::Symbol(".") => self
                    .tokens
                    .get(next + 1)
                    .is_some_and(|behind| behind.at.start == token.at.end),
                What::Symbol(symbol) => matches!(*symbol, "-" | "+" | "[" | "]" | "/"),
                What::Text(_) | What::OpenQuote => false,
            };
            if !(glued && joins) {
                break;
            }
            next += 1;
        }
        let alone = next == first + 1;
        let keyword = matches!(&self.tokens[first].what, What::Word(word) if is_keyword(word));
        (starts && !(alone && keyword)).then_some(next)
    }

    /// The place of the tokens from `first` up to `next`.
    pub(super) fn place(&self, first: usize, next: usize) -> Range<usize> {
        let (start, end) = (self.tokens.get(first), self.tokens.get(next.max(1) - 1));
        match (start, end) {
            (Some(start), Some(end)) => start.at.start..end.at.end,
            _ => self.here(),
        }
    }

    fn end(&mut self) -> Parsed<()> {
        self.take_symbol(".");
        if self.peek().is_none() {
            return Ok(());
        }
        self.expected("the end of the rule")
    }

    fn rule(&mut self) -> Parsed<RuleParts> {
        self.take_word("if");
        let when = self.condition()?;
        if !self.take_word("then") {
            return self.expected("THEN and an action, or AND, OR, FOR");
        }
        let then = self.actions()?;
        let mut parts = RuleParts {
            when,
            then,
            until: None,
            cooldown: None,
            priority: None,
        };
        while let Some(token) = self.peek() {
            let at = token.at.clone();
            let twice = if self.take_word("until") {
                let until = self.condition()?;
                parts.until.replace(until).is_some()
            } else if self.take_word("cooldown") {
                let cooldown = self.duration("a cooldown", Duration::ZERO)?;
                parts.cooldown.replace(cooldown).is_some()
            } else if self.take_word("priority") {
                let priority = self.priority()?;
                parts.priority.replace(priority).is_some()
            } else {
                break;
            };
            if twice {
                let message = format!("`{}` stands here twice", &self.text[at.clone()]);
                self.report(Kind::Duplicate, at, message);
            }
        }
        Ok(parts)
    }

    /// Steps over the opening parenthesis and reads what is in it, one level deeper.
    pub(super) fn nested<T>(&mut self, part: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let at = self.here();
        self.depth += 1;
        if self.depth > DEEPEST {
            self.report(
                Kind::TooLarge,
                at,
                format!("parentheses nest deeper than {DEEPEST} levels"),
            );
            return Err(Stop);
        }
        self.advance();
        let inner = part(self)?;
        self.depth -= 1;
        Ok(inner)
    }

    /// Steps over `(…)`, if one stands here.
    pub(super) fn skip_arguments(&mut self) {
        let mut open = 0_usize;
        while let Some(token) = self.peek() {
            open += usize::from(token.is_symbol("("));
            if open == 0 {
                return;
            }
            open -= usize::from(token.is_symbol(")"));
            self.advance();
            if open == 0 {
                return;
            }
        }
    }

    /// A duration from `least` up to the longest window.
    pub(super) fn duration(&mut self, what: &str, least: Duration) -> Parsed<Duration> {
        let Some(Token {
            what: What::Quantity(measured),
            at,
        }) = self.peek()
        else {
            return self.expected("a duration, such as 5m");
        };
        self.advance();
        if let Err(error) = &measured.quantity {
            self.report(Kind::BadQuantity, at.clone(), error.to_string());
            return Ok(least);
        }
        let Some(seconds) = measured.of(Unit::Duration) else {
            let found = &self.text[at.clone()];
            let help = measured
                .unit
                .is_empty()
                .then(|| format!("write the unit, such as `{found}s` or `{found}m`"));
            self.report(
                Kind::UnitMismatch,
                at.clone(),
                format!("{what} is a duration, not `{found}`"),
            )
            .help = help;
            return Ok(least);
        };
        let duration = crate::quantity::whole_millis(seconds);
        if duration < least || duration > LONGEST_WINDOW {
            let found = &self.text[at.clone()];
            let least_text = crate::quantity::exact_duration(least);
            let message = format!("{what} of {found} is out of range; it is {least_text} to 30d");
            self.report(Kind::OutOfRange, at.clone(), message);
            return Ok(least);
        }
        Ok(duration)
    }

    fn priority(&mut self) -> Parsed<i32> {
        let start = self.here().start;
        let negative = self.take_symbol("-");
        let Some(Token {
            what: What::Quantity(measured),
            ..
        }) = self.peek()
        else {
            return self.expected("a priority, a whole number");
        };
        self.advance();
        let at = self.since(start);
        let found = &self.text[at.clone()];
        let whole = measured
            .of(Unit::Count)
            .filter(|value| measured.unit.is_empty() && value.fract() == 0.0);
        match whole.filter(|value| *value <= 1000.0) {
            Some(value) => {
                // At most 1000, checked above.
                #[allow(clippy::cast_possible_truncation)]
                let value = value as i32;
                Ok(if negative { -value } else { value })
            }
            None => {
                let message =
                    format!("a priority is a whole number from -1000 to 1000, not `{found}`");
                self.report(Kind::OutOfRange, at, message);
                Ok(0)
            }
        }
    }

    pub(crate) fn text_at(&self, at: Range<usize>) -> &'a str {
        self.text.get(at).unwrap_or_default()
    }
}

pub(crate) fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword))
}
