//! One command from its start to the end of its last process. Called by the command's own thread.

use std::{
    ffi::{CString, NulError},
    io::{self, PipeReader, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use agent_protocol::{
    CommandReply, Stream,
    limits::{COMMAND_KILL_GRACE_MS, COMMAND_OUTPUT_MAX, OUTPUT_RAW_MAX},
    message::{ErrorCode, clean_text},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, geteuid},
};

use super::{
    CommandJob, Piece, Runner,
    lookup::{LookupError, Rules},
    scope::Scope,
};
use crate::{
    events::Event,
    log::log,
    program::{self, Nothing},
    script::{MARK, PATH},
    sys::{self, Launch},
    users::{User, UserError, find_user},
};

/// Between two looks at a command on kernels without pidfd_open, or whose output waits for the host.
const LOOK: Duration = Duration::from_millis(20);
/// How long the last output of a command waits for a host that does not read.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of output that are read and thrown away in one turn.
const DISCARD: usize = 64 * 1024;

/// Why a command did not run, or was not seen to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error("the agent runs as an ordinary user and cannot become `{0}`")]
    NotPrivileged(String),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("a word or a variable of the command holds a zero byte")]
    ZeroByte(#[from] NulError),
    #[error("{path} cannot be started as `{user}` in {directory}")]
    Start {
        path: String,
        user: String,
        directory: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot wait for the command")]
    Wait(#[source] io::Error),
}

impl RunError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::User(UserError::Unknown { .. }) => ErrorCode::UnknownUser,
            Self::User(UserError::Read { .. }) => ErrorCode::Storage,
            Self::Lookup(error) => error.code(),
            Self::ZeroByte(_) => ErrorCode::Malformed,
            Self::NotPrivileged(_) | Self::Start { .. } | Self::Wait(_) => ErrorCode::CannotRun,
        }
    }
}

/// Runs a command to its end.
pub(super) fn run(runner: &Runner, job: &CommandJob) -> Result<CommandReply, RunError> {
    let command = &job.command;
    let user = find_user(&runner.root, &command.user)?;
    let own = geteuid();
    if !own.is_root() && own != user.credentials.uid {
        return Err(RunError::NotPrivileged(user.name));
    }
    let rules = Rules {
        root: &runner.root,
        persona: &job.persona,
        table: &job.table,
        leave: &runner.leave,
    };
    let asked = command.argv.first().map_or("", String::as_str);
    let chosen = rules.choose(asked, user.credentials.uid)?;
    let directory = runner.root.join(command.cwd.trim_start_matches('/'));
    let words = command.argv.iter().map(|word| CString::new(word.as_str()));
    let argv = words.collect::<Result<Vec<_>, _>>()?;
    let environment = environment(job, &user)?;
    let (scope, groups) = Scope::make(&runner.root, &job.id);
    let launch = Launch {
        program: chosen.program,
        form: chosen.form,
        argv,
        environment,
        directory: CString::new(directory.into_os_string().into_encoded_bytes())?,
        credentials: own.is_root().then(|| user.credentials.clone()),
        groups,
    };
    log!(
        "command {} begins: {} as {}",
        job.id,
        chosen.path,
        user.name
    );
    let began = Instant::now();
    let deadline = began + Duration::from_millis(command.timeout_ms);
    let mut running = match Running::start(launch, deadline) {
        Ok(running) => running,
        Err(source) => {
            scope.end();
            return Err(RunError::Start {
                path: chosen.path,
                user: user.name,
                directory: clean_text(&command.cwd, 200),
                source,
            });
        }
    };
    let watched = running.watch(deadline, &scope, runner, job);
    // Whatever is left: nothing outlives the command, by whichever way it ended.
    scope.signal(running.group, Signal::SIGKILL);
    let status = running.child.wait().map_err(RunError::Wait);
    let confinement = scope.confinement();
    scope.end();
    let (timed_out, status) = (watched.map_err(RunError::Wait)?, status?);
    // Behind the last process: what it wrote is all that comes.
    running.send_rest(runner, job);
    let [stdout, stderr] = running.pipes.map(|pipe| pipe.sent);
    let reply = CommandReply {
        exit: status.code(),
        signal: status.signal(),
        timed_out,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        program: chosen.path,
        overridden: chosen.overridden,
        stdout_bytes: stdout,
        stderr_bytes: stderr,
        truncated: running.truncated,
        confinement,
        notes: chosen.notes,
    };
    log!(
        "command {} has ended: exit {:?}, signal {:?}, timed out {timed_out}",
        job.id,
        reply.exit,
        reply.signal
    );
    Ok(reply)
}

/// The variables of a command, nothing of the agent's own among them.
fn environment(job: &CommandJob, user: &User) -> Result<Vec<CString>, NulError> {
    let mut variables = std::collections::BTreeMap::new();
    let mut set =
        |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
    for kept in ["LANG", "TZ"] {
        if let Ok(value) = std::env::var(kept) {
            set(kept, &value);
        }
    }
    set("PATH", PATH);
    set("HOME", &user.home);
    set("SHELL", &user.shell);
    set("USER", &user.name);
    set("LOGNAME", &user.name);
    for (name, value) in job.environment.iter().chain(&job.command.env) {
        set(name, value);
    }
    // Last: no variable of others can hide whose command this is.
    set("VIRT_PERSONA_NAME", &job.persona);
    set("VIRT_PERSONA_GENERATION", &job.generation.to_string());
    set(MARK, job.id.as_str());
    let joined = variables
        .iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")));
    joined.collect()
}

/// One of the two outputs.
struct Pipe {
    stream: Stream,
    reader: PipeReader,
    open: bool,
    /// Bytes that were sent.
    sent: u64,
}

struct Running {
    child: Child,
    /// The process group, which has the child's number.
    group: Pid,
    ended: Option<OwnedFd>,
    pipes: [Pipe; 2],
    truncated: bool,
    /// A piece waits for its time until then.
    not_before: Option<Instant>,
}

impl Running {
    fn start(launch: Launch, deadline: Instant) -> io::Result<Self> {
        let (stdout, out) = io::pipe()?;
        let (stderr, err) = io::pipe()?;
        // The program that is named here is never looked for: the launch comes before.
        let mut command = std::process::Command::new("/");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        sys::launch(&mut command, launch);
        let child = program::spawn(&mut command, deadline, &mut Nothing)?;
        let pipe = |stream, reader: PipeReader| {
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let (open, sent) = (true, 0);
            io::Result::Ok(Pipe {
                stream,
                reader,
                open,
                sent,
            })
        };
        // Process ids fit an i32 on every Linux.
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        Ok(Self {
            ended: sys::open_child(child.id()).ok(),
            child,
            group,
            pipes: [pipe(Stream::Stdout, stdout)?, pipe(Stream::Stderr, stderr)?],
            truncated: false,
            not_before: None,
        })
    }

    /// Watches until the first process has ended, not yet waited for, so that its number cannot be another's. Says whether it
    /// was stopped for taking too long.
    fn watch(
        &mut self,
        deadline: Instant,
        scope: &Scope,
        runner: &Runner,
        job: &CommandJob,
    ) -> io::Result<bool> {
        let mut kill_at = None;
        loop {
            let now = Instant::now();
            match kill_at {
                None if now >= deadline => {
                    scope.signal(self.group, Signal::SIGTERM);
                    kill_at = Some(now + Duration::from_millis(COMMAND_KILL_GRACE_MS));
                }
                Some(at) if now >= at => scope.signal(self.group, Signal::SIGKILL),
                _ => {}
            }
            let longest = kill_at
                .unwrap_or(deadline)
                .saturating_duration_since(Instant::now());
            self.wait_for_news(longest.max(Duration::from_millis(1)), runner)?;
            self.send(runner, job);
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
            if waitid(Id::Pid(self.group), flags)? != WaitStatus::StillAlive {
                return Ok(kill_at.is_some());
            }
        }
    }

    /// Whether output may be read now: in its time and with room for it, or to be thrown away.
    fn may_read(&self, runner: &Runner) -> bool {
        self.truncated
            || (runner.window.is_open() && self.not_before.is_none_or(|at| at <= Instant::now()))
    }

    fn wait_for_news(&self, longest: Duration, runner: &Runner) -> io::Result<()> {
        let reads = self.may_read(runner);
        let mut longest = longest;
        if self.ended.is_none() || !reads {
            longest = longest.min(LOOK);
        }
        let outputs = self.pipes.iter().filter(|pipe| reads && pipe.open);
        let mut fds: Vec<PollFd<'_>> = outputs
            .map(|pipe| pipe.reader.as_fd())
            .chain(self.ended.as_ref().map(|ended| ended.as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let millis = longest.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what there is, as far as pace and window go. Says whether anything was read.
    fn send(&mut self, runner: &Runner, job: &CommandJob) -> bool {
        let mut read_any = false;
        for index in 0..self.pipes.len() {
            if !self.may_read(runner) {
                break;
            }
            let sent: u64 = self.pipes.iter().map(|pipe| pipe.sent).sum();
            let pipe = &mut self.pipes[index];
            if !pipe.open {
                continue;
            }
            let left = COMMAND_OUTPUT_MAX.saturating_sub(sent);
            let most = match usize::try_from(left) {
                Ok(left @ 1..) => left.min(OUTPUT_RAW_MAX),
                _ => DISCARD,
            };
            let mut bytes = vec![0; most];
            let length = match pipe.reader.read(&mut bytes) {
                Ok(0) => {
                    pipe.open = false;
                    continue;
                }
                Ok(length) => length,
                // Nothing is there, or a signal came in between.
                Err(_) => continue,
            };
            read_any = true;
            bytes.truncate(length);
            if left == 0 {
                self.truncated = true;
                continue;
            }
            let now = Instant::now();
            // What was read goes, and what comes after it waits.
            self.not_before = Some(now + runner.pace.spend(length, now));
            let piece = Piece {
                stream: pipe.stream,
                off: pipe.sent,
                share: runner.window.share(length),
                bytes,
            };
            pipe.sent += length as u64;
            runner.events.send(Event::Output {
                id: job.id.clone(),
                piece,
            });
        }
        read_any
    }

    /// Sends what the pipes still hold. What left its scope and has them open is not waited for, nor a host that does not read.
    fn send_rest(&mut self, runner: &Runner, job: &CommandJob) {
        let end = Instant::now() + PATIENCE;
        while self.pipes.iter().any(|pipe| pipe.open) {
            let may_read = self.may_read(runner);
            if may_read && !self.send(runner, job) {
                return;
            }
            if !may_read {
                if Instant::now() >= end {
                    self.truncated = true;
                    return;
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}
