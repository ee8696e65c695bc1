//! What programs of the guest say to the agent on its own socket, and what it answers: lines of JSON, one object each. It is
//! no part of the channel to the host; the agent and `virt-persona-switch`, which speak it, come from one build.

use serde::{Deserialize, Serialize};

use crate::switching::Answer;

/// The socket, below the root directory of the guest.
pub const LOCAL_SOCKET: &str = "run/virt-persona-agent/agent.sock";

/// The group whose members may ask for another persona.
pub const SWITCH_GROUP: &str = "virt-persona";

/// What a program asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum LocalRequest {
    /// What the agent knows; everybody may ask.
    Status,
    /// What there is to choose from.
    Personas,
    /// Another persona.
    Switch {
        /// Its name.
        persona: String,
    },
}

/// What the agent answers. The connection ends after the last answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalAnswer {
    /// What the agent knows.
    Status(LocalStatus),
    /// The host's word.
    Host(Answer),
    /// The agent itself does not pass it on, or has nothing more to tell.
    No(LocalNo),
}

/// What the agent knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStatus {
    /// The persona that is active in the guest.
    pub persona: Option<String>,
    /// Whether the host can be asked.
    pub host: HostPresence,
}

/// Whether the host can be asked for another persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPresence {
    /// It listens.
    Listens,
    /// It is connected, and knows nothing of such questions.
    Deaf,
    /// It is not connected.
    Absent,
}

/// Why the agent does not pass something on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNo {
    /// Which of the reasons.
    pub code: LocalCode,
    /// A sentence for people.
    pub reason: String,
}

/// The agent's own reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalCode {
    /// Who asks is neither root nor a member of the group.
    NotAllowed,
    /// The host is not there, or does not listen.
    NoHost,
    /// The host went while something was under way there.
    HostLost,
    /// Too many asks.
    TooSoon,
    /// It cannot be understood.
    Malformed,
    /// A reason of a newer agent.
    #[serde(other)]
    Unknown,
}

impl LocalAnswer {
    /// Whether the connection ends with it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            Self::Host(answer) => answer.is_last(),
            Self::Status(_) | Self::No(_) => true,
        }
    }
}
