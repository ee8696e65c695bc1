//! Signals for the tests of this crate's own wrappers of signals: everything is there, with one value and one moment.

use std::time::Duration;

use persona::signal::{Event, Metric, Named, Reading, Signals, Source};
use persona::units::Moment;

/// The moment of everything.
pub(crate) const AT: Moment = Moment(1_000_000);

/// Every signal is 40, as the host measured it.
pub(crate) struct All;

const READING: Reading = Reading {
    value: 40.0,
    source: Source::Host,
    at: AT,
    period: Duration::from_secs(1),
};

impl Signals for All {
    fn reading(&self, _: Metric) -> Option<Reading> {
        Some(READING)
    }

    fn named(&self, _: &Named) -> Option<Reading> {
        Some(READING)
    }

    fn happened(&self, _: &Event) -> Option<Moment> {
        Some(AT)
    }
}
