//! A command in a guest as it is told line by line to whoever asked for it: what it writes, then how it ended.

use agent_protocol::command::Stream;
use serde::{Deserialize, Serialize};

/// One line of the answer, as JSON. The last one is no [`ExecutionLine::Output`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionLine {
    /// A piece of output.
    Output {
        /// `stdout` or `stderr`.
        stream: Stream,
        /// Bytes of the stream before it; what is missing in between was lost with a connection.
        off: u64,
        /// The bytes in base64.
        b64: String,
    },
    /// The command ran.
    End(Box<ExecutionEndView>),
    /// The command did not run, or what became of it is not known.
    Failed {
        /// Who refused.
        by: Refuser,
        /// The agent's word, such as `restricted` or `not_found`; empty where the agent did not say one.
        code: String,
        /// The whole sentence.
        message: String,
    },
}

/// Who refused a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refuser {
    /// The persona that is active.
    Persona,
    /// The guest's owner, by `agent.toml`.
    GuestOwner,
    /// The guest: there is no such user or program, or it cannot be run.
    Guest,
    /// The way to the guest.
    Channel,
}

/// What held a command's processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// A control group of its own.
    ControlGroup,
    /// Its process group alone, which a process can leave.
    ProcessGroup,
    /// The agent did not say.
    Unknown,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionEndView {
    /// Exit status; absent when a signal ended it.
    pub exit: Option<i32>,
    /// The signal.
    pub signal: Option<i32>,
    /// It was stopped for taking too long.
    pub timed_out: bool,
    /// Milliseconds that it ran.
    pub duration_ms: u64,
    /// The file that ran.
    pub program: String,
    /// The persona had another program run than the one that was asked for.
    pub overridden: bool,
    /// Output beyond the cap was thrown away.
    pub truncated: bool,
    /// Bytes of output that were lost on the way.
    pub lost_bytes: u64,
    /// What held its processes together.
    pub held_by: HeldBy,
    /// What else is to be known, each a sentence.
    pub notes: Vec<String>,
}
