//! The programs as they are installed, on a message bus of the test's own: `virt-personad --simulate` and the command
//! line.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A hung test shall end with a message; no test passes or fails by this time.
const HUNG: Duration = Duration::from_secs(120);

/// A folder with a bus, a configuration and a scenario.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    bus: Child,
    address: String,
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) child: Child,
}

impl Site {
    /// `scenario` may say `FOLDER` for a folder of the test's own.
    pub(crate) fn new(scenario: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = scenario.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(path("scenario.toml"), text).unwrap();
        std::fs::write(
            path("bus.conf"),
            format!(
                r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#,
                path("bus").display()
            ),
        )
        .unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", path("bus.conf").display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon; the package dbus-daemon (or dbus) has it");
        let mut line = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().to_owned();
        assert!(!address.is_empty(), "the bus did not start");
        let site = Self {
            folder,
            bus,
            address,
        };
        site.configure("");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Writes the configuration, with further lines.
    pub(crate) fn configure(&self, more: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "[paths]\nstate = '{folder}/state'\nrun = '{folder}/run'\n[tick]\ninterval_ms = 100\nslow_interval_ms = 1000\ntelemetry_ms = 200\n{more}"
        );
        self.write("config.toml", &text);
    }

    pub(crate) fn personad(&self, config: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-personad"));
        command
            .arg("--config")
            .arg(config)
            .arg("--simulate")
            .arg(self.path("scenario.toml"))
            .args(["--bus", &self.address])
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it answers and has found its domains.
    pub(crate) fn start(&self) -> Daemon {
        let mut daemon = Daemon {
            child: self
                .personad(&self.path("config.toml"))
                .stderr(std::fs::File::create(self.path("log")).unwrap())
                .spawn()
                .unwrap(),
        };
        self.wait("the daemon serves", || {
            assert!(
                daemon.child.try_wait().unwrap().is_none(),
                "the daemon ended: {}",
                std::fs::read_to_string(self.path("log")).unwrap_or_default()
            );
            let domains = self.cli(&["domains", "--json"]);
            domains.status.success()
                && serde_json::from_slice::<Value>(&domains.stdout)
                    .is_ok_and(|domains| domains.to_string().contains("web"))
        });
        daemon
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_virt-persona"))
            .args(["--connect", &self.address])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints that must succeed.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&self.done(&all)).unwrap()
    }

    /// What `doctor` finds, also where that is bad news and its exit status says so.
    pub(crate) fn doctor(&self) -> Value {
        let output = self.cli(&["doctor", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command says that must be refused: exit status 1, and every word.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], words: &[&str]) {
        let output = self.cli(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        for word in words {
            assert!(
                said.contains(word),
                "{arguments:?} does not say `{word}`: {said}"
            );
        }
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, mut good: impl FnMut() -> bool) {
        let began = Instant::now();
        while !good() {
            assert!(
                began.elapsed() < HUNG,
                "it never happened that {what}; the daemon's log:\n{}",
                std::fs::read_to_string(self.path("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until what is shown of a domain is as it shall be.
    #[track_caller]
    pub(crate) fn wait_status(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        self.wait(what, || {
            last = self.json(&["status", "web"]);
            good(&last)
        });
        last
    }

    /// The daemon as the test ends a bus: nobody is told.
    pub(crate) fn end_bus(&mut self) {
        self.bus.kill().unwrap();
        self.bus.wait().unwrap();
    }
}

impl Daemon {
    /// As `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    }

    pub(crate) fn ended(mut self) -> ExitStatus {
        ended(&mut self.child)
    }
}

/// Waits for the end of a program.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < HUNG, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}
