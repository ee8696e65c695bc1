//! `virt-personad`: puts the daemon together and runs it. Arguments, logging and signals are here; what the daemon does
//! is in the library's `daemon` module.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use virt_persona::agent::{LinkConfig, Needs, Registry, Switches};
use virt_persona::bus::{self, BusChoice};
use virt_persona::catalog::host_id;
use virt_persona::config::{Config, DEFAULT_PATH, NeedWord, SwitchWord};
use virt_persona::daemon::{self, Clock, Event, Parts, systemd};
use virt_persona::hypervisor::{Events, Hypervisor, libvirt, simulated};
use virt_persona::observe::{Observer, Roots};
use virt_persona::store::Store;
use virt_persona::view::{HypervisorState, HypervisorView, Listing, ManagerView, View};

/// Gives every libvirt domain a persona and keeps it true to it.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Says whether the configuration is valid, and ends.
    #[arg(long)]
    check_config: bool,
    /// Runs a hypervisor in memory, described by this file, instead of libvirt: nothing of the host is touched.
    #[arg(long, value_name = "FILE")]
    simulate: Option<PathBuf>,
    /// Serves on the session bus instead of the system bus.
    #[arg(long, conflicts_with = "bus")]
    session: bool,
    /// Serves on the bus with this D-Bus address.
    #[arg(long, value_name = "ADDRESS")]
    bus: Option<String>,
}

/// Requests that may wait; more callers are told to try again.
const REQUESTS: usize = 256;

/// Announcements that a slow bus may be behind; all of them are in the audit anyway.
const ANNOUNCEMENTS: usize = 1024;

/// How long the first listing of the domains is waited for before callers are let in; dbus-daemon(1) gives a service that
/// it starts 25 s.
const FIRST_LISTING: std::time::Duration = std::time::Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if arguments.check_config {
        #[allow(clippy::print_stdout)]
        {
            println!("{} is valid", arguments.config.display());
        }
        return ExitCode::SUCCESS;
    }
    start_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let end = runtime.block_on(run(arguments, config));
    // Calls to a hung hypervisor may never return; they do not keep the daemon from ending.
    runtime.shutdown_background();
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

/// An error on standard error, with all of its causes, for people and for the journal.
fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(error.to_string().trim_end());
        cause = error.source();
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("virt-personad: {text}");
    }
    ExitCode::FAILURE
}

/// To the journal where systemd started us, else to standard error. `RUST_LOG` chooses what is logged.
fn start_logging() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,zbus=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some()
        && let Ok(journal) = tracing_journald::layer()
    {
        registry.with(journal).init();
        return;
    }
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    registry.with(text).init();
}

type AnyError = Box<dyn std::error::Error>;

async fn run(arguments: Arguments, config: Config) -> Result<(), AnyError> {
    let clock = Clock::start();
    let store = Arc::new(Store::open(&config.paths.state)?);
    let host = host_id(&store)?;
    let observer = Observer::new(Roots::default(), config.tick.interval());
    let (hypervisor, hypervisor_events, hypervisor_name, observer) =
        open_hypervisor(&arguments, &config, observer)?;

    let mut links = LinkConfig::new(config.paths.run.clone(), host.to_string());
    links.telemetry = std::time::Duration::from_millis(config.tick.telemetry_ms);
    links.needs = match config.agent.need {
        NeedWord::Honour => Needs::Honour,
        NeedWord::Ignore => Needs::Ignore,
    };
    links.switches = match config.agent.switch {
        SwitchWord::Honour => Switches::Honour,
        SwitchWord::Ignore => Switches::Ignore,
    };
    let (agent_sender, agent_events) = mpsc::unbounded_channel();
    let registry = Registry::new(links, agent_sender);

    let nothing_yet = View::empty(ManagerView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: clock.now(),
        hypervisor: HypervisorView {
            state: HypervisorState::Disconnected,
            uri: hypervisor_name.clone(),
            library: None,
            emulator: None,
            detail: None,
        },
        host: virt_persona::view::HostView::default(),
        ticks: 0,
        overruns: 0,
        problems: Vec::new(),
    });
    let (views, mut view_reader) = watch::channel(Arc::new(nothing_yet));
    let (announcements, announced) = broadcast::channel(ANNOUNCEMENTS);
    let (request_sender, requests) = mpsc::channel(REQUESTS);
    let (signal_sender, signals) = mpsc::unbounded_channel();
    forward_signals(signal_sender)?;

    let choice = match (&arguments.bus, arguments.session) {
        (Some(address), _) => BusChoice::Address(address.clone()),
        (None, true) => BusChoice::Session,
        (None, false) => BusChoice::System,
    };
    // The daemon's task begins first: a caller that finds the name is answered.
    let mut daemon = tokio::spawn(daemon::run(Parts {
        config,
        clock,
        config_path: arguments.config,
        hypervisor,
        hypervisor_events,
        hypervisor_name,
        registry,
        agent_events,
        observer,
        store,
        requests,
        views,
        show: daemon::SHOW,
        announcements,
        signals,
    }));
    // What the store holds is in the view before anybody can ask: a daemon that has just been started for a call answers it
    // with its personas and not with an empty list.
    // For its domains it waits as long as libvirt lets it, within the patience of a caller for whom the bus starts it.
    let known = |view: &Arc<View>| {
        view.listing == Listing::Complete || view.manager.hypervisor.detail.is_some()
    };
    tokio::select! {
        _ = view_reader.changed() => {}
        end = &mut daemon => return Ok(end??),
    }
    tokio::select! {
        _ = tokio::time::timeout(FIRST_LISTING, view_reader.wait_for(known)) => {}
        end = &mut daemon => return Ok(end??),
    }
    let bus = tokio::select! {
        bus = bus::serve(choice, request_sender, view_reader, announced) => bus?,
        end = &mut daemon => return Ok(end??),
    };
    systemd::ready();
    tokio::select! {
        // Without its bus nobody can ask anything, and the service manager starts everything anew.
        end = bus.run() => { end?; Ok(daemon.await??) }
        end = &mut daemon => Ok(end??),
    }
}

fn open_hypervisor(
    arguments: &Arguments,
    config: &Config,
    observer: Observer,
) -> Result<(Arc<dyn Hypervisor>, Events, String, Observer), AnyError> {
    match &arguments.simulate {
        Some(path) => {
            let scenario = simulated::Scenario::read(path)?;
            let (simulated, events) = simulated::open(scenario);
            let observer = observer.with_meter(simulated.clone());
            Ok((simulated, events, simulated_name(path), observer))
        }
        None => {
            let (libvirt, events) = libvirt::open(&config.hypervisor.uri);
            Ok((libvirt, events, config.hypervisor.uri.clone(), observer))
        }
    }
}

fn simulated_name(path: &Path) -> String {
    format!("simulated:{}", path.display())
}

/// Signals become events of the daemon's one task.
fn forward_signals(events: mpsc::UnboundedSender<Event>) -> std::io::Result<()> {
    for (kind, make) in [
        (SignalKind::terminate(), stop as fn() -> Event),
        (SignalKind::interrupt(), stop),
        (SignalKind::hangup(), reload),
    ] {
        let mut stream = signal(kind)?;
        let events = events.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if events.send(make()).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

fn stop() -> Event {
    Event::Stop
}

fn reload() -> Event {
    Event::Reload
}
