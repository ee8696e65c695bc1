//! The colour scheme of desktops that read dconf (GNOME and those of its kind): a default for all users, which a user's own choice goes
//! before.

use agent_protocol::Settings;

use super::{MARK, Machine, Once, Resource, SettingError, State, Wishes, refused};

const SETTING: &str = "theme";
const DEFAULTS: &str = "/etc/dconf/db/local.d/50-virt-persona";
const PROFILE: &str = "/etc/dconf/profile/user";
/// What a user sees: what that user chose, else the defaults of the database `local`.
const LAYERS: &str = "user-db:user\nsystem-db:local\n";

pub(super) fn wish(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    let Some(theme) = &settings.theme else {
        return Ok(());
    };
    if machine.guest.program("dconf").is_none() {
        let reason = "the guest has no desktop that reads dconf (there is no program dconf)";
        return Err(refused(SETTING, reason));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | ' ');
    if !theme.chars().all(plain) {
        return Err(refused(SETTING, "it is no name of a theme"));
    }
    let (scheme, gtk) = match theme.to_ascii_lowercase().as_str() {
        "dark" => ("prefer-dark", "Adwaita-dark"),
        "light" => ("prefer-light", "Adwaita"),
        _ if theme.to_ascii_lowercase().ends_with("dark") => ("prefer-dark", theme.as_str()),
        _ => ("default", theme.as_str()),
    };
    match machine.probe(&Resource::File(PROFILE.to_owned()))? {
        State::Text { text, .. } => {
            let reads = |line: &str| line.trim() == "system-db:local";
            if !text.lines().any(reads) {
                let reason = format!("{PROFILE} does not name the database `local`");
                return Err(refused(SETTING, reason));
            }
            // One of the agent's own stays wanted; another is somebody's, and does.
            if text == LAYERS {
                wishes.file(SETTING, PROFILE, text, None);
            }
        }
        _ => wishes.file(SETTING, PROFILE, LAYERS.to_owned(), None),
    }
    let text = format!(
        "{MARK}\n[org/gnome/desktop/interface]\ncolor-scheme='{scheme}'\ngtk-theme='{gtk}'\n"
    );
    wishes.file(SETTING, DEFAULTS, text, Some(Once::UpdateDconf));
    Ok(())
}
