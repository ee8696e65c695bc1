//! What people in the guest have made otherwise than the persona says: which keys there are, how each is laid over an
//! activation, and the list of them that outlives personas. It is kept in the record of the generation that holds, so that it
//! changes with what it changes or not at all. `activate::own` carries changes out; nothing here does I/O.

use std::{collections::BTreeMap, fmt, str::FromStr};

use agent_protocol::{
    Activation, CommandTable, GuestRules, Settings,
    activation::ActivationRefusal,
    customized::{CUSTOMIZATIONS_MAX, Customized},
    settings::{Frequency, LoggingLevel},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::setting::{parameter_place, unit_name};

/// Longest value that can be asked for; a change that is found in a file may be as long as the host's own.
pub(crate) const VALUE_MAX: usize = 2_048;

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

/// Under which personas one holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Under this one.
    Persona(String),
    /// Under every one, unless that has one of its own for the key.
    Every,
}

/// How it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// By `virt-persona-agent customize`.
    Asked,
    /// It was found to be otherwise than the agent had made it.
    Found,
}

/// One thing that is otherwise than the persona says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Customization {
    pub(crate) key: Key,
    /// Absent: what the persona says of it is left out.
    #[serde(default)]
    pub(crate) value: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) origin: Origin,
}

/// What root asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    Set {
        key: String,
        value: String,
        reach: Reach,
    },
    Remove {
        key: String,
    },
}

/// How far a customisation that is asked for goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// The persona that is active.
    Active,
    /// Every persona.
    Every,
}

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
    fn said<'a>(&self, activation: &'a Activation) -> Option<&'a str> {
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
    fn lay(&self, value: Option<&str>, over: &mut Activation) -> Result<(), BadValue> {
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

/// What settings and variables alone one value comes to, checked as the host's are.
pub(crate) fn alone(key: &Key, value: &str) -> Result<Settings, BadValue> {
    let mut activation = Activation {
        generation: 0,
        persona: "own".to_owned(),
        version: 0,
        digest: "own".to_owned(),
        environment: BTreeMap::new(),
        settings: Settings::default(),
        pre: None,
        post: None,
        commands: CommandTable::default(),
        rules: GuestRules::default(),
        adjusted: None,
    };
    key.lay(Some(value), &mut activation)?;
    activation.check().map_err(BadValue::Refused)?;
    Ok(activation.settings)
}

/// What is to come about: what the host asked for, with what is customised laid over it. One that cannot be laid over (it was
/// checked when it was taken up) changes nothing.
pub(crate) fn laid_over(activation: &Activation, overlay: &[Customization]) -> Activation {
    let mut wanted = activation.clone();
    let mut ordered: Vec<&Customization> = overlay.iter().collect();
    ordered.sort_by(|one, two| one.key.cmp(&two.key));
    for own in ordered {
        let _ = own.key.lay(own.value.as_deref(), &mut wanted);
    }
    wanted
}

/// Of all that is customised what holds under a persona. Should the host's persona and it be too much together, the persona
/// goes first and nothing is laid over it.
pub(crate) fn overlay(own: &[Customization], activation: &Activation) -> Vec<Customization> {
    let here = Scope::Persona(activation.persona.clone());
    let mut found: Vec<Customization> = own
        .iter()
        .filter(|own| own.scope == here)
        .cloned()
        .collect();
    for every in own.iter().filter(|own| own.scope == Scope::Every) {
        if !found.iter().any(|known| known.key.same(&every.key)) {
            found.push(every.clone());
        }
    }
    if laid_over(activation, &found).check().is_err() {
        found.clear();
    }
    found
}

/// Whether one more fits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CUSTOMIZATIONS_MAX} customisations are kept already; remove one first")]
pub(crate) struct Full;

/// Takes one up in the place of what is there for its key and scope.
pub(crate) fn take_up(own: &mut Vec<Customization>, new: Customization) -> Result<(), Full> {
    if own.contains(&new) {
        return Ok(());
    }
    own.retain(|known| !(known.scope == new.scope && known.key.same(&new.key)));
    if own.len() >= CUSTOMIZATIONS_MAX {
        return Err(Full);
    }
    own.push(new);
    Ok(())
}

/// Takes up what was found to be otherwise under a persona. What is as the persona itself says is no customisation any more.
pub(crate) fn take_up_found(
    own: &mut Vec<Customization>,
    activation: &Activation,
    key: Key,
    value: Option<String>,
) -> Result<(), Full> {
    let scope = Scope::Persona(activation.persona.clone());
    let every = own
        .iter()
        .any(|known| known.scope == Scope::Every && known.key.same(&key));
    if !every && !matches!(key, Key::Lines(_)) && key.said(activation) == value.as_deref() {
        own.retain(|known| !(known.scope == scope && known.key.same(&key)));
        return Ok(());
    }
    take_up(
        own,
        Customization {
            key,
            value,
            scope,
            origin: Origin::Found,
        },
    )
}

/// Gives up the one that holds for a key under a persona, else the one under every persona.
pub(crate) fn give_up(
    own: &mut Vec<Customization>,
    persona: Option<&str>,
    key: &Key,
) -> Option<Customization> {
    let here = persona.map(|persona| Scope::Persona(persona.to_owned()));
    [here, Some(Scope::Every)]
        .into_iter()
        .flatten()
        .find_map(|scope| {
            let is = |known: &Customization| known.scope == scope && known.key.same(key);
            let at = own.iter().position(is)?;
            Some(own.remove(at))
        })
}

/// What the host is told of what holds.
pub(crate) fn told(overlay: &[Customization]) -> Option<Customized> {
    Customized::of(overlay.iter().map(|own| own.key.to_string()))
}

/// One line for people. Values can be private; only root sees this.
pub(crate) fn described(own: &Customization) -> String {
    let Customization {
        key,
        value,
        scope,
        origin,
    } = own;
    let scope = match scope {
        Scope::Persona(persona) => format!("under {persona}"),
        Scope::Every => "under every persona".to_owned(),
    };
    let origin = match origin {
        Origin::Asked => "",
        Origin::Found => ", found changed",
    };
    match value {
        Some(value) => format!("{key}={value} ({scope}{origin})"),
        None => format!("{key} left out ({scope}{origin})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation(persona: &str) -> Activation {
        Activation {
            generation: 1,
            persona: persona.to_owned(),
            version: 1,
            digest: "d".to_owned(),
            environment: [("A", "1"), ("EDITOR", "ed")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            settings: Settings {
                sysctl: [("vm.swappiness".to_owned(), "1".to_owned())].into(),
                services: [("cron".to_owned(), true)].into(),
                ..Settings::default()
            },
            pre: None,
            post: None,
            commands: CommandTable::default(),
            rules: GuestRules::default(),
            adjusted: None,
        }
    }

    fn own(key: &str, value: Option<&str>, scope: Scope) -> Customization {
        Customization {
            key: key.parse().unwrap(),
            value: value.map(str::to_owned),
            scope,
            origin: Origin::Asked,
        }
    }

    fn web() -> Scope {
        Scope::Persona("web".to_owned())
    }

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

    #[test]
    fn the_same_thing_under_another_name_takes_its_place() {
        let overlay = [
            own("sysctl.vm/swappiness", Some("9"), web()),
            own("service.cron.service", Some("disabled"), web()),
            own("environment.A", None, web()),
            own("editor", Some("nano"), web()),
        ];
        let wanted = laid_over(&activation("web"), &overlay);
        assert_eq!(wanted.settings.sysctl.len(), 1);
        assert_eq!(wanted.settings.sysctl["vm/swappiness"], "9");
        assert_eq!(wanted.settings.services.len(), 1);
        assert!(!wanted.settings.services["cron.service"]);
        // The editor that is asked for goes before the persona's variable.
        assert!(wanted.environment.is_empty(), "{:?}", wanted.environment);
        assert_eq!(wanted.settings.editor.as_deref(), Some("nano"));
    }

    #[test]
    fn what_is_the_personas_own_goes_before_what_is_everywhere() {
        let mut list = vec![
            own("editor", Some("nano"), Scope::Every),
            own("theme", Some("dark"), Scope::Every),
        ];
        take_up(&mut list, own("editor", Some("vi"), web())).unwrap();
        let value = |persona: &str| {
            let wanted = activation(persona);
            laid_over(&wanted, &overlay(&list, &wanted)).settings
        };
        assert_eq!(value("web").editor.as_deref(), Some("vi"));
        assert_eq!(value("web").theme.as_deref(), Some("dark"));
        assert_eq!(value("db").editor.as_deref(), Some("nano"));
        let key = "editor".parse().unwrap();
        assert_eq!(give_up(&mut list, Some("web"), &key).unwrap().scope, web());
        let gone = give_up(&mut list, Some("web"), &key).unwrap();
        assert_eq!(gone.scope, Scope::Every);
        assert_eq!(give_up(&mut list, Some("web"), &key), None);
    }

    #[test]
    fn what_was_made_as_the_persona_says_is_no_customisation_any_more() {
        let (mut list, key) = (Vec::new(), Key::Variable("A".to_owned()));
        let persona = activation("web");
        let nine = Some("9".to_owned());
        take_up_found(&mut list, &persona, key.clone(), nine).unwrap();
        assert_eq!(list.len(), 1);
        take_up_found(&mut list, &persona, key, Some("1".to_owned())).unwrap();
        assert_eq!(list, []);
    }

    #[test]
    fn values_are_held_to_the_rules_of_the_hosts() {
        let said = |key: &str, value: &str| alone(&key.parse().unwrap(), value).map(drop);
        assert_eq!(said("environment.A", "x y"), Ok(()));
        assert_eq!(said("logging_level", "warning"), Ok(()));
        assert_eq!(said("service.cron", "disabled"), Ok(()));
        for (key, value) in [
            ("environment.A B", "1"),
            ("environment.A", "1\n2"),
            ("sysctl.../x", "1"),
            ("sysctl.vm.x", ""),
            ("service.--now", "enabled"),
            ("service.cron", "true"),
            ("logging_level", "loud"),
            ("auto_update_frequency", "often"),
        ] {
            assert!(said(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut list = Vec::new();
        for number in 0..CUSTOMIZATIONS_MAX {
            let key = format!("environment.A{number}");
            take_up(&mut list, own(&key, Some("1"), web())).unwrap();
        }
        assert_eq!(
            take_up(&mut list, own("theme", Some("x"), web())),
            Err(Full)
        );
        // One that takes the place of another is no more than before.
        take_up(&mut list, own("environment.A1", Some("2"), web())).unwrap();
    }
}
