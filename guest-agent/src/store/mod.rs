//! What the agent remembers, in plain files under the state directory. The disk thread owns it; nobody else writes there. What
//! the files say of generations is in `record`, the answers to requests are in `answers`, how one file is read in `files`.
//!
//! ```text
//! gen/<N>.json     one for each generation: what was asked and what came of it; ten and the current stay, the newest of each persona first
//! current          symbolic link to the generation that holds; it is flipped by a rename
//! rolled-back.json what holds instead of the newest generation, where somebody in the guest went back by hand
//! journal.json     the operation that is under way, with the step it has reached; absent when nothing is
//! results/<id>     the answers of the last requests, so that a second delivery is answered and not executed
//! held-cpus.json   CPUs that were taken offline by order, and in which boot
//! gate/table.json  what `activate::routing` has the gate hold people to; absent when nothing is restricted
//! ```

mod answers;
mod files;
mod record;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_protocol::CpuList;
use serde::{Deserialize, Serialize};

use crate::{
    durable::{DurableError, Gauge, Writer},
    log::{chain, log},
};

pub(crate) use answers::Answered;
use files::{file_names, json, read};
pub(crate) use record::{Fate, Journal, Record, Rollback, Step};

/// Generations kept beside the current one.
const GENERATIONS_KEPT: usize = 10;
/// A return by hand.
const ROLLED_BACK: &str = "rolled-back.json";
/// Nobody but root reads state: environments can be private.
const PRIVATE: u32 = 0o600;

#[derive(Serialize, Deserialize)]
struct HeldCpus {
    boot_id: String,
    cpus: CpuList,
}

/// State that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is damaged; move it away to go on without it")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot write {what} as JSON")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot change the state")]
    Write(#[from] DurableError),
}

/// The state directory.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    writer: Writer,
    current: Option<Record>,
    /// The newest generation that was ever recorded, whatever became of it.
    newest: Option<Record>,
    journal: Option<Journal>,
    results: Vec<Answered>,
}

impl Store {
    /// Reads the state, and makes the directories where they are missing.
    pub(crate) fn open(directory: &Path, gauge: Arc<Gauge>) -> Result<Self, StoreError> {
        let writer = Writer::new(gauge);
        for name in ["", "gen", "results"] {
            writer.directory(&directory.join(name), 0o700)?;
        }
        let mut store = Self::view(directory, writer)?;
        store.journal = read(&directory.join("journal.json"))?;
        store.results = store.read_results()?;
        Ok(store)
    }

    /// Reads it all again: a revert of the machine can have put other files on the disk than this memory knows.
    pub(crate) fn reread(&mut self) -> Result<(), StoreError> {
        *self = Self::open(&self.directory, self.writer.gauge())?;
        Ok(())
    }

    /// Reads only what `status` prints.
    pub(crate) fn view(directory: &Path, writer: Writer) -> Result<Self, StoreError> {
        let mut store = Self {
            directory: directory.to_owned(),
            writer,
            current: None,
            newest: None,
            journal: None,
            results: Vec::new(),
        };
        store.current = read(&directory.join("current"))?;
        if let Some(newest) = store.generations()?.last() {
            store.newest = store.record(*newest)?;
        }
        Ok(store)
    }

    /// The generation that holds, be it an activation or a deactivation.
    pub(crate) fn current(&self) -> Option<&Record> {
        self.current.as_ref()
    }

    /// The newest generation that was ever recorded.
    pub(crate) fn newest(&self) -> Option<&Record> {
        self.newest.as_ref()
    }

    /// The operation under way.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// All generations that are kept, oldest first.
    pub(crate) fn generations(&self) -> Result<Vec<u64>, StoreError> {
        let path = self.directory.join("gen");
        let names = file_names(&path)?;
        let mut numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| name.strip_suffix(".json")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// One generation.
    pub(crate) fn record(&self, generation: u64) -> Result<Option<Record>, StoreError> {
        read(&self.record_path(generation))
    }

    /// Writes a generation.
    pub(crate) fn write_record(&mut self, record: Record) -> Result<(), StoreError> {
        let bytes = json("a generation", &record)?;
        let path = self.directory.join(place_of(&record));
        self.writer.replace(&path, &bytes, PRIVATE)?;
        // Where it takes the place of what holds, nothing else is to be flipped.
        if self
            .current
            .as_ref()
            .is_some_and(|current| place_of(current) == place_of(&record))
        {
            self.current = Some(record.clone());
        }
        if record.rollback.is_none()
            && self
                .newest
                .as_ref()
                .is_none_or(|newest| newest.generation <= record.generation)
        {
            self.newest = Some(record);
        }
        Ok(())
    }

    /// Makes a generation that was written the current one, and drops the oldest.
    pub(crate) fn make_current(&mut self, record: Record) -> Result<(), StoreError> {
        let target = place_of(&record);
        let link = self.directory.join("current");
        if let Err(error) = self.writer.point(&link, &target) {
            // It may lead there all the same, and what is undone or gone on with is by what the disk says.
            self.current = read(&link)?;
            return Err(error.into());
        }
        self.current = Some(record.clone());
        let aside = self.directory.join(ROLLED_BACK);
        if record.rollback.is_none() && aside.exists() {
            self.writer.remove(&aside)?;
        }
        let mut numbers = self.generations()?;
        let current = self.current.as_ref().map(|record| record.generation);
        while numbers.len() > GENERATIONS_KEPT + 1 {
            let index = self.most_dispensable(&numbers);
            let number = numbers.remove(index);
            if Some(number) != current {
                self.writer.remove(&self.record_path(number))?;
            }
        }
        Ok(())
    }

    /// Which of the generations goes first: the oldest of those after which the same persona was active in another one, since there
    /// are as many of these as rules of the host adjust it, and nobody wants back among them what he can have of the one before it.
    /// Where there is none, the oldest of all.
    fn most_dispensable(&self, numbers: &[u64]) -> usize {
        let mut next = None;
        let mut found = 0;
        for (index, number) in numbers.iter().enumerate().rev() {
            // One that cannot be read hinders nobody from what is to be done; it is named when it is asked for.
            let Ok(Some(record)) = self.record(*number) else {
                continue;
            };
            let persona = match record.fate {
                Fate::Activated => record.activation.map(|of| of.identity().to_owned()),
                Fate::Deactivated => None,
                // What never held is not between two that did.
                Fate::Prepared | Fate::Failed => continue,
            };
            if persona.is_some() && persona == next {
                found = index;
            }
            next = persona;
        }
        found
    }

    /// Writes how far the operation under way is.
    pub(crate) fn write_journal(&mut self, journal: &Journal) -> Result<(), StoreError> {
        let bytes = json("the journal", journal)?;
        self.writer
            .replace(&self.directory.join("journal.json"), &bytes, PRIVATE)?;
        self.journal = Some(journal.clone());
        Ok(())
    }

    /// Nothing is under way any more.
    pub(crate) fn clear_journal(&mut self) -> Result<(), StoreError> {
        self.writer.remove(&self.directory.join("journal.json"))?;
        self.journal = None;
        Ok(())
    }

    /// CPUs that were taken offline by order in this boot.
    pub(crate) fn held_cpus(&self, boot_id: &str) -> CpuList {
        let held = read::<HeldCpus>(&self.directory.join("held-cpus.json"));
        match held {
            Ok(Some(held)) if held.boot_id == boot_id => held.cpus,
            Ok(_) => CpuList::default(),
            Err(error) => {
                log!("{}", chain(&error));
                CpuList::default()
            }
        }
    }

    /// Remembers the CPUs that were taken offline by order.
    pub(crate) fn hold_cpus(&mut self, cpus: CpuList, boot_id: &str) -> Result<(), StoreError> {
        let bytes = json(
            "the held CPUs",
            &HeldCpus {
                boot_id: boot_id.to_owned(),
                cpus,
            },
        )?;
        Ok(self
            .writer
            .replace(&self.directory.join("held-cpus.json"), &bytes, PRIVATE)?)
    }

    /// Where all of it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The writer, for files outside the state directory.
    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    fn record_path(&self, generation: u64) -> PathBuf {
        self.directory.join(generation_path(generation))
    }
}

/// Where a record lies below the state directory. A return by hand never takes the place of what the host made.
fn place_of(record: &Record) -> PathBuf {
    match record.rollback {
        Some(_) => PathBuf::from(ROLLED_BACK),
        None => generation_path(record.generation),
    }
}

fn generation_path(generation: u64) -> PathBuf {
    Path::new("gen").join(format!("{generation}.json"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use agent_protocol::{RequestId, message::ReplyBody};

    use super::*;
    use crate::setting::Owned;

    fn open(directory: &Path) -> Store {
        Store::open(directory, Arc::default()).unwrap()
    }

    fn id(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    fn record(generation: u64) -> Record {
        let (request, activation) = (id("r"), None);
        Record {
            generation,
            fate: Fate::Deactivated,
            request,
            at_unix_s: 0,
            activation,
            pre: None,
            post: None,
            error: None,
            held: Vec::new(),
            defaults: BTreeMap::new(),
            settings: Vec::new(),
            rollback: None,
            software: Owned::new(),
            own: Vec::new(),
            overlay: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write_record(record(7)).unwrap();
        store.make_current(record(7)).unwrap();
        store.write_record(record(8)).unwrap();
        store.remember(&id("a"), &ReplyBody::Ok(1.into())).unwrap();
        store.hold_cpus([3].into_iter().collect(), "boot").unwrap();
        let store = open(directory.path());
        assert_eq!(store.current(), Some(&record(7)));
        assert_eq!(store.newest(), Some(&record(8)));
        assert_eq!(store.result(&id("a")), Some(&ReplyBody::Ok(1.into())));
        assert_eq!(store.held_cpus("boot").to_string(), "3");
        assert_eq!(store.held_cpus("another").count(), 0);
    }

    #[test]
    fn ten_generations_beside_the_current_one_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        for generation in 1..=30 {
            store.write_record(record(generation)).unwrap();
            store.make_current(record(generation)).unwrap();
        }
        assert_eq!(store.generations().unwrap(), (20..=30).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()));
        fs::write(directory.path().join("journal.json"), "{").unwrap();
        let error = Store::open(directory.path(), Arc::default()).unwrap_err();
        assert!(error.to_string().contains("journal.json"), "{error}");
    }
}
