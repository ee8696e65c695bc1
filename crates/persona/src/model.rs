//! The persona as a value: what a domain may grow to, how it adapts, what is activated in it. Immutable once loaded;
//! how it is read is in `read`, what must hold between its values in `validate`. Every other crate reads these types.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::rule::Rule;
use crate::units::Bytes;

/// One persona, valid in itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Persona {
    /// Unique in the catalogue.
    pub name: PersonaName,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a new domain that no tag maps gets it.
    pub default_persona: bool,
    /// What the machine is for, in the owner's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functional_role: Option<String>,
    /// Bounds of the resources that the persona manages.
    pub base: BaseConfiguration,
    /// How the machine adapts, in the order of the document.
    pub rules: Vec<Rule>,
    /// Variables that are set in the guest.
    pub environment: BTreeMap<String, String>,
    /// Runs in the guest before anything else of an activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_activation: Option<Script>,
    /// Runs in the guest when the rest of an activation is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_activation: Option<Script>,
    /// How far the daemon may go by itself, for each class of action.
    pub trust: TrustLevels,
    /// The digest of the meaning of all of the above.
    pub digest: Digest,
}

/// What a domain is given; a resource on which the document is silent is not managed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BaseConfiguration {
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuBounds>,
    /// Guest memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryBounds>,
}

/// Bounds of the virtual CPUs. `min <= initial <= max`, `reservation <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CpuBounds {
    /// Never fewer.
    pub min: u32,
    /// How many an activation brings about; `None` leaves what there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<u32>,
    /// Never more; `None` where only the domain and the host set a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Never taken away for another domain.
    pub reservation: u32,
    /// Weight against other domains where there is not enough for all.
    pub share: u32,
}

/// Bounds of the guest's memory. `min <= initial <= max`, `reservation <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryBounds {
    /// Never less.
    pub min: Bytes,
    /// How much an activation brings about; `None` leaves what there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<Bytes>,
    /// Never more; `None` where only the domain and the host set a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Bytes>,
    /// Never taken away for another domain.
    pub reservation: Bytes,
    /// Weight against other domains where there is not enough for all.
    pub share: u32,
}

/// A script that runs in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Script {
    /// Absolute path: what the document names, else what the `#!` line does, else `/bin/sh`.
    pub interpreter: String,
    /// What stands behind the interpreter on the `#!` line: one argument, as the kernel passes it (execve(2)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// The script, line ends as `\n`.
    pub text: String,
    /// It is stopped then, and has failed.
    #[serde(serialize_with = "crate::quantity::serialize_duration")]
    pub timeout: Duration,
    /// The user of the guest as whom it runs.
    pub user: String,
    /// What its failure means for the activation.
    pub on_failure: OnFailure,
}

impl Script {
    /// Where the document does not say.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    /// Where the document does not say.
    pub const DEFAULT_USER: &'static str = "root";
    /// Where neither the document nor a `#!` line says.
    pub const DEFAULT_INTERPRETER: &'static str = "/bin/sh";
}

/// What a failed script means for the activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// What the activation changed so far is undone.
    #[default]
    Rollback,
    /// What was changed stays; the failure is reported.
    Keep,
}

/// Classes of actions that trust is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// vCPUs, memory, weights, limits.
    ResourceScaling,
    /// Block, isolate, redirect.
    NetworkAccess,
    /// Scripts of a rule.
    CommandExecution,
    /// Settings, features, packages.
    FileSystemModification,
    /// Another persona.
    PersonaChange,
    /// Messages to people.
    Notify,
}

impl Class {
    /// Every class with its key in documents.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::ResourceScaling, "resource_scaling"),
        (Self::NetworkAccess, "network_access"),
        (Self::CommandExecution, "command_execution"),
        (Self::FileSystemModification, "file_system_modification"),
        (Self::PersonaChange, "persona_change"),
        (Self::Notify, "notify"),
    ];
}

/// How far the daemon may go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Never.
    None,
    /// Propose; a person decides.
    Low,
    /// Act where it can be undone and nobody else pays.
    Medium,
    /// Act.
    High,
}

/// The level for each class; where a document is silent, what its own rules say is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TrustLevels {
    pub(crate) levels: BTreeMap<Class, Level>,
}

impl TrustLevels {
    /// The level for one class.
    pub fn level(&self, class: Class) -> Level {
        self.levels.get(&class).copied().unwrap_or(Level::High)
    }
}

/// A persona's name: `[a-z0-9][a-z0-9._-]{0,62}`, so it is safe as a file name, a D-Bus path element and an argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PersonaName(String);

/// Why a text is no persona name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no persona name{}", .suggestion.as_ref().map(|other| format!("; `{other}` would be one")).unwrap_or_default())]
pub struct PersonaNameError {
    /// What was asked for, shortened.
    pub name: String,
    /// A valid name near it, where there is one.
    pub suggestion: Option<String>,
}

impl PersonaName {
    /// Longest name, in characters.
    pub const LONGEST: usize = 63;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_valid(text: &str) -> bool {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let starts = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        text.len() <= Self::LONGEST
            && text.as_bytes().first().is_some_and(starts)
            && text.bytes().all(allowed)
    }
}

impl FromStr for PersonaName {
    type Err = PersonaNameError;

    /// Upper-case letters are lowered; whatever else is wrong is refused with a suggestion.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lowered = text.to_ascii_lowercase();
        if Self::is_valid(&lowered) {
            return Ok(Self(lowered));
        }
        let replace = |c: char| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        };
        let cleaned: String = lowered
            .trim()
            .chars()
            .take(Self::LONGEST)
            .map(replace)
            .collect();
        let cleaned = cleaned.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        Err(PersonaNameError {
            name: text.chars().take(Self::LONGEST + 1).collect(),
            suggestion: Self::is_valid(cleaned).then(|| cleaned.to_owned()),
        })
    }
}

impl fmt::Display for PersonaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for PersonaName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PersonaName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A name that was written by a program is already lowered; anything else did not come from here.
        if Self::is_valid(&text) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom("invalid persona name"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let read = match text.parse::<PersonaName>() {
            Ok(name) => name.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn names_are_lowered_or_refused_with_a_suggestion() {
        check("web", "web");
        check("HighTraffic", "hightraffic");
        check(
            "high traffic",
            "`high traffic` is no persona name; `high-traffic` would be one",
        );
        check(
            "../etc/passwd",
            "`../etc/passwd` is no persona name; `etc-passwd` would be one",
        );
        check("", "`` is no persona name");
        check("-", "`-` is no persona name");
        check("wеb", "`wеb` is no persona name; `w-b` would be one");
        check(&"a".repeat(63), &"a".repeat(63));
        assert!("a".repeat(64).parse::<PersonaName>().is_err());
    }

    #[test]
    fn silence_in_trust_levels_is_high() {
        assert_eq!(
            TrustLevels::default().level(Class::ResourceScaling),
            Level::High
        );
    }
}
