//! The host's ledger: what every domain holds, has on its way, or is about to need, against the budget and against what
//! the host itself can spare. What becomes of the claims is in `settle`.
//!
//! What the stage of the host does: from *tight* on, idle resources are taxed and domains give way to those below their
//! share; from *scarce* on, nobody grows above its share of the host; when memory is *critical*, it grows up to
//! reservations only. A reservation is served in every stage. Wishes beyond the budget make the host tight.

use persona::Preference;
use persona::rule::Resource;
use persona::signal::{Metric, Source};
use persona::units::Moment;

use crate::arbitrate::{Claim, Terms};
use crate::donate::idle;
use crate::evaluate::{Bounds, SinceChange, Wanted, bounds};
use crate::mechanism::Means;
use crate::others::{self, Other};
use crate::plan::Step;
use crate::policy::Policy;
use crate::snapshot::{Domain, Run, Snapshot};
use crate::stage::Stage;
use crate::state::{DomainState, State};

/// The weight of a domain whose persona says nothing, or that has none.
const SILENT_SHARE: u32 = 1000;

/// Growth that waits for arbitration.
pub(crate) struct Growth {
    /// Which domain, and which report.
    pub(crate) domain: usize,
    pub(crate) wanted: Wanted,
    /// As far as the domain's own limits let it.
    pub(crate) to: u64,
    /// By what.
    pub(crate) means: Means,
}

/// What one pass has come to before the host is looked at.
pub(crate) struct Wishes {
    pub(crate) growth: Vec<Growth>,
    /// What domains give back of their own accord.
    pub(crate) decreases: Vec<Decrease>,
}

impl Wishes {
    pub(crate) fn is_empty(&self) -> bool {
        self.growth.is_empty() && self.decreases.is_empty()
    }
}

/// A step down, and whose it is.
pub(crate) struct Decrease {
    pub(crate) domain: usize,
    pub(crate) step: Step,
}

/// What the ledger is made from.
pub(crate) struct Books<'a> {
    pub(crate) snapshot: &'a Snapshot<'a>,
    /// Domains that are not in the snapshot; their claims stand behind those that are.
    pub(crate) others: &'a [Other],
    pub(crate) state: &'a State,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Moment,
    /// The carried state of each domain, of the instance that runs now.
    carried: Vec<Option<&'a DomainState>>,
}

/// One resource of the host.
pub(crate) struct Account<'a> {
    pub(crate) resource: Resource,
    pub(crate) stage: Stage,
    pub(crate) terms: Terms,
    pub(crate) claims: Vec<Claim>,
    /// The wish of each domain, if it has one.
    pub(crate) wishes: Vec<Option<&'a Growth>>,
    /// What each domain is on its way down to, or goes down to by this very pass.
    pub(crate) falling: Vec<Option<u64>>,
    /// What of each domain is on its way back.
    pub(crate) coming: Vec<u64>,
    /// What of each domain was granted above its reservation and does not show on the host yet.
    pub(crate) on_its_way: Vec<u64>,
}

impl Account<'_> {
    /// Whether not everybody can have what it wants.
    pub(crate) fn contested(&self) -> bool {
        let sum = |amount: fn(&Claim) -> u64| -> u128 {
            self.claims
                .iter()
                .map(|claim| u128::from(amount(claim)))
                .sum()
        };
        let wanted = sum(|claim| claim.wanted.max(claim.kept()));
        let grows = self.claims.iter().any(|claim| claim.wanted > claim.held);
        let above = sum(|claim| {
            claim
                .wanted
                .saturating_sub(claim.held.max(claim.reservation))
        });
        let headroom = self.terms.headroom.map_or(u128::MAX, u128::from);
        (grows && wanted > u128::from(self.terms.budget)) || above > headroom
    }
}

impl<'a> Books<'a> {
    pub(crate) fn new(
        snapshot: &'a Snapshot<'a>,
        others: &'a [Other],
        state: &'a State,
        policy: &'a Policy,
        now: Moment,
    ) -> Self {
        let carried = snapshot.domains.iter().map(|domain| {
            let running = matches!(domain.run, Run::Running | Run::Paused);
            state
                .domain(domain.id)
                .filter(|state| running && state.instance == domain.instance)
        });
        Self {
            snapshot,
            others,
            state,
            policy,
            now,
            carried: carried.collect(),
        }
    }

    /// The carried state of the instance of a domain that runs now.
    pub(crate) fn carried(&self, index: usize) -> Option<&'a DomainState> {
        self.carried[index]
    }

    /// What everybody holds, wants and is promised of one resource.
    pub(crate) fn account<'g>(
        &self,
        resource: Resource,
        growth: &'g [Growth],
        decreases: &[Decrease],
    ) -> Account<'g> {
        let domains = &self.snapshot.domains;
        let mut wishes = vec![None; domains.len() + self.others.len()];
        for wish in growth
            .iter()
            .filter(|wish| wish.wanted.resource == resource)
        {
            wishes[wish.domain] = Some(wish);
        }
        let stage = self.state.host.stage(resource);
        let budget = self.snapshot.host.budget(resource);
        let mut claims: Vec<Claim> = domains
            .iter()
            .zip(&wishes)
            .enumerate()
            .map(|(index, (domain, wish))| self.claim(index, domain, resource, *wish))
            .chain(others::claims(self.others, slot(resource)))
            .collect();
        let runs: Vec<bool> = self.runs(resource).collect();
        cap(&mut claims, &runs, resource, stage, budget);
        let falling = self.falling(resource, decreases);
        let coming = self.coming(resource, &claims, &falling);
        let on_its_way = self.on_its_way(resource);
        let mut account = Account {
            resource,
            stage,
            terms: Terms {
                budget,
                headroom: self.headroom(resource, &on_its_way),
                coming: coming.iter().copied().fold(0, u64::saturating_add),
                tax: 0,
            },
            claims,
            wishes,
            falling,
            coming,
            on_its_way,
        };
        if account.contested() {
            account.stage = account.stage.max(Stage::Tight);
        }
        account.terms.tax = self.policy.idle_tax.at(account.stage);
        if account.terms.tax > 0 {
            self.find_idle(&mut account);
        }
        account
    }

    /// The ledger counts in the budget's units, the domain in its own.
    fn claim(
        &self,
        index: usize,
        domain: &Domain<'_>,
        resource: Resource,
        wish: Option<&Growth>,
    ) -> Claim {
        let bounds = domain.persona.and_then(|persona| bounds(persona, resource));
        let carried = self.carried(index);
        let flight = carried.and_then(|state| state.resource(resource).in_flight.as_ref());
        let held = domain
            .held(resource)
            .max(flight.map_or(0, |flight| flight.to))
            .max(carried.map_or(0, |state| unreported(domain, state, resource)));
        let wanted = wish.map_or(held, |wish| wish.to.max(held));
        let reservation = bounds
            .filter(|_| domain.run != Run::Off)
            .map_or(0, |bounds| bounds.reservation);
        let expected = bounds.map_or(0, |bounds| self.expected(index, domain, resource, &bounds));
        let measured = wish.is_some_and(|wish| wish.wanted.evidence == Source::Host);
        let granule = match resource {
            Resource::Vcpus => 1,
            Resource::Memory => domain
                .memory
                .block
                .0
                .max(self.policy.memory_change_minimum.0),
        };
        let weight = domain.weight(resource);
        Claim {
            domain: domain.id,
            held: held.saturating_mul(weight),
            wanted: wanted.saturating_mul(weight),
            funded: if measured {
                wanted
            } else {
                wanted.min(reservation)
            }
            .saturating_mul(weight),
            reservation: reservation.saturating_mul(weight),
            expected: expected.saturating_mul(weight),
            share: bounds.map_or(SILENT_SHARE, |bounds| bounds.share),
            granule: granule.saturating_mul(weight),
            idle: 0,
            spare: 0,
            portion: granule.saturating_mul(weight),
        }
    }

    /// What of each claim was not in use; nobody asks while nothing is taxed.
    fn find_idle(&self, account: &mut Account<'_>) {
        let domains = self.snapshot.domains.iter().zip(&self.carried);
        for (claim, (domain, carried)) in account.claims.iter_mut().zip(domains) {
            let Some(carried) = carried else { continue };
            let signals = SinceChange::of(domain, carried);
            let domain = Domain {
                signals: &signals,
                ..*domain
            };
            let idle = idle(&domain, carried, account.resource, self.now);
            claim.idle = idle.saturating_mul(domain.weight(account.resource));
        }
    }

    /// What a domain is going to begin with, as long as it is starting.
    fn expected(
        &self,
        index: usize,
        domain: &Domain<'_>,
        resource: Resource,
        bounds: &Bounds,
    ) -> u64 {
        let starting = match domain.run {
            Run::Off | Run::Paused => false,
            Run::Starting => true,
            Run::Running => self.carried(index).is_none_or(|state| {
                let seen = state.seen.unwrap_or(self.now);
                !state.started && self.now.since(seen) < self.policy.starting
            }),
        };
        let (_, most) = domain.limits(resource);
        if starting {
            bounds.initial.unwrap_or(0).max(bounds.min).min(most)
        } else {
            0
        }
    }

    /// What the host can spare above what it needs itself. Idle vCPUs cost a host nothing, so only the budget bounds
    /// them.
    fn headroom(&self, resource: Resource, on_its_way: &[u64]) -> Option<u64> {
        match resource {
            Resource::Vcpus => None,
            Resource::Memory => {
                let available = self.snapshot.strain.memory?.available.0;
                let free = available.saturating_sub(self.kept_for_host()?);
                let spent = on_its_way.iter().copied().fold(0, u64::saturating_add);
                Some(free.saturating_sub(spent))
            }
        }
    }

    /// What was granted above reservations and is still on its way: the host does not show yet that it is spent.
    fn on_its_way(&self, resource: Resource) -> Vec<u64> {
        let grows = |(domain, carried): (&Domain<'_>, &Option<&DomainState>)| {
            let flight = (*carried)?.resource(resource).in_flight.as_ref()?;
            let bounds = domain.persona.and_then(|persona| bounds(persona, resource));
            let reservation = bounds.map_or(0, |bounds| bounds.reservation);
            let above = |amount: u64| amount.max(reservation);
            let grown = above(flight.to).saturating_sub(above(flight.from));
            Some(grown.saturating_mul(domain.weight(resource)))
        };
        let others = self
            .others
            .iter()
            .map(|other| &other.stakes[slot(resource)]);
        let domains = self.snapshot.domains.iter().zip(&self.carried);
        domains
            .map(|domain| grows(domain).unwrap_or(0))
            .chain(others.map(|stake| stake.on_its_way))
            .collect()
    }

    /// What growth leaves the host: as much as makes it tight.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub(crate) fn kept_for_host(&self) -> Option<u64> {
        let total = self.snapshot.strain.memory?.total.0;
        Some((total as f64 * self.policy.memory_available.tight.enter / 100.0) as u64)
    }

    /// What each domain is on its way down to, in its own units.
    fn falling(&self, resource: Resource, decreases: &[Decrease]) -> Vec<Option<u64>> {
        let carried = self.carried.iter().map(|carried| {
            let flight = (*carried)?.resource(resource).in_flight.as_ref()?;
            (flight.to < flight.from).then_some(flight.to)
        });
        let mut falling: Vec<Option<u64>> = carried.collect();
        for Decrease { domain, step } in decreases {
            if step.resource == resource {
                falling[*domain] = Some(step.to);
            }
        }
        falling.resize(falling.len() + self.others.len(), None);
        falling
    }

    /// Whether each domain counts where the host is shared out.
    pub(crate) fn runs(&self, resource: Resource) -> impl Iterator<Item = bool> {
        let others = self
            .others
            .iter()
            .map(move |other| other.stakes[slot(resource)].shares);
        let domains = self.snapshot.domains.iter();
        domains.map(|domain| domain.run != Run::Off).chain(others)
    }

    /// What is on its way back.
    fn coming(&self, resource: Resource, claims: &[Claim], falling: &[Option<u64>]) -> Vec<u64> {
        let domains = self.snapshot.domains.iter().zip(claims).zip(falling);
        let others = self
            .others
            .iter()
            .map(|other| &other.stakes[slot(resource)]);
        domains
            .map(|((domain, claim), to)| {
                let to = to.map(|to| to.saturating_mul(domain.weight(resource)));
                to.map_or(0, |to| claim.held.saturating_sub(to))
            })
            .chain(others.map(|stake| stake.coming))
            .collect()
    }

    /// Moves weight to the resource that each domain fights for first, where it cannot have both.
    pub(crate) fn prefer(&self, accounts: &mut [Account<'_>; 2]) {
        for (index, domain) in self.snapshot.domains.iter().enumerate() {
            let both = accounts
                .iter()
                .all(|account| account.claims[index].wanted > account.claims[index].held);
            let Some(persona) = domain.persona.filter(|_| both) else {
                continue;
            };
            let preference = Preference::of(persona);
            for account in accounts.iter_mut() {
                let claim = &mut account.claims[index];
                claim.share = preference.share(account.resource, claim.share);
            }
        }
        for (index, other) in self.others.iter().enumerate() {
            for (account, stake) in accounts.iter_mut().zip(&other.stakes) {
                account.claims[self.snapshot.domains.len() + index].share = stake.claim.share;
            }
        }
    }
}

/// On a host that is scarce nobody grows above its share of it; what it holds already and its reservation it may have.
fn cap(claims: &mut [Claim], runs: &[bool], resource: Resource, stage: Stage, budget: u64) {
    if stage < Stage::Scarce {
        return;
    }
    let shares: u128 = claims
        .iter()
        .zip(runs)
        .filter(|(_, runs)| **runs)
        .map(|(claim, _)| u128::from(claim.share.max(1)))
        .sum();
    for claim in claims {
        let part = match (resource, stage) {
            // What is used up of memory does not come back by waiting, as time on a CPU does.
            (Resource::Memory, Stage::Critical) => 0,
            _ => u128::from(budget) * u128::from(claim.share.max(1)) / shares.max(1),
        };
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        let most = claim.held.max(claim.reservation).max(part);
        claim.wanted = claim.wanted.min(most);
        claim.funded = claim.funded.min(most);
    }
}

/// What a step that has ended granted, while the guest's last report is from before it: the old report shows less than
/// the guest has, and the ledger must never be too low.
fn unreported(domain: &Domain<'_>, state: &DomainState, resource: Resource) -> u64 {
    let slot = state.resource(resource);
    let (Resource::Vcpus, Some(changed)) = (resource, slot.changed_at) else {
        return 0;
    };
    let told = domain
        .signals
        .reading(Metric::VcpuCount)
        .is_some_and(|reading| reading.at >= changed);
    if told {
        return 0;
    }
    slot.target
        .unwrap_or(0)
        .min(u64::from(domain.vcpus.maximum))
}

/// Where the stake in a resource is kept.
pub(crate) fn slot(resource: Resource) -> usize {
    match resource {
        Resource::Vcpus => 0,
        Resource::Memory => 1,
    }
}
