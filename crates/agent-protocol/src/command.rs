//! Commands that the host asks for outside any persona's scripts: the persona's table that each of them goes through, the
//! request, its output in pieces and its end. The agent resolves and runs; nothing here does.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    activation::{is_variable_name, is_variable_value},
    identity::RequestId,
    limits::{
        COMMAND_NAME_MAX, COMMAND_PATH_MAX, COMMAND_TEXT_MAX, COMMAND_WORDS_MAX, NAME_MAX,
        OUTPUT_RAW_MAX, SCRIPT_TIMEOUT_MAX_MS, TABLE_COMMANDS_MAX,
    },
};

/// What the agent's feature list says when it runs commands.
pub const COMMANDS_FEATURE: &str = "commands";

/// What a persona says of commands, by name. It goes with the activation and holds as long as the persona is active.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTable {
    /// Commands in whose place another program runs: name to absolute path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, String>,
    /// Commands that are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restricted: Vec<String>,
}

/// A table that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableRefusal {
    /// Too many entries.
    #[error("{count} commands in one list are more than {TABLE_COMMANDS_MAX}")]
    TooMany {
        /// How many were sent.
        count: usize,
    },
    /// A name with a slash or white space, or none.
    #[error(
        "command {index} of `{list}` (counted from 1) must be a name of 1 to {COMMAND_NAME_MAX} bytes without `/` and white space"
    )]
    Name {
        /// `overrides` or `restricted`.
        list: &'static str,
        /// Its position.
        index: usize,
    },
    /// What runs instead is no absolute path.
    #[error(
        "what runs in the place of `{name}` must be an absolute path of at most {COMMAND_PATH_MAX} bytes"
    )]
    Path {
        /// The command.
        name: String,
    },
}

impl CommandTable {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.overrides.is_empty() && self.restricted.is_empty()
    }

    /// Bytes of its names and paths.
    pub(crate) fn text_bytes(&self) -> usize {
        let overrides = self
            .overrides
            .iter()
            .map(|(name, path)| name.len() + path.len());
        overrides.sum::<usize>() + self.restricted.iter().map(String::len).sum::<usize>()
    }

    /// Whether it can be held.
    ///
    /// # Errors
    /// The first [`TableRefusal`].
    pub fn check(&self) -> Result<(), TableRefusal> {
        for count in [self.overrides.len(), self.restricted.len()] {
            if count > TABLE_COMMANDS_MAX {
                return Err(TableRefusal::TooMany { count });
            }
        }
        for (index, (name, path)) in self.overrides.iter().enumerate() {
            check_name("overrides", index, name)?;
            let plain = path.starts_with('/')
                && path.len() <= COMMAND_PATH_MAX
                && !path.chars().any(char::is_control);
            if !plain {
                return Err(TableRefusal::Path { name: name.clone() });
            }
        }
        for (index, name) in self.restricted.iter().enumerate() {
            check_name("restricted", index, name)?;
        }
        Ok(())
    }
}

fn check_name(list: &'static str, index: usize, name: &str) -> Result<(), TableRefusal> {
    let plain = (1..=COMMAND_NAME_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if plain {
        Ok(())
    } else {
        Err(TableRefusal::Name {
            list,
            index: index + 1,
        })
    }
}

/// One command to run: arguments of the operation `exec`. No shell is between: the words are the program's own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program, by name or absolute path, and its arguments.
    pub argv: Vec<String>,
    /// The user that it runs as.
    pub user: String,
    /// The directory that it runs in.
    #[serde(default = "top")]
    pub cwd: String,
    /// Time until all its processes are stopped, in milliseconds.
    pub timeout_ms: u64,
    /// Variables over those of the persona.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Values of variables can be private, so that a log gets their names alone.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("argv", &self.argv)
            .field("user", &self.user)
            .field("cwd", &self.cwd)
            .field("timeout_ms", &self.timeout_ms)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn top() -> String {
    "/".to_owned()
}

/// Why a command is not attempted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// The program is neither a name nor an absolute path.
    #[error(
        "the program must be a name, looked up in the guest's standard directories, or an absolute path"
    )]
    Program,
    /// Too many words.
    #[error("a command has 1 to {COMMAND_WORDS_MAX} words, not {count}")]
    Words {
        /// How many were sent.
        count: usize,
    },
    /// A word or a value with a zero byte.
    #[error("a word of the command or its directory holds a zero byte")]
    ZeroByte,
    /// The user's name is empty, long, or holds control characters.
    #[error("the user must be 1 to {NAME_MAX} bytes without control characters")]
    User,
    /// The directory is no absolute path.
    #[error(
        "the directory of the command must be an absolute path of at most {COMMAND_PATH_MAX} bytes"
    )]
    Directory,
    /// The time-out is zero or too long.
    #[error(
        "the time-out of the command must be 1 to {SCRIPT_TIMEOUT_MAX_MS} milliseconds, it is {timeout_ms}"
    )]
    Timeout {
        /// The refused value.
        timeout_ms: u64,
    },
    /// A variable that cannot be.
    #[error(
        "variable {index} of the command (counted from 1) has no valid name, or a value that is too long or holds control characters"
    )]
    Variable {
        /// Position in alphabetical order.
        index: usize,
    },
    /// Words and variables are too large.
    #[error("words and variables of the command are {bytes} bytes, more than {COMMAND_TEXT_MAX}")]
    TooLarge {
        /// Their size.
        bytes: usize,
    },
}

impl Command {
    /// Whether this can be attempted. The host calls it before sending, the agent before doing.
    ///
    /// # Errors
    /// The first [`CommandRefusal`] in the order of the fields.
    pub fn check(&self) -> Result<(), CommandRefusal> {
        let count = self.argv.len();
        let Some(program) = self.argv.first().filter(|_| count <= COMMAND_WORDS_MAX) else {
            return Err(CommandRefusal::Words { count });
        };
        let named = !program.contains('/') && !matches!(program.as_str(), "" | "." | "..");
        if !named && !program.starts_with('/') || program.len() > COMMAND_PATH_MAX {
            return Err(CommandRefusal::Program);
        }
        if self.argv.iter().any(|word| word.contains('\0')) || self.cwd.contains('\0') {
            return Err(CommandRefusal::ZeroByte);
        }
        if !(1..=NAME_MAX).contains(&self.user.len()) || self.user.chars().any(char::is_control) {
            return Err(CommandRefusal::User);
        }
        if !self.cwd.starts_with('/') || self.cwd.len() > COMMAND_PATH_MAX {
            return Err(CommandRefusal::Directory);
        }
        if self.timeout_ms == 0 || self.timeout_ms > SCRIPT_TIMEOUT_MAX_MS {
            return Err(CommandRefusal::Timeout {
                timeout_ms: self.timeout_ms,
            });
        }
        for (index, (name, value)) in self.env.iter().enumerate() {
            if !is_variable_name(name) || !is_variable_value(value) {
                return Err(CommandRefusal::Variable { index: index + 1 });
            }
        }
        let words = self.argv.iter().map(String::len).sum::<usize>();
        let variables = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let bytes = words + variables.sum::<usize>();
        if bytes > COMMAND_TEXT_MAX {
            return Err(CommandRefusal::TooLarge { bytes });
        }
        Ok(())
    }
}

/// Where output was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a running command's output. Pieces of one stream come in order; one that is lost with its session is not sent
/// again, which their offsets show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The request.
    pub re: RequestId,
    /// Where it was written to.
    pub stream: Stream,
    /// Bytes of this stream before it.
    pub off: u64,
    /// The piece in base64 (RFC 4648, with padding).
    pub b64: String,
}

impl Output {
    /// A piece of at most [`OUTPUT_RAW_MAX`] bytes.
    #[must_use]
    pub fn new(re: RequestId, stream: Stream, off: u64, bytes: &[u8]) -> Self {
        let b64 = Self::encode(bytes);
        Self {
            re,
            stream,
            off,
            b64,
        }
    }

    /// Bytes in base64, as a piece has them.
    #[must_use]
    pub fn encode(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    /// The bytes; `None` where they are none, too many, or no base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        output_bytes(&self.b64)
    }
}

/// The bytes of a piece; `None` where they are none, too many, or no base64.
#[must_use]
pub fn output_bytes(b64: &str) -> Option<Vec<u8>> {
    // Four characters are three bytes.
    if b64.len() > OUTPUT_RAW_MAX.div_ceil(3) * 4 {
        return None;
    }
    let bytes = STANDARD.decode(b64).ok()?;
    (1..=OUTPUT_RAW_MAX).contains(&bytes.len()).then_some(bytes)
}

/// What held a command's processes together, so that all of them could be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// A control group of its own.
    ControlGroup,
    /// Its process group alone, which a process can leave.
    ProcessGroup,
    /// Something of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// The answer to a command that ran. Its output went before, in [`Output`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReply {
    /// Exit status, absent when it ended by a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether it was stopped for taking too long.
    #[serde(default)]
    pub timed_out: bool,
    /// How long it ran, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// The file that ran.
    pub program: String,
    /// Whether the persona had another program run than the one that was asked for.
    #[serde(default)]
    pub overridden: bool,
    /// Bytes of standard output that were sent.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// Bytes of standard error that were sent.
    #[serde(default)]
    pub stderr_bytes: u64,
    /// Whether output beyond the cap was thrown away.
    #[serde(default)]
    pub truncated: bool,
    /// What held its processes together.
    pub confinement: Confinement,
    /// What else a person should know, each a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> Command {
        Command {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            user: "nobody".to_owned(),
            cwd: top(),
            timeout_ms: 1,
            env: BTreeMap::new(),
        }
    }

    fn refused(change: impl FnOnce(&mut Command)) -> CommandRefusal {
        let mut command = command(&["true"]);
        change(&mut command);
        command.check().unwrap_err()
    }

    #[test]
    fn a_name_and_an_absolute_path_pass_and_each_broken_rule_has_its_own_refusal() {
        assert_eq!(command(&["ls", "a/b", ""]).check(), Ok(()));
        assert_eq!(command(&["/bin/ls"]).check(), Ok(()));
        for program in ["./ls", "bin/ls", "", ".."] {
            assert_eq!(command(&[program]).check(), Err(CommandRefusal::Program));
        }
        assert_eq!(
            refused(|c| c.argv.clear()),
            CommandRefusal::Words { count: 0 }
        );
        assert_eq!(
            refused(|c| c.argv.push("a\0".to_owned())),
            CommandRefusal::ZeroByte
        );
        assert_eq!(refused(|c| c.user.clear()), CommandRefusal::User);
        assert_eq!(
            refused(|c| c.cwd = "tmp".to_owned()),
            CommandRefusal::Directory
        );
        assert_eq!(
            refused(|c| c.timeout_ms = 0),
            CommandRefusal::Timeout { timeout_ms: 0 }
        );
        assert_eq!(
            refused(|c| drop(c.env.insert("A B".to_owned(), String::new()))),
            CommandRefusal::Variable { index: 1 }
        );
        let long = "x".repeat(COMMAND_TEXT_MAX);
        assert!(matches!(
            refused(|c| c.argv.push(long)),
            CommandRefusal::TooLarge { .. }
        ));
    }

    #[test]
    fn a_table_has_names_and_absolute_paths() {
        let table = |name: &str, path: &str, restricted: &str| CommandTable {
            overrides: [(name.to_owned(), path.to_owned())].into(),
            restricted: vec![restricted.to_owned()],
        };
        assert_eq!(table("deploy", "/opt/deploy", "nc").check(), Ok(()));
        assert!(matches!(
            table("a/b", "/x", "nc").check(),
            Err(TableRefusal::Name { index: 1, .. })
        ));
        assert!(matches!(
            table("a", "x", "nc").check(),
            Err(TableRefusal::Path { .. })
        ));
        assert!(matches!(
            table("a", "/x", "n c").check(),
            Err(TableRefusal::Name { .. })
        ));
    }

    #[test]
    fn what_is_written_of_a_command_has_no_value_of_a_variable() {
        let mut command = command(&["true"]);
        command.env.insert("TOKEN".to_owned(), "hidden".to_owned());
        let text = format!("{command:?}");
        assert!(text.contains("TOKEN") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_piece_of_output_is_bounded() {
        let id = RequestId::new("r").unwrap();
        let piece = |bytes: &[u8]| Output::new(id.clone(), Stream::Stdout, 0, bytes).bytes();
        assert_eq!(piece(b"\0\xff"), Some(b"\0\xff".to_vec()));
        assert_eq!(piece(&[7; OUTPUT_RAW_MAX]).unwrap().len(), OUTPUT_RAW_MAX);
        assert_eq!(piece(b""), None);
        assert_eq!(piece(&[7; OUTPUT_RAW_MAX + 1]), None);
    }
}
