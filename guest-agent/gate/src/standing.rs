//! What the gate says of itself in its own directory under /run: that it runs, by a lock that ends with it, and how far it
//! holds the table, in a file for everybody. `main` opens it and `watch` writes there.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use agent_protocol::{
    GateStanding,
    gate::{GATE_DIRECTORY, LOCK_FILE, STANDING_FILE},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::report::{Sentences, chain};

/// Whoever may read it could lock it, and the gate would not begin.
const LOCK_MODE: u32 = 0o600;
/// How often the lock is tried, and the time between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Why the gate cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StandingError {
    #[error("cannot use {path:?}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another gate runs: it has locked {path:?}")]
    Another { path: PathBuf },
    #[error("cannot lock {path:?}")]
    Lock {
        path: PathBuf,
        #[source]
        source: Errno,
    },
}

/// The directory, locked.
#[derive(Debug)]
pub(crate) struct Standing {
    file: PathBuf,
    lock: Flock<File>,
    told: Option<GateStanding>,
    sentences: Sentences,
}

impl Standing {
    pub(crate) fn open(root: &Path) -> Result<Self, StandingError> {
        let directory = root.join(GATE_DIRECTORY);
        let path = directory.join(LOCK_FILE);
        let opened = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .and_then(|()| {
                OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .mode(LOCK_MODE)
                    .open(&path)
            })
            .and_then(|file| {
                // One that is there may have others.
                file.set_permissions(Permissions::from_mode(LOCK_MODE))?;
                Ok(file)
            });
        let opened = match opened {
            Ok(file) => file,
            Err(source) => return Err(StandingError::Directory { path, source }),
        };
        let mut opened = opened;
        for _ in 0..TRIES {
            match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    return Ok(Self {
                        file: directory.join(STANDING_FILE),
                        lock,
                        told: None,
                        sentences: Sentences::default(),
                    });
                }
                // Who looks whether a gate runs holds it for a moment, too.
                Err((again, Errno::EWOULDBLOCK)) => opened = again,
                Err((_, source)) => return Err(StandingError::Lock { path, source }),
            }
            thread::sleep(PAUSE);
        }
        Err(StandingError::Another { path })
    }

    /// A file of the gate's own.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Writes how far the table is held, when that has changed, and says the problems that are new.
    pub(crate) fn tell(&mut self, standing: &GateStanding) {
        if self.told.as_ref() == Some(standing) {
            return;
        }
        let told = self.told.as_ref();
        let told = told.map_or(&[][..], |told| &told.problems);
        for problem in &standing.problems {
            if !told.contains(problem) {
                self.sentences.line(problem);
            }
        }
        match self.write(standing) {
            Ok(()) => self.told = Some(standing.clone()),
            Err(error) => {
                let text = format!("cannot write {}: {error}", self.file.display());
                self.sentences.line(&text);
            }
        }
    }

    /// Leaves behind why there is no gate.
    pub(crate) fn tell_why_not(mut self, error: &dyn std::error::Error) {
        self.tell(&GateStanding {
            problems: vec![chain(error)],
            ..GateStanding::default()
        });
    }

    fn write(&self, standing: &GateStanding) -> io::Result<()> {
        let text = serde_json::to_vec(standing)?;
        let temporary = self.file.with_extension("new");
        let _ = fs::remove_file(&temporary);
        fs::write(&temporary, text)?;
        fs::rename(&temporary, &self.file)
    }
}
