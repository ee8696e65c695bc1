//! The real `virt-personad`, on the lab's libvirtd and bus. A lab has one at a time: two would want the same channels.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::{Lab, last_lines, signal};
use super::outcome::{Failure, Outcome, ensure, eventually};

/// Until it has its name on the bus. It does not wait for libvirtd or for guests before.
const ANSWERS: Duration = Duration::from_secs(60);

/// Until it has ended when it is asked to.
const ENDS: Duration = Duration::from_secs(30);

/// A daemon with its configuration, state and log, all in the lab; it ends with this value.
#[derive(Debug)]
pub(crate) struct Daemon {
    lab: Lab,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    host: Host,
    process: Option<Child>,
}

/// What a daemon sees of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The host as it is.
    AsItIs,
    /// One on which nothing waits for a CPU, whatever else runs: its CPU pressure is none.
    Calm,
}

/// `/proc/pressure/cpu` of such a host.
const CALM: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

impl Daemon {
    /// Starts one with an empty store and waits until it answers. `settings` is TOML of its configuration without
    /// `[hypervisor]` and `[paths]`, which are the lab's.
    pub(crate) fn start(lab: &Lab, settings: &str) -> Outcome<Self> {
        Self::start_with(lab, settings, &[], Host::AsItIs)
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(
        lab: &Lab,
        settings: &str,
        environment: &[(&str, &str)],
        host: Host,
    ) -> Outcome<Self> {
        let directory = tempfile::Builder::new()
            .prefix("daemon-")
            .tempdir_in(lab.directory().join("d"))?
            .keep();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut daemon = Self {
            lab: lab.clone(),
            directory,
            environment,
            host,
            process: None,
        };
        daemon.configure(settings)?;
        daemon.resume()?;
        Ok(daemon)
    }

    /// Writes the configuration; a running daemon reads it at its next start or [`Daemon::reload`].
    pub(crate) fn configure(&self, settings: &str) -> Outcome<()> {
        let directory = self.directory.display();
        let uri = self.lab.uri();
        fs::write(
            self.config(),
            format!(
                "[hypervisor]\nuri = \"{uri}\"\n\n[paths]\nstate = \"{directory}/state\"\nrun = \"{directory}/run\"\n\n{settings}\n"
            ),
        )?;
        Ok(())
    }

    /// Its configuration's file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("virt-personad.toml")
    }

    /// Its store's directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The number of its process, while it runs.
    pub(crate) fn pid(&self) -> Outcome<u32> {
        let process = self.process.as_ref();
        process
            .map(Child::id)
            .ok_or_else(|| Failure::new("the daemon is not running"))
    }

    /// Starts it again over what it has stored, and waits until it answers.
    pub(crate) fn resume(&mut self) -> Outcome<()> {
        self.resume_unheard()?;
        eventually("the daemon answers", ANSWERS, || {
            self.ensure_running()?;
            self.lab.persona(&["domains"]).map(drop)
        })
        .map_err(|failure| self.with_log(failure))
    }

    /// Starts it again and does not wait.
    pub(crate) fn resume_unheard(&mut self) -> Outcome<()> {
        ensure(self.process.is_none(), || {
            "the daemon is already running".to_owned()
        })?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = match self.host {
            Host::AsItIs => self.lab.command(self.lab.daemon_program()),
            Host::Calm => {
                let calm = self.directory.join("pressure");
                fs::write(&calm, CALM)?;
                // In a name space of mounts of its own, so that nobody else sees it.
                let over = "mount --bind \"$0\" /proc/pressure/cpu && exec \"$@\"";
                let mut command = self.lab.command("unshare");
                command.args(["--mount", "sh", "-c", over]).arg(calm);
                command.arg(self.lab.daemon_program());
                command
            }
        };
        let child = command
            .arg("--config")
            .arg(self.config())
            .args(["--bus", self.lab.bus()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::while_doing(self.lab.daemon_program().display(), error))?;
        self.process = Some(child);
        Ok(())
    }

    /// SIGKILL: it ends at whatever instruction it is.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, as the service manager stops it; how it ended.
    pub(crate) fn terminate(&mut self) -> Outcome<ExitStatus> {
        signal(self.pid()?, Signal::SIGTERM)?;
        let status = eventually("the daemon ends after SIGTERM", ENDS, || {
            let process = self.process.as_mut();
            process
                .ok_or_else(|| Failure::new("the daemon is not running"))?
                .try_wait()?
                .ok_or_else(|| Failure::new("it runs"))
        })
        .map_err(|failure| self.with_log(failure))?;
        self.process = None;
        Ok(status)
    }

    /// SIGHUP: it reads its configuration again.
    pub(crate) fn reload(&self) -> Outcome<()> {
        signal(self.pid()?, Signal::SIGHUP)
    }

    /// A failure if it has ended by itself.
    pub(crate) fn ensure_running(&mut self) -> Outcome<()> {
        let ended = match &mut self.process {
            Some(process) => process.try_wait()?,
            None => return Err(Failure::new("the daemon is not running")),
        };
        match ended {
            None => Ok(()),
            Some(status) => Err(self.with_log(Failure::new(format!(
                "the daemon has ended by itself ({status})"
            )))),
        }
    }

    /// All that it has logged, of all its starts.
    pub(crate) fn log(&self) -> Outcome<String> {
        let log = fs::read(self.log_path())?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Its log's file.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.with_extension("log")
    }

    /// A failure with the end of the log behind it.
    pub(crate) fn with_log(&self, failure: Failure) -> Failure {
        let log = fs::read(self.log_path()).unwrap_or_default();
        Failure::new(format!(
            "{failure}\n--- the end of the daemon's log\n{}",
            last_lines(&log)
        ))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)] // A test that fails is understood by this.
            {
                eprintln!("{}", self.with_log(Failure::new("a test failed")));
            }
        }
        // A kept lab keeps its daemon: whoever keeps it forgets this value.
        let _ = self.kill();
    }
}
