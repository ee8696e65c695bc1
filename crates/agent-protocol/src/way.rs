//! The way from a path to what it leads to, one component after the other as path_resolution(7) has it, so that agent and gate
//! mean the same files by a restricted name and look out for all that could turn it. Nothing is read here: whoever asks says
//! what lies where.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

/// As many links the kernel follows, too (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A symbolic link, with what is written in it.
    Link(PathBuf),
    /// Anything else.
    Other,
    /// Nothing, or nothing that may be looked behind.
    Nothing,
}

/// A way that was gone. All paths are absolute, and no directory in them is a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Every directory in which a change can change the way, as far as there are any.
    pub directories: BTreeSet<PathBuf>,
    /// The names under which one comes to the end: the path's own, and those that links at the end of the way have for it.
    pub names: Vec<PathBuf>,
    /// Where it ends, whether something lies there or not; nowhere when there are more links than the kernel would follow.
    pub end: Option<PathBuf>,
}

/// Goes the way of an absolute path; `look` says what lies at a path of which no directory is a link.
pub fn follow(path: &Path, mut look: impl FnMut(&Path) -> Seen) -> Way {
    let mut way = Way::default();
    // What is still to be gone, the next component last.
    let mut ahead: Vec<OsString> = Vec::new();
    let mut place = PathBuf::from("/");
    enter(path, &mut place, &mut ahead);
    let mut links = 0;
    let mut is_there = true;
    while let Some(component) = ahead.pop() {
        if component == ".." {
            place.pop();
            continue;
        }
        let next = place.join(component);
        if ahead.is_empty() {
            way.names.push(next.clone());
        }
        let seen = if is_there {
            way.directories.insert(place.clone());
            look(&next)
        } else {
            Seen::Nothing
        };
        match seen {
            Seen::Link(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return way;
                }
                enter(&target, &mut place, &mut ahead);
            }
            Seen::Other => place = next,
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

    /// A tree of links; whatever else is named in it is there.
    fn gone(tree: &[(&str, &str)], path: &str) -> Way {
        let tree: BTreeMap<&str, &str> = tree.iter().copied().collect();
        follow(Path::new(path), |path| {
            match tree.get(path.to_str().unwrap()) {
                Some(&"") => Seen::Other,
                Some(target) => Seen::Link(target.into()),
                None => Seen::Nothing,
            }
        })
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
}
