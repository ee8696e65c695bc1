//! The sections of the documentation that are made from the tables: keys, metrics, events, functions, actions, units. What
//! stands around them is written by hand, in `docs/`; a test holds the pages to what comes out here.

use std::collections::BTreeMap;

use super::{
    APPLICATION, Absent, BASE, BEHAVIOUR, COST, CPU_NEED, DISK, Effect, Key, LIFECYCLE, MEMORY,
    Names, OS, PACKAGE, POINT, ROOT, RULE, SCRIPT, SECURITY, SOURCE, Shape, TRUST, Table, Word,
};
use crate::model::{LearningDomain, PriorityMetrics};
use crate::quantity;
use crate::rule::{Action, Comparison, Function, Performed, phrases};
use crate::signal::{EventKind, Measured, Metric, Unit};

/// Each section by its name, in Markdown.
pub fn documentation() -> Vec<(&'static str, String)> {
    let mut sections: Vec<(&str, String)> = [
        ("keys", &ROOT),
        ("base_configuration", &BASE),
        ("bounds", &MEMORY),
        ("disk", &DISK),
        ("software_stack", &PACKAGE),
        ("trust_levels", &TRUST),
        ("rule", &RULE),
        ("external_data_sources", &SOURCE),
        ("script", &SCRIPT),
        ("os_settings", &OS),
        ("application_settings", &APPLICATION),
        ("behavioral_settings", &BEHAVIOUR),
        ("performance_profile", &POINT),
        ("need", &CPU_NEED),
        ("security_profile", &SECURITY),
        ("lifecycle_expectations", &LIFECYCLE),
        ("cost_tolerance", &COST),
    ]
    .into_iter()
    .map(|(name, keys)| (name, table(keys)))
    .collect();
    sections.extend([
        ("metric_groups", metric_groups()),
        ("learning_domains", learning_domains()),
        ("units", units()),
        ("metrics", metrics()),
        ("functions", functions()),
        ("events", events()),
        ("actions", actions()),
        ("comparisons", comparisons()),
    ]);
    sections
}

/// Rows of cells under their headings; a bar within a cell would end it.
fn rows(headings: &[&str], cells: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(headings.iter().map(|text| (*text).to_owned()).collect());
    text.push_str(&format!("|{}\n", "---|".repeat(headings.len())));
    for row in cells {
        text.push_str(&line(
            row.iter().map(|cell| cell.replace('|', "\\|")).collect(),
        ));
    }
    text
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn table(table: &Table) -> String {
    let effects = table
        .keys
        .iter()
        .any(|key| matches!(key.effect, Effect::Inactive(_)));
    let mut headings = vec!["key", "value", "meaning", "without it"];
    if effects {
        headings.push("in this version");
    }
    let row = |key: &Key| {
        let mut names = vec![code(key.name)];
        names.extend(key.aliases.iter().map(|alias| code(alias)));
        let absent = match key.absent {
            Absent::Refused => "required",
            Absent::Means(means) => means,
            Absent::Nothing => "",
        };
        let effect = match key.effect {
            Effect::Acts => "acts".to_owned(),
            Effect::Inactive(sentence) => format!("read and kept: {sentence}"),
        };
        let mut cells = vec![
            names.join(", "),
            form(&key.shape),
            key.meaning.to_owned(),
            absent.to_owned(),
        ];
        if effects {
            cells.push(effect);
        }
        cells
    };
    rows(&headings, table.keys.iter().map(row))
}

/// The shape of a value in a few words.
fn form(shape: &Shape) -> String {
    match shape {
        Shape::Text(most) => format!("text, at most {most} bytes"),
        Shape::PersonaName => "a persona's name".to_owned(),
        Shape::Reference => "`NAME` or `NAME@VERSION`".to_owned(),
        Shape::Label => "a name".to_owned(),
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Whole(least, most) => format!("a whole number, {least} to {most}"),
        Shape::Number => "a number".to_owned(),
        Shape::Quantity(units, example) => {
            let unit = units.last().map(ToString::to_string).unwrap_or_default();
            format!("{unit}, such as `{example}`")
        }
        Shape::Choice(words) => {
            let words: Vec<String> = words.iter().map(|Word(word, _)| code(word)).collect();
            words.join(", ")
        }
        Shape::Frequency => "`never`, `hourly`, `daily`, `weekly`, `monthly`".to_owned(),
        Shape::Decay => "a half-life such as `7d`, or `10%/day`".to_owned(),
        Shape::TimeOfDay => "`HH:MM`".to_owned(),
        Shape::Url => "a URL".to_owned(),
        Shape::Path => "an absolute path".to_owned(),
        Shape::Command => "a command's name".to_owned(),
        Shape::Metric => "a metric's name".to_owned(),
        Shape::Endpoint => "a connection such as `tcp/443 from 0.0.0.0/0`".to_owned(),
        Shape::Level => "`none`, `low`, `medium`, `high`, or 0 to 1".to_owned(),
        Shape::Version => "a version".to_owned(),
        Shape::Package => "a package's name".to_owned(),
        Shape::Action => "an action".to_owned(),
        Shape::Condition => "a condition".to_owned(),
        Shape::Rule => "a rule".to_owned(),
        Shape::Software => "a package".to_owned(),
        Shape::Source => "a source".to_owned(),
        Shape::Weights => "a map of names to weights, or a list".to_owned(),
        Shape::Variable => "text, or `{secret: …}`".to_owned(),
        Shape::List(inner, most) => format!("a list, each {}; at most {most}", form(inner)),
        Shape::Many(inner, most) => format!("{}; or a list of at most {most}", form(inner)),
        Shape::Map(_) => "keys, below".to_owned(),
        Shape::Spelt(single, _) => format!("keys, below; a single value is `{single}`"),
        Shape::Dictionary(names, inner, most) => {
            let names = match names {
                Names::Exact => "names as they are",
                Names::Labels => "names of your own",
            };
            format!("a map of {names}, each {}; at most {most}", form(inner))
        }
    }
}

fn metric_groups() -> String {
    let groups = PriorityMetrics::BUILT_IN.iter().map(|(name, metrics)| {
        let metrics: Vec<String> = metrics.iter().map(|metric| code(metric)).collect();
        vec![code(name), metrics.join(", ")]
    });
    rows(&["group", "metrics"], groups)
}

fn learning_domains() -> String {
    let words: Vec<String> = LearningDomain::ALL
        .iter()
        .map(|(_, words)| code(words))
        .collect();
    format!("{}.\n", words.join(", "))
}

fn units() -> String {
    let kinds = [
        Unit::Bytes,
        Unit::Duration,
        Unit::Percent,
        Unit::PerSecond,
        Unit::BitsPerSecond,
        Unit::BytesPerSecond,
        Unit::Count,
    ];
    let row = |unit: Unit| {
        let (exact, any_case) = quantity::spellings(unit);
        let list = |names: Vec<&str>| names.into_iter().map(code).collect::<Vec<_>>().join(" ");
        vec![unit.to_string(), list(exact), list(any_case)]
    };
    rows(
        &["kind", "exactly", "in any case"],
        kinds.into_iter().map(row),
    )
}

fn measured(measured: Measured) -> String {
    match measured {
        Measured::Here => "yes".to_owned(),
        Measured::NotYet(sentence) => format!("no: {sentence}"),
    }
}

fn metrics() -> String {
    let row = |metric: Metric| {
        let spoken: Vec<String> = metric.spoken().iter().map(|name| code(name)).collect();
        vec![
            code(metric.name()),
            metric.unit().to_string(),
            metric.best_source().to_string(),
            metric.describe().to_owned(),
            spoken.join(", "),
            measured(metric.measured()),
        ]
    };
    let headings = [
        "metric",
        "kind",
        "best source",
        "meaning",
        "spoken",
        "measured",
    ];
    rows(&headings, Metric::ALL.into_iter().map(row))
}

fn functions() -> String {
    let row = |function: Function| {
        let call = code(&format!("{}(METRIC, DURATION)", function.name()));
        vec![call, function.describe().to_owned()]
    };
    rows(&["function", "worth"], Function::ALL.into_iter().map(row))
}

fn events() -> String {
    let row = |kind: EventKind| {
        vec![
            code(&format!("EVENT({})", kind.name())),
            kind.describe().to_owned(),
            measured(kind.measured()),
        ]
    };
    rows(
        &["event", "happens when", "noticed"],
        EventKind::ALL.into_iter().map(row),
    )
}

/// Every written action with what is said instead of it.
fn actions() -> String {
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for phrase in phrases().filter(|phrase| phrase.pattern != phrase.means) {
        // A phrase may say a number without naming it: `increase cores` is one more.
        let (means, note) = match phrase.means {
            "add 1 vcpus" => ("add N vcpus", " (one)"),
            "remove 1 vcpus" => ("remove N vcpus", " (one)"),
            means => (means, ""),
        };
        said.entry(means)
            .or_default()
            .push(format!("{}{note}", code(phrase.pattern)));
    }
    let row = |pattern: &'static str| {
        let action = example(pattern);
        let (does, class, here) = match &action {
            Some(action) => (
                action.describe().to_owned(),
                action.class().to_string(),
                match action.performed() {
                    Performed::Here => "yes".to_owned(),
                    Performed::NotYet(sentence) => format!("no: {sentence}"),
                },
            ),
            None => Default::default(),
        };
        let said = said.get(pattern).map(|said| said.join(", "));
        vec![code(pattern), does, class, here, said.unwrap_or_default()]
    };
    let written = phrases().filter(|phrase| phrase.pattern == phrase.means);
    rows(
        &["action", "does", "trust class", "performed", "also said"],
        written.map(|phrase| row(phrase.pattern)),
    )
}

/// An action of a written pattern, with something in each of its slots.
fn example(pattern: &str) -> Option<Action> {
    let rate = if pattern.contains("network") {
        "1 Gbit/s"
    } else {
        "1 MiB/s"
    };
    let words = pattern.split(' ').map(|word| match word {
        "N" => "2",
        "SIZE" | "SIZE|P%" => "2 GiB",
        "P%" => "50%",
        "RATE" => rate,
        "KEY" => "os_settings.theme",
        "VALUE" => "dark",
        "HOST:PORT" => "host:80",
        "\"TEXT\"" => "\"text\"",
        word if word.chars().all(|c| c.is_ascii_uppercase()) => "name",
        word => word,
    });
    let text: Vec<&str> = words.collect();
    let found = crate::rule::parse::actions(&text.join(" "), &mut Vec::new())?;
    found.into_iter().next()
}

/// Comparisons in words, by their sign.
fn comparisons() -> String {
    let signs = [
        (">", Comparison::Greater),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        ("<=", Comparison::LessOrEqual),
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
    ];
    let row = |(sign, comparison): (&str, Comparison)| {
        let said: Vec<String> = crate::rule::spoken_comparisons()
            .filter(|(_, meant)| *meant == comparison)
            .map(|(said, _)| code(said))
            .collect();
        vec![code(sign), said.join(", ")]
    };
    rows(&["sign", "also said"], signs.into_iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spoken_phrase_stands_beside_the_action_that_it_means() {
        let table = actions();
        for phrase in phrases() {
            let shown = code(phrase.pattern).replace('|', "\\|");
            assert!(table.contains(&shown), "{}", phrase.pattern);
        }
    }

    #[test]
    fn every_written_action_is_told_with_an_example() {
        for phrase in phrases().filter(|phrase| phrase.pattern == phrase.means) {
            assert!(example(phrase.pattern).is_some(), "{}", phrase.pattern);
        }
    }

    #[test]
    fn the_rows_of_a_section_have_as_many_cells_as_its_heading() {
        for (name, text) in documentation() {
            let cells = |line: &str| line.replace("\\|", "").matches('|').count();
            let mut lines = text.lines().filter(|line| line.starts_with('|'));
            let Some(heading) = lines.next() else {
                continue;
            };
            for line in lines {
                assert_eq!(cells(line), cells(heading), "{name}: {line}");
            }
        }
    }
}
