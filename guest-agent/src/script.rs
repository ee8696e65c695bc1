//! One script from start to end: its private file, its user, its bounds. Called by the commands thread, which lends its ear
//! while the script runs, so that CPUs are switched in the meantime.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, PipeReader, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
            process::ExitStatusExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agent_protocol::{
    RequestId, Script, ScriptResult,
    limits::{SCRIPT_KILL_GRACE_MS, SCRIPT_OUTPUT_KEEP},
    message::clean_text,
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, geteuid},
};

use crate::{
    log::log,
    sys,
    users::{User, UserError, find_user},
};

/// Where scripts lie while they run, under the root. It is memory, so nothing is left after a reboot.
const DIRECTORY: &str = "run/virt-persona-agent/scripts";
/// Marks every process of a script, so that what an interrupted one left can be found.
const MARK: &str = "VIRT_PERSONA_REQUEST";
/// Where programs are found, as login(1) has it for root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Kernels without pidfd_open are asked this often whether the script has ended.
const OLD_KERNEL_INTERVAL_MS: u64 = 50;

/// Which of the two scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Pre,
    Post,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
        }
    }
}

/// A script with all that its run needs.
#[derive(Clone, Debug)]
pub(crate) struct ScriptJob {
    pub(crate) request: RequestId,
    pub(crate) stage: Stage,
    pub(crate) script: Script,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) persona: String,
    pub(crate) generation: u64,
}

/// Why a script did not run, or was not seen to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error("the agent runs as an ordinary user and cannot become `{0}`")]
    NotPrivileged(String),
    #[error("cannot write the script to {path:?}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the interpreter {interpreter:?}")]
    Start {
        interpreter: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot wait for the script")]
    Wait(#[source] io::Error),
    #[error("the thread that runs scripts is gone")]
    NobodyRuns,
}

/// What is looked after while a script runs.
pub(crate) trait Meanwhile {
    /// Becomes readable when there is something to look after.
    fn signal(&self) -> BorrowedFd<'_>;
    /// Looks after it, without waiting.
    fn attend(&mut self);
}

/// Runs a script until it ends or its time is over.
pub(crate) fn run_script(
    root: &Path,
    job: &ScriptJob,
    meanwhile: &mut impl Meanwhile,
) -> Result<ScriptResult, ScriptError> {
    let user = find_user(root, &job.script.user)?;
    let own = geteuid();
    if !own.is_root() && own != user.credentials.uid {
        return Err(ScriptError::NotPrivileged(user.name));
    }
    let file = ScriptFile::write(root, job, &user)?;
    let began = Instant::now();
    let (mut running, ended) = {
        let mut running = Running::start(job, &user, &file)?;
        let ended = running.watch(
            began + Duration::from_millis(job.script.timeout_ms),
            meanwhile,
        );
        (running, ended)
    };
    if ended.is_err() {
        // Whatever went wrong with waiting, nothing of the script stays behind.
        running.signal(Signal::SIGKILL);
    }
    let timed_out = matches!(ended, Ok(End::TimedOut));
    let status = running.child.wait().map_err(ScriptError::Wait)?;
    running.drain();
    ended.map_err(ScriptError::Wait)?;
    let (output, output_truncated) = running.tail.into_text();
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ScriptResult {
        exit: status.code(),
        signal: status.signal(),
        output,
        output_truncated,
        timed_out,
        duration_ms,
    })
}

/// Stops what a script left running when the agent was killed, and removes its file.
pub(crate) fn stop_leftovers(root: &Path, request: &RequestId) {
    let wanted = format!("{MARK}={request}");
    // The real /proc: processes are not part of a test tree.
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
            log!("process {pid} is left from an interrupted script; it is killed");
            // It may have ended by itself since it was read.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = fs::remove_dir_all(root.join(DIRECTORY));
}

/// How the watch over a script ended; the child is not yet waited for.
enum End {
    ByItself,
    TimedOut,
}

/// The script's own directory and file, removed with this value.
struct ScriptFile {
    directory: PathBuf,
    path: PathBuf,
}

impl ScriptFile {
    fn write(root: &Path, job: &ScriptJob, user: &User) -> Result<Self, ScriptError> {
        let parent = root.join(DIRECTORY);
        let directory = parent.join(format!("{}-{}", job.request, job.stage.name()));
        let path = directory.join("script");
        let file = Self { directory, path };
        let failed = |source| ScriptError::File {
            path: file.path.clone(),
            source,
        };
        // Users must be able to pass, not to look.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&parent)
            .map_err(failed)?;
        let _ = fs::remove_dir_all(&file.directory);
        DirBuilder::new()
            .mode(0o700)
            .create(&file.directory)
            .map_err(failed)?;
        let mut written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&file.path)
            .map_err(failed)?;
        written
            .write_all(job.script.text.as_bytes())
            .map_err(failed)?;
        let (uid, gid) = (
            Some(user.credentials.uid.as_raw()),
            Some(user.credentials.gid.as_raw()),
        );
        chown(&file.path, uid, gid).map_err(failed)?;
        chown(&file.directory, uid, gid).map_err(failed)?;
        Ok(file)
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        // In memory and named after the request: one that stays is replaced or gone with the next boot.
        let _ = fs::remove_dir_all(&self.directory);
    }
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
    fn start(job: &ScriptJob, user: &User, file: &ScriptFile) -> Result<Self, ScriptError> {
        let interpreter = job.script.interpreter.clone();
        let failed = |source| ScriptError::Start {
            interpreter: interpreter.clone(),
            source,
        };
        let (output, writer) = io::pipe().map_err(failed)?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|error| failed(error.into()))?;
        let mut words = interpreter.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .arg(&file.path)
            .current_dir("/")
            .stdin(Stdio::null());
        command
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer);
        command.env_clear().envs(environment(job, user));
        sys::isolate(
            &mut command,
            geteuid().is_root().then(|| user.credentials.clone()),
        );
        let child = command.spawn().map_err(failed)?;
        // Process ids fit an i32 on every Linux.
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let ended = sys::open_child(child.id()).ok();
        Ok(Self {
            child,
            group,
            ended,
            output,
            output_open: true,
            tail: Tail::default(),
        })
    }

    /// Watches until the child has ended (not yet waited for, so that its number cannot be another's).
    fn watch(&mut self, deadline: Instant, meanwhile: &mut impl Meanwhile) -> io::Result<End> {
        let mut kill_at = None;
        let mut end = End::ByItself;
        loop {
            let now = Instant::now();
            match kill_at {
                None if now >= deadline => {
                    end = End::TimedOut;
                    self.signal(Signal::SIGTERM);
                    kill_at = Some(now + Duration::from_millis(SCRIPT_KILL_GRACE_MS));
                }
                Some(at) if now >= at => self.signal(Signal::SIGKILL),
                _ => {}
            }
            self.wait_for_news(
                kill_at
                    .unwrap_or(deadline)
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
            let mut fds = vec![PollFd::new(meanwhile.signal(), PollFlags::POLLIN)];
            fds.extend(
                self.output_open
                    .then(|| PollFd::new(self.output.as_fd(), PollFlags::POLLIN)),
            );
            fds.extend(
                self.ended
                    .as_ref()
                    .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut fds, timeout) {
                Ok(_) => attend = attend || fds[0].any().unwrap_or(false),
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
            // A script that writes faster than this loop reads shall not keep the thread here.
            if self.tail.since_drain > 16 * SCRIPT_OUTPUT_KEEP {
                break;
            }
        }
        self.tail.since_drain = 0;
    }
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    truncated: bool,
    since_drain: usize,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.since_drain += bytes.len();
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * SCRIPT_OUTPUT_KEEP {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(SCRIPT_OUTPUT_KEEP);
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

fn environment(job: &ScriptJob, user: &User) -> BTreeMap<OsString, OsString> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: OsString| drop(variables.insert(name.into(), value));
    for kept in ["LANG", "TZ"] {
        if let Some(value) = std::env::var_os(kept) {
            set(kept, value);
        }
    }
    set("PATH", PATH.into());
    set("HOME", user.home.clone().into());
    set("SHELL", user.shell.clone().into());
    set("USER", user.name.clone().into());
    set("LOGNAME", user.name.clone().into());
    for (name, value) in &job.environment {
        set(name, value.into());
    }
    // Last: the persona's own variables cannot hide whose script this is.
    set("VIRT_PERSONA_NAME", job.persona.clone().into());
    set("VIRT_PERSONA_GENERATION", job.generation.to_string().into());
    set("VIRT_PERSONA_STAGE", job.stage.name().into());
    set(MARK, job.request.as_str().into());
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::OnFailure;
    use nix::sys::eventfd::EventFd;

    struct Nothing(EventFd);

    impl Meanwhile for Nothing {
        fn signal(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn attend(&mut self) {}
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let (uid, gid) = (geteuid(), nix::unistd::getegid());
        fs::write(
            root.path().join("etc/passwd"),
            format!("me:x:{uid}:{gid}::/home/me:/bin/sh\n"),
        )
        .unwrap();
        root
    }

    fn run(root: &Path, text: &str, timeout_ms: u64) -> Result<ScriptResult, ScriptError> {
        let (interpreter, user) = ("/bin/sh".to_owned(), "me".to_owned());
        let script = Script {
            interpreter,
            text: text.to_owned(),
            timeout_ms,
            user,
            on_failure: OnFailure::Rollback,
        };
        let environment = [("GREETING".to_owned(), "a b".to_owned())].into();
        let request = RequestId::new(format!("t{}", std::process::id())).unwrap();
        let job = ScriptJob {
            request,
            stage: Stage::Pre,
            script,
            environment,
            persona: "web".to_owned(),
            generation: 7,
        };
        run_script(root, &job, &mut Nothing(EventFd::new().unwrap()))
    }

    #[test]
    fn a_script_sees_its_environment_and_nothing_else() {
        let root = root();
        let text = "echo $GREETING $VIRT_PERSONA_STAGE $HOME ${CARGO_MANIFEST_DIR-none}; stat -c %a $0; cat; exit 3";
        let result = run(root.path(), text, 20_000).unwrap();
        assert_eq!(
            (result.exit, result.output.as_str()),
            (Some(3), "a b pre /home/me none\n700\n")
        );
        assert!(!result.succeeded());
        assert_eq!(
            fs::read_dir(root.path().join(DIRECTORY)).unwrap().count(),
            0,
            "its file is gone"
        );
    }

    #[test]
    fn the_end_of_long_output_is_kept() {
        let root = root();
        let result = run(
            root.path(),
            "yes 0123456789 | head -c 1000000; echo; echo the end >&2",
            60_000,
        )
        .unwrap();
        assert!(result.output.ends_with("the end\n") && result.output_truncated);
        assert!(result.output.len() <= SCRIPT_OUTPUT_KEEP);
    }

    #[test]
    fn a_script_that_overruns_is_stopped_with_all_its_children() {
        let root = root();
        let text = "(trap '' TERM; echo $$ > /dev/null; exec sleep 1000) & sleep 1000";
        let result = run(root.path(), text, 300).unwrap();
        assert!(result.timed_out && result.signal == Some(15), "{result:?}");
        let wanted = format!("{MARK}=t{}", std::process::id());
        // A killed process is still listed until the kernel has taken it apart.
        let alive = || {
            let entries = fs::read_dir("/proc").unwrap().flatten();
            entries.filter(|entry| {
                let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                command.starts_with(b"sleep\x001000")
                    && String::from_utf8_lossy(&environ).contains(&wanted)
            })
        };
        while alive().count() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_unknown_user_and_an_absent_interpreter_are_named() {
        let root = root();
        let environment = BTreeMap::new();
        let request = RequestId::new("u").unwrap();
        let user = "nosuch".to_owned();
        let (interpreter, text) = ("/bin/sh".to_owned(), "true".to_owned());
        let script = Script {
            interpreter,
            text,
            timeout_ms: 1000,
            user,
            on_failure: OnFailure::Rollback,
        };
        let mut job = ScriptJob {
            request,
            stage: Stage::Post,
            script,
            environment,
            persona: "web".to_owned(),
            generation: 7,
        };
        let mut nothing = Nothing(EventFd::new().unwrap());
        let error = run_script(root.path(), &job, &mut nothing).unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
        (job.script.user, job.script.interpreter) =
            ("me".to_owned(), "/no/such/interpreter".to_owned());
        let error = run_script(root.path(), &job, &mut nothing).unwrap_err();
        assert!(
            error.to_string().contains("/no/such/interpreter"),
            "{error}"
        );
    }
}
