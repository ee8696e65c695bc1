//! What the host fetches of the log: records that it has not seen, a page at a time, and what it has seen is forgotten.
//! Pages are made of what is in memory; only forgetting waits for a disk.

use agent_protocol::{
    RecordsSeen, RequestId, RuleRecordsReply, RulesInForce, limits::RULE_RECORDS_BYTES,
};

use super::{RuleLog, Stored};
use crate::log::{chain, log};

impl RuleLog {
    /// How many records the host has not seen.
    pub(crate) fn waiting(&self) -> u64 {
        u64::try_from(self.memory().records.len()).unwrap_or(u64::MAX)
    }

    /// The host's requests that came to these records, each with its generation. One of them is answered with that it was begun
    /// however the agent ended since.
    pub(crate) fn calls(&self) -> Vec<(RequestId, u64)> {
        let memory = self.memory();
        let calls = memory.records.iter();
        calls
            .filter_map(|stored| Some((stored.call.clone()?, stored.record.generation)))
            .collect()
    }

    /// The oldest records that were not seen, after those up to `seen` are forgotten; and the numbers of these, whose files
    /// are to be removed. A file that stays is told once more after a restart, and the host knows it. Beside a record that takes
    /// the whole answer there is no room for what is in force; the host asks once more.
    pub(crate) fn page(
        &self,
        seen: Option<&RecordsSeen>,
        in_force: Option<&RulesInForce>,
    ) -> (RuleRecordsReply, Vec<u64>) {
        let mut memory = self.memory();
        let upto = seen.and_then(|seen| {
            let is_it =
                |stored: &Stored| stored.record.log == seen.log && stored.record.seq == seen.seq;
            memory.records.iter().position(is_it)
        });
        let count = upto.map_or(0, |upto| upto + 1);
        let forgotten = memory.records.drain(..count);
        let forgotten = forgotten.map(|stored| stored.record.seq).collect();
        let mut left = RULE_RECORDS_BYTES;
        let mut room = true;
        let mut records = Vec::new();
        for Stored { record, .. } in &memory.records {
            let bytes = serde_json::to_vec(record).map_or(usize::MAX, |json| json.len());
            if bytes > left && !records.is_empty() {
                break;
            }
            room = bytes <= left;
            left = left.saturating_sub(bytes);
            records.push(record.clone());
        }
        let waiting = memory.records.len() - records.len();
        let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
        let reply = RuleRecordsReply {
            records,
            waiting,
            in_force: in_force.filter(|_| room).cloned(),
        };
        (reply, forgotten)
    }

    /// Removes the files of records that the host has seen.
    pub(crate) fn forget(&self, numbers: &[u64]) {
        let disk = self.disk();
        for number in numbers {
            if let Err(error) = disk.remove(&self.record_path(*number)) {
                log!("a record that was seen stays: {}", chain(&error));
            }
        }
    }
}
