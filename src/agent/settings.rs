//! What an agent says of settings, as the daemon may use it: bounded, its text cleaned. It stays a claim of the guest.

use agent_protocol::limits::{NAME_MAX, PACKAGES_MAX, SETTING_REASON_MAX, SETTINGS_MAX};
use agent_protocol::settings::{SettingLine, SettingOutcome, SettingsReply};

use super::words::{GuestWords, Lines};

/// Most lines that an answer may have: those of what was before, and of what is asked for.
const LINES_MAX: usize = 2 * (SETTINGS_MAX + PACKAGES_MAX) + 16;
/// What precedes a setting's name: `sysctl `.
const PREFIX_MAX: usize = 32;

/// What came of the settings of an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsEnd {
    /// One for each setting, as far as they fitted the answer.
    pub lines: Vec<SettingEnd>,
    /// How many did not fit.
    pub left_out: usize,
}

/// What came of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingEnd {
    /// Which.
    pub setting: GuestWords,
    /// What came of it.
    pub outcome: SettingOutcome,
    /// Why, where the guest says it.
    pub reason: GuestWords,
}

pub(super) fn settings_end(reply: SettingsReply) -> SettingsEnd {
    let line = |line: SettingLine| SettingEnd {
        setting: GuestWords::clean(&line.setting, NAME_MAX + PREFIX_MAX, Lines::One),
        outcome: line.outcome,
        reason: GuestWords::clean(&line.reason, SETTING_REASON_MAX, Lines::One),
    };
    let surplus = reply.lines.len().saturating_sub(LINES_MAX);
    SettingsEnd {
        lines: reply.lines.into_iter().take(LINES_MAX).map(line).collect(),
        left_out: reply.left_out.saturating_add(surplus),
    }
}
