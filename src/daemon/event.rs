//! Everything that can wake the daemon's one task. Closed: what is not here cannot change its state.

use planner::{LimitStep, Step};

use crate::act::Outcome;
use crate::act::limit::LimitOutcome;
use crate::agent::AgentEvent;
use crate::command::Request;
use crate::hypervisor::{
    DomainDescription, DomainId, DomainStats, HostFacts, HypervisorError, HypervisorEvent,
};

use super::adopt::Adopting;
use super::exec::Executed;
use super::guest_calls::CallAnswered;
use super::guest_rules::RecordsFetched;
use super::personas::ActivationResult;
use super::stand_in::{StandInLook, StoodIn};
use super::tags::TagsWritten;

/// When something was asked, counted in steps that had ended by then: an answer from before the end of a step of a
/// domain describes a machine that is no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked(pub(super) u64);

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
    Domains(Asked, Result<Vec<DomainDescription>, HypervisorError>),
    /// One domain was asked for.
    Described(
        DomainId,
        Asked,
        Box<Result<DomainDescription, HypervisorError>>,
    ),
    /// The bulk figures were asked for.
    Stats(Result<Vec<(DomainId, DomainStats)>, HypervisorError>),
    /// An agent, or its channel, tells something.
    Agent(DomainId, AgentEvent),
    /// A guest has said that it is in need: a plan is due before the next tick.
    Needed,
    /// A step has ended, and this is how the hypervisor describes the domain after it, where it could be asked.
    Acted(Box<Outcome>, Option<Box<DomainDescription>>),
    /// The task that carried out a step died, so nothing is known.
    ActLost(Box<Step>),
    /// A turn of a knob has ended; otherwise as `Acted`.
    Limited(Box<LimitOutcome>, Option<Box<DomainDescription>>),
    /// The task that carried out a turn died, so nothing is known.
    LimitLost(Box<LimitStep>),
    /// A guest was asked to activate or deactivate a persona.
    Activated(Box<ActivationResult>),
    /// qemu-guest-agent was asked in place of our own agent.
    StoodIn(Box<StoodIn>),
    /// qemu-guest-agent was asked for a guest's CPUs.
    StandInLooked(StandInLook),
    /// The status element of a domain was written.
    StatusWritten(DomainId, Result<(), HypervisorError>),
    /// Tags were written because somebody asked for it.
    TagsWritten(Box<TagsWritten>),
    /// A domain's definition was read, or changed, because somebody asked for it.
    Adoption(Box<Adopting>),
    /// A guest was asked to do what a rule calls for.
    GuestCalled(Box<CallAnswered>),
    /// A guest was asked what its rules did.
    RuleRecords(Box<RecordsFetched>),
    /// A command in a guest has ended.
    Executed(Box<Executed>),
    /// Somebody asks for something.
    Request(Box<Request>),
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}
