//! Packages that a guest is to have: part of its settings ([`crate::settings`]). How they are installed is the agent's.

use serde::{Deserialize, Serialize};

use crate::limits::NAME_MAX;

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// As the guest's package manager names it.
    pub name: String,
    /// Which version of it.
    #[serde(default)]
    pub version: VersionWish,
}

/// Which version of a package is to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionWish {
    /// Any; what is there stays.
    #[default]
    Any,
    /// The newest that the package manager knows.
    Latest,
    /// The same, or one that begins with it: `1.24` takes `1.24.3`.
    Equal(String),
    /// This one or a later.
    AtLeast(String),
    /// A later one.
    Above(String),
    /// This one or an earlier.
    AtMost(String),
    /// An earlier one.
    Below(String),
}

impl VersionWish {
    /// The version that it speaks of.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Any | Self::Latest => None,
            Self::Equal(version)
            | Self::AtLeast(version)
            | Self::Above(version)
            | Self::AtMost(version)
            | Self::Below(version) => Some(version),
        }
    }
}

impl std::fmt::Display for VersionWish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self {
            Self::Any => return f.write_str("any version"),
            Self::Latest => return f.write_str("the newest version"),
            Self::Equal(_) => "version ",
            Self::AtLeast(_) => ">=",
            Self::Above(_) => ">",
            Self::AtMost(_) => "<=",
            Self::Below(_) => "<",
        };
        write!(f, "{sign}{}", self.version().unwrap_or_default())
    }
}

impl Package {
    /// Whether the name can stand on a command line: it begins with a letter or digit, and no character means more there.
    pub(crate) fn has_name(&self) -> bool {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ':');
        let name = &self.name;
        // apt-get takes a sign behind a name that it does not know for an order to install or to remove.
        let is_order = name.ends_with('-') || (name.ends_with('+') && !name.ends_with("++"));
        begins_plainly(name) && name.len() <= NAME_MAX && name.chars().all(allowed) && !is_order
    }

    pub(crate) fn has_version(&self) -> bool {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ':' | '~');
        self.version.version().is_none_or(|version| {
            begins_plainly(version) && version.len() <= NAME_MAX && version.chars().all(allowed)
        })
    }
}

fn begins_plainly(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_an_order_is_no_name() {
        let named = |name: &str| {
            Package {
                name: name.to_owned(),
                version: VersionWish::Any,
            }
            .has_name()
        };
        for good in [
            "nginx",
            "libstdc++6",
            "g++",
            "python3.11",
            "libc6:i386",
            "a-b",
        ] {
            assert!(named(good), "{good}");
        }
        for bad in [
            "", "-y", "nginx-", "nginx+", "a b", "a=1", "../x", "a/b", "a*", ".x", "$x",
        ] {
            assert!(!named(bad), "{bad}");
        }
    }

    #[test]
    fn a_version_is_one_word() {
        let has = |version: &str| {
            Package {
                name: "x".to_owned(),
                version: VersionWish::Equal(version.to_owned()),
            }
            .has_version()
        };
        assert!(has("1:2.3~rc1-4+b1") && !has("") && !has("1 2") && !has("-1") && !has("1*"));
    }
}
