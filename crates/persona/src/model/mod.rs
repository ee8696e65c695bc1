//! The persona as a value: what a domain may grow to, how it adapts, what is activated in it. Immutable once loaded;
//! how it is read is in `read`, what must hold between its values in `validate`. Every other crate reads these types.

mod base;
mod collected;
mod feed;
mod guest;
mod name;
mod preference;
mod priority;
mod profile;
mod script;
mod trust;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;
use crate::rule::{Action, Rule};

pub use base::{BaseConfiguration, CpuBounds, DiskLimits, MemoryBounds};
pub(crate) use feed::host_of;
pub use feed::{ExternalSource, FeedFormat};
pub use guest::{
    ApplicationSettings, BehavioralSettings, Constraint, EnvironmentValue, Frequency, LoggingLevel,
    OsSettings, Relation, Secret, Setting, Software,
};
pub use name::{PersonaName, PersonaNameError, Reference, ReferenceError};
pub use preference::Preference;
pub use priority::{DecayRate, LearningDomain, PriorityMetrics};
pub use profile::{
    CostTolerance, Endpoint, LifecycleExpectations, Need, PerformancePoint, Protocol, Scaling,
    SecurityProfile,
};
pub use script::{OnFailure, Script};
pub use trust::{Class, Level, TrustLevels};

/// One persona, valid in itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Persona {
    /// Unique in the catalogue.
    pub name: PersonaName,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a new domain that no tag maps gets it.
    pub default_persona: bool,
    /// The personas that it builds on, the later over the earlier. Empty in an effective persona, which holds them all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extends: Vec<Reference>,
    /// What a user of the guest may switch to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_switches: Vec<PersonaName>,
    /// What the machine is for, in the owner's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functional_role: Option<String>,
    /// Bounds and limits of the resources that the persona manages.
    pub base: BaseConfiguration,
    /// Packages that are to be in the guest, in the order of the document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub software: Vec<Software>,
    /// What matters most, as weights.
    #[serde(skip_serializing_if = "PriorityMetrics::is_empty")]
    pub priorities: PriorityMetrics,
    /// What a name of `priority_metrics` that is no metric stands for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metric_groups: BTreeMap<String, Vec<String>>,
    /// What may be collected in the guest and learnt from; `None` where the document is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<Vec<LearningDomain>>,
    /// How fast what was learnt is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<DecayRate>,
    /// How the machine adapts: adaptation rules, triggers, rules of external sources, in the order of the document.
    pub rules: Vec<Rule>,
    /// Lists of actions that `respond` calls.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub responses: BTreeMap<String, Vec<Action>>,
    /// Scripts that `run` starts in the guest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub response_scripts: BTreeMap<String, Script>,
    /// External sources of data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<ExternalSource>,
    /// Variables that are set in the guest.
    pub environment: BTreeMap<String, EnvironmentValue>,
    /// Runs in the guest before anything else of an activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_activation: Option<Script>,
    /// Runs in the guest when the rest of an activation is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_activation: Option<Script>,
    /// Commands that run something else: name to absolute path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub command_overrides: BTreeMap<String, String>,
    /// Commands that are refused, by name, in alphabetical order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restricted_commands: Vec<String>,
    /// Settings of the guest's operating system.
    #[serde(skip_serializing_if = "OsSettings::is_empty")]
    pub os_settings: OsSettings,
    /// Settings of applications.
    #[serde(skip_serializing_if = "ApplicationSettings::is_empty")]
    pub application_settings: ApplicationSettings,
    /// Habits of the guest.
    #[serde(skip_serializing_if = "BehavioralSettings::is_empty")]
    pub behavioral_settings: BehavioralSettings,
    /// How far the daemon may go by itself, for each class of action.
    pub trust: TrustLevels,
    /// Predicted need over the day, by time of day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub performance_profile: Vec<PerformancePoint>,
    /// Access, sensitivity and connections that the machine needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_profile: Option<SecurityProfile>,
    /// How long and how reliably it is to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleExpectations>,
    /// What it may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostTolerance>,
    /// The digest of the meaning of all of the above.
    pub digest: Digest,
}

impl Persona {
    /// What a rule does, with what its `respond` actions stand for in their place.
    pub fn actions<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a Action> {
        rule.then.iter().flat_map(|action| self.spelt_out(action))
    }

    fn spelt_out<'a>(&'a self, action: &'a Action) -> &'a [Action] {
        match action {
            // A response calls no other response; the document reader sees to that.
            Action::Respond(name) => self.responses.get(name).map_or(&[], Vec::as_slice),
            _ => std::slice::from_ref(action),
        }
    }
}
