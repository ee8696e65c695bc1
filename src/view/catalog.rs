//! Personas, their versions and what tags mean, as readers see them. Filled by `daemon/` from the catalogue, shown
//! by `virt-persona list`, `show`, `history` and `maps` and by the bus interface `Persona`.

use persona::units::Moment;
use serde::{Deserialize, Serialize};

/// One stored persona.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonaView {
    /// Its name.
    pub name: String,
    /// What its current version says of itself.
    #[serde(default)]
    pub description: Option<String>,
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
}

/// One stored version of a persona.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// The persona's name.
    pub name: String,
    /// Its number, from 1.
    pub version: u32,
    /// Content digest, in hexadecimal; the same meaning has the same digest.
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
    /// The persona that a domain with this tag gets.
    pub persona: String,
    /// Where a domain has several mapped tags, the highest priority wins.
    pub priority: i32,
    /// Names of the domains that have the tag.
    #[serde(default)]
    pub domains: Vec<String>,
}
