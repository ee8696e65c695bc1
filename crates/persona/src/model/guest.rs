//! What the guest is to be like: software, environment, settings, habits. What brings it about is the agent.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// One package of the software stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Software {
    /// The package, as the guest's package manager names it.
    pub name: String,
    /// Which version.
    pub version: Constraint,
    /// What it is for, in the owner's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// Which version of a package is to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Constraint {
    /// Any that the package manager installs; what is there stays.
    #[default]
    Any,
    /// The newest that the package manager knows.
    Latest,
    /// One that stands in this relation to a version.
    Version(Relation, String),
}

/// How a package's version compares with the one in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The same, or one that begins with it: `1.24` takes `1.24.3`.
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `<=`
    AtMost,
    /// `<`
    Below,
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, version) = match self {
            Self::Any => return f.write_str("any"),
            Self::Latest => return f.write_str("latest"),
            Self::Version(Relation::Equal, version) => ("", version),
            Self::Version(Relation::AtLeast, version) => (">=", version),
            Self::Version(Relation::Above, version) => (">", version),
            Self::Version(Relation::AtMost, version) => ("<=", version),
            Self::Version(Relation::Below, version) => ("<", version),
        };
        write!(f, "{sign}{version}")
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EnvironmentValue {
    /// As it stands in the document.
    Text(String),
    /// Not to be shown.
    Secret {
        /// The value.
        secret: Secret,
    },
}

impl EnvironmentValue {
    /// The value that the guest gets.
    pub fn expose(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Secret { secret } => secret.expose(),
        }
    }
}

/// A text that is neither printed nor serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

/// A setting whose meaning a plugin of the guest knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Setting {
    /// A single value.
    Text(String),
    /// Several.
    List(Vec<String>),
}

/// Settings of the guest's operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OsSettings {
    /// Colour scheme of desktops: `dark`, `light`, or a theme's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theme: Option<String>,
    /// The editor that programs start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub editor: Option<String>,
    /// The shell of terminals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_shell: Option<String>,
    /// Kernel parameters by name (sysctl(8)).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// systemd units by name, and whether each is to be enabled.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, bool>,
    /// What a plugin of the guest handles.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Setting>,
}

impl OsSettings {
    /// Whether the document is silent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings of applications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApplicationSettings {
    /// Extensions of the development environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ide_extensions: Vec<String>,
    /// Extensions of browsers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub browser_extensions: Vec<String>,
    /// What a plugin of the guest handles.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Setting>,
}

impl ApplicationSettings {
    /// Whether the document is silent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Habits of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BehavioralSettings {
    /// How often packages are updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_update_frequency: Option<Frequency>,
    /// The least important messages that are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging_level: Option<LoggingLevel>,
    /// How often the installed scanner runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_scan_frequency: Option<Frequency>,
    /// What a plugin of the guest handles.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Setting>,
}

impl BehavioralSettings {
    /// Whether the document is silent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
