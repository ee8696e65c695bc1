//! A daemon and its simulated host on a clock that stands still while anybody works, so that hours take seconds and the
//! same run is nearly the same again. Everything is in one thread; the store is in memory where the host has a place for
//! that. Used by the matrix of faults and by the soak.
//!
//! tokio moves a paused clock on to the next timer whenever all tasks wait, also when a socket has just become readable.
//! A metronome bounds what a message through a socket takes so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use persona::domain::DomainId;
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use virt_persona::agent::{LinkConfig, Registry};
use virt_persona::catalog::host_id;
use virt_persona::command::{
    Caller, Command, DomainName, Mode, PersonaRef, Refusal, Reply, Request,
};
use virt_persona::config::Config;
use virt_persona::daemon::{self, Clock, DaemonError, Event, Parts};
use virt_persona::hypervisor::simulated::{self, Scenario, Simulated};
use virt_persona::hypervisor::{Hypervisor, HypervisorEvent};
use virt_persona::observe::{Observer, Roots};
use virt_persona::store::{Store, StoreError};
use virt_persona::view::{
    AuditRecordView, HostView, HypervisorState, HypervisorView, ManagerView, View,
};

/// The events' way to whichever daemon runs.
type Ear = Arc<Mutex<Option<mpsc::UnboundedSender<HypervisorEvent>>>>;

/// Runs a test on a paused clock. `beat` is the most that a message through a socket takes.
pub(crate) fn on_a_paused_clock<T>(beat: Duration, work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let metronome = tokio::spawn(async move {
            loop {
                tokio::time::sleep(beat).await;
            }
        });
        let done = work.await;
        metronome.abort();
        done
    })
}

/// A simulated host, and what is kept over the daemon's restarts.
pub(crate) struct House {
    folder: TempDir,
    pub(crate) simulated: Arc<Simulated>,
    ear: Ear,
    clock: Clock,
    config: Config,
    ids: Vec<(String, DomainId)>,
    /// Between two views at the least, but for those that a tick or a command makes.
    pub(crate) show: Duration,
}

/// Somebody who looks at a daemon and asks it for things, for as long as it runs.
#[derive(Clone)]
pub(crate) struct Person {
    requests: mpsc::Sender<Request>,
    pub(crate) views: watch::Receiver<Arc<View>>,
}

impl Person {
    /// The answer; nothing where the daemon ended before it.
    pub(crate) async fn ask(&self, command: Command) -> Option<Result<Reply, Refusal>> {
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
        self.requests.send(request).await.ok()?;
        answer.await.ok()
    }
}

/// A running daemon.
pub(crate) struct Resident {
    task: JoinHandle<Result<(), DaemonError>>,
    handle: Arc<Simulated>,
    registry: Registry,
    person: Person,
    signals: mpsc::UnboundedSender<Event>,
    records: broadcast::Sender<AuditRecordView>,
    ear: Ear,
    ids: Vec<(String, DomainId)>,
}

impl House {
    /// `scenario` and `configuration` may say `FOLDER` for a folder of the test's own.
    pub(crate) async fn new(scenario: &str, configuration: &str) -> Self {
        let folder = tempfile::tempdir_in(if std::path::Path::new("/dev/shm").is_dir() {
            "/dev/shm".into()
        } else {
            std::env::temp_dir()
        })
        .unwrap();
        let here = folder.path().to_str().unwrap();
        let scenario = scenario.replace("FOLDER", here);
        let configuration =
            format!("[paths]\nstate = '{here}/state'\nrun = '{here}/run'\n{configuration}");
        let config = Config::parse(&configuration, &folder.path().join("config.toml")).unwrap();
        let clock = Clock::of_run_time();
        let (simulated, mut events) = simulated::open(Scenario::parse(&scenario).unwrap());
        let ear = Ear::default();
        let to = ear.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Some(daemon) = &*to.lock().unwrap() {
                    // A daemon that has just ended hears nothing.
                    let _ = daemon.send(event);
                }
            }
        });
        let domains = simulated.domains().await.unwrap();
        let ids = domains
            .into_iter()
            .map(|domain| (domain.name, domain.id))
            .collect();
        Self {
            folder,
            simulated,
            ear,
            clock,
            config,
            ids,
            show: daemon::SHOW,
        }
    }

    pub(crate) fn id(&self, name: &str) -> DomainId {
        id(&self.ids, name)
    }

    /// Starts a daemon, and waits until it has found all domains.
    pub(crate) async fn start(&self) -> Resident {
        let config = self.config.clone();
        let store = Arc::new(open(&config.paths.state).await);
        let mut links = LinkConfig::new(
            config.paths.run.clone(),
            host_id(&store).unwrap().to_string(),
        );
        links.telemetry = Duration::from_millis(config.tick.telemetry_ms);
        // Agents that report rarely are not asked in between whether they live.
        links.heartbeat = links.heartbeat.max(links.telemetry * 2);
        let (agent_sender, agent_events) = mpsc::unbounded_channel();
        let registry = Registry::new(links, agent_sender);
        let (ear, hypervisor_events) = mpsc::unbounded_channel();
        // As a hypervisor's library does when it has connected.
        ear.send(HypervisorEvent::Connected).unwrap();
        *self.ear.lock().unwrap() = Some(ear);
        let (views, view_reader) = watch::channel(Arc::new(View::empty(nothing())));
        let (announcements, _) = broadcast::channel(4096);
        let (requests, request_reader) = mpsc::channel(64);
        let (signals, signal_reader) = mpsc::unbounded_channel();
        let handle = self.simulated.handle();
        // The host's own files say nothing of a simulated host.
        let nowhere = self.folder.path().join("nowhere");
        let roots = Roots {
            proc: nowhere.clone(),
            cgroup: nowhere.clone(),
            net: nowhere,
        };
        let task = tokio::spawn(daemon::run(Parts {
            clock: self.clock,
            hypervisor: handle.clone(),
            hypervisor_events,
            hypervisor_name: "simulated".into(),
            registry: registry.clone(),
            agent_events,
            observer: Observer::new(roots, config.tick.interval())
                .with_meter(self.simulated.clone()),
            store,
            requests: request_reader,
            views,
            show: self.show,
            announcements: announcements.clone(),
            signals: signal_reader,
            config_path: self.folder.path().join("config.toml"),
            config,
        }));
        let resident = Resident {
            task,
            handle,
            registry,
            person: Person {
                requests,
                views: view_reader,
            },
            signals,
            records: announcements,
            ear: self.ear.clone(),
            ids: self.ids.clone(),
        };
        let domains = self.ids.len();
        resident
            .until(Duration::from_secs(60), |view| {
                view.domains.len() == domains
            })
            .await
            .expect("all domains are found");
        resident
    }
}

fn id(ids: &[(String, DomainId)], name: &str) -> DomainId {
    ids.iter().find(|(of, _)| of == name).unwrap().1
}

/// The store, as soon as the last task of a daemon that was killed has let go of it.
async fn open(folder: &std::path::Path) -> Store {
    for _ in 0..1000 {
        match Store::open(folder) {
            Ok(store) => return store,
            Err(StoreError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("somebody holds the store")
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

impl Resident {
    pub(crate) fn view(&self) -> Arc<View> {
        self.person.views.borrow().clone()
    }

    /// The records from here on, as they are announced.
    pub(crate) fn records(&self) -> broadcast::Receiver<AuditRecordView> {
        self.records.subscribe()
    }

    /// Waits until what is shown is as it shall be, or so much time of the paused clock has passed.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        good: impl FnMut(&View) -> bool,
    ) -> Option<Arc<View>> {
        let mut good = good;
        let mut views = self.person.views.clone();
        let shown = views.wait_for(|view| good(view));
        let shown = tokio::time::timeout(limit, shown).await.ok()?;
        Some(shown.expect("the daemon runs").clone())
    }

    pub(crate) async fn ask(&self, command: Command) -> Result<Reply, Refusal> {
        self.person
            .ask(command)
            .await
            .unwrap_or(Err(Refusal::Stopping))
    }

    /// Somebody else who asks it for things.
    pub(crate) fn person(&self) -> Person {
        self.person.clone()
    }

    pub(crate) async fn create(&self, document: &str) {
        let created = self
            .ask(Command::CreatePersona {
                document: document.into(),
                format: None,
                name: None,
                note: None,
            })
            .await;
        assert!(matches!(created, Ok(Reply::Stored(_))), "{created:?}");
    }

    pub(crate) async fn apply(&self, domain: &str, persona: &str) {
        let applied = self
            .ask(Command::Apply {
                domain: DomainName(domain.into()),
                persona: PersonaRef::parse(persona).unwrap(),
                mode: Mode::Apply,
            })
            .await;
        assert!(matches!(applied, Ok(Reply::Applied(_))), "{applied:?}");
    }

    pub(crate) async fn audit(&self) -> Vec<AuditRecordView> {
        let asked = self
            .ask(Command::Audit {
                domain: None,
                since: None,
                limit: 10_000,
            })
            .await;
        match asked {
            Ok(Reply::Audit(audit)) => audit.records,
            other => panic!("{other:?}"),
        }
    }

    /// Ends it as systemd does; everything that is under way is given its time.
    pub(crate) async fn stop(self) {
        self.signals.send(Event::Stop).unwrap();
        self.task.await.unwrap().unwrap();
        *self.ear.lock().unwrap() = None;
    }

    /// Ends it in the middle of whatever it does, as `kill -9` does: nothing of it takes another step.
    pub(crate) async fn kill(self) {
        self.handle.cut();
        self.task.abort();
        // Its end is all that is waited for.
        let _ = self.task.await;
        *self.ear.lock().unwrap() = None;
        for (_, id) in &self.ids {
            self.registry.detach(*id);
        }
    }
}
