//! Why the store says no. Used by everything that keeps state; nothing of sled's own types leaves this folder.

use std::io;
use std::path::PathBuf;

use super::Tree;

/// A fault of the store, or its refusal.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the store in {} is in use by another process; only one daemon may run on a state directory", dir.display())]
    Locked {
        /// The state directory.
        dir: PathBuf,
    },
    /// The file system said no while the store was opened. Nothing was set aside, because nothing shows that the
    /// store itself is bad.
    #[error("{operation} of {} failed", path.display())]
    Open {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A value was written by a newer version of the daemon.
    #[error(
        "entry `{key}` of {tree} was written with schema {found}, and this version reads up to {known}; \
         start the newer version of the daemon, or move the state directory away"
    )]
    NewerSchema {
        /// Where.
        tree: Tree,
        /// Which entry, made printable.
        key: String,
        /// The schema number that it carries.
        found: u16,
        /// The newest schema number that this version reads.
        known: u16,
    },
    /// A value is there but cannot be understood.
    #[error("entry `{key}` of {tree} cannot be read: {reason}")]
    Unreadable {
        /// Where.
        tree: Tree,
        /// Which entry, made printable.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value could not be turned into bytes.
    #[error("entry `{key}` of {tree} cannot be stored: {reason}")]
    Unstorable {
        /// Where.
        tree: Tree,
        /// Which entry, made printable.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A batch is larger than what can be made durable in one step.
    #[error(
        "a batch of {operations} entries with {bytes} bytes is more than the store takes at once; write it in parts"
    )]
    BatchTooLarge {
        /// Entries in the batch.
        operations: usize,
        /// Bytes in the batch.
        bytes: usize,
    },
    /// Reading failed.
    #[error("reading {tree} failed")]
    Read {
        /// Where.
        tree: Tree,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Writing failed; whether the batch is on the disk is not known, and the store takes no more writes.
    #[error("writing to the store in {} failed; nothing more is written until the daemon is restarted", dir.display())]
    Write {
        /// The state directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier write failed. A sync that succeeds after one that failed proves nothing, so no write is tried.
    #[error(
        "an earlier write to the store in {} failed, so nothing is written; mend the disk and restart the daemon",
        dir.display()
    )]
    Failed {
        /// The state directory.
        dir: PathBuf,
    },
}
