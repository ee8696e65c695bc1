//! The agent's own socket in the guest, `/run/virt-persona-agent/agent.sock`: root says there that the guest is in need. Both
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

use agent_protocol::Need;
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

use crate::log::log;

/// Where the socket is, under the root.
const SOCKET: &str = "run/virt-persona-agent/agent.sock";
/// Longest line of a client.
const LINE_MAX: usize = 1024;
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

#[derive(Debug)]
struct Client {
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
    pub(crate) fn take(&mut self) -> Option<Need> {
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
        let need = client
            .line
            .strip_suffix(b"\n")
            .and_then(|line| serde_json::from_slice::<Need>(line).ok())
            .and_then(|need| need.check().ok());
        if need.is_none() {
            self.answer("what was asked cannot be understood");
        }
        need
    }

    /// Answers the client, with nothing for "done", and lets it go.
    pub(crate) fn answer(&mut self, refusal: &str) {
        if let Some(mut client) = self.client.take()
            // A line fits any socket's buffer; a client that has gone needs no answer.
            && let Err(error) = client.stream.write_all(format!("{refusal}\n").as_bytes())
        {
            log!("cannot answer on the agent's own socket: {error}");
        }
    }
}

impl AsFd for Local {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The client's end: tells the agent of this guest that memory is needed.
pub(crate) fn tell_need(root: &Path, need: &Need) -> Result<(), LocalError> {
    let path = root.join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|source| LocalError::Reach {
        path: path.clone(),
        source,
    })?;
    let mut line =
        serde_json::to_vec(need).map_err(|error| LocalError::NoAnswer(io::Error::other(error)))?;
    line.push(b'\n');
    let mut answer = String::new();
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| stream.take(LINE_MAX as u64).read_to_string(&mut answer))
        .map_err(LocalError::NoAnswer)?;
    match answer.strip_suffix('\n') {
        Some("") => Ok(()),
        Some(refusal) => Err(LocalError::Refused(refusal.to_owned())),
        None => Err(LocalError::NoAnswer(io::ErrorKind::UnexpectedEof.into())),
    }
}
