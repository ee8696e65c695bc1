//! Log records of priority error or worse where there is no journal: in the file of a syslog daemon that says priorities, as
//! busybox's does (`Nov 22 00:17:17 host daemon.err sshd[1]: …`). Lines without one cannot be told apart, so a file in the
//! usual form of rsyslog says nothing. Only what is added to the file is read. Called by `logs`.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Where such daemons write.
const FILES: [&str; 2] = ["var/log/messages", "var/log/syslog"];
/// Bytes that are read in one look; what a flood brings beyond is left out.
const READ_MAX: u64 = 1024 * 1024;
/// Lines of which none says a priority: then no line of the file does.
const SILENT: u64 = 20;

#[derive(Clone, Copy, Debug)]
struct Position {
    file: usize,
    inode: u64,
    at: u64,
}

/// The records since a file was first looked at.
#[derive(Debug, Default)]
pub(super) struct SyslogFile {
    position: Option<Position>,
    grown: u64,
    /// Lines that said a priority, and that said none since the last that did.
    said: u64,
    silent: u64,
}

impl SyslogFile {
    /// `None` where no file says priorities, and before one has said the first.
    pub(super) fn look(&mut self, root: &Path) -> Option<u64> {
        for (number, name) in FILES.iter().enumerate() {
            if self.follow(&root.join(name), number).is_ok() {
                return (self.said > 0 && self.silent < SILENT).then_some(self.grown);
            }
        }
        self.forget();
        None
    }

    /// What was not looked at meanwhile does not count.
    pub(super) fn forget(&mut self) {
        self.position = None;
    }

    fn follow(&mut self, path: &Path, file: usize) -> io::Result<()> {
        let mut open = File::open(path)?;
        let of = open.metadata()?;
        let (inode, end) = (of.ino(), of.len());
        let before = self.position.filter(|before| before.file == file);
        let counts = before.is_some();
        let at = match before {
            Some(before) if before.inode == inode && before.at <= end => before.at,
            Some(_) => 0,
            // Its end shows whether it says priorities at all.
            None => end.saturating_sub(4096),
        };
        let at = at.max(end.saturating_sub(READ_MAX));
        open.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        open.take(end - at).read_to_end(&mut bytes)?;
        // A line that is being written is read when it is whole.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |last| last + 1);
        for line in bytes[..whole].split(|byte| *byte == b'\n') {
            match severity(line) {
                Some(level) => {
                    self.said += 1;
                    self.silent = 0;
                    if counts && level == Level::Error {
                        self.grown = self.grown.saturating_add(1);
                    }
                }
                None if line.is_empty() => {}
                None => self.silent = self.silent.saturating_add(1),
            }
        }
        let at = at.saturating_add(whole as u64);
        self.position = Some(Position { file, inode, at });
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Less,
}

/// The level of a line that says it: behind month, day, time and host.
fn severity(line: &[u8]) -> Option<Level> {
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let word = words.nth(4)?;
    let point = word.iter().position(|byte| *byte == b'.')?;
    let (facility, level) = (&word[..point], &word[point + 1..]);
    if facility.is_empty() || !facility.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    match level {
        b"emerg" | b"alert" | b"crit" | b"err" => Some(Level::Error),
        b"warn" | b"notice" | b"info" | b"debug" => Some(Level::Less),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn add(path: &Path, text: &str) {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_with_a_priority_are_counted_from_the_first_look_on() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("var/log/messages");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = SyslogFile::default();
        assert_eq!(file.look(root.path()), None);
        add(
            &path,
            "Nov 22 00:17:17 a daemon.err x: old\nNov  2 00:17:18 a kern.",
        );
        assert_eq!(file.look(root.path()), Some(0), "what was before");
        add(
            &path,
            "crit kernel: new\nNov  2 00:17:19 a cron.info c: err\n",
        );
        assert_eq!(file.look(root.path()), Some(1));
        fs::rename(&path, path.with_extension("0")).unwrap();
        add(
            &path,
            "Nov 22 00:17:17 a auth.alert x: y\n\u{1b}[2J daemon.err\n",
        );
        assert_eq!(file.look(root.path()), Some(2));
    }

    #[test]
    fn a_file_that_says_no_priorities_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("var/log/syslog");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = SyslogFile::default();
        add(&path, "Nov 22 00:17:17 host sshd[1]: error: no.err here\n");
        assert_eq!(file.look(root.path()), None);
        add(
            &path,
            "Nov 22 00:17:17 host kern.err kernel: one that does\n",
        );
        assert_eq!(file.look(root.path()), Some(1));
        add(&path, &"Nov 22 00:17:17 host sshd[1]: y\n".repeat(20));
        assert_eq!(file.look(root.path()), None);
    }
}
