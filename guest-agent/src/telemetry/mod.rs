//! What the guest sees of itself, as a [`Report`]. What is read here is procfs and sysfs; neither is a disk, so the channel
//! thread may read them. What needs a disk or another machine is in `survey`, which does not make anybody wait. What cannot be
//! read is absent, but CPUs and memory: without them there is no report.

mod filesystems;
mod journal;
mod logins;
mod logs;
mod probe;
mod survey;
mod syslog;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_protocol::{CpuList, Part, Parts, Report};
use nix::time::{ClockId, clock_gettime};

use self::survey::Survey;
pub(crate) use self::{filesystems::disks, probe::Probes};
use crate::events::Events;

/// Longest file read; `/proc/meminfo` has less than 2 KiB, a list of CPUs may be longer.
const FILE_MAX: u64 = 128 * 1024;

/// A figure that every report needs is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} has no {figure}")]
    Missing { path: PathBuf, figure: &'static str },
}

/// What a report does about disks, logs and other machines, beside what was found of them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// It begins another look when it is time.
    Begin,
    /// It takes what was found.
    Leave,
}

/// What the guest has of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryFigures {
    pub(crate) total_kib: u64,
    pub(crate) available_kib: u64,
}

/// Reads reports, with one buffer for all files.
#[derive(Debug)]
pub(crate) struct Telemetry {
    root: PathBuf,
    text: String,
    survey: Survey,
}

impl Telemetry {
    /// The ends of looks that rules wait for are told to `events`.
    pub(crate) fn new(root: &Path, probes: Probes, events: Events) -> Self {
        Self {
            root: root.to_owned(),
            text: String::new(),
            survey: Survey::new(root, probes, events),
        }
    }

    /// What the host wants to know from here on, and what rules of the guest want to.
    pub(crate) fn want(&mut self, host: Parts, rules: Parts) {
        self.survey.want(host, rules);
    }

    /// Measures now what is asked for, which somebody wants.
    pub(crate) fn report(&mut self, parts: Parts, looks: Looks) -> Result<Report, TelemetryError> {
        let online = self.cpus("sys/devices/system/cpu/online")?;
        let present = self.cpus("sys/devices/system/cpu/present")?;
        let meminfo = self.read("proc/meminfo")?;
        let figure = |name| meminfo_kib(meminfo, name);
        let missing = |figure| TelemetryError::Missing {
            path: "/proc/meminfo".into(),
            figure,
        };
        let mut report = Report {
            at_ms: u64::try_from(boot_time().as_millis()).unwrap_or(u64::MAX),
            online_count: online.count(),
            present_count: present.count(),
            online: online.to_string(),
            memory_total_kib: figure("MemTotal").ok_or_else(|| missing("MemTotal"))?,
            memory_available_kib: figure("MemAvailable").ok_or_else(|| missing("MemAvailable"))?,
            swap_total_kib: figure("SwapTotal"),
            swap_free_kib: figure("SwapFree"),
            ..Report::default()
        };
        // Kernels without CONFIG_PSI, or with psi=0, have no such files.
        report.psi_memory_some_avg10 = self.read("proc/pressure/memory").ok().and_then(some_avg10);
        report.oom_kills = self.read("proc/vmstat").ok().and_then(oom_kills);
        let cpu = parts.has(Part::Cpu);
        if cpu {
            report.psi_cpu_some_avg10 = self.read("proc/pressure/cpu").ok().and_then(some_avg10);
        }
        if cpu || parts.has(Part::Processes) {
            let text = self.read("proc/loadavg").ok();
            let load = text.and_then(|text| text.split_whitespace().next()?.parse().ok());
            report.load1 = load.filter(|_| cpu);
            let count = text.and_then(processes);
            report.processes = count.filter(|_| parts.has(Part::Processes));
        }
        if parts.has(Part::Processes) {
            report.process_count = self.process_count();
        }
        self.survey
            .add_to(&mut report, parts, looks, Instant::now());
        Ok(report)
    }

    /// Memory alone.
    pub(crate) fn memory(&mut self) -> Result<MemoryFigures, TelemetryError> {
        let meminfo = self.read("proc/meminfo")?;
        let figure = |figure| {
            meminfo_kib(meminfo, figure).ok_or_else(|| TelemetryError::Missing {
                path: "/proc/meminfo".into(),
                figure,
            })
        };
        Ok(MemoryFigures {
            total_kib: figure("MemTotal")?,
            available_kib: figure("MemAvailable")?,
        })
    }

    /// Folders of procfs whose name is a number; `None` where there are none.
    fn process_count(&self) -> Option<u64> {
        let entries = fs::read_dir(self.root.join("proc")).ok()?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let numbers = names.filter(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        u64::try_from(numbers.count())
            .ok()
            .filter(|count| *count > 0)
    }

    fn cpus(&mut self, path: &str) -> Result<CpuList, TelemetryError> {
        let list = CpuList::parse(self.read(path)?);
        list.map_err(|_| TelemetryError::Missing {
            path: Path::new("/").join(path),
            figure: "list of CPUs",
        })
    }

    fn read(&mut self, path: &str) -> Result<&str, TelemetryError> {
        let path = self.root.join(path);
        self.text.clear();
        let read =
            File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut self.text));
        match read {
            Ok(_) => Ok(&self.text),
            Err(source) => Err(TelemetryError::Read { path, source }),
        }
    }
}

/// Time since the guest's start, with the time that it slept.
pub(crate) fn boot_time() -> Duration {
    // The clock exists on every Linux since 2.6.39; a duration of zero only makes a report look old.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn meminfo_kib(text: &str, name: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace()
        .find_map(|part| part.strip_prefix("avg10="))?
        .parse()
        .ok()
}

fn oom_kills(vmstat: &str) -> Option<u64> {
    let count = vmstat
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

fn processes(loadavg: &str) -> Option<u64> {
    loadavg
        .split_whitespace()
        .nth(3)?
        .split_once('/')?
        .1
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_whole_name() {
        let text = "MemTotal:        2048 kB\nMemTotalX:  1 kB\nSwapFree:  7 kB\n";
        assert_eq!(meminfo_kib(text, "MemTotal"), Some(2048));
        assert_eq!(meminfo_kib(text, "Mem"), None);
        assert_eq!(meminfo_kib(text, "SwapFree"), Some(7));
    }

    #[test]
    fn pressure_and_processes_are_read() {
        let text = "some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=7.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(1.25));
        assert_eq!(processes("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(oom_kills("oom_kill_x 9\noom_kill 3\n"), Some(3));
        assert_eq!(oom_kills("pgfault 3\n"), None);
    }

    #[test]
    fn this_machine_can_be_reported_and_the_report_is_plausible() {
        let (events, _) = crate::events::queue().unwrap();
        let report = Telemetry::new(Path::new("/"), Probes::default(), events)
            .report(Parts::BASE, Looks::Begin)
            .unwrap();
        assert!(report.check().is_ok(), "{report:?}");
    }
}
