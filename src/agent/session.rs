//! One connection's conversation, as far as it can be said without a socket: greeting, order of frames, heartbeat, credit.
//! The link feeds it texts of frames and times, and writes what [`Session::next_frame`] gives. It reads no clock of its own.
//!
//! ```text
//!            hello_ack                          silence, announce of another agent, wrong version
//! Greeting ------------> Open --------------------------------------------------------------------> Ending
//!    | announce: hello again under a fresh id
//! ```
//! Every hello has a session id of its own, so whatever an earlier boot, an earlier client or a saved state of the guest
//! still has to say is recognised and dropped.
//!
//! Here are the state, the way of each frame that comes, and what falls due. `greeting` has how a session begins, `claims`
//! what a guest says unasked, `heartbeat` the signs of life, `sending` what goes out.

mod claims;
mod greeting;
mod heartbeat;
mod sending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::frame::FrameCounters;
use agent_protocol::limits::{ASK_INTERVAL_MS, ASKS_BURST, MIN_FRAME, NAME_MAX};
use agent_protocol::message::{HelloReason, HelloRefused, Ping};
use agent_protocol::switching::Pace;
use agent_protocol::version::NoCommonVersion;
use agent_protocol::{Ask, CheckedReport, GuestMessage, HostMessage, Parts, decode_guest};
use persona::domain::DomainId;
use persona::units::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::LinkConfig;
use super::error::AgentError;
use super::event::{AgentFacts, LostReason, Misconduct, Running};
use super::identity::fresh_session_id;
use super::requests::{Fit, Requests};
use super::words::{GuestWords, Lines};

/// Reports that a guest may send ahead; the window is filled up again each [`CREDIT_PERIODS`] intervals, which bounds the
/// rate of reports whatever the guest does.
const CREDIT_WINDOW: u32 = 8;

/// Intervals of telemetry between two grants: fewer than the window, so that a late grant stops nothing.
const CREDIT_PERIODS: u32 = 5;

/// Where the time of a ping goes.
pub(super) type PingAnswer = oneshot::Sender<Result<Duration, AgentError>>;

#[derive(Debug)]
enum Stage {
    /// A hello was sent; `until` is when the wait is over, unless the domain is paused.
    Greeting {
        sent: Instant,
        until: Option<Instant>,
    },
    /// The agent answered.
    Open { facts: AgentFacts, since: Instant },
}

/// What the link has to do about a frame.
#[derive(Debug)]
pub(super) enum Happening {
    Nothing,
    Connected(AgentFacts),
    Reported(Box<CheckedReport>),
    /// What holds in the guest is otherwise than before, by hand. The report that came with it is passed over.
    Deviated(AgentFacts),
    Needed {
        more: Bytes,
        reason: GuestWords,
    },
    Asked(Box<Ask>),
}

/// Why the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The session is over, or another is wanted; `hello` is the reason to give in the next greeting.
    Over {
        reason: LostReason,
        hello: HelloReason,
    },
    /// Nobody answered the hello.
    NoAnswer,
    /// No common version.
    Incompatible(NoCommonVersion),
}

#[derive(Debug)]
struct Heartbeat {
    /// When to ping, or to give up; none while the domain is paused or nobody has answered yet.
    next: Option<Instant>,
    unanswered: u32,
    /// Until when a young session has to prove itself, and by an answer to which ping.
    proof: Option<(Instant, u64)>,
}

/// The conversation.
#[derive(Debug)]
pub(super) struct Session {
    domain: DomainId,
    config: Arc<LinkConfig>,
    order: agent_protocol::Session,
    stage: Stage,
    running: Running,
    /// What goes before any request.
    queue: Vec<HostMessage>,
    /// What is left of a request in pieces: short messages go between them.
    pieces: VecDeque<HostMessage>,
    heartbeat: Heartbeat,
    pings: Vec<(u64, Instant, PingAnswer)>,
    pinged: u64,
    credit: u32,
    grant_at: Option<Instant>,
    /// Which parts of reports are wanted, and which the agent was told.
    wanted: Parts,
    told: Parts,
    peer_max_frame: usize,
    misconduct: Misconduct,
    /// When the guest last said that it needs memory.
    needed_at: Option<Instant>,
    /// When the guest last said something new of a return by hand.
    deviated_at: Option<Instant>,
    /// When the conversation began.
    began: Instant,
    asks: Pace,
    /// What is to be told of asks: behind greetings, before requests.
    answers: VecDeque<HostMessage>,
    /// Records of rules wait in the guest, and it was not told yet.
    records_wait: bool,
    /// When that was last told.
    records_told_at: Option<Instant>,
}

impl Session {
    /// A conversation that begins with a hello, to be answered within `patience`.
    pub(super) fn greet(
        domain: DomainId,
        config: Arc<LinkConfig>,
        reason: HelloReason,
        patience: Duration,
        running: Running,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            domain,
            config,
            order: agent_protocol::Session::new(fresh_session_id()),
            stage: Stage::Greeting {
                sent: now,
                until: (running == Running::Yes).then(|| now + patience),
            },
            running,
            queue: Vec::new(),
            pieces: VecDeque::new(),
            heartbeat: Heartbeat {
                next: None,
                unanswered: 0,
                proof: None,
            },
            pings: Vec::new(),
            pinged: 0,
            credit: 0,
            grant_at: None,
            wanted: Parts::default(),
            told: Parts::default(),
            peer_max_frame: MIN_FRAME,
            misconduct: Misconduct::default(),
            needed_at: None,
            deviated_at: None,
            began: now,
            // Twice what an agent keeps to, so that a punctual one is never refused.
            asks: Pace::new(ASK_INTERVAL_MS / 2, ASKS_BURST * 2),
            answers: VecDeque::new(),
            records_wait: false,
            records_told_at: None,
        };
        session.say_hello(reason);
        session
    }

    /// What the agent said of itself, while the session is open.
    pub(super) fn facts(&self) -> Option<&AgentFacts> {
        match &self.stage {
            Stage::Open { facts, .. } => Some(facts),
            Stage::Greeting { .. } => None,
        }
    }

    /// When the agent answered.
    pub(super) fn open_since(&self) -> Option<Instant> {
        match self.stage {
            Stage::Open { since, .. } => Some(since),
            Stage::Greeting { .. } => None,
        }
    }

    /// What the guest did wrong so far; `frames` are the decoder's counters.
    pub(super) fn misconduct(&self, frames: FrameCounters) -> Misconduct {
        Misconduct {
            frames,
            order: self.order.counters(),
            ..self.misconduct
        }
    }

    /// Takes the text of one frame.
    pub(super) fn receive(
        &mut self,
        text: &str,
        requests: &mut Requests,
        now: Instant,
    ) -> Result<Happening, Ending> {
        let Ok((stamp, message)) = decode_guest(text) else {
            self.misconduct.undecodable += 1;
            return Ok(Happening::Nothing);
        };
        if let GuestMessage::Announce(announce) = message {
            return self.announced(&announce, now).map(|()| Happening::Nothing);
        }
        if self.order.admit(&stamp).is_err() {
            return Ok(Happening::Nothing);
        }
        if self.facts().is_none() {
            return match message {
                GuestMessage::HelloAck(ack) => self.acknowledged(*ack, now),
                GuestMessage::HelloRefused(HelloRefused { have, .. }) => {
                    Err(Ending::Incompatible(NoCommonVersion {
                        ours: self.config.versions,
                        theirs: have,
                    }))
                }
                _ => Ok(self.undue()),
            };
        }
        self.heard(now);
        Ok(match message {
            GuestMessage::Pong(Ping { n }) => {
                self.heartbeat.proof = self.heartbeat.proof.filter(|(_, number)| n < *number);
                if let Some(index) = self.pings.iter().position(|(number, _, _)| *number == n) {
                    let (_, sent, answer) = self.pings.swap_remove(index);
                    let _ = answer.send(Ok(now - sent));
                }
                Happening::Nothing
            }
            GuestMessage::Reply(reply) => {
                if requests.replied(reply, now) == Fit::Unasked {
                    self.misconduct.unasked += 1;
                }
                Happening::Nothing
            }
            GuestMessage::Output(output) => {
                match requests.wrote(output) {
                    Fit::Expected => {}
                    Fit::Unasked => self.misconduct.unasked += 1,
                    Fit::Impossible => self.misconduct.undecodable += 1,
                }
                Happening::Nothing
            }
            GuestMessage::Telemetry(telemetry) => {
                if self.credit == 0 {
                    self.misconduct.uncredited += 1;
                    return Ok(Happening::Nothing);
                }
                self.credit -= 1;
                self.grant_at
                    .get_or_insert(now + self.config.telemetry * CREDIT_PERIODS);
                self.records_wait = telemetry.rule_records > 0;
                if let Some(facts) = self.deviated(&telemetry, now) {
                    return Ok(Happening::Deviated(facts));
                }
                if let Ok(report) = telemetry.report.check() {
                    return Ok(Happening::Reported(Box::new(report)));
                }
                self.misconduct.refused_reports += 1;
                Happening::Nothing
            }
            GuestMessage::Need(need) => self.needed(need, now),
            GuestMessage::Ask(ask) => self.asked(ask, now),
            GuestMessage::Announce(_)
            | GuestMessage::HelloAck(_)
            | GuestMessage::HelloRefused(_) => self.undue(),
        })
    }

    fn undue(&mut self) -> Happening {
        self.misconduct.undecodable += 1;
        Happening::Nothing
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ending> {
        if let Stage::Greeting { until, .. } = self.stage {
            return if until.is_some_and(|until| until <= now) {
                Err(Ending::NoAnswer)
            } else {
                Ok(())
            };
        }
        if self.grant_at.is_some_and(|at| at <= now) {
            self.grant();
        }
        let patience = self.ping_patience();
        let (domain, overdue) = (self.domain, move |sent: Instant| now >= sent + patience);
        for (_, _, answer) in self.pings.extract_if(.., |(_, sent, _)| overdue(*sent)) {
            let _ = answer.send(Err(AgentError::TimedOut {
                domain,
                operation: "ping",
                deadline: patience,
            }));
        }
        if self.heartbeat.proof.is_some_and(|(until, _)| until <= now) {
            return Err(over(LostReason::Silent, HelloReason::Reboot));
        }
        if self.heartbeat.next.is_some_and(|at| at <= now) {
            if self.heartbeat.unanswered >= self.config.heartbeat_misses {
                return Err(over(LostReason::Silent, HelloReason::Heartbeat));
            }
            self.push_ping();
            self.heartbeat.unanswered += 1;
            self.heartbeat.next = Some(now + self.config.heartbeat);
        }
        Ok(())
    }

    /// When [`Session::tick`] has something to do.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let patience = self.ping_patience();
        let greeting = match self.stage {
            Stage::Greeting { until, .. } => until,
            Stage::Open { .. } => None,
        };
        let first_ping = self.pings.iter().map(|(_, sent, _)| *sent + patience).min();
        let proof = self.heartbeat.proof.map(|(until, _)| until);
        [
            greeting,
            self.grant_at,
            proof,
            self.heartbeat.next,
            first_ping,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The connection is closed: pings under way fail.
    pub(super) fn close(self, reason: LostReason) {
        for (_, _, answer) in self.pings {
            let _ = answer.send(Err(AgentError::Interrupted {
                domain: self.domain,
                operation: "ping",
                reason,
            }));
        }
    }
}

fn over(reason: LostReason, hello: HelloReason) -> Ending {
    Ending::Over { reason, hello }
}

fn identifier(text: &str) -> GuestWords {
    GuestWords::clean(text, NAME_MAX, Lines::One)
}
