//! A daemon inside the test, with its simulated host at hand. The daemon can be stopped dead at any moment and started
//! anew on the same store, while the host's machines go on.
//!
//! Nothing waits for a time; it waits for what is shown. Only a test that hangs is ended by the clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use virt_persona::agent::{LinkConfig, Registry, Switches};
use virt_persona::catalog::host_id;
use virt_persona::command::{Caller, Command, DomainName, PersonaRef, Refusal, Reply, Request};
use virt_persona::config::Config;
use virt_persona::daemon::{self, Clock, DaemonError, Dial, Event, Parts};
use virt_persona::hypervisor::simulated::{self, Scenario, Simulated};
use virt_persona::hypervisor::{Hypervisor, HypervisorEvent};
use virt_persona::observe::{Observer, Roots};
use virt_persona::store::{Store, StoreError};
use virt_persona::view::{
    AuditRecordView, DomainView, ExplainView, HostView, HypervisorState, HypervisorView,
    ManagerView, View,
};

/// A hung test shall end with a message; no test passes or fails by this time.
const HUNG: Duration = Duration::from_secs(60);

/// Between two looks at what neither a view nor a record shows.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until something is there that nobody tells, and gives it back.
#[track_caller]
pub(crate) fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < HUNG, "it never happened that {what}");
        std::thread::sleep(LOOK);
    }
}

/// Waits until something is so that nobody tells.
#[track_caller]
pub(crate) fn until(what: &str, mut good: impl FnMut() -> bool) {
    found(what, || good().then_some(()));
}

/// The persona of most tests: memory follows use, within a second or two.
pub(crate) const ELASTIC: &str = "
name: elastic
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB}
adaptation_rules:
  - IF memory.utilization > 70% FOR 1s THEN add 128 MiB memory COOLDOWN 1s
  - IF memory.utilization < 40% FOR 1s THEN remove 128 MiB memory COOLDOWN 1s
";

/// The events' way to whichever daemon runs.
type Ear = Arc<Mutex<Option<mpsc::UnboundedSender<HypervisorEvent>>>>;

/// A simulated host, and the folder that is kept over the daemon's restarts.
pub(crate) struct Stage {
    folder: TempDir,
    pub(crate) simulated: Arc<Simulated>,
    ear: Ear,
    /// The host's clocks.
    dial: &'static Dial,
    _forwarding: Runtime,
}

/// A running daemon.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    task: Option<JoinHandle<Result<(), DaemonError>>>,
    requests: mpsc::Sender<Request>,
    views: watch::Receiver<Arc<View>>,
    signals: mpsc::UnboundedSender<Event>,
    ear: Ear,
}

impl Stage {
    /// `scenario` may say `FOLDER` for a folder of the test's own.
    pub(crate) fn new(scenario: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scenario = scenario.replace("FOLDER", folder.path().to_str().unwrap());
        let forwarding = runtime();
        let (simulated, mut events) = {
            let _inside = forwarding.enter();
            simulated::open(Scenario::parse(&scenario).unwrap())
        };
        let ear = Ear::default();
        let to = ear.clone();
        forwarding.spawn(async move {
            while let Some(event) = events.recv().await {
                if let Some(daemon) = &*to.lock().unwrap() {
                    // A daemon that has just ended hears nothing.
                    let _ = daemon.send(event);
                }
            }
        });
        Self {
            folder,
            simulated,
            ear,
            dial: Box::leak(Box::default()),
            _forwarding: forwarding,
        }
    }

    /// Somebody steps the host's wall clock; whatever is dated on this host is dated by it.
    pub(crate) fn step_wall_clock(&self, milliseconds: i64) {
        self.dial.step_wall_clock(milliseconds);
        self.simulated.step_wall_clock(milliseconds);
    }

    /// The host sleeps.
    pub(crate) fn suspend(&self, time: Duration) {
        self.dial.suspend(time);
        let milliseconds = i64::try_from(time.as_millis()).unwrap();
        self.simulated.step_wall_clock(milliseconds);
    }

    /// Waits until so many steps have ended without success, and sleeps through the pause that follows such a step.
    #[track_caller]
    pub(crate) fn sleep_after_failures(&self, daemon: &Running, failures: usize) {
        let failed = || {
            let records = daemon.audit().into_iter();
            records
                .filter(|record| record.kind == "action" && record.detail["ending"] != "applied")
                .count()
        };
        until("so many steps have failed", || failed() >= failures);
        self.suspend(Duration::from_secs(10));
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn start(&self) -> Running {
        self.start_on("state")
    }

    /// With the store in this folder.
    pub(crate) fn start_on(&self, state: &str) -> Running {
        self.start_as(state, "")
    }

    /// With further lines of configuration.
    pub(crate) fn start_with(&self, more: &str) -> Running {
        self.start_as("state", more)
    }

    fn start_as(&self, state: &str, more: &str) -> Running {
        let runtime = runtime();
        let inside = runtime.enter();
        let path: PathBuf = self.folder.path().join("config.toml");
        let folder = self.folder.path().display();
        // A test whose guest does not follow has a deadline of its own.
        let memory = if more.contains("[memory]") {
            ""
        } else {
            "[memory]\ndeadline_s = 2\n"
        };
        let text = format!(
            "[paths]\nstate = '{folder}/{state}'\nrun = '{folder}/run'\n[tick]\ninterval_ms = 100\nslow_interval_ms = 1000\ntelemetry_ms = 200\n{memory}[effects]\nwindow_s = 6\nsettle_s = 0\n{more}"
        );
        std::fs::write(&path, text).unwrap();
        let config = Config::read(&path).unwrap();
        let store = Arc::new(open(&config.paths.state));
        let mut links = LinkConfig::new(
            config.paths.run.clone(),
            host_id(&store).unwrap().to_string(),
        );
        links.telemetry = Duration::from_millis(config.tick.telemetry_ms);
        links.switches = Switches::Honour;
        // A connection that a test cuts again and again is not waited for ever longer.
        links.reconnect.1 = links.reconnect.0;
        let (agent_sender, agent_events) = mpsc::unbounded_channel();
        let (ear, hypervisor_events) = mpsc::unbounded_channel();
        // As a hypervisor's library does when it has connected.
        ear.send(HypervisorEvent::Connected).unwrap();
        *self.ear.lock().unwrap() = Some(ear);
        let (views, view_reader) = watch::channel(Arc::new(View::empty(nothing())));
        let (announcements, _) = broadcast::channel(16);
        let (requests, request_reader) = mpsc::channel(64);
        let (signals, signal_reader) = mpsc::unbounded_channel();
        let task = tokio::spawn(daemon::run(Parts {
            clock: Clock::turned_by(self.dial),
            hypervisor: self.simulated.clone(),
            hypervisor_events,
            hypervisor_name: "simulated".into(),
            registry: Registry::new(links, agent_sender),
            agent_events,
            observer: Observer::new(Roots::default(), config.tick.interval())
                .with_meter(self.simulated.clone()),
            store,
            requests: request_reader,
            views,
            show: daemon::SHOW,
            announcements,
            signals: signal_reader,
            config,
            config_path: path,
        }));
        drop(inside);
        let running = Running {
            runtime: Some(runtime),
            task: Some(task),
            requests,
            views: view_reader,
            signals,
            ear: self.ear.clone(),
        };
        let domains = self.count();
        running.wait("all domains are found", |view| {
            view.domains.len() == domains
        });
        running
    }

    fn count(&self) -> usize {
        self._forwarding
            .block_on(self.simulated.domains())
            .map_or(0, |domains| domains.len())
    }

    /// The persistent definition of a domain.
    pub(crate) fn persistent(&self, name: &str) -> String {
        let read = self.simulated.definitions(self.id(name));
        let definitions = self._forwarding.block_on(read).unwrap();
        definitions.persistent.unwrap().text
    }

    /// Defines a domain anew, as a person with `virsh edit` would.
    pub(crate) fn redefine(&self, name: &str, to: &str) {
        let from = self.persistent(name);
        let done = self.simulated.redefine(self.id(name), from, to.into());
        self._forwarding.block_on(done).unwrap();
    }

    pub(crate) fn id(&self, name: &str) -> DomainId {
        let domains = self._forwarding.block_on(self.simulated.domains()).unwrap();
        domains
            .iter()
            .find(|domain| domain.name == name)
            .unwrap()
            .id
    }
}

/// The store, as soon as the last thread of a daemon that was killed has let go of it.
fn open(folder: &Path) -> Store {
    let began = std::time::Instant::now();
    loop {
        match Store::open(folder) {
            Ok(store) => return store,
            Err(StoreError::Locked { .. }) if began.elapsed() < HUNG => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn nothing() -> ManagerView {
    ManagerView {
        version: String::new(),
        started: persona::units::Moment(0),
        hypervisor: HypervisorView {
            state: HypervisorState::Disconnected,
            uri: String::new(),
            library: None,
            emulator: None,
            detail: None,
        },
        host: HostView::default(),
        ticks: 0,
        overruns: 0,
        problems: Vec::new(),
    }
}

impl Running {
    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    /// Waits until the view is as it shall be.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, good: impl FnMut(&View) -> bool) -> Arc<View> {
        let mut good = good;
        let mut views = self.views.clone();
        let waited = self.runtime().block_on(async {
            tokio::time::timeout(HUNG, views.wait_for(|view| good(view)))
                .await
                .map(|view| view.expect("the daemon runs").clone())
        });
        waited.unwrap_or_else(|_| {
            let domains = self.view().domains.clone();
            let records = self.audit();
            let records: Vec<_> = records
                .iter()
                .map(|record| format!("{} {}", record.kind, record.text))
                .collect();
            panic!("it never happened that {what}: {domains:#?}\n{records:#?}")
        })
    }

    /// Waits until a domain is as it shall be.
    #[track_caller]
    pub(crate) fn wait_domain(
        &self,
        id: DomainId,
        what: &str,
        mut good: impl FnMut(&DomainView) -> bool,
    ) -> DomainView {
        let view = self.wait(what, |view| view.domains.get(&id).is_some_and(&mut good));
        view.domains[&id].clone()
    }

    /// Waits until a domain has so much memory, in MiB, and nothing of it is under way.
    #[track_caller]
    pub(crate) fn wait_memory(&self, id: DomainId, good: impl Fn(u64) -> bool) -> DomainView {
        self.wait_domain(id, "its memory is as wanted", |domain| {
            let plugged = domain.memory.plugged;
            plugged == domain.memory.requested && plugged.is_some_and(|now| good(now.as_mib()))
        })
    }

    /// Waits for a record.
    #[track_caller]
    pub(crate) fn wait_record(
        &self,
        what: &str,
        good: impl Fn(&AuditRecordView) -> bool,
    ) -> AuditRecordView {
        let mut found = None;
        let began = std::time::Instant::now();
        while found.is_none() {
            let records = self.audit();
            assert!(
                began.elapsed() < HUNG,
                "there was never a record that {what}: {records:#?}"
            );
            found = records.into_iter().find(&good);
            std::thread::sleep(Duration::from_millis(20));
        }
        found.unwrap()
    }

    /// What is explained of a domain now.
    #[track_caller]
    pub(crate) fn explain(&self, domain: &str) -> ExplainView {
        let domain = DomainName(domain.into());
        match self.ask(Command::Explain { domain, at: None }) {
            Ok(Reply::Explain(explained)) => *explained,
            other => panic!("{other:?}"),
        }
    }

    /// What is explained of a domain as soon as it is as it shall be: on a busy host a report may be late, and then a
    /// rule that holds is unknown for a moment.
    #[track_caller]
    pub(crate) fn wait_explained(
        &self,
        domain: &str,
        what: &str,
        good: impl Fn(&ExplainView) -> bool,
    ) -> ExplainView {
        let began = std::time::Instant::now();
        loop {
            let explained = self.explain(domain);
            if good(&explained) {
                return explained;
            }
            assert!(
                began.elapsed() < HUNG,
                "it is never explained that {what}: {explained:#?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    pub(crate) fn ask(&self, command: Command) -> Result<Reply, Refusal> {
        let answer = self.begin(command);
        self.finish(answer)
    }

    /// Asks without waiting for the answer.
    pub(crate) fn begin(&self, command: Command) -> oneshot::Receiver<Result<Reply, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let caller = Caller {
            uid: 0,
            name: "root".into(),
        };
        let request = Request {
            command,
            caller,
            reply,
        };
        self.requests
            .blocking_send(request)
            .expect("the daemon runs");
        answer
    }

    pub(crate) fn finish(
        &self,
        answer: oneshot::Receiver<Result<Reply, Refusal>>,
    ) -> Result<Reply, Refusal> {
        self.runtime()
            .block_on(async { tokio::time::timeout(HUNG, answer).await })
            .expect("an answer")
            .unwrap_or(Err(Refusal::Stopping))
    }

    #[track_caller]
    pub(crate) fn create(&self, document: &str) {
        let created = self.ask(Command::CreatePersona {
            document: document.into(),
            format: None,
            name: None,
            note: None,
        });
        assert!(matches!(created, Ok(Reply::Stored(_))), "{created:?}");
    }

    #[track_caller]
    pub(crate) fn apply(&self, domain: &str, persona: &str) {
        let applied = self.ask(Command::Apply {
            domain: DomainName(domain.into()),
            persona: PersonaRef::parse(persona).unwrap(),
            mode: virt_persona::command::Mode::Apply,
        });
        assert!(matches!(applied, Ok(Reply::Applied(_))), "{applied:?}");
    }

    #[track_caller]
    pub(crate) fn map(&self, tag: &str, persona: &str) {
        let mapped = self.ask(Command::Map {
            tag: tag.into(),
            persona: persona.into(),
            priority: 0,
        });
        assert!(matches!(mapped, Ok(Reply::Done(_))), "{mapped:?}");
    }

    pub(crate) fn audit(&self) -> Vec<AuditRecordView> {
        let asked = self.ask(Command::Audit {
            domain: None,
            since: None,
            limit: 10_000,
        });
        match asked {
            Ok(Reply::Audit(audit)) => audit.records,
            other => panic!("{other:?}"),
        }
    }

    /// Texts of the records of a kind, oldest first.
    pub(crate) fn told(&self, kind: &str) -> Vec<String> {
        let records = self.audit().into_iter();
        records
            .filter(|record| record.kind == kind)
            .map(|record| record.text)
            .collect()
    }

    /// Ends it as systemd does; everything that is under way is given its time.
    pub(crate) fn stop(mut self) {
        self.signals.send(Event::Stop).unwrap();
        let task = self.task.take().unwrap();
        let ended = self
            .runtime()
            .block_on(async { tokio::time::timeout(HUNG, task).await });
        ended.expect("an end").unwrap().unwrap();
    }

    /// Ends it in the middle of whatever it does, as `kill -9` does: no task of it takes another step.
    pub(crate) fn kill(mut self) {
        *self.ear.lock().unwrap() = None;
        let runtime = self.runtime.take().unwrap();
        runtime.shutdown_timeout(HUNG);
    }
}

/// Bytes of so many MiB.
pub(crate) fn mib(n: u64) -> Bytes {
    Bytes::from_mib(n)
}
