//! Files that survive a power cut: a temporary file, synchronised, renamed, its directory synchronised. Without the first sync a
//! new file can come back empty, without the second it can be absent. What programs write, which know nothing of this, is made
//! durable by the file system. `store` and `activate` write through here alone, on the disk thread; the gauge tells the channel
//! when a write is stuck.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::unistd::syncfs;

use crate::telemetry::{boot_time, disks};

/// A write that takes longer means a frozen file system or a lost device.
pub(crate) const FROZEN_AFTER: Duration = Duration::from_secs(5);

/// Since when a write has been under way, for the other threads.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Milliseconds of CLOCK_BOOTTIME, 0 while idle: the clock began before any process did.
    began_ms: AtomicU64,
}

impl Gauge {
    /// Whether a write has been stuck for [`FROZEN_AFTER`].
    pub(crate) fn is_frozen(&self) -> bool {
        let began = self.began_ms.load(Ordering::Relaxed);
        let now = milliseconds(boot_time());
        began != 0 && now.saturating_sub(began) > milliseconds(FROZEN_AFTER)
    }
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path:?}")]
pub(crate) struct DurableError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The writer of the disk thread.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    gauge: Arc<Gauge>,
}

impl Writer {
    pub(crate) fn new(gauge: Arc<Gauge>) -> Self {
        Self { gauge }
    }

    /// The gauge that the other threads read.
    pub(crate) fn gauge(&self) -> Arc<Gauge> {
        Arc::clone(&self.gauge)
    }

    /// Makes `path` hold `bytes`, readable as `mode` says; it holds the old or the new content at any moment.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
        self.measured(|| {
            let temporary = temporary(path);
            remove_if_there(&temporary)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&temporary)
                .map_err(failed("create", &temporary))?;
            // The mode of `open` is subject to the umask.
            file.set_permissions(Permissions::from_mode(mode))
                .map_err(failed("set the mode of", &temporary))?;
            file.write_all(bytes).map_err(failed("write", &temporary))?;
            file.sync_all().map_err(failed("synchronise", &temporary))?;
            crash_point();
            fs::rename(&temporary, path).map_err(failed("replace", path))?;
            crash_point();
            sync_parent(path)
        })
    }

    /// Makes `path` a symbolic link to `target`; it leads to the old or the new target at any moment.
    pub(crate) fn point(&self, path: &Path, target: &Path) -> Result<(), DurableError> {
        self.measured(|| {
            let temporary = temporary(path);
            remove_if_there(&temporary)?;
            symlink(target, &temporary).map_err(failed("create", &temporary))?;
            fs::rename(&temporary, path).map_err(failed("replace", path))?;
            crash_point();
            sync_parent(path)
        })
    }

    /// Removes a file that may be there.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), DurableError> {
        self.measured(|| {
            crash_point();
            if remove_if_there(path)? {
                sync_parent(path)
            } else {
                Ok(())
            }
        })
    }

    /// Makes a directory and its parents.
    pub(crate) fn directory(&self, path: &Path, mode: u32) -> Result<(), DurableError> {
        if path.is_dir() {
            return Ok(());
        }
        self.measured(|| {
            fs::create_dir_all(path).map_err(failed("create", path))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(failed("set the mode of", path))?;
            sync_parent(path)
        })
    }

    /// Waits until everything that anybody has written to the guest's disks is on them: the file system of `root`, and each of the
    /// others. Which files a program has written nobody knows, so it is whole file systems. sync(2) would be one call for all of
    /// them, but it waits for those of other machines as well, where one whose server is gone would hold an activation for
    /// ever, and it does not say what failed. A disk that hangs holds it as it does every other write here, and the gauge tells.
    pub(crate) fn settle(&self, root: &Path) -> Result<(), DurableError> {
        let mut places = vec![root.to_owned()];
        places.extend(disks(root));
        self.measured(|| {
            for place in &places {
                let opened = match File::open(place) {
                    Ok(opened) => opened,
                    // Another file system lies over it, or it has gone: by this path nobody has written to it either.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) =>
                    {
                        continue;
                    }
                    Err(source) => return Err(failed("open", place)(source)),
                };
                syncfs(opened)
                    .map_err(io::Error::from)
                    .map_err(failed("synchronise the file system of", place))?;
            }
            Ok(())
        })
    }

    fn measured<T>(
        &self,
        write: impl FnOnce() -> Result<T, DurableError>,
    ) -> Result<T, DurableError> {
        self.gauge
            .began_ms
            .store(milliseconds(boot_time()).max(1), Ordering::Relaxed);
        crash_point();
        let outcome = write();
        crash_point();
        self.gauge.began_ms.store(0, Ordering::Relaxed);
        outcome
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> Result<bool, DurableError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

fn sync_parent(path: &Path) -> Result<(), DurableError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("synchronise", parent))
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DurableError + 'a {
    move |source| DurableError {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In debug builds a test can have this process killed at the n-th point between two file operations or programs of a setting, by
/// `VIRT_PERSONA_AGENT_CRASH_AT=n`, or have it ask at each of them, by `VIRT_PERSONA_AGENT_ASK_AT_POINTS`: it says the point's number
/// and waits for a line on its standard input. Release builds have no such points.
#[cfg(debug_assertions)]
pub(crate) fn crash_point() {
    use std::sync::LazyLock;
    static LEFT: LazyLock<Option<AtomicU64>> = LazyLock::new(|| {
        let number = std::env::var("VIRT_PERSONA_AGENT_CRASH_AT")
            .ok()?
            .parse()
            .ok()?;
        Some(AtomicU64::new(number))
    });
    static ASKS: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("VIRT_PERSONA_AGENT_ASK_AT_POINTS").is_some());
    static ASKED: AtomicU64 = AtomicU64::new(0);
    if *ASKS {
        let number = ASKED.fetch_add(1, Ordering::Relaxed) + 1;
        // Not a line of the log, which lets only so many through.
        let _ = writeln!(io::stderr(), "virt-persona-agent: point {number}");
        // An end of the input is an answer, too.
        let _ = io::stdin().read_line(&mut String::new());
    }
    if let Some(left) = &*LEFT
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn crash_point() {}
