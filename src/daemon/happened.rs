//! The events that the daemon knows of a domain, each with its last moment, for the rules that wait for one. What
//! makes them known is in `follow`; a rule reads them with the readings, through [`Tracked`].

use persona::Moment;
use persona::signal::{Event, EventKind, Metric, Named, Reading, Signals};

use super::tracked::Tracked;

/// When each event last happened to a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    last: [Option<Moment>; EventKind::ALL.len()],
}

impl Happened {
    /// It happens now.
    pub(super) fn note(&mut self, kind: EventKind, now: Moment) {
        self.last[kind as usize] = Some(now);
    }

    /// When it last happened.
    pub(super) fn last(&self, kind: EventKind) -> Option<Moment> {
        self.last[kind as usize]
    }
}

impl Signals for Tracked {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        self.readings.reading(metric)
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        self.agent.applications.reading(named)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        // What has a source happens to a source of data, and the daemon reads none.
        if event.source.is_some() {
            return None;
        }
        self.happened.last(event.kind)
    }
}
