//! How a single text is written in YAML so that every reader takes it for that text: plain, in quotes, or as a block.
//! Readers of YAML 1.1 are many, and take `yes`, `5:30` and `1_000` for something else, so they count as well.

/// What stands around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// Lines and indentation.
    Block,
    /// Brackets, where commas and brackets end a text.
    Flow,
}

/// A text in the line that has begun; `None` where it is better written as a block.
pub(super) fn text(text: &str, around: Around) -> Option<String> {
    if can_be_plain(text, around) {
        return Some(text.to_owned());
    }
    if around == Around::Block && can_be_block(text) {
        return None;
    }
    Some(quoted(text))
}

/// A key.
pub(super) fn key(key: &str) -> String {
    if can_be_plain(key, Around::Block) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// A text in quotes: double ones, but for one that itself has those, or backslashes, and can stand in single ones.
pub(super) fn quoted(text: &str) -> String {
    let single = text.contains(['"', '\\']) && !text.contains('\'') && text.chars().all(is_clear);
    if single {
        return format!("'{text}'");
    }
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_clear(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let escape = match code {
                    0..=0xff => format!("\\x{code:02X}"),
                    0x100..=0xffff => format!("\\u{code:04X}"),
                    _ => format!("\\U{code:08X}"),
                };
                out.push_str(&escape);
            }
        }
    }
    out.push('"');
    out
}

/// Whether a character can stand for itself on a line and is seen there.
fn is_clear(c: char) -> bool {
    let hidden = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    );
    !c.is_control() && !hidden
}

fn can_be_plain(text: &str, around: Around) -> bool {
    let mut chars = text.chars();
    let (Some(first), second) = (chars.next(), chars.next()) else {
        return false;
    };
    let starts = match first {
        '-' | '?' | ':' => second.is_some_and(char::is_alphanumeric),
        // The end of a document, or what reads as a special value of one.
        '.' => !text.starts_with("..."),
        c => !c.is_whitespace() && !"#&*!|>'\"%@`,[]{}=<".contains(c),
    };
    let brackets = around == Around::Flow && text.contains([',', '[', ']', '{', '}']);
    starts
        && !brackets
        && !text.ends_with(':')
        && !text.ends_with(char::is_whitespace)
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(is_clear)
        && !is_value(text)
        && !was_value(text)
}

/// Whether YAML 1.2 (core schema) takes a plain text for something else than a text.
pub(super) fn is_value(text: &str) -> bool {
    if matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
    ) {
        return true;
    }
    let all =
        |digits: &str, is: fn(&u8) -> bool| !digits.is_empty() && digits.bytes().all(|b| is(&b));
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |digit| matches!(digit, b'0'..=b'7'));
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(number, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    is_decimal(number)
}

/// Digits with or without a fraction and an exponent.
fn is_decimal(number: &str) -> bool {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    !(whole.is_empty() && fraction.is_empty()) && digits(whole) && digits(fraction) && exponent
}

/// Whether YAML 1.1 takes a plain text for something else than a text where 1.2 does not.
fn was_value(text: &str) -> bool {
    const WORDS: [&str; 6] = ["y", "yes", "on", "n", "no", "off"];
    if WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain: String = unsigned.chars().filter(|c| *c != '_').collect();
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let lowered = plain.to_ascii_lowercase();
    let radix = ["0x", "0b", "0o"].iter().any(|prefix| {
        let digits = lowered.strip_prefix(prefix);
        digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    radix || is_decimal(&plain) || is_sexagesimal(&plain) || is_date(text)
}

/// `5:30` and `1:20:30.5` are numbers to the base of 60.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.split(':');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let first = parts.next().is_some_and(digits);
    let mut rest = parts.map(|part| part.split_once('.').map_or(part, |(whole, _)| whole));
    let second = rest.next();
    first && second.is_some_and(digits) && rest.all(digits)
}

/// `2001-12-14`, with or without a time.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, most: usize| {
        part.is_some_and(|part| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(parts.next(), 4)
        && digits(parts.next(), 2)
        && parts
            .next()
            .is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether a text of several lines can stand in lines of its own.
fn can_be_block(text: &str) -> bool {
    let clear = |line: &str| line.chars().all(|c| is_clear(c) || c == '\t');
    // Space that is alone on its line reads as part of the indentation in some readers.
    let blank = |line: &str| !line.is_empty() && line.trim().is_empty();
    text.contains('\n')
        && !text.trim().is_empty()
        && text.split('\n').all(|line| clear(line) && !blank(line))
}

/// The line that announces a block: how its end is meant, and how deep it stands where its first line cannot tell.
pub(super) fn block_header(text: &str) -> String {
    let first = text.trim_start_matches('\n');
    let depth = if first.starts_with([' ', '\t']) {
        "2"
    } else {
        ""
    };
    let end = match text.len() - text.trim_end_matches('\n').len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    format!("|{depth}{end}")
}

/// The lines of a block.
pub(super) fn block_lines(text: &str) -> std::str::Split<'_, char> {
    text.strip_suffix('\n').unwrap_or(text).split('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_only_where_a_reader_would_misunderstand() {
        for plain in [
            "web",
            "a b",
            "PCI DSS",
            "10%",
            "4 GiB",
            ">=1.22x".trim_start_matches(">="),
            "1.2.3",
            "-x",
            "a:b",
            "10.0.0.1:80",
            "tcp/443 from 0.0.0.0/0",
            "it's",
            "say \"x\"",
            "a#b",
            "cpu.utilization > 80% FOR 5m",
            "é",
            "/bin/sh",
            "nothing",
            "5m",
            "1 - 2",
            "nullable",
            "2x-1",
            ".hidden",
            "a, b",
        ] {
            assert_eq!(text(plain, Around::Block).as_deref(), Some(plain));
        }
        for (given, expected) in [
            ("", "\"\""),
            ("null", "\"null\""),
            ("~", "\"~\""),
            ("True", "\"True\""),
            ("yes", "\"yes\""),
            ("No", "\"No\""),
            ("off", "\"off\""),
            ("y", "\"y\""),
            ("1", "\"1\""),
            ("-1.5e3", "\"-1.5e3\""),
            ("+.5", "\"+.5\""),
            ("1_000", "\"1_000\""),
            ("0x1F", "\"0x1F\""),
            ("0b11", "\"0b11\""),
            (".inf", "\".inf\""),
            ("08:00", "\"08:00\""),
            ("1:20:30.5", "\"1:20:30.5\""),
            ("2001-12-14", "\"2001-12-14\""),
            ("2001-12-14 10:00:00", "\"2001-12-14 10:00:00\""),
            ("=", "\"=\""),
            ("<<", "\"<<\""),
            (" a", "\" a\""),
            ("a ", "\"a \""),
            ("a: b", "\"a: b\""),
            ("a:", "\"a:\""),
            ("a #b", "\"a #b\""),
            ("- a", "\"- a\""),
            ("-", "\"-\""),
            ("--- a", "\"--- a\""),
            ("... a", "\"... a\""),
            (">=1.22", "\">=1.22\""),
            ("*a", "\"*a\""),
            ("&a", "\"&a\""),
            ("!a", "\"!a\""),
            ("%a", "\"%a\""),
            ("@a", "\"@a\""),
            ("`a", "\"`a\""),
            ("[a]", "\"[a]\""),
            ("{a", "\"{a\""),
            ("'a'", "\"'a'\""),
            ("\"a\"", "'\"a\"'"),
            ("a: \"b\"", "'a: \"b\"'"),
            ("a: \\", "'a: \\'"),
            ("it's: \"b\"", "\"it's: \\\"b\\\"\""),
            ("a\u{7}\u{202e}\u{feff}", "\"a\\x07\\u202E\\uFEFF\""),
            ("a\tb", "\"a\\tb\""),
            ("\u{85}", "\"\\x85\""),
        ] {
            assert_eq!(text(given, Around::Block).as_deref(), Some(expected));
        }
        for (given, expected) in [
            ("a, b", "\"a, b\""),
            ("a]", "\"a]\""),
            ("a:b", "a:b"),
            ("a\nb", "\"a\\nb\""),
        ] {
            assert_eq!(text(given, Around::Flow).as_deref(), Some(expected));
        }
    }

    #[test]
    fn texts_of_several_lines_are_blocks_where_that_is_safe() {
        for (given, header, lines) in [
            ("a\nb\n", "|", vec!["a", "b"]),
            ("a\nb", "|-", vec!["a", "b"]),
            ("a\n\n", "|+", vec!["a", ""]),
            (" a\nb\n", "|2", vec![" a", "b"]),
            ("\n\n a\n", "|2", vec!["", "", " a"]),
            ("\na", "|-", vec!["", "a"]),
        ] {
            assert_eq!(text(given, Around::Block), None, "{given:?}");
            assert_eq!(block_header(given), header, "{given:?}");
            assert_eq!(block_lines(given).collect::<Vec<_>>(), lines, "{given:?}");
        }
        for given in [
            "\n",
            "a\n \nb",
            "a\r\nb",
            "a\n\u{2028}b",
            "a\n\u{1b}b",
            "\n  \n",
        ] {
            assert!(text(given, Around::Block).is_some(), "{given:?}");
        }
    }
}
