//! The lab itself: a libvirtd and a bus of its own, and how the host's programs (`virsh`, `virt-persona`) talk to them.
//!
//! The libvirtd is a session one of the user `nobody`: root's would be the system's, whose domains are somebody's. It
//! has its directories below the lab's, starts no network and knows no cgroup; everything else is as it is everywhere.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use virt_persona::view::{AuditView, DomainView, ExplainView};

use super::guest::TestGuest;
use super::leftovers::{self, Ground};
use super::outcome::{Failure, Outcome, eventually};
use super::services::{
    be_host, borrow_capabilities, capabilities, command_in, copy_files, make_directories,
    start_bus, start_libvirtd,
};

/// libvirtd asks QEMU for all that it can before it answers, which takes seconds on a slow machine.
const LIBVIRTD_ANSWERS: Duration = Duration::from_secs(60);

/// No answer to `virsh` or `virt-persona` takes this long, unless it never comes.
const ANSWER: &str = "60";

/// The programs under test.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `virt-personad`.
    pub(crate) daemon: PathBuf,
    /// `virt-persona`.
    pub(crate) command_line: PathBuf,
}

impl Programs {
    /// Those that cargo has built with the program that runs.
    pub(crate) fn beside_this_one() -> Outcome<Self> {
        let this = std::env::current_exe()?;
        // Tests are in target/PROFILE/deps, examples in target/PROFILE/examples.
        let directory = this
            .parent()
            .and_then(Path::parent)
            .ok_or_else(|| Failure::new("this program is not in a directory of cargo's"))?;
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Failure::new(format!(
                    "there is no {}; `cargo build --bins` makes it",
                    path.display()
                )))
            }
        };
        Ok(Self {
            daemon: find("virt-personad")?,
            command_line: find("virt-persona")?,
        })
    }
}

/// A lab; clones are the same one, and it ends with the last.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    programs: Programs,
    guest: TestGuest,
    directory: PathBuf,
    bus: String,
    libvirtd: Mutex<Child>,
    // The last field is the last to be dropped, and it ends the processes above.
    ground: Mutex<Ground>,
}

impl Lab {
    /// A lab with its libvirtd and its bus running, and without a daemon or a domain.
    pub(crate) fn start() -> Outcome<Self> {
        Self::start_with(Programs::beside_this_one()?)
    }

    /// With these programs.
    pub(crate) fn start_with(programs: Programs) -> Outcome<Self> {
        Self::open(programs, None)
    }

    /// One whose libvirtd takes itself for another host of this name, so that domains can migrate between it and others.
    pub(crate) fn start_as_host(name: &str) -> Outcome<Self> {
        Self::open(Programs::beside_this_one()?, Some(name))
    }

    fn open(programs: Programs, host: Option<&str>) -> Outcome<Self> {
        if !Uid::effective().is_root() {
            return Err(Failure::new(
                "the lab needs root: its daemon looks at QEMU's processes, and its libvirtd runs as another user",
            ));
        }
        let guest = TestGuest::build()?;
        let ground = Ground::clear()?;
        let directory = ground.path().to_owned();
        make_directories(&directory)?;
        if let Some(host) = host {
            be_host(&directory, host)?;
        }
        borrow_capabilities(&directory, &guest)?;
        let libvirtd = start_libvirtd(&directory)?;
        let bus = start_bus(&directory)?;
        let lab = Self {
            inner: Arc::new(Inner {
                programs,
                guest,
                directory,
                bus,
                libvirtd: Mutex::new(libvirtd),
                ground: Mutex::new(ground),
            }),
        };
        lab.wait_for_libvirtd()?;
        lab.lend_capabilities()?;
        Ok(lab)
    }

    /// The test guest that its domains run.
    pub(crate) fn guest(&self) -> &TestGuest {
        &self.inner.guest
    }

    /// The directory that holds all of it.
    pub(crate) fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Where files of domains go, as consoles and disks: QEMU can write there.
    pub(crate) fn domain_files(&self) -> PathBuf {
        self.inner.directory.join("h")
    }

    /// The D-Bus address of its bus.
    pub(crate) fn bus(&self) -> &str {
        &self.inner.bus
    }

    /// libvirt's URI of its libvirtd.
    pub(crate) fn uri(&self) -> String {
        format!(
            "qemu:///session?socket={}/r/libvirt/libvirt-sock",
            self.inner.directory.display()
        )
    }

    /// The program of the daemon.
    pub(crate) fn daemon_program(&self) -> &Path {
        &self.inner.programs.daemon
    }

    /// The program of the command line.
    pub(crate) fn command_line_program(&self) -> &Path {
        &self.inner.programs.command_line
    }

    /// A program with the lab's environment, in a process group of its own.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = command_in(&self.inner.directory, program);
        command.process_group(0);
        command
    }

    /// What `virsh` says to this. Its failure is ours.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> Outcome<String> {
        let output = self.try_virsh(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Failure::new(format!(
            "virsh {}: {} ({})",
            arguments.join(" "),
            stderr.trim(),
            output.status
        )))
    }

    /// The same with its exit status and both outputs, for what may be refused.
    pub(crate) fn try_virsh(&self, arguments: &[&str]) -> Outcome<Output> {
        self.command("timeout")
            .args([ANSWER, "virsh", "-q", "-c", &self.uri()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::while_doing("virsh", error))
    }

    /// What `virt-persona --json` answers, as JSON.
    pub(crate) fn persona(&self, arguments: &[&str]) -> Outcome<serde_json::Value> {
        self.persona_as(arguments)
    }

    /// What `virt-persona --json` answers, as the view that it prints.
    pub(crate) fn persona_as<V: DeserializeOwned>(&self, arguments: &[&str]) -> Outcome<V> {
        let output = self.try_persona(&[&["--json"], arguments].concat())?;
        if !output.status.success() {
            return Err(refused(arguments, &output));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::while_doing(
                format!("the answer to virt-persona {}", arguments.join(" ")),
                error,
            )
        })
    }

    /// What `virt-persona` prints for people.
    pub(crate) fn persona_text(&self, arguments: &[&str]) -> Outcome<String> {
        let output = self.try_persona(arguments)?;
        if !output.status.success() {
            return Err(refused(arguments, &output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `virt-persona` with its exit status and both outputs, for what may be refused.
    pub(crate) fn try_persona(&self, arguments: &[&str]) -> Outcome<Output> {
        self.command("timeout")
            .arg(ANSWER)
            .arg(&self.inner.programs.command_line)
            .args(["--connect", &self.inner.bus])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::while_doing("virt-persona", error))
    }

    /// What the daemon shows of a domain.
    pub(crate) fn status(&self, domain: &str) -> Outcome<DomainView> {
        self.persona_as(&["status", domain])
    }

    /// Why a domain did or did not change in its latest tick.
    pub(crate) fn explain(&self, domain: &str) -> Outcome<ExplainView> {
        self.persona_as(&["explain", domain])
    }

    /// The records about a domain, the latest last; at most `limit`.
    pub(crate) fn audit(&self, domain: &str, limit: u32) -> Outcome<AuditView> {
        self.persona_as(&["audit", "--domain", domain, "--limit", &limit.to_string()])
    }

    /// The number of libvirtd's process, for signals.
    pub(crate) fn libvirtd_pid(&self) -> u32 {
        self.libvirtd().id()
    }

    /// Ends libvirtd as a service manager would and starts it again; domains go on meanwhile.
    pub(crate) fn restart_libvirtd(&self) -> Outcome<()> {
        self.stop_libvirtd()?;
        self.resume_libvirtd()
    }

    /// Ends libvirtd, with SIGTERM; [`Lab::resume_libvirtd`] starts it again.
    pub(crate) fn stop_libvirtd(&self) -> Outcome<()> {
        let mut libvirtd = self.libvirtd();
        signal(libvirtd.id(), nix::sys::signal::Signal::SIGTERM)?;
        eventually(
            "libvirtd ends",
            Duration::from_secs(30),
            || match libvirtd.try_wait()? {
                Some(_) => Ok(()),
                None => Err(Failure::new("it runs")),
            },
        )
    }

    /// Starts libvirtd that has been ended, and waits until it answers.
    pub(crate) fn resume_libvirtd(&self) -> Outcome<()> {
        let started = start_libvirtd(&self.inner.directory)?;
        *self.libvirtd() = started;
        self.wait_for_libvirtd()
    }

    /// The ends of all logs, for a failure that needs more than its sentence.
    pub(crate) fn logs(&self) -> String {
        let mut files = vec![self.inner.directory.join("libvirtd.log")];
        for directory in [self.domain_files(), self.inner.directory.join("d")] {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path()).filter(|path| {
                path.extension()
                    .is_some_and(|e| e == "log" || e == "console")
            }));
        }
        files
            .iter()
            .filter_map(|file| Some((file, fs::read(file).ok()?)))
            .map(|(file, text)| {
                format!("--- the end of {}\n{}\n", file.display(), last_lines(&text))
            })
            .collect()
    }

    /// Leaves everything as it is when this program ends, and says how to end it by hand.
    pub(crate) fn keep(&self) -> Outcome<String> {
        self.ground().keep()?;
        Ok(leftovers::end_command(&self.inner.directory))
    }

    /// Ends all that belongs to the lab and removes it. Otherwise the same happens when the last clone goes, or when
    /// the program ends, but nobody hears whether it could be done.
    pub(crate) fn end(&self) -> Outcome<()> {
        self.ground().end()
    }

    fn ground(&self) -> MutexGuard<'_, Ground> {
        let ground = &self.inner.ground;
        ground.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn libvirtd(&self) -> MutexGuard<'_, Child> {
        let libvirtd = &self.inner.libvirtd;
        libvirtd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_libvirtd(&self) -> Outcome<()> {
        eventually("the lab's libvirtd answers", LIBVIRTD_ANSWERS, || {
            if let Some(status) = self.libvirtd().try_wait()? {
                return Err(Failure::new(format!(
                    "it has ended ({status}); `make setup` installs what it needs. {}",
                    self.logs()
                )));
            }
            self.virsh(&["version"]).map(drop)
        })
    }

    /// Keeps what libvirtd has found out about QEMU for the next lab. libvirtd itself looks whether it still holds.
    fn lend_capabilities(&self) -> Outcome<()> {
        let kept = self.inner.guest.directory.join("capabilities");
        copy_files(&capabilities(&self.inner.directory), &kept).map(drop)
    }
}

/// Signals a process of the lab.
pub(super) fn signal(pid: u32, signal: nix::sys::signal::Signal) -> Outcome<()> {
    let number = i32::try_from(pid).map_err(|_| Failure::new(format!("{pid} is no process")))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), signal)
        .map_err(|error| Failure::while_doing(format!("{signal} to process {pid}"), error))
}

/// The end of a log.
pub(super) fn last_lines(text: &[u8]) -> String {
    const LINES: usize = 60;
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn refused(arguments: &[&str], output: &Output) -> Failure {
    Failure::new(format!(
        "virt-persona {}: {} ({})",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim(),
        output.status
    ))
}
