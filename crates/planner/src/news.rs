//! What happens is heard once: an event that the rules of one persona have heard of is none for those of the next, which
//! would act on it again within the seconds for which it counts. Called by `evaluate`.

use persona::signal::{Event, Metric, Named, Reading, Signals};
use persona::units::Moment;

/// The signals of a domain, without the events that an earlier persona has heard of.
pub(crate) struct News<'a> {
    pub(crate) signals: &'a dyn Signals,
    /// Its rules were last evaluated then; nothing where there was none.
    pub(crate) heard: Option<Moment>,
}

impl Signals for News<'_> {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        self.signals.reading(metric)
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        self.signals.named(named)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        let at = self.signals.happened(event)?;
        self.heard.is_none_or(|heard| at > heard).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use persona::signal::EventKind;

    use super::*;
    use crate::testing::{AT, All};

    #[test]
    fn what_was_heard_of_is_no_news_and_every_reading_still_is() {
        let event = Event {
            kind: EventKind::AgentLost,
            source: None,
        };
        let before = Moment(AT.0 - 1);
        for (heard, news) in [
            (None, Some(AT)),
            (Some(before), Some(AT)),
            (Some(AT), None),
            (Some(AT.after(Duration::from_secs(1))), None),
        ] {
            let signals = News {
                signals: &All,
                heard,
            };
            assert_eq!(signals.happened(&event), news, "{heard:?}");
            assert!(signals.reading(Metric::CpuUtilization).is_some());
            let orders: Named = "guest.app.orders".parse().unwrap();
            assert_eq!(signals.named(&orders), All.named(&orders));
        }
    }
}
