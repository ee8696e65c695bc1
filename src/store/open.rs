//! Opening a store, and setting aside one that cannot be opened. The rest of the store relies on what is checked
//! here: one process, a readable log, no schema from the future, no leftovers.
//!
//! ```text
//! DIR/lock            locked while a daemon has the store open
//! DIR/db/             sled's own folder; DIR/db/db is its data file
//! DIR/db.aside-TIME/  a store that could not be opened at TIME (Unix seconds)
//! ```

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::codec::{self, Body};
use super::{Health, Store, StoreError, Tree, parse_head, read_error};

/// sled's page cache. The catalogue of a host is a few megabytes, and everything but the audit trail is read once.
const CACHE_BYTES: u64 = 8 << 20;

/// How long a store that was closed in this very process is waited for: sled's threads give up its lock late.
const CLOSING: Duration = Duration::from_secs(5);
const CLOSING_STEP: Duration = Duration::from_millis(20);

/// Entries of leftover parts that are removed in one batch.
const LEFTOVERS_A_BATCH: usize = 200;

/// A store that could not be opened and was moved out of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies.
    pub path: PathBuf,
    /// Why it could not be opened.
    pub reason: String,
}

/// Why a database could not be used.
enum Unusable {
    /// It is damaged: set it aside.
    Damaged(String),
    /// Something else is wrong: say so and touch nothing.
    Refused(StoreError),
}

impl Store {
    /// Opens the store in the state directory `dir`, creating both where they are missing. A store that cannot be
    /// opened because it is damaged is renamed, named in the log, and a fresh one takes its place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`], [`StoreError::Open`], [`StoreError::NewerSchema`]: nothing was changed.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        let lock = prepare(&dir)?;
        let path = dir.join("db");
        let mut set_aside = None;
        let database = loop {
            match open_database(&path) {
                Ok(database) => break database,
                Err(Unusable::Refused(error)) => return Err(error),
                // A fresh database that is damaged at once is no matter of old contents.
                Err(Unusable::Damaged(reason)) if set_aside.is_some() => {
                    return Err(open_error("creation", &path)(io::Error::other(reason)));
                }
                Err(Unusable::Damaged(reason)) => {
                    let aside = move_aside(&dir, &path)?;
                    tracing::error!(
                        path = %aside.display(), reason,
                        "the store could not be opened and was set aside; starting with an empty one"
                    );
                    set_aside = Some(SetAside {
                        path: aside,
                        reason,
                    });
                }
            }
        };
        let data = File::open(path.join("db")).map_err(open_error("opening", &path.join("db")))?;
        sync_tree(&dir, &path)?;
        let asides = list_asides(&dir)?;
        let mut store = Self {
            dir,
            database,
            data,
            writing: Mutex::new(Health::Good),
            next_body: AtomicU64::new(0),
            set_aside,
            asides,
            _lock: lock,
        };
        store.remove_leftovers()?;
        Ok(store)
    }

    /// Removes parts that no head refers to: what a kill between the parts and their head leaves. Parts that a head
    /// does refer to set the id of the next ones.
    fn remove_leftovers(&mut self) -> Result<(), StoreError> {
        let mut next = 0;
        let mut leftovers = Vec::new();
        for tree in Tree::ALL {
            let mut owners: HashMap<Vec<u8>, Option<u64>> = HashMap::new();
            for key in self.database.scan_prefix(codec::part_prefix(tree)).keys() {
                let key = key.map_err(|error| read_error(tree, error))?;
                let Some((owner, id)) = codec::parse_part_key(&key) else {
                    leftovers.push(key);
                    continue;
                };
                next = next.max(id.saturating_add(1));
                let current = match owners.get(owner) {
                    Some(current) => *current,
                    None => {
                        let head = self.database.get(codec::head_key(tree, owner));
                        let head = head.map_err(|error| read_error(tree, error))?;
                        let current =
                            head.as_deref()
                                .and_then(codec::parse_value)
                                .and_then(|(_, body)| match body {
                                    Some(Body::Parts(parts)) => Some(parts.id),
                                    _ => None,
                                });
                        owners.insert(owner.to_vec(), current);
                        current
                    }
                };
                if current != Some(id) {
                    leftovers.push(key);
                }
            }
        }
        *self.next_body.get_mut() = next;
        for group in leftovers.chunks(LEFTOVERS_A_BATCH) {
            let mut batch = sled::Batch::default();
            group.iter().for_each(|key| batch.remove(key));
            let written = self
                .database
                .apply_batch(batch)
                .and_then(|()| self.database.flush());
            let written = written
                .map_err(io::Error::other)
                .and_then(|_| self.data.sync_data());
            written.map_err(|source| StoreError::Write {
                dir: self.dir.clone(),
                source: Box::new(source),
            })?;
        }
        Ok(())
    }
}

fn open_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Open {
        operation,
        path,
        source,
    }
}

/// Creates the directory where it is missing, and takes the lock that makes this process its only user.
fn prepare(dir: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(dir).map_err(open_error("creation", dir))?;
    let path = dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(open_error("opening", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(open_error("locking", &path)(source)),
    }
}

/// Opens sled and reads everything that the daemon cannot do without.
fn open_database(path: &Path) -> Result<sled::Db, Unusable> {
    let data = path.join("db");
    match File::open(&data) {
        Ok(file) => file
            .sync_all()
            .map_err(|source| Unusable::Refused(open_error("syncing", &data)(source)))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Unusable::Refused(open_error("opening", &data)(source))),
    }
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let mut waited = Duration::ZERO;
    let database = loop {
        // sled panics on some kinds of damage. What it had in hand is dropped with the panic; nothing of it is used.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(database)) => break database,
            Ok(Err(error)) if is_lock(&error) && waited < CLOSING => {
                thread::sleep(CLOSING_STEP);
                waited += CLOSING_STEP;
            }
            Ok(Err(error)) => return Err(judge(path, error)),
            Err(_) => {
                return Err(Unusable::Damaged(
                    "sled panicked while opening it".to_owned(),
                ));
            }
        }
    };
    match catch_unwind(AssertUnwindSafe(|| verify(&database))) {
        Ok(Ok(())) => Ok(database),
        Ok(Err(error @ StoreError::NewerSchema { .. })) => Err(Unusable::Refused(error)),
        Ok(Err(error)) => Err(Unusable::Damaged(with_causes(&error))),
        Err(_) => Err(Unusable::Damaged(
            "sled panicked while reading it".to_owned(),
        )),
    }
}

/// sled has no variant for its lock, only these words.
fn is_lock(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

/// Damage is set aside; what the file system refuses (permission, space, a failing disk) is for a person.
fn judge(path: &Path, error: sled::Error) -> Unusable {
    match error {
        sled::Error::Io(_) if is_lock(&error) => {
            let dir = path.parent().unwrap_or(path).to_owned();
            Unusable::Refused(StoreError::Locked { dir })
        }
        sled::Error::Io(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            ) =>
        {
            Unusable::Refused(open_error("opening", path)(error))
        }
        error => Unusable::Damaged(error.to_string()),
    }
}

/// Reads every head, and every body but the audit trail's, whose size would make a start slow.
fn verify(database: &sled::Db) -> Result<(), StoreError> {
    for tree in Tree::ALL {
        for entry in database.scan_prefix([tree.byte()]) {
            let (key, head) = entry.map_err(|error| read_error(tree, error))?;
            if let Body::Parts(parts) = parse_head(tree, &key[1..], &head)?
                && tree != Tree::Audit
            {
                for number in 0..parts.count {
                    let part = database.get(codec::part_key(tree, &key[1..], parts.id, number));
                    if part.map_err(|error| read_error(tree, error))?.is_none() {
                        return Err(super::unreadable(
                            tree,
                            &key[1..],
                            format!("part {number} is missing"),
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

fn with_causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Renames the damaged store; never onto something that is there.
fn move_aside(dir: &Path, path: &Path) -> Result<PathBuf, StoreError> {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let names = std::iter::once(format!("db.aside-{time}"))
        .chain((1..).map(|n| format!("db.aside-{time}-{n}")));
    for name in names {
        let aside = dir.join(name);
        if aside
            .symlink_metadata()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            fs::rename(path, &aside).map_err(open_error("setting aside", path))?;
            return Ok(aside);
        }
    }
    unreachable!("the names never end")
}

fn list_asides(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut asides = Vec::new();
    for entry in fs::read_dir(dir).map_err(open_error("listing", dir))? {
        let entry = entry.map_err(open_error("listing", dir))?;
        if entry.file_name().to_string_lossy().starts_with("db.aside-") {
            asides.push(entry.path());
        }
    }
    asides.sort();
    Ok(asides)
}

/// Makes the names of files durable: a synced file that no directory knows is lost all the same.
fn sync_tree(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let mut paths = vec![
        path.join("db"),
        path.join("conf"),
        path.join("blobs"),
        path.to_owned(),
        dir.to_owned(),
    ];
    paths.extend(
        dir.parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .map(Path::to_owned),
    );
    for path in paths {
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(open_error("syncing", &path))?;
    }
    Ok(())
}
