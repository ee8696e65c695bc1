//! Major faults inside the guest, made into a rate from the counter of its balloon driver. Nothing is read here; the
//! daemon passes in each answer of the hypervisor. It stands for the guest's own pressure where no agent tells that.

use std::time::Duration;

use persona::signal::{Metric, Reading, Source};
use persona::units::Moment;

use super::rate::Counters;
use super::reading::{Figure, Missing, Readings};
use crate::hypervisor::BalloonStats;

/// The rate of one domain.
#[derive(Debug)]
pub struct GuestFaults {
    counters: Counters<1>,
    /// When the driver counted what was taken over last.
    updated: Option<u64>,
    latest: Result<Reading, Missing>,
}

impl Default for GuestFaults {
    fn default() -> Self {
        Self {
            counters: Counters::new(Figure::GuestMajorFaults),
            updated: None,
            latest: Err(Missing::NotReported),
        }
    }
}

impl GuestFaults {
    /// Takes over what the hypervisor answered; `last_update` counts seconds of the daemon's clock. `period` is how often
    /// it is asked, or how often the driver counts, whichever is rarer.
    pub fn take(&mut self, stats: &BalloonStats, period: Duration) {
        let updated = stats.last_update.filter(|seconds| *seconds > 0);
        let (Some(count), Some(updated)) = (stats.major_faults, updated) else {
            return;
        };
        if self.updated == Some(updated) {
            // The same figures once more; the rate grows old by itself.
            return;
        }
        self.updated = Some(updated);
        let at = Moment(updated.saturating_mul(1000));
        self.latest = self.counters.advance(at, [count]).map(|[value]| Reading {
            value,
            source: Source::Balloon,
            at,
            period,
        });
    }

    /// Puts the last rate into a sample.
    pub fn add_to(&self, readings: &mut Readings) {
        readings.set(Metric::GuestMajorFaults, self.latest);
    }
}

#[cfg(test)]
mod tests {
    use persona::signal::Signals;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn stats(count: Option<u64>, updated: u64) -> BalloonStats {
        BalloonStats {
            major_faults: count,
            last_update: Some(updated),
            ..BalloonStats::default()
        }
    }

    fn shown(faults: &GuestFaults) -> Result<(f64, Moment), Missing> {
        let mut readings = Readings::unknown(Missing::NotMeasured);
        faults.add_to(&mut readings);
        match readings.reading(Metric::GuestMajorFaults) {
            Some(reading) => Ok((reading.value, reading.at)),
            None => Err(readings.missing(Metric::GuestMajorFaults).unwrap()),
        }
    }

    #[test]
    fn faults_are_a_rate_over_the_drivers_own_time_and_the_same_answer_twice_is_one() {
        let mut faults = GuestFaults::default();
        assert_eq!(shown(&faults), Err(Missing::NotReported));
        faults.take(&stats(None, 100), PERIOD);
        assert_eq!(shown(&faults), Err(Missing::NotReported));
        faults.take(&stats(Some(1000), 100), PERIOD);
        assert_eq!(shown(&faults), Err(Missing::FirstSample));
        faults.take(&stats(Some(2000), 104), PERIOD);
        assert_eq!(shown(&faults), Ok((250.0, Moment(104_000))));
        faults.take(&stats(Some(2000), 104), PERIOD);
        assert_eq!(shown(&faults), Ok((250.0, Moment(104_000))));
        faults.take(&stats(Some(5), 108), PERIOD);
        assert_eq!(
            shown(&faults),
            Err(Missing::CounterWentBack(Figure::GuestMajorFaults))
        );
    }
}
