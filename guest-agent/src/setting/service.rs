//! Units that are to be enabled and running, or neither. The owner's mask is stronger than a persona.

use agent_protocol::{SettingOutcome, Settings};

use super::{Machine, Resource, SettingError, State, Wishes, unit::Existence};

/// Suffixes of units that can be enabled.
const SUFFIXES: [&str; 5] = [".service", ".socket", ".timer", ".path", ".target"];

pub(super) fn wish(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    for (name, enabled) in &settings.services {
        let setting = format!("service {name}");
        if !machine.guest.has_systemd() {
            wishes.refuse(&setting, "the guest is not run by systemd");
            continue;
        }
        let unit = unit_name(name);
        match (machine.unit(&unit)?.existence, enabled) {
            (Existence::Missing, true) => {
                let reason = format!(
                    "there is no unit {unit} in the guest; is its package installed (software_stack)?"
                );
                wishes.refuse(&setting, &reason);
            }
            // What is not there does not run.
            (Existence::Missing, false) => {
                wishes.line(&setting, SettingOutcome::Unchanged, "there is no such unit");
            }
            (Existence::There, enabled) => {
                let state = if *enabled { State::UP } else { State::DOWN };
                wishes.resource(&setting, Resource::Unit(unit), state);
            }
        }
    }
    Ok(())
}

/// A unit's whole name; one without a suffix is a service.
pub(crate) fn unit_name(name: &str) -> String {
    if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}
