//! The way from a path to what it leads to, one component after the other as path_resolution(7) has it, so that agent and gate
//! mean the same files by a restricted name and look out for all that could turn it. A link that a user could have put there
//! leads to nothing but that user's own, as where systemd follows paths safely (`CHASE_SAFE`): else that user could name any
//! file. Nothing is read here: whoever asks says what lies where.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

/// As many links the kernel follows, too (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// The kind of a file in its mode, and directories (inode(7)).
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
/// A directory in which only the owner of a thing may rename it or take it away.
const STICKY: u32 = 0o1000;
/// Whoever may write, and with the group.
const OTHERS_WRITE: u32 = 0o002;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// Whose a link or a directory is: who can lead a way through it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Root alone.
    Root,
    /// This user, who is not root.
    User(u32),
    /// Anybody: a directory of root's in which everybody may put one thing in the place of another.
    Anybody,
}

impl Owner {
    /// By the user and the mode that lstat(2) tells, with the kind of the file in it.
    pub fn of(user: u32, mode: u32) -> Self {
        let is_directory = mode & KIND == DIRECTORY;
        match user {
            0 if is_directory && mode & OTHERS_WRITE != 0 && mode & STICKY == 0 => Self::Anybody,
            0 => Self::Root,
            user => Self::User(user),
        }
    }
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A symbolic link.
    Link {
        /// What is written in it.
        target: PathBuf,
        /// Whose it is.
        owner: Owner,
        /// Who can put another link in its place.
        turner: Owner,
    },
    /// Anything else.
    Other(Owner),
    /// Nothing, or nothing that may be looked behind.
    Nothing,
}

impl Seen {
    /// A link by what is written in it, the user who owns it, and the user and the mode of its directory as lstat(2) tells them,
    /// if it does. What is written in a link never changes, so it is turned by whoever may write to its directory, and one that
    /// a user has in a directory that only root may write to (from a copy that keeps owners) by root alone.
    pub fn link(target: PathBuf, user: u32, directory: Option<(u32, u32)>) -> Self {
        let owner = match user {
            0 => Owner::Root,
            user => Owner::User(user),
        };
        // In a group's directory and in a sticky one it can be its owner who may.
        let is_roots =
            directory.is_some_and(|(user, mode)| user == 0 && mode & GROUP_OR_OTHERS_WRITE == 0);
        let turner = if is_roots { Owner::Root } else { owner };
        Self::Link {
            target,
            owner,
            turner,
        }
    }
}

/// A way that was gone. All paths are absolute, and no directory in them is a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Every directory in which a change can change the way, as far as there are any.
    pub directories: BTreeSet<PathBuf>,
    /// The names under which one comes to the end: the path's own, and those that links at the end of the way have for it.
    /// Those that come behind a link of somebody else's than root are left out, since that user chose them.
    pub names: Vec<PathBuf>,
    /// The first link or directory on the way that is not root's alone, and whose it is.
    pub others: Option<(PathBuf, Owner)>,
    /// Where the way is not gone on: a link that is not of who could have put it there, or what such a link leads to and is
    /// somebody else's.
    pub barred: Option<PathBuf>,
    /// Where it ends, whether something lies there or not; nowhere when it is barred, or when there are more links than the
    /// kernel would follow.
    pub end: Option<PathBuf>,
}

impl Way {
    /// Whether a link of this owner is followed.
    fn turns(&self, owner: Owner) -> bool {
        let others = self.others.as_ref();
        others.is_none_or(|(_, whose)| *whose == owner)
    }

    /// Remembers who can turn the way from here on.
    fn pass(&mut self, place: &Path, owner: Owner) {
        if self.others.is_none() && owner != Owner::Root {
            self.others = Some((place.to_owned(), owner));
        }
    }
}

/// Goes the way of an absolute path; `look` says what lies at a path of which no directory is a link. It begins with the root.
pub fn follow(path: &Path, mut look: impl FnMut(&Path) -> Seen) -> Way {
    let mut way = Way::default();
    // What is still to be gone, the next component last.
    let mut ahead: Vec<OsString> = Vec::new();
    let mut place = PathBuf::from("/");
    enter(path, &mut place, &mut ahead);
    if let Seen::Other(owner) = look(&place) {
        way.pass(&place, owner);
    }
    let mut links = 0;
    let mut is_there = true;
    // Whether a link of a user's was followed, so that what comes is of that user's choice.
    let mut is_turned = false;
    while let Some(component) = ahead.pop() {
        let is_up = component == "..";
        let next = if is_up {
            place.pop();
            place.clone()
        } else {
            place.join(component)
        };
        if is_up && !(is_turned && is_there) {
            continue;
        }
        if ahead.is_empty() && !is_turned {
            way.names.push(next.clone());
        }
        let seen = if is_there {
            way.directories.insert(place.clone());
            look(&next)
        } else {
            Seen::Nothing
        };
        match seen {
            Seen::Link {
                target,
                owner,
                turner,
            } => {
                if !way.turns(owner) {
                    way.barred = Some(next);
                    return way;
                }
                links += 1;
                if links > LINKS_MAX {
                    return way;
                }
                way.pass(&next, turner);
                is_turned = way.others.is_some();
                enter(&target, &mut place, &mut ahead);
            }
            Seen::Other(owner) => {
                if is_turned && !way.turns(owner) {
                    way.barred = Some(next);
                    return way;
                }
                // What lies at the end turns no way.
                if !ahead.is_empty() {
                    way.pass(&next, owner);
                }
                place = next;
            }
            Seen::Nothing => {
                is_there = false;
                place = next;
            }
        }
    }
    way.end = Some(place);
    way
}

/// Puts the components of a path before what is ahead; an absolute one begins at the root.
fn enter(path: &Path, place: &mut PathBuf, ahead: &mut Vec<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::RootDir => *place = PathBuf::from("/"),
            Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => ahead.push("..".into()),
            Component::Normal(name) => ahead.push(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A tree of links, all of root; whatever else is named in it is there.
    fn gone(tree: &[(&str, &str)], path: &str) -> Way {
        let roots: Vec<_> = tree.iter().map(|(at, to)| (*at, *to, ROOT)).collect();
        led(&roots, path)
    }

    /// A tree of links with owners; whatever else is named in it is there.
    fn led(tree: &[(&str, &str, Owner)], path: &str) -> Way {
        let tree: BTreeMap<&str, (&str, Owner)> = tree
            .iter()
            .map(|(at, to, owner)| (*at, (*to, *owner)))
            .collect();
        follow(Path::new(path), |path| {
            match tree.get(path.to_str().unwrap()) {
                Some(("", owner)) => Seen::Other(*owner),
                Some((target, owner)) => Seen::Link {
                    target: target.into(),
                    owner: *owner,
                    turner: *owner,
                },
                None => Seen::Nothing,
            }
        })
    }

    const ROOT: Owner = Owner::Root;
    const ANNA: Owner = Owner::User(1000);
    const BOB: Owner = Owner::User(1001);

    /// `/bin/tool` leads to `/home/anna/tool`, and this lies there.
    fn annas(things: &[(&'static str, &'static str, Owner)]) -> Way {
        let mut tree = vec![
            ("/", "", ROOT),
            ("/bin", "", ROOT),
            ("/bin/tool", "../home/anna/tool", ROOT),
            ("/bin/sh", "", ROOT),
            ("/home", "", ROOT),
            ("/home/anna", "", ANNA),
            ("/home/bob", "", BOB),
            ("/home/bob/own", "", BOB),
        ];
        tree.extend(things);
        led(&tree, "/bin/tool")
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn links_of_directories_on_the_way_are_links_like_that_of_the_file() {
        let tree = [
            ("/usr", ""),
            ("/usr/bin", ""),
            ("/usr/bin/tool", "/opt/tool/bin/../bin/./tool"),
            ("/opt", ""),
            ("/opt/tool", "tool-1"),
            ("/opt/tool-1", ""),
            ("/opt/tool-1/bin", ""),
            ("/opt/tool-1/bin/tool", ""),
            ("/bin", "usr/bin"),
        ];
        let way = gone(&tree, "/bin/tool");
        assert_eq!(way.end, Some("/opt/tool-1/bin/tool".into()));
        assert_eq!(way.names, paths(&["/usr/bin/tool", "/opt/tool-1/bin/tool"]));
        let known: Vec<_> = way.directories.into_iter().collect();
        let wanted = [
            "/",
            "/opt",
            "/opt/tool-1",
            "/opt/tool-1/bin",
            "/usr",
            "/usr/bin",
        ];
        assert_eq!(known, paths(&wanted));
    }

    #[test]
    fn a_way_that_breaks_off_is_watched_where_it_does_and_has_the_end_that_it_would_have() {
        let tree = [
            ("/usr", ""),
            ("/usr/tool", "../opt/tool/bin/tool"),
            ("/opt", ""),
        ];
        let way = gone(&tree, "/usr/tool");
        assert_eq!(way.end, Some("/opt/tool/bin/tool".into()));
        assert!(way.directories.contains(Path::new("/opt")));
        assert!(!way.directories.contains(Path::new("/opt/tool")));
        // What comes behind may be a link; as long as it is not there nobody knows.
        assert_eq!(way.names, paths(&["/usr/tool", "/opt/tool/bin/tool"]));
    }

    #[test]
    fn links_that_go_round_have_no_end() {
        let tree = [("/one", "two"), ("/two", "/one")];
        let way = gone(&tree, "/one");
        assert_eq!(way.end, None);
        assert_eq!(way.directories, [PathBuf::from("/")].into());
        let tree = [("/one", "one/x")];
        assert_eq!(gone(&tree, "/one").end, None);
    }

    #[test]
    fn no_way_leads_above_the_root() {
        let tree = [("/tool", "../../etc/tool"), ("/etc", ""), ("/etc/tool", "")];
        assert_eq!(gone(&tree, "/tool").end, Some("/etc/tool".into()));
    }

    #[test]
    fn what_a_user_has_leads_to_that_users_own() {
        let tool = "/home/anna/tool";
        for (things, end) in [
            (&[(tool, "", ANNA)][..], tool),
            (
                &[(tool, "real", ANNA), ("/home/anna/real", "", ANNA)],
                "/home/anna/real",
            ),
            (
                &[
                    (tool, "lib/../lib/real", ANNA),
                    ("/home/anna/lib", "", ANNA),
                    ("/home/anna/lib/real", "", ANNA),
                ],
                "/home/anna/lib/real",
            ),
            // Root's own file in a directory of hers, and in one of root's there.
            (&[(tool, "", ROOT)], tool),
            // It may come.
            (&[(tool, "none", ANNA)], "/home/anna/none"),
        ] {
            let way = annas(things);
            assert_eq!(way.end, Some(end.into()), "{things:?}");
            assert_eq!(way.barred, None);
            assert_eq!(way.others, Some(("/home/anna".into(), ANNA)));
            assert!(way.directories.contains(Path::new("/home/anna")));
        }
    }

    #[test]
    fn what_a_user_has_leads_to_nothing_of_somebody_else() {
        let tool = "/home/anna/tool";
        for (things, barred) in [
            // To a file of root by its path, by one that goes up, and by another name of it.
            (&[(tool, "/bin/sh", ANNA)][..], "/bin"),
            (&[(tool, "../../bin/sh", ANNA)], "/home"),
            (
                &[(tool, "own", ANNA), ("/home/anna/own", "", ROOT)],
                "/home/anna/own",
            ),
            (&[(tool, "../bob/own", ANNA)], "/home"),
            // A link that root left there.
            (&[(tool, "/bin/sh", ROOT)], tool),
            (
                &[(tool, "d/sh", ANNA), ("/home/anna/d", "/bin", ANNA)],
                "/bin",
            ),
        ] {
            let way = annas(things);
            assert_eq!(way.end, None, "{things:?}");
            assert_eq!(way.barred, Some(barred.into()));
            assert_eq!(way.others, Some(("/home/anna".into(), ANNA)));
            // Where it is turned back is looked out for, and nothing behind it.
            assert!(way.directories.contains(Path::new("/home/anna")));
            assert!(!way.directories.contains(Path::new("/home/bob")));
        }
    }

    #[test]
    fn names_that_a_user_chose_are_none_of_the_restricted_ones() {
        let way = annas(&[
            ("/home/anna/tool", "python3", ANNA),
            ("/home/anna/python3", "", ANNA),
        ]);
        assert_eq!(way.end, Some("/home/anna/python3".into()));
        assert_eq!(way.names, paths(&["/bin/tool", "/home/anna/tool"]));
    }

    #[test]
    fn a_link_of_a_users_turns_where_its_owner_may_be_one_who_can_put_another_in_its_place() {
        let tree = |to, owner| {
            let tree = [
                ("/tmp", "", ROOT),
                ("/tmp/tool", to, ANNA),
                ("/tmp/x", "", owner),
            ];
            led(&tree, "/tmp/tool")
        };
        assert_eq!(tree("x", ANNA).end, Some("/tmp/x".into()));
        assert_eq!(tree("x", BOB).barred, Some("/tmp/x".into()));
        assert_eq!(tree("/tmp/x", ANNA).barred, Some("/tmp".into()));
        // A file at the end turns nothing.
        assert_eq!(tree("", ANNA).others, None);
        let turner = |user, directory| match Seen::link("x".into(), user, directory) {
            Seen::Link { turner, .. } => turner,
            other => panic!("{other:?}"),
        };
        for mode in [0o041_777, 0o040_775, 0o040_757] {
            assert_eq!(turner(1000, Some((0, mode))), ANNA, "{mode:o}");
            assert_eq!(turner(0, Some((0, mode))), ROOT, "{mode:o}");
        }
        assert_eq!(turner(1000, Some((0, 0o040_755))), ROOT);
        assert_eq!(turner(1000, Some((1001, 0o040_755))), ANNA);
        assert_eq!(turner(1000, None), ANNA);
    }

    #[test]
    fn a_link_that_its_owner_cannot_turn_leads_on_as_roots_does() {
        let go = |home: Owner| {
            follow(Path::new("/opt/tool"), |path| {
                match path.to_str().unwrap() {
                    "/opt" => Seen::Other(home),
                    "/opt/tool" => Seen::link("/bin/sh".into(), 1000, Some((0, 0o040_755))),
                    _ => Seen::Other(ROOT),
                }
            })
        };
        let way = go(ROOT);
        assert_eq!((way.end, way.others), (Some("/bin/sh".into()), None));
        assert_eq!(way.names, paths(&["/opt/tool", "/bin/sh"]));
        // Whoever can turn the way before it chose it.
        assert_eq!(go(ANNA).barred, Some("/bin".into()));
        assert_eq!(go(BOB).barred, Some("/opt/tool".into()));
    }

    #[test]
    fn where_anybody_may_write_only_what_is_no_link_is_gone_to() {
        let any = Owner::Anybody;
        let tree = |at, to, owner| {
            let tree = [("/srv", "", any), ("/srv/d", "", ROOT), (at, to, owner)];
            led(&tree, at)
        };
        for (at, owner) in [("/srv/x", ROOT), ("/srv/x", ANNA), ("/srv/d/x", ROOT)] {
            assert_eq!(tree(at, "", owner).end, Some(at.into()));
            let way = tree(at, "/bin/sh", owner);
            assert_eq!(way.barred, Some(at.into()));
            assert_eq!(way.others, Some(("/srv".into(), any)));
        }
        assert_eq!(Owner::of(0, 0o040_777), any);
        // Nobody takes away there what is not his own.
        assert_eq!(Owner::of(0, 0o041_777), ROOT);
        assert_eq!(Owner::of(0, 0o040_775), ROOT);
        assert_eq!(Owner::of(0, 0o120_777), ROOT);
        assert_eq!(Owner::of(1000, 0o040_777), ANNA);
    }

    #[test]
    fn a_guest_that_is_all_of_one_user_is_gone_through() {
        let tree = [("/", "", ANNA), ("/x", "y", ANNA), ("/y", "", ANNA)];
        assert_eq!(led(&tree, "/x").end, Some("/y".into()));
    }
}
