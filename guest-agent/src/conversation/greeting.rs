//! The host's greeting: a session begins, or one is renewed, and the agent gives its account of itself. `mod` calls this.

use std::time::Duration;

use agent_protocol::{
    Assembler, GuestMessage, Parts, SUPPORTED, Session, Stamp,
    coordination::NEED_FEATURE,
    encode_guest,
    limits::{MAX_FRAME, MIN_FRAME, TELEMETRY_MIN_MS},
    message::{Hello, HelloAck, HelloReason, HelloRefused, JournalState},
    switching::SWITCH_FEATURE,
    version::negotiate,
};

use super::{Conversation, Ear, FEATURES, Live, Order};
use crate::{
    log::{chain, log},
    reporting::Reporting,
};

impl Conversation {
    pub(super) fn greet(&mut self, stamp: &Stamp, hello: &Hello) -> Option<Order> {
        let Some(sid) = stamp.sid.clone() else {
            self.dropped.malformed += 1;
            return None;
        };
        let version = match negotiate(SUPPORTED, hello.v) {
            Ok(version) => version,
            Err(error) => {
                log!("{error}");
                let refused = GuestMessage::HelloRefused(HelloRefused {
                    error: "version".to_owned(),
                    have: SUPPORTED,
                });
                match encode_guest(&Session::new(sid).stamp(), &refused, MAX_FRAME) {
                    Ok(frame) => self.outbox.put_frame(frame),
                    Err(error) => log!("cannot refuse a session: {}", chain(&error)),
                }
                return None;
            }
        };
        let interval = hello
            .telemetry_ms
            .map(|interval| Duration::from_millis(interval.max(TELEMETRY_MIN_MS)));
        match self.live.as_mut().filter(|live| *live.session.id() == sid) {
            Some(live) => {
                if live.session.admit(stamp).is_err() {
                    return None;
                }
                live.reporting.set_interval(interval);
            }
            None => {
                let mut session = Session::new(sid);
                // A session in which nothing was seen admits its first frame.
                let _ = session.admit(stamp);
                // Answers to the session before would only be dropped by the host.
                self.outbox.clear();
                self.streams.clear();
                // Nor does the host that comes know of what was asked of the one before; a port may hide that it changed.
                self.asking.lose();
                log!("session begins ({:?})", hello.reason);
                self.decoder.set_max_frame(MAX_FRAME);
                self.live = Some(Live {
                    session,
                    assembler: Assembler::new(),
                    max_frame: hello.max_frame.clamp(MIN_FRAME, MAX_FRAME),
                    reporting: Reporting::new(interval),
                    parts: Parts::default(),
                    ear: Ear::of(hello, NEED_FEATURE),
                    switch_ear: Ear::of(hello, SWITCH_FEATURE),
                });
            }
        }
        let reverted = hello.reason == HelloReason::Revert;
        if reverted {
            // What this memory says of the persona may be of another time; the disk thread will say what holds.
            self.state.journal = JournalState::Recovering;
        }
        let journal = if self.gauge.is_frozen() {
            JournalState::Frozen
        } else {
            self.state.journal
        };
        self.send(GuestMessage::HelloAck(Box::new(HelloAck {
            v: version,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            inst: self.identity.inst.clone(),
            boot_id: self.identity.boot_id.clone(),
            machine_id: self.identity.machine_id.clone(),
            active: self.state.active.clone(),
            rolled_back: self.state.rolled_back.clone(),
            customized: self.state.customized.clone(),
            generation: self.state.generation,
            journal,
            feats: FEATURES.map(str::to_owned).to_vec(),
            max_frame: MAX_FRAME,
        })));
        reverted.then_some(Order::Reread)
    }
}
