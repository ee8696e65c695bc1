//! Power cuts in the midst of an activation, on a real guest's disk. The agent stops at each point between two operations and
//! asks on the console; there the emulator is frozen and its disk copied. What the guest had written and not made durable is
//! in its page cache alone and so not in the copy, as after a power cut. Then a guest is booted with the copies as its disks: its
//! kernel replays each file system's journal, and the agent recovers each of them. No number of points is written down here:
//! the agent says when it is through. One of the settings is a plugin's, which leaves what it writes to the kernel, as most
//! programs do.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use agent_protocol::message::{JournalState, OpStatus, ReplyBody};
use agent_protocol::{
    Activation, CommandTable, GuestRules, Operation, Request, RequestId, Settings,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::client::Client;
use super::machine::{HUNG, accelerator};

/// After so long a silence something is typed again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Disks of one machine; its bus has room for some more.
const DISKS: usize = 20;
/// A setting that a plugin keeps in a file. It is a new one each time, since ext4 takes care itself of one that is emptied and
/// filled again, or replaced. With the value 9 it fails when it is through.
const PLUGIN: &str = r#"#!/bin/sh
file=${0%/virt-persona/plugins.d/*}/size
document=$(cat)
text() { echo "$document" | sed -n "s/.*\"$1\":\[*\"\([0-9]*\)\".*/\1/p"; }
case $1 in
    probe | verify) echo "{\"state\":\"$(cat "$file" 2>/dev/null)\"}" ;;
    plan) echo "{\"state\":\"$(text values)\"}" ;;
    *)
        rm -f "$file"
        text state >"$file"
        if [ "$1" = apply ] && [ "$(text state)" = 9 ]; then echo '{"error":"no room"}'; else echo '{}'; fi ;;
esac
"#;

/// A machine whose console is the test's.
struct Guest {
    emulator: Child,
    console: Receiver<String>,
    keyboard: ChildStdin,
    socket: PathBuf,
    said: Vec<String>,
}

impl Guest {
    fn boot(image: &Path, directory: &Path, disks: &[PathBuf], words: &str) -> Self {
        let socket = directory.join("agent");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-machine", &format!("q35,accel={}", accelerator())])
            .args(["-cpu", "max", "-m", "192", "-smp", "1", "-serial", "stdio"])
            .arg("-kernel")
            .arg(image.join("vmlinuz"))
            .arg("-initrd")
            .arg(image.join("initramfs.cpio.gz"))
            // On a host that is busy an emulated timer can look broken to the kernel's check of it, and it panics.
            .args([
                "-append",
                &format!("console=ttyS0 quiet panic=-1 mitigations=off no_timer_check {words}"),
            ])
            .args(["-device", "virtio-serial-pci", "-chardev"])
            .arg(format!(
                "socket,id=agent,path={},server=on,wait=off",
                socket.display()
            ))
            .args([
                "-device",
                "virtserialport,chardev=agent,name=org.virtpersona.agent.0",
            ]);
        for disk in disks {
            // What the guest's disk has is in the host's cache then, which no cut of this test touches: the host need not
            // write it out at each of the guest's flushes.
            let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
            command.args(["-drive", &drive]);
        }
        let mut emulator = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64 does not start; `make setup` installs it");
        let keyboard = emulator.stdin.take().unwrap();
        let mut output = BufReader::new(emulator.stdout.take().unwrap());
        let (lines, console) = mpsc::channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if lines.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Self {
            emulator,
            console,
            keyboard,
            socket,
            said: Vec::new(),
        }
    }

    fn line(&mut self) -> String {
        match self.console.recv_timeout(HUNG) {
            Ok(line) => {
                assert!(
                    !line.contains("FAILED"),
                    "the guest says: {line}; before: {:?}",
                    self.said
                );
                self.said.push(line.clone());
                line
            }
            Err(error) => panic!(
                "the guest says nothing more ({error}); it said: {:?}",
                self.said
            ),
        }
    }

    fn enter(&mut self, line: &str) {
        self.keyboard
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Enters a line until the guest says this, since an emulated serial port can lose what is typed. The guest passes over
    /// what it has had.
    fn enter_until(&mut self, line: &str, said: &str) {
        let began = Instant::now();
        while began.elapsed() < HUNG {
            self.enter(line);
            while let Ok(heard) = self.console.recv_timeout(PATIENCE) {
                let done = heard == said;
                self.said.push(heard);
                if done {
                    return;
                }
            }
        }
        panic!("the guest does not say {said}; it said: {:?}", self.said);
    }

    /// Answers the agent's questions until it says this, and does something at each.
    fn until(&mut self, said: &str, mut at_point: impl FnMut(&Self)) {
        let mut silent_since = Instant::now();
        loop {
            let Ok(line) = self.console.recv_timeout(PATIENCE) else {
                assert!(
                    silent_since.elapsed() < HUNG,
                    "the guest does not say {said}; it said: {:?}",
                    self.said
                );
                // One answer too many is the next point's, whose copy then is of a moment soon after it.
                self.enter("");
                continue;
            };
            silent_since = Instant::now();
            self.said.push(line.clone());
            if line.contains("virt-persona-agent: point ") {
                at_point(self);
                self.enter("");
            } else if line.contains(said) {
                return;
            }
        }
    }

    /// Copies a disk as it would be if the power went at this moment: the machine does nothing meanwhile.
    fn cut(&self, disk: &Path, copy: &Path) {
        let emulator = Pid::from_raw(i32::try_from(self.emulator.id()).unwrap());
        kill(emulator, Signal::SIGSTOP).unwrap();
        let stopped = waitpid(emulator, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(emulator, Signal::SIGSTOP));
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(disk)
            .arg(copy)
            .status();
        assert!(copied.unwrap().success());
        kill(emulator, Signal::SIGCONT).unwrap();
    }

    /// Off, at once.
    fn off(mut self) {
        self.emulator.kill().unwrap();
        self.emulator.wait().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// A static agent that has its points, which the one for release has not.
fn agent() -> PathBuf {
    let target = "x86_64-unknown-linux-gnu";
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "virt-persona-agent",
            "--bin",
            "virt-persona-agent",
        ])
        .args(["--target", target, "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the agent does not build");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the program that it built")
}

fn image() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power-cut-of-the-agent");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(repository.join("tests/guest/build"))
        .arg("--output")
        .arg(&directory)
        .arg("--agent")
        .arg(agent())
        .arg("--overlay")
        .arg(repository.join("tests/agent_qemu/guest"))
        .env_remove("RUSTFLAGS")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success(),
        "tests/guest/build failed; it says why above"
    );
    directory
}

/// An empty disk with what a guest has before any persona.
fn disk(path: &Path, tree: &Path) {
    for directory in ["etc", "proc", "sys", "run"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    std::fs::write(tree.join("etc/group"), "root:x:0:\n").unwrap();
    let plugin = tree.join("etc/virt-persona/plugins.d/app.size");
    std::fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    std::fs::write(&plugin, PLUGIN).unwrap();
    std::fs::set_permissions(plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let done = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(tree)
        .arg(path)
        .arg("16M")
        .status();
    assert!(
        done.expect("mke2fs is missing; `make setup` installs it")
            .success()
    );
}

fn activation(generation: u64, value: &str) -> Operation {
    Operation::Activate {
        activation: Box::new(Activation {
            generation,
            persona: "web".to_owned(),
            version: generation,
            digest: format!("digest-{generation}"),
            environment: [("A".to_owned(), value.to_owned())].into(),
            settings: Settings {
                sysctl: [("vm.swappiness".to_owned(), value.to_owned())].into(),
                other: [("app.size".to_owned(), vec![value.to_owned()])].into(),
                ..Settings::default()
            },
            pre: None,
            post: None,
            commands: CommandTable {
                restricted: vec![format!("nc{value}")],
                ..CommandTable::default()
            },
            rules: GuestRules::default(),
            adjusted: None,
        }),
    }
}

fn post(client: &mut Client, id: &str, op: Operation) {
    let request = agent_protocol::HostMessage::Request(Request {
        id: RequestId::new(id).unwrap(),
        ttl_ms: 600_000,
        op,
    });
    let frame = client.frame(&request);
    client.raw(&frame);
}

/// What there is on a disk after the agent has recovered it: the generation that it says, and all that the guest shows.
fn recovered(guest: &mut Guest, number: u8) -> (u64, String) {
    let disk = loop {
        if let Some(disk) = guest.line().strip_prefix("DISK ") {
            break disk.to_owned();
        }
    };
    let mut client = Client::connect(&guest.socket, number);
    let generation = loop {
        let (ack, _) = client.greet();
        if ack.journal == JournalState::Clean {
            break ack.active.expect("one generation holds").generation;
        }
        thread::sleep(Duration::from_millis(20));
    };
    // The answer comes from the thread that recovers, after it has.
    let id = RequestId::new("none").unwrap();
    let ReplyBody::Ok(value) = client.ask("recovered", Operation::OpStatus { id }) else {
        panic!("the agent does not answer")
    };
    assert_eq!(
        serde_json::from_value::<OpStatus>(value).unwrap(),
        OpStatus::Unknown
    );
    drop(client);
    // What the agent logged stays in what was said, for whoever reads a failure.
    guest.enter_until(&disk, "SHOW");
    let mut shown = String::new();
    loop {
        let line = guest.line();
        if line.starts_with("END ") {
            return (generation, shown);
        }
        shown.push_str(&line);
        shown.push('\n');
    }
}

#[test]
fn a_power_cut_at_any_point_of_an_activation_leaves_the_old_or_the_new_generation() {
    let image = image();
    let directory = tempfile::tempdir().unwrap();
    let disk_path = directory.path().join("disk");
    disk(&disk_path, &directory.path().join("tree"));
    let mut guest = Guest::boot(
        &image,
        directory.path(),
        std::slice::from_ref(&disk_path),
        "ask",
    );
    // The socket is there long before the agent asks for the first time.
    while !guest.line().contains("virt-persona-agent: point ") {}
    guest.enter("");
    let mut client = Client::connect(&guest.socket, 1);
    client.say_hello();
    guest.until("session begins", |_| {});
    client.greet();
    post(&mut client, "first", activation(1, "1"));
    guest.until("generation 1 holds", |_| {});

    let mut copies = Vec::new();
    let copy = |guest: &Guest, number: usize| {
        let path = directory.path().join(format!("cut-{number}"));
        guest.cut(&disk_path, &path);
        path
    };
    copies.push(copy(&guest, 0));
    post(&mut client, "second", activation(2, "7"));
    guest.until("generation 2 holds", |guest| {
        let number = copies.len();
        copies.push(copy(guest, number));
    });
    let through = copies.len();
    post(&mut client, "third", activation(3, "9"));
    // Each disk costs seconds of a machine's start; the way forward is the same as before, and the way back mirrors it.
    let every = match std::env::var_os("VIRT_PERSONA_ALL_POINTS") {
        Some(_) => 1,
        None => 3,
    };
    let mut points = 0;
    guest.until("generation 3 failed", |guest| {
        if points % every == 0 {
            let number = copies.len();
            copies.push(copy(guest, number));
        }
        points += 1;
    });
    assert!(points > 20, "{points} points");
    drop(client);
    // And one that is no copy: the emulator is killed.
    guest.off();
    copies.push(disk_path.clone());

    let mut seen = Vec::new();
    for disks in copies.chunks(DISKS) {
        let mut guest = Guest::boot(&image, directory.path(), disks, "");
        for number in 0..disks.len() {
            seen.push(recovered(&mut guest, u8::try_from(number + 1).unwrap()));
        }
    }
    let (old, new) = (seen.first().unwrap().clone(), seen.last().unwrap().clone());
    assert_eq!((old.0, new.0), (1, 2));
    for (generation, value) in [(&old, "1"), (&new, "7")] {
        for part in [
            format!("export A='{value}'\n"),
            format!("A=\"{value}\"\n"),
            format!("\nvm.swappiness = {value}\n"),
            format!("\nswappiness {value}\n"),
            format!("\"nc{value}\""),
            format!("FILE /etc/size\n{value}\n"),
        ] {
            assert!(
                generation.1.contains(&part),
                "{part:?} is not in {}",
                generation.1
            );
        }
        assert!(!generation.1.contains("journal"), "{}", generation.1);
    }
    let mut counts = [0, 0];
    for (point, seen) in seen.iter().enumerate() {
        assert!(point < through || seen.0 == 2, "point {point}: {seen:?}");
        let whole = if seen.0 == 1 { &old } else { &new };
        assert_eq!(seen, whole, "point {point}");
        counts[usize::from(seen.0 == 2)] += 1;
    }
    eprintln!("{counts:?} of the disks have the old and the new generation");
    assert!(counts[0] > 5 && counts[1] > 20, "{counts:?}");
}
