//! Documents as their authors write them: which are accepted and what comes out, which are refused and with which
//! words. Goldens stand beside the documents; setting `UPDATE_GOLDENS` writes them anew.
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
use std::path::{Path, PathBuf};

use persona::{Format, Loaded, Problems, SourceText, Style, load};

/// Documents of a folder, in order of name.
fn documents(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        path.extension()
            .is_some_and(|ext| ext == "yaml" || ext == "json" || ext == "toml")
    });
    found.sort();
    assert!(!found.is_empty(), "{} holds no documents", folder.display());
    found
}

fn load_file(path: &Path) -> Result<Loaded, Problems> {
    let text = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let format = Format::of_file_name(name).unwrap();
    load(&SourceText {
        name,
        text: &text,
        format,
        persona_name: None,
    })
}

/// Compares with the file beside the document, or writes it where that is asked for.
fn check_golden(document: &Path, found: &str, extension: &str) {
    let golden = document.with_extension(extension);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&golden, found).unwrap();
    }
    let expected =
        fs::read_to_string(&golden).unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
    assert_eq!(found, expected, "{}", document.display());
}

#[test]
fn refused_documents_say_all_that_is_wrong_with_them() {
    for path in documents("tests/reject") {
        let problems = load_file(&path).expect_err(&format!("{} was accepted", path.display()));
        assert!(problems.has_errors());
        check_golden(&path, &problems.to_string(), "expected");
    }
}

#[test]
fn accepted_documents_mean_what_stands_beside_them() {
    for path in documents("tests/accept") {
        let loaded = load_file(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let mut found = serde_json::to_string_pretty(&loaded.persona).unwrap();
        found.push('\n');
        found.push_str(&loaded.warnings.to_string());
        check_golden(&path, &found, "expected");
    }
}

fn load_text(text: &[u8], persona_name: Option<&str>) -> Result<Loaded, Problems> {
    load(&SourceText {
        name: "test.yaml",
        text,
        format: Format::Yaml,
        persona_name,
    })
}

/// A page of the documentation.
fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn documents_in_the_documentation_load_as_printed() {
    for name in ["persona-format.md", "rules.md"] {
        let text = page(name);
        let blocks: Vec<_> = text
            .split("```yaml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .collect();
        assert!(blocks.len() >= 2, "{name} shows no documents");
        for block in blocks {
            let loaded = load_text(block.as_bytes(), None)
                .unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
            assert!(loaded.warnings.is_empty(), "{name}:\n{}", loaded.warnings);
        }
    }
}

#[test]
fn the_documents_own_name_comes_before_the_root_and_the_command_line() {
    let name = |text: &str, given| {
        load_text(text.as_bytes(), given).map(|loaded| loaded.persona.name.to_string())
    };
    let error = |text: &str, given| name(text, given).unwrap_err().problems[0].message.clone();
    assert_eq!(name("persona_a: {name: B}", Some("c")).unwrap(), "b");
    assert_eq!(name("persona_A: {description: x}", Some("c")).unwrap(), "a");
    assert_eq!(name("description: x", Some("C")).unwrap(), "c");
    assert_eq!(error("description: x", None), "the persona has no name");
    assert_eq!(
        error("description: x", Some("../x")),
        "`../x` is no persona name"
    );
    assert_eq!(
        error("persona_a: {}\nname: b", None),
        "a persona has no key `persona_a`"
    );
}

#[test]
fn what_is_too_large_is_refused_by_its_limit() {
    let message = |text: String| {
        load_text(text.as_bytes(), None).unwrap_err().problems[0]
            .message
            .clone()
    };
    let comment = "#".repeat(256 * 1024);
    assert_eq!(
        message(format!("name: x\n{comment}")),
        "the document has 262152 bytes; at most 262144 are read"
    );
    let rules = "  - IF guest.load > 1 THEN notify \"x\"\n".repeat(257);
    assert_eq!(
        message(format!("name: x\nadaptation_rules:\n{rules}")),
        "a persona has at most 256 rules"
    );
    let script = format!(
        "name: x\npre_activation_script: {}",
        "x".repeat(64 * 1024 + 1)
    );
    assert_eq!(
        message(script),
        "`pre_activation_script` has 65537 bytes; at most 65536 are read"
    );
    // Two hundred thousand bytes of text, thousands of times over.
    let text = "x".repeat(200_000);
    let aliases = "*a,".repeat(2000);
    assert_eq!(
        message(format!("name: &a {text}\ndescription: [{aliases}]")),
        "the document has more than 20000 values, counting what aliases stand for"
    );
}

#[test]
fn problems_beyond_the_most_that_anyone_reads_are_counted() {
    let text: String = (0..250).map(|n| format!("key{n}: 1\n")).collect();
    let problems = load_text(text.as_bytes(), Some("x")).unwrap_err();
    assert_eq!((problems.len(), problems.left_out), (Problems::MOST, 150));
    assert!(problems.to_string().ends_with("and 150 more problems\n"));
}

#[test]
fn problems_are_values_for_programs_and_colours_for_terminals() {
    let problems = load_text(b"name: x\nnmae: y\n", None).unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "source": "test.yaml",
            "left_out": 0,
            "problems": [{
                "kind": "unknown-key",
                "severity": "error",
                "message": "a persona has no key `nmae`",
                "span": {"line": 2, "column": 1, "length": 4},
                "help": "did you mean `name`?",
                "source_line": "nmae: y",
                "source_column": 1,
            }],
        })
    );
    assert!(!problems.render(Style::Plain).contains('\u{1b}'));
    assert!(
        problems
            .render(Style::Colour)
            .contains("\u{1b}[1;31merror\u{1b}[0m")
    );
}

#[test]
fn hidden_characters_of_a_document_do_not_reach_the_terminal() {
    let text = "name: x\n\"a\\e[31m\u{202e}b\": y\n";
    let problems = load_text(text.as_bytes(), None).unwrap_err().to_string();
    assert!(
        !problems.contains('\u{1b}') && !problems.contains('\u{202e}'),
        "{problems}"
    );
}

#[test]
fn the_place_in_a_very_long_line_is_shown_with_what_stands_around_it() {
    let text = format!(
        "{{\"description\": \"{}\", \"nmae\": \"x\", \"functional_role\": \"{}\"}}",
        "é".repeat(2000),
        "y".repeat(2000)
    );
    let problems = load(&SourceText {
        name: "long.json",
        text: text.as_bytes(),
        format: Format::Json,
        persona_name: Some("x"),
    })
    .unwrap_err();
    let printed = problems.to_string();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[1], "  --> long.json:1:2021");
    let column = lines[4].chars().position(|c| c == '^').unwrap();
    let marked: String = lines[3].chars().skip(column).take(6).collect();
    assert_eq!(marked, "\"nmae\"");
    assert_eq!(lines[4].matches('^').count(), 6);
}

#[test]
fn shapes_made_to_exhaust_a_parser_are_refused() {
    let message = |text: &str| {
        let problems = load_text(text.as_bytes(), Some("x")).unwrap_err();
        assert!(problems.len() <= Problems::MOST);
        problems.problems[0].message.clone()
    };
    let deep = "lists and maps nest deeper than 32 levels";
    assert_eq!(message(&"- ".repeat(130_000)), deep);
    assert_eq!(message(&"? ".repeat(130_000)), deep);
    assert_eq!(
        message(&format!("{}{}", "[".repeat(40), "]".repeat(40))),
        deep
    );
    assert_eq!(
        message(&format!("{}1{}", "{a: ".repeat(40), "}".repeat(40))),
        deep
    );
    assert_eq!(message(&"\n".repeat(262_144)), "the document is empty");
    assert_eq!(
        message(&"'".repeat(262_144)),
        "a persona is a map of keys, not a single value"
    );
    let one_line: String = (0..9000).map(|n| format!("\"key {n}\": 1, ")).collect();
    assert_eq!(
        message(&format!("{{{one_line}}}")),
        "a persona has no key `key 0`"
    );
    let misspelt = "cpu.utilizatiom > 5 AND ".repeat(160);
    let rules = format!("  - IF {misspelt} guest.load > 1 THEN x\n").repeat(60);
    assert_eq!(
        message(&format!("adaptation_rules:\n{rules}")),
        "there is no metric `cpu.utilizatiom`"
    );
}
