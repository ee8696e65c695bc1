//! Properties of arbitration over random hosts: what must hold whoever asks for whatever, and whoever has to give.

use persona::domain::DomainId;
use planner::arbitrate::{Claim, Grant, Terms, arbitrate};
use proptest::prelude::*;

fn domain(number: u8) -> DomainId {
    DomainId([number; 16])
}

/// A budget, and nothing else to heed.
fn only(budget: u64) -> Terms {
    Terms {
        budget,
        headroom: None,
        coming: 0,
        tax: 0,
    }
}

prop_compose! {
    fn claim()(
        held in 0u64..64,
        more in prop_oneof![Just(0u64), 1u64..64],
        reservation in 0u64..48,
        expected in prop_oneof![3 => Just(0u64), 1 => 0u64..48],
        share in prop_oneof![Just(1000u32), 0u32..4000],
        granule in 1u64..8,
        idle in 0u64..64,
        spare in 0u64..64,
        portion in 1u64..8,
        claimed_by_guest in any::<bool>(),
    ) -> Claim {
        let wanted = held + more;
        Claim {
            domain: domain(0),
            held,
            wanted,
            funded: if claimed_by_guest { wanted.min(reservation.max(held)) } else { wanted },
            reservation,
            expected,
            share,
            granule,
            idle: idle.min(held),
            spare: spare.min(held),
            portion,
        }
    }
}

prop_compose! {
    fn host()(
        budget in 0u64..600,
        headroom in prop_oneof![2 => Just(None), 1 => (0u64..64).prop_map(Some)],
        coming in prop_oneof![2 => Just(0u64), 1 => 0u64..32],
        tax in prop_oneof![Just(0u32), Just(50), Just(75), Just(90)],
        mut claims in proptest::collection::vec(claim(), 0..12),
    ) -> (Terms, Vec<Claim>) {
        for (number, claim) in claims.iter_mut().enumerate() {
            claim.domain = domain(u8::try_from(number).expect("fewer than 256 claims"));
        }
        (Terms { budget, headroom, coming, tax }, claims)
    }
}

prop_compose! {
    /// Everything moves one by one: where granules are unlike, a larger one may not fit where a smaller one does.
    fn fine_host()((terms, mut claims) in host()) -> (Terms, Vec<Claim>) {
        for claim in &mut claims {
            claim.granule = 1;
            claim.portion = 1;
        }
        (terms, claims)
    }
}

fn of(grants: &[Grant], domain: DomainId) -> &Grant {
    grants
        .iter()
        .find(|grant| grant.domain == domain)
        .expect("one grant a claim")
}

fn sum(amounts: impl Iterator<Item = u64>) -> u64 {
    amounts.sum()
}

/// What of the budget nobody else may grow into.
fn kept(claim: &Claim) -> u64 {
    claim.reservation.max(claim.expected)
}

/// What a claim may be made to give up at most.
fn takeable(claim: &Claim) -> u64 {
    if claim.wanted > claim.held {
        return 0;
    }
    claim
        .spare
        .min(claim.held.saturating_sub(claim.reservation))
}

/// The world in which everything that was granted and given has taken place.
fn settled(terms: &Terms, claims: &[Claim], grants: &[Grant]) -> (Terms, Vec<Claim>) {
    let claims = claims
        .iter()
        .zip(grants)
        .map(|(claim, grant)| Claim {
            held: grant.expects,
            wanted: claim.wanted.max(grant.expects) - grant.gives.min(claim.wanted),
            idle: claim.idle.saturating_sub(grant.gives),
            // Who grew for its need has nothing to spare.
            spare: if grant.expects > claim.held {
                0
            } else {
                claim.spare - grant.gives
            },
            ..claim.clone()
        })
        .collect::<Vec<_>>();
    (*terms, claims)
}

proptest! {
    #[test]
    fn growth_never_exceeds_the_budget((terms, claims) in host()) {
        let grants = arbitrate(&terms, &claims);
        let held = sum(claims.iter().map(|claim| claim.held));
        let total = sum(grants.iter().map(|grant| grant.granted));
        // What is held already may exceed a budget that was made smaller; it never grows beyond it.
        prop_assert!(total <= terms.budget.max(held), "{total} of {}, {held} held", terms.budget);
        // Nor does it when what others are asked for has come.
        let later = sum(grants.iter().map(|grant| grant.expects));
        prop_assert!(later <= (terms.budget + terms.coming).max(held), "{later} of {}", terms.budget);
    }

    #[test]
    fn nobody_gets_more_than_it_wants_and_nobody_has_less_before_it_gave((terms, claims) in host()) {
        for (claim, grant) in claims.iter().zip(arbitrate(&terms, &claims)) {
            prop_assert!(grant.granted >= claim.held && grant.granted <= claim.wanted);
            prop_assert!(grant.expects <= claim.wanted);
        }
    }

    #[test]
    fn no_floor_is_crossed_and_nobody_gives_below_its_reservation((terms, claims) in host()) {
        for (claim, grant) in claims.iter().zip(arbitrate(&terms, &claims)) {
            prop_assert!(grant.gives <= takeable(claim), "{claim:?} gives {}", grant.gives);
            if grant.gives > 0 {
                prop_assert_eq!(grant.expects, claim.held - grant.gives);
                prop_assert!(grant.gives_to.is_some());
            }
        }
    }

    #[test]
    fn what_a_guest_claims_takes_nothing_from_another((terms, mut claims) in host()) {
        for claim in &mut claims {
            claim.funded = claim.held;
        }
        for grant in arbitrate(&terms, &claims) {
            prop_assert_eq!(grant.gives, 0);
        }
    }

    #[test]
    fn what_is_reserved_for_others_is_not_spent((mut terms, claims) in host()) {
        let promised = sum(claims.iter().map(|claim| claim.held.max(kept(claim))));
        terms.budget = terms.budget.max(promised);
        let grants = arbitrate(&terms, &claims);
        let kept = sum(claims.iter().zip(&grants).map(|(claim, grant)| grant.granted.max(kept(claim))));
        prop_assert!(kept <= terms.budget, "{kept} of {}", terms.budget);
    }

    #[test]
    fn everybody_reaches_its_reservation_when_all_fit((mut terms, claims) in fine_host()) {
        let promised = sum(claims.iter().map(|claim| claim.held.max(claim.reservation)));
        terms.budget = terms.budget.max(promised);
        for (claim, grant) in claims.iter().zip(arbitrate(&terms, &claims)) {
            prop_assert!(grant.granted >= claim.wanted.min(claim.reservation));
        }
    }

    #[test]
    fn nobody_starves_below_its_reservation_while_others_can_give((mut terms, claims) in fine_host(), slack in 0u64..32) {
        // The budget covers what nobody gives up and every reservation that is wanted, and hardly more.
        terms.budget = sum(claims.iter().map(|claim| {
            let floor = claim.held - takeable(claim);
            floor.max(claim.wanted.min(claim.reservation))
        })) + slack;
        for (claim, grant) in claims.iter().zip(arbitrate(&terms, &claims)) {
            let promised = claim.wanted.min(claim.reservation).min(claim.funded);
            prop_assert!(grant.expects >= promised, "{claim:?} expects {}", grant.expects);
        }
    }

    #[test]
    fn a_reservation_larger_than_one_pass_can_give_is_reached_in_several(
        step in 1u64..16,
        missing in 2u64..64,
        donors in 1u8..4,
        granule in 1u64..64,
    ) {
        // The donors hold as much above their reservations as is missing, and give one small step a pass each.
        let mut claims = vec![Claim { reservation: missing, granule: granule.min(missing), ..plain(0, 0, missing, 1000) }];
        claims.extend((1..=donors).map(|number| Claim { portion: step, ..idle(number, 2 * missing) }));
        let terms = only(sum(claims.iter().map(|claim| claim.held)));
        for _ in 0..=missing.div_ceil(step) * 2 {
            for claim in &mut claims[1..] {
                claim.spare = step.min(claim.held.saturating_sub(missing));
            }
            let grants = arbitrate(&terms, &claims);
            for (claim, grant) in claims.iter_mut().zip(&grants) {
                claim.held = grant.granted - grant.gives;
                claim.wanted = claim.wanted.max(claim.held).min(if claim.reservation > 0 { missing } else { claim.held });
            }
            prop_assert!(sum(claims.iter().map(|claim| claim.held)) <= terms.budget);
        }
        prop_assert_eq!(claims[0].held, missing);
    }

    #[test]
    fn the_order_of_the_domains_does_not_matter((terms, claims) in host(), seed in any::<u64>()) {
        let grants = arbitrate(&terms, &claims);
        let mut shuffled = claims.clone();
        shuffled.sort_by_key(|claim| u64::from(claim.domain.0[0]).wrapping_mul(seed | 1).rotate_left(17));
        let others = arbitrate(&terms, &shuffled);
        for claim in &claims {
            prop_assert_eq!(of(&grants, claim.domain), of(&others, claim.domain));
        }
    }

    #[test]
    fn a_larger_share_never_gets_or_keeps_less((terms, mut claims) in fine_host(), pick in any::<prop::sample::Index>(), more in 1u32..4000) {
        prop_assume!(!claims.is_empty());
        let index = pick.index(claims.len());
        let before = arbitrate(&terms, &claims)[index].clone();
        claims[index].share += more;
        let after = &arbitrate(&terms, &claims)[index];
        prop_assert!(after.granted >= before.granted);
        prop_assert!(after.expects >= before.expects, "{before:?} {after:?}");
    }

    #[test]
    fn what_is_idle_never_gets_or_keeps_more((terms, mut claims) in fine_host(), pick in any::<prop::sample::Index>(), more in 1u64..64) {
        prop_assume!(!claims.is_empty());
        let index = pick.index(claims.len());
        let before = arbitrate(&terms, &claims)[index].clone();
        claims[index].idle = (claims[index].idle + more).min(claims[index].held);
        let after = &arbitrate(&terms, &claims)[index];
        prop_assert!(after.granted <= before.granted);
        prop_assert!(after.expects <= before.expects, "{before:?} {after:?}");
    }

    #[test]
    fn what_is_left_over_fits_nobody((mut terms, claims) in host()) {
        terms.headroom = None;
        let grants = arbitrate(&terms, &claims);
        let kept_in_all = sum(claims.iter().zip(&grants).map(|(claim, grant)| grant.granted.max(kept(claim))));
        let left = terms.budget.saturating_sub(kept_in_all);
        for (claim, grant) in claims.iter().zip(&grants) {
            let missing = claim.wanted - grant.granted;
            if missing > 0 && grant.granted >= kept(claim) {
                prop_assert!(missing.min(claim.granule) > left, "{claim:?} could still grow into {left}");
            }
        }
    }

    #[test]
    fn growth_above_reservations_leaves_the_host_what_it_needs((terms, claims) in host()) {
        let Some(headroom) = terms.headroom else { return Ok(()) };
        let above = |amount: u64, claim: &Claim| amount.saturating_sub(claim.reservation);
        let grown = sum(claims.iter().zip(arbitrate(&terms, &claims)).map(|(claim, grant)| {
            above(grant.granted, claim) - above(claim.held, claim)
        }));
        prop_assert!(grown <= headroom, "{grown} of {headroom}");
    }

    #[test]
    fn nobody_is_short_while_one_that_pays_more_has_something_to_give((mut terms, mut claims) in fine_host()) {
        // Reservations are served whatever anybody pays, so they are left out here.
        (terms.headroom, terms.tax) = (None, 0);
        for claim in &mut claims {
            (claim.reservation, claim.expected) = (0, 0);
            claim.funded = claim.wanted;
        }
        // On a host that holds more than its budget what is given goes to the host first.
        terms.budget = terms.budget.max(sum(claims.iter().map(|claim| claim.held)));
        let grants = arbitrate(&terms, &claims);
        for (short, grant) in claims.iter().zip(&grants).filter(|(claim, grant)| grant.expects < claim.wanted) {
            for (rich, other) in claims.iter().zip(&grants).filter(|(claim, grant)| grant.gives < takeable(claim)) {
                let pays_after = u128::from(other.expects - 1) * u128::from(short.share.max(1));
                let would_pay = u128::from(grant.expects + 1) * u128::from(rich.share.max(1));
                prop_assert!(pays_after < would_pay, "{rich:?} could give to {short:?}");
            }
        }
    }

    #[test]
    fn equals_end_within_one_granule_of_each_other(budget in 2u64..200, wants in 50u64..100) {
        let claim = |number| plain(number, 1, wants, 1000);
        let grants = arbitrate(&only(budget), &[claim(1), claim(2)]);
        prop_assert!(grants[0].granted.abs_diff(grants[1].granted) <= 1);
    }

    #[test]
    fn a_second_pass_over_the_result_changes_nothing((mut terms, mut claims) in host()) {
        // What is on its way back from elsewhere is free at the second pass, which is another host; what a large portion
        // leaves over is free for everybody; and what others gave so that enough is kept for one that starts, it gets.
        terms.coming = 0;
        for claim in &mut claims {
            (claim.portion, claim.expected) = (1, 0);
        }
        let grants = arbitrate(&terms, &claims);
        let given = sum(grants.iter().map(|grant| grant.gives));
        let grown = sum(claims.iter().zip(&grants).map(|(claim, grant)| {
            grant.expects.saturating_sub(claim.held.max(claim.reservation))
        }));
        // The host has what was given, and no longer what was spent.
        terms.headroom = terms.headroom.map(|headroom| (headroom + given).saturating_sub(grown));
        let (terms, claims) = settled(&terms, &claims, &grants);
        for (claim, grant) in claims.iter().zip(arbitrate(&terms, &claims)) {
            prop_assert_eq!((grant.granted, grant.gives, grant.expects), (claim.held, 0, claim.held), "{:?}", claim);
        }
    }
}

/// A claim that has nothing to give.
fn plain(number: u8, held: u64, wanted: u64, share: u32) -> Claim {
    Claim {
        domain: domain(number),
        held,
        wanted,
        funded: wanted,
        reservation: 0,
        expected: 0,
        share,
        granule: 1,
        idle: 0,
        spare: 0,
        portion: 1,
    }
}

/// A claim that uses half of what it holds and could do without the rest.
fn idle(number: u8, held: u64) -> Claim {
    Claim {
        idle: held / 2,
        spare: held / 2,
        ..plain(number, held, held, 1000)
    }
}

#[test]
fn shares_divide_what_is_contested() {
    let grants = arbitrate(&only(30), &[plain(1, 1, 30, 1000), plain(2, 1, 30, 2000)]);
    assert_eq!(
        grants.iter().map(|grant| grant.granted).collect::<Vec<_>>(),
        [10, 20]
    );
}

#[test]
fn among_equals_the_domain_decides_and_not_its_place_in_the_list() {
    let mut claims = [plain(1, 1, 9, 1000), plain(2, 1, 9, 1000)];
    let first = arbitrate(&only(7), &claims);
    claims.reverse();
    let second = arbitrate(&only(7), &claims);
    assert_eq!((first[0].granted, first[1].granted), (4, 3));
    assert_eq!((second[1].granted, second[0].granted), (4, 3));
}

#[test]
fn the_answer_names_what_others_hold() {
    let claim = |number, held, reservation| Claim {
        reservation,
        ..plain(number, held, held, 1000)
    };
    let grants = arbitrate(&only(8), &[claim(1, 2, 0), claim(2, 3, 4)]);
    assert_eq!((grants[0].others, grants[1].others), (4, 2));
}

#[test]
fn the_one_that_holds_most_for_its_share_gives_way_and_growth_waits_for_it() {
    let grants = arbitrate(&only(20), &[idle(1, 12), plain(2, 8, 10, 1000)]);
    assert_eq!((grants[0].gives, grants[0].gives_to), (2, Some(domain(2))));
    assert_eq!((grants[1].granted, grants[1].expects), (8, 10));
    // Once it is free it is granted.
    let grants = arbitrate(&only(20), &[idle(1, 10), plain(2, 8, 10, 1000)]);
    assert_eq!((grants[0].gives, grants[1].granted), (0, 10));
}

#[test]
fn what_is_on_its_way_back_is_not_asked_for_again() {
    let terms = Terms {
        coming: 2,
        ..only(20)
    };
    let grants = arbitrate(&terms, &[idle(1, 12), plain(2, 8, 10, 1000)]);
    assert_eq!((grants[0].gives, grants[1].expects), (0, 10));
}

#[test]
fn the_idle_tax_makes_one_give_way_that_holds_no_more_than_its_share() {
    let claims = [idle(1, 10), plain(2, 10, 12, 1000)];
    assert_eq!(arbitrate(&only(20), &claims)[0].gives, 0);
    let terms = Terms {
        tax: 50,
        ..only(20)
    };
    let grants = arbitrate(&terms, &claims);
    // Five idle ones count twice: ten cost as much as fifteen that are used, and nine as much as thirteen. With eight
    // it would pay for eleven, which is less than the other would then pay for twelve.
    assert_eq!((grants[0].gives, grants[1].expects), (1, 11));
}

#[test]
fn what_a_starting_domain_will_need_is_kept_but_nobody_gives_way_for_it_beyond_its_share() {
    let starting = |wanted| Claim {
        expected: 8,
        ..plain(1, 2, wanted, 1000)
    };
    // Of ten free ones six are kept, as long as it does not ask for them.
    let grants = arbitrate(&only(20), &[starting(2), plain(2, 8, 20, 1000)]);
    assert_eq!((grants[0].granted, grants[1].granted), (2, 12));
    let grants = arbitrate(&only(20), &[starting(8), plain(2, 8, 20, 1000)]);
    assert_eq!((grants[0].granted, grants[1].granted), (8, 12));
    // With a tenth of the other's share it is worth one of eleven; and what it is given is not counted twice.
    let starting = Claim {
        share: 100,
        ..starting(8)
    };
    let grants = arbitrate(&only(12), &[starting, idle(2, 10)]);
    assert_eq!((grants[0].expects, grants[1].gives), (2, 0));
    let starting = Claim {
        expected: 8,
        ..plain(1, 0, 4, 1000)
    };
    let grants = arbitrate(&only(10), &[starting, idle(2, 10)]);
    assert_eq!((grants[0].expects, grants[1].gives), (4, 4));
}

#[test]
fn a_reservation_is_not_taxed() {
    let terms = Terms {
        tax: 50,
        ..only(24)
    };
    // Six of twelve are idle. Of those above ten only two count twice, so that twelve cost as much as fourteen.
    for (reservation, gives) in [(0, 2), (10, 0)] {
        let rich = Claim {
            reservation,
            ..idle(1, 12)
        };
        let grants = arbitrate(&terms, &[rich, plain(2, 12, 14, 1000)]);
        assert_eq!(
            grants[0].gives, gives,
            "with a reservation of {reservation}"
        );
    }
}
