//! The main job, shown on a real domain: `make demo`. A domain gets a persona by its tag, grows under load and shrinks
//! after it, and at each step the daemon, QEMU and the guest itself are asked what they see.
//!
//! It runs in a lab of its own, so nothing of the host's libvirt, bus or configuration is touched, and cleans up after
//! itself, also after Ctrl-C. Exit status: 0 when every step was seen, 1 when one was not, 130 after a signal.
//!
//! Usage: demo [--keep]        --keep leaves everything running and says how to look around

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use tokio::signal::unix::{SignalKind, signal};

#[allow(dead_code, unused_imports, reason = "the live tests use the rest")]
#[path = "../../tests/live/harness/mod.rs"]
mod harness;
mod jobs;
mod screen;
mod sight;
mod steps;
mod watch;

use harness::{Failure, Lab, Outcome, TestGuest};
use screen::{INTERRUPTED, Screen, seconds};
use steps::{DOMAIN, Demo};

/// For whoever ends the demo early.
static LAB: OnceLock<Lab> = OnceLock::new();

/// What becomes of everything at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Removed,
    Kept,
}

fn main() -> ExitCode {
    let mut screen = Screen::new();
    let mut afterwards = Afterwards::Removed;
    for argument in std::env::args().skip(1) {
        if argument == "--keep" {
            afterwards = Afterwards::Kept;
        } else {
            screen.missed(format!("{argument} is no option; there is --keep"));
            return ExitCode::from(2);
        }
    }
    if let Err(failure) = clean_up_after_signals() {
        screen.missed(failure);
        return ExitCode::FAILURE;
    }
    let shown = show(&mut screen, afterwards);
    let total = seconds(screen.elapsed());
    match shown {
        Ok(()) => {
            screen.title(&format!("Every step was seen, in {total}."), &[]);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            screen.missed(failure);
            screen.title(&format!("Not every step was seen ({total})."), &[]);
            wait_for_the_interrupter();
            ExitCode::FAILURE
        }
    }
}

/// A lab, all the steps in it, and its end.
fn show(screen: &mut Screen, afterwards: Afterwards) -> Outcome<()> {
    screen.title(
        "virt-persona: a virtual machine that grows under load and shrinks after it",
        &["In a libvirt and on a bus of its own: nothing of this host's is touched.".to_owned()],
    );
    screen.step("The test guest is built where something has changed; a libvirt and a bus start");
    screen.progress("the test guest is built");
    let guest = TestGuest::build()?;
    screen.progress("libvirt starts");
    let lab = Lab::start()?;
    let lab = LAB.get_or_init(|| lab);
    let how = if guest.is_emulated() {
        "emulated by QEMU, since KVM does not work here"
    } else {
        "under KVM"
    };
    screen.line(&format!(
        "guests are {how}; everything is in {}",
        lab.directory().display()
    ));
    screen.seen(format!("ready after {}", seconds(screen.elapsed())));
    let mut demo = Demo::boot(screen, lab)?;
    let steps = all_steps(&mut demo).map_err(|failure| demo.explained(failure));
    if afterwards == Afterwards::Kept {
        demo.keep();
        say_how_to_look(screen, lab)?;
        return steps;
    }
    let cleaned = steps.and_then(|()| demo.clean_up());
    drop(demo);
    lab.end()?;
    cleaned?;
    if lab.directory().exists() {
        return Err(Failure::new(format!(
            "{} is still there",
            lab.directory().display()
        )));
    }
    screen.seen("nothing is left: no process, no domain, no file");
    Ok(())
}

fn all_steps(demo: &mut Demo<'_>) -> Outcome<()> {
    demo.start_daemon()?;
    demo.activate()?;
    demo.grow_vcpus()?;
    demo.grow_memory()?;
    demo.shrink()?;
    demo.audit()
}

fn say_how_to_look(screen: &mut Screen, lab: &Lab) -> Outcome<()> {
    let end = lab.keep()?;
    screen.step("Everything is left running");
    screen.command(&format!("alias v='virsh -c {}'", lab.uri()));
    screen.command(&format!(
        "alias p='{} --connect {}'",
        lab.command_line_program().display(),
        lab.bus()
    ));
    screen.command(&format!("p status {DOMAIN}; p explain {DOMAIN}; p watch"));
    screen.command(&format!(
        "v dumpxml {DOMAIN}; cat {}/{DOMAIN}.console",
        lab.domain_files().display()
    ));
    screen.line("And to end it:");
    screen.command(&end);
    Ok(())
}

/// Ctrl-C, SIGTERM and SIGHUP end the demo only after it has cleaned up. What ends it at once, as SIGKILL, leaves that
/// to the lab's guard.
fn clean_up_after_signals() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Caught from here on, not from when the thread runs.
    let signals = {
        let _inside = runtime.enter();
        [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal)
    };
    let [mut interrupt, mut terminate, mut hangup] = match signals {
        [Ok(interrupt), Ok(terminate), Ok(hangup)] => [interrupt, terminate, hangup],
        [interrupt, terminate, hangup] => {
            let error = [interrupt, terminate, hangup]
                .into_iter()
                .find_map(Result::err);
            return Err(Failure::new(format!("signals cannot be caught: {error:?}")));
        }
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        Screen::new().title("Interrupted: cleaning up.", &[]);
        INTERRUPTED.store(true, Ordering::Relaxed);
        if let Some(lab) = LAB.get() {
            // The guard says itself what it could not remove.
            let _ = lab.end();
        }
        std::process::exit(130);
    });
    Ok(())
}

/// A step that failed because of a signal must not end the program before everything is cleaned up.
fn wait_for_the_interrupter() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        std::thread::park();
    }
}
