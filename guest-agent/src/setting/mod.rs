//! Settings of the guest's operating system. A plugin turns what is asked for into resources (files of the agent's own, kernel
//! parameters, units) and says what has to be run once when one of them changed; everything else is the same for all of
//! them: looking ([`Machine::probe`]), planning by one table of rules ([`plan()`]), doing and verifying ([`Machine::put`]),
//! undoing. `activate` alone calls this, on the disk thread; programs are run elsewhere, through [`Programs`].
//!
//! What is held outlives the agent in the record of its generation, with what was there before any persona.

mod closed;
mod default_program;
mod extension;
mod external;
mod logging;
mod machine;
mod plan;
mod restricted;
mod service;
mod software;
mod sysctl;
mod theme;
mod timer;
mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use agent_protocol::{SettingLine, SettingOutcome, Settings};
use serde::{Deserialize, Serialize};

use crate::{
    durable::DurableError,
    program::{Ended, ProgramJob},
    script::ScriptError,
};

pub(crate) use closed::{SETTING as CLOSED, directories as closed_directories, wish as close};
pub(crate) use machine::{Guest, Machine, Renewed};
pub(crate) use plan::{CHANGED, Deed, Phase, Plan, plan};
pub(crate) use service::unit_name;
pub(crate) use software::{
    Owned, Role, SoftwarePlan, install_software, plan_software, release_software, undo_software,
};
pub(crate) use sysctl::{DROP_IN as SYSCTL_DROP_IN, place_of as parameter_place};

/// The first line of every file of the agent's own.
const MARK: &str = "# Written by virt-persona-agent. It goes with the persona; a change made here is kept, and then it is yours.";
/// What is written beside a file that somebody in the guest has changed.
const NEW: &str = ".virt-persona-new";

/// Who runs programs; the disk thread passes them on to the commands thread.
pub(crate) trait Programs {
    /// Runs one program to its end.
    fn run_program(&mut self, job: ProgramJob) -> Result<Ended, ScriptError>;
}

/// Something of the guest that a persona can hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Resource {
    /// A file of the agent's own, by its absolute path.
    File(String),
    /// A kernel parameter while the kernel runs, by its path below `/proc/sys`.
    Kernel(String),
    /// A unit of systemd, with its suffix.
    Unit(String),
    /// The permissions of a program that is not the agent's, by its absolute path.
    Program(String),
    /// The entry that dpkg-statoverride keeps for a path.
    Override(String),
    /// What a plugin of the guest knows how to set, by the key that it is for.
    Plugin(String),
}

/// How a resource is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// There is no such file or entry, or no such kernel parameter any more.
    Absent,
    /// A file's content and mode.
    Text { text: String, mode: u32 },
    /// A kernel parameter's value, or the words of an entry.
    Value(String),
    /// A kernel parameter that is 0 because its counterpart has this value: the kernel takes no 0 for it.
    Through { counterpart: String, value: String },
    /// A unit's state.
    Unit {
        enabling: Enabling,
        running: Running,
    },
    /// A program's permissions, and the device and number of the file: another file of the name is an upgrade's.
    Program { mode: u32, file: (u64, u64) },
    /// What only a plugin understands.
    Opaque(serde_json::Value),
    /// Its plugin does not say.
    Unknown,
}

/// Whether a unit starts with the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Enabling {
    Enabled,
    Disabled,
    /// It has no say in that itself: static, generated, an alias.
    Fixed,
    /// Somebody in the guest does not let it start at all.
    Masked,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Running {
    Running,
    Stopped,
}

impl State {
    /// A unit that starts with the guest and runs, or neither.
    const UP: Self = Self::Unit {
        enabling: Enabling::Enabled,
        running: Running::Running,
    };
    const DOWN: Self = Self::Unit {
        enabling: Enabling::Disabled,
        running: Running::Stopped,
    };

    /// Whether what is there is as this says.
    pub(crate) fn fits(&self, live: &Self) -> bool {
        match (self, live) {
            // The kernel separates the parts of a value by tabs, whatever it was given.
            (Self::Value(wanted), Self::Value(found)) => {
                wanted.split_whitespace().eq(found.split_whitespace())
            }
            // What is not known is like nothing.
            (Self::Unknown, _) | (_, Self::Unknown) => false,
            (Self::Program { mode, .. }, Self::Program { mode: found, .. }) => mode == found,
            (Self::Through { .. }, Self::Value(found)) => found.trim() == "0",
            (
                Self::Unit { enabling, running },
                Self::Unit {
                    enabling: found,
                    running: runs,
                },
            ) => enabling.fits(*found) && running == runs,
            _ => self == live,
        }
    }
}

impl State {
    /// The same permissions for the file that lies there; any other state as it is.
    fn of_file(&self, live: &Self) -> Self {
        match (self, live) {
            (_, Self::Program { file, .. }) => self.for_file(*file),
            _ => self.clone(),
        }
    }

    /// The same permissions for another file; any other state as it is.
    fn for_file(&self, file: (u64, u64)) -> Self {
        match self {
            Self::Program { mode, .. } => Self::Program { mode: *mode, file },
            _ => self.clone(),
        }
    }

    /// Whether both are of programs, and an upgrade has brought one in the place of the other.
    fn is_another_than(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Program { file, .. }, Self::Program { file: found, .. }) if file != found)
    }
}

impl Enabling {
    fn fits(self, live: Self) -> bool {
        use Enabling::{Disabled, Fixed, Masked};
        self == live || live == Fixed || self == Fixed || (self == Disabled && live == Masked)
    }
}

/// What is run once after all files are as they shall be, when one of those that ask for it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Once {
    ReloadUnits,
    RestartJournald,
    RestartRsyslog,
    UpdateDconf,
}

/// A resource that a generation holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holding {
    /// The setting that it belongs to, for people.
    pub(crate) setting: String,
    pub(crate) resource: Resource,
    /// How it was before any persona held it.
    pub(crate) before: State,
    /// What was asked for.
    pub(crate) wanted: State,
    /// How it was after that was done: the base for telling other hands' changes.
    pub(crate) written: State,
    /// The boot in which it was written: a kernel's values end with it.
    pub(crate) boot_id: String,
    #[serde(default)]
    pub(crate) once: Option<Once>,
}

/// What one resource is to be.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    setting: String,
    resource: Resource,
    state: State,
    once: Option<Once>,
    will: Will,
}

/// Whose will it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Will {
    /// The persona's, or what was asked for in its place.
    Asked,
    /// Somebody has made it so by hand: while it is as that left it, it stays that person's.
    Found,
}

/// What the plugins make of settings.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    wanted: Vec<Wanted>,
    /// Settings that need no resource, or get none.
    lines: Vec<SettingLine>,
    /// Variables by which programs find their defaults.
    defaults: BTreeMap<String, String>,
    /// What stays held as it is, without a look at it.
    carried: Vec<Holding>,
}

impl Wishes {
    fn file(&mut self, setting: &str, path: &str, text: String, once: Option<Once>) {
        self.wanted.push(Wanted {
            setting: setting.to_owned(),
            resource: Resource::File(path.to_owned()),
            state: State::Text { text, mode: 0o644 },
            once,
            will: Will::Asked,
        });
    }

    fn resource(&mut self, setting: &str, resource: Resource, state: State) {
        self.wanted.push(Wanted {
            setting: setting.to_owned(),
            resource,
            state,
            once: None,
            will: Will::Asked,
        });
    }

    /// What of this is as somebody has made it by hand, by the names of the settings.
    pub(crate) fn found(&mut self, settings: &BTreeSet<String>) {
        for wanted in &mut self.wanted {
            if settings.contains(&wanted.setting) {
                wanted.will = Will::Found;
            }
        }
    }

    /// Why a setting cannot be had, if that is known without doing anything.
    pub(crate) fn refusal(&self) -> Option<&SettingLine> {
        let refused = |line: &&SettingLine| line.outcome == SettingOutcome::Refused;
        self.lines.iter().find(refused)
    }

    /// A setting that this guest cannot have as it is now. It is left out, and the others come about.
    fn refuse(&mut self, setting: &str, reason: &str) {
        self.line(setting, SettingOutcome::Refused, reason);
    }

    fn line(&mut self, setting: &str, outcome: SettingOutcome, reason: &str) {
        self.lines.push(SettingLine::new(setting, outcome, reason));
    }
}

/// Why a setting is not brought about. Whatever was begun is undone, unless it is known before anything is begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingError {
    /// The guest cannot be like that. A plugin says so while it looks; it never comes of doing.
    #[error("{setting}: {reason}")]
    Refused { setting: String, reason: String },
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set kernel parameter {parameter} to {value:?}")]
    Kernel {
        parameter: String,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("kernel parameter {parameter} is {found:?} after {value:?} was written")]
    NotTaken {
        parameter: String,
        value: String,
        found: String,
    },
    #[error("cannot set the permissions of {path:?}")]
    Mode {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("unit {unit} is not as asked after `systemctl` was told")]
    UnitNotTaken { unit: String },
    #[error("{setting}: {verb} by its plugin failed")]
    Plugin {
        setting: String,
        verb: &'static str,
        #[source]
        source: external::PluginError,
    },
    #[error("{setting} is {found} after its plugin was told {wanted}")]
    PluginNotTaken {
        setting: String,
        wanted: serde_json::Value,
        found: serde_json::Value,
    },
    #[error("cannot write a file of a setting")]
    Write(#[from] DurableError),
    #[error("`{command}` does not run")]
    NoProgram {
        command: String,
        #[source]
        source: ScriptError,
    },
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
}

fn refused(setting: &str, reason: impl Into<String>) -> SettingError {
    SettingError::Refused {
        setting: setting.to_owned(),
        reason: reason.into(),
    }
}

type Plugin = fn(&Settings, &mut Machine<'_>, &mut Wishes) -> Result<(), SettingError>;

/// All plugins; they look at the guest and change nothing. One with several settings refuses each by itself
/// ([`Wishes::refuse`]); by [`SettingError::Refused`] all that it wished for is left out.
const PLUGINS: [Plugin; 10] = [
    sysctl::wish,
    service::wish,
    logging::wish,
    timer::wish_updates,
    timer::wish_scans,
    default_program::wish,
    theme::wish,
    extension::wish_ide,
    extension::wish_browsers,
    external::wish,
];

/// What settings mean in this guest. What it cannot be like is said in a line and left out; an error is of looking.
pub(crate) fn wishes(
    settings: &Settings,
    machine: &mut Machine<'_>,
) -> Result<Wishes, SettingError> {
    let mut wishes = Wishes::default();
    for plugin in PLUGINS {
        let known = wishes.wanted.len();
        match plugin(settings, machine, &mut wishes) {
            Err(SettingError::Refused { setting, reason }) => {
                // Half of a setting is none.
                wishes.wanted.truncate(known);
                wishes.refuse(&setting, &reason);
            }
            done => done?,
        }
    }
    Ok(wishes)
}

/// The sets of [`Once`] of some resources.
type Onces = BTreeSet<Once>;
