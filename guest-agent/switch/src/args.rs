//! The command line, read by hand: it is small. `main` calls it once.

use std::{ffi::OsString, path::PathBuf};

use crate::plain::{Form, Patience};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
virt-persona-switch: choose another persona from within a guest

Usage:
  virt-persona-switch                    choose on the screen; where there is no terminal, as --list
  virt-persona-switch --list [--json]    print what may be chosen and what would change
  virt-persona-switch --to NAME [--wait] ask for a persona; with --wait until it is active, refused or failed
  virt-persona-switch --status [--json]  print the active persona, and whether the host can be asked
  virt-persona-switch --version | --help

Options:
  --root DIR   where the agent's socket is looked up [/]

Exit status: 0 done, 1 refused or failed, 2 usage, 3 agent or host cannot be asked, 4 waits for approval.
Root and members of the group virt-persona may ask; which personas there are is the host's word.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Choose {
        root: PathBuf,
    },
    List {
        root: PathBuf,
        form: Form,
    },
    Status {
        root: PathBuf,
        form: Form,
    },
    To {
        root: PathBuf,
        persona: String,
        patience: Patience,
    },
    Version,
    Help,
}

/// A command line that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("unknown argument {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} does not go with what is asked")]
    Stray(&'static str),
}

enum Word {
    List,
    Status,
    To(String),
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Invocation, ArgsError> {
    let mut arguments = arguments;
    let (mut word, mut form, mut patience) = (None, Form::Text, Patience::Answer);
    let mut root = PathBuf::from("/");
    while let Some(argument) = arguments.next() {
        let mut value = |name| arguments.next().ok_or(ArgsError::NoValue(name));
        match argument.to_str() {
            Some("--list") => word = Some(Word::List),
            Some("--status") => word = Some(Word::Status),
            Some("--to") => {
                let name = value("--to")?;
                let name = name.into_string().map_err(ArgsError::Unknown)?;
                word = Some(Word::To(name));
            }
            Some("--wait") => patience = Patience::End,
            Some("--json") => form = Form::Json,
            Some("--root") => root = value("--root")?.into(),
            Some("--version") => return Ok(Invocation::Version),
            Some("--help" | "-h") => return Ok(Invocation::Help),
            _ => return Err(ArgsError::Unknown(argument)),
        }
    }
    if patience == Patience::End && !matches!(word, Some(Word::To(_))) {
        return Err(ArgsError::Stray("--wait"));
    }
    if form == Form::Json && !matches!(word, Some(Word::List | Word::Status)) {
        return Err(ArgsError::Stray("--json"));
    }
    Ok(match word {
        None => Invocation::Choose { root },
        Some(Word::List) => Invocation::List { root, form },
        Some(Word::Status) => Invocation::Status { root, form },
        Some(Word::To(persona)) => Invocation::To {
            root,
            persona,
            patience,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Invocation, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let root = PathBuf::from("/");
        assert_eq!(read(""), Ok(Invocation::Choose { root: root.clone() }));
        assert_eq!(
            read("--to night --wait"),
            Ok(Invocation::To {
                root,
                persona: "night".to_owned(),
                patience: Patience::End
            })
        );
        assert_eq!(read("--to"), Err(ArgsError::NoValue("--to")));
        assert_eq!(read("--list --wait"), Err(ArgsError::Stray("--wait")));
        assert_eq!(read("--json"), Err(ArgsError::Stray("--json")));
        assert!(matches!(read("night"), Err(ArgsError::Unknown(_))));
    }
}
