//! What goes to the guest, and in which order: greetings, pings and credit, answers to asks, requests whole or in pieces. The
//! link writes what [`Session::next_frame`] gives; which requests there are is in `requests`.

use agent_protocol::limits::MIN_FRAME;
use agent_protocol::message::Credit;
use agent_protocol::{Collect, HostMessage, Parts, Stamp, Told, encode_host, request_messages};
use tokio::time::Instant;

use super::{CREDIT_WINDOW, Session, Stage};
use crate::agent::requests::{Lanes, Requests};

/// Answers to asks that wait for a guest that does not read; further ones are lost, and the guest asks again.
const ANSWERS_MAX: usize = 16;

impl Session {
    /// Tells the guest what came of an ask; without a session nobody hears it.
    pub(in crate::agent) fn tell(&mut self, told: Told) {
        if self.facts().is_some() && self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(HostMessage::Told(Box::new(told)));
        }
    }

    /// Reports shall have these parts and no others.
    pub(in crate::agent) fn collect(&mut self, parts: Parts) {
        self.wanted = parts;
        if self.facts().is_some() {
            self.tell_parts();
        }
    }

    /// A session begins with the parts that an agent without a word of the host reports.
    pub(super) fn tell_parts(&mut self) {
        if std::mem::replace(&mut self.told, self.wanted) != self.wanted {
            self.queue
                .push(HostMessage::Collect(Collect { parts: self.wanted }));
        }
    }

    pub(super) fn grant(&mut self) {
        self.grant_at = None;
        self.queue.push(HostMessage::Credit(Credit {
            frames: CREDIT_WINDOW - self.credit,
        }));
        self.credit = CREDIT_WINDOW;
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
    pub(in crate::agent) fn has_frame(&self, requests: &Requests, now: Instant) -> bool {
        let open = self.facts().is_some();
        !self.queue.is_empty()
            || (open && !self.answers.is_empty())
            || (open && (!self.pieces.is_empty() || requests.has_next(self.lanes(), now)))
    }

    /// What to write next: greetings, pings and credit, then short requests, then a change of the persona or a command, piece by piece.
    /// It is numbered here, so it must be written in this order, and no more is encoded than is being written.
    pub(in crate::agent) fn next_frame(
        &mut self,
        requests: &mut Requests,
        now: Instant,
    ) -> Option<Vec<u8>> {
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
}
