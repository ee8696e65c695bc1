//! A wish within its limits, or the reason why nothing is done. Limits are applied in one fixed order, and each that
//! changes the wish is noted for `explain`. The host's budget is not here (`arbitrate`), nor is trust (`trust`).

use persona::Persona;
use persona::rule::{Resource, Truth};
use persona::signal::{Event, Metric, Named, Reading, Signal, Signals};
use persona::units::Moment;

use crate::consent::respects;
use crate::evaluate::{Bounds, Wanted, bounds, cooldown_left};
use crate::mechanism::Means;
use crate::offline::may_try;
use crate::policy::Policy;
use crate::relief::may_take;
use crate::report::{Clamp, Limit, Reason, Wish};
use crate::snapshot::{Ability, Domain};
use crate::state::DomainState;

/// A wish that may be carried out as far as the domain itself is concerned.
pub(crate) struct Guarded {
    pub(crate) outcome: Result<u64, Reason>,
    pub(crate) clamps: Vec<Clamp>,
}

/// Puts a wish within its limits. Without a persona only what was there before is given back.
pub(crate) fn guard(
    domain: &Domain<'_>,
    persona: Option<&Persona>,
    state: &DomainState,
    wanted: &Wanted,
    policy: &Policy,
    now: Moment,
) -> Guarded {
    let mut clamps = Clamps {
        to: wanted.to,
        list: Vec::new(),
    };
    let outcome = check(domain, persona, state, wanted, policy, now, &mut clamps);
    Guarded {
        outcome: outcome.map(|()| clamps.to),
        clamps: clamps.list,
    }
}

struct Clamps {
    to: u64,
    list: Vec<Clamp>,
}

impl Clamps {
    fn at_most(&mut self, limit: Limit, most: u64) {
        if self.to > most {
            self.list.push(Clamp {
                limit,
                from: self.to,
                to: most,
            });
            self.to = most;
        }
    }

    fn at_least(&mut self, limit: Limit, least: u64) {
        if self.to < least {
            self.list.push(Clamp {
                limit,
                from: self.to,
                to: least,
            });
            self.to = least;
        }
    }

    fn last(&self) -> Limit {
        self.list
            .last()
            .map_or(Limit::DomainMaximum, |clamp| clamp.limit)
    }
}

fn check(
    domain: &Domain<'_>,
    persona: Option<&Persona>,
    state: &DomainState,
    wanted: &Wanted,
    policy: &Policy,
    now: Moment,
    clamps: &mut Clamps,
) -> Result<(), Reason> {
    let resource = wanted.resource;
    may_act(domain, state, wanted, now)?;
    may_try(wanted, state, policy)?;
    let bounds = persona.and_then(|persona| bounds(persona, resource));
    let present = domain.present(resource);
    let (least, most) = domain.limits(resource);
    if let Some(bounds) = bounds {
        clamps.at_least(Limit::PersonaMinimum, bounds.min);
        if let Some(max) = bounds.max {
            clamps.at_most(Limit::PersonaMaximum, max);
        }
    }
    clamps.at_least(Limit::DomainMinimum, least);
    clamps.at_most(Limit::DomainMaximum, most);
    // A limit never turns a wish around: growing stops at a limit, it does not become shrinking.
    let growing = wanted.to > present;
    if clamps.to == present || (clamps.to > present) != growing {
        return Err(Reason::AtLimit(clamps.last()));
    }
    if !growing {
        respects(&wanted.by, state.resource(resource), policy, now)?;
    }
    match (resource, growing) {
        (Resource::Vcpus, true) => clamps.at_most(Limit::OneVcpuAStep, present + 1),
        (Resource::Vcpus, false) => {
            clamps.at_least(Limit::OneVcpuAStep, present.saturating_sub(1));
            keep_reservation(clamps, bounds, present)?;
        }
        (Resource::Memory, true) => grow_memory(domain, wanted, policy, now, clamps)?,
        (Resource::Memory, false) => {
            may_take(domain, state, &wanted.by, policy, now)?;
            shrink_memory(domain, bounds, wanted, policy, now, clamps)?;
        }
    }
    if let Some(persona) = persona
        && !growing
        && wanted.by != Wish::Maximum
    {
        stays_shrunk(domain, persona, resource, clamps.to, now)?;
    }
    Ok(())
}

/// Whether anything may be done to the resource at all at this moment.
fn may_act(
    domain: &Domain<'_>,
    state: &DomainState,
    wanted: &Wanted,
    now: Moment,
) -> Result<(), Reason> {
    let resource = wanted.resource;
    let ability = domain.ability(resource);
    if ability != Ability::Both {
        return Err(Reason::Unable(ability));
    }
    let slot = state.resource(resource);
    if let Some(flight) = &slot.in_flight {
        return Err(Reason::InFlight { to: flight.to });
    }
    if resource == Resource::Vcpus && state.needs_reboot && wanted.to > domain.present(resource) {
        return Err(Reason::NeedsReboot);
    }
    let left = |until: Option<Moment>| {
        until
            .map(|until| until.since(now))
            .filter(|left| !left.is_zero())
    };
    if let Some(left) = left(slot.held_until) {
        return Err(match &slot.held_by {
            Some(by) => Reason::HeldFor {
                by: by.clone(),
                left,
            },
            None => Reason::Held { left },
        });
    }
    // The balloon is another mechanism than the device that is left alone.
    let another = resource == Resource::Memory && domain.memory.means == Means::Balloon;
    if let Some(left) = left(slot.quarantined_until).filter(|_| !another) {
        return Err(Reason::Quarantined { left });
    }
    if let Some(left) = left(slot.retry_at) {
        return Err(Reason::Waiting {
            left,
            failures: slot.failures,
        });
    }
    if let Some(left) = cooldown_left(state, resource, wanted.cooldown, now) {
        return Err(Reason::Cooldown(left));
    }
    Ok(())
}

fn keep_reservation(
    clamps: &mut Clamps,
    bounds: Option<Bounds>,
    present: u64,
) -> Result<(), Reason> {
    if let Some(bounds) = bounds {
        clamps.at_least(Limit::Reservation, bounds.reservation.min(present));
    }
    if clamps.to >= present {
        return Err(Reason::AtLimit(clamps.last()));
    }
    Ok(())
}

fn grow_memory(
    domain: &Domain<'_>,
    wanted: &Wanted,
    policy: &Policy,
    now: Moment,
    clamps: &mut Clamps,
) -> Result<(), Reason> {
    let memory = &domain.memory;
    let present = memory.requested.0;
    let most = memory
        .boot
        .0
        .saturating_mul(policy.memory_growth_ratio.into());
    clamps.at_most(Limit::BootRatio, most.max(present));
    if clamps.to <= present {
        return Err(Reason::AtLimit(Limit::BootRatio));
    }
    // What the guest booted with has its page structs already: giving back what the balloon took costs none.
    let inflated = memory
        .balloon
        .map_or(0, |balloon| balloon.most.saturating_sub(balloon.left).0);
    let base = present.max(memory.boot.0).saturating_add(inflated);
    // A guest that does not say what it has free still boots with room for the page structs of as much again.
    let step = match available(domain, now) {
        Some(available) => {
            available
                .saturating_mul(64)
                .saturating_mul(u64::from(policy.page_struct_percent))
                / 100
        }
        None => memory.boot.0,
    };
    clamps.at_most(Limit::PageStructs, base.saturating_add(step));
    let block = memory.block.0.max(1);
    let least = policy.memory_change_minimum.0;
    if base == present && step < least.max(block) && clamps.to == present.saturating_add(step) {
        // Growing is what such a guest needs most, but the growth itself would take the last that it has.
        return Err(Reason::AtLimit(Limit::PageStructs));
    }
    let whole = (clamps.to - present) / block * block;
    clamps.at_most(Limit::Block, present + whole);
    // What the base configuration asks for is given to the last byte, whatever its size.
    // So is the rest of the usual mechanism before a DIMM takes its place: a DIMM costs page structs and stays.
    let rest = memory.dimm.is_some() && clamps.to >= memory.maximum.0;
    if whole == 0
        || (whole < least
            && !rest
            && matches!(wanted.by, Wish::Rule(_) | Wish::Undo(_) | Wish::Need))
    {
        return Err(Reason::TooSmall {
            least: least.max(block),
        });
    }
    Ok(())
}

fn shrink_memory(
    domain: &Domain<'_>,
    bounds: Option<Bounds>,
    wanted: &Wanted,
    policy: &Policy,
    now: Moment,
    clamps: &mut Clamps,
) -> Result<(), Reason> {
    let memory = &domain.memory;
    let present = memory.requested.0;
    let available = available(domain, now).ok_or(Reason::CannotJudge)?;
    let step = (present / 100 * u64::from(policy.memory_shrink_percent))
        .max(policy.memory_shrink_minimum.0)
        .min(policy.memory_shrink_maximum.0);
    clamps.at_least(Limit::ShrinkStep, present.saturating_sub(step));
    let used = total(domain, now).saturating_sub(available);
    let floor = (used / 100)
        .saturating_mul(policy.memory_floor_percent.into())
        .saturating_add(hidden(domain, now));
    clamps.at_least(Limit::LiveUse, floor.min(present));
    keep_reservation(clamps, bounds, present)?;
    let block = memory.block.0.max(1);
    let whole = (present - clamps.to) / block * block;
    clamps.at_least(Limit::Block, present - whole);
    let least = policy.memory_change_minimum.0;
    // The last step down to a limit of persona or definition, or to what was there before, may be smaller than the usual
    // least one.
    let at_bottom = bounds.is_some_and(|bounds| {
        clamps.to <= bounds.min.max(bounds.reservation).saturating_add(block)
    }) || clamps.to <= memory.minimum.0
        || (wanted.by == Wish::Restore && clamps.to <= wanted.to.saturating_add(block));
    if whole == 0 || (whole < least && !at_bottom) {
        return Err(Reason::TooSmall {
            least: least.max(block),
        });
    }
    Ok(())
}

/// What the guest says it could still use.
pub(crate) fn available(domain: &Domain<'_>, now: Moment) -> Option<u64> {
    domain.value(Metric::MemoryAvailable, now).map(amount)
}

/// What the guest says it has, or else what is plugged: the larger figure makes the floor higher, which is the safe side.
pub(crate) fn total(domain: &Domain<'_>, now: Moment) -> u64 {
    domain
        .value(Metric::MemorySize, now)
        .map_or(domain.memory.plugged.0, amount)
}

/// What the guest's kernel keeps for itself, which it does not count as its total; a size that leaves live use its
/// margin has to hold that as well.
pub(crate) fn hidden(domain: &Domain<'_>, now: Moment) -> u64 {
    domain.memory.plugged.0.saturating_sub(total(domain, now))
}

/// A reading as an amount; readings are finite, and a negative one counts as nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn amount(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// Refuses a removal after which a growth rule would hold, or could not be judged.
fn stays_shrunk(
    domain: &Domain<'_>,
    persona: &Persona,
    resource: Resource,
    to: u64,
    now: Moment,
) -> Result<(), Reason> {
    let projected = Projected::new(domain, resource, to, now);
    for rule in &persona.rules {
        let grows = persona
            .actions(rule)
            .any(|action| grows(action, resource, to));
        if !grows {
            continue;
        }
        match rule.when.would_hold(&projected, now) {
            Truth::False => {}
            Truth::True => {
                return Err(Reason::WouldGrowAgain {
                    rule: rule.name.to_string(),
                });
            }
            // What rests on nothing that the removal changes wants no more after it than before.
            Truth::Unknown if !rule.when.signals().any(|signal| feels(signal, resource)) => {}
            Truth::Unknown => return Err(Reason::CannotJudge),
        }
    }
    Ok(())
}

/// Whether a removal of the resource changes what is measured of a signal.
fn feels(signal: &Signal, resource: Resource) -> bool {
    let Signal::Metric(metric) = signal else {
        return false;
    };
    match resource {
        Resource::Vcpus => matches!(
            metric,
            Metric::CpuUtilization
                | Metric::CpuSteal
                | Metric::CpuThrottled
                | Metric::CpuPressure
                | Metric::VcpuCount
                | Metric::GuestLoad
        ),
        Resource::Memory => matches!(
            metric,
            Metric::MemorySize
                | Metric::MemoryUtilization
                | Metric::MemoryAvailable
                | Metric::MemoryHostRss
                | Metric::MemoryPressure
                | Metric::MemorySwapIn
                | Metric::MemoryMajorFaults
                | Metric::GuestMemoryPressure
                | Metric::GuestMajorFaults
        ),
    }
}

/// Whether an action, taken after the removal, would give some of it back.
fn grows(action: &persona::rule::Action, resource: Resource, to: u64) -> bool {
    use persona::rule::Action;
    if action.resource() != Some(resource) {
        return false;
    }
    match action {
        Action::AddVcpus(_) | Action::AddMemory(_) => true,
        Action::SetVcpus(count) => u64::from(*count) > to,
        Action::SetMemory(size) => size.0 > to,
        _ => false,
    }
}

/// The readings as they would be after a removal, if the load stays what it is.
struct Projected<'a> {
    signals: &'a dyn Signals,
    change: Change,
}

#[derive(Clone, Copy)]
enum Change {
    Vcpus {
        from: f64,
        to: f64,
    },
    Memory {
        less: f64,
        total: f64,
        available: Option<f64>,
    },
}

impl<'a> Projected<'a> {
    #[allow(clippy::cast_precision_loss)]
    fn new(domain: &'a Domain<'_>, resource: Resource, to: u64, now: Moment) -> Self {
        let present = domain.present(resource);
        let change = match resource {
            Resource::Vcpus => Change::Vcpus {
                from: present as f64,
                to: (to.max(1)) as f64,
            },
            Resource::Memory => Change::Memory {
                less: present.saturating_sub(to) as f64,
                total: total(domain, now) as f64,
                available: domain.value(Metric::MemoryAvailable, now),
            },
        };
        Self {
            signals: domain.signals,
            change,
        }
    }
}

impl Signals for Projected<'_> {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let mut reading = self.signals.reading(metric)?;
        match (self.change, metric) {
            (Change::Vcpus { from, to }, Metric::CpuUtilization) => {
                reading.value = (reading.value * from / to).min(100.0);
            }
            (Change::Vcpus { to, .. }, Metric::VcpuCount) => reading.value = to,
            (Change::Memory { less, .. }, Metric::MemoryAvailable | Metric::MemorySize) => {
                reading.value = (reading.value - less).max(0.0);
            }
            (
                Change::Memory {
                    less,
                    total,
                    available,
                },
                Metric::MemoryUtilization,
            ) => {
                let left = (total - less).max(1.0);
                reading.value = (1.0 - (available? - less).max(0.0) / left).clamp(0.0, 1.0) * 100.0;
            }
            _ => {}
        }
        Some(reading)
    }

    // How much of this would change with the resource nobody knows, and it is what a growth rule would see.

    fn named(&self, named: &Named) -> Option<Reading> {
        self.signals.named(named)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        self.signals.happened(event)
    }
}

#[cfg(test)]
mod tests {
    use persona::signal::EventKind;

    use super::*;
    use crate::testing::{AT, All};

    #[test]
    fn a_removal_is_projected_on_what_measures_the_resource_and_on_neither_names_nor_events() {
        let projected = Projected {
            signals: &All,
            change: Change::Vcpus { from: 4.0, to: 2.0 },
        };
        let value = |metric| projected.reading(metric).map(|reading| reading.value);
        assert_eq!(value(Metric::CpuUtilization), Some(80.0));
        assert_eq!(value(Metric::GuestLoad), Some(40.0));
        let orders: Named = "guest.app.orders".parse().unwrap();
        assert_eq!(projected.named(&orders), All.named(&orders));
        let event = Event {
            kind: EventKind::DomainStarted,
            source: None,
        };
        assert_eq!(projected.happened(&event), Some(AT));
    }
}
