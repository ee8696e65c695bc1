//! Which files restricted names lead to, and which directories say when that changes. What somebody else than root could turn
//! leads to nothing but that user's own, and to what lies there itself (`agent_protocol::way`). Files are looked at without being
//! opened: the kernel would ask the gate about itself. `watch` calls this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use agent_protocol::{
    GateTable,
    way::{Owner, Seen, Way, follow},
};
use nix::{libc, sys::stat::FileStat};

use crate::guarded::Names;

/// Below the root.
const KERNELS: [&str; 2] = ["proc", "sys"];

/// Whoever may write (inode(7)).
const OTHERS_WRITE: u32 = 0o002;

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

/// What lies somewhere, looked at and not opened (`O_PATH`), so that what is marked is what was found.
#[derive(Debug)]
pub(crate) struct Found {
    file: File,
    pub(crate) metadata: Metadata,
}

impl Found {
    pub(crate) fn identity(&self) -> Identity {
        Identity::of_file(&self.metadata)
    }

    /// A path that leads to this very thing, whatever becomes of its name.
    pub(crate) fn handle(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Where it lies behind all links; `path` where the kernel does not say.
    pub(crate) fn place(&self, path: &Path) -> PathBuf {
        fs::read_link(self.handle()).unwrap_or_else(|_| path.to_owned())
    }
}

impl AsFd for Found {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file that a restricted command leads to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) found: Found,
    pub(crate) name: String,
    /// Where it lies behind all links.
    pub(crate) place: PathBuf,
    /// Whether a name leads here by a way that nobody but root can turn.
    pub(crate) is_fixed: bool,
}

/// Where files lie that are refused.
pub(crate) type Places = BTreeMap<Identity, PathBuf>;

/// All that a table comes to at the moment.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) files: BTreeMap<Identity, Target>,
    /// Directories in which a change can change the files.
    pub(crate) directories: BTreeSet<PathBuf>,
    /// Those of them in which the commands, links at the end of the way, and the files have their names.
    pub(crate) guarded: BTreeSet<PathBuf>,
    /// The restricted commands, and all names of files that lie on the way from one of them to its file.
    pub(crate) names: Names,
    /// Where the commands are looked up, where nobody but root can turn the way from there.
    pub(crate) paths: Vec<(PathBuf, String)>,
    /// Names that lead to no file.
    pub(crate) absent: Vec<String>,
    /// What could not be looked at.
    pub(crate) problems: Vec<String>,
}

/// Looks all names of a table up, in all of its directories; `refused` is what the last look came to.
pub(crate) fn find(table: &GateTable, root: &Path, refused: &Places) -> Targets {
    let root = &fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut targets = Targets::default();
    // The judge reads files of processes itself, and would have to wait for itself.
    let kernels = KERNELS.map(|directory| root.join(directory));
    for name in &table.restricted {
        let mut found = false;
        for directory in table.path.split(':') {
            let asked = Path::new("/").join(directory).join(name);
            let led = go(&asked, root, refused);
            targets.learn(name, &led.way, root);
            // Else whoever turns it could have any file refused until that is seen, and have the judge wait where he likes.
            if led.is_fixed {
                targets.paths.push((below(root, &asked), name.clone()));
            }
            // Several directories can be one, and one sentence is enough.
            let why = barred(&led.way, &asked).filter(|why| !targets.problems.contains(why));
            targets.problems.extend(why);
            match led.found {
                Ok(Some(file)) if file.metadata.is_file() => {
                    found = true;
                    let place = file.place(&below(root, &asked));
                    if kernels.iter().any(|kernels| place.starts_with(kernels)) {
                        let path = below(root, &asked);
                        let path = path.display();
                        let problem = format!(
                            "{path} leads to a file of the kernel's own, which cannot be marked"
                        );
                        targets.problems.push(problem);
                        continue;
                    }
                    targets.enter(Target {
                        found: file,
                        name: name.clone(),
                        place,
                        is_fixed: led.is_fixed,
                    });
                }
                Ok(_) => found |= led.way.barred.is_some(),
                Err(error) => {
                    let path = below(root, &asked);
                    let problem = format!("{} cannot be looked at: {error}", path.display());
                    targets.problems.push(problem);
                }
            }
        }
        if !found {
            targets.absent.push(name.clone());
        }
    }
    targets
}

impl Targets {
    /// Enters a file. Several ways can lead to it, and one that nobody can turn says what it is before the others.
    fn enter(&mut self, target: Target) {
        let known = self.files.get(&target.found.identity());
        if known.is_none_or(|known| target.is_fixed && !known.is_fixed) {
            self.files.insert(target.found.identity(), target);
        }
    }

    /// Enters the way from a restricted command to its file.
    fn learn(&mut self, command: &str, way: &Way, root: &Path) {
        let directories = way.directories.iter();
        self.directories
            .extend(directories.map(|directory| below(root, directory)));
        for path in &way.names {
            if let Some(directory) = path.parent() {
                self.guarded.insert(below(root, directory));
            }
            if let Some(file) = path.file_name() {
                let names = &mut self.names;
                names
                    .entry(file.to_owned())
                    .or_insert_with(|| command.to_owned());
            }
        }
    }
}

/// A way that was gone in the guest's tree, and what lies at its end.
struct Led {
    way: Way,
    found: io::Result<Option<Found>>,
    /// Whether nobody but root can turn it.
    is_fixed: bool,
}

fn go(asked: &Path, root: &Path, refused: &Places) -> Led {
    let mut is_there = true;
    let mut is_shared = false;
    let mut failed = None;
    let mut way = follow(asked, |path| match seen(&below(root, path)) {
        Ok(Some((seen, found))) => {
            // In a sticky one a name can come and go as well.
            is_shared |= found.is_dir() && found.mode() & OTHERS_WRITE != 0;
            seen
        }
        Ok(None) => {
            is_there = false;
            Seen::Nothing
        }
        Err(error) => {
            failed = Some(error);
            Seen::Nothing
        }
    });
    let is_fixed = way.others.is_none() && !is_shared;
    let found = match (failed, way.end.clone().filter(|_| is_there)) {
        (Some(error), _) => Err(error),
        (None, Some(end)) => end_of(&mut way, &end, root, refused),
        (None, None) => Ok(None),
    };
    Led {
        way,
        found,
        is_fixed,
    }
}

/// What lies at the end of a way. Where somebody could turn the way, this can be done between two looks, and a file can be there
/// under another of its names: then it is what lies there itself only if it is that user's, or has no other name. If it had
/// none when it was refused here before it still is: whoever gives it one elsewhere, such as a package manager or a third, is to
/// free nothing by that.
fn end_of(way: &mut Way, end: &Path, root: &Path, refused: &Places) -> io::Result<Option<Found>> {
    let place = below(root, end);
    let found = look(&place, libc::O_PATH | libc::O_NOFOLLOW)?;
    let (Some(file), Some((_, whose))) = (&found, &way.others) else {
        return Ok(found);
    };
    // Something changes in a directory that is watched, and the way is gone again.
    if file.place(&place) != place {
        return Ok(None);
    }
    let metadata = &file.metadata;
    let is_known = refused.get(&file.identity()) == Some(&place);
    let has_links = metadata.is_file() && metadata.nlink() > 1 && !is_known;
    if has_links && Owner::of(metadata.uid(), metadata.mode()) != *whose {
        way.barred = Some(end.to_owned());
        return Ok(None);
    }
    Ok(found)
}

/// Why a way is not gone to its end.
fn barred(way: &Way, asked: &Path) -> Option<String> {
    let (barred, (turn, owner)) = (way.barred.as_ref()?, way.others.as_ref()?);
    // As it is named where no directory is a link.
    let asked = way.names.first().map_or(asked, PathBuf::as_path).display();
    let (barred, turn) = (barred.display(), turn.display());
    Some(match owner {
        Owner::User(user) => format!(
            "what {asked} leads to is not refused: user {user} owns {turn} and could lead it to any file, and {barred} is not that user's"
        ),
        Owner::Anybody | Owner::Root => format!(
            "what {asked} leads to is not refused: anybody may write to {turn} and could lead it to any file by {barred}"
        ),
    })
}

/// A path of the guest in its tree.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What lies at a path of the tree, for whoever goes a way.
fn seen(place: &Path) -> io::Result<Option<(Seen, Metadata)>> {
    let found = match fs::symlink_metadata(place) {
        Ok(found) => found,
        Err(error) if is_nothing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !found.is_symlink() {
        let owner = Owner::of(found.uid(), found.mode());
        return Ok(Some((Seen::Other(owner), found)));
    }
    match fs::read_link(place) {
        Ok(target) => {
            let directory = place
                .parent()
                .and_then(|directory| fs::symlink_metadata(directory).ok());
            let directory = directory.map(|directory| (directory.uid(), directory.mode()));
            Ok(Some((Seen::link(target, found.uid(), directory), found)))
        }
        // It went, or is a link no more; its directory tells.
        Err(error) if is_nothing(&error) || error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// What lies at a path, by the flags of open(2) of which `O_PATH` is one; `None` where nothing of the kind does.
pub(crate) fn look(path: &Path, flags: i32) -> io::Result<Option<Found>> {
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if is_nothing(&error) || error.raw_os_error() == Some(libc::ELOOP) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(Some(Found { file, metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        ffi::OsStr,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };

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

        let targets = find(
            &table(&["nc", "loop", "folder", "none"]),
            root.path(),
            &Places::new(),
        );
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

    #[test]
    fn where_a_link_of_a_directory_lies_is_known_and_where_one_would_come() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for directory in ["usr/bin", "opt/tool-1/bin", "srv"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("opt/tool-1/bin/tool"), "").unwrap();
        symlink("tool-1", path("opt/tool")).unwrap();
        symlink("../../opt/tool/bin/tool", path("usr/bin/tool")).unwrap();
        symlink("../../srv/later/bin/late", path("usr/bin/late")).unwrap();
        let targets = find(&table(&["tool", "late"]), root.path(), &Places::new());
        assert_eq!(targets.absent, ["late"]);
        for directory in ["opt", "opt/tool-1", "opt/tool-1/bin", "srv", "usr/bin"] {
            assert!(
                targets.directories.contains(&path(directory)),
                "{directory}"
            );
        }
        // What lies in them is opened under other names.
        assert!(!targets.guarded.contains(&path("opt")));
        assert!(targets.guarded.contains(&path("opt/tool-1/bin")));
    }

    #[test]
    fn where_anybody_can_make_names_a_way_leads_to_a_file_and_is_not_looked_up_for_the_judge() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for directory in ["usr/bin", "tmp"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::set_permissions(path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        for file in ["usr/bin/nc", "tmp/tool"] {
            fs::write(path(file), "").unwrap();
        }
        symlink("../../tmp/tool", path("usr/bin/tool")).unwrap();
        let targets = find(&table(&["nc", "tool"]), root.path(), &Places::new());
        let fixed = |name: &str| {
            let file = targets.files.values().find(|file| file.name == name);
            let is_looked_up = targets
                .paths
                .contains(&(path("usr/bin").join(name), name.into()));
            (file.unwrap().is_fixed, is_looked_up)
        };
        assert_eq!(fixed("nc"), (true, true));
        assert_eq!(fixed("tool"), (false, false));
    }

    #[test]
    fn a_file_to_which_several_ways_lead_lies_where_one_does_that_nobody_can_turn() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for directory in ["usr/bin", "usr/local/bin", "opt", "bin"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("opt/tool"), "").unwrap();
        for own in ["opt", "opt/tool"] {
            chown(path(own), Some(998), None).unwrap();
        }
        symlink("../../../opt/tool", path("usr/local/bin/tool")).unwrap();
        let found = || {
            let targets = find(&table(&["tool"]), root.path(), &Places::new());
            let (_, file) = targets.files.into_iter().next().unwrap();
            (file.place, file.is_fixed)
        };
        assert_eq!(found(), (path("opt/tool"), false));
        fs::hard_link(path("opt/tool"), path("usr/bin/tool")).unwrap();
        symlink("../opt/tool", path("bin/tool")).unwrap();
        assert_eq!(found(), (path("usr/bin/tool"), true));
    }

    #[test]
    fn a_directory_at_the_end_of_somebody_elses_way_is_no_file_with_hard_links() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for directory in ["usr/bin", "opt/tool/in"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        chown(path("opt"), Some(998), None).unwrap();
        symlink("../../opt/tool", path("usr/bin/tool")).unwrap();
        let targets = find(&table(&["tool"]), root.path(), &Places::new());
        assert_eq!(targets.absent, ["tool"]);
        assert_eq!(targets.problems, [""; 0]);
    }
}
