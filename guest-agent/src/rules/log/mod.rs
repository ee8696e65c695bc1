//! What rules did, on the disk until the host has seen it, and what is carried of them over a restart of the agent. Below the
//! state directory:
//!
//! ```text
//! rules/intents/<n>    a firing that is under way: there before the first deed, gone after the last
//! rules/records/<seq>  a firing that has ended and that the host has not seen; the newest 256, the loss of older ones is counted
//! rules/standing.json  of each rule whether it was called for, and when it last fired
//! ```
//! Numbers are of one log, which is drawn anew at each start, so that none comes twice. An intent that is left from an agent
//! which was killed becomes a record that says so, and what was under way is never begun again. The words of the files are in
//! `firing`, how one is read in `files`, what the host fetches in `page`.

mod files;
mod firing;
mod page;

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_protocol::{
    RequestId, RuleRecord,
    limits::RULE_RECORDS_KEPT,
    rules::{DeedOutcome, RuleDeed},
};
use serde::{Deserialize, Serialize};

use crate::{
    durable::{DurableError, Writer},
    log::{chain, log},
    script::stop_leftovers,
};

use files::{json, read, read_all};
use firing::request_of;
pub(crate) use firing::{Begun, Fired, Intent, Kept, Standing};

/// Where all of it is, below the state directory.
const DIRECTORY: &str = "rules";
/// Nobody but root reads it.
const PRIVATE: u32 = 0o600;

/// A record as it is on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    /// The number of its intent.
    intent: u64,
    /// The host's request, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<RequestId>,
    record: RuleRecord,
}

/// A firing cannot be recorded, so it does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {what} as JSON")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot change what is kept of rules")]
    Write(#[from] DurableError),
    #[error("the kernel draws no random number")]
    Random(#[source] io::Error),
    #[error("{0}")]
    Name(String),
}

/// What is in memory: nobody waits for a disk to look at it.
#[derive(Debug, Default)]
struct Memory {
    log: String,
    next_seq: u64,
    next_intent: u64,
    standing: Standing,
    records: VecDeque<Stored>,
}

/// The log.
#[derive(Debug)]
pub(crate) struct RuleLog {
    directory: PathBuf,
    memory: Mutex<Memory>,
    /// Whoever holds it writes.
    disk: Mutex<Writer>,
}

impl RuleLog {
    /// Reads what an agent before this one left, ends what it had under way, and draws a new log.
    pub(crate) fn open(state: &Path, root: &Path, writer: Writer) -> Result<Self, LogError> {
        let directory = state.join(DIRECTORY);
        let log = Self {
            directory,
            memory: Mutex::default(),
            disk: Mutex::new(writer),
        };
        log.read_again()?;
        log.end_leftovers(root)?;
        Ok(log)
    }

    /// Reads it all again and draws a new log: the machine was put back to an earlier state, so numbers that were given since
    /// could be given twice.
    pub(crate) fn read_again(&self) -> Result<(), LogError> {
        let disk = self.disk();
        let mut records: Vec<(u64, Stored)> = read_all(&self.directory.join("records"))?;
        records.sort_by_key(|(number, _)| *number);
        let intents: Vec<(u64, Intent)> = read_all(&self.directory.join("intents"))?;
        let standing = read(&self.directory.join("standing.json"))?.unwrap_or_default();
        let mut memory = self.memory();
        memory.log = random()?;
        memory.next_seq = records.last().map_or(1, |(number, _)| number + 1);
        let numbers = intents.iter().map(|(number, _)| *number);
        let before = records.iter().map(|(_, stored)| stored.intent);
        memory.next_intent = numbers.chain(before).max().map_or(1, |number| number + 1);
        memory.standing = standing;
        memory.records = records.into_iter().map(|(_, stored)| stored).collect();
        drop(disk);
        Ok(())
    }

    /// What an agent that was killed had under way is told, and not begun again.
    fn end_leftovers(&self, root: &Path) -> Result<(), LogError> {
        let mut intents: Vec<(u64, Intent)> = read_all(&self.directory.join("intents"))?;
        intents.sort_by_key(|(number, _)| *number);
        for (number, mut intent) in intents {
            let told = self
                .memory()
                .records
                .iter()
                .any(|stored| stored.intent == number);
            if told {
                // The agent ended between the record and this.
                self.disk().remove(&self.intent_path(number))?;
                continue;
            }
            log!(
                "rule {} was at work when the agent ended; it is not begun again",
                intent.rule
            );
            if let Ok(request) = RequestId::new(request_of(&intent, number)) {
                stop_leftovers(root, &request);
            }
            self.take_over(&intent);
            let missing = intent.actions.iter().skip(intent.deeds.len());
            let outcomes = std::iter::once(DeedOutcome::Interrupted)
                .chain(std::iter::repeat(DeedOutcome::NotBegun));
            let deeds: Vec<RuleDeed> = missing
                .zip(outcomes)
                .map(|(action, outcome)| RuleDeed {
                    action: action.clone(),
                    outcome,
                    detail: match outcome {
                        DeedOutcome::Interrupted => {
                            "the agent ended while it was at it; how far it came is not known"
                        }
                        _ => "the agent ended before",
                    }
                    .to_owned(),
                    output: String::new(),
                })
                .collect();
            intent.deeds.extend(deeds);
            self.write_standing()?;
            self.finish_as(number, intent)?;
        }
        Ok(())
    }

    /// What is carried of the rules of this persona; of another one nothing is.
    pub(crate) fn standing(&self, digest: &str) -> BTreeMap<String, Kept> {
        let memory = self.memory();
        if memory.standing.digest == digest {
            memory.standing.rules.clone()
        } else {
            BTreeMap::new()
        }
    }

    /// From here on this is carried; it is on the disk with [`RuleLog::write_standing`].
    pub(crate) fn carry(&self, standing: Standing) {
        self.memory().standing = standing;
    }

    /// Writes what is carried.
    pub(crate) fn write_standing(&self) -> Result<(), LogError> {
        let disk = self.disk();
        let bytes = json("what is carried of rules", &self.memory().standing)?;
        disk.directory(&self.directory, 0o700)?;
        Ok(disk.replace(&self.directory.join("standing.json"), &bytes, PRIVATE)?)
    }

    /// Writes down that a firing begins.
    pub(crate) fn begin(&self, intent: &Intent) -> Result<Begun, LogError> {
        let number = {
            let mut memory = self.memory();
            memory.next_intent += 1;
            memory.next_intent - 1
        };
        self.write_intent(number, intent)?;
        // Behind the intent, which says the same: a kill in between leaves what the next start reads.
        self.take_over(intent);
        self.write_standing()?;
        let request = RequestId::new(request_of(intent, number));
        let request = request.map_err(|error| LogError::Name(chain(&error)))?;
        Ok(Begun { number, request })
    }

    /// What a firing leaves is carried from here on.
    fn take_over(&self, intent: &Intent) {
        let Some(kept) = intent.kept.clone() else {
            return;
        };
        let mut memory = self.memory();
        if memory.standing.digest == intent.digest || memory.standing.rules.is_empty() {
            memory.standing.digest.clone_from(&intent.digest);
            memory.standing.rules.insert(intent.rule.clone(), kept);
        }
    }

    /// Writes down how far a firing has come.
    pub(crate) fn progress(&self, begun: &Begun, intent: &Intent) -> Result<(), LogError> {
        self.write_intent(begun.number, intent)
    }

    /// Makes a firing that has ended a record.
    pub(crate) fn finish(&self, begun: &Begun, intent: Intent) -> Result<(), LogError> {
        self.finish_as(begun.number, intent)
    }

    fn write_intent(&self, number: u64, intent: &Intent) -> Result<(), LogError> {
        let disk = self.disk();
        let bytes = json("a firing", intent)?;
        disk.directory(&self.directory.join("intents"), 0o700)?;
        Ok(disk.replace(&self.intent_path(number), &bytes, PRIVATE)?)
    }

    fn finish_as(&self, number: u64, intent: Intent) -> Result<(), LogError> {
        let disk = self.disk();
        let (log, seq, surplus) = {
            let mut memory = self.memory();
            memory.next_seq += 1;
            let surplus = (memory.records.len() + 1).saturating_sub(RULE_RECORDS_KEPT);
            (memory.log.clone(), memory.next_seq - 1, surplus)
        };
        disk.directory(&self.directory.join("records"), 0o700)?;
        for _ in 0..surplus {
            self.lose_oldest(&disk)?;
        }
        let record = RuleRecord {
            log,
            seq,
            boot_id: intent.fired.boot_id,
            at_unix_ms: intent.fired.unix_ms,
            generation: intent.generation,
            persona: intent.persona,
            rule: intent.rule,
            edge: intent.edge,
            by: intent.by,
            readings: intent.readings,
            deeds: intent.deeds,
            lost_before: 0,
        };
        let stored = Stored {
            intent: number,
            call: intent.call,
            record: record.bounded(),
        };
        disk.replace(&self.record_path(seq), &json("a record", &stored)?, PRIVATE)?;
        disk.remove(&self.intent_path(number))?;
        // Only now may it be told: a record whose intent were still there would be told twice after a kill.
        self.memory().records.push_back(stored);
        Ok(())
    }

    /// There is no room: the oldest record goes, and the one after it says so.
    fn lose_oldest(&self, disk: &Writer) -> Result<(), LogError> {
        let (lost, next) = {
            let mut memory = self.memory();
            let Some(lost) = memory.records.pop_front() else {
                return Ok(());
            };
            let next = memory.records.front_mut().map(|next| {
                next.record.lost_before += lost.record.lost_before + 1;
                next.clone()
            });
            (lost, next)
        };
        if let Some(next) = next {
            let bytes = json("a record", &next)?;
            disk.replace(&self.record_path(next.record.seq), &bytes, PRIVATE)?;
        }
        Ok(disk.remove(&self.record_path(lost.record.seq))?)
    }

    fn intent_path(&self, number: u64) -> PathBuf {
        self.directory.join("intents").join(number.to_string())
    }

    fn record_path(&self, seq: u64) -> PathBuf {
        self.directory.join("records").join(seq.to_string())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Writer> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random() -> Result<String, LogError> {
    let drawn = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(LogError::Random)?;
    Ok(drawn.trim().to_owned())
}

/// What several threads share.
pub(crate) type SharedLog = Arc<RuleLog>;

#[cfg(test)]
mod tests {
    use agent_protocol::{
        RecordsSeen,
        rules::{RuleBy, RuleEdge},
    };

    use super::*;

    fn open(state: &Path) -> RuleLog {
        RuleLog::open(state, state, Writer::new(Arc::default())).unwrap()
    }

    fn intent(number: usize) -> Intent {
        Intent {
            generation: 1,
            persona: "web".to_owned(),
            digest: "d".to_owned(),
            rule: format!("r{number}"),
            edge: RuleEdge::Begins,
            actions: vec!["run drain".to_owned()],
            readings: Vec::new(),
            by: RuleBy::Guest,
            call: None,
            kept: Some(Kept::default()),
            fired: Fired::now("boot"),
            deeds: Vec::new(),
        }
    }

    fn end(log: &RuleLog, number: usize) {
        let begun = log.begin(&intent(number)).unwrap();
        log.finish(&begun, intent(number)).unwrap();
    }

    /// All records, a page after the other, as a host fetches them.
    fn fetch(log: &RuleLog) -> Vec<RuleRecord> {
        let (mut all, mut seen) = (Vec::new(), None);
        loop {
            let (page, forgotten) = log.page(seen.as_ref(), None);
            log.forget(&forgotten);
            let Some(last) = page.records.last() else {
                return all;
            };
            seen = Some(RecordsSeen {
                log: last.log.clone(),
                seq: last.seq,
            });
            all.extend(page.records);
        }
    }

    #[test]
    fn when_there_is_no_room_the_oldest_go_and_are_counted_also_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let log = open(state.path());
        for number in 0..RULE_RECORDS_KEPT + 3 {
            end(&log, number);
        }
        drop(log);
        let log = open(state.path());
        let told = fetch(&log);
        assert_eq!(told.len(), RULE_RECORDS_KEPT);
        assert_eq!((told[0].rule.as_str(), told[0].lost_before), ("r3", 3));
        assert!(told[1..].iter().all(|record| record.lost_before == 0));
        assert_eq!(fetch(&log), []);
        assert_eq!(fetch(&open(state.path())), []);
    }

    #[test]
    fn a_number_is_never_given_twice_in_a_log() {
        let state = tempfile::tempdir().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let log = open(state.path());
            for number in 0..3 {
                end(&log, number);
            }
            log.read_again().unwrap();
            end(&log, 3);
            for record in fetch(&log) {
                assert!(seen.insert((record.log, record.seq)));
            }
        }
        assert_eq!(seen.len(), 12);
    }

    #[test]
    fn a_record_whose_intent_was_left_is_told_once() {
        let state = tempfile::tempdir().unwrap();
        let log = open(state.path());
        let begun = log.begin(&intent(1)).unwrap();
        let path = log.intent_path(begun.number);
        let left = fs::read(&path).unwrap();
        log.finish(&begun, intent(1)).unwrap();
        // As a kill between the two leaves it.
        fs::write(&path, left).unwrap();
        let log = open(state.path());
        assert_eq!(fetch(&log).len(), 1);
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_file_harms_no_other() {
        let state = tempfile::tempdir().unwrap();
        let log = open(state.path());
        end(&log, 1);
        end(&log, 2);
        fs::write(log.record_path(1), "{").unwrap();
        fs::write(state.path().join("rules/standing.json"), "[").unwrap();
        let told = fetch(&open(state.path()));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].rule, "r2");
    }
}
