//! The digest of a persona's meaning. Two documents that mean the same have the same digest, whatever their format,
//! style and order of keys; two that differ in meaning differ. The catalogue tells versions apart by it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::document::{Node, Value};
use crate::model::{
    ApplicationSettings, BaseConfiguration, BehavioralSettings, CostTolerance, DecayRate,
    EnvironmentValue, ExternalSource, LearningDomain, LifecycleExpectations, OsSettings,
    PerformancePoint, Persona, PersonaName, PriorityMetrics, Reference, Script, SecurityProfile,
    Software, TrustLevels,
};
use crate::rule::{Action, Condition};
use crate::signal::Source;

/// SHA-256 in lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest of a text as it stands, byte by byte.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            hex.push_str(&format!("{byte:02x}"));
        }
        Self(hex)
    }

    /// The first twelve digits, for tables.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What counts, in a fixed order. Absent parts are left out, so a key that the language gains later leaves the
/// digests of documents without it as they are. Where a rule stands in the file does not count; its order does,
/// because the earlier of two equal rules wins.
#[derive(Serialize)]
struct Meaning<'a> {
    name: &'a PersonaName,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default_persona: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    extends: &'a [Reference],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_switches: &'a [PersonaName],
    #[serde(skip_serializing_if = "Option::is_none")]
    functional_role: Option<&'a str>,
    base: &'a BaseConfiguration,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    software: &'a [Software],
    #[serde(skip_serializing_if = "PriorityMetrics::is_empty")]
    priorities: &'a PriorityMetrics,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metric_groups: &'a BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learning: Option<&'a [LearningDomain]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decay: Option<DecayRate>,
    rules: Vec<RuleMeaning<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    responses: &'a BTreeMap<String, Vec<Action>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    response_scripts: &'a BTreeMap<String, Script>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sources: BTreeMap<&'a str, &'a ExternalSource>,
    environment: BTreeMap<&'a str, &'a str>,
    /// Which of the variables are secret; their values stand among the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_activation: Option<&'a Script>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_activation: Option<&'a Script>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    command_overrides: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    restricted_commands: &'a [String],
    #[serde(skip_serializing_if = "OsSettings::is_empty")]
    os_settings: &'a OsSettings,
    #[serde(skip_serializing_if = "ApplicationSettings::is_empty")]
    application_settings: &'a ApplicationSettings,
    #[serde(skip_serializing_if = "BehavioralSettings::is_empty")]
    behavioral_settings: &'a BehavioralSettings,
    trust: &'a TrustLevels,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    performance_profile: &'a [PerformancePoint],
    #[serde(skip_serializing_if = "Option::is_none")]
    security_profile: Option<&'a SecurityProfile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle: Option<&'a LifecycleExpectations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'a CostTolerance>,
}

#[derive(Serialize)]
struct RuleMeaning<'a> {
    name: &'a str,
    when: &'a Condition,
    then: &'a [Action],
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'a Condition>,
    cooldown_ms: u128,
    priority: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
}

/// The digest of everything in the persona but the digest itself.
pub(crate) fn digest(persona: &Persona) -> Digest {
    let rules = persona.rules.iter().map(|rule| RuleMeaning {
        name: &rule.name,
        when: &rule.when,
        then: &rule.then,
        until: rule.until.as_ref(),
        cooldown_ms: rule.cooldown.as_millis(),
        priority: rule.priority,
        source: rule.source,
    });
    // Nothing is left out here by oversight: a part that the persona gains does not compile until it is named.
    let Persona {
        name,
        description,
        default_persona,
        extends,
        allowed_switches,
        functional_role,
        base,
        software,
        priorities,
        metric_groups,
        learning,
        decay,
        rules: _,
        responses,
        response_scripts,
        sources,
        environment,
        pre_activation,
        post_activation,
        command_overrides,
        restricted_commands,
        os_settings,
        application_settings,
        behavioral_settings,
        trust,
        performance_profile,
        security_profile,
        lifecycle,
        cost,
        digest: _,
    } = persona;
    let secret = |value: &EnvironmentValue| matches!(value, EnvironmentValue::Secret { .. });
    let meaning = Meaning {
        name,
        description: description.as_deref(),
        default_persona: *default_persona,
        extends,
        allowed_switches,
        functional_role: functional_role.as_deref(),
        base,
        software,
        priorities,
        metric_groups,
        learning: learning.as_deref(),
        decay: *decay,
        rules: rules.collect(),
        responses,
        response_scripts,
        sources: sources
            .iter()
            .map(|source| (source.name.as_str(), source))
            .collect(),
        environment: environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect(),
        secrets: environment
            .iter()
            .filter(|(_, value)| secret(value))
            .map(|(name, _)| name.as_str())
            .collect(),
        pre_activation: pre_activation.as_ref(),
        post_activation: post_activation.as_ref(),
        command_overrides,
        restricted_commands,
        os_settings,
        application_settings,
        behavioral_settings,
        trust,
        performance_profile,
        security_profile: security_profile.as_ref(),
        lifecycle: lifecycle.as_ref(),
        cost: cost.as_ref(),
    };
    // Maps here have text keys and nothing refuses to serialise, so there is always an encoding.
    let encoded = serde_json::to_vec(&meaning).unwrap_or_default();
    Digest::of_bytes(&encoded)
}

/// The digest of a layer's canonical tree: of what is written in it, in whatever order of keys, as what it leaves out
/// is not known. A key that takes a value away counts.
pub(crate) fn of_tree(root: &Node) -> Digest {
    // As above, there is always an encoding; maps of JSON values are sorted.
    let encoded = serde_json::to_vec(&written(root)).unwrap_or_default();
    Digest::of_bytes(&encoded)
}

fn written(node: &Node) -> serde_json::Value {
    match &node.value {
        _ if node.is_empty() => serde_json::Value::Null,
        Value::Plain(text) | Value::Quoted(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(written).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), written(&entry.value)))
            .collect(),
    }
}
