//! A small tree of a guest with programs, and the real gate on it.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{GateStanding, GateTable};
use tempfile::TempDir;

/// A hung test shall end with a message; no test passes or fails by this time.
pub const HUNG: Duration = Duration::from_secs(120);
pub const PERSON: u32 = 1000;
pub const OTHER: u32 = 1001;
pub const SERVICE: u32 = 998;

/// A guest's tree with a few programs.
pub struct Guest {
    directory: TempDir,
}

pub struct Gate(pub Child);

impl Gate {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    pub fn new() -> Self {
        let guest = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::set_permissions(guest.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["usr/bin", "usr/local/bin", "opt", "state", "run"] {
            fs::create_dir_all(guest.path(directory)).unwrap();
        }
        fs::create_dir(guest.path("home")).unwrap();
        fs::set_permissions(guest.path("home"), fs::Permissions::from_mode(0o777)).unwrap();
        guest.program("usr/bin/nc");
        guest.program("usr/bin/other");
        guest
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub fn program(&self, path: &str) {
        fs::copy("/bin/true", self.path(path)).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn restrict(&self, generation: u64, restricted: &[&str]) {
        self.hold_to(generation, restricted, false);
    }

    pub fn restrict_strictly(&self, generation: u64, restricted: &[&str]) {
        self.hold_to(generation, restricted, true);
    }

    /// Writes the table as the agent does.
    pub fn hold_to(&self, generation: u64, restricted: &[&str], strict: bool) {
        let table = GateTable {
            persona: "web".to_owned(),
            generation,
            path: "/usr/local/bin:/usr/bin".to_owned(),
            restricted: restricted.iter().map(|name| (*name).to_owned()).collect(),
            strict,
        };
        fs::create_dir_all(self.path("state/gate")).unwrap();
        let temporary = self.path("state/gate/.table.json.tmp");
        fs::write(&temporary, serde_json::to_vec(&table).unwrap()).unwrap();
        fs::rename(temporary, self.path("state/gate/table.json")).unwrap();
    }

    pub fn free(&self) {
        fs::remove_file(self.path("state/gate/table.json")).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-persona-gate"));
        command.arg("--root").arg(self.path(""));
        command.arg("--state").arg(self.path("state"));
        command.stdin(Stdio::null());
        command
    }

    /// Starts a gate.
    pub fn gate(&self) -> Gate {
        let _ = fs::remove_file(self.path("run/virt-persona-gate/standing.json"));
        let gate = Gate(self.command().spawn().unwrap());
        wait("the gate says how it stands", || self.standing().is_some());
        let standing = self.standing().unwrap();
        assert!(
            standing.problems.is_empty(),
            "this test needs root with CAP_SYS_ADMIN and a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS; the gate says: {:?}",
            standing.problems
        );
        gate
    }

    pub fn standing(&self) -> Option<GateStanding> {
        let bytes = fs::read(self.path("run/virt-persona-gate/standing.json")).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// Waits until the gate holds this generation with so many files.
    pub fn held(&self, generation: Option<u64>, files: usize) {
        wait("the gate holds the table", || {
            self.standing()
                .is_some_and(|now| (now.generation, now.files) == (generation, files))
        });
    }

    /// Whether a user can run it.
    pub fn runs(&self, user: u32, path: &str) -> bool {
        run(user, Command::new(self.path(path)))
    }
}

/// As a user whom no login stands behind.
pub fn run(user: u32, mut command: Command) -> bool {
    command.uid(user).gid(user).current_dir("/");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    loop {
        match command.status() {
            Ok(status) => return status.success(),
            // A child that another test has just forked still holds the program open for writing, until its own exec.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(1), "{error}");
                return false;
            }
        }
    }
}

pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < HUNG, "it never was so that {what}");
        thread::yield_now();
    }
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Whoever started this test with a login of his own is a person, whatever user the processes are.
pub fn is_persons() -> bool {
    let login = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    login
        .trim()
        .parse::<u32>()
        .is_ok_and(|uid| (1000..60_000).contains(&uid))
}
