//! The editor and the shell that sessions find in their environment. They are variables of the environment files, so what
//! the persona's own `environment_variables` or a user's own files say goes before.

use agent_protocol::{SettingOutcome, Settings};

use super::{Machine, SettingError, Wishes};

pub(super) fn wish(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    let programs = [
        ("editor", &settings.editor, &["EDITOR", "VISUAL"][..]),
        ("terminal_shell", &settings.terminal_shell, &["SHELL"][..]),
    ];
    for (setting, name, variables) in programs {
        let Some(name) = name else {
            continue;
        };
        let Some(path) = machine.guest.program(name) else {
            let reason = format!(
                "the guest has no program {name}; is its package installed (software_stack)?"
            );
            wishes.refuse(setting, &reason);
            continue;
        };
        for variable in variables {
            wishes.defaults.insert((*variable).to_owned(), path.clone());
        }
        let reason = "for sessions that begin from now on";
        wishes.line(setting, SettingOutcome::Applied, reason);
    }
    Ok(())
}
