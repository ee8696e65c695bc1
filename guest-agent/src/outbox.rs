//! What waits to be written to the host but reports, in two queues: control (greetings, pongs, needs, short answers) and
//! results, which may carry the output of scripts. Control goes first, whatever waits in the other; the conversation puts
//! reports behind both. A frame gets its number when it is taken out, so that numbers rise on the wire in any order of queues.

use std::collections::VecDeque;

use agent_protocol::{
    EncodeError, GuestMessage, Operation, Reply, ReplyError, Session, encode_guest,
    limits::MAX_FRAME,
    message::{ErrorCode, ReplyBody, Retry},
};

use crate::log::{chain, log};

/// Which queue a message waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Control,
    Results,
}

impl Lane {
    /// Where the answer to an operation waits: behind the control when it may be as long as what scripts said.
    pub(crate) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Activate { .. }
            | Operation::Deactivate { .. }
            | Operation::OpStatus { .. }
            | Operation::RuleRecords { .. } => Self::Results,
            _ => Self::Control,
        }
    }
}

#[derive(Debug)]
enum Waiting {
    /// A frame outside the session, encoded already.
    Frame(Vec<u8>),
    Message(Box<GuestMessage>),
}

/// The two queues.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    control: VecDeque<Waiting>,
    results: VecDeque<Waiting>,
}

impl Outbox {
    /// Puts a frame that belongs to no session among the control.
    pub(crate) fn put_frame(&mut self, frame: Vec<u8>) {
        self.control.push_back(Waiting::Frame(frame));
    }

    /// Puts a message of the session.
    pub(crate) fn put(&mut self, lane: Lane, message: GuestMessage) {
        let queue = match lane {
            Lane::Control => &mut self.control,
            Lane::Results => &mut self.results,
        };
        queue.push_back(Waiting::Message(Box::new(message)));
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.control.len() + self.results.len()
    }

    /// Forgets all, at the end of a session.
    pub(crate) fn clear(&mut self) {
        self.control.clear();
        self.results.clear();
    }

    /// The next frame, numbered in the session that stands, for a host that takes so many bytes in one.
    pub(crate) fn next_frame(
        &mut self,
        mut session: Option<(&mut Session, usize)>,
    ) -> Option<Vec<u8>> {
        loop {
            let waiting = self
                .control
                .pop_front()
                .or_else(|| self.results.pop_front())?;
            match (waiting, &mut session) {
                (Waiting::Frame(frame), _) => return Some(frame),
                (Waiting::Message(message), Some((session, max_frame))) => {
                    if let Some(frame) = encode(session, *message, *max_frame) {
                        return Some(frame);
                    }
                }
                // Its session has ended.
                (Waiting::Message(_), None) => {}
            }
        }
    }
}

/// An answer that does not fit is replaced by one that says so; nothing else can be too long.
fn encode(session: &mut Session, message: GuestMessage, max_frame: usize) -> Option<Vec<u8>> {
    match encode_guest(&session.stamp(), &message, max_frame) {
        Ok(frame) => Some(frame),
        Err(EncodeError::TooLong(error)) => {
            let GuestMessage::Reply(Reply { re, .. }) = message else {
                log!("cannot send: {error}");
                return None;
            };
            let sentence = format!("the answer does not fit: {error}");
            let refusal = ReplyError::new(ErrorCode::Malformed, sentence, Retry::Useless);
            let short = GuestMessage::Reply(Reply {
                re,
                body: ReplyBody::Err(refusal),
            });
            encode_guest(&session.stamp(), &short, MAX_FRAME).ok()
        }
        Err(error) => {
            log!("cannot send: {}", chain(&error));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::{Decoder, RequestId, SessionId, decode_guest, message::Ping};

    fn result(id: &str, output: &str) -> GuestMessage {
        GuestMessage::Reply(Reply {
            re: RequestId::new(id).unwrap(),
            body: ReplyBody::Ok(output.into()),
        })
    }

    fn sent(outbox: &mut Outbox, max_frame: usize) -> Vec<(u64, GuestMessage)> {
        let mut session = Session::new(SessionId::from_random([1; 16]));
        let mut sent = Vec::new();
        while let Some(frame) = outbox.next_frame(Some((&mut session, max_frame))) {
            let text = Decoder::new(MAX_FRAME)
                .next_frame(&mut &frame[..])
                .unwrap()
                .to_owned();
            let (stamp, message) = decode_guest(&text).unwrap();
            sent.push((stamp.seq, message));
        }
        sent
    }

    #[test]
    fn control_goes_before_results_and_numbers_rise_all_the_same() {
        let mut outbox = Outbox::default();
        let pong = GuestMessage::Pong(Ping { n: 1 });
        outbox.put(Lane::Results, result("first", "a"));
        outbox.put(Lane::Results, result("second", "b"));
        outbox.put(Lane::Control, pong.clone());
        assert_eq!(outbox.len(), 3);
        assert_eq!(
            sent(&mut outbox, MAX_FRAME),
            [
                (0, pong),
                (1, result("first", "a")),
                (2, result("second", "b"))
            ]
        );
    }

    #[test]
    fn an_answer_that_does_not_fit_says_so_and_one_of_an_ended_session_is_not_sent() {
        let mut outbox = Outbox::default();
        outbox.put(Lane::Results, result("long", &"x".repeat(5000)));
        let sent = sent(&mut outbox, 4096);
        assert!(
            matches!(&sent[..], [(_, GuestMessage::Reply(Reply { re, body: ReplyBody::Err(_) }))] if re.as_str() == "long"),
            "{sent:?}"
        );
        outbox.put(Lane::Control, result("late", ""));
        outbox.put_frame(vec![7]);
        assert_eq!(outbox.next_frame(None), Some(vec![7]));
        assert_eq!(outbox.next_frame(None), None);
    }
}
