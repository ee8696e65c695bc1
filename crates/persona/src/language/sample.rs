//! Documents made up from the table of the language, for tests: whatever the table says may stand somewhere, in any of
//! its spellings. What must hold between values (`min` below `max`, one form of a source) is seen to.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::*;
use crate::signal::Metric;

/// A document of any keys of the language, in any spelling.
pub(super) fn document() -> BoxedStrategy<Value> {
    table(&ROOT, &[])
        .prop_map(|mut document| {
            if let Value::Object(keys) = &mut document
                && !keys.keys().any(|key| squash(key) == "name")
            {
                keys.insert("name".to_owned(), json!("made-up"));
            }
            document
        })
        .boxed()
}

/// A map of keys of a table without some of them. Those without which it means nothing are there.
fn table(table: &'static Table, without: &[&str]) -> BoxedStrategy<Value> {
    let mut fields: BoxedStrategy<Vec<(String, Value)>> = Just(Vec::new()).boxed();
    for key in table.keys {
        if without.contains(&key.name) {
            continue;
        }
        let entry = (spelling(key), value(key.name, &key.shape));
        let entry = match key.absent {
            Absent::Refused => entry.prop_map(Some).boxed(),
            _ => of(entry).boxed(),
        };
        fields = (fields, entry)
            .prop_map(|(mut fields, entry)| {
                fields.extend(entry);
                fields
            })
            .boxed();
    }
    let fields = fields.prop_shuffle();
    fields
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        .boxed()
}

/// A key as people spell it.
fn spelling(key: &'static Key) -> BoxedStrategy<String> {
    let names: Vec<&str> = std::iter::once(key.name)
        .chain(key.aliases.iter().copied())
        .collect();
    (select(names), 0..6_u8)
        .prop_map(|(name, style)| match style {
            0 | 1 => name.to_owned(),
            2 => name.replace('_', "-"),
            3 => name.replace('_', " ").to_uppercase(),
            4 => name.split('_').map(capital).collect(),
            _ => name.split('_').map(capital).collect::<Vec<_>>().join(" "),
        })
        .boxed()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Something that may stand as the value of a key.
fn value(key: &'static str, shape: &'static Shape) -> BoxedStrategy<Value> {
    let text = |words: &'static [&'static str]| select(words).prop_map(Value::from).boxed();
    match shape {
        Shape::Text(_) if key == "priority" => (-1000..1000).prop_map(Value::from).boxed(),
        Shape::Text(_) if key == "currency" => text(&["EUR", "usd"]),
        Shape::Text(_) if key == "user" => text(&["root", "www-data"]),
        Shape::Text(_) if key == "name" => text(&["grow", "Shrink-2"]),
        Shape::Text(_) => prop_oneof![
            text(&["x", "a: b # c", "déjà vu", "no", "1.0", "say \"hi\""]),
            Just(json!(7)),
            Just(json!(true)),
        ]
        .boxed(),
        Shape::PersonaName => text(&["made-up", "Other", "third.one"]),
        Shape::Reference => text(&["base", "Base2@7"]),
        Shape::Label => text(&["feed", "Feed-2", "a.b"]),
        Shape::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Shape::Whole(..) => {
            let range = match key {
                "initial" => 5..9_u32,
                "max" => 9..17,
                _ => 1..5,
            };
            let number = |n: u32| prop_oneof![Just(json!(n)), Just(json!(format!("{n} cores")))];
            range.prop_flat_map(number).boxed()
        }
        Shape::Number => {
            let range = if key == "peak" { 50..90_u8 } else { 1..40 };
            range.prop_map(|n| json!(f64::from(n) / 4.0)).boxed()
        }
        Shape::Quantity(units, example) => quantity(key, units, example),
        Shape::Choice(words) => {
            let spellings = words.iter().flat_map(|Word(word, others)| {
                std::iter::once(*word).chain(others.iter().copied())
            });
            let spellings: Vec<&str> = spellings.collect();
            (select(spellings), any::<bool>())
                .prop_map(|(word, upper)| {
                    json!(if upper {
                        word.to_uppercase()
                    } else {
                        word.to_owned()
                    })
                })
                .boxed()
        }
        Shape::Frequency => text(&["never", "Daily", "24h", "weekly", "30 days", "1h"]),
        Shape::Decay => text(&["7d", "12 hours", "10%/day", "5% per week", "1%/h"]),
        Shape::TimeOfDay => text(&["08:00", "8:05", "23:59"]),
        Shape::Url => text(&[
            "https://feeds.example.com/list",
            "http://a.example:8080/x?y",
        ]),
        Shape::Path => text(&["/bin/sh", "/opt/tools/run"]),
        Shape::Command => text(&["nc", "nmap", "true", "apt-get"]),
        Shape::Metric => {
            let names: Vec<String> = Metric::ALL
                .iter()
                .flat_map(|metric| {
                    let spoken = metric.spoken().iter().map(|name| name.to_uppercase());
                    std::iter::once(metric.name().to_owned()).chain(spoken)
                })
                .collect();
            select(names).prop_map(Value::from).boxed()
        }
        Shape::Endpoint if key == "ingress" => {
            text(&["tcp/443 from 0.0.0.0/0", "UDP/1-9", "any", "icmp from ::/0"])
        }
        Shape::Endpoint => text(&["tcp/443 to 10.0.0.0/8", "sctp", "any to 192.0.2.1"]),
        Shape::Level => prop_oneof![
            text(&["none", "Low", "medium", "HIGH", "0.5"]),
            (0..=10_u8).prop_map(|n| json!(f64::from(n) / 10.0)),
        ]
        .boxed(),
        Shape::Version => prop_oneof![
            text(&["latest", "Latest version", "1.24", ">=1.22", "version 2"]),
            Just(json!(1.5)),
        ]
        .boxed(),
        Shape::Package => text(&["nginx", "Redis", "libstdc++6"]),
        Shape::Action => text(&[
            "add 1 vcpus",
            "Scale up to 9 cores",
            "notify \"x: y\", isolate",
            "Activate CDN caching",
        ]),
        Shape::Condition => text(&[
            "cpu.utilization > 80% FOR 5m",
            "CPU Load > 80% for 5 minutes AND NOT memory.utilization < 10%",
        ]),
        Shape::Rule => prop_oneof![
            text(&["IF CPU Load > 80% for 5 minutes THEN notify \"hot\" COOLDOWN 9m."]),
            table(&RULE, &["name"]),
        ]
        .boxed(),
        Shape::Software => prop_oneof![
            text(&[
                "nginx",
                "Nginx (latest version)",
                "redis (>=7)",
                "a2ps (printing)"
            ]),
            table(&PACKAGE, &[]),
        ]
        .boxed(),
        Shape::Source => prop_oneof![
            table(&SOURCE, &["condition", "path", "column"]),
            table(&SOURCE, &["format", "column"]).prop_map(with_action),
            table(&SOURCE, &["format", "path", "condition"]),
        ]
        .boxed(),
        Shape::Weights => weights(),
        Shape::Variable => prop_oneof![
            text(&["production", "", "a # b", "1.50", "no"]),
            Just(json!(8080)),
            Just(json!(false)),
            table(&SECRET, &[]),
        ]
        .boxed(),
        Shape::List(inner, _) => vec(value(key, inner), 0..2).prop_map(Value::from).boxed(),
        Shape::Many(inner, _) => {
            let one = value(key, inner);
            // An empty list of actions is a mistake.
            let least = usize::from(matches!(inner, Shape::Action));
            prop_oneof![one.clone(), vec(one, least..2).prop_map(Value::from)].boxed()
        }
        Shape::Map(inner) => table(inner, &[]),
        Shape::Spelt(single, inner) => {
            let alone = inner.keys.iter().find(|key| key.name == *single);
            match alone {
                Some(alone) => {
                    prop_oneof![value(alone.name, &alone.shape), table(inner, &[])].boxed()
                }
                None => table(inner, &[]),
            }
        }
        Shape::Dictionary(names, inner, _) => {
            let names: &'static [&'static str] = match (names, key) {
                (Names::Labels, _) => &["lock-down", "Purge.Cache"],
                (Names::Exact, "sysctl") => &["vm.swappiness", "net/ipv4/ip_forward"],
                (Names::Exact, "services") => &["ssh.service", "getty@tty1"],
                (Names::Exact, "command_overrides") => &["deploy", "mail"],
                (Names::Exact, _) => &["APP_ENV", "_x9"],
            };
            let chosen = subsequence(names, 0..=names.len());
            (chosen, vec(value(key, inner), names.len()))
                .prop_map(|(names, values)| {
                    let names = names.into_iter().map(str::to_owned);
                    Value::Object(names.zip(values).collect())
                })
                .boxed()
        }
    }
}

/// A quantity of the kind that a key wants, in the order that keys beside it want.
fn quantity(key: &str, units: &[Unit], example: &str) -> BoxedStrategy<Value> {
    let factor = match key {
        "initial" | "average" | "sustained" => 2,
        "max" | "peak" => 4,
        // More than the frequency that is not given.
        "stale_after" => 9,
        _ => 1,
    };
    let spellings: &[&str] = match units.last() {
        Some(Unit::Bytes) => &["GiB", " GiB", " gib"],
        Some(Unit::Duration) => &["m", " minutes"],
        Some(Unit::BitsPerSecond) => &[" Gbit/s", "Gbps"],
        Some(Unit::BytesPerSecond) => &[" MiB/s", " MB/s"],
        Some(Unit::PerSecond) => &["/s", ""],
        Some(Unit::Percent) => &["%", " percent"],
        Some(Unit::Count) | None => panic!("{example}"),
    };
    let spellings: Vec<String> = spellings.iter().map(|unit| (*unit).to_owned()).collect();
    (select(spellings), 1..=2_u32)
        .prop_map(move |(unit, number)| json!(format!("{}{unit}", number * factor)))
        .boxed()
}

/// A condition without an action is a mistake.
fn with_action(mut source: Value) -> Value {
    if let Value::Object(keys) = &mut source {
        let action = SOURCE.key("action");
        let has = |keys: &Map<String, Value>| {
            keys.keys()
                .any(|name| SOURCE.find(name).map(|key| key.name) == action.map(|key| key.name))
        };
        if !has(keys) {
            keys.insert("action".to_owned(), json!("block addresses from feed"));
            keys.retain(|name, _| SOURCE.find(name).is_none_or(|key| key.name != "name"));
            keys.insert("name".to_owned(), json!("feed"));
        }
    }
    source
}

fn weights() -> BoxedStrategy<Value> {
    let names = subsequence(
        vec![
            "Performance",
            "security",
            "cost",
            "availability",
            "CPU utilization",
        ],
        1..=5,
    );
    (names, vec(1..9_u32, 5), 0..3_u8)
        .prop_map(|(names, weights, form)| {
            let pairs = names.into_iter().zip(weights);
            match form {
                0 => Value::Object(pairs.map(|(n, w)| (n.to_owned(), json!(w))).collect()),
                1 => pairs
                    .map(|(name, weight)| json!({"Name": name, "weight": weight}))
                    .collect(),
                _ => pairs.map(|(name, _)| json!(name)).collect(),
            }
        })
        .boxed()
}
