//! What the daemon and the agent cost beside what people have anyway, on real domains: a libvirtd of its own, running
//! test guests, and a thousand simulated domains. Ratios are of one run, since a shared machine is another one a minute
//! later. Figures of the pure crates and of bare reads are in the other benchmarks.

#![allow(clippy::print_stdout, reason = "a benchmark reports on its terminal")]

#[allow(dead_code, unused_imports, reason = "the live tests need more of it")]
#[path = "../../tests/live/harness/mod.rs"]
mod harness;

#[allow(clippy::unwrap_used, reason = "a benchmark may fail")]
#[path = "../ticker/mod.rs"]
mod ticker;

mod figures;
mod ping;
mod simulated;
mod tick;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use figures::{Resident, cpu_time, length};
use harness::{Daemon, Domain, DomainSpec, Failure, Lab, Outcome, Variant, ensure, eventually};
use virt_persona::view::AgentState;

/// Running guests; each is emulated where there is no KVM, so there cannot be many.
const DOMAINS: usize = 8;

/// How long the running daemon is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// What the agent may take of a guest.
const AGENT_SIZE_BUDGET: u64 = 4 << 20;
const AGENT_RESIDENT_BUDGET_KIB: u64 = 6 << 10;

fn main() -> ExitCode {
    // Run as a test it has nothing to show.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<()> {
    let lab = Lab::start()?;
    let mut daemon = Daemon::start(&lab, "")?;
    std::thread::sleep(Duration::from_secs(5));
    let idle = Resident::of(daemon.pid()?)?;
    println!("starting {DOMAINS} guests ({})", lab.guest().domain_type);
    let domains = start_domains(&lab)?;
    bind(&lab, &domains)?;
    println!();
    agent_sizes(&domains[0])?;
    watch(&lab, &daemon, &idle)?;
    daemon.terminate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    tick::against_domstats(&lab, &domains)?;
    ping::against_guest_ping(&lab, &runtime, &domains[0])?;
    drop(domains);
    simulated::measure(&lab)?;
    lab.end()
}

/// The first has qemu-ga beside the agent.
fn start_domains(lab: &Lab) -> Outcome<Vec<Domain>> {
    let mut domains = Vec::new();
    for number in 0..DOMAINS {
        let variant = if number == 0 {
            Variant::Qga
        } else {
            Variant::Full
        };
        let domain = DomainSpec::new(&format!("vpb-{number}"), variant).define(lab)?;
        domain.start()?;
        domains.push(domain);
    }
    for domain in &domains {
        domain.wait_until_up()?;
        let name = domain.name();
        eventually(
            format!("the agent of {name} is connected"),
            Duration::from_secs(60),
            || {
                let state = domain.status()?.agent.state;
                ensure(state == AgentState::Connected, || {
                    format!("it is {state:?}")
                })
            },
        )?;
    }
    Ok(domains)
}

/// Gives every domain the persona, through its tag.
fn bind(lab: &Lab, domains: &[Domain]) -> Outcome<()> {
    let document = lab.directory().join("measured.yaml");
    std::fs::write(&document, ticker::PERSONA)?;
    lab.persona(&["create", &document.display().to_string()])?;
    lab.persona(&["map", "measured", "measured"])?;
    for domain in domains {
        domain.tag(&["measured"])?;
    }
    for domain in domains {
        let what = format!("the persona of {} is active", domain.name());
        eventually(what, Duration::from_secs(60), || {
            let state = domain.status()?.activation.state;
            ensure(state == virt_persona::view::ActivationState::Active, || {
                format!("it is {state:?}")
            })
        })?;
    }
    Ok(())
}

/// Size of the agent's program, and its memory in a guest where it has activated a persona.
fn agent_sizes(domain: &Domain) -> Outcome<()> {
    let size = length(&agent_program()?)?;
    println!(
        "agent: {:.2} MiB on disk (budget {} MiB)",
        mib(size),
        AGENT_SIZE_BUDGET >> 20
    );
    let agent = resident_in_guest(domain, "virt-persona-ag")?;
    let qga = resident_in_guest(domain, "qemu-ga")?;
    println!(
        "agent in the guest: {} KiB resident, {} KiB of them its own (budget {} KiB); qemu-ga: {} KiB, {} KiB of them its own",
        agent.all, agent.anonymous, AGENT_RESIDENT_BUDGET_KIB, qga.all, qga.anonymous
    );
    ensure(
        size <= AGENT_SIZE_BUDGET && agent.all <= AGENT_RESIDENT_BUDGET_KIB,
        || "the agent is over its budget".to_owned(),
    )
}

/// The agent that `tests/guest/build` has put into the guest.
fn agent_program() -> Outcome<PathBuf> {
    let this = std::env::current_exe()?;
    // This program is in target/release/deps.
    this.ancestors()
        .nth(3)
        .map(|target| target.join("x86_64-unknown-linux-gnu/guest/virt-persona-agent"))
        .ok_or_else(|| Failure::new("this program is not in a directory of cargo's"))
}

/// `name` as the kernel has it: its first 15 bytes. Of several processes of that name the largest counts: a child that
/// has been forked and not executed anything yet has the name too, and next to no memory.
fn resident_in_guest(domain: &Domain, name: &str) -> Outcome<Resident> {
    let witness = domain.witness();
    let mut largest: Option<Resident> = None;
    for process in witness.list("/proc")? {
        if !process.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // It may have ended since.
        let Ok(text) = witness.read(&format!("/proc/{process}/status")) else {
            continue;
        };
        if text.lines().next() == Some(&format!("Name:\t{name}"))
            && let Some(resident) = Resident::parse(&text)
            && largest
                .as_ref()
                .is_none_or(|largest| largest.all < resident.all)
        {
            largest = Some(resident);
        }
    }
    largest.ok_or_else(|| {
        Failure::new(format!(
            "no process {name} in the guest of {}",
            domain.name()
        ))
    })
}

/// The whole daemon while it looks after running domains.
fn watch(lab: &Lab, daemon: &Daemon, idle: &Resident) -> Outcome<()> {
    let (pid, libvirtd) = (daemon.pid()?, lab.libvirtd_pid());
    let before = (cpu_time(pid)?, cpu_time(libvirtd)?);
    std::thread::sleep(WATCHED);
    let used = |pid, before| Ok::<_, Failure>((cpu_time(pid)? - before).as_secs_f64());
    let share = 1e3 / WATCHED.as_secs_f64();
    println!(
        "daemon with {DOMAINS} domains, persona and agent in each: {:.2} ms of CPU time a second, and {:.2} ms of libvirtd's",
        used(pid, before.0)? * share,
        used(libvirtd, before.1)? * share
    );
    let now = Resident::of(pid)?;
    println!(
        "daemon: {} KiB resident without domains ({} KiB its own), {} KiB with {DOMAINS} ({} KiB its own)",
        idle.all, idle.anonymous, now.all, now.anonymous
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "sizes of programs")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
