//! `fmt`: documents in canonical form, printed or in the place of the files. It needs no daemon.

use std::io::Write;
use std::path::{Path, PathBuf};

use persona::{Format, Reformatted, SourceText};
use serde::Serialize;

use super::screen::{Colour, Screen, clean};
use super::{CliError, Ended, format_of, read_bytes};
use crate::view::{DocumentFormat, ProblemView};

/// What becomes of a document in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// It is printed.
    Print,
    /// It takes the place of the file.
    Write,
    /// Only whether the file is in canonical form already is said.
    Check,
}

/// What became of the documents: the shape of `fmt --json`.
#[derive(Debug, Serialize)]
struct Formatted {
    documents: Vec<FormattedDocument>,
}

/// What became of one document.
#[derive(Debug, Serialize)]
struct FormattedDocument {
    /// The file as it was named.
    file: String,
    /// Whether it was in canonical form already; absent where it is not valid.
    canonical: Option<bool>,
    /// The canonical form, where it is printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Comments that have no place in it.
    lost_comments: Vec<String>,
    /// Errors, where it is not valid; nothing is rewritten then.
    problems: Vec<ProblemView>,
}

/// Puts the files into canonical form, one after another.
///
/// # Errors
/// Where a file cannot be read or written, or the output cannot be written.
pub(super) fn fmt(
    files: &[PathBuf],
    name: Option<&str>,
    output: Output,
    json: bool,
    screen: &mut Screen,
) -> Result<Ended, CliError> {
    let mut ended = Ended::Well;
    let mut documents = Vec::new();
    for file in files {
        let given = read_bytes(file)?;
        let format = format_of(file)
            .unwrap_or_else(|| DocumentFormat::of_text(&given))
            .into();
        if output == Output::Write && (format == Format::Toml || file.as_os_str() == "-") {
            return Err(CliError::InPlace {
                path: file.display().to_string(),
            });
        }
        let shown = match file.as_os_str() == "-" {
            true => "standard input".to_owned(),
            false => file.display().to_string(),
        };
        let source = SourceText {
            name: &shown,
            text: &given,
            format,
            // The name of a persona makes no difference to the text; any serves where the document has none.
            persona_name: name.or(Some("unnamed")),
        };
        let mut document = FormattedDocument {
            file: file.display().to_string(),
            canonical: None,
            text: None,
            lost_comments: Vec::new(),
            problems: Vec::new(),
        };
        match persona::reformat(&source) {
            Ok(Reformatted { text, lost }) => {
                let canonical = text.as_bytes() == given;
                document.canonical = Some(canonical);
                match output {
                    Output::Write if !canonical => replace(file, text.as_bytes())?,
                    Output::Write => {}
                    Output::Check if canonical => {}
                    Output::Check => {
                        ended = Ended::Badly;
                        if !json {
                            screen.line(&clean(&format!("{shown}: not in canonical form")))?;
                        }
                    }
                    Output::Print if json => document.text = Some(text),
                    Output::Print => screen.raw(&text)?,
                }
                if !json && !lost.is_empty() {
                    screen.flush()?;
                    say_lost(&shown, &lost)?;
                }
                document.lost_comments = lost;
            }
            Err(problems) => {
                ended = Ended::Badly;
                if json {
                    document.problems = problems.iter().map(ProblemView::from).collect();
                } else {
                    screen.flush()?;
                    let mut errors = Screen::stderr();
                    errors.raw(&problems.render(match errors.colour() {
                        Colour::On => persona::Style::Colour,
                        Colour::Off => persona::Style::Plain,
                    }))?;
                    errors.line(&clean(&format!("{shown}: not valid, so it stays as it is")))?;
                    errors.flush()?;
                }
            }
        }
        documents.push(document);
    }
    if json {
        screen.json(&Formatted { documents })?;
    }
    Ok(ended)
}

/// Says which comments are gone.
fn say_lost(file: &str, lost: &[String]) -> Result<(), CliError> {
    let mut errors = Screen::stderr();
    errors.line(&clean(&format!(
        "{file}: these comments have no place in the canonical form and are left out:"
    )))?;
    for comment in lost {
        errors.line(&clean(&format!("  {comment}")))?;
    }
    errors.flush()?;
    Ok(())
}

/// Puts other bytes in the place of a file's, all or none of them: they are written beside it first.
fn replace(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |source| CliError::Write {
        path: file.display().to_string(),
        source,
    };
    // What a link names is rewritten, and the link stays.
    let file = std::fs::canonicalize(file).map_err(failed)?;
    let directory = file.parent().unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut new = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)?;
        new.write_all(bytes)?;
        new.set_permissions(std::fs::metadata(&file)?.permissions())?;
        new.sync_all()?;
        std::fs::rename(&beside, &file)
    };
    write().map_err(|error| {
        // It may not be there at all.
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}
