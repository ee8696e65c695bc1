//! The virtio-serial port: one thread, one descriptor, edge-triggered epoll.
//!
//! A port without a host is permanently hung up and readable, so anything level-triggered would spin; with edges the
//! thread sleeps until a host comes, speaks or goes. The port is opened once and kept: a second open is refused by the
//! kernel (EBUSY), and closing it would lose what the host has sent.
//!
//! The first bytes of a host can be there before the kernel counts it as connected: until then a read gives them and then
//! says "end of file", and a write says "would block". So an end of file alone says nothing; only a hang-up after a
//! connection was seen means that a host has gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::session::Session;

/// How often it looks for a port that is not there yet.
const SEARCH: Duration = Duration::from_millis(200);
/// Replies that the host does not take before no more requests are read.
const MAX_UNSENT: usize = 256 << 10;

/// Why the port can no longer be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// The device cannot be opened.
    #[error("cannot open {path:?}")]
    Open {
        /// The device.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// epoll is refused.
    #[error("cannot wait for the port")]
    Wait(#[source] nix::Error),
    /// The device is gone or broken.
    #[error("the port failed")]
    Io(#[source] io::Error),
}

/// Serves the port of this name until it fails, and says why it did.
pub(crate) fn serve(name: &str, session: &mut Session) -> PortError {
    let path = wait_for(name);
    match open_and_serve(path, session) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn open_and_serve(
    path: PathBuf,
    session: &mut Session,
) -> Result<std::convert::Infallible, PortError> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits())
        .open(&path)
        .map_err(|source| PortError::Open { path, source })?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(PortError::Wait)?;
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll
        .add(&port, EpollEvent::new(edges, 0))
        .map_err(PortError::Wait)?;
    let mut unsent = Vec::new();
    let mut connected = false;
    loop {
        let mut events = [EpollEvent::empty()];
        match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(PortError::Wait(error)),
        }
        let hung_up = events[0].events().contains(EpollFlags::EPOLLHUP);
        if hung_up && connected {
            // What it had begun to say, and what it would have been told, is void.
            session.host_gone();
            unsent.clear();
        }
        connected = !hung_up;
        // An edge tells only that something changed, so all that can be done is done before the next wait.
        while turn(&port, session, &mut unsent)? {}
    }
}

/// Reads what there is and writes what can be written; `false` when neither moved anything.
fn turn(mut port: &File, session: &mut Session, unsent: &mut Vec<u8>) -> Result<bool, PortError> {
    let mut moved = false;
    while unsent.len() < MAX_UNSENT {
        let mut bytes = [0; 4096];
        match port.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => {
                session.receive(&bytes[..count], unsent);
                moved = true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(PortError::Io(error)),
        }
    }
    while !unsent.is_empty() {
        match port.write(unsent) {
            Ok(0) => break,
            Ok(count) => {
                unsent.drain(..count);
                moved = true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(PortError::Io(error)),
        }
    }
    Ok(moved)
}

/// Waits until the kernel shows a port of this name, and gives its device. There may be no udev that makes links.
fn wait_for(name: &str) -> PathBuf {
    loop {
        if let Some(path) = find(name) {
            return path;
        }
        std::thread::sleep(SEARCH);
    }
}

fn find(name: &str) -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let found = fs::read_to_string(entry.path().join("name")).ok()?;
            (found.trim_end() == name).then(|| PathBuf::from("/dev").join(entry.file_name()))
        })
}
