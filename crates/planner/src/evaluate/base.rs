//! What the base configuration wants of vCPUs and memory, and its numbers for every stage that keeps within them.

use std::time::Duration;

use persona::Persona;
use persona::rule::Resource;
use persona::signal::Source;

use super::Wanted;
use crate::report::Wish;
use crate::snapshot::Domain;
use crate::state::DomainState;

/// The base configuration goes before every rule.
pub(crate) const BASE_PRIORITY: i64 = i64::MAX;

/// What the base configuration wants: at least `min`, at most `max`, and `initial` once.
pub(super) fn base_wishes(
    domain: &Domain<'_>,
    persona: &Persona,
    state: &mut DomainState,
    wanted: &mut Vec<Wanted>,
) {
    let mut wish = |resource, to, by| {
        wanted.push(Wanted {
            resource,
            to,
            by,
            priority: BASE_PRIORITY,
            cooldown: Duration::ZERO,
            evidence: Source::Host,
            effect: None,
        });
    };
    for resource in [Resource::Vcpus, Resource::Memory] {
        let Some(bounds) = bounds(persona, resource) else {
            continue;
        };
        let present = domain.present(resource);
        if present < bounds.min {
            wish(resource, bounds.min, Wish::Minimum);
        } else if let Some(max) = bounds.max.filter(|max| present > *max) {
            wish(resource, max, Wish::Maximum);
        } else if !state.started
            && let Some(initial) = bounds.initial.filter(|initial| present < *initial)
        {
            // Only upwards: a machine that somebody started larger is shrunk by its rules, on evidence.
            wish(resource, initial, Wish::Initial);
        }
    }
    let reached = |resource| {
        bounds(persona, resource)
            .and_then(|bounds| bounds.initial)
            .is_none_or(|initial| domain.present(resource) >= initial)
    };
    if reached(Resource::Vcpus) && reached(Resource::Memory) {
        state.started = true;
    }
}

/// The persona's numbers for one resource, in vCPUs or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) min: u64,
    pub(crate) initial: Option<u64>,
    pub(crate) max: Option<u64>,
    pub(crate) reservation: u64,
    pub(crate) share: u32,
}

/// The persona's numbers, or nothing where the document is silent about the resource.
pub(crate) fn bounds(persona: &Persona, resource: Resource) -> Option<Bounds> {
    match resource {
        Resource::Vcpus => persona.base.cpu.as_ref().map(|cpu| Bounds {
            min: cpu.min.into(),
            initial: cpu.initial.map(u64::from),
            max: cpu.max.map(u64::from),
            reservation: cpu.reservation.into(),
            share: cpu.share,
        }),
        Resource::Memory => persona.base.memory.as_ref().map(|memory| Bounds {
            min: memory.min.0,
            initial: memory.initial.map(|bytes| bytes.0),
            max: memory.max.map(|bytes| bytes.0),
            reservation: memory.reservation.0,
            share: memory.share,
        }),
    }
}
