//! Where a part of a scalar's text stands in the file: between the two are quotes, escapes, indentation and folded
//! lines. The rule parser's places become places in the document here.

use std::ops::Range;

/// The bytes of `raw` (a scalar as it stands in the file) that gave `part` of `decoded` (its text).
pub(crate) fn locate(raw: &str, decoded: &str, part: &Range<usize>) -> Range<usize> {
    let style = Style::of(raw);
    let mut at = style.start(raw);
    let mut found: Option<usize> = None;
    let mut end = at;
    for (index, c) in decoded.char_indices() {
        let Range { start, end: next } = step(raw, at, c, style);
        at = next;
        if index >= part.start && found.is_none() {
            found = Some(start);
            end = next;
        }
        if index < part.end {
            end = next;
        } else {
            break;
        }
    }
    // A part at the very end of the text, such as a missing word, stands behind the last character.
    let start = found.unwrap_or(at);
    start..end.max(start)
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Block,
}

impl Style {
    fn of(raw: &str) -> Self {
        match raw.chars().next() {
            Some('"') => Self::Double,
            Some('\'') => Self::Single,
            Some('|' | '>') => Self::Block,
            _ => Self::Plain,
        }
    }

    /// Where the content starts: behind the quote, or behind the line of a block's indicator.
    fn start(self, raw: &str) -> usize {
        match self {
            Self::Plain => 0,
            Self::Single | Self::Double => 1,
            Self::Block => raw.find('\n').map_or(raw.len(), |end| end + 1),
        }
    }
}

/// The bytes at or behind `at` that gave the character `c`.
fn step(raw: &str, at: usize, c: char, style: Style) -> Range<usize> {
    let mut here = at;
    loop {
        let rest = raw.get(here..).unwrap_or_default();
        let Some(found) = rest.chars().next() else {
            return here..here;
        };
        if style == Style::Double && found == '\\' {
            let length = escape_length(rest);
            // An escaped line end joins two lines and gives no character.
            if rest[1..].starts_with('\n') {
                here += length;
                continue;
            }
            return here..here + length;
        }
        if style == Style::Single && rest.starts_with("''") {
            return here..here + 2;
        }
        if found == c || (c.is_whitespace() && found.is_whitespace()) {
            return here..here + found.len_utf8();
        }
        if found.is_whitespace() {
            // Indentation and folded lines leave more space in the file than in the text.
            here += found.len_utf8();
            continue;
        }
        // Several line ends stand for one space, or fewer: a space that has no match here lies before it.
        return here..here;
    }
}

/// Bytes of the escape at the start of `rest`.
fn escape_length(rest: &str) -> usize {
    let mut letters = rest.chars().skip(1);
    let length = match letters.next() {
        None => 1,
        Some('x') => 4,
        Some('u') => {
            // JSON writes a character beyond the basic plane as two escapes.
            let high = rest
                .get(2..6)
                .and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let pair = high.is_some_and(|high| (0xd800..0xdc00).contains(&high));
            if pair && rest.get(6..8) == Some("\\u") {
                12
            } else {
                6
            }
        }
        Some('U') => 10,
        Some(other) => 1 + other.len_utf8(),
    };
    super::text::char_start(rest, length).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, decoded: &str, word: &str, expected: &str, column: usize) {
        let start = decoded.find(word).unwrap();
        let found = locate(raw, decoded, &(start..start + word.len()));
        assert_eq!(
            (&raw[found.clone()], found.start),
            (expected, column),
            "{raw:?}"
        );
    }

    #[test]
    fn parts_of_scalars_are_found_in_every_style() {
        check("cpu > 5%", "cpu > 5%", "5%", "5%", 6);
        check("cpu >\n      5%", "cpu > 5%", "5%", "5%", 12);
        check("\"cpu > 5%\"", "cpu > 5%", "cpu", "cpu", 1);
        check(
            "\"notify \\\"x\\\" y\"",
            "notify \"x\" y",
            "\"x\"",
            "\\\"x\\\"",
            8,
        );
        check("\"a \\\n   b\"", "a b", "b", "b", 8);
        check("\"\\u00e9 x\"", "é x", "x", "x", 8);
        check("\"\\ud83d\\ude00 x\"", "😀 x", "x", "x", 14);
        check("'it''s x'", "it's x", "x", "x", 7);
        check("|\n  a\n  b c\n", "a\nb c\n", "c", "c", 10);
        check(">-\n  a\n  b c\n", "a b c", "b", "b", 9);
    }

    #[test]
    fn the_end_of_the_text_is_behind_its_last_character() {
        assert_eq!(locate("\"ab\"", "ab", &(2..2)), 3..3);
    }
}
