//! Pressure of the domain's own control group: the share of time in which something in it waited. Read at turns,
//! because the kernel makes its averages anew each 2 s. Called by `domain`. Format: `Documentation/accounting/psi.rst`.

use std::time::Duration;

use persona::signal::{Metric, Reading};

use super::cgroup::Group;
use super::descriptor::{Buffer, Descriptor};
use super::parse;
use super::rate::Turns;
use super::reading::{Figure, Missing, Readings, Stamp};

/// How often the kernel makes the averages anew.
const PERIOD: Duration = Duration::from_secs(2);

/// The files, and the metrics that are in them.
const FILES: [(Metric, Figure, &str); 3] = [
    (
        Metric::CpuPressure,
        Figure::GroupCpuPressure,
        "cpu.pressure",
    ),
    (
        Metric::MemoryPressure,
        Figure::GroupMemoryPressure,
        "memory.pressure",
    ),
    (Metric::DiskPressure, Figure::GroupIoPressure, "io.pressure"),
];

/// The open files and what they said last.
#[derive(Debug)]
pub(super) struct Pressure {
    files: [Result<Descriptor, Missing>; 3],
    latest: [Result<Reading, Missing>; 3],
    turns: Turns,
}

impl Pressure {
    /// Nothing is open before [`Pressure::open`]. `seed` tells domains apart.
    pub(super) fn new(seed: u32) -> Self {
        Self {
            files: FILES.map(|_| Err(Missing::NotMeasured)),
            latest: [Err(Missing::NotMeasured); 3],
            turns: Turns::new(PERIOD, seed),
        }
    }

    /// Opens the files of the group, or takes over why there is none.
    pub(super) fn open(&mut self, group: Result<&Group, Missing>) {
        self.files = FILES.map(|(_, figure, name)| {
            group.and_then(|group| Descriptor::open(&group.directory.join(name), figure))
        });
    }

    /// Whether all files are open.
    pub(super) fn is_whole(&self) -> bool {
        self.files.iter().all(Result::is_ok)
    }

    /// Reads the files where it is their turn, and puts what they said last into the sample.
    pub(super) fn sample(&mut self, tick: Stamp, buffer: &mut Buffer, readings: &mut Readings) {
        if self.turns.take(tick.at) {
            let stamp = self.turns.stamp(tick);
            for ((file, latest), (_, figure, _)) in
                self.files.iter().zip(&mut self.latest).zip(FILES)
            {
                *latest = match file {
                    Ok(file) => file.read(buffer).and_then(|text| {
                        parse::parse_pressure(text)
                            .map(|percent| stamp.host(percent))
                            .map_err(|problem| Missing::Malformed { figure, problem })
                    }),
                    Err(reason) => Err(*reason),
                };
            }
        }
        for (latest, (metric, ..)) in self.latest.iter().zip(FILES) {
            readings.set(metric, *latest);
        }
    }

    /// Whether a file went away, so that the group has to be looked for again.
    pub(super) fn is_gone(&self) -> bool {
        let gone = |latest: &Result<Reading, Missing>| matches!(latest, Err(Missing::Gone(_)));
        self.latest.iter().any(gone)
    }
}
