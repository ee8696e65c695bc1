//! What the agent remembers, in plain files under the state directory. The disk thread owns it; nobody else writes there.
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

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_protocol::{
    Activation, CpuList, RequestId, RolledBack, ScriptResult, SettingLine,
    message::{Active, ReplyBody, ReplyError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    customize::{Customization, Key, laid_over},
    durable::{DurableError, Gauge, Writer},
    log::{chain, log},
    setting::{Holding, Owned, Plan, SoftwarePlan},
};

/// Generations kept beside the current one.
const GENERATIONS_KEPT: usize = 10;
/// Results kept: more than can be in flight.
const RESULTS_KEPT: usize = 128;
/// A return by hand.
const ROLLED_BACK: &str = "rolled-back.json";
/// Nobody but root reads state: environments can be private.
const PRIVATE: u32 = 0o600;

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// Under way, or cut off.
    Prepared,
    /// It was made active.
    Activated,
    /// It made the guest have no persona.
    Deactivated,
    /// It failed; what was before stayed or came back.
    Failed,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) generation: u64,
    pub(crate) fate: Fate,
    pub(crate) request: RequestId,
    /// Seconds since 1970 by the guest's clock, for people.
    pub(crate) at_unix_s: u64,
    /// Absent in a deactivation.
    pub(crate) activation: Option<Activation>,
    #[serde(default)]
    pub(crate) pre: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) post: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) error: Option<ReplyError>,
    /// What of the guest is held once this generation is.
    #[serde(default)]
    pub(crate) held: Vec<Holding>,
    /// Variables that come of settings.
    #[serde(default)]
    pub(crate) defaults: BTreeMap<String, String>,
    /// What came of the settings.
    #[serde(default)]
    pub(crate) settings: Vec<SettingLine>,
    /// That this is an earlier generation which somebody in the guest went back to; `generation` stays the host's.
    #[serde(default)]
    pub(crate) rollback: Option<Rollback>,
    /// Packages that are there because of this generation or an earlier one.
    #[serde(default)]
    pub(crate) software: Owned,
    /// All that is customised in this guest, under whatever persona.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) own: Vec<Customization>,
    /// What of it is laid over this generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) overlay: Vec<Customization>,
}

/// A return to an earlier generation by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rollback {
    /// Which.
    pub(crate) to: u64,
    /// What the host made active, and believes to be.
    pub(crate) instead_of: Option<Active>,
}

impl Record {
    /// What holds in this generation: what the host asked for, with what is customised laid over it.
    pub(crate) fn wanted(&self) -> Option<Activation> {
        let activation = self.activation.as_ref()?;
        Some(laid_over(activation, &self.overlay))
    }

    /// The variables that hold in this generation: the persona's own go before those that come of settings.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let mut variables = self.defaults.clone();
        if let Some(wanted) = self.wanted() {
            variables.extend(wanted.environment);
        }
        for own in &self.overlay {
            if let (Key::Variable(name), None) = (&own.key, &own.value) {
                variables.remove(name);
            }
        }
        variables
    }

    /// The persona that the host made active in this generation.
    pub(crate) fn active(&self) -> Option<Active> {
        if let Some(rollback) = &self.rollback {
            return rollback.instead_of.clone();
        }
        let Activation {
            persona,
            version,
            digest,
            ..
        } = self.activation.as_ref()?;
        let (persona, digest) = (persona.clone(), digest.clone());
        Some(Active {
            generation: self.generation,
            persona,
            version: *version,
            digest,
        })
    }
}

impl Record {
    /// What holds instead of what the host made active, in the words of the protocol.
    pub(crate) fn rolled_back(&self) -> Option<RolledBack> {
        let rollback = self.rollback.as_ref()?;
        let activation = self.activation.as_ref();
        Some(RolledBack {
            generation: rollback.to,
            persona: activation.map(|activation| activation.persona.clone()),
            version: activation.map(|activation| activation.version),
        })
    }
}

/// How far the operation under way is. Each step is on disk before its deed is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Prepared,
    PreStarted,
    PreDone,
    SoftwareStarted,
    SettingsStarted,
    EnvironmentStarted,
    EnvironmentDone,
    PostStarted,
    PostDone,
    /// It holds, and what no persona wants any more goes.
    Current,
    RollingBack,
}

/// The operation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) request: RequestId,
    pub(crate) generation: u64,
    pub(crate) step: Step,
    pub(crate) boot_id: String,
    #[serde(default)]
    pub(crate) pre: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) post: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) failure: Option<ReplyError>,
    /// What is done about packages; there from [`Step::SoftwareStarted`] on.
    #[serde(default)]
    pub(crate) software: Option<SoftwarePlan>,
    /// What is done about settings, with how each resource was; there from [`Step::SettingsStarted`] on.
    #[serde(default)]
    pub(crate) settings: Option<Plan>,
    /// What is to hold after an operation that somebody in the guest asked for; those of the host have it in the store.
    #[serde(default)]
    pub(crate) by_hand: Option<Box<Record>>,
    /// Settings that are taken as they are found, whoever made them so: somebody has just said what they shall be.
    #[serde(default)]
    pub(crate) taken: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct HeldCpus {
    boot_id: String,
    cpus: CpuList,
}

/// A request and the answer that it got; shared, since several threads keep it at hand.
pub(crate) type Answered = (RequestId, Arc<ReplyBody>);

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

    /// The answer that a request got.
    pub(crate) fn result(&self, id: &RequestId) -> Option<&ReplyBody> {
        self.results
            .iter()
            .rev()
            .find(|(known, _)| known == id)
            .map(|(_, body)| body.as_ref())
    }

    /// All answers that are remembered, oldest first.
    pub(crate) fn results(&self) -> Vec<Answered> {
        self.results.clone()
    }

    /// Remembers the answer to a request.
    pub(crate) fn remember(&mut self, id: &RequestId, body: &ReplyBody) -> Result<(), StoreError> {
        let bytes = json("a result", body)?;
        self.writer
            .replace(&self.result_path(id), &bytes, PRIVATE)?;
        self.results.retain(|(known, _)| known != id);
        self.results.push((id.clone(), Arc::new(body.clone())));
        while self.results.len() > RESULTS_KEPT {
            let (oldest, _) = self.results.remove(0);
            self.writer.remove(&self.result_path(&oldest))?;
        }
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

    fn read_results(&self) -> Result<Vec<Answered>, StoreError> {
        let path = self.directory.join("results");
        let mut dated = Vec::new();
        for name in file_names(&path)? {
            let file = path.join(&name);
            // Temporary files of a write that was cut off begin with a dot, which no identifier has.
            let Ok(id) = RequestId::new(name) else {
                continue;
            };
            let modified = fs::metadata(&file).and_then(|metadata| metadata.modified());
            let modified = modified.map_err(|source| StoreError::Read {
                path: file.clone(),
                source,
            })?;
            if let Some(body) = read(&file)? {
                dated.push((modified, id, body));
            }
        }
        dated.sort_by_key(|(modified, id, _)| (*modified, id.clone()));
        Ok(dated
            .into_iter()
            .map(|(_, id, body)| (id, Arc::new(body)))
            .collect())
    }

    fn record_path(&self, generation: u64) -> PathBuf {
        self.directory.join(generation_path(generation))
    }

    fn result_path(&self, id: &RequestId) -> PathBuf {
        self.directory.join("results").join(id.as_str())
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

fn json(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Json { what, source })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(StoreError::Damaged {
                path: path.to_owned(),
                source,
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn file_names(path: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |source| StoreError::Read {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let names =
        entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap_or_default()));
    names.collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn results_are_bounded_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        for number in 0..RESULTS_KEPT + 2 {
            store
                .remember(&id(&format!("r{number}")), &ReplyBody::Ok(1.into()))
                .unwrap();
        }
        assert_eq!(store.result(&id("r1")), None);
        assert_eq!(open(directory.path()).results().len(), RESULTS_KEPT);
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
