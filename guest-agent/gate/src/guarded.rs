//! Strict mode: the directories in which restricted names lie are marked, too, so that the kernel asks about all that is
//! opened in them, and a file is refused by its name from its first open on, before anybody has seen that it is there. `watch`
//! looks the directories up; `judge` asks for names.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirEntryExt as _, MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    libc,
    sys::{stat::stat, statfs::fstatfs},
};

use crate::targets::{Found, Identity, Target, Targets, look};

/// Directories whose files are devices, pipes and the kernel's own, below the root: to be handed one of them can do something,
/// and the judge reads files of processes itself.
const NOT_FILES: [&str; 4] = ["dev", "proc", "sys", "run"];
/// How dpkg names a file that it unpacks, and one that it is about to replace.
const DPKG: [&[u8]; 2] = [b".dpkg-new", b".dpkg-tmp"];
/// How apk names each file that it unpacks; the rest is a number.
const APK: &[u8] = b".apk.";
/// rpm puts this and eight hexadecimal digits behind the name.
const RPM: u8 = b';';
/// What proc(5) puts behind the name of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";
/// File systems that answer when another machine or a program does, by their numbers in statfs(2): NFS, FUSE, 9P, SMB (three
/// of them), Ceph, AFS (two), Coda, GFS2, OCFS2, Lustre. Some also hold a directory while the judge is asked about a file in it.
const FOREIGN: [u32; 13] = [
    0x6969,
    0x6573_5546,
    0x0102_1997,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x5346_414f,
    0x6b41_4653,
    0x7375_7245,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
];

/// How a directory is looked at.
pub(crate) const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// A directory that is to be marked.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) found: Found,
    pub(crate) place: PathBuf,
}

/// What strict mode comes to at the moment.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    pub(crate) directories: BTreeMap<Identity, Directory>,
    pub(crate) refused: Refused,
    /// Directories that are not guarded, and why.
    pub(crate) problems: Vec<String>,
}

/// Names of files, each with the restricted command that it belongs to.
pub(crate) type Names = BTreeMap<OsString, String>;

/// Looks up the directories of what was found, and the names that are refused in them. `twins` are the other names that the
/// files have had under this table; a package that is half unpacked has not all of them.
pub(crate) fn guard(targets: &Targets, twins: &mut Names, root: &Path) -> Guards {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut guards = Guards::default();
    let mut foreign = false;
    for path in &targets.guarded {
        let found = match look(path, DIRECTORY) {
            Ok(Some(found)) => found,
            // When it comes its parent tells, or the next look finds it.
            Ok(None) => continue,
            Err(error) => {
                let problem = format!("{} cannot be looked at: {error}", path.display());
                guards.problems.push(problem);
                continue;
            }
        };
        let identity = found.identity();
        if guards.directories.contains_key(&identity) {
            continue;
        }
        let place = found.place(path);
        // Somebody has turned the way since it was gone, which a watched directory tells, and it is gone again.
        if place != *path {
            continue;
        }
        let directory = Directory { found, place };
        let unfit = if is_foreign(&directory.found) {
            foreign = true;
            Some("its file system would have to be waited for".to_owned())
        } else {
            unfit(&directory, &root)
        };
        match unfit {
            None => {
                guards.directories.insert(identity, directory);
            }
            Some(why) => guards.problems.push(format!(
                "`strict` does not hold in {}: {why}",
                directory.place.display()
            )),
        }
    }
    for target in targets.files.values() {
        for twin in twins_of(target, &guards) {
            twins.entry(twin).or_insert_with(|| target.name.clone());
        }
    }
    let listed = twins.iter().chain(&targets.names);
    guards.refused = Refused {
        listed: listed
            .map(|(name, command)| (name.as_bytes().to_vec(), Arc::from(command.as_str())))
            .collect(),
        // Nobody is to wait for another machine's answer; then links that are turned are refused when `watch` has seen it.
        paths: targets
            .paths
            .iter()
            .filter(|_| !foreign)
            .filter_map(|(path, command)| {
                let path = CString::new(path.as_os_str().as_bytes()).ok()?;
                Some((path, Arc::from(command.as_str())))
            })
            .collect(),
    };
    guards
}

fn is_foreign(found: &Found) -> bool {
    fstatfs(found.as_fd()).is_ok_and(|found| {
        u32::try_from(found.filesystem_type().0).is_ok_and(|kind| FOREIGN.contains(&kind))
    })
}

/// Why a directory is not to be marked.
fn unfit(directory: &Directory, root: &Path) -> Option<String> {
    let below = directory.place.strip_prefix(root).ok();
    if below.is_some_and(|below| NOT_FILES.iter().any(|first| below.starts_with(first))) {
        return Some("what lies there are no files of programs".to_owned());
    }
    let metadata = &directory.found.metadata;
    // Somebody's own directory could lead to a file system of his own, which answers the judge when it likes; and what its owner
    // gives a second name there would be refused by that in all others.
    let theirs = metadata.uid() != 0 || metadata.permissions().mode() & 0o002 != 0;
    theirs.then(|| "others than the system may write there".to_owned())
}

/// Other names of the same file in the guarded directories: a package that brings the file anew brings them as well.
fn twins_of(target: &Target, guards: &Guards) -> Vec<OsString> {
    let metadata = &target.found.metadata;
    if metadata.nlink() < 2 {
        return Vec::new();
    }
    let mut twins = Vec::new();
    for directory in guards.directories.values() {
        for entry in fs::read_dir(&directory.place)
            .into_iter()
            .flatten()
            .flatten()
        {
            let same = entry.ino() == metadata.ino()
                && entry
                    .metadata()
                    .is_ok_and(|found| found.dev() == metadata.dev());
            // Whoever unpacks it has to open it.
            if same && unpacked(entry.file_name().as_bytes()).is_none() {
                twins.push(entry.file_name());
            }
        }
    }
    twins
}

/// The name that dpkg or rpm will give a file that has this name while it is unpacked or replaced.
fn unpacked(name: &[u8]) -> Option<&[u8]> {
    if let Some(unpacked) = DPKG.iter().find_map(|suffix| name.strip_suffix(*suffix)) {
        return Some(unpacked);
    }
    let (unpacked, number) = name.split_at_checked(name.len().checked_sub(9)?)?;
    let is_rpms = number[0] == RPM && number[1..].iter().all(u8::is_ascii_hexdigit);
    is_rpms.then_some(unpacked)
}

/// A name that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Of a restricted command, which is this, or of its file.
    Command(Arc<str>),
    /// Of a file that is unpacked for one: whoever installs it opens it, too, and may have become root for that by `sudo`.
    Unpacked(Arc<str>),
}

/// Names that are refused in guarded directories. Which directory it is does not count: a person's own mounts give any path to
/// any directory, and the kernel asks about guarded ones alone.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    /// Restricted commands by names of files.
    listed: BTreeMap<Vec<u8>, Arc<str>>,
    /// Where restricted commands are looked up.
    paths: Vec<(CString, Arc<str>)>,
}

impl Refused {
    /// What an open file is by its name.
    pub(crate) fn of(&self, file: BorrowedFd<'_>) -> Option<Name> {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        match fs::read_link(link) {
            Ok(path) => self.named(path.file_name().unwrap_or(OsStr::new("")).as_bytes()),
            // A path can be made longer than the kernel can say it; what cannot be known is no leave.
            Err(_) => Some(Name::Command(Arc::from("a file whose name cannot be told"))),
        }
    }

    fn named(&self, name: &[u8]) -> Option<Name> {
        let name = name.strip_suffix(DELETED).unwrap_or(name);
        let known = |name: &[u8]| self.listed.get(name).map(Arc::clone);
        if let Some(command) = known(name) {
            return Some(Name::Command(command));
        }
        if name.starts_with(APK) {
            return Some(Name::Unpacked(Arc::from("a file that is being unpacked")));
        }
        known(unpacked(name)?).map(Name::Unpacked)
    }

    /// The restricted command that leads to a file at this moment: one whose link was just turned, or that somebody reached
    /// by a mount of his own. Looking at a file is no opening, so nobody is asked about it.
    pub(crate) fn leading_to(&self, identity: Identity) -> Option<Arc<str>> {
        let found = self.paths.iter().find(|(path, _)| {
            stat(path.as_c_str()).is_ok_and(|found| Identity::of(&found) == identity)
        })?;
        Some(Arc::clone(&found.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{Places, find};
    use std::os::unix::fs::{chown, symlink};

    #[test]
    fn a_name_is_refused_also_while_its_file_is_unpacked_or_already_gone() {
        let names = Refused {
            listed: [(b"nc".to_vec(), Arc::from("nc"))].into(),
            paths: Vec::new(),
        };
        for name in [
            "nc",
            "nc (deleted)",
            "nc.dpkg-new",
            "nc.dpkg-tmp",
            "nc.dpkg-new (deleted)",
            "nc;5f3a01Bc",
            ".apk.0123456789abcdef",
        ] {
            assert!(names.named(name.as_bytes()).is_some(), "{name}");
        }
        for name in [
            "",
            "nca",
            "anc",
            "nc.old",
            "nc.dpkg",
            "nc;5f3a01",
            "nc;5f3a01xx",
            "x;5f3a01bc",
            "apk.",
            "dpkg-new",
            "other.dpkg-new",
            "(deleted)",
        ] {
            assert_eq!(names.named(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn where_devices_are_or_others_write_no_directory_is_marked() {
        let root = tempfile::tempdir().unwrap();
        let own = stat(root.path()).unwrap().st_uid != 0;
        let mut targets = Targets::default();
        for (path, mode, user) in [
            ("usr/bin", 0o755, 0),
            ("run/x", 0o755, 0),
            ("srv", 0o757, 0),
            ("opt/app", 0o755, 998),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if !own {
                chown(&path, Some(user), None).unwrap();
            }
            targets.guarded.insert(path);
        }
        // Somebody put a link there after the way was gone.
        symlink("usr", root.path().join("turned")).unwrap();
        targets.guarded.insert(root.path().join("turned"));
        targets.guarded.insert(root.path().join("turned/bin"));
        fs::create_dir(root.path().join("sbin")).unwrap();
        symlink("../sbin", root.path().join("opt/link")).unwrap();
        targets.guarded.insert(root.path().join("opt/link"));
        targets.guarded.insert(root.path().join("none"));
        let guards = guard(&targets, &mut Names::new(), root.path());
        assert_eq!(guards.directories.len(), usize::from(!own));
        assert_eq!(
            guards.problems.len(),
            3 + usize::from(own),
            "{:?}",
            guards.problems
        );
    }

    #[test]
    fn another_name_of_the_same_file_is_a_name_of_it() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("perl"), "").unwrap();
        fs::hard_link(path("perl"), path("perl5")).unwrap();
        fs::write(path("other"), "").unwrap();
        if stat(root.path()).unwrap().st_uid != 0 {
            return;
        }
        let table = agent_protocol::GateTable {
            persona: "p".to_owned(),
            generation: 1,
            path: "/".to_owned(),
            restricted: vec!["perl".to_owned()],
            strict: true,
        };
        let mut twins = Names::new();
        let mut guards = || {
            let targets = find(&table, root.path(), &Places::new());
            guard(&targets, &mut twins, root.path()).refused
        };
        assert!(guards().named(b"perl5").is_some());
        assert_eq!(guards().named(b"other"), None);
        let identity = |name: &str| Identity::of(&stat(&path(name)).unwrap());
        assert!(guards().leading_to(identity("perl5")).is_some());
        assert_eq!(guards().leading_to(identity("other")), None);
        // Half of the new package is there.
        fs::remove_file(path("perl")).unwrap();
        fs::write(path("perl"), "").unwrap();
        assert!(guards().named(b"perl5").is_some());
    }
}
