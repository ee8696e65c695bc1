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
    path::PathBuf,
};

use agent_protocol::SettingOutcome;
use nix::{
    libc,
    sys::statvfs::{FsFlags, statvfs},
    unistd::geteuid,
};

use super::{
    Guest, Holding, Machine, Resource, SettingError, State, Wishes,
    restricted::{Identity, Restricted, identity, is_nothing},
};
use crate::durable::crash_point;

/// The setting that a program's permissions belong to, with its path behind.
pub(crate) const SETTING: &str = "fail_closed ";
/// What is taken away.
const OTHERS: u32 = 0o007;
/// Permissions, with those that are of the program itself.
const MODE: u32 = 0o7777;
/// What dpkg-statoverride keeps: one entry a line, with user, group, mode and path.
const OVERRIDES: &str = "/var/lib/dpkg/statoverride";
const STATOVERRIDE: &str = "dpkg-statoverride";
/// Whoever may run a file.
const RUN: u32 = 0o111;

/// Where one has to look out for programs that come anew.
pub(crate) fn directories(restricted: &[String], guest: Guest<'_>) -> BTreeSet<PathBuf> {
    Restricted::find(restricted, guest).directories
}

/// Wishes for the programs that these names lead to now. A program is one file, whatever names it has: what is `held` of it is
/// held under another name when its own is not restricted any more. Of what is `held` that is forgotten or entered anew which an
/// upgrade has replaced since: the new file's permissions are the package's, and come back in the end. What somebody has put
/// away stays held until it is back or nobody restricts it any more.
pub(crate) fn wish(
    restricted: &[String],
    held: &mut Vec<Holding>,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    let mut restricted = Restricted::find(restricted, machine.guest);
    for (name, how) in &restricted.turnable {
        wishes.refuse(
            &format!("{SETTING}{name}"),
            &format!("{how}, and could lead it to any file"),
        );
    }
    find_again(held, machine);
    let known = held.clone();
    for paths in restricted.programs.values() {
        let Some(path) = paths.first() else { continue };
        let State::Program { mode, file } = machine.probe(&Resource::Program(path.clone()))? else {
            // It went since it was found.
            restricted.missing.extend(paths.iter().cloned());
            continue;
        };
        let entries: Vec<String> = paths
            .iter()
            .flat_map(|path| machine.override_names(path))
            .collect();
        let base = base_of(&known, paths, (mode, file), &entries);
        // The same name as before where there is a choice, so that nothing changes where nothing has.
        let before = base.as_ref().and_then(program_of);
        let path = before.filter(|path| paths.contains(*path)).unwrap_or(path);
        let path = path.to_owned();
        let setting = format!("{SETTING}{path}");
        let resource = Resource::Program(path.clone());
        held.retain(|held| {
            let is_its = program_of(held).is_some_and(|path| paths.contains(path));
            !is_its && file_of(held) != Some(file)
        });
        let wanted = match &base {
            Some(base) => {
                held.push(Holding {
                    setting: setting.clone(),
                    resource: resource.clone(),
                    written: as_left(base).for_file(file),
                    ..base.clone()
                });
                mode_of(&base.wanted).unwrap_or(mode)
            }
            None if mode & OTHERS == 0 => {
                let why = "it is closed to others by itself";
                wishes.line(&setting, SettingOutcome::Unchanged, why);
                continue;
            }
            None if mode & RUN == 0 => {
                wishes.refuse(&setting, "it is no program: nobody may execute it");
                continue;
            }
            None => mode & !OTHERS,
        };
        if let Some(why) = machine.unfit(&path)? {
            wishes.refuse(&setting, &why);
            continue;
        }
        // The entry comes first, so that there is no moment in which an upgrade brings the program open again.
        let group = machine.group_of(&path)?;
        for name in entries {
            let state = State::Value(format!("root {group} {wanted:o}"));
            wishes.resource(&setting, Resource::Override(name), state);
        }
        let state = State::Program { mode: wanted, file };
        wishes.resource(&setting, resource, state);
    }
    carry_missing(&restricted, held, machine, wishes);
    Ok(())
}

/// What is held of the file that lies at these paths with this mode: of the file itself, or of one that it has replaced.
fn base_of(
    known: &[Holding],
    paths: &BTreeSet<String>,
    (mode, file): (u32, Identity),
    entries: &[String],
) -> Option<Holding> {
    let of_file = |held: &&Holding| {
        file_of(held) == Some(file) && (!is_away(held) || mode_of(as_left(held)) == Some(mode))
    };
    let at_path = |held: &&Holding| program_of(held).is_some_and(|path| paths.contains(path));
    let is_kept = || {
        known.iter().any(
            |held| matches!(&held.resource, Resource::Override(name) if entries.contains(name)),
        )
    };
    // The same permissions on a new file are by the entry of ours.
    let is_like = |held: &&Holding| mode_of(as_left(held)) == Some(mode) && is_kept();
    let mut same = known.iter().filter(of_file);
    let same = same.clone().find(at_path).or_else(|| same.next());
    let base = same.or_else(|| known.iter().filter(at_path).find(is_like));
    base.cloned()
}

/// Keeps what is held of programs that are not there now, with their entries, as it is: a file that is moved away keeps its
/// permissions, and may come back. Where no restricted name leads there any more it is forgotten, since nobody knows the file.
fn carry_missing(
    restricted: &Restricted,
    held: &mut Vec<Holding>,
    machine: &Machine<'_>,
    wishes: &mut Wishes,
) {
    let missing = &restricted.missing;
    let found: BTreeSet<&String> = restricted.programs.values().flatten().collect();
    let mut gone = BTreeSet::new();
    for holding in held.iter() {
        // What came or went since it was looked for is told of and looked at next; until then it is held as it was found.
        if let Some(path) = program_of(holding)
            && (missing.contains(path)
                || !found.contains(path)
                    && matches!(machine.probe_program(path), Ok(State::Absent)))
        {
            gone.insert(path.to_owned());
        }
    }
    let carried = gone.intersection(missing);
    let entries: BTreeSet<String> = carried
        .flat_map(|path| machine.override_names(path))
        .collect();
    held.retain(|held| {
        let (is_gone, is_carried) = match &held.resource {
            Resource::Program(path) => (gone.contains(path), missing.contains(path)),
            Resource::Override(name) => (entries.contains(name), true),
            _ => (false, false),
        };
        if is_gone && is_carried {
            let mut held = held.clone();
            if program_of(&held).is_some() {
                held.written = State::Absent;
            }
            wishes.carried.push(held);
        }
        !is_gone
    });
}

/// What was away and is there again is held as before. Where the permissions are others it is most likely another file that was
/// given the number of one that was removed, and that is closed anew.
fn find_again(held: &mut Vec<Holding>, machine: &Machine<'_>) {
    held.retain_mut(|held| {
        let Some(path) = program_of(held).filter(|_| is_away(held)) else {
            return true;
        };
        match machine.probe_program(path) {
            Ok(State::Absent) | Err(_) => true,
            Ok(live) => {
                // Of another file the entry for dpkg decides whether it is held.
                held.written = held.wanted.clone();
                mode_of(&live) == mode_of(&held.wanted)
            }
        }
    });
}

/// Whether it was not there at the last look.
fn is_away(held: &Holding) -> bool {
    held.written == State::Absent
}

/// How it was when it was last there.
fn as_left(held: &Holding) -> &State {
    if is_away(held) {
        &held.wanted
    } else {
        &held.written
    }
}

fn program_of(held: &Holding) -> Option<&String> {
    match &held.resource {
        Resource::Program(path) => Some(path),
        _ => None,
    }
}

fn file_of(held: &Holding) -> Option<Identity> {
    match as_left(held) {
        State::Program { file, .. } => Some(*file),
        _ => None,
    }
}

fn mode_of(state: &State) -> Option<u32> {
    match state {
        State::Program { mode, .. } => Some(*mode),
        _ => None,
    }
}

impl Machine<'_> {
    pub(super) fn probe_program(&self, path: &str) -> Result<State, SettingError> {
        match self.metadata(path)? {
            Some(metadata) if metadata.is_file() => Ok(State::Program {
                mode: metadata.permissions().mode() & MODE,
                file: identity(&metadata),
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
        if !metadata.is_file() || identity(&metadata) != file {
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
                .is_ok_and(|found| identity(&found) == identity(&metadata))
        };
        let is_shell = ["/bin/sh"].into_iter().chain(shells).any(is_it);
        Ok(is_shell.then(|| "it is a shell of this guest's users, and they need it".to_owned()))
    }

    fn metadata(&self, path: &str) -> Result<Option<fs::Metadata>, SettingError> {
        let place = self.guest.path(path);
        match fs::symlink_metadata(&place) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if is_nothing(&error) => Ok(None),
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
