//! The JSON Schema beside the readers: what they take is valid by it, and what they refuse for its shape is not.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests read their fixtures; the crate itself reads no file"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use persona::{Format, Kind, Layer, LayerKind, SourceText, header, load, part, schema};
use serde_json::Value;

static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&schema()).unwrap());

/// What the schema has against a document.
fn complaints(instance: &Value) -> Vec<String> {
    let say =
        |error: jsonschema::ValidationError<'_>| format!("{} at {}", error, error.instance_path());
    VALIDATOR.iter_errors(instance).map(say).collect()
}

/// A document as an editor has it; none where it does not parse.
fn instance(text: &[u8], format: Format) -> Option<Value> {
    let text = std::str::from_utf8(text).ok()?;
    match format {
        Format::Json => serde_json::from_str(text).ok(),
        Format::Toml => {
            let table: toml::Table = toml::from_str(text).ok()?;
            Some(json_of(toml::Value::Table(table)))
        }
        Format::Yaml => serde_saphyr::from_str(text).ok(),
    }
}

/// TOML as JSON; times are the text that stands there.
fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(items) => items.into_iter().map(json_of).collect(),
        toml::Value::Table(table) => {
            let pairs = table.into_iter().map(|(key, value)| (key, json_of(value)));
            Value::Object(pairs.collect())
        }
        other => serde_json::to_value(other).unwrap(),
    }
}

/// The documents of a folder, each with its instance and the kinds of its problems where it is refused.
fn documents(folder: &str) -> Vec<(String, Option<Value>, Vec<Kind>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let format = match path.extension().and_then(|ending| ending.to_str()) {
            Some("yaml") => Format::Yaml,
            Some("json") => Format::Json,
            Some("toml") => Format::Toml,
            _ => continue,
        };
        let text = fs::read(&path).unwrap();
        let name = path.display().to_string();
        let source = SourceText {
            name: &name,
            text: &text,
            format,
            persona_name: Some("x"),
        };
        // What builds on others is checked by itself here: it may leave out what they say.
        let extends = header(&source).is_ok_and(|header| !header.extends.is_empty());
        let read = if extends {
            let layer = Layer {
                source,
                tag: None,
                kind: LayerKind::Persona,
            };
            part(&layer).map(drop)
        } else {
            load(&source).map(drop)
        };
        let kinds = match read {
            Ok(()) => Vec::new(),
            Err(problems) => problems.iter().map(|problem| problem.kind).collect(),
        };
        found.push((name, instance(&text, format), kinds));
    }
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

#[test]
fn what_the_readers_take_is_valid_by_the_schema() {
    for folder in ["tests/accept", "tests/seeds", "../../examples/personas"] {
        for (name, instance, kinds) in documents(folder) {
            assert_eq!(kinds, [], "{name}");
            assert_eq!(complaints(&instance.unwrap()), [""; 0], "{name}");
        }
    }
}

#[test]
fn what_is_refused_for_its_shape_is_not_valid() {
    let mut refused = 0;
    for (name, instance, kinds) in documents("tests/reject") {
        let shape = [Kind::UnknownKey, Kind::WrongType];
        let Some(instance) = instance.filter(|_| kinds.iter().any(|kind| shape.contains(kind)))
        else {
            continue;
        };
        refused += 1;
        assert_ne!(complaints(&instance), [""; 0], "{name}");
    }
    assert!(refused >= 3, "{refused}");
    for (text, valid) in [
        ("{}", true),
        ("name: web", true),
        ("persona_web: {cpu: 4}", false),
        ("persona_web: {description: x}", true),
        ("persona_web: {}\nname: x", false),
        ("nmae: web", false),
        ("base_configuration: {cpu: {maxx: 4}}", false),
        ("base_configuration: {memory: 4}", false),
        ("base_configuration: {memory: 4 GiB, cpu: 2 cores}", true),
        ("base_configuration: {memory: 4 GB/s}", false),
        ("adaptation_rules: [{when: a > 1}]", false),
        (
            "adaptation_rules: [{Condition: a > 1, ACTION: isolate}]",
            true,
        ),
        ("adaptation_rules: IF a THEN b", false),
        ("default_persona: maybe", false),
        ("trust_levels: {notify: 2}", false),
        ("software_stack: [[nginx]]", false),
        ("priority_metrics: 3", false),
        ("external_data_sources: [{frequency: 5m}]", false),
        ("external_data_sources: [{url: 'ftp://x/y'}]", false),
        ("os_settings: {anything: [a, 1]}", true),
        ("os_settings: {anything: {a: 1}}", false),
        ("restricted_commands: [/bin/sh]", false),
        ("pre_activation_script: {timeout: 5s}", false),
        // What takes away what a persona below says is known where there is one.
        ("description:", true),
        ("extends: web\nenvironment_variables: {KEY: null}", true),
        (
            "extends: web\nadaptation_rules: [{name: grow, cooldown: 5m}]",
            true,
        ),
        ("extends: web\nadaptation_rules: [{cooldown: 5m}]", false),
    ] {
        let found = complaints(&instance(text.as_bytes(), Format::Yaml).unwrap());
        assert_eq!(found.is_empty(), valid, "{text}: {found:?}");
    }
}
