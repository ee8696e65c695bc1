//! What the guest is to be like: packages, commands, settings, habits.

use std::collections::BTreeMap;

use super::Reader;
use super::activation::is_program;
use super::value::Fields;
use crate::document::{Entry, Node, Value};
use crate::language::{self, constraint, frequency};
use crate::limits;
use crate::model::{
    ApplicationSettings, BehavioralSettings, Constraint, Frequency, OsSettings, Setting, Software,
};
use crate::problem::{self, Kind, Problem};

impl Reader<'_> {
    pub(super) fn software(&mut self, node: &Node) -> Vec<Software> {
        let mut found: Vec<Software> = Vec::new();
        for item in self.items(node, "software_stack", "packages", limits::MOST_PACKAGES) {
            let Some(fields) = self.fields(item, &language::PACKAGE) else {
                continue;
            };
            if !fields.has("name") {
                self.missing(item, "the package", "name", None);
            }
            let version = match fields.get("version") {
                Some(node) => self.version(node),
                None => Some(Constraint::default()),
            };
            let purpose = fields
                .get("purpose")
                .map(|node| self.line_of(node, "purpose", limits::LONGEST_LINE));
            let Some(node) = fields.get("name") else {
                continue;
            };
            let (Some(name), Some(version)) = (self.package(node), version) else {
                continue;
            };
            if found.iter().any(|other| other.name == name) {
                let message = format!("the package `{name}` stands here a second time");
                self.report(Kind::Duplicate, node, message, None);
                continue;
            }
            found.push(Software {
                name,
                version,
                purpose: purpose.flatten(),
            });
        }
        found
    }

    fn package(&mut self, node: &Node) -> Option<String> {
        let text = self.line_of(node, "name", limits::LONGEST_LINE)?;
        let name = text.to_ascii_lowercase();
        if !limits::is_package(&name) {
            let help = "write it as the package manager has it, such as `nginx`, with the version or the purpose in parentheses";
            let message = format!("`{text}` is no name of a package");
            self.report(Kind::BadName, node, message, Some(help.to_owned()));
            return None;
        }
        Some(name)
    }

    fn version(&mut self, node: &Node) -> Option<Constraint> {
        let text = self.line_of(node, "version", limits::LONGEST_LINE)?;
        let found = constraint(&text);
        if found.is_none() {
            let help = "write `latest`, a version such as `1.24`, or `>=1.22`".to_owned();
            let message = format!("`{text}` is no version");
            self.report(Kind::OutOfRange, node, message, Some(help));
        }
        found
    }

    /// Commands that run something else, and commands that are refused.
    pub(super) fn commands(
        &mut self,
        overrides: Option<&Node>,
        restricted: Option<&Node>,
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let most = limits::MOST_COMMANDS;
        let mut paths = BTreeMap::new();
        if let Some(node) = overrides {
            for entry in self.dictionary(node, "command_overrides", "commands", most) {
                let known = self.is_command(&entry.key, &at_key(entry));
                if entry.value.is_empty() {
                    self.no_value(entry, &entry.key);
                    continue;
                }
                let Some(path) = self.text_of(&entry.value, &entry.key, limits::LONGEST_PATH)
                else {
                    continue;
                };
                if !is_program(&path) {
                    let message = format!("`{path}` is no absolute path of a program");
                    let help = "write the path alone, such as `/opt/tools/deploy`; arguments belong into a script";
                    self.report(Kind::BadName, &entry.value, message, Some(help.to_owned()));
                } else if known {
                    paths.insert(entry.key.clone(), path);
                }
            }
        }
        let mut refused: Vec<String> = Vec::new();
        if let Some(node) = restricted {
            for item in self.items(node, "restricted_commands", "commands", most) {
                let key = "restricted_commands";
                let Some(name) = self.text_of(item, key, limits::LONGEST_PATH) else {
                    continue;
                };
                if !self.is_command(&name, item) {
                    continue;
                }
                if paths.contains_key(&name) {
                    let message = format!("`{name}` is overridden and restricted");
                    let help =
                        "a command is either refused or runs something else; remove one of the two";
                    self.report(Kind::Contradiction, item, message, Some(help.to_owned()));
                }
                refused.push(name);
            }
        }
        refused.sort();
        refused.dedup();
        (paths, refused)
    }

    fn is_command(&mut self, name: &str, node: &Node) -> bool {
        let plain = !name.is_empty()
            && name.len() <= limits::LONGEST_COMMAND
            && !matches!(name, "." | "..")
            && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        if !plain {
            let shown: String = name.chars().take(60).collect();
            let message = format!("`{shown}` is no name of a command");
            let help = match name.rsplit_once('/') {
                Some((_, last)) if !last.is_empty() => {
                    format!("write `{last}`: a command is meant by its name, wherever it lies")
                }
                _ => "write the name alone, such as `nmap`".to_owned(),
            };
            self.report(Kind::BadName, node, message, Some(help));
        }
        plain
    }

    pub(super) fn os_settings(&mut self, node: &Node) -> Option<OsSettings> {
        let fields = self.fields(node, &language::OS)?;
        let mut line = |key: &str| {
            let node = fields.get(key)?;
            self.line_of(node, key, limits::LONGEST_LINE)
        };
        let (theme, editor) = (line("theme"), line("editor"));
        let terminal_shell = line("terminal_shell");
        let most = limits::MOST_SETTINGS;
        let mut sysctl = BTreeMap::new();
        if let Some(node) = fields.get("sysctl") {
            for entry in self.dictionary(node, "sysctl", "parameters", most) {
                let named = self.is_setting(entry, "a kernel parameter", "vm.swappiness");
                let value = self.line_of(&entry.value, &entry.key, limits::LONGEST_LINE);
                if let (true, Some(value)) = (named, value) {
                    sysctl.insert(entry.key.clone(), value);
                }
            }
        }
        let mut services = BTreeMap::new();
        if let Some(node) = fields.get("services") {
            for entry in self.dictionary(node, "services", "services", most) {
                let named = self.is_setting(entry, "a service", "ssh.service");
                let value = self.boolean(&entry.value, &entry.key);
                if let (true, Some(value)) = (named, value) {
                    services.insert(entry.key.clone(), value);
                }
            }
        }
        Some(OsSettings {
            theme,
            editor,
            terminal_shell,
            sysctl,
            services,
            other: self.others(node, &fields, &language::OS),
        })
    }

    /// Whether a key can be the name of a parameter or a unit.
    fn is_setting(&mut self, entry: &Entry, what: &str, example: &str) -> bool {
        let name = &entry.key;
        let allowed = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@' | ':' | '\\')
        };
        let plain = !name.is_empty()
            && name.len() <= limits::LONGEST_LINE
            && name.chars().all(allowed)
            && !name.split(['.', '/']).any(str::is_empty);
        if !plain {
            let shown: String = name.chars().take(60).collect();
            let message = format!("`{shown}` is no name of {what}");
            let help = Some(format!("write it as `{example}`"));
            self.report(Kind::BadName, &at_key(entry), message, help);
        }
        plain
    }

    pub(super) fn application_settings(&mut self, node: &Node) -> Option<ApplicationSettings> {
        let fields = self.fields(node, &language::APPLICATION)?;
        let mut names = |key: &str| {
            fields.get(key).map_or_else(Vec::new, |node| {
                self.lines(node, key, limits::MOST_SETTINGS)
            })
        };
        let ide_extensions = names("ide_extensions");
        let browser_extensions = names("browser_extensions");
        Some(ApplicationSettings {
            ide_extensions,
            browser_extensions,
            other: self.others(node, &fields, &language::APPLICATION),
        })
    }

    pub(super) fn behavioral_settings(&mut self, node: &Node) -> Option<BehavioralSettings> {
        let fields = self.fields(node, &language::BEHAVIOUR)?;
        let mut often = |key: &str| fields.get(key).and_then(|node| self.frequency(node, key));
        let auto_update_frequency = often("auto_update_frequency");
        let security_scan_frequency = often("security_scan_frequency");
        let logging_level = fields
            .get("logging_level")
            .and_then(|node| self.choice(node, "logging_level", language::LOGGING));
        Some(BehavioralSettings {
            auto_update_frequency,
            logging_level,
            security_scan_frequency,
            other: self.others(node, &fields, &language::BEHAVIOUR),
        })
    }

    fn frequency(&mut self, node: &Node, key: &str) -> Option<Frequency> {
        let text = self.text_of(node, key, limits::LONGEST_LINE)?;
        let found = frequency(&text).map(|(frequency, _)| frequency);
        if found.is_none() {
            let words = ["never", "hourly", "daily", "weekly", "monthly"];
            let near = problem::nearest(&text.to_ascii_lowercase(), words);
            let help = near.map(|near| format!("did you mean `{near}`?"));
            let message =
                format!("`{key}` is never, hourly, daily, weekly or monthly, not `{text}`");
            self.report(Kind::OutOfRange, node, message, help);
        }
        found
    }

    /// What a plugin of the guest may know; each is said, because a slip of the pen looks the same.
    fn others(
        &mut self,
        node: &Node,
        fields: &Fields<'_>,
        table: &language::Table,
    ) -> BTreeMap<String, Setting> {
        let mut found = BTreeMap::new();
        let others: Vec<_> = fields.others().collect();
        if others.len() > limits::MOST_SETTINGS {
            let (count, most) = (others.len(), limits::MOST_SETTINGS);
            let message = format!("{count} settings are too many; at most {most}");
            self.report(Kind::TooLarge, node, message, None);
            return found;
        }
        for entry in others {
            let (key, owner) = (&entry.key, table.owner);
            if !self.is_setting(entry, "a setting", "cursor_size") || entry.value.is_empty() {
                continue;
            }
            let shown: String = key.chars().take(60).collect();
            let message = format!(
                "{owner} has no key `{shown}` of its own; it is kept for a plugin of the guest"
            );
            let help = match table.nearest(key) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "without a plugin that knows it, it changes nothing".to_owned(),
            };
            let span = self.text.span(&entry.key_at);
            self.problems
                .push(Problem::warning(Kind::NotYetSupported, span, message).help(help));
            let setting = match &entry.value.value {
                Value::List(_) => {
                    Setting::List(self.lines(&entry.value, key, limits::MOST_SETTINGS))
                }
                _ => match self.line_of(&entry.value, key, limits::LONGEST_DESCRIPTION) {
                    Some(text) => Setting::Text(text),
                    None => continue,
                },
            };
            found.insert(key.clone(), setting);
        }
        found
    }
}

/// The key of an entry as a value of its own, for problems that are the key's.
fn at_key(entry: &Entry) -> Node {
    Node {
        value: Value::Plain(entry.key.clone()),
        at: entry.key_at.clone(),
    }
}
