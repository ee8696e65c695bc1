//! Carries out what rules call for: each firing in a thread of its own, which ends with it, so that the channel waits for
//! none and an idle agent has no more threads than before. What is not on the disk is not begun. Called by `evaluate`, which
//! decides; the persona's word on trust and restricted commands is looked at here once more, before each deed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use agent_protocol::{
    CommandTable, RequestId, RuleCall,
    limits::RULE_RUNS_MAX,
    message::{ErrorCode, ReplyBody, ReplyError, Retry},
    rules::{CallReply, DeedOutcome, GuestAction, RuleBy, RuleDeed, RuleWord},
};
use persona::{TrustLevels, rule::Action};
use planner::{place, trust};

use super::{
    Features, InForce,
    feature::{Switch, Switched},
    log::{Begun, Fired, Intent, SharedLog},
};
use crate::{
    disk::{DiskJob, ToDisk},
    events::{Event, Events},
    exec,
    log::{chain, log},
    program::{Nothing, ProgramJob},
    script::{ScriptJob, Stage, run_program, run_script},
};

/// A rule that fires.
#[derive(Debug)]
pub(super) struct Firing {
    pub(super) in_force: Arc<InForce>,
    pub(super) intent: Intent,
    /// The actions, each in the direction that is to be done now.
    pub(super) actions: Vec<Action>,
    /// By whose word.
    pub(super) word: RuleWord,
}

impl Firing {
    /// What it is known by while it is under way. A rule of the host may have several, but of those that switch a feature one
    /// is done after another, in the order in which they were called for.
    fn name(&self) -> String {
        match (&self.intent.call, self.actions.first()) {
            (None, _) => self.intent.rule.clone(),
            (Some(_), Some(Action::EnableFeature(name) | Action::DisableFeature(name))) => {
                format!("feature {name} of the host")
            }
            (Some(request), _) => format!("{} ({request})", self.intent.rule),
        }
    }
}

/// The answer to a request that is on the disk.
pub(crate) fn call_begun(generation: u64) -> ReplyBody {
    ReplyBody::Ok(serde_json::to_value(CallReply { generation }).unwrap_or_default())
}

/// Carries out what rules call for.
#[derive(Clone, Debug)]
pub(crate) struct Hands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    log: SharedLog,
    features: Arc<Features>,
    boot_id: String,
    events: Events,
    disk: ToDisk,
    busy: Mutex<Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    /// Rules of which a firing is under way.
    running: BTreeSet<String>,
    /// Rules whose firing could not be recorded and so did not begin.
    unbegun: BTreeSet<String>,
}

impl Hands {
    pub(crate) fn new(
        root: &Path,
        log: SharedLog,
        features: Arc<Features>,
        boot_id: String,
        (events, disk): (Events, ToDisk),
    ) -> Self {
        Self(Arc::new(Inner {
            boot_id,
            events,
            disk,
            root: root.to_owned(),
            log,
            features,
            busy: Mutex::default(),
        }))
    }

    /// What is recorded of all of it.
    pub(crate) fn log(&self) -> &SharedLog {
        &self.0.log
    }

    /// Whether a rule may fire now: not while it is still at its last one, nor while too many others are.
    pub(super) fn is_free(&self, rule: &str) -> bool {
        let busy = self.0.busy();
        busy.running.len() < RULE_RUNS_MAX && !busy.running.contains(rule)
    }

    /// Whether the last firing of a rule did not begin, so that it fires once more. It is told once.
    pub(super) fn take_unbegun(&self, rule: &str) -> bool {
        self.0.busy().unbegun.remove(rule)
    }

    /// Begins what a rule of the host calls for; the request is answered when it is on the disk.
    pub(crate) fn perform_call(&self, id: RequestId, in_force: Arc<InForce>, call: RuleCall) {
        let action = match call.action {
            GuestAction::Run(name) => Action::Run(name),
            GuestAction::EnableFeature(name) => Action::EnableFeature(name),
            GuestAction::DisableFeature(name) => Action::DisableFeature(name),
        };
        let firing = Firing {
            intent: Intent {
                generation: in_force.generation,
                persona: in_force.persona.clone(),
                digest: in_force.digest.clone(),
                rule: call.rule,
                edge: call.edge,
                actions: vec![action.to_string()],
                readings: Vec::new(),
                by: RuleBy::Host,
                call: Some(id.clone()),
                kept: None,
                fired: Fired::now(&self.0.boot_id),
                deeds: Vec::new(),
            },
            in_force,
            actions: vec![action],
            word: call.word,
        };
        let name = firing.name();
        let why = {
            let busy = self.0.busy();
            if busy.running.contains(&name) {
                format!("{name} is being switched already")
            } else if busy.running.len() >= RULE_RUNS_MAX {
                format!("{RULE_RUNS_MAX} rules are at work already")
            } else {
                String::new()
            }
        };
        if why.is_empty() {
            self.fire(firing);
        } else {
            self.0.refuse(id, ErrorCode::Busy, why);
        }
    }

    /// Begins a firing.
    pub(super) fn fire(&self, firing: Firing) {
        let rule = firing.name();
        let call = firing.intent.call.clone();
        self.0.busy().running.insert(rule.clone());
        let inner = Arc::clone(&self.0);
        let spawned = thread::Builder::new()
            .name("rule".to_owned())
            .spawn(move || inner.carry_out(firing));
        if let Err(error) = spawned {
            log!("rule {rule} cannot fire now: {error}");
            self.0
                .give_up(&rule, call, ErrorCode::Busy, error.to_string());
        }
    }

    /// Writes what is carried of rules, without holding the channel up.
    pub(super) fn save(&self) {
        let inner = Arc::clone(&self.0);
        let save = move || {
            if let Err(error) = inner.log.write_standing() {
                log!("what is carried of rules is not kept: {}", chain(&error));
            }
        };
        if let Err(error) = thread::Builder::new().name("rule".to_owned()).spawn(save) {
            log!("what is carried of rules is not kept: {error}");
        }
    }
}

impl Inner {
    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The firing did not begin: the rule fires once more, and the host is told to ask once more.
    fn give_up(&self, rule: &str, call: Option<RequestId>, code: ErrorCode, why: String) {
        let mut busy = self.busy();
        busy.running.remove(rule);
        if call.is_none() {
            busy.unbegun.insert(rule.to_owned());
        }
        drop(busy);
        if let Some(id) = call {
            self.refuse(id, code, why);
        }
    }

    fn carry_out(&self, firing: Firing) {
        let rule = firing.name();
        let call = firing.intent.call.clone();
        let begun = match self.log.begin(&firing.intent) {
            Ok(begun) => begun,
            Err(error) => {
                let why = chain(&error);
                log!("rule {rule} cannot fire: {why}");
                return self.give_up(&rule, call, ErrorCode::Storage, why);
            }
        };
        if let Some(id) = call {
            self.answer(id, call_begun(firing.in_force.generation));
        }
        log!("rule {rule} fires: {}", firing.intent.actions.join(", "));
        self.perform(&begun, firing);
        self.busy().running.remove(&rule);
    }

    fn answer(&self, id: RequestId, body: ReplyBody) {
        // Not waited for: what is on the disk already says after a crash that it was begun. The other threads live as long as
        // the process.
        let _ = self.disk.send(DiskJob::Remember {
            id: id.clone(),
            body: body.clone(),
        });
        self.events.send(Event::Done { id, body });
    }

    /// Nothing was begun, so nothing is remembered: the same request may be begun later.
    fn refuse(&self, id: RequestId, code: ErrorCode, why: String) {
        let body = ReplyBody::Err(ReplyError::new(code, why, Retry::Useful));
        self.events.send(Event::Done { id, body });
    }

    fn perform(&self, begun: &Begun, firing: Firing) {
        let Firing {
            in_force,
            mut intent,
            actions,
            word,
            ..
        } = firing;
        for (index, action) in actions.iter().enumerate() {
            if index > 0
                && let Err(error) = self.log.progress(begun, &intent)
            {
                // After a kill more of it would be told as unknown than is.
                log!("{}", chain(&error));
            }
            let (outcome, detail, output) =
                self.deed(&in_force, &intent, action, word, &begun.request);
            if outcome != DeedOutcome::Done {
                log!("rule {}: {action}: {outcome:?} {detail}", intent.rule);
            }
            let action = intent.actions.get(index).cloned().unwrap_or_default();
            intent.deeds.push(RuleDeed {
                action,
                outcome,
                detail,
                output,
            });
        }
        if let Err(error) = self.log.finish(begun, intent) {
            log!("what a rule did is not recorded: {}", chain(&error));
        }
    }

    /// One action, or why it is not done.
    fn deed(
        &self,
        in_force: &InForce,
        intent: &Intent,
        action: &Action,
        word: RuleWord,
        request: &RequestId,
    ) -> (DeedOutcome, String, String) {
        let said = |outcome, detail: &str| (outcome, detail.to_owned(), String::new());
        let class = action.class();
        match trust::permit(&trust_of(in_force), place::deed(action)) {
            trust::Permit::Act => {}
            trust::Permit::Propose if word == RuleWord::Person => {}
            trust::Permit::Propose => {
                let detail = format!(
                    "the persona's trust level for {class} leaves it to a person, and nobody can approve it in the guest"
                );
                return said(DeedOutcome::NeedsApproval, &detail);
            }
            trust::Permit::Never => {
                let detail =
                    format!("the persona's trust level for {class} is none, which forbids it");
                return said(DeedOutcome::Refused, &detail);
            }
        }
        match action {
            Action::Notify(text) => {
                log!("rule {} says: {text}", intent.rule);
                said(DeedOutcome::Done, "")
            }
            Action::Run(name) => self.run(in_force, intent, name, request),
            Action::EnableFeature(name) => self.switch(in_force, name, Switch::On, request),
            Action::DisableFeature(name) => self.switch(in_force, name, Switch::Off, request),
            _ => said(DeedOutcome::Refused, "the agent does not perform it"),
        }
    }

    fn run(
        &self,
        in_force: &InForce,
        intent: &Intent,
        name: &str,
        request: &RequestId,
    ) -> (DeedOutcome, String, String) {
        let refused = |why: String| (DeedOutcome::Refused, why, String::new());
        let Some(script) = in_force.rules.scripts.get(name) else {
            return refused(format!("there is no script `{name}`"));
        };
        if let Err(why) = self.permitted(&in_force.persona, &in_force.commands, &script.interpreter)
        {
            return refused(why);
        }
        let mut environment = in_force.environment.clone();
        environment.insert("VIRT_PERSONA_RULE".to_owned(), intent.rule.clone());
        let job = ScriptJob {
            request: request.clone(),
            stage: Stage::Rule,
            script: script.clone(),
            environment,
            persona: in_force.persona.clone(),
            generation: in_force.generation,
        };
        let result = match run_script(&self.root, &job, &mut Nothing) {
            Ok(result) => result,
            Err(error) => return (DeedOutcome::Failed, chain(&error), String::new()),
        };
        let (outcome, detail) = match (result.exit, result.signal) {
            _ if result.timed_out => (
                DeedOutcome::Failed,
                "it did not end in time and was stopped".to_owned(),
            ),
            (Some(0), _) => (DeedOutcome::Done, String::new()),
            (Some(code), _) => (DeedOutcome::Failed, format!("it ended with {code}")),
            (None, signal) => (
                DeedOutcome::Failed,
                format!("it was ended by signal {}", signal.unwrap_or(0)),
            ),
        };
        (outcome, detail, result.output)
    }

    /// Whether the persona's restricted commands let a script's interpreter run. Behind `env` it is the word after it.
    fn permitted(
        &self,
        persona: &str,
        table: &CommandTable,
        interpreter: &str,
    ) -> Result<(), String> {
        let mut words = interpreter.split_whitespace();
        let program = words.next().unwrap_or_default();
        exec::permitted(&self.root, persona, table, program)?;
        match words.next() {
            Some(word) if program.ends_with("/env") && !word.starts_with('-') => {
                exec::permitted(&self.root, persona, table, word)
            }
            _ => Ok(()),
        }
    }

    fn switch(
        &self,
        in_force: &InForce,
        name: &str,
        to: Switch,
        request: &RequestId,
    ) -> (DeedOutcome, String, String) {
        let mut run = |job: ProgramJob| run_program(&job, &mut Nothing);
        let switched = self
            .features
            .switch(name, to, &in_force.digest, request, &mut run);
        let (outcome, detail) = match switched {
            Ok(Switched::Done) => (DeedOutcome::Done, String::new()),
            Ok(Switched::Unchanged) => (DeedOutcome::Unchanged, String::new()),
            Err(error) if error.was_refused() => (DeedOutcome::Refused, chain(&error)),
            Err(error) => (DeedOutcome::Failed, chain(&error)),
        };
        (outcome, detail, String::new())
    }
}

/// The persona's levels of trust. One that cannot be understood lets nothing be done.
fn trust_of(in_force: &InForce) -> TrustLevels {
    let levels = serde_json::to_value(&in_force.rules.trust).and_then(serde_json::from_value);
    levels.unwrap_or_else(|error| {
        log!("the persona's levels of trust are not known, so nothing is done: {error}");
        TrustLevels::nothing()
    })
}
