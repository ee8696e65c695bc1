//! The agent's side of a session: what each frame of the host means, and what is sent back in which order. It does no I/O and
//! reads no clock; the channel brings bytes and the time, and carries out the [`Order`]s that come of them.
//!
//! Before a hello nothing is obeyed. A hello of another session ends the one before, whatever was under way in it; one of the
//! same session is only answered again. What waits to be sent is in the [`Outbox`], and reports behind all of it.

mod asks;
mod greeting;
mod order;
mod requests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_protocol::{
    Assembler, Collect, Customized, DecodeError, Decoder, GateState, GuestMessage, HostMessage,
    Part, Parts, Reply, ReplyError, Report, RequestId, RolledBack, Session, SessionId, Stamp,
    activation::ADJUSTED_FEATURE,
    command::COMMANDS_FEATURE,
    decode_host, encode_guest,
    envelope::decode_request_body,
    limits::{IN_FLIGHT_MAX, MAX_FRAME, MAX_FRAME_BEFORE_HELLO, NEED_INTERVAL_MS},
    message::{Active, Announce, ErrorCode, Hello, JournalState, ReplyBody, Retry, Telemetry},
    rules::RULES_FEATURE,
    settings::SETTINGS_FEATURE,
};

use crate::{
    asking::Asking,
    durable::Gauge,
    exec::Piece,
    log::{chain, log},
    outbox::{Lane, Outbox},
    policy::{Leave, Policy},
    reporting::Reporting,
    rules::{InForce, RuleLog},
    streams::Streams,
};

/// Optional abilities of this agent.
const FEATURES: [&str; 7] = [
    "cpus",
    "activation",
    "hooks",
    COMMANDS_FEATURE,
    SETTINGS_FEATURE,
    RULES_FEATURE,
    ADJUSTED_FEATURE,
];

/// Who this agent is, for as long as it runs.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) inst: String,
    pub(crate) boot_id: String,
    pub(crate) machine_id: Option<String>,
}

/// What the disk thread last said about the guest.
#[derive(Clone, Debug)]
pub(crate) struct GuestState {
    pub(crate) active: Option<Active>,
    pub(crate) rolled_back: Option<RolledBack>,
    pub(crate) customized: Option<Customized>,
    /// The generation that holds, where it restricts commands.
    pub(crate) restricts: Option<u64>,
    pub(crate) generation: u64,
    pub(crate) journal: JournalState,
    /// The rules that are this guest's to evaluate.
    pub(crate) rules: Option<Arc<InForce>>,
}

pub(crate) use order::Order;

/// What was dropped since the start, for the log at the end of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Frames before any hello.
    pub(crate) before_hello: u64,
    /// Frames that are no message.
    pub(crate) malformed: u64,
    /// Second deliveries of a request that is under way.
    pub(crate) repeated: u64,
}

/// A request that is under way.
struct Waiting {
    /// The session that waits for the answer.
    session: SessionId,
    /// Whether it carries a body that may be large.
    size: Size,
    /// Where its answer waits.
    lane: Lane,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

struct Live {
    session: Session,
    assembler: Assembler,
    max_frame: usize,
    reporting: Reporting,
    /// What reports have, beside what they always have.
    parts: Parts,
    ear: Ear,
    /// Whether it listens to users who want another persona.
    switch_ear: Ear,
}

/// Whether the host listens to something that it did not ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ear {
    Open,
    Closed,
}

impl Ear {
    fn of(hello: &Hello, feature: &str) -> Self {
        if hello.feats.iter().any(|feat| feat == feature) {
            Self::Open
        } else {
            Self::Closed
        }
    }
}

/// Why a need was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsent {
    #[error("the guest's owner does not allow `need` in agent.toml")]
    Denied,
    #[error("the host is not connected")]
    NoHost,
    #[error("the host does not listen to needs")]
    Deaf,
    #[error("the host was told less than {} s ago", NEED_INTERVAL_MS / 1000)]
    TooSoon,
}

/// Why the host was not asked about personas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unasked {
    #[error("the host is not connected")]
    NoHost,
    #[error("the host does not let guests ask for another persona")]
    Deaf,
    #[error("the host was asked too often; wait a moment")]
    TooSoon,
}

/// The agent's side of one port.
pub(crate) struct Conversation {
    identity: Identity,
    policy: Policy,
    state: GuestState,
    gauge: Arc<Gauge>,
    asking: Asking,
    decoder: Decoder,
    live: Option<Live>,
    /// Requests that are under way, and the session that waits for the answer.
    in_flight: HashMap<RequestId, Waiting>,
    outbox: Outbox,
    streams: Streams,
    dropped: Dropped,
    /// When a need was last sent, in whatever session.
    needed: Option<Instant>,
    /// Whether people are held to restricted commands, as it was at the last report.
    gate: Option<GateState>,
    rule_log: Arc<RuleLog>,
}

impl Conversation {
    pub(crate) fn new(
        identity: Identity,
        policy: Policy,
        state: GuestState,
        gauge: Arc<Gauge>,
        rule_log: Arc<RuleLog>,
    ) -> Self {
        Self {
            asking: Asking::new(&identity.inst),
            identity,
            policy,
            state,
            gauge,
            decoder: Decoder::new(MAX_FRAME_BEFORE_HELLO),
            live: None,
            in_flight: HashMap::new(),
            outbox: Outbox::default(),
            streams: Streams::default(),
            dropped: Dropped::default(),
            needed: None,
            gate: None,
            rule_log,
        }
    }

    /// The generation whose restricted commands people are to be held to.
    pub(crate) fn restricting(&self) -> Option<u64> {
        self.state.restricts
    }

    /// Whether a gate holds people to that generation; the owner's own word goes first.
    pub(crate) fn gate_is(&mut self, gate: Option<GateState>) {
        self.gate = gate.map(|gate| match self.policy.gate {
            Leave::Granted => gate,
            Leave::Denied => GateState::Denied,
        });
    }

    /// Whether the guest's owner lets the agent tell of needs at all.
    pub(crate) fn may_need(&self) -> bool {
        self.policy.need == Leave::Granted
    }

    /// The host's side came up: says that there is somebody to greet.
    pub(crate) fn port_up(&mut self) {
        let announce = Announce {
            inst: self.identity.inst.clone(),
            boot_id: self.identity.boot_id.clone(),
        };
        match encode_guest(
            &Stamp::outside(),
            &GuestMessage::Announce(announce),
            MAX_FRAME,
        ) {
            Ok(frame) => self.outbox.put_frame(frame),
            Err(error) => log!("cannot announce: {}", chain(&error)),
        }
    }

    /// The host's side is gone, and the session with it.
    pub(crate) fn port_down(&mut self) {
        if let Some(live) = self.live.take() {
            log!(
                "the host has gone; session {:?}, frames {:?}, {:?}",
                live.session.counters(),
                self.decoder.counters(),
                self.dropped
            );
        }
        self.decoder.reset();
        self.decoder.set_max_frame(MAX_FRAME_BEFORE_HELLO);
        self.outbox.clear();
        self.streams.clear();
    }

    /// Takes bytes of the host.
    pub(crate) fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        while let Some(text) = self.decoder.next_frame(&mut bytes) {
            let decoded = decode_host(text);
            orders.extend(self.take(decoded, now));
        }
        orders
    }

    /// Whether more of the host's bytes may be taken: not while it does not read the answers to those before.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.len() < IN_FLIGHT_MAX
    }

    /// The next frame to write: what the outbox has, then output of commands, then reports.
    pub(crate) fn next_frame(&mut self) -> Option<Vec<u8>> {
        let live = self.live.as_mut();
        let session = live.map(|live| (&mut live.session, live.max_frame));
        if let Some(frame) = self.outbox.next_frame(session) {
            return Some(frame);
        }
        let live = self.live.as_mut()?;
        if let Some(frame) = self.streams.next_frame(&mut live.session, live.max_frame) {
            return Some(frame);
        }
        let mut report = live.reporting.take()?;
        let journal = self.gauge.is_frozen().then_some(JournalState::Frozen);
        let stamp = live.session.stamp();
        loop {
            let message = GuestMessage::Telemetry(Box::new(Telemetry {
                report: report.clone(),
                rolled_back: self.state.rolled_back.clone(),
                customized: self.state.customized.clone(),
                gate: self.gate,
                journal,
                rule_records: self.rule_log.waiting(),
            }));
            match encode_guest(&stamp, &message, live.max_frame) {
                Ok(frame) => return Some(frame),
                // A host that takes short frames gets as many figures of applications as fit.
                Err(_) if !report.app.is_empty() => report.app.truncate(report.app.len() / 2),
                Err(error) => {
                    log!("cannot send a report: {}", chain(&error));
                    return None;
                }
            }
        }
    }

    /// When the next report is due; `None` while nobody wants one, so that an idle agent does not wake.
    pub(crate) fn report_due(&self) -> Option<Instant> {
        self.live.as_ref().and_then(|live| live.reporting.due())
    }

    /// Which parts reports have; nothing but what is always there where nobody listens or the guest's owner denies it.
    pub(crate) fn parts(&self) -> Parts {
        match &self.live {
            Some(live) if self.policy.telemetry == Leave::Granted => live.parts,
            _ => Parts::NONE,
        }
    }

    /// Whether anybody wants to know what applications say.
    pub(crate) fn wants_applications(&self) -> bool {
        self.parts().has(Part::Applications)
    }

    /// The time between two reports; `None` while they come on request only.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.live
            .as_ref()
            .and_then(|live| live.reporting.interval())
    }

    /// How many reports were overwritten in this session.
    pub(crate) fn overwritten(&self) -> u64 {
        self.live
            .as_ref()
            .map_or(0, |live| live.reporting.overwritten())
    }

    /// Queues the report that was due; `None` when nothing could be measured.
    pub(crate) fn queue_report(&mut self, report: Option<Report>, now: Instant) {
        if let Some(live) = self.live.as_mut() {
            live.reporting.queue(report, now);
        }
    }

    /// A request has its answer.
    pub(crate) fn finished(&mut self, id: RequestId, body: ReplyBody) {
        let Some(waiting) = self.in_flight.remove(&id) else {
            return;
        };
        // An answer for a session that has ended stays in the store; the host asks for it.
        if self
            .live
            .as_ref()
            .is_some_and(|live| *live.session.id() == waiting.session)
        {
            // The end of a command stays behind its output.
            match self.streams.end(id, body) {
                None => {}
                Some(Reply { re, body }) => self.answer(waiting.lane, re, body),
            }
        }
    }

    /// A running command has written something. It goes to the session that asked for the command, and to no other.
    pub(crate) fn output(&mut self, id: RequestId, piece: Piece) {
        let waiting = self.in_flight.get(&id).map(|waiting| &waiting.session);
        if let Some(live) = &self.live
            && waiting == Some(live.session.id())
        {
            self.streams.put(id, piece, live.max_frame);
        }
    }

    /// The disk thread has news of the guest's state.
    pub(crate) fn set_state(&mut self, state: GuestState) {
        self.state = state;
    }

    fn take(
        &mut self,
        decoded: Result<(Stamp, HostMessage), DecodeError>,
        now: Instant,
    ) -> Option<Order> {
        let (stamp, message) = match decoded {
            Ok((stamp, HostMessage::Hello(hello))) => {
                return self.greet(&stamp, &hello);
            }
            Ok((stamp, message)) => (stamp, Ok(message)),
            Err(DecodeError::Request { id, stamp, source }) => (stamp, Err((id, source))),
            Err(_) => {
                self.dropped.malformed += 1;
                return None;
            }
        };
        let Some(live) = self.live.as_mut() else {
            self.dropped.before_hello += 1;
            return None;
        };
        // The session counts what it drops.
        live.session.admit(&stamp).ok()?;
        match message {
            // A hello was taken above.
            Ok(HostMessage::Hello(_)) => None,
            Ok(HostMessage::Ping(ping)) => {
                self.send(GuestMessage::Pong(ping));
                None
            }
            Ok(HostMessage::Credit(credit)) => {
                if self.policy.telemetry == Leave::Granted {
                    live.reporting.add_credit(credit.frames, now);
                }
                None
            }
            Ok(HostMessage::Collect(Collect { parts })) => {
                live.parts = parts;
                None
            }
            Ok(HostMessage::Chunk(chunk)) => match live.assembler.take(&chunk) {
                Ok(None) => None,
                Ok(Some(body)) => match decode_request_body(&body, &stamp) {
                    Ok(request) if request.id == chunk.xid => self.request(request, now),
                    Ok(_) => self.refuse(
                        chunk.xid,
                        ErrorCode::Malformed,
                        "the body is that of another request",
                        Retry::Useless,
                    ),
                    Err(error) => self.refuse(
                        chunk.xid,
                        ErrorCode::Malformed,
                        chain(&error),
                        Retry::Useless,
                    ),
                },
                Err(refusal) => self.refuse(
                    chunk.xid,
                    ErrorCode::Malformed,
                    refusal.to_string(),
                    Retry::Useful,
                ),
            },
            Ok(HostMessage::Request(request)) => self.request(request, now),
            Ok(HostMessage::Told(told)) => {
                let (client, answer) = self.asking.told(*told)?;
                Some(Order::Tell {
                    client,
                    answer: Box::new(answer),
                })
            }
            Err((id, source)) => {
                let message = format!("the request cannot be understood: {source}");
                self.refuse(id, ErrorCode::Malformed, message, Retry::Useless)
            }
        }
    }

    fn reply(&mut self, re: RequestId, body: ReplyBody) {
        self.answer(Lane::Control, re, body);
    }

    fn answer(&mut self, lane: Lane, re: RequestId, body: ReplyBody) {
        self.post(lane, GuestMessage::Reply(Reply { re, body }));
    }

    fn send(&mut self, message: GuestMessage) {
        self.post(Lane::Control, message);
    }

    fn post(&mut self, lane: Lane, message: GuestMessage) {
        if self.live.is_some() {
            self.outbox.put(lane, message);
        }
    }
}

/// The failure of an answer that has no JSON form.
fn unencodable(error: &serde_json::Error) -> ReplyError {
    ReplyError::new(ErrorCode::Malformed, error.to_string(), Retry::Useless)
}
