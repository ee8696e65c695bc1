//! The agent's own socket in the guest, `/run/virt-persona-agent/agent.sock`: root says there that the guest is in need, or
//! has it go back to an earlier generation. Both
//! ends are here; the channel waits on the agent's end and `main` uses the other. One client is served at a time, and a new
//! one takes the place of one that says nothing.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{DirBuilderExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::{Need, message::clean_text};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use serde::{Deserialize, Serialize};

use crate::log::log;

/// Where the socket is, under the root.
const SOCKET: &str = "run/virt-persona-agent/agent.sock";
/// Longest line of a client.
const LINE_MAX: usize = 1024;
/// Begins the answer to what was done and has something to say.
const DONE: char = '+';
/// How long a client waits for the agent, which answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A need that could not be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error("cannot reach the agent at {path:?}; it has to run, and only root may ask")]
    Reach {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent did not answer")]
    NoAnswer(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Local {
    listener: UnixListener,
    client: Option<Client>,
}

/// What root asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The host shall be told that memory is needed.
    Need(Need),
    /// The guest shall be what it was in an earlier generation.
    Rollback(RollbackAsk),
}

/// Which generation to go back to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackAsk {
    /// Absent: the one before what holds.
    pub(crate) to: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    rollback: RollbackAsk,
}

/// Somebody on the socket.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Local {
    /// Listens.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join(SOCKET);
        if let Some(directory) = path.parent() {
            // Users pass here on the way to their scripts; they must not look.
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(directory)?;
        }
        // A socket that an earlier run left behind would refuse the bind.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            client: None,
        })
    }

    /// Takes the next client; its stream is to be waited on. `None` when nobody waits.
    pub(crate) fn accept(&mut self) -> Option<BorrowedFd<'_>> {
        loop {
            let (stream, _) = self.listener.accept().ok()?;
            let peer = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid());
            let allowed = peer.is_ok_and(|uid| uid == 0 || uid == geteuid().as_raw());
            if !allowed || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let client = self.client.insert(Client {
                stream,
                line: Vec::new(),
            });
            return Some(client.stream.as_fd());
        }
    }

    /// What the client says, once it has said all of it. A client that says what cannot be is let go.
    pub(crate) fn take(&mut self) -> Option<Asked> {
        let client = self.client.as_mut()?;
        let mut buffer = [0; LINE_MAX];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => client.line.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if client.line.len() <= LINE_MAX && !client.line.contains(&b'\n') {
                        return None;
                    }
                    break;
                }
                Err(_) => break,
            }
            if client.line.len() > LINE_MAX {
                break;
            }
        }
        let asked = client.line.strip_suffix(b"\n").and_then(Asked::read);
        if asked.is_none() {
            self.answer("what was asked cannot be understood");
        }
        asked
    }

    /// Hands the client over to whoever answers it later ([`Client::answer`]).
    pub(crate) fn release(&mut self) -> Option<Client> {
        self.client.take()
    }

    /// Answers the client, with nothing for "done", and lets it go.
    pub(crate) fn answer(&mut self, refusal: &str) {
        if let Some(client) = self.client.take() {
            client.answer(refusal);
        }
    }
}

impl Client {
    /// Answers with one line and lets the client go.
    pub(crate) fn answer(mut self, line: &str) {
        // A line fits any socket's buffer; a client that has gone needs no answer.
        if let Err(error) = self.stream.write_all(format!("{line}\n").as_bytes()) {
            log!("cannot answer on the agent's own socket: {error}");
        }
    }

    /// Answers with what came of something that took its time; a line of success begins with [`DONE`].
    pub(crate) fn tell(self, came: Result<String, String>) {
        let line = match came {
            Ok(said) => format!("{DONE}{said}"),
            Err(refusal) => refusal,
        };
        self.answer(&clean_text(&line, LINE_MAX / 2).replace('\n', " "));
    }
}

impl Asked {
    fn read(line: &[u8]) -> Option<Self> {
        if let Ok(Told { rollback }) = serde_json::from_slice(line) {
            return Some(Self::Rollback(rollback));
        }
        let need = serde_json::from_slice::<Need>(line).ok()?;
        Some(Self::Need(need.check().ok()?))
    }
}

impl AsFd for Local {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The client's end: tells the agent of this guest that memory is needed.
pub(crate) fn tell_need(root: &Path, need: &Need) -> Result<(), LocalError> {
    ask(root, need, Some(PATIENCE)).map(drop)
}

/// The client's end: has the guest go back to an earlier generation; what holds then. It takes as long as it takes.
pub(crate) fn roll_back(root: &Path, to: Option<u64>) -> Result<String, LocalError> {
    let rollback = RollbackAsk { to };
    ask(root, &Told { rollback }, None)
}

fn ask(
    root: &Path,
    what: &impl Serialize,
    patience: Option<Duration>,
) -> Result<String, LocalError> {
    let path = root.join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|source| LocalError::Reach {
        path: path.clone(),
        source,
    })?;
    let mut line =
        serde_json::to_vec(what).map_err(|error| LocalError::NoAnswer(io::Error::other(error)))?;
    line.push(b'\n');
    let mut answer = String::new();
    stream
        .set_read_timeout(patience)
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| stream.take(LINE_MAX as u64).read_to_string(&mut answer))
        .map_err(LocalError::NoAnswer)?;
    match answer.strip_suffix('\n') {
        Some("") => Ok(String::new()),
        Some(said) => match said.strip_prefix(DONE) {
            Some(said) => Ok(said.to_owned()),
            None => Err(LocalError::Refused(said.to_owned())),
        },
        None => Err(LocalError::NoAnswer(io::ErrorKind::UnexpectedEof.into())),
    }
}
