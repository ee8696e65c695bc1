//! Where a part of a scalar's text stands in the file: between the two are quotes, escapes, indentation and folded
//! lines. The rule parser's places become places in the document here.

use std::ops::Range;

use super::Format;

/// The bytes of `raw` (a scalar as it stands in the file) that gave `part` of `decoded` (its text).
pub(crate) fn locate(
    raw: &str,
    format: Format,
    decoded: &str,
    part: &Range<usize>,
) -> Range<usize> {
    let style = Style::of(raw, format, decoded);
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
    /// TOML's text in one quote, where every character stands for itself.
    Literal,
    /// TOML's text in three double quotes, with escapes.
    LongDouble,
    /// TOML's text in three single quotes.
    LongLiteral,
}

impl Style {
    fn of(raw: &str, format: Format, decoded: &str) -> Self {
        if format == Format::Toml {
            return match raw.chars().next() {
                Some('"') if raw.starts_with("\"\"\"") => Self::LongDouble,
                Some('\'') if raw.starts_with("'''") => Self::LongLiteral,
                Some('"') => Self::Double,
                Some('\'') => Self::Literal,
                _ => Self::Plain,
            };
        }
        // A block's place is that of its text, which may begin with what elsewhere is a quote.
        let block =
            |mark: &str, escaped: &str| decoded.starts_with(mark) && !raw.starts_with(escaped);
        match raw.chars().next() {
            Some('"') if !block("\"", "\"\\\"") => Self::Double,
            Some('\'') if !block("'", "'''") => Self::Single,
            _ => Self::Plain,
        }
    }

    /// Where the content starts: behind the quotes.
    fn start(self, raw: &str) -> usize {
        match self {
            Self::Plain => 0,
            Self::Single | Self::Double | Self::Literal => 1,
            // A line end right behind the quotes is not part of the text.
            Self::LongDouble | Self::LongLiteral if raw[3..].starts_with('\n') => 4,
            Self::LongDouble | Self::LongLiteral => 3,
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
        if matches!(style, Style::Double | Style::LongDouble) && found == '\\' {
            let length = escape_length(rest);
            // An escaped line end joins two lines and gives no character. TOML allows spaces before it.
            let next = match style {
                Style::LongDouble => rest[1..].trim_start_matches([' ', '\t']),
                _ => &rest[1..],
            };
            if next.starts_with('\n') {
                here += rest.len() - next.trim_start().len();
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

    fn check(
        format: Format,
        raw: &str,
        decoded: &str,
        word: &str,
        (expected, column): (&str, usize),
    ) {
        let start = decoded.find(word).unwrap();
        let found = locate(raw, format, decoded, &(start..start + word.len()));
        assert_eq!(
            (&raw[found.clone()], found.start),
            (expected, column),
            "{raw:?}"
        );
    }

    #[test]
    fn parts_of_scalars_are_found_in_every_style() {
        for (raw, decoded, word, place) in [
            ("cpu > 5%", "cpu > 5%", "5%", ("5%", 6)),
            ("cpu >\n      5%", "cpu > 5%", "5%", ("5%", 12)),
            ("\"cpu > 5%\"", "cpu > 5%", "cpu", ("cpu", 1)),
            (
                r#""notify \"x\" y""#,
                "notify \"x\" y",
                "\"x\"",
                (r#"\"x\""#, 8),
            ),
            ("\"a \\\n   b\"", "a b", "b", ("b", 8)),
            (r#""\u00e9 x""#, "é x", "x", ("x", 8)),
            (r#""\ud83d\ude00 x""#, "😀 x", "x", ("x", 14)),
            ("'it''s x'", "it's x", "x", ("x", 7)),
            ("'''x'''", "'x'", "x", ("x", 3)),
            ("a\n  b c\n", "a\nb c\n", "c", ("c", 6)),
            ("a\n  b c\n", "a b c", "b", ("b", 4)),
            ("'a' \\t\n  it''s c\n", "'a' \\t\nit''s c\n", "c", ("c", 15)),
            ("\"a\" \\t c\n", "\"a\" \\t c\n", "c", ("c", 7)),
            ("|a\n  c\n", "|a\nc\n", "c", ("c", 5)),
        ] {
            check(Format::Yaml, raw, decoded, word, place);
        }
        for (raw, decoded, word, place) in [
            (r#""\u00e9 \"x\"""#, "é \"x\"", "x", ("x", 10)),
            (r"'C:\new x'", r"C:\new x", "x", ("x", 8)),
            ("'''\na\n  b c'''", "a\n  b c", "c", ("c", 10)),
            ("'''it's x'''", "it's x", "x", ("x", 8)),
            ("''''x'''", "'x", "x", ("x", 4)),
            ("\"\"\"\na \\\n\n   b\"\"\"", "a b", "b", ("b", 12)),
            ("\"\"\"a\\  \n b\\tc\"\"\"", "ab\tc", "c", ("c", 12)),
            ("12.5", "12.5", "5", ("5", 3)),
        ] {
            check(Format::Toml, raw, decoded, word, place);
        }
    }

    #[test]
    fn the_end_of_the_text_is_behind_its_last_character() {
        assert_eq!(locate("\"ab\"", Format::Json, "ab", &(2..2)), 3..3);
    }
}
