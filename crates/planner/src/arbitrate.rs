//! Growth of all domains against the host's budget: weighted max-min fairness over what each would hold. Whoever
//! holds least for its share is served first, one granule at a time, so that the sum never exceeds the budget, a
//! reservation is never spent on others, and the result does not depend on the order of the domains. Nothing is
//! taken away here: shrinking is the business of rules and guards.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use persona::domain::DomainId;

/// What one domain holds, and what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which domain.
    pub domain: DomainId,
    /// What it holds or has on its way, in vCPUs or bytes.
    pub held: u64,
    /// What it wants to hold; equal to `held` for one that only has to be counted.
    pub wanted: u64,
    /// Kept for it, whether it uses it or not.
    pub reservation: u64,
    /// Its weight; 0 counts as 1.
    pub share: u32,
    /// The least amount by which it can grow.
    pub granule: u64,
}

/// What one domain may hold after arbitration: never less than it held, never more than it wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which domain.
    pub domain: DomainId,
    /// What it may hold.
    pub granted: u64,
    /// What others hold of the budget, with what is reserved for them: why it is not more.
    pub others: u64,
}

/// Shares the budget. The result is in the order of the claims.
pub fn arbitrate(budget: u64, claims: &[Claim]) -> Vec<Grant> {
    let held: u128 = claims.iter().map(|claim| u128::from(claim.held)).sum();
    let mut free = u64::try_from(u128::from(budget).saturating_sub(held)).unwrap_or(0);
    let mut granted: Vec<u64> = claims.iter().map(|claim| claim.held).collect();

    // First everybody up to its reservation, out of whatever is free: a reservation was promised.
    fill(&mut free, claims, &mut granted, |claim| {
        claim.wanted.min(claim.reservation)
    });

    // Then the rest, but not what is promised to those who do not use it now.
    let promised: u128 = claims
        .iter()
        .zip(&granted)
        .map(|(claim, granted)| u128::from(claim.reservation.saturating_sub(*granted)))
        .sum();
    let mut open = u64::try_from(u128::from(free).saturating_sub(promised)).unwrap_or(0);
    fill(&mut open, claims, &mut granted, |claim| claim.wanted);

    let kept = |claim: &Claim, granted: u64| u128::from(granted.max(claim.reservation));
    let all: u128 = claims
        .iter()
        .zip(&granted)
        .map(|(claim, granted)| kept(claim, *granted))
        .sum();
    claims
        .iter()
        .zip(&granted)
        .map(|(claim, granted)| Grant {
            domain: claim.domain,
            granted: *granted,
            others: u64::try_from(all - kept(claim, *granted)).unwrap_or(u64::MAX),
        })
        .collect()
}

/// What a claim would hold for its share, for comparing: `amount / share`, without division.
#[derive(PartialEq, Eq)]
struct Level {
    amount: u64,
    share: u32,
    domain: DomainId,
    index: usize,
}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let mine = u128::from(self.amount) * u128::from(other.share);
        let theirs = u128::from(other.amount) * u128::from(self.share);
        mine.cmp(&theirs)
            .then_with(|| self.domain.cmp(&other.domain))
            .then_with(|| self.index.cmp(&other.index))
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Pours `pool` over the claims, always to the one that holds least for its share, up to each one's ceiling.
fn fill(pool: &mut u64, claims: &[Claim], granted: &mut [u64], ceiling: impl Fn(&Claim) -> u64) {
    let mut heap: BinaryHeap<Reverse<Level>> = claims
        .iter()
        .enumerate()
        .filter(|(index, claim)| granted[*index] < ceiling(claim))
        .map(|(index, claim)| {
            Reverse(Level {
                amount: granted[index],
                share: claim.share.max(1),
                domain: claim.domain,
                index,
            })
        })
        .collect();
    while let Some(Reverse(mut level)) = heap.pop() {
        let claim = &claims[level.index];
        let missing = ceiling(claim) - granted[level.index];
        let portion = missing.min(claim.granule.max(1));
        if portion > *pool {
            // Its next granule does not fit; a smaller one of another claim may.
            continue;
        }
        *pool -= portion;
        granted[level.index] += portion;
        level.amount = granted[level.index];
        if portion < missing {
            heap.push(Reverse(level));
        }
    }
}
