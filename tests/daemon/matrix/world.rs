//! One world of the matrix: a domain for each action, the fault, the recovery after it, and what must hold all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persona::domain::DomainId;
use tokio::time::{Instant, sleep};
use virt_persona::command::{Command, DomainName};
use virt_persona::hypervisor::simulated::{Fault, Simulated};
use virt_persona::view::{ActivationState, AuditRecordView, DomainView, HypervisorState, View};

use super::action::{ACTIONS, Action, Bound, documents, is_limited, load};
use super::person::{adopt_and_undo, approve_all, definition, false_answer, untold};
use super::wrong::Wrong;
use crate::paused::{House, Resident};

/// How often in a row a call fails.
const TIMES: usize = 2;

/// How long a fault lasts.
const FAULTY: Duration = Duration::from_secs(90);

/// After the fault: a mechanism may be in quarantine for ten minutes, and once more for a failure at its end.
const RECOVERED: Duration = Duration::from_secs(45 * 60);

/// DIMMs grow machines that have nothing else; recordings are none of the matrix' business and a tenth of its time.
const CONFIGURATION: &str = "[memory]\ndimm = 'growth'\n[recording]\nmib_per_domain = 0\n";

/// Between the faults of two actions that meet theirs one after another.
const PAUSE: Duration = Duration::from_secs(14);

/// The one that nothing is wrong with.
const OTHER: &str = "Other";

/// What came of one action under one fault.
pub(crate) struct Cell {
    /// From the end of the fault until it was where it should be; absent when it never was.
    pub(crate) after: Option<Duration>,
    /// How its steps ended: applied, partial, refused, unknown.
    pub(crate) endings: [usize; 4],
    /// It was left alone for a while, and that was said.
    pub(crate) quarantined: bool,
}

pub(crate) struct World {
    house: House,
    wrong: Wrong,
    killed: bool,
    complaints: Arc<Mutex<Vec<String>>>,
    /// As they were in the beginning.
    definitions: Mutex<BTreeMap<DomainId, String>>,
}

impl World {
    pub(crate) async fn new(wrong: Wrong, killed: bool) -> Self {
        let mut scenario =
            String::from("deadline_ms = 3000\n[host]\ncores = 64\nmemory_mib = 65536\n");
        for action in ACTIONS {
            scenario.push_str(&action.domain());
        }
        scenario.push_str(&Action::GrowDevice.domain().replace("GrowDevice", OTHER));
        Self {
            house: House::new(&scenario, CONFIGURATION).await,
            wrong,
            killed,
            complaints: Arc::default(),
            definitions: Mutex::default(),
        }
    }

    pub(crate) fn complain(&self, text: &str) {
        let name = self.wrong.name();
        let killed = if self.killed { ", killed" } else { "" };
        let text = format!("{name}{killed}: {text}");
        self.complaints.lock().unwrap().push(text);
    }

    pub(crate) fn set_first_loads(&self) {
        let simulated = &self.house.simulated;
        for action in ACTIONS {
            simulated.set_load(self.house.id(&action.name()), load(action.load(false)));
        }
        simulated.set_load(self.house.id(OTHER), load(Action::GrowDevice.load(false)));
    }

    pub(crate) fn other_is_grown(&self, view: &View) -> bool {
        let id = self.house.id(OTHER);
        view.domains
            .get(&id)
            .is_some_and(|domain| Action::GrowDevice.is_reached(&self.house.simulated, domain))
    }

    /// Everything is as before the trigger.
    pub(crate) async fn prepare(&self, daemon: &Resident) {
        self.set_first_loads();
        for action in ACTIONS {
            let id = self.house.id(&action.name());
            let before = definition(&self.house.simulated, id).unwrap();
            self.definitions.lock().unwrap().insert(id, before);
        }
        for document in documents() {
            daemon.create(&document).await;
        }
        let mapped = daemon.ask(Command::Map {
            tag: "day".into(),
            persona: "day".into(),
            priority: 0,
        });
        assert!(mapped.await.is_ok());
        for action in ACTIONS {
            if let (Bound::Before, Some(persona)) = (action.bound(), action.persona(false)) {
                daemon.apply(&action.name(), persona).await;
            }
        }
        daemon.apply(OTHER, "elastic").await;
        let ready = |view: &View| {
            ACTIONS.iter().all(|action| {
                let id = self.house.id(&action.name());
                let shown = self.house.simulated.shown(id);
                let domain = view.domains.get(&id);
                domain
                    .zip(shown)
                    .is_some_and(|(domain, shown)| action.is_ready(&shown, domain))
            })
        };
        let prepared = daemon.until(RECOVERED, ready).await;
        assert!(
            prepared.is_some(),
            "it is never ready: {:#?}",
            daemon.view().domains
        );
    }

    /// Begins what is wrong with an action, and gives it its reason.
    pub(crate) async fn trigger(&self, daemon: &Resident, action: Action) {
        let simulated = &self.house.simulated;
        let id = self.house.id(&action.name());
        match &self.wrong {
            Wrong::Call(fault) => {
                for _ in 0..TIMES {
                    simulated.fail_next(id, action.call(), fault.clone());
                }
            }
            Wrong::Guest(conduct) => simulated.behave(id, Some(*conduct)),
            Wrong::LibraryAway => {}
        }
        simulated.set_load(id, load(action.load(true)));
        if let (Bound::WithTrigger, Some(persona)) = (action.bound(), action.persona(true)) {
            daemon.apply(&action.name(), persona).await;
        }
        let Some(command) = action.asked() else {
            return;
        };
        let (mut person, simulated, complaints) =
            (daemon.person(), simulated.clone(), self.complaints.clone());
        let before = self.before(id);
        let name = self.wrong.name();
        let patience = self.patience();
        let away = self.wrong == Wrong::LibraryAway;
        tokio::spawn(async move {
            sleep(patience).await;
            // The fault of the action before may have taken the connection again.
            let connected = person.views.wait_for(|view| {
                away || view.manager.hypervisor.state == HypervisorState::Connected
            });
            if connected.await.is_err() {
                return;
            }
            if let Some(answer) = person.ask(command).await
                && let Some(lie) = false_answer(&simulated, id, &before, &answer)
            {
                complaints.lock().unwrap().push(format!("{name}: {lie}"));
            }
        });
    }

    /// How long a person waits with what is asked for: until the fault is there, or the kill is near.
    fn patience(&self) -> Duration {
        match (&self.wrong, self.killed) {
            (Wrong::Call(Fault::ConnectionLost { .. }), _) => Duration::ZERO,
            (Wrong::LibraryAway, _) => Duration::from_millis(6_500),
            (_, true) => Duration::from_secs(6),
            (_, false) => Duration::ZERO,
        }
    }

    /// The definition of a domain before anything was asked for.
    fn before(&self, id: DomainId) -> String {
        let before = self.definitions.lock().unwrap().get(&id).cloned();
        before.expect("each domain has a definition")
    }

    /// All actions meet their fault at once.
    pub(crate) async fn all_at_once(&self, mut daemon: Resident) -> Resident {
        let begun = Instant::now();
        for action in ACTIONS {
            self.trigger(&daemon, action).await;
        }
        if self.wrong == Wrong::LibraryAway {
            let simulated = self.house.simulated.clone();
            tokio::spawn(async move {
                // In the middle of the first steps.
                sleep(Duration::from_secs(6)).await;
                simulated.disconnect("the library's daemon was stopped");
                sleep(Duration::from_secs(15)).await;
                simulated.reconnect();
            });
        }
        if self.killed {
            // The first steps have begun: a window of three seconds, and figures that come each five.
            sleep(Duration::from_secs(7)).await;
            daemon = self.kill(daemon).await;
        }
        let left = FAULTY.saturating_sub(begun.elapsed());
        let undisturbed = daemon.until(left, |view| self.other_is_grown(view)).await;
        if undisturbed.is_none() && !self.wrong.concerns_all() {
            self.complain("the other domain did not get where it should meanwhile");
        }
        sleep(FAULTY.saturating_sub(begun.elapsed())).await;
        daemon
    }

    /// Each action meets its fault when that of the one before is over, because it is a fault of all.
    pub(crate) async fn one_after_another(&self, mut daemon: Resident) -> Resident {
        for action in ACTIONS {
            self.trigger(&daemon, action).await;
            let id = self.house.id(&action.name());
            let begun = Instant::now();
            while self.house.simulated.faults_to_come(id) == TIMES && begun.elapsed() < FAULTY {
                sleep(Duration::from_millis(500)).await;
            }
            if self.killed {
                daemon = self.kill(daemon).await;
            }
            sleep(PAUSE).await;
        }
        daemon
    }

    /// Kills the daemon and starts another; nothing that was recorded is lost.
    pub(crate) async fn kill(&self, daemon: Resident) -> Resident {
        let before = daemon.audit().await;
        daemon.kill().await;
        sleep(Duration::from_secs(3)).await;
        let daemon = self.house.start().await;
        self.watch(&daemon);
        if daemon.audit().await.get(..before.len()) != Some(&before[..]) {
            self.complain("the audit is not what it was before the kill");
        }
        daemon
    }

    pub(crate) fn end_fault(&self) {
        for action in ACTIONS {
            let id = self.house.id(&action.name());
            if matches!(self.wrong, Wrong::Call(_))
                && self.house.simulated.faults_to_come(id) == TIMES
            {
                self.complain(&format!("{action:?} has never met its fault"));
            }
            self.house.simulated.behave(id, None);
            self.house.simulated.forget_faults(id);
        }
    }

    /// From here on each claim of success is held against the world.
    pub(crate) fn watch(&self, daemon: &Resident) {
        let careful = self.house.id(&Action::DoWhatIsApproved.name());
        tokio::spawn(approve_all(daemon.person(), careful));
        let mut records = daemon.records();
        let simulated = self.house.simulated.clone();
        let complaints = self.complaints.clone();
        let (name, lies) = (self.wrong.name(), self.wrong.lies_about_cpus());
        tokio::spawn(async move {
            while let Ok(record) = records.recv().await {
                if let Some(lie) = false_claim(&simulated, &record, lies) {
                    complaints.lock().unwrap().push(format!("{name}: {lie}"));
                }
            }
        });
    }

    pub(crate) async fn run(self) -> (Wrong, BTreeMap<Action, Cell>, Vec<String>) {
        let daemon = self.house.start().await;
        self.prepare(&daemon).await;
        self.watch(&daemon);
        let other = self.house.id(OTHER);
        let grown = load(Action::GrowDevice.load(true));
        self.house.simulated.set_load(other, grown);
        let daemon = if matches!(self.wrong, Wrong::Call(Fault::ConnectionLost { .. })) {
            self.one_after_another(daemon).await
        } else {
            self.all_at_once(daemon).await
        };
        self.end_fault();
        let cells = self.recover(&daemon).await;
        let audit = daemon.audit().await;
        daemon.stop().await;
        let again = self.house.start().await;
        let reloaded = again.audit().await;
        if reloaded.get(..audit.len()) != Some(&audit[..]) {
            self.complain("the audit is another after the store was opened again");
        }
        self.check_audit(&reloaded);
        again.stop().await;
        let complaints = std::mem::take(&mut *self.complaints.lock().unwrap());
        (self.wrong, cells, complaints)
    }

    pub(crate) async fn recover(&self, daemon: &Resident) -> BTreeMap<Action, Cell> {
        let ended = Instant::now();
        let mut reached: BTreeMap<Action, Duration> = BTreeMap::new();
        let mut quarantined: BTreeSet<Action> = BTreeSet::new();
        let mut failed: BTreeSet<Action> = BTreeSet::new();
        let limit = RECOVERED;
        let audit = daemon.audit().await;
        for action in ACTIONS {
            let id = self.house.id(&action.name());
            if action.is_adoption() {
                if self
                    .adoption_is_told_and_undone(daemon, action, &audit)
                    .await
                {
                    reached.insert(action, ended.elapsed());
                }
            } else if let Some(command) = action.asked() {
                let view = daemon.view();
                if !action.is_reached(&self.house.simulated, &view.domains[&id]) {
                    // What is done already is refused.
                    let _ = daemon.ask(command).await;
                }
            }
        }
        if self.killed {
            // Without a kill a quarantine is waited for; here a person ends it, which is the other way out of it.
            for action in ACTIONS {
                let id = self.house.id(&action.name());
                if is_left_alone(&daemon.view().domains[&id]) {
                    quarantined.insert(action);
                }
                let domain = DomainName(action.name());
                let _ = daemon.ask(Command::Release { domain }).await;
            }
        }
        loop {
            let all = daemon
                .until(limit.saturating_sub(ended.elapsed()), |view| {
                    for action in ACTIONS {
                        let Some(domain) = view.domains.get(&self.house.id(&action.name())) else {
                            continue;
                        };
                        if action.is_reached(&self.house.simulated, domain) {
                            reached.entry(action).or_insert_with(|| ended.elapsed());
                        }
                        if is_left_alone(domain) {
                            quarantined.insert(action);
                        }
                        if domain.activation.state == ActivationState::Failed
                            && domain.activation.detail.is_some()
                        {
                            failed.insert(action);
                        }
                    }
                    let waits = !failed.is_empty();
                    let grown = self.other_is_grown(view);
                    waits || (reached.len() == ACTIONS.len() && grown)
                })
                .await;
            // An activation that the guest refused is tried again when a person wants it, and says so until then.
            let insist = std::mem::take(&mut failed);
            if all.is_none() || insist.is_empty() {
                break;
            }
            for action in insist {
                daemon
                    .apply(&action.name(), action.persona(true).unwrap_or("elastic"))
                    .await;
                if let Some(command) = action.asked() {
                    let _ = daemon.ask(command).await;
                }
            }
        }
        if !self.other_is_grown(&daemon.view()) {
            self.complain("the other domain never got where it should");
        }
        let audit = daemon.audit().await;
        let mut cells = BTreeMap::new();
        for action in ACTIONS {
            let id = self.house.id(&action.name());
            let after = reached.get(&action).copied();
            if after.is_none() {
                self.complain(&format!(
                    "{action:?} never got where it should: {}",
                    self.story(daemon, id, &audit)
                ));
            }
            cells.insert(
                action,
                Cell {
                    after,
                    endings: endings(&audit, id),
                    quarantined: quarantined.contains(&action),
                },
            );
        }
        cells
    }

    /// Whether a person can tell by the audit what came of an adoption, can have it done now, and undone.
    async fn adoption_is_told_and_undone(
        &self,
        daemon: &Resident,
        action: Action,
        audit: &[AuditRecordView],
    ) -> bool {
        let simulated = &self.house.simulated;
        let id = self.house.id(&action.name());
        let before = self.before(id);
        if let Some(trouble) = untold(simulated, id, &before, audit) {
            self.complain(&format!("{action:?}: {trouble}"));
        }
        let done = adopt_and_undo(daemon, simulated, action, id, &before).await;
        if let Err(trouble) = &done {
            self.complain(&format!("{action:?}: {trouble}"));
        }
        done.is_ok()
    }

    /// What is to be known of a domain that did not recover.
    pub(crate) fn story(
        &self,
        daemon: &Resident,
        id: DomainId,
        audit: &[AuditRecordView],
    ) -> String {
        let view = daemon.view();
        let domain = &view.domains[&id];
        let mut story = format!(
            "{:?}, {:?}, {:?}, {:?}, {:?}, holds {:?}, problems {:?}",
            self.house.simulated.shown(id),
            domain.vcpus,
            domain.memory,
            domain.activation,
            domain.last_decision,
            domain.holds,
            domain.problems,
        );
        for record in audit
            .iter()
            .filter(|record| record.domain == Some(id))
            .rev()
            .take(12)
        {
            let _ = write!(
                story,
                "\n    {} {} {}",
                record.at.0, record.kind, record.text
            );
        }
        story
    }

    /// Each step that was decided has one end, but for those that a kill cut off.
    pub(crate) fn check_audit(&self, records: &[AuditRecordView]) {
        let mut open: BTreeSet<(Option<DomainId>, &str)> = BTreeSet::new();
        let mut approved: BTreeSet<&str> = BTreeSet::new();
        for record in records {
            let resource = ["vCPUs", "memory", "disk iops"]
                .into_iter()
                .find(|resource| record.text.starts_with(resource));
            let step = |resource: &'static str| (record.domain, resource);
            let trouble = match (record.kind.as_str(), resource.map(step)) {
                ("daemon", _) if record.text.contains("starts") => {
                    open.clear();
                    continue;
                }
                ("decision", Some(step)) if record.text[step.1.len()..].starts_with(": ") => {
                    (!open.insert(step)).then_some("a second step before the end of the first")
                }
                ("proposal", _) => match proposal(&record.text) {
                    Some((number, "approved")) => {
                        approved.insert(number);
                        None
                    }
                    Some((number, _)) => (!approved.remove(number))
                        .then_some("done without a person's word, or twice by one"),
                    None => None,
                },
                ("action", Some(step)) => (!open.remove(&step)).then_some("an end without a step"),
                _ => None,
            };
            if let Some(trouble) = trouble {
                self.complain(&format!("{trouble}: {}", record.text));
            }
        }
        for (_, resource) in open {
            self.complain(&format!("a step of {resource} has no end"));
        }
    }
}

/// The number of a proposal that was approved or carried out, and which of the two.
fn proposal(text: &str) -> Option<(&str, &'static str)> {
    let number = |text: &'_ str| -> Option<usize> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then_some(digits)
    };
    let after = text
        .split_once("approved proposal ")
        .map(|(_, rest)| (rest, "approved"));
    let done = text
        .strip_prefix("proposal ")
        .filter(|rest| rest.contains("is carried out"))
        .map(|rest| (rest, "done"));
    let (rest, what) = after.or(done)?;
    Some((&rest[..number(rest)?], what))
}

/// A mechanism of it is in quarantine, and that is shown.
fn is_left_alone(domain: &DomainView) -> bool {
    let mut holds = domain.holds.iter();
    holds.any(|hold| hold.reason.contains("left alone"))
}

pub(crate) const ENDINGS: [&str; 4] = ["applied", "partial", "refused", "unknown"];

pub(crate) fn endings(audit: &[AuditRecordView], id: DomainId) -> [usize; 4] {
    ENDINGS.map(|ending| {
        let actions = audit
            .iter()
            .filter(|record| record.domain == Some(id) && record.kind == "action");
        actions
            .filter(|record| record.detail["ending"] == ending)
            .count()
    })
}

/// Says what is wrong with a claim of success, by the world at the moment of the claim.
pub(crate) fn false_claim(
    simulated: &Simulated,
    record: &AuditRecordView,
    lies: bool,
) -> Option<String> {
    if record.kind != "action" || record.detail["ending"] != "applied" {
        return None;
    }
    let shown = simulated.shown(record.domain?)?;
    let step = &record.detail["step"];
    if step["instance"].as_u64() != shown.instance.map(u64::from) {
        // Started anew since it was seen.
        return None;
    }
    if let Some(to) = step["to"]["at"].as_u64() {
        let so = is_limited(simulated, record.domain?, to);
        return (!so).then(|| format!("claimed but not so: {}", record.text));
    }
    let to = step["to"].as_u64()?;
    let from = step["from"].as_u64()?;
    let good = if record.text.starts_with("vCPUs") {
        let online = lies || u64::from(shown.online) == to;
        online && (to < from || u64::from(shown.vcpus) >= to)
    } else {
        shown.memory.0 == to && shown.requested.0 >= to
    };
    (!good).then(|| format!("claimed but not so: {} ({shown:?})", record.text))
}
