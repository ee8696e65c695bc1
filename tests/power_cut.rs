//! Cuts the power of a machine in the midst of writing, and looks whether what the store acknowledged is there
//! afterwards. The machine is a guest of QEMU with a disk of its own: killing the emulator loses the guest kernel's
//! memory, and with it everything that was written but not made durable. No libvirt is needed.
#![allow(clippy::panic)] // A test that cannot go on ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// A guest that says nothing for so long hangs. It boots in seconds, but the host may be busy.
const SILENCE: Duration = Duration::from_secs(180);

/// One run of the guest.
struct Guest {
    emulator: Child,
    console: Receiver<String>,
    seen: Vec<String>,
}

impl Guest {
    fn boot(dir: &Path, words: &str) -> Self {
        let mut emulator = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "q35,accel=tcg",
                "-cpu",
                "max",
                "-m",
                "256",
                "-smp",
                "1",
                "-no-reboot",
            ])
            .args([
                "-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none",
            ])
            .args(["-kernel".as_ref(), dir.join("vmlinuz").as_os_str()])
            .args([
                "-initrd".as_ref(),
                dir.join("initramfs.cpio.gz").as_os_str(),
            ])
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 {words}")])
            .args([
                "-drive",
                &format!(
                    "file={},format=raw,if=virtio",
                    dir.join("disk.img").display()
                ),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64 does not start; `make setup` installs it");
        let output = emulator.stdout.take().expect("its output is piped");
        let (lines, console) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                // A line without its end was cut off and says nothing.
                if line.ends_with(b"\n")
                    && lines
                        .send(String::from_utf8_lossy(&line).trim().to_owned())
                        .is_err()
                {
                    break;
                }
                line.clear();
            }
        });
        Self {
            emulator,
            console,
            seen: Vec::new(),
        }
    }

    /// The next line of the console; `None` when the machine is off.
    fn line(&mut self) -> Option<String> {
        match self.console.recv_timeout(SILENCE) {
            Ok(line) => {
                assert!(!line.starts_with("FAILED"), "the guest says: {line}");
                self.seen.push(line.clone());
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("the guest hangs; it said: {:?}", self.seen)
            }
        }
    }

    /// What the check in the guest found: the last number that is there, and how many entries are missing before it.
    fn checked(&mut self) -> (u64, u64) {
        while let Some(line) = self.line() {
            if let ["LAST", last, "MISSING", missing] = line.split(' ').collect::<Vec<_>>()[..] {
                return (
                    last.parse().expect("a number"),
                    missing.parse().expect("a number"),
                );
            }
        }
        panic!(
            "the guest went off before it had checked; it said: {:?}",
            self.seen
        )
    }

    fn acknowledged(&mut self) -> u64 {
        while let Some(line) = self.line() {
            if let Some(number) = line.strip_prefix("ACK ") {
                return number.parse().expect("a number");
            }
        }
        panic!(
            "the guest went off before the power was cut; it said: {:?}",
            self.seen
        )
    }

    /// Kills the machine at once, and gives the last number that it had acknowledged.
    fn cut(mut self, last: u64) -> u64 {
        self.emulator.kill().expect("the emulator can be killed");
        self.emulator.wait().expect("the emulator is ours");
        // What was on its way is acknowledged too: the guest had said it.
        let said = self
            .console
            .iter()
            .filter_map(|line| line.strip_prefix("ACK ")?.parse().ok());
        said.fold(last, u64::max)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Where an assertion fails, no emulator stays behind. One that has ended already is fine.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

fn build(dir: &Path) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/guest/power-cut/build");
    let status = Command::new(&script)
        .arg(dir)
        .status()
        .expect("the build script starts");
    assert!(
        status.success(),
        "{} failed; it says why above",
        script.display()
    );
}

#[test]
fn what_the_store_acknowledged_survives_power_cuts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    build(dir.path());
    let mut acknowledged = 0;
    // Different amounts of work before the cut, so that it falls on different moments of the log's life.
    for commits in [150, 37, 401] {
        let mut guest = Guest::boot(dir.path(), "write=1000000");
        let (last, missing) = guest.checked();
        assert!(
            last >= acknowledged,
            "{} of {acknowledged} acknowledged commits are lost",
            acknowledged - last
        );
        assert_eq!(missing, 0, "entries before {last} are missing or damaged");
        let start = Instant::now();
        while acknowledged < last + commits {
            acknowledged = guest.acknowledged();
        }
        acknowledged = guest.cut(acknowledged);
        println!(
            "power cut after {} commits in {:?}",
            acknowledged - last,
            start.elapsed()
        );
    }
    let mut guest = Guest::boot(dir.path(), "");
    let (last, missing) = guest.checked();
    assert!(
        last >= acknowledged,
        "{} of {acknowledged} acknowledged commits are lost",
        acknowledged - last
    );
    assert_eq!(missing, 0, "entries before {last} are missing or damaged");
}
