//! Follows the agent's table and the directories in which its names lie, and marks the files that they lead to: at once when
//! the table is changed, a package is upgraded or a link is turned, and now and then for what no notice tells of, such as a
//! mount. `main` calls it and never comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs, io,
    os::{fd::AsFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_protocol::{GateStanding, GateTable, gate::TABLE_FILE};
use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        fanotify::{Fanotify, MarkFlags, MaskFlags},
        inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
    },
};

use crate::{
    former::Former,
    guarded::{DIRECTORY, Directory, Names, guard},
    judge::{ASKED, ASKED_INSIDE, Barred, Rules, Ruling},
    report::{Sentences, line},
    service::Service,
    standing::Standing,
    targets::{Found, Identity, Places, Targets, find, look},
};

/// Without any notice all is looked up again after so many milliseconds.
const PAUSE_MS: u16 = 10_000;

/// So often all is looked up before the marks are made of what was found. Each time but the last is for directories that were
/// not watched the time before, of which a user who turns a link without end has new ones every time.
const LOOKS_MAX: usize = 8;
/// So many notices are read before all is looked up, by a buffer each; somebody can make them without end.
const READS_MAX: usize = 256;

/// Names that come, go or change, and directories that do.
const NOTICED: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Why the table cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("cannot make {path:?}, where the agent writes the table")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot watch {path:?}")]
    Watch {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    #[error("directories cannot be watched")]
    Notices(#[source] Errno),
}

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error("the table of restricted commands cannot be read: {0}")]
    Read(io::Error),
    #[error("the table of restricted commands cannot be understood: {0}")]
    Parse(serde_json::Error),
}

/// Follows the table for ever.
pub(crate) fn run(
    state: &Path,
    root: &Path,
    group: &Fanotify,
    ruling: &Ruling,
    mut standing: Standing,
    service: &Service,
) -> Result<Infallible, WatchError> {
    let table = state.join(TABLE_FILE);
    let directory = table.parent().unwrap_or(state).to_owned();
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    if let Err(source) = made {
        let path = directory;
        return Err(WatchError::Directory { path, source });
    }
    let notices = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .map_err(WatchError::Notices)?;
    let watched = |source| WatchError::Watch {
        path: directory.clone(),
        source,
    };
    notices.add_watch(&directory, NOTICED).map_err(watched)?;
    let mut marks = Marks {
        root: root.to_owned(),
        group,
        ruling,
        notices: &notices,
        watches: BTreeMap::new(),
        places: Places::new(),
        guards: BTreeMap::new(),
        former: Former::default(),
        is_clean: true,
        twins: Names::new(),
        table: None,
        sentences: Sentences::default(),
    };
    let mut ready = false;
    loop {
        let now = marks.renew(read_table(&table));
        standing.tell(&now);
        if !ready {
            service.tell_ready();
            ready = true;
        }
        let mut waiting = [PollFd::new(notices.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::from(PAUSE_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(WatchError::Notices(errno)),
        }
        // What they say is that something changed; all is looked up again.
        for _ in 0..READS_MAX {
            if notices.read_events().is_err() {
                break;
            }
        }
    }
}

fn read_table(path: &Path) -> Result<Option<GateTable>, TableError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(TableError::Parse),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TableError::Read(error)),
    }
}

/// Looks until nothing is new to the look, or often enough; what the last look found.
fn settled<T>(mut look: impl FnMut() -> (T, bool)) -> T {
    for _ in 1..LOOKS_MAX {
        let (found, is_new) = look();
        if !is_new {
            return found;
        }
    }
    look().0
}

/// What is marked.
struct Marks<'a> {
    root: PathBuf,
    group: &'a Fanotify,
    ruling: &'a Ruling,
    notices: &'a Inotify,
    watches: BTreeMap<PathBuf, WatchDescriptor>,
    /// Where each marked file lies.
    places: Places,
    /// Where each marked directory is.
    guards: BTreeMap<Identity, PathBuf>,
    /// What was marked under this table, and may have been replaced since.
    former: Former,
    /// Whether nothing can be marked.
    is_clean: bool,
    /// Other names that marked files have had.
    twins: Names,
    /// The last table that could be read.
    table: Option<GateTable>,
    /// What was said that somebody else than root can bring about.
    sentences: Sentences,
}

impl Marks<'_> {
    /// Makes the marks those of the table as it is now.
    fn renew(&mut self, table: Result<Option<GateTable>, TableError>) -> GateStanding {
        let mut problems = Vec::new();
        match table {
            Ok(table) => {
                if table != self.table {
                    self.twins.clear();
                    let restricted = table.as_ref().map(|table| table.restricted.as_slice());
                    self.former.keep(restricted.unwrap_or_default());
                }
                self.table = table;
            }
            // The one before holds: a damaged file is no leave.
            Err(error) => problems.push(error.to_string()),
        }
        let targets = self.find(&mut problems);
        self.former.learn(&targets.files);
        let barred = targets.files.iter().map(|(identity, target)| Barred {
            identity: *identity,
            name: Arc::from(target.name.as_str()),
        });
        let barred = barred.chain(self.former.kept_aside(&targets.files));
        let strict = self.table.as_ref().is_some_and(|table| table.strict);
        let guards = strict.then(|| guard(&targets, &mut self.twins, &self.root));
        let (directories, names) = match guards {
            Some(guards) => {
                problems.extend(guards.problems);
                (guards.directories, Some(guards.refused))
            }
            None => (BTreeMap::new(), None),
        };
        // Before the marks, so that the first question finds its answer.
        self.ruling.replace(Rules {
            barred: barred.collect(),
            former: self.former.clone(),
            names,
        });
        self.is_clean &= targets.files.is_empty() && directories.is_empty();
        let guards = self.guard(directories, &mut problems);
        let mut places = Places::new();
        for (identity, target) in &targets.files {
            // Again also where it was marked before: the number can be another file's by now.
            let marked = self.group.mark(
                MarkFlags::FAN_MARK_ADD,
                ASKED,
                AT_FDCWD,
                Some(&target.found.handle()),
            );
            match marked {
                Ok(()) => {
                    if !self.places.contains_key(identity) {
                        let place = target.place.display();
                        let text = format!("`{}` is refused to people: {place}", target.name);
                        if target.is_fixed {
                            line(&text);
                        } else {
                            self.sentences.line(&text);
                        }
                    }
                    places.insert(*identity, target.place.clone());
                }
                Err(errno) => problems.push(format!(
                    "{} cannot be marked: {errno}",
                    target.place.display()
                )),
            }
        }
        self.let_go(places, guards);
        problems.extend(targets.problems);
        GateStanding {
            generation: self.table.as_ref().map(|table| table.generation),
            files: self.places.len(),
            directories: self.guards.len(),
            absent: targets.absent,
            problems,
        }
    }

    /// Looks up until nothing was looked at before it was watched. Where that does not come about soon, what was turned
    /// meanwhile lies in directories that were watched, so the next look comes at once.
    fn find(&mut self, problems: &mut Vec<String>) -> Targets {
        let others = problems.len();
        settled(|| {
            problems.truncate(others);
            let targets = match &self.table {
                Some(table) => find(table, &self.root, &self.places),
                None => Targets::default(),
            };
            let is_new = self.watch(&targets.directories, problems);
            (targets, is_new)
        })
    }

    /// Watches these directories and no others; says whether one is new.
    fn watch(&mut self, directories: &BTreeSet<PathBuf>, problems: &mut Vec<String>) -> bool {
        let mut new = false;
        let mut watches = BTreeMap::new();
        for directory in directories {
            match self.notices.add_watch(directory, NOTICED) {
                Ok(watch) => {
                    new |= self.watches.get(directory) != Some(&watch);
                    watches.insert(directory.clone(), watch);
                }
                // It is found when it is there, after a pause.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => {
                    problems.push(format!("cannot watch {}: {errno}", directory.display()));
                }
            }
        }
        for old in self.watches.values() {
            // Several paths can lead to one directory, which has one watch. It is gone with its directory.
            if !watches.values().any(|watch| watch == old) {
                let _ = self.notices.rm_watch(*old);
            }
        }
        self.watches = watches;
        new
    }

    /// Marks directories as wholes; those that are marked.
    fn guard(
        &self,
        directories: BTreeMap<Identity, Directory>,
        problems: &mut Vec<String>,
    ) -> BTreeMap<Identity, PathBuf> {
        let mut guards = BTreeMap::new();
        for (identity, directory) in directories {
            let marked = self.group.mark(
                MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_ONLYDIR,
                ASKED_INSIDE,
                AT_FDCWD,
                Some(&directory.found.handle()),
            );
            match marked {
                Ok(()) => {
                    guards.insert(identity, directory.place);
                }
                Err(errno) => problems.push(format!(
                    "`strict` does not hold in {}, which cannot be marked: {errno}",
                    directory.place.display()
                )),
            }
        }
        guards
    }

    /// Takes marks off files and directories that no name leads to any more. One that cannot be found is left: the judge
    /// allows what is not in its ruling.
    fn let_go(&mut self, places: Places, guards: BTreeMap<Identity, PathBuf>) {
        let before = std::mem::replace(&mut self.places, places);
        let guarded = std::mem::replace(&mut self.guards, guards);
        if self.places.is_empty() && self.guards.is_empty() && self.former.is_empty() {
            if !self.is_clean {
                let _ = self
                    .group
                    .mark(MarkFlags::FAN_MARK_FLUSH, ASKED, AT_FDCWD, None::<&Path>);
                self.is_clean = true;
                let text = "nothing is refused to people any more";
                match self.table {
                    None => line(text),
                    Some(_) => self.sentences.line(text),
                }
            }
            return;
        }
        for (identity, place) in before {
            if !self.places.contains_key(&identity) {
                self.unmark(identity, look(&place, libc::O_PATH), ASKED);
            }
        }
        for (identity, place) in guarded {
            if !self.guards.contains_key(&identity) {
                self.unmark(identity, look(&place, DIRECTORY), ASKED_INSIDE);
            }
        }
    }

    /// Takes the mark off what was found, if it is this.
    fn unmark(&self, identity: Identity, found: io::Result<Option<Found>>, asked: MaskFlags) {
        if let Ok(Some(found)) = found
            && found.identity() == identity
        {
            // It fails where the mark went with its file and the number was given to another.
            let _ = self.group.mark(
                MarkFlags::FAN_MARK_REMOVE,
                asked,
                AT_FDCWD,
                Some(&found.handle()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_at_every_look_is_looked_at_no_longer_than_a_few_times() {
        let mut looks = 0;
        let last = settled(|| {
            looks += 1;
            (looks, true)
        });
        assert_eq!((last, looks), (LOOKS_MAX, LOOKS_MAX));
        let mut looks = 0;
        let last = settled(|| {
            looks += 1;
            (looks, looks < 3)
        });
        assert_eq!((last, looks), (3, 3));
    }
}
