//! What readers see: immutable shapes that the daemon publishes and the bus and the command line show. They are the
//! documented `--json` shapes, so a field may be added, but none is renamed, retyped or given another meaning.
//!
//! Nothing is computed here. The daemon fills these types (`daemon/` alone), `bus/` and `cli/` read them. What is not
//! known is `None` and appears as `null`, never as 0. Sizes are bytes, moments are milliseconds since the Unix epoch,
//! ages and durations are milliseconds.

use std::collections::BTreeMap;

use persona::domain::DomainId;

pub use self::catalog::{
    Change, DocumentFormat, DocumentView, MappingView, PersonaView, ProblemView, Severity,
    StoredView, VersionView,
};
pub use self::domain::{
    ActivationState, ActivationView, AgentState, AgentView, BoundPersona, DecisionView, DomainView,
    HoldView, MemoryMechanism, MemoryView, Origin, OutcomeWord, ReadingView, Resource, VcpuView,
};
pub use self::explain::{
    ActionView, AppliedView, ClampView, ExplainView, LookedView, PlanLine, PlanView, ResourceView,
    RuleState, RuleView, TruthWord,
};
pub use self::host::{
    CheckState, CheckView, DoctorView, HostView, HypervisorState, HypervisorView, ManagerView,
};
pub use self::record::{AuditRecordView, AuditView};

mod catalog;
mod domain;
mod explain;
mod host;
mod record;

/// All that a reader may look at without asking, at one moment. The daemon publishes a whole one after each tick and
/// after each change, and publishes the one that shows a change before it answers the command that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The daemon itself and its host.
    pub manager: ManagerView,
    /// Every domain that the hypervisor defines.
    pub domains: BTreeMap<DomainId, DomainView>,
    /// Every stored persona, by name.
    pub personas: BTreeMap<String, PersonaView>,
    /// What each tag means, by tag.
    pub mappings: Vec<MappingView>,
}

impl View {
    /// A view of a daemon that has seen nothing yet.
    pub fn empty(manager: ManagerView) -> Self {
        Self {
            manager,
            domains: BTreeMap::new(),
            personas: BTreeMap::new(),
            mappings: Vec::new(),
        }
    }
}
