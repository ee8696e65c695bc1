//! Settings of the guest's operating system as they are asked for and answered: part of an activation
//! ([`crate::activation`]). What brings them about is the agent; which of them it knows, it says setting by setting. The
//! packages among them are in [`crate::software`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{
    NAME_MAX, OTHER_VALUE_MAX, PACKAGES_MAX, SETTING_REASON_MAX, SETTING_VALUE_MAX, SETTINGS_MAX,
    SETTINGS_REPLY_MAX,
};
use crate::software::Package;

/// The ability of an agent to bring settings about, as its hello_ack names it. An agent without it ignores them.
pub const SETTINGS_FEATURE: &str = "settings";

/// What the guest's operating system is to be like. Absent means: as it is without a persona.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Kernel parameters by name (sysctl(8)).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Units of the service manager, and whether each is to be enabled and running, or neither.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, bool>,
    /// The least important messages that are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging_level: Option<LoggingLevel>,
    /// How often packages are updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<Frequency>,
    /// How often the installed scanner runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_scan: Option<Frequency>,
    /// The editor that programs start: a name or an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub editor: Option<String>,
    /// The shell of terminals: a name or an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_shell: Option<String>,
    /// Packages that are to be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub software: Vec<Package>,
    /// Colour scheme of desktops: `dark`, `light`, or a theme's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theme: Option<String>,
    /// Extensions of development environments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ide_extensions: Vec<String>,
    /// Extensions of browsers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub browser_extensions: Vec<String>,
    /// Settings that a plugin of the guest may know, by `os_settings.KEY` and the like, with their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Vec<String>>,
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frequency {
    /// Not at all.
    Never,
    /// Once an hour.
    Hourly,
    /// Once a day.
    Daily,
    /// Once a week.
    Weekly,
    /// Once a month.
    Monthly,
}

/// Levels of log messages (syslog(3)), from the least talkative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggingLevel {
    /// The system is unusable.
    Emergency,
    /// Something must be done at once.
    Alert,
    /// Critical conditions.
    Critical,
    /// Errors.
    Error,
    /// Warnings.
    Warning,
    /// Normal but noteworthy.
    Notice,
    /// For information.
    Info,
    /// Everything.
    Debug,
}

/// Why settings are not attempted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsRefusal {
    /// More than an answer could speak of.
    #[error("{count} settings are more than {SETTINGS_MAX}")]
    TooMany {
        /// How many were sent.
        count: usize,
    },
    /// A name that would lead elsewhere, in a file or on a command line.
    #[error("{kind} {index} (counted from 1) has no valid name")]
    Name {
        /// `kernel parameter`, `unit`, `package` or `setting`.
        kind: &'static str,
        /// Position in alphabetical order; of packages in that of the list.
        index: usize,
    },
    /// More packages than are held.
    #[error("{count} packages are more than {PACKAGES_MAX}")]
    TooManyPackages {
        /// How many were sent.
        count: usize,
    },
    /// A version that is none, or could be an option of a command.
    #[error("the version that package {index} (counted from 1) is to have is none")]
    PackageVersion {
        /// Position in the list.
        index: usize,
    },
    /// A value that is not one line, or is too long.
    #[error(
        "the value of {setting} must be 1 to {most} bytes on one line, without control characters"
    )]
    Value {
        /// Which setting.
        setting: String,
        /// Its bound, in bytes.
        most: usize,
    },
}

impl Settings {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many settings these are.
    #[must_use]
    pub fn count(&self) -> usize {
        let single = [
            self.logging_level.is_some(),
            self.auto_update.is_some(),
            self.security_scan.is_some(),
            self.editor.is_some(),
            self.terminal_shell.is_some(),
            self.theme.is_some(),
            !self.ide_extensions.is_empty(),
            !self.browser_extensions.is_empty(),
        ];
        self.sysctl.len()
            + self.services.len()
            + self.software.len()
            + self.other.len()
            + single.into_iter().filter(|there| *there).count()
    }

    /// Whether these can be attempted.
    ///
    /// # Errors
    /// The first [`SettingsRefusal`] in the order of the fields.
    pub fn check(&self) -> Result<(), SettingsRefusal> {
        let packages = self.software.len();
        let count = self.count() - packages;
        if count > SETTINGS_MAX {
            return Err(SettingsRefusal::TooMany { count });
        }
        check_names("kernel parameter", self.sysctl.keys())?;
        check_names("unit", self.services.keys())?;
        if packages > PACKAGES_MAX {
            return Err(SettingsRefusal::TooManyPackages { count: packages });
        }
        for (index, package) in (1..).zip(&self.software) {
            if !package.has_name() {
                let kind = "package";
                return Err(SettingsRefusal::Name { kind, index });
            }
            if !package.has_version() {
                return Err(SettingsRefusal::PackageVersion { index });
            }
        }
        check_names("setting", self.other.keys())?;
        let programs = [
            ("editor", &self.editor),
            ("terminal_shell", &self.terminal_shell),
            ("theme", &self.theme),
        ];
        let programs = programs
            .into_iter()
            .filter_map(|(setting, value)| Some((setting, value.as_ref()?)));
        let values = self.sysctl.iter().map(|(key, value)| (key.as_str(), value));
        let lists = [
            ("ide_extensions", &self.ide_extensions),
            ("browser_extensions", &self.browser_extensions),
        ];
        let listed = lists
            .into_iter()
            .flat_map(|(setting, values)| values.iter().map(move |value| (setting, value)));
        for (setting, value) in values.chain(programs).chain(listed) {
            check_value(setting, value, SETTING_VALUE_MAX)?;
        }
        for (setting, values) in &self.other {
            for value in values {
                check_value(setting, value, OTHER_VALUE_MAX)?;
            }
        }
        Ok(())
    }
}

fn check_value(setting: &str, value: &str, most: usize) -> Result<(), SettingsRefusal> {
    let fits = (1..=most).contains(&value.len());
    if !fits || value.chars().any(|c| c.is_control() && c != '\t') {
        let setting = setting.to_owned();
        return Err(SettingsRefusal::Value { setting, most });
    }
    Ok(())
}

fn check_names<'a>(
    kind: &'static str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), SettingsRefusal> {
    for (index, name) in names.enumerate() {
        let allowed = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@' | ':' | '\\')
        };
        // An option of a command begins with a hyphen, and an empty part would climb or stay in a path.
        let plain = name.len() <= NAME_MAX
            && name.chars().all(allowed)
            && !name.starts_with('-')
            && !name.split(['.', '/']).any(str::is_empty)
            && (kind != "unit" || !name.contains('/'));
        if !plain {
            let index = index + 1;
            return Err(SettingsRefusal::Name { kind, index });
        }
    }
    Ok(())
}

/// What came of one setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingLine {
    /// Which: `sysctl vm.swappiness`, `service cron`, `logging_level`.
    pub setting: String,
    /// What came of it.
    pub outcome: SettingOutcome,
    /// Why, where that is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What came of one setting; the later stands where parts of it differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingOutcome {
    /// The guest already was like this.
    Unchanged,
    /// It is in force now.
    Applied,
    /// It no longer belongs to what is active, and what was before is back.
    Restored,
    /// The guest's own state was kept: somebody there wants it otherwise.
    Kept,
    /// The guest cannot be like that as it is now; it was left out.
    Refused,
    /// An outcome of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// What came of all settings of an activation or deactivation. That it is absent in an answer to settings means that the
/// agent is older than them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsReply {
    /// One line for each.
    pub lines: Vec<SettingLine>,
    /// Lines that did not fit; first those go that say least.
    #[serde(default)]
    pub left_out: usize,
}

impl SettingsReply {
    /// The lines as far as they fit an answer.
    #[must_use]
    pub fn fit(lines: &[SettingLine]) -> Self {
        let mut ranked: Vec<(usize, &SettingLine)> = lines.iter().enumerate().collect();
        ranked.sort_by_key(|(_, line)| std::cmp::Reverse(line.outcome));
        let mut left = SETTINGS_REPLY_MAX;
        ranked.retain(|(_, line)| {
            // The names and marks of the fields take about as much as this.
            let bytes = line.setting.len() + line.reason.len() + 64;
            let fits = bytes <= left;
            left -= if fits { bytes } else { left };
            fits
        });
        ranked.sort_by_key(|(index, _)| *index);
        let left_out = lines.len() - ranked.len();
        Self {
            lines: ranked.into_iter().map(|(_, line)| line.clone()).collect(),
            left_out,
        }
    }
}

impl SettingLine {
    /// A line with a reason of bounded length.
    #[must_use]
    pub fn new(setting: &str, outcome: SettingOutcome, reason: &str) -> Self {
        Self {
            setting: setting.to_owned(),
            outcome,
            reason: crate::reply::clean_text(reason, SETTING_REASON_MAX).replace('\n', " "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl(key: &str, value: &str) -> Settings {
        Settings {
            sysctl: [(key.to_owned(), value.to_owned())].into(),
            ..Settings::default()
        }
    }

    fn service(name: &str) -> Settings {
        Settings {
            services: [(name.to_owned(), true)].into(),
            ..Settings::default()
        }
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        assert_eq!(
            sysctl("net.ipv4.conf.eth0/100.forwarding", "1").check(),
            Ok(())
        );
        assert_eq!(service("getty@tty1.service").check(), Ok(()));
        for bad in ["", "a..b", "../x", "/x", "a b", "-w", "x\n"] {
            let kind = "kernel parameter";
            let refusal = SettingsRefusal::Name { kind, index: 1 };
            assert_eq!(sysctl(bad, "1").check(), Err(refusal), "{bad:?}");
        }
        for bad in ["--now", "a/b", "x;y"] {
            let refusal = SettingsRefusal::Name {
                kind: "unit",
                index: 1,
            };
            assert_eq!(service(bad).check(), Err(refusal), "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_one_line() {
        let (setting, most) = ("kernel.x".to_owned(), SETTING_VALUE_MAX);
        let refusal = Err(SettingsRefusal::Value { setting, most });
        assert_eq!(sysctl("kernel.x", "1\nkernel.y = 2").check(), refusal);
        assert_eq!(sysctl("kernel.x", "").check(), refusal);
    }

    #[test]
    fn the_largest_answer_fits_and_keeps_what_says_most() {
        let name = "n".repeat(NAME_MAX);
        let mut lines = vec![SettingLine::new(&name, SettingOutcome::Unchanged, ""); SETTINGS_MAX];
        lines.push(SettingLine::new("last", SettingOutcome::Kept, "r"));
        let reply = SettingsReply::fit(&lines);
        assert_eq!(reply.lines.last(), lines.last());
        assert!(reply.left_out > 0);
        assert_eq!(reply.lines.len() + reply.left_out, lines.len());
        let bytes = serde_json::to_vec(&reply).unwrap().len();
        assert!(bytes <= SETTINGS_REPLY_MAX + 64, "{bytes}");
    }

    #[test]
    fn an_outcome_of_a_newer_protocol_is_no_fault() {
        let line: SettingLine =
            serde_json::from_str(r#"{"setting":"x","outcome":"dreamt"}"#).unwrap();
        assert_eq!(line.outcome, SettingOutcome::Unknown);
    }
}
