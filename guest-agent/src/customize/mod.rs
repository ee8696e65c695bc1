//! What people in the guest have made otherwise than the persona says: how it is laid over an activation, and the list of it
//! that outlives personas. Which keys there are, and what each means, is in `key`. It is kept in the record of the generation that holds, so that it
//! changes with what it changes or not at all. `activate::own` carries changes out; nothing here does I/O.

mod key;

use std::collections::BTreeMap;

use agent_protocol::{
    Activation, CommandTable, GuestRules, Settings,
    customized::{CUSTOMIZATIONS_MAX, Customized},
};
use serde::{Deserialize, Serialize};

pub(crate) use key::{BadValue, Key, UnknownKey};

/// Longest value that can be asked for; a change that is found in a file may be as long as the host's own.
pub(crate) const VALUE_MAX: usize = 2_048;

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
