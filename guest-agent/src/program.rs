//! One program from start to end: its own session, its output, its time. Who it is and what its end means is said by
//! `script` and `hooks`, which call this; whoever waits may look after other things meanwhile.

use std::{
    fs::File,
    io::{self, PipeReader, Read as _, Seek as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{RequestId, limits::SCRIPT_OUTPUT_KEEP, message::clean_text};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use crate::sys::{self, Credentials};

/// Kernels without pidfd_open are asked this often whether the program has ended.
const OLD_KERNEL_INTERVAL_MS: u64 = 50;
/// How long a program that is just being written is tried for, and how often: who writes a file may hold it a moment longer than
/// the writing takes, and a child that he starts meanwhile holds it until its own exec.
const BUSY_TIME: Duration = Duration::from_secs(2);
const BUSY_INTERVAL_MS: u8 = 10;
/// Bytes of the beginning of an output that are kept beside its end: what a hook says comes first.
const HEAD_MAX: usize = 2 * 1_024;

/// What is looked after while a program runs.
pub(crate) trait Meanwhile {
    /// Becomes readable when there is something to look after; `None` where there is nothing.
    fn signal(&self) -> Option<BorrowedFd<'_>>;
    /// Looks after it, without waiting.
    fn attend(&mut self);
}

/// Nothing is looked after.
pub(crate) struct Nothing;

impl Meanwhile for Nothing {
    fn signal(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn attend(&mut self) {}
}

/// How long a program may run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// When it is told to end.
    pub(crate) deadline: Instant,
    /// How long after that it is killed.
    pub(crate) grace: Duration,
    /// Bytes of its output that are kept: the end.
    pub(crate) keep: usize,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// It was stopped for taking too long.
    pub(crate) timed_out: bool,
    /// The end of its output, safe to show.
    pub(crate) output: String,
    /// The beginning of the output was left out.
    pub(crate) output_truncated: bool,
    /// The beginning of the output, up to [`HEAD_MAX`] bytes, safe to show.
    pub(crate) head: String,
}

impl Ended {
    /// Whether it ended by itself with status 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.status.success() && !self.timed_out
    }
}

/// A program of the guest's system with its arguments, run for a request as the agent itself.
#[derive(Clone, Debug)]
pub(crate) struct ProgramJob {
    pub(crate) request: RequestId,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Variables beside those that every program of the system gets.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// How long it may take.
    pub(crate) time: Duration,
    /// Bytes of its output that are kept: the end.
    pub(crate) keep: usize,
    pub(crate) dialogue: Dialogue,
}

/// What a program has to read, and what is caught of what it writes.
#[derive(Clone, Debug)]
pub(crate) enum Dialogue {
    /// Nothing to read; output and errors are caught as one.
    Silent,
    /// A document to read; the output is caught, and errors go to the agent's own log.
    Document(String),
}

/// A program that did not run, or was not seen to its end.
#[derive(Debug)]
pub(crate) enum ProgramError {
    Start(io::Error),
    Wait(io::Error),
}

/// Runs a command until it ends or its time is over, as `credentials` (as this process when `None`), with nothing on its
/// input and its output caught. No process of its group outlives an overrun.
pub(crate) fn run(
    command: Command,
    credentials: Option<Credentials>,
    bounds: Bounds,
    meanwhile: &mut impl Meanwhile,
) -> Result<Ended, ProgramError> {
    converse(command, credentials, &Dialogue::Silent, bounds, meanwhile)
}

/// As [`run`], with something to read.
pub(crate) fn converse(
    command: Command,
    credentials: Option<Credentials>,
    dialogue: &Dialogue,
    bounds: Bounds,
    meanwhile: &mut impl Meanwhile,
) -> Result<Ended, ProgramError> {
    let mut running = Running::start(command, credentials, dialogue, bounds, meanwhile)
        .map_err(ProgramError::Start)?;
    let ended = running.watch(bounds, meanwhile);
    if ended.is_err() {
        // Whatever went wrong with waiting, nothing of the program stays behind.
        running.signal(Signal::SIGKILL);
    }
    let timed_out = matches!(ended, Ok(End::TimedOut));
    let status = running.child.wait().map_err(ProgramError::Wait)?;
    running.drain();
    ended.map_err(ProgramError::Wait)?;
    let head = clean_text(&String::from_utf8_lossy(&running.tail.head), usize::MAX);
    let (output, output_truncated) = running.tail.into_text();
    Ok(Ended {
        status,
        timed_out,
        output,
        output_truncated,
        head,
    })
}

/// Starts a program, and again for a while, but not past its deadline, where somebody has its file open for writing (execve(2),
/// `ETXTBSY`).
pub(crate) fn spawn(
    command: &mut Command,
    deadline: Instant,
    meanwhile: &mut impl Meanwhile,
) -> io::Result<Child> {
    let until = deadline.min(Instant::now() + BUSY_TIME);
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < until =>
            {
                pause(meanwhile);
            }
            started => return started,
        }
    }
}

/// Looks after the rest until the next try.
fn pause(meanwhile: &mut impl Meanwhile) {
    let came = match meanwhile.signal() {
        Some(signal) => {
            let mut fds = [PollFd::new(signal, PollFlags::POLLIN)];
            poll(&mut fds, BUSY_INTERVAL_MS).is_ok_and(|ready| ready > 0)
        }
        None => {
            thread::sleep(Duration::from_millis(BUSY_INTERVAL_MS.into()));
            false
        }
    };
    if came {
        meanwhile.attend();
    }
}

/// How the watch over a program ended; the child is not yet waited for.
enum End {
    ByItself,
    TimedOut,
}

struct Running {
    child: Child,
    /// The process group, which has the child's number.
    group: Pid,
    ended: Option<OwnedFd>,
    output: PipeReader,
    output_open: bool,
    tail: Tail,
}

impl Running {
    /// Starts the command with its output caught, in a session of its own.
    fn start(
        command: Command,
        credentials: Option<Credentials>,
        dialogue: &Dialogue,
        bounds: Bounds,
        meanwhile: &mut impl Meanwhile,
    ) -> io::Result<Self> {
        let mut command = command;
        let (output, writer) = io::pipe()?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        command.current_dir("/");
        match dialogue {
            Dialogue::Silent => command
                .stdin(Stdio::null())
                .stdout(writer.try_clone()?)
                .stderr(writer),
            Dialogue::Document(text) => command
                .stdin(document(text)?)
                .stdout(writer)
                .stderr(Stdio::inherit()),
        };
        sys::isolate(&mut command, credentials);
        let child = spawn(&mut command, bounds.deadline, meanwhile)?;
        // Process ids fit an i32 on every Linux.
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let ended = sys::open_child(child.id()).ok();
        Ok(Self {
            child,
            group,
            ended,
            output,
            output_open: true,
            tail: Tail {
                keep: bounds.keep,
                ..Tail::default()
            },
        })
    }

    /// Watches until the child has ended (not yet waited for, so that its number cannot be another's).
    fn watch(&mut self, bounds: Bounds, meanwhile: &mut impl Meanwhile) -> io::Result<End> {
        let mut kill_at = None;
        let mut end = End::ByItself;
        loop {
            let now = Instant::now();
            match kill_at {
                None if now >= bounds.deadline => {
                    end = End::TimedOut;
                    self.signal(Signal::SIGTERM);
                    kill_at = Some(now + bounds.grace);
                }
                Some(at) if now >= at => self.signal(Signal::SIGKILL),
                _ => {}
            }
            self.wait_for_news(
                kill_at
                    .unwrap_or(bounds.deadline)
                    .saturating_duration_since(Instant::now()),
                meanwhile,
            )?;
            self.drain();
            if self.has_ended()? {
                if kill_at.is_some() {
                    // Those of the group that did not heed SIGTERM.
                    self.signal(Signal::SIGKILL);
                }
                return Ok(end);
            }
        }
    }

    fn wait_for_news(&self, longest: Duration, meanwhile: &mut impl Meanwhile) -> io::Result<()> {
        let interval = if self.ended.is_some() {
            u64::MAX
        } else {
            OLD_KERNEL_INTERVAL_MS
        };
        // Rounded up, so that the last wait is not repeated many times within its last millisecond.
        let longest = u64::try_from(longest.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
            .min(interval);
        let timeout = PollTimeout::try_from(longest.min(60_000)).unwrap_or(PollTimeout::MAX);
        let mut attend = false;
        {
            let signal = meanwhile.signal();
            let listens = signal.is_some();
            let output = self.output_open.then(|| self.output.as_fd());
            let ended = self.ended.as_ref().map(AsFd::as_fd);
            let mut fds: Vec<PollFd<'_>> = [signal, output, ended]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            match poll(&mut fds, timeout) {
                Ok(_) => attend = listens && fds[0].any().unwrap_or(false),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if attend {
            meanwhile.attend();
        }
        Ok(())
    }

    fn has_ended(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        Ok(waitid(Id::Pid(self.group), flags)? != WaitStatus::StillAlive)
    }

    fn signal(&self, signal: Signal) {
        // An error means that nobody is left in the group.
        let _ = killpg(self.group, signal);
    }

    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        while self.output_open {
            match self.output.read(&mut buffer) {
                Ok(0) => self.output_open = false,
                Ok(length) => self.tail.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            // A program that writes faster than this loop reads shall not keep the thread here.
            if self.tail.since_drain > 16 * SCRIPT_OUTPUT_KEEP {
                break;
            }
        }
        self.tail.since_drain = 0;
    }
}

/// A text to be read. It is a file in memory: nobody has to wait for a reader, as with a pipe.
fn document(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"document", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail {
    /// The first [`HEAD_MAX`] bytes of all.
    head: Vec<u8>,
    bytes: Vec<u8>,
    truncated: bool,
    since_drain: usize,
    keep: usize,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.since_drain += bytes.len();
        let missing = HEAD_MAX.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * self.keep {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.keep);
        self.truncated |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    fn into_text(mut self) -> (String, bool) {
        self.cut();
        // A replacement character can be longer than what it replaces; the bound is on what was written.
        (
            clean_text(&String::from_utf8_lossy(&self.bytes), usize::MAX),
            self.truncated,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::OpenOptionsExt as _};

    use super::*;

    /// A program of this directory with somebody who writes to it.
    fn in_the_writing(directory: &tempfile::TempDir) -> (PathBuf, File) {
        let path = directory.path().join("program");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .mode(0o755)
            .open(&path)
            .unwrap();
        file.write_all(b"#!/bin/sh\necho ran\n").unwrap();
        (path, file)
    }

    fn bounds() -> Bounds {
        Bounds {
            deadline: Instant::now() + Duration::from_secs(60),
            grace: Duration::from_secs(1),
            keep: SCRIPT_OUTPUT_KEEP,
        }
    }

    #[test]
    fn a_program_runs_when_whoever_writes_it_is_through() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = in_the_writing(&directory);
        let busy = Command::new(&path).spawn().unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ExecutableFileBusy);
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(3 * u64::from(BUSY_INTERVAL_MS)));
            drop(file);
        });
        let ended = run(Command::new(&path), None, bounds(), &mut Nothing).unwrap();
        writer.join().unwrap();
        assert!(ended.succeeded());
        assert_eq!(ended.output, "ran\n");
    }

    #[test]
    fn a_program_that_is_written_on_and_on_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _file) = in_the_writing(&directory);
        let error = run(Command::new(&path), None, bounds(), &mut Nothing).unwrap_err();
        assert!(
            matches!(&error, ProgramError::Start(why) if why.kind() == io::ErrorKind::ExecutableFileBusy),
            "{error:?}"
        );
    }
}
