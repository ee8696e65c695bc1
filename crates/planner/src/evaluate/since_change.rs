//! Readings that a rule may go by after its domain was changed. Every stage that asks for readings of a domain goes through it.

use persona::signal::{Event, Metric, Named, Reading, Signals};
use persona::units::Moment;

use crate::snapshot::Domain;
use crate::state::DomainState;

/// The readings, without those from before the last change of what they measure: such a reading describes a machine
/// that is no more, and would make the same rule fire twice for one need.
pub(crate) struct SinceChange<'a> {
    pub(crate) signals: &'a dyn Signals,
    pub(crate) vcpus: Option<Moment>,
    pub(crate) memory: Option<Moment>,
}

impl<'a> SinceChange<'a> {
    /// The readings of a domain, by what is carried for it.
    pub(crate) fn of(domain: &Domain<'a>, carried: &DomainState) -> Self {
        Self {
            signals: domain.signals,
            vcpus: carried.vcpus.changed_at,
            memory: carried.memory.changed_at,
        }
    }
}

impl Signals for SinceChange<'_> {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let changed = match metric {
            Metric::CpuUtilization
            | Metric::CpuSteal
            | Metric::CpuThrottled
            | Metric::CpuPressure
            | Metric::VcpuCount => self.vcpus,
            Metric::MemorySize
            | Metric::MemoryUtilization
            | Metric::MemoryAvailable
            | Metric::MemoryPressure
            | Metric::MemorySwapIn
            | Metric::MemoryMajorFaults
            | Metric::GuestMemoryPressure
            | Metric::GuestMajorFaults => self.memory,
            _ => None,
        };
        let reading = self.signals.reading(metric)?;
        match changed {
            // Rates are averages over the time since the sample before, so one whole period must lie after the change.
            Some(changed)
                if matches!(
                    metric,
                    Metric::CpuUtilization
                        | Metric::MemorySwapIn
                        | Metric::MemoryMajorFaults
                        | Metric::GuestMajorFaults
                ) && reading.at < changed.after(reading.period) =>
            {
                None
            }
            Some(changed) if reading.at < changed => None,
            _ => Some(reading),
        }
    }

    // What applications and others say is no measure of a resource, and what has happened stays so after a change.

    fn named(&self, named: &Named) -> Option<Reading> {
        self.signals.named(named)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        self.signals.happened(event)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use persona::signal::EventKind;

    use super::*;
    use crate::testing::{AT, All};

    #[test]
    fn a_change_hides_what_was_measured_before_it_and_neither_names_nor_events() {
        let since = SinceChange {
            signals: &All,
            vcpus: Some(AT.after(Duration::from_secs(1))),
            memory: Some(AT.after(Duration::from_secs(1))),
        };
        assert_eq!(since.reading(Metric::CpuUtilization), None);
        assert_eq!(since.reading(Metric::MemoryAvailable), None);
        assert!(since.reading(Metric::GuestLoad).is_some());
        let orders: Named = "guest.app.orders".parse().unwrap();
        assert_eq!(since.named(&orders), All.named(&orders));
        let event = Event {
            kind: EventKind::AgentLost,
            source: None,
        };
        assert_eq!(since.happened(&event), Some(AT));
    }
}
