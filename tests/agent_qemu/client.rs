//! The host's end of a port, played by the test: it can leave frames unfinished and answers unread, as the daemon never does
//! on its own account.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_protocol::limits::MAX_FRAME;
use agent_protocol::message::{Hello, HelloAck, HelloReason, Ping, ReplyBody};
use agent_protocol::{
    Decoder, GuestMessage, HostMessage, Operation, Request, RequestId, SUPPORTED, Session,
    SessionId, Stamp, decode_guest, encode_host,
};

use super::machine::HUNG;

/// One connection.
pub(crate) struct Client {
    stream: UnixStream,
    decoder: Decoder,
    heard: VecDeque<(Stamp, GuestMessage)>,
    pub(crate) session: Session,
    number: u8,
}

impl Client {
    /// `number` tells the clients of a test apart.
    pub(crate) fn connect(socket: &Path, number: u8) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(HUNG)).unwrap();
        stream.set_write_timeout(Some(HUNG)).unwrap();
        Self {
            stream,
            decoder: Decoder::new(MAX_FRAME),
            heard: VecDeque::new(),
            session: Session::new(SessionId::from_random([number; 16])),
            number,
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn frame(&mut self, message: &HostMessage) -> Vec<u8> {
        encode_host(&self.session.stamp(), message, MAX_FRAME).unwrap()
    }

    /// The next message that is one; `None` when nothing comes for so long.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<(Stamp, GuestMessage)> {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        while self.heard.is_empty() {
            let mut buffer = [0; 4096];
            let length = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            };
            let mut bytes = &buffer[..length];
            while let Some(text) = self.decoder.next_frame(&mut bytes) {
                self.heard.extend(decode_guest(text));
            }
        }
        self.heard.pop_front()
    }

    pub(crate) fn next(&mut self) -> (Stamp, GuestMessage) {
        self.next_within(HUNG).expect("the guest says nothing")
    }

    pub(crate) fn say_hello(&mut self) {
        let hello = HostMessage::Hello(Hello {
            v: SUPPORTED,
            host_id: "test".to_owned(),
            vm_uuid: "6e3d54cb-3bd0-4b0e-9b22-0f7d9ba1f3ea".to_owned(),
            reason: HelloReason::Connect,
            max_frame: MAX_FRAME,
            feats: vec![],
            now_unix_ms: 0,
            telemetry_ms: None,
        });
        let frame = self.frame(&hello);
        self.raw(&frame);
    }

    /// Says hello, again when the agent announces itself, until it is answered. Gives what came before that, too.
    pub(crate) fn greet(&mut self) -> (HelloAck, Vec<(Stamp, GuestMessage)>) {
        self.greet_unless(|| false)
            .expect("nobody would have given it up")
    }

    /// As [`Client::greet`]; `None` when it is in vain.
    pub(crate) fn greet_unless(
        &mut self,
        vain: impl Fn() -> bool,
    ) -> Option<(HelloAck, Vec<(Stamp, GuestMessage)>)> {
        let mut before = Vec::new();
        self.say_hello();
        let mut heard = Instant::now();
        loop {
            let Some((stamp, message)) = self.next_within(Duration::from_secs(1)) else {
                if vain() {
                    return None;
                }
                assert!(heard.elapsed() < HUNG, "the guest says nothing");
                continue;
            };
            heard = Instant::now();
            match message {
                GuestMessage::Announce(_) => {
                    self.number = self.number.wrapping_add(100);
                    self.session = Session::new(SessionId::from_random([self.number; 16]));
                    self.say_hello();
                }
                GuestMessage::HelloAck(ack) if self.session.admit(&stamp).is_ok() => {
                    return Some((*ack, before));
                }
                other => before.push((stamp, other)),
            }
        }
    }

    /// Asks, and gives the answer.
    pub(crate) fn ask(&mut self, id: &str, op: Operation) -> ReplyBody {
        let id = RequestId::new(id).unwrap();
        let request = HostMessage::Request(Request {
            id: id.clone(),
            ttl_ms: 600_000,
            op,
        });
        let frame = self.frame(&request);
        self.raw(&frame);
        loop {
            if let (stamp, GuestMessage::Reply(reply)) = self.next()
                && self.session.admit(&stamp).is_ok()
                && reply.re == id
            {
                return reply.body;
            }
        }
    }

    /// Pings without reading, until neither the guest nor the socket takes more. Gives the rest of the frame that was being
    /// written then.
    pub(crate) fn fill(&mut self) -> Vec<u8> {
        self.stream.set_nonblocking(true).unwrap();
        let (mut n, mut refusals) = (0, 0);
        let mut frame = Vec::new();
        // A guest that is only slow takes some more after a while.
        while refusals < 10 {
            if frame.is_empty() {
                n += 1;
                frame = self.frame(&HostMessage::Ping(Ping { n }));
            }
            match self.stream.write(&frame) {
                Ok(length) => {
                    frame.drain(..length);
                    refusals = 0;
                }
                Err(_) => {
                    refusals += 1;
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        self.stream.set_nonblocking(false).unwrap();
        frame
    }
}
