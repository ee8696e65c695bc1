//! Random rule texts over the whole grammar, in more spellings than the printed one. `properties` reads them.

use std::fmt;

use persona::rule::{Function, phrases};
use persona::signal::EventKind;
use persona::{Metric, Unit};
use proptest::prelude::*;
use proptest::sample::select;

/// Kinds of quantities with units to write them in.
const UNITS: [(Unit, &[&str]); 7] = [
    (Unit::Percent, &["%", " percent"]),
    (Unit::Bytes, &["B", " KiB", "MiB", " GB", " TiB"]),
    (Unit::Count, &["", " cores"]),
    (Unit::Duration, &["ms", "s", " minutes", "h"]),
    (Unit::PerSecond, &["/s", "/min", "/h"]),
    (
        Unit::BitsPerSecond,
        &[" bit/s", "kbit/s", " Mbps", " Gbit/s"],
    ),
    (Unit::BytesPerSecond, &["B/s", " KiB/s", "MB/s"]),
];

fn shown(text: impl fmt::Display) -> String {
    text.to_string()
}

fn number(unit: Unit) -> impl Strategy<Value = String> {
    let (_, units) = UNITS.iter().find(|(kind, _)| *kind == unit).unwrap();
    let digits = prop_oneof![
        (0_u32..9000).prop_map(shown),
        (0_u32..1000, 0_u32..1000).prop_map(|(whole, part)| format!("{whole}.{part}")),
    ];
    (digits, select(*units)).prop_map(|(digits, unit)| format!("{digits}{unit}"))
}

fn duration(least: u32, most: u32) -> impl Strategy<Value = String> {
    (least..most).prop_flat_map(|seconds| {
        select(vec![
            format!("{seconds}s"),
            format!("{seconds} seconds"),
            format!("{seconds}000ms"),
            format!("{}m", seconds.div_ceil(60)),
        ])
    })
}

fn named() -> impl Strategy<Value = String> {
    prop_oneof![
        "guest\\.app\\.[a-z][a-z0-9_]{0,5}(-[a-z0-9]{1,3}){0,2}",
        "External\\.[a-z]{1,5}(-[0-9a-z]{1,3})?(\\.[a-z]{1,3})?\\.[a-z]{1,5}",
    ]
}

/// A metric of one kind by one of its names, or one whose kind is not known.
fn signal(unit: Unit) -> impl Strategy<Value = String> {
    let of_kind = Metric::ALL
        .into_iter()
        .filter(|metric| metric.unit() == unit);
    let names = of_kind.flat_map(|metric| {
        let spoken = metric.spoken().iter().map(|name| (*name).to_owned());
        std::iter::once(metric.to_string()).chain(spoken)
    });
    prop_oneof![4 => select(names.collect::<Vec<_>>()), 1 => named()]
}

/// What is no sum and has this kind.
fn leaf(unit: Unit) -> BoxedStrategy<String> {
    let functions = Function::ALL.into_iter().filter(|f| *f != Function::Rate);
    let functions = functions.map(Function::name).collect::<Vec<_>>();
    let called = (select(functions), signal(unit), duration(1, 5000))
        .prop_map(|(function, signal, window)| format!("{function}({signal}, {window})"));
    let predicted = (signal(unit), duration(1, 5000))
        .prop_map(|(signal, ahead)| format!("Predicted({signal},{ahead})"));
    let rate_of = match unit {
        Unit::BytesPerSecond => Unit::Bytes,
        _ => Unit::Count,
    };
    let rate = (signal(rate_of), duration(1, 5000))
        .prop_map(|(signal, window)| format!("RATE({signal}, {window})"));
    let usual = prop_oneof![3 => number(unit), 4 => signal(unit), 2 => called, 1 => predicted];
    match unit {
        Unit::PerSecond | Unit::BytesPerSecond => prop_oneof![4 => usual, 1 => rate].boxed(),
        Unit::Count => {
            let anomaly = signal(unit).prop_map(|signal| format!("anomaly({signal})"));
            let weight = prop_oneof![
                Just("priority_metrics[performance]".to_owned()),
                Just("Priority_Metrics[CPU utilization]".to_owned()),
                Just("priority_metrics[\"My own-group.1\"]".to_owned()),
            ];
            prop_oneof![6 => usual, 1 => anomaly, 1 => weight].boxed()
        }
        _ => usual.boxed(),
    }
}

/// A sum of one kind.
fn sum(unit: Unit) -> BoxedStrategy<String> {
    let joined = leaf(unit).prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}  + {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} - ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} - {b})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.clone().prop_map(|a| format!("2 * ({a})")),
            (inner.clone(), leaf(Unit::Count)).prop_map(|(a, b)| format!("({a}) * {b}")),
            inner.prop_map(|a| format!("({a})/3")),
        ]
    });
    joined.boxed()
}

fn unit() -> impl Strategy<Value = Unit> {
    select(UNITS.map(|(unit, _)| unit).to_vec())
}

fn comparison() -> BoxedStrategy<String> {
    let operator = select(vec![
        "<", "<=", ">", ">=", "==", "!=", "is above", "exceeds", "at most", "Is Not", "is",
    ]);
    let levels = vec!["none", "LOW", "medium", "high", "0.3", "1"];
    let classes = vec![
        "network access",
        "resource_scaling",
        "\"File system modification\"",
        "notify",
    ];
    let trust = select(classes).prop_map(|class| format!("trust_levels[{class}]"));
    prop_oneof![
        5 => (unit(), operator.clone()).prop_flat_map(|(unit, operator)| {
            (signal(unit), sum(unit)).prop_map(move |(one, other)| format!("{one} {operator} {other}"))
        }),
        3 => (unit(), operator.clone()).prop_flat_map(|(unit, operator)| {
            (sum(unit), signal(unit)).prop_map(move |(one, other)| format!("({one}) {operator} {other}"))
        }),
        2 => (unit(), 1_u32..50, 50_u32..90).prop_flat_map(|(unit, low, high)| {
            let (_, units) = UNITS.iter().find(|(kind, _)| *kind == unit).unwrap();
            (leaf(unit), select(*units))
                .prop_map(move |(value, unit)| format!("{value} between {low}{unit} and {high}{unit}"))
        }),
        1 => (trust.clone(), operator, select(levels))
            .prop_map(|(trust, operator, level)| format!("{trust} {operator} {level}")),
        1 => trust.prop_map(|trust| format!("{trust} BETWEEN low AND 0.8")),
    ]
    .boxed()
}

fn event() -> impl Strategy<Value = String> {
    let kind = select(EventKind::ALL.map(EventKind::name).to_vec());
    let source = prop_oneof![
        Just(String::new()),
        "\\([A-Za-z0-9]{1,4}(-[a-z0-9]{1,3})?(\\.[a-z]{1,4})?\\)"
    ];
    let name = prop_oneof![
        3 => kind.prop_map(str::to_owned),
        1 => source.prop_map(|source| format!("Feed.Changed{source}")),
    ];
    (name, any::<bool>()).prop_map(|(name, wrapped)| {
        if wrapped {
            format!("event({name})")
        } else {
            name
        }
    })
}

/// A condition.
pub(crate) fn condition_text() -> BoxedStrategy<String> {
    let held = (comparison(), duration(1, 100_000))
        .prop_map(|(inner, window)| format!("{inner} FOR {window}"));
    // Longer than that no event counts.
    let short =
        (event(), duration(1, 30)).prop_map(|(event, window)| format!("{event} for {window}"));
    prop_oneof![5 => comparison(), 1 => held, 2 => event(), 1 => short]
        .prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 2..4)
                    .prop_map(|parts| format!("({})", parts.join(" and "))),
                prop::collection::vec(inner.clone(), 2..4)
                    .prop_map(|parts| format!("({})", parts.join(" OR "))),
                inner.clone().prop_map(|inner| format!("not ({inner})")),
                (inner, duration(1, 29))
                    .prop_map(|(inner, window)| format!("({inner}) for {window}")),
            ]
        })
        .boxed()
}

/// What may stand in the slot of a phrase.
fn slot(part: &'static str, pattern: &'static str) -> BoxedStrategy<String> {
    let size = prop_oneof![
        (1_u32..100_000).prop_map(|n| format!("{n} MiB")),
        (2000_u32..100_000_000).prop_map(|n| format!("{n} KB")),
    ];
    let percent = (1_u32..990).prop_map(|n| format!("{}.{}%", n / 10, n % 10 + 1));
    let name = "[A-Za-z0-9][a-z0-9_]{0,6}([.-][a-z0-9]{1,4}){0,2}";
    match part {
        "N" if pattern.contains("weight") || pattern.contains("iops") => {
            (1_u32..=10_000).prop_map(shown).boxed()
        }
        "N" => (1_u32..4096).prop_map(shown).boxed(),
        "SIZE" | "BYTES" => size.boxed(),
        "SIZE|P%" => prop_oneof![size, percent].boxed(),
        "P%" => prop_oneof![
            (1_u32..=409_600).prop_map(|n| format!("{n}%")),
            percent.prop_map(|p| format!("1{p}"))
        ]
        .boxed(),
        "RATE" if pattern.contains("network") => prop_oneof![
            (8_u32..1_000_000).prop_map(|n| format!("{n} kbit/s")),
            (1_u32..10_000).prop_map(|n| format!("{n}.5Gbps")),
        ]
        .boxed(),
        "RATE" => (1_u32..1_000_000).prop_map(|n| format!("{n} MB/s")).boxed(),
        "\"TEXT\"" => "[ -~äß]{1,30}"
            .prop_filter("blank", |text| !text.trim().is_empty())
            .prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
            .boxed(),
        "VALUE" => prop_oneof![
            "[A-Za-z]{1,9}",
            (0_u32..100).prop_map(shown),
            // A setting that says nothing is refused, as it is in a document.
            "\"[ a-z!-+'€]{1,9}\"".prop_filter("escape or blank", |text| {
                text.matches('"').count() == 2 && !text.trim_matches(['"', ' ']).is_empty()
            }),
        ]
        .boxed(),
        "KEY" => prop_oneof![
            "os_settings\\.[a-z_]{1,9}(\\.[a-z0-9]{1,4}){0,2}",
            "Environment_Variables\\.[A-Z_]{1,9}[0-9]?",
        ]
        .boxed(),
        "HOST:PORT" => (
            prop_oneof![
                "[a-z][a-z0-9]{0,4}(-[0-9]{1,3})?(\\.[a-z]{1,5}){0,2}",
                any::<std::net::Ipv4Addr>().prop_map(shown),
                any::<std::net::Ipv6Addr>().prop_map(|address| format!("[{address}]")),
            ],
            1_u16..,
        )
            .prop_map(|(host, port)| format!("{host}:{port}"))
            .boxed(),
        "PACKAGE" => "[a-z0-9][a-z0-9]{1,6}([.+_-][a-z0-9]{1,4}){0,2}(\\+\\+)?".boxed(),
        "WORDS" => prop::collection::vec("[A-Z][A-Za-z0-9]{0,6}(-[0-9]{1,3})?", 1..4)
            .prop_map(|words| words.join(" "))
            .boxed(),
        _ => name.boxed(),
    }
}

/// One action: any phrase, with any alternative.
pub(crate) fn action_text() -> BoxedStrategy<String> {
    let all: Vec<&str> = phrases().map(|phrase| phrase.pattern).collect();
    select(all)
        .prop_flat_map(|pattern| {
            let part = |part: &'static str| {
                let optional = part
                    .strip_prefix('[')
                    .and_then(|part| part.strip_suffix(']'));
                if part.starts_with(|c: char| c.is_ascii_uppercase() || c == '"') {
                    return slot(part, pattern);
                }
                let mut words: Vec<String> = optional
                    .unwrap_or(part)
                    .split('|')
                    .map(str::to_owned)
                    .collect();
                words.push(words[0].to_uppercase());
                words.extend(optional.map(|_| String::new()));
                select(words).boxed()
            };
            pattern.split(' ').map(part).collect::<Vec<_>>()
        })
        .prop_map(|parts| parts.join(" "))
        // A keyword or half of another phrase may come out of letters; that is not what is tested.
        .prop_filter("keyword", |text| {
            let keywords = [
                "if", "then", "until", "cooldown", "priority", "and", "or", "not", "between", "for",
            ];
            !text.split(' ').skip(1).any(|word| {
                keywords
                    .iter()
                    .any(|keyword| word.eq_ignore_ascii_case(keyword))
            })
        })
        .boxed()
}

prop_compose! {
    /// A whole rule.
    pub(crate) fn rule_text()(
        when in condition_text(),
        then in prop::collection::vec(action_text(), 1..4),
        until in prop::option::of(condition_text()),
        cooldown in prop::option::of(0_u32..100_000),
        priority in prop::option::of(-1000_i32..=1000),
        order in Just([0, 1, 2]).prop_shuffle(),
        point in any::<bool>(),
    ) -> String {
        let mut clauses = [
            until.map(|until| format!(" UNTIL {until}")),
            cooldown.map(|cooldown| format!(" cooldown {cooldown}ms")),
            priority.map(|priority| format!(" Priority {priority}")),
        ];
        let clauses: String = order.iter().filter_map(|index| clauses[*index].take()).collect();
        format!("IF {when} THEN {}{clauses}{}", then.join(", "), if point { "." } else { "" })
    }
}
