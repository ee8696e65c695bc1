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

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::coordination::NEED_FEATURE;
use agent_protocol::frame::FrameCounters;
use agent_protocol::limits::{
    ASK_INTERVAL_MS, ASKS_BURST, MAX_FRAME, MIN_FRAME, NAME_MAX, NEED_INTERVAL_MS, NEED_REASON_MAX,
};
use agent_protocol::message::{
    Announce, Credit, Hello, HelloAck, HelloReason, HelloRefused, JournalState, Ping, Telemetry,
};
use agent_protocol::switching::{Pace, SWITCH_FEATURE};
use agent_protocol::version::{NoCommonVersion, negotiate};
use agent_protocol::{
    Ask, CheckedReport, Collect, GuestMessage, HostMessage, Need, Parts, Stamp, Told, decode_guest,
    encode_host, request_messages,
};
use persona::domain::DomainId;
use persona::units::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::AgentError;
use super::event::{ActivePersona, AgentFacts, LostReason, Misconduct, OwnWay, Running, WentBack};
use super::identity::{fresh_session_id, unix_time};
use super::requests::{Fit, Lanes, Requests};
use super::words::{GuestWords, Lines};
use super::{LinkConfig, Needs, Switches};

/// A hello this young was on its way when the agent announced itself, and will be answered.
const HELLO_CROSSED: Duration = Duration::from_millis(200);

/// A session this young may already be the one that a hint of a reboot is about: it is put to the test, not ended.
const YOUNG: Duration = Duration::from_secs(5);

/// How long a young session may take to prove itself.
const PROOF: Duration = Duration::from_secs(2);

/// Reports that a guest may send ahead; the window is filled up again each [`CREDIT_PERIODS`] intervals, which bounds the
/// rate of reports whatever the guest does.
const CREDIT_WINDOW: u32 = 8;

/// Intervals of telemetry between two grants: fewer than the window, so that a late grant stops nothing.
const CREDIT_PERIODS: u32 = 5;

/// Needs that come faster than this are dropped. An agent keeps twice the interval, so that a late first one and a punctual
/// second one both count.
const NEED_PAUSE: Duration = Duration::from_millis(NEED_INTERVAL_MS / 2);

/// Abilities of an agent that are looked at: many more than there are.
const FEATURES_MAX: usize = 64;

/// News of returns by hand that come faster than this wait for a later report.
const DEVIATED_PAUSE: Duration = Duration::from_secs(3);

/// Answers to asks that wait for a guest that does not read; further ones are lost, and the guest asks again.
const ANSWERS_MAX: usize = 16;
/// Between two times at which it is told that records of rules wait in a guest.
const RECORDS_PAUSE: Duration = Duration::from_secs(1);

/// Pings of callers that may be under way at once.
const PINGS_MAX: usize = 8;

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

    fn say_hello(&mut self, reason: HelloReason) {
        self.queue.push(HostMessage::Hello(Hello {
            v: self.config.versions,
            host_id: self.config.host_id.clone(),
            vm_uuid: self.domain.to_string(),
            reason,
            max_frame: MAX_FRAME,
            feats: self.features(),
            now_unix_ms: u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX),
            telemetry_ms: u64::try_from(self.config.telemetry.as_millis()).ok(),
        }));
    }

    fn features(&self) -> Vec<String> {
        let needs = (self.config.needs == Needs::Honour).then_some(NEED_FEATURE);
        let switches = (self.config.switches == Switches::Honour).then_some(SWITCH_FEATURE);
        let all = [needs, switches].into_iter().flatten();
        all.map(str::to_owned).collect()
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

    /// Whether the guest has said that records of rules wait for the host; it is told once a while.
    pub(super) fn take_records_wait(&mut self, now: Instant) -> bool {
        let soon = self
            .records_told_at
            .is_some_and(|before| now < before + RECORDS_PAUSE);
        let tell = self.records_wait && !soon;
        if tell {
            (self.records_wait, self.records_told_at) = (false, Some(now));
        }
        tell
    }

    /// A need counts when it can be, somebody listens, and it does not come too soon after the one before. A new session
    /// begins without one before it; the pause between connections bounds what a guest gains by that.
    fn needed(&mut self, need: Need, now: Instant) -> Happening {
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
    fn deviated(&mut self, telemetry: &Telemetry, now: Instant) -> Option<AgentFacts> {
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
    fn asked(&mut self, ask: Ask, now: Instant) -> Happening {
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

    /// Tells the guest what came of an ask; without a session nobody hears it.
    pub(super) fn tell(&mut self, told: Told) {
        if self.facts().is_some() && self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(HostMessage::Told(Box::new(told)));
        }
    }

    fn undue(&mut self) -> Happening {
        self.misconduct.undecodable += 1;
        Happening::Nothing
    }

    fn announced(&mut self, announce: &Announce, now: Instant) -> Result<(), Ending> {
        match &mut self.stage {
            Stage::Open { facts, .. } => {
                let same = facts.instance == identifier(&announce.inst)
                    && facts.boot_id == identifier(&announce.boot_id);
                if same {
                    Ok(())
                } else {
                    Err(over(LostReason::AgentRestarted, HelloReason::Reboot))
                }
            }
            // An announcement only ever answers the question whether somebody is there, and that no faster than this.
            Stage::Greeting { sent, .. } if now - *sent < HELLO_CROSSED => Ok(()),
            Stage::Greeting { sent, until } => {
                *sent = now;
                if let Some(until) = until {
                    *until = (*until).max(now + self.config.hello_timeout);
                }
                self.order = agent_protocol::Session::new(fresh_session_id());
                self.told = Parts::default();
                self.queue.clear();
                self.say_hello(HelloReason::Reboot);
                Ok(())
            }
        }
    }

    fn acknowledged(&mut self, ack: HelloAck, now: Instant) -> Result<Happening, Ending> {
        let theirs = (ack.v, ack.v).into();
        let protocol = negotiate(self.config.versions, theirs).map_err(Ending::Incompatible)?;
        // An agent that takes less than the smallest frame could not be asked anything.
        self.peer_max_frame = ack.max_frame.clamp(MIN_FRAME, MAX_FRAME);
        let facts = AgentFacts {
            agent_version: identifier(&ack.agent_version),
            boot_id: identifier(&ack.boot_id),
            instance: identifier(&ack.inst),
            active: ack.active.map(|active| ActivePersona {
                generation: active.generation,
                persona: identifier(&active.persona),
                version: active.version,
                digest: identifier(&active.digest),
            }),
            rolled_back: ack.rolled_back.as_ref().map(WentBack::of).map(Box::new),
            own: ack.customized.as_ref().map(OwnWay::of).map(Box::new),
            // It comes with the first report.
            gate: None,
            newest_generation: ack.generation,
            journal: ack.journal,
            protocol,
            features: ack
                .feats
                .iter()
                .take(FEATURES_MAX)
                .map(|feature| identifier(feature))
                .collect(),
        };
        self.stage = Stage::Open {
            facts: facts.clone(),
            since: now,
        };
        self.heard(now);
        self.tell_parts();
        self.grant();
        Ok(Happening::Connected(facts))
    }

    /// Reports shall have these parts and no others.
    pub(super) fn collect(&mut self, parts: Parts) {
        self.wanted = parts;
        if self.facts().is_some() {
            self.tell_parts();
        }
    }

    /// A session begins with the parts that an agent without a word of the host reports.
    fn tell_parts(&mut self) {
        if std::mem::replace(&mut self.told, self.wanted) != self.wanted {
            self.queue
                .push(HostMessage::Collect(Collect { parts: self.wanted }));
        }
    }

    fn grant(&mut self) {
        self.grant_at = None;
        self.queue.push(HostMessage::Credit(Credit {
            frames: CREDIT_WINDOW - self.credit,
        }));
        self.credit = CREDIT_WINDOW;
    }

    fn heard(&mut self, now: Instant) {
        self.heartbeat.unanswered = 0;
        self.heartbeat.next = (self.running == Running::Yes).then(|| now + self.config.heartbeat);
    }

    /// The domain was paused or runs again: silence is held against it only while it runs.
    pub(super) fn set_running(&mut self, running: Running, now: Instant) {
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
    pub(super) fn renew(&mut self, reason: HelloReason, now: Instant) -> Result<(), Ending> {
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

    fn push_ping(&mut self) -> u64 {
        self.pinged += 1;
        self.queue.push(HostMessage::Ping(Ping { n: self.pinged }));
        self.pinged
    }

    /// Sends a ping for a caller.
    pub(super) fn ping(&mut self, answer: PingAnswer, now: Instant) {
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

    fn ping_patience(&self) -> Duration {
        self.config.heartbeat * self.config.heartbeat_misses
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

    /// Which requests may go now: one in pieces keeps the next changes of the persona and commands waiting, and nothing else.
    fn lanes(&self) -> Lanes {
        if self.pieces.is_empty() {
            Lanes::All
        } else {
            Lanes::Short
        }
    }

    /// Whether [`Session::next_frame`] would give something.
    pub(super) fn has_frame(&self, requests: &Requests, now: Instant) -> bool {
        let open = self.facts().is_some();
        !self.queue.is_empty()
            || (open && !self.answers.is_empty())
            || (open && (!self.pieces.is_empty() || requests.has_next(self.lanes(), now)))
    }

    /// What to write next: greetings, pings and credit, then short requests, then a change of the persona or a command, piece by piece.
    /// It is numbered here, so it must be written in this order, and no more is encoded than is being written.
    pub(super) fn next_frame(&mut self, requests: &mut Requests, now: Instant) -> Option<Vec<u8>> {
        if !self.queue.is_empty() {
            let message = self.queue.remove(0);
            return self.encoded(&message, MIN_FRAME);
        }
        let Stage::Open { facts, .. } = &self.stage else {
            return None;
        };
        if let Some(answer) = self.answers.pop_front() {
            return self.encoded(&answer, self.peer_max_frame);
        }
        if let Some(request) = requests.next(&facts.boot_id, self.lanes(), now) {
            let id = request.id.clone();
            match request_messages(request, self.peer_max_frame) {
                Ok(messages) => match <[HostMessage; 1]>::try_from(messages) {
                    Ok([whole]) => return self.encoded(&whole, self.peer_max_frame),
                    // Only a change of the persona or a command is that long, and it is given out when no other is in pieces.
                    Err(messages) => self.pieces.extend(messages),
                },
                Err(error) => requests.unsendable(&id, error.to_string()),
            }
        }
        let piece = self.pieces.pop_front()?;
        self.encoded(&piece, self.peer_max_frame)
    }

    fn encoded(&mut self, message: &HostMessage, max_frame: usize) -> Option<Vec<u8>> {
        let stamp: Stamp = self.order.stamp();
        match encode_host(&stamp, message, max_frame) {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::error!(domain = %self.domain, %error, "a message does not fit the frame that it was made for");
                None
            }
        }
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
