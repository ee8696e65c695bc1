//! The disk thread: the only one that writes state and environment. It takes one wish at a time; while a script of it runs
//! elsewhere, questions about earlier requests are still answered and further wishes wait in order.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::Instant,
};

use agent_protocol::{
    Asked, Command, CpuList, RequestId, RuleCall, ScriptResult,
    message::{ErrorCode, JournalState, OpStatus, ReplyBody, ReplyError, Retry},
};

use crate::{
    activate::{Activator, Scripts, Wish},
    commands::{CommandJob, Commission},
    conversation::GuestState,
    customize::{self, Ask},
    events::{Event, Events},
    exec::{self, Runner},
    gate,
    local::{Client, ClientId, Peer},
    log::{chain, log},
    program::{Ended, ProgramJob},
    rules::{Hands, InForce, call_begun},
    script::{ScriptError, ScriptJob},
    setting::Programs,
    store::{Answered, Record, Store, StoreError},
    users::find_member,
};

/// Work for the disk thread.
#[derive(Debug)]
pub(crate) enum DiskJob {
    /// Fulfil a wish, if it is begun before the deadline.
    Wish {
        id: RequestId,
        wish: Wish,
        deadline: Instant,
    },
    /// Write down that a command begins and have it run, unless it was answered before.
    Exec {
        id: RequestId,
        command: Box<Command>,
        deadline: Instant,
    },
    /// Look up who asks for another persona, and whether that is allowed in this guest.
    Identify {
        client: ClientId,
        peer: Peer,
        asked: Asked,
    },
    /// Have something done which a rule of the host calls for, unless it was answered before.
    Perform {
        id: RequestId,
        call: Box<RuleCall>,
        deadline: Instant,
    },
    /// Answer what became of a request.
    Status { id: RequestId, about: RequestId },
    /// A script that this thread commissioned has ended.
    ScriptEnded(Result<ScriptResult, ScriptError>),
    /// A program that this thread commissioned has ended.
    ProgramEnded(Result<Ended, ScriptError>),
    /// Somebody in the guest goes back to an earlier generation, and waits for what comes of it.
    Rollback { to: Option<u64>, client: Client },
    /// Somebody in the guest has something otherwise than the persona says, and waits for what comes of it.
    Customize { ask: Ask, client: Client },
    /// The machine was put back to an earlier state: read the disk again and verify what holds.
    Reread,
    /// Something changed where closed programs lie.
    KeepClosed,
    /// Remember an answer that another thread gave.
    Remember { id: RequestId, body: ReplyBody },
    /// The host has seen these records of rules.
    ForgetRecords(Vec<u64>),
    /// Remember the CPUs that were taken offline by order.
    HoldCpus(CpuList),
}

/// The thread's state.
pub(crate) struct Disk {
    activator: Activator,
    desk: Desk,
    runner: Runner,
    hands: Hands,
}

/// The thread's connections; they serve while a script runs.
struct Desk {
    jobs: Receiver<DiskJob>,
    waiting: VecDeque<DiskJob>,
    commands: Commission,
    events: Events,
    root: PathBuf,
}

/// What the channel tells the host of the guest's state.
pub(crate) fn state_of(store: &Store) -> GuestState {
    let journal = if store.journal().is_some() {
        JournalState::Recovering
    } else {
        JournalState::Clean
    };
    GuestState {
        active: store.current().and_then(Record::active),
        rolled_back: store.current().and_then(Record::rolled_back),
        customized: store
            .current()
            .and_then(|current| customize::told(&current.overlay)),
        restricts: store.current().and_then(gate::restricting),
        generation: store.newest().map_or(0, |newest| newest.generation),
        journal,
        rules: store.current().and_then(InForce::of),
    }
}

/// What rules of the host called for and an earlier agent began is answered as begun, also where that agent ended before it
/// had written its answer: the records say how far each came.
///
/// # Errors
/// When the state cannot be written.
pub(crate) fn know_calls(
    store: &mut Store,
    calls: Vec<(RequestId, u64)>,
) -> Result<(), StoreError> {
    for (id, generation) in calls {
        if store.result(&id).is_none() {
            store.remember(&id, &call_begun(generation))?;
        }
    }
    Ok(())
}

impl Disk {
    pub(crate) fn new(
        jobs: Receiver<DiskJob>,
        commands: Commission,
        events: Events,
        activator: Activator,
        runner: Runner,
        root: &Path,
        hands: Hands,
    ) -> Self {
        Self {
            activator,
            desk: Desk {
                jobs,
                waiting: VecDeque::new(),
                commands,
                events,
                root: root.to_owned(),
            },
            runner,
            hands,
        }
    }

    /// Works until the channel is gone.
    pub(crate) fn run(mut self) {
        self.runner.clear_leftovers();
        self.recover();
        while let Some(job) = self.desk.next() {
            match job {
                DiskJob::Wish { id, wish, deadline } => {
                    let body = self.fulfil(&id, wish, deadline);
                    self.tell_state();
                    self.desk.events.send(Event::Done { id, body });
                }
                DiskJob::Exec {
                    id,
                    command,
                    deadline,
                } => self.exec(id, command, deadline),
                DiskJob::Perform { id, call, deadline } => self.perform(id, *call, deadline),
                DiskJob::Status { id, about } => {
                    let known = self.activator.store().result(&about);
                    let done = |result: &ReplyBody| OpStatus::Done {
                        result: result.clone(),
                    };
                    let body = status_body(known.map_or(OpStatus::Unknown, done));
                    self.desk.events.send(Event::Done { id, body });
                }
                DiskJob::Rollback { to, client } => {
                    let came = self.roll_back(to);
                    self.tell_state();
                    client.tell(came);
                }
                DiskJob::Identify {
                    client,
                    peer,
                    asked,
                } => self.desk.identify(client, peer, asked),
                DiskJob::Customize { ask, client } => {
                    let came = self.customize(ask);
                    self.tell_state();
                    client.tell(came);
                }
                DiskJob::Reread => {
                    report(self.activator.store_mut().reread());
                    if let Err(error) = self.hands.log().read_again() {
                        log!("{}", chain(&error));
                    }
                    let calls = self.hands.log().calls();
                    report(know_calls(self.activator.store_mut(), calls));
                    self.recover();
                }
                DiskJob::KeepClosed => self.keep_closed(),
                DiskJob::ScriptEnded(_) | DiskJob::ProgramEnded(_) => {
                    log!("a script ended that nobody waited for");
                }
                DiskJob::Remember { id, body } => {
                    report(self.activator.store_mut().remember(&id, &body))
                }
                DiskJob::ForgetRecords(numbers) => self.hands.log().forget(&numbers),
                DiskJob::HoldCpus(cpus) => {
                    let boot_id = self.activator.boot_id().to_owned();
                    report(self.activator.store_mut().hold_cpus(cpus, &boot_id));
                }
            }
        }
    }

    /// The sequence, and those who run what it asks for.
    fn parts(&mut self) -> (&mut Activator, Commissioned<'_>) {
        let results = self.activator.store().results();
        let desk = &mut self.desk;
        (&mut self.activator, Commissioned { desk, results })
    }

    fn recover(&mut self) {
        let (activator, mut scripts) = self.parts();
        if let Err(error) = activator.recover(&mut scripts) {
            log!("recovery failed: {}", chain(&error));
        }
        self.tell_state();
    }

    fn keep_closed(&mut self) {
        let (activator, mut scripts) = self.parts();
        if let Err(error) = activator.keep_closed(&mut scripts) {
            log!("{}", chain(&error));
        }
        // It may have finished what an earlier fault left, or taken in what people have changed.
        self.tell_state();
    }

    fn roll_back(&mut self, to: Option<u64>) -> Result<String, String> {
        let (activator, mut scripts) = self.parts();
        let came = activator.go_back(to, &mut scripts);
        came.map_err(|error| chain(&error))
    }

    fn customize(&mut self, ask: Ask) -> Result<String, String> {
        let (activator, mut scripts) = self.parts();
        let came = activator.customize(ask, &mut scripts);
        came.map_err(|error| chain(&error))
    }

    fn fulfil(&mut self, id: &RequestId, wish: Wish, deadline: Instant) -> ReplyBody {
        if Instant::now() >= deadline && self.activator.store().result(id).is_none() {
            return expired();
        }
        let state = GuestState {
            journal: JournalState::Busy,
            ..state_of(self.activator.store())
        };
        self.desk.events.send(Event::State(state));
        let (activator, mut scripts) = self.parts();
        activator.fulfil(id, wish, &mut scripts)
    }

    /// Once only: what was answered before gets the same answer, and what is begun is on the disk before.
    fn exec(&mut self, id: RequestId, command: Box<Command>, deadline: Instant) {
        let store = self.activator.store_mut();
        let answer = match store.result(&id) {
            Some(known) => known.clone(),
            None if Instant::now() >= deadline => expired(),
            None => match self.runner.turn() {
                None => exec::busy(),
                Some(turn) => match store.remember(&id, &exec::begun()) {
                    Ok(()) => {
                        let current = store.current();
                        let active = current.and_then(|current| current.activation.as_ref());
                        let job = exec::CommandJob {
                            id,
                            command,
                            deadline,
                            persona: active.map(|a| a.persona.clone()).unwrap_or_default(),
                            generation: current.map_or(0, |current| current.generation),
                            table: active.map(|a| a.commands.clone()).unwrap_or_default(),
                            environment: current.map(Record::environment).unwrap_or_default(),
                        };
                        return self.runner.begin(turn, job);
                    }
                    Err(error) => ReplyBody::Err(ReplyError::new(
                        ErrorCode::Storage,
                        chain(&error),
                        Retry::Useful,
                    )),
                },
            },
        };
        self.desk.events.send(Event::Done { id, body: answer });
    }

    /// Once only: what is on the disk before its answer is the firing itself, by which it is known also after a crash.
    fn perform(&mut self, id: RequestId, call: RuleCall, deadline: Instant) {
        let store = self.activator.store();
        let refusal = match store.result(&id) {
            Some(known) => known.clone(),
            None if Instant::now() >= deadline => expired(),
            None => match store.current().and_then(InForce::whole) {
                Some(in_force) if in_force.generation == call.generation => {
                    return self.hands.perform_call(id, in_force, call);
                }
                _ => refused(
                    ErrorCode::StaleGeneration,
                    "another persona holds in the guest, or none",
                    Retry::Useless,
                ),
            },
        };
        self.desk.events.send(Event::Done { id, body: refusal });
    }

    fn tell_state(&mut self) {
        self.desk
            .events
            .send(Event::State(state_of(self.activator.store())));
    }
}

impl Desk {
    fn identify(&self, client: ClientId, peer: Peer, asked: Asked) {
        let user = find_member(&self.root, peer);
        self.events.send(Event::Identified {
            client,
            asked,
            user,
        });
    }

    fn next(&mut self) -> Option<DiskJob> {
        self.waiting.pop_front().or_else(|| self.jobs.recv().ok())
    }
}

/// Scripts by way of the commands thread.
struct Commissioned<'a> {
    desk: &'a mut Desk,
    results: Vec<Answered>,
}

impl Scripts for Commissioned<'_> {
    fn run(&mut self, job: ScriptJob) -> Result<ScriptResult, ScriptError> {
        let under_way = job.request.clone();
        self.desk.commands.send(CommandJob::Script(Box::new(job)));
        match self.wait(&under_way)? {
            RunEnd::Script(ended) => ended,
            RunEnd::Program(_) => Err(ScriptError::NobodyRuns),
        }
    }
}

impl Programs for Commissioned<'_> {
    fn run_program(&mut self, job: ProgramJob) -> Result<Ended, ScriptError> {
        let under_way = job.request.clone();
        self.desk.commands.send(CommandJob::Program(Box::new(job)));
        match self.wait(&under_way)? {
            RunEnd::Program(ended) => ended,
            RunEnd::Script(_) => Err(ScriptError::NobodyRuns),
        }
    }
}

/// The end of the one run that is waited for.
enum RunEnd {
    Script(Result<ScriptResult, ScriptError>),
    Program(Result<Ended, ScriptError>),
}

impl Commissioned<'_> {
    /// Waits for the end of what runs for a request; questions are answered meanwhile, and further work waits.
    fn wait(&mut self, under_way: &RequestId) -> Result<RunEnd, ScriptError> {
        loop {
            match self.desk.jobs.recv() {
                Ok(DiskJob::ScriptEnded(ended)) => return Ok(RunEnd::Script(ended)),
                Ok(DiskJob::ProgramEnded(ended)) => return Ok(RunEnd::Program(ended)),
                Ok(DiskJob::Status { id, about }) => {
                    let known = self.results.iter().find(|(known, _)| *known == about);
                    let status = match known {
                        Some((_, result)) => OpStatus::Done {
                            result: result.as_ref().clone(),
                        },
                        // The channel knows what was asked of this run; this one may be left from an earlier.
                        None if about == *under_way => OpStatus::Running,
                        None => OpStatus::Unknown,
                    };
                    let body = status_body(status);
                    self.desk.events.send(Event::Done { id, body });
                }
                Ok(DiskJob::Remember { id, body }) => {
                    // Written when the disk thread is free again; who asks about it meanwhile hears it.
                    self.results.retain(|(known, _)| *known != id);
                    self.results.push((id.clone(), Arc::new(body.clone())));
                    self.desk.waiting.push_back(DiskJob::Remember { id, body });
                }
                // Who looks at the personas while one is made active is not kept waiting for that.
                Ok(DiskJob::Identify {
                    client,
                    peer,
                    asked,
                }) => self.desk.identify(client, peer, asked),
                Ok(job) => self.desk.waiting.push_back(job),
                Err(_) => return Err(ScriptError::NobodyRuns),
            }
        }
    }
}

/// The answer to a request that waited too long.
pub(crate) fn expired() -> ReplyBody {
    let message = "the request waited longer than its ttl_ms; nothing was done";
    ReplyBody::Err(ReplyError::new(ErrorCode::Expired, message, Retry::Useful))
}

fn refused(code: ErrorCode, why: &str, retry: Retry) -> ReplyBody {
    ReplyBody::Err(ReplyError::new(code, why, retry))
}

fn status_body(status: OpStatus) -> ReplyBody {
    match serde_json::to_value(status) {
        Ok(value) => ReplyBody::Ok(value),
        Err(error) => ReplyBody::Err(ReplyError::new(
            ErrorCode::Storage,
            error.to_string(),
            Retry::Useless,
        )),
    }
}

fn report(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        log!("{}", chain(&error));
    }
}

/// A sender for the other threads.
pub(crate) type ToDisk = Sender<DiskJob>;
