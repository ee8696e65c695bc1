//! Rule text into tokens, each with its place. No meaning here: what a word stands for is the parser's business.

use std::ops::Range;

use super::spoken;
use crate::quantity::{self, Quantity, QuantityError};
use crate::signal::Unit;

/// One token and the bytes of the rule text that it covers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) what: What,
    pub(crate) at: Range<usize>,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// Letters, digits, underscores and inner points.
    Word(String),
    /// A number with the unit that stands behind it, which may be empty.
    Quantity(Measured),
    /// Text in quotes, without them.
    Text(String),
    /// One of `< <= > >= == != + - * / ( ) [ ] , .`, or whatever else is there, for the message.
    Symbol(&'static str),
    /// A character that means nothing in a rule.
    Stray(char),
    /// A quote that is never closed.
    OpenQuote,
}

/// A quantity as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// The quantity, or why it is none.
    pub(crate) quantity: Result<Quantity, QuantityError>,
    /// The unit as written; empty without one.
    pub(crate) unit: String,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 20] = [
    "<=", ">=", "==", "!=", "&&", "||", "<", ">", "=", "!", "+", "-", "*", "/", "(", ")", "[", "]",
    ",", ".",
];

/// Words that never are a unit, so that a number before them has none.
const NO_UNITS: [&str; 18] = [
    "if",
    "then",
    "until",
    "cooldown",
    "priority",
    "and",
    "or",
    "not",
    "between",
    "for",
    "memory",
    "ram",
    "of",
    "to",
    "by",
    "more",
    "additional",
    "at",
];

/// All tokens of `text`, which is within the limit that the caller checks.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (what, length) = token(&text[at..], c);
        found.push(Token {
            what,
            at: at..at + length,
        });
        at += length;
    }
    found
}

fn token(rest: &str, first: char) -> (What, usize) {
    if first.is_ascii_digit() {
        return number(rest);
    }
    if first.is_alphabetic() || first == '_' {
        let length = word_length(rest);
        return (What::Word(rest[..length].to_owned()), length);
    }
    if matches!(first, '"' | '\'') {
        return quoted(rest, first);
    }
    match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        Some(symbol) => (What::Symbol(symbol), symbol.len()),
        None => (What::Stray(first), first.len_utf8()),
    }
}

/// A point belongs to a word only where the word goes on behind it, so that a sentence may end with one.
fn word_length(rest: &str) -> usize {
    let mut length = 0;
    let mut letters = rest.char_indices().peekable();
    while let Some((at, c)) = letters.next() {
        let inner = c == '.'
            && letters
                .peek()
                .is_some_and(|(_, next)| next.is_alphanumeric());
        if !(c.is_alphanumeric() || c == '_' || inner) {
            break;
        }
        length = at + c.len_utf8();
    }
    length
}

fn number(rest: &str) -> (What, usize) {
    let digits = quantity::number_length(rest);
    let (number, behind) = rest.split_at(digits);
    let gap = behind.len() - behind.trim_start_matches(' ').len();
    let unit = unit_length(&behind[gap..], gap);
    let taken = match &behind[gap..gap + unit] {
        "" => None,
        // Glued to the number it can be nothing else.
        glued if gap == 0 => Some(glued),
        word if NO_UNITS.contains(&word.to_ascii_lowercase().as_str())
            || spoken::begins_comparison(word) =>
        {
            None
        }
        word => match Quantity::from_parts(number, word) {
            Err(QuantityError::UnknownUnit { nearest: None, .. }) => None,
            _ => Some(word),
        },
    };
    let unit = taken.unwrap_or_default().to_owned();
    let length = if unit.is_empty() {
        digits
    } else {
        digits + gap + unit.len()
    };
    let quantity = Quantity::from_parts(number, &unit);
    (What::Quantity(Measured { quantity, unit }), length)
}

/// How much of the text may be a unit: `%`, `/s` glued to the number, or letters with an optional `/s`.
fn unit_length(text: &str, gap: usize) -> usize {
    if text.starts_with('%') {
        return 1;
    }
    let letters = |text: &str| text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let name = letters(text);
    let rate = match text[name..].strip_prefix('/') {
        Some(behind) if name > 0 || gap == 0 => match letters(behind) {
            0 => 0,
            per => 1 + per,
        },
        _ => 0,
    };
    if rate > 0 && quantity::is_unit(&text[..name + rate]) {
        name + rate
    } else {
        name
    }
}

fn quoted(rest: &str, quote: char) -> (What, usize) {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, c)) = letters.next() {
        match c {
            '\\' => match letters.next() {
                Some((_, escaped)) => text.push(escaped),
                None => break,
            },
            c if c == quote => return (What::Text(text), at + c.len_utf8()),
            c => text.push(c),
        }
    }
    (What::OpenQuote, rest.len())
}

impl Token {
    /// Whether it is this word, in any case.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(&self.what, What::Word(own) if own.eq_ignore_ascii_case(word))
    }

    /// Whether it is this symbol.
    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.what, What::Symbol(own) if own == symbol)
    }
}

impl Measured {
    /// The value where it is of this kind.
    pub(crate) fn of(&self, unit: Unit) -> Option<f64> {
        self.quantity
            .as_ref()
            .ok()
            .filter(|quantity| quantity.unit == unit)
            .map(|quantity| quantity.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> = tokens(text)
            .into_iter()
            .map(|token| text[token.at].to_owned())
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_unit_belongs_to_its_number_and_a_word_does_not() {
        check(
            "cpu.utilization > 80% FOR 5m",
            &["cpu.utilization", ">", "80%", "FOR", "5m"],
        );
        check("for 5 minutes.", &["for", "5 minutes", "."]);
        check("add 25% memory", &["add", "25%", "memory"]);
        check("add 128 MiB memory", &["add", "128 MiB", "memory"]);
        check("x > 10 Gbit/s AND", &["x", ">", "10 Gbit/s", "AND"]);
        check("x > 5/s", &["x", ">", "5/s"]);
        check("80 / guest.load", &["80", "/", "guest.load"]);
        check("8 GiB / memory.size", &["8 GiB", "/", "memory.size"]);
        check(
            "PRIORITY 5 COOLDOWN 2m",
            &["PRIORITY", "5", "COOLDOWN", "2m"],
        );
        check("a<=1-b", &["a", "<=", "1", "-", "b"]);
        check(
            "notify \"a, \\\" b\", add",
            &["notify", "\"a, \\\" b\"", ",", "add"],
        );
    }
}
