//! Every fault with every action: nothing is lost, nothing is claimed that was not so, the machine gets where its persona
//! wants it once the fault is over, also with the daemon killed in the middle, and another domain does not notice.
//!
//! One world has one domain for each action and one that nothing is wrong with; each fault has a world, and another in
//! which the daemon is killed too. What the tables below do not name does not compile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;
use tokio::time::{Instant, sleep};
use virt_persona::hypervisor::simulated::{
    CallName, Conduct, Curve, Fault, Load, Scenario, Shown, Simulated,
};
use virt_persona::view::{ActivationState, AuditRecordView, DomainView, View};

use crate::paused::{House, Resident, on_a_paused_clock};

/// A message through a socket takes no longer than this.
const BEAT: Duration = Duration::from_millis(50);

/// How often in a row a call fails.
const TIMES: usize = 2;

/// How long a fault lasts.
const FAULTY: Duration = Duration::from_secs(90);

/// After the fault: a mechanism may be in quarantine for ten minutes, and once more for a failure at its end.
const RECOVERED: Duration = Duration::from_secs(45 * 60);

/// What can be done to a domain, by the call that it cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Describe,
    PlugVcpu,
    UnplugVcpu,
    SettleUnplug,
    GrowDevice,
    ShrinkDevice,
    ShrinkBalloon,
    ReturnBalloon,
    TurnStatisticsOn,
    WriteStatus,
    BringOnline,
    TakeOffline,
    Activate,
    ConfirmMemory,
}

const ACTIONS: [Action; 14] = [
    Action::Describe,
    Action::PlugVcpu,
    Action::UnplugVcpu,
    Action::SettleUnplug,
    Action::GrowDevice,
    Action::ShrinkDevice,
    Action::ShrinkBalloon,
    Action::ReturnBalloon,
    Action::TurnStatisticsOn,
    Action::WriteStatus,
    Action::BringOnline,
    Action::TakeOffline,
    Action::Activate,
    Action::ConfirmMemory,
];

/// The actions that a call is for. A new call needs one here, with a domain, a trigger and a goal below.
fn actions_of(call: CallName) -> &'static [Action] {
    match call {
        CallName::Describe => &[Action::Describe],
        CallName::SetVcpus => &[Action::PlugVcpu, Action::UnplugVcpu],
        CallName::HotpluggableVcpus => &[Action::SettleUnplug],
        CallName::SetVirtioMem => &[Action::GrowDevice, Action::ShrinkDevice],
        CallName::SetBalloon => &[Action::ShrinkBalloon, Action::ReturnBalloon],
        CallName::SetBalloonPeriod => &[Action::TurnStatisticsOn],
        CallName::SetMetadata => &[Action::WriteStatus],
        CallName::GuestCpus => &[Action::BringOnline, Action::TakeOffline],
        CallName::GuestActivation => &[Action::Activate],
        CallName::GuestReport => &[Action::ConfirmMemory],
        // A person asks for these once and is told how they ended; nothing follows by itself (`adopt`).
        CallName::Definitions | CallName::Redefine | CallName::AttachDevice => &[],
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
enum Wrong {
    /// With the action's call, twice in a row.
    Call(Fault),
    /// With the guest, for as long as the fault lasts.
    Guest(Conduct),
    /// The library's daemon is away for a while.
    LibraryAway,
}

/// All that can be wrong, in the order of the types. A new fault or conduct needs a place here: see `place_of`.
fn wrongs() -> Vec<Wrong> {
    vec![
        Wrong::Call(Fault::Refuse {
            message: "the moon is full".into(),
        }),
        Wrong::Call(Fault::Slow { ms: 2_000 }),
        Wrong::Call(Fault::Hang { ms: 20_000 }),
        Wrong::Call(Fault::AnswerLost),
        Wrong::Call(Fault::Partial { reaches_mib: 64 }),
        Wrong::Call(Fault::EventsLost),
        Wrong::Call(Fault::EventsDuplicated),
        Wrong::Call(Fault::EventsLate { ms: 4_000 }),
        Wrong::Call(Fault::ConnectionLost { ms: 15_000 }),
        Wrong::Call(Fault::Dies),
        Wrong::Guest(Conduct::RefusesCpus),
        Wrong::Guest(Conduct::RefusesMemory),
        Wrong::Guest(Conduct::Slow { ms: 2_500 }),
        Wrong::Guest(Conduct::Partly),
        Wrong::Guest(Conduct::ClaimsCpus),
        Wrong::Guest(Conduct::ClaimsMoreCpus),
        Wrong::Guest(Conduct::ClaimsFewerCpus),
        Wrong::Guest(Conduct::ClaimsNoMemoryUse),
        Wrong::Guest(Conduct::ClaimsAllMemoryUsed),
        Wrong::Guest(Conduct::ClaimsImpossibleMemory),
        Wrong::Guest(Conduct::ReportsFromTheFuture),
        Wrong::Guest(Conduct::ReportsFromThePast),
        Wrong::Guest(Conduct::ReportsTheSame),
        Wrong::Guest(Conduct::FloodsEvents),
        Wrong::Guest(Conduct::FloodsTelemetry),
        Wrong::Guest(Conduct::Hangs),
        Wrong::Guest(Conduct::HangsMonitor),
        Wrong::Guest(Conduct::Dies { every_s: 25 }),
        Wrong::LibraryAway,
    ]
}

const PLACES: usize = 29;

/// Where in the list a fault stands. Who adds one to the simulated hypervisor finds here that the matrix lacks it.
fn place_of(wrong: &Wrong) -> usize {
    match wrong {
        Wrong::Call(fault) => match fault {
            Fault::Refuse { .. } => 0,
            Fault::Slow { .. } => 1,
            Fault::Hang { .. } => 2,
            Fault::AnswerLost => 3,
            Fault::Partial { .. } => 4,
            Fault::EventsLost => 5,
            Fault::EventsDuplicated => 6,
            Fault::EventsLate { .. } => 7,
            Fault::ConnectionLost { .. } => 8,
            Fault::Dies => 9,
        },
        Wrong::Guest(conduct) => match conduct {
            Conduct::RefusesCpus => 10,
            Conduct::RefusesMemory => 11,
            Conduct::Slow { .. } => 12,
            Conduct::Partly => 13,
            Conduct::ClaimsCpus => 14,
            Conduct::ClaimsMoreCpus => 15,
            Conduct::ClaimsFewerCpus => 16,
            Conduct::ClaimsNoMemoryUse => 17,
            Conduct::ClaimsAllMemoryUsed => 18,
            Conduct::ClaimsImpossibleMemory => 19,
            Conduct::ReportsFromTheFuture => 20,
            Conduct::ReportsFromThePast => 21,
            Conduct::ReportsTheSame => 22,
            Conduct::FloodsEvents => 23,
            Conduct::FloodsTelemetry => 24,
            Conduct::Hangs => 25,
            Conduct::HangsMonitor => 26,
            Conduct::Dies { .. } => 27,
        },
        Wrong::LibraryAway => 28,
    }
}

impl Wrong {
    /// A few words for the table.
    fn name(&self) -> String {
        let text = match self {
            Self::Call(fault) => format!("call {fault:?}"),
            Self::Guest(conduct) => format!("guest {conduct:?}"),
            Self::LibraryAway => "library away".into(),
        };
        text.split(" {").next().unwrap_or_default().to_owned()
    }

    /// Whether it is of the whole host, so that nobody can be undisturbed by it.
    fn concerns_all(&self) -> bool {
        matches!(
            self,
            Self::LibraryAway | Self::Call(Fault::ConnectionLost { .. })
        )
    }

    /// Whether the guest says of its CPUs what is not so: nobody can know better, and it costs the liar alone.
    fn lies_about_cpus(&self) -> bool {
        matches!(
            self,
            Self::Guest(Conduct::ClaimsCpus | Conduct::ReportsTheSame)
        )
    }
}

/// The one that nothing is wrong with.
const OTHER: &str = "Other";

/// CPUs by their use, memory by its use: both ways.
const ELASTIC: &str = "
name: elastic
base_configuration:
  cpu: {min: 1, max: 4}
  memory: {min: 256 MiB, max: 1536 MiB}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN 5s
  - IF cpu.utilization < 30% FOR 3s THEN remove 1 vcpus COOLDOWN 5s
  - IF memory.utilization > 70% FOR 3s THEN add 128 MiB memory COOLDOWN 5s
  - IF memory.utilization < 40% FOR 3s THEN remove 128 MiB memory COOLDOWN 5s
environment_variables:
  ROLE: matrix
";

impl Action {
    fn name(self) -> String {
        format!("{self:?}")
    }

    fn call(self) -> CallName {
        match self {
            Self::Describe => CallName::Describe,
            Self::PlugVcpu | Self::UnplugVcpu => CallName::SetVcpus,
            Self::SettleUnplug => CallName::HotpluggableVcpus,
            Self::GrowDevice | Self::ShrinkDevice => CallName::SetVirtioMem,
            Self::ShrinkBalloon | Self::ReturnBalloon => CallName::SetBalloon,
            Self::TurnStatisticsOn => CallName::SetBalloonPeriod,
            Self::WriteStatus => CallName::SetMetadata,
            Self::BringOnline | Self::TakeOffline => CallName::GuestCpus,
            Self::Activate => CallName::GuestActivation,
            Self::ConfirmMemory => CallName::GuestReport,
        }
    }

    /// Its domain in the scenario.
    fn domain(self) -> String {
        let device = "virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]";
        let (vcpus, memory, more) = match self {
            Self::Describe | Self::GrowDevice | Self::ShrinkDevice | Self::ConfirmMemory => {
                (1, 512, device)
            }
            Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug => (3, 512, ""),
            Self::ShrinkBalloon | Self::ReturnBalloon => (1, 1024, ""),
            Self::TurnStatisticsOn => (1, 512, "balloon = 'silent'"),
            Self::PlugVcpu | Self::BringOnline | Self::WriteStatus | Self::Activate => (1, 512, ""),
        };
        let unplug = match self {
            Self::SettleUnplug => "refused",
            _ => "completes",
        };
        format!(
            "[[domain]]\nname = '{}'\nacceleration = 'kvm'\nvcpus = {vcpus}\nvcpus_maximum = 4\nmemory_mib = {memory}\n{more}\nagent_channel = 'FOLDER/{self:?}.sock'\nguest = {{ agent = 'simulated', unplug = '{unplug}' }}\n",
            self.name()
        )
    }

    /// What the guest has to do: CPUs, and MiB of memory. Before: `false`; from the trigger on: `true`.
    fn load(self, triggered: bool) -> (f64, u64) {
        match (self, triggered) {
            (Self::Describe | Self::GrowDevice | Self::ConfirmMemory, true) => (0.5, 500),
            (Self::ShrinkDevice, false) => (0.5, 500),
            (Self::ShrinkDevice, true) => (0.5, 100),
            (Self::ShrinkBalloon, false) => (0.5, 600),
            (Self::ShrinkBalloon, true) => (0.5, 200),
            (Self::ReturnBalloon, false) => (0.5, 200),
            (Self::ReturnBalloon, true) => (0.5, 450),
            (Self::PlugVcpu | Self::BringOnline, true) => (1.5, 250),
            (Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug, false) => (1.5, 250),
            (Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug, true) => (0.4, 250),
            _ => (0.5, 250),
        }
    }

    /// Whether its persona is applied only with the trigger.
    fn begins_without_persona(self) -> bool {
        matches!(
            self,
            Self::WriteStatus | Self::Activate | Self::TurnStatisticsOn
        )
    }

    /// Whether it is ready for the trigger.
    fn is_ready(self, shown: &Shown, view: &DomainView) -> bool {
        let active = view.activation.state == ActivationState::Active;
        (active || self.begins_without_persona())
            && match self {
                Self::ShrinkDevice => within(shown, 715, 1250),
                Self::ReturnBalloon => within(shown, 286, 500),
                _ => true,
            }
    }

    /// Whether it is where the persona wants it, by the world itself and by what the daemon shows.
    fn is_reached(self, simulated: &Simulated, view: &DomainView) -> bool {
        let Some(shown) = simulated.shown(view.id) else {
            return false;
        };
        let active = view.activation.state == ActivationState::Active
            && shown.persona.as_deref() == Some("elastic");
        active
            && match self {
                Self::PlugVcpu | Self::BringOnline => {
                    shown.online >= 2 && view.vcpus.guest == Some(shown.online)
                }
                // What the guest no longer uses counts as given back; the device may stay.
                Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug => {
                    shown.online == 1
                        && view.vcpus.guest == Some(1)
                        && view.vcpus.plugged == Some(shown.vcpus)
                }
                Self::Describe | Self::GrowDevice | Self::ConfirmMemory => {
                    within(&shown, 715, 1250) && agrees(&shown, view)
                }
                Self::ShrinkDevice => within(&shown, 512, 512) && agrees(&shown, view),
                Self::ShrinkBalloon => within(&shown, 286, 500) && agrees(&shown, view),
                Self::ReturnBalloon => within(&shown, 643, 1024) && agrees(&shown, view),
                Self::TurnStatisticsOn => shown.statistics.is_some(),
                Self::WriteStatus => {
                    let element = virt_persona::hypervisor::MetadataElement::Status;
                    simulated
                        .metadata(view.id, element)
                        .is_some_and(|status| status.contains("elastic"))
                }
                Self::Activate => true,
            }
    }
}

fn within(shown: &Shown, low: u64, high: u64) -> bool {
    (Bytes::from_mib(low)..=Bytes::from_mib(high)).contains(&shown.memory)
}

/// Nothing is under way, and the daemon shows what is so.
fn agrees(shown: &Shown, view: &DomainView) -> bool {
    view.memory.plugged == Some(shown.memory) && view.memory.requested == Some(shown.memory)
}

fn load((cpus, memory): (f64, u64)) -> Load {
    #[allow(clippy::cast_precision_loss)]
    let memory = memory as f64;
    Load {
        cpu: Some(Curve::Constant { value: cpus }),
        memory: Some(Curve::Constant { value: memory }),
    }
}

/// What came of one action under one fault.
struct Cell {
    /// From the end of the fault until it was where it should be; absent when it never was.
    after: Option<Duration>,
    /// How its steps ended: applied, partial, refused, unknown.
    endings: [usize; 4],
    /// It was left alone for a while, and that was said.
    quarantined: bool,
}

struct World {
    house: House,
    wrong: Wrong,
    killed: bool,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn new(wrong: Wrong, killed: bool) -> Self {
        let mut scenario =
            String::from("deadline_ms = 3000\n[host]\ncores = 64\nmemory_mib = 65536\n");
        for action in ACTIONS {
            scenario.push_str(&action.domain());
        }
        scenario.push_str(&Action::GrowDevice.domain().replace("GrowDevice", OTHER));
        Self {
            house: House::new(&scenario, "").await,
            wrong,
            killed,
            complaints: Arc::default(),
        }
    }

    fn complain(&self, text: &str) {
        let name = self.wrong.name();
        let killed = if self.killed { ", killed" } else { "" };
        let text = format!("{name}{killed}: {text}");
        self.complaints.lock().unwrap().push(text);
    }

    fn set_first_loads(&self) {
        let simulated = &self.house.simulated;
        for action in ACTIONS {
            simulated.set_load(self.house.id(&action.name()), load(action.load(false)));
        }
        simulated.set_load(self.house.id(OTHER), load(Action::GrowDevice.load(false)));
    }

    fn other_is_grown(&self, view: &View) -> bool {
        let id = self.house.id(OTHER);
        view.domains
            .get(&id)
            .is_some_and(|domain| Action::GrowDevice.is_reached(&self.house.simulated, domain))
    }

    /// Everything is as before the trigger.
    async fn prepare(&self, daemon: &Resident) {
        self.set_first_loads();
        daemon.create(ELASTIC).await;
        for action in ACTIONS {
            if !action.begins_without_persona() {
                daemon.apply(&action.name(), "elastic").await;
            }
        }
        daemon.apply(OTHER, "elastic").await;
        let ready = |view: &View| {
            ACTIONS.iter().all(|action| {
                let id = self.house.id(&action.name());
                let shown = self.house.simulated.shown(id);
                let domain = view.domains.get(&id);
                domain.zip(shown).is_some_and(|(domain, shown)| {
                    domain.agent.last_seen_ms.is_some() && action.is_ready(&shown, domain)
                })
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
    async fn trigger(&self, daemon: &Resident, action: Action) {
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
        if action.begins_without_persona() {
            daemon.apply(&action.name(), "elastic").await;
        }
    }

    /// All actions meet their fault at once.
    async fn all_at_once(&self, mut daemon: Resident) -> Resident {
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
    async fn one_after_another(&self, mut daemon: Resident) -> Resident {
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
            sleep(Duration::from_secs(25)).await;
        }
        daemon
    }

    /// Kills the daemon and starts another; nothing that was recorded is lost.
    async fn kill(&self, daemon: Resident) -> Resident {
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

    fn end_fault(&self) {
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
    fn watch(&self, daemon: &Resident) {
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

    async fn run(self) -> (Wrong, BTreeMap<Action, Cell>, Vec<String>) {
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

    async fn recover(&self, daemon: &Resident) -> BTreeMap<Action, Cell> {
        let ended = Instant::now();
        let mut reached: BTreeMap<Action, Duration> = BTreeMap::new();
        let mut quarantined: BTreeSet<Action> = BTreeSet::new();
        let mut failed: BTreeSet<Action> = BTreeSet::new();
        let limit = RECOVERED;
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
                        if domain
                            .holds
                            .iter()
                            .any(|hold| hold.reason.contains("left alone"))
                        {
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
                daemon.apply(&action.name(), "elastic").await;
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

    /// What is to be known of a domain that did not recover.
    fn story(&self, daemon: &Resident, id: DomainId, audit: &[AuditRecordView]) -> String {
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
    fn check_audit(&self, records: &[AuditRecordView]) {
        let mut open: BTreeSet<(Option<DomainId>, &str)> = BTreeSet::new();
        for record in records {
            let resource = ["vCPUs", "memory"]
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

const ENDINGS: [&str; 4] = ["applied", "partial", "refused", "unknown"];

fn endings(audit: &[AuditRecordView], id: DomainId) -> [usize; 4] {
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
fn false_claim(simulated: &Simulated, record: &AuditRecordView, lies: bool) -> Option<String> {
    if record.kind != "action" || record.detail["ending"] != "applied" {
        return None;
    }
    let shown = simulated.shown(record.domain?)?;
    let step = &record.detail["step"];
    if step["instance"].as_u64() != shown.instance.map(u64::from) {
        // Started anew since it was seen.
        return None;
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

/// Runs the worlds of some faults and shows what came of them.
#[allow(
    clippy::print_stdout,
    reason = "the table is for whoever asks for it with --nocapture"
)]
fn matrix(chosen: impl Fn(&Wrong) -> bool, killed: bool) {
    let mut table = String::new();
    let mut complaints = Vec::new();
    let mut cells = 0;
    let chosen: Vec<Wrong> = wrongs().into_iter().filter(|wrong| chosen(wrong)).collect();
    let _ = write!(
        table,
        "{:<30}",
        if killed { "with the daemon killed" } else { "" }
    );
    for action in ACTIONS {
        let _ = write!(table, " {:>13.13}", action.name());
    }
    for wrong in &chosen {
        let world = World::new(wrong.clone(), killed);
        let (wrong, row, complained) = on_a_paused_clock(BEAT, async { world.await.run().await });
        let _ = write!(table, "\n{:<30}", wrong.name());
        for action in ACTIONS {
            // A cell that is not there is a failure of its own.
            let Some(cell) = row.get(&action) else {
                complaints.push(format!("{}: no cell for {action:?}", wrong.name()));
                continue;
            };
            cells += 1;
            let after = cell
                .after
                .map_or_else(|| "NEVER".into(), |after| format!("{}s", after.as_secs()));
            let [applied, partial, refused, unknown] = cell.endings;
            let mark = if cell.quarantined { "q" } else { "" };
            let _ = write!(
                table,
                " {:>13}",
                format!("{after}{mark} {applied}/{partial}/{refused}/{unknown}")
            );
        }
        complaints.extend(complained);
    }
    // Shown with --nocapture: seconds from the end of the fault until all is well, q for a quarantine, and how the steps
    // ended: applied/partial/refused/unknown.
    println!("{table}\n{cells} cells");
    assert_eq!(cells, chosen.len() * ACTIONS.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn is_of_a_call(wrong: &Wrong) -> bool {
    !matches!(wrong, Wrong::Guest(_))
}

fn is_of_a_guest(wrong: &Wrong) -> bool {
    !is_of_a_call(wrong)
}

#[test]
fn the_matrix_has_every_fault_and_every_action() {
    let places: Vec<usize> = wrongs().iter().map(place_of).collect();
    assert_eq!(places, (0..PLACES).collect::<Vec<_>>());
    for action in ACTIONS {
        assert!(actions_of(action.call()).contains(&action), "{action:?}");
    }
    let calls = ACTIONS.iter().map(|action| actions_of(action.call()).len());
    assert!(calls.min() > Some(0));
}

#[test]
fn every_action_survives_every_fault_of_its_call() {
    matrix(is_of_a_call, false);
}

#[test]
fn every_action_survives_every_fault_of_its_call_and_a_kill_of_the_daemon() {
    matrix(is_of_a_call, true);
}

#[test]
fn every_action_survives_every_misconduct_of_its_guest() {
    matrix(is_of_a_guest, false);
}

#[test]
fn every_action_survives_every_misconduct_of_its_guest_and_a_kill_of_the_daemon() {
    matrix(is_of_a_guest, true);
}

#[test]
fn the_documented_scenario_is_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = text
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let scenario = Scenario::parse(block.unwrap()).unwrap();
    let web = &scenario.domains[0];
    assert_eq!(web.spells[0].conduct, Conduct::ClaimsAllMemoryUsed);
    assert_eq!(web.faults[0].fault, Fault::AnswerLost);
    assert!(web.load.cpu.is_some() && web.load.memory.is_some());
}
