//! `virt-persona-switch`: chooses another persona from within a guest. It asks the agent on its own socket, which asks the
//! host; the host decides. On a terminal it is a full screen, elsewhere lines for people and scripts. It is a program of its
//! own so that the agent stays small; `virt-persona-agent switch` becomes it.
//!
//! ```text
//! args -> screen (keys, drawing) -> chooser (what is shown, what a key means) -> draw
//!      -> plain  (lines, exit statuses)                          client: questions to the agent, answers as they come
//! ```

mod args;
mod chooser;
mod draw;
mod plain;
mod screen;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use args::Invocation;

/// How the program ends; documented in docs/switch.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was asked for was done or told.
    Done,
    /// It was refused, or it failed.
    Refused,
    /// The command line cannot be understood.
    Usage,
    /// The agent, or through it the host, cannot be asked.
    Unreachable,
    /// A person of the host has to approve it, and nobody waits for that.
    Waits,
}

impl Ending {
    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Waits => 4,
        })
    }
}

fn main() -> ExitCode {
    let ending = match args::parse(std::env::args_os().skip(1)) {
        Err(error) => {
            say_error(&format!("{error}; see virt-persona-switch --help"));
            Ending::Usage
        }
        Ok(Invocation::Help) => say(args::HELP),
        Ok(Invocation::Version) => say(concat!(
            "virt-persona-switch ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        Ok(Invocation::Choose { root }) => {
            if io::stdin().is_terminal() && io::stdout().is_terminal() {
                screen::run(&root).unwrap_or_else(|error| {
                    say_error(&format!("the terminal cannot be used: {error}"));
                    Ending::Refused
                })
            } else {
                plain::list(&root, plain::Form::Text)
            }
        }
        Ok(Invocation::List { root, form }) => plain::list(&root, form),
        Ok(Invocation::Status { root, form }) => plain::status(&root, form),
        Ok(Invocation::To {
            root,
            persona,
            patience,
        }) => plain::switch(&root, &persona, patience),
    };
    ending.code()
}

/// Writes to standard output; who closed it wants no more.
pub(crate) fn say(text: &str) -> Ending {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ending::Done,
        Err(_) => Ending::Refused,
    }
}

/// Writes a line to standard error, where there may be nobody.
pub(crate) fn say_error(text: &str) {
    let _ = writeln!(io::stderr(), "virt-persona-switch: {text}");
}
