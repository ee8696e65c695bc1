//! The agent of this workspace, as a guest would run it, in a tree of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::stage::until;

#[path = "../guest/agent.rs"]
mod program;

use program::AGENT;
pub(crate) use program::built;

/// A running agent; it is killed at the end of the test.
pub(crate) struct Agent {
    root: PathBuf,
    child: Child,
}

impl Agent {
    /// Where an agent in this tree listens.
    pub(crate) fn socket(root: &Path) -> PathBuf {
        root.join("agent.sock")
    }

    pub(crate) fn start(root: &Path) -> Self {
        Self::begin(root, &[], Stdio::null())
    }

    /// One whose first write does not come to its end until it is [thawed](Self::thaw).
    pub(crate) fn start_frozen(root: &Path) -> Self {
        // The first start of all writes before it listens.
        let first = Self::start(root);
        until("the agent listens", || {
            UnixStream::connect(Self::socket(root)).is_ok()
        });
        drop(first);
        fs::remove_file(Self::socket(root)).unwrap();
        // In builds for tests it asks at each such point, and waits for an answer.
        Self::begin(
            root,
            &[("VIRT_PERSONA_AGENT_ASK_AT_POINTS", "yes")],
            Stdio::piped(),
        )
    }

    /// From here on each of its writes comes to its end.
    pub(crate) fn thaw(&mut self) {
        drop(self.child.stdin.take());
    }

    fn begin(root: &Path, variables: &[(&str, &str)], input: Stdio) -> Self {
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            (
                "proc/meminfo",
                "MemTotal: 500000 kB\nMemAvailable: 400000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            ),
            ("proc/loadavg", "0.50 0.40 0.30 2/77 1234\n"),
            ("sys/devices/system/cpu/online", "0\n"),
            ("sys/devices/system/cpu/present", "0\n"),
            ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let child = Command::new(&*AGENT)
            .arg("--transport")
            .arg(format!("unix:{}", Self::socket(root).display()))
            .arg("--state")
            .arg(root.join("state"))
            .arg("--root")
            .arg(root)
            .arg("--config")
            .arg(root.join("etc/virt-persona/agent.toml"))
            .envs(variables.iter().copied())
            .stdin(input)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            root: root.to_owned(),
            child,
        }
    }

    /// Says in the guest that so much more memory is needed.
    ///
    /// # Errors
    /// What the agent answers.
    pub(crate) fn need(&self, amount: &str) -> Result<(), String> {
        self.ask(&["need", amount]).map(drop)
    }

    /// Has root in the guest ask the agent for something.
    ///
    /// # Errors
    /// What the agent answers.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<String, String> {
        let said = Command::new(&*AGENT)
            .args(words)
            .arg("--root")
            .arg(&self.root)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if said.status.success() {
            return Ok(text(&said.stdout));
        }
        Err(text(&said.stderr))
    }

    /// Says figures of applications, as soon as somebody takes them.
    pub(crate) fn emit(&self, words: &[&str]) {
        until("somebody takes figures", || {
            let said = Command::new(&*AGENT)
                .arg("emit")
                .args(words)
                .arg("--root")
                .arg(&self.root)
                .output()
                .unwrap();
            let why = String::from_utf8_lossy(&said.stderr);
            let taken = said.status.success();
            assert!(taken || why.contains("nobody takes figures"), "{why}");
            taken
        });
    }

    /// The environment that login shells of the guest get; `None` when there is none.
    pub(crate) fn environment(&self) -> Option<String> {
        fs::read_to_string(self.root.join("etc/profile.d/50-virt-persona.sh")).ok()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
