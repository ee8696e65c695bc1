//! What a guest says on its own account: that it is short of memory, that its users want another persona, that what holds
//! in it is otherwise than before, that records of rules wait. Whether it counts is decided here, by what somebody listens to
//! and by how often it comes; what follows from it is the daemon's. Called with each frame of that kind.

use std::time::Duration;

use agent_protocol::limits::{NEED_INTERVAL_MS, NEED_REASON_MAX};
use agent_protocol::message::{JournalState, Telemetry};
use agent_protocol::{Ask, Need};
use persona::units::Bytes;
use tokio::time::Instant;

use super::{Happening, Session, Stage};
use crate::agent::event::{AgentFacts, OwnWay, WentBack};
use crate::agent::words::{GuestWords, Lines};
use crate::agent::{Needs, Switches};

/// Needs that come faster than this are dropped. An agent keeps twice the interval, so that a late first one and a punctual
/// second one both count.
const NEED_PAUSE: Duration = Duration::from_millis(NEED_INTERVAL_MS / 2);

/// News of returns by hand that come faster than this wait for a later report.
const DEVIATED_PAUSE: Duration = Duration::from_secs(3);

/// Between two times at which it is told that records of rules wait in a guest.
const RECORDS_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// A need counts when it can be, somebody listens, and it does not come too soon after the one before. A new session
    /// begins without one before it; the pause between connections bounds what a guest gains by that.
    pub(super) fn needed(&mut self, need: Need, now: Instant) -> Happening {
        let soon = self
            .needed_at
            .is_some_and(|before| now < before + NEED_PAUSE);
        match need.check() {
            Ok(need) if !soon && self.config.needs == Needs::Honour => {
                self.needed_at = Some(now);
                Happening::Needed {
                    more: Bytes(need.memory_bytes),
                    reason: GuestWords::clean(&need.reason, NEED_REASON_MAX, Lines::One),
                }
            }
            _ => {
                self.misconduct.refused_needs += 1;
                Happening::Nothing
            }
        }
    }

    /// What the agent says of itself now, where it says of what is done by hand something else than before. A guest that
    /// says something else each time is heard no more often than a person could do it.
    pub(super) fn deviated(&mut self, telemetry: &Telemetry, now: Instant) -> Option<AgentFacts> {
        let told = telemetry.rolled_back.as_ref();
        let told = told.map(WentBack::of).map(Box::new);
        let own = telemetry.customized.as_ref();
        let own = own.map(OwnWay::of).map(Box::new);
        let Stage::Open { facts, .. } = &mut self.stage else {
            return None;
        };
        let soon = self
            .deviated_at
            .is_some_and(|before| now < before + DEVIATED_PAUSE);
        // A report says it only while the guest can write nothing.
        let journal = match (telemetry.journal, facts.journal) {
            (Some(JournalState::Frozen), _) => JournalState::Frozen,
            (_, JournalState::Frozen) => JournalState::Clean,
            (_, before) => before,
        };
        let same = facts.rolled_back == told
            && facts.own == own
            && facts.gate == telemetry.gate
            && facts.journal == journal;
        if same || soon {
            return None;
        }
        self.deviated_at = Some(now);
        (facts.rolled_back, facts.own, facts.gate) = (told, own, telemetry.gate);
        facts.journal = journal;
        Some(facts.clone())
    }

    /// An ask counts when it makes sense, somebody listens, and there are not too many.
    pub(super) fn asked(&mut self, ask: Ask, now: Instant) -> Happening {
        let passed = now.saturating_duration_since(self.began).as_millis();
        let now_ms = u64::try_from(passed).unwrap_or(u64::MAX);
        match ask.check() {
            Ok(ask)
                if self.config.switches == Switches::Honour && self.asks.take(now_ms).is_ok() =>
            {
                Happening::Asked(Box::new(ask))
            }
            _ => {
                self.misconduct.refused_asks += 1;
                Happening::Nothing
            }
        }
    }

    /// Whether the guest has said that records of rules wait for the host; it is told once a while.
    pub(in crate::agent) fn take_records_wait(&mut self, now: Instant) -> bool {
        let soon = self
            .records_told_at
            .is_some_and(|before| now < before + RECORDS_PAUSE);
        let tell = self.records_wait && !soon;
        if tell {
            (self.records_wait, self.records_told_at) = (false, Some(now));
        }
        tell
    }
}
