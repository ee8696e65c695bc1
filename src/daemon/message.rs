//! A persona as the message that activates it in a guest, and the guest's answer as text and detail of a record. Wire
//! types are not the daemon's own: this is the one place where the two meet.

use agent_protocol::CommandTable;
use agent_protocol::activation::{
    Activation as Message, OnFailure as MessageOnFailure, Script as MessageScript,
};
use persona::{OnFailure, Persona, Script};

use crate::agent::AgentReply;
use crate::catalog::Generation;

pub(super) fn message(generation: Generation, version: u32, persona: &Persona) -> Message {
    Message {
        generation: generation.0,
        persona: persona.name.to_string(),
        version: version.into(),
        digest: persona.digest.to_string(),
        environment: persona
            .environment
            .iter()
            .map(|(key, value)| (key.clone(), value.expose().to_owned()))
            .collect(),
        pre: persona.pre_activation.as_ref().map(script),
        post: persona.post_activation.as_ref().map(script),
        commands: CommandTable {
            overrides: persona.command_overrides.clone(),
            restricted: persona.restricted_commands.clone(),
        },
    }
}

fn script(script: &Script) -> MessageScript {
    MessageScript {
        interpreter: match &script.argument {
            Some(argument) => format!("{} {argument}", script.interpreter),
            None => script.interpreter.clone(),
        },
        text: script.text.clone(),
        timeout_ms: u64::try_from(script.timeout.as_millis()).unwrap_or(u64::MAX),
        user: script.user.clone(),
        on_failure: match script.on_failure {
            OnFailure::Rollback => MessageOnFailure::Rollback,
            OnFailure::Keep => MessageOnFailure::Keep,
        },
    }
}

/// What the scripts said, for the record's line.
pub(super) fn script_text(reply: &AgentReply) -> String {
    let AgentReply::Activated(activated) = reply else {
        return String::new();
    };
    let mut text = String::new();
    for (name, end) in [("pre", &activated.pre), ("post", &activated.post)] {
        if let Some(end) = end {
            let exit = match (end.exit, end.timed_out) {
                (_, true) => "timed out".to_string(),
                (Some(0), _) => "succeeded".to_string(),
                (Some(code), _) => format!("exited with {code}"),
                (None, _) => "was killed".to_string(),
            };
            text.push_str(&format!(
                "; {name} script {exit} after {} ms",
                end.duration_ms
            ));
        }
    }
    text
}

pub(super) fn reply_detail(reply: &AgentReply) -> serde_json::Value {
    let AgentReply::Activated(activated) = reply else {
        return serde_json::Value::Null;
    };
    let script = |end: &Option<crate::agent::ScriptEnd>| {
        end.as_ref().map(|end| {
            serde_json::json!({
                "exit": end.exit, "signal": end.signal, "timed_out": end.timed_out,
                "duration_ms": end.duration_ms, "output": end.output.as_str(),
                "output_truncated": end.output_truncated,
            })
        })
    };
    serde_json::json!({
        "generation": activated.generation,
        "needs_relogin": activated.needs_relogin,
        "pre": script(&activated.pre),
        "post": script(&activated.post),
        "environment_files": activated.environment_files.iter().map(|file| file.as_str()).collect::<Vec<_>>(),
    })
}
