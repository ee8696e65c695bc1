//! A QEMU of the test's own, without libvirt: the test guest with its agent, a socket for the agent's port, and its monitor.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What hangs for so long does not end any more; no test passes or fails by this time otherwise.
pub(crate) const HUNG: Duration = Duration::from_secs(80);

/// The kernel and the initramfs, and what runs them.
struct Image {
    directory: PathBuf,
    accelerator: &'static str,
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let directory = PathBuf::from(last_line("tests/guest/build", &[]));
    let accelerator = match last_line("tests/guest/domain-type", &[&directory]).as_str() {
        "kvm" => "kvm",
        _ => "tcg",
    };
    Image {
        directory,
        accelerator,
    }
});

/// What runs guests here.
pub(crate) fn accelerator() -> &'static str {
    IMAGE.accelerator
}

fn last_line(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .args(arguments)
        // The setting of a test run's own programs would build the guest's programs anew.
        .env_remove("RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script} failed; it says why above, and `make setup` installs what it needs"
    );
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().last().unwrap().trim().to_owned()
}

/// A running emulator. It is killed at the end of the test.
pub(crate) struct Machine {
    child: Child,
    directory: PathBuf,
    name: &'static str,
    monitor: BufReader<UnixStream>,
}

impl Machine {
    /// Boots the guest.
    pub(crate) fn boot(directory: &Path, name: &'static str) -> Self {
        Self::start(directory, name, &[])
    }

    /// Waits for the guest of another machine, which [`Machine::migrate`] sends.
    pub(crate) fn awaiting(directory: &Path, name: &'static str) -> Self {
        let incoming = format!(
            "unix:{}",
            directory.join(name).with_extension("in").display()
        );
        Self::start(directory, name, &["-incoming", &incoming])
    }

    fn start(directory: &Path, name: &'static str, more: &[&str]) -> Self {
        let file = |extension| directory.join(name).with_extension(extension);
        let errors = File::create(file("err")).unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", &format!("q35,accel={}", IMAGE.accelerator)])
            .args(["-cpu", "max", "-m", "192", "-smp", "1"])
            .arg("-kernel")
            .arg(IMAGE.directory.join("vmlinuz"))
            .arg("-initrd")
            .arg(IMAGE.directory.join("initramfs.cpio.gz"))
            // On a host that is busy an emulated timer can look broken to the kernel's check of it, and it panics.
            .args([
                "-append",
                "console=ttyS0 quiet panic=1 mitigations=off no_timer_check",
            ])
            .args(["-serial", &format!("file:{}", file("console").display())])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", file("qmp").display()),
            ])
            .args(["-device", "virtio-serial-pci"])
            .args([
                "-chardev",
                &format!(
                    "socket,id=agent,path={},server=on,wait=off",
                    file("agent").display()
                ),
            ])
            .args([
                "-device",
                "virtserialport,chardev=agent,name=org.virtpersona.agent.0",
            ])
            // The guest's witness looks for its port again and again where there is none.
            .args(["-chardev", "null,id=witness"])
            .args([
                "-device",
                "virtserialport,chardev=witness,name=org.virtpersona.testguest.0",
            ])
            .args(more)
            .stdin(Stdio::null())
            .stderr(errors);
        let mut child = command
            .spawn()
            .expect("qemu-system-x86_64 does not start; `make setup` installs it");
        let stream = loop {
            match UnixStream::connect(file("qmp")) {
                Ok(stream) => break stream,
                Err(_) => {
                    assert_eq!(child.try_wait().unwrap(), None, "the emulator ended");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        };
        stream.set_read_timeout(Some(HUNG)).unwrap();
        let mut machine = Self {
            child,
            directory: directory.to_owned(),
            name,
            monitor: BufReader::new(stream),
        };
        machine.command("qmp_capabilities", json!({}));
        machine
    }

    /// The socket of the agent's port.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join(self.name).with_extension("agent")
    }

    /// Waits until the emulator has taken the port's client, which is connected before that.
    pub(crate) fn has_client(&mut self) {
        self.until("query-chardev", |devices| {
            let device = devices
                .as_array()?
                .iter()
                .find(|device| device["label"] == "agent")?;
            let waits = device["filename"].as_str()?.starts_with("disconnected:");
            (!waits).then_some(())
        });
    }

    /// Whether the emulator gave up the port's device: QEMU 7.2 says so in 8 of 129 migrations with a full ring, under
    /// emulation on a busy machine. The port carries nothing from then on.
    pub(crate) fn has_given_up_the_port(&self) -> bool {
        self.errors().contains("Virtqueue size exceeded")
    }

    /// What the emulator complained of.
    fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join(self.name).with_extension("err")).unwrap()
    }

    fn command(&mut self, name: &str, arguments: Value) -> Value {
        let command = json!({"execute": name, "arguments": arguments});
        writeln!(self.monitor.get_mut(), "{command}").unwrap();
        loop {
            let mut line = String::new();
            let length = self.monitor.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "the emulator ended while it did {name}");
            let mut said: Value = serde_json::from_str(&line).unwrap();
            // The greeting and events come between.
            if let Some(result) = said.get_mut("return") {
                return result.take();
            }
            assert!(said.get("error").is_none(), "{name}: {said}");
        }
    }

    /// Asks until the answer is final.
    fn until<T>(&mut self, name: &str, done: impl Fn(Value) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(done) = done(self.command(name, json!({}))) {
                return done;
            }
            assert!(began.elapsed() < HUNG, "{name} does not come to an end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn job(&mut self, name: &str, mut arguments: Value) {
        arguments["job-id"] = json!("job");
        self.command(name, arguments);
        let error = self.until("query-jobs", |jobs| {
            let job = jobs.as_array()?.iter().find(|job| job["id"] == "job")?;
            (job["status"] == "concluded").then(|| job["error"].clone())
        });
        assert!(error.is_null(), "{name}: {error}");
        self.command("job-dismiss", json!({"id": "job"}));
    }

    /// Gives the machine a place for snapshots.
    pub(crate) fn add_snapshots(&mut self) {
        let path = self.directory.join(self.name).with_extension("qcow2");
        let file = json!({"driver": "file", "filename": path, "size": 0});
        self.job("blockdev-create", json!({"options": file}));
        let file = json!({"driver": "file", "filename": path, "node-name": "file"});
        self.command("blockdev-add", file);
        let layout = json!({"driver": "qcow2", "file": "file", "size": 1 << 30});
        self.job("blockdev-create", json!({"options": layout}));
        let layout = json!({"driver": "qcow2", "file": "file", "node-name": "snapshots"});
        self.command("blockdev-add", layout);
    }

    /// Keeps the machine's state, with all that its ports have under way.
    pub(crate) fn save(&mut self) {
        let place = json!({"tag": "then", "vmstate": "snapshots", "devices": ["snapshots"]});
        self.job("snapshot-save", place);
    }

    /// Puts the machine back to the state that was saved; it runs on from there.
    pub(crate) fn revert(&mut self) {
        let place = json!({"tag": "then", "vmstate": "snapshots", "devices": ["snapshots"]});
        self.job("snapshot-load", place);
        self.command("cont", json!({}));
    }

    /// As the reset button.
    pub(crate) fn reset(&mut self) {
        self.command("system_reset", json!({}));
    }

    /// Moves the guest to a machine that awaits it, where it runs on.
    pub(crate) fn migrate(&mut self, to: &mut Machine) {
        let uri = format!(
            "unix:{}",
            to.directory.join(to.name).with_extension("in").display()
        );
        self.command("migrate", json!({"uri": uri}));
        self.until("query-migrate", |migration| {
            assert_ne!(migration["status"], "failed", "{migration}");
            (migration["status"] == "completed").then_some(())
        });
        to.until("query-status", |status| {
            (status["status"] == "running").then_some(())
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("emulator {}: {}", self.name, self.errors());
        }
    }
}
