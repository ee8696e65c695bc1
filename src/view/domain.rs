//! A domain as readers see it: what it has, why, and how well that is known. Filled by `daemon/`, shown by
//! `virt-persona status` and the bus interface `Domain`.

use persona::domain::DomainId;
use persona::rule::Knob;
use persona::signal::{Source, Unit};
use persona::units::{Bytes, Moment};
use serde::{Deserialize, Serialize};

use super::ProposalView;
use crate::hypervisor::RunState;

/// One domain at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainView {
    /// Its UUID.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// The hypervisor's number of the running instance.
    #[serde(default)]
    pub instance: Option<u32>,
    /// Whether it runs.
    pub state: RunState,
    /// Its tags, in the order of its metadata.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The persona that it is bound to.
    #[serde(default)]
    pub persona: Option<BoundPersona>,
    /// How far that persona has come in the guest.
    pub activation: ActivationView,
    /// Its vCPUs.
    #[serde(default)]
    pub vcpus: VcpuView,
    /// Its memory.
    #[serde(default)]
    pub memory: MemoryView,
    /// The agent in it.
    pub agent: AgentView,
    /// The latest value of each metric that it has ever had.
    #[serde(default)]
    pub readings: Vec<ReadingView>,
    /// The latest decision that changed it or tried to.
    #[serde(default)]
    pub last_decision: Option<DecisionView>,
    /// Resources that are left as a person set them.
    #[serde(default)]
    pub holds: Vec<HoldView>,
    /// What waits for a person's word, or was approved and is not done yet.
    #[serde(default)]
    pub proposals: Vec<ProposalView>,
    /// Weight, cap and limits that are other than before, or than somebody wants.
    #[serde(default)]
    pub limits: Vec<LimitView>,
    /// What is wrong, each a sentence that a person can act on.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// The persona that a domain is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPersona {
    /// Its name.
    pub name: String,
    /// The version in force.
    pub version: u32,
    /// The digest of what that version means with all that is below and above it, in hexadecimal.
    pub digest: String,
    /// Why the domain has this persona.
    pub origin: Origin,
    /// The tag, where the origin is a tag.
    #[serde(default)]
    pub tag: Option<String>,
    /// The rule that gave it, where the origin is a shift.
    #[serde(default)]
    pub rule: Option<String>,
    /// The version that has the rule, as `NAME@VERSION`, where the origin is a shift.
    #[serde(default)]
    pub shifted_from: Option<String>,
    /// Whether the binding stays at this version when the persona gets another.
    pub pinned: bool,
    /// The generation of the activation; a higher one is later.
    pub generation: u64,
    /// The versions that it builds on, as `NAME@VERSION`, the lowest first.
    #[serde(default)]
    pub bases: Vec<String>,
    /// The tags whose overrides are laid over it, the lowest first.
    #[serde(default)]
    pub overrides: Vec<String>,
}

/// Why a domain has its persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person applied it.
    Applied,
    /// A tag of the domain maps to it.
    Tag,
    /// It is the default persona, and no tag maps.
    Default,
    /// A rule of the persona before it gave it.
    Shift,
}

/// How far an activation has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationView {
    /// The state.
    pub state: ActivationState,
    /// More about the state, as a sentence: why it failed, what it waits for.
    #[serde(default)]
    pub detail: Option<String>,
    /// Since when it is in this state.
    #[serde(default)]
    pub since: Option<Moment>,
}

/// The states of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationState {
    /// No persona is to be active.
    None,
    /// It is recorded and not sent to the guest yet.
    Pending,
    /// It waits for the agent to connect; what needs no agent is in force already.
    WaitingForAgent,
    /// The guest is at it.
    Sent,
    /// The guest has confirmed it.
    Active,
    /// The guest could not do it; the detail says why.
    Failed,
    /// The guest is being asked to give the persona up.
    Deactivating,
}

/// vCPUs of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuView {
    /// The least that the persona allows.
    #[serde(default)]
    pub persona_min: Option<u32>,
    /// The most that the persona allows.
    #[serde(default)]
    pub persona_max: Option<u32>,
    /// The most that the domain's definition allows.
    #[serde(default)]
    pub domain_max: Option<u32>,
    /// What the daemon asked for last.
    #[serde(default)]
    pub requested: Option<u32>,
    /// What the hypervisor has plugged.
    #[serde(default)]
    pub plugged: Option<u32>,
    /// What the guest shows as online.
    #[serde(default)]
    pub guest: Option<u32>,
}

/// Memory of a domain, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryView {
    /// The least that the persona allows.
    #[serde(default)]
    pub persona_min: Option<Bytes>,
    /// The most that the persona allows.
    #[serde(default)]
    pub persona_max: Option<Bytes>,
    /// The most that the domain's devices can give.
    #[serde(default)]
    pub domain_max: Option<Bytes>,
    /// What the daemon asked for last.
    #[serde(default)]
    pub requested: Option<Bytes>,
    /// What the hypervisor says the guest has.
    #[serde(default)]
    pub plugged: Option<Bytes>,
    /// What the guest shows as its total.
    #[serde(default)]
    pub guest: Option<Bytes>,
    /// How its memory is changed.
    #[serde(default)]
    pub mechanism: Option<MemoryMechanism>,
}

/// How a domain's memory is changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryMechanism {
    /// The requested size of a virtio-mem device.
    VirtioMem,
    /// The target of the balloon device.
    Balloon,
    /// It cannot be changed while the domain runs.
    None,
}

/// The agent in a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Whether it can be talked to.
    pub state: AgentState,
    /// Its version, as it says.
    #[serde(default)]
    pub version: Option<String>,
    /// How long ago it was last heard, in milliseconds.
    #[serde(default)]
    pub last_seen_ms: Option<u64>,
}

/// Whether an agent can be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// The domain has no channel for it.
    NoChannel,
    /// The channel is there and nobody answers.
    Absent,
    /// It answers.
    Connected,
    /// It was connected and has stopped to answer.
    Unresponsive,
    /// It speaks, but breaks the protocol or its limits, so it is not listened to.
    Misbehaving,
}

/// The latest value of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadingView {
    /// The metric's name in rules, `cpu.utilization`.
    pub metric: String,
    /// The value, in `unit`; absent when it is not known.
    #[serde(default)]
    pub value: Option<f64>,
    /// The kind of quantity.
    pub unit: Unit,
    /// Who claims it.
    #[serde(default)]
    pub source: Option<Source>,
    /// How old it is, in milliseconds.
    #[serde(default)]
    pub age_ms: Option<u64>,
}

/// A decision that changed a domain or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// When.
    pub at: Moment,
    /// What is changed.
    pub resource: Resource,
    /// The rule that wanted it, by name; absent where a bound or a person did.
    #[serde(default)]
    pub rule: Option<String>,
    /// The amount before: vCPUs or bytes.
    #[serde(default)]
    pub from: Option<u64>,
    /// The amount decided: vCPUs or bytes.
    pub to: u64,
    /// How it ended; absent while it is under way.
    #[serde(default)]
    pub outcome: Option<OutcomeWord>,
    /// All of it in one sentence.
    pub text: String,
}

/// What is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// vCPUs; amounts are counts.
    Vcpus,
    /// Memory; amounts are bytes.
    Memory,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeWord {
    /// Host and guest show all of it.
    Applied,
    /// Host and guest show some of it.
    Partial,
    /// It was refused; nothing changed.
    Refused,
    /// Whether it took effect is not known.
    Unknown,
}

/// What a hold leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// vCPUs.
    Vcpus,
    /// Memory.
    Memory,
    /// CPU weight and cap, network bandwidth and the limits of the disks.
    Limits,
}

/// A resource that is left alone, or limits that are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// Which.
    pub resource: Held,
    /// Why, as a sentence.
    pub reason: String,
    /// Until when; absent when it has no end of its own.
    #[serde(default)]
    pub until: Option<Moment>,
}

/// A limit of a domain beside its vCPUs and memory. Values are texts with their units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// Which.
    pub limit: Knob,
    /// What is in force.
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
    /// A change by hand is respected until then.
    #[serde(default)]
    pub held_until: Option<Moment>,
}
