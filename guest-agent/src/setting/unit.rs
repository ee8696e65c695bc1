//! Units of systemd, as `systemctl` says and changes them. What is to become of one is decided elsewhere ([`super::plan()`]); the
//! plugins and [`Machine`] call this.

use super::{Enabling, Machine, Running, SettingError, State};

/// What systemd says of a unit.
pub(super) struct Unit {
    pub(super) existence: Existence,
    pub(super) state: State,
}

/// Whether there is such a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    There,
    Missing,
}

impl Machine<'_> {
    /// What systemd says of a unit; one that does not exist is disabled and stopped.
    pub(super) fn unit(&mut self, unit: &str) -> Result<Unit, SettingError> {
        const PROPERTIES: &str = "--property=LoadState,UnitFileState,ActiveState";
        let said = self.run(&["systemctl", "show", PROPERTIES, "--", unit])?;
        let property = |name: &str| {
            said.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
                .to_owned()
        };
        let loaded = property("LoadState");
        let enabling = match property("UnitFileState").as_str() {
            _ if loaded == "masked" => Enabling::Masked,
            "enabled" | "enabled-runtime" | "linked" | "linked-runtime" => Enabling::Enabled,
            "masked" | "masked-runtime" => Enabling::Masked,
            "static" | "generated" | "alias" | "indirect" | "transient" => Enabling::Fixed,
            _ => Enabling::Disabled,
        };
        let running = match property("ActiveState").as_str() {
            "active" | "activating" | "reloading" => Running::Running,
            _ => Running::Stopped,
        };
        let existence = if loaded == "not-found" || loaded.is_empty() {
            Existence::Missing
        } else {
            Existence::There
        };
        Ok(Unit {
            existence,
            state: State::Unit { enabling, running },
        })
    }

    /// Brings a unit into a state, and looks whether it is.
    pub(super) fn put_unit(
        &mut self,
        unit: &str,
        enabling: Enabling,
        running: Running,
    ) -> Result<(), SettingError> {
        let State::Unit {
            enabling: enabled,
            running: runs,
        } = self.unit(unit)?.state
        else {
            return Ok(());
        };
        if !enabling.fits(enabled) {
            let verb = match enabling {
                Enabling::Enabled => "enable",
                _ => "disable",
            };
            self.run(&["systemctl", verb, "--", unit])?;
        }
        if running != runs {
            let verb = match running {
                Running::Running => "start",
                Running::Stopped => "stop",
            };
            self.run(&["systemctl", verb, "--", unit])?;
        }
        // Whether it runs is said by the exit status: a job that has ended does not run any more, and is as asked.
        match self.unit(unit)?.state {
            State::Unit { enabling: now, .. } if !enabling.fits(now) => {
                let unit = unit.to_owned();
                Err(SettingError::UnitNotTaken { unit })
            }
            _ => Ok(()),
        }
    }
}
