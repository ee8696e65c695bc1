//! Commands in a guest as the daemon sees them: what they write, in pieces that are checked, and how they ended. Everything
//! in here stays a claim of the guest. Called by `requests` and `reply`.

use agent_protocol::command::{CommandReply, Confinement, Output, Stream};
use agent_protocol::limits::{COMMAND_OUTPUT_MAX, COMMAND_PATH_MAX, MESSAGE_MAX};
use tokio::sync::mpsc;

use super::requests::Fit;
use super::words::{GuestWords, Lines};

/// Notes that an answer may have.
const NOTES_MAX: usize = 8;

/// Where the output of a command goes. No more waits there than a command may write.
pub type Outputs = mpsc::UnboundedSender<OutputPiece>;

/// A piece of output: bytes of the guest, as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPiece {
    /// Where it was written to.
    pub stream: Stream,
    /// Bytes of the stream before it; what is missing in between was lost with a connection.
    pub off: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Exit status; absent when a signal ended it.
    pub exit: Option<i32>,
    /// The signal.
    pub signal: Option<i32>,
    /// It was stopped for taking too long.
    pub timed_out: bool,
    /// Milliseconds that it ran.
    pub duration_ms: u64,
    /// The file that ran, to be shown.
    pub program: GuestWords,
    /// The persona had another program run than the one that was asked for.
    pub overridden: bool,
    /// Bytes of both streams that were sent.
    pub sent: u64,
    /// Output beyond the cap was thrown away.
    pub truncated: bool,
    /// What held its processes together.
    pub confinement: Confinement,
    /// What else a person should know.
    pub notes: Vec<GuestWords>,
}

impl CommandEnd {
    pub(super) fn of(reply: CommandReply) -> Self {
        Self {
            exit: reply.exit,
            signal: reply.signal,
            timed_out: reply.timed_out,
            duration_ms: reply.duration_ms,
            program: GuestWords::clean(&reply.program, COMMAND_PATH_MAX, Lines::One),
            overridden: reply.overridden,
            sent: reply.stdout_bytes.saturating_add(reply.stderr_bytes),
            truncated: reply.truncated,
            confinement: reply.confinement,
            notes: reply
                .notes
                .iter()
                .take(NOTES_MAX)
                .map(|note| GuestWords::clean(note, MESSAGE_MAX, Lines::One))
                .collect(),
        }
    }
}

/// What was heard of a command's output.
#[derive(Debug)]
pub(super) struct Heard {
    outputs: Outputs,
    /// The next byte of standard output and of standard error.
    next: [u64; 2],
    /// Bytes that were passed on.
    bytes: u64,
}

impl Heard {
    pub(super) fn new(outputs: Outputs) -> Self {
        Self {
            outputs,
            next: [0; 2],
            bytes: 0,
        }
    }

    /// Passes a piece on: no byte twice, and no more than a command may write.
    pub(super) fn take(&mut self, output: Output) -> Fit {
        let next = &mut self.next[match output.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }];
        let Some(bytes) = output.bytes() else {
            return Fit::Impossible;
        };
        let length = bytes.len() as u64;
        let end = output.off.saturating_add(length);
        if end > COMMAND_OUTPUT_MAX || self.bytes + length > COMMAND_OUTPUT_MAX {
            return Fit::Impossible;
        }
        // A piece of an earlier session may come again after a migration.
        if output.off < *next {
            return Fit::Unasked;
        }
        *next = end;
        self.bytes += length;
        // Who no longer listens does not miss it.
        let _ = self.outputs.send(OutputPiece {
            stream: output.stream,
            off: output.off,
            bytes,
        });
        Fit::Expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::RequestId;
    use agent_protocol::limits::OUTPUT_RAW_MAX;

    fn piece(stream: Stream, off: u64, bytes: &[u8]) -> Output {
        Output::new(RequestId::new("r").unwrap(), stream, off, bytes)
    }

    #[test]
    fn pieces_pass_once_in_order_and_gaps_are_seen_by_their_offsets() {
        let (outputs, mut pieces) = mpsc::unbounded_channel();
        let mut heard = Heard::new(outputs);
        assert_eq!(heard.take(piece(Stream::Stdout, 0, b"ab")), Fit::Expected);
        assert_eq!(heard.take(piece(Stream::Stdout, 0, b"ab")), Fit::Unasked);
        assert_eq!(heard.take(piece(Stream::Stderr, 0, b"e")), Fit::Expected);
        assert_eq!(heard.take(piece(Stream::Stdout, 9, b"z")), Fit::Expected);
        let offsets: Vec<_> = std::iter::from_fn(|| pieces.try_recv().ok())
            .map(|piece| (piece.stream, piece.off))
            .collect();
        assert_eq!(
            offsets,
            [
                (Stream::Stdout, 0),
                (Stream::Stderr, 0),
                (Stream::Stdout, 9)
            ]
        );
    }

    #[test]
    fn a_guest_that_writes_without_end_is_kept_to_what_a_command_may_write() {
        let (outputs, mut pieces) = mpsc::unbounded_channel();
        let mut heard = Heard::new(outputs);
        let bytes = [0; OUTPUT_RAW_MAX];
        let mut off = 0;
        while heard.take(piece(Stream::Stdout, off, &bytes)) == Fit::Expected {
            off += bytes.len() as u64;
        }
        assert_eq!(
            heard.take(piece(Stream::Stderr, 0, &bytes)),
            Fit::Impossible
        );
        assert_eq!(
            heard.take(piece(Stream::Stdout, u64::MAX, b"x")),
            Fit::Impossible
        );
        let kept: u64 = std::iter::from_fn(|| pieces.try_recv().ok())
            .map(|piece| piece.bytes.len() as u64)
            .sum();
        assert!(kept <= COMMAND_OUTPUT_MAX && kept + 2 * bytes.len() as u64 > COMMAND_OUTPUT_MAX);
    }
}
