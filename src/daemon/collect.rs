//! What the agent of a domain is asked to collect: the parts of its reports that the persona in force allows and its rules
//! need. The wish goes with the link; what comes without being wanted is left out in `tracked`.

use agent_protocol::{Part, Parts};
use persona::{LearningDomain, Persona};

/// The parts of reports under a persona; without one what an agent reports by itself.
pub(super) fn parts(persona: Option<&Persona>) -> Parts {
    let Some(persona) = persona else {
        return Parts::default();
    };
    let collected = persona.collected();
    collected
        .into_iter()
        .filter_map(|domain| match domain {
            LearningDomain::NetworkTraffic => Some(Part::Network),
            LearningDomain::SystemLogs => Some(Part::Logs),
            LearningDomain::ApplicationCalls => Some(Part::Applications),
            LearningDomain::Processes => Some(Part::Processes),
            LearningDomain::Disk => Some(Part::Disk),
            LearningDomain::Cpu => Some(Part::Cpu),
            // It is always there.
            LearningDomain::Memory => None,
        })
        .collect()
}
