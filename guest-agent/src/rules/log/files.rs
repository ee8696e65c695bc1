//! The files of the log, each read as JSON. One that is damaged harms no other. The log writes them by its writer.

use std::{fs, io, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use super::LogError;
use crate::log::log;

pub(super) fn json(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, LogError> {
    serde_json::to_vec(value).map_err(|source| LogError::Json { what, source })
}

/// What is in a file; what cannot be understood is as good as absent, since nothing that matters more than a record is lost.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LogError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(LogError::Read { path, source });
        }
    };
    let read = serde_json::from_slice(&bytes);
    Ok(read
        .inspect_err(|error| log!("{path:?} is damaged and left out: {error}"))
        .ok())
}

/// The numbered files of a directory.
pub(super) fn read_all<T: DeserializeOwned>(directory: &Path) -> Result<Vec<(u64, T)>, LogError> {
    let failed = |source| LogError::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number) = number
            && let Some(value) = read(&entry.path())?
        {
            all.push((number, value));
        }
    }
    Ok(all)
}
