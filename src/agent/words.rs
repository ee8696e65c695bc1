//! Text that a guest sent, made safe to show: in a log, on a terminal, in a desktop. Everything of a guest that may reach
//! a person passes here; what may not be shown is taken out, not escaped, so that two readers see the same.

use std::fmt;

use serde::Serialize;

/// A guest's own words, cleaned and bounded. They are a claim: shown to people, compared with nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct GuestWords(String);

/// Which white space a text may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// One line: line breaks and tabs become spaces.
    One,
    /// Several: line feeds and tabs stay.
    Several,
}

impl GuestWords {
    /// Cleans `text` and keeps its first `max` bytes: escape sequences go whole, control characters and the invisible
    /// characters that reorder or hide text go alone.
    pub fn clean(text: &str, max: usize, lines: Lines) -> Self {
        let mut kept = String::with_capacity(text.len().min(max));
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let shown = match (character, lines) {
                ('\u{1b}', _) => {
                    skip_escape(&mut characters);
                    continue;
                }
                ('\n' | '\t', Lines::Several) => character,
                ('\n' | '\t' | '\r', Lines::One) => ' ',
                _ if character.is_control() || is_invisible(character) => continue,
                _ => character,
            };
            if kept.len() + shown.len_utf8() > max {
                break;
            }
            kept.push(shown);
        }
        Self(kept)
    }

    /// The cleaned text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes the rest of an escape sequence: of a control sequence (`ESC [ ... letter`) all of it, of an operating system
/// command (`ESC ] ... BEL`) all up to its end, of any other the next character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            // Parameters lie from `0` to `?` and from space to `/`; anything else ends the sequence.
            while characters
                .next_if(|c| ('\u{20}'..='\u{3f}').contains(c))
                .is_some()
            {}
            let _ = characters.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']' | 'P' | '^' | '_' | 'X') => {
            for character in characters.by_ref() {
                if matches!(character, '\u{7}' | '\u{1b}' | '\u{9c}' | '\n') {
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Marks that change the direction of the text around them, and characters without a shape.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

impl fmt::Display for GuestWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GuestWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, lines: Lines, expected: &str) {
        assert_eq!(
            GuestWords::clean(text, 64, lines).as_str(),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn escape_sequences_go_whole() {
        check("a\u{1b}[31;1mred\u{1b}[0m b", Lines::One, "ared b");
        check("\u{1b}]0;title\u{7}x", Lines::One, "x");
        check("x\u{1b}", Lines::One, "x");
        check("\u{1b}[", Lines::One, "");
        check("\u{9b}31mx", Lines::One, "31mx");
    }

    #[test]
    fn control_and_invisible_characters_go_alone() {
        check("a\0b\u{8}c\u{7f}d\u{202e}e\u{200b}f", Lines::One, "abcdef");
        check("grüße, 世界", Lines::One, "grüße, 世界");
    }

    #[test]
    fn one_line_stays_one_line() {
        check("a\r\nforged: entry\tx", Lines::One, "a  forged: entry x");
        check("a\r\nb\tc", Lines::Several, "a\nb\tc");
    }

    #[test]
    fn the_bound_counts_bytes_and_cuts_no_character() {
        assert_eq!(GuestWords::clean("ééé", 5, Lines::One).as_str(), "éé");
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_can_steer_a_terminal(text: String, max in 0usize..64) {
            let words = GuestWords::clean(&text, max, Lines::One);
            prop_assert!(words.as_str().len() <= max);
            prop_assert!(!words.as_str().chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }
}
