//! Canonical form: what a document means stays, comments stay, and what is canonical is left as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(
    clippy::disallowed_methods,
    reason = "the fixtures of this crate are files"
)]

use std::fs;
use std::path::{Path, PathBuf};

use persona::{Format, Layer, LayerKind, Reformatted, SourceText, load, part, reformat};

fn source<'a>(name: &'a str, text: &'a str, format: Format) -> SourceText<'a> {
    SourceText {
        name,
        text: text.as_bytes(),
        format,
        persona_name: Some("given"),
    }
}

fn canonical(text: &str, format: Format) -> Reformatted {
    reformat(&source("x", text, format)).unwrap()
}

fn check(given: &str, expected: &str) {
    assert_eq!(canonical(given, Format::Yaml).text, expected, "{given}");
    assert_eq!(
        canonical(expected, Format::Yaml).text,
        expected,
        "canonical already"
    );
}

#[test]
fn keys_rules_and_spoken_forms_get_their_one_spelling() {
    check(
        "BaseConfiguration: {CPU: 8 cores}\nSoftwareStack: [Nginx (latest version)]\n",
        "base_configuration:\n  cpu:\n    initial: 8\nsoftware_stack:\n  - name: nginx\n    version: latest\n",
    );
    check(
        "telemetry_triggers:\n- Condition: CPU Load > 80% for 5 minutes\n  Action: Scale up to 16 cores\n",
        "telemetry_triggers:\n  - when: cpu.utilization > 80% FOR 5m\n    then: [set vcpus to 16]\n",
    );
    check(
        "adaptation_rules:\n- if CPU Load > 80% then increase allocated cores priority 2 until CPU Load < 0.5 %.\n",
        "adaptation_rules:\n  - IF cpu.utilization > 80% THEN add 1 vcpus UNTIL cpu.utilization < 0.5% PRIORITY 2\n",
    );
}

#[test]
fn comments_stay_with_what_they_stood_with() {
    check(
        "# The front end.\nname: web   # of the shop\nBaseConfiguration:\n  # Measured in spring.\n  CPU: 4\n# The end.\n",
        "# The front end.\nname: web # of the shop\nbase_configuration:\n  # Measured in spring.\n  cpu:\n    initial: 4\n# The end.\n",
    );
}

#[test]
fn json_stays_json_and_toml_becomes_yaml() {
    let json = canonical(
        "{\"BaseConfiguration\": {\"CPU\": \"8 cores\"}}",
        Format::Json,
    );
    assert_eq!(
        json.text,
        "{\n  \"base_configuration\": {\n    \"cpu\": {\n      \"initial\": \"8\"\n    }\n  }\n}\n"
    );
    let toml = canonical(
        "# Of the shop.\nname = \"web\"\n[base_configuration]\ncpu = 8\n",
        Format::Toml,
    );
    assert_eq!(
        toml.text,
        "# Of the shop.\nname: web\nbase_configuration:\n  cpu:\n    initial: 8\n"
    );
}

#[test]
fn a_document_with_errors_is_not_rewritten() {
    let problems = reformat(&source("x", "nam: x\n", Format::Yaml)).unwrap_err();
    assert!(problems.has_errors());
}

fn documents() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["tests/accept", "tests/seeds", "../../examples/personas"]
        .iter()
        .flat_map(|folder| fs::read_dir(here.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| Format::of_file_name(&path.to_string_lossy()).is_some())
        .collect()
}

#[test]
fn every_fixture_and_example_means_the_same_in_canonical_form() {
    let documents = documents();
    assert!(documents.len() > 20, "{documents:?}");
    for path in documents {
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let format = Format::of_file_name(&name).unwrap();
        let Reformatted { text: once, lost } = reformat(&source(&name, &text, format)).unwrap();
        assert_eq!(lost, Vec::<String>::new(), "{name}");
        let format = match format {
            Format::Toml => Format::Yaml,
            other => other,
        };
        // The digest of what builds on others is that of what it says itself.
        let digest = |text: &str, format| {
            let source = source(&name, text, format);
            let layer = Layer {
                source,
                tag: None,
                kind: LayerKind::Persona,
            };
            let loaded = load(&source).map(|loaded| loaded.persona.digest);
            loaded
                .or_else(|_| part(&layer).map(|part| part.digest))
                .unwrap()
        };
        let original = Format::of_file_name(&name).unwrap();
        assert_eq!(
            digest(&once, format),
            digest(&text, original),
            "{name}:\n{once}"
        );
        let twice = reformat(&source(&name, &once, format)).unwrap();
        assert_eq!(twice.text, once, "{name}");
    }
}
