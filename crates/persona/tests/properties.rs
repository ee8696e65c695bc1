//! What holds for every document and every rule, not only for the ones that somebody thought of.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use persona::rule::{Condition, Rule, Trail, Truth, Windows};
use persona::{
    Format, Loaded, Metric, Moment, Persona, Problems, Reading, Signals, Source, SourceText, load,
};
use proptest::prelude::*;
use serde::Serialize;

/// A reading as it comes in at one moment.
#[derive(Clone, Copy, Debug)]
enum Came {
    High,
    Low,
    Nothing,
    NotANumber,
    /// Measured so many milliseconds before.
    Old(u64),
}

const PERIOD: Duration = Duration::from_secs(1);
const METRICS: [Metric; 2] = [Metric::CpuUtilization, Metric::MemoryUtilization];

/// One moment: milliseconds since the one before, and what came for each metric.
type Step = (u64, [Came; 2]);

struct At {
    now: u64,
    came: [Came; 2],
}

impl Signals for At {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let index = METRICS.iter().position(|other| *other == metric)?;
        let (value, age) = match self.came[index] {
            Came::High => (80.0, 0),
            Came::Low => (20.0, 0),
            Came::NotANumber => (f64::NAN, 0),
            Came::Old(age) => (80.0, age),
            Came::Nothing => return None,
        };
        let at = Moment(self.now.saturating_sub(age));
        Some(Reading {
            value,
            source: Source::Host,
            at,
            period: PERIOD,
        })
    }
}

/// A condition, apart from the crate's own types.
#[derive(Clone, Debug)]
enum Model {
    High(usize),
    Not(Box<Model>),
    And(Vec<Model>),
    Or(Vec<Model>),
    Held(Box<Model>, u64),
}

impl Model {
    fn text(&self) -> String {
        let join = |parts: &[Self], word: &str| {
            parts.iter().map(Self::text).collect::<Vec<_>>().join(word)
        };
        match self {
            Self::High(metric) => format!("{} > 50%", METRICS[*metric]),
            Self::Not(inner) => format!("NOT ({})", inner.text()),
            Self::And(parts) => format!("({})", join(parts, " AND ")),
            Self::Or(parts) => format!("({})", join(parts, " OR ")),
            Self::Held(inner, window) => format!("(({}) FOR {window}ms)", inner.text()),
        }
    }

    /// What it is worth at one of the moments, by looking back as far as there is anything to see.
    fn worth(&self, history: &[At], index: usize) -> Truth {
        match self {
            Self::High(metric) => match history[index].came[*metric] {
                Came::High => Truth::True,
                Came::Low => Truth::False,
                // The first moments are later than any age, so an age is never cut short.
                Came::Old(age) if age <= 3000 => Truth::True,
                Came::Old(_) | Came::Nothing | Came::NotANumber => Truth::Unknown,
            },
            Self::Not(inner) => match inner.worth(history, index) {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                Truth::Unknown => Truth::Unknown,
            },
            Self::And(parts) => {
                let worth: Vec<_> = parts
                    .iter()
                    .map(|part| part.worth(history, index))
                    .collect();
                if worth.contains(&Truth::False) {
                    Truth::False
                } else if worth.contains(&Truth::Unknown) {
                    Truth::Unknown
                } else {
                    Truth::True
                }
            }
            Self::Or(parts) => {
                let worth: Vec<_> = parts
                    .iter()
                    .map(|part| part.worth(history, index))
                    .collect();
                if worth.contains(&Truth::True) {
                    Truth::True
                } else if worth.contains(&Truth::Unknown) {
                    Truth::Unknown
                } else {
                    Truth::False
                }
            }
            Self::Held(inner, window) => {
                let now = inner.worth(history, index);
                if now != Truth::True {
                    return now;
                }
                let mut first = index;
                while first > 0
                    && history[first].now - history[first - 1].now <= 3000
                    && inner.worth(history, first - 1) == Truth::True
                {
                    first -= 1;
                }
                (history[index].now - history[first].now >= *window).into()
            }
        }
    }
}

fn came() -> impl Strategy<Value = Came> {
    prop_oneof![
        6 => Just(Came::High),
        2 => Just(Came::Low),
        1 => Just(Came::Nothing),
        1 => Just(Came::NotANumber),
        2 => (1_u64..5000).prop_map(Came::Old),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![8 => 1_u64..1500, 1 => 2900_u64..3200, 1 => 3001_u64..60_000];
    prop::collection::vec((gap, [came(), came()]), 1..30)
}

fn model() -> impl Strategy<Value = Model> {
    (0_usize..2)
        .prop_map(Model::High)
        .prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Model::Not(Box::new(inner))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Model::And),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Model::Or),
                (inner, 1_u64..4000)
                    .prop_map(|(inner, window)| Model::Held(Box::new(inner), window)),
            ]
        })
}

/// A sum of one kind, as text.
fn sum(kind: &'static str, number: fn(u32) -> String) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![Just(kind.to_owned()), (1_u32..10_000).prop_map(number)];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}  + {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} - ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} - {b})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.clone().prop_map(|a| format!("2 * ({a})")),
            inner.prop_map(|a| format!("({a})/3")),
        ]
    })
}

fn comparison() -> impl Strategy<Value = String> {
    let op = prop_oneof![
        Just("<"),
        Just("<="),
        Just(">"),
        Just(">="),
        Just("=="),
        Just("!=")
    ];
    prop_oneof![
        (
            sum("cpu.utilization", |n| format!("{}.{}%", n / 100, n % 100)),
            op.clone()
        )
            .prop_map(|(sum, op)| format!("{sum} {op} cpu.steal")),
        (sum("memory.size", |n| format!("{n} MB")), op.clone())
            .prop_map(|(sum, op)| format!("memory.available {op} {sum}")),
        (sum("guest.load", |n| format!("{n}")), op)
            .prop_map(|(sum, op)| format!("vcpu.count{op}{sum}")),
        (1_u32..50, 50_u32..100)
            .prop_map(|(low, high)| format!("CPU Load between {low}% and {high} percent")),
    ]
}

fn condition_text() -> impl Strategy<Value = String> {
    let window = prop_oneof![
        (1_u32..100_000).prop_map(|n| format!("{n}ms")),
        (1_u32..10_000).prop_map(|n| format!("{n} seconds")),
        (1_u32..700).prop_map(|n| format!("{n}h")),
    ];
    comparison().prop_recursive(4, 12, 3, move |inner| {
        let window = window.clone();
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" and "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" OR "))),
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            (inner, window).prop_map(|(inner, window)| format!("({inner}) for {window}")),
        ]
    })
}

fn action_text() -> impl Strategy<Value = String> {
    prop_oneof![
        (1_u32..4096).prop_map(|n| format!("set vcpus to {n}")),
        (1_u32..4096).prop_map(|n| format!("add {n} vcpus")),
        (1_u32..4096).prop_map(|n| format!("remove {n} cores")),
        (1_u32..100_000).prop_map(|n| format!("set memory to {n} MiB")),
        (2000_u32..100_000_000).prop_map(|n| format!("add {n} KB memory")),
        (1_u32..990).prop_map(|n| format!("remove {}.{}% memory", n / 10, n % 10 + 1)),
        "[ -~äß]{1,30}"
            .prop_filter("blank", |text| !text.trim().is_empty())
            .prop_map(|text| {
                format!(
                    "notify \"{}\"",
                    text.replace('\\', "\\\\").replace('"', "\\\"")
                )
            }),
    ]
}

prop_compose! {
    fn rule_text()(
        when in condition_text(),
        then in prop::collection::vec(action_text(), 1..4),
        until in prop::option::of(condition_text()),
        cooldown in prop::option::of(0_u32..100_000),
        priority in prop::option::of(-1000_i32..=1000),
    ) -> String {
        let mut text = format!("IF {when} THEN {}", then.join(","));
        if let Some(until) = until {
            text.push_str(&format!(" UNTIL {until}"));
        }
        if let Some(cooldown) = cooldown {
            text.push_str(&format!(" COOLDOWN {cooldown}ms"));
        }
        if let Some(priority) = priority {
            text.push_str(&format!(" PRIORITY {priority}"));
        }
        text
    }
}

fn load_as(text: &[u8], format: Format) -> Result<Loaded, Problems> {
    load(&SourceText {
        name: "test",
        text,
        format,
        persona_name: None,
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
    let order = Just((0..5).collect::<Vec<usize>>()).prop_shuffle();
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
        let Ok(rule) = Rule::parse("r", &text) else {
            // Too long or too deep is no counter-example; anything else is a generator that writes nonsense.
            let problems = Rule::parse("r", &text).unwrap_err();
            let bounded = problems.iter().all(|problem| problem.kind == persona::Kind::TooLarge);
            prop_assert!(bounded, "{text}\n{problems}");
            return Ok(());
        };
        match Rule::parse("r", &rule.text) {
            Ok(again) => prop_assert_eq!(again, rule),
            Err(problems) => {
                let bounded = problems.iter().all(|problem| problem.kind == persona::Kind::TooLarge);
                prop_assert!(bounded, "{}\n{problems}", rule.text);
            }
        }
    }

    #[test]
    fn evaluation_agrees_with_looking_back(model in model(), steps in steps()) {
        let condition = Condition::parse(&model.text()).unwrap();
        let mut holds = Windows::default();
        let mut history = Vec::new();
        let mut now = 100_000;
        for (gap, came) in steps {
            now += gap;
            history.push(At { now, came });
            let index = history.len() - 1;
            let found = condition.evaluate(&history[index], None, &mut holds, Moment(now), &mut Trail::Off);
            prop_assert_eq!(found, model.worth(&history, index), "{} at {}", model.text(), index);
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
                let bounded = json.iter().all(|problem| problem.kind == persona::Kind::TooLarge);
                prop_assert!(bounded, "{json}");
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
