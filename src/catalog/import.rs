//! The first step of a document's way: text to a persona that may become a version, or all its problems. Reads
//! nothing but its arguments; called by the catalogue and for `check`.

use persona::{Format, Persona, Problems, SourceText};

use super::error::CatalogueError;

/// A document that was found valid, with the text that it came from.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What it means.
    pub persona: Persona,
    /// Warnings; they stop nothing.
    pub warnings: Problems,
    /// The text as given.
    pub text: String,
    /// How it is written.
    pub format: Format,
}

/// Reads one document.
///
/// # Errors
///
/// [`CatalogueError::Invalid`] with all problems.
pub fn import(source: &SourceText<'_>) -> Result<Imported, CatalogueError> {
    let loaded = persona::load(source).map_err(CatalogueError::Invalid)?;
    // What is not UTF-8 does not load.
    let text = String::from_utf8_lossy(source.text).into_owned();
    Ok(Imported {
        persona: loaded.persona,
        warnings: loaded.warnings,
        text,
        format: source.format,
    })
}

/// The format of a document that nobody named: by the ending of its file name, else by what its text looks like.
pub fn guess_format(file_name: &str, text: &[u8]) -> Format {
    Format::of_file_name(file_name).unwrap_or_else(|| Format::of_text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_by_ending_then_by_the_text() {
        for (name, text, expected) in [
            ("web.json", "name: x", Format::Json),
            ("web.YML", "{}", Format::Yaml),
            ("-", " \n{\"name\": \"x\"}", Format::Json),
            ("-", "\u{feff}{}", Format::Json),
            ("web.v2", "name: x", Format::Yaml),
            ("web.toml", "", Format::Toml),
            ("-", "name = 'x'", Format::Toml),
            ("", "", Format::Yaml),
        ] {
            assert_eq!(
                guess_format(name, text.as_bytes()),
                expected,
                "{name:?} {text:?}"
            );
        }
    }

    #[test]
    fn a_document_with_problems_is_refused_with_all_of_them() {
        let source = SourceText {
            name: "x.yaml",
            text: b"nam: x\nrols: y\n",
            format: Format::Yaml,
            persona_name: Some("x"),
        };
        let Err(CatalogueError::Invalid(problems)) = import(&source) else {
            panic!("it was accepted")
        };
        assert!(problems.len() >= 2, "{problems:?}");
    }
}
