//! One program in a guest by `guest-exec`, from start to end, and files read and written by such programs: the agent's own
//! calls for files know neither modes nor renames. Called by `activate`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use persona::domain::DomainId;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{StandIn, StandInError, words};

/// Between two looks whether a program has ended.
const LOOK: Duration = Duration::from_millis(200);
/// The small programs that read and write files.
const SMALL: Duration = Duration::from_secs(30);
/// Bytes that go to a program in one command: a megabyte at once has left the agent unresponsive.
const PIECE: usize = 24 * 1024;
/// Where programs are found, as login(1) has it for root.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Begins a file beside its place, readable by root only.
const BEGIN: &str = r#"umask 022; mkdir -p "${1%/*}" && rm -f "$1.virt-persona-part" && umask 077 && : >"$1.virt-persona-part""#;
const CONTINUE: &str = r#"cat >>"$1.virt-persona-part""#;
/// Puts it in its place, on disk before anything else is said to be done.
const FINISH: &str = r#"chown "$3" "$1.virt-persona-part" && chmod "$2" "$1.virt-persona-part" && sync && mv -f "$1.virt-persona-part" "$1" && sync"#;
const READ: &str = r#"[ ! -e "$1" ] && exit 66; cat "$1""#;
/// Exit status of [`READ`] for a file that is not there.
const NO_FILE: i64 = 66;

/// How a program in the guest ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status; 128 and more for a signal, as shells have it.
    pub(super) status: i64,
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
}

/// What is run.
pub(super) struct Program<'a> {
    pub(super) path: &'a str,
    pub(super) arguments: &'a [&'a str],
    /// `NAME=VALUE`, besides the path.
    pub(super) environment: &'a [String],
    pub(super) input: &'a [u8],
    pub(super) time: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    exited: bool,
    exitcode: Option<i64>,
    signal: Option<i64>,
    out_data: Option<String>,
    err_data: Option<String>,
}

impl StandIn {
    pub(super) async fn run(
        &self,
        domain: DomainId,
        program: Program<'_>,
    ) -> Result<Ended, StandInError> {
        let mut environment = vec![PATH.to_owned(), "HOME=/root".to_owned()];
        environment.extend_from_slice(program.environment);
        let arguments = json!({
            "path": program.path,
            "arg": program.arguments,
            "env": environment,
            "input-data": STANDARD.encode(program.input),
            "capture-output": true,
        });
        let command = "guest-exec";
        let strange = |detail: String| StandInError::Strange { command, detail };
        let answer = self.ask(domain, command, arguments).await?;
        let pid = answer["pid"]
            .as_i64()
            .ok_or_else(|| strange("it names no process".into()))?;
        let end = Instant::now() + program.time;
        loop {
            let command = "guest-exec-status";
            let answer = self.ask(domain, command, json!({ "pid": pid })).await?;
            let status: Status =
                serde_json::from_value(answer).map_err(|error| StandInError::Strange {
                    command,
                    detail: error.to_string(),
                })?;
            if status.exited {
                let text = |data: Option<String>| {
                    STANDARD
                        .decode(data.unwrap_or_default())
                        .map_err(|error| strange(error.to_string()))
                };
                return Ok(Ended {
                    status: status
                        .exitcode
                        .unwrap_or_else(|| status.signal.unwrap_or_default() + 128),
                    output: text(status.out_data)?,
                    errors: text(status.err_data)?,
                });
            }
            if Instant::now() >= end {
                return Err(StandInError::Overran {
                    program: program.path.to_owned(),
                    seconds: program.time.as_secs(),
                });
            }
            sleep(LOOK).await;
        }
    }

    async fn shell(
        &self,
        domain: DomainId,
        text: &str,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<Ended, StandInError> {
        let mut all = vec!["-c", text, "virt-persona"];
        all.extend_from_slice(arguments);
        let program = Program {
            path: "/bin/sh",
            arguments: &all,
            environment: &[],
            input,
            time: SMALL,
        };
        self.run(domain, program).await
    }

    /// Writes a file as a whole: who looks finds the old one or the new one.
    pub(super) async fn write(
        &self,
        domain: DomainId,
        path: &str,
        bytes: &[u8],
        mode: &str,
        owner: &str,
    ) -> Result<(), StandInError> {
        let done = |ended: Ended| match ended.status {
            0 => Ok(()),
            _ => Err(StandInError::Failed {
                doing: format!("writing {path}"),
                words: words(&ended.errors),
            }),
        };
        done(self.shell(domain, BEGIN, &[path], &[]).await?)?;
        for piece in bytes.chunks(PIECE) {
            done(self.shell(domain, CONTINUE, &[path], piece).await?)?;
        }
        done(
            self.shell(domain, FINISH, &[path, mode, owner], &[])
                .await?,
        )
    }

    /// What a file holds; absent where there is none.
    pub(super) async fn read(
        &self,
        domain: DomainId,
        path: &str,
    ) -> Result<Option<Vec<u8>>, StandInError> {
        let ended = self.shell(domain, READ, &[path], &[]).await?;
        match ended.status {
            0 => Ok(Some(ended.output)),
            NO_FILE => Ok(None),
            _ => Err(StandInError::Failed {
                doing: format!("reading {path}"),
                words: words(&ended.errors),
            }),
        }
    }

    pub(super) async fn remove(&self, domain: DomainId, path: &str) -> Result<(), StandInError> {
        let ended = self
            .shell(domain, r#"rm -f "$1" && sync"#, &[path], &[])
            .await?;
        if ended.status == 0 {
            return Ok(());
        }
        Err(StandInError::Failed {
            doing: format!("removing {path}"),
            words: words(&ended.errors),
        })
    }
}

/// One word of a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn shell(text: &str, arguments: &[&str], input: &[u8]) -> (i32, Vec<u8>) {
        use std::io::Write as _;
        let mut child = Command::new("/bin/sh")
            .args(["-c", text, "virt-persona"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads nothing may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), output.stdout)
    }

    #[test]
    fn a_file_is_written_in_pieces_and_is_there_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some/where/a file");
        let path = path.to_str().unwrap();
        let owner = nix::unistd::geteuid().to_string();
        assert_eq!(shell(READ, &[path], b"").0, i32::try_from(NO_FILE).unwrap());
        for content in ["first", "second"] {
            assert_eq!(shell(BEGIN, &[path], b"").0, 0);
            assert_eq!(shell(CONTINUE, &[path], content.as_bytes()).0, 0);
            assert_eq!(shell(CONTINUE, &[path], b" '$x`\n").0, 0);
            assert_eq!(shell(FINISH, &[path, "0640", &owner], b"").0, 0);
            let (status, output) = shell(READ, &[path], b"");
            assert_eq!(status, 0);
            assert_eq!(output, format!("{content} '$x`\n").into_bytes());
        }
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let left: Vec<_> = std::fs::read_dir(directory.path().join("some/where"))
            .unwrap()
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_word_is_one_word_whatever_is_in_it() {
        for word in ["", "a b", "it's", "$HOME `id` \\ \" *", "--"] {
            let (_, output) = shell(&format!("printf %s {}", quoted(word)), &[], b"");
            assert_eq!(output, word.as_bytes());
        }
    }
}
