//! The daemon: one task owns all state and is woken by one closed set of events; everything slow runs in tasks of its
//! own and comes back as an event. Readers get a published view, never the state.
//!
//! ```text
//! hypervisor events, agents, bus requests, timers, signals -> Event -> this task -> view, audit, plans, requests
//! event      all that can wake the task;  clock, disk: the time it goes by, and waiting for the store;  systemd: what systemd is told
//! follow     what the hypervisor tells, agents what agents tell -> what is known of each domain (tracked)
//! lifecycle  starts, migrations, reverts, renames of domains;  happened: events that rules wait for
//! recording  what was seen, planned and done -> the recorder; what is asked of it
//! tick       sample -> snapshot -> plan -> steps begun, limits turns begun      (control path)
//! limits     knobs, such as the CPU cap;  impacts: what actions did to the metrics that matter
//! personas   tags and bindings -> version in force -> activation in the guest  (persona path)
//! message    a persona in the words of the channel;  stand_in: the way through qemu-guest-agent
//! shift      another persona by a rule;  rollout: a changed persona to its domains, one after another
//! adjust     settings and packages that rules want otherwise in the guest;  wishes: those that are not granted yet
//! guest_rules  rules that the guest evaluates, and what they did;  rules_sent: whether it has them
//! guest_calls  scripts and features that rules of the host call for in guests;  outbox: what of it waits
//! adopt      what people ask of definitions -> plans, new definitions, what is put back (adopted); unsettled: how cut-off ones ended
//! requests   what people ask -> catalogue, bindings, answers;  tags: those that the hypervisor writes
//! exec       commands in guests -> the agent, the audit
//! collect    what the agents are asked to report, which the persona in force decides
//! need       a guest that is short of memory -> a plan at once
//! switching  personas that users of guests ask for
//! approvals  proposals and what people say to them;  holds: what people want left alone
//! show       what is known -> view;  explain and doctor: the long answers;  status: the element in a domain's metadata
//! ```
//!
//! A kill at any moment loses nothing: what was asked for is in the store before it is begun, steps name amounts and
//! not changes, activations carry generations, and everything else is observed anew.

mod adjust;
mod adopt;
mod adopted;
mod agents;
mod approvals;
mod clock;
mod collect;
mod disk;
mod doctor;
mod event;
mod exec;
mod explain;
mod follow;
mod guest_calls;
mod guest_rules;
mod happened;
mod holds;
mod impacts;
mod lifecycle;
mod limits;
mod message;
mod need;
mod outbox;
mod personas;
mod recording;
mod requests;
mod rollout;
mod rules_sent;
mod shift;
mod show;
mod stand_in;
mod status;
mod switching;
pub mod systemd;
mod tags;
mod tick;
mod tracked;
mod unsettled;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use persona::PersonaName;
use persona::units::Moment;
use planner::{Policy, State};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use crate::act::{Guest, GuestOrStandIn, Hands};
use crate::agent::Registry;
use crate::audit::{AuditKind, AuditTrail, Entry};
use crate::catalog::{Catalogue, host_id};
use crate::command::Request;
use crate::config::{Config, StandInWord};
use crate::hypervisor::{DomainId, Events, HostFacts, Hypervisor};
use crate::observe::{HostReadings, Observer};
use crate::stand_in::StandIn;
use crate::store::Store;
use crate::view::{AuditRecordView, HypervisorState, HypervisorView, Listing, View};

pub use clock::{Clock, Dial};
pub use event::{Asked, Event};

use disk::wait_for_disk;
use lifecycle::{Beginning, HalfTold};
use rollout::Rollout;
use tracked::Tracked;

/// How long the end waits for steps under way; what is not verified by then is found out at the next start.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// Between two views of what happened in between the ticks, at the least: one guest can make events come by the hundred,
/// and nobody who looks sees a tenth of a second.
pub const SHOW: Duration = Duration::from_millis(100);

/// The same for each domain. A view costs some ten microseconds a domain, so what happens between the ticks takes a
/// hundredth of a core for that, whatever the number of domains. What somebody asked for is shown at once.
const SHOW_A_DOMAIN: Duration = Duration::from_millis(1);

/// What the daemon is made of; `bin/virt-personad` puts it together.
pub struct Parts {
    /// The configuration, and where it is read again from.
    pub config: Config,
    /// See above.
    pub config_path: PathBuf,
    /// What time it is.
    pub clock: Clock,
    /// The hypervisor and what it tells.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// See above.
    pub hypervisor_events: Events,
    /// For people: which hypervisor it is.
    pub hypervisor_name: String,
    /// Host ends of the agents' channels, and what they tell.
    pub registry: Registry,
    /// See above.
    pub agent_events: mpsc::UnboundedReceiver<(DomainId, crate::agent::AgentEvent)>,
    /// Reads cgroups and procfs.
    pub observer: Observer,
    /// What must survive.
    pub store: Arc<Store>,
    /// What people ask through the bus.
    pub requests: mpsc::Receiver<Request>,
    /// Where the view is published.
    pub views: watch::Sender<Arc<View>>,
    /// Between two views of what happened in between the ticks, at the least: [`SHOW`].
    pub show: Duration,
    /// Where audit records are announced.
    pub announcements: broadcast::Sender<AuditRecordView>,
    /// Signals, as events.
    pub signals: mpsc::UnboundedReceiver<Event>,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The store cannot be read.
    #[error("the store cannot be read at start")]
    Store(#[source] crate::store::StoreError),
}

/// The owner of all state.
pub struct Daemon {
    config: Config,
    config_path: PathBuf,
    policy: Policy,
    clock: Clock,
    started: Moment,
    hypervisor: Arc<dyn Hypervisor>,
    connection: HypervisorView,
    listing: Listing,
    registry: Registry,
    observer: Observer,
    store: Arc<Store>,
    audit: AuditTrail,
    catalog: Catalogue,
    hands: Hands,
    recording: recording::Recording,
    executions: exec::Executions,
    guest_rules: guest_rules::GuestRules,
    guest_calls: guest_calls::GuestCalls,
    stand_ins: stand_in::StandIns,
    host: Option<HostFacts>,
    host_readings: Option<HostReadings>,
    domains: BTreeMap<DomainId, Tracked>,
    state: State,
    impacts: impacts::Measurements,
    ledger: Option<planner::report::HostReport>,
    ticks: u64,
    overruns: u64,
    last_slow: Option<Moment>,
    last_list: Option<Moment>,
    asking_stats: bool,
    asking_host: bool,
    acting: usize,
    /// When there was last a plan for a need, and whether one is due.
    needed: need::Urgency,
    /// How often guests may look at what personas there are.
    looks: switching::Looks,
    /// Steps that have ended.
    ended: Asked,
    /// The daemon gives everything back and manages nothing, until it is started anew.
    retired: bool,
    /// Tells this daemon's requests from those of another store.
    host_id: String,
    /// The emulators' processes that the carried state belongs to, until their domains are found.
    carried_processes: BTreeMap<DomainId, u32>,
    /// A start was told of them, and no description has shown them running since.
    starting: BTreeMap<DomainId, Beginning>,
    /// Of these it is told in part how an instance begins.
    half_told: BTreeMap<DomainId, HalfTold>,
    /// Definitions of these are being changed.
    adopting: BTreeSet<DomainId>,
    /// What would change in definitions is being looked at, by whom.
    previewing: BTreeSet<(DomainId, u32)>,
    /// Something was kept of adoptions of these when the daemon began, and they have not been found to be gone.
    adopted: BTreeSet<DomainId>,
    /// How the last adoption of these ended may not be known.
    unsettled: BTreeSet<DomainId>,
    problems: BTreeMap<&'static str, String>,
    /// Changed personas on their way from domain to domain.
    rollouts: BTreeMap<PersonaName, Rollout>,
    /// Something changed since the last view was published.
    unshown: bool,
    /// The next view is not drawn up before.
    show_at: Instant,
    /// The least time between two of them.
    show: Duration,
    views: watch::Sender<Arc<View>>,
    announcements: broadcast::Sender<AuditRecordView>,
    inbox: mpsc::UnboundedSender<Event>,
}

/// Whether the daemon goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

/// Who is asked in a guest.
fn guest(parts: &Parts) -> Arc<dyn Guest> {
    let registry = parts.registry.clone();
    match parts.config.agent.stand_in {
        StandInWord::None => Arc::new(registry),
        StandInWord::QemuGuestAgent => Arc::new(GuestOrStandIn {
            registry,
            stand_in: StandIn::new(parts.hypervisor.clone()),
        }),
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// When the store or the catalogue cannot be read at start.
pub async fn run(parts: Parts) -> Result<(), DaemonError> {
    let (inbox, mut events) = mpsc::unbounded_channel();
    let guest = guest(&parts);
    let Parts {
        mut hypervisor_events,
        mut agent_events,
        mut requests,
        mut signals,
        ..
    } = parts;
    let clock = parts.clock;
    let audit = AuditTrail::open(parts.store.clone(), parts.config.audit.records)
        .map_err(DaemonError::Store)?;
    let host = host_id(&parts.store).map_err(DaemonError::Store)?;
    let catalog = Catalogue::open(parts.store.clone(), clock.now()).map_err(DaemonError::Store)?;
    let hands = Hands {
        hypervisor: parts.hypervisor.clone(),
        guest,
        notices: crate::act::Notices::default(),
        settings: tick::settings(&parts.config),
    };
    let policy = parts.config.policy();
    let carried =
        tick::carried_state(&parts.store, &policy, clock.now()).map_err(DaemonError::Store)?;
    let mut impacts = impacts::Measurements::stored(&parts.store).map_err(DaemonError::Store)?;
    impacts.open.set_timing(parts.config.effects.timing());
    let guest_rules = guest_rules::GuestRules::stored(&parts.store).map_err(DaemonError::Store)?;
    let guest_calls = guest_calls::GuestCalls::stored(&parts.store).map_err(DaemonError::Store)?;
    let adopted = adopted::adopted_domains(&parts.store);
    let mut daemon = Daemon {
        impacts,
        policy,
        clock,
        started: clock.now(),
        listing: Listing::Awaited,
        connection: HypervisorView {
            state: HypervisorState::Disconnected,
            uri: parts.hypervisor_name,
            library: None,
            emulator: None,
            detail: None,
        },
        hypervisor: parts.hypervisor,
        registry: parts.registry,
        observer: parts.observer,
        state: carried.state,
        carried_processes: carried.processes,
        starting: BTreeMap::new(),
        half_told: BTreeMap::new(),
        store: parts.store,
        audit,
        catalog,
        hands,
        recording: recording::Recording::start(&parts.config),
        executions: exec::Executions::default(),
        guest_rules,
        guest_calls,
        stand_ins: stand_in::StandIns::default(),
        host: None,
        host_readings: None,
        domains: BTreeMap::new(),
        ledger: None,
        ticks: 0,
        overruns: 0,
        last_slow: None,
        last_list: None,
        asking_stats: false,
        asking_host: false,
        acting: 0,
        needed: need::Urgency::default(),
        looks: switching::Looks::default(),
        ended: Asked::default(),
        retired: false,
        host_id: host.to_string(),
        adopting: BTreeSet::new(),
        previewing: BTreeSet::new(),
        unsettled: adopted.clone(),
        adopted,
        problems: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        unshown: false,
        show_at: Instant::now(),
        views: parts.views,
        show: parts.show,
        announcements: parts.announcements,
        inbox,
        config: parts.config,
        config_path: parts.config_path,
    };
    daemon.begin();
    let mut timer = interval(daemon.config.tick.interval());
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let event = tokio::select! {
            // What has happened goes before the next look at it.
            biased;
            Some(event) = signals.recv() => event,
            Some(event) = events.recv() => event,
            Some(event) = hypervisor_events.recv() => Event::Hypervisor(event),
            Some((domain, event)) = agent_events.recv() => Event::Agent(domain, event),
            // Neither a flood of requests nor ticks that overrun keep the other from its turn.
            event = async {
                tokio::select! {
                    Some(request) = requests.recv() => Event::Request(Box::new(request)),
                    _ = timer.tick() => Event::Tick,
                }
            } => event,
            // Nothing else waits: what a burst of events changed is shown once, not once for each, and a stream of them
            // does not make the daemon draw up one view after another.
            () = sleep_until(daemon.show_at), if daemon.unshown => {
                daemon.publish();
                continue;
            }
        };
        let reload = matches!(event, Event::Reload);
        if daemon.handle(event) == Flow::Stop {
            break;
        }
        if reload {
            timer = interval(daemon.config.tick.interval());
            timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
    }
    systemd::stopping();
    let end = Instant::now() + LAST_STEPS;
    while daemon.acting > 0 {
        match timeout_at(end, events.recv()).await {
            Ok(Some(
                event @ (Event::Acted(..)
                | Event::ActLost(_)
                | Event::Limited(..)
                | Event::LimitLost(_)),
            )) => {
                daemon.handle(event);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    daemon.record(
        AuditKind::Daemon,
        None,
        "the daemon stops",
        serde_json::Value::Null,
    );
    Ok(())
}

impl Daemon {
    /// What is done before the first event.
    fn begin(&mut self) {
        if let Some(aside) = self.store.set_aside() {
            let text = format!(
                "the store could not be opened ({}) and was set aside at {}; personas and bindings in it are not in force",
                aside.reason,
                aside.path.display()
            );
            self.problems.insert("store", text);
        }
        let text = format!("the daemon {} starts", env!("CARGO_PKG_VERSION"));
        self.record(AuditKind::Daemon, None, &text, serde_json::Value::Null);
        self.forget_senders();
        self.resume_rollouts();
        self.publish();
    }

    fn handle(&mut self, event: Event) -> Flow {
        match event {
            Event::Tick => self.tick(),
            Event::Hypervisor(event) => self.hypervisor_tells(event),
            Event::Host(result) => self.host_is_known(result),
            Event::Domains(asked, result) => self.domains_are_known(asked, result),
            Event::Described(domain, asked, result) => {
                self.domain_is_known(domain, asked, *result);
            }
            Event::Stats(result) => self.stats_are_known(result),
            Event::Agent(domain, event) => self.agent_tells(domain, event),
            Event::Needed => self.plan_for_need(),
            Event::Acted(outcome, description) => {
                self.step_ended(*outcome, description.map(|description| *description));
            }
            Event::ActLost(step) => self.step_lost(&step),
            Event::Limited(outcome, description) => {
                return self.limit_ended(*outcome, description.map(|description| *description));
            }
            Event::LimitLost(step) => return self.limit_lost(*step),
            Event::Activated(result) => self.activation_ended(*result),
            Event::StatusWritten(domain, result) => self.status_is_written(domain, result),
            Event::TagsWritten(written) => self.tags_are_written(*written),
            Event::Adoption(adopting) => self.adoption_goes_on(*adopting),
            Event::StoodIn(ended) => self.stood_in(*ended),
            Event::StandInLooked(look) => self.stand_in_looked(&look),
            Event::GuestCalled(answered) => self.guest_called(&answered),
            Event::RuleRecords(fetched) => self.records_came(*fetched),
            Event::Executed(executed) => self.execution_ended(&executed),
            Event::Request(request) => self.answer(*request),
            Event::Reload => {
                systemd::reloading();
                // The result is in the log, the audit and the problems; a signal has nobody to answer to.
                let _ = self.reload("a signal");
                systemd::ready();
            }
            Event::Stop => return Flow::Stop,
        }
        Flow::On
    }

    /// Writes one record, durable before anybody is told.
    fn record(
        &mut self,
        kind: AuditKind,
        domain: Option<DomainId>,
        text: &str,
        detail: serde_json::Value,
    ) {
        let entry = self.entry(kind, domain, text, detail);
        self.record_all(vec![entry]);
    }

    fn entry(
        &self,
        kind: AuditKind,
        domain: Option<DomainId>,
        text: &str,
        detail: serde_json::Value,
    ) -> Entry {
        let name = |id| {
            self.domains
                .get(&id)
                .map_or_else(String::new, |domain| domain.description.name.clone())
        };
        Entry {
            at: self.clock.now(),
            domain: domain.map(|id| (id, name(id))),
            kind,
            text: text.to_owned(),
            detail,
        }
    }

    /// Writes records with one wait for the disk, and announces them afterwards.
    fn record_all(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        match wait_for_disk(|| self.audit.append_all(entries)) {
            Ok(records) => {
                self.problems.remove("audit");
                for record in records {
                    // Nobody may be listening.
                    let _ = self.announcements.send(show::record_view(record));
                }
            }
            Err(error) => {
                let error = crate::act::sentence_of(&error);
                tracing::error!(%error, "the audit could not be written");
                self.problems
                    .insert("audit", format!("the audit could not be written: {error}"));
            }
        }
    }

    /// Runs something slow in a task of its own; what comes of it comes back as an event.
    fn spawn<F>(&self, work: F)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let event = work.await;
            // The daemon is gone when its inbox is.
            let _ = inbox.send(event);
        });
    }
}
