//! What a guest is asked to become, and what it answers. The host sends an [`Activation`]; the agent checks it before
//! anything is written or run, and answers with an [`ActivationReply`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{CommandTable, TableRefusal};
use crate::limits::{
    ACTIVATION_TEXT_MAX, ENVIRONMENT_VALUE_MAX, ENVIRONMENT_VARIABLES_MAX, NAME_MAX,
    SCRIPT_TIMEOUT_MAX_MS,
};
use crate::rules::{GuestRules, RulesRefusal};
use crate::settings::{Settings, SettingsRefusal, SettingsReply};

/// One persona made active in one guest. Generations grow; the agent refuses an older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Grows with each activation and deactivation of a domain.
    pub generation: u64,
    /// The persona's name.
    pub persona: String,
    /// The persona's version.
    pub version: u64,
    /// Digest of what is activated, for comparison only: equal digests mean an equal activation.
    pub digest: String,
    /// Variables of every login and user service in the guest.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Settings of the guest's operating system.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// Runs before the settings and the environment are written; its failure ends the activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<Script>,
    /// Runs after the environment is written; [`Script::on_failure`] says what its failure means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Script>,
    /// What becomes of commands that the host asks for while it is active.
    #[serde(default, skip_serializing_if = "CommandTable::is_empty")]
    pub commands: CommandTable,
    /// Rules that the agent evaluates while it is active; agents without the feature ignore them.
    #[serde(default, skip_serializing_if = "GuestRules::is_empty")]
    pub rules: GuestRules,
    /// Set where rules of the host have adjusted something of the persona, and where that ends; agents without the feature
    /// take each for another persona.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<Adjusted>,
}

/// Feature of an agent that knows [`Activation::adjusted`].
pub const ADJUSTED_FEATURE: &str = "adjusted";

/// What an activation is, besides what rules of the host adjusted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjusted {
    /// Digest of the persona itself. What belongs to the persona in the guest, as its rules and the features that they have
    /// switched, goes on from one activation of it to the next.
    pub of: String,
    /// When its scripts run.
    #[serde(default)]
    pub scripts: ScriptsRun,
}

/// When the scripts of an activation run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptsRun {
    /// Always: the persona itself is activated.
    #[default]
    Always,
    /// Where something else than the persona is active: nothing but what rules adjusted has changed, and scripts run once for
    /// each activation of a persona.
    UnlessActive,
}

/// A program text, run once an activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Absolute path of the interpreter, with arguments after white space.
    pub interpreter: String,
    /// What the interpreter reads.
    pub text: String,
    /// Time until the script's process group is stopped, in milliseconds.
    pub timeout_ms: u64,
    /// The user it runs as.
    #[serde(default = "root")]
    pub user: String,
    /// What a failure after the environment was written means. A failing `pre` always ends the activation.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn root() -> String {
    "root".to_owned()
}

/// What follows when a `post` script fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The environment of before is put back and the activation has failed.
    #[default]
    Rollback,
    /// The activation stands, and the failure is reported.
    Keep,
}

/// Why an activation is not attempted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActivationRefusal {
    /// A name or digest is empty, long, or holds control characters.
    #[error("{field} must be 1 to {NAME_MAX} bytes without control characters")]
    Name {
        /// Which field.
        field: &'static str,
    },
    /// Too many variables.
    #[error("{count} environment variables are more than {ENVIRONMENT_VARIABLES_MAX}")]
    TooManyVariables {
        /// How many were sent.
        count: usize,
    },
    /// A variable's name is not one that shells accept.
    #[error(
        "environment variable {index} (counted from 1) has no valid name: letters, digits and underscores, not first a digit"
    )]
    VariableName {
        /// Position in alphabetical order.
        index: usize,
    },
    /// A variable's value has line breaks or other control characters, or is too long.
    #[error(
        "the value of {name} must be at most {ENVIRONMENT_VALUE_MAX} bytes on one line, without control characters"
    )]
    VariableValue {
        /// The variable.
        name: String,
    },
    /// The interpreter is no absolute path.
    #[error("the interpreter of the {stage} script must be an absolute path")]
    Interpreter {
        /// `pre`, `post` or `response`.
        stage: &'static str,
    },
    /// The script is empty or holds a zero byte.
    #[error("the {stage} script is empty or holds a zero byte")]
    ScriptText {
        /// `pre`, `post` or `response`.
        stage: &'static str,
    },
    /// The time-out is zero or too long.
    #[error(
        "the time-out of the {stage} script must be 1 to {SCRIPT_TIMEOUT_MAX_MS} milliseconds, it is {timeout_ms}"
    )]
    ScriptTimeout {
        /// `pre`, `post` or `response`.
        stage: &'static str,
        /// The refused value.
        timeout_ms: u64,
    },
    /// The table of commands cannot be.
    #[error("the table of commands cannot be held: {0}")]
    Commands(TableRefusal),
    /// The settings cannot be attempted.
    #[error("the settings cannot be attempted: {0}")]
    Settings(SettingsRefusal),
    /// The rules cannot be held.
    #[error("the rules cannot be held: {0}")]
    Rules(RulesRefusal),
    /// Environment, settings, scripts, table and rules are too large.
    #[error(
        "environment, settings, scripts, commands and rules are {bytes} bytes, more than {ACTIVATION_TEXT_MAX}"
    )]
    TooLarge {
        /// Their size.
        bytes: usize,
    },
}

impl Activation {
    /// Whether this can be attempted. The host calls it before sending, the agent before doing.
    ///
    /// # Errors
    /// The first [`ActivationRefusal`] in the order of the fields.
    pub fn check(&self) -> Result<(), ActivationRefusal> {
        check_name("persona", &self.persona)?;
        check_name("digest", &self.digest)?;
        if let Some(adjusted) = &self.adjusted {
            check_name("digest of what is adjusted", &adjusted.of)?;
        }
        if self.environment.len() > ENVIRONMENT_VARIABLES_MAX {
            return Err(ActivationRefusal::TooManyVariables {
                count: self.environment.len(),
            });
        }
        for (index, (name, value)) in self.environment.iter().enumerate() {
            if !is_variable_name(name) {
                return Err(ActivationRefusal::VariableName { index: index + 1 });
            }
            if !is_variable_value(value) {
                return Err(ActivationRefusal::VariableValue { name: name.clone() });
            }
        }
        self.settings.check().map_err(ActivationRefusal::Settings)?;
        for (stage, script) in [("pre", &self.pre), ("post", &self.post)] {
            if let Some(script) = script {
                script.check(stage)?;
            }
        }
        self.commands.check().map_err(ActivationRefusal::Commands)?;
        self.rules.check().map_err(ActivationRefusal::Rules)?;
        for script in self.rules.scripts.values() {
            script.check("response")?;
        }
        let bytes = self.text_bytes();
        if bytes > ACTIVATION_TEXT_MAX {
            Err(ActivationRefusal::TooLarge { bytes })
        } else {
            Ok(())
        }
    }

    /// What tells the persona itself from others, whatever rules adjusted of it.
    pub fn identity(&self) -> &str {
        self.adjusted
            .as_ref()
            .map_or(&self.digest, |adjusted| &adjusted.of)
    }

    fn text_bytes(&self) -> usize {
        let environment: usize = self
            .environment
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let scripts: usize = [&self.pre, &self.post]
            .into_iter()
            .flatten()
            .map(|script| script.text.len())
            .sum();
        let settings: usize =
            self.settings
                .sysctl
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .chain(self.settings.services.keys().map(String::len))
                .chain(self.settings.software.iter().map(|package| {
                    package.name.len() + package.version.version().map_or(0, str::len)
                }))
                .sum();
        let listed: usize = [
            &self.settings.ide_extensions,
            &self.settings.browser_extensions,
        ]
        .into_iter()
        .chain(self.settings.other.values())
        .flatten()
        .chain(self.settings.other.keys())
        .map(String::len)
        .sum();
        environment
            + listed
            + settings
            + scripts
            + self.commands.text_bytes()
            + self.rules.text_bytes()
    }
}

impl Script {
    fn check(&self, stage: &'static str) -> Result<(), ActivationRefusal> {
        if !self.interpreter.starts_with('/')
            || check_name("interpreter", &self.interpreter).is_err()
        {
            return Err(ActivationRefusal::Interpreter { stage });
        }
        if self.text.is_empty() || self.text.contains('\0') {
            return Err(ActivationRefusal::ScriptText { stage });
        }
        if self.timeout_ms == 0 || self.timeout_ms > SCRIPT_TIMEOUT_MAX_MS {
            return Err(ActivationRefusal::ScriptTimeout {
                stage,
                timeout_ms: self.timeout_ms,
            });
        }
        check_name("the script's user", &self.user)
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), ActivationRefusal> {
    let plain = (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if plain {
        Ok(())
    } else {
        Err(ActivationRefusal::Name { field })
    }
}

pub(crate) fn is_variable_value(value: &str) -> bool {
    value.len() <= ENVIRONMENT_VALUE_MAX && !value.chars().any(|c| c.is_control() && c != '\t')
}

pub(crate) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_MAX
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether an activation or deactivation did anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The guest is different from before.
    Changed,
    /// The guest already was as asked.
    Unchanged,
}

/// The answer to an activation that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationReply {
    /// The generation that holds.
    pub generation: u64,
    /// Whether anything was done for it.
    pub outcome: Change,
    /// The `pre` script's end, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<ScriptResult>,
    /// The `post` script's end, if there is one. A failure is found here when the script says `keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<ScriptResult>,
    /// Files in the guest that hold the environment.
    #[serde(default)]
    pub environment_files: Vec<String>,
    /// Whether sessions that are open keep the old environment until their users log in again.
    #[serde(default)]
    pub needs_relogin: bool,
    /// What came of the settings; absent where there are none, and from agents that know none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsReply>,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptResult {
    /// Exit status, absent when it ended by a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The end of what it wrote to standard output and standard error, cleaned of control characters.
    #[serde(default)]
    pub output: String,
    /// Whether its beginning was left out of `output`.
    #[serde(default)]
    pub output_truncated: bool,
    /// Whether it was stopped for taking too long.
    #[serde(default)]
    pub timed_out: bool,
    /// How long it ran, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
}

impl ScriptResult {
    /// Whether it ended by itself with status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit == Some(0) && !self.timed_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation() -> Activation {
        Activation {
            generation: 1,
            persona: "web".to_owned(),
            version: 1,
            digest: "sha256:00".to_owned(),
            environment: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            settings: Settings::default(),
            pre: None,
            post: None,
            commands: CommandTable::default(),
            rules: GuestRules::default(),
            adjusted: None,
        }
    }

    fn script(interpreter: &str, text: &str, timeout_ms: u64) -> Option<Script> {
        let (interpreter, text) = (interpreter.to_owned(), text.to_owned());
        Some(Script {
            interpreter,
            text,
            timeout_ms,
            user: root(),
            on_failure: OnFailure::Rollback,
        })
    }

    fn check(change: impl FnOnce(&mut Activation), expected: Result<(), ActivationRefusal>) {
        let mut activation = activation();
        change(&mut activation);
        assert_eq!(activation.check(), expected);
    }

    #[test]
    fn a_plain_activation_passes() {
        check(|a| a.post = script("/usr/bin/env bash", "true", 1), Ok(()));
    }

    #[test]
    fn each_broken_rule_has_its_own_refusal() {
        check(
            |a| a.persona = "a\u{1b}[2J".to_owned(),
            Err(ActivationRefusal::Name { field: "persona" }),
        );
        check(
            |a| a.digest.clear(),
            Err(ActivationRefusal::Name { field: "digest" }),
        );
        check(
            |a| drop(a.environment.insert("B C".to_owned(), String::new())),
            Err(ActivationRefusal::VariableName { index: 2 }),
        );
        let value = ActivationRefusal::VariableValue {
            name: "B".to_owned(),
        };
        check(
            |a| {
                drop(
                    a.environment
                        .insert("B".to_owned(), "a\nPATH=/tmp".to_owned()),
                )
            },
            Err(value),
        );
        check(
            |a| a.pre = script("sh", "true", 1),
            Err(ActivationRefusal::Interpreter { stage: "pre" }),
        );
        check(
            |a| a.post = script("/bin/sh", "", 1),
            Err(ActivationRefusal::ScriptText { stage: "post" }),
        );
        check(
            |a| a.pre = script("/bin/sh", "true", 0),
            Err(ActivationRefusal::ScriptTimeout {
                stage: "pre",
                timeout_ms: 0,
            }),
        );
        let restricted = vec!["/bin/nc".to_owned()];
        let index = 1;
        check(
            |a| a.commands.restricted = restricted,
            Err(ActivationRefusal::Commands(TableRefusal::Name {
                list: "restricted",
                index,
            })),
        );
        let text = "x".repeat(ACTIVATION_TEXT_MAX);
        let bytes = ACTIVATION_TEXT_MAX + 2;
        check(
            |a| a.pre = script("/bin/sh", &text, 1),
            Err(ActivationRefusal::TooLarge { bytes }),
        );
    }
}
