//! The examples in `examples/personas/`: each loads with exactly the warnings that say what this version does not act on,
//! stays calm on a calm machine, and has rules that fire for their cause and for no other. Traces are made here, by scene:
//! a calm time, then what a rule waits for, then calm again. Also `docs/personas.md`, which is made of the examples.
// What is missing ends the test, and seconds of a scene are exact in an f64.
#![allow(clippy::panic, clippy::unwrap_used)]

mod scenes;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::scenes::{AFTER, EXAMPLES, Example, LEAD, STEP, Scene};
use persona::{
    Bytes, Effective, Format, Kind, Layer, LayerKind, Persona, Severity, SourceText, compose,
};
use virt_persona::simulate::{Happening, Outcome, Setting, Sizes, Survey, replay};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/personas")
}

fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.yaml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(example: &Example) -> Effective {
    let own = text(example.name);
    let base = example.base.map(|base| (base, text(base)));
    let layer = |name, text, kind| Layer {
        source: SourceText {
            name,
            text,
            format: Format::Yaml,
            persona_name: None,
        },
        tag: None,
        kind,
    };
    let mut layers = Vec::new();
    if let Some((name, text)) = &base {
        layers.push(layer(name, text.as_bytes(), LayerKind::Base));
    }
    layers.push(layer(example.name, own.as_bytes(), LayerKind::Persona));
    compose(&layers).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A trace with one scene in it, or none.
fn trace(example: &Example, scene: Option<&Scene>) -> String {
    let mut text = "time,event".to_owned();
    for (column, _) in example.calm {
        let _ = write!(text, ",{column}");
    }
    text.push('\n');
    let (begins, lasts) = scene.map_or((LEAD * 8, 0), |scene| (LEAD, scene.lasts));
    let ends = begins + lasts;
    for at in (0..ends + AFTER).step_by(STEP) {
        let inside = scene.filter(|_| (begins..ends).contains(&at));
        let event = inside
            .filter(|_| at == begins)
            .map_or("", |scene| scene.event);
        let _ = write!(text, "{at},{event}");
        for (column, calm) in example.calm {
            let shown = inside.and_then(|scene| {
                let (_, from, to) = scene.shows.iter().find(|(name, ..)| name == column)?;
                Some(from + (to - from) * ((at - begins) as f64 / lasts as f64))
            });
            match shown.or(*calm) {
                Some(value) => {
                    let _ = write!(text, ",{value}");
                }
                None => text.push(','),
            }
        }
        text.push('\n');
    }
    text
}

fn play(persona: &Persona, start: (u32, u64), trace: &str) -> (Outcome, Vec<Happening>) {
    let survey = Survey::of(trace.as_bytes()).unwrap();
    let setting = Setting {
        vcpus: Some(start.0),
        memory: Some(Bytes::from_mib(start.1)),
        ..Setting::default()
    };
    let sizes = Sizes::of(persona, &setting).unwrap();
    let mut told = Vec::new();
    let outcome = replay(
        persona,
        sizes,
        &survey,
        trace.as_bytes(),
        &mut |happening| {
            told.push(happening);
            Ok::<(), Infallible>(())
        },
    )
    .unwrap();
    (outcome, told)
}

#[test]
fn every_example_has_a_place_here() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let here: BTreeSet<String> = EXAMPLES
        .iter()
        .map(|example| example.name.to_owned())
        .collect();
    assert_eq!(files, here);
}

#[test]
fn examples_load_and_are_warned_of_what_this_version_does_not_act_on_alone() {
    let mut found = String::new();
    for example in &EXAMPLES {
        let effective = load(example);
        assert_eq!(effective.persona.name.as_str(), example.name);
        let _ = writeln!(found, "{}", example.name);
        for problem in effective.warnings.iter() {
            assert_eq!(problem.severity, Severity::Warning);
            assert_eq!(problem.kind, Kind::NotYetSupported, "{problem:?}");
            let _ = writeln!(found, "  {}", problem.message);
        }
    }
    golden("tests/fixtures/personas.warnings", &found);
}

#[test]
fn a_calm_machine_is_left_alone() {
    for example in &EXAMPLES {
        let persona = load(example).persona;
        let (_, told) = play(&persona, example.start, &trace(example, None));
        assert!(told.is_empty(), "{}: {told:#?}", example.name);
    }
}

#[test]
fn every_rule_fires_for_its_cause_and_for_no_other() {
    let mut wrong = String::new();
    for example in &EXAMPLES {
        let persona = load(example).persona;
        let rules: BTreeSet<&str> = persona
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        let tried: BTreeSet<&str> = example.scenes.iter().map(|scene| scene.rule).collect();
        assert_eq!(rules, tried, "{}", example.name);
        for scene in example.scenes {
            let (outcome, told) = play(&persona, example.start, &trace(example, Some(scene)));
            let mut complain = |what: String| {
                let _ = writeln!(wrong, "{}, {}: {what}", example.name, scene.rule);
                for happening in told.iter().take(5) {
                    let _ = writeln!(wrong, "    {} {}", happening.at, happening.text);
                }
            };
            for rule in &outcome.rules {
                let expected = rule.name == scene.rule || scene.also.contains(&rule.name.as_str());
                if expected != (rule.fired > 0) {
                    complain(format!(
                        "{} fired {} times; {:?}",
                        rule.name, rule.fired, rule.why
                    ));
                }
                let first = rule
                    .first
                    .as_ref()
                    .map(|first| first.parse::<u64>().unwrap());
                let in_time = LEAD + scene.not_before..=LEAD + scene.lasts;
                if let Some(first) =
                    first.filter(|first| rule.name == scene.rule && !in_time.contains(first))
                {
                    complain(format!("first at {first} and not in {in_time:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The page's part that is made of the examples.
const BEGIN: &str = "<!-- generated: personas -->\n";
const END: &str = "<!-- end -->\n";

/// An example as prose and pieces: its comments, each with the lines that it explains.
fn explained(text: &str) -> String {
    let mut found = String::new();
    let mut piece: Vec<&str> = Vec::new();
    let close = |piece: &mut Vec<&str>, found: &mut String| {
        while piece.last().is_some_and(|line| line.is_empty()) {
            piece.pop();
        }
        if !piece.is_empty() {
            let _ = write!(found, "\n```yaml\n{}\n```\n", piece.join("\n"));
            piece.clear();
        }
    };
    let mut prose = false;
    for line in text.lines() {
        // What a script begins with is no comment of the document.
        if let Some(comment) = line.trim_start().strip_prefix("# ") {
            close(&mut piece, &mut found);
            if !prose {
                found.push('\n');
            }
            let _ = writeln!(found, "{comment}");
            prose = true;
        } else {
            prose = false;
            if !(line.is_empty() && piece.is_empty()) {
                piece.push(line);
            }
        }
    }
    close(&mut piece, &mut found);
    found
}

#[test]
fn the_page_of_the_examples_has_every_line_of_them_with_what_it_means() {
    let mut made = String::new();
    for example in &EXAMPLES {
        let text = text(example.name);
        let section = explained(&text);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line = line.trim_start().strip_prefix("# ").unwrap_or(line);
            assert!(section.contains(line), "{}: {line}", example.name);
        }
        let _ = write!(
            made,
            "\n## {}\n\n`examples/personas/{0}.yaml`\n{section}",
            example.name
        );
    }
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/personas.md")).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("a generated part");
    let (_, tail) = rest.split_once(END).expect("an end of it");
    golden(
        "docs/personas.md",
        &format!("{head}{BEGIN}{made}\n{END}{tail}"),
    );
}

/// Compares with a file of the repository, or writes it with `UPDATE_GOLDEN=1`.
fn golden(path: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found,
        expected,
        "{}; UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}
