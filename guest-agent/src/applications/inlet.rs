//! The socket on which applications of the guest say their figures, `/run/virt-persona-agent/metrics.sock`: any user may
//! write to it, and the kernel says which one did. A datagram has one line or several. It is there only while somebody
//! listens: what nobody reads would fill up and hold the applications.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::{
            fs::{DirBuilderExt as _, PermissionsExt as _},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
    },
};

/// Where the socket is, under the root.
pub(super) const SOCKET: &str = "run/virt-persona-agent/metrics.sock";
/// Longest datagram, as StatsD's clients have it on unix sockets.
pub(super) const DATAGRAM_MAX: usize = 8192;

/// The socket, and the one buffer for what comes.
#[derive(Debug)]
pub(super) struct Inlet {
    socket: UnixDatagram,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Inlet {
    /// Makes the socket anew.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join(SOCKET);
        if let Some(directory) = path.parent() {
            // As for the agent's other socket there: users pass, and do not look.
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(directory)?;
        }
        // It gets its name when it is ready, so that no datagram comes without its user and nobody is refused meanwhile.
        let unready = path.with_extension("new");
        let _ = fs::remove_file(&unready);
        let socket = UnixDatagram::bind(&unready)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, PassCred, &true)?;
        fs::set_permissions(&unready, Permissions::from_mode(0o666))?;
        fs::rename(&unready, &path)?;
        Ok(Self {
            socket,
            path,
            buffer: vec![0; DATAGRAM_MAX],
        })
    }

    /// The next datagram with the user who sent it; `None` when there is none. One that is too long, is no text, or comes
    /// from nobody is empty.
    pub(super) fn next(&mut self) -> Option<(u32, &str)> {
        let mut control = cmsg_space!(UnixCredentials);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            let descriptor = self.socket.as_raw_fd();
            match recvmsg::<()>(descriptor, &mut parts, Some(&mut control), flags) {
                Err(Errno::EINTR) => {}
                other => break other.ok()?,
            }
        };
        let whole = !received.flags.contains(MsgFlags::MSG_TRUNC);
        let sender = received.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::ScmCredentials(sender) => Some(sender.uid()),
                _ => None,
            })
        });
        let length = received.bytes;
        let text = std::str::from_utf8(&self.buffer[..length]).ok();
        Some(match (sender, text) {
            (Some(user), Some(text)) if whole => (user, text),
            _ => (u32::MAX, ""),
        })
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        // Whoever looks for it shall find that nobody listens; what is left behind says the same when it is used.
        let _ = fs::remove_file(&self.path);
    }
}
