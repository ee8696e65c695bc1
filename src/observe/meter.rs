//! CPU figures of domains whose vCPUs are no threads of this host: their times are asked of a meter, and what is made of
//! them is the same. Called by [`Observer`](super::Observer) alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use persona::signal::Metric;
use persona::units::Moment;

use super::domain::DomainSample;
use super::procfs::ThreadTimes;
use super::rate;
use super::reading::{Missing, Stamp};
use super::vcpu::{VcpuBasis, VcpuWork, percent_of};
use crate::hypervisor::{DomainId, VcpuMeter, VcpuTimes};

/// A meter and what it showed last.
#[derive(Debug)]
pub(super) struct Metered {
    meter: Arc<dyn VcpuMeter>,
    before: BTreeMap<DomainId, (Moment, Vec<VcpuTimes>)>,
}

impl Metered {
    pub(super) fn new(meter: Arc<dyn VcpuMeter>) -> Self {
        Self {
            meter,
            before: BTreeMap::new(),
        }
    }

    pub(super) fn forget(&mut self, domain: DomainId) {
        self.before.remove(&domain);
    }

    /// Puts utilisation and steal into the sample of a domain that is metered, and leaves that of another alone.
    pub(super) fn sample(
        &mut self,
        domain: DomainId,
        online: Option<u32>,
        stamp: Stamp,
        sample: &mut DomainSample,
    ) {
        let Some(after) = self.meter.vcpu_times(domain) else {
            self.forget(domain);
            return;
        };
        let before = self.before.insert(domain, (stamp.at, after.clone()));
        match work(before, &after, stamp.at) {
            Ok((work, elapsed)) => {
                let basis = work.basis(online);
                sample.vcpu_basis = Some(basis);
                let figures = [
                    (Metric::CpuUtilization, work.run),
                    (Metric::CpuSteal, work.wait),
                ];
                for (metric, time) in figures {
                    let percent = percent(time, elapsed, basis).map(|value| stamp.host(value));
                    sample.readings.set(metric, percent);
                }
            }
            Err(reason) => {
                for metric in [Metric::CpuUtilization, Metric::CpuSteal] {
                    sample.readings.set(metric, Err(reason));
                }
            }
        }
    }
}

fn percent(time: u64, elapsed: Duration, basis: VcpuBasis) -> Result<f64, Missing> {
    percent_of(time, elapsed, basis.vcpus()).ok_or(Missing::NoTimePassed)
}

/// What the vCPUs that are in both samples did between them.
fn work(
    before: Option<(Moment, Vec<VcpuTimes>)>,
    after: &[VcpuTimes],
    now: Moment,
) -> Result<(VcpuWork, Duration), Missing> {
    let (then, before) = before.ok_or(Missing::FirstSample)?;
    let elapsed = rate::elapsed(then, now)?;
    let mut work = VcpuWork::default();
    for (before, after) in before.iter().zip(after) {
        work.add(times(before), times(after), elapsed)?;
    }
    Ok((work, elapsed))
}

fn times(times: &VcpuTimes) -> ThreadTimes {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ThreadTimes {
        run: nanos(times.run),
        wait: nanos(times.wait),
        slices: 0,
    }
}
