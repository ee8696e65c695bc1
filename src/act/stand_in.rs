//! The guest as `act` asks it: by virt-persona's own agent where there is one, and for its CPUs by qemu-guest-agent where
//! there is none. What only the own agent knows is not asked of another.

use std::time::Duration;

use agent_protocol::Resize;
use persona::domain::DomainId;
use persona::units::Bytes;

use super::guest::{Answer, CpusOnline, Guest, GuestAnswer, GuestFault};
use super::sentence_of;
use crate::agent::Registry;
use crate::stand_in::StandIn;

/// The registry of agents, and who is asked where it has none.
pub struct GuestOrStandIn {
    /// The agents.
    pub registry: Registry,
    /// Who stands in.
    pub stand_in: StandIn,
}

impl Guest for GuestOrStandIn {
    fn online_cpus(
        &self,
        domain: DomainId,
        target: u32,
        deadline: Duration,
    ) -> GuestAnswer<'_, CpusOnline> {
        Box::pin(async move {
            let absent = match self.registry.online_cpus(domain, target, deadline).await {
                Err(GuestFault::Absent(words)) => words,
                other => return other,
            };
            // Who has neither agent is to hear of ours.
            if let Err(error) = self.stand_in.cpus(domain).await {
                tracing::debug!(%domain, error = sentence_of(&error), "nobody stands in for the agent");
                return Err(GuestFault::Absent(absent));
            }
            match self.stand_in.online_cpus(domain, target).await {
                Ok(cpus) => Ok(CpusOnline {
                    online: cpus.online,
                    present: cpus.present,
                }),
                Err(error) if error.is_a_refusal_to_switch() => {
                    Err(GuestFault::Refused(sentence_of(&error)))
                }
                Err(error) => Err(GuestFault::Unknown(sentence_of(&error))),
            }
        })
    }

    fn memory_total(&self, domain: DomainId, deadline: Duration) -> GuestAnswer<'_, Bytes> {
        self.registry.memory_total(domain, deadline)
    }

    fn prepare_shrink(
        &self,
        domain: DomainId,
        resize: Resize,
        deadline: Duration,
    ) -> GuestAnswer<'_, Answer> {
        self.registry.prepare_shrink(domain, resize, deadline)
    }

    fn grown(
        &self,
        domain: DomainId,
        resize: Resize,
        deadline: Duration,
    ) -> GuestAnswer<'_, Option<String>> {
        self.registry.grown(domain, resize, deadline)
    }
}
