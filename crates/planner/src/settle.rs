//! From claims to steps: all growth and all donations are arbitrated, each resource by itself, and every report gets its
//! verdict with the limits that bound it. Decreases come before increases, and what others still have to give is not
//! granted yet. Called by `plan` once a pass.

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::Source;
use persona::units::Moment;
use persona::{Class, Persona};

use crate::arbitrate::{Grant, arbitrate};
use crate::consent::{Consent, consent};
use crate::donate::{Offer, offer};
use crate::evaluate::{SinceChange, Wanted};
use crate::ledger::{Account, Books, Wishes, slot};
use crate::mechanism::{Means, whole};
use crate::others::{self, Other, Stake};
use crate::plan::Step;
use crate::policy::Policy;
use crate::report::{
    Clamp, DomainReport, HostReport, Limit, Reason, ResourceReport, Verdict, Wish,
};
use crate::snapshot::{Domain, Host, Snapshot};
use crate::stage::Stage;
use crate::state::State;
use crate::trust::{Deed, Payer, Permit, Undoing, permit};

/// What everything came to.
pub(crate) struct Settled {
    pub(crate) steps: Vec<Step>,
    pub(crate) host: HostReport,
    /// What each domain of the snapshot had at stake, in vCPUs and in memory.
    pub(crate) stakes: [Vec<Stake>; 2],
}

impl Settled {
    /// Nobody wants anything, and nobody is asked what it holds.
    pub(crate) const fn nothing(budget: Host) -> Self {
        Self {
            steps: Vec::new(),
            host: HostReport {
                budget,
                vcpus_granted: 0,
                memory_granted: 0,
                vcpus_stage: Stage::Plenty,
                memory_stage: Stage::Plenty,
            },
            stakes: [Vec::new(), Vec::new()],
        }
    }
}

/// Arbitrates all wishes. The reports get their verdicts; the steps are decreases first.
pub(crate) fn settle(
    snapshot: &Snapshot<'_>,
    others: &[Other],
    state: &State,
    policy: &Policy,
    now: Moment,
    wishes: Wishes,
    reports: &mut [DomainReport],
) -> Settled {
    let books = Books::new(snapshot, others, state, policy, now);
    let Wishes { growth, decreases } = wishes;
    let mut accounts = [Resource::Vcpus, Resource::Memory]
        .map(|resource| books.account(resource, &growth, &decreases));
    // What each would get if nobody preferred one resource to the other; only needed where somebody may.
    let shares = [0, 1].map(|slot| -> Vec<u32> {
        let claims = accounts[slot].claims[..snapshot.domains.len()].iter();
        claims.map(|claim| claim.share).collect()
    });
    let short_of_both = accounts.iter().all(Account::contested);
    let mut plain = [None, None];
    if short_of_both {
        plain = [0, 1].map(|slot| Some(arbitrate(&accounts[slot].terms, &accounts[slot].claims)));
        books.prefer(&mut accounts);
    }
    let mut steps: Vec<Step> = decreases
        .into_iter()
        .map(|decrease| decrease.step)
        .collect();
    let mut increases = Vec::new();
    let mut granted = [0, 0];
    let mut stakes = [Vec::new(), Vec::new()];
    for (slot, account) in accounts.iter_mut().enumerate() {
        let offers = books.offers(account);
        let grants = arbitrate(&account.terms, &account.claims);
        granted[slot] = grants
            .iter()
            .map(|grant| grant.granted)
            .fold(0, u64::saturating_add);
        books.take(account, &grants, offers, reports, &mut steps);
        books.give(
            account,
            &grants,
            plain[slot].as_deref(),
            reports,
            &mut increases,
        );
        let runs: Vec<bool> = books.runs(account.resource).collect();
        stakes[slot] = others::stakes(account, &shares[slot], &runs);
    }
    steps.extend(increases);
    Settled {
        steps,
        host: HostReport {
            budget: snapshot.host,
            vcpus_granted: granted[0],
            memory_granted: granted[1],
            vcpus_stage: accounts[0].stage,
            memory_stage: accounts[1].stage,
        },
        stakes,
    }
}

impl Books<'_> {
    /// Asks every domain what it could do without, when somebody is short of what others may give.
    fn offers(&self, account: &mut Account<'_>) -> Vec<Option<Offer>> {
        let mut offers: Vec<Option<Offer>> = Vec::new();
        offers.resize_with(account.claims.len(), || None);
        let short = account.stage >= Stage::Tight
            && arbitrate(&account.terms, &account.claims)
                .iter()
                .zip(&account.claims)
                .any(|(grant, claim)| grant.expects < claim.funded.min(claim.wanted));
        if !short {
            return offers;
        }
        let resource = account.resource;
        for (index, domain) in self.snapshot.domains.iter().enumerate() {
            let claim = &mut account.claims[index];
            let weight = domain.weight(resource);
            let (Some(persona), Some(carried)) = (domain.persona, self.carried(index)) else {
                continue;
            };
            let falls = account.falling[index].is_some();
            let settled = claim.held == domain.present(resource).saturating_mul(weight);
            // One that is starting has not shown yet what it uses.
            let starts = claim.expected > 0;
            // A wish that the state of the host has capped is still one: who wants more gives nothing.
            let wants = claim.wanted > claim.held || account.wishes[index].is_some();
            if falls || !settled || starts || wants {
                continue;
            }
            let signals = SinceChange::of(domain, carried);
            let domain = Domain {
                signals: &signals,
                ..*domain
            };
            let made = offer(&domain, persona, carried, resource, self.policy, self.now);
            if let Some(made) = &made {
                claim.spare = claim.held.saturating_sub(made.to.saturating_mul(weight));
            }
            offers[index] = made;
        }
        for (index, other) in self.others.iter().enumerate() {
            let claim = &mut account.claims[self.snapshot.domains.len() + index];
            claim.spare = other.stakes[slot(resource)].claim.spare;
        }
        offers
    }

    /// The steps of those that give way.
    fn take(
        &self,
        account: &Account<'_>,
        grants: &[Grant],
        offers: Vec<Option<Offer>>,
        reports: &mut [DomainReport],
        steps: &mut Vec<Step>,
    ) {
        let resource = account.resource;
        for (index, offer) in offers.into_iter().enumerate() {
            let grant = &grants[index];
            let Some(offer) = offer.filter(|_| grant.gives > 0) else {
                continue;
            };
            // Only domains of the snapshot make offers.
            let domain = &self.snapshot.domains[index];
            let present = domain.present(resource);
            let to = present.saturating_sub(grant.gives / domain.weight(resource));
            let receiver = grant.gives_to.and_then(|id| self.name(id));
            let by = Wish::Donation(receiver.unwrap_or_default().to_owned());
            if let Some(line) = line(reports, index, resource) {
                line.wanted = Some(to);
                line.by = Some(by.clone());
                // What bound the offer bound the gift only when all of it was taken.
                line.clamps = if to == offer.to {
                    offer.clamps
                } else {
                    Vec::new()
                };
                line.verdict = Verdict::Step(to);
            }
            let consent = self.carried(index).map_or(Consent::Asked, |carried| {
                consent(&by, carried.resource(resource), self.policy, self.now)
            });
            steps.push(Step {
                domain: domain.id,
                instance: domain.instance,
                resource,
                from: present,
                to,
                means: Means::Usual,
                by,
                effect: None,
                consent,
            });
        }
    }

    /// The steps of those that grow, and why the others do not.
    fn give(
        &self,
        account: &Account<'_>,
        grants: &[Grant],
        plain: Option<&[Grant]>,
        reports: &mut [DomainReport],
        steps: &mut Vec<Step>,
    ) {
        let resource = account.resource;
        let contested = account
            .claims
            .iter()
            .zip(grants)
            .any(|(claim, grant)| grant.granted < claim.wanted);
        for (index, wish) in account.wishes.iter().enumerate() {
            let Some(wish) = wish else { continue };
            let domain = &self.snapshot.domains[index];
            let (claim, grant) = (&account.claims[index], &grants[index]);
            let weight = domain.weight(resource);
            let present = domain.present(resource);
            let capped = (claim.wanted / weight).min(wish.to);
            let granted = (grant.granted / weight).min(wish.to);
            let granted = whole(present, granted, &domain.memory, wish.means);
            let unmoved = plain.map_or(granted, |plain| {
                (plain[index].granted / weight).min(wish.to)
            });
            // Every growth came out of a line of this very report.
            let Some(line) = line(reports, index, resource) else {
                continue;
            };
            let least = (claim.granule / weight).min(wish.to - present);
            let enough = present.saturating_add(least);
            let room = account.terms.budget.saturating_sub(grant.others);
            let host_is_short = room / weight >= enough && grant.granted < claim.wanted;
            let mut note = |limit, from, to| {
                if to < from {
                    line.clamps.push(Clamp { limit, from, to });
                }
            };
            let cap = match (resource, account.stage) {
                (Resource::Memory, Stage::Critical) => Limit::HostReservation,
                _ => Limit::HostShare,
            };
            note(cap, wish.to, capped);
            let by_budget = capped.min(unmoved.max(granted));
            let shared = if host_is_short {
                Limit::HostMemory
            } else {
                Limit::Budget
            };
            note(shared, capped, by_budget);
            note(Limit::Priorities, by_budget, granted);
            line.verdict = if granted < enough {
                Verdict::No(if capped < enough {
                    Reason::HostShort(account.stage)
                } else if grant.expects > grant.granted {
                    Reason::Awaiting {
                        amount: (grant.expects - grant.granted) / weight,
                    }
                } else if host_is_short {
                    self.no_memory()
                } else if wish.wanted.evidence == Source::Host {
                    Reason::Budget {
                        budget: account.terms.budget,
                        others: grant.others,
                    }
                } else {
                    Reason::GuestAlone {
                        budget: account.terms.budget,
                        others: grant.others,
                    }
                })
            } else if contested && needs_the_hosts_word(domain.persona, &wish.wanted) {
                Verdict::No(Reason::GuestClaim)
            } else {
                steps.push(Step {
                    domain: domain.id,
                    instance: domain.instance,
                    resource,
                    from: present,
                    to: granted,
                    means: wish.means,
                    by: wish.wanted.by.clone(),
                    effect: wish.wanted.effect.clone(),
                    consent: Consent::Asked,
                });
                Verdict::Step(granted)
            };
        }
    }

    /// The name of a domain, whether in the snapshot or not.
    fn name(&self, id: DomainId) -> Option<&str> {
        let domains = self.snapshot.domains.iter();
        let mut known = domains.map(|domain| (domain.id, domain.name));
        let others = self.others.iter();
        let mut others = others.map(|other| (other.stakes[0].claim.domain, other.name.as_str()));
        let found = known.find(|(known, _)| *known == id);
        let found = found.or_else(|| others.find(|(known, _)| *known == id));
        found.map(|(_, name)| name)
    }

    fn no_memory(&self) -> Reason {
        let available = self.snapshot.strain.memory.map(|memory| memory.available.0);
        Reason::HostMemory {
            available: available.unwrap_or(0),
            kept: self.kept_for_host().unwrap_or(0),
        }
    }
}

fn line(
    reports: &mut [DomainReport],
    index: usize,
    resource: Resource,
) -> Option<&mut ResourceReport> {
    reports[index]
        .resources
        .iter_mut()
        .find(|line| line.resource == resource)
}

/// Whether trust is not enough to take what others want too.
fn needs_the_hosts_word(persona: Option<&Persona>, wanted: &Wanted) -> bool {
    let deed = Deed {
        class: Class::ResourceScaling,
        evidence: wanted.evidence,
        undoing: Undoing::Possible,
        payer: Payer::Others,
    };
    // Without a persona nothing is wanted. What a person approved rests on that person's word, and not on the guest's. What
    // goes back to a guest in need is only what is free or reserved for it, and nobody is asked for that.
    wanted.by != Wish::Return
        && wanted.evidence != Source::Host
        && persona.is_some_and(|persona| permit(&persona.trust, deed) != Permit::Act)
}
