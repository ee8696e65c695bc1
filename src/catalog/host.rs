//! The identity of this installation, which agents see: it stays as long as the store does.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError, Stored, Tree};

/// Identity of an installation: a random UUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(String);

impl HostId {
    /// The UUID in its usual form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Stored for HostId {
    const TREE: Tree = Tree::Meta;
}

/// The kernel's source of random UUIDs (random(4)).
const SOURCE: &str = "/proc/sys/kernel/random/uuid";

/// The identity in `store`; the first time it is made, and durable when this returns.
///
/// # Errors
///
/// What reading and writing the store gives, and [`StoreError::Open`] where the kernel gives no UUID.
pub fn host_id(store: &Store) -> Result<HostId, StoreError> {
    const KEY: &str = "host-id";
    if let Some(id) = store.get::<HostId>(KEY)? {
        return Ok(id);
    }
    let text = fs::read_to_string(SOURCE).map_err(|source| StoreError::Open {
        operation: "reading",
        path: PathBuf::from(SOURCE),
        source,
    })?;
    let id = HostId(text.trim().to_owned());
    store.put(KEY, &id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_identity_and_shares_it_with_no_other() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = |dir: &std::path::Path| host_id(&Store::open(dir).unwrap()).unwrap();
        let first = id(one.path());
        assert_eq!(first.as_str().len(), 36);
        assert_eq!(id(one.path()), first);
        assert_ne!(id(two.path()), first);
    }
}
