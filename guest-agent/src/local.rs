//! The agent's own socket in the guest, `/run/virt-persona-agent/agent.sock`: root says there that the guest is in need, has it go
//! back to an earlier generation or be otherwise than the persona says, and users ask for another persona. Here is the agent's
//! end, and the client's for `virt-persona-agent need`, `rollback` and `customize`; that of the other questions is the program
//! `virt-persona-switch`. The channel waits on the socket and on each client. Everybody may connect; who may ask what is looked at
//! by what the kernel says of the client, and for a switch once more by the disk thread ([`crate::users`]).

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

use agent_protocol::{
    Asked, Need,
    local::{LOCAL_SOCKET, LocalAnswer, LocalCode, LocalNo, LocalRequest},
    message::clean_text,
};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use serde::{Deserialize, Serialize};

use crate::{customize::Ask, log::log};

/// Longest line of a client.
const LINE_MAX: usize = 8 * 1024;
/// Begins the answer to what was done and has something to say.
const DONE: char = '+';
/// How long a client waits for the agent, which answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at a time.
const CLIENTS_MAX: usize = 16;
/// Of them those of one user who is not root, so that one leaves room for others.
const CLIENTS_OF_ONE: usize = 4;
/// Reads from one of them, before others have their turn.
const READS_IN_TURN: usize = 16;

/// A need or a return that could not be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error("cannot reach the agent at {path:?}; it has to run")]
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

/// Which client: a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientId(pub(crate) u64);

/// Who a client is, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Peer {
    /// Root, or whoever the agent itself runs as, as it does in a test.
    pub(crate) fn is_owner(self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }
}

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The host shall be told that memory is needed.
    Need(Need, Peer),
    /// The guest shall be what it was in an earlier generation.
    Rollback(RollbackAsk, Peer),
    /// Something shall be otherwise than the persona says, or no longer.
    Customize(Ask, Peer),
    /// What the agent knows.
    Status,
    /// The host shall be asked about personas.
    Ask(Asked, Peer),
}

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Local {
    listener: UnixListener,
    clients: Vec<Client>,
    next: u64,
}

/// Which generation to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackAsk {
    /// Absent: the one before what holds.
    pub(crate) to: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackLine {
    rollback: RollbackAsk,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomizeLine {
    customize: Ask,
}

/// Somebody on the socket.
#[derive(Debug)]
pub(crate) struct Client {
    id: ClientId,
    peer: Peer,
    stream: UnixStream,
    line: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not said all of it.
    Listening,
    /// It waits for answers.
    Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    There,
    Gone,
}

impl Local {
    /// Listens.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join(LOCAL_SOCKET);
        if let Some(directory) = path.parent() {
            // Users pass here on the way to their scripts and to the socket; they must not look.
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(directory)?;
        }
        // A socket that an earlier run left behind would refuse the bind.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        // Who may ask what is looked at for each client, so that the answer can say why not.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: Vec::new(),
            next: 0,
        })
    }

    /// Takes the next client; its stream is to be waited on. `None` when nobody waits.
    pub(crate) fn accept(&mut self) -> Option<(ClientId, BorrowedFd<'_>)> {
        loop {
            let (stream, _) = self.listener.accept().ok()?;
            let Ok(peer) = getsockopt(&stream, PeerCredentials) else {
                continue;
            };
            let peer = Peer {
                uid: peer.uid(),
                gid: peer.gid(),
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next += 1;
            let client = Client {
                id: ClientId(self.next),
                peer,
                stream,
                line: Vec::new(),
                stage: Stage::Listening,
            };
            if !self.make_room(peer) {
                let reason = "too many programs ask the agent at the same time";
                client.refuse(LocalCode::TooSoon, reason);
                continue;
            }
            self.clients.push(client);
            // It was pushed just now.
            let client = self.clients.last()?;
            return Some((client.id, client.stream.as_fd()));
        }
    }

    /// A new client takes the place of one that says nothing: of the same user, or of anybody where all places are taken.
    fn make_room(&mut self, peer: Peer) -> bool {
        let own = |client: &Client| client.peer.uid == peer.uid;
        let crowded = !peer.is_owner()
            && self.clients.iter().filter(|client| own(client)).count() >= CLIENTS_OF_ONE;
        if !crowded && self.clients.len() < CLIENTS_MAX {
            return true;
        }
        let silent = self
            .clients
            .iter()
            .position(|client| client.stage == Stage::Listening && (!crowded || own(client)));
        match silent {
            Some(index) => {
                self.clients.remove(index);
                true
            }
            None => false,
        }
    }

    /// What a client asks, once it has said all of it. One that says what cannot be, or has gone, is let go.
    pub(crate) fn take(&mut self, id: ClientId) -> Option<Heard> {
        let client = self.clients.iter_mut().find(|client| client.id == id)?;
        let presence = client.read();
        if client.stage == Stage::Asking {
            if presence == Presence::Gone {
                self.let_go(id);
            }
            return None;
        }
        let whole = client.line.contains(&b'\n') || client.line.len() > LINE_MAX;
        if !whole && presence == Presence::There {
            return None;
        }
        let heard = client.heard();
        client.stage = Stage::Asking;
        if heard.is_none() {
            let reason = "what was asked cannot be understood";
            self.refuse(id, LocalCode::Malformed, reason);
        }
        heard
    }

    /// Whether a client is still there and waits.
    pub(crate) fn waits(&self, id: ClientId) -> bool {
        self.clients.iter().any(|client| client.id == id)
    }

    /// Answers a need or a return, with nothing for "done", and lets the client go.
    pub(crate) fn answer(&mut self, id: ClientId, refusal: &str) {
        if let Some(client) = self.release(id) {
            client.answer(refusal);
        }
    }

    /// Tells a client something; after the last answer it is let go.
    pub(crate) fn tell(&mut self, id: ClientId, answer: &LocalAnswer) {
        match serde_json::to_vec(answer) {
            Ok(mut line) => {
                line.push(b'\n');
                if !self.write(id, &line) || answer.is_last() {
                    self.let_go(id);
                }
            }
            Err(error) => {
                log!("cannot answer on the agent's own socket: {error}");
                self.let_go(id);
            }
        }
    }

    /// Hands a client over to whoever answers it later ([`Client::tell`]).
    pub(crate) fn release(&mut self, id: ClientId) -> Option<Client> {
        let index = self.clients.iter().position(|client| client.id == id)?;
        Some(self.clients.remove(index))
    }

    /// Tells a client why it is not served, and lets it go.
    pub(crate) fn refuse(&mut self, id: ClientId, code: LocalCode, reason: &str) {
        self.tell(id, &no(code, reason));
    }

    fn write(&mut self, id: ClientId, line: &[u8]) -> bool {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return false;
        };
        // An answer fits any socket's buffer; who does not read what came before is let go.
        client.stream.write_all(line).is_ok()
    }

    fn let_go(&mut self, id: ClientId) {
        self.clients.retain(|client| client.id != id);
    }
}

impl Client {
    /// Reads what there is. What comes after the question is nothing, and who goes on sending it is as good as gone.
    fn read(&mut self) -> Presence {
        let mut buffer = [0; LINE_MAX];
        for _ in 0..READS_IN_TURN {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Presence::Gone,
                Ok(length) => {
                    if self.line.len() <= LINE_MAX {
                        self.line.extend_from_slice(&buffer[..length]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Presence::There,
                Err(_) => return Presence::Gone,
            }
        }
        Presence::Gone
    }

    fn heard(&self) -> Option<Heard> {
        let line = self.line.strip_suffix(b"\n")?;
        if let Ok(request) = serde_json::from_slice::<LocalRequest>(line) {
            return Some(match request {
                LocalRequest::Status => Heard::Status,
                LocalRequest::Personas => Heard::Ask(Asked::Offers, self.peer),
                LocalRequest::Switch { persona } => {
                    Heard::Ask(Asked::Switch { persona }, self.peer)
                }
            });
        }
        if let Ok(RollbackLine { rollback }) = serde_json::from_slice(line) {
            return Some(Heard::Rollback(rollback, self.peer));
        }
        if let Ok(CustomizeLine { customize }) = serde_json::from_slice(line) {
            return Some(Heard::Customize(customize, self.peer));
        }
        let need = serde_json::from_slice::<Need>(line).ok()?;
        let need = need.check().ok()?;
        Some(Heard::Need(need, self.peer))
    }

    /// Says why it is not taken.
    fn refuse(mut self, code: LocalCode, reason: &str) {
        if let Ok(mut line) = serde_json::to_vec(&no(code, reason)) {
            line.push(b'\n');
            // One that has gone needs no answer.
            let _ = self.stream.write_all(&line);
        }
    }

    fn answer(mut self, line: &str) {
        // A line fits any socket's buffer. One that has gone needs no answer, and users shall not fill the log by going.
        let _ = self.stream.write_all(format!("{line}\n").as_bytes());
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

/// The agent's own "no".
pub(crate) fn no(code: LocalCode, reason: &str) -> LocalAnswer {
    LocalAnswer::No(LocalNo {
        code,
        reason: reason.to_owned(),
    })
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
    ask(root, &RollbackLine { rollback }, None)
}

/// The client's end: has something otherwise than the persona says; what holds then. It takes as long as it takes.
pub(crate) fn customize(root: &Path, customize: Ask) -> Result<String, LocalError> {
    ask(root, &CustomizeLine { customize }, None)
}

fn ask(
    root: &Path,
    what: &impl Serialize,
    patience: Option<Duration>,
) -> Result<String, LocalError> {
    let path = root.join(LOCAL_SOCKET);
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
            None => Err(LocalError::Refused(refusal(said))),
        },
        None => Err(LocalError::NoAnswer(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The reason in an agent's "no". Before it knows what a client asks, the agent says it as [`LocalAnswer`].
fn refusal(said: &str) -> String {
    match serde_json::from_str(said) {
        Ok(LocalAnswer::No(no)) => no.reason,
        _ => said.to_owned(),
    }
}
