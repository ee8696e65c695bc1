//! Recordings: what the planner saw of each domain, tick by tick, in a bounded ring of plain files, so that every decision
//! can be looked up and made again. The daemon gives what it saw and never waits; a thread of this room writes. `simulate`
//! plays what is read here. Nothing is decided here, and what is done with a recording is not here.
//!
//! ```text
//! frame    what was seen of host and domain at one tick, as values
//! line     frames as lines of JSON that hold what has changed, and back
//! patch    the same for any JSON value: the explanations of decisions
//! ring     segments on disk, the oldest dropped
//! writer   the thread that writes, and the bounded way to it
//! read     rings -> the trace of a domain, the decision at a time
//! trace    one file with all that a replay needs
//! ```

mod frame;
mod knob;
mod line;
mod patch;
mod read;
mod ring;
mod trace;
mod writer;

pub use frame::{
    DomainFrame, Ended, HostFrame, Needed, PersonaMark, Signalled, StateNote, TurnEnded, Why,
};
pub use read::{ReadError, decision_at, export};
pub use ring::Bound;
pub use trace::{Tick, Trace, TraceError, is_recording};
pub use writer::{Batch, Entry, Health, Reader, Recorder};

/// The form of the lines; a reader takes no other.
const FORM: u32 = 1;
