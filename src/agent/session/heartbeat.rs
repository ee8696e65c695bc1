//! Signs of life: what was heard, the proof that a young session is asked for, pings of callers. What is due by the clock is in
//! `Session::tick`. Called by `session`, and by the link where the daemon or a caller wants something.

use std::time::Duration;

use agent_protocol::HostMessage;
use agent_protocol::message::{HelloReason, Ping};
use tokio::time::Instant;

use super::{Ending, PingAnswer, Session, Stage, over};
use crate::agent::error::AgentError;
use crate::agent::event::{LostReason, Running};

/// A session this young may already be the one that a hint of a reboot is about: it is put to the test, not ended.
const YOUNG: Duration = Duration::from_secs(5);

/// How long a young session may take to prove itself.
const PROOF: Duration = Duration::from_secs(2);

/// Pings of callers that may be under way at once.
const PINGS_MAX: usize = 8;

impl Session {
    pub(super) fn heard(&mut self, now: Instant) {
        self.heartbeat.unanswered = 0;
        self.heartbeat.next = (self.running == Running::Yes).then(|| now + self.config.heartbeat);
    }

    /// The domain was paused or runs again: silence is held against it only while it runs.
    pub(in crate::agent) fn set_running(&mut self, running: Running, now: Instant) {
        if std::mem::replace(&mut self.running, running) == running {
            return;
        }
        if self.facts().is_some() {
            self.heartbeat.proof = None;
            self.heard(now);
        } else if let Stage::Greeting { until, .. } = &mut self.stage {
            *until = (running == Running::Yes).then(|| now + self.config.hello_timeout);
        }
    }

    /// The daemon wants another session. A hint of a reboot that comes late, when the rebooted guest has its session
    /// already, costs that session a proof only.
    pub(in crate::agent) fn renew(
        &mut self,
        reason: HelloReason,
        now: Instant,
    ) -> Result<(), Ending> {
        let hint = matches!(reason, HelloReason::Reboot | HelloReason::Connect);
        if hint
            && self.running == Running::Yes
            && self.open_since().is_some_and(|since| now - since < YOUNG)
        {
            if self.heartbeat.proof.is_none() {
                self.heartbeat.proof = Some((now + PROOF, self.push_ping()));
            }
            return Ok(());
        }
        let lost = if reason == HelloReason::Revert {
            LostReason::Reverted
        } else {
            LostReason::Renewed
        };
        Err(over(lost, reason))
    }

    pub(super) fn push_ping(&mut self) -> u64 {
        self.pinged += 1;
        self.queue.push(HostMessage::Ping(Ping { n: self.pinged }));
        self.pinged
    }

    /// Sends a ping for a caller.
    pub(in crate::agent) fn ping(&mut self, answer: PingAnswer, now: Instant) {
        let domain = self.domain;
        if self.facts().is_none() {
            let _ = answer.send(Err(AgentError::NotConnected { domain }));
        } else if self.pings.len() >= PINGS_MAX {
            let _ = answer.send(Err(AgentError::Busy {
                domain,
                operation: "ping",
                in_flight: PINGS_MAX,
            }));
        } else {
            let number = self.push_ping();
            self.pings.push((number, now, answer));
        }
    }

    pub(super) fn ping_patience(&self) -> Duration {
        self.config.heartbeat * self.config.heartbeat_misses
    }
}
