//! The D-Bus service and the command line on a message bus of their own, with a scripted daemon behind them: what is on
//! the bus, who may do what, and what the command line prints. The real daemon is not here.
//!
//! Golden files are written anew with `UPDATE_GOLDEN=1`; the difference is for a person to judge.

// A test stops where something is not as it must be, also in the functions that tests share.
#![allow(clippy::panic)]

mod access;
mod command_line;
mod fake;
mod interfaces;
mod objects;
mod private_bus;

use std::path::{Path, PathBuf};

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a golden file, or writes it.
fn golden(path: &str, found: &str) {
    let file = repository(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder"))
            .expect("the folder of golden files");
        std::fs::write(&file, found).expect("a golden file");
    }
    let expected = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", file.display()));
    assert_eq!(
        found, expected,
        "{path} differs; UPDATE_GOLDEN=1 writes it anew"
    );
}
