//! Files that a restricted name led to before and that another file has replaced. Who kept a handle of one (an open descriptor,
//! a bind mount) could run it once its name is another file's, so people stay refused it. `watch` enters the files, `judge` asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::libc;

use crate::{
    judge::Barred,
    targets::{Identity, Target, look},
};

/// How dpkg names what it is about to replace, until it has unpacked the whole package.
const REPLACED: &str = ".dpkg-tmp";

/// A restricted command, and where its file was.
#[derive(Clone, Debug)]
struct Place {
    command: Arc<str>,
    path: PathBuf,
}

/// All files that were refused under the restricted names of now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Former(BTreeMap<Identity, Place>);

impl Former {
    /// Forgets the files of commands that are not restricted any more.
    pub(crate) fn keep(&mut self, restricted: &[String]) {
        let restricted: BTreeSet<&str> = restricted.iter().map(String::as_str).collect();
        self.0
            .retain(|_, place| restricted.contains(&*place.command));
    }

    /// Learns what is refused now, but for what somebody else than root led a name to: that user could put one file after the
    /// other there, and would choose where they are looked for.
    pub(crate) fn learn(&mut self, files: &BTreeMap<Identity, Target>) {
        for (identity, target) in files.iter().filter(|(_, target)| target.is_fixed) {
            let place = Place {
                command: Arc::from(target.name.as_str()),
                path: target.place.clone(),
            };
            self.0.insert(*identity, place);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The command that a file of this number was, if it has no name left. One that has is nobody's file any more: an
    /// alternative that was turned away, or a new file that was given the same number.
    pub(crate) fn name_of(&self, identity: Identity, links: u64) -> Option<Arc<str>> {
        let place = self.0.get(&identity).filter(|_| links == 0)?;
        Some(Arc::clone(&place.command))
    }

    /// Those that dpkg keeps under another name to put them back should it fail.
    pub(crate) fn kept_aside(&self, files: &BTreeMap<Identity, Target>) -> Vec<Barred> {
        let aside = |identity: Identity, place: &Place| {
            let path = aside(&place.path);
            let found = look(&path, libc::O_PATH | libc::O_NOFOLLOW).ok().flatten();
            found.is_some_and(|found| found.identity() == identity && found.place(&path) == path)
        };
        let replaced = self
            .0
            .iter()
            .filter(|(identity, place)| !files.contains_key(identity) && aside(**identity, place));
        replaced
            .map(|(identity, place)| Barred {
                identity: *identity,
                name: Arc::clone(&place.command),
            })
            .collect()
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(REPLACED);
    name.into()
}
