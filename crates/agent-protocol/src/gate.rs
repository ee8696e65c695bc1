//! What the agent and the gate in a guest write for each other: the table that the gate holds people to, and how far it does.
//! Both are files of one JSON object each; the host sees neither. The agent writes the one and reads the other, the gate the
//! other way round.

use serde::{Deserialize, Serialize};

/// Where the table is, below the agent's state directory. The file is there while commands are restricted.
pub const TABLE_FILE: &str = "gate/table.json";
/// The gate's own directory, below the root of the guest's tree.
pub const GATE_DIRECTORY: &str = "run/virt-persona-gate";
/// What the gate says of itself, in its own directory.
pub const STANDING_FILE: &str = "standing.json";
/// It is locked in the gate's own directory for as long as the gate runs.
pub const LOCK_FILE: &str = "lock";

/// What people who log in to the guest are held to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateTable {
    /// The active persona, for sentences.
    pub persona: String,
    /// The activation that it came with.
    pub generation: u64,
    /// Absolute directories in which names are looked up, with colons between.
    pub path: String,
    /// Names of commands that are refused.
    pub restricted: Vec<String>,
    /// Whether a file is refused by its name, too, so also before the gate has seen that it is there.
    #[serde(default)]
    pub strict: bool,
}

/// Whether people who log in are held to restricted commands, as the host is told with each report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// They are.
    Holds,
    /// The gate does not run, or has not read the table yet.
    Away,
    /// The guest's owner does not want it.
    Denied,
    /// Something of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// How far the gate holds a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStanding {
    /// The table's activation; absent while there is no table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// How many files are marked, each for all of its names and links.
    #[serde(default)]
    pub files: usize,
    /// How many directories are marked, for all that is opened in them; none where the table is not strict.
    #[serde(default)]
    pub directories: usize,
    /// Restricted names that lead to no file now; they are looked for again whenever a directory changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    /// What keeps the gate from holding the table, or a part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
