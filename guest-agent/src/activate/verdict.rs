//! What ends mean: a script's, for its activation, and a failure's, for the host. No I/O.

use agent_protocol::{
    OnFailure, ScriptResult,
    limits::REPLY_OUTPUT_MAX,
    message::{ErrorCode, ReplyBody, ReplyError, Retry},
};

use super::ActivateError;
use crate::{log::chain, script::ScriptError};

/// What a script's end means: its result, and the failure that undoes the activation, if it does.
pub(super) fn judge_script(
    ended: Result<ScriptResult, ScriptError>,
    code: ErrorCode,
    stage: &str,
    on_failure: OnFailure,
) -> (Option<ScriptResult>, Option<ReplyError>) {
    let (result, message) = match ended {
        Ok(result) if result.succeeded() => return (Some(result), None),
        Ok(result) => {
            let why = match (result.timed_out, result.exit, result.signal) {
                (true, ..) => "took too long".to_owned(),
                (_, Some(exit), _) => format!("ended with status {exit}"),
                (_, _, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
            };
            let last = result.output.trim_end().lines().last().unwrap_or_default();
            let message = format!("the {stage} script {why}; its last line: {last}");
            (result, message)
        }
        Err(error) => {
            let message = format!("the {stage} script did not run: {}", chain(&error));
            let result = ScriptResult {
                exit: None,
                signal: None,
                output: message.clone(),
                output_truncated: false,
                timed_out: false,
                duration_ms: 0,
            };
            (result, message)
        }
    };
    match on_failure {
        OnFailure::Rollback => (
            Some(result),
            Some(ReplyError::new(code, message, Retry::Useful)),
        ),
        OnFailure::Keep => (Some(result), None),
    }
}

pub(super) fn interrupted(why: &str) -> ReplyError {
    ReplyError::new(
        ErrorCode::Interrupted,
        format!("the activation was interrupted: {why}"),
        Retry::Useful,
    )
}

/// A fault of this machine: its disk, its environment files.
pub(super) fn storage(error: &ActivateError) -> ReplyError {
    ReplyError::new(ErrorCode::Storage, chain(error), Retry::Useful)
}

pub(super) fn refusal(code: ErrorCode, message: impl AsRef<str>) -> ReplyBody {
    ReplyBody::Err(ReplyError::new(code, message, Retry::Useless))
}

/// A result that fits a reply: the end of its output.
pub(super) fn shorten(result: &ScriptResult) -> ScriptResult {
    let mut start = result.output.len().saturating_sub(REPLY_OUTPUT_MAX);
    while !result.output.is_char_boundary(start) {
        start += 1;
    }
    let output_truncated = result.output_truncated || start > 0;
    ScriptResult {
        output: result.output[start..].to_owned(),
        output_truncated,
        ..result.clone()
    }
}
