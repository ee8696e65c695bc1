//! What must survive a kill and a power cut. The only module that names sled; the catalogue and the audit trail keep
//! their state through it, and the daemon's carried planner state lies here too.
//!
//! Calls block. A read is answered from memory or by one read of the file; a commit writes and waits for the disk,
//! some hundred microseconds on a solid-state disk and some ten milliseconds on a rotating one, so async callers put
//! it on a blocking thread. Commits run one after another; reads wait for nothing.
//!
//! # What "durable" takes
//!
//! sled's own `flush` ends in `sync_file_range(2)`, which writes data but no metadata: after a power cut the blocks of
//! a file that has grown may belong to nobody. So each commit is followed by `fdatasync(2)` on sled's data file. Two
//! further conditions follow from how sled lays out its log:
//!
//! - Before sled reads its log it is synced, because what sled concludes from it (a snapshot) is durable at once,
//!   and must not rest on bytes that a killed predecessor left in memory only.
//! - sled moves live entries out of old segments and reuses these in place, at the earliest two segments (1 MiB)
//!   later. The move must be durable before the reuse, so no batch may write that much between two syncs: a batch is
//!   bounded, and a long value is written in parts, each synced, before the batch that refers to them.
//!
//! # What was lost is noticed
//!
//! sled takes a damaged log for one that ends where the damage begins, even at its start, and says nothing. So each
//! commit is numbered in its own batch, and after its sync the number goes to a file beside the log too. That file
//! is not synced: whatever it says is a number that was durable, so a log with a lower one has lost commits. Damage in
//! the midst of an older part is another matter: there sled may drop entries without a word, and nothing here notices;
//! what can be read is what was written.

mod batch;
mod codec;
mod error;
mod open;

use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use batch::Batch;
pub use error::StoreError;
pub use open::SetAside;

use codec::Body;

/// The kinds of entries. Each has a schema number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Immutable versions of personas.
    Versions,
    /// What each persona's name stands for: its current version and its next number.
    Names,
    /// Which tag means which persona.
    Mappings,
    /// Personas that people gave to domains explicitly.
    Bindings,
    /// What is to be active on each domain, and what is.
    Activations,
    /// What the planner carries from tick to tick: windows, cooldowns, holds.
    Planner,
    /// The audit trail.
    Audit,
    /// Counters and identities of the installation.
    Meta,
    /// Texts that tags lay over personas, by digest.
    Overrides,
    /// What the actions of rules did to metrics.
    Impacts,
    /// Definitions as they were before domains were adopted.
    Adoptions,
    /// Personas that rules gave to domains.
    Shifts,
    /// Domains that stay on a version because its rollout waits for them or stopped before them.
    Rollouts,
    /// What waits for people.
    Proposals,
    /// What is known of rules that guests evaluate.
    GuestRules,
    /// What rules have adjusted of the personas of domains.
    Adjustments,
    /// What rules of the host call for in guests and is not begun there.
    GuestCalls,
}

impl Tree {
    /// All of them, in the order of their bytes.
    pub const ALL: [Self; 17] = [
        Self::Versions,
        Self::Names,
        Self::Mappings,
        Self::Bindings,
        Self::Activations,
        Self::Planner,
        Self::Audit,
        Self::Meta,
        Self::Overrides,
        Self::Impacts,
        Self::Adoptions,
        Self::Shifts,
        Self::Rollouts,
        Self::Proposals,
        Self::GuestRules,
        Self::Adjustments,
        Self::GuestCalls,
    ];

    /// The byte that keys begin with. It is on disks: never change one, never use one again. Below 0x80.
    const fn byte(self) -> u8 {
        match self {
            Self::Versions => 1,
            Self::Names => 2,
            Self::Mappings => 3,
            Self::Bindings => 4,
            Self::Activations => 5,
            Self::Planner => 6,
            Self::Audit => 7,
            Self::Meta => 8,
            Self::Overrides => 9,
            Self::Impacts => 10,
            Self::Adoptions => 11,
            Self::Shifts => 20,
            Self::Rollouts => 21,
            Self::Proposals => 12,
            Self::GuestRules => 24,
            Self::Adjustments => 25,
            Self::GuestCalls => 26,
        }
    }

    /// The schema number that is written, and the newest that is read.
    const fn schema(self) -> u16 {
        match self {
            Self::Versions
            | Self::Names
            | Self::Mappings
            | Self::Bindings
            | Self::Activations
            | Self::Planner
            | Self::Audit
            | Self::Meta
            | Self::Overrides
            | Self::Impacts
            | Self::Adoptions
            | Self::Shifts
            | Self::Rollouts
            | Self::Proposals
            | Self::GuestRules
            | Self::Adjustments
            | Self::GuestCalls => 1,
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Versions => "the persona versions",
            Self::Names => "the persona names",
            Self::Mappings => "the tag mappings",
            Self::Bindings => "the bindings",
            Self::Activations => "the activations",
            Self::Planner => "the planner's state",
            Self::Audit => "the audit trail",
            Self::Meta => "the counters",
            Self::Overrides => "the overrides",
            Self::Impacts => "what actions did",
            Self::Adoptions => "the definitions of adopted domains",
            Self::Shifts => "the shifts of persona",
            Self::Rollouts => "the rollouts",
            Self::Proposals => "the proposals",
            Self::GuestRules => "what is known of rules in guests",
            Self::Adjustments => "what rules adjusted in guests",
            Self::GuestCalls => "what waits for guests",
        })
    }
}

/// What can be kept: its JSON form is what lies on the disk, under the schema number of its tree.
pub trait Stored: Serialize + DeserializeOwned {
    /// Where it is kept.
    const TREE: Tree;
}

/// An open store. Dropping it closes it.
pub struct Store {
    dir: PathBuf,
    database: sled::Db,
    /// sled's data file, opened once more for `fdatasync`.
    data: File,
    /// The number of the last commit, for the next start to compare.
    witness: File,
    /// Held during a commit, so commits run one after another.
    writing: Mutex<Writing>,
    /// Id of the next value in parts.
    next_body: AtomicU64,
    set_aside: Option<SetAside>,
    asides: Vec<PathBuf>,
    /// Locked for as long as the store is open; dropped last.
    _lock: File,
}

/// Where writing stands.
#[derive(Clone, Copy, Debug)]
struct Writing {
    health: Health,
    /// Commits so far, over all starts.
    commits: u64,
}

/// Whether the store takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    Failed,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store that could not be opened this time and was moved out of the way.
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.set_aside.as_ref()
    }

    /// All stores that lie aside in the state directory, this start's and earlier ones', for a person to look at.
    pub fn stores_aside(&self) -> &[PathBuf] {
        &self.asides
    }

    /// The value under `key`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`], [`StoreError::Unreadable`], [`StoreError::NewerSchema`].
    pub fn get<T: Stored>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, StoreError> {
        let key = key.as_ref();
        let head = self
            .database
            .get(codec::head_key(T::TREE, key))
            .map_err(|error| read_error(T::TREE, error))?;
        head.map(|head| self.decode(key, &head)).transpose()
    }

    /// All values of a kind, by rising key.
    ///
    /// # Errors
    ///
    /// As [`Store::get`]; the first that cannot be read ends it.
    pub fn all<T: Stored>(&self) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.database.scan_prefix([T::TREE.byte()]) {
            let (key, head) = entry.map_err(|error| read_error(T::TREE, error))?;
            let key = key[1..].to_vec();
            let value = self.decode(&key, &head)?;
            found.push((key, value));
        }
        Ok(found)
    }

    /// Shows values of a kind by falling key, until `visit` has seen enough.
    ///
    /// # Errors
    ///
    /// As [`Store::get`]; the first that cannot be read ends it.
    pub fn visit_back<T: Stored>(
        &self,
        mut visit: impl FnMut(&[u8], T) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for entry in self.database.scan_prefix([T::TREE.byte()]).rev() {
            let (key, head) = entry.map_err(|error| read_error(T::TREE, error))?;
            let value = self.decode(&key[1..], &head)?;
            if visit(&key[1..], value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The lowest key of a kind.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`].
    pub fn first_key<T: Stored>(&self) -> Result<Option<Vec<u8>>, StoreError> {
        callers_key::<T>(self.database.scan_prefix([T::TREE.byte()]).next())
    }

    /// The highest key of a kind.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`].
    pub fn last_key<T: Stored>(&self) -> Result<Option<Vec<u8>>, StoreError> {
        callers_key::<T>(self.database.scan_prefix([T::TREE.byte()]).next_back())
    }

    fn decode<T: Stored>(&self, key: &[u8], head: &[u8]) -> Result<T, StoreError> {
        let body = self.body(T::TREE, key, head)?;
        serde_json::from_slice(&body).map_err(|error| unreadable(T::TREE, key, error.to_string()))
    }

    /// The body of a value whose head was read. A commit may replace the value between the two reads; the parts that
    /// the head names are then gone, which reads as unreadable only where the key still has that same head.
    fn body(&self, tree: Tree, key: &[u8], head: &[u8]) -> Result<Vec<u8>, StoreError> {
        match parse_head(tree, key, head)? {
            Body::Inline(body) => Ok(body.to_vec()),
            Body::Parts(parts) => {
                let mut body = Vec::with_capacity(parts.length as usize);
                for number in 0..parts.count {
                    let part = self
                        .database
                        .get(codec::part_key(tree, key, parts.id, number))
                        .map_err(|error| read_error(tree, error))?;
                    let Some(part) = part else {
                        let again = self.database.get(codec::head_key(tree, key));
                        return match again.map_err(|error| read_error(tree, error))? {
                            Some(fresh) if *fresh != *head => self.body(tree, key, &fresh),
                            _ => Err(unreadable(
                                tree,
                                key,
                                format!("part {number} of {} is missing", parts.count),
                            )),
                        };
                    };
                    body.extend_from_slice(&part);
                }
                if body.len() != parts.length as usize {
                    let reason = format!(
                        "it has {} bytes and should have {}",
                        body.len(),
                        parts.length
                    );
                    return Err(unreadable(tree, key, reason));
                }
                Ok(body)
            }
        }
    }

    /// Makes a batch durable, all of it or nothing. When this returns `Ok`, it survives a power cut.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unstorable`] and [`StoreError::BatchTooLarge`] change nothing. After [`StoreError::Write`] it is
    /// not known what is on the disk, and every further commit is [`StoreError::Failed`].
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let operations = batch.into_operations()?;
        if operations.is_empty() {
            return Ok(());
        }
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = || self.dir.clone();
        if writing.health == Health::Failed {
            return Err(StoreError::Failed { dir: dir() });
        }
        let number = writing.commits.saturating_add(1);
        match self.write(operations, number) {
            Ok(()) => {
                writing.commits = number;
                Ok(())
            }
            Err(source) => {
                writing.health = Health::Failed;
                Err(StoreError::Write { dir: dir(), source })
            }
        }
    }

    /// Stores one value; returns when it is durable.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`].
    pub fn put<T: Stored>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.put(key, value)?;
        self.commit(batch)
    }

    fn next_body_id(&self) -> u64 {
        self.next_body.fetch_add(1, Ordering::Relaxed)
    }
}

/// The caller's part of the key of an entry.
fn callers_key<T: Stored>(
    entry: Option<sled::Result<(sled::IVec, sled::IVec)>>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let entry = entry
        .transpose()
        .map_err(|error| read_error(T::TREE, error))?;
    Ok(entry.map(|(key, _)| key[1..].to_vec()))
}

/// Takes a head apart and refuses what only a newer version can read.
fn parse_head<'a>(tree: Tree, key: &[u8], head: &'a [u8]) -> Result<Body<'a>, StoreError> {
    let Some((schema, body)) = codec::parse_value(head) else {
        return Err(unreadable(tree, key, "it has no schema number".to_owned()));
    };
    if schema > tree.schema() {
        let key = codec::printable(key);
        return Err(StoreError::NewerSchema {
            tree,
            key,
            found: schema,
            known: tree.schema(),
        });
    }
    if schema == 0 {
        return Err(unreadable(
            tree,
            key,
            "its schema number is 0, which was never written".to_owned(),
        ));
    }
    body.ok_or_else(|| unreadable(tree, key, "its header is malformed".to_owned()))
}

fn unreadable(tree: Tree, key: &[u8], reason: String) -> StoreError {
    StoreError::Unreadable {
        tree,
        key: codec::printable(key),
        reason,
    }
}

fn read_error(tree: Tree, source: sled::Error) -> StoreError {
    StoreError::Read {
        tree,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests;
