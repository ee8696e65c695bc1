//! Documents that are written to do harm, in all three formats: each is refused with its reason, or means what it says,
//! within bounded time and memory. What ordinary mistakes look like is in `documents`.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests measure how long reading takes; the crate itself has no clock"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::time::{Duration, Instant};

use persona::{Format, Kind, Loaded, Problems, SourceText, load};

/// Longer than any document takes on a busy machine without optimisation; without a bound one takes hours.
const LONG: Duration = Duration::from_secs(20);
/// The largest document.
const MOST: usize = 256 * 1024;

fn read(format: Format, text: &[u8]) -> Result<Loaded, Problems> {
    let began = Instant::now();
    let read = load(&SourceText {
        name: "hostile",
        text,
        format,
        persona_name: Some("x"),
    });
    let took = began.elapsed();
    assert!(took < LONG, "{took:?} for {}", shown(text));
    if let Err(problems) = &read {
        assert!(problems.has_errors() && problems.len() <= Problems::MOST);
        let printed = problems.to_string();
        assert!(
            printed.len() < 100_000,
            "{} bytes are printed",
            printed.len()
        );
        assert!(
            !printed.chars().any(|c| c.is_control() && c != '\n'),
            "{printed:?}"
        );
    }
    read
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(80).collect()
}

/// The first problem: its kind, line and column, and what it says.
fn refused(format: Format, text: impl AsRef<[u8]>) -> (Kind, (u32, u32), String) {
    let text = text.as_ref();
    let Err(problems) = read(format, text) else {
        panic!("accepted as {format:?}: {}", shown(text))
    };
    let first = &problems.problems[0];
    (
        first.kind,
        (first.span.line, first.span.column),
        first.message.clone(),
    )
}

fn accepted(format: Format, text: impl AsRef<[u8]>) -> Loaded {
    let text = text.as_ref();
    read(format, text).unwrap_or_else(|problems| panic!("{format:?}: {problems}"))
}

const ALL: [Format; 3] = [Format::Yaml, Format::Json, Format::Toml];

/// A document of one key.
fn one(format: Format, key: &str, value: &str) -> String {
    match format {
        Format::Yaml => format!("{key}: {value}\n"),
        Format::Json => format!("{{\"{key}\": {value}}}"),
        Format::Toml => format!("{key} = {value}\n"),
    }
}

#[test]
fn what_is_larger_than_a_document_is_not_read_in_any_format() {
    for format in ALL {
        let (kind, place, message) = refused(format, vec![b' '; MOST + 1]);
        assert_eq!((kind, place), (Kind::TooLarge, (1, 1)));
        assert_eq!(
            message,
            "the document has 262145 bytes; at most 262144 are read"
        );
        let description = "x".repeat(MOST - 100);
        let (kind, _, message) = refused(
            format,
            one(format, "description", &format!("\"{description}\"")),
        );
        assert_eq!(kind, Kind::TooLarge);
        assert_eq!(
            message,
            "`description` has 262044 bytes; at most 4096 are read"
        );
    }
}

#[test]
fn nesting_is_bounded_before_it_costs_anything() {
    let (lists, maps) = (100_000, 40_000);
    for (format, text) in [
        (Format::Yaml, "[".repeat(lists)),
        (Format::Yaml, "{a: ".repeat(maps)),
        (Format::Yaml, "- ".repeat(lists)),
        (
            Format::Yaml,
            (0..600)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
        ),
        (
            Format::Json,
            format!("{}{}", "[".repeat(lists), "]".repeat(lists)),
        ),
        (
            Format::Json,
            format!("{}1{}", "{\"a\":".repeat(maps), "}".repeat(maps)),
        ),
        (
            Format::Toml,
            format!("a = {}{}", "[".repeat(lists), "]".repeat(lists)),
        ),
        (Format::Toml, format!("a = {}", "[".repeat(lists))),
        (Format::Toml, format!("a = {}", "{a = ".repeat(maps))),
        (Format::Toml, format!("a{} = 1", ".a".repeat(lists))),
        (Format::Toml, format!("[a{}]", ".a".repeat(lists))),
        (Format::Toml, format!("[[a{}]]", " . 'a'".repeat(maps))),
        (Format::Toml, format!("a = {{b{} = 1}}", ".a".repeat(lists))),
    ] {
        let (kind, _, message) = refused(format, &text);
        assert_eq!(
            kind,
            Kind::TooLarge,
            "{format:?} {}: {message}",
            shown(text.as_bytes())
        );
        assert_eq!(message, "lists and maps nest deeper than 32 levels");
    }
}

#[test]
fn aliases_do_not_multiply_a_document() {
    let bomb: String = (0..40)
        .map(|level| match level {
            0 => "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(),
            level => {
                let alias = format!("*a{}, ", level - 1).repeat(9);
                format!("a{level}: &a{level} [{alias}]\n")
            }
        })
        .collect();
    let text = format!(
        "a: &a \"{}\"\nb: [{}]\n",
        "x".repeat(100_000),
        "*a,".repeat(50_000)
    );
    let keys: String = (0..3000).map(|n| format!("k{n}: *m\n")).collect();
    let maps = format!("m: &m {{a: 1, b: 2, c: 3, d: 4}}\n{keys}");
    for document in [bomb, text, maps] {
        let (kind, _, message) = refused(Format::Yaml, document);
        assert_eq!(kind, Kind::TooLarge);
        assert_eq!(
            message,
            "the document has more than 20000 values, counting what aliases stand for"
        );
    }
    for (document, expected) in [
        (
            "a: &a [*a]\n",
            "this alias stands inside of what it stands for",
        ),
        (
            "a: *b\nb: &b 1\n",
            "this does not parse: while parsing node, found unknown anchor",
        ),
    ] {
        assert_eq!(refused(Format::Yaml, document).2, expected);
    }
}

#[test]
fn many_values_are_bounded_in_every_format() {
    let keys = |line: fn(usize) -> String, count: usize| (0..count).map(line).collect::<String>();
    for (format, text) in [
        (Format::Yaml, keys(|n| format!("k{n}: 1\n"), 15_000)),
        (Format::Yaml, format!("a: [{}]", "1,".repeat(100_000))),
        (
            Format::Json,
            format!("{{{}\"a\": 1}}", keys(|n| format!("\"k{n}\": 1,"), 15_000)),
        ),
        (
            Format::Json,
            format!("{{\"a\": [{}1]}}", "1,".repeat(100_000)),
        ),
        (Format::Toml, keys(|n| format!("k{n} = 1\n"), 15_000)),
        (Format::Toml, keys(|n| format!("[k{n}]\n"), 15_000)),
        (Format::Toml, "[[a]]\n".repeat(40_000)),
        (Format::Toml, format!("a = [{}]", "1,".repeat(100_000))),
    ] {
        let (kind, _, message) = refused(format, &text);
        assert_eq!(
            kind,
            Kind::TooLarge,
            "{format:?} {}: {message}",
            shown(text.as_bytes())
        );
        assert!(
            message.starts_with("the document has more than 20000 values"),
            "{message}"
        );
    }
}

#[test]
fn texts_that_take_long_to_read_do_not() {
    for unit in [
        "a",
        "\"",
        "'",
        "\\",
        "#",
        "-",
        ":",
        "? ",
        ": ",
        "&a ",
        "*a ",
        "!a ",
        "%",
        "\t",
        "\n",
        "\r\n",
        " ",
        ",",
        "{",
        "}",
        "[",
        "]",
        "[]",
        "{}",
        "a:",
        "a: ",
        "a=",
        "a.",
        "a = 1\n",
        "a.b = 1\n",
        "[a]\n",
        "[[a]]\n",
        "[a.b]\n",
        "[[a.b]]\n",
        "\"\"\"",
        "'''",
        "'''\n",
        "\"\\u",
        "|\n",
        "a: |\n",
        "- - ",
        "- a\n",
        "- a: 1\n",
        "# c\n",
        "a: # c\n",
        "1,",
        "0x",
        "1_",
        "\u{feff}",
        "é",
        "\u{0}",
        "\u{7f}",
        "---\n",
        "...\n",
    ] {
        for format in ALL {
            let _ = read(format, unit.repeat(MOST / unit.len()).as_bytes());
            // Within something else a smaller document tells.
            let inner = unit.repeat(MOST / 8 / unit.len());
            for (before, behind) in [
                ("a: [", ""),
                ("{\"a\": \"", ""),
                ("a = \"\"\"", ""),
                ("a = [", "]"),
                ("x: |\n ", ""),
            ] {
                let _ = read(format, format!("{before}{inner}{behind}").as_bytes());
            }
        }
    }
}

#[test]
fn numbers_are_read_or_refused_and_never_wrap() {
    let long = "9".repeat(100_000);
    for (value, expected) in [
        ("1e400", Kind::BadQuantity),
        ("-1", Kind::OutOfRange),
        ("1e300", Kind::OutOfRange),
        ("4294967297", Kind::OutOfRange),
        ("18446744073709551617", Kind::OutOfRange),
        ("0.5", Kind::OutOfRange),
    ] {
        for format in ALL {
            let document = match format {
                Format::Yaml => format!("base_configuration: {{cpu: {{min: {value}}}}}"),
                Format::Json => {
                    format!("{{\"base_configuration\": {{\"cpu\": {{\"min\": {value}}}}}}}")
                }
                Format::Toml => format!("base_configuration.cpu.min = {value}"),
            };
            let (kind, (line, column), message) = refused(format, &document);
            let at = document.find(value).unwrap() + 1;
            assert_eq!(
                (line, usize::try_from(column).unwrap()),
                (1, at),
                "{document}"
            );
            assert!(
                kind == expected || kind == Kind::BadQuantity || kind == Kind::OutOfRange,
                "{document}: {kind:?} {message}"
            );
        }
    }
    for (format, value) in [
        (Format::Yaml, "NaN"),
        (Format::Yaml, ".nan"),
        (Format::Yaml, ".inf"),
        (Format::Yaml, "-.inf"),
        (Format::Yaml, "infinity"),
        (Format::Yaml, "'1e999'"),
        (Format::Json, "\"NaN\""),
        (Format::Json, "\"Infinity\""),
        (Format::Toml, "nan"),
        (Format::Toml, "-inf"),
        (Format::Toml, "0xffffffffffffffffffffffffffffffffffff"),
        (Format::Yaml, &long),
        (Format::Json, &long),
        (Format::Toml, &long),
    ] {
        let document = one(
            format,
            "base_configuration",
            &match format {
                Format::Yaml => format!("{{memory: {value}}}"),
                Format::Json => format!("{{\"memory\": {value}}}"),
                Format::Toml => format!("{{memory = {value}}}"),
            },
        );
        let (kind, _, message) = refused(format, &document);
        assert!(
            matches!(
                kind,
                Kind::BadQuantity | Kind::OutOfRange | Kind::TooLarge | Kind::WrongType
            ),
            "{}: {kind:?} {message}",
            shown(document.as_bytes())
        );
    }
    for value in ["NaN", "Infinity", "01", "+1", "0x10", "1."] {
        let document = one(Format::Json, "base_configuration", value);
        assert_eq!(refused(Format::Json, document).0, Kind::Syntax, "{value}");
    }
}

#[test]
fn the_same_key_twice_is_refused_in_every_format() {
    for (format, document, place) in [
        (Format::Yaml, "description: a\ndescription: b\n", (2, 1)),
        (Format::Yaml, "description: a\n'Description': b\n", (2, 1)),
        (
            Format::Yaml,
            "description: a\n\"\\u0064escription\": b\n",
            (2, 1),
        ),
        (
            Format::Yaml,
            "environment_variables: {A: 1, A: 2}\n",
            (1, 31),
        ),
        (
            Format::Json,
            "{\"description\": \"a\", \"description\": \"b\"}",
            (1, 22),
        ),
        (
            Format::Json,
            "{\"description\": \"a\",\n\"\\u0064escription\": \"b\"}",
            (2, 1),
        ),
        (
            Format::Toml,
            "description = 'a'\ndescription = 'b'\n",
            (2, 1),
        ),
        (
            Format::Toml,
            "description = 'a'\n\"\\u0064escription\" = 'b'\n",
            (2, 1),
        ),
        (
            Format::Toml,
            "Description = 'a'\ndescription = 'b'\n",
            (2, 1),
        ),
        (
            Format::Toml,
            "environment_variables = {A = 1, A = 2}\n",
            (1, 33),
        ),
        (
            Format::Toml,
            "[environment_variables]\nA = 1\n[environment_variables]\nB = 2\n",
            (3, 2),
        ),
        (
            Format::Toml,
            "environment_variables.A = 1\n[environment_variables]\nB = 2\n",
            (2, 2),
        ),
    ] {
        let (kind, found, message) = refused(format, document);
        assert_eq!(
            (kind, found),
            (Kind::Duplicate, place),
            "{document}: {message}"
        );
    }
}

#[test]
fn tabs_marks_and_line_ends_are_read_as_each_format_allows() {
    for (format, document) in [
        (
            Format::Yaml,
            "\u{feff}description: a\r\nfunctional_role: b\r\n",
        ),
        (Format::Yaml, "description:\ta\rfunctional_role: b\r"),
        (
            Format::Json,
            "\u{feff}{\r\n\t\"description\": \"a\",\r\n\t\"functional_role\":\t\"b\"}\r\n",
        ),
        (
            Format::Toml,
            "\u{feff}description\t= 'a'\r\nfunctional_role = 'b'\r\n",
        ),
    ] {
        let persona = accepted(format, document).persona;
        assert_eq!(persona.description.as_deref(), Some("a"), "{document:?}");
        assert_eq!(
            persona.functional_role.as_deref(),
            Some("b"),
            "{document:?}"
        );
    }
    let (kind, place, message) = refused(Format::Yaml, "base_configuration:\n\tcpu: 1\n");
    assert_eq!((kind, place), (Kind::Syntax, (2, 1)));
    assert_eq!(
        message,
        "a tab stands in the indentation, which YAML does not allow"
    );
    // A mark in the middle is a character like others, and shown as one.
    for (format, document) in [
        (Format::Yaml, "a: 1\n\u{feff}b: 1\n"),
        (Format::Json, "{\"a\": 1, \u{feff}\"b\": 1}"),
        (Format::Toml, "a = 1\n\u{feff}b = 1\n"),
    ] {
        refused(format, document);
    }
}

#[test]
fn what_is_not_utf8_is_refused_at_its_first_byte() {
    for format in ALL {
        for (bytes, byte, place) in [
            (&b"\xff\xfen\x00a\x00"[..], 0xff, (1, 1)),
            (b"\xef\xbb\xbfa\r\n\xe9: 1", 0xe9, (2, 1)),
            (b"a: \"\xc0\x80\"", 0xc0, (1, 5)),
            (b"ab\xed\xa0\x80", 0xed, (1, 3)),
            (b"abc\xf0\x9f\x98", 0xf0, (1, 4)),
        ] {
            let (kind, found, message) = refused(format, bytes);
            assert_eq!((kind, found), (Kind::NotUtf8, place), "{bytes:?}");
            let expected =
                format!("the document is not UTF-8: byte 0x{byte:02x} starts no character");
            assert_eq!(message, expected);
        }
    }
}

#[test]
fn letters_that_look_like_others_are_not_the_others() {
    for format in ALL {
        // A Cyrillic letter, a full-width one, one with a mark behind it, and one that is not seen.
        for key in ["nаme", "ｎame", "name\u{301}", "name\u{200b}"] {
            let quoted = format!("\"{key}\"");
            let document = match format {
                Format::Yaml => format!("{quoted}: web\n"),
                Format::Json => format!("{{{quoted}: \"web\"}}"),
                Format::Toml => format!("{quoted} = 'web'\n"),
            };
            let (kind, _, _) = refused(format, &document);
            assert_eq!(kind, Kind::UnknownKey, "{document}");
        }
        for name in [
            "wеb",
            "ｗeb",
            "web\u{202e}",
            "../web",
            "web/..",
            "/etc/passwd",
            "we\\u0000b",
            ".",
            "..",
            "-web",
            "",
        ] {
            let (kind, _, message) = refused(format, one(format, "name", &format!("\"{name}\"")));
            assert!(
                matches!(kind, Kind::BadName | Kind::OutOfRange),
                "{name:?} in {format:?}: {kind:?} {message}"
            );
        }
    }
}

#[test]
fn keys_of_any_length_are_only_unknown() {
    let long = "k".repeat(100_000);
    for (format, document) in [
        (Format::Json, one(Format::Json, &long, "1")),
        (Format::Toml, one(Format::Toml, &long, "1")),
        (Format::Yaml, format!("? {long}\n: 1\n")),
    ] {
        let (kind, _, message) = refused(format, document);
        assert_eq!(kind, Kind::UnknownKey);
        assert_eq!(message, format!("a persona has no key `{}`", &long[..60]));
    }
    // YAML itself says that a key without a question mark has at most 1024 characters.
    assert_eq!(
        refused(Format::Yaml, one(Format::Yaml, &long, "1")).0,
        Kind::Syntax
    );
}
