//! Commands in guests because somebody asks for them: who asked and for what is in the audit before it is sent, how it ended
//! after it; what is written in between goes to whoever asked, and nowhere else. The guest decides whether it runs, by the
//! table of its persona and its owner's word.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::Command as Wire;
use agent_protocol::command::{Confinement, Output};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Daemon, Event};
use crate::act::sentence_of;
use crate::agent::{AgentError, CommandEnd, OutputPiece, Registry};
use crate::audit::AuditKind;
use crate::command::{Caller, DomainName, Execution, Handed, Refusal, Reply};
use crate::hypervisor::DomainId;
use crate::view::{ExecutionEndView, ExecutionLine, HeldBy, Refuser};

/// Commands that run at the same time on all domains: each can keep as much as a command may write.
const RUNS: usize = 16;
/// What a command may take beside its own time: the agent's work before it, the grace before a kill, the last output.
const MARGIN: Duration = Duration::from_secs(150);
/// Who does not read for so long is written to no more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Room for commands.
pub(super) struct Executions(Arc<Semaphore>);

impl Default for Executions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RUNS)))
    }
}

/// What came of a command.
#[derive(Debug)]
pub struct Executed {
    domain: DomainId,
    what: String,
    answer: Result<CommandEnd, AgentError>,
}

impl Daemon {
    /// Begins a command, and answers with the pipe on which it is told.
    pub(super) fn execute(
        &mut self,
        domain: &DomainName,
        execution: Execution,
        caller: &Caller,
        reply: oneshot::Sender<Result<Reply, Refusal>>,
    ) {
        let begun = self.begin_execution(domain, execution, caller);
        // A caller that went away reads nothing; what was begun goes on.
        let _ = reply.send(begun);
    }

    fn begin_execution(
        &mut self,
        domain: &DomainName,
        execution: Execution,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let wire = Wire {
            argv: execution.argv,
            user: execution.user,
            cwd: execution.directory,
            timeout_ms: u64::try_from(execution.timeout.as_millis()).unwrap_or(u64::MAX),
            env: execution.environment,
        };
        wire.check().map_err(|error| Refusal::BadArgument {
            argument: "command".to_owned(),
            reason: error.to_string(),
        })?;
        let tracked = &self.domains[&id];
        if tracked.agent.facts.is_none() {
            return Err(Refusal::AgentUnavailable {
                domain: tracked.description.name.clone(),
                reason: "it is not connected".to_owned(),
            });
        }
        let room = self.executions.0.clone().try_acquire_owned();
        let room = room.map_err(|_| Refusal::Busy {
            reason: format!("{RUNS} commands run in guests"),
        })?;
        let failed = |error: std::io::Error| Refusal::Failed {
            operation: "making a pipe for the output".to_owned(),
            reason: error.to_string(),
        };
        let (write, read) = Handed::pipe().map_err(failed)?;
        let sender = Sender::from_owned_fd(write.into()).map_err(failed)?;
        let what = format!("`{}` as {}", words(&wire.argv), wire.user);
        let text = format!("{} has {what} run in the guest", caller.name);
        // Variables can be private, so not even their names are kept.
        let detail = json!({
            "caller": caller.name, "uid": caller.uid, "argv": wire.argv, "user": wire.user,
            "directory": wire.cwd, "timeout_ms": wire.timeout_ms,
        });
        self.record(AuditKind::Command, Some(id), &text, detail);
        let (registry, limit) = (self.registry.clone(), execution.timeout + MARGIN);
        self.spawn(async move {
            let answer = run(registry, id, wire, limit, sender, room).await;
            Event::Executed(Box::new(Executed {
                domain: id,
                what,
                answer,
            }))
        });
        Ok(Reply::Execution(read))
    }

    pub(super) fn execution_ended(&mut self, executed: &Executed) {
        let Executed {
            domain,
            what,
            answer,
        } = executed;
        let (text, detail) = match answer {
            Ok(end) => {
                let how = match (end.exit, end.timed_out) {
                    (_, true) => "was stopped because its time was over".to_owned(),
                    (Some(code), _) => format!("exited with {code}"),
                    (None, _) => format!("was ended by signal {}", end.signal.unwrap_or(0)),
                };
                let instead = if end.overridden {
                    format!(
                        " ({} in its place, as the persona says)",
                        end.program.as_str()
                    )
                } else {
                    String::new()
                };
                let detail = json!({
                    "exit": end.exit, "signal": end.signal, "timed_out": end.timed_out,
                    "duration_ms": end.duration_ms, "program": end.program.as_str(),
                    "overridden": end.overridden, "output_bytes": end.sent,
                });
                (
                    format!("{what}{instead} {how} after {} ms", end.duration_ms),
                    detail,
                )
            }
            Err(error) => (
                format!(
                    "{what} did not run, or its end was not seen: {}",
                    sentence_of(error)
                ),
                serde_json::Value::Null,
            ),
        };
        self.record(AuditKind::Command, Some(*domain), &text, detail);
    }
}

/// Words as a person reads them; the exact ones are in the detail.
fn words(argv: &[String]) -> String {
    let text = argv.join(" ");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

async fn run(
    registry: Registry,
    id: DomainId,
    wire: Wire,
    limit: Duration,
    sender: Sender,
    room: OwnedSemaphorePermit,
) -> Result<CommandEnd, AgentError> {
    let (outputs, mut pieces) = mpsc::unbounded_channel();
    let mut teller = Teller {
        sender: Some(sender),
        told: 0,
    };
    let answer = registry.execute(id, wire, outputs, limit);
    tokio::pin!(answer);
    let answer = loop {
        tokio::select! {
            biased;
            Some(piece) = pieces.recv() => teller.output(piece).await,
            answer = &mut answer => break answer,
        }
    };
    // What came before the answer, in the same breath.
    while let Ok(piece) = pieces.try_recv() {
        teller.output(piece).await;
    }
    teller.line(&last_line(&answer, teller.told)).await;
    drop(room);
    answer
}

fn last_line(answer: &Result<CommandEnd, AgentError>, told: u64) -> ExecutionLine {
    match answer {
        Ok(end) => ExecutionLine::End(Box::new(ExecutionEndView {
            exit: end.exit,
            signal: end.signal,
            timed_out: end.timed_out,
            duration_ms: end.duration_ms,
            program: end.program.as_str().to_owned(),
            overridden: end.overridden,
            truncated: end.truncated,
            lost_bytes: end.sent.saturating_sub(told),
            held_by: match end.confinement {
                Confinement::ControlGroup => HeldBy::ControlGroup,
                Confinement::ProcessGroup => HeldBy::ProcessGroup,
                Confinement::Unknown => HeldBy::Unknown,
            },
            notes: end
                .notes
                .iter()
                .map(|note| note.as_str().to_owned())
                .collect(),
        })),
        Err(AgentError::Refused { code, message, .. }) => ExecutionLine::Failed {
            by: match code.as_str() {
                "restricted" => Refuser::Persona,
                "forbidden" => Refuser::GuestOwner,
                _ => Refuser::Guest,
            },
            code: code.as_str().to_owned(),
            message: message.as_str().to_owned(),
        },
        Err(error) => ExecutionLine::Failed {
            by: Refuser::Channel,
            code: String::new(),
            message: sentence_of(error),
        },
    }
}

/// Writes lines to whoever asked, for as long as they are read.
struct Teller {
    sender: Option<Sender>,
    /// Bytes of output that came.
    told: u64,
}

impl Teller {
    async fn output(&mut self, piece: OutputPiece) {
        self.told += piece.bytes.len() as u64;
        self.line(&ExecutionLine::Output {
            stream: piece.stream,
            off: piece.off,
            b64: Output::encode(&piece.bytes),
        })
        .await;
    }

    async fn line(&mut self, line: &ExecutionLine) {
        let (Some(sender), Ok(mut text)) = (&mut self.sender, serde_json::to_vec(line)) else {
            return;
        };
        text.push(b'\n');
        if !matches!(timeout(PATIENCE, sender.write_all(&text)).await, Ok(Ok(()))) {
            // Nobody reads any more; the command goes on, and its end is recorded.
            self.sender = None;
        }
    }
}
