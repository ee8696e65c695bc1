//! Answers to requests: success with the operation's own shape, or a failure with a code for programs and a sentence for
//! people. Text of the other side is cleaned here before anyone shows it. Re-exported by [`crate::message`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    activation::Change, cpu_list::CpuList, identity::RequestId, limits::MESSAGE_MAX,
    settings::SettingsReply,
};

/// The answer to a request; on the wire either `ok` or `err` is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request.
    pub re: RequestId,
    /// Its result.
    #[serde(flatten)]
    pub body: ReplyBody,
}

/// Success or failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyBody {
    /// The operation's own answer.
    Ok(Value),
    /// Why it failed.
    Err(ReplyError),
}

/// A refusal or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}", code = code.as_str())]
pub struct ReplyError {
    /// What kind, for programs.
    pub code: ErrorCode,
    /// One sentence, for people.
    pub message: String,
    /// Whether the same request with a new id can succeed without a change in the guest.
    pub retryable: bool,
}

/// Kinds of failure. Codes of a newer protocol are kept by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ErrorCode {
    /// The agent does not know the operation.
    Unsupported,
    /// The request cannot be understood or breaks a bound.
    Malformed,
    /// The guest owner's policy forbids it.
    Forbidden,
    /// The request waited longer than its `ttl_ms`.
    Expired,
    /// Too many requests wait.
    Busy,
    /// A newer generation was seen.
    StaleGeneration,
    /// The same generation was seen with another digest.
    GenerationConflict,
    /// The `pre` script failed; nothing has changed.
    PreFailed,
    /// The `post` script failed; what was before is back.
    PostFailed,
    /// A script was running when the agent ended; what was before is back. Of a command: it is not run again.
    Interrupted,
    /// The user that a script or command shall run as does not exist.
    UnknownUser,
    /// The persona that is active refuses the command.
    Restricted,
    /// There is no such command in the guest.
    NotFound,
    /// Others than root could change the program, and it would run as root.
    Untrusted,
    /// The program cannot be started.
    CannotRun,
    /// A setting cannot be brought about in this guest; what was before is back.
    SettingRefused,
    /// CPUs could not be brought online or taken offline.
    Cpu,
    /// A CPU that was plugged cannot be brought online before the guest reboots.
    CpuStuck,
    /// The guest's file system refused a write.
    Storage,
    /// The guest could not measure itself.
    Unmeasured,
    /// A code of a newer protocol.
    Other(String),
}

const CODES: [(ErrorCode, &str); 20] = [
    (ErrorCode::Unsupported, "unsupported"),
    (ErrorCode::Malformed, "malformed"),
    (ErrorCode::Forbidden, "forbidden"),
    (ErrorCode::Expired, "expired"),
    (ErrorCode::Busy, "busy"),
    (ErrorCode::StaleGeneration, "stale_generation"),
    (ErrorCode::GenerationConflict, "generation_conflict"),
    (ErrorCode::PreFailed, "pre_failed"),
    (ErrorCode::PostFailed, "post_failed"),
    (ErrorCode::Interrupted, "interrupted"),
    (ErrorCode::UnknownUser, "unknown_user"),
    (ErrorCode::Restricted, "restricted"),
    (ErrorCode::NotFound, "not_found"),
    (ErrorCode::Untrusted, "untrusted"),
    (ErrorCode::CannotRun, "cannot_run"),
    (ErrorCode::SettingRefused, "setting_refused"),
    (ErrorCode::Cpu, "cpu"),
    (ErrorCode::CpuStuck, "cpu_stuck"),
    (ErrorCode::Storage, "storage"),
    (ErrorCode::Unmeasured, "unmeasured"),
];

impl ErrorCode {
    /// The code on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => CODES
                .iter()
                .find(|(code, _)| code == known)
                .map_or("", |(_, name)| name),
        }
    }
}

impl From<String> for ErrorCode {
    fn from(name: String) -> Self {
        CODES
            .iter()
            .find(|(_, known)| *known == name)
            .map_or(Self::Other(name), |(code, _)| code.clone())
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.as_str().to_owned()
    }
}

impl Reply {
    /// A success with `value` as its answer.
    ///
    /// # Errors
    /// When `value` has no JSON form.
    pub fn ok(re: RequestId, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self {
            re,
            body: ReplyBody::Ok(serde_json::to_value(value)?),
        })
    }

    /// A failure.
    #[must_use]
    pub fn err(re: RequestId, error: ReplyError) -> Self {
        Self {
            re,
            body: ReplyBody::Err(error),
        }
    }

    /// The answer as the type that the operation promises. Text in it is the guest's own: clean it before it is shown.
    ///
    /// # Errors
    /// [`ReplyFault`]: the guest's refusal, or an answer of another shape.
    pub fn into_answer<T: serde::de::DeserializeOwned>(self) -> Result<T, ReplyFault> {
        match self.body {
            ReplyBody::Ok(value) => serde_json::from_value(value).map_err(ReplyFault::Shape),
            ReplyBody::Err(error) => Err(ReplyFault::Refused(error.cleaned())),
        }
    }
}

/// Why a reply holds no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplyFault {
    /// The guest said no.
    #[error("the guest refused: {0}")]
    Refused(ReplyError),
    /// The guest's answer is not of the promised shape.
    #[error("the guest's answer has another shape than the operation promises")]
    Shape(#[source] serde_json::Error),
}

impl ReplyError {
    /// A failure with a bounded sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl AsRef<str>, retry: Retry) -> Self {
        Self {
            code,
            message: clean_text(message.as_ref(), MESSAGE_MAX),
            retryable: retry == Retry::Useful,
        }
    }

    fn cleaned(self) -> Self {
        let code = match self.code {
            ErrorCode::Other(name) => ErrorCode::Other(clean_text(&name, 32)),
            known => known,
        };
        Self {
            code,
            message: clean_text(&self.message, MESSAGE_MAX),
            retryable: self.retryable,
        }
    }
}

/// Whether asking again, with a new id, makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The cause can go away by itself.
    Useful,
    /// The cause stays until the request or the guest is changed.
    Useless,
}

/// The other side's text, made safe to show: control characters (terminal escapes among them) become spaces, line breaks and tabs stay,
/// and at most `max_bytes` of the beginning are kept.
#[must_use]
pub fn clean_text(text: &str, max_bytes: usize) -> String {
    let mut clean = String::new();
    for character in text.chars() {
        let hidden = character.is_control() && !matches!(character, '\n' | '\t');
        // Bidirectional overrides can make a terminal show another order than the bytes have.
        let reordering = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let shown = if hidden || reordering { ' ' } else { character };
        if clean.len() + shown.len_utf8() > max_bytes {
            break;
        }
        clean.push(shown);
    }
    clean
}

/// Answer to [`crate::message::Operation::OnlineCpus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineCpusReply {
    /// CPUs online afterwards.
    pub online: CpuList,
    /// CPUs plugged.
    pub present: CpuList,
    /// Whether any was switched.
    pub outcome: Change,
}

/// Answer to [`crate::message::Operation::Deactivate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeactivationReply {
    /// The generation that holds.
    pub generation: u64,
    /// Whether anything was active before.
    pub outcome: Change,
    /// Whether sessions that are open keep the old environment until their users log in again.
    #[serde(default)]
    pub needs_relogin: bool,
    /// What came of the settings that held before; absent where there are none, and from agents that know none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsReply>,
}

/// Answer to [`crate::message::Operation::OpStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OpStatus {
    /// It never arrived, or is older than the agent remembers.
    Unknown,
    /// It waits or runs.
    Running,
    /// It ended; the result is what its reply said.
    Done {
        /// The stored result.
        result: ReplyBody,
    },
}
