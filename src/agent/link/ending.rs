//! What follows the end of a connection: what is told, which requests fail, how long to rest, and what may end the rest
//! early. The link calls it once for each connection.

use std::time::Duration;

use agent_protocol::message::HelloReason;
use tokio::time::Instant;

use super::{Link, Met};
use crate::agent::budget::Overflow;
use crate::agent::event::{AgentEvent, LinkState, LostReason};
use crate::agent::session::{Ending, Session};

/// A session that lived this long was a good one: the pauses start small again.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// A session that lived this long without a flood makes up for earlier floods.
const REFORMED: Duration = Duration::from_secs(60);

/// Connections without an answer, after a session, until the agent counts as unresponsive.
const SILENT_CONNECTIONS: u32 = 3;

/// Why a connection ended.
pub(super) enum Verdict {
    /// The registry gave the channel up.
    Gone,
    /// The other end closed the socket.
    Closed,
    Flooded(Overflow),
    Ended(Ending),
}

/// What follows a connection, or a rest.
pub(super) enum Next {
    Rest { until: Instant, wake: Wake },
    Gone,
}

/// What may end a rest early.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// A renewal, but no earlier than this; or another socket.
    Renewal { not_before: Instant },
    /// Another socket alone.
    Move,
    /// Nothing but the end of the link.
    Never,
}

impl Link {
    /// Draws the consequences of a connection's end.
    pub(super) fn ended(
        &mut self,
        session: Session,
        verdict: Verdict,
        began: Instant,
        pause: Duration,
    ) -> Next {
        let now = Instant::now();
        let lived = session.open_since().map(|since| now - since);
        if lived.is_some_and(|lived| lived >= GOOD_SESSION) {
            self.reconnect.reset();
        }
        if lived.is_some_and(|lived| lived >= REFORMED) {
            self.penalty.reset();
        }
        let reason = match verdict {
            Verdict::Gone => LostReason::Detached,
            Verdict::Closed => LostReason::Closed,
            Verdict::Flooded(_) => LostReason::Flooded,
            Verdict::Ended(Ending::Over { reason, .. }) => reason,
            Verdict::Ended(Ending::NoAnswer | Ending::Incompatible(_)) => LostReason::Silent,
        };
        session.close(reason);
        let unresponsive = *self.ends.state.borrow() == LinkState::Unresponsive;
        if lived.is_some() {
            self.tell_lost(reason);
        }
        self.requests.lost(reason);
        // A session that was short makes the guest wait for the whole pause; one that was long, or never came, does not.
        let pause = if lived.is_some_and(|lived| lived >= GOOD_SESSION) {
            self.reconnect.pause()
        } else {
            pause
        };
        let short = lived.is_some_and(|lived| lived < GOOD_SESSION);
        let not_before = if short {
            now + pause
        } else {
            began + self.config.reconnect.0
        };
        let soon = Next::Rest {
            until: now + pause,
            wake: Wake::Renewal { not_before },
        };
        self.hello = HelloReason::Connect;
        match verdict {
            Verdict::Gone => Next::Gone,
            Verdict::Closed => soon,
            Verdict::Flooded(overflow) => {
                let pause = self.penalty.pause();
                tracing::warn!(domain = %self.domain, ?overflow, seconds = pause.as_secs(), "the guest sent more than it may and is disconnected for a while");
                self.set_state(LinkState::Flooding { pause });
                Next::Rest {
                    until: now + pause,
                    wake: Wake::Move,
                }
            }
            Verdict::Ended(Ending::Over { hello, .. }) => {
                self.hello = hello;
                if reason == LostReason::Moved {
                    return Next::Rest {
                        until: now,
                        wake: Wake::Move,
                    };
                }
                if lived.is_none() {
                    // A renewal before anybody answered: the pause was for nobody.
                    return Next::Rest {
                        until: not_before,
                        wake: Wake::Move,
                    };
                }
                soon
            }
            Verdict::Ended(Ending::NoAnswer) => {
                if self.met == Met::Before {
                    self.hello = HelloReason::Heartbeat;
                    self.silent_connections += 1;
                    if self.silent_connections >= SILENT_CONNECTIONS && !unresponsive {
                        tracing::warn!(domain = %self.domain, "the agent has not answered over several connections");
                        self.set_state(LinkState::Unresponsive);
                        self.tell(AgentEvent::Unresponsive);
                    }
                }
                // The pause was made while listening.
                Next::Rest {
                    until: now,
                    wake: Wake::Move,
                }
            }
            Verdict::Ended(Ending::Incompatible(versions)) => {
                self.set_state(LinkState::Incompatible(versions));
                if self.told_incompatible.replace(versions) != Some(versions) {
                    tracing::warn!(domain = %self.domain, error = %versions, "daemon and agent cannot talk");
                    self.tell(AgentEvent::Incompatible { versions });
                }
                soon
            }
        }
    }
}
