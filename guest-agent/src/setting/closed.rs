//! Restricted programs that are closed to all but their owner and group, where the guest's owner wants people to be refused also
//! while there is no gate (`fail_closed`). The permissions of others are taken away; where dpkg installs packages an entry of
//! dpkg-statoverride(1) has it keep that through upgrades. What somebody else made of either since is kept, as of any resource.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use agent_protocol::SettingOutcome;
use nix::{
    libc,
    sys::statvfs::{FsFlags, statvfs},
    unistd::geteuid,
};

use super::{Guest, Holding, Machine, Resource, SettingError, State, Wishes};
use crate::{durable::crash_point, script::PATH};

/// The setting that a program's permissions belong to, with its path behind.
pub(crate) const SETTING: &str = "fail_closed ";
/// What is taken away.
const OTHERS: u32 = 0o007;
/// Permissions, with those that are of the program itself.
const MODE: u32 = 0o7777;
/// What dpkg-statoverride keeps: one entry a line, with user, group, mode and path.
const OVERRIDES: &str = "/var/lib/dpkg/statoverride";
const STATOVERRIDE: &str = "dpkg-statoverride";
/// As many links the kernel follows, too (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The programs that names lead to.
#[derive(Debug, Default)]
struct Found {
    /// As the guest names them, behind all links.
    programs: BTreeSet<String>,
    /// Directories in which a change can change the programs.
    directories: BTreeSet<PathBuf>,
}

impl Found {
    fn by(restricted: &[String], guest: Guest<'_>) -> Self {
        let mut found = Self::default();
        for directory in PATH.split(':') {
            if restricted.is_empty() {
                break;
            }
            found.directories.insert(guest.path(directory));
            for name in restricted {
                found.follow(format!("{directory}/{name}"), guest);
            }
        }
        found
    }

    /// Links lead within the guest's tree, wherever its root is.
    fn follow(&mut self, mut path: String, guest: Guest<'_>) {
        for _ in 0..LINKS_MAX {
            let place = guest.path(&path);
            self.directories.extend(place.parent().map(Path::to_owned));
            let Ok(target) = fs::read_link(&place) else {
                break;
            };
            let directory = Path::new(&path).parent().unwrap_or(Path::new("/"));
            let Some(next) = directory.join(target).to_str().map(str::to_owned) else {
                return;
            };
            path = next;
        }
        let root = fs::canonicalize(guest.path("/"));
        let place = fs::canonicalize(guest.path(&path));
        let (Ok(root), Ok(place)) = (root, place) else {
            return;
        };
        if place.is_file()
            && let Ok(below) = place.strip_prefix(root)
            && let Some(below) = below.to_str()
        {
            self.programs.insert(format!("/{below}"));
        }
    }
}

/// Where one has to look out for programs that come anew.
pub(crate) fn directories(restricted: &[String], guest: Guest<'_>) -> BTreeSet<PathBuf> {
    Found::by(restricted, guest).directories
}

/// Wishes for the programs that these names lead to now. Of what is `held` that is forgotten or entered anew which an upgrade has
/// replaced since: the new file's permissions are the package's, and come back in the end.
pub(crate) fn wish(
    restricted: &[String],
    held: &mut Vec<Holding>,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    // A program that is gone has no permissions that somebody could have changed.
    held.retain(|held| match &held.resource {
        Resource::Program(path) => !matches!(machine.probe_program(path), Ok(State::Absent)),
        _ => true,
    });
    for path in Found::by(restricted, machine.guest).programs {
        let setting = format!("{SETTING}{path}");
        let resource = Resource::Program(path.clone());
        let State::Program { mode, file } = machine.probe(&resource)? else {
            continue;
        };
        let entries = machine.override_names(&path);
        let is_kept = |held: &[Holding]| {
            held.iter().any(
                |held| matches!(&held.resource, Resource::Override(name) if entries.contains(name)),
            )
        };
        let at = held.iter().position(|held| held.resource == resource);
        let base = match at.map(|at| (at, held[at].written.clone())) {
            Some((_, State::Program { file: known, .. })) if known == file => at,
            // The same permissions on a new file are by the entry of ours.
            Some((at, State::Program { mode: known, .. })) if known == mode && is_kept(held) => {
                held[at].written = State::Program { mode, file };
                Some(at)
            }
            Some((at, _)) => {
                held.remove(at);
                None
            }
            None => None,
        };
        let wanted = match base.map(|at| &held[at].wanted) {
            Some(State::Program { mode, .. }) => *mode,
            _ if mode & OTHERS == 0 => {
                let why = "it is closed to others by itself";
                wishes.line(&setting, SettingOutcome::Unchanged, why);
                continue;
            }
            _ => mode & !OTHERS,
        };
        if let Some(why) = machine.unfit(&path)? {
            wishes.refuse(&setting, &why);
            continue;
        }
        // The entry comes first, so that there is no moment in which an upgrade brings the program open again.
        for name in entries {
            let group = machine.group_of(&path)?;
            let state = State::Value(format!("root {group} {wanted:o}"));
            wishes.resource(&setting, Resource::Override(name), state);
        }
        let state = State::Program { mode: wanted, file };
        wishes.resource(&setting, resource, state);
    }
    Ok(())
}

impl Machine<'_> {
    pub(super) fn probe_program(&self, path: &str) -> Result<State, SettingError> {
        match self.metadata(path)? {
            Some(metadata) if metadata.is_file() => Ok(State::Program {
                mode: metadata.permissions().mode() & MODE,
                file: (metadata.dev(), metadata.ino()),
            }),
            _ => Ok(State::Absent),
        }
    }

    /// Sets the permissions of this very file. What lies there instead by now is looked at by whoever looks out for upgrades.
    pub(super) fn put_program(
        &self,
        path: &str,
        mode: u32,
        file: (u64, u64),
    ) -> Result<(), SettingError> {
        let place = self.guest.path(path);
        let failed = |source| SettingError::Mode {
            path: place.clone(),
            source,
        };
        // It is not opened, which a gate would be asked about; and a link that is there by now is not followed.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(&place);
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(failed(source)),
        };
        let metadata = opened.metadata().map_err(failed)?;
        if !metadata.is_file() || (metadata.dev(), metadata.ino()) != file {
            return Ok(());
        }
        crash_point();
        let handle = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let set = fs::set_permissions(handle, Permissions::from_mode(mode));
        crash_point();
        set.map_err(failed)?;
        // After a power cut what the record says shall be so. Where a gate refuses to let this process read it, it most likely is.
        let _ = File::open(&place).and_then(|file| file.sync_all());
        Ok(())
    }

    pub(super) fn probe_override(&self, path: &str) -> Result<State, SettingError> {
        let place = self.guest.path(OVERRIDES);
        let text = match fs::read_to_string(&place) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
            Err(source) => {
                return Err(SettingError::Read {
                    path: place,
                    source,
                });
            }
        };
        Ok(entry(&text, path).map_or(State::Absent, State::Value))
    }

    /// Has dpkg-statoverride keep an entry, or none.
    pub(super) fn put_override(&mut self, path: &str, state: &State) -> Result<(), SettingError> {
        let said = if let State::Value(value) = state {
            let mut words = vec![STATOVERRIDE, "--force-statoverride-add", "--add"];
            words.extend(value.split(' '));
            words.push(path);
            self.run(&words)
        } else {
            self.run(&[STATOVERRIDE, "--remove", path])
        };
        said.map(drop)
    }

    /// The names by which dpkg may know a file: also the one that is of before /usr was merged.
    fn override_names(&self, path: &str) -> Vec<String> {
        let has_dpkg = self.guest.has_directory("/var/lib/dpkg");
        if !has_dpkg || self.guest.program(STATOVERRIDE).is_none() {
            return Vec::new();
        }
        let mut names = vec![path.to_owned()];
        if let Some(old) = path.strip_prefix("/usr")
            && let Some(top) = old.split('/').nth(1)
            && self.guest.path(&format!("/{top}")).is_symlink()
        {
            names.push(old.to_owned());
        }
        names
    }

    fn group_of(&self, path: &str) -> Result<String, SettingError> {
        let group = self.metadata(path)?.map_or(0, |metadata| metadata.gid());
        Ok(match group {
            0 => "root".to_owned(),
            other => format!("#{other}"),
        })
    }

    /// Why a program is not to be closed.
    fn unfit(&self, path: &str) -> Result<Option<String>, SettingError> {
        let Some(metadata) = self.metadata(path)? else {
            return Ok(None);
        };
        let owner = metadata.uid();
        // An agent that does not run as root has nothing to close but its own.
        if owner != 0 && owner != geteuid().as_raw() {
            return Ok(Some(format!(
                "it belongs to user {owner}, who could open it again"
            )));
        }
        let place = self.guest.path(path);
        if statvfs(&place).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY)) {
            return Ok(Some("its file system is read-only".to_owned()));
        }
        let users = fs::read_to_string(self.guest.path("/etc/passwd")).unwrap_or_default();
        let shells = users.lines().filter_map(|line| line.split(':').nth(6));
        let is_it = |shell: &str| {
            fs::metadata(self.guest.path(shell))
                .is_ok_and(|found| (found.dev(), found.ino()) == (metadata.dev(), metadata.ino()))
        };
        let is_shell = ["/bin/sh"].into_iter().chain(shells).any(is_it);
        Ok(is_shell.then(|| "it is a shell of this guest's users, and they need it".to_owned()))
    }

    fn metadata(&self, path: &str) -> Result<Option<fs::Metadata>, SettingError> {
        let place = self.guest.path(path);
        match fs::symlink_metadata(&place) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(SettingError::Read {
                path: place,
                source,
            }),
        }
    }
}

/// The entry of a path: user, group and mode in octal digits without zeros before.
fn entry(text: &str, path: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.splitn(4, ' ');
        let (user, group, mode) = (words.next()?, words.next()?, words.next()?);
        let mode = u32::from_str_radix(mode, 8).ok()?;
        (words.next()? == path).then(|| format!("{user} {group} {mode:o}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_that_of_the_whole_path() {
        let text = "root crontab 02755 /usr/bin/crontab\nroot #24 0750 /usr/bin/nc with space\n";
        let of = |path| entry(text, path);
        assert_eq!(of("/usr/bin/crontab").as_deref(), Some("root crontab 2755"));
        assert_eq!(
            of("/usr/bin/nc with space").as_deref(),
            Some("root #24 750")
        );
        assert_eq!(of("/usr/bin/nc"), None);
        assert_eq!(of("/bin/crontab"), None);
    }
}
