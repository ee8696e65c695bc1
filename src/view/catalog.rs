//! Personas, their versions and what tags mean, as readers see them. Filled by `daemon/` from the catalogue, shown
//! by `virt-persona list`, `show`, `history` and `maps` and by the bus interface `Persona`.

use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::EffectView;

/// One stored persona.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersonaView {
    /// Its name.
    pub name: String,
    /// What its current version says of itself.
    #[serde(default)]
    pub description: Option<String>,
    /// What its current version builds on, as `NAME` or `NAME@VERSION`, the later over the earlier.
    #[serde(default)]
    pub extends: Vec<String>,
    /// Why its current version means nothing together with what it builds on.
    #[serde(default)]
    pub problem: Option<String>,
    /// How many versions are stored.
    pub versions: u32,
    /// The version that bindings follow.
    pub current: u32,
    /// The content digest of the current version, in hexadecimal.
    pub digest: String,
    /// Whether new domains without a mapped tag get it.
    pub default: bool,
    /// Names of the domains that are bound to it.
    #[serde(default)]
    pub domains: Vec<String>,
    /// What the actions of its rules did to the metrics that it prioritises.
    #[serde(default)]
    pub effects: Vec<EffectView>,
}

/// A fragment of a document that a tag lays over personas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentView {
    /// The tag.
    pub tag: String,
    /// The digest of its text, in hexadecimal.
    pub digest: String,
    /// How it is written.
    pub format: DocumentFormat,
    /// Its text, as it was given.
    pub document: String,
}

/// What became of an override that was mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedView {
    /// The tag.
    pub tag: String,
    /// Whether anything changed.
    pub change: Change,
    /// Warnings about the override.
    #[serde(default)]
    pub warnings: Vec<ProblemView>,
}

/// What is in force on a domain, with all that is below and above its persona.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveView {
    /// One document in YAML, the origin of each value as a comment behind it.
    pub document: String,
    /// Each value, in the order of the document.
    #[serde(default)]
    pub values: Vec<EffectiveValueView>,
}

/// One value that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveValueView {
    /// The keys that lead to it, `base_configuration.cpu.max`.
    pub path: String,
    /// The value as it was written; `(secret)` for a secret.
    pub text: String,
    /// Where it was written.
    pub origin: OriginView,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginView {
    /// The document: `NAME@VERSION`, or `override`.
    pub document: String,
    /// The line in it, from 1.
    pub line: u32,
    /// The tag whose override it is.
    #[serde(default)]
    pub tag: Option<String>,
}

impl From<&persona::EffectiveValue> for EffectiveValueView {
    fn from(value: &persona::EffectiveValue) -> Self {
        Self {
            path: value.path.clone(),
            text: value.text.clone(),
            origin: (&value.origin).into(),
        }
    }
}

impl From<&persona::Origin> for OriginView {
    fn from(origin: &persona::Origin) -> Self {
        Self {
            document: origin.document.clone(),
            line: origin.line,
            tag: origin.tag.clone(),
        }
    }
}

/// One stored version of a persona.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// The persona's name.
    pub name: String,
    /// Its number, from 1.
    pub version: u32,
    /// Content digest, in hexadecimal; the same meaning has the same digest. What it builds on does not count.
    pub digest: String,
    /// Whether bindings follow it.
    pub current: bool,
    /// How its text is written.
    pub format: DocumentFormat,
    /// Who stored it.
    pub author: String,
    /// When.
    pub at: Moment,
    /// What the author noted.
    #[serde(default)]
    pub note: Option<String>,
    /// How far the current version has come; absent where it is with every domain that follows it, and for others.
    #[serde(default)]
    pub rollout: Option<RolloutView>,
}

/// How far a changed persona has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Whether it goes on.
    pub state: RolloutState,
    /// The name of the domain whose turn it is.
    #[serde(default)]
    pub at: Option<String>,
    /// The names of the domains that it has not reached.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// Where and why it stopped, as a sentence.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Whether a rollout goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// From domain to domain.
    Going,
    /// It stopped at the first failure.
    Stopped,
}

/// One stored version with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentView {
    /// The version.
    #[serde(flatten)]
    pub version: VersionView,
    /// Its text, as it was given.
    pub document: String,
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentFormat {
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
    /// TOML 1.1.
    Toml,
}

impl DocumentFormat {
    /// How a text is written whose file name does not say.
    pub fn of_text(text: &[u8]) -> Self {
        persona::Format::of_text(text).into()
    }
}

impl From<DocumentFormat> for persona::Format {
    fn from(format: DocumentFormat) -> Self {
        match format {
            DocumentFormat::Yaml => Self::Yaml,
            DocumentFormat::Json => Self::Json,
            DocumentFormat::Toml => Self::Toml,
        }
    }
}

impl From<persona::Format> for DocumentFormat {
    fn from(format: persona::Format) -> Self {
        match format {
            persona::Format::Yaml => Self::Yaml,
            persona::Format::Json => Self::Json,
            persona::Format::Toml => Self::Toml,
        }
    }
}

/// What became of a document that was to be stored, or of a version that was to be made current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredView {
    /// The persona's name.
    pub name: String,
    /// The version that is current now.
    pub version: u32,
    /// Its content digest, in hexadecimal.
    pub digest: String,
    /// Whether anything changed.
    pub change: Change,
    /// Warnings about the document.
    #[serde(default)]
    pub warnings: Vec<ProblemView>,
}

/// Whether a command changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It did.
    Changed,
    /// All was as asked already.
    Unchanged,
}

/// A problem of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// How bad it is.
    pub severity: Severity,
    /// The stable word for this kind of problem.
    pub kind: String,
    /// What is wrong.
    pub message: String,
    /// The document that has it, where it is another than the one that was given: a base, an override.
    #[serde(default)]
    pub document: Option<String>,
    /// Line in the document, from 1.
    pub line: u32,
    /// Column in that line, in characters, from 1.
    pub column: u32,
    /// How many characters are meant.
    pub length: u32,
    /// What to do about it.
    #[serde(default)]
    pub help: Option<String>,
}

impl From<&persona::Problem> for ProblemView {
    fn from(problem: &persona::Problem) -> Self {
        let kind = match serde_json::to_value(problem.kind) {
            Ok(serde_json::Value::String(word)) => word,
            // Every kind serialises as a word.
            _ => String::new(),
        };
        Self {
            severity: match problem.severity {
                persona::Severity::Error => Severity::Error,
                persona::Severity::Warning => Severity::Warning,
            },
            kind,
            message: problem.message.clone(),
            document: problem.document.clone(),
            line: problem.span.line,
            column: problem.span.column,
            length: problem.span.length,
            help: problem.help.clone(),
        }
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is accepted.
    Warning,
}

/// What a tag means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingView {
    /// The tag.
    pub tag: String,
    /// The persona that a domain with this tag gets; none where the tag means an override.
    #[serde(default)]
    pub persona: Option<String>,
    /// The digest, in hexadecimal, of the override that is laid over the persona of a domain with this tag; none where the
    /// tag means a persona.
    #[serde(default, rename = "override")]
    pub fragment: Option<String>,
    /// Where a domain has several mapped tags, the persona of the highest priority wins, and overrides are laid over it
    /// by rising priority.
    pub priority: i32,
    /// Names of the domains that have the tag.
    #[serde(default)]
    pub domains: Vec<String>,
}
