//! Which file runs when a command is asked for, or who refuses it: the persona by its table, the guest's owner by
//! `agent.toml`, or the guest because there is no such program. A file is known by device and inode, so that no link and no
//! other path of it gets around a name; it is looked up once, and what was looked at is what runs. It is opened last: to open what is no
//! program, such as a device, can do something by itself.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use agent_protocol::{
    CommandTable,
    message::{ErrorCode, clean_text},
};
use nix::{libc, unistd::Uid};

use crate::{
    owned::owned,
    policy::{CommandLeave, Leave},
    script::PATH,
    sys::Form,
};

/// A file as the kernel knows it: device and inode.
type Identity = (u64, u64);

/// The program that runs.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) program: OwnedFd,
    pub(super) form: Form,
    /// Where it lies, for people.
    pub(super) path: String,
    /// Whether it runs in the place of what was asked for.
    pub(super) overridden: bool,
    /// What else is to be said of it.
    pub(super) notes: Vec<String>,
}

/// Why nothing runs, and who says so.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("the persona `{persona}` does not allow the command `{name}` (restricted_commands)")]
    RestrictedName { persona: String, name: String },
    #[error(
        "the persona `{persona}` does not allow `{asked}`: it is the same file as the command `{name}` (restricted_commands)"
    )]
    RestrictedFile {
        persona: String,
        asked: String,
        name: String,
    },
    #[error(
        "the guest's owner does not allow `{path}`: `commands` in agent.toml names what the host may run"
    )]
    NotAllowed { path: String },
    #[error("there is no command `{name}` in the guest's standard directories ({PATH})")]
    NoCommand { name: String },
    #[error("there is no program {path:?} in the guest")]
    NoProgram { path: PathBuf },
    #[error(
        "the persona has {path:?} run in the place of `{name}` (command_overrides), and there is no such program in the guest"
    )]
    NoOverride { name: String, path: String },
    #[error("{path:?} is no executable file")]
    NotExecutable { path: PathBuf },
    #[error("{path:?} {why}, so it is not run as root")]
    Untrusted { path: PathBuf, why: &'static str },
    #[error("{path:?} cannot be opened")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl LookupError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::RestrictedName { .. } | Self::RestrictedFile { .. } => ErrorCode::Restricted,
            Self::NotAllowed { .. } => ErrorCode::Forbidden,
            Self::NoCommand { .. } | Self::NoProgram { .. } | Self::NoOverride { .. } => {
                ErrorCode::NotFound
            }
            Self::Untrusted { .. } => ErrorCode::Untrusted,
            Self::NotExecutable { .. } | Self::Open { .. } => ErrorCode::CannotRun,
        }
    }
}

/// What a lookup goes by.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    /// The guest's tree.
    pub(super) root: &'a Path,
    /// The persona that is active, for sentences.
    pub(super) persona: &'a str,
    pub(super) table: &'a CommandTable,
    pub(super) leave: &'a CommandLeave,
}

/// A program that is there; its file is held (`O_PATH`) and not open.
struct Found {
    file: File,
    metadata: Metadata,
    path: PathBuf,
}

impl Found {
    fn identity(&self) -> Identity {
        identity(&self.metadata)
    }

    /// A path that leads to this very file.
    fn handle(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Whether the persona's table lets a program run, by its name and by the file that it leads to.
pub(crate) fn permitted(
    root: &Path,
    persona: &str,
    table: &CommandTable,
    asked: &str,
) -> Result<(), String> {
    let rules = Rules {
        root,
        persona,
        table,
        leave: &CommandLeave::All(Leave::Granted),
    };
    rules.refuse(asked).map_err(|error| error.to_string())
}

impl Rules<'_> {
    /// Refuses what is restricted; what is not there is for others to tell.
    fn refuse(&self, asked: &str) -> Result<(), LookupError> {
        self.refuse_name(asked)?;
        match self.find(asked) {
            Ok(Some(found)) => self.refuse_restricted(&clean_text(asked, 200), &found),
            _ => Ok(()),
        }
    }

    fn refuse_name(&self, asked: &str) -> Result<(), LookupError> {
        let file_name = asked.rsplit('/').next().unwrap_or(asked);
        if self.table.restricted.iter().any(|name| name == file_name) {
            return Err(LookupError::RestrictedName {
                persona: self.persona.to_owned(),
                name: clean_text(file_name, 200),
            });
        }
        Ok(())
    }

    /// The program for `asked`, a name or an absolute path, to be run as `user`.
    pub(super) fn choose(&self, asked: &str, user: Uid) -> Result<Chosen, LookupError> {
        let shown = clean_text(asked, 200);
        let file_name = asked.rsplit('/').next().unwrap_or(asked);
        self.refuse_name(asked)?;
        let found = self.find(asked)?;
        let replaced = self.table.overrides.get(file_name).filter(|_| {
            // A path is the command of this name only if it leads to that file.
            asked == file_name
                || found.as_ref().is_some_and(|found| {
                    self.files_of(file_name)
                        .any(|command| command == found.identity())
                })
        });
        if let Some(found) = &found {
            self.refuse_restricted(&shown, found)?;
        }
        let chosen = match replaced {
            Some(path) => self.at(path)?.ok_or_else(|| LookupError::NoOverride {
                name: shown.clone(),
                path: path.clone(),
            })?,
            None => found.ok_or_else(|| {
                if asked == file_name {
                    LookupError::NoCommand {
                        name: shown.clone(),
                    }
                } else {
                    LookupError::NoProgram { path: asked.into() }
                }
            })?,
        };
        if replaced.is_some() {
            self.refuse_restricted(&shown, &chosen)?;
        }
        self.finish(chosen, user, replaced.is_some())
    }

    /// The file of a name in the first directory that has it, or of a path.
    fn find(&self, asked: &str) -> Result<Option<Found>, LookupError> {
        if asked.starts_with('/') {
            return self.at(asked);
        }
        let executable = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        };
        match self.paths_of(asked).find(executable) {
            Some(path) => look(&path),
            None => Ok(None),
        }
    }

    fn at(&self, path: &str) -> Result<Option<Found>, LookupError> {
        look(&self.root.join(path.trim_start_matches('/')))
    }

    fn paths_of(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        PATH.split(':')
            .map(move |directory| self.root.join(directory.trim_start_matches('/')).join(name))
    }

    /// All files that a name leads to, in whichever directory.
    fn files_of(&self, name: &str) -> impl Iterator<Item = Identity> {
        self.paths_of(name)
            .filter_map(|path| fs::metadata(path).ok())
            .map(|metadata| identity(&metadata))
    }

    fn refuse_restricted(&self, asked: &str, found: &Found) -> Result<(), LookupError> {
        let restricted = &self.table.restricted;
        let same = |name: &&String| self.files_of(name).any(|file| file == found.identity());
        match restricted.iter().find(same) {
            None => Ok(()),
            Some(name) => Err(LookupError::RestrictedFile {
                persona: self.persona.to_owned(),
                asked: asked.to_owned(),
                name: name.clone(),
            }),
        }
    }

    /// The guest's own conditions.
    fn finish(&self, found: Found, user: Uid, overridden: bool) -> Result<Chosen, LookupError> {
        // Where it lies behind all links; the path that was looked up where the kernel does not say.
        let path = fs::read_link(found.handle()).unwrap_or_else(|_| found.path.clone());
        let path = match path.strip_prefix(self.root) {
            Ok(inner) => Path::new("/").join(inner),
            Err(_) => path,
        };
        if let CommandLeave::These(allowed) = self.leave {
            let is_this = |entry: &String| match entry.strip_prefix('/') {
                Some(path) => fs::metadata(self.root.join(path))
                    .is_ok_and(|metadata| identity(&metadata) == found.identity()),
                None => self.files_of(entry).any(|file| file == found.identity()),
            };
            if !allowed.iter().any(is_this) {
                let path = clean_text(&path.to_string_lossy(), 200);
                return Err(LookupError::NotAllowed { path });
            }
        }
        let mut notes = Vec::new();
        if let Err(why) = owned(&found.metadata) {
            if user.is_root() {
                return Err(LookupError::Untrusted { path, why });
            }
            notes.push(format!("{} {why}", path.display()));
        }
        let mut file = File::open(found.handle()).map_err(|source| LookupError::Open {
            path: path.clone(),
            source,
        })?;
        let mut start = [0; 2];
        let form = match file.read_exact(&mut start) {
            Ok(()) if start == *b"#!" => Form::Script,
            _ => Form::Binary,
        };
        Ok(Chosen {
            program: file.into(),
            form,
            path: clean_text(&path.to_string_lossy(), 1000),
            overridden,
            notes,
        })
    }
}

fn look(path: &Path) -> Result<Option<Found>, LookupError> {
    let held = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path);
    let failed = |source| LookupError::Open {
        path: path.to_owned(),
        source,
    };
    let file = match held {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(LookupError::NotExecutable {
            path: path.to_owned(),
        });
    }
    Ok(Some(Found {
        file,
        metadata,
        path: path.to_owned(),
    }))
}
