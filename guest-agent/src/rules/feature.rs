//! Features of the guest that rules switch: programs in `/etc/virt-persona/features.d`, each called with `status`, `enable` or
//! `disable`. How a feature was before is on the disk before it is switched, and it goes back to that when the persona goes.
//! Rules switch through `hands`, the sequence of an activation releases; neither begins while the other is at it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use agent_protocol::{RequestId, limits::FEATURE_TIME_MS};
use serde::{Deserialize, Serialize};

use crate::{
    durable::{DurableError, Writer},
    log::{chain, log},
    owned::{runnable, trusted},
    program::{Dialogue, Ended, ProgramJob},
    script::ScriptError,
};

/// Where the programs are, under the root.
const DIRECTORY: &str = "etc/virt-persona/features.d";
/// Bytes of output that are looked at.
const OUTPUT_KEEP: usize = 1_024;
/// What is owed is nobody's but root's to read.
const PRIVATE: u32 = 0o600;

/// How a feature is, or is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    On,
    Off,
}

impl Switch {
    fn verb(self) -> &'static str {
        match self {
            Self::On => "enable",
            Self::Off => "disable",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// What came of switching a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switched {
    Done,
    Unchanged,
}

/// Why a feature is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeatureError {
    #[error("`{0}` is no name of a feature")]
    Name(String),
    #[error("the guest has no feature `{name}`: {path:?} {why}")]
    Absent {
        name: String,
        path: PathBuf,
        why: String,
    },
    #[error("another persona holds by now")]
    Overtaken,
    #[error("feature `{name}` does not say whether it is on: `status` ends with 0 or 1, and {how}")]
    Status { name: String, how: String },
    #[error("feature `{name}` could not be switched {to}: {how}")]
    Failed {
        name: String,
        to: &'static str,
        how: String,
    },
    #[error("feature `{name}` was told to be {to} and is not")]
    Stays { name: String, to: &'static str },
    #[error("its program cannot be run")]
    Run(#[from] ScriptError),
    #[error("how it was cannot be kept")]
    Write(#[from] DurableError),
    #[error("how it was cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl FeatureError {
    /// Whether nothing was begun.
    pub(super) fn was_refused(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::Stays { .. })
    }
}

/// A feature that rules have switched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owed {
    /// Of which persona.
    digest: String,
    /// How it was before.
    before: Switch,
}

#[derive(Debug, Default)]
struct Book {
    /// The persona that holds.
    digest: Option<String>,
    owed: BTreeMap<String, Owed>,
}

/// Runs a program of the guest.
pub(crate) type Run<'a> = &'a mut dyn FnMut(ProgramJob) -> Result<Ended, ScriptError>;

/// All features.
#[derive(Debug)]
pub(crate) struct Features {
    root: PathBuf,
    path: PathBuf,
    writer: Writer,
    book: Mutex<Book>,
}

impl Features {
    /// What rules have switched before; nothing is released yet.
    pub(crate) fn open(root: &Path, state: &Path, writer: Writer) -> io::Result<Self> {
        let path = state.join("features.json");
        let owed = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            root: root.to_owned(),
            path,
            writer,
            book: Mutex::new(Book { digest: None, owed }),
        })
    }

    /// Switches a feature for a rule of this persona. Success is what the feature itself shows afterwards.
    pub(super) fn switch(
        &self,
        name: &str,
        to: Switch,
        digest: &str,
        request: &RequestId,
        run: Run<'_>,
    ) -> Result<Switched, FeatureError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if book.digest.as_deref() != Some(digest) {
            return Err(FeatureError::Overtaken);
        }
        let program = self.program(name)?;
        let before = status(name, &program, request, run)?;
        if before == to {
            return Ok(Switched::Unchanged);
        }
        if !book.owed.contains_key(name) {
            let digest = digest.to_owned();
            book.owed.insert(name.to_owned(), Owed { digest, before });
            self.write(&book.owed)?;
        }
        turn(name, &program, to, request, run)?;
        if book.owed.get(name).is_some_and(|owed| owed.before == to) {
            book.owed.remove(name);
            self.write(&book.owed)?;
        }
        Ok(Switched::Done)
    }

    /// From here on this persona holds: what rules of others have switched goes back. What cannot go back now is told in the
    /// log and tried again with the next persona, or the next start.
    pub(crate) fn release(&self, digest: Option<&str>, request: &RequestId, run: Run<'_>) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.digest = digest.map(str::to_owned);
        let owed = |owed: &Owed| Some(owed.digest.as_str()) != digest;
        let others: Vec<(String, Switch)> = book
            .owed
            .iter()
            .filter(|(_, of)| owed(of))
            .map(|(name, of)| (name.clone(), of.before))
            .collect();
        for (name, before) in others {
            match self.give_back(&name, before, request, &mut *run) {
                Ok(()) => {
                    log!("feature {name} is {} again", before.word());
                    // What its program wrote comes before what is owed goes.
                    if let Err(error) = self.writer.settle(&self.root) {
                        log!("feature {name} may not last: {}", chain(&error));
                        continue;
                    }
                }
                // Its program is gone, and the feature with it.
                Err(error @ FeatureError::Absent { .. }) => log!("{error}"),
                Err(error) => {
                    log!("feature {name} does not go back: {}", chain(&error));
                    continue;
                }
            }
            book.owed.remove(&name);
            if let Err(error) = self.write(&book.owed) {
                log!("{}", chain(&error));
            }
        }
    }

    fn give_back(
        &self,
        name: &str,
        before: Switch,
        request: &RequestId,
        run: Run<'_>,
    ) -> Result<(), FeatureError> {
        let program = self.program(name)?;
        if status(name, &program, request, run)? == before {
            return Ok(());
        }
        turn(name, &program, before, request, run)
    }

    /// The program of a feature, which nobody but root may have put there.
    fn program(&self, name: &str) -> Result<PathBuf, FeatureError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(FeatureError::Name(name.to_owned()));
        }
        let directory = self.root.join(DIRECTORY);
        let path = directory.join(name);
        let above = directory.parent().unwrap_or(&directory);
        let usable = runnable(&path)
            .and_then(|()| trusted(above))
            .and_then(|()| trusted(&directory));
        match usable {
            Ok(()) => Ok(path),
            Err(why) => Err(FeatureError::Absent {
                name: name.to_owned(),
                path: Path::new("/").join(DIRECTORY).join(name),
                why,
            }),
        }
    }

    fn write(&self, owed: &BTreeMap<String, Owed>) -> Result<(), FeatureError> {
        if owed.is_empty() {
            return Ok(self.writer.remove(&self.path)?);
        }
        let bytes = serde_json::to_vec(owed)?;
        Ok(self.writer.replace(&self.path, &bytes, PRIVATE)?)
    }
}

fn call(
    program: &Path,
    verb: &str,
    request: &RequestId,
    run: Run<'_>,
) -> Result<Ended, ScriptError> {
    run(ProgramJob {
        request: request.clone(),
        program: program.to_owned(),
        arguments: vec![verb.to_owned()],
        variables: &[],
        time: Duration::from_millis(FEATURE_TIME_MS),
        keep: OUTPUT_KEEP,
        dialogue: Dialogue::Silent,
    })
}

fn status(
    name: &str,
    program: &Path,
    request: &RequestId,
    run: Run<'_>,
) -> Result<Switch, FeatureError> {
    let ended = call(program, "status", request, run)?;
    match ended.status.code() {
        Some(0) if !ended.timed_out => Ok(Switch::On),
        Some(1) if !ended.timed_out => Ok(Switch::Off),
        _ => Err(FeatureError::Status {
            name: name.to_owned(),
            how: how(&ended),
        }),
    }
}

fn turn(
    name: &str,
    program: &Path,
    to: Switch,
    request: &RequestId,
    run: Run<'_>,
) -> Result<(), FeatureError> {
    let ended = call(program, to.verb(), request, run)?;
    let (name, word) = (name.to_owned(), to.word());
    if !ended.succeeded() {
        let how = how(&ended);
        return Err(FeatureError::Failed {
            name,
            to: word,
            how,
        });
    }
    if status(&name, program, request, run)? != to {
        return Err(FeatureError::Stays { name, to: word });
    }
    Ok(())
}

/// How a program ended, and what it said first.
fn how(ended: &Ended) -> String {
    let end = match ended.status.code() {
        _ if ended.timed_out => "it did not end in time".to_owned(),
        Some(code) => format!("it ended with {code}"),
        None => "it was killed".to_owned(),
    };
    match ended.head.lines().find(|line| !line.trim().is_empty()) {
        Some(said) => format!("{end}, {said:?}"),
        None => end,
    }
}
