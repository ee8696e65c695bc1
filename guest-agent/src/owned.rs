//! Whether root alone can have put a file where it is, for programs that the agent runs as root: hooks and plugins, because they lie
//! in a directory, and commands. What is done with them is said by `hooks`, `setting::external` and `exec`, which call this.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use nix::unistd::geteuid;

/// Why a program is not to be run, as the end of a sentence.
pub(crate) fn runnable(path: &Path) -> Result<(), String> {
    // A link is not followed: what it leads to may lie where others write.
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is no file".to_owned());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err("is not executable".to_owned());
    }
    owned(&metadata).map_err(str::to_owned)
}

/// Why what lies in a directory is not to be run, as the end of a sentence.
pub(crate) fn trusted(path: &Path) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err("is no directory".to_owned());
    }
    owned(&metadata).map_err(str::to_owned)
}

/// Why somebody else than root says what a file does, as the end of a sentence.
pub(crate) fn owned(metadata: &Metadata) -> Result<(), &'static str> {
    // An agent that does not run as root has nothing to give away but its own.
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Err("does not belong to root");
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err("may be written by others than root");
    }
    Ok(())
}
