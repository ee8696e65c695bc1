//! What a domain holds and claims of one resource, as a value that can be kept: a plan tells the stake of every domain,
//! and with the stakes of the others the plan of a single domain can be made again later, with the same arbitration.
//! Recorded by the daemon, played by `simulate`; a live plan has no others, since all domains are in its snapshot.

use serde::{Deserialize, Serialize};

use crate::arbitrate::Claim;
use crate::ledger::Account;

/// What one domain holds and claims of one resource in one plan, in the units of the budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stake {
    /// As it was arbitrated.
    pub claim: Claim,
    /// Its weight before `priority_metrics` moved it.
    pub share: u32,
    /// Whether it counts where the host is shared out: it does not when it is off.
    pub shares: bool,
    /// What of it is on its way back.
    pub coming: u64,
    /// What was granted to it above its reservation and does not show on the host yet.
    pub on_its_way: u64,
}

/// A domain that is not in the snapshot: its claims stand as they were when they were recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its name, for reports.
    pub name: String,
    /// Its stakes in vCPUs and in memory.
    pub stakes: [Stake; 2],
}

/// The claims of others as they take part in an arbitration that is not over yet: their preferences and what they could
/// spare come in where those of the domains in the snapshot do.
pub(crate) fn claims(others: &[Other], slot: usize) -> impl Iterator<Item = Claim> {
    others.iter().map(move |other| {
        let stake = &other.stakes[slot];
        Claim {
            share: stake.share,
            spare: 0,
            ..stake.claim.clone()
        }
    })
}

/// What each domain of the snapshot had at stake.
pub(crate) fn stakes(account: &Account<'_>, shares: &[u32], runs: &[bool]) -> Vec<Stake> {
    let domains = account.claims.iter().zip(shares.iter().zip(runs));
    domains
        .enumerate()
        .map(|(index, (claim, (share, runs)))| Stake {
            claim: claim.clone(),
            share: *share,
            shares: *runs,
            coming: account.coming[index],
            on_its_way: account.on_its_way[index],
        })
        .collect()
}
