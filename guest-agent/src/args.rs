//! The command line. It is small and stays the same for years, so it is read by hand; `main` calls it once.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

use agent_protocol::Need;

use crate::{
    customize::{Ask, Reach},
    need::parse_memory,
};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
virt-persona-agent: the agent of virt-persona in the guest

Usage:
  virt-persona-agent [options]                  serve the host
  virt-persona-agent status [--state DIR]       print the active persona, what it holds, whether the gate
                                                holds people to it, and its generations
  virt-persona-agent history [--state DIR]      print the generations that are kept, with time and fate
  virt-persona-agent rollback [GENERATION]      make the guest what it was in that generation, or in the one before what
                                                holds; until the host's next activation; root only
  virt-persona-agent customize KEY=VALUE [--sticky]
                                                have something otherwise than the active persona says, with --sticky
                                                under every persona: environment.NAME, sysctl.NAME, service.NAME
                                                (enabled, disabled), editor, terminal_shell, theme, logging_level,
                                                auto_update_frequency, security_scan_frequency; root only
  virt-persona-agent customize --remove KEY     have it as the persona says again
  virt-persona-agent customize                  print what is customised
  virt-persona-agent need MEMORY [--reason TEXT]
                                                ask the host for so much more memory, as 256M; root only
  virt-persona-agent doctor                     look whether this guest has what the agent needs, and say what is
                                                to be mended; exit status 1 if anything is
  virt-persona-agent emit NAME=VALUE [UNIT] ...
                                                say figures of an application, as queue=17 or latency=350 ms;
                                                NAME+=VALUE counts
  virt-persona-agent switch [ARGUMENT...]       choose another persona: the program virt-persona-switch
  virt-persona-agent --version | --help

Options:
  --port PATH          virtio-serial port [/dev/virtio-ports/org.virtpersona.agent.0];
                       the default is also found by its name where udev makes no links
  --transport unix:P   listen on the unix socket P instead of a port; one client is served, the next waits
  --transport fd:N     serve the connected socket N, and end with it
  --state DIR          where the active persona is kept [/var/lib/virt-persona-agent]
  --config FILE        what the host may ask [/etc/virt-persona/agent.toml]
  --reason TEXT        why memory is needed, for the host's log
  --root DIR           where /etc, /run, /proc and /sys are looked up [/]
";

/// The port's name, as the host gives it in the domain's XML.
pub(crate) const PORT_NAME: &str = "org.virtpersona.agent.0";

/// What is to be done.
pub(crate) enum Invocation {
    Run(Args),
    Doctor(Args),
    Status {
        state: PathBuf,
        root: PathBuf,
    },
    History {
        state: PathBuf,
    },
    Rollback {
        root: PathBuf,
        to: Option<u64>,
    },
    Customize {
        root: PathBuf,
        ask: Ask,
    },
    Customizations {
        state: PathBuf,
    },
    Need {
        root: PathBuf,
        need: Need,
    },
    Emit {
        root: PathBuf,
        lines: Vec<String>,
    },
    /// The program that chooses, with these arguments.
    Switch {
        arguments: Vec<OsString>,
    },
    Version,
    Help,
}

/// What is to be printed.
enum Word {
    Status,
    Doctor,
    History,
    Rollback(Option<u64>),
    Customize,
}

/// How the host is reached.
#[derive(Clone)]
pub(crate) enum Transport {
    /// The port with our name, wherever it is.
    NamedPort,
    /// This device and no other.
    Port(PathBuf),
    /// A unix socket to listen on.
    Listen(PathBuf),
    /// A connected socket that was inherited.
    Inherited(RawFd),
}

/// Options of a serving agent.
pub(crate) struct Args {
    pub(crate) transport: Transport,
    pub(crate) state: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) root: PathBuf,
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("unknown argument {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("an amount of memory is a number of bytes, or one with K, M, G or T, not {0:?}")]
    Memory(OsString),
    #[error("customize needs KEY=VALUE, not {0:?}")]
    Customization(OsString),
    #[error("emit needs NAME=VALUE, not {0:?}")]
    Figure(OsString),
    #[error("--transport is unix:PATH or fd:N with N from 3, not {0:?}")]
    Transport(OsString),
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Invocation, ArgsError> {
    let mut arguments = arguments.peekable();
    let (mut word, mut needed, mut reason) = (None, None, String::new());
    let mut emitted: Option<Vec<String>> = None;
    let (mut customized, mut removed, mut reach) = (None, None, Reach::Active);
    let mut args = Args {
        transport: Transport::NamedPort,
        state: "/var/lib/virt-persona-agent".into(),
        config: "/etc/virt-persona/agent.toml".into(),
        root: "/".into(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = |name| arguments.next().ok_or(ArgsError::NoValue(name));
        match argument.to_str() {
            Some("emit") if emitted.is_none() => emitted = Some(Vec::new()),
            Some("status") => word = Some(Word::Status),
            Some("doctor") => word = Some(Word::Doctor),
            Some("history") => word = Some(Word::History),
            Some("rollback") => {
                let number = |text: &OsString| text.to_str()?.parse().ok();
                let to = arguments.peek().and_then(number);
                if to.is_some() {
                    arguments.next();
                }
                word = Some(Word::Rollback(to));
            }
            Some("switch") => {
                return Ok(Invocation::Switch {
                    arguments: arguments.collect(),
                });
            }
            Some("customize") => word = Some(Word::Customize),
            Some("--sticky") => reach = Reach::Every,
            Some("--remove") => {
                removed = Some(value("--remove")?.to_string_lossy().into_owned());
            }
            Some(said)
                if matches!(word, Some(Word::Customize))
                    && customized.is_none()
                    && !said.starts_with("--") =>
            {
                let Some((key, value)) = said.split_once('=') else {
                    return Err(ArgsError::Customization(argument));
                };
                customized = Some((key.to_owned(), value.to_owned()));
            }
            Some("need") => {
                let text = value("need")?;
                let bytes = text.to_str().and_then(parse_memory);
                needed = Some(bytes.ok_or(ArgsError::Memory(text))?);
            }
            Some("--reason") => reason = value("--reason")?.to_string_lossy().into_owned(),
            Some("--version") => return Ok(Invocation::Version),
            Some("--help" | "-h") => return Ok(Invocation::Help),
            Some("--port") => args.transport = Transport::Port(value("--port")?.into()),
            Some("--transport") => args.transport = parse_transport(value("--transport")?)?,
            Some("--state") => args.state = value("--state")?.into(),
            Some("--config") => args.config = value("--config")?.into(),
            Some("--root") => args.root = value("--root")?.into(),
            Some(said) if !said.starts_with("--") && emitted.is_some() => {
                emitted.get_or_insert_default().push(said.to_owned());
            }
            _ => return Err(ArgsError::Unknown(argument)),
        }
    }
    if let Some(words) = emitted {
        let lines = figures(words)?;
        let root = args.root;
        return Ok(Invocation::Emit { root, lines });
    }
    let state = args.state.clone();
    Ok(match (needed, word) {
        (Some(memory_bytes), _) => Invocation::Need {
            root: args.root,
            need: Need {
                memory_bytes,
                reason,
            },
        },
        (None, Some(Word::Status)) => Invocation::Status {
            state,
            root: args.root,
        },
        (None, Some(Word::Doctor)) => Invocation::Doctor(args),
        (None, Some(Word::History)) => Invocation::History { state },
        (None, Some(Word::Rollback(to))) => Invocation::Rollback {
            root: args.root,
            to,
        },
        (None, Some(Word::Customize)) => {
            let root = args.root;
            match (customized, removed) {
                (None, None) => Invocation::Customizations { state },
                (Some((key, value)), None) => Invocation::Customize {
                    root,
                    ask: Ask::Set { key, value, reach },
                },
                (None, Some(key)) => Invocation::Customize {
                    root,
                    ask: Ask::Remove { key },
                },
                (Some(_), Some(_)) => return Err(ArgsError::Unknown("--remove".into())),
            }
        }
        (None, None) => Invocation::Run(args),
    })
}

/// Each word with a name in it begins a line; another is the unit of the one before.
fn figures(words: Vec<String>) -> Result<Vec<String>, ArgsError> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            _ if word.contains(['=', ':']) => lines.push(word),
            Some(line) => *line = format!("{line} {word}"),
            None => return Err(ArgsError::Figure(word.into())),
        }
    }
    if lines.is_empty() {
        return Err(ArgsError::Figure(OsString::new()));
    }
    Ok(lines)
}

fn parse_transport(value: OsString) -> Result<Transport, ArgsError> {
    let text = value.to_str().unwrap_or_default();
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Transport::Listen(path.into()));
    }
    match text
        .strip_prefix("fd:")
        .and_then(|number| number.parse().ok())
    {
        Some(number) if number >= 3 => Ok(Transport::Inherited(number)),
        _ => Err(ArgsError::Transport(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Invocation, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let Ok(Invocation::Run(args)) = read("") else {
            panic!("no run")
        };
        assert!(matches!(args.transport, Transport::NamedPort));
        assert!(
            HELP.contains(args.state.to_str().unwrap())
                && HELP.contains(args.config.to_str().unwrap())
        );
        assert!(HELP.contains(PORT_NAME));
    }

    #[test]
    fn a_need_has_an_amount() {
        let Ok(Invocation::Need { need, .. }) = read("need 256M --reason import") else {
            panic!("no need")
        };
        assert_eq!(
            (need.memory_bytes, need.reason.as_str()),
            (256 << 20, "import")
        );
        assert!(matches!(read("need lots"), Err(ArgsError::Memory(_))));
        assert!(matches!(read("need"), Err(ArgsError::NoValue("need"))));
    }

    #[test]
    fn a_customisation_has_a_key_and_a_value() {
        let Ok(Invocation::Customize { ask, .. }) =
            read("customize environment.A=b=c --sticky --root /")
        else {
            panic!("no customisation")
        };
        let (key, value) = ("environment.A".to_owned(), "b=c".to_owned());
        let reach = Reach::Every;
        assert_eq!(ask, Ask::Set { key, value, reach });
        let Ok(Invocation::Customize { ask, .. }) = read("customize --remove editor") else {
            panic!("no removal")
        };
        let key = "editor".to_owned();
        assert_eq!(ask, Ask::Remove { key });
        assert!(matches!(
            read("customize"),
            Ok(Invocation::Customizations { .. })
        ));
        assert!(matches!(
            read("customize editor"),
            Err(ArgsError::Customization(_))
        ));
    }

    #[test]
    fn figures_have_names_and_may_have_units() {
        let Ok(Invocation::Emit { lines, .. }) =
            read("--root / emit queue=17 latency=350 ms hits+=1")
        else {
            panic!("no figures")
        };
        assert_eq!(lines, ["queue=17", "latency=350 ms", "hits+=1"]);
        assert!(matches!(read("emit"), Err(ArgsError::Figure(_))));
        assert!(matches!(read("emit ms"), Err(ArgsError::Figure(_))));
        assert!(matches!(
            read("emit a=1 --dance"),
            Err(ArgsError::Unknown(_))
        ));
    }

    #[test]
    fn all_behind_switch_is_for_the_program_that_chooses() {
        let Ok(Invocation::Switch { arguments }) = read("switch --to night --wait") else {
            panic!("no switch")
        };
        assert_eq!(arguments, ["--to", "night", "--wait"]);
    }

    #[test]
    fn a_transport_that_cannot_be_is_refused() {
        for bad in ["fd:2", "fd:x", "unix:", "tcp:1"] {
            assert!(
                matches!(
                    read(&format!("--transport {bad}")),
                    Err(ArgsError::Transport(_))
                ),
                "{bad}"
            );
        }
        assert!(matches!(
            read("--state"),
            Err(ArgsError::NoValue("--state"))
        ));
        assert!(matches!(read("--dance"), Err(ArgsError::Unknown(_))));
    }
}
