//! What the guest itself shows: CPUs, memory, boot and files, read from procfs and sysfs.
//!
//! It only looks, apart from the two things that a test cannot do from outside: a signal and a restart.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::command::RebootKind;

/// The most bytes of a file that one reply carries.
const MAX_CONTENT: u64 = 16 << 10;
/// The most names of a directory that one reply carries.
const MAX_NAMES: usize = 512;

/// Why the witness cannot answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WitnessError {
    /// A file or directory that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The path.
        path: String,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// Not the name of a signal.
    #[error("'{0}' is not a signal; give its name, such as SIGKILL")]
    Signal(String),
    /// No process has this name.
    #[error("no process is called '{0}'")]
    NoProcess(String),
    /// The signal could not be sent.
    #[error("cannot signal process {pid}")]
    Kill {
        /// The process.
        pid: i32,
        /// The kernel's reason.
        #[source]
        source: nix::Error,
    },
    /// The restart could not be begun.
    #[error("cannot restart the guest")]
    Reboot(#[source] std::io::Error),
}

/// The guest's own view. A value that the guest does not tell is absent.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    /// The list of CPUs that are online, as `/sys/devices/system/cpu/online` gives it.
    pub(crate) cpus_online: Option<String>,
    /// The list of CPUs that are plugged, online or not.
    pub(crate) cpus_present: Option<String>,
    /// `MemTotal` in bytes.
    pub(crate) mem_total: Option<u64>,
    /// `MemAvailable` in bytes.
    pub(crate) mem_available: Option<u64>,
    /// Seconds since the kernel started.
    pub(crate) uptime: Option<f64>,
    /// The identifier of this boot.
    pub(crate) boot_id: Option<String>,
    /// The three load averages.
    pub(crate) load: Option<String>,
}

/// What the guest shows now.
pub(crate) fn view() -> View {
    let meminfo = text("/proc/meminfo").unwrap_or_default();
    View {
        cpus_online: text("/sys/devices/system/cpu/online"),
        cpus_present: text("/sys/devices/system/cpu/present"),
        mem_total: meminfo_bytes(&meminfo, "MemTotal"),
        mem_available: meminfo_bytes(&meminfo, "MemAvailable"),
        uptime: text("/proc/uptime").and_then(|text| text.split(' ').next()?.parse().ok()),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        load: text("/proc/loadavg")
            .map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" ")),
    }
}

/// Bytes that the guest could still give to a program without swapping.
pub(crate) fn mem_available() -> Option<u64> {
    meminfo_bytes(&text("/proc/meminfo")?, "MemAvailable")
}

/// The number of CPUs that the guest can ever have, to size a load.
pub(crate) fn possible_cpus() -> u16 {
    text("/sys/devices/system/cpu/possible")
        .and_then(|list| count_cpus(&list))
        .unwrap_or(1)
}

/// A line for the kernel's log, and so for the guest's console.
pub(crate) fn log(line: &str) {
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // There is nowhere left to say that it could not be said.
        let _ = kmsg.write_all(format!("<4>{line}\n").as_bytes());
    }
}

/// The content of a file, as far as one reply carries it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Content {
    /// The text; what is not UTF-8 is replaced.
    pub(crate) content: String,
    /// Whether there is more than that.
    pub(crate) truncated: bool,
}

/// Reads a file.
///
/// # Errors
/// [`WitnessError::Read`] with the kernel's reason.
pub(crate) fn read(path: &str) -> Result<Content, WitnessError> {
    let failed = |source| WitnessError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // Procfs files tell no size, so the one byte more says whether there is more.
    File::open(path)
        .map_err(failed)?
        .take(MAX_CONTENT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let truncated = bytes.len() as u64 > MAX_CONTENT;
    if truncated {
        bytes.pop();
    }
    Ok(Content {
        content: String::from_utf8_lossy(&bytes).into_owned(),
        truncated,
    })
}

/// One name in a directory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Entry {
    /// The name.
    pub(crate) name: String,
    /// `file`, `directory`, `link` or `other`.
    pub(crate) kind: &'static str,
    /// The permission bits in octal.
    pub(crate) mode: String,
    /// Where a link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

/// Lists a directory, in order of the names.
///
/// # Errors
/// [`WitnessError::Read`] with the kernel's reason.
pub(crate) fn list(path: &str) -> Result<Vec<Entry>, WitnessError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| WitnessError::Read {
        path: path.to_owned(),
        source,
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)?.take(MAX_NAMES) {
        let entry = entry.map_err(failed)?;
        // A name may go away between the listing and the look at it.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let kind = metadata.file_type();
        entries.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            kind: if kind.is_symlink() {
                "link"
            } else if kind.is_dir() {
                "directory"
            } else if kind.is_file() {
                "file"
            } else {
                "other"
            },
            mode: format!("{:o}", metadata.permissions().mode() & 0o7777),
            target: fs::read_link(entry.path())
                .ok()
                .map(|target| target.to_string_lossy().into_owned()),
        });
    }
    entries.sort();
    Ok(entries)
}

/// Sends a signal to each process whose program has this base name, and says which they were.
///
/// # Errors
/// Not a signal, no such process, or the kernel's reason.
pub(crate) fn signal(name: &str, signal: &str) -> Result<Vec<i32>, WitnessError> {
    let signal: Signal = signal
        .parse()
        .map_err(|_| WitnessError::Signal(signal.to_owned()))?;
    let pids = processes(Path::new("/proc"), name);
    if pids.is_empty() {
        return Err(WitnessError::NoProcess(name.to_owned()));
    }
    for &pid in &pids {
        kill(Pid::from_raw(pid), signal).map_err(|source| WitnessError::Kill { pid, source })?;
    }
    Ok(pids)
}

/// Restarts the guest shortly after this returns, so that the reply can still leave.
///
/// # Errors
/// [`WitnessError::Reboot`] when the thread for it is refused.
pub(crate) fn reboot(kind: RebootKind) -> Result<(), WitnessError> {
    std::thread::Builder::new()
        .spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let done = match kind {
                RebootKind::Orderly => std::process::Command::new("/sbin/reboot")
                    .status()
                    .map(|_| ()),
                RebootKind::AtOnce => fs::write("/proc/sysrq-trigger", "b"),
            };
            if let Err(error) = done {
                log(&format!("guest-load: restart: {error}"));
            }
        })
        .map(|_| ())
        .map_err(WitnessError::Reboot)
}

/// Processes by the base name of their first argument: the kernel's own short name ends after 15 characters.
fn processes(proc: &Path, name: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let mut pids: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read(entry.path().join("cmdline")).ok()?;
            let program =
                String::from_utf8_lossy(arguments.split(|byte| *byte == 0).next()?).into_owned();
            (program.rsplit('/').next() == Some(name)).then_some(pid)
        })
        .collect();
    pids.sort_unstable();
    pids
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim_end().to_owned())
}

fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Counts a list of CPUs such as `0-3,6`.
fn count_cpus(list: &str) -> Option<u16> {
    list.split(',').try_fold(0_u16, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes_and_a_missing_line_is_absent() {
        let meminfo = "MemTotal:         493560 kB\nMemFree:          1 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(493_560 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), None);
        assert_eq!(
            meminfo_bytes(meminfo, "Mem"),
            None,
            "a whole key, not its beginning"
        );
    }

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(count_cpus("0"), Some(1));
        assert_eq!(count_cpus("0-3,6"), Some(5));
        assert_eq!(count_cpus(""), None);
        assert_eq!(count_cpus("3-1"), None);
    }

    #[test]
    fn a_missing_file_is_named_in_the_error() {
        let error = read("/nonexistent/file").expect_err("there is no such file");
        assert_eq!(error.to_string(), "cannot read /nonexistent/file");
    }

    #[test]
    fn a_long_file_is_cut_and_says_so() {
        let content = read("/proc/kallsyms")
            .or_else(|_| read("/proc/self/smaps"))
            .expect("a long file");
        assert!(content.truncated);
        assert_eq!(content.content.len() as u64, MAX_CONTENT);
    }

    #[test]
    fn a_process_is_found_by_the_whole_name_of_its_program() {
        let own = std::env::args().next().expect("a program has a name");
        let name = own
            .rsplit('/')
            .next()
            .expect("split gives at least one")
            .to_owned();
        let pid = i32::try_from(std::process::id()).expect("pids are small");
        assert!(processes(Path::new("/proc"), &name).contains(&pid));
        assert!(!processes(Path::new("/proc"), &name[..name.len() - 1]).contains(&pid));
    }

    #[test]
    fn an_unknown_signal_or_process_is_refused() {
        assert!(matches!(
            signal("nobody-is-called-so", "SIGNOT"),
            Err(WitnessError::Signal(_))
        ));
        assert!(matches!(
            signal("nobody-is-called-so", "SIGTERM"),
            Err(WitnessError::NoProcess(_))
        ));
    }
}
