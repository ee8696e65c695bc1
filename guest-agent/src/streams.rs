//! Output of commands that waits to be written to the host, each command's answer behind it. It goes behind all other answers
//! and before reports. A frame gets its number when it is taken out, so that numbers rise on the wire.

use std::collections::VecDeque;

use agent_protocol::{
    GuestMessage, Output, Reply, RequestId, Session, encode_guest, message::ReplyBody,
};

use crate::{
    exec::{Piece, Share},
    log::{chain, log},
};

/// Bytes of a frame around a piece: identifiers, numbers and names of fields are far below that.
const AROUND: usize = 1024;

#[derive(Debug)]
struct Waiting {
    message: GuestMessage,
    /// Gives its part of the window back when it goes.
    #[allow(dead_code)]
    share: Option<Share>,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    waiting: VecDeque<Waiting>,
}

impl Streams {
    /// Puts a piece of output, in as many frames as a host with this longest frame needs.
    pub(crate) fn put(&mut self, id: RequestId, piece: Piece, max_frame: usize) {
        let Piece {
            stream,
            mut off,
            bytes,
            share,
        } = piece;
        let longest = (max_frame.saturating_sub(AROUND) / 4 * 3).max(1);
        for part in bytes.chunks(longest) {
            let output = Output::new(id.clone(), stream, off, part);
            off += part.len() as u64;
            self.waiting.push_back(Waiting {
                message: GuestMessage::Output(output),
                share: None,
            });
        }
        if let Some(last) = self.waiting.back_mut() {
            last.share = Some(share);
        }
    }

    /// Puts an answer behind the output of its command; gives it back where none waits.
    pub(crate) fn end(&mut self, re: RequestId, body: ReplyBody) -> Option<Reply> {
        let waits = |waiting: &Waiting| matches!(&waiting.message, GuestMessage::Output(output) if output.re == re);
        let reply = if self.waiting.iter().any(waits) {
            Reply { re, body }
        } else {
            return Some(Reply { re, body });
        };
        self.waiting.push_back(Waiting {
            message: GuestMessage::Reply(reply),
            share: None,
        });
        None
    }

    /// The next frame, numbered in the session.
    pub(crate) fn next_frame(
        &mut self,
        session: &mut Session,
        max_frame: usize,
    ) -> Option<Vec<u8>> {
        loop {
            let waiting = self.waiting.pop_front()?;
            match encode_guest(&session.stamp(), &waiting.message, max_frame) {
                Ok(frame) => return Some(frame),
                Err(error) => log!("cannot send output: {}", chain(&error)),
            }
        }
    }

    /// Forgets all, at the end of a session.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}
