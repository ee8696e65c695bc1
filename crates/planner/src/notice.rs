//! What has changed since the last look without the daemon's doing: another running instance, a change by hand, a guest
//! that does not follow. Called by `plan` for each domain before its rules are evaluated.

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::units::Moment;
use serde::Serialize;

use crate::policy::Policy;
use crate::snapshot::{Domain, Run};
use crate::state::{DomainState, Lag};

/// A change by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Which domain.
    pub domain: DomainId,
    /// Which resource.
    pub resource: Resource,
    /// What the daemon had asked for or seen last.
    pub from: u64,
    /// What is asked for now.
    pub to: u64,
    /// Respected until then.
    pub until: Moment,
}

/// A guest that has not moved towards what it was asked for. It is set aside: it neither gets nor gives anything, and
/// what it holds or was asked to hold, whichever is more, is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// Which domain.
    pub domain: DomainId,
    /// Which resource.
    pub resource: Resource,
    /// What it was asked for.
    pub asked: u64,
    /// What is there.
    pub shown: u64,
    /// Left alone until then.
    pub until: Moment,
}

/// What an earlier running instance showed says nothing of this one.
pub(crate) fn notice_restart(domain: &Domain<'_>, carried: &mut DomainState, now: Moment) {
    if carried.instance != domain.instance {
        // A guest may have said that it is in need before anything else was known of it.
        let needs = carried
            .instance
            .is_none()
            .then(|| std::mem::take(&mut carried.needs));
        *carried = DomainState {
            needs: needs.unwrap_or_default(),
            ..carried.of_next_machine(domain.instance)
        };
    }
    carried.seen.get_or_insert(now);
}

/// A change that the daemon did not ask for is somebody's will, and respected for a while.
pub(crate) fn notice_drift(
    domain: &Domain<'_>,
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
    drifts: &mut Vec<Drift>,
) {
    for resource in [Resource::Vcpus, Resource::Memory] {
        let asked = domain.asked(resource);
        let slot = carried.resource_mut(resource);
        if slot.in_flight.is_some() {
            continue;
        }
        let before = slot.asked.replace(asked);
        let Some(from) = before.filter(|before| *before != asked) else {
            continue;
        };
        // A guest that follows its target late is no hand.
        let follows = slot
            .target
            .is_some_and(|target| (from.min(target)..=from.max(target)).contains(&asked));
        let small =
            resource == Resource::Memory && from.abs_diff(asked) < policy.memory_change_minimum.0;
        // So is a removal that was asked for before something else was, and that came only now.
        let late = slot
            .late
            .is_some_and(|least| (least..from).contains(&asked));
        if slot.late.is_some_and(|least| asked <= least) {
            slot.late = None;
        }
        if follows || late || small {
            continue;
        }
        slot.late = None;
        let until = now.after(policy.hold);
        // A longer hold that a person asked for stays as it is.
        if slot.held_until.is_none_or(|held| held < until) {
            slot.held_until = Some(until);
            slot.held_by = None;
        }
        // The hand's word counts now; an old target would make the next change by hand look like a late guest.
        slot.target = None;
        // And it is what is there now: nobody wants back what was before it.
        slot.original = None;
        // Nor has a machine failed to follow that somebody brought back to where it was.
        slot.repeat = None;
        if resource == Resource::Vcpus {
            carried.offline = None;
        }
        if resource == Resource::Memory {
            // What a person decides is not undone.
            carried.relief.before = None;
        }
        drifts.push(Drift {
            domain: domain.id,
            resource,
            from,
            to: asked,
            until,
        });
    }
}

/// Memory that was asked for and neither plugged nor unplugged for long is stuck. For vCPUs the steps themselves tell:
/// one that the guest does not follow has failed, and a vCPU that is plugged and offline may be meant to be.
pub(crate) fn notice_stall(
    domain: &Domain<'_>,
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
    stalls: &mut Vec<Stall>,
) {
    let (asked, shown) = (domain.memory.requested.0, domain.memory.plugged.0);
    let slot = &mut carried.memory;
    // While a step is under way its own deadline holds, and a paused guest follows nothing.
    if asked == shown || slot.in_flight.is_some() || domain.run != Run::Running {
        slot.lag = None;
        return;
    }
    let same = |lag: &Lag| lag.asked == asked && lag.shown == shown;
    let lag = slot.lag.filter(same).unwrap_or(Lag {
        since: now,
        asked,
        shown,
    });
    slot.lag = Some(lag);
    if now.since(lag.since) < policy.stall {
        return;
    }
    let until = now.after(policy.quarantine);
    slot.quarantined_until = Some(until);
    // After the quarantine it has the same time again.
    slot.lag = Some(Lag {
        since: until,
        ..lag
    });
    stalls.push(Stall {
        domain: domain.id,
        resource: Resource::Memory,
        asked,
        shown,
        until,
    });
}
