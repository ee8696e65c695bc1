//! The least important messages that are logged: a drop-in of journald, and a rule of rsyslog, which reads the kernel's
//! messages by itself.

use agent_protocol::{SettingOutcome, Settings, settings::LoggingLevel};

use super::{MARK, Machine, Once, SettingError, Wishes, refused};

const SETTING: &str = "logging_level";
const JOURNALD: &str = "/etc/systemd/journald.conf.d/50-virt-persona.conf";
/// Before all others: a rule that comes first can stop a message.
const RSYSLOG: &str = "/etc/rsyslog.d/00-virt-persona.conf";

pub(super) fn wish(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    let Some(level) = settings.logging_level else {
        return Ok(());
    };
    let guest = machine.guest;
    let journald = guest.has_systemd();
    let rsyslog = guest.program("rsyslogd").is_some() && guest.has_directory("/etc/rsyslog.d");
    if !journald && !rsyslog {
        return Err(refused(
            SETTING,
            "the guest has neither journald nor rsyslog",
        ));
    }
    let (word, number) = name_of(level);
    if journald {
        // What rsyslog gets by journald is held to the same level.
        let text = format!("{MARK}\n[Journal]\nMaxLevelStore={word}\nMaxLevelSyslog={word}\n");
        wishes.file(SETTING, JOURNALD, text, Some(Once::RestartJournald));
    }
    if rsyslog && level != LoggingLevel::Debug {
        let text = format!("{MARK}\nif $syslogseverity > {number} then stop\n");
        wishes.file(SETTING, RSYSLOG, text, Some(Once::RestartRsyslog));
    } else if !journald {
        wishes.line(SETTING, SettingOutcome::Unchanged, "");
    }
    Ok(())
}

/// The level's name and number (syslog(3)).
pub(super) fn name_of(level: LoggingLevel) -> (&'static str, u8) {
    match level {
        LoggingLevel::Emergency => ("emerg", 0),
        LoggingLevel::Alert => ("alert", 1),
        LoggingLevel::Critical => ("crit", 2),
        LoggingLevel::Error => ("err", 3),
        LoggingLevel::Warning => ("warning", 4),
        LoggingLevel::Notice => ("notice", 5),
        LoggingLevel::Info => ("info", 6),
        LoggingLevel::Debug => ("debug", 7),
    }
}
