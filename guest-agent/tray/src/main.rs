//! `virt-persona-tray`: the persona of a guest in the tray of its desktop, with a menu to choose another. It asks the agent on
//! its own socket, as `virt-persona-switch` does, and the host decides. It is a program of its own: the agent stays small, and
//! a guest without a desktop needs none of it.
//!
//! ```text
//! desktop <--item (ksni, the session's bus)--> main (tasks) --> agent's socket --> host
//!                   |  shows                      |
//!                   +--------- model <-- heard ---+
//! ```
//! It looks when it begins, when its menu is opened, after a switch and now and then; in between it sleeps.
#![forbid(unsafe_code)]

mod item;
mod model;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use agent_protocol::local::LocalRequest;
use ksni::blocking::{Handle, TrayMethods as _};
use virt_persona_switch::{
    client::{self, ClientError},
    text::chain,
};

use item::Item;
use model::Model;

const HELP: &str = "\
virt-persona-tray: the persona of this machine in the tray of the desktop, with a menu to choose another

Usage:
  virt-persona-tray [--root DIR]
  virt-persona-tray --version | --help

Options:
  --root DIR   where the agent's socket is looked up [/]

It begins with the session by /etc/xdg/autostart, needs the session's bus, and waits for a tray where there is none yet.
Exit status: 0 it was ended by its menu, 1 there is no session's bus, 2 usage.
";

/// Another persona may have come without anybody's doing in this session.
const PAUSE: Duration = Duration::from_secs(300);
/// While the host cannot be asked, as at the beginning of a session.
const SHORT_PAUSE: Duration = Duration::from_secs(30);

/// Between two looks for a tray in the session, at first and after some time without any.
const FIRST_TRY: Duration = Duration::from_millis(250);
const LAST_TRY: Duration = Duration::from_secs(30);

/// What becomes of the model by something that was heard.
type Change = Box<dyn FnOnce(&mut Model) + Send>;

/// What is to be done.
enum Task {
    /// See what there is to choose from.
    Look,
    /// The same, and the menu is open.
    Opened,
    /// Ask for a persona.
    Ask(String),
    /// Show what was heard.
    Show(Change),
    /// End.
    Quit,
}

/// A command line that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ArgsError {
    #[error("unknown argument {0:?}")]
    Unknown(OsString),
    #[error("--root needs a value")]
    NoRoot,
}

#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    Run(PathBuf),
    Print(&'static str),
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Print(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(Invocation::Run(root)) => run(&root),
        Err(error) => {
            say(&format!("{error}; see virt-persona-tray --help"));
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Invocation, ArgsError> {
    let mut root = PathBuf::from("/");
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Invocation::Print(HELP)),
            Some("--version") => {
                let version = concat!("virt-persona-tray ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Invocation::Print(version));
            }
            Some("--root") => root = arguments.next().ok_or(ArgsError::NoRoot)?.into(),
            _ => return Err(ArgsError::Unknown(argument)),
        }
    }
    Ok(Invocation::Run(root))
}

fn run(root: &Path) -> ExitCode {
    let (sender, tasks) = mpsc::channel();
    // Before there is an item: panels may miss what changes while they read it for the first time.
    let mut model = Model::default();
    heard(root)(&mut model);
    let handle = match appear(|| Item::new(model.clone(), sender.clone())) {
        Ok(handle) => handle,
        Err(error) => {
            say(&format!("the desktop cannot be reached: {error}"));
            return ExitCode::FAILURE;
        }
    };
    serve(root, &sender, &tasks, &handle, model);
    handle.shutdown().wait();
    ExitCode::SUCCESS
}

/// Shows the item as soon as the session has a tray, which may begin after this program. `ksni` could wait for it by itself,
/// but would never hear of one that comes while it begins to listen for one.
fn appear(item: impl Fn() -> Item) -> Result<Handle<Item>, ksni::Error> {
    let mut pause = FIRST_TRY;
    loop {
        match item().spawn() {
            Err(ksni::Error::Watcher(_) | ksni::Error::WontShow) => thread::sleep(pause),
            ended => return ended,
        }
        pause = (pause * 2).min(LAST_TRY);
    }
}

fn serve(
    root: &Path,
    sender: &Sender<Task>,
    tasks: &Receiver<Task>,
    handle: &Handle<Item>,
    mut model: Model,
) {
    // It is closed when the session's bus has gone, and with it the desktop.
    while !handle.is_closed() {
        let pause = if model.knows() { PAUSE } else { SHORT_PAUSE };
        let before = model.clone();
        match tasks.recv_timeout(pause) {
            Ok(Task::Look) | Err(RecvTimeoutError::Timeout) => look(root, sender),
            Ok(Task::Opened) => {
                model.read();
                look(root, sender);
            }
            Ok(Task::Ask(persona)) => {
                model.chosen(&persona);
                ask(root, sender, persona);
            }
            Ok(Task::Show(change)) => change(&mut model),
            Ok(Task::Quit) | Err(RecvTimeoutError::Disconnected) => return,
        }
        // The desktop draws an open menu anew for each change, so what is no change is not sent.
        if model != before {
            let shown = model.clone();
            handle.update(|item| item.model = shown);
        }
    }
}

/// Sees what there is to choose from. In a thread of its own: the host may take its time, and the menu must not wait.
fn look(root: &Path, sender: &Sender<Task>) {
    let (root, tasks) = (root.to_owned(), sender.clone());
    begin(sender, move || {
        let _ = tasks.send(Task::Show(heard(&root)));
    });
}

/// What a look comes to.
fn heard(root: &Path) -> Change {
    let answer = client::ask(root, &LocalRequest::Personas).and_then(|mut all| all.wait());
    Box::new(move |model| match answer {
        Ok(answer) => model.looked(&answer),
        Err(error) => model.not_reached(&chain(&error)),
    })
}

/// Asks for a persona and follows what becomes of it.
fn ask(root: &Path, sender: &Sender<Task>, persona: String) {
    let (root, heard) = (root.to_owned(), sender.clone());
    begin(sender, move || {
        let tell = |change: Change| {
            let _ = heard.send(Task::Show(change));
        };
        if let Err(error) = follow(&root, &persona, &tell) {
            let why = chain(&error);
            tell(Box::new(move |model| model.lost(&persona, &why)));
        }
        // There is another persona now, or another sentence about this one.
        let _ = heard.send(Task::Look);
    });
}

fn follow(root: &Path, persona: &str, tell: &impl Fn(Change)) -> Result<(), ClientError> {
    let request = LocalRequest::Switch {
        persona: persona.to_owned(),
    };
    let mut answers = client::ask(root, &request)?;
    loop {
        let answer = answers.wait()?;
        let last = answer.is_last();
        let name = persona.to_owned();
        tell(Box::new(move |model| model.told(&name, &answer)));
        if last {
            return Ok(());
        }
    }
}

fn begin(sender: &Sender<Task>, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().spawn(work) {
        let why = format!("no thread can be started: {error}");
        let _ = sender.send(Task::Show(Box::new(move |model| model.not_reached(&why))));
    }
}

/// Writes a line to standard error, where there may be nobody.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "virt-persona-tray: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_the_documented_one() {
        let parsed = |words: &[&str]| parse(words.iter().map(OsString::from));
        assert_eq!(parsed(&[]), Ok(Invocation::Run("/".into())));
        assert_eq!(parsed(&["--root", "/x"]), Ok(Invocation::Run("/x".into())));
        assert_eq!(parsed(&["--root"]), Err(ArgsError::NoRoot));
        assert_eq!(parsed(&["dance"]), Err(ArgsError::Unknown("dance".into())));
        assert_eq!(parsed(&["--help"]), Ok(Invocation::Print(HELP)));
    }
}
