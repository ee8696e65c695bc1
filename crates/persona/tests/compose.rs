//! Layers laid over each other: what comes out, where each value is from, and what is refused.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests read their fixtures; the crate itself reads no file"
)]
#![allow(clippy::panic, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::Path;

use persona::{
    Effective, Format, Kind, Layer, LayerKind, Problems, SourceText, clash, compose, difference,
    header, load, origin_of, part,
};
use proptest::prelude::*;

fn source<'a>(name: &'a str, text: &'a str) -> SourceText<'a> {
    SourceText {
        name,
        text: text.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    }
}

fn layer<'a>(kind: LayerKind, name: &'a str, text: &'a str) -> Layer<'a> {
    Layer {
        source: source(name, text),
        tag: (kind == LayerKind::Override).then_some("prod"),
        kind,
    }
}

fn composed(layers: &[(LayerKind, &str, &str)]) -> Result<Effective, Problems> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, name, text)| layer(*kind, name, text))
        .collect();
    compose(&layers)
}

const BASE: &str = "\
name: web-base
default_persona: true
description: what all have
base_configuration:
  cpu: {min: 2, max: 4}
  memory: {min: 1 GiB, max: 8 GiB}
environment_variables: {TIER: base, ZONE: eu}
adaptation_rules:
  - {name: grow, when: cpu.utilization > 80%, then: add 1 vcpus, priority: 1}
";
const WEB: &str = "\
name: web
extends: web-base
base_configuration:
  cpu: {max: 8}
environment_variables: {TIER: front}
adaptation_rules:
  - {name: grow, priority: 7}
  - IF cpu.utilization < 10% FOR 10m THEN remove 1 vcpus
";
const PROD: &str = "\
environment_variables:
  ZONE:
  STAGE: \"prod: 1\"
base_configuration: {memory: {max: 16 GiB}}
";

#[test]
fn the_upper_layer_wins_value_by_value_and_each_knows_where_it_is_from() {
    use LayerKind::{Base, Override, Persona};
    let effective = composed(&[
        (Base, "web-base@1", BASE),
        (Persona, "web@3", WEB),
        (Override, "override", PROD),
    ])
    .unwrap();
    let persona = &effective.persona;
    let cpu = persona.base.cpu.unwrap();
    assert_eq!((cpu.min, cpu.max), (2, Some(8)));
    let memory = persona.base.memory.unwrap();
    assert_eq!(memory.max.unwrap().to_string(), "16 GiB");
    assert_eq!(persona.name.as_str(), "web");
    assert_eq!(persona.description.as_deref(), Some("what all have"));
    assert!(!persona.default_persona, "it is handed on");
    assert!(persona.extends.is_empty());
    let rules: Vec<_> = persona
        .rules
        .iter()
        .map(|r| (r.name.as_str(), r.priority))
        .collect();
    assert_eq!(rules, [("grow", 7), ("rule-2", 0)]);
    let environment: Vec<_> = persona.environment.keys().collect();
    assert_eq!(
        environment,
        ["STAGE", "TIER"],
        "a key without a value takes ZONE away"
    );
    for (path, text, origin) in [
        ("name", "web", "web@3:1"),
        ("description", "what all have", "web-base@1:3"),
        ("base_configuration.cpu.min", "2", "web-base@1:5"),
        ("base_configuration.cpu.max", "8", "web@3:4"),
        (
            "base_configuration.memory.max",
            "16 GiB",
            "override:4 (tag prod)",
        ),
        (
            "environment_variables.STAGE",
            "prod: 1",
            "override:3 (tag prod)",
        ),
        (
            "adaptation_rules[grow].when",
            "cpu.utilization > 80%",
            "web-base@1:9",
        ),
        ("adaptation_rules[grow].priority", "7", "web@3:7"),
        (
            "adaptation_rules[1]",
            "IF cpu.utilization < 10% FOR 10m THEN remove 1 vcpus",
            "web@3:8",
        ),
    ] {
        let value = effective.values.iter().find(|value| value.path == path);
        let value = value.unwrap_or_else(|| panic!("no {path} in {:#?}", effective.values));
        assert_eq!(
            (value.text.as_str(), value.origin.to_string().as_str()),
            (text, origin),
            "{path}"
        );
        assert_eq!(origin_of(&effective.values, path), Some(&value.origin));
    }
    assert_eq!(
        origin_of(&effective.values, "base_configuration.cpu")
            .unwrap()
            .document,
        "web-base@1"
    );
    assert_eq!(
        origin_of(&effective.values, "environment_variables.ZONE"),
        None
    );
}

#[test]
fn the_effective_document_is_yaml_that_loads_to_the_same_persona() {
    use LayerKind::{Base, Override, Persona};
    let scripts = "pre_activation_script: |\n  #!/bin/sh\n  # a comment of the script\n  test -d /srv\nenvironment_variables: {A: 'yes', B: '#', C: \"a: b\"}\n";
    let effective = composed(&[
        (Base, "web-base@1", BASE),
        (Persona, "web@3", WEB),
        (Override, "override", PROD),
        (Override, "override", scripts),
    ])
    .unwrap();
    let again = load(&source("effective", &effective.document)).unwrap();
    assert_eq!(
        again.persona.digest, effective.persona.digest,
        "{}",
        effective.document
    );
    for line in [
        "    max: 8 # web@3:4",
        "name: web # web@3:1",
        "  STAGE: \"prod: 1\" # override:3 (tag prod)",
    ] {
        assert!(
            effective.document.lines().any(|shown| shown == line),
            "{line:?} in\n{}",
            effective.document
        );
    }
}

#[test]
fn what_layers_contradict_is_said_with_the_document_of_each_place() {
    use LayerKind::{Base, Override, Persona};
    let small = "name: web\nbase_configuration:\n  cpu: {max: 1}\n";
    let problems = composed(&[(Base, "web-base@1", BASE), (Persona, "web@2", small)]).unwrap_err();
    let text = problems.to_string();
    assert_eq!(problems.len(), 1, "{text}");
    assert_eq!(problems.iter().next().unwrap().kind, Kind::Contradiction);
    assert!(text.contains("--> web-base@1:5:"), "{text}");
    assert!(text.contains("web@2:3"), "{text}");
    let wrong =
        "base_configuration: {cpu: {mx: 3}}\nadaptation_rules: [IF cpu.load > 5 THEN sing]\n";
    let problems = composed(&[
        (Persona, "web@2", "name: web"),
        (Override, "override", wrong),
    ])
    .unwrap_err();
    assert!(
        problems.len() >= 2 && problems.iter().all(|problem| problem.document.is_some()),
        "{problems}"
    );
}

#[test]
fn a_fragment_says_nothing_of_name_bases_and_default() {
    let text = "name: x\nextends: [y]\ndefault_persona: true\ndescription: z\n";
    for kind in [LayerKind::Override, LayerKind::Customisation] {
        let problems = composed(&[
            (LayerKind::Persona, "web@1", "name: web"),
            (kind, "fragment", text),
        ])
        .unwrap_err();
        let lines: Vec<_> = problems.iter().map(|problem| problem.span.line).collect();
        assert_eq!(lines, [1, 2, 3], "{problems}");
        assert!(problems.iter().all(|problem| problem.help.is_some()));
        let alone = part(&layer(kind, "fragment", text)).unwrap_err();
        assert_eq!(alone.len(), 3);
    }
}

#[test]
fn a_layer_by_itself_may_leave_out_what_is_below_it_and_nothing_else() {
    let check = |text: &str, expected: usize| {
        let problems = part(&layer(LayerKind::Override, "o", text))
            .map_or_else(|problems| problems.len(), |_| 0);
        assert_eq!(problems, expected, "{text}");
    };
    check("adaptation_rules: [{name: grow, priority: 5}]", 0);
    check("post_activation_script: {timeout: 5s}", 0);
    check("base_configuration: {cpu: {max: ~}}", 0);
    check("base_configuration: {cpu: {min: 5, max: 4}}", 1);
    check("base_configuration: {cpus: 3}\nrols: []\n", 2);
    check("[1, 2]", 1);
    let digest = |text: &str| part(&layer(LayerKind::Override, "o", text)).unwrap().digest;
    let one = digest("base_configuration: {cpu: {min: 1, max: 4}}\ndescription: 'x'");
    assert_eq!(
        one,
        digest("Description: x\nBaseConfiguration:\n  cpu:\n    max: 4\n    min: 1\n")
    );
    assert_ne!(
        one,
        digest("description: x\nbase_configuration: {cpu: {min: 1, max: }}")
    );
}

#[test]
fn the_header_is_read_without_the_rest() {
    let check = |text: &str, expected: &str| {
        let shown = match header(&source("x", text)) {
            Ok(header) => {
                let bases: Vec<_> = header.extends.iter().map(ToString::to_string).collect();
                format!("{} <- {}", header.name, bases.join(" "))
            }
            Err(problems) => problems
                .iter()
                .map(|p| p.message.clone())
                .collect::<Vec<_>>()
                .join("; "),
        };
        assert_eq!(shown, expected, "{text}");
    };
    check("name: web", "web <- ");
    check("persona_Web:\n  Extends: base", "web <- base");
    check(
        "name: web\nextends: [Base, other@3]\nnonsense: 1",
        "web <- base other@3",
    );
    check(
        "name: web\nextends: [base@0, 'b c', base, base, web, [x]]",
        "`0` is no version; versions are numbered from 1; `b c` is no persona name; `base` is extended twice; \
         `web` extends itself; `extends` is a text, not a list",
    );
    check("name: web\nextends: base\nmetric_groups:\n", "web <- base");
    check("extends: base", "the persona has no name");
}

#[test]
fn layers_of_equal_rank_clash_where_they_set_one_value_differently() {
    let check = |one: &str, other: &str, expected: Option<&str>| {
        let (a, b) = (
            layer(LayerKind::Override, "a", one),
            layer(LayerKind::Override, "b", other),
        );
        let there = clash(&a, &b).map(|clash| clash.path);
        let back = clash(&b, &a).map(|clash| clash.path);
        assert_eq!(there.as_deref(), expected, "{one} | {other}");
        assert_eq!(there, back, "{one} | {other}");
    };
    let env = |value: &str| format!("environment_variables: {{A: {value}}}");
    check(&env("x"), &env("x"), None);
    check(&env("x"), &env("y"), Some("environment_variables.A"));
    check(&env("x"), "environment_variables: {B: y}", None);
    check(&env(""), &env("x"), Some("environment_variables.A"));
    check(
        "base_configuration: {memory: {max: 4 GiB}}",
        "BaseConfiguration: {memory: {max: 4096 MiB}}",
        None,
    );
    check(
        "base_configuration: {memory: 4 GiB}",
        "base_configuration: {memory: {max: 4 GiB}}",
        None,
    );
    check(
        "base_configuration: {memory: 4 GiB}",
        "base_configuration: {memory: {initial: 2 GiB}}",
        Some("base_configuration.memory.initial"),
    );
    let rule = |name: &str, priority: u8| {
        format!("adaptation_rules: [{{name: {name}, priority: {priority}}}]")
    };
    check(&rule("a", 1), &rule("b", 2), None);
    check(
        &rule("a", 1),
        &rule("a", 2),
        Some("adaptation_rules[a].priority"),
    );
    check(
        "restricted_commands: [nc]",
        "restricted_commands: [nmap]",
        None,
    );
    check(
        "allowed_switches: [a]",
        "allowed_switches: [b]",
        Some("allowed_switches"),
    );
}

#[test]
fn two_personas_differ_in_what_they_mean_and_in_nothing_else() {
    let one = "name: web\nbase_configuration: {cpu: {min: 1, max: 4}, memory: {max: 4 GiB}}\nenvironment_variables: {A: x}\n\
        adaptation_rules:\n  - {name: up, when: cpu.utilization > 80%, then: add 1 vcpus}\n  - IF cpu.utilization < 5% THEN remove 1 vcpus\n";
    let restyled = "# a comment\nEnvironmentVariables:\n  A: 'x'\nadaptation_rules:\n  - name: up\n    when: cpu.utilization > 80%\n    then: [add 1 vcpus]\n\
        \x20 - if CPU.utilization < 5% then remove 1 vcpus\nbase_configuration:\n  memory: {max: 4096 MiB}\n  cpu: {max: 4, min: 1, share: 1000}\nname: web\n";
    let other = "name: web\nbase_configuration: {cpu: {min: 1, max: 8}, memory: {max: 4 GiB, min: 1 GiB}}\nenvironment_variables: {B: y}\n\
        adaptation_rules:\n  - IF cpu.utilization < 5% THEN remove 1 vcpus\n  - {name: up, when: cpu.utilization > 90%, then: add 1 vcpus}\n";
    let persona = |text: &str| load(&source("x", text)).unwrap().persona;
    let check = |one: &str, other: &str, expected: &[&str]| {
        let shown: Vec<_> = difference(&persona(one), &persona(other))
            .into_iter()
            .map(|difference| {
                format!(
                    "{}: {} -> {}",
                    difference.path,
                    difference.before.unwrap_or_default(),
                    difference.after.unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(shown, expected);
    };
    check(one, restyled, &[]);
    check(one, one, &[]);
    check(
        one,
        other,
        &[
            "base_configuration.cpu.max: 4 -> 8",
            "base_configuration.memory.min: 256 MiB -> 1 GiB",
            "base_configuration.memory.reservation: 256 MiB -> 1 GiB",
            "environment_variables.A: x -> ",
            "environment_variables.B:  -> y",
            "rules[rule-1]:  -> IF cpu.utilization < 5% THEN remove 1 vcpus COOLDOWN 1m PRIORITY 0",
            "rules[rule-2]: IF cpu.utilization < 5% THEN remove 1 vcpus COOLDOWN 1m PRIORITY 0 -> ",
            "rules[up]: IF cpu.utilization > 80% THEN add 1 vcpus COOLDOWN 1m PRIORITY 0 -> IF cpu.utilization > 90% THEN add 1 vcpus COOLDOWN 1m PRIORITY 0",
        ],
    );
    let named = |first: &str, second: &str| {
        format!(
            "name: web\nadaptation_rules:\n  - {{name: {first}, when: cpu.utilization > 80%, then: add 1 vcpus}}\n  - {{name: {second}, when: cpu.utilization > 80%, then: add 1 vcpus}}\n"
        )
    };
    check(&named("a", "b"), &named("b", "a"), &["rules: a, b -> b, a"]);
}

fn same_as_loaded(name: &str, text: &[u8], format: Format) {
    let source = SourceText {
        name,
        text,
        format,
        persona_name: Some("given"),
    };
    let whole = compose(&[Layer {
        source,
        tag: None,
        kind: LayerKind::Persona,
    }]);
    match (load(&source), whole) {
        (Ok(loaded), Ok(effective)) => {
            assert_eq!(effective.persona, loaded.persona, "{name}");
            assert_eq!(effective.warnings, loaded.warnings, "{name}");
            let printed = SourceText {
                name,
                text: effective.document.as_bytes(),
                format: Format::Yaml,
                persona_name: Some("given"),
            };
            let again = load(&printed).unwrap_or_else(|problems| panic!("{problems}"));
            // A secret is not in what is shown.
            if !effective.document.contains("(secret)") {
                assert_eq!(
                    again.persona.digest, loaded.persona.digest,
                    "{}",
                    effective.document
                );
            }
        }
        (Err(loaded), Err(composed)) => assert_eq!(loaded, composed, "{name}"),
        (loaded, composed) => panic!("{name}: {loaded:?} {composed:?}"),
    }
}

#[test]
fn a_persona_that_builds_on_nothing_composes_to_what_it_loads_to() {
    for folder in ["tests/accept", "tests/reject", "tests/seeds"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for file in fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            let format = match file.extension().and_then(|ending| ending.to_str()) {
                Some("yaml") => Format::Yaml,
                Some("json") => Format::Json,
                Some("toml") => Format::Toml,
                _ => continue,
            };
            let text = fs::read(&file).unwrap();
            let lowered = String::from_utf8_lossy(&text).to_ascii_lowercase();
            if lowered.contains("extends") {
                continue;
            }
            same_as_loaded(&file.display().to_string(), &text, format);
        }
    }
}

proptest! {
    #[test]
    fn any_text_composes_to_what_it_loads_to(
        min in 0..9_u32, max in 0..9_u32, variables in proptest::collection::btree_map("[A-Z]{1,3}", "[a-z#:' ]{0,8}", 0..4),
        name in "[a-z]{0,4}",
    ) {
        let environment: Vec<_> = variables.iter().map(|(k, v)| format!("  {k}: {}\n", serde_json::Value::from(v.as_str()))).collect();
        let environment = if environment.is_empty() { String::new() } else { format!("environment_variables:\n{}", environment.concat()) };
        let text = format!("name: {name}\nbase_configuration: {{cpu: {{min: {min}, max: {max}}}}}\n{environment}");
        same_as_loaded("generated", text.as_bytes(), Format::Yaml);
    }

    #[test]
    fn overrides_that_do_not_clash_come_to_the_same_in_either_order(
        one in fragment(), other in fragment(),
    ) {
        let persona = layer(LayerKind::Persona, "web@1", "name: web");
        let (a, b) = (layer(LayerKind::Override, "a", &one), layer(LayerKind::Override, "b", &other));
        prop_assume!(clash(&a, &b).is_none());
        let there = compose(&[persona, a, b]).unwrap();
        let back = compose(&[persona, b, a]).unwrap();
        prop_assert_eq!(there.persona.digest, back.persona.digest);
    }
}

fn fragment() -> impl Strategy<Value = String> {
    let environment = proptest::collection::btree_map("[A-C]", "(x|y|)", 0..3);
    let max = proptest::option::of(2..4_u32);
    (environment, max).prop_map(|(environment, max)| {
        let pairs: Vec<_> = environment
            .iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect();
        let max = max.map_or(String::new(), |max| {
            format!("base_configuration: {{cpu: {{max: {max}}}}}\n")
        });
        format!(
            "description: same\nenvironment_variables: {{{}}}\n{max}",
            pairs.join(", ")
        )
    })
}
