//! The readings that the rules see of the simulated domain: those of the trace or of the recording, as a domain of its size would
//! show them, and what it shows itself. How large it is at the moment is in `machine`; the planner asks.

use persona::Moment;
use persona::signal::{Event, Metric, Named, Reading, Signal, Signals, Source};

use super::{Machine, Track};
use crate::simulate::sizes::{Follows, Load};

impl Machine {
    pub(super) fn track(&self, index: usize) -> Option<Reading> {
        let track = &self.columns[index];
        let (value, at) = track.latest?;
        Some(Reading {
            value,
            source: track.source,
            at,
            period: track.period,
        })
    }

    /// What the simulated domain itself shows, whatever the trace says of the recorded one.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn own(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::VcpuCount => Some(f64::from(self.vcpus)),
            Metric::MemorySize => Some(self.memory.0 as f64),
            _ => None,
        }
    }

    /// A reading of the recorded domain as the simulated one would show it.
    #[allow(clippy::cast_precision_loss)]
    fn scaled(&self, metric: Metric, value: f64) -> f64 {
        if self.sizes.load == Load::Open {
            return value;
        }
        let ((vcpus, start), size) = (self.recorded_size(), self.memory.0 as f64);
        match metric {
            Metric::CpuUtilization => {
                (value * f64::from(vcpus) / f64::from(self.vcpus.max(1))).min(100.0)
            }
            Metric::MemoryUtilization => (value * start / size.max(1.0)).min(100.0),
            Metric::MemoryAvailable => (size - (start - value)).max(0.0),
            _ => value,
        }
    }
}

/// The one of the guest's two figures of memory that the other can be computed from.
pub(super) fn derived_from(metric: Metric) -> Option<Metric> {
    match metric {
        Metric::MemoryAvailable => Some(Metric::MemoryUtilization),
        Metric::MemoryUtilization => Some(Metric::MemoryAvailable),
        _ => None,
    }
}

impl Signals for Machine {
    #[allow(clippy::cast_precision_loss)]
    fn reading(&self, metric: Metric) -> Option<Reading> {
        if let Some(frame) = &self.recorded
            && self.follows == Follows::Recording
        {
            return frame.signals.reading(metric);
        }
        if let Some(value) = self.own(metric) {
            return Some(Reading {
                value,
                source: Source::Host,
                at: self.now,
                period: self.tick,
            });
        }
        if let Some(frame) = &self.recorded {
            let mut reading = frame.signals.reading(metric)?;
            reading.value = self.scaled(metric, reading.value);
            return Some(reading);
        }
        if let Some(index) = self.metrics[metric as usize] {
            let mut reading = self.track(index)?;
            reading.value = self.scaled(metric, reading.value);
            return Some(reading);
        }
        // A share and an amount of the same memory: the daemon computes one of the other as well.
        let other = derived_from(metric)?;
        let mut reading = self.track(self.metrics[other as usize]?)?;
        let size = self.memory.0 as f64;
        let value = self.scaled(other, reading.value);
        reading.value = match metric {
            Metric::MemoryAvailable => (1.0 - value / 100.0) * size,
            _ => (1.0 - value / size.max(1.0)).clamp(0.0, 1.0) * 100.0,
        };
        Some(reading)
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        if let Some(frame) = &self.recorded {
            return frame.signals.named(named);
        }
        let of = |track: &Track| matches!(&track.signal, Signal::Named(own) if own == named);
        self.track(self.columns.iter().position(of)?)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        if let Some(frame) = &self.recorded {
            return frame.signals.happened(event);
        }
        let (_, at) = self.events.iter().find(|(waited, _)| waited == event)?;
        *at
    }
}
