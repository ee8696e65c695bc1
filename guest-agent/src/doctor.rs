//! `virt-persona-agent doctor`: whether this guest has what the agent needs, looked up without the running agent and without
//! changing anything. Each finding is a sentence, and one that is wrong says how to mend it. `main` calls it; what it finds out
//! about the port, starting, state and policy is each in a function of its own here.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_protocol::{SUPPORTED, message::clean_text};
use nix::unistd::{AccessFlags, access, geteuid};

use crate::{
    args::{Args, PORT_NAME, Transport},
    durable::{Gauge, Writer},
    gate,
    log::chain,
    policy::{self, Leave, Policy},
    store::Store,
};

/// The port of qemu-guest-agent.
const OTHER_PORT: &str = "org.qemu.guest_agent.0";
/// What the kernel keeps of the agent's name: 15 bytes.
const COMM: &str = "virt-persona-ag";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    state: State,
    text: String,
    /// How to mend it; empty where nothing is wrong.
    mend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fine,
    /// Worth to know.
    Note,
    Wrong,
}

impl Diagnosis {
    /// Looks at everything.
    pub(crate) fn of(args: &Args) -> Self {
        let mut found = Self::default();
        let (own, least, most) = (env!("CARGO_PKG_VERSION"), SUPPORTED.min, SUPPORTED.max);
        found.fine(&format!(
            "virt-persona-agent {own} speaks versions {least} to {most} of the protocol"
        ));
        if matches!(args.transport, Transport::NamedPort) {
            found.port(&args.root);
        }
        found.start(&args.root);
        found.state(&args.state);
        found.policy(&args.config);
        found.gate(args);
        found.kernel(&args.root);
        found
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_well(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.state != State::Wrong)
    }

    /// A line for each finding, and one more for how to mend what is wrong.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let word = match finding.state {
                State::Fine => "ok",
                State::Note => "note",
                State::Wrong => "wrong",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{word:<6} {}", shown(&finding.text));
            if !finding.mend.is_empty() {
                let _ = writeln!(text, "       {}", shown(&finding.mend));
            }
        }
        text
    }

    fn add(&mut self, state: State, text: &str, mend: &str) {
        self.findings.push(Finding {
            state,
            text: text.to_owned(),
            mend: mend.to_owned(),
        });
    }

    fn fine(&mut self, text: &str) {
        self.add(State::Fine, text, "");
    }

    fn note(&mut self, text: &str) {
        self.add(State::Note, text, "");
    }

    fn wrong(&mut self, text: &str, mend: &str) {
        self.add(State::Wrong, text, mend);
    }

    fn port(&mut self, root: &Path) {
        let ports = ports(root);
        if ports.iter().any(|(name, _)| name == OTHER_PORT) {
            self.note("qemu-guest-agent has a port of its own; both agents may run");
        }
        let Some((_, device)) = ports.iter().find(|(name, _)| name == PORT_NAME) else {
            let names: Vec<&str> = ports.iter().map(|(name, _)| name.as_str()).collect();
            let others = match names.as_slice() {
                [] => "and no other".to_owned(),
                names => format!("only {}", names.join(", ")),
            };
            self.wrong(
                &format!("this machine has no port named {PORT_NAME}, {others}"),
                "on the host, `virt-persona adopt DOMAIN` adds it",
            );
            return self.agents(root, None);
        };
        if !root.join("dev").join(device).exists() {
            self.wrong(
                &format!("the port {PORT_NAME} is there and /dev/{device} is not"),
                "mount devtmpfs on /dev, or let udev or mdev make its devices",
            );
            return;
        }
        self.fine(&format!("the port {PORT_NAME} is /dev/{device}"));
        let link = format!("/dev/virtio-ports/{PORT_NAME}");
        if root.join(&link[1..]).symlink_metadata().is_ok() {
            self.fine(&format!("{link} leads to it"));
        } else if root.join("run/systemd/system").exists() {
            self.wrong(
                &format!("{link} is missing, and the agent's unit is bound to it"),
                "udevadm trigger --subsystem-match=virtio-ports",
            );
        } else {
            self.note(&format!(
                "{link} is missing, as without udev; the agent finds the port by its name"
            ));
        }
        self.agents(root, Some(device));
    }

    /// Who runs, and who has the port.
    fn agents(&mut self, root: &Path, device: Option<&str>) {
        let running = agents(root);
        let start = "systemctl start virt-persona-agent, rc-service virt-persona-agent start, or what starts it here";
        let Some(device) = device else {
            if running.is_empty() {
                self.note("no agent runs");
            }
            return;
        };
        match (holders(root, device).as_slice(), running.as_slice()) {
            ([(pid, name)], _) if name.starts_with(COMM) => {
                self.fine(&format!(
                    "the agent runs, as process {pid}, and has the port"
                ));
            }
            ([(pid, name), ..], _) => self.wrong(
                &format!("the process {pid} ({name}) has the port, which only one can have"),
                "end it, and have it not started again",
            ),
            ([], []) => self.wrong("no agent runs", start),
            ([], _) if !geteuid().is_root() => {
                self.note("only root sees who has the port; the agent runs");
            }
            ([], [pid, ..]) => self.wrong(
                &format!("the agent runs, as process {pid}, and has not opened the port"),
                "its log says why; restart it",
            ),
        }
    }

    /// What starts the agent.
    fn start(&mut self, root: &Path) {
        let any = |places: &[&str]| places.iter().any(|place| root.join(place).exists());
        let unit = [
            "etc/systemd/system/virt-persona-agent.service",
            "usr/lib/systemd/system/virt-persona-agent.service",
            "lib/systemd/system/virt-persona-agent.service",
        ];
        let rule = [
            "etc/udev/rules.d/60-virt-persona-agent.rules",
            "usr/lib/udev/rules.d/60-virt-persona-agent.rules",
            "lib/udev/rules.d/60-virt-persona-agent.rules",
        ];
        if any(&["run/systemd/system"]) {
            let masked =
                fs::read_link(root.join(unit[0])).is_ok_and(|to| to == Path::new("/dev/null"));
            if masked {
                self.wrong(
                    "the unit virt-persona-agent.service is masked",
                    "systemctl unmask virt-persona-agent",
                );
            } else if !any(&unit) {
                self.wrong(
                    "systemd has no unit virt-persona-agent.service",
                    "copy systemd/virt-persona-agent.service to /etc/systemd/system, and systemctl daemon-reload",
                );
            } else if !any(&rule) {
                self.wrong(
                    "no udev rule starts the unit when the port is there",
                    "copy systemd/60-virt-persona-agent.rules to /etc/udev/rules.d, then udevadm control --reload",
                );
            } else {
                self.fine("systemd starts the agent when its port is there");
            }
        } else if any(&["run/openrc", "etc/runlevels"]) {
            if !any(&["etc/init.d/virt-persona-agent"]) {
                self.wrong(
                    "OpenRC has no service virt-persona-agent",
                    "copy openrc/virt-persona-agent to /etc/init.d, executable",
                );
            } else if !in_runlevel(root) {
                self.wrong(
                    "the service virt-persona-agent is in no runlevel",
                    "rc-update add virt-persona-agent default",
                );
            } else {
                self.fine("OpenRC starts the agent");
            }
        } else {
            let table = fs::read_to_string(root.join("etc/inittab")).unwrap_or_default();
            let starts = |line: &str| {
                !line.trim_start().starts_with('#') && line.contains("virt-persona-agent")
            };
            if table.lines().any(starts) {
                self.fine("init starts the agent, by /etc/inittab");
            } else {
                self.wrong(
                    "nothing is known here that starts the agent: no systemd, no OpenRC, no line in /etc/inittab",
                    "add the line of busybox/inittab to /etc/inittab",
                );
            }
        }
    }

    fn state(&mut self, state: &Path) {
        let place = state.display();
        let of = match fs::metadata(state) {
            Ok(of) => of,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.note(&format!(
                    "{place} is not there yet; the agent makes it when it starts first"
                ));
            }
            Err(error) => {
                return self.wrong(
                    &format!("{place} cannot be looked at: {error}"),
                    "run this as root",
                );
            }
        };
        if !of.is_dir() {
            self.wrong(
                &format!("{place} is no directory"),
                "remove it; the agent makes a directory there",
            );
        } else if of.mode() & 0o022 != 0 {
            self.wrong(
                &format!("others than its owner may write to {place}"),
                &format!("chmod 700 {place}"),
            );
        } else if access(state, AccessFlags::W_OK).is_err() {
            self.wrong(
                &format!("{place} cannot be written to"),
                "run this as root; if it is root already, the file system is read-only",
            );
        } else {
            match Store::view(state, Writer::new(Arc::new(Gauge::default()))) {
                Ok(_) => self.fine(&format!("{place} can be read and written")),
                Err(error) => self.wrong(
                    &format!("{place} cannot be used: {}", chain(&error)),
                    "restore it, or move it away: the host activates the persona anew",
                ),
            }
        }
    }

    fn policy(&mut self, config: &Path) {
        let place = config.display();
        let policy = match policy::read_policy(config) {
            Ok(policy) => policy,
            Err(error) => {
                return self.wrong(
                    &chain(&error),
                    "mend the file; the agent does not start with one that it cannot understand",
                );
            }
        };
        let writable = fs::metadata(config).is_ok_and(|of| of.mode() & 0o022 != 0);
        if writable {
            self.wrong(
                &format!("others than its owner may write to {place}"),
                &format!("chmod 644 {place}"),
            );
        }
        if !config.exists() {
            return self.fine(&format!("there is no {place}, so the defaults hold"));
        }
        if !writable {
            self.fine(&format!("{place} is understood"));
        }
        let denied = denied(&policy);
        if !denied.is_empty() {
            self.note(&format!("the owner does not allow {}", denied.join(", ")));
        }
    }

    fn gate(&mut self, args: &Args) {
        let Ok(store) = Store::view(&args.state, Writer::new(Arc::new(Gauge::default()))) else {
            return;
        };
        for line in gate::describe(&args.state, &args.root, store.current()) {
            self.note(&line);
        }
    }

    fn kernel(&mut self, root: &Path) {
        if root.join("proc/pressure/memory").exists() {
            self.fine("the kernel tells of memory pressure");
        } else {
            self.note("the kernel does not tell of memory pressure (psi=1), so the agent asks for no memory by itself");
        }
    }
}

/// What the owner does not allow, by the keys of the file.
fn denied(policy: &Policy) -> Vec<&'static str> {
    let keys = policy.keys().into_iter();
    let denied = keys.filter(|(_, leave)| *leave == Leave::Denied);
    denied.map(|(key, _)| key).collect()
}

/// Names and devices of the virtio ports that have a name.
fn ports(root: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(root.join("sys/class/virtio-ports"));
    let mut ports: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).ok()?;
            let device = entry.file_name().into_string().ok()?;
            Some((name.trim().to_owned(), device)).filter(|(name, _)| !name.is_empty())
        })
        .collect();
    ports.sort();
    ports
}

/// Processes with their names.
fn processes(root: &Path) -> impl Iterator<Item = (PathBuf, u32, String)> {
    let entries = fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let path = entry.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        Some((path, pid, name.trim().to_owned()))
    })
}

/// Agents that run, but the one that looks.
fn agents(root: &Path) -> Vec<u32> {
    let own = std::process::id();
    processes(root)
        .filter(|(_, pid, name)| name == COMM && *pid != own)
        .map(|(_, pid, _)| pid)
        .collect()
}

/// Who has a device open, as far as this user may see.
fn holders(root: &Path, device: &str) -> Vec<(u32, String)> {
    let device = Path::new("/dev").join(device);
    let holds = |path: &Path| {
        let files = fs::read_dir(path.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|to| to == device)
    };
    processes(root)
        .filter(|(path, _, _)| holds(path))
        .map(|(_, pid, name)| (pid, name))
        .collect()
}

fn in_runlevel(root: &Path) -> bool {
    let levels = fs::read_dir(root.join("etc/runlevels"));
    levels.into_iter().flatten().flatten().any(|level| {
        level
            .path()
            .join("virt-persona-agent")
            .symlink_metadata()
            .is_ok()
    })
}

/// One line without control characters.
fn shown(text: &str) -> String {
    clean_text(text, 400).replace('\n', " ")
}
