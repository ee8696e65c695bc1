//! One script from start to end: its private file, its user, its bounds. Called by the commands thread, which lends its ear
//! while the script runs, so that CPUs are switched in the meantime.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use agent_protocol::{
    RequestId, Script, ScriptResult,
    limits::{SCRIPT_KILL_GRACE_MS, SCRIPT_OUTPUT_KEEP},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use crate::{
    exec::Scope,
    log::log,
    program::{self, Bounds, Ended, Meanwhile, ProgramError, ProgramJob},
    sys,
    users::{User, UserError, find_user},
};

/// Where scripts lie while they run, under the root. It is memory, so nothing is left after a reboot.
const DIRECTORY: &str = "run/virt-persona-agent/scripts";
/// Marks every process of a script or command, so that what an interrupted one left can be found.
pub(crate) const MARK: &str = "VIRT_PERSONA_REQUEST";
/// Where programs are found, as login(1) has it for root.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// When a script is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Pre,
    Post,
    /// A script that a rule runs.
    Rule,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
            Self::Rule => "rule",
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
    #[error("cannot start {interpreter:?}")]
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
    let interpreter = job.script.interpreter.clone();
    let mut words = interpreter.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .arg(&file.path)
        .env_clear()
        .envs(environment(job, &user));
    let credentials = own.is_root().then(|| user.credentials.clone());
    let began = Instant::now();
    let bounds = Bounds {
        deadline: began + Duration::from_millis(job.script.timeout_ms),
        grace: Duration::from_millis(SCRIPT_KILL_GRACE_MS),
        keep: SCRIPT_OUTPUT_KEEP,
    };
    // What a rule starts ends with it, also what left its process group; scripts of an activation may leave a service behind.
    let (scope, groups) = match job.stage {
        Stage::Rule => Some(Scope::make(root, &job.request)).unzip(),
        Stage::Pre | Stage::Post => (None, None),
    };
    sys::join(&mut command, groups.unwrap_or_default());
    let ended = program::run(command, credentials, bounds, meanwhile);
    if let Some(scope) = scope {
        scope.end();
    }
    let ended = ended.map_err(|error| match error {
        ProgramError::Start(source) => ScriptError::Start {
            interpreter: interpreter.clone(),
            source,
        },
        ProgramError::Wait(source) => ScriptError::Wait(source),
    })?;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ScriptResult {
        exit: ended.status.code(),
        signal: ended.status.signal(),
        output: ended.output,
        output_truncated: ended.output_truncated,
        timed_out: ended.timed_out,
        duration_ms,
    })
}

/// Runs a program of the guest's system until it ends or its time is over.
pub(crate) fn run_program(
    job: &ProgramJob,
    meanwhile: &mut impl Meanwhile,
) -> Result<Ended, ScriptError> {
    let mut command = Command::new(&job.program);
    command
        .args(&job.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(job.variables.iter().copied())
        .env(MARK, job.request.as_str());
    let bounds = Bounds {
        deadline: Instant::now() + job.time,
        grace: Duration::from_millis(SCRIPT_KILL_GRACE_MS),
        keep: job.keep,
    };
    let ended = program::converse(command, None, &job.dialogue, bounds, meanwhile);
    ended.map_err(|error| match error {
        ProgramError::Start(source) => ScriptError::Start {
            interpreter: job.program.display().to_string(),
            source,
        },
        ProgramError::Wait(source) => ScriptError::Wait(source),
    })
}

/// Stops what a script left running when the agent was killed, and removes its file.
pub(crate) fn stop_leftovers(root: &Path, request: &RequestId) {
    kill_marked(request);
    let _ = fs::remove_dir_all(root.join(DIRECTORY));
}

/// Kills every process that bears the mark of a request.
pub(crate) fn kill_marked(request: &RequestId) {
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
            log!("process {pid} is left from an interrupted request; it is killed");
            // It may have ended by itself since it was read.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
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
    use crate::program::Nothing;
    use agent_protocol::OnFailure;

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
        run_script(root, &job, &mut Nothing)
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
        let mut nothing = Nothing;
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
