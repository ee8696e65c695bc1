//! What the actions of a rule did to a metric, as readers see it. Filled by `daemon/impacts`, shown by
//! `virt-persona status` and the bus interface `Persona`. Advisory: nothing is decided by it.

use persona::signal::Unit;
use serde::{Deserialize, Serialize};

use super::DomainView;

/// One metric under the actions of one rule, over all domains that follow the persona.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectView {
    /// The rule.
    pub rule: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: Unit,
    /// How many actions were measured.
    pub actions: u32,
    /// The mean of a minute before them.
    pub before: f64,
    /// By how much the mean of a minute after them is higher; negative where it is lower.
    pub change: f64,
    /// The true change lies within so much of `change` with 95 percent confidence; absent after a single action.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Percent of confidence that the metric rises or falls at all: 80, 90, 95 or 99; absent below.
    #[serde(default)]
    pub confidence: Option<u32>,
}

/// A domain with what the rules of its persona have done so far, on this domain and on others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The domain.
    #[serde(flatten)]
    pub domain: DomainView,
    /// What actions did.
    #[serde(default)]
    pub effects: Vec<EffectView>,
}
