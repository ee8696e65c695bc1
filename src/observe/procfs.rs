//! The emulator's process: that it is still the same one, its vCPU threads with their run time and wait, and its
//! resident memory. Rates are made in `domain`, which calls this. Formats: proc(5), and
//! `Documentation/scheduler/sched-stats.rst` of the kernel for schedstat.

use std::fs;
use std::path::{Path, PathBuf};

use super::descriptor::{Buffer, Descriptor};
use super::parse::{self, FormatError};
use super::reading::{Figure, Missing};

/// What a thread's name says of the vCPUs that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VcpuName {
    /// One vCPU, by its index: `CPU 2/KVM`, `CPU 2/TCG`.
    One(u32),
    /// All of them: `ALL CPUs/TCG`, emulation in a single thread.
    All,
}

/// Parses a thread's name as QEMU gives it with `debug-threads=on`; `None` for any other thread.
pub fn parse_vcpu_name(name: &[u8]) -> Option<VcpuName> {
    let name = name.trim_ascii_end();
    if name == b"ALL CPUs/TCG" {
        return Some(VcpuName::All);
    }
    let name = name.strip_prefix(b"CPU ")?;
    let slash = name.iter().position(|byte| *byte == b'/')?;
    let accelerator = &name[slash + 1..];
    if accelerator.is_empty() || !accelerator.iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    let index = parse::parse_count(&name[..slash], "index").ok()?;
    u32::try_from(index).ok().map(VcpuName::One)
}

/// `/proc/PID/task/TID/schedstat`, since the thread began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadTimes {
    /// Nanoseconds on a host CPU.
    pub run: u64,
    /// Nanoseconds in which it could run and waited for a host CPU.
    pub wait: u64,
    /// Time slices.
    pub slices: u64,
}

/// Parses a schedstat. By hand, because the `procfs` crate's parser allocates, and this runs once a vCPU a tick.
pub fn parse_schedstat(text: &[u8]) -> Result<ThreadTimes, FormatError> {
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    if !text.ends_with(b"\n") {
        return Err(FormatError::MissingField("end of line"));
    }
    let mut fields = parse::fields(text);
    let mut next = |field| parse::parse_count(fields.next().unwrap_or_default(), field);
    Ok(ThreadTimes {
        run: next("run")?,
        wait: next("wait")?,
        slices: next("slices")?,
    })
}

/// Resident pages from `/proc/PID/statm`; `None` for a process without memory, which is one that ends.
pub fn parse_resident_pages(text: &[u8]) -> Result<Option<u64>, FormatError> {
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    let mut fields = parse::fields(text);
    let mut next = |field| parse::parse_count(fields.next().unwrap_or_default(), field);
    let size = next("size")?;
    let resident = next("resident")?;
    // A field behind it proves that the number was not cut short.
    next("shared")?;
    Ok((size > 0).then_some(resident))
}

/// A process, told from any later one with the same number.
///
/// `/proc/PID/stat` stays open: the descriptor belongs to the process, not to the number, so as long as reading it
/// works, the number was not given away, and every path `/proc/PID/...` opened before that belongs to it too.
#[derive(Debug)]
pub(super) struct Process {
    directory: PathBuf,
    stat: Descriptor,
    start: u64,
}

impl Process {
    pub(super) fn open(proc: &Path, pid: u32, buffer: &mut Buffer) -> Result<Self, Missing> {
        let directory = proc.join(pid.to_string());
        let figure = Figure::ProcessIdentity;
        let stat = Descriptor::open(&directory.join("stat"), figure).map_err(ended)?;
        let start = read_start(&stat, buffer)?;
        Ok(Self {
            directory,
            stat,
            start,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the process that was opened is still there.
    pub(super) fn verify(&self, buffer: &mut Buffer) -> Result<(), Missing> {
        if read_start(&self.stat, buffer)? == self.start {
            Ok(())
        } else {
            Err(Missing::ProcessReplaced)
        }
    }

    /// The text of `/proc/PID/stat`.
    pub(super) fn read<'b>(&self, buffer: &'b mut Buffer) -> Result<&'b [u8], Missing> {
        self.stat.read(buffer).map_err(ended)
    }

    /// Opens `/proc/PID/statm`.
    pub(super) fn open_resident(&self) -> Result<Descriptor, Missing> {
        Descriptor::open(&self.directory.join("statm"), Figure::ResidentMemory).map_err(ended)
    }

    /// All threads by number. Names are read of those that are not `known`, which is such a list. Off the tick: lists a
    /// folder and allocates.
    pub(super) fn threads(&self, known: &[Thread]) -> Result<Vec<Thread>, Missing> {
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Missing::ProcessEnded,
            kind => Missing::Unreadable {
                figure: Figure::Threads,
                kind,
            },
        };
        let mut threads = Vec::new();
        for entry in fs::read_dir(self.directory.join("task")).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let Some(tid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Ok(index) = known.binary_search_by_key(&tid, |thread| thread.tid) {
                threads.push(known[index]);
                continue;
            }
            // A thread may end between the listing and this; it is no vCPU's then.
            let Ok(name) = fs::read(entry.path().join("comm")) else {
                continue;
            };
            threads.push(Thread {
                tid,
                vcpu: parse_vcpu_name(&name),
            });
        }
        threads.sort_unstable_by_key(|thread| thread.tid);
        Ok(threads)
    }
}

/// A thread of the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) tid: u32,
    /// Of the vCPUs that it runs, if it runs any.
    pub(super) vcpu: Option<VcpuName>,
}

/// The threads that run vCPUs, by index.
pub(super) fn vcpu_threads(threads: &[Thread]) -> Result<Vec<(VcpuName, u32)>, Missing> {
    let named = |thread: &Thread| Some((thread.vcpu?, thread.tid));
    let mut found: Vec<_> = threads.iter().filter_map(named).collect();
    if found.is_empty() {
        return Err(Missing::NoVcpuThreads);
    }
    found.sort_unstable();
    Ok(found)
}

/// For a file of procfs, being absent means that the process is gone.
pub(super) fn ended(reason: Missing) -> Missing {
    match reason {
        Missing::NotOffered(_) | Missing::Gone(_) => Missing::ProcessEnded,
        other => other,
    }
}

/// A process's state and when it started, from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The state's letter.
    pub state: u8,
    /// Clock ticks since boot at which it started.
    pub start: u64,
}

/// Parses `/proc/PID/stat`. By hand, because the `procfs` crate's parser panics on a text cut short.
pub fn parse_identity(text: &[u8]) -> Result<ProcessIdentity, FormatError> {
    let state = match parse::fields(behind_name(text)?).next() {
        Some([state]) => *state,
        _ => return Err(FormatError::MissingField("state")),
    };
    Ok(ProcessIdentity {
        state,
        start: parse_field(text, 22, "starttime")?,
    })
}

/// Page faults that waited for a disk, of all threads since the process began, from `/proc/PID/stat`.
pub fn parse_major_faults(text: &[u8]) -> Result<u64, FormatError> {
    parse_field(text, 12, "majflt")
}

/// The field of this number in proc(5); behind the name, the first one is field 3.
fn parse_field(text: &[u8], number: usize, name: &'static str) -> Result<u64, FormatError> {
    let mut fields = parse::fields(behind_name(text)?).skip(number - 3);
    let value = fields.next().ok_or(FormatError::MissingField(name))?;
    // A field behind it proves that the number was not cut short.
    fields.next().ok_or(FormatError::MissingField(name))?;
    parse::parse_count(value, name)
}

/// The fields behind the name. The name in parentheses may itself hold spaces and parentheses, so fields are counted
/// from the last one.
fn behind_name(text: &[u8]) -> Result<&[u8], FormatError> {
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    let end = text.iter().rposition(|byte| *byte == b')');
    end.map(|end| &text[end + 1..])
        .ok_or(FormatError::MissingField("comm"))
}

/// When the process started. A process that ended and was not waited for yet is gone.
fn read_start(stat: &Descriptor, buffer: &mut Buffer) -> Result<u64, Missing> {
    let identity = parse_identity(stat.read(buffer).map_err(ended)?).map_err(|problem| {
        Missing::Malformed {
            figure: Figure::ProcessIdentity,
            problem,
        }
    })?;
    match identity.state {
        b'Z' | b'X' | b'x' => Err(Missing::ProcessEnded),
        _ => Ok(identity.start),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![allow(clippy::type_complexity, reason = "tables of cases")]
    use super::*;

    #[test]
    fn vcpu_threads_are_told_by_name() {
        let cases: [(&[u8], Option<VcpuName>); 13] = [
            (b"CPU 0/KVM\n", Some(VcpuName::One(0))),
            (b"CPU 2/TCG\n", Some(VcpuName::One(2))),
            (b"CPU 255/KVM", Some(VcpuName::One(255))),
            (b"ALL CPUs/TCG\n", Some(VcpuName::All)),
            (b"qemu-system-x86\n", None),
            (b"IO mon_iothread\n", None),
            (b"CPU /KVM\n", None),
            (b"CPU x/KVM\n", None),
            (b"CPU -1/KVM\n", None),
            (b"CPU 4294967296/KVM\n", None),
            (b"CPU 1\n", None),
            (b"CPU 1/\n", None),
            (b"", None),
        ];
        for (name, expected) in cases {
            assert_eq!(
                parse_vcpu_name(name),
                expected,
                "{:?}",
                name.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn schedstat_is_three_counts_and_an_end_of_line() {
        let cases: [(&[u8], Result<(u64, u64, u64), FormatError>); 7] = [
            (
                b"210851270 10518785 136\n",
                Ok((210_851_270, 10_518_785, 136)),
            ),
            (b"0 0 0\n", Ok((0, 0, 0))),
            (b"1 2\n", Err(FormatError::MissingField("slices"))),
            (b"1 2 3", Err(FormatError::MissingField("end of line"))),
            (b"-1 2 3\n", Err(FormatError::NotANumber("run"))),
            (
                b"1 99999999999999999999 3\n",
                Err(FormatError::NotANumber("wait")),
            ),
            (b"", Err(FormatError::Empty)),
        ];
        for (text, expected) in cases {
            let times = parse_schedstat(text).map(|times| (times.run, times.wait, times.slices));
            assert_eq!(times, expected, "{:?}", text.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_process_without_memory_has_no_resident_size() {
        let cases: [(&[u8], Result<Option<u64>, FormatError>); 6] = [
            (b"372189 12848 5608 1431 0 299147 0\n", Ok(Some(12_848))),
            (b"0 0 0 0 0 0 0\n", Ok(None)),
            (b"372189 128", Err(FormatError::MissingField("shared"))),
            (b"372189 -8 1\n", Err(FormatError::NotANumber("resident"))),
            (b"\n", Err(FormatError::MissingField("size"))),
            (b"", Err(FormatError::Empty)),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_resident_pages(text),
                expected,
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn the_start_and_the_major_faults_are_found_behind_any_name() {
        let tail =
            "S 1 6574 6574 0 -1 138412416 9664 0 6 0 32 39 0 0 20 0 5 0 98801 1524486144 12840\n";
        for name in ["qemu-system-x86", "a b", "x) S 1 (y", "()"] {
            let text = format!("6575 ({name}) {tail}");
            let identity = parse_identity(text.as_bytes()).unwrap();
            assert_eq!((identity.state, identity.start), (b'S', 98_801), "{text}");
            assert_eq!(parse_major_faults(text.as_bytes()), Ok(6), "{text}");
            // However short it is cut, it is refused or read right, and nothing panics.
            for end in 0..text.len() {
                if let Ok(cut) = parse_identity(&text.as_bytes()[..end]) {
                    assert_eq!(cut.start, 98_801, "{}", &text[..end]);
                }
                if let Ok(cut) = parse_major_faults(&text.as_bytes()[..end]) {
                    assert_eq!(cut, 6, "{}", &text[..end]);
                }
            }
        }
    }
}
