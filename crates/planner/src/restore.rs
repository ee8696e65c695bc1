//! A machine without a persona: what we changed while it had one goes back to what was there before, step by step and
//! within the same guard as any other change. Called by `plan` for domains that run and that something is carried for.

use std::time::Duration;

use persona::rule::Resource;
use persona::signal::Source;
use persona::units::Moment;

use crate::consent::consent;
use crate::evaluate::{SinceChange, Wanted};
use crate::guard::guard;
use crate::ledger::Wishes;
use crate::limit::{self, Turned};
use crate::notice::{Drift, Stall, notice_drift, notice_restart, notice_stall};
use crate::plan::line;
use crate::policy::Policy;
use crate::relief::notice_need;
use crate::report::{DomainReport, Wish};
use crate::snapshot::Domain;
use crate::state::DomainState;

/// One domain whose persona is gone, and what is carried for it.
pub(crate) struct Carry<'a, 'b> {
    pub(crate) index: usize,
    pub(crate) domain: &'a Domain<'b>,
    pub(crate) carried: &'a mut DomainState,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Moment,
}

impl DomainState {
    /// Whether anything of the running machine is other than before our first change, as far as we know.
    pub fn has_something_to_give_back(&self) -> bool {
        self.vcpus.original.is_some() || self.memory.original.is_some() || !self.limits.is_empty()
    }
}

impl Carry<'_, '_> {
    /// Takes everything back by as much as this pass may.
    pub(crate) fn back(
        self,
        report: &mut DomainReport,
        wishes: &mut Wishes,
        drifts: &mut Vec<Drift>,
        stalls: &mut Vec<Stall>,
        turned: &mut Turned,
    ) {
        let Self {
            index,
            domain,
            carried,
            policy,
            now,
        } = self;
        notice_restart(domain, carried, now);
        // The same persona begins anew when it comes back.
        if carried.persona.take().is_some() {
            carried.rules.clear();
            carried.effects.clear();
            carried.standing.clear();
            carried.quota = None;
            carried.started = false;
            turned.noted.push(domain.id);
        }
        if !carried.has_something_to_give_back() {
            return;
        }
        notice_drift(domain, carried, policy, now, drifts);
        notice_stall(domain, carried, policy, now, stalls);
        let signals = SinceChange::of(domain, carried);
        let domain = &Domain {
            signals: &signals,
            ..*domain
        };
        notice_need(domain, carried, policy, now);
        for resource in [Resource::Vcpus, Resource::Memory] {
            let slot = carried.resource_mut(resource);
            let Some(original) = slot.original else {
                continue;
            };
            if slot.in_flight.is_none() && domain.present(resource) == original {
                slot.original = None;
                turned.noted.push(domain.id);
                continue;
            }
            let wanted = Wanted {
                resource,
                to: original,
                by: Wish::Restore,
                priority: i64::MAX,
                cooldown: Duration::ZERO,
                evidence: Source::Host,
                effect: None,
            };
            let mut line = line(domain, resource, Some(&wanted));
            let guarded = guard(domain, None, carried, &wanted, policy, now);
            let consent = consent(&wanted.by, carried.resource(resource), policy, now);
            wishes.take(index, domain, wanted, guarded, consent, &mut line);
            report.resources.push(line);
        }
        let knobs = limit::decide(domain, None, &[], carried, policy, now);
        report.limits = turned.take(domain.id, knobs);
    }
}
