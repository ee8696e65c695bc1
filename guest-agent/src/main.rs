//! `virt-persona-agent`: the agent of virt-persona in the guest. It waits for the host on a virtio-serial port, makes personas
//! active, switches CPUs and reports what the guest sees.
//!
//! Three threads, so that none waits for another's slow thing:
//! ```text
//!           frames            requests              scripts
//!  host <----------> channel ----------> disk --------------> commands
//!                      ^    \             |  ^                  |   |
//!                      |     \ CPUs       |  +--- their ends ---+   |
//!                      |      +-----------|------------------------>|
//!                      +------ results ---+-------------------------+
//! ```
//! `channel` never touches a disk, `disk` alone writes state, settings and environment, `commands` alone starts programs and switches
//! CPUs. Hooks, commands that the host asks for, what rules call for, and looks at disks, logs and other machines run in threads of their own that end with them. This file starts the three and knows the command line; it holds no rule of its own.

mod args;
mod log;
mod policy;

mod asking;
mod channel;
mod conversation;
mod events;
mod uevent;
mod upgrades;

mod applications;
mod local;
mod need;
mod outbox;
mod owned;
mod reporting;
mod streams;
mod telemetry;

mod disk;
mod durable;
mod store;

mod activate;
mod customize;
mod setting;

mod commands;
mod cpu;
mod exec;
mod hooks;
mod program;
mod rules;
mod script;
mod users;

mod doctor;
mod gate;
mod status;
mod sys;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, mpsc},
    thread,
};

use args::{Args, Invocation};
use log::log;

/// The program that chooses a persona.
const SWITCH: &str = "virt-persona-switch";

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Help) => print(args::HELP),
        Ok(Invocation::Version) => print(concat!(
            "virt-persona-agent ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        Ok(Invocation::Status { state, root }) => match status::describe(&state, &root) {
            Ok(text) => print(&text),
            Err(error) => fail(&error),
        },
        Ok(Invocation::Doctor(args)) => {
            let diagnosis = doctor::Diagnosis::of(&args);
            match print(&diagnosis.text()) {
                ExitCode::SUCCESS if !diagnosis.is_well() => ExitCode::FAILURE,
                printed => printed,
            }
        }
        Ok(Invocation::History { state }) => match status::history(&state) {
            Ok(text) => print(&text),
            Err(error) => fail(&error),
        },
        Ok(Invocation::Rollback { root, to }) => match local::roll_back(&root, to) {
            Ok(said) => print(&format!("{said}\n")),
            Err(error) => fail(&error),
        },
        Ok(Invocation::Customize { root, ask }) => match local::customize(&root, ask) {
            Ok(said) => print(&format!("{said}\n")),
            Err(error) => fail(&error),
        },
        Ok(Invocation::Customizations { state }) => match status::customizations(&state) {
            Ok(text) => print(&text),
            Err(error) => fail(&error),
        },
        Ok(Invocation::Need { root, need }) => match local::tell_need(&root, &need) {
            Ok(()) => print("the host was told\n"),
            Err(error) => fail(&error),
        },
        Ok(Invocation::Emit { root, lines }) => match applications::emit(&root, &lines) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Ok(Invocation::Switch { arguments }) => choose(&arguments),
        Ok(Invocation::Run(args)) => match run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.as_ref()),
        },
        Err(error) => {
            log!("{error}; see virt-persona-agent --help");
            ExitCode::from(2)
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let policy = policy::read_policy(&args.config)?;
    let identity = read_identity(&args.root)?;
    let gauge = Arc::new(durable::Gauge::default());
    let mut store = store::Store::open(&args.state, Arc::clone(&gauge))?;
    let writer = store.writer();
    let rule_log = Arc::new(rules::RuleLog::open(
        &args.state,
        &args.root,
        writer.clone(),
    )?);
    // Before the host can be told of a record: one that it has seen is no longer known here.
    disk::know_calls(&mut store, rule_log.calls())?;

    let (events, from_workers) = events::queue()?;
    let (to_disk, disk_jobs) = mpsc::channel();
    let (to_commands, command_jobs) = commands::queue()?;

    let cpus = cpu::Cpus::new(&args.root, store.held_cpus(&identity.boot_id));
    let results = store.results();
    let features = Arc::new(rules::Features::open(&args.root, &args.state, writer)?);
    let leave = rules::RuleLeave::from(&policy);
    let state = disk::state_of(&store);
    let commands = commands::Commands::new(
        command_jobs,
        to_disk.clone(),
        events.clone(),
        cpus,
        results,
        &args.root,
    );
    let hooks = hooks::Hooks::new(&args.root, events.clone());
    let runner = exec::Runner::new(
        &args.root,
        policy.commands.clone(),
        events.clone(),
        to_disk.clone(),
    );
    let hands = rules::Hands::new(
        &args.root,
        Arc::clone(&rule_log),
        Arc::clone(&features),
        identity.boot_id.clone(),
        (events.clone(), to_disk.clone()),
    );
    let upgrades = upgrades_for(&policy);
    let disk = disk::Disk::new(
        disk_jobs,
        to_commands.clone(),
        events.clone(),
        activate::Activator::new(
            store,
            &args.root,
            identity.boot_id.clone(),
            activate::PeopleLeave {
                leave: policy.gate,
                firmness: policy.firmness,
            },
            upgrades.clone(),
            activate::RuleRoom { leave, features },
        ),
        runner,
        &args.root,
        hands.clone(),
    );
    let rules = rules::Rules::new(hands, leave, identity.boot_id.clone());
    let applications = applications::Applications::new(&args.root, &policy.metrics);
    let telemetry = telemetry::Telemetry::new(&args.root, policy.probes.clone(), events);
    let conversation =
        conversation::Conversation::new(identity, policy, state, gauge, Arc::clone(&rule_log));
    let mut channel = channel::Channel::open(
        &args,
        conversation,
        telemetry,
        applications,
        rules,
        channel::Workers {
            results: from_workers,
            disk: to_disk,
            commands: to_commands,
            hooks,
            rule_log,
            upgrades,
        },
    )?;

    thread::Builder::new()
        .name("disk".to_owned())
        .spawn(move || disk.run())?;
    thread::Builder::new()
        .name("commands".to_owned())
        .spawn(move || commands.run())?;
    tell_service_manager();
    channel.run()?;
    Ok(())
}

/// What tells of programs that are replaced, where the owner wants them closed.
fn upgrades_for(policy: &policy::Policy) -> Option<Arc<upgrades::Upgrades>> {
    if !policy.firmness.fail_closed {
        return None;
    }
    match upgrades::Upgrades::open() {
        Ok(upgrades) => Some(Arc::new(upgrades)),
        Err(errno) => {
            log!("what an upgrade replaces is closed again when this agent starts: {errno}");
            None
        }
    }
}

/// Who this agent is, for as long as it runs.
fn read_identity(root: &Path) -> io::Result<conversation::Identity> {
    // Instance and boot come from the kernel itself, whatever `--root` says: no test tree can forge a boot.
    let inst = fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .to_owned();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned();
    let machine_id = fs::read_to_string(root.join("etc/machine-id"))
        .ok()
        .map(|id| id.trim().to_owned());
    Ok(conversation::Identity {
        inst,
        boot_id,
        machine_id: machine_id.filter(|id| !id.is_empty()),
    })
}

/// Says "ready" to a service manager that asked for it (sd_notify(3)); it never hears more, since an idle agent shall not wake.
fn tell_service_manager() {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    };
    let Some(name) = std::env::var("NOTIFY_SOCKET")
        .ok()
        .filter(|name| !name.is_empty())
    else {
        return;
    };
    let address = match name.strip_prefix('@') {
        Some(hidden) => SocketAddr::from_abstract_name(hidden),
        None => SocketAddr::from_pathname(&name),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = sent {
        log!("cannot tell the service manager at {name} that the agent is ready: {error}");
    }
}

/// Becomes the program that chooses a persona: the one beside this, else that of the path. It is apart because of its screen,
/// which would treble what an agent weighs.
fn choose(arguments: &[OsString]) -> ExitCode {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(SWITCH))
        .filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| SWITCH.into());
    let error = Command::new(&program).args(arguments).exec();
    if error.kind() == io::ErrorKind::NotFound {
        log!(
            "the program {SWITCH} is not installed; it is built beside this one, and belongs into /usr/bin (docs/switch.md)"
        );
    } else {
        log!("cannot run {}: {error}", program.display());
    }
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    log!("{}", log::chain(error));
    ExitCode::FAILURE
}
