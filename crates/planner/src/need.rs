//! A guest that asks for memory at once. What it says is a claim: it makes a wish for growth within the persona's bounds,
//! which arbitration treats like any other that rests on a guest's word, so it takes nothing from another. It waits for
//! no rule's window or cooldown, and is paced here instead. The daemon tells of needs; `evaluate` asks for the wish.

use std::collections::VecDeque;
use std::time::Duration;

use persona::Persona;
use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::Source;
use persona::units::{Bytes, Moment};

use crate::evaluate::{BASE_PRIORITY, Wanted, bounds, cooldown_left};
use crate::policy::Policy;
use crate::report::Wish;
use crate::snapshot::Domain;
use crate::state::{DomainState, State};

/// A need and how often there were steps for one. Not stored: it is over before a daemon is back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The one that holds.
    latest: Option<Need>,
    /// When steps for a need began, within the last [`WINDOW`].
    served: VecDeque<Moment>,
}

/// One need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    more: Bytes,
    at: Moment,
    /// The most that was asked for since a need holds, in steps of twice as much: see [`Heard::Repeated`].
    most: Bytes,
}

/// Steps are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// What becomes of a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next plan has a wish for it, and is worth to be made at once.
    Taken,
    /// As before, but one holds already and this one does not ask for twice as much: the plan of the next tick will do. A
    /// guest that says so again and again, or each time a little more, is not worth a plan each time.
    Repeated,
    /// A step for memory is under way; the guest may say so again after it.
    UnderWay,
    /// There were as many steps for needs within the last minute as there may be.
    TooMany,
}

impl State {
    /// A guest says that it needs so much more memory. It holds for [`Policy::need_valid`], or until memory has changed.
    pub fn need(&mut self, domain: DomainId, more: Bytes, policy: &Policy, now: Moment) -> Heard {
        let state = self.domains.entry(domain).or_default();
        if state.memory.in_flight.is_some() {
            return Heard::UnderWay;
        }
        let recent = |at: &&Moment| now.since(**at) < WINDOW;
        if state.needs.served.iter().filter(recent).count() >= policy.needs_a_minute {
            return Heard::TooMany;
        }
        let known = state
            .needs
            .latest
            .filter(|need| now.since(need.at) < policy.need_valid)
            .map(|need| need.most)
            .filter(|most| more.0 < most.0.saturating_mul(2));
        state.needs.latest = Some(Need {
            more,
            at: now,
            most: known.unwrap_or(more),
        });
        match known {
            Some(_) => Heard::Repeated,
            None => Heard::Taken,
        }
    }
}

impl Needs {
    /// A step for a need begins.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.latest = None;
        self.served.retain(|at| now.since(*at) < WINDOW);
        self.served.push_back(now);
    }
}

/// Puts the guest's need in the place of what was picked for memory, unless that grows it as well and can do so now.
pub(crate) fn prefer_need(
    domain: &Domain<'_>,
    persona: &Persona,
    state: &mut DomainState,
    policy: &Policy,
    now: Moment,
    picked: &mut Vec<Wanted>,
) {
    let changed = state.memory.changed_at;
    let holds = |need: &mut Need| {
        now.since(need.at) < policy.need_valid && changed.is_none_or(|changed| changed <= need.at)
    };
    state.needs.latest = state.needs.latest.take_if(holds);
    let Some(need) = state.needs.latest else {
        return;
    };
    // A document that is silent about memory does not manage it.
    if bounds(persona, Resource::Memory).is_none() {
        return;
    }
    let present = domain.present(Resource::Memory);
    let of_memory = |wanted: &Wanted| wanted.resource == Resource::Memory;
    if let Some(index) = picked.iter().position(of_memory) {
        let other = &picked[index];
        let waits = cooldown_left(state, Resource::Memory, other.cooldown, now).is_some();
        if other.priority == BASE_PRIORITY || (other.to > present && !waits) {
            return;
        }
        picked.remove(index);
    }
    picked.push(Wanted {
        resource: Resource::Memory,
        to: present.saturating_add(need.more.0),
        by: Wish::Need,
        priority: BASE_PRIORITY,
        cooldown: Duration::ZERO,
        evidence: Source::Agent,
        effect: None,
    });
}
