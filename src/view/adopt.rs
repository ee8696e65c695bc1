//! What a domain's definition lacks for live scaling and what became of adding it, as readers see it. Filled by
//! `daemon/`, shown by the bus interface `Domain` and by `virt-persona adopt`.

use persona::domain::DomainId;
use serde::{Deserialize, Serialize};

/// How far an adoption has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdoptionState {
    /// Nothing was changed: it was only asked for.
    Planned,
    /// It is done.
    Done,
    /// There is nothing to do.
    Unchanged,
}

/// When a part takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdoptionWhen {
    /// It is there.
    Already,
    /// At once.
    Now,
    /// At the next start of the domain, which a reboot inside it is not.
    NextStart,
    /// It cannot or shall not be.
    Never,
}

/// An adoption, or its undoing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptionView {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub state: AdoptionState,
    /// Names this plan, so that no other is carried out than the one that was looked at.
    pub plan: String,
    /// Each part.
    #[serde(default)]
    pub lines: Vec<AdoptionLine>,
    /// What else is to be known, each a sentence.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptionLine {
    /// What it is.
    pub subject: String,
    /// What the definition has, or had.
    pub now: String,
    /// What it has then.
    pub then: String,
    /// When.
    pub when: AdoptionWhen,
    /// What it is for, or why it cannot be.
    pub why: String,
}
