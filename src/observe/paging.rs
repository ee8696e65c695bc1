//! What of a domain's memory had to come back from a disk: major faults of the emulator, and pages that its control
//! group read back from swap. Read at turns, because `memory.stat` costs the kernel more than a tick's other files
//! together. Called by `domain`. Formats: proc(5), `Documentation/admin-guide/cgroup-v2.rst` and
//! `cgroup-v1/memory.rst` of the kernel.

use std::time::Duration;

use persona::signal::{Metric, Reading};

use super::cgroup::{GroupFiles, Version};
use super::descriptor::Buffer;
use super::parse::{self, FormatError};
use super::procfs::{Process, parse_major_faults};
use super::rate::{Counters, Turns};
use super::reading::{Figure, Missing, Readings, Stamp};

/// A guest that is being swapped out suffers for minutes, so this is soon enough.
const PERIOD: Duration = Duration::from_secs(5);

/// Pages that came back from swap since the group was made, in `memory.stat`; `None` where the kernel does not count
/// them.
///
/// Newer kernels count them as such. Before that, refaults of anonymous pages are those: an anonymous page that was
/// taken away can only be in swap.
pub fn parse_swap_ins(text: &[u8], version: Version) -> Result<Option<u64>, FormatError> {
    match version {
        // The figures without `total_` leave out the groups below, where libvirt puts the emulator.
        Version::V1 => parse::parse_keyed(text, "total_workingset_refault_anon"),
        Version::V2 => match parse::parse_keyed(text, "pswpin")? {
            Some(pages) => Ok(Some(pages)),
            None => parse::parse_keyed(text, "workingset_refault_anon"),
        },
    }
}

/// The last counters and what came of them.
#[derive(Debug)]
pub(super) struct Paging {
    major_faults: Counters<1>,
    swap_ins: Counters<1>,
    latest: [Result<Reading, Missing>; 2],
    turns: Turns,
}

impl Paging {
    /// `seed` tells domains apart.
    pub(super) fn new(seed: u32) -> Self {
        Self {
            major_faults: Counters::new(Figure::MajorFaults),
            swap_ins: Counters::new(Figure::GroupSwapIns),
            latest: [Err(Missing::NotMeasured); 2],
            turns: Turns::new(PERIOD, seed),
        }
    }

    /// The group is another one, whose counters have nothing to do with those before.
    pub(super) const fn group_changed(&mut self) {
        self.swap_ins.forget();
    }

    /// Reads the counters where it is their turn, and puts the rates of the last turn into the sample.
    pub(super) fn sample(
        &mut self,
        process: &Process,
        groups: Result<&GroupFiles, Missing>,
        tick: Stamp,
        buffer: &mut Buffer,
        readings: &mut Readings,
    ) {
        if self.turns.take(tick.at) {
            let stamp = self.turns.stamp(tick);
            let major_faults = process.read(buffer).and_then(|text| {
                parse_major_faults(text).map_err(|problem| Missing::Malformed {
                    figure: Figure::MajorFaults,
                    problem,
                })
            });
            let swap_ins = groups.and_then(|groups| groups.read_swap_ins(buffer));
            let rate = |counter: &mut Counters<1>, count: Result<u64, Missing>| {
                let count = count.inspect_err(|_| counter.forget())?;
                let [rate] = counter.advance(stamp.at, [count])?;
                Ok(stamp.host(rate))
            };
            self.latest = [
                rate(&mut self.major_faults, major_faults),
                rate(&mut self.swap_ins, swap_ins),
            ];
        }
        readings.set(Metric::MemoryMajorFaults, self.latest[0]);
        readings.set(Metric::MemorySwapIn, self.latest[1]);
    }

    /// Whether the group went away, so that it has to be looked for again.
    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.latest[1], Err(Missing::Gone(_)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::type_complexity, reason = "tables of cases")]
    use super::*;

    #[test]
    fn swap_ins_are_counted_as_such_or_as_refaults_of_anonymous_pages() {
        let v1 = include_bytes!("../../tests/fixtures/cgroup-v1/memory.stat");
        let v2 = include_bytes!("../../tests/fixtures/cgroup-v2/memory.stat");
        let cases: [(&[u8], Version, Result<Option<u64>, FormatError>); 9] = [
            (v1, Version::V1, Ok(Some(0))),
            (v2, Version::V2, Ok(Some(0))),
            (
                b"workingset_refault_anon 7\npswpin 5\n",
                Version::V2,
                Ok(Some(5)),
            ),
            (b"workingset_refault_anon 7\n", Version::V2, Ok(Some(7))),
            (
                b"workingset_refault_anon 1\ntotal_workingset_refault_anon 9\n",
                Version::V1,
                Ok(Some(9)),
            ),
            // Kernels that told only refaults of all kinds, most of which are of files.
            (b"workingset_refault 7\n", Version::V2, Ok(None)),
            (b"total_pgpgin 9654\n", Version::V1, Ok(None)),
            (
                b"pswpin -1\n",
                Version::V2,
                Err(FormatError::NotANumber("pswpin")),
            ),
            (b"", Version::V1, Err(FormatError::Empty)),
        ];
        for (text, version, expected) in cases {
            let text_shown = text.escape_ascii().to_string();
            assert_eq!(parse_swap_ins(text, version), expected, "{text_shown}");
        }
    }
}
