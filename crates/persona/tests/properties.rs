//! What holds for every document and every rule, not only for the ones that somebody thought of.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

mod grammar;

use std::collections::BTreeMap;

use grammar::{condition_text, rule_text};
use persona::rule::{Condition, Rule};
use persona::{Format, Kind, Loaded, Persona, Problems, Severity, SourceText, load};
use proptest::prelude::*;
use serde::Serialize;

fn load_as(text: &[u8], format: Format) -> Result<Loaded, Problems> {
    load(&SourceText {
        name: "test",
        text,
        format,
        persona_name: None,
    })
}

/// Whether a text is refused for nothing but its size, for waiting longer than an event counts, or for looking at what
/// never changes: no counter-example, while anything else is a generator that writes nonsense.
fn is_bounded(problems: &Problems) -> bool {
    problems.iter().all(|problem| {
        problem.severity == Severity::Warning
            || problem.kind == Kind::TooLarge
            || problem.message.starts_with("an event counts as true")
            || problem.message.ends_with("and measures nothing")
    })
}

/// Every problem must be printable and lie in the document, whatever the document is.
fn check_problems(outcome: Result<Loaded, Problems>, text: &[u8]) {
    let problems = match outcome {
        Ok(loaded) => loaded.warnings,
        Err(problems) => {
            assert!(problems.has_errors());
            problems
        }
    };
    let lines = String::from_utf8_lossy(text)
        .replace("\r\n", "\n")
        .replace('\r', "\n")
        .matches('\n')
        .count()
        + 1;
    for problem in &problems {
        assert!(
            (1..=lines).contains(&(problem.span.line as usize)),
            "{problem:?}"
        );
        assert!(
            problem.span.column >= 1 && problem.span.length >= 1,
            "{problem:?}"
        );
        let printed = problems.to_string();
        assert!(
            !printed.chars().any(|c| c.is_control() && c != '\n'),
            "{printed:?}"
        );
    }
}

/// Pieces of documents, so that random texts get past the first line of the parser.
fn document_text() -> impl Strategy<Value = String> {
    const PIECES: [&str; 44] = [
        "name = 'x'\n",
        "[[adaptation_rules]]\n",
        "[base_configuration]\n",
        "cpu.min = 2\n",
        "when = ",
        "= ",
        "\"\"\"",
        "'''",
        "name: x\n",
        "adaptation_rules:\n",
        "  - ",
        "- ",
        "when: ",
        "then: ",
        "until: ",
        "IF ",
        "cpu.utilization ",
        "> ",
        "80% ",
        "FOR 5m ",
        "THEN ",
        "add 1 vcpus",
        "\n",
        "\t",
        "  ",
        "base_configuration: ",
        "{cpu: ",
        "}",
        "[",
        "]",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "\\",
        "\\u00e9",
        "&a ",
        "*a ",
        "memory: 4 GiB\n",
        "environment_variables: ",
        "{A: 1}",
        "é",
        "# c\n",
        "persona_x:\n",
    ];
    prop::collection::vec(prop::sample::select(PIECES.as_slice()), 0..40)
        .prop_map(|pieces| pieces.concat())
}

/// Words of rules, in any order.
fn rule_words() -> impl Strategy<Value = String> {
    const WORDS: [&str; 40] = [
        "IF",
        "THEN",
        "UNTIL",
        "COOLDOWN",
        "PRIORITY",
        "AND",
        "OR",
        "NOT",
        "BETWEEN",
        "FOR",
        "cpu.utilization",
        "CPU",
        "Load",
        "memory.size",
        "avg",
        "domain.started",
        "priority_metrics",
        "(",
        ")",
        "[",
        "]",
        "<",
        ">=",
        "==",
        "+",
        "-",
        "*",
        "/",
        "80%",
        "5m",
        "4 GiB",
        "1e5",
        "999999999999999999",
        "add",
        "remove",
        "vcpus",
        "memory",
        "notify",
        "\"x\"",
        "é",
    ];
    prop::collection::vec(prop::sample::select(WORDS.as_slice()), 0..30)
        .prop_map(|words| words.join(" "))
}

/// A document as keys and values, and an order in which to write them.
fn fields() -> impl Strategy<Value = (serde_json::Value, Vec<usize>)> {
    let cpu = (1_u32..8, 8_u32..16, 1_u32..10_000)
        .prop_map(|(min, max, share)| serde_json::json!({"min": min, "max": max, "share": share}));
    let environment = prop::collection::btree_map("[A-Z][A-Z0-9_]{0,8}", "[ -~é😀]{0,20}", 0..5);
    let order = Just((0..6).collect::<Vec<usize>>()).prop_shuffle();
    (
        cpu,
        environment,
        "[a-z][a-z0-9]{0,10}",
        rule_text(),
        any::<bool>(),
        order,
    )
        .prop_map(|(cpu, environment, name, rule, default, order)| {
            let document = serde_json::json!({
                "name": name,
                "default_persona": default,
                "base_configuration": {"cpu": cpu, "memory": "4 GiB"},
                "environment_variables": environment,
                "adaptation_rules": [rule],
                // What the rule mentions may be there.
                "extends": ["a.base"],
            });
            (document, order)
        })
}

/// YAML in block style, with the root's keys in the given order and the others from last to first.
fn block_yaml(value: &serde_json::Value, order: &[usize], indent: usize) -> String {
    let space = " ".repeat(indent);
    match value {
        serde_json::Value::Object(map) if !map.is_empty() => {
            let entries: Vec<_> = map.iter().collect();
            let default: Vec<usize> = (0..entries.len()).rev().collect();
            let order = if indent == 0 { order } else { &default };
            let line = |index: &usize| {
                let (key, value) = entries[*index];
                format!("\n{space}{key}: {}", block_yaml(value, order, indent + 2))
            };
            order.iter().map(line).collect()
        }
        serde_json::Value::Array(items) => items
            .iter()
            .map(|item| format!("\n{space}- {}", block_yaml(item, order, indent + 2)))
            .collect(),
        scalar => scalar.to_string(),
    }
}

/// TOML with the root's keys in the given order; maps are inline tables.
fn table_toml(value: &serde_json::Value, order: &[usize]) -> String {
    let entries: Vec<_> = value.as_object().unwrap().iter().collect();
    let line = |index: &usize| {
        let (key, value) = entries[*index];
        format!("{key} = {}\n", inline_toml(value))
    };
    order.iter().map(line).collect()
}

fn inline_toml(value: &serde_json::Value) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        serde_json::Value::Object(map) => {
            let entry = |(key, value)| format!("{key} = {}", inline_toml(value));
            format!("{{{}}}", join(map.iter().map(entry).collect()))
        }
        serde_json::Value::Array(items) => {
            format!("[{}]", join(items.iter().map(inline_toml).collect()))
        }
        // JSON's strings are TOML's but for two escapes for one character, which are not written here.
        scalar => scalar.to_string(),
    }
}

proptest! {
    #[test]
    fn a_printed_rule_reads_back_as_the_same_rule(text in rule_text()) {
        let rule = match Rule::parse("r", &text) {
            Ok(rule) => rule,
            Err(problems) => {
                prop_assert!(is_bounded(&problems), "{text}\n{problems}");
                return Ok(());
            }
        };
        match Rule::parse("r", &rule.text) {
            Ok(again) => prop_assert_eq!(again, rule),
            Err(problems) => prop_assert!(is_bounded(&problems), "{}\n{problems}", rule.text),
        }
    }

    #[test]
    fn a_printed_condition_reads_back_as_the_same_condition(text in condition_text()) {
        if let Ok(condition) = Condition::parse(&text) {
            match Condition::parse(&condition.text()) {
                Ok(again) => prop_assert_eq!(again, condition),
                Err(problems) => prop_assert!(is_bounded(&problems), "{text}\n{problems}"),
            }
        }
    }

    #[test]
    fn the_digest_depends_on_neither_format_nor_order((document, order) in fields()) {
        let json = load_as(document.to_string().as_bytes(), Format::Json);
        let mut pretty = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        document.serialize(&mut serde_json::Serializer::with_formatter(&mut pretty, tabs)).unwrap();
        let tabbed = load_as(&pretty, Format::Json);
        let toml = load_as(table_toml(&document, &order).as_bytes(), Format::Toml);
        if let (Ok(json), Ok(toml)) = (&json, &toml) {
            prop_assert_eq!(&json.persona.digest, &toml.persona.digest);
            prop_assert_eq!(&json.persona.environment, &toml.persona.environment);
        }
        prop_assert_eq!(json.is_ok(), toml.is_ok());
        let yaml = load_as(block_yaml(&document, &order, 0).as_bytes(), Format::Yaml);
        match (json, tabbed, yaml) {
            (Ok(json), Ok(tabbed), Ok(yaml)) => {
                prop_assert_eq!(&json.persona.digest, &yaml.persona.digest);
                prop_assert_eq!(&json.persona.environment, &yaml.persona.environment);
                prop_assert_eq!(&json.persona, &Persona { rules: json.persona.rules.clone(), ..tabbed.persona });
            }
            (Err(json), _, Err(_)) => {
                prop_assert!(is_bounded(&json), "{json}");
            }
            (json, _, yaml) => prop_assert!(false, "one of the formats refuses: {json:?} {yaml:?}"),
        }
    }

    #[test]
    fn the_digest_tells_different_meanings_apart(
        one in prop::collection::btree_map("[A-Z]{1,3}", "[a-z]{0,3}", 0..3),
        other in prop::collection::btree_map("[A-Z]{1,3}", "[a-z]{0,3}", 0..3),
    ) {
        let digest = |environment: &BTreeMap<String, String>| {
            let document = serde_json::json!({"name": "x", "environment_variables": environment});
            load_as(document.to_string().as_bytes(), Format::Json).unwrap().persona.digest
        };
        prop_assert_eq!(digest(&one) == digest(&other), one == other);
    }

    #[test]
    fn no_bytes_bring_the_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check_problems(load_as(&bytes, Format::Yaml), &bytes);
        check_problems(load_as(&bytes, Format::Json), &bytes);
        check_problems(load_as(&bytes, Format::Toml), &bytes);
    }

    #[test]
    fn no_document_brings_the_reader_down(text in document_text()) {
        check_problems(load_as(text.as_bytes(), Format::Yaml), text.as_bytes());
        check_problems(load_as(text.as_bytes(), Format::Json), text.as_bytes());
        check_problems(load_as(text.as_bytes(), Format::Toml), text.as_bytes());
    }

    #[test]
    fn no_change_of_one_byte_brings_the_reader_down(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = include_bytes!("accept/whole.yaml").to_vec();
        let at = place.index(text.len());
        text[at] = byte;
        check_problems(load_as(&text, Format::Yaml), &text);
        let mut text = include_bytes!("accept/tables.toml").to_vec();
        let at = place.index(text.len());
        text[at] = byte;
        check_problems(load_as(&text, Format::Toml), &text);
    }

    #[test]
    fn no_rule_text_brings_the_parser_down(text in prop_oneof!["\\PC{0,80}", rule_words()]) {
        let quoted = serde_json::json!({"name": "x", "adaptation_rules": [text]}).to_string();
        check_problems(load_as(quoted.as_bytes(), Format::Json), quoted.as_bytes());
        if let Err(problems) = Rule::parse("x", &text) {
            prop_assert!(problems.has_errors());
        }
    }
}
