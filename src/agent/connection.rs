//! One connection's socket and its buffers, and what was told of the guest's misconduct on it. The link owns it; nothing
//! here knows what the bytes mean.

use std::io;
use std::time::Duration;

use agent_protocol::Decoder;
use agent_protocol::limits::MAX_FRAME_BEFORE_HELLO;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::event::Misconduct;

/// Bytes taken from the socket at once: a guest's share of a turn.
const READ_SIZE: usize = 16 * 1024;

/// Shortest time between two notices of misconduct on one connection.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// Buffers of one connection: with the requests, all that a guest can make the host keep.
pub(super) struct Talk {
    pub(super) stream: UnixStream,
    pub(super) decoder: Decoder,
    pub(super) reading: Box<[u8]>,
    pub(super) writing: Vec<u8>,
    /// Broken frames that were accounted for.
    pub(super) broken: u64,
    pub(super) told: Told,
}

impl Talk {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(MAX_FRAME_BEFORE_HELLO),
            reading: vec![0; READ_SIZE].into_boxed_slice(),
            writing: Vec::new(),
            broken: 0,
            told: Told::default(),
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self) -> io::Result<()> {
        while !self.writing.is_empty() {
            match self.stream.try_write(&self.writing) {
                Ok(written) => drop(self.writing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // A large request's room is not kept for the small messages after it.
        self.writing.shrink_to(READ_SIZE);
        Ok(())
    }
}

/// What was told of the misconduct on a connection.
#[derive(Default)]
pub(super) struct Told {
    misconduct: Misconduct,
    at: Option<Instant>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    Running,
    Last,
}

impl Told {
    /// The misconduct to tell of, when it grew: at once the first time, later at intervals and at the end.
    pub(super) fn due(
        &mut self,
        misconduct: Misconduct,
        notice: Notice,
        now: Instant,
    ) -> Option<Misconduct> {
        let due = notice == Notice::Last || self.at.is_none_or(|at| now >= at + NOTICE_INTERVAL);
        if !due || misconduct.offences() <= self.misconduct.offences() {
            return None;
        }
        self.misconduct = misconduct;
        self.at = Some(now);
        Some(misconduct)
    }
}
