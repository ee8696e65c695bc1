//! `virt-persona-gate`: holds people who log in to a guest to the restricted commands of its persona. It marks the files that
//! the names lead to, so that the kernel asks it whenever one of them is opened or run, whatever path, link or loader is used.
//!
//! ```text
//!  agent --table--> watch --marks--> kernel --may I?--> judge --yes, no--> kernel
//!                     |  <---- directories change          |
//!                     +--standing--> agent                 +--refusals--> report --> journal
//! ```
//! Three threads: `judge` answers the kernel and does nothing else that could wait, `watch` follows the table and the
//! directories, `report` writes lines. No thread ever opens a marked file: the kernel would ask the gate about itself. When
//! the gate dies the kernel allows all again. In strict mode the directories are marked as well (`guarded`). This file knows the command line and starts the three.
#![forbid(unsafe_code)]

mod former;
mod guarded;
mod judge;
mod person;
mod report;
mod service;
mod standing;
mod targets;
mod watch;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
};

use nix::sys::mman::{MlockAllFlags, mlockall};

use report::line;

const HELP: &str = "\
virt-persona-gate: holds people who log in to a guest to the restricted commands of its persona

Usage:
  virt-persona-gate [options]

Options:
  --state DIR   the agent's state, where the table of restricted commands is [/var/lib/virt-persona-agent]
  --root DIR    where the directories of commands and /run are looked up [/]
  --version | --help
";

/// The kernel cannot do what is needed here; trying again changes nothing (EX_UNAVAILABLE of sysexits.h).
const UNAVAILABLE: u8 = 69;

struct Args {
    state: PathBuf,
    root: PathBuf,
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
enum ArgsError {
    #[error("unknown argument {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
}

enum Invocation {
    Run(Args),
    Print(&'static str),
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Print(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(Invocation::Run(args)) => run(&args),
        Err(error) => {
            line(&format!("{error}; see virt-persona-gate --help"));
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Invocation, ArgsError> {
    let mut args = Args {
        state: "/var/lib/virt-persona-agent".into(),
        root: "/".into(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = |name| arguments.next().ok_or(ArgsError::NoValue(name));
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Invocation::Print(HELP)),
            Some("--version") => {
                let version = concat!("virt-persona-gate ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Invocation::Print(version));
            }
            Some("--state") => args.state = value("--state")?.into(),
            Some("--root") => args.root = value("--root")?.into(),
            _ => return Err(ArgsError::Unknown(argument)),
        }
    }
    Ok(Invocation::Run(args))
}

fn run(args: &Args) -> ExitCode {
    let standing = match standing::Standing::open(&args.root) {
        Ok(standing) => standing,
        Err(error) => return fail(&error, ExitCode::FAILURE),
    };
    let group = match judge::open_group(standing.lock()) {
        Ok(group) => Arc::new(group),
        Err(error) => {
            standing.tell_why_not(&error);
            let status = if error.is_lasting() {
                ExitCode::from(UNAVAILABLE)
            } else {
                ExitCode::FAILURE
            };
            return fail(&error, status);
        }
    };
    let service = service::Service::find();
    let ruling = judge::Ruling::default();
    let refusals = match report::start() {
        Ok(refusals) => refusals,
        Err(error) => return fail(&error, ExitCode::FAILURE),
    };
    let judge = judge::Judge::new(
        Arc::clone(&group),
        ruling.clone(),
        refusals,
        service.watchdog(),
    );
    let judging = thread::Builder::new()
        .name("judge".to_owned())
        .stack_size(SMALL_STACK)
        .spawn(move || {
            let error = judge.run();
            // Without a judge every marked file would hang: at its end the kernel lets go of all marks.
            line(&report::chain(&error));
            std::process::exit(1);
        });
    if let Err(error) = judging {
        return fail(&error, ExitCode::FAILURE);
    }
    // What is paged out would have to be read while somebody waits for an answer.
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        line(&format!(
            "the gate's memory cannot be locked, it may be paged out: {error}"
        ));
    }
    match watch::run(&args.state, &args.root, &group, &ruling, standing, &service) {
        Ok(never) => match never {},
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

/// Stacks are locked in memory as a whole, so they are no larger than the threads need.
const SMALL_STACK: usize = 128 * 1024;

fn fail(error: &dyn std::error::Error, status: ExitCode) -> ExitCode {
    line(&report::chain(error));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let Ok(Invocation::Run(args)) = parse([].into_iter()) else {
            panic!("no run")
        };
        assert!(HELP.contains(args.state.to_str().unwrap()));
        assert!(matches!(
            parse(["--state".into()].into_iter()),
            Err(ArgsError::NoValue("--state"))
        ));
        assert!(matches!(
            parse(["--dance".into()].into_iter()),
            Err(ArgsError::Unknown(_))
        ));
    }
}
