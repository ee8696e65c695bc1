//! Which programs restricted names lead to, where that could change, and which of them somebody else than root could turn to
//! another file. It looks and changes nothing; `closed` calls it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use agent_protocol::way::{Owner, Seen, follow};
use nix::unistd::geteuid;

use super::Guest;
use crate::script::PATH;

/// A file as the kernel knows it: device and number.
pub(super) type Identity = (u64, u64);

/// What restricted names lead to. Paths are as the guest names them, behind all links.
#[derive(Debug, Default)]
pub(super) struct Restricted {
    /// Each program once, with all paths by which it is a restricted one: several where it has hard links.
    pub(super) programs: BTreeMap<Identity, BTreeSet<String>>,
    /// Where a program would be, and nothing is.
    pub(super) missing: BTreeSet<String>,
    /// Names that somebody else than root could lead to another file, each with how.
    pub(super) turnable: BTreeMap<String, String>,
    /// Directories in which a change can change any of this.
    pub(super) directories: BTreeSet<PathBuf>,
}

impl Restricted {
    pub(super) fn find(commands: &[String], guest: Guest<'_>) -> Self {
        let mut restricted = Self::default();
        for command in commands {
            for directory in PATH.split(':') {
                restricted.learn(&format!("{directory}/{command}"), guest);
            }
        }
        // Several directories can be one, and a program can come between two looks.
        let found: BTreeSet<&String> = restricted.programs.values().flatten().collect();
        restricted.missing.retain(|path| !found.contains(path));
        restricted
    }

    fn learn(&mut self, asked: &str, guest: Guest<'_>) {
        let mut turnable = None;
        let way = follow(Path::new(asked), |path| {
            // Behind such a directory there could be a file system of somebody's own, which answers when he likes.
            match path.to_str().filter(|_| turnable.is_none()) {
                Some(path) => look(&guest.path(path), path, &mut turnable),
                None => Seen::Nothing,
            }
        });
        let directories = way.directories.iter().filter_map(|path| path.to_str());
        self.directories
            .extend(directories.map(|path| guest.path(path)));
        if way.barred.is_some()
            && turnable.is_none()
            && let Some((link, Owner::User(user))) = &way.others
        {
            let link = link.display();
            turnable = Some(format!("user {user} owns {link}, on the way to it"));
        }
        if let Some(how) = turnable {
            let name = way.names.first().and_then(|name| name.to_str());
            self.turnable.insert(name.unwrap_or(asked).to_owned(), how);
            return;
        }
        let Some(end) = way.end.as_deref().and_then(Path::to_str) else {
            return;
        };
        match fs::symlink_metadata(guest.path(end)) {
            Ok(found) if found.is_file() => {
                let paths = self.programs.entry(identity(&found)).or_default();
                paths.insert(end.to_owned());
            }
            Ok(_) => {}
            Err(error) if is_nothing(&error) => {
                self.missing.insert(end.to_owned());
            }
            // It may be there all the same.
            Err(_) => {}
        }
    }
}

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

pub(super) fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn look(place: &Path, path: &str, turnable: &mut Option<String>) -> Seen {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_symlink() => match fs::read_link(place) {
            Ok(target) => Seen::link(target, found.uid(), directory_of(place)),
            Err(_) => Seen::Nothing,
        },
        Ok(found) => {
            if found.is_dir() {
                *turnable = writer(&found).map(|who| format!("{who} {path}, on the way to it"));
            }
            Seen::Other(owner(&found))
        }
        Err(error) if is_nothing(&error) => Seen::Nothing,
        // What cannot be looked at turns no way.
        Err(_) => Seen::Other(Owner::Root),
    }
}

/// The user and the mode of the directory in which something lies.
fn directory_of(place: &Path) -> Option<(u32, u32)> {
    let found = fs::symlink_metadata(place.parent()?).ok()?;
    Some((found.uid(), found.mode()))
}

fn owner(found: &Metadata) -> Owner {
    Owner::of(found.uid(), found.mode())
}

/// Who else than root may put another file or link into a directory, as the beginning of a sentence.
fn writer(directory: &Metadata) -> Option<String> {
    let owner = directory.uid();
    // An agent that does not run as root has nothing to close but its own.
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!("user {owner} owns the directory"));
    }
    let mode = directory.permissions().mode();
    (mode & 0o002 != 0).then(|| "anybody may write to the directory".to_owned())
}
