//! The port itself, or the socket in its place: opened, attached, read and written until it would wait, and lost. What is said on
//! it is `conversation`'s, when it is looked at the loop's in `mod`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::Instant,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::epoll::EpollFlags,
};

use super::{Channel, ChannelError, LISTENER, PORT};
use crate::{
    args::{PORT_NAME, Transport},
    log::log,
    sys,
};

/// What the port hands out in one read.
const READ_SIZE: usize = 4096;

/// The open port, or the socket in its place.
pub(super) struct Port {
    pub(super) file: File,
    /// Whether the host is there.
    pub(super) up: bool,
    /// The frame that is being written, and how much of it has gone. A virtio port takes frames whole; a socket may not.
    pub(super) writing: Option<(Vec<u8>, usize)>,
}

/// What a read came to.
pub(super) enum Read {
    More,
    Drained,
    Gone,
}

impl Channel {
    pub(super) fn open_transport(&mut self) -> Result<(), ChannelError> {
        match self.transport.clone() {
            Transport::Listen(path) => {
                let failed = |source| ChannelError::Listen {
                    path: path.clone(),
                    source,
                };
                // A socket that an earlier run left behind would refuse the bind.
                let _ = fs::remove_file(&path);
                let listener = UnixListener::bind(&path).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                self.register(
                    listener.as_fd(),
                    EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
                    LISTENER,
                )?;
                self.listener = Some(listener);
                Ok(())
            }
            Transport::Inherited(fd) => {
                let fd = sys::adopt(fd).map_err(ChannelError::Inherited)?;
                fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                    .map_err(|error| ChannelError::Inherited(error.into()))?;
                self.attach(fd)
            }
            Transport::NamedPort | Transport::Port(_) => self.open_port(),
        }
    }

    /// Opens the device if it is there; else its notice is waited for.
    pub(super) fn open_port(&mut self) -> Result<(), ChannelError> {
        let path = match &self.transport {
            Transport::Port(path) => Some(path.clone()),
            _ => find_port(),
        };
        let Some(path) = path.filter(|path| path.exists()) else {
            log!("the port {PORT_NAME} is not there; the agent waits for it");
            return if self.uevents.is_some() {
                Ok(())
            } else {
                Err(ChannelError::NoNotices)
            };
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path);
        match opened {
            Ok(file) => {
                log!("serving {}", path.display());
                self.attach(file.into())
            }
            Err(source) => {
                let busy = source.raw_os_error() == Some(nix::libc::EBUSY);
                let hint = if busy { "; another agent has it" } else { "" };
                Err(ChannelError::Open { path, hint, source })
            }
        }
    }

    pub(super) fn attach(&mut self, fd: OwnedFd) -> Result<(), ChannelError> {
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        self.register(fd.as_fd(), flags, PORT)?;
        self.port = Some(Port {
            file: fd.into(),
            up: false,
            writing: None,
        });
        Ok(())
    }

    pub(super) fn accept(&mut self) -> Result<(), ChannelError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        if self.port.is_some() {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream
                    .set_nonblocking(true)
                    .map_err(ChannelError::Inherited)?;
                self.attach(stream.into())
            }
            // Nobody waits; a client that gave up meanwhile is nobody, too.
            Err(_) => Ok(()),
        }
    }

    pub(super) fn on_port_edge(&mut self, events: EpollFlags) {
        let Some(port) = &mut self.port else { return };
        let gone = events.contains(EpollFlags::EPOLLHUP);
        if gone && port.up {
            port.up = false;
            port.writing = None;
            self.conversation.port_down();
        } else if !gone && !port.up {
            port.up = true;
            self.conversation.port_up();
        }
    }

    /// Writes what the port takes. Says whether any frame went.
    pub(super) fn write(&mut self) -> Result<bool, ChannelError> {
        let mut wrote = false;
        while let Some(port) = self.port.as_mut().filter(|port| port.up) {
            if port.writing.is_none() {
                port.writing = self.conversation.next_frame().map(|frame| (frame, 0));
            }
            let Some((frame, done)) = &mut port.writing else {
                break;
            };
            match port.file.write(&frame[*done..]) {
                Ok(length) => {
                    *done += length;
                    if *done >= frame.len() {
                        port.writing = None;
                        wrote = true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.lose_port(&error)?;
                    break;
                }
            }
        }
        Ok(wrote)
    }

    pub(super) fn read(&mut self) -> Result<Read, ChannelError> {
        let Some(port) = &mut self.port else {
            return Ok(Read::Drained);
        };
        let mut buffer = [0; READ_SIZE];
        let length = match port.file.read(&mut buffer) {
            Ok(0) => return self.host_gone(),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Read::More),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Drained),
            Err(error) => {
                self.lose_port(&error)?;
                return Ok(Read::Gone);
            }
        };
        for order in self.conversation.receive(&buffer[..length], Instant::now()) {
            self.carry_out(order)?;
        }
        Ok(Read::More)
    }

    /// The host has closed: a port stays open and waits for the next edge, a socket is done with.
    pub(super) fn host_gone(&mut self) -> Result<Read, ChannelError> {
        let was_up = self
            .port
            .as_mut()
            .is_some_and(|port| std::mem::replace(&mut port.up, false));
        if was_up {
            self.conversation.port_down();
        }
        if matches!(self.transport, Transport::NamedPort | Transport::Port(_)) {
            if let Some(port) = &mut self.port {
                port.writing = None;
            }
            return Ok(Read::Drained);
        }
        self.port = None;
        self.accept()?;
        Ok(Read::Gone)
    }

    /// The device itself is gone (ENODEV after an unplug), or a socket broke.
    pub(super) fn lose_port(&mut self, error: &io::Error) -> Result<(), ChannelError> {
        log!("the port is lost: {error}");
        self.port = None;
        self.conversation.port_down();
        match self.transport {
            Transport::NamedPort | Transport::Port(_) => self.open_port(),
            Transport::Listen(_) => self.accept(),
            Transport::Inherited(_) => Ok(()),
        }
    }
}

/// The port by its name: udev's link, or what the kernel itself says where there is no udev.
fn find_port() -> Option<PathBuf> {
    let link = Path::new("/dev/virtio-ports").join(PORT_NAME);
    if link.exists() {
        return Some(link);
    }
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let named = |port: &fs::DirEntry| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    };
    ports
        .flatten()
        .find(named)
        .map(|port| Path::new("/dev").join(port.file_name()))
}
