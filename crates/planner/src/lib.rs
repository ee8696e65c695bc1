//! What to do about a snapshot: `plan(snapshot, state, policy, now) -> Plan`. Pure: no I/O, no clock, no randomness.
//! The daemon builds the [`Snapshot`], calls [`plan()`], hands each [`Step`] to its `act` room, and tells [`State`] how
//! the step ended. Read the modules in this order:
//!
//! ```text
//! snapshot   what was seen: the host, and each domain with its persona and readings
//! state      what is carried from tick to tick: FOR windows, cooldowns, what is in flight, holds, quarantine
//! evaluate   rules over readings -> one Decision a resource
//! guard      Decision -> Decision within bounds, or a refusal with its reason
//! arbitrate  all growth of all domains -> what each is granted of the host's budget
//! plan       the whole pass, and the steps to take: decreases first
//! report     why: what every rule saw and what bound every decision
//! ```
#![forbid(unsafe_code)]

pub mod snapshot;
pub mod state;

mod evaluate;
mod guard;

pub mod arbitrate;
pub mod plan;
pub mod policy;
pub mod report;

#[cfg(test)]
mod testing;

pub use plan::{Call, Edge, Plan, Step, plan};
pub use policy::Policy;
pub use snapshot::Snapshot;
pub use state::{Ending, State};
