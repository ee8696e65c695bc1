//! Making a persona active, and inactive again: one sequence of steps, each recorded before its deed, so that a kill at any
//! point is either finished or undone at the next start. Lives on the disk thread; scripts run elsewhere, through [`Scripts`].
//!
//! ```text
//! Prepared -> [PreStarted -> PreDone] -> SoftwareStarted -> SettingsStarted -> EnvironmentStarted -> EnvironmentDone
//!                 |                        |                     |   -> [PostStarted] -> PostDone -> commands routed, current flipped -> Current
//!                 |                        |                     |            |                |
//!                 +-- a script, package or setting failed, a script's end is not recorded, or the disk failed --> RollingBack -> failed
//! ```
//! What is done about packages and then settings is planned after the `pre` script, which may install what they need, and is in
//! the journal with how everything was before the first of it is done. Packages that nothing wants any more, and features of
//! another persona's rules, go when the generation holds: they could not come back if something failed after that.
//! After a crash the sequence goes on where the journal stands; a script whose start is recorded without its end is never run
//! again: it counts as interrupted, and what was before comes back.

mod by_hand;
mod closing;
mod conclusion;
mod environment;
mod found;
mod own;
mod recovery;
mod routing;
mod settings;
mod software;
mod sudo;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_protocol::{
    Activation, OnFailure, RequestId, Script, ScriptResult,
    activation::{Change, ScriptsRun},
    message::{ErrorCode, ReplyBody},
};

use verdict::{interrupted, judge_script, refusal, storage};

pub(crate) use environment::{Environment, EnvironmentError, EnvironmentFiles};
use own::Sight;
pub(crate) use routing::PeopleLeave;
use routing::{Routing, RoutingError};

use crate::{
    customize::{Customization, Full},
    durable::DurableError,
    log::{chain, log},
    rules::{Features, RuleLeave},
    script::{ScriptError, ScriptJob, Stage},
    setting::Programs,
    store::{Fate, Journal, Record, Step, Store, StoreError},
    upgrades::Upgrades,
    users::{UserError, find_user},
};

/// Who runs scripts; the disk thread passes them on to the commands thread.
pub(crate) trait Scripts: Programs {
    /// Runs one script to its end.
    fn run(&mut self, job: ScriptJob) -> Result<ScriptResult, ScriptError>;
}

/// What the host asks for: an activation, or none.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Activate(Box<Activation>),
    Deactivate { generation: u64 },
}

/// Something on this machine went wrong; it is reported, and what was begun is undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivateError {
    #[error("the state of the agent cannot be kept")]
    Store(#[from] StoreError),
    #[error("the environment cannot be changed")]
    Environment(#[from] EnvironmentError),
    #[error("what programs have written cannot be made durable")]
    Settle(#[from] DurableError),
    #[error("the persona's commands cannot be held for people who log in")]
    Routing(#[from] RoutingError),
    #[error("what was changed in the guest cannot be kept")]
    Own(#[source] Box<by_hand::ByHandError>),
    #[error("what was changed in the guest cannot be kept")]
    Full(#[from] Full),
}

/// What an operation brings about.
#[derive(Clone, Copy)]
struct Aim<'a> {
    /// What the host asks for, with what is customised laid over it.
    activation: Option<&'a Activation>,
    /// What was laid over it.
    overlay: &'a [Customization],
}

/// The sequence, with all it works on.
#[derive(Debug)]
pub(crate) struct Activator {
    store: Store,
    files: EnvironmentFiles,
    routing: Routing,
    root: PathBuf,
    boot_id: String,
    rules: RuleRoom,
    people: PeopleLeave,
    /// There where programs are to be closed.
    upgrades: Option<Arc<Upgrades>>,
}

/// What of the guest's own rules belongs to the sequence.
#[derive(Debug)]
pub(crate) struct RuleRoom {
    pub(crate) leave: RuleLeave,
    pub(crate) features: Arc<Features>,
}

impl Activator {
    pub(crate) fn new(
        store: Store,
        root: &Path,
        boot_id: String,
        people: PeopleLeave,
        upgrades: Option<Arc<Upgrades>>,
        rules: RuleRoom,
    ) -> Self {
        let files = EnvironmentFiles::new(root, store.writer());
        let routing = Routing::new(root, store.directory(), people, store.writer());
        Self {
            store,
            files,
            routing,
            root: root.to_owned(),
            boot_id,
            rules,
            people,
            upgrades,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Features that rules of another persona than the one that holds have switched go back. Nothing of it can fail anything.
    fn hold_features(&self, request: &RequestId, scripts: &mut impl Scripts) {
        let current = self.store.current();
        let activation = current.and_then(|current| current.activation.as_ref());
        let digest = activation.map(Activation::identity);
        let mut run = |job| scripts.run_program(job);
        self.rules.features.release(digest, request, &mut run);
    }

    /// Fulfils a wish once: a request that has been answered before gets the same answer.
    pub(crate) fn fulfil(
        &mut self,
        request: &RequestId,
        wish: Wish,
        scripts: &mut impl Scripts,
    ) -> ReplyBody {
        if let Some(known) = self.store.result(request) {
            return known.clone();
        }
        let error = match self.attempt(request, wish, scripts) {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        log!("request {request} failed: {}", chain(&error));
        let failure = storage(&error);
        self.undo_after_fault(failure.clone(), scripts);
        self.store
            .result(request)
            .cloned()
            .unwrap_or(ReplyBody::Err(failure))
    }

    fn attempt(
        &mut self,
        request: &RequestId,
        wish: Wish,
        scripts: &mut impl Scripts,
    ) -> Result<ReplyBody, ActivateError> {
        // A fault can have left an operation half done; nothing else begins before it is out of the way.
        if self.store.journal().is_some() {
            self.recover(scripts)?;
        }
        let (generation, activation) = match wish {
            Wish::Activate(activation) => (activation.generation, Some(*activation)),
            Wish::Deactivate { generation } => (generation, None),
        };
        let verdict = self.judge(generation, activation.as_ref());
        if let Some(answer) = verdict {
            self.store.remember(request, &answer)?;
            return Ok(answer);
        }
        self.files.check_ours()?;
        self.absorb(Sight::All, scripts)?;
        let (request, boot_id) = (request.clone(), self.boot_id.clone());
        let own = self.store.current().map(|current| current.own.clone());
        let mut record = Record {
            generation,
            fate: Fate::Prepared,
            request: request.clone(),
            at_unix_s: unix_time().as_secs(),
            activation,
            pre: None,
            post: None,
            error: None,
            held: Vec::new(),
            defaults: BTreeMap::new(),
            settings: Vec::new(),
            rollback: None,
            software: BTreeMap::new(),
            own: own.unwrap_or_default(),
            overlay: Vec::new(),
        };
        record.lay_own_over();
        self.routing.check_ours(&record)?;
        self.store.write_record(record)?;
        let journal = Journal {
            request,
            generation,
            step: Step::Prepared,
            boot_id,
            pre: None,
            post: None,
            failure: None,
            software: None,
            settings: None,
            by_hand: None,
            taken: BTreeSet::new(),
        };
        self.store.write_journal(&journal)?;
        self.proceed(journal, scripts)
    }

    /// The answer that needs no deed: a refusal, or that the guest already is as asked.
    fn judge(&self, generation: u64, activation: Option<&Activation>) -> Option<ReplyBody> {
        let digest = |activation: &Activation| activation.digest.clone();
        let wanted = activation.map(digest);
        if let Some(newest) = self.store.newest() {
            if generation < newest.generation {
                let message = format!(
                    "generation {generation} is older than {}, which was seen",
                    newest.generation
                );
                return Some(refusal(ErrorCode::StaleGeneration, message));
            }
            if generation == newest.generation && newest.activation.as_ref().map(digest) != wanted {
                let message = format!("generation {generation} was seen with another digest");
                return Some(refusal(ErrorCode::GenerationConflict, message));
            }
        }
        let current = self.store.current();
        if let Some(current) = current.filter(|current| current.generation == generation) {
            return Some(self.answer(current, Change::Unchanged, false));
        }
        for script in activation
            .into_iter()
            .flat_map(|activation| [&activation.pre, &activation.post])
            .flatten()
        {
            if let Err(error) = find_user(&self.root, &script.user) {
                let code = if matches!(error, UserError::Unknown { .. }) {
                    ErrorCode::UnknownUser
                } else {
                    ErrorCode::Storage
                };
                return Some(refusal(code, chain(&error)));
            }
        }
        None
    }

    /// Goes on from the journal's step to the end, forward or back.
    fn proceed(
        &mut self,
        mut journal: Journal,
        scripts: &mut impl Scripts,
    ) -> Result<ReplyBody, ActivateError> {
        let record = match &journal.by_hand {
            Some(record) => Some(record.as_ref().clone()),
            None => self.store.record(journal.generation)?,
        };
        let Some(mut record) = record else {
            // The journal is written after the record, so this is a record that a person removed: nothing to go on with.
            journal.failure = Some(interrupted("its record is gone"));
            return self.roll_back(journal, None, scripts);
        };
        let activation = record.wanted();
        let overlay = record.overlay.clone();
        let aim = Aim {
            activation: activation.as_ref(),
            overlay: &overlay,
        };
        // Scripts belong to what the host asks for: what they did is not known, and they need not bear to be run again.
        let scripted = activation
            .as_ref()
            .filter(|activation| journal.by_hand.is_none() && !self.goes_on(activation));
        let pre = scripted.and_then(|activation| activation.pre.clone());
        let post = scripted.and_then(|activation| activation.post.clone());
        loop {
            if let Some(plan) = &journal.settings {
                record.defaults.clone_from(&plan.defaults);
            }
            match journal.step {
                Step::Prepared => match &pre {
                    None => self.plan_software(&mut journal, aim, scripts)?,
                    Some(script) => {
                        self.reach(&mut journal, Step::PreStarted)?;
                        let ended = scripts.run(job(&journal, &record, Stage::Pre, script));
                        let (result, failure) =
                            judge_script(ended, ErrorCode::PreFailed, "pre", OnFailure::Rollback);
                        (journal.pre, journal.failure) = (result, failure);
                        self.settle()?;
                        let next = if journal.failure.is_none() {
                            Step::PreDone
                        } else {
                            Step::RollingBack
                        };
                        self.reach(&mut journal, next)?;
                    }
                },
                Step::PreDone => {
                    self.plan_software(&mut journal, aim, scripts)?;
                }
                Step::SoftwareStarted => {
                    self.install_software(&mut journal, aim, scripts)?;
                }
                Step::SettingsStarted => self.carry_out_settings(&mut journal, scripts)?,
                Step::EnvironmentStarted => {
                    match self.files.check_ours() {
                        // What is done between two activations does not fail by somebody's file, and leaves it alone.
                        Err(error @ EnvironmentError::Foreign { .. })
                            if journal.by_hand.is_some() =>
                        {
                            log!("{}", chain(&error));
                        }
                        _ => self.files.write(&record.in_files())?,
                    }
                    self.reach(&mut journal, Step::EnvironmentDone)?;
                }
                Step::EnvironmentDone => match &post {
                    None => self.reach(&mut journal, Step::PostDone)?,
                    Some(script) => {
                        self.reach(&mut journal, Step::PostStarted)?;
                        let ended = scripts.run(job(&journal, &record, Stage::Post, script));
                        let (result, failure) =
                            judge_script(ended, ErrorCode::PostFailed, "post", script.on_failure);
                        (journal.post, journal.failure) = (result, failure);
                        self.settle()?;
                        let next = if journal.failure.is_none() {
                            Step::PostDone
                        } else {
                            Step::RollingBack
                        };
                        self.reach(&mut journal, next)?;
                    }
                },
                Step::PreStarted | Step::PostStarted => {
                    let stage = if journal.step == Step::PreStarted {
                        "pre"
                    } else {
                        "post"
                    };
                    journal.failure = Some(interrupted(&format!(
                        "its {stage} script was running when the agent ended"
                    )));
                    self.reach(&mut journal, Step::RollingBack)?;
                }
                Step::PostDone => {
                    self.commit(&journal, record.clone())?;
                    self.reach(&mut journal, Step::Current)?;
                }
                Step::Current => return self.conclude(journal, scripts),
                Step::RollingBack => return self.roll_back(journal, Some(record), scripts),
            }
        }
    }

    /// Whether the guest has the persona already, and nothing changes but what rules of the host adjusted of it.
    fn goes_on(&self, activation: &Activation) -> bool {
        let adjusted = activation.adjusted.as_ref();
        let current = self.store.current();
        let current = current.filter(|current| current.rollback.is_none());
        let active = current.and_then(|current| current.activation.as_ref());
        adjusted.is_some_and(|adjusted| {
            adjusted.scripts == ScriptsRun::UnlessActive
                && active.is_some_and(|active| active.identity() == adjusted.of)
        })
    }

    /// Waits until what programs have written is on the disks: scripts, service and package managers, plugins. Before the journal
    /// says that it is done; what the agent writes itself is durable already.
    fn settle(&self) -> Result<(), ActivateError> {
        Ok(self.store.writer().settle(&self.root)?)
    }

    fn reach(&mut self, journal: &mut Journal, step: Step) -> Result<(), ActivateError> {
        journal.step = step;
        Ok(self.store.write_journal(journal)?)
    }

    /// What the files of variables hold while the current generation does.
    fn environment_now(&self) -> Environment {
        self.store
            .current()
            .map(Record::in_files)
            .unwrap_or_default()
    }
}

/// The guest's clock, for people; nothing is decided by it.
fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn job(journal: &Journal, record: &Record, stage: Stage, script: &Script) -> ScriptJob {
    let persona = record
        .activation
        .as_ref()
        .map(|activation| activation.persona.clone())
        .unwrap_or_default();
    ScriptJob {
        request: journal.request.clone(),
        stage,
        script: script.clone(),
        environment: record.environment(),
        persona,
        generation: journal.generation,
    }
}
