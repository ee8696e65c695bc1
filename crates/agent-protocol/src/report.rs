//! What a guest says about itself, and what of it a host may believe. The agent fills a [`Report`]; the host calls
//! [`Report::check`] and uses the [`CheckedReport`] alone. A report stays a claim: it is plausible when checked, not true.

use serde::{Deserialize, Serialize};

use crate::{
    application::{self, AppFigure, CheckedAppFigure},
    cpu_list::CpuList,
    figures::{DiskFigures, LogFigures, NetworkFigures},
    limits::{CPUS_MAX, MEMORY_MAX_KIB, PROCESSES_MAX},
};

/// One report, as it is on the wire. What a guest cannot measure is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it was measured, in milliseconds of the guest's CLOCK_BOOTTIME.
    pub at_ms: u64,
    /// CPUs that are online, in the kernel's list format.
    pub online: String,
    /// How many CPUs are online.
    pub online_count: u32,
    /// How many CPUs are plugged.
    pub present_count: u32,
    /// `MemTotal` in KiB.
    pub memory_total_kib: u64,
    /// `MemAvailable` in KiB.
    pub memory_available_kib: u64,
    /// `SwapTotal` in KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_total_kib: Option<u64>,
    /// `SwapFree` in KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_free_kib: Option<u64>,
    /// Share of the last 10 s in which some task waited for memory, in percent (`/proc/pressure/memory`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_memory_some_avg10: Option<f64>,
    /// Share of the last 10 s in which some task waited for a CPU, in percent (`/proc/pressure/cpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_cpu_some_avg10: Option<f64>,
    /// Load average of one minute (`/proc/loadavg`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load1: Option<f64>,
    /// Processes and threads (`/proc/loadavg`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Processes without their threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_count: Option<u64>,
    /// Processes that the kernel killed for want of memory since the guest's start (`oom_kill` of `/proc/vmstat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// File systems; where they are wanted and were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskFigures>,
    /// Logs; where they are wanted and were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogFigures>,
    /// Round trips; where they are wanted and were tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkFigures>,
    /// What applications say; where it is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app: Vec<AppFigure>,
    /// Reports that were overwritten before they could be sent, since the session began.
    #[serde(default)]
    pub dropped: u64,
}

/// A report without contradictions.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedReport {
    /// Milliseconds of the guest's CLOCK_BOOTTIME.
    pub at_ms: u64,
    /// CPUs that are online; at least one.
    pub online: CpuList,
    /// CPUs that are plugged; at least as many.
    pub present_count: u32,
    /// Memory in KiB; more than none.
    pub memory_total_kib: u64,
    /// Of it, available in KiB.
    pub memory_available_kib: u64,
    /// Swap total and free in KiB.
    pub swap_kib: Option<(u64, u64)>,
    /// Percent, 0 to 100.
    pub psi_memory_some_avg10: Option<f64>,
    /// Percent, 0 to 100.
    pub psi_cpu_some_avg10: Option<f64>,
    /// Not negative.
    pub load1: Option<f64>,
    /// At least one.
    pub processes: Option<u64>,
    /// At least one.
    pub process_count: Option<u64>,
    /// Only grows while the guest runs.
    pub oom_kills: Option<u64>,
    /// Shares from 0 to 100.
    pub disk: Option<DiskFigures>,
    /// Counters within what can be.
    pub logs: Option<LogFigures>,
    /// A round trip within what can be.
    pub network: Option<NetworkFigures>,
    /// What applications say, as far as it can be.
    pub app: Vec<CheckedAppFigure>,
    /// Reports overwritten.
    pub dropped: u64,
}

/// Why a report is not believed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReportRefusal {
    /// The list of online CPUs cannot be read.
    #[error("the guest's list of online CPUs is no CPU list")]
    OnlineList,
    /// List and count differ.
    #[error("the guest lists {listed} online CPUs and counts {counted}")]
    OnlineCount {
        /// In the list.
        listed: u32,
        /// By the count.
        counted: u32,
    },
    /// No CPU, or an impossible number of them.
    #[error("the guest claims {0} CPUs")]
    CpuCount(u32),
    /// More CPUs online than plugged.
    #[error("the guest claims {online} CPUs online of {present} plugged")]
    OnlineAbovePresent {
        /// Online.
        online: u32,
        /// Plugged.
        present: u32,
    },
    /// No memory, or an impossible amount of it.
    #[error("the guest claims {0} KiB of memory or swap")]
    Memory(u64),
    /// More memory or swap left than there is.
    #[error("the guest claims {part} KiB free of {whole} KiB")]
    PartAboveWhole {
        /// Available or free.
        part: u64,
        /// Total.
        whole: u64,
    },
    /// A figure that is no number or is negative.
    #[error("the guest's figure for {0} is no number from zero up")]
    Figure(&'static str),
    /// An impossible number of processes.
    #[error("the guest claims {0} processes")]
    Processes(u64),
}

impl Report {
    /// Checks the report. Percentages above 100 (the kernel rounds) are clamped; contradictions are refused.
    ///
    /// # Errors
    /// [`ReportRefusal`], the first contradiction found. No text of the guest is repeated in it.
    pub fn check(&self) -> Result<CheckedReport, ReportRefusal> {
        let online = CpuList::parse(&self.online).map_err(|_| ReportRefusal::OnlineList)?;
        if online.count() != self.online_count {
            return Err(ReportRefusal::OnlineCount {
                listed: online.count(),
                counted: self.online_count,
            });
        }
        for count in [self.online_count, self.present_count] {
            if count == 0 || count > CPUS_MAX {
                return Err(ReportRefusal::CpuCount(count));
            }
        }
        if self.online_count > self.present_count {
            return Err(ReportRefusal::OnlineAbovePresent {
                online: self.online_count,
                present: self.present_count,
            });
        }
        if self.memory_total_kib == 0 {
            return Err(ReportRefusal::Memory(0));
        }
        check_part(self.memory_available_kib, self.memory_total_kib)?;
        let swap_kib = self.swap_total_kib.zip(self.swap_free_kib);
        if let Some((total, free)) = swap_kib {
            check_part(free, total)?;
        }
        for processes in [self.processes, self.process_count].into_iter().flatten() {
            if processes == 0 || processes > PROCESSES_MAX {
                return Err(ReportRefusal::Processes(processes));
            }
        }
        let percent = |value, name| {
            check_figure(value, name).map(|figure| figure.map(|percent| percent.min(100.0)))
        };
        Ok(CheckedReport {
            at_ms: self.at_ms,
            online,
            present_count: self.present_count,
            memory_total_kib: self.memory_total_kib,
            memory_available_kib: self.memory_available_kib,
            swap_kib,
            psi_memory_some_avg10: percent(self.psi_memory_some_avg10, "memory pressure")?,
            psi_cpu_some_avg10: percent(self.psi_cpu_some_avg10, "CPU pressure")?,
            load1: check_figure(self.load1, "load")?,
            processes: self.processes,
            process_count: self.process_count,
            oom_kills: self.oom_kills,
            disk: self.disk.map(DiskFigures::checked),
            logs: self.logs.map(LogFigures::checked),
            network: self.network.map(NetworkFigures::checked),
            app: application::check(&self.app),
            dropped: self.dropped,
        })
    }
}

fn check_part(part: u64, whole: u64) -> Result<(), ReportRefusal> {
    if whole > MEMORY_MAX_KIB {
        return Err(ReportRefusal::Memory(whole));
    }
    if part > whole {
        Err(ReportRefusal::PartAboveWhole { part, whole })
    } else {
        Ok(())
    }
}

fn check_figure(value: Option<f64>, name: &'static str) -> Result<Option<f64>, ReportRefusal> {
    match value {
        Some(value) if !value.is_finite() || value < 0.0 => Err(ReportRefusal::Figure(name)),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            at_ms: 1,
            online: "0-1".to_owned(),
            online_count: 2,
            present_count: 4,
            memory_total_kib: 1_000,
            memory_available_kib: 500,
            processes: Some(80),
            ..Report::default()
        }
    }

    fn check(change: impl FnOnce(&mut Report), expected: ReportRefusal) {
        let mut report = report();
        change(&mut report);
        assert_eq!(report.check(), Err(expected));
    }

    #[test]
    fn a_plausible_report_passes_and_percentages_are_clamped() {
        let report = Report {
            psi_cpu_some_avg10: Some(100.01),
            ..report()
        };
        let checked = report.check().unwrap();
        assert_eq!(
            (checked.online.count(), checked.psi_cpu_some_avg10),
            (2, Some(100.0))
        );
    }

    #[test]
    fn each_contradiction_is_refused_with_its_reason() {
        check(
            |r| r.online = "0-1\u{1b}[2J".to_owned(),
            ReportRefusal::OnlineList,
        );
        check(
            |r| r.online_count = 3,
            ReportRefusal::OnlineCount {
                listed: 2,
                counted: 3,
            },
        );
        check(
            |r| (r.online, r.online_count) = (String::new(), 0),
            ReportRefusal::CpuCount(0),
        );
        check(
            |r| r.present_count = u32::MAX,
            ReportRefusal::CpuCount(u32::MAX),
        );
        check(
            |r| r.present_count = 1,
            ReportRefusal::OnlineAbovePresent {
                online: 2,
                present: 1,
            },
        );
        check(|r| r.memory_total_kib = 0, ReportRefusal::Memory(0));
        check(
            |r| r.memory_available_kib = 18_000_000_000_000_000_000,
            ReportRefusal::PartAboveWhole {
                part: 18_000_000_000_000_000_000,
                whole: 1_000,
            },
        );
        check(
            |r| r.memory_total_kib = u64::MAX,
            ReportRefusal::Memory(u64::MAX),
        );
        check(
            |r| (r.swap_total_kib, r.swap_free_kib) = (Some(1), Some(2)),
            ReportRefusal::PartAboveWhole { part: 2, whole: 1 },
        );
        check(|r| r.load1 = Some(f64::NAN), ReportRefusal::Figure("load"));
        check(
            |r| r.psi_memory_some_avg10 = Some(-1.0),
            ReportRefusal::Figure("memory pressure"),
        );
        check(
            |r| r.processes = Some(u64::MAX),
            ReportRefusal::Processes(u64::MAX),
        );
        check(|r| r.process_count = Some(0), ReportRefusal::Processes(0));
    }
}
