//! Trust: how far the daemon may go by itself, for each class of action.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

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

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(class, _)| class == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl Level {
    /// Every level with its word, from the lowest.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::None, "none"),
        (Self::Low, "low"),
        (Self::Medium, "medium"),
        (Self::High, "high"),
    ];

    /// The level that a number from 0 to 1 stands for: a quarter of the range each.
    pub fn from_number(number: f64) -> Self {
        match number {
            number if number < 0.25 => Self::None,
            number if number < 0.5 => Self::Low,
            number if number < 0.75 => Self::Medium,
            _ => Self::High,
        }
    }

    /// Its place in the order, from 0, for comparisons of levels with each other.
    pub fn rank(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(level, _)| level == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// The level for each class; where a document is silent, what its own rules say is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustLevels {
    pub(crate) levels: BTreeMap<Class, Level>,
}

impl TrustLevels {
    /// Levels under which nothing is done.
    pub fn nothing() -> Self {
        let levels = Class::ALL.map(|(class, _)| (class, Level::None));
        Self {
            levels: levels.into(),
        }
    }

    /// The level for one class.
    pub fn level(&self, class: Class) -> Level {
        self.levels.get(&class).copied().unwrap_or(Level::High)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_in_trust_levels_is_high() {
        assert_eq!(
            TrustLevels::default().level(Class::ResourceScaling),
            Level::High
        );
    }

    #[test]
    fn a_number_stands_for_the_level_of_its_quarter() {
        for (number, level) in [
            (0.0, Level::None),
            (0.25, Level::Low),
            (0.5, Level::Medium),
            (0.74, Level::Medium),
            (0.75, Level::High),
            (1.0, Level::High),
        ] {
            assert_eq!(Level::from_number(number), level, "{number}");
        }
    }
}
