//! The commands thread: starts programs and switches CPUs. While a script runs, CPU orders and hot-plug notices are still
//! served: growth must not wait for somebody's script.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    time::Instant,
};

use agent_protocol::{
    RequestId,
    activation::Change,
    message::{ErrorCode, ReplyBody, ReplyError, Retry},
};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{
    cpu::{CpuError, Cpus},
    disk::{DiskJob, ToDisk, expired},
    events::{Event, Events},
    log::{chain, log},
    program::{Meanwhile, ProgramJob},
    script::{ScriptJob, run_program, run_script},
    store::Answered,
};

/// Answers of CPU orders that are kept at hand.
const ANSWERS_KEPT: usize = 128;

/// Work for the commands thread.
#[derive(Debug)]
pub(crate) enum CommandJob {
    /// Run a script; its end goes to the disk thread.
    Script(Box<ScriptJob>),
    /// Run a program of the system; its end goes to the disk thread.
    Program(Box<ProgramJob>),
    /// Make so many CPUs online, if it is begun before the deadline.
    OnlineCpus {
        id: RequestId,
        target: u32,
        deadline: Instant,
    },
    /// A CPU was plugged.
    CpuAdded(u32),
    /// A CPU was unplugged.
    CpuRemoved(u32),
}

/// A sender of work, which wakes the thread.
#[derive(Clone, Debug)]
pub(crate) struct Commission {
    jobs: Sender<CommandJob>,
    signal: Arc<EventFd>,
}

/// The thread's end of the queue.
#[derive(Debug)]
pub(crate) struct CommandJobs {
    jobs: Receiver<CommandJob>,
    signal: Arc<EventFd>,
}

/// The thread's queue.
pub(crate) fn queue() -> io::Result<(Commission, CommandJobs)> {
    let (sender, receiver) = mpsc::channel();
    let signal = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?);
    Ok((
        Commission {
            jobs: sender,
            signal: Arc::clone(&signal),
        },
        CommandJobs {
            jobs: receiver,
            signal,
        },
    ))
}

impl Commission {
    /// Hands a job over. The thread lives as long as the process, so nothing is lost here.
    pub(crate) fn send(&self, job: CommandJob) {
        if self.jobs.send(job).is_ok()
            && let Err(error) = self.signal.write(1)
        {
            log!("cannot wake the commands thread: {error}");
        }
    }
}

/// The thread's state.
pub(crate) struct Commands {
    root: PathBuf,
    runs: VecDeque<Run>,
    counter: Counter,
}

/// What is served at any time, also while a script runs.
struct Counter {
    queue: CommandJobs,
    disk: ToDisk,
    events: Events,
    cpus: Cpus,
    answers: VecDeque<Answered>,
    /// What is to be run and came in meanwhile.
    later: Vec<Run>,
}

/// What is run, one after the other.
enum Run {
    Script(Box<ScriptJob>),
    Program(Box<ProgramJob>),
}

impl Commands {
    pub(crate) fn new(
        queue: CommandJobs,
        disk: ToDisk,
        events: Events,
        cpus: Cpus,
        answers: Vec<Answered>,
        root: &Path,
    ) -> Self {
        let counter = Counter {
            queue,
            disk,
            events,
            cpus,
            answers: answers.into(),
            later: Vec::new(),
        };
        Self {
            root: root.to_owned(),
            runs: VecDeque::new(),
            counter,
        }
    }

    /// Works for as long as the process lives.
    pub(crate) fn run(mut self) {
        loop {
            // The disk thread, which is told of the ends, lives as long as the process.
            match self.runs.pop_front() {
                Some(Run::Script(job)) => {
                    log!(
                        "the {:?} script of generation {} begins",
                        job.stage,
                        job.generation
                    );
                    let ended = run_script(&self.root, &job, &mut self.counter);
                    let _ = self.counter.disk.send(DiskJob::ScriptEnded(ended));
                }
                Some(Run::Program(job)) => {
                    let ended = run_program(&job, &mut self.counter);
                    let _ = self.counter.disk.send(DiskJob::ProgramEnded(ended));
                }
                None => self.counter.attend(),
            }
            self.runs.extend(self.counter.later.drain(..));
        }
    }
}

impl Meanwhile for Counter {
    fn signal(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.signal.as_fd())
    }

    /// Waits for the signal when it is called without one, as it is between scripts.
    fn attend(&mut self) {
        if let Err(error) = self.queue.signal.read() {
            log!("cannot wait for work: {error}");
        }
        loop {
            match self.queue.jobs.try_recv() {
                Ok(CommandJob::Script(job)) => self.later.push(Run::Script(job)),
                Ok(CommandJob::Program(job)) => self.later.push(Run::Program(job)),
                Ok(CommandJob::OnlineCpus {
                    id,
                    target,
                    deadline,
                }) => self.order(id, target, deadline),
                Ok(CommandJob::CpuAdded(cpu)) => match self.cpus.plugged(cpu) {
                    Ok(Change::Changed) => log!("CPU {cpu} was plugged and is online"),
                    Ok(Change::Unchanged) => {}
                    Err(error) => log!("{}", chain(&error)),
                },
                Ok(CommandJob::CpuRemoved(cpu)) => {
                    if self.cpus.unplugged(cpu) == Change::Changed {
                        self.remember_held();
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }
}

impl Counter {
    fn order(&mut self, id: RequestId, target: u32, deadline: Instant) {
        let known = self
            .answers
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, body)| body.as_ref().clone());
        let body = known.unwrap_or_else(|| {
            if Instant::now() >= deadline {
                return expired();
            }
            let held = self.cpus.held();
            let body = answer(self.cpus.set_online(target));
            if self.cpus.held() != held {
                self.remember_held();
            }
            self.answers.push_back((id.clone(), Arc::new(body.clone())));
            if self.answers.len() > ANSWERS_KEPT {
                self.answers.pop_front();
            }
            // Not waited for: growth must not depend on a disk. After a crash in between the same order is obeyed again,
            // which changes nothing.
            let _ = self.disk.send(DiskJob::Remember {
                id: id.clone(),
                body: body.clone(),
            });
            body
        });
        self.events.send(Event::Done { id, body });
    }

    fn remember_held(&self) {
        let _ = self.disk.send(DiskJob::HoldCpus(self.cpus.held()));
    }
}

fn answer(outcome: Result<agent_protocol::message::OnlineCpusReply, CpuError>) -> ReplyBody {
    let failure = match outcome {
        Ok(reply) => match serde_json::to_value(reply) {
            Ok(value) => return ReplyBody::Ok(value),
            Err(error) => ReplyError::new(ErrorCode::Cpu, error.to_string(), Retry::Useless),
        },
        Err(error @ CpuError::NoneLeft) => {
            ReplyError::new(ErrorCode::Malformed, chain(&error), Retry::Useless)
        }
        // A CPU that is not plugged yet may be on its way, and one that refuses may be freed by its task.
        Err(error) if error.lasts_until_reboot() => {
            ReplyError::new(ErrorCode::CpuStuck, chain(&error), Retry::Useless)
        }
        Err(error) => ReplyError::new(ErrorCode::Cpu, chain(&error), Retry::Useful),
    };
    ReplyBody::Err(failure)
}
