//! The persona's commands for people who log in to the guest: the table that the gate (`virt-persona-gate`) holds them to, and
//! links in a directory of their own that stand first in PATH, for commands in whose place another program runs. Commands
//! that the host asks for do not come here, `exec` looks them up by itself. The sequence of `activate` calls this.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::{
    CommandTable, GateTable, SettingLine, SettingOutcome, activation::Change, gate::TABLE_FILE,
};

use super::sudo;
use crate::{
    durable::{DurableError, Writer},
    gate,
    policy::{Firmness, Leave},
    script::PATH,
    setting::{Holding, Resource},
    store::Record,
};

/// Links of overridden commands. It is memory, so they are made again at the agent's start.
const SHIMS: &str = "/run/virt-persona-agent/shims";
/// Read by login shells, after the persona's own variables.
const PROFILE_D: &str = "/etc/profile.d/51-virt-persona-commands.sh";
/// Read by systemd's user managers, after the persona's own variables.
const ENVIRONMENT_D: &str = "/etc/environment.d/51-virt-persona-commands.conf";
/// The first line of these and of sudo's; a file without it is somebody else's.
const MARK: &str = "# Written by virt-persona-agent. Changes made here are lost.";
/// Nobody but root reads the table, as all state.
const PRIVATE: u32 = 0o600;

/// Why commands are not routed as the persona says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoutingError {
    #[error("{path:?} was not written by virt-persona-agent; move it away")]
    Foreign { path: PathBuf },
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the table of restricted commands as JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot route commands")]
    Write(#[from] DurableError),
}

/// What the guest's owner says of people who log in: whether they are held to a persona's commands, and how firmly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeopleLeave {
    pub(crate) leave: Leave,
    pub(crate) firmness: Firmness,
}

/// What is on the disk for it.
#[derive(Debug)]
pub(crate) struct Routing {
    root: PathBuf,
    table: PathBuf,
    leave: Leave,
    firmness: Firmness,
    writer: Writer,
}

/// Each file with its text; `None` is no file.
type Files = [(PathBuf, Option<Vec<u8>>, u32); 4];

impl Routing {
    pub(crate) fn new(root: &Path, state: &Path, people: PeopleLeave, writer: Writer) -> Self {
        Self {
            root: root.to_owned(),
            table: state.join(TABLE_FILE),
            leave: people.leave,
            firmness: people.firmness,
            writer,
        }
    }

    /// That nobody else's file is where this generation needs one.
    pub(crate) fn check_ours(&self, record: &Record) -> Result<(), RoutingError> {
        for (path, text, _) in self.files(Some(record))? {
            if text.is_some() && path != self.table && is_foreign(read(&path)?) {
                return Err(RoutingError::Foreign { path });
            }
        }
        Ok(())
    }

    /// Makes files and links those of this generation, and touches nothing that is so already.
    pub(crate) fn hold(&self, record: Option<&Record>) -> Result<(), RoutingError> {
        let files = self.files(record)?;
        for (path, text, mode) in files {
            let there = read(&path)?;
            if there == text {
                continue;
            }
            if path != self.table && is_foreign(there) {
                // Without anything to write it is not ours to take away.
                if text.is_none() {
                    continue;
                }
                return Err(RoutingError::Foreign { path });
            }
            match text {
                None => self.writer.remove(&path)?,
                Some(text) => {
                    if let Some(directory) = path.parent() {
                        let mode = if path == self.table { 0o700 } else { 0o755 };
                        self.writer.directory(directory, mode)?;
                    }
                    self.writer.replace(&path, &text, mode)?;
                }
            }
        }
        self.link(&self.links(record))
    }

    /// What the host is told of restricted commands, as of a setting: whether people are held to them.
    pub(crate) fn line(&self, record: &Record, outcome: Change) -> Option<SettingLine> {
        let commands = &record.activation.as_ref()?.commands;
        if commands.restricted.is_empty() {
            return None;
        }
        let only = |why| format!("refused to commands from the host only: {why}");
        let (outcome, reason) = if self.leave == Leave::Denied {
            let why = "the guest's owner does not allow more (`gate` in agent.toml)";
            (SettingOutcome::Kept, only(why))
        } else if !gate::runs(&self.root) {
            let is_closed = |held: &Holding| matches!(held.resource, Resource::Program(_));
            let why = if record.held.iter().any(is_closed) {
                "virt-persona-gate does not run in the guest, where their files are closed to all but owner and group"
            } else {
                "virt-persona-gate does not run in the guest"
            };
            (SettingOutcome::Refused, only(why))
        } else if outcome == Change::Unchanged {
            (SettingOutcome::Unchanged, String::new())
        } else {
            (SettingOutcome::Applied, String::new())
        };
        Some(SettingLine {
            setting: "restricted_commands".to_owned(),
            outcome,
            reason,
        })
    }

    /// What this generation says of commands, as far as the guest's owner lets it.
    fn commands<'a>(&self, record: Option<&'a Record>) -> Option<(&'a Record, &'a CommandTable)> {
        let record = record.filter(|_| self.leave == Leave::Granted)?;
        Some((record, &record.activation.as_ref()?.commands))
    }

    fn files(&self, record: Option<&Record>) -> Result<Files, RoutingError> {
        let restricted = self
            .commands(record)
            .filter(|(_, commands)| !commands.restricted.is_empty());
        let table = restricted.map(|(record, commands)| GateTable {
            persona: record
                .activation
                .as_ref()
                .map(|activation| activation.persona.clone())
                .unwrap_or_default(),
            generation: record.generation,
            path: PATH.to_owned(),
            restricted: commands.restricted.clone(),
            strict: self.firmness.strict,
        });
        let table = table
            .map(|table| serde_json::to_vec(&table))
            .transpose()
            .map_err(RoutingError::Json)?;
        let some = !self.links(record).is_empty();
        // A shell that is started from another has the directory in PATH already.
        let profile = format!(
            "{MARK}\ncase \":$PATH:\" in\n*:{SHIMS}:*) ;;\n*) PATH=\"{SHIMS}:$PATH\"; export PATH ;;\nesac\n"
        );
        let environment = format!("{MARK}\nPATH=\"{SHIMS}:${{PATH:-{PATH}}}\"\n");
        let sudoers = some.then(|| sudo::drop_in(&self.root, MARK, SHIMS));
        let sudoers = sudoers.transpose().map_err(|source| RoutingError::Read {
            path: self.under(sudo::SUDOERS_D),
            source,
        })?;
        Ok([
            (self.under(sudo::SUDOERS_D), sudoers.flatten(), sudo::MODE),
            (self.table.clone(), table, PRIVATE),
            (
                self.under(PROFILE_D),
                some.then(|| profile.into_bytes()),
                0o644,
            ),
            (
                self.under(ENVIRONMENT_D),
                some.then(|| environment.into_bytes()),
                0o644,
            ),
        ])
    }

    /// Overridden commands and what runs instead. One that is restricted, too, is refused and so has no link.
    fn links<'a>(&self, record: Option<&'a Record>) -> BTreeMap<&'a str, &'a str> {
        let Some((_, commands)) = self.commands(record) else {
            return BTreeMap::new();
        };
        commands
            .overrides
            .iter()
            .filter(|(name, _)| !commands.restricted.contains(name))
            .map(|(name, path)| (name.as_str(), path.as_str()))
            .collect()
    }

    /// Makes the links these and no others; without any the directory goes, too.
    fn link(&self, links: &BTreeMap<&str, &str>) -> Result<(), RoutingError> {
        let directory = self.under(SHIMS);
        let there = match fs::read_dir(&directory) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                let path = directory;
                return Err(RoutingError::Read { path, source });
            }
        };
        for name in there {
            if !name.to_str().is_some_and(|name| links.contains_key(name)) {
                self.writer.remove(&directory.join(name))?;
            }
        }
        if links.is_empty() {
            // It is gone already, or somebody put something into it.
            let _ = fs::remove_dir(&directory);
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            // Users pass here; they must not look.
            self.writer.directory(parent, 0o711)?;
        }
        self.writer.directory(&directory, 0o755)?;
        for (name, target) in links {
            let link = directory.join(name);
            if fs::read_link(&link).ok().as_deref() != Some(Path::new(target)) {
                self.writer.point(&link, Path::new(target))?;
            }
        }
        Ok(())
    }

    fn under(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Whether a file is there that somebody else has written.
fn is_foreign(there: Option<Vec<u8>>) -> bool {
    there.is_some_and(|there| !there.starts_with(MARK.as_bytes()))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RoutingError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RoutingError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
