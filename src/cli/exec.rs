//! `exec`: has a command run in a guest, writes what it writes as it comes, and ends as it ends.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};

use agent_protocol::command::{Stream, output_bytes};

use super::args::Exec;
use super::screen::{Screen, clean};
use super::{CliError, Ended};
use crate::bus::Client;
use crate::command::Execution;
use crate::view::{ExecutionEndView, ExecutionLine, HeldBy, Refuser};

/// Exit status where the time was over, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// Carries `exec` out.
///
/// # Errors
/// Where the command did not run, or its output cannot be written.
pub(super) async fn exec(
    client: &Client,
    json: bool,
    what: Exec,
    screen: &mut Screen,
) -> Result<Ended, CliError> {
    let execution = Execution {
        argv: what.argv,
        user: what.user,
        directory: what.directory,
        timeout: what.timeout,
        environment: what.env.into_iter().collect(),
    };
    let lines = client.execute(&what.domain, &execution).await?;
    let mut end = None;
    for line in BufReader::new(lines).lines() {
        let line = line?;
        let told: ExecutionLine = serde_json::from_str(&line).map_err(io::Error::from)?;
        if json {
            screen.raw(&format!("{line}\n"))?;
            screen.flush()?;
        }
        match told {
            ExecutionLine::Output { stream, b64, .. } if !json => {
                let bytes = output_bytes(&b64).unwrap_or_default();
                match stream {
                    Stream::Stdout => show(&mut io::stdout(), &bytes)?,
                    Stream::Stderr => show(&mut io::stderr(), &bytes)?,
                }
            }
            ExecutionLine::Output { .. } => {}
            ExecutionLine::End(ended) => end = Some(ended),
            ExecutionLine::Failed { by, code, message } => {
                return Err(not_run(by, &code, message));
            }
        }
    }
    let Some(end) = end else {
        let message =
            "the daemon ended before the command did; the guest stops it when its time is over";
        return Err(not_run(Refuser::Channel, "", message.to_owned()));
    };
    if !json {
        tell(&end)?;
    }
    Ok(Ended::With(status_of(&end)))
}

/// Bytes of a guest as they are, but not to a terminal, which they could steer.
fn show(out: &mut (impl Write + IsTerminal), bytes: &[u8]) -> io::Result<()> {
    if out.is_terminal() {
        out.write_all(harmless(bytes).as_bytes())?;
    } else {
        out.write_all(bytes)?;
    }
    out.flush()
}

/// Lines without control characters. A piece can begin in the middle of a line, so that line ends stay as they are.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text.split('\n').map(clean).collect();
    lines.join("\n")
}

/// What a person should know beside output and status.
fn tell(end: &ExecutionEndView) -> io::Result<()> {
    let mut notes = end.notes.clone();
    if end.timed_out {
        notes.push("its time was over, and it was stopped".to_owned());
    }
    if end.truncated {
        notes.push("it wrote more than is passed on; the rest is missing".to_owned());
    }
    if end.lost_bytes > 0 {
        let text = format!(
            "{} bytes of its output were lost with a connection",
            end.lost_bytes
        );
        notes.push(text);
    }
    if end.timed_out && end.held_by != HeldBy::ControlGroup {
        notes.push(
            "it had no control group of its own; a process that left its group may still run"
                .to_owned(),
        );
    }
    let mut screen = Screen::stderr();
    for note in notes {
        screen.line(&clean(&format!("virt-persona: {note}")))?;
    }
    screen.flush()
}

fn status_of(end: &ExecutionEndView) -> u8 {
    if end.timed_out {
        return TIMED_OUT;
    }
    // A shell says 128 and the signal's number.
    let status = end
        .exit
        .or_else(|| end.signal.map(|signal| signal.saturating_add(128)));
    status
        .and_then(|status| u8::try_from(status).ok())
        .unwrap_or(255)
}

fn not_run(by: Refuser, code: &str, message: String) -> CliError {
    CliError::NotRun {
        by: match by {
            Refuser::Persona => "the persona refuses it",
            Refuser::GuestOwner => "the guest's owner refuses it",
            Refuser::Guest => "the guest does not run it",
            Refuser::Channel => "the guest cannot be asked",
        },
        message,
        status: match code {
            "not_found" => 127,
            "cannot_run" | "untrusted" => 126,
            _ => 125,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_and_nothing_that_steers_it() {
        assert_eq!(harmless(b"a\x1b[2Jb\n\xff\x07c\n"), "a[2Jb\n\u{fffd}c\n");
    }

    #[test]
    fn a_command_ends_as_it_does_in_a_shell() {
        let end = |exit, signal, timed_out| ExecutionEndView {
            exit,
            signal,
            timed_out,
            duration_ms: 1,
            program: "/bin/true".to_owned(),
            overridden: false,
            truncated: false,
            lost_bytes: 0,
            held_by: HeldBy::ControlGroup,
            notes: Vec::new(),
        };
        for (ended, status) in [
            (end(Some(0), None, false), 0),
            (end(Some(7), None, false), 7),
            (end(None, Some(9), false), 137),
            (end(Some(1), None, true), 124),
            (end(None, None, false), 255),
            // A guest may claim what no process has.
            (end(Some(-1), None, false), 255),
            (end(None, Some(i32::MAX - 128), false), 255),
        ] {
            assert_eq!(status_of(&ended), status, "{ended:?}");
        }
    }
}
