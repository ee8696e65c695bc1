//! What package managers can be asked: what is there, what there could be, what an installation would change; fetch, install, remove.
//! One implementation each for apt, dnf and apk; nothing is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::{Duration, Instant},
};

use agent_protocol::VersionWish;

use super::{apk::Apk, apt::Apt, dnf::Dnf};
use crate::setting::{
    Guest, SettingError,
    machine::{Errand, Machine},
};

/// Bytes of a package manager's output that are kept: enough for some thousand packages, each on a line.
const OUTPUT_KEEP: usize = 1_024 * 1_024;
/// What package managers hear of their surroundings.
const VARIABLES: &[(&str, &str)] = &[
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("NEEDRESTART_MODE", "l"),
    ("COLUMNS", "200"),
];
/// Even when hardly any time is left, what repairs and removes gets as much.
const LEAST_TIME: Duration = Duration::from_secs(60);

/// A package to be installed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) name: String,
    /// The version that was chosen.
    pub(crate) version: String,
    /// What was asked for.
    pub(crate) wish: VersionWish,
}

/// What an installation or removal would do beside what it is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Packages that would be there and are not now.
    pub(super) fresh: BTreeSet<String>,
    /// Packages that would be gone.
    pub(super) gone: BTreeSet<String>,
}

/// Packages by name, with their versions.
pub(super) type Versions = BTreeMap<String, String>;

/// A package manager's words.
pub(super) trait Manager: Debug {
    /// The package manager's name, for people.
    fn name(&self) -> &'static str;
    /// All that is installed.
    fn installed(&self, tool: &mut Tool<'_, '_>) -> Result<Versions, SettingError>;
    /// Reads the lists of the sources anew.
    fn refresh(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError>;
    /// The versions of packages that the sources have; a package that no source has is left out.
    fn available(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeMap<String, Vec<String>>, SettingError>;
    /// What installing these would do; an error says why it cannot be.
    fn foresee(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<Change, SettingError>;
    /// Fetches all that an installation needs and changes nothing.
    fn fetch(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError>;
    /// Installs; removes nothing.
    fn install(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError>;
    /// Completes what was cut off in the midst.
    fn repair(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError>;
    /// Enters that packages are there because they were asked for.
    fn want(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError>;
    /// Enters that packages are no longer there because they were asked for; what of all that is there nothing needs then.
    fn unneeded(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError>;
    /// What would be gone if these were removed, themselves included.
    fn foresee_removal(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError>;
    /// Removes packages and leaves their configuration.
    fn remove(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError>;
}

/// The package manager that the guest has.
pub(super) fn manager_of(guest: Guest<'_>) -> Option<&'static dyn Manager> {
    let known: [(&str, &'static dyn Manager); 3] =
        [("apt-get", &Apt), ("dnf", &Dnf), ("apk", &Apk)];
    known
        .into_iter()
        .find_map(|(program, manager)| guest.program(program).map(|_| manager))
}

/// By which a package manager is run, all its programs within one time.
pub(super) struct Tool<'t, 'm> {
    pub(super) machine: &'t mut Machine<'m>,
    until: Instant,
}

impl<'t, 'm> Tool<'t, 'm> {
    pub(super) fn new(machine: &'t mut Machine<'m>, time: Duration) -> Self {
        Self {
            machine,
            until: Instant::now() + time,
        }
    }

    fn errand(&self) -> Errand {
        Errand {
            variables: VARIABLES,
            time: self
                .until
                .saturating_duration_since(Instant::now())
                .max(LEAST_TIME),
            keep: OUTPUT_KEEP,
        }
    }

    /// Runs a program with words that are always the same and words that are not; what it says when it succeeds.
    pub(super) fn run<'w>(
        &mut self,
        fixed: &[&'w str],
        words: impl IntoIterator<Item = &'w str>,
    ) -> Result<String, SettingError> {
        let all: Vec<&str> = fixed.iter().copied().chain(words).collect();
        let errand = self.errand();
        self.machine.run_within(&all, errand)
    }

    /// Runs a program whose failure says something, too; all that it says.
    pub(super) fn ask<'w>(
        &mut self,
        fixed: &[&'w str],
        words: impl IntoIterator<Item = &'w str>,
    ) -> Result<String, SettingError> {
        let all: Vec<&str> = fixed.iter().copied().chain(words).collect();
        let errand = self.errand();
        Ok(self.machine.ended(&all, errand)?.output)
    }
}

/// A failure of a command, with a line that it said.
pub(super) fn failed(command: &str, said: &str) -> SettingError {
    SettingError::Failed {
        command: command.to_owned(),
        said: said.trim().to_owned(),
    }
}
