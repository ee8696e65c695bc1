//! The guest owner's own policy: what the host may ask. The host cannot change it; the agent reads it once at start.
//! Without the file the packaged defaults hold; with a file that cannot be understood the agent does not start, since guessing
//! at a prohibition would be wrong in both directions.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::{Operation, rules::GuestAction};
use serde::Deserialize;

use crate::telemetry::Probes;

/// Whether the host may ask for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "bool")]
pub(crate) enum Leave {
    Granted,
    Denied,
}

impl From<bool> for Leave {
    fn from(granted: bool) -> Self {
        if granted { Self::Granted } else { Self::Denied }
    }
}

/// Which commands the host may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "true, false or a list of commands")]
pub(crate) enum CommandLeave {
    /// Any, or none.
    All(Leave),
    /// Those that these names or absolute paths lead to.
    These(Vec<String>),
}

impl CommandLeave {
    /// Whether any command can be allowed.
    fn any(&self) -> Leave {
        match self {
            Self::All(leave) => *leave,
            Self::These(commands) => Leave::from(!commands.is_empty()),
        }
    }
}

/// Who in the guest may say figures of applications.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "true, false or a list of users")]
pub(crate) enum Emitters {
    /// Every user, or none.
    All(Leave),
    /// These users, and root.
    These(Vec<String>),
}

impl Emitters {
    /// Whether anybody can be: root always is where there is a list.
    fn any(&self) -> Leave {
        match self {
            Self::All(leave) => *leave,
            Self::These(_) => Leave::Granted,
        }
    }
}

/// The table `[allow]` of `agent.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Making personas active and inactive.
    pub(crate) activation: Leave,
    /// Settings of a persona.
    pub(crate) settings: Leave,
    /// Scripts of a persona.
    pub(crate) scripts: Leave,
    /// Rules of a persona that this agent evaluates by itself.
    pub(crate) rules: Leave,
    /// Reports about CPUs, memory and load.
    pub(crate) telemetry: Leave,
    /// Switching CPUs on and off.
    pub(crate) cpus: Leave,
    /// Commands that the host asks for beside a persona's scripts.
    pub(crate) commands: CommandLeave,
    /// Holding people who log in to the persona's restricted and overridden commands.
    pub(crate) gate: Leave,
    /// Asking the guest's hooks before it shrinks, and telling them after it has grown.
    pub(crate) hooks: Leave,
    /// Telling the host that memory is needed.
    pub(crate) need: Leave,
    /// Taking figures of applications along with reports.
    pub(crate) metrics: Emitters,
    /// Which other machines may be probed: the table `[probe]`.
    #[serde(skip)]
    pub(crate) probes: Probes,
    /// How firmly people who log in are held: the table `[gate]`.
    #[serde(skip)]
    pub(crate) firmness: Firmness,
}

/// How firmly people who log in are held to restricted commands, where they are at all: the table `[gate]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Firmness {
    /// A file is refused by its name, too, from its first open on.
    pub(crate) strict: bool,
    /// The files are closed to all but their owner and group, so that they are refused also while there is no gate.
    pub(crate) fail_closed: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            activation: Leave::Granted,
            settings: Leave::Granted,
            scripts: Leave::Granted,
            rules: Leave::Granted,
            telemetry: Leave::Granted,
            cpus: Leave::Granted,
            commands: CommandLeave::All(Leave::Denied),
            gate: Leave::Granted,
            hooks: Leave::Granted,
            need: Leave::Granted,
            metrics: Emitters::All(Leave::Granted),
            probes: Probes::default(),
            firmness: Firmness::default(),
        }
    }
}

impl Policy {
    /// Each key of `[allow]`, with whether anything of it is granted.
    pub(crate) fn keys(&self) -> [(&'static str, Leave); 11] {
        // Each field is named, so that a new one is not forgotten here.
        let Self {
            activation,
            settings,
            scripts,
            rules,
            telemetry,
            cpus,
            commands,
            gate,
            hooks,
            need,
            metrics,
            probes: _,
            firmness: _,
        } = self;
        [
            ("activation", *activation),
            ("settings", *settings),
            ("scripts", *scripts),
            ("rules", *rules),
            ("telemetry", *telemetry),
            ("cpus", *cpus),
            ("commands", commands.any()),
            ("gate", *gate),
            ("hooks", *hooks),
            ("need", *need),
            ("metrics", metrics.any()),
        ]
    }

    /// The owner's word on an operation, with the key in the file that decides it; `None` for what only asks about itself.
    pub(crate) fn leave_for(&self, op: &Operation) -> Option<(Leave, &'static str)> {
        match op {
            Operation::OnlineCpus { .. } => Some((self.cpus, "cpus")),
            Operation::Activate { activation } => {
                let scripts = activation.pre.is_some() || activation.post.is_some();
                let asked = [
                    (true, self.activation, "activation"),
                    (!activation.settings.is_empty(), self.settings, "settings"),
                    (scripts, self.scripts, "scripts"),
                ];
                let denied = asked
                    .into_iter()
                    .find(|(asked, leave, _)| *asked && *leave == Leave::Denied);
                Some(
                    denied.map_or((Leave::Granted, "activation"), |(_, leave, key)| {
                        (leave, key)
                    }),
                )
            }
            Operation::Deactivate { .. } => Some((self.activation, "activation")),
            Operation::Report => Some((self.telemetry, "telemetry")),
            Operation::PrepareShrink { .. } | Operation::Grown { .. } => {
                Some((self.hooks, "hooks"))
            }
            Operation::Exec { .. } => Some((self.commands.any(), "commands")),
            Operation::Perform { call } => Some(match call.action {
                GuestAction::Run(_) if self.scripts == Leave::Denied => (self.scripts, "scripts"),
                _ => (self.rules, "rules"),
            }),
            Operation::OpStatus { .. } | Operation::RuleRecords { .. } | Operation::Unknown(_) => {
                None
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PolicyFile {
    allow: Policy,
    probe: Probes,
    gate: Firmness,
}

impl PolicyFile {
    fn into_policy(self) -> Policy {
        Policy {
            probes: self.probe,
            firmness: self.gate,
            ..self.allow
        }
    }
}

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot understand {path:?}")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// Reads the policy; the defaults hold where there is no file.
pub(crate) fn read_policy(path: &Path) -> Result<Policy, PolicyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Policy::default()),
        Err(source) => {
            return Err(PolicyError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    match toml::from_str::<PolicyFile>(&text) {
        Ok(file) => Ok(file.into_policy()),
        Err(source) => Err(PolicyError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Policy>) {
        assert_eq!(
            toml::from_str::<PolicyFile>(text)
                .ok()
                .map(PolicyFile::into_policy),
            expected,
            "{text}"
        );
    }

    #[test]
    fn what_the_file_leaves_out_stays_as_packaged() {
        check("", Some(Policy::default()));
        check(
            "[allow]\nscripts = false\n",
            Some(Policy {
                scripts: Leave::Denied,
                ..Policy::default()
            }),
        );
    }

    fn denied(policy: &Policy) -> Vec<&'static str> {
        let keys = policy.keys().into_iter();
        let denied = keys.filter(|(_, leave)| *leave == Leave::Denied);
        denied.map(|(key, _)| key).collect()
    }

    #[test]
    fn each_key_is_one_of_the_file_and_is_documented_with_its_default() {
        let guide = include_str!("../../docs/configuration.md");
        let page = include_str!("../../packaging/man/virt-persona-agent.8");
        let section = page.split(".SH CONFIGURATION\n").nth(1).unwrap();
        let section = section.split(".SH ").next().unwrap();
        let entries: Vec<&str> = section.split(".TP\n").collect();
        for (key, leave) in Policy::default().keys() {
            let file = format!("[allow]\n{key} = false\n");
            let policy = toml::from_str::<PolicyFile>(&file).unwrap().into_policy();
            assert!(denied(&policy).contains(&key), "{key}");
            let default = leave == Leave::Granted;
            let row = format!("\n| `allow.{key}` | `{default}` | ");
            assert!(guide.contains(&row), "{row}");
            let entry = entries
                .iter()
                .find(|entry| entry.starts_with(&format!(".B {key}\n")));
            let said = entry.unwrap_or_else(|| panic!("{key} is not in the man page"));
            assert!(said.contains(&format!("Default: {default}.")), "{said}");
        }
        assert_eq!(denied(&Policy::default()), ["commands"]);
        let rows = guide.matches("\n| `allow.").count();
        assert_eq!(rows, Policy::default().keys().len());
    }

    #[test]
    fn commands_are_none_all_or_those_of_a_list() {
        assert_eq!(Policy::default().commands.any(), Leave::Denied);
        let commands = CommandLeave::All(Leave::Granted);
        check(
            "[allow]\ncommands = true\n",
            Some(Policy {
                commands,
                ..Policy::default()
            }),
        );
        let commands = CommandLeave::These(vec!["uptime".to_owned(), "/opt/x".to_owned()]);
        assert_eq!(commands.any(), Leave::Granted);
        check(
            "[allow]\ncommands = [\"uptime\", \"/opt/x\"]\n",
            Some(Policy {
                commands,
                ..Policy::default()
            }),
        );
        check("[allow]\ncommands = \"uptime\"\n", None);
        assert_eq!(CommandLeave::These(Vec::new()).any(), Leave::Denied);
    }

    #[test]
    fn figures_may_be_said_by_all_none_or_the_users_of_a_list() {
        for (text, metrics) in [
            ("false", Emitters::All(Leave::Denied)),
            (
                "[\"www-data\"]",
                Emitters::These(vec!["www-data".to_owned()]),
            ),
        ] {
            let policy = Policy {
                metrics,
                ..Policy::default()
            };
            check(&format!("[allow]\nmetrics = {text}\n"), Some(policy));
        }
        check("[allow]\nmetrics = \"www-data\"\n", None);
    }

    #[test]
    fn people_are_held_as_firmly_as_the_owner_says_and_a_mistake_is_named() {
        for (text, strict, fail_closed) in [
            ("", false, false),
            ("strict = true\n", true, false),
            ("fail_closed = true\n", false, true),
        ] {
            let firmness = Firmness {
                strict,
                fail_closed,
            };
            let policy = Policy {
                firmness,
                ..Policy::default()
            };
            check(&format!("[gate]\n{text}"), Some(policy));
        }
        let why = |text: &str| {
            toml::from_str::<PolicyFile>(text)
                .err()
                .unwrap()
                .to_string()
        };
        let unknown = why("[gate]\nstrickt = true\n");
        assert!(
            unknown.contains("unknown field `strickt`, expected `strict` or `fail_closed`"),
            "{unknown}"
        );
        let wrong = why("[gate]\nstrict = \"yes\"\n");
        assert!(wrong.contains("expected a boolean"), "{wrong}");
    }

    #[test]
    fn probes_go_to_addresses_and_to_few() {
        let probes = |text: &str| {
            let file: PolicyFile = toml::from_str(text).unwrap();
            file.into_policy().probes
        };
        assert_eq!(probes(""), Probes::default());
        assert_ne!(probes("[probe]\ntargets = []\n"), Probes::default());
        probes("[probe]\ntargets = [\"192.0.2.1:443\", \"[2001:db8::1]:22\"]\n");
        check("[probe]\ntargets = [\"db.example.org:5432\"]\n", None);
        let five = ["\"192.0.2.1:443\""; 5].join(",");
        check(&format!("[probe]\ntargets = [{five}]\n"), None);
        check("[probe]\ntarget = []\n", None);
    }

    #[test]
    fn a_misspelt_prohibition_is_an_error() {
        check("[allow]\nscript = false\n", None);
        check("[alow]\nscripts = false\n", None);
        check("[allow]\nscripts = \"no\"\n", None);
    }
}
