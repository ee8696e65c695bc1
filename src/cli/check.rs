//! `check`: validates documents where they lie, without the daemon. What one builds on is looked for among the others; a
//! document whose bases were not given is checked as far as it goes by itself.

use std::path::{Path, PathBuf};

use persona::Problems;
use serde::Serialize;

use super::layers::{Given, Known, Outcome};
use super::screen::{Colour, Screen, Style, clean};
use super::{CliError, Ended, format_of, read_bytes};
use crate::view::{DocumentFormat, ProblemView, Severity};

/// What was found in the documents: the shape of `check --json`.
#[derive(Debug, Serialize)]
struct Checked {
    /// The documents, in the order of the command line.
    documents: Vec<CheckedDocument>,
}

/// What was found in one document.
#[derive(Debug, Serialize)]
struct CheckedDocument {
    /// The file as it was named.
    file: String,
    /// Whether the document can be stored.
    valid: bool,
    /// The persona's name, where the document is valid.
    name: Option<String>,
    /// The content digest, where the document is valid.
    digest: Option<String>,
    /// What was not checked, because it builds on a persona that was not given.
    note: Option<String>,
    /// Errors and warnings.
    problems: Vec<ProblemView>,
}

/// Checks the files one after another.
///
/// # Errors
/// Where a file cannot be read or the output cannot be written.
pub(super) fn check(
    files: &[PathBuf],
    name: Option<&str>,
    json: bool,
    screen: &mut Screen,
) -> Result<Ended, CliError> {
    let mut checked = Checked {
        documents: Vec::new(),
    };
    let mut given = Vec::new();
    let mut known = Known::default();
    for file in files {
        let document = read(file, name)?;
        known.add(None, document.clone());
        given.push(document);
    }
    for (file, document) in files.iter().zip(&given) {
        let outcome = known.read(document);
        if !json {
            print(file, &outcome, screen)?;
        }
        checked.documents.push(shape(file, &outcome));
    }
    if json {
        screen.json(&checked)?;
    }
    if checked.documents.iter().all(|document| document.valid) {
        Ok(Ended::Well)
    } else {
        Ok(Ended::Badly)
    }
}

/// Reads one document.
///
/// # Errors
/// Where the file cannot be read.
pub(super) fn read(file: &Path, name: Option<&str>) -> Result<Given, CliError> {
    let text = read_bytes(file)?;
    let shown = file.display().to_string();
    Ok(Given {
        shown: if shown == "-" {
            "standard input".to_owned()
        } else {
            shown
        },
        format: format_of(file)
            .unwrap_or_else(|| DocumentFormat::of_text(&text))
            .into(),
        text,
        name: name.map(str::to_owned),
    })
}

fn note(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Part { missing, .. } => Some(format!(
            "it builds on `{missing}`, which was not given, so it was checked by itself"
        )),
        _ => None,
    }
}

fn shape(file: &Path, outcome: &Outcome) -> CheckedDocument {
    let views = |problems: &Problems| problems.iter().map(ProblemView::from).collect();
    let (name, digest, problems) = match outcome {
        Outcome::Whole(effective) => (
            Some(&effective.persona.name),
            Some(&effective.persona.digest),
            views(&effective.warnings),
        ),
        Outcome::Part {
            name,
            digest,
            warnings,
            ..
        } => (Some(name), Some(digest), views(warnings)),
        Outcome::Wrong(problems) => (None, None, views(problems)),
        Outcome::Tangled { reason } => (None, None, vec![tangled(reason)]),
    };
    CheckedDocument {
        file: file.display().to_string(),
        valid: name.is_some(),
        name: name.map(ToString::to_string),
        digest: digest.map(ToString::to_string),
        note: note(outcome),
        problems,
    }
}

/// That bases come to no order is a problem of the whole document.
fn tangled(reason: &str) -> ProblemView {
    ProblemView {
        severity: Severity::Error,
        kind: "contradiction".to_owned(),
        message: reason.to_owned(),
        document: None,
        line: 1,
        column: 1,
        length: 1,
        help: Some("take one of them out of `extends`".to_owned()),
    }
}

fn print(file: &Path, outcome: &Outcome, screen: &mut Screen) -> std::io::Result<()> {
    let style = match screen.colour() {
        Colour::On => persona::Style::Colour,
        Colour::Off => persona::Style::Plain,
    };
    let file = clean(&file.display().to_string());
    let bad = screen.colour().paint(Style::Bad, "not valid");
    let (name, warnings) = match outcome {
        Outcome::Whole(effective) => (&effective.persona.name, &effective.warnings),
        Outcome::Part { name, warnings, .. } => (name, warnings),
        Outcome::Wrong(problems) => {
            screen.raw(&problems.render(style))?;
            return screen.line(&format!("{file}: {bad}"));
        }
        Outcome::Tangled { reason } => {
            return screen.line(&format!("{file}: {bad}, because {}", clean(reason)));
        }
    };
    screen.raw(&warnings.render(style))?;
    let good = screen.colour().paint(Style::Good, "valid");
    let note = note(outcome).map_or_else(String::new, |note| format!("; {note}"));
    screen.line(&format!("{file}: {good}, persona {name}{}", clean(&note)))
}
