//! The thread that writes recordings, and the bounded way to it. Who gives a batch never waits: what the thread cannot take
//! is counted, and said in the recording. A disk that is full or gone is a problem that is shown, and the recording goes
//! on when it is over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, mem};

use persona::domain::DomainId;
use persona::units::Moment;
use planner::{LimitStep, Step};
use serde::Serialize;
use serde_json::{Value, json};

use super::FORM;
use super::frame::{DomainFrame, Ended, HostFrame, Needed, StateNote, TurnEnded};
use super::line::{DomainCodec, HostCodec};
use super::patch;
use super::ring::{self, Bound, Ring};

/// Ticks that may wait for the disk.
const WAITING: usize = 8;

/// Lines are written so often; a kill loses no more.
const FLUSH: Duration = Duration::from_secs(5);

/// The ring of the host holds the ticks and the claims of all domains, so it is so many times as large as a domain's.
const HOST_TIMES: u64 = 4;

/// The recording of a domain that is no longer there is kept so long: it may be defined again, and then goes on. Nobody
/// can ask for it meanwhile, since there is no domain to ask about.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// How the host's ring is called; no UUID.
pub(super) const HOST: &str = "host";

/// What was seen and done in one tick.
#[derive(Debug)]
pub struct Batch {
    /// When.
    pub at: Moment,
    /// The host.
    pub host: HostFrame,
    /// Every domain.
    pub domains: Vec<Entry>,
}

/// One domain in one tick.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub id: DomainId,
    /// What was seen of it.
    pub frame: DomainFrame,
    /// The carried state before the plan, where it is told.
    pub state: Option<StateNote>,
    /// Steps that ended before the plan.
    pub ended: Vec<Ended>,
    /// Turns of knobs that ended before the plan.
    pub turned: Vec<TurnEnded>,
    /// What the guest said that it needs before the plan.
    pub needs: Vec<Needed>,
    /// Steps that the plan begins.
    pub steps: Vec<Step>,
    /// Turns of knobs that the plan begins.
    pub turns: Vec<LimitStep>,
    /// The explanation of the decision, where it differs from the one before.
    pub decision: Option<Value>,
}

/// How the recording fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why nothing is written at the moment.
    pub problem: Option<String>,
    /// Ticks that could not be taken since the start.
    pub lost: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Domains whose carried state is to be told, so that another segment can begin.
    pub wanted: Vec<DomainId>,
}

enum Message {
    Tick(Box<Batch>, u64),
    /// Everything before it is on disk when the sender of this is dropped.
    Flush(Sender<()>),
}

/// The way to the thread, which ends with it.
#[derive(Debug)]
pub struct Recorder {
    messages: Option<SyncSender<Message>>,
    health: Arc<Mutex<Health>>,
    folder: PathBuf,
    thread: Option<JoinHandle<()>>,
    /// Ticks that were lost since the last that was taken.
    lost: u64,
}

/// For those who read: sees to it that what was given is on disk.
#[derive(Clone)]
pub struct Reader {
    messages: SyncSender<Message>,
    folder: PathBuf,
}

impl Recorder {
    /// Starts to record in a folder, which is made.
    ///
    /// # Errors
    /// Where the folder cannot be made, or the thread not be started.
    pub fn start(folder: &Path, bound: Bound) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let (messages, receiver) = sync_channel(WAITING);
        let health = Arc::new(Mutex::new(Health::default()));
        let writer = Writer {
            folder: folder.into(),
            bound,
            host: Stream::new(HOST),
            host_codec: HostCodec::default(),
            domains: BTreeMap::new(),
            missing: BTreeMap::new(),
            looked: Looked::NotYet,
            health: health.clone(),
            failed: None,
        };
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            messages: Some(messages),
            health,
            folder: folder.into(),
            thread: Some(thread),
            lost: 0,
        })
    }

    /// Gives a tick to be written. It is lost where the thread is too far behind.
    pub fn give(&mut self, batch: Batch) {
        let Some(messages) = &self.messages else {
            return;
        };
        match messages.try_send(Message::Tick(Box::new(batch), self.lost)) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost += 1;
                self.health
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .lost += 1;
            }
        }
    }

    /// How it fares; the wanted ones are told once.
    pub fn health(&self) -> Health {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = mem::take(&mut health.wanted);
        Health {
            wanted,
            ..health.clone()
        }
    }

    /// Why nothing is written at the moment.
    pub fn problem(&self) -> Option<String> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.problem.clone()
    }

    /// The way for those who read.
    pub fn reader(&self) -> Option<Reader> {
        Some(Reader {
            messages: self.messages.clone()?,
            folder: self.folder.clone(),
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The thread writes what it has and ends when nobody can send any more.
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            // It may have died; what it had not written is lost then.
            let _ = thread.join();
        }
    }
}

impl Reader {
    /// The folder, with all that was given before written. Blocks.
    pub fn flushed(&self) -> &Path {
        let (done, wait) = std::sync::mpsc::channel();
        if self.messages.send(Message::Flush(done)).is_ok() {
            // An error is the thread's word that it is done.
            let _ = wait.recv();
        }
        &self.folder
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A ring with what is not written yet.
struct Stream {
    stem: String,
    ring: Option<Ring>,
    lines: Vec<u8>,
}

impl Stream {
    fn new(stem: &str) -> Self {
        Self {
            stem: stem.to_owned(),
            ring: None,
            lines: Vec::new(),
        }
    }

    /// The next line has to be whole.
    fn begins(&self) -> bool {
        self.lines.is_empty() && self.ring.as_ref().is_none_or(Ring::begins)
    }

    fn line(&mut self, line: &impl Serialize) {
        // Frames are plain values, and a buffer in memory takes everything.
        if serde_json::to_writer(&mut self.lines, line).is_ok() {
            self.lines.push(b'\n');
        }
    }

    fn header(&mut self, at: Moment, name: &str) {
        let header = json!({
            "virt_persona_recording": FORM, "of": self.stem, "name": name, "from": at,
        });
        self.line(&header);
    }

    fn flush(&mut self, folder: &Path, bound: &Bound) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = mem::take(&mut self.lines);
        let ring = match &mut self.ring {
            Some(ring) => ring,
            none => none.insert(Ring::open(folder, &self.stem)?),
        };
        ring.append(&lines, bound, SystemTime::now())
    }

    fn bytes(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::bytes)
    }
}

/// One domain that is recorded.
struct Recorded {
    stream: Stream,
    codec: DomainCodec,
    decision: Option<Value>,
}

struct Writer {
    folder: PathBuf,
    bound: Bound,
    host: Stream,
    host_codec: HostCodec,
    domains: BTreeMap<DomainId, Recorded>,
    /// Recordings of domains that are not there, each with when that was seen first.
    missing: BTreeMap<DomainId, Moment>,
    /// The folder was looked through for recordings of domains that were gone before this process began.
    looked: Looked,
    health: Arc<Mutex<Health>>,
    /// Why the last flush failed.
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut flushed = Instant::now();
        loop {
            let left = FLUSH.saturating_sub(flushed.elapsed());
            match messages.recv_timeout(left) {
                Ok(Message::Tick(batch, lost)) => self.take(*batch, lost),
                Ok(Message::Flush(done)) => {
                    self.flush();
                    drop(done);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if flushed.elapsed() >= FLUSH {
                self.flush();
                flushed = Instant::now();
            }
        }
        self.flush();
    }

    fn host_bound(&self) -> Bound {
        Bound {
            bytes: self.bound.bytes.saturating_mul(HOST_TIMES),
            ..self.bound
        }
    }

    fn take(&mut self, batch: Batch, lost: u64) {
        let Batch { at, host, domains } = batch;
        let bound = self.host_bound();
        if self
            .host
            .ring
            .as_ref()
            .is_some_and(|ring| ring.is_full(&bound))
        {
            self.cut_host();
        }
        if self.host.begins() {
            self.host_codec = HostCodec::default();
            self.host.header(at, HOST);
        }
        let line = self.host_codec.write(at, lost, host);
        self.host.line(&line);
        let mut wanted = Vec::new();
        for entry in domains {
            let id = entry.id;
            let recorded = self.domains.entry(id).or_insert_with(|| Recorded {
                stream: Stream::new(&id.to_string()),
                codec: DomainCodec::default(),
                decision: None,
            });
            if recorded.take(at, entry, &self.folder, &self.bound) == Room::Wanted {
                wanted.push(id);
            }
        }
        if !wanted.is_empty() {
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            health.wanted.extend(wanted);
        }
        self.forget_missing(at);
    }

    /// Begins another segment of the host.
    fn cut_host(&mut self) {
        let bound = self.host_bound();
        let result = self.host.flush(&self.folder, &bound);
        self.note(result);
        if let Some(ring) = &mut self.host.ring {
            ring.close();
        }
    }

    fn flush(&mut self) {
        let bound = self.host_bound();
        let mut result = self.host.flush(&self.folder, &bound);
        let mut bytes = self.host.bytes();
        for recorded in self.domains.values_mut() {
            let flushed = recorded.stream.flush(&self.folder, &self.bound);
            bytes += recorded.stream.bytes();
            result = result.and(flushed);
        }
        self.note(result);
        self.health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes = bytes;
    }

    fn note(&mut self, result: io::Result<()>) {
        let failed = result.err().map(|error| {
            format!(
                "recordings could not be written to {}: {error}; what happens meanwhile is not recorded",
                self.folder.display()
            )
        });
        if failed != self.failed {
            if let Some(failed) = &failed {
                tracing::warn!("{failed}");
            }
            self.failed.clone_from(&failed);
            self.health
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .problem = failed;
        }
    }

    /// Recordings of domains that have been gone for long go too.
    fn forget_missing(&mut self, at: Moment) {
        let there = &self.host_codec.frame;
        let there = |id: &DomainId| {
            there
                .as_ref()
                .is_some_and(|host| host.domains.contains_key(id))
        };
        let gone: Vec<DomainId> = self
            .domains
            .keys()
            .filter(|id| !there(id))
            .copied()
            .collect();
        for id in gone {
            if let Some(mut recorded) = self.domains.remove(&id) {
                // What cannot be written any more is told by the next flush of those that are there.
                let _ = recorded.stream.flush(&self.folder, &self.bound);
            }
            self.missing.insert(id, at);
        }
        if self.looked == Looked::NotYet
            && let Ok(stems) = ring::stems(&self.folder)
        {
            self.looked = Looked::Done;
            let ids = stems.iter().filter_map(|stem| DomainId::parse(stem));
            self.missing.extend(ids.map(|id| (id, at)));
        }
        let folder = &self.folder;
        self.missing.retain(|id, since| {
            if there(id) {
                return false;
            }
            let over = at.since(*since) >= GRACE;
            if over && let Err(error) = ring::remove(folder, &id.to_string()) {
                tracing::warn!(%error, %id, "the recording of a domain that is gone could not be removed");
            }
            !over
        });
    }
}

/// Whether the folder was looked through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    NotYet,
    Done,
}

/// Whether another segment could begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// With the next carried state.
    Wanted,
}

impl Recorded {
    fn take(&mut self, at: Moment, entry: Entry, folder: &Path, bound: &Bound) -> Room {
        let full = self
            .stream
            .ring
            .as_ref()
            .is_some_and(|ring| ring.is_full(bound));
        if full && entry.state.is_some() {
            // A failure shows at the next flush, and what was not written is lost with it.
            let _ = self.stream.flush(folder, bound);
            if let Some(ring) = &mut self.stream.ring {
                ring.close();
            }
        }
        let begins = self.stream.begins();
        if begins && entry.state.is_none() && self.stream.ring.is_some() {
            // Behind a failure: a replay needs the carried state to begin.
            return Room::Wanted;
        }
        if begins {
            self.codec = DomainCodec::default();
            self.stream.header(at, &entry.frame.name);
        }
        let mut line = self.codec.write(at, entry.frame);
        line.state = entry.state;
        line.ended = entry.ended;
        line.needs = entry.needs;
        line.steps = entry.steps;
        line.turned = entry.turned;
        line.turns = entry.turns;
        let nothing = Value::Null;
        if let Some(decision) = entry.decision {
            let before = self.decision.as_ref().filter(|_| !begins);
            line.decision = patch::difference(before.unwrap_or(&nothing), &decision);
            self.decision = Some(decision);
        } else if begins && let Some(decision) = &self.decision {
            line.decision = patch::difference(&nothing, decision);
        }
        if !line.is_empty() {
            self.stream.line(&line);
        }
        if full && !begins {
            Room::Wanted
        } else {
            Room::Enough
        }
    }
}

#[cfg(test)]
mod tests;
