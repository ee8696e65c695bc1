//! What applications of the guest say about themselves: lines on a socket (`inlet`, `line`), kept as figures (`table`), and
//! taken along by reports. The channel listens only while the host wants them, so an agent without a host has no socket
//! and does not wake; [`emit`] is the other end, the command line's.

mod inlet;
mod line;
mod table;

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_protocol::AppFigure;

use crate::{
    log::log,
    policy::{Emitters, Leave},
    telemetry::boot_time,
    users::find_user,
};
use inlet::{DATAGRAM_MAX, Inlet, SOCKET};
use line::LineError;
use table::Table;

/// Datagrams that are read in [`PAUSE`], at most; then their senders wait. It bounds what a flood costs the guest.
const DATAGRAMS: u32 = 512;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the command line waits for an agent that is busy with others.
const PATIENCE: Duration = Duration::from_secs(5);
/// Refused lines of which the log has the reason; the next ones are like them.
const LOGGED: u32 = 5;

/// Who may say figures.
#[derive(Debug)]
enum Allowed {
    Nobody,
    Everybody,
    /// These, and root.
    Users(Vec<u32>),
}

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Applications {
    root: PathBuf,
    allowed: Allowed,
    table: Table,
    inlet: Option<Inlet>,
    /// The socket could not be made; it is not tried again while the host wants it.
    failed: bool,
    window: (Option<Instant>, u32),
    logged: u32,
    /// Something was said since it was last asked.
    news: bool,
}

/// Whether there is more to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    All,
    /// Enough for now; the rest waits until then.
    Enough(Instant),
}

impl Applications {
    /// Listens to nobody yet. Users that the owner's policy names and the guest does not have are left out.
    pub(crate) fn new(root: &Path, emitters: &Emitters) -> Self {
        let allowed = match emitters {
            Emitters::All(Leave::Denied) => Allowed::Nobody,
            Emitters::All(Leave::Granted) => Allowed::Everybody,
            Emitters::These(names) => {
                let found = names.iter().filter_map(|name| {
                    find_user(root, name)
                        .inspect_err(|error| log!("{error}; it cannot say figures"))
                        .ok()
                });
                Allowed::Users(found.map(|user| user.credentials.uid.as_raw()).collect())
            }
        };
        Self {
            root: root.to_owned(),
            allowed,
            table: Table::default(),
            inlet: None,
            failed: false,
            window: (None, 0),
            logged: 0,
            news: false,
        }
    }

    /// Begins to listen, if it does not; the socket is to be waited on.
    pub(crate) fn listen(&mut self) -> Option<BorrowedFd<'_>> {
        if self.inlet.is_some() || self.failed || matches!(self.allowed, Allowed::Nobody) {
            return None;
        }
        match Inlet::open(&self.root) {
            Ok(inlet) => {
                let inlet: &Inlet = self.inlet.insert(inlet);
                Some(inlet.as_fd())
            }
            Err(error) => {
                log!("applications cannot say figures: {error}");
                self.failed = true;
                None
            }
        }
    }

    /// Listens no more. What was counted is kept, since counters only grow.
    pub(crate) fn close(&mut self) {
        self.inlet = None;
        self.failed = false;
    }

    /// The socket, while it is there.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.inlet.as_ref().map(|inlet| inlet.as_fd())
    }

    /// Takes what was said.
    pub(crate) fn hear(&mut self, now: Instant) -> Heard {
        let Some(inlet) = &mut self.inlet else {
            return Heard::All;
        };
        let (began, read) = match self.window {
            (Some(began), read) if now < began + PAUSE => (began, read),
            _ => (now, 0),
        };
        self.window = (Some(began), read);
        let time = boot_time();
        loop {
            if self.window.1 >= DATAGRAMS {
                return Heard::Enough(began + PAUSE);
            }
            let Some((user, text)) = inlet.next() else {
                return Heard::All;
            };
            self.window.1 += 1;
            let may = match &self.allowed {
                Allowed::Nobody => false,
                Allowed::Everybody => true,
                Allowed::Users(users) => user == 0 || users.contains(&user),
            };
            if !may {
                continue;
            }
            for said in text.lines().filter(|said| !said.trim().is_empty()) {
                let taken = line::parse(said)
                    .map_err(|error| error.to_string())
                    .and_then(|(name, change)| {
                        let taken = self.table.take(user, name, change, time);
                        taken.map_err(|error| error.to_string())
                    });
                self.news |= taken.is_ok();
                if let Err(why) = taken
                    && self.logged < LOGGED
                {
                    self.logged += 1;
                    log!("a figure of user {user} does not count: {why}");
                }
            }
        }
    }

    /// Whether anything was said since this was last asked.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// What the next report says of them; `interval` is the time between two reports.
    pub(crate) fn figures(&mut self, interval: Duration) -> Vec<AppFigure> {
        self.table.figures(boot_time(), interval)
    }
}

/// Figures that could not be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmitError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(
        "nobody takes figures at {path:?}; the agent listens while the host wants them, which the persona decides"
    )]
    Nobody {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Says figures to the agent of this guest, each word a line.
pub(crate) fn emit(root: &Path, lines: &[String]) -> Result<(), EmitError> {
    for said in lines {
        line::parse(said)?;
    }
    let path = root.join(SOCKET);
    let send = |text: &str| {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to(text.as_bytes(), &path)
    };
    let all = lines.join("\n");
    let sent = if all.len() <= DATAGRAM_MAX {
        send(&all).map(drop)
    } else {
        lines.iter().try_for_each(|said| send(said).map(drop))
    };
    sent.map_err(|source| EmitError::Nobody { path, source })
}
