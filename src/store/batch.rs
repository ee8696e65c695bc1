//! Changes that become durable together, and how they are written. Called through [`Store::commit`].

use std::collections::BTreeMap;

use super::codec::{self, Body, Parts};
use super::{Store, StoreError, Stored, Tree};

/// Entries in a batch, at most. With [`BATCH_BYTES`] this keeps what sled writes for a batch (about three times its
/// bytes, for the nodes that it rewrites) well below the two segments after which sled may reuse old ones.
const BATCH_ENTRIES: usize = 1000;

/// Bytes of heads and keys in a batch, at most; long values count with their head alone.
const BATCH_BYTES: usize = 256 * 1024;

/// Parts that are written between two syncs, for the same reason: 16 of them are 64 KiB.
const PARTS_A_SYNC: usize = 16;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Changes to be made durable together. The last change of a key counts.
#[derive(Debug, Default)]
pub struct Batch {
    changes: BTreeMap<(Tree, Vec<u8>), Option<Vec<u8>>>,
}

/// One change, checked: `None` removes.
pub(super) struct Operation {
    tree: Tree,
    key: Vec<u8>,
    body: Option<Vec<u8>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Stores `value` under `key`, over what may be there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unstorable`]: it has no JSON form, or it or its key is too long. The batch stays as it was.
    pub fn put<T: Stored>(&mut self, key: impl AsRef<[u8]>, value: &T) -> Result<(), StoreError> {
        let key = key.as_ref();
        let refuse = |reason: String| StoreError::Unstorable {
            tree: T::TREE,
            key: codec::printable(key),
            reason,
        };
        if key.len() > codec::KEY_BYTES {
            return Err(refuse(format!(
                "its key has {} bytes, more than {}",
                key.len(),
                codec::KEY_BYTES
            )));
        }
        let body = serde_json::to_vec(value).map_err(|error| refuse(error.to_string()))?;
        if body.len() > codec::VALUE_BYTES {
            return Err(refuse(format!(
                "it has {} bytes, more than {}",
                body.len(),
                codec::VALUE_BYTES
            )));
        }
        self.changes.insert((T::TREE, key.to_vec()), Some(body));
        Ok(())
    }

    /// Removes what is under `key`; nothing there is fine.
    pub fn remove<T: Stored>(&mut self, key: impl AsRef<[u8]>) {
        self.changes.insert((T::TREE, key.as_ref().to_vec()), None);
    }

    /// Adds the changes of `other`; where both change a key, `other` counts.
    pub fn merge(&mut self, other: Self) {
        self.changes.extend(other.changes);
    }

    pub(super) fn into_operations(self) -> Result<Vec<Operation>, StoreError> {
        let size = |key: &[u8], body: &Option<Vec<u8>>| {
            let body = body.as_ref().map_or(0, Vec::len);
            key.len() + if body > codec::PART_BYTES { 0 } else { body }
        };
        let bytes = self
            .changes
            .iter()
            .map(|((_, key), body)| size(key, body))
            .sum();
        let operations = self.changes.len();
        if operations > BATCH_ENTRIES || bytes > BATCH_BYTES {
            return Err(StoreError::BatchTooLarge { operations, bytes });
        }
        Ok(self
            .changes
            .into_iter()
            .map(|((tree, key), body)| Operation { tree, key, body })
            .collect())
    }
}

impl Store {
    /// Writes the operations as one atomic batch and waits for the disk. The caller holds the commit lock.
    pub(super) fn write(&self, operations: Vec<Operation>) -> Result<(), Cause> {
        let mut batch = sled::Batch::default();
        for operation in operations {
            let Operation { tree, key, body } = operation;
            let head = codec::head_key(tree, &key);
            if let Some(old) = self.database.get(&head)?
                && let Some((_, Some(Body::Parts(parts)))) = codec::parse_value(&old)
            {
                for number in 0..parts.count {
                    batch.remove(codec::part_key(tree, &key, parts.id, number));
                }
            }
            match body {
                None => batch.remove(head),
                Some(body) if body.len() <= codec::PART_BYTES => {
                    batch.insert(head, codec::inline_value(tree.schema(), &body));
                }
                Some(body) => {
                    let parts = self.write_parts(tree, &key, &body)?;
                    batch.insert(head, codec::parts_value(tree.schema(), parts));
                }
            }
        }
        self.database.apply_batch(batch)?;
        self.sync()
    }

    /// Writes a long body in parts. Nothing refers to them yet; should the head never follow, the next start
    /// removes them.
    fn write_parts(&self, tree: Tree, key: &[u8], body: &[u8]) -> Result<Parts, Cause> {
        let id = self.next_body_id();
        let mut count: u16 = 0;
        let pieces: Vec<&[u8]> = body.chunks(codec::PART_BYTES).collect();
        for group in pieces.chunks(PARTS_A_SYNC) {
            let mut batch = sled::Batch::default();
            for piece in group {
                batch.insert(codec::part_key(tree, key, id, count), *piece);
                count += 1;
            }
            self.database.apply_batch(batch)?;
            self.sync()?;
        }
        Ok(Parts {
            id,
            count,
            length: u32::try_from(body.len())?,
        })
    }

    /// Everything applied so far survives a power cut when this returns.
    fn sync(&self) -> Result<(), Cause> {
        self.database.flush()?;
        self.data.sync_data()?;
        Ok(())
    }
}
