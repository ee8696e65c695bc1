//! What readers see: immutable shapes that the daemon publishes and the bus and the command line show. They are the
//! documented `--json` shapes, so a field may be added, but none is renamed, retyped or given another meaning.
//!
//! Nothing is computed here. The daemon fills these types (`daemon/` alone), `bus/` and `cli/` read them. What is not
//! known is `None` and appears as `null`, never as 0. Sizes are bytes, moments are milliseconds since the Unix epoch,
//! ages and durations are milliseconds.

use std::collections::BTreeMap;

use persona::domain::DomainId;

use crate::command::{DomainName, Noun, Refusal};

pub use self::adopt::{AdoptionLine, AdoptionState, AdoptionView, AdoptionWhen};
pub use self::catalog::{
    Change, DocumentFormat, DocumentView, EffectiveValueView, EffectiveView, FragmentView,
    MappedView, MappingView, OriginView, PersonaView, ProblemView, RolloutState, RolloutView,
    Severity, StoredView, VersionView,
};
pub use self::domain::{
    ActivationState, ActivationView, AgentState, AgentView, BoundPersona, DecisionView, DomainView,
    Held, HoldView, LimitView, MemoryMechanism, MemoryView, Origin, OutcomeWord, ReadingView,
    Resource, VcpuView,
};
pub use self::effect::{EffectView, StatusView};
pub use self::execution::{ExecutionEndView, ExecutionLine, HeldBy, Refuser};
pub use self::explain::{
    ActionView, AppliedView, ClampView, ExplainView, LimitActionView, LimitLineView, LookedView,
    PlanLine, PlanView, ResourceView, RuleState, RuleView, TruthWord,
};
pub use self::host::{
    CheckState, CheckView, DoctorView, HostState, HostView, HypervisorState, HypervisorView,
    ManagerView, RetiredView,
};
pub use self::proposal::{ProposalState, ProposalView, SampleView};
pub use self::record::{AuditRecordView, AuditView};

mod adopt;
mod catalog;
mod domain;
mod effect;
mod execution;
mod explain;
mod host;
mod proposal;
mod record;

/// All that a reader may look at without asking, at one moment. The daemon publishes a whole one after each tick and
/// after each change, and publishes the one that shows a change before it answers the command that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The daemon itself and its host.
    pub manager: ManagerView,
    /// Every domain that the hypervisor defines, as far as `listing` says.
    pub domains: BTreeMap<DomainId, DomainView>,
    /// Whether the hypervisor has said which domains there are.
    pub listing: Listing,
    /// Every stored persona, by name.
    pub personas: BTreeMap<String, PersonaView>,
    /// What each tag means, by tag.
    pub mappings: Vec<MappingView>,
}

/// Whether the hypervisor has said, since the daemon began, which domains there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Not yet, so that a domain that is not in the view may exist all the same.
    #[default]
    Awaited,
    /// It has.
    Complete,
}

impl View {
    /// A domain with what its persona's rules have done.
    pub fn status(&self, domain: &DomainView) -> StatusView {
        let bound = domain.persona.as_ref();
        let persona = bound.and_then(|bound| self.personas.get(&bound.name));
        StatusView {
            domain: domain.clone(),
            effects: persona.map_or_else(Vec::new, |persona| persona.effects.clone()),
        }
    }

    /// A view of a daemon that has seen nothing yet.
    pub fn empty(manager: ManagerView) -> Self {
        Self {
            manager,
            domains: BTreeMap::new(),
            listing: Listing::Awaited,
            personas: BTreeMap::new(),
            mappings: Vec::new(),
        }
    }

    /// The domain that a person means, by number, UUID or name, in this order, as `virsh` does.
    ///
    /// # Errors
    /// As of [`no_such_domain`].
    pub fn domain_named(&self, name: &DomainName) -> Result<&DomainView, Refusal> {
        let wanted = name.0.as_str();
        let by_number = || {
            let number = wanted.parse::<u32>().ok()?;
            self.domains.values().find(|d| d.instance == Some(number))
        };
        let by_uuid = || self.domains.get(&DomainId::parse(wanted)?);
        let by_name = || self.domains.values().find(|d| d.name == wanted);
        by_number()
            .or_else(by_uuid)
            .or_else(by_name)
            .ok_or_else(|| {
                let names = self.domains.values().map(|d| d.name.as_str());
                no_such_domain(wanted, names, self.listing, &self.manager.hypervisor)
            })
    }

    /// What waits for a person's word, or was approved and is not done yet.
    pub fn proposals(&self) -> impl Iterator<Item = &ProposalView> {
        self.domains.values().flat_map(|domain| &domain.proposals)
    }

    /// The persona of this name.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] with the nearest name, where there is one.
    pub fn persona_named(&self, name: &str) -> Result<&PersonaView, Refusal> {
        self.personas.get(name).ok_or_else(|| Refusal::NotFound {
            what: Noun::Persona,
            name: name.to_owned(),
            nearest: nearest(name, self.personas.keys().map(String::as_str)),
        })
    }
}

/// What is said of a domain that is not among those that are known: [`Refusal::NotFound`] with the nearest name only where
/// the hypervisor has said which there are, [`Refusal::Busy`] while it is being asked, and [`Refusal::Refused`] where it
/// cannot be.
pub fn no_such_domain<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    listing: Listing,
    hypervisor: &HypervisorView,
) -> Refusal {
    match (listing, &hypervisor.detail) {
        (Listing::Complete, _) => Refusal::NotFound {
            what: Noun::Domain,
            name: wanted.to_owned(),
            nearest: nearest(wanted, names),
        },
        (Listing::Awaited, None) => Refusal::Busy {
            reason: format!(
                "the daemon has just started and {} has not told yet which domains there are",
                hypervisor.uri
            ),
        },
        (Listing::Awaited, Some(detail)) => Refusal::Refused {
            reason: format!(
                "whether there is a domain `{wanted}` is not known, because there is no connection to {}: {detail}",
                hypervisor.uri
            ),
        },
    }
}

/// The name that is nearest to the one that does not exist, where one is near at all: a slip for every three letters,
/// where two letters in the wrong order are one slip.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let slips = (wanted.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= slips)
        .min()
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_said_not_to_exist_only_where_that_is_known() {
        let mut hypervisor = HypervisorView {
            state: HypervisorState::Disconnected,
            uri: "qemu:///system".to_owned(),
            library: None,
            emulator: None,
            detail: None,
        };
        let said = |listing, hypervisor: &HypervisorView| {
            no_such_domain("wbe", ["web"], listing, hypervisor).to_string()
        };
        assert_eq!(
            said(Listing::Complete, &hypervisor),
            "there is no domain `wbe`; did you mean `web`?"
        );
        assert_eq!(
            said(Listing::Awaited, &hypervisor),
            "the daemon has just started and qemu:///system has not told yet which domains there are; try again in a moment"
        );
        hypervisor.detail = Some("connection refused".to_owned());
        assert_eq!(
            said(Listing::Awaited, &hypervisor),
            "whether there is a domain `wbe` is not known, because there is no connection to qemu:///system: connection refused"
        );
    }

    #[test]
    fn a_suggestion_is_a_name_that_is_near() {
        let names = ["web", "database", "ci-runner"];
        assert_eq!(nearest("wbe", names), Some("web".to_owned()));
        assert_eq!(nearest("databse", names), Some("database".to_owned()));
        assert_eq!(nearest("xyzzy", names), None);
    }
}
