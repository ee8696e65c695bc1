//! What is remembered of a generation, and how far an operation that is under way has come: the words of the files, with what
//! follows from them. The store reads and writes them.

use std::collections::{BTreeMap, BTreeSet};

use agent_protocol::{
    Activation, RequestId, RolledBack, ScriptResult, SettingLine,
    message::{Active, ReplyError},
};
use serde::{Deserialize, Serialize};

use crate::{
    customize::{Customization, Key, laid_over},
    setting::{Holding, Owned, Plan, SoftwarePlan},
};

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// Under way, or cut off.
    Prepared,
    /// It was made active.
    Activated,
    /// It made the guest have no persona.
    Deactivated,
    /// It failed; what was before stayed or came back.
    Failed,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) generation: u64,
    pub(crate) fate: Fate,
    pub(crate) request: RequestId,
    /// Seconds since 1970 by the guest's clock, for people.
    pub(crate) at_unix_s: u64,
    /// Absent in a deactivation.
    pub(crate) activation: Option<Activation>,
    #[serde(default)]
    pub(crate) pre: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) post: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) error: Option<ReplyError>,
    /// What of the guest is held once this generation is.
    #[serde(default)]
    pub(crate) held: Vec<Holding>,
    /// Variables that come of settings.
    #[serde(default)]
    pub(crate) defaults: BTreeMap<String, String>,
    /// What came of the settings.
    #[serde(default)]
    pub(crate) settings: Vec<SettingLine>,
    /// That this is an earlier generation which somebody in the guest went back to; `generation` stays the host's.
    #[serde(default)]
    pub(crate) rollback: Option<Rollback>,
    /// Packages that are there because of this generation or an earlier one.
    #[serde(default)]
    pub(crate) software: Owned,
    /// All that is customised in this guest, under whatever persona.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) own: Vec<Customization>,
    /// What of it is laid over this generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) overlay: Vec<Customization>,
}

/// A return to an earlier generation by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rollback {
    /// Which.
    pub(crate) to: u64,
    /// What the host made active, and believes to be.
    pub(crate) instead_of: Option<Active>,
}

impl Record {
    /// What holds in this generation: what the host asked for, with what is customised laid over it.
    pub(crate) fn wanted(&self) -> Option<Activation> {
        let activation = self.activation.as_ref()?;
        Some(laid_over(activation, &self.overlay))
    }

    /// The variables that hold in this generation: the persona's own go before those that come of settings.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let mut variables = self.defaults.clone();
        if let Some(wanted) = self.wanted() {
            variables.extend(wanted.environment);
        }
        for own in &self.overlay {
            if let (Key::Variable(name), None) = (&own.key, &own.value) {
                variables.remove(name);
            }
        }
        variables
    }

    /// The persona that the host made active in this generation.
    pub(crate) fn active(&self) -> Option<Active> {
        if let Some(rollback) = &self.rollback {
            return rollback.instead_of.clone();
        }
        let Activation {
            persona,
            version,
            digest,
            ..
        } = self.activation.as_ref()?;
        let (persona, digest) = (persona.clone(), digest.clone());
        Some(Active {
            generation: self.generation,
            persona,
            version: *version,
            digest,
        })
    }
}

impl Record {
    /// What holds instead of what the host made active, in the words of the protocol.
    pub(crate) fn rolled_back(&self) -> Option<RolledBack> {
        let rollback = self.rollback.as_ref()?;
        let activation = self.activation.as_ref();
        Some(RolledBack {
            generation: rollback.to,
            persona: activation.map(|activation| activation.persona.clone()),
            version: activation.map(|activation| activation.version),
        })
    }
}

/// How far the operation under way is. Each step is on disk before its deed is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Prepared,
    PreStarted,
    PreDone,
    SoftwareStarted,
    SettingsStarted,
    EnvironmentStarted,
    EnvironmentDone,
    PostStarted,
    PostDone,
    /// It holds, and what no persona wants any more goes.
    Current,
    RollingBack,
}

/// The operation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) request: RequestId,
    pub(crate) generation: u64,
    pub(crate) step: Step,
    pub(crate) boot_id: String,
    #[serde(default)]
    pub(crate) pre: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) post: Option<ScriptResult>,
    #[serde(default)]
    pub(crate) failure: Option<ReplyError>,
    /// What is done about packages; there from [`Step::SoftwareStarted`] on.
    #[serde(default)]
    pub(crate) software: Option<SoftwarePlan>,
    /// What is done about settings, with how each resource was; there from [`Step::SettingsStarted`] on.
    #[serde(default)]
    pub(crate) settings: Option<Plan>,
    /// What is to hold after an operation that somebody in the guest asked for; those of the host have it in the store.
    #[serde(default)]
    pub(crate) by_hand: Option<Box<Record>>,
    /// Settings that are taken as they are found, whoever made them so: somebody has just said what they shall be.
    #[serde(default)]
    pub(crate) taken: BTreeSet<String>,
}
