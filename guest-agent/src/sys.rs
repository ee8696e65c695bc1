//! The one module with `unsafe`: what neither std nor nix can do. A new session with another user between fork and exec, a
//! program that is started by its descriptor, and a descriptor for a child's end. Called by `program` and `exec`.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
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

/// Makes the command put itself into control groups, of which these are the lists of processes, open for writing. It comes
/// before [`isolate`], since another user may not.
pub(crate) fn join(command: &mut Command, groups: Vec<OwnedFd>) {
    let enter = move || -> io::Result<()> {
        for group in &groups {
            // 0 is whoever writes it.
            nix::unistd::write(group, b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only write(2) runs, on descriptors that were opened before and that the closure owns.
    unsafe { command.pre_exec(enter) };
}

/// A program that is started by its descriptor, so that what was looked at is what runs.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The program, open for reading.
    pub(crate) program: OwnedFd,
    /// Whether the kernel hands the program to an interpreter, which then opens it by its number.
    pub(crate) form: Form,
    /// All words, the program's own name first.
    pub(crate) argv: Vec<CString>,
    /// All variables, as `NAME=value`.
    pub(crate) environment: Vec<CString>,
    /// Where it runs.
    pub(crate) directory: CString,
    /// As whom; as this process when `None`.
    pub(crate) credentials: Option<Credentials>,
    /// Lists of processes of control groups that it puts itself into, open for writing.
    pub(crate) groups: Vec<OwnedFd>,
}

/// How the kernel starts a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// By itself.
    Binary,
    /// By the interpreter that its first line names.
    Script,
}

/// Open files of a command, at most.
const COMMAND_FILES: u64 = 1024;

/// Makes the command start `launch`, whatever program it names itself: in a session and process group of its own, without
/// privileges to gain, without descriptors of this agent, to be killed should the thread that starts it end.
pub(crate) fn launch(command: &mut Command, launch: Launch) {
    let pointers = |words: &[CString]| -> Vec<usize> {
        let ends = words.iter().map(|word| word.as_ptr() as usize);
        ends.chain([0]).collect()
    };
    let (argv, environment) = (pointers(&launch.argv), pointers(&launch.environment));
    let start = move || -> io::Result<()> {
        use nix::sys::{prctl, resource, stat};
        // All of it is moved into the closure, also the strings that only their pointers lead to.
        let launch = &launch;
        nix::unistd::setsid()?;
        for group in &launch.groups {
            // 0 is whoever writes it.
            nix::unistd::write(group, b"0")?;
        }
        resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0)?;
        let (_, most) = resource::getrlimit(resource::Resource::RLIMIT_NOFILE)?;
        let files = COMMAND_FILES.min(most);
        resource::setrlimit(resource::Resource::RLIMIT_NOFILE, files, files)?;
        stat::umask(stat::Mode::from_bits_truncate(0o022));
        if let Some(credentials) = &launch.credentials {
            nix::unistd::setgroups(&credentials.groups)?;
            nix::unistd::setgid(credentials.gid)?;
            nix::unistd::setuid(credentials.uid)?;
        }
        // After the change of user: what the user may not enter is not entered.
        nix::unistd::chdir(launch.directory.as_c_str())?;
        prctl::set_no_new_privs()?;
        prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // Closed by the exec and not at once, since an error of the exec is reported through one of them. A kernel before
        // 5.11 does not know the call; all descriptors of this agent are opened to be closed by an exec anyway.
        // SAFETY: the call takes three integers and touches no memory of ours.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        let program = launch.program.as_raw_fd();
        if launch.form == Form::Script {
            // SAFETY: the descriptor is open and this process's own; only its flag is set.
            unsafe { libc::fcntl(program, libc::F_SETFD, 0) };
        }
        // SAFETY: the path is empty and ends with a zero byte; both arrays end with a null pointer, and their pointers lead
        // to strings of `launch`, which the closure owns whole and which never change place.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                program,
                c"".as_ptr(),
                argv.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and exec only async-signal-safe system calls run; all strings and arrays were allocated before, and
    // neither success nor an errno allocates.
    unsafe { command.pre_exec(start) };
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
