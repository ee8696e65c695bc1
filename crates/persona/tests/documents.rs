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

use persona::{Format, Loaded, Problems, SourceText, load};

/// Documents of a folder, in order of name.
fn documents(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        path.extension()
            .is_some_and(|ext| ext == "yaml" || ext == "json")
    });
    found.sort();
    assert!(!found.is_empty(), "{} holds no documents", folder.display());
    found
}

fn load_file(path: &Path) -> Result<Loaded, Problems> {
    let text = fs::read(path).unwrap();
    let format = if path.extension().is_some_and(|ext| ext == "json") {
        Format::Json
    } else {
        Format::Yaml
    };
    let name = path.file_name().unwrap().to_str().unwrap();
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

#[test]
fn examples_load_without_a_warning() {
    for path in documents("../../examples/personas") {
        let loaded = load_file(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert_eq!(
            path.file_stem().unwrap().to_str().unwrap(),
            loaded.persona.name.as_str()
        );
    }
}
