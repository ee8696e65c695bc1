//! Tells that something came, went or was renamed in a directory on the way to a closed program, so that one that an upgrade has
//! brought anew, or a link that was turned leads to, is closed again. `activate` says which directories, on the disk thread; the channel waits for what they tell.
//! Nothing is told, and nobody wakes, while nothing changes there.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};

use crate::log::log;

/// A change of permissions is one of these: install(1) gives them last. Of a file that is closed already it stays as somebody made it.
const NOTICED: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The directories that are watched, shared by the two threads.
#[derive(Debug)]
pub(crate) struct Upgrades {
    notices: Inotify,
    watches: Mutex<BTreeMap<PathBuf, WatchDescriptor>>,
    /// The disk thread has been told and has not looked yet.
    told: AtomicBool,
}

impl Upgrades {
    pub(crate) fn open() -> Result<Self, Errno> {
        Ok(Self {
            notices: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
            watches: Mutex::default(),
            told: AtomicBool::new(false),
        })
    }

    /// Watches the directories that are found and no others. One that is not there is not waited for; it is looked for again
    /// until all that was found was watched before.
    pub(crate) fn watch(&self, find: impl Fn() -> BTreeSet<PathBuf>) {
        let mut known = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let watches = self.add(&find());
            let is_new =
                |(path, watch): (&PathBuf, &WatchDescriptor)| known.get(path) != Some(watch);
            let settled = !watches.iter().any(is_new);
            for old in known.values() {
                // Several paths can lead to one directory, which has one watch. It is gone with its directory.
                if !watches.values().any(|watch| watch == old) {
                    let _ = self.notices.rm_watch(*old);
                }
            }
            *known = watches;
            if settled {
                return;
            }
        }
    }

    fn add(&self, directories: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, WatchDescriptor> {
        let mut watches = BTreeMap::new();
        for directory in directories {
            match self.notices.add_watch(directory, NOTICED) {
                Ok(watch) => {
                    watches.insert(directory.clone(), watch);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => log!(
                    "cannot watch {}, so what is replaced there is closed again later: {errno}",
                    directory.display()
                ),
            }
        }
        watches
    }

    /// Whether something changed of which the disk thread does not know yet; it is to be told.
    pub(crate) fn heard(&self) -> bool {
        let mut heard = false;
        while self
            .notices
            .read_events()
            .is_ok_and(|events| !events.is_empty())
        {
            heard = true;
        }
        heard && !self.told.swap(true, Ordering::AcqRel)
    }

    /// The disk thread begins to look: what changes from now on it has to be told again.
    pub(crate) fn looking(&self) {
        self.told.store(false, Ordering::Release);
    }
}

impl AsFd for Upgrades {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn changes_are_told_once_until_somebody_looks_and_permissions_are_such() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let upgrades = Upgrades::open().unwrap();
        upgrades.watch(|| [path(""), path("none")].into());
        assert!(!upgrades.heard());
        fs::write(path("new"), "").unwrap();
        fs::rename(path("new"), path("nc")).unwrap();
        assert!(upgrades.heard() && !upgrades.heard());
        fs::write(path("other"), "").unwrap();
        assert!(!upgrades.heard());
        upgrades.looking();
        assert!(!upgrades.heard());
        fs::set_permissions(path("nc"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(upgrades.heard());
        upgrades.looking();
        fs::read(path("nc")).unwrap();
        assert!(!upgrades.heard());
        fs::remove_file(path("nc")).unwrap();
        assert!(upgrades.heard());
        upgrades.looking();
        upgrades.watch(BTreeSet::new);
        fs::write(path("nc"), "").unwrap();
        upgrades.heard();
        upgrades.looking();
        fs::write(path("another"), "").unwrap();
        assert!(!upgrades.heard());
    }
}
