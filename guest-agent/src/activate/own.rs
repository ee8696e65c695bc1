//! What people in the guest want otherwise than the persona says: asked for by `virt-persona-agent customize`, or found in what
//! the agent holds. Both come about by the same sequence as a return by hand, in the generation that holds; kernel parameters and
//! units that were found changed stay as they are and are only remembered, for when the persona comes back.

use std::collections::{BTreeMap, BTreeSet};

use agent_protocol::{RequestId, SettingLine, SettingOutcome};

use super::{ActivateError, Activator, Environment, Scripts, by_hand::ByHandError, found};
use crate::{
    customize::{
        Ask, Customization, Key, Origin, Reach, Scope, VALUE_MAX, alone, give_up, overlay, take_up,
        take_up_found,
    },
    log::{chain, log},
    setting::{
        CHANGED, Enabling, Holding, Machine, Resource, Running, SYSCTL_DROP_IN, State, wishes,
    },
    store::Record,
};

/// Why something is not as the persona says.
const ASKED: &str = "the guest's owner has it so (virt-persona-agent customize)";

/// How far one looks for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Files with one `key = value` a line, which have to agree with each other.
    Files,
    /// Kernel parameters and units, too: the persona may be about to go.
    All,
}

impl Record {
    /// What the files of variables hold in this generation.
    pub(super) fn in_files(&self) -> Environment {
        let lines = self.overlay.iter().filter_map(|own| match &own.key {
            Key::Lines(path) => Some((path.clone(), own.value.clone()?)),
            _ => None,
        });
        Environment {
            variables: self.environment(),
            lines: lines.collect(),
        }
    }

    /// Lays over this generation what is customised for its persona.
    pub(super) fn lay_own_over(&mut self) {
        self.overlay = self
            .activation
            .as_ref()
            .map(|activation| overlay(&self.own, activation))
            .unwrap_or_default();
    }
}

impl Activator {
    /// Has something otherwise than the persona says, or no longer; says what holds then.
    pub(crate) fn customize(
        &mut self,
        ask: Ask,
        scripts: &mut impl Scripts,
    ) -> Result<String, ByHandError> {
        if self.store.journal().is_some() {
            self.recover(scripts)?;
        }
        self.absorb(Sight::Files, scripts)?;
        let current = self.store.current().ok_or(ByHandError::NoPersona)?.clone();
        let (request, mut record) = (self.request_by_hand(&current)?, current.clone());
        let persona = current
            .activation
            .as_ref()
            .map(|active| active.persona.clone());
        let (key, said) = match ask {
            Ask::Set { key, value, reach } => {
                let key = asked_key(&key)?;
                if value.len() > VALUE_MAX {
                    return Err(ByHandError::TooLong);
                }
                self.check_can_be_had(&key, &value, &request, scripts)?;
                let (scope, place) = match (reach, persona) {
                    (Reach::Every, _) => (Scope::Every, "every persona".to_owned()),
                    (Reach::Active, Some(name)) => (Scope::Persona(name.clone()), name),
                    (Reach::Active, None) => return Err(ByHandError::NoPersona),
                };
                let said = format!("{key} is customised under {place}");
                let new = Customization {
                    key: key.clone(),
                    value: Some(value),
                    scope,
                    origin: Origin::Asked,
                };
                take_up(&mut record.own, new)?;
                (key, said)
            }
            Ask::Remove { key } => {
                let key: Key = key.parse()?;
                let gone = give_up(&mut record.own, persona.as_deref(), &key)
                    .ok_or_else(|| ByHandError::NotCustomized { key: key.clone() })?;
                let place = match gone.scope {
                    Scope::Persona(name) => name,
                    Scope::Every => "every persona".to_owned(),
                };
                (
                    gone.key.clone(),
                    format!("{key} is no longer customised under {place}"),
                )
            }
        };
        record.lay_own_over();
        let applies = |own: &&Customization| {
            current.activation.as_ref().is_some_and(|active| {
                own.scope == Scope::Every || own.scope == Scope::Persona(active.persona.clone())
            })
        };
        if record.overlay.is_empty() && record.own.iter().any(|own| applies(&own)) {
            return Err(ByHandError::TooMuchTogether);
        }
        record.request = request.clone();
        let setting = key.setting();
        let taken = BTreeSet::from([setting.clone()]);
        self.carry_out_by_hand(request, record, taken, scripts)?;
        let lines = self
            .store
            .current()
            .map_or(&[][..], |record| &record.settings);
        let but = lines.iter().find(|line| {
            let owners = line.reason == ASKED;
            line.setting == setting && line.outcome >= SettingOutcome::Kept && !owners
        });
        Ok(match but {
            Some(SettingLine { reason, .. }) => format!("{said}, but {reason}"),
            None => said,
        })
    }

    fn check_can_be_had(
        &self,
        key: &Key,
        value: &str,
        request: &RequestId,
        scripts: &mut impl Scripts,
    ) -> Result<(), ByHandError> {
        let settings = alone(key, value)?;
        let writer = self.store.writer();
        let mut machine = Machine::new(&self.root, writer, scripts, request.clone());
        let wishes = wishes(&settings, &mut machine);
        let wishes = wishes.map_err(|error| ByHandError::Failed(chain(&error)))?;
        match wishes.refusal() {
            Some(line) => Err(ByHandError::Failed(format!("{key}: {}", line.reason))),
            None => Ok(()),
        }
    }

    /// Takes up what somebody has changed by hand, before anything else is done to it.
    pub(super) fn absorb(
        &mut self,
        sight: Sight,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let Some(current) = self.store.current().cloned() else {
            return Ok(());
        };
        if current.activation.is_none() {
            return Ok(());
        }
        let changes = self.files.changes(&current.in_files())?;
        if !changes.is_empty() {
            log!("the environment files were changed in the guest; that is kept");
            self.take_up_by_hand(&changes, BTreeSet::new(), scripts)?;
        }
        let changes = self.changed_parameters(scripts);
        if !changes.is_empty() {
            log!("kernel parameters were changed in their file; that is kept");
            let taken = BTreeSet::from([SYSCTL_DROP_IN.to_owned()]);
            if let Err(error) = self.take_up_by_hand(&changes, taken, scripts) {
                // The file stays as it is, as one that somebody has changed.
                log!("they cannot be had: {}", chain(&error));
            }
        }
        if sight == Sight::All {
            self.remember_changes(scripts)?;
        }
        Ok(())
    }

    fn take_up_by_hand(
        &mut self,
        changes: &BTreeMap<Key, Option<String>>,
        taken: BTreeSet<String>,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let Some(current) = self.store.current() else {
            return Ok(());
        };
        let request = self.request_by_hand(current).map_err(kept)?;
        let mut record = with_changes(current, changes)?;
        record.lay_own_over();
        record.request = request.clone();
        self.carry_out_by_hand(request, record, taken, scripts)
            .map_err(kept)
    }

    /// What somebody has changed in the drop-in of sysctl, where it has nothing else than parameters.
    fn changed_parameters(&self, scripts: &mut impl Scripts) -> BTreeMap<Key, Option<String>> {
        let mut changes = BTreeMap::new();
        let Some(current) = self.store.current() else {
            return changes;
        };
        let is = |held: &&Holding| held.setting == SYSCTL_DROP_IN;
        let Some(held) = current.held.iter().find(is) else {
            return changes;
        };
        let writer = self.store.writer();
        let mut machine = Machine::new(&self.root, writer, scripts, current.request.clone());
        let live = machine.probe(&held.resource);
        let (State::Text { text: base, .. }, Ok(State::Text { text: live, .. })) =
            (&held.written, live)
        else {
            return changes;
        };
        let (Some(base), Some(live)) = (found::parameters(base), found::parameters(&live)) else {
            return changes;
        };
        for name in base.keys().chain(live.keys()) {
            let value = live.get(name);
            if value != base.get(name) {
                let key = Key::Sysctl(name.clone());
                if value.is_some_and(|value| alone(&key, value).is_err()) {
                    // It cannot be taken apart, so it stays as it is.
                    return BTreeMap::new();
                }
                changes.insert(key, value.cloned());
            }
        }
        changes
    }

    /// Remembers kernel parameters and units that are otherwise than they were made. They are not touched.
    fn remember_changes(&mut self, scripts: &mut impl Scripts) -> Result<(), ActivateError> {
        let Some(current) = self.store.current().cloned() else {
            return Ok(());
        };
        let writer = self.store.writer();
        let mut machine = Machine::new(&self.root, writer, scripts, current.request.clone());
        let mut changes = BTreeMap::new();
        for held in &current.held {
            // What cannot be looked at now is met again by whoever plans.
            let Ok(live) = machine.probe(&held.resource) else {
                continue;
            };
            if !held.written.fits(&live)
                && let Some((key, value)) = self.change_of(held, live)
            {
                changes.insert(key, Some(value));
            }
        }
        let record = with_changes(&current, &changes)?;
        if record.own != current.own {
            self.store.write_record(record)?;
        }
        Ok(())
    }

    fn change_of(&self, held: &Holding, live: State) -> Option<(Key, String)> {
        match (&held.resource, live) {
            // A kernel's value ends with its boot.
            (Resource::Kernel(_), State::Value(value)) if held.boot_id == self.boot_id => {
                let key = Key::Sysctl(held.setting.strip_prefix("sysctl ")?.to_owned());
                alone(&key, &value).ok()?;
                Some((key, value))
            }
            (Resource::Unit(_), State::Unit { enabling, running }) => {
                let key = Key::Service(held.setting.strip_prefix("service ")?.to_owned());
                let value = match (enabling, running) {
                    (Enabling::Enabled, Running::Running) => "enabled",
                    (Enabling::Disabled, Running::Stopped) => "disabled",
                    // One that has ended, failed or was started once is nobody's wish for good.
                    _ => return None,
                };
                Some((key, value.to_owned()))
            }
            _ => None,
        }
    }
}

fn with_changes(
    current: &Record,
    changes: &BTreeMap<Key, Option<String>>,
) -> Result<Record, ActivateError> {
    let mut record = current.clone();
    if let Some(activation) = &current.activation {
        for (key, value) in changes {
            take_up_found(&mut record.own, activation, key.clone(), value.clone())?;
        }
    }
    Ok(record)
}

pub(super) fn kept(error: ByHandError) -> ActivateError {
    ActivateError::Own(Box::new(error))
}

fn asked_key(text: &str) -> Result<Key, ByHandError> {
    match text.parse()? {
        Key::Lines(_) => Err(ByHandError::Lines),
        key => Ok(key),
    }
}

/// Settings that were found changed by hand.
pub(super) fn found_settings(overlay: &[Customization]) -> BTreeSet<String> {
    let found = overlay.iter().filter(|own| own.origin == Origin::Found);
    found.map(|own| own.key.setting()).collect()
}

/// Says of each setting that is not the persona's but the guest's own that it is.
pub(super) fn say(lines: &mut Vec<SettingLine>, overlay: &[Customization]) {
    for own in overlay {
        let setting = own.key.setting();
        let reason = match own.origin {
            Origin::Asked => ASKED,
            Origin::Found => CHANGED,
        };
        let said = SettingLine::new(&setting, SettingOutcome::Kept, reason);
        match lines.iter_mut().find(|line| line.setting == setting) {
            // Why it is not as its owner wants it says more.
            Some(line) if line.outcome >= SettingOutcome::Kept => {}
            Some(line) => *line = said,
            None => lines.push(said),
        }
    }
}
