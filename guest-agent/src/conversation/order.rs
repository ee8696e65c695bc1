//! What the conversation wants done by others; the channel hands it on.

use std::time::Instant;

use agent_protocol::{Answer, Command, RecordsSeen, RequestId, RuleCall};

use crate::{activate::Wish, hooks::Errand, local::ClientId};

/// Something that another thread, or the channel itself, is to do.
#[derive(Debug)]
pub(crate) enum Order {
    Wish {
        id: RequestId,
        wish: Wish,
        deadline: Instant,
    },
    Status {
        id: RequestId,
        about: RequestId,
    },
    OnlineCpus {
        id: RequestId,
        target: u32,
        deadline: Instant,
    },
    Report {
        id: RequestId,
    },
    Hooks {
        id: RequestId,
        errand: Errand,
        deadline: Instant,
    },
    Exec {
        id: RequestId,
        command: Box<Command>,
        deadline: Instant,
    },
    /// What the host says to a client of the agent's own socket.
    Tell {
        client: ClientId,
        answer: Box<Answer>,
    },
    /// Do what a rule of the host calls for.
    Perform {
        id: RequestId,
        call: Box<RuleCall>,
        deadline: Instant,
    },
    /// Tell what rules did, after what was seen is forgotten.
    RuleRecords {
        id: RequestId,
        seen: Option<RecordsSeen>,
    },
    /// The machine was put back to an earlier state: what is on the disk counts, not what is remembered.
    Reread,
}
