//! The keys that can be customised: how each is written, what an activation says of it, and how a value of it is laid over one.
//! What is kept of them, and under which personas, is the list's.

use std::{fmt, str::FromStr};

use agent_protocol::{
    Activation,
    activation::ActivationRefusal,
    settings::{Frequency, LoggingLevel},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::setting::{parameter_place, unit_name};

/// What can be customised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Key {
    Sysctl(String),
    Service(String),
    LoggingLevel,
    AutoUpdate,
    SecurityScan,
    Editor,
    TerminalShell,
    Theme,
    /// A variable goes before what settings make of it, so it stands behind them.
    Variable(String),
    /// Lines of one's own in a file of variables, by its path.
    Lines(String),
}

/// A key that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be customised; there are environment.NAME, sysctl.NAME, service.NAME, editor, terminal_shell, theme, \
     logging_level, auto_update_frequency and security_scan_frequency"
)]
pub(crate) struct UnknownKey(String);

/// Why a value cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadValue {
    #[error("{key} is one of {words}, not {value:?}")]
    Word {
        key: Key,
        words: &'static str,
        value: String,
    },
    #[error(transparent)]
    Refused(ActivationRefusal),
}

const LEVELS: &str = "emergency, alert, critical, error, warning, notice, info and debug";
const FREQUENCIES: &str = "never, hourly, daily, weekly and monthly";
const STATES: &str = "enabled and disabled";

impl Key {
    /// The setting's name in answers and in `status`; variables and lines have none of their own, so theirs is made here.
    pub(crate) fn setting(&self) -> String {
        match self {
            Self::Sysctl(name) => format!("sysctl {name}"),
            Self::Service(name) => format!("service {name}"),
            Self::Variable(name) => format!("environment_variables {name}"),
            Self::Lines(path) => format!("lines of {path}"),
            other => other.to_string(),
        }
    }

    /// Whether both say the same, however they are written.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sysctl(one), Self::Sysctl(two)) => parameter_place(one) == parameter_place(two),
            (Self::Service(one), Self::Service(two)) => unit_name(one) == unit_name(two),
            _ => self == other,
        }
    }

    /// What the persona itself says of it.
    pub(super) fn said<'a>(&self, activation: &'a Activation) -> Option<&'a str> {
        match self {
            Self::Variable(name) => activation.environment.get(name).map(String::as_str),
            Self::Sysctl(name) => activation
                .settings
                .sysctl
                .iter()
                .find(|(known, _)| parameter_place(known) == parameter_place(name))
                .map(|(_, value)| value.trim()),
            Self::Service(name) => activation
                .settings
                .services
                .iter()
                .find(|(known, _)| unit_name(known) == unit_name(name))
                .map(|(_, enabled)| if *enabled { "enabled" } else { "disabled" }),
            _ => None,
        }
    }

    /// Lays a value over what an activation says; without one the activation says nothing of it any more.
    pub(super) fn lay(&self, value: Option<&str>, over: &mut Activation) -> Result<(), BadValue> {
        let Activation {
            environment,
            settings,
            ..
        } = over;
        let owned = value.map(str::to_owned);
        match self {
            Self::Variable(name) => {
                environment.remove(name);
                environment.extend(owned.map(|value| (name.clone(), value)));
            }
            Self::Sysctl(name) => {
                let place = parameter_place(name);
                settings
                    .sysctl
                    .retain(|known, _| parameter_place(known) != place);
                settings
                    .sysctl
                    .extend(owned.map(|value| (name.clone(), value)));
            }
            Self::Service(name) => {
                let unit = unit_name(name);
                settings
                    .services
                    .retain(|known, _| unit_name(known) != unit);
                let enabled = match value {
                    None => None,
                    Some("enabled") => Some(true),
                    Some("disabled") => Some(false),
                    Some(other) => return Err(self.no_word(STATES, other)),
                };
                settings
                    .services
                    .extend(enabled.map(|enabled| (name.clone(), enabled)));
            }
            Self::LoggingLevel => {
                settings.logging_level = self.word::<LoggingLevel>(value, LEVELS)?;
            }
            Self::AutoUpdate => {
                settings.auto_update = self.word::<Frequency>(value, FREQUENCIES)?;
            }
            Self::SecurityScan => {
                settings.security_scan = self.word::<Frequency>(value, FREQUENCIES)?;
            }
            // What the persona's own variables say would go before.
            Self::Editor => {
                settings.editor = owned;
                environment.retain(|name, _| name != "EDITOR" && name != "VISUAL");
            }
            Self::TerminalShell => {
                settings.terminal_shell = owned;
                environment.remove("SHELL");
            }
            Self::Theme => settings.theme = owned,
            Self::Lines(_) => {}
        }
        Ok(())
    }

    fn word<T: DeserializeOwned>(
        &self,
        value: Option<&str>,
        words: &'static str,
    ) -> Result<Option<T>, BadValue> {
        let read = |word: &str| {
            serde_json::from_value(serde_json::Value::from(word))
                .map_err(|_| self.no_word(words, word))
        };
        value.map(read).transpose()
    }

    fn no_word(&self, words: &'static str, value: &str) -> BadValue {
        BadValue::Word {
            key: self.clone(),
            words,
            value: value.to_owned(),
        }
    }
}

impl FromStr for Key {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let named = |begin: &str| {
            let name = text.strip_prefix(begin)?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        let key = match text {
            "logging_level" => Self::LoggingLevel,
            "auto_update_frequency" => Self::AutoUpdate,
            "security_scan_frequency" => Self::SecurityScan,
            "editor" => Self::Editor,
            "terminal_shell" | "shell" => Self::TerminalShell,
            "theme" => Self::Theme,
            _ => {
                let parts = [
                    ("environment.", Self::Variable as fn(String) -> Self),
                    ("sysctl.", Self::Sysctl),
                    ("service.", Self::Service),
                    ("lines.", Self::Lines),
                ];
                let found = parts
                    .into_iter()
                    .find_map(|(begin, key)| named(begin).map(key));
                found.ok_or_else(|| UnknownKey(text.to_owned()))?
            }
        };
        Ok(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(name) => write!(f, "sysctl.{name}"),
            Self::Service(name) => write!(f, "service.{name}"),
            Self::LoggingLevel => f.write_str("logging_level"),
            Self::AutoUpdate => f.write_str("auto_update_frequency"),
            Self::SecurityScan => f.write_str("security_scan_frequency"),
            Self::Editor => f.write_str("editor"),
            Self::TerminalShell => f.write_str("terminal_shell"),
            Self::Theme => f.write_str("theme"),
            Self::Variable(name) => write!(f, "environment.{name}"),
            Self::Lines(path) => write!(f, "lines.{path}"),
        }
    }
}

impl TryFrom<String> for Key {
    type Error = UnknownKey;

    fn try_from(text: String) -> Result<Self, UnknownKey> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for text in [
            "sysctl.vm.swappiness",
            "service.cron",
            "logging_level",
            "auto_update_frequency",
            "security_scan_frequency",
            "editor",
            "terminal_shell",
            "theme",
            "environment.A",
            "lines./etc/x",
        ] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for text in ["", "sysctl.", "environment", "restricted_commands", "pre"] {
            assert_eq!(text.parse::<Key>(), Err(UnknownKey(text.to_owned())));
        }
    }
}
