//! What goes through a domain's disks, by the emulator's own counters as the hypervisor's bulk call delivers them.
//! Nothing is read here: the daemon passes the counters in when they come, and each tick takes the last rates.
//!
//! A counter belongs to a disk by its name in the guest: one that was removed counts no more, one that was added counts
//! from the next answer on.

use std::time::Duration;

use persona::signal::{Metric, Reading};
use persona::units::Moment;

use super::rate::{elapsed, per_second};
use super::reading::{Figure, Missing, Readings, Stamp};
use crate::hypervisor::{DiskCounters, DiskStats};

/// The metrics, in the order of [`DiskRates::latest`].
const METRICS: [Metric; 5] = [
    Metric::DiskReadIops,
    Metric::DiskWriteIops,
    Metric::DiskReadBandwidth,
    Metric::DiskWriteBandwidth,
    Metric::DiskLatency,
];

/// The disks of one domain: their last counters, and the rates between the last two answers.
#[derive(Clone, Debug)]
pub struct DiskRates {
    previous: Option<(Moment, Vec<DiskStats>)>,
    latest: [Result<Reading, Missing>; METRICS.len()],
}

impl Default for DiskRates {
    fn default() -> Self {
        Self {
            previous: None,
            latest: [Err(Missing::NotMeasured); METRICS.len()],
        }
    }
}

impl DiskRates {
    /// Takes over what the hypervisor answered. `asked` is when it was asked, so that no reading seems younger than it
    /// is; `period` is how often it is asked.
    pub fn take(&mut self, disks: Vec<DiskStats>, asked: Moment, period: Duration) {
        if disks.is_empty() {
            *self = Self {
                previous: None,
                latest: [Err(Missing::NoDisk); METRICS.len()],
            };
            return;
        }
        if disks.iter().all(|disk| disk.counters.is_none()) {
            // Nothing new is known, and the last rates grow old by themselves.
            for latest in &mut self.latest {
                *latest = latest.or(Err(Missing::EmulatorBusy));
            }
            return;
        }
        let previous = self.previous.take();
        let rates = previous
            .ok_or(Missing::FirstSample)
            .and_then(|(then, before)| rates(&before, &disks, elapsed(then, asked)?));
        let stamp = Stamp { at: asked, period };
        self.latest = match rates {
            Ok(rates) => rates.map(|rate| rate.map(|value| stamp.host(value))),
            Err(reason) => [Err(reason); METRICS.len()],
        };
        self.previous = Some((asked, disks));
    }

    /// Puts the last rates into a sample.
    pub fn add_to(&self, readings: &mut Readings) {
        for (metric, latest) in METRICS.into_iter().zip(self.latest) {
            readings.set(metric, latest);
        }
    }
}

/// What a domain's disks did between two answers.
#[derive(Default)]
struct Work {
    reads: u64,
    writes: u64,
    read: u64,
    written: u64,
    time: Duration,
}

impl Work {
    fn add(&mut self, before: &DiskCounters, after: &DiskCounters) -> Result<(), Missing> {
        let went_back = Missing::CounterWentBack(Figure::DiskCounters);
        let change = |before: u64, after: u64| after.checked_sub(before).ok_or(went_back);
        let time = |before: Duration, after: Duration| after.checked_sub(before).ok_or(went_back);
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.reads, change(before.reads, after.reads)?);
        add(&mut self.writes, change(before.writes, after.writes)?);
        add(&mut self.read, change(before.read.0, after.read.0)?);
        add(
            &mut self.written,
            change(before.written.0, after.written.0)?,
        );
        let more = [
            time(before.read_time, after.read_time)?,
            time(before.write_time, after.write_time)?,
        ];
        self.time = more.into_iter().fold(self.time, Duration::saturating_add);
        Ok(())
    }
}

/// The rates in the order of [`METRICS`].
fn rates(
    before: &[DiskStats],
    after: &[DiskStats],
    elapsed: Duration,
) -> Result<[Result<f64, Missing>; METRICS.len()], Missing> {
    let mut work = None::<Work>;
    for disk in after {
        // The sum over some of the disks would be taken for that over all.
        let counters = disk.counters.as_ref().ok_or(Missing::DiskNotCounted)?;
        let known = before.iter().find(|known| known.target == disk.target);
        if let Some(known) = known.and_then(|known| known.counters.as_ref()) {
            work.get_or_insert_default().add(known, counters)?;
        }
    }
    let work = work.ok_or(Missing::FirstSample)?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "requests of a few seconds are far below 2^53"
    )]
    let latency = match work.reads.saturating_add(work.writes) {
        0 => Err(Missing::NoRequests),
        requests => Ok(work.time.as_secs_f64() / requests as f64),
    };
    Ok([
        Ok(per_second(work.reads, elapsed)),
        Ok(per_second(work.writes, elapsed)),
        Ok(per_second(work.read, elapsed)),
        Ok(per_second(work.written, elapsed)),
        latency,
    ])
}
