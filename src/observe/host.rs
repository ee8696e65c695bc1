//! The host itself: CPU utilisation, available memory, pressure, CPUs online. Called by
//! [`Observer`](super::Observer) alone. Formats: proc(5), `Documentation/accounting/psi.rst` of the kernel.

use std::path::Path;
use std::time::Duration;

use persona::signal::Metric;
use persona::units::{Bytes, Moment};

use super::descriptor::{Buffer, Descriptor};
use super::parse::{self, FormatError};
use super::reading::{Figure, Missing, Readings, Stamp};

/// How long a file that is not there is not looked for again.
const RETRY: Duration = Duration::from_secs(30);

/// What one tick says of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostReadings {
    /// Values for rules.
    pub readings: Readings,
    /// Logical CPUs that are online.
    pub cores_online: Result<u32, Missing>,
    /// All memory.
    pub memory_total: Result<Bytes, Missing>,
    /// `some avg10` of `/proc/pressure/io`, in percent.
    pub io_pressure: Result<f64, Missing>,
}

/// Counters of `/proc/stat` over all CPUs, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    /// Doing something, or taken by a hypervisor below.
    pub busy: u64,
    /// Doing nothing, or waiting for a disk.
    pub idle: u64,
    /// CPUs with a line of their own, which are those online.
    pub online: u32,
}

/// `/proc/stat`. By hand: the `procfs` crate builds a list of all CPUs, and needs the clock tick for it, which a
/// ratio does not.
pub fn parse_cpu_times(text: &[u8]) -> Result<CpuTimes, FormatError> {
    if text.is_empty() {
        return Err(FormatError::Empty);
    }
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let all = lines
        .next()
        .filter(|line| line.ends_with(b"\n"))
        .and_then(|line| line.strip_prefix(b"cpu "))
        .ok_or(FormatError::MissingField("cpu"))?;
    let mut fields = parse::fields(all);
    let mut next = |field| parse::parse_count(fields.next().unwrap_or_default(), field);
    let (user, nice, system, idle) = (next("user")?, next("nice")?, next("system")?, next("idle")?);
    // Guest time, behind these, is in user and nice already.
    let (iowait, irq, softirq, steal) = (
        next("iowait")?,
        next("irq")?,
        next("softirq")?,
        next("steal")?,
    );
    let sum = |parts: &[u64]| {
        parts
            .iter()
            .fold(0_u64, |sum, part| sum.saturating_add(*part))
    };
    let mut online = 0;
    for line in lines {
        match line.strip_prefix(b"cpu") {
            Some([b'0'..=b'9', ..]) => online += 1,
            _ => break,
        }
    }
    if online == 0 {
        return Err(FormatError::MissingField("cpu0"));
    }
    Ok(CpuTimes {
        busy: sum(&[user, nice, system, irq, softirq, steal]),
        idle: sum(&[idle, iowait]),
        online,
    })
}

/// Share of busy time between two samples, in percent.
///
/// # Errors
/// [`Missing::CounterWentBack`] when one was lower than before, [`Missing::NoTimePassed`] when none moved.
#[allow(
    clippy::cast_precision_loss,
    reason = "clock ticks of one sample are far below 2^53"
)]
pub fn utilization(before: CpuTimes, after: CpuTimes) -> Result<f64, Missing> {
    let change = |before: u64, after: u64| {
        after
            .checked_sub(before)
            .ok_or(Missing::CounterWentBack(Figure::HostCpuTimes))
    };
    let busy = change(before.busy, after.busy)? as f64;
    let all = busy + change(before.idle, after.idle)? as f64;
    if all > 0.0 {
        Ok((busy / all * 100.0).clamp(0.0, 100.0))
    } else {
        Err(Missing::NoTimePassed)
    }
}

/// Total and available memory of `/proc/meminfo`, in that order. By hand: two of some fifty lines are wanted, and
/// the `procfs` crate builds a map of all.
pub fn parse_memory(text: &[u8]) -> Result<(Bytes, Bytes), FormatError> {
    Ok((
        Bytes::from_kib(parse::require_keyed(text, "MemTotal")?),
        Bytes::from_kib(parse::require_keyed(text, "MemAvailable")?),
    ))
}

/// The host's open files and last counters.
#[derive(Debug)]
pub(super) struct HostObserver {
    memory: Kept,
    cpu: Kept,
    cpu_pressure: Kept,
    memory_pressure: Kept,
    io_pressure: Kept,
    previous: Option<CpuTimes>,
}

impl HostObserver {
    pub(super) const fn new() -> Self {
        Self {
            memory: Kept::new("meminfo", Figure::HostMemory),
            cpu: Kept::new("stat", Figure::HostCpuTimes),
            cpu_pressure: Kept::new("pressure/cpu", Figure::HostCpuPressure),
            memory_pressure: Kept::new("pressure/memory", Figure::HostMemoryPressure),
            io_pressure: Kept::new("pressure/io", Figure::HostIoPressure),
            previous: None,
        }
    }

    pub(super) fn sample(
        &mut self,
        proc: &Path,
        stamp: Stamp,
        buffer: &mut Buffer,
    ) -> HostReadings {
        let now = stamp.at;
        let mut readings = Readings::default();
        let memory = self.memory.read(proc, now, buffer, parse_memory);
        #[allow(
            clippy::cast_precision_loss,
            reason = "an f64 counts bytes exactly up to 8 PiB"
        )]
        let available = memory.map(|(_, available)| stamp.host(available.0 as f64));
        readings.set(Metric::HostMemoryAvailable, available);

        let previous = self.previous.take();
        let times = self.cpu.read(proc, now, buffer, parse_cpu_times);
        self.previous = times.ok();
        let percent =
            times.and_then(|times| utilization(previous.ok_or(Missing::FirstSample)?, times));
        readings.set(
            Metric::HostCpuUtilization,
            percent.map(|value| stamp.host(value)),
        );

        for (metric, file) in [
            (Metric::HostCpuPressure, &mut self.cpu_pressure),
            (Metric::HostMemoryPressure, &mut self.memory_pressure),
        ] {
            let percent = file.read(proc, now, buffer, parse::parse_pressure);
            readings.set(metric, percent.map(|value| stamp.host(value)));
        }
        HostReadings {
            readings,
            cores_online: times.map(|times| times.online),
            memory_total: memory.map(|(total, _)| total),
            io_pressure: self
                .io_pressure
                .read(proc, now, buffer, parse::parse_pressure),
        }
    }
}

/// A file of the host, open or to be tried again.
#[derive(Debug)]
pub(super) struct Kept {
    name: &'static str,
    figure: Figure,
    file: Result<Descriptor, Missing>,
    tried: Option<Moment>,
}

impl Kept {
    /// `name` is its path below procfs.
    pub(super) const fn new(name: &'static str, figure: Figure) -> Self {
        Self {
            name,
            figure,
            file: Err(Missing::NotMeasured),
            tried: None,
        }
    }

    /// The open file, or why there is none.
    pub(super) fn descriptor(&mut self, proc: &Path, now: Moment) -> Result<&Descriptor, Missing> {
        if self.file.is_err() && self.tried.is_none_or(|tried| now.since(tried) >= RETRY) {
            self.tried = Some(now);
            self.file = Descriptor::open(&proc.join(self.name), self.figure);
        }
        self.file.as_ref().map_err(|reason| *reason)
    }

    fn read<T>(
        &mut self,
        proc: &Path,
        now: Moment,
        buffer: &mut Buffer,
        parse: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<T, Missing> {
        let figure = self.figure;
        let text = self.descriptor(proc, now)?.read(buffer)?;
        parse(text).map_err(|problem| Missing::Malformed { figure, problem })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "cpu  21683 10 11311 162712 1057 1 135 971 500 0\ncpu0 10496 0 4082 83624 214 0 40 506 0 0\n\
                        cpu3 11187 0 7228 79088 842 0 95 465 0 0\nintr 294640 0 0\nctxt 9\n";

    #[test]
    fn cpu_times_count_guest_time_once_and_only_cpus_online() {
        let times = parse_cpu_times(STAT.as_bytes()).unwrap();
        let expected = CpuTimes {
            busy: 21_683 + 10 + 11_311 + 1 + 135 + 971,
            idle: 162_712 + 1_057,
            online: 2,
        };
        assert_eq!(times, expected);
    }

    #[test]
    fn a_stat_that_is_not_whole_is_refused() {
        let cases: [(&str, FormatError); 6] = [
            ("", FormatError::Empty),
            ("cpu  1 2 3 4 5 6 7 8", FormatError::MissingField("cpu")),
            ("cpu  1 2 3\ncpu0 1\n", FormatError::MissingField("idle")),
            (
                "cpu  1 2 -3 4 5 6 7 8 9 0\ncpu0 1\n",
                FormatError::NotANumber("system"),
            ),
            (
                "cpu  1 2 3 4 5 6 7 8 9 0\nintr 1\n",
                FormatError::MissingField("cpu0"),
            ),
            ("intr 1\n", FormatError::MissingField("cpu")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_cpu_times(text.as_bytes()), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn memory_is_total_and_available() {
        let text = b"MemTotal:       24684084 kB\nMemFree:        22955380 kB\nMemAvailable:   24172056 kB\n";
        let memory = parse_memory(text).unwrap();
        assert_eq!(
            memory,
            (Bytes::from_kib(24_684_084), Bytes::from_kib(24_172_056))
        );
        let old_kernel = b"MemTotal:       24684084 kB\nMemFree:        22955380 kB\n";
        assert_eq!(
            parse_memory(old_kernel),
            Err(FormatError::MissingField("MemAvailable"))
        );
    }

    proptest! {
        #[test]
        fn utilization_of_growing_counters_is_a_percentage(busy in 0..u64::MAX / 4, idle in 0..u64::MAX / 4,
                                                          more_busy in 0..u64::MAX / 4, more_idle in 0..u64::MAX / 4) {
            let before = CpuTimes { busy, idle, online: 1 };
            let after = CpuTimes { busy: busy + more_busy, idle: idle + more_idle, online: 1 };
            match utilization(before, after) {
                Ok(percent) => prop_assert!((0.0..=100.0).contains(&percent)),
                Err(reason) => prop_assert_eq!((reason, more_busy + more_idle), (Missing::NoTimePassed, 0)),
            }
            if more_busy > 0 || more_idle > 0 {
                let went_back = Missing::CounterWentBack(Figure::HostCpuTimes);
                prop_assert_eq!(utilization(after, before), Err(went_back));
            }
        }
    }
}
