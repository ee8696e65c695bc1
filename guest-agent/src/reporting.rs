//! Reports of one session: when the next is due, and those that wait to be sent. They go against credit; a host that does not
//! read gets the newest ones and the number of those that were overwritten. Without credit there is no next time at all.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use agent_protocol::{Report, limits::CREDIT_MAX};

/// Reports that wait for a host that does not read.
const WAITING_MAX: usize = 4;

/// The reports of one session.
#[derive(Debug)]
pub(crate) struct Reporting {
    interval: Option<Duration>,
    credit: u32,
    due: Option<Instant>,
    waiting: VecDeque<Report>,
    overwritten: u64,
}

impl Reporting {
    /// No credit yet; `None` when the host wants reports only on request.
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            credit: 0,
            due: None,
            waiting: VecDeque::new(),
            overwritten: 0,
        }
    }

    /// The host wants another interval; it holds from the next report on.
    pub(crate) fn set_interval(&mut self, interval: Option<Duration>) {
        self.interval = interval;
        self.due = self.due.filter(|_| interval.is_some());
    }

    /// The host can take so many more; with the first, a report is due at once.
    pub(crate) fn add_credit(&mut self, frames: u32, now: Instant) {
        self.credit = self.credit.saturating_add(frames).min(CREDIT_MAX);
        if self.due.is_none() && self.credit > 0 {
            self.due = self.interval.map(|_| now);
        }
    }

    /// The time between two reports; `None` when they come on request only.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// When the next report is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How many reports were overwritten.
    pub(crate) fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// Queues the report that was due, and works out the next time.
    pub(crate) fn queue(&mut self, report: Option<Report>, now: Instant) {
        if let Some(report) = report {
            self.credit = self.credit.saturating_sub(1);
            self.waiting.push_back(report);
            if self.waiting.len() > WAITING_MAX {
                // It was never sent, so its credit is given back.
                self.waiting.pop_front();
                self.overwritten += 1;
                self.credit = self.credit.saturating_add(1);
            }
        }
        self.due = self
            .interval
            .filter(|_| self.credit > 0)
            .map(|interval| now + interval);
    }

    /// The oldest report that waits, with the number of those that were lost so far.
    pub(crate) fn take(&mut self) -> Option<Report> {
        let report = self.waiting.pop_front()?;
        Some(Report {
            dropped: self.overwritten,
            ..report
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    #[test]
    fn without_credit_nothing_is_due() {
        let now = Instant::now();
        let mut reporting = Reporting::new(Some(INTERVAL));
        assert_eq!(reporting.due(), None);
        reporting.add_credit(2, now);
        assert_eq!(reporting.due(), Some(now));
        reporting.queue(Some(Report::default()), now);
        assert_eq!(reporting.due(), Some(now + INTERVAL));
        reporting.queue(Some(Report::default()), now);
        assert_eq!(reporting.due(), None);
    }

    #[test]
    fn the_oldest_reports_are_overwritten_and_counted() {
        let now = Instant::now();
        let mut reporting = Reporting::new(Some(INTERVAL));
        reporting.add_credit(u32::MAX, now);
        for at_ms in 0..10 {
            reporting.queue(
                Some(Report {
                    at_ms,
                    ..Report::default()
                }),
                now,
            );
        }
        let first = reporting.take().unwrap();
        assert_eq!((first.at_ms, first.dropped), (6, 6));
        assert_eq!(
            reporting.credit,
            CREDIT_MAX - 4,
            "a report that was not sent costs nothing"
        );
    }

    #[test]
    fn reports_on_request_only_need_no_timer() {
        let mut reporting = Reporting::new(None);
        reporting.add_credit(5, Instant::now());
        assert_eq!(reporting.due(), None);
    }
}
