//! Why a domain did or did not change, and what an activation would change. Filled by `daemon/` from the planner's
//! report, shown by `virt-persona explain` and `virt-persona apply`.

use persona::domain::DomainId;
use persona::rule::Knob;
use persona::signal::{Source, Unit};
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use super::catalog::OriginView;
use super::domain::{ActivationView, BoundPersona, OutcomeWord, Resource};

/// Why a domain did or did not change in its latest tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// The tick that is explained.
    pub at: Moment,
    /// The whole answer in one sentence.
    pub summary: String,
    /// The persona whose rules were looked at.
    #[serde(default)]
    pub persona: Option<BoundPersona>,
    /// Why the domain does not have what its tags and bindings want, each a sentence.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Each rule of the persona, in its order.
    #[serde(default)]
    pub rules: Vec<RuleView>,
    /// Each resource: what was wanted, what bound it, what came of it.
    #[serde(default)]
    pub resources: Vec<ResourceView>,
    /// Each limit that somebody wants, or that is other than before.
    #[serde(default)]
    pub limits: Vec<LimitLineView>,
}

/// One rule in one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// The rule as text.
    pub text: String,
    /// Its line in the document.
    #[serde(default)]
    pub line: Option<u32>,
    /// The document, with the tag whose override it is.
    #[serde(default)]
    pub origin: Option<OriginView>,
    /// Whether its condition held.
    pub truth: TruthWord,
    /// What the rule did about it.
    pub state: RuleState,
    /// More about the state, as a sentence.
    #[serde(default)]
    pub detail: Option<String>,
    /// What it wanted, as amounts.
    #[serde(default)]
    pub wants: Vec<String>,
    /// What its conditions looked at.
    #[serde(default)]
    pub looked: Vec<LookedView>,
}

/// Three-valued truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruthWord {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Something that it needs is not known.
    Unknown,
}

/// What a rule did in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleState {
    /// Its condition did not hold, or not for long enough yet.
    Quiet,
    /// It wanted its actions.
    Fired,
    /// It would have fired, but its cooldown is not over.
    Cooldown,
    /// It would have fired, but the guard, a hold or another rule stood against it.
    Blocked,
    /// Its effect stands until its `until` condition holds.
    Standing,
    /// Its `until` condition held, so its effect is being undone.
    Undoing,
    /// It is the guest's own: its agent evaluates it.
    InGuest,
}

/// One comparison that a condition made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookedView {
    /// The comparison as text, `cpu.utilization > 80 %`.
    pub comparison: String,
    /// Whether it held.
    pub truth: TruthWord,
    /// The metric, where one single metric was compared.
    #[serde(default)]
    pub metric: Option<String>,
    /// Its value, in `unit`; absent when it is not known.
    #[serde(default)]
    pub value: Option<f64>,
    /// Why there is no value, as a sentence.
    #[serde(default)]
    pub missing: Option<String>,
    /// The kind of quantity.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Who claims the value.
    #[serde(default)]
    pub source: Option<Source>,
    /// How old the value is, in milliseconds.
    #[serde(default)]
    pub age_ms: Option<u64>,
    /// For how long the comparison has held, in milliseconds.
    #[serde(default)]
    pub held_ms: Option<u64>,
    /// For how long it must hold, in milliseconds.
    #[serde(default)]
    pub needs_ms: Option<u64>,
}

/// One resource of a domain in one tick. Amounts are vCPUs or bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Which.
    pub resource: Resource,
    /// What the domain had.
    #[serde(default)]
    pub had: Option<u64>,
    /// What the rules wanted; absent when none wanted a change.
    #[serde(default)]
    pub wanted: Option<u64>,
    /// The limits that changed the amount, in the order in which they were applied.
    #[serde(default)]
    pub clamps: Vec<ClampView>,
    /// What was granted; absent when nothing was asked for.
    #[serde(default)]
    pub granted: Option<u64>,
    /// The action that followed.
    #[serde(default)]
    pub action: Option<ActionView>,
}

/// One limit that changed an amount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClampView {
    /// The stable word for the limit, `persona_max`, `domain_max`, `host_budget`, `step`, `hold`.
    pub by: String,
    /// The amount before.
    pub from: u64,
    /// The amount after.
    pub to: u64,
    /// The limit in one sentence.
    pub sentence: String,
}

/// An action and its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionView {
    /// The amount asked for.
    pub requested: u64,
    /// What the hypervisor showed at the end.
    #[serde(default)]
    pub plugged: Option<u64>,
    /// What the guest showed at the end.
    #[serde(default)]
    pub guest: Option<u64>,
    /// How it ended; absent while it is under way.
    #[serde(default)]
    pub outcome: Option<OutcomeWord>,
    /// All of it in one sentence.
    pub sentence: String,
}

/// A limit of a domain beside its vCPUs and memory in one tick. Values are texts with their units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitLineView {
    /// Which.
    pub limit: Knob,
    /// What was in force.
    pub present: String,
    /// What was in force before the daemon first changed it; absent where it has not.
    #[serde(default)]
    pub original: Option<String>,
    /// What is wanted.
    #[serde(default)]
    pub wanted: Option<String>,
    /// Who wants it, in words.
    #[serde(default)]
    pub by: Option<String>,
    /// What was decided and why, as a sentence.
    pub sentence: String,
    /// The last change that ended.
    #[serde(default)]
    pub action: Option<LimitActionView>,
}

/// How a change of a limit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitActionView {
    /// In a word.
    pub outcome: OutcomeWord,
    /// All of it in one sentence.
    pub sentence: String,
}

/// What an activation would change, found without changing anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// The persona.
    pub persona: String,
    /// Its version.
    pub version: u32,
    /// Each value that the persona determines.
    #[serde(default)]
    pub lines: Vec<PlanLine>,
    /// What would stand against it, each a sentence.
    #[serde(default)]
    pub obstacles: Vec<String>,
}

/// One value that a persona determines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// What it is, `vcpus.max`.
    pub subject: String,
    /// The value in force.
    #[serde(default)]
    pub now: Option<String>,
    /// The value then.
    #[serde(default)]
    pub then: Option<String>,
    /// Where it comes from, `web@3, line 6`.
    pub from: String,
}

/// What became of an activation that was asked for. It goes on after the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedView {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// The persona that the domain is bound to; none after a deactivation that no tag or default replaces.
    #[serde(default)]
    pub persona: Option<BoundPersona>,
    /// How far it has come.
    pub activation: ActivationView,
    /// The generation under which it is carried out.
    pub generation: u64,
}
