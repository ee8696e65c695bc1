//! What a domain could do without: what was not in use for a while, above every floor. Which of it is taken, and for
//! whom, is in `arbitrate`.
//!
//! What may be taken rests on what the host itself measured (the time its vCPUs ran) or on what the domain says about
//! itself (what its kernel has available): a guest that understates its own use gives away its own, and one that
//! overstates it only keeps what it has. No guest's word takes anything from another domain.

use persona::rule::Resource;
use persona::signal::{Metric, Source};
use persona::units::Moment;
use persona::{Class, Persona};

use crate::evaluate::{Wanted, bounds};
use crate::guard::{Guarded, amount, available, guard, hidden, total};
use crate::policy::Policy;
use crate::report::{Clamp, Wish};
use crate::snapshot::{Domain, Run};
use crate::state::DomainState;
use crate::trust::{Deed, Payer, Permit, Undoing, permit};

/// Thousandths in which vCPUs in use are counted.
const THOUSANDTHS: u64 = 1000;

/// A step down that a domain can take for others.
pub(crate) struct Offer {
    /// What it would be left with, in its own units.
    pub(crate) to: u64,
    /// What bound it.
    pub(crate) clamps: Vec<Clamp>,
}

/// Notes what is in use now.
pub(crate) fn watch(domain: &Domain<'_>, carried: &mut DomainState, policy: &Policy, now: Moment) {
    for resource in [Resource::Vcpus, Resource::Memory] {
        let used = used(domain, resource, now);
        let slot = carried.resource_mut(resource);
        slot.peak.watch(used, policy.idle_window, now);
    }
}

/// What is in use now: thousandths of a vCPU, or bytes of what the guest counts as its own.
fn used(domain: &Domain<'_>, resource: Resource, now: Moment) -> Option<u64> {
    match resource {
        Resource::Vcpus => {
            let reading = domain.signals.reading(Metric::CpuUtilization)?;
            let online = domain.vcpus.online?;
            let measured = reading.source == Source::Host && reading.is_fresh(now);
            let thousandths = u64::from(online) * THOUSANDTHS;
            measured.then(|| amount(reading.value * 10.0) * thousandths / THOUSANDTHS)
        }
        Resource::Memory => Some(total(domain, now).saturating_sub(available(domain, now)?)),
    }
}

/// What of the resource was not in use for a while, in the domain's own units; 0 where nobody knows.
pub(crate) fn idle(
    domain: &Domain<'_>,
    carried: &DomainState,
    resource: Resource,
    now: Moment,
) -> u64 {
    let Some(peak) = carried.resource(resource).peak.value() else {
        return 0;
    };
    let used = match resource {
        Resource::Vcpus => peak.div_ceil(THOUSANDTHS),
        Resource::Memory => peak.saturating_add(hidden(domain, now)),
    };
    domain.held(resource).saturating_sub(used)
}

/// What live use needs, with its margin.
fn needed(domain: &Domain<'_>, peak: u64, resource: Resource, policy: &Policy, now: Moment) -> u64 {
    match resource {
        Resource::Vcpus => peak
            .saturating_mul(policy.vcpu_floor_percent.into())
            .div_ceil(THOUSANDTHS * 100),
        Resource::Memory => (peak / 100)
            .saturating_mul(policy.memory_floor_percent.into())
            .saturating_add(hidden(domain, now)),
    }
}

/// One step down to what the domain needs and was promised, if it can take one now.
pub(crate) fn offer(
    domain: &Domain<'_>,
    persona: &Persona,
    carried: &DomainState,
    resource: Resource,
    policy: &Policy,
    now: Moment,
) -> Option<Offer> {
    // A resource on which the document is silent is not managed, and what is on its way is not given away.
    let bounds = bounds(persona, resource)?;
    let present = domain.present(resource);
    if domain.run != Run::Running || domain.held(resource) != present {
        return None;
    }
    // The host's own idea is put to nobody: where trust does not let it be, the domain gives nothing.
    let deed = Deed {
        class: Class::ResourceScaling,
        evidence: Source::Host,
        undoing: Undoing::Possible,
        payer: Payer::Nobody,
    };
    if permit(&persona.trust, deed) != Permit::Act {
        return None;
    }
    let peak = carried.resource(resource).peak.value()?;
    let floor = needed(domain, peak, resource, policy, now)
        .max(bounds.min)
        .max(bounds.reservation);
    if floor >= present {
        return None;
    }
    let wanted = Wanted {
        resource,
        to: floor,
        by: Wish::Donation(String::new()),
        priority: i64::MIN,
        cooldown: policy.donation_cooldown,
        evidence: Source::Host,
        effect: None,
    };
    let Guarded { outcome, clamps } = guard(domain, Some(persona), carried, &wanted, policy, now);
    let to = outcome.ok().filter(|to| *to < present)?;
    Some(Offer { to, clamps })
}
