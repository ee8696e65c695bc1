//! Names of personas, and references to versions of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// A persona by name, at its current version or at a fixed one: `NAME` or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Reference {
    /// Its name.
    pub name: PersonaName,
    /// Its version, from 1; `None` for the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// What stands before the version is no name.
    #[error(transparent)]
    Name(#[from] PersonaNameError),
    /// What stands behind the `@` is no version.
    #[error("`{0}` is no version; versions are numbered from 1")]
    Version(String),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, version)) = text.split_once('@') else {
            let name = text.parse()?;
            return Ok(Self {
                name,
                version: None,
            });
        };
        let plain = version.bytes().all(|byte| byte.is_ascii_digit());
        match version.parse() {
            Ok(number) if plain && number > 0 => Ok(Self {
                name: name.parse()?,
                version: Some(number),
            }),
            _ => Err(ReferenceError::Version(version.chars().take(20).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_a_version_from_one_on() {
        for (text, expected) in [
            ("Web", "web"),
            ("web@3", "web@3"),
            ("web@0", "`0` is no version; versions are numbered from 1"),
            ("web@+1", "`+1` is no version; versions are numbered from 1"),
            ("web@", "`` is no version; versions are numbered from 1"),
            ("we b@1", "`we b` is no persona name; `we-b` would be one"),
        ] {
            let read = match text.parse::<Reference>() {
                Ok(reference) => reference.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(read, expected, "{text}");
        }
    }

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
}
