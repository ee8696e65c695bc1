//! Properties of arbitration over random hosts: what must hold whoever asks for whatever.

use persona::domain::DomainId;
use planner::arbitrate::{Claim, Grant, arbitrate};
use proptest::prelude::*;

fn domain(number: u8) -> DomainId {
    DomainId([number; 16])
}

prop_compose! {
    fn claim()(
        held in 0u64..64,
        more in 0u64..64,
        reservation in 0u64..48,
        share in 0u32..4000,
        granule in 1u64..8,
    ) -> Claim {
        Claim { domain: domain(0), held, wanted: held + more, reservation, share, granule }
    }
}

prop_compose! {
    fn host()(
        budget in 0u64..600,
        mut claims in proptest::collection::vec(claim(), 0..12),
    ) -> (u64, Vec<Claim>) {
        for (number, claim) in claims.iter_mut().enumerate() {
            claim.domain = domain(u8::try_from(number).expect("fewer than 256 claims"));
        }
        (budget, claims)
    }
}

fn granted(grants: &[Grant], domain: DomainId) -> u64 {
    grants
        .iter()
        .find(|grant| grant.domain == domain)
        .expect("one grant a claim")
        .granted
}

proptest! {
    #[test]
    fn growth_never_exceeds_the_budget((budget, claims) in host()) {
        let grants = arbitrate(budget, &claims);
        let held: u64 = claims.iter().map(|claim| claim.held).sum();
        let total: u64 = grants.iter().map(|grant| grant.granted).sum();
        // What is held already may exceed a budget that was made smaller; it never grows beyond it.
        prop_assert!(total <= budget.max(held), "{total} of {budget}, {held} held");
    }

    #[test]
    fn nobody_gets_less_than_it_holds_or_more_than_it_wants((budget, claims) in host()) {
        for (claim, grant) in claims.iter().zip(arbitrate(budget, &claims)) {
            prop_assert!(grant.granted >= claim.held && grant.granted <= claim.wanted);
        }
    }

    #[test]
    fn what_is_reserved_for_others_is_not_spent((budget, claims) in host()) {
        let grants = arbitrate(budget, &claims);
        let promised: u64 = claims.iter().map(|claim| claim.held.max(claim.reservation)).sum();
        prop_assume!(promised <= budget);
        let kept: u64 = claims.iter().zip(&grants).map(|(claim, grant)| grant.granted.max(claim.reservation)).sum();
        prop_assert!(kept <= budget, "{kept} of {budget}");
    }

    #[test]
    fn everybody_reaches_its_reservation_when_all_fit((budget, mut claims) in host()) {
        for claim in &mut claims {
            claim.granule = 1;
        }
        let promised: u64 = claims.iter().map(|claim| claim.held.max(claim.reservation)).sum();
        prop_assume!(promised <= budget);
        for (claim, grant) in claims.iter().zip(arbitrate(budget, &claims)) {
            prop_assert!(grant.granted >= claim.wanted.min(claim.reservation));
        }
    }

    #[test]
    fn the_order_of_the_domains_does_not_matter((budget, claims) in host(), seed in any::<u64>()) {
        let grants = arbitrate(budget, &claims);
        let mut shuffled = claims.clone();
        shuffled.sort_by_key(|claim| u64::from(claim.domain.0[0]).wrapping_mul(seed | 1).rotate_left(17));
        let others = arbitrate(budget, &shuffled);
        for claim in &claims {
            prop_assert_eq!(granted(&grants, claim.domain), granted(&others, claim.domain));
        }
    }

    #[test]
    fn a_larger_share_never_gets_less((budget, claims) in host(), pick in any::<prop::sample::Index>(), more in 1u32..4000) {
        prop_assume!(!claims.is_empty());
        // With unlike granules a larger share may end on a granule that does not fit; with like ones it may not.
        let mut claims = claims;
        for claim in &mut claims {
            claim.granule = 1;
        }
        let index = pick.index(claims.len());
        let before = arbitrate(budget, &claims)[index].granted;
        claims[index].share += more;
        prop_assert!(arbitrate(budget, &claims)[index].granted >= before);
    }

    #[test]
    fn what_is_left_over_fits_nobody((budget, claims) in host()) {
        let grants = arbitrate(budget, &claims);
        let kept: u64 = claims.iter().zip(&grants).map(|(claim, grant)| grant.granted.max(claim.reservation)).sum();
        let left = budget.saturating_sub(kept);
        for (claim, grant) in claims.iter().zip(&grants) {
            let missing = claim.wanted - grant.granted;
            if missing > 0 && grant.granted >= claim.reservation {
                prop_assert!(missing.min(claim.granule) > left, "{claim:?} could still grow into {left}");
            }
        }
    }

    #[test]
    fn equals_end_within_one_granule_of_each_other(budget in 2u64..200, wants in 50u64..100) {
        let claim = |number| Claim {
            domain: domain(number), held: 1, wanted: wants, reservation: 0, share: 1000, granule: 1,
        };
        let grants = arbitrate(budget, &[claim(1), claim(2)]);
        prop_assert!(grants[0].granted.abs_diff(grants[1].granted) <= 1);
    }

    #[test]
    fn a_second_pass_over_the_result_grants_nothing_more((budget, claims) in host()) {
        let grants = arbitrate(budget, &claims);
        let settled: Vec<Claim> = claims
            .iter()
            .zip(&grants)
            .map(|(claim, grant)| Claim { held: grant.granted, ..claim.clone() })
            .collect();
        let again = arbitrate(budget, &settled);
        for (first, second) in grants.iter().zip(&again) {
            prop_assert_eq!(first.granted, second.granted);
        }
    }
}

#[test]
fn shares_divide_what_is_contested() {
    let claim = |number, share| Claim {
        domain: domain(number),
        held: 1,
        wanted: 30,
        reservation: 0,
        share,
        granule: 1,
    };
    let grants = arbitrate(30, &[claim(1, 1000), claim(2, 2000)]);
    assert_eq!(
        grants.iter().map(|grant| grant.granted).collect::<Vec<_>>(),
        [10, 20]
    );
}

#[test]
fn the_answer_names_what_others_hold() {
    let claim = |number, held, reservation| Claim {
        domain: domain(number),
        held,
        wanted: held,
        reservation,
        share: 1000,
        granule: 1,
    };
    let grants = arbitrate(8, &[claim(1, 2, 0), claim(2, 3, 4)]);
    assert_eq!((grants[0].others, grants[1].others), (4, 2));
}
