//! What holds for every document that the table of the language allows, and the canonical forms that people see.

use proptest::prelude::*;

use super::{canonical, sample};
use crate::document::{Format, SourceText, parse, print, print_json};
use crate::model::Persona;
use crate::read::{Loaded, load};

fn source(text: &str, format: Format) -> SourceText<'_> {
    SourceText {
        name: "test",
        text: text.as_bytes(),
        format,
        persona_name: None,
    }
}

/// The document in canonical form, as YAML and as JSON.
fn printed(text: &str, format: Format) -> (String, String) {
    let mut problems = Vec::new();
    let (text, tree) = parse(&source(text, format), &mut problems);
    let (tree, found) = canonical(&tree.unwrap(), &text);
    assert!(
        problems.is_empty() && found.is_empty(),
        "{problems:?} {found:?}"
    );
    (print(&tree, &text, &[]).text, print_json(&tree))
}

fn read(text: &str, format: Format) -> Loaded {
    load(&source(text, format)).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn check(text: &str, expected: &str) {
    assert_eq!(printed(text, Format::Yaml).0, expected, "{text}");
}

#[test]
fn a_document_has_one_canonical_form() {
    check(
        "persona_Web:\n  BaseConfiguration: {CPU: 8 cores, Memory: 32 GB}",
        "name: web\nbase_configuration:\n  cpu:\n    initial: 8\n  memory:\n    initial: 32 GB\n",
    );
    check(
        "SoftwareStack: [Nginx (latest version), Redis (caching), \"a (1.0)\"]",
        "software_stack:\n  - name: nginx\n    version: latest\n  - name: redis\n    purpose: caching\n  - name: a\n    version: 1.0\n",
    );
    check(
        "TelemetryTriggers: [{Condition: CPU Load > 5%, Action: isolate}]",
        "telemetry_triggers:\n  - when: CPU Load > 5%\n    then: [isolate]\n",
    );
    check(
        "priority metrics: [CPU utilization, {metric: Cost, weight: 2}]",
        "priority_metrics:\n  cpu.utilization: 1\n  cost: 2\n",
    );
    check(
        "pre-activation script: \"true\"\nextends: Base@3",
        "pre_activation_script:\n  text: \"true\"\nextends: [base@3]\n",
    );
    check(
        "ExternalDataSources: [{URL: https://A.example/x}]",
        "external_data_sources:\n  - name: a.example\n    url: https://A.example/x\n",
    );
    check(
        "behavioral_settings: {log level: WARN, auto_update_frequency: 24h}",
        "behavioral_settings:\n  logging_level: warning\n  auto_update_frequency: daily\n",
    );
}

proptest! {
    #[test]
    fn what_the_table_allows_loads_and_its_canonical_form_means_the_same(
        document in sample::document(),
    ) {
        let given = serde_json::to_string(&document).unwrap();
        let loaded = read(&given, Format::Json).persona;
        let (yaml, json) = printed(&given, Format::Json);
        for (text, format) in [(&yaml, Format::Yaml), (&json, Format::Json)] {
            let again = read(text, format).persona;
            prop_assert_eq!(&again.digest, &loaded.digest, "{}\n{}", given, text);
            // And it is in canonical form already.
            prop_assert_eq!(&printed(text, format), &(yaml.clone(), json.clone()));
        }
    }

    #[test]
    fn the_order_of_keys_means_nothing_and_every_part_counts(
        document in sample::document(),
        left_out in any::<prop::sample::Index>(),
    ) {
        let loaded = read(&document.to_string(), Format::Json).persona;
        let turned = read(&reversed(&document), Format::Json).persona;
        prop_assert_eq!(&turned.digest, &loaded.digest, "{}", document);
        // Two documents have the same digest exactly where they mean the same.
        let mut less = document.clone();
        let keys = less.as_object_mut().unwrap();
        let key = keys.keys().nth(left_out.index(keys.len())).unwrap().clone();
        keys.remove(&key);
        if let Ok(other) = load(&SourceText { persona_name: Some("made-up"), ..source(&less.to_string(), Format::Json) }) {
            let same = meaning(&loaded) == meaning(&other.persona);
            prop_assert_eq!(same, other.persona.digest == loaded.digest, "{} without {}", document, key);
        }
    }
}

/// A document with the keys of every map from last to first.
fn reversed(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(map) => {
            let entries = map.iter().rev();
            let entries: Vec<String> = entries
                .map(|(key, value)| format!("{}:{}", serde_json::json!(key), reversed(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        serde_json::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(reversed).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}

/// All that a persona says, without its digest and the lines of its rules.
fn meaning(persona: &Persona) -> serde_json::Value {
    let mut value = serde_json::to_value(persona).unwrap();
    value["digest"].take();
    for rule in value["rules"].as_array_mut().unwrap() {
        rule["line"].take();
    }
    value
}
