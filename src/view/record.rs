//! The audit record as readers see it. Filled by `daemon/` from `audit/`, shown by `virt-persona audit` and `watch`.

use persona::domain::DomainId;
use persona::units::Moment;
use serde::{Deserialize, Serialize};

/// One record of what was decided or done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecordView {
    /// Its number; the next record has the next number.
    pub seq: u64,
    /// When.
    pub at: Moment,
    /// The domain that it is about.
    #[serde(default)]
    pub domain: Option<DomainId>,
    /// That domain's name at the time.
    #[serde(default)]
    pub domain_name: Option<String>,
    /// The stable word for its kind, `action`.
    pub kind: String,
    /// All of it in one line.
    pub text: String,
    /// Its data; the shape depends on the kind.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// Records, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    /// The records.
    #[serde(default)]
    pub records: Vec<AuditRecordView>,
}
