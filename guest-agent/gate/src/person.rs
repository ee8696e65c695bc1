//! Whether a process belongs to somebody who logged in: by the user who did, which survives `su` and `sudo`, and by the users
//! that it acts as. `judge` asks, while the process waits, so nothing here allocates.

use std::fmt::{self, Write as _};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::read,
};

/// A user's number.
pub(crate) type Uid = u32;

/// The kernel's word for "nobody logged in".
const NOT_SET: Uid = u32::MAX;

/// Who is refused: a person, with what shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Person {
    /// Logged in as this user, whoever it is now.
    LoggedIn(Uid),
    /// Acts as this user, without a login that the kernel knows of.
    ActsAs(Uid),
}

impl Person {
    pub(crate) fn uid(self) -> Uid {
        match self {
            Self::LoggedIn(uid) | Self::ActsAs(uid) => uid,
        }
    }
}

/// People's numbers: from 1000, without what systemd and distributions keep for services (60514 to 65535, `nobody` included).
pub(crate) fn is_persons(uid: Uid) -> bool {
    (1000..=60_513).contains(&uid) || (65_536..NOT_SET).contains(&uid)
}

/// The person a thread belongs to; `None` for the system's own, and for one that is gone.
pub(crate) fn person_of(thread: i32) -> Option<Person> {
    let mut buffer = [0; 2048];
    if let Some(uid) = read_proc(thread, "loginuid", &mut buffer).and_then(number)
        && is_persons(uid)
    {
        return Some(Person::LoggedIn(uid));
    }
    acting(thread)
}

/// The person that a thread acts as; `None` for root and services, also where a person has become that by `sudo`.
pub(crate) fn acting(thread: i32) -> Option<Person> {
    let mut buffer = [0; 2048];
    let status = read_proc(thread, "status", &mut buffer)?;
    users(status)
        .find(|uid| is_persons(*uid))
        .map(Person::ActsAs)
}

fn number(text: &[u8]) -> Option<Uid> {
    str::from_utf8(text).ok()?.trim_ascii().parse().ok()
}

/// The real, effective, saved and file system user of `/proc/PID/status`.
fn users(status: &[u8]) -> impl Iterator<Item = Uid> {
    status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))
        .into_iter()
        .flat_map(|line| line.split(u8::is_ascii_whitespace))
        .filter_map(number)
}

/// The beginning of a file of `/proc/PID`; the users stand in the first lines of `status`.
fn read_proc<'a>(thread: i32, file: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = Path::default();
    write!(path, "/proc/{thread}/{file}").ok()?;
    let file = open(
        path.bytes(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let length = read(file, buffer).ok()?;
    buffer.get(..length)
}

/// A path on the stack.
#[derive(Default)]
struct Path {
    text: [u8; 32],
    length: usize,
}

impl Path {
    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl fmt::Write for Path {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.length + part.len();
        self.text
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_no_people() {
        for uid in [0, 1, 999, 60_514, 61_184, 64_055, 65_534, 65_535, NOT_SET] {
            assert!(!is_persons(uid), "{uid}");
        }
        for uid in [1000, 60_001, 60_513, 65_536, 100_000, NOT_SET - 1] {
            assert!(is_persons(uid), "{uid}");
        }
    }

    #[test]
    fn all_four_users_of_a_process_count() {
        let status = b"Name:\tUid: 1000\nUid:\t0\t7\t8\t1001\nGid:\t1000\t1000\t1000\t1000\n";
        assert_eq!(users(status).collect::<Vec<_>>(), [0, 7, 8, 1001]);
        assert_eq!(users(b"Name:\tx\n").count(), 0);
    }

    #[test]
    fn the_longest_path_has_room() {
        let mut path = Path::default();
        write!(path, "/proc/{}/loginuid", i32::MIN).unwrap();
        assert!(path.bytes().ends_with(b"/loginuid"));
        assert!(write!(path, "{}", "x".repeat(32)).is_err());
    }

    #[test]
    fn a_thread_that_is_not_there_is_nobody() {
        assert_eq!(person_of(0), None);
        assert_eq!(person_of(i32::MAX), None);
    }
}
