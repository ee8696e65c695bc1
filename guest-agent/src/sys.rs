//! The one module with `unsafe`: what neither std nor nix can do. A new session with another user between fork and exec, and
//! a descriptor for a child's end. Called by `script`.

use std::{
    io,
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::{
    libc,
    unistd::{Gid, Uid},
};

/// The user that a program becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups of the user.
    pub(crate) groups: Vec<Gid>,
}

/// Makes the command start in a session and process group of its own, as `credentials` (as this process when `None`), and be
/// killed should this agent die: a script must not outlive the one who would report it.
pub(crate) fn isolate(command: &mut Command, credentials: Option<Credentials>) {
    let prepare = move || -> io::Result<()> {
        nix::unistd::setsid()?;
        if let Some(credentials) = &credentials {
            nix::unistd::setgroups(&credentials.groups)?;
            nix::unistd::setgid(credentials.gid)?;
            nix::unistd::setuid(credentials.uid)?;
        }
        // After the change of user, which clears the setting (prctl(2)).
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe system calls run; the vector of groups was allocated before, and
    // neither success nor an errno allocates.
    unsafe { command.pre_exec(prepare) };
}

/// A descriptor that becomes readable when the child ends (pidfd_open(2), Linux 5.3). An error means an older kernel.
pub(crate) fn open_child(pid: u32) -> io::Result<OwnedFd> {
    let pid =
        libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel just returned this descriptor, with close-on-exec set, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes over a descriptor that was inherited and is named on the command line.
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only looked at; an invalid one is an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as the call before shows, and the command line gives it to this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
