//! Commands that the host asks for: each goes through the table of the persona that is active, and runs once. The disk
//! thread writes down that it begins and hands it over; each has a thread of its own that ends with it.
//!
//! ```text
//! disk: already answered? -> "begun" on disk -> Runner -> lookup -> scope -> run -> answer -> disk, channel
//!                                                                            output -> flow -> channel
//! ```
//! What is on disk while it runs is the answer that a crash of this agent leaves behind: interrupted, and never run again.

mod flow;
mod lookup;
mod run;
mod scope;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use agent_protocol::{
    Command, CommandTable, RequestId, Stream,
    limits::COMMAND_RUNS_MAX,
    message::{ErrorCode, ReplyBody, ReplyError, Retry},
};

pub(crate) use flow::Share;
use flow::{Pace, Window};
pub(crate) use lookup::permitted;
pub(crate) use scope::Scope;

use crate::{
    disk::{DiskJob, ToDisk, expired},
    events::{Event, Events},
    log::{chain, log},
    policy::CommandLeave,
    script::kill_marked,
};

/// Where the commands that run are noted, under the root. It is memory, so nothing is left after a reboot.
const DIRECTORY: &str = "run/virt-persona-agent/commands";

/// A piece of output on its way to the host.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) stream: Stream,
    /// Bytes of the stream before it.
    pub(crate) off: u64,
    pub(crate) bytes: Vec<u8>,
    /// Its place in the window.
    pub(crate) share: Share,
}

/// A command with what holds for it.
#[derive(Debug)]
pub(crate) struct CommandJob {
    pub(crate) id: RequestId,
    pub(crate) command: Box<Command>,
    /// Nobody waits for its beginning after this.
    pub(crate) deadline: Instant,
    /// The persona that is active, as sentences name it.
    pub(crate) persona: String,
    pub(crate) generation: u64,
    pub(crate) table: CommandTable,
    pub(crate) environment: BTreeMap<String, String>,
}

/// Runs commands.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    root: PathBuf,
    leave: CommandLeave,
    events: Events,
    disk: ToDisk,
    running: Arc<AtomicUsize>,
    window: Window,
    pace: Pace,
}

/// Room for one command, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Runner {
    pub(crate) fn new(root: &Path, leave: CommandLeave, events: Events, disk: ToDisk) -> Self {
        Self {
            root: root.to_owned(),
            leave,
            events,
            disk,
            running: Arc::default(),
            window: Window::default(),
            pace: Pace::new(Instant::now()),
        }
    }

    /// Stops what commands of an agent before this one left running.
    pub(crate) fn clear_leftovers(&self) {
        let notes = self.root.join(DIRECTORY);
        for note in fs::read_dir(&notes).into_iter().flatten().flatten() {
            if let Ok(id) = RequestId::new(note.file_name().to_string_lossy()) {
                log!(
                    "the command {id} was running when the agent ended; what is left of it is killed"
                );
                kill_marked(&id);
            }
        }
        scope::clear_leftovers(&self.root);
        let _ = fs::remove_dir_all(notes);
    }

    /// Room for one more; `None` while too many run.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let turn = Turn(Arc::clone(&self.running));
        let before = self.running.fetch_add(1, Ordering::AcqRel);
        (before < COMMAND_RUNS_MAX).then_some(turn)
    }

    /// Runs a command; its output and its answer come as events, its answer goes to the disk, too.
    pub(crate) fn begin(&self, turn: Turn, job: CommandJob) {
        let (runner, id) = (self.clone(), job.id.clone());
        let spawned = thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || {
                let id = job.id.clone();
                let body = runner.carry_out(&job);
                // Before the answer, so that who asks one after another never finds this one still running.
                drop(turn);
                runner.answer(id, body);
            });
        if let Err(error) = spawned {
            let why = format!("the command cannot be run now: {error}");
            let refusal = ReplyError::new(ErrorCode::Busy, why, Retry::Useful);
            self.answer(id, ReplyBody::Err(refusal));
        }
    }

    fn answer(&self, id: RequestId, body: ReplyBody) {
        // Not waited for: a crash in between leaves the answer that it was interrupted, which nobody takes for an end that
        // was seen. The other threads live as long as the process.
        let _ = self.disk.send(DiskJob::Remember {
            id: id.clone(),
            body: body.clone(),
        });
        self.events.send(Event::Done { id, body });
    }

    fn carry_out(&self, job: &CommandJob) -> ReplyBody {
        if Instant::now() >= job.deadline {
            return expired();
        }
        let note = self.root.join(DIRECTORY).join(job.id.as_str());
        let noted =
            fs::create_dir_all(self.root.join(DIRECTORY)).and_then(|()| fs::write(&note, ""));
        if let Err(error) = noted {
            // What is left of it after a crash is then found by its control group alone.
            log!("a command is not noted: {error}");
        }
        let ended = run::run(self, job);
        let _ = fs::remove_file(&note);
        match ended {
            Ok(reply) => match serde_json::to_value(reply) {
                Ok(value) => ReplyBody::Ok(value),
                Err(error) => ReplyBody::Err(ReplyError::new(
                    ErrorCode::CannotRun,
                    error.to_string(),
                    Retry::Useless,
                )),
            },
            Err(error) => {
                let sentence = chain(&error);
                log!("the command {} does not run: {sentence}", job.id);
                ReplyBody::Err(ReplyError::new(error.code(), sentence, Retry::Useless))
            }
        }
    }
}

/// What is on the disk while a command runs.
pub(crate) fn begun() -> ReplyBody {
    let message = "the agent ended while the command ran; how far it came is not known, and it is not run again";
    ReplyBody::Err(ReplyError::new(
        ErrorCode::Interrupted,
        message,
        Retry::Useless,
    ))
}

/// The answer while too many run.
pub(crate) fn busy() -> ReplyBody {
    let message = format!("{COMMAND_RUNS_MAX} commands run already");
    ReplyBody::Err(ReplyError::new(ErrorCode::Busy, message, Retry::Useful))
}
