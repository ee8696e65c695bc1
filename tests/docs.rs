//! The documentation against the programs: links, commands, keys, sentences, bounds and names of tests that the documents
//! speak of are there. What the documents say beyond that is for people to keep true. The documents of personas in
//! `docs/` are loaded by `crates/persona/tests/documents.rs`, and virt-persona(1) is compared by `tests/bus`.
#![allow(clippy::panic)] // A document that is not there ends the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_protocol::limits;
use clap::Parser;
use virt_persona::cli::args::Cli;
use virt_persona::config::Config;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder with this ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every document for people: those of the root, and those of `docs/`.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = files("docs", ".md");
    for entry in fs::read_dir(root()).expect("the repository") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
    let documents: Vec<_> = found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a document is text");
            (path, text)
        })
        .collect();
    assert!(documents.len() >= 10, "documents are missing");
    documents
}

/// The parts of a text between two marks.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open)
        .skip(1)
        .filter_map(move |rest| rest.split_once(close).map(|(inside, _)| inside))
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn has_anchor(text: &str, name: &str) -> bool {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor(line.trim_start_matches('#').trim()) == name)
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut followed = 0;
    for (path, text) in documents() {
        for target in between(&text, "](", ")").filter(|target| !target.contains("://")) {
            followed += 1;
            let (file, name) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                path.clone()
            } else {
                path.parent().expect("a folder").join(file)
            };
            assert!(file.exists(), "{}: {target}", path.display());
            if !name.is_empty() {
                let text = fs::read_to_string(&file).expect("a document is text");
                assert!(has_anchor(&text, name), "{}: {target}", path.display());
            }
        }
    }
    assert!(followed > 20, "{followed} links were found");
}

/// Command lines of a document: in blocks marked `sh`, and in blocks that are indented.
fn commands(text: &str) -> Vec<String> {
    let fenced = between(text, "```sh\n", "```").flat_map(str::lines);
    let indented = text.lines().filter(|line| line.starts_with("    "));
    fenced
        .chain(indented)
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .map(|line| line.strip_prefix("sudo ").unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn every_command_of_virt_persona_in_the_documents_is_understood() {
    let mut tried = 0;
    for (path, text) in documents() {
        for line in commands(&text) {
            if line.starts_with("virt-persona ") {
                tried += 1;
                // Where the output goes is the shell's business.
                let words = line.split_whitespace().take_while(|word| *word != ">");
                let parsed = Cli::try_parse_from(words);
                assert!(
                    parsed.is_ok(),
                    "{}: {line}: {:?}",
                    path.display(),
                    parsed.err()
                );
            }
        }
    }
    assert!(tried > 15, "{tried} commands were found");
}

#[test]
fn what_the_readme_installs_and_calls_is_there() {
    let text = read("README.md");
    let made = |word: &str| word.starts_with("target/");
    let targets = read("Makefile");
    let mut installed = 0;
    for line in commands(&text) {
        if let Some(rest) = line.strip_prefix("install ") {
            // The static agent is copied to the guest first, under its own name.
            let source = rest.split_whitespace().find(|word| word.contains('/'));
            let source = source.expect("a file to install");
            if !made(source) && !source.starts_with('/') {
                installed += 1;
                assert!(root().join(source).exists(), "{line}");
            }
        } else if let Some(target) = line.strip_prefix("make ") {
            assert!(targets.contains(&format!("\n{target}:")), "{line}");
        }
    }
    assert!(installed >= 6, "{installed} files were found");
}

/// `section.key` and the default of each key in the packaged configuration.
fn packaged_keys() -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in read("packaging/virt-personad.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, value)) = line
            .strip_prefix('#')
            .filter(|rest| !rest.starts_with(' '))
            .and_then(|rest| rest.split_once(" = "))
        {
            found.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

#[test]
fn every_key_of_the_configuration_is_documented_with_its_default_and_no_other() {
    let text = read("docs/configuration.md");
    let daemon = text.split("## The agent").next().expect("a first part");
    let documented: BTreeSet<(String, String)> = daemon
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let key = cells.next()?.trim_end_matches('`');
            let value = cells.next()?.trim_matches('`');
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    assert_eq!(documented, packaged_keys().into_iter().collect());

    let page = read("packaging/man/virt-personad.toml.5");
    for (key, value) in packaged_keys() {
        let (section, key) = key.split_once('.').expect("a section and a key");
        let section = page
            .split(&format!(".SH [{section}]\n"))
            .nth(1)
            .and_then(|rest| rest.split(".SH ").next())
            .unwrap_or_else(|| panic!("[{section}] is not in the man page"));
        let head = format!(".B {key}\n");
        let entry = section
            .split_once(&head)
            .map(|(_, rest)| rest.split(".TP").next().unwrap_or(rest))
            .unwrap_or_else(|| panic!("{key} is not in the man page"));
        let roff = value.replace('-', "\\-");
        assert!(
            entry.contains(&format!("Default: {roff}.")),
            "{key}: {entry}"
        );
    }
}

#[test]
fn the_ranges_of_the_configuration_are_those_that_are_checked() {
    let mut tried = 0;
    for line in read("docs/configuration.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, key, _, range, ..] = cells.as_slice() else {
            continue;
        };
        let Some((least, most)) = range.split_once(" to ") else {
            continue;
        };
        let (section, key) = key
            .trim_matches('`')
            .split_once('.')
            .expect("a section and a key");
        let set = |value: &str| {
            let text = format!("[{section}]\n{key} = {value}\n");
            Config::parse(&text, Path::new("test.toml")).is_ok()
        };
        tried += 1;
        assert!(set(least) && set(most), "{section}.{key}: {range}");
        assert!(!set(&format!("{most}9")), "{section}.{key}: {range}");
    }
    assert!(tried > 8, "{tried} ranges were found");
}

#[test]
fn every_option_is_in_its_man_page() {
    let help = Command::new(env!("CARGO_BIN_EXE_virt-personad"))
        .arg("--help")
        .output()
        .expect("virt-personad runs");
    let daemon = String::from_utf8(help.stdout).expect("help is text");
    let agent = read("guest-agent/src/args.rs");
    let agent = between(&agent, "HELP: &str = \"", "\";").next();
    let gate = read("guest-agent/gate/src/main.rs");
    let gate = between(&gate, "HELP: &str = \"", "\";").next();
    let switch = read("guest-agent/switch/src/args.rs");
    let switch = between(&switch, "HELP: &str = \"", "\";").next();
    let tray = read("guest-agent/tray/src/main.rs");
    let tray = between(&tray, "HELP: &str = \"", "\";").next();
    for (help, page, least) in [
        (daemon.as_str(), "virt-personad.8", 4),
        (
            agent.expect("the agent has a help"),
            "virt-persona-agent.8",
            4,
        ),
        (gate.expect("the gate has a help"), "virt-persona-gate.8", 4),
        (switch.expect("it has a help"), "virt-persona-switch.1", 4),
        (tray.expect("it has a help"), "virt-persona-tray.1", 3),
    ] {
        let text = read(&format!("packaging/man/{page}")).replace('\\', "");
        let options: BTreeSet<&str> = help
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
            .filter(|word| word.starts_with("--"))
            .collect();
        assert!(options.len() >= least, "{options:?}");
        for option in options {
            assert!(text.contains(option), "{page}: {option}");
        }
    }
}

/// Text with every run of white space as one blank.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parts of texts in a source that have more than one word; what stands in braces is filled in.
fn sentences(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut found = Vec::new();
    // Every second part between quotation marks is a text.
    for text in code.split('"').skip(1).step_by(2) {
        for part in text.split('{') {
            let part = flat(part.split_once('}').map_or(part, |(_, rest)| rest));
            if part.contains(' ') {
                found.push(part);
            }
        }
    }
    found
}

/// All that `doctor` is made of.
fn doctor_sources() -> String {
    let sources = files("src/daemon/doctor", ".rs");
    let texts = sources
        .iter()
        .map(|path| fs::read_to_string(path).expect("a source is text"));
    texts.collect()
}

#[test]
fn every_check_of_doctor_is_documented_by_its_name_and_no_other() {
    let documented: BTreeSet<String> = read("docs/troubleshooting.md")
        .split("## What `doctor` says")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the part about doctor")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|name| *name != "check")
        .map(str::to_owned)
        .collect();
    let sources = doctor_sources();
    let named: BTreeSet<String> = sources
        .split("add(")
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    assert_eq!(documented, named);
}

#[test]
fn every_sentence_of_doctor_and_explain_is_documented() {
    let documented = flat(&read("docs/troubleshooting.md"));
    let reasons = read("crates/planner/src/report.rs");
    let reasons = between(&reasons, "pub fn sentence", "\n    }\n").next();
    let limits = read("crates/planner/src/limit/verdict.rs");
    let limits = between(&limits, "pub fn sentence(&self, knob", "\n    }\n").next();
    let unknown = read("src/observe/reading.rs");
    let unknown = between(&unknown, "pub enum Missing {", "\n}\n").next();
    for (what, source) in [
        ("doctor", doctor_sources().as_str()),
        ("a metric that is unknown", unknown.expect("reasons why")),
        ("explain", reasons.expect("reasons have sentences")),
    ] {
        let mut said = sentences(source);
        assert!(said.len() > 15, "{what} says {said:?}");
        // The reason that there is a mechanism is never given.
        said.retain(|part| !documented.contains(part) && part != "the mechanism is there");
        assert!(
            said.is_empty(),
            "docs/troubleshooting.md does not have what {what} says: {said:#?}"
        );
    }
    let mut said = sentences(limits.expect("reasons about limits"));
    assert!(said.len() > 5, "{said:?}");
    said.retain(|part| !documented.contains(part));
    assert!(
        said.is_empty(),
        "docs/troubleshooting.md does not have what explain says of limits: {said:#?}"
    );
}

#[test]
fn every_event_of_the_daemon_is_in_the_architecture() {
    let text = read("ARCHITECTURE.md");
    let source = read("src/daemon/event.rs");
    let events = source
        .split("pub enum Event {")
        .nth(1)
        .expect("the events")
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| line.split(['(', ',']).next().unwrap_or(line));
    let mut found = 0;
    for event in events {
        found += 1;
        assert!(text.contains(&format!("`{event}`")), "{event}");
    }
    assert!(found > 10, "{found} events were found");
}

/// Whoever reads a crate from its head finds every file of it there.
#[test]
fn heads_of_rooms_name_each_of_their_modules() {
    for room in [
        "src/daemon/mod.rs",
        "crates/planner/src/lib.rs",
        "crates/persona/src/lib.rs",
    ] {
        let source = read(room);
        let (head, modules): (Vec<&str>, Vec<&str>) =
            source.lines().partition(|line| line.starts_with("//!"));
        let head = head.join(" ");
        let words: BTreeSet<&str> = head
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        let named = |line: &str| {
            let line = line.trim_start_matches("pub ");
            line.strip_prefix("mod ")?
                .strip_suffix(';')
                .map(str::to_owned)
        };
        let modules: Vec<String> = modules.into_iter().filter_map(named).collect();
        assert!(modules.len() > 10, "{room}: {modules:?}");
        for module in modules.iter().filter(|module| !module.starts_with("test")) {
            assert!(
                words.contains(module.as_str()),
                "the head of {room} does not say what is in {module}"
            );
        }
    }
}

#[test]
fn every_member_of_the_bus_is_documented() {
    let text = read("docs/dbus.md");
    let mut members = 0;
    for path in files("dbus", ".xml") {
        let xml = fs::read_to_string(&path).expect("an interface file is text");
        for kind in ["method", "property", "signal"] {
            for name in between(&xml, &format!("<{kind} name=\""), "\"") {
                members += 1;
                assert!(
                    text.contains(&format!("`{name}`")),
                    "{}: {name}",
                    path.display()
                );
            }
        }
    }
    assert!(members > 40, "{members} members were found");
}

#[test]
fn the_bounds_of_the_protocol_are_the_documented_ones() {
    let text = read("docs/protocol.md");
    for (name, value) in [
        ("MAX_FRAME", limits::MAX_FRAME as u64),
        (
            "MAX_FRAME_BEFORE_HELLO",
            limits::MAX_FRAME_BEFORE_HELLO as u64,
        ),
        ("CHUNK_RAW_MAX", limits::CHUNK_RAW_MAX as u64),
        ("BODY_MAX", limits::BODY_MAX as u64),
        ("TRANSFERS_MAX", limits::TRANSFERS_MAX as u64),
        ("ACTIVATION_TEXT_MAX", limits::ACTIVATION_TEXT_MAX as u64),
        (
            "ENVIRONMENT_VARIABLES_MAX",
            limits::ENVIRONMENT_VARIABLES_MAX as u64,
        ),
        (
            "ENVIRONMENT_VALUE_MAX",
            limits::ENVIRONMENT_VALUE_MAX as u64,
        ),
        ("SETTINGS_MAX", limits::SETTINGS_MAX as u64),
        ("SETTING_VALUE_MAX", limits::SETTING_VALUE_MAX as u64),
        ("SETTING_REASON_MAX", limits::SETTING_REASON_MAX as u64),
        ("SETTINGS_REPLY_MAX", limits::SETTINGS_REPLY_MAX as u64),
        ("SCRIPT_TIMEOUT_MAX_MS", limits::SCRIPT_TIMEOUT_MAX_MS),
        ("SCRIPT_KILL_GRACE_MS", limits::SCRIPT_KILL_GRACE_MS),
        ("SCRIPT_OUTPUT_KEEP", limits::SCRIPT_OUTPUT_KEEP as u64),
        ("REPLY_OUTPUT_MAX", limits::REPLY_OUTPUT_MAX as u64),
        ("IN_FLIGHT_MAX", limits::IN_FLIGHT_MAX as u64),
        (
            "ACTIVATIONS_WAITING_MAX",
            limits::ACTIVATIONS_WAITING_MAX as u64,
        ),
        ("TABLE_COMMANDS_MAX", limits::TABLE_COMMANDS_MAX as u64),
        ("COMMAND_NAME_MAX", limits::COMMAND_NAME_MAX as u64),
        ("COMMAND_PATH_MAX", limits::COMMAND_PATH_MAX as u64),
        ("COMMAND_WORDS_MAX", limits::COMMAND_WORDS_MAX as u64),
        ("COMMAND_TEXT_MAX", limits::COMMAND_TEXT_MAX as u64),
        ("COMMAND_RUNS_MAX", limits::COMMAND_RUNS_MAX as u64),
        ("COMMAND_OUTPUT_MAX", limits::COMMAND_OUTPUT_MAX),
        ("COMMAND_KILL_GRACE_MS", limits::COMMAND_KILL_GRACE_MS),
        ("OUTPUT_RAW_MAX", limits::OUTPUT_RAW_MAX as u64),
        ("OUTPUT_WINDOW", limits::OUTPUT_WINDOW as u64),
        ("OUTPUT_RATE", limits::OUTPUT_RATE.unsigned_abs()),
        (
            "OUTPUT_PIECE_COST",
            limits::OUTPUT_PIECE_COST.unsigned_abs(),
        ),
        ("HOOKS_MAX", limits::HOOKS_MAX as u64),
        ("HOOK_MARGIN_MS", limits::HOOK_MARGIN_MS),
        ("HOOK_KILL_GRACE_MS", limits::HOOK_KILL_GRACE_MS),
        ("HOOK_RUNS_MAX", limits::HOOK_RUNS_MAX as u64),
        ("RETRY_AFTER_MAX_MS", limits::RETRY_AFTER_MAX_MS),
        ("NEED_INTERVAL_MS", limits::NEED_INTERVAL_MS),
        ("NEED_REASON_MAX", limits::NEED_REASON_MAX as u64),
        ("ASK_INTERVAL_MS", limits::ASK_INTERVAL_MS),
        ("ASKS_BURST", limits::ASKS_BURST),
        ("OFFERS_MAX", limits::OFFERS_MAX as u64),
        ("OFFERS_JSON_MAX", limits::OFFERS_JSON_MAX as u64),
        ("OFFER_LINES_MAX", limits::OFFER_LINES_MAX as u64),
        ("OFFER_VALUE_MAX", limits::OFFER_VALUE_MAX as u64),
        ("DESCRIPTION_MAX", limits::DESCRIPTION_MAX as u64),
        ("CREDIT_MAX", limits::CREDIT_MAX.into()),
        ("HEARTBEAT_IDLE_MS", limits::HEARTBEAT_IDLE_MS),
        ("HEARTBEAT_MISSES", limits::HEARTBEAT_MISSES.into()),
        ("NAME_MAX", limits::NAME_MAX as u64),
        ("MESSAGE_MAX", limits::MESSAGE_MAX as u64),
    ] {
        assert!(
            text.contains(&format!("| `{name}` | {value} |")),
            "{name} is {value}"
        );
    }
}

#[test]
fn tests_that_the_documents_name_exist_and_test_programs_are_documented() {
    let mut sources = String::new();
    for folder in ["src", "crates", "tests", "guest-agent"] {
        for path in files(folder, ".rs") {
            sources.push_str(&fs::read_to_string(path).expect("a source is text"));
        }
    }
    let mut named = 0;
    for document in ["ARCHITECTURE.md", "docs/testing.md"] {
        let text = read(document);
        // Names of tests are sentences, so they have several underscores.
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.matches('_').count() >= 4) {
            named += 1;
            assert!(
                sources.contains(&format!("fn {name}(")),
                "{document}: {name}"
            );
        }
    }
    assert!(named > 20, "{named} tests were found");

    let text = read("docs/testing.md");
    for entry in fs::read_dir(root().join("tests")).expect("tests") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let program = name.ends_with(".rs") || entry.path().join("main.rs").exists();
        assert!(
            !program || text.contains(&format!("tests/{name}`")),
            "docs/testing.md does not name tests/{name}"
        );
    }
}
