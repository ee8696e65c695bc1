//! Which files restricted names lead to, and which directories say when that changes. Files are looked at without being
//! opened: the kernel would ask the gate about itself. `watch` calls this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use agent_protocol::GateTable;
use nix::{libc, sys::stat::FileStat};

use crate::guarded::Names;

/// As many links the kernel follows, too (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Below the root.
const KERNELS: [&str; 2] = ["proc", "sys"];

/// A file as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }

    pub(crate) fn of_file(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A file that is looked at and not opened (`O_PATH`), so that what is marked is what was found.
#[derive(Debug)]
pub(crate) struct Target {
    file: File,
    /// The restricted command that leads to it.
    pub(crate) name: String,
    /// Where it lies behind all links.
    pub(crate) place: PathBuf,
}

impl Target {
    /// A path that leads to this very file, whatever becomes of its name.
    pub(crate) fn handle(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
}

/// All that a table comes to at the moment.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) files: BTreeMap<Identity, Target>,
    /// Directories in which a change can change the files.
    pub(crate) directories: BTreeSet<PathBuf>,
    /// The restricted commands, and all names of files that lie on the way from one of them to its file.
    pub(crate) names: Names,
    /// Where the commands are looked up.
    pub(crate) paths: Vec<(PathBuf, String)>,
    /// Names that lead to no file.
    pub(crate) absent: Vec<String>,
    /// What could not be looked at.
    pub(crate) problems: Vec<String>,
}

/// Looks all names of a table up, in all of its directories.
pub(crate) fn find(table: &GateTable, root: &Path) -> Targets {
    let mut targets = Targets::default();
    let directories: Vec<PathBuf> = table
        .path
        .split(':')
        .map(|directory| root.join(directory.trim_start_matches('/')))
        .collect();
    targets.directories.extend(directories.iter().cloned());
    // The judge reads files of processes itself, and would have to wait for itself.
    let kernels = KERNELS.map(|directory| root.join(directory));
    for name in &table.restricted {
        let mut found = false;
        for directory in &directories {
            let path = directory.join(name);
            follow(&path, |step| {
                if let Some(directory) = step.parent() {
                    targets.directories.insert(directory.to_owned());
                }
                if let Some(file) = step.file_name() {
                    let names = &mut targets.names;
                    names.entry(file.to_owned()).or_insert_with(|| name.clone());
                }
            });
            targets.paths.push((path.clone(), name.clone()));
            match look(&path) {
                Ok(Some((identity, file))) => {
                    found = true;
                    let place = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
                    let place = place.unwrap_or_else(|_| path.clone());
                    if kernels.iter().any(|kernels| place.starts_with(kernels)) {
                        let path = path.display();
                        let problem = format!(
                            "{path} leads to a file of the kernel's own, which cannot be marked"
                        );
                        targets.problems.push(problem);
                        continue;
                    }
                    targets.files.entry(identity).or_insert(Target {
                        file,
                        name: name.clone(),
                        place,
                    });
                }
                Ok(None) => {}
                Err(error) => targets
                    .problems
                    .push(format!("{} cannot be looked at: {error}", path.display())),
            }
        }
        if !found {
            targets.absent.push(name.clone());
        }
    }
    targets
}

/// The file at a path, if it is a regular one.
pub(crate) fn look(path: &Path) -> io::Result<Option<(Identity, File)>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
    {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) || error.raw_os_error() == Some(libc::ELOOP) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let identity = Identity::of_file(&metadata);
    Ok(metadata.is_file().then_some((identity, file)))
}

/// Shows every step on the way from a path to its file, the path itself first, also of a file that is not there yet.
fn follow(path: &Path, mut show: impl FnMut(&Path)) {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        show(&path);
        let Ok(target) = fs::read_link(&path) else {
            return;
        };
        let Some(directory) = path.parent() else {
            return;
        };
        path = directory.join(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, os::unix::fs::symlink};

    fn table(restricted: &[&str]) -> GateTable {
        GateTable {
            persona: "p".to_owned(),
            generation: 1,
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            restricted: restricted.iter().map(|name| (*name).to_owned()).collect(),
            strict: false,
        }
    }

    #[test]
    fn a_name_leads_to_each_file_once_and_every_directory_on_the_way_is_known() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for directory in ["usr/bin", "usr/local/bin", "etc/alternatives", "opt"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        symlink("usr/bin", path("bin")).unwrap();
        fs::write(path("opt/nc.real"), "").unwrap();
        fs::write(path("usr/local/bin/nc"), "").unwrap();
        symlink("../../etc/alternatives/nc", path("usr/bin/nc")).unwrap();
        symlink("../../opt/nc.real", path("etc/alternatives/nc")).unwrap();
        symlink("loop", path("usr/bin/loop")).unwrap();
        fs::create_dir(path("usr/bin/folder")).unwrap();

        let targets = find(&table(&["nc", "loop", "folder", "none"]), root.path());
        let mut places: Vec<_> = targets.files.values().map(|file| &file.place).collect();
        places.sort();
        assert_eq!(places, [&path("opt/nc.real"), &path("usr/local/bin/nc")]);
        assert_eq!(targets.absent, ["loop", "folder", "none"]);
        assert_eq!(targets.problems, [""; 0]);
        let known = |wanted: &str| {
            let wanted = fs::canonicalize(path(wanted)).unwrap();
            targets
                .directories
                .iter()
                .any(|directory| fs::canonicalize(directory).is_ok_and(|it| it == wanted))
        };
        let named = |name: &str| targets.names.get(OsStr::new(name)).map(String::as_str);
        assert_eq!(named("nc.real"), Some("nc"));
        assert_eq!(named("none"), Some("none"));
        assert_eq!(named("bin"), None);
        for directory in ["usr/local/bin", "usr/bin", "etc/alternatives", "opt"] {
            assert!(known(directory), "{directory}");
        }
    }
}
