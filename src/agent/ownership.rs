//! The lock that keeps a second daemon off a domain's channel. QEMU accepts a second client of the socket and parks its
//! bytes until the first one goes, without a word to either; only a lock that both know prevents that. The link takes
//! it before it connects and holds it as long as it may connect again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use persona::domain::DomainId;

/// The lock of one domain's channel. The kernel frees it when the process ends, however it ends; the file stays, because
/// removing a locked file would let two processes hold "the" lock.
#[derive(Debug)]
pub(super) struct Ownership {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnershipError {
    /// Another process has it.
    #[error("another process holds {}: a second virt-personad seems to run; stop one of them", path.display())]
    Taken {
        /// The lock file.
        path: PathBuf,
    },
    /// The file could not be opened or locked.
    #[error("cannot lock {}", path.display())]
    Failed {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Takes the lock of `domain`'s channel in `directory` (made when it is absent), without waiting.
///
/// # Errors
/// [`OwnershipError`] when another process has it or the file system refuses.
pub(super) fn try_own(directory: &Path, domain: DomainId) -> Result<Ownership, OwnershipError> {
    // The name comes from a parsed UUID alone, so it can only be a file of this directory.
    let path = directory.join(format!("{domain}.lock"));
    let failed = |source| OwnershipError::Failed {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Ownership { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OwnershipError::Taken { path }),
        Err(TryLockError::Error(source)) => Err(OwnershipError::Failed { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: DomainId = DomainId([7; 16]);

    #[test]
    fn a_channel_has_one_owner_until_it_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let first = try_own(directory.path(), DOMAIN).unwrap();
        assert!(matches!(
            try_own(directory.path(), DOMAIN),
            Err(OwnershipError::Taken { .. })
        ));
        assert!(
            try_own(directory.path(), DomainId([8; 16])).is_ok(),
            "another domain is free"
        );
        drop(first);
        assert!(try_own(directory.path(), DOMAIN).is_ok());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = try_own(&file.path().join("run"), DOMAIN).unwrap_err();
        assert!(error.to_string().contains("run"), "{error}");
    }
}
