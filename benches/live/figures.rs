//! How figures are taken from processes: CPU time to the nanosecond, memory, sizes, and medians of many measurements.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::harness::{Failure, Outcome};

fn process(pid: u32) -> Outcome<Pid> {
    let number = i32::try_from(pid).map_err(|_| Failure::new(format!("{pid} is no process")))?;
    Ok(Pid::from_raw(number))
}

/// CPU time of a process with all of its threads, also of those that have ended.
pub(crate) fn cpu_time(pid: u32) -> Outcome<Duration> {
    let clock = ClockId::pid_cpu_clock_id(process(pid)?)
        .map_err(|error| Failure::while_doing(format!("the CPU clock of process {pid}"), error))?;
    read(clock)
}

/// CPU time of this process.
pub(crate) fn own_cpu_time() -> Outcome<Duration> {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: ClockId) -> Outcome<Duration> {
    clock_gettime(clock)
        .map(Duration::from)
        .map_err(|error| Failure::while_doing("clock_gettime", error))
}

/// CPU time of a program from its start to its end. What it prints goes nowhere.
pub(crate) fn cpu_time_of_run(command: &mut Command) -> Outcome<Duration> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    // Its clock can be read until its end is collected.
    waitid(
        Id::Pid(process(child.id())?),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
    )
    .map_err(|error| Failure::while_doing("waitid", error))?;
    let time = cpu_time(child.id());
    let status = child.wait()?;
    if !status.success() {
        return Err(Failure::new(format!("{command:?} ended with {status}")));
    }
    time
}

/// Memory of a process as its `status` file shows it, in KiB.
pub(crate) struct Resident {
    /// All that is resident.
    pub(crate) all: u64,
    /// The part that belongs to no file: what the process itself has filled.
    pub(crate) anonymous: u64,
}

impl Resident {
    /// Of a process of this host.
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).map_err(|error| Failure::while_doing(&path, error))?;
        Self::parse(&text).ok_or_else(|| Failure::new(format!("{path} shows no memory")))
    }

    /// Of the text of a `status` file.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            all: field("VmRSS:")?,
            anonymous: field("RssAnon:")?,
        })
    }
}

/// Length of a file in bytes.
pub(crate) fn length(path: &Path) -> Outcome<u64> {
    let metadata =
        fs::metadata(path).map_err(|error| Failure::while_doing(path.display(), error))?;
    Ok(metadata.len())
}

/// The value that `percent` of 100 measurements do not exceed.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = times.len().saturating_sub(1) * percent / 100;
    times.get(index).copied().unwrap_or_default()
}

/// Microseconds, to print.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// How many times `one` is `other`.
pub(crate) fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
