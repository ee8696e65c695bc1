//! The editor and the shell that sessions find in their environment. They are variables of the environment files, so what
//! the persona's own `environment_variables` or a user's own files say goes before.

use agent_protocol::{SettingOutcome, Settings};

use super::{Guest, Machine, SettingError, Wishes};

/// What people call editors whose program has another name.
const NAMES: [(&str, &str); 4] = [
    ("vscode", "code"),
    ("vs code", "code"),
    ("visual studio code", "code"),
    ("sublime text", "subl"),
];
/// Editors that return at once, with the option by which they end when the file is closed, as whoever starts `EDITOR` expects.
const WAITING: [(&str, &str); 5] = [
    ("code", "--wait"),
    ("codium", "--wait"),
    ("subl", "--wait"),
    ("gedit", "--wait"),
    ("kate", "--block"),
];

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
        let Some(command) = command(machine.guest, name) else {
            let reason = format!(
                "the guest has no program {name}; is its package installed (software_stack)?"
            );
            wishes.refuse(setting, &reason);
            continue;
        };
        for variable in variables {
            wishes
                .defaults
                .insert((*variable).to_owned(), command.clone());
        }
        let reason = "for sessions that begin from now on";
        wishes.line(setting, SettingOutcome::Applied, reason);
    }
    Ok(())
}

/// The command of a program that is there, by its name as it is, as people write it, or by its path.
fn command(guest: Guest<'_>, name: &str) -> Option<String> {
    let lowered = name.to_ascii_lowercase();
    let known = NAMES.iter().find(|(said, _)| *said == lowered);
    let path = known
        .and_then(|(_, program)| guest.program(program))
        .or_else(|| guest.program(name))
        .or_else(|| guest.program(&lowered))?;
    let waiting = WAITING
        .iter()
        .find(|(program, _)| path.rsplit('/').next() == Some(program));
    Some(match waiting {
        Some((_, option)) => format!("{path} {option}"),
        None => path,
    })
}
