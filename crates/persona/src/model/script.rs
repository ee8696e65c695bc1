//! Scripts that run in the guest. What runs them is the agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A script that runs in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Script {
    /// Absolute path: what the document names, else what the `#!` line does, else `/bin/sh`.
    pub interpreter: String,
    /// What stands behind the interpreter on the `#!` line: one argument, as the kernel passes it (execve(2)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// The script, line ends as `\n`.
    pub text: String,
    /// It is stopped then, and has failed.
    #[serde(serialize_with = "crate::quantity::serialize_duration")]
    pub timeout: Duration,
    /// The user of the guest as whom it runs.
    pub user: String,
    /// What its failure means for the activation.
    pub on_failure: OnFailure,
}

impl Script {
    /// Where the document does not say.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    /// Where the document does not say.
    pub const DEFAULT_USER: &'static str = "root";
    /// Where neither the document nor a `#!` line says.
    pub const DEFAULT_INTERPRETER: &'static str = "/bin/sh";
}

/// What a failed script means for the activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// What the activation changed so far is undone.
    #[default]
    Rollback,
    /// What was changed stays; the failure is reported.
    Keep,
}
