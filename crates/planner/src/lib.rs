//! What to do about a snapshot: `plan(snapshot, state, policy, now) -> Plan`. Pure: no I/O, no clock, no randomness.
//! The daemon builds the [`Snapshot`], calls [`plan()`], hands each [`Step`] to its `act` room, and tells [`State`] how
//! the step ended. Read the modules in this order:
//!
//! ```text
//! snapshot    what was seen: the host, and each domain with its persona and readings
//! state       what is carried from tick to tick: FOR windows, cooldowns, what is in flight, holds, quarantine, use
//! stage       how short the host itself is: plenty, tight, scarce, critical
//! notice      what changed without the daemon's doing: a restart, a hand, a guest that does not follow
//! mechanism   by what memory is changed: usually, by the balloon while a device is stuck, by a DIMM
//! relief      memory that was taken and is missed: what that forbids, and what goes back
//! news        what has happened that no persona has heard of
//! evaluate    rules over readings -> one Decision a resource
//! consent     a guest that refuses to become smaller
//! need        a guest that asks for memory at once
//! guard       Decision -> Decision within bounds, or a refusal with its reason
//! trust       what is done by itself, what is proposed, what is never done
//! proposal    what a person is asked, and what becomes of it
//! propose     the book of what waits for a person
//! offline     CPUs that were taken offline and that something in the guest brings back
//! quota       a cap in the place of a removal of vCPUs that cannot be done
//! limit       knobs, such as the CPU cap: who has the say, and what is turned to which value
//! shift       how soon and how often another persona may be in force
//! restore     what goes back when no persona has the say any more
//! place       where a rule is evaluated: here, or by the agent in the guest
//! peak        the most that was in use lately
//! donate      what a domain could do without
//! arbitrate   all claims on the host's budget -> what each is granted, and what each gives up
//! ledger      what every domain holds, wants and is promised -> its claim
//! others      what a domain claims, kept as a value: the plan of one domain among the claims of others
//! settle      claims -> what is granted and given, as steps, with every limit noted
//! plan        the whole pass, and the steps to take: decreases first
//! report      why: what every rule saw and what bound every decision
//! policy      the planner's own numbers, each with its reason
//! impact      what actions did to the metrics that matter; no stage of a plan looks at it
//! ```
#![forbid(unsafe_code)]

pub mod snapshot;
pub mod stage;
pub mod state;

pub mod consent;
mod evaluate;
mod guard;
pub mod limit;
pub mod mechanism;
pub mod need;
mod news;
pub mod notice;
pub mod offline;
pub mod peak;
pub mod place;
pub mod relief;
pub mod shift;

pub mod arbitrate;
mod donate;
pub mod impact;
mod ledger;
pub mod others;
pub mod plan;
pub mod policy;
pub mod proposal;
pub mod propose;
pub mod quota;
pub mod report;
mod restore;
mod settle;
pub mod trust;

#[cfg(test)]
mod testing;

pub use consent::{Consent, Veto};
pub use limit::{LimitDrift, LimitStep};
pub use mechanism::Means;
pub use need::Heard;
pub use notice::{Drift, Stall};
pub use offline::BackOnline;
pub use others::{Other, Stake};
pub use place::{Place, places};
pub use plan::{Call, Detail, Edge, Plan, Step, plan, plan_among};
pub use policy::Policy;
pub use snapshot::Snapshot;
pub use state::{Ending, State};
