//! Everything that can wake the daemon's one task. Closed: what is not here cannot change its state.

use planner::Step;

use crate::act::Outcome;
use crate::agent::AgentEvent;
use crate::command::Request;
use crate::hypervisor::{
    DomainDescription, DomainId, DomainStats, HostFacts, HypervisorError, HypervisorEvent,
};

use super::personas::ActivationResult;

/// One event.
#[derive(Debug)]
pub enum Event {
    /// Time to look at every domain.
    Tick,
    /// The hypervisor tells something.
    Hypervisor(HypervisorEvent),
    /// What the host has was asked for.
    Host(Result<HostFacts, HypervisorError>),
    /// All domains were asked for.
    Domains(Result<Vec<DomainDescription>, HypervisorError>),
    /// One domain was asked for.
    Described(DomainId, Box<Result<DomainDescription, HypervisorError>>),
    /// The bulk figures were asked for.
    Stats(Result<Vec<(DomainId, DomainStats)>, HypervisorError>),
    /// An agent, or its channel, tells something.
    Agent(DomainId, AgentEvent),
    /// A step has ended.
    Acted(Box<Outcome>),
    /// The task that carried out a step died, so nothing is known.
    ActLost(Box<Step>),
    /// A guest was asked to activate or deactivate a persona.
    Activated(Box<ActivationResult>),
    /// Tags or status of a domain were written.
    MetadataWritten(DomainId, Result<(), HypervisorError>),
    /// Somebody asks for something.
    Request(Box<Request>),
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}
