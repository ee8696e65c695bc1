//! The host's budget, fairly shared: weighted max-min fairness over what each domain would hold. Whoever holds least for
//! its share is served first, one granule at a time, so that the sum never exceeds the budget, a reservation is never
//! spent on others, and the result does not depend on the order of the domains. What a domain holds above its
//! reservation and does not use counts dearer (the idle tax).
//!
//! When what is free does not do, those that hold most for their share give way to those that hold least, until neither
//! could gain: what they give is free only when host and guest have shown it, so it is granted by a later pass. Which
//! domains may be asked, and for how much, is in `donate`; what the host's stage makes of it is in `ledger`.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use persona::domain::DomainId;
use serde::{Deserialize, Serialize};

/// What one domain holds, what it wants, and what it could do without. All amounts are in vCPUs or bytes of the budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which domain.
    pub domain: DomainId,
    /// What it holds or has on its way.
    pub held: u64,
    /// What it wants to hold; equal to `held` for one that only has to be counted.
    pub wanted: u64,
    /// So far others may be asked to give way for it: all that it wants where the host itself measured the need, its
    /// reservation where a guest claims it.
    pub funded: u64,
    /// Kept for it, whether it uses it or not, and given back to it by those that took it.
    pub reservation: u64,
    /// What it will need soon, because it is starting: kept for it out of what is free, and no more than that. Counts
    /// where it is more than the reservation.
    pub expected: u64,
    /// Its weight; 0 counts as 1.
    pub share: u32,
    /// The least amount by which it can grow.
    pub granule: u64,
    /// What it has not used of what it holds; 0 where that is not known.
    pub idle: u64,
    /// What may be taken from it now; 0 for one that gives nothing. Never more than it holds above its reservation.
    pub spare: u64,
    /// The least amount by which it can give way.
    pub portion: u64,
}

impl Claim {
    /// What of the budget nobody else may grow into.
    pub(crate) fn kept(&self) -> u64 {
        self.reservation.max(self.expected)
    }
}

/// What is to be shared, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What all domains may hold together.
    pub budget: u64,
    /// What the host itself can spare for growth above reservations; `None` where that is not known, or no matter.
    pub headroom: Option<u64>,
    /// What is on its way back already.
    pub coming: u64,
    /// The idle tax in percent, below 100: what is idle counts 1 / (1 - tax) times.
    pub tax: u32,
}

/// What one domain may hold after arbitration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which domain.
    pub domain: DomainId,
    /// What it may hold at once: never less than it held, never more than it wanted.
    pub granted: u64,
    /// What it is asked to give up, at most its `spare`.
    pub gives: u64,
    /// For whom, in the first place.
    pub gives_to: Option<DomainId>,
    /// What it can hold once everything that is given, or on its way back, is free.
    pub expects: u64,
    /// What others hold of the budget, with what is reserved for them: why it is not more.
    pub others: u64,
}

/// Shares the budget. The result is in the order of the claims.
pub fn arbitrate(terms: &Terms, claims: &[Claim]) -> Vec<Grant> {
    let mut sharing = Sharing::new(terms, claims);
    sharing.pour();
    let granted = sharing.holds.clone();
    sharing.pass_on();

    let kept = |claim: &Claim, granted: u64| u128::from(granted.max(claim.kept()));
    let all: u128 = claims
        .iter()
        .zip(&granted)
        .map(|(claim, granted)| kept(claim, *granted))
        .sum();
    claims
        .iter()
        .enumerate()
        .map(|(index, claim)| Grant {
            domain: claim.domain,
            granted: granted[index],
            gives: sharing.gives[index],
            gives_to: sharing.gives_to[index],
            expects: sharing.holds[index],
            others: u64::try_from(all - kept(claim, granted[index])).unwrap_or(u64::MAX),
        })
        .collect()
}

/// How far a domain is to be served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Up to its reservation, which was promised.
    Reservation,
    /// Up to what it was expected to need when it starts.
    Start,
    /// Up to what it wants, out of what is promised to nobody.
    Wish,
}

/// What a domain pays for its share, for comparing: `cost / share`, without division.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Level {
    cost: u128,
    share: u32,
    domain: DomainId,
    index: usize,
    /// What it holds at this level: tells whether the level still stands.
    holds: u64,
}

impl Level {
    /// By cost alone: two that pay the same are equal.
    fn compare(&self, other: &Self) -> Ordering {
        // A cost is below 100 times 2^65, and a share below 2^32.
        (self.cost * u128::from(other.share)).cmp(&(other.cost * u128::from(self.share)))
    }
}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(other)
            .then_with(|| self.domain.cmp(&other.domain))
            .then_with(|| self.index.cmp(&other.index))
            .then_with(|| self.holds.cmp(&other.holds))
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is left to share; negative where more is held or promised than there is.
#[derive(Clone, Copy)]
struct Room {
    /// Of the budget.
    open: i128,
    /// Of what the host itself can spare, where that matters.
    host: Option<i128>,
}

impl Room {
    /// Whether a portion fits, for one to whom `own` of what is kept belongs.
    fn fits(&self, portion: u64, own: u64) -> bool {
        let portion = i128::from(portion);
        self.open + i128::from(own) >= portion && self.host.is_none_or(|host| host >= portion)
    }

    fn spend(&mut self, portion: u64, own: u64) {
        self.open -= i128::from(portion.saturating_sub(own));
        self.host = self.host.map(|host| host - i128::from(portion));
    }

    fn gain(&mut self, amount: u64) {
        self.open += i128::from(amount);
        self.host = self.host.map(|host| host + i128::from(amount));
    }

    fn lose(&mut self, amount: u64) {
        self.open -= i128::from(amount);
        self.host = self.host.map(|host| host - i128::from(amount));
    }
}

/// The arbitration under way.
struct Sharing<'a> {
    terms: &'a Terms,
    claims: &'a [Claim],
    holds: Vec<u64>,
    gives: Vec<u64>,
    gives_to: Vec<Option<DomainId>>,
}

impl<'a> Sharing<'a> {
    fn new(terms: &'a Terms, claims: &'a [Claim]) -> Self {
        Self {
            terms,
            claims,
            holds: claims.iter().map(|claim| claim.held).collect(),
            gives: vec![0; claims.len()],
            gives_to: vec![None; claims.len()],
        }
    }

    /// What a domain would pay for holding `amount`. What it gives up is idle first.
    fn level(&self, index: usize, amount: u64) -> Level {
        let claim = &self.claims[index];
        let given = claim.held.saturating_sub(amount);
        let taxed = claim
            .idle
            .saturating_sub(given)
            .min(amount.saturating_sub(claim.reservation));
        let tax = u128::from(self.terms.tax.min(99));
        Level {
            cost: (100 - tax) * u128::from(amount) + tax * u128::from(taxed),
            share: claim.share.max(1),
            domain: claim.domain,
            index,
            holds: amount,
        }
    }

    fn ceiling(claim: &Claim, most: u64, goal: Goal) -> u64 {
        match goal {
            Goal::Reservation => most.min(claim.reservation),
            Goal::Start => most.min(claim.kept()),
            Goal::Wish => most,
        }
    }

    /// What is left of the budget for a goal, when `coming` more were free.
    fn room(&self, goal: Goal, coming: u64) -> Room {
        let held: i128 = self.holds.iter().copied().map(i128::from).sum();
        let free = i128::from(self.terms.budget) + i128::from(coming) - held;
        let promised = |kept: fn(&Claim) -> u64| -> i128 {
            let claims = self.claims.iter().zip(&self.holds);
            claims
                .map(|(claim, holds)| i128::from(kept(claim).saturating_sub(*holds)))
                .sum()
        };
        let open = match goal {
            Goal::Reservation => {
                return Room {
                    open: free,
                    host: None,
                };
            }
            Goal::Start => free - promised(|claim| claim.reservation),
            Goal::Wish => free - promised(Claim::kept),
        };
        let host = self.terms.headroom.map(|headroom| {
            let above = |claim: &Claim, amount: u64| amount.saturating_sub(claim.reservation);
            let claims = self.claims.iter().zip(&self.holds);
            let grown: i128 = claims
                .map(|(claim, holds)| {
                    i128::from(above(claim, *holds)) - i128::from(above(claim, claim.held))
                })
                .sum();
            i128::from(headroom) + i128::from(coming) - grown
        });
        Room { open, host }
    }

    /// Pours what is free over the claims: first up to the reservations, then to what is expected, then the rest.
    fn pour(&mut self) {
        for goal in [Goal::Reservation, Goal::Start, Goal::Wish] {
            let mut room = self.room(goal, 0);
            let ceiling = |claim: &Claim| Self::ceiling(claim, claim.wanted, goal);
            let mut waiting = self.waiting(ceiling);
            while let Some(Reverse(level)) = waiting.pop() {
                let claim = &self.claims[level.index];
                let missing = ceiling(claim) - level.holds;
                let portion = missing.min(claim.granule.max(1));
                if !room.fits(portion, 0) {
                    // Its next granule does not fit; a smaller one of another claim may.
                    continue;
                }
                room.spend(portion, 0);
                let holds = level.holds + portion;
                self.holds[level.index] = holds;
                if portion < missing {
                    waiting.push(Reverse(self.level(level.index, holds)));
                }
            }
        }
    }

    /// Those below a ceiling, the one that pays least for its share on top.
    fn waiting(&self, ceiling: impl Fn(&Claim) -> u64) -> BinaryHeap<Reverse<Level>> {
        (0..self.claims.len())
            .filter(|index| {
                self.holds[*index] < ceiling(&self.claims[*index]) && self.gives[*index] == 0
            })
            .map(|index| Reverse(self.level(index, self.holds[index])))
            .collect()
    }

    /// What a domain may still be asked for. One that wants more itself is not asked.
    fn spare(&self, index: usize) -> u64 {
        let claim = &self.claims[index];
        if claim.wanted > claim.held {
            return 0;
        }
        let above = claim.held.saturating_sub(claim.reservation);
        claim.spare.min(above).saturating_sub(self.gives[index])
    }

    /// Passes on what is on its way back, and asks for more where somebody holds more than its share of what another
    /// is short of.
    fn pass_on(&mut self) {
        // What is expected is counted, but nobody gives way for it beyond its share.
        for goal in [Goal::Reservation, Goal::Wish] {
            // What one could not use may do for another, until nobody gains any more.
            while self.pass_on_once(goal) {}
        }
    }

    /// One round over those that wait; whether anybody gained.
    fn pass_on_once(&mut self, goal: Goal) -> bool {
        let ceiling = |claim: &Claim| Self::ceiling(claim, claim.funded.min(claim.wanted), goal);
        let mut waiting = self.waiting(ceiling);
        if waiting.is_empty() {
            return false;
        }
        let mut donors: BinaryHeap<Level> = (0..self.claims.len())
            .filter_map(|index| self.after_gift(index))
            .collect();
        // Each donor gives one step a pass, which may be less than the least by which a claim can grow. A reservation is
        // collected piece by piece: nobody else may grow into what is promised to it, so what was given stays free until
        // it is enough. For a wish it would be anybody's.
        let piece = match goal {
            Goal::Reservation => {
                let gifts = (0..self.claims.len()).filter_map(|index| self.gift(index));
                gifts.min().unwrap_or(u64::MAX)
            }
            Goal::Start | Goal::Wish => u64::MAX,
        };
        let mut room = self.room(goal, self.terms.coming);
        let mut gained = false;
        while let Some(Reverse(level)) = waiting.pop() {
            let claim = &self.claims[level.index];
            let missing = ceiling(claim) - level.holds;
            let portion = missing.min(claim.granule.max(1)).min(piece);
            let after = self.level(level.index, level.holds + portion);
            // What is kept for itself it may use.
            let own = match goal {
                Goal::Wish => claim.kept().saturating_sub(level.holds),
                Goal::Reservation | Goal::Start => 0,
            };
            let mut given = Vec::new();
            while !room.fits(portion, own) {
                let Some((donor, amount)) = self.next_gift(&mut donors, goal, &after) else {
                    break;
                };
                room.gain(amount);
                given.push((donor, amount));
            }
            if !room.fits(portion, own) {
                // It would have been for nothing.
                for (donor, amount) in given {
                    room.lose(amount);
                    self.gives[donor] -= amount;
                    self.holds[donor] += amount;
                    donors.extend(self.after_gift(donor));
                }
                continue;
            }
            for (donor, _) in given {
                self.gives_to[donor].get_or_insert(claim.domain);
            }
            gained = true;
            room.spend(portion, own);
            let holds = level.holds + portion;
            self.holds[level.index] = holds;
            if portion < missing {
                waiting.push(Reverse(self.level(level.index, holds)));
            }
        }
        gained
    }

    /// The amount of a domain's next gift, while it has one.
    fn gift(&self, index: usize) -> Option<u64> {
        let spare = self.spare(index);
        (spare > 0).then(|| self.claims[index].portion.max(1).min(spare))
    }

    /// What a domain would pay after its next gift: donors are compared by what they are left with.
    fn after_gift(&self, index: usize) -> Option<Level> {
        let amount = self.gift(index)?;
        Some(self.level(index, self.holds[index] - amount))
    }

    /// The next gift of the domain that is left paying most for its share: who gives, and how much. For a reservation
    /// everybody gives what it can; for a wish only who still pays at least as much as the one that gets it.
    fn next_gift(
        &mut self,
        donors: &mut BinaryHeap<Level>,
        goal: Goal,
        receiver: &Level,
    ) -> Option<(usize, u64)> {
        loop {
            let after = donors.pop()?;
            if self.after_gift(after.index) != Some(after) {
                // What it gave was given back meanwhile, or it is listed twice.
                continue;
            }
            if goal == Goal::Wish && after.compare(receiver) == Ordering::Less {
                donors.push(after);
                return None;
            }
            let amount = self.holds[after.index] - after.holds;
            self.holds[after.index] = after.holds;
            self.gives[after.index] += amount;
            donors.extend(self.after_gift(after.index));
            return Some((after.index, amount));
        }
    }
}
