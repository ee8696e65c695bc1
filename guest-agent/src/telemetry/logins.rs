//! How many logins have failed, by the growth of `/var/log/btmp`: sshd(8), login(1) and others add a record of one size for each.
//! Nothing is read of who it was. sudo(8) and su(1) do not write there. Called by `logs`.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// Bytes of a record (utmp(5)): where a 64-bit machine runs no 32-bit programs, times in it are wider.
const RECORD: u64 = if cfg!(target_arch = "aarch64") {
    400
} else {
    384
};

/// The file, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    File { inode: u64, records: u64 },
}

/// The failed logins since the file was first looked at.
#[derive(Debug, Default)]
pub(super) struct FailedLogins {
    known: Option<Seen>,
    grown: u64,
}

impl FailedLogins {
    /// `None` where the guest does not record them.
    pub(super) fn look(&mut self, root: &Path) -> Option<u64> {
        let path = root.join("var/log/btmp");
        let now = match see(&path) {
            Ok(seen) => seen,
            Err(_) => return None,
        };
        let before = self.known.replace(now);
        let Seen::File { inode, records } = now else {
            return None;
        };
        let come = match before {
            None => 0,
            Some(Seen::File {
                inode: known,
                records: before,
            }) if known == inode && before <= records => records - before,
            Some(Seen::File {
                inode: known,
                records: before,
            }) => {
                // It was rotated away with what came until then, or emptied.
                let last = match see(&path.with_file_name("btmp.1")) {
                    Ok(Seen::File { inode, records }) if inode == known => records,
                    _ => before,
                };
                records.saturating_add(last.saturating_sub(before))
            }
            Some(Seen::Nothing) => records,
        };
        self.grown = self.grown.saturating_add(come);
        Some(self.grown)
    }

    /// What was not looked at meanwhile does not count.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}

fn see(path: &Path) -> io::Result<Seen> {
    match fs::metadata(path) {
        Ok(of) if of.is_file() => Ok(Seen::File {
            inode: of.ino(),
            records: of.len() / RECORD,
        }),
        Ok(_) => Ok(Seen::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::Nothing),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_come_are_counted_also_over_a_rotation() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("var/log/btmp");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = |records: u64| {
            let length = usize::try_from(records * RECORD).unwrap();
            fs::write(&path, vec![0; length]).unwrap();
        };
        let mut logins = FailedLogins::default();
        assert_eq!(logins.look(root.path()), None, "nobody records them");
        write(2);
        assert_eq!(logins.look(root.path()), Some(2), "the file is new");
        write(5);
        assert_eq!(logins.look(root.path()), Some(5));
        write(6);
        fs::rename(&path, path.with_file_name("btmp.1")).unwrap();
        write(1);
        assert_eq!(logins.look(root.path()), Some(7));
        write(0);
        assert_eq!(logins.look(root.path()), Some(7), "somebody emptied it");
        write(1);
        assert_eq!(logins.look(root.path()), Some(8));
        fs::remove_file(&path).unwrap();
        assert_eq!(logins.look(root.path()), None);
        let mut later = FailedLogins::default();
        write(9);
        assert_eq!(later.look(root.path()), Some(0), "what was before");
    }
}
