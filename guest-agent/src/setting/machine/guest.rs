//! The guest's file tree, and what can be told by looking there. Nothing is changed here.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::script::PATH;

/// The guest's file tree, to be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    root: &'a Path,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(root: &'a Path) -> Self {
        Self { root }
    }

    /// A path of the guest.
    pub(in crate::setting) fn path(self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(in crate::setting) fn has_directory(self, path: &str) -> bool {
        self.path(path).is_dir()
    }

    /// Whether systemd runs the guest (sd_booted(3)).
    pub(in crate::setting) fn has_systemd(self) -> bool {
        self.has_directory("/run/systemd/system")
    }

    /// A program by its name or absolute path, as the guest names it; `None` where nothing can be executed there.
    pub(in crate::setting) fn program(self, name: &str) -> Option<String> {
        let found = |path: String| {
            let metadata = fs::metadata(self.path(&path)).ok()?;
            (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(path)
        };
        if name.starts_with('/') {
            return found(name.to_owned());
        }
        if name.contains('/') {
            return None;
        }
        PATH.split(':')
            .find_map(|directory| found(format!("{directory}/{name}")))
    }
}
