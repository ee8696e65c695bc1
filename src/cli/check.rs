//! `check`: validates documents where they lie, without the daemon.

use std::path::{Path, PathBuf};

use persona::{Loaded, Problems, SourceText};
use serde::Serialize;

use super::screen::{Colour, Screen, Style, clean};
use super::{CliError, Ended, format_of, read_bytes};
use crate::view::{DocumentFormat, ProblemView};

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
    for file in files {
        let text = read_bytes(file)?;
        let result = load(file, &text, name);
        if !json {
            print(file, &result, screen)?;
        }
        checked.documents.push(document(file, &result));
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

/// Loads one document.
pub(super) fn load(file: &Path, text: &[u8], name: Option<&str>) -> Result<Loaded, Problems> {
    let shown = file.display().to_string();
    persona::load(&SourceText {
        name: if shown == "-" {
            "standard input"
        } else {
            &shown
        },
        text,
        format: format_of(file)
            .unwrap_or_else(|| DocumentFormat::of_text(text))
            .into(),
        persona_name: name,
    })
}

fn document(file: &Path, result: &Result<Loaded, Problems>) -> CheckedDocument {
    let (persona, problems) = match result {
        Ok(loaded) => (Some(&loaded.persona), &loaded.warnings),
        Err(problems) => (None, problems),
    };
    CheckedDocument {
        file: file.display().to_string(),
        valid: persona.is_some(),
        name: persona.map(|persona| persona.name.to_string()),
        digest: persona.map(|persona| persona.digest.to_string()),
        problems: problems.iter().map(ProblemView::from).collect(),
    }
}

fn print(
    file: &Path,
    result: &Result<Loaded, Problems>,
    screen: &mut Screen,
) -> std::io::Result<()> {
    let style = match screen.colour() {
        Colour::On => persona::Style::Colour,
        Colour::Off => persona::Style::Plain,
    };
    let file = clean(&file.display().to_string());
    match result {
        Ok(loaded) => {
            screen.raw(&loaded.warnings.render(style))?;
            let good = screen.colour().paint(Style::Good, "valid");
            let name = &loaded.persona.name;
            screen.line(&format!("{file}: {good}, persona {name}"))
        }
        Err(problems) => {
            screen.raw(&problems.render(style))?;
            let bad = screen.colour().paint(Style::Bad, "not valid");
            screen.line(&format!("{file}: {bad}"))
        }
    }
}
