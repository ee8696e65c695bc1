//! What a guest says while somebody in it has gone back to an earlier generation by hand: part of the greeting and of each
//! message with a report, so that it is known at once and known when it is over.

use serde::{Deserialize, Serialize};

/// The generation that holds in the guest instead of the one that the host made active. It holds until the next activation
/// or deactivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The generation that was gone back to.
    pub generation: u64,
    /// The persona of that generation; absent where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}
