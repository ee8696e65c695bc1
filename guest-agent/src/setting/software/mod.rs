//! The software stack: packages that a persona wants, by the guest's own package manager. What is there already stays as it is
//! and belongs to the guest; what this installed (with what that needs) is remembered, and goes when no persona wants it and
//! nothing else in the guest needs it. Its configuration stays; nothing is ever downgraded, and an upgrade is not taken back.
//!
//! `activate` plans it before the settings, since they may need it, and removes last, when nothing can fail any more. What
//! would be installed is in the journal before the first of it is.

mod apk;
mod apt;
mod dnf;
mod manager;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_protocol::{Package, SettingLine, SettingOutcome, VersionWish, limits::PACKAGES_TIME_MS};
use serde::{Deserialize, Serialize};

use self::manager::{Manager, Order, Tool, Versions, failed, manager_of};
use super::{Machine, SettingError};
use crate::log::{chain, log};

const TIME: Duration = Duration::from_millis(PACKAGES_TIME_MS);
const REMOVED: &str = "it was removed in the guest, and stays so";

/// Packages that are there because of personas.
pub(crate) type Owned = BTreeMap<String, Role>;

/// Why a package is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// A persona names it.
    Asked,
    /// One that a persona names needs it.
    Needed,
}

/// What an activation does about packages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SoftwarePlan {
    /// What is installed or upgraded.
    pub(crate) orders: Vec<Order>,
    /// What comes with that and was not there: to be removed when it is undone.
    pub(crate) fresh: Owned,
    /// What is owned afterwards.
    pub(crate) owned: Owned,
    /// What was asked for before and is not any more.
    pub(crate) leaving: Vec<String>,
    pub(crate) lines: Vec<SettingLine>,
}

impl SoftwarePlan {
    fn say(&mut self, package: &str, outcome: SettingOutcome, reason: &str) {
        let setting = setting_of(package);
        self.lines.push(SettingLine::new(&setting, outcome, reason));
    }
}

fn setting_of(package: &str) -> String {
    format!("package {package}")
}

/// Compares what is wanted with what is there. Changes nothing but the package manager's lists of what there is to be had.
pub(crate) fn plan_software(
    wanted: &[Package],
    owned: &Owned,
    machine: &mut Machine<'_>,
) -> Result<SoftwarePlan, SettingError> {
    let mut plan = SoftwarePlan {
        owned: owned.clone(),
        ..SoftwarePlan::default()
    };
    if wanted.is_empty() && owned.is_empty() {
        return Ok(plan);
    }
    let Some(manager) = manager_of(machine.guest) else {
        let reason = "the guest has none of the package managers apt-get, dnf and apk";
        for package in wanted {
            plan.say(&package.name, SettingOutcome::Refused, reason);
        }
        return Ok(plan);
    };
    let mut tool = Tool::new(machine, TIME);
    let installed = manager.installed(&mut tool)?;
    let mut missing = Vec::new();
    for package in wanted {
        let name = package.name.as_str();
        match installed.get(name) {
            None if owned.get(name) == Some(&Role::Asked) => {
                plan.say(name, SettingOutcome::Kept, REMOVED);
            }
            Some(version)
                if package.version != VersionWish::Latest
                    && version::satisfies(version, &package.version) =>
            {
                plan.say(name, SettingOutcome::Unchanged, "");
            }
            _ => missing.push(package),
        }
        // What came along with another package and is asked for now is no longer there for that one alone.
        if let Some(role) = plan.owned.get_mut(name) {
            *role = Role::Asked;
        }
    }
    if !missing.is_empty() {
        plan.choose(manager, &missing, &installed, &mut tool)?;
    }
    let is_wanted = |name: &str| wanted.iter().any(|package| package.name == name);
    plan.leaving = owned
        .iter()
        .filter(|(name, role)| **role == Role::Asked && !is_wanted(name))
        .map(|(name, _)| name.clone())
        .collect();
    Ok(plan)
}

impl SoftwarePlan {
    /// Chooses a version of each package that is missing or too old, and foresees what comes with it.
    fn choose(
        &mut self,
        manager: &dyn Manager,
        missing: &[&Package],
        installed: &Versions,
        tool: &mut Tool<'_, '_>,
    ) -> Result<(), SettingError> {
        if let Err(error) = manager.refresh(tool) {
            // What the lists of before have may do.
            log!("{}: {}", manager.name(), chain(&error));
        }
        let names: Vec<&str> = missing
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        let available = manager.available(&names, tool)?;
        for package in missing {
            let name = package.name.as_str();
            let known = available.get(name).map_or(&[][..], Vec::as_slice);
            let chosen = known
                .iter()
                .filter(|version| version::satisfies(version, &package.version))
                .max_by(|one, other| version::compare(one, other));
            let there = installed.get(name);
            match (chosen, there) {
                (None, Some(there)) if package.version == VersionWish::Latest => {
                    let reason = format!("no source of the guest has it; {there} is there");
                    self.say(name, SettingOutcome::Unchanged, &reason);
                }
                (None, _) => {
                    let reason = if known.is_empty() {
                        "the guest's package sources do not have it".to_owned()
                    } else {
                        let wish = &package.version;
                        format!(
                            "the guest's package sources have {}, and it is to be {wish}",
                            known.join(", ")
                        )
                    };
                    self.say(name, SettingOutcome::Refused, &reason);
                }
                (Some(chosen), Some(there)) if version::compare(chosen, there).is_le() => {
                    if version::satisfies(there, &package.version) {
                        self.say(name, SettingOutcome::Unchanged, "");
                    } else {
                        let reason =
                            format!("{there} is there, and nothing is downgraded to {chosen}");
                        self.say(name, SettingOutcome::Kept, &reason);
                    }
                }
                (Some(chosen), _) => {
                    let reason = match there {
                        Some(there) => {
                            format!("{chosen} instead of {there}, which does not come back")
                        }
                        None => chosen.clone(),
                    };
                    self.say(name, SettingOutcome::Applied, &reason);
                    self.orders.push(Order {
                        name: name.to_owned(),
                        version: chosen.clone(),
                        wish: package.version.clone(),
                    });
                }
            }
        }
        if self.orders.is_empty() {
            return Ok(());
        }
        let reason = match manager.foresee(&self.orders, tool) {
            Ok(change) if change.gone.is_empty() => {
                self.expect(change.fresh);
                return Ok(());
            }
            Ok(change) => {
                let gone: Vec<String> = change.gone.into_iter().collect();
                format!("it would remove {}", gone.join(", "))
            }
            Err(SettingError::Failed { said, .. }) => said,
            Err(error) => return Err(error),
        };
        // They were foreseen together, so together they are left out.
        for order in std::mem::take(&mut self.orders) {
            let setting = setting_of(&order.name);
            self.lines.retain(|line| line.setting != setting);
            self.say(&order.name, SettingOutcome::Refused, &reason);
        }
        Ok(())
    }

    /// Enters what an installation is going to bring.
    fn expect(&mut self, fresh: BTreeSet<String>) {
        for name in fresh {
            let is_asked = self.orders.iter().any(|order| order.name == name);
            let role = if is_asked { Role::Asked } else { Role::Needed };
            self.fresh.insert(name.clone(), role);
            self.owned.insert(name, role);
        }
    }
}

/// Fetches and installs what is planned, from wherever it stands, and looks whether it is there.
pub(crate) fn install_software(
    plan: &SoftwarePlan,
    machine: &mut Machine<'_>,
) -> Result<(), SettingError> {
    if plan.orders.is_empty() {
        return Ok(());
    }
    let Some(manager) = manager_of(machine.guest) else {
        return Err(failed("the package manager", "it is gone"));
    };
    let mut tool = Tool::new(machine, TIME);
    if let Err(error) = manager.fetch(&plan.orders, &mut tool) {
        // An installation that was cut off has to be completed before the next.
        log!("{}: {}", manager.name(), chain(&error));
        manager.repair(&mut tool)?;
        manager.fetch(&plan.orders, &mut tool)?;
    }
    manager.install(&plan.orders, &mut tool)?;
    let installed = manager.installed(&mut tool)?;
    let wrong = plan.orders.iter().find(|order| {
        installed
            .get(&order.name)
            .is_none_or(|found| !version::satisfies(found, &order.wish))
    });
    match wrong {
        None => Ok(()),
        Some(order) => {
            let there = installed
                .get(&order.name)
                .map_or("no version", String::as_str);
            let said = format!(
                "{} is there of {} after its installation",
                there, order.name
            );
            Err(failed(manager.name(), &said))
        }
    }
}

/// Removes again what an installation brought, whole or in part.
pub(crate) fn undo_software(
    plan: &SoftwarePlan,
    machine: &mut Machine<'_>,
) -> Result<(), SettingError> {
    if plan.fresh.is_empty() {
        return Ok(());
    }
    let Some(manager) = manager_of(machine.guest) else {
        return Ok(());
    };
    let mut tool = Tool::new(machine, TIME);
    let installed = manager.installed(&mut tool)?;
    let there: Vec<&str> = plan
        .fresh
        .keys()
        .map(String::as_str)
        .filter(|name| installed.contains_key(*name))
        .collect();
    remove(manager, &there, &plan.fresh, &mut tool)
}

/// Removes what no persona asks for any more, with what was there for that only. What fails stays owned, to be tried again
/// with the next activation.
pub(crate) fn release_software(plan: &mut SoftwarePlan, machine: &mut Machine<'_>) {
    if plan.leaving.is_empty() {
        return;
    }
    let Some(manager) = manager_of(machine.guest) else {
        return;
    };
    let mut tool = Tool::new(machine, TIME);
    match release(plan, manager, &mut tool) {
        Ok(removed) => {
            for name in std::mem::take(&mut plan.leaving) {
                plan.owned.remove(&name);
                let (outcome, reason) = if removed.contains(&name) {
                    (SettingOutcome::Restored, "")
                } else {
                    (SettingOutcome::Kept, "something else in the guest needs it")
                };
                plan.say(&name, outcome, reason);
            }
            plan.owned.retain(|name, _| !removed.contains(name));
            // Of what personas ask for nothing is left, so what still is there is there for the guest.
            if !plan.owned.values().any(|role| *role == Role::Asked) {
                plan.owned.clear();
            }
        }
        Err(error) => {
            log!("packages are not removed: {}", chain(&error));
            let reason = format!("it is not removed yet: {}", chain(&error));
            for name in plan.leaving.clone() {
                plan.say(&name, SettingOutcome::Kept, &reason);
            }
        }
    }
}

fn release(
    plan: &SoftwarePlan,
    manager: &dyn Manager,
    tool: &mut Tool<'_, '_>,
) -> Result<Vec<String>, SettingError> {
    let installed = manager.installed(tool)?;
    let is_there = |name: &str| installed.contains_key(name);
    let there = |names: Vec<&'_ str>| -> Vec<String> {
        names
            .into_iter()
            .filter(|name| is_there(name))
            .map(str::to_owned)
            .collect()
    };
    let wanted: Vec<&str> = plan
        .owned
        .iter()
        .filter(|(name, role)| **role == Role::Asked && !plan.leaving.contains(name))
        .map(|(name, _)| name.as_str())
        .collect();
    let wanted = there(wanted);
    if !wanted.is_empty() {
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        manager.want(&wanted, tool)?;
    }
    let leaving = there(plan.leaving.iter().map(String::as_str).collect());
    let mut removed: Vec<String> = plan
        .leaving
        .iter()
        .filter(|name| !is_there(name))
        .cloned()
        .collect();
    if leaving.is_empty() {
        return Ok(removed);
    }
    let leaving: Vec<&str> = leaving.iter().map(String::as_str).collect();
    let unneeded = manager.unneeded(&leaving, tool)?;
    let going: Vec<&str> = unneeded
        .iter()
        .map(String::as_str)
        .filter(|name| plan.owned.contains_key(*name))
        .collect();
    if let Err(error) = remove(manager, &going, &plan.owned, tool) {
        // It stays until it can go, and a persona may want it again until then: nobody else's tidying up shall take it away.
        if let Err(error) = manager.want(&leaving, tool) {
            log!("packages may be removed by hand: {}", chain(&error));
        }
        return Err(error);
    }
    removed.extend(going.into_iter().map(str::to_owned));
    Ok(removed)
}

/// Removes packages, if nothing else would go with them.
fn remove(
    manager: &dyn Manager,
    names: &[&str],
    owned: &Owned,
    tool: &mut Tool<'_, '_>,
) -> Result<(), SettingError> {
    if names.is_empty() {
        return Ok(());
    }
    let gone = manager.foresee_removal(names, tool)?;
    let foreign: Vec<&str> = gone
        .iter()
        .map(String::as_str)
        .filter(|name| !owned.contains_key(*name))
        .collect();
    if !foreign.is_empty() {
        let said = format!("it would remove {}, too", foreign.join(", "));
        return Err(failed(manager.name(), &said));
    }
    manager.remove(names, tool)?;
    let installed = manager.installed(tool)?;
    match names.iter().find(|name| installed.contains_key(**name)) {
        None => Ok(()),
        Some(name) => {
            let said = format!("{name} is there after its removal");
            Err(failed(manager.name(), &said))
        }
    }
}
