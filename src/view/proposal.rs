//! What waits for a person's word, as readers see it. Filled by `daemon/`, shown by `virt-persona approvals` and
//! `status`, and by the bus interfaces `Manager` and `Domain`.

use persona::domain::DomainId;
use persona::signal::{Source, Unit};
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::Resource;

/// Something that a persona wants done and its trust level lets only be proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposalView {
    /// Its number.
    pub id: u64,
    /// The domain.
    pub domain: DomainId,
    /// The domain's name.
    pub name: String,
    /// The persona.
    pub persona: String,
    /// Its version, where it is the one that the domain is bound to.
    #[serde(default)]
    pub version: Option<u32>,
    /// The rule, by name; absent where it is the base configuration.
    #[serde(default)]
    pub rule: Option<String>,
    /// The trust class.
    pub class: String,
    /// The trust level of that class.
    pub level: String,
    /// What is to be changed, where it is a resource.
    #[serde(default)]
    pub resource: Option<Resource>,
    /// What it is now: vCPUs or bytes.
    #[serde(default)]
    pub from: Option<u64>,
    /// What it shall be.
    #[serde(default)]
    pub to: Option<u64>,
    /// What is to be done once, as the rule says it.
    #[serde(default)]
    pub action: Option<String>,
    /// All of it in one sentence.
    pub text: String,
    /// What it rests on.
    #[serde(default)]
    pub why: Vec<SampleView>,
    /// When it was made.
    pub created: Moment,
    /// When it ends, decided or not.
    pub expires: Moment,
    /// Whether somebody has decided.
    pub state: ProposalState,
    /// Who decided.
    #[serde(default)]
    pub by: Option<String>,
}

/// Whether somebody has decided on a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalState {
    /// Nobody has.
    Open,
    /// It is approved, and is done as soon as every other limit lets it.
    Approved,
    /// It is rejected.
    Rejected,
}

/// A reading that a proposal rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleView {
    /// The comparison.
    pub comparison: String,
    /// The metric.
    pub metric: String,
    /// Its value, in `unit`.
    pub value: f64,
    /// The kind of quantity.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Who says so.
    pub source: Source,
    /// How old it is, in milliseconds.
    pub age_ms: u64,
}
