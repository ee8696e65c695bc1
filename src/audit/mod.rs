//! The append-only record of everything that was decided and done. The daemon appends, once a tick and before it
//! publishes; readers query. Nothing is ever changed; the oldest records go when there are more than the limit.
//!
//! Appending blocks until the records are durable (see [`crate::store`]). A query reads backwards and decodes each
//! record that it passes, about two microseconds each, so the newest are cheap and a search through a full trail
//! takes some tenths of a second.

mod record;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use persona::units::Moment;

pub use record::{AuditKind, AuditRecord, Entry};

use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError};

/// Records kept unless the configuration says otherwise. A host with a hundred busy domains writes some ten thousand
/// a day; a hundred thousand of them take some fifty megabytes.
pub const DEFAULT_LIMIT: u64 = 100_000;

/// Records and removals in one commit, and bytes of records in it, well below what the store takes at once.
const RECORDS_A_COMMIT: usize = 300;
const BYTES_A_COMMIT: usize = 128 * 1024;

/// Which records are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only those of this domain.
    pub domain: Option<DomainId>,
    /// Only those of then or later.
    pub since: Option<Moment>,
    /// Only those with a higher number: for readers that have the rest already.
    pub after: Option<u64>,
    /// Only the newest so many of what matches; `None` for all.
    pub limit: Option<usize>,
}

/// The trail.
#[derive(Debug)]
pub struct AuditTrail {
    store: Arc<Store>,
    limit: u64,
    ends: Mutex<Ends>,
}

/// Numbers of the oldest record and of the next one.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u64,
    next: u64,
}

impl AuditTrail {
    /// The trail in `store`, with at most `limit` records (at least 1); what is over it is dropped with the next
    /// append.
    ///
    /// # Errors
    ///
    /// What reading the store gives.
    pub fn open(store: Arc<Store>, limit: u64) -> Result<Self, StoreError> {
        let number = |key: Vec<u8>| <[u8; 8]>::try_from(key).map_or(0, u64::from_be_bytes);
        let next = store
            .last_key::<AuditRecord>()?
            .map_or(1, |key| number(key) + 1);
        let first = store.first_key::<AuditRecord>()?.map_or(next, number);
        let ends = Ends { first, next };
        Ok(Self {
            store,
            limit: limit.max(1),
            ends: Mutex::new(ends),
        })
    }

    /// Appends one record; durable when this returns.
    ///
    /// # Errors
    ///
    /// What writing the store gives; the record may then be there or not.
    pub fn append(&self, entry: Entry) -> Result<AuditRecord, StoreError> {
        let mut records = self.append_all(vec![entry])?;
        // Each entry gives one record, or the call fails.
        Ok(records.pop().expect("one entry gives one record"))
    }

    /// Appends records in their order, with one sync for up to some hundred of them; durable when this returns.
    ///
    /// # Errors
    ///
    /// What writing the store gives; a leading part of the records may then be there.
    pub fn append_all(&self, entries: Vec<Entry>) -> Result<Vec<AuditRecord>, StoreError> {
        self.append_with(Batch::new(), entries)
    }

    /// Commits other changes together with the first records, so that no change is there without its record: one
    /// sync for both. With no entries it just commits.
    ///
    /// # Errors
    ///
    /// What writing the store gives; then either nothing, or the changes with a leading part of the records is there.
    pub fn append_with(
        &self,
        changes: Batch,
        entries: Vec<Entry>,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = Vec::with_capacity(entries.len());
        let mut batch = changes;
        // Takes the place of `ends` when it is durable.
        let mut staged = *ends;
        let mut in_batch = (0, 0);
        for entry in entries {
            let record = entry.into_record(staged.next);
            let size = record.size();
            if in_batch.0 >= RECORDS_A_COMMIT
                || (in_batch.0 > 0 && in_batch.1 + size > BYTES_A_COMMIT)
            {
                self.drop_oldest(&mut staged, &mut batch);
                self.store.commit(std::mem::take(&mut batch))?;
                *ends = staged;
                in_batch = (0, 0);
            }
            batch.put(record.seq.to_be_bytes(), &record)?;
            staged.next += 1;
            in_batch = (in_batch.0 + 1, in_batch.1 + size);
            records.push(record);
        }
        self.drop_oldest(&mut staged, &mut batch);
        self.store.commit(batch)?;
        *ends = staged;
        drop(ends);
        records.iter().for_each(AuditRecord::log);
        Ok(records)
    }

    /// Removes what is over the limit, up to a commit's worth; the rest goes with later appends.
    fn drop_oldest(&self, ends: &mut Ends, batch: &mut Batch) {
        for _ in 0..RECORDS_A_COMMIT {
            if ends.next - ends.first <= self.limit {
                break;
            }
            batch.remove::<AuditRecord>(ends.first.to_be_bytes());
            ends.first += 1;
        }
    }

    /// The records that match, the newest last.
    ///
    /// # Errors
    ///
    /// What reading the store gives.
    pub fn query(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>, StoreError> {
        let mut found = Vec::new();
        if query.limit == Some(0) {
            return Ok(found);
        }
        self.store.visit_back::<AuditRecord>(|_, record| {
            if query.after.is_some_and(|after| record.seq <= after) {
                return ControlFlow::Break(());
            }
            // Clocks can be set back, so an older time does not end the search.
            let wanted = query
                .domain
                .is_none_or(|domain| record.domain == Some(domain))
                && query.since.is_none_or(|since| record.at >= since);
            if wanted {
                found.push(record);
            }
            match query.limit {
                Some(limit) if found.len() >= limit => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })?;
        found.reverse();
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
