//! Programs of the guest that are run for a request: those of the system by which a setting takes effect, package managers and
//! plugins. What they are run for is their callers'.

use std::{path::PathBuf, time::Duration};

use agent_protocol::limits::SCRIPT_OUTPUT_KEEP;

use super::{
    super::{Once, SettingError},
    Machine,
};
use crate::{
    durable::crash_point,
    program::{Dialogue, Ended, ProgramJob},
    script::ScriptError,
};

/// What a program gets beside its arguments.
#[derive(Clone, Copy, Debug)]
pub(in crate::setting) struct Errand {
    pub(in crate::setting) variables: &'static [(&'static str, &'static str)],
    pub(in crate::setting) time: Duration,
    /// Bytes of its output that are kept.
    pub(in crate::setting) keep: usize,
}

/// Programs of the system have as long: more than systemd waits for a unit to stop and start again (90 s each). On a guest that gets
/// little of its host's processors even `systemctl enable` takes minutes, and one that is given up leaves nobody knows what.
const SYSTEM: Errand = Errand {
    variables: &[],
    time: Duration::from_secs(200),
    keep: SCRIPT_OUTPUT_KEEP,
};

impl Machine<'_> {
    pub(super) fn run_once(&mut self, once: Once) -> Result<(), SettingError> {
        let systemd = self.guest.has_systemd();
        match once {
            Once::UpdateDconf => self.run(&["dconf", "update"]),
            Once::ReloadUnits => self.run(&["systemctl", "daemon-reload"]),
            Once::RestartJournald => {
                self.run(&["systemctl", "try-restart", "systemd-journald.service"])
            }
            Once::RestartRsyslog if systemd => {
                self.run(&["systemctl", "try-restart", "rsyslog.service"])
            }
            Once::RestartRsyslog if self.guest.program("rc-service").is_some() => {
                self.run(&["rc-service", "--ifstarted", "rsyslog", "restart"])
            }
            Once::RestartRsyslog => self.run(&["service", "rsyslog", "restart"]),
        }
        .map(drop)
    }

    /// Runs a program of the guest; what it says when it succeeds.
    pub(in crate::setting) fn run(&mut self, words: &[&str]) -> Result<String, SettingError> {
        self.run_within(words, SYSTEM)
    }

    /// Runs a program of the guest within bounds of its own; what it says when it succeeds.
    pub(in crate::setting) fn run_within(
        &mut self,
        words: &[&str],
        errand: Errand,
    ) -> Result<String, SettingError> {
        let ended = self.ended(words, errand)?;
        if ended.succeeded() {
            return Ok(ended.output);
        }
        let last = ended.output.trim_end().lines().last().unwrap_or_default();
        let said = if ended.timed_out {
            "it took too long".to_owned()
        } else {
            last.to_owned()
        };
        let command = words.join(" ");
        Err(SettingError::Failed { command, said })
    }

    /// Runs a program of the guest to its end, whatever that is.
    pub(in crate::setting) fn ended(
        &mut self,
        words: &[&str],
        errand: Errand,
    ) -> Result<Ended, SettingError> {
        let name = words.first().copied().unwrap_or_default();
        let path = self.guest.program(name).unwrap_or(name.to_owned());
        let job = ProgramJob {
            request: self.request.clone(),
            program: self.guest.path(&path),
            arguments: words
                .iter()
                .skip(1)
                .map(|word| (*word).to_owned())
                .collect(),
            variables: errand.variables,
            time: errand.time,
            keep: errand.keep,
            dialogue: Dialogue::Silent,
        };
        crash_point();
        let ended = self.programs.run_program(job);
        crash_point();
        ended.map_err(|source| SettingError::NoProgram {
            command: words.join(" "),
            source,
        })
    }

    /// Runs a program of the guest with one argument and something to read.
    pub(in crate::setting) fn converse(
        &mut self,
        program: PathBuf,
        argument: &str,
        input: String,
        time: Duration,
        keep: usize,
    ) -> Result<Ended, ScriptError> {
        let job = ProgramJob {
            request: self.request.clone(),
            program,
            arguments: vec![argument.to_owned()],
            variables: &[],
            time,
            keep,
            dialogue: Dialogue::Document(input),
        };
        crash_point();
        let ended = self.programs.run_program(job);
        crash_point();
        ended
    }
}
