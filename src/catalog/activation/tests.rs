//! The states that follow from events, what is in force meanwhile, and the law that no history sends without end.

use proptest::prelude::*;

use super::*;
use crate::catalog::composition::VersionId;
use crate::catalog::versions::VersionNumber;

fn persona(version: u32) -> Desired {
    let digest = serde_json::from_value(serde_json::json!(format!("{version:064x}"))).unwrap();
    let version = VersionNumber::new(version).unwrap();
    let persona = VersionId {
        name: "web".parse().unwrap(),
        version,
    };
    Desired::Persona {
        composition: Composition {
            persona,
            bases: Vec::new(),
            overrides: Vec::new(),
            adjustments: Vec::new(),
        },
        digest,
        origin: Origin::Explicit,
    }
}

fn shown(generation: u64, version: u32) -> ActivationEvent {
    let Desired::Persona { digest, .. } = persona(version) else {
        unreachable!()
    };
    ActivationEvent::AgentCame(Shown::Persona {
        generation: Generation(generation),
        digest,
    })
}

fn after(events: &[ActivationEvent]) -> Activation {
    let mut activation =
        Activation::new(Generation(7), persona(1), AgentPresence::Absent, Moment(1));
    for event in events {
        if let Transition::Changed(next) = activation.next(event.clone(), Moment(5)) {
            assert_ne!(next, activation, "{event:?} changed nothing and said so");
            activation = next;
        }
    }
    activation
}

#[test]
fn the_states_follow_from_the_events() {
    use ActivationEvent::{Acknowledged, AgentCame, AgentLeft, Refused, Sent, Silent};
    use ActivationState as State;
    let own = Generation(7);
    let empty = || AgentCame(Shown::Nothing);
    let check = |events: &[ActivationEvent], expected: State| {
        assert_eq!(after(events).state, expected, "{events:?}");
    };
    let active = || State::Active { since: Moment(5) };
    check(&[], State::AgentAbsent);
    check(&[empty()], State::Pending);
    check(&[empty(), Sent], State::Sent { at: Moment(5) });
    check(&[empty(), Sent, Acknowledged(own)], active());
    check(
        &[empty(), Sent, Acknowledged(Generation(6))],
        State::Sent { at: Moment(5) },
    );
    check(
        &[empty(), Sent, Refused(own, "no".to_owned())],
        State::Failed {
            reason: "no".to_owned(),
        },
    );
    check(&[empty(), Sent, AgentLeft], State::AgentAbsent);
    check(&[empty(), Sent, AgentLeft, shown(7, 1)], active());
    check(&[empty(), Sent, AgentLeft, shown(6, 1)], State::Pending);
    check(&[empty(), Sent, AgentLeft, shown(7, 2)], State::Pending);
    check(&[shown(7, 1), AgentLeft], active());
    check(&[shown(7, 1), AgentLeft, empty()], State::Pending);
    check(&[empty(), Sent, Silent(own)], State::Pending);
    check(&[empty(), Sent, Silent(own), Acknowledged(own)], active());
    let crashing = [
        empty(),
        Sent,
        AgentLeft,
        empty(),
        Sent,
        AgentLeft,
        empty(),
        Sent,
        AgentLeft,
    ];
    check(&crashing, State::AgentAbsent);
    let ended = after(&[&crashing[..], &[empty()]].concat());
    assert!(matches!(ended.state, State::Failed { .. }), "{ended:?}");
    let silent = [
        empty(),
        Sent,
        Silent(own),
        Sent,
        Silent(own),
        Sent,
        Silent(own),
    ];
    assert!(matches!(after(&silent).state, State::Failed { .. }));
    let retried = [&silent[..], &[AgentLeft, empty(), Sent]].concat();
    assert!(
        matches!(after(&retried).state, State::Failed { .. }),
        "what failed is not tried by itself"
    );
}

#[test]
fn what_was_in_force_stays_so_until_its_successor_is() {
    let version = |activation: &Activation| {
        activation
            .in_force()
            .map(|in_force| in_force.persona.version.get())
    };
    let step = |activation: &Activation, event| match activation.next(event, Moment(5)) {
        Transition::Changed(next) => next,
        other => panic!("{other:?}"),
    };
    let first = Activation::new(Generation(7), persona(1), AgentPresence::Present, Moment(1));
    assert_eq!(version(&first), None, "nothing was in force before");
    let first = step(&first, ActivationEvent::Sent);
    let first = step(&first, ActivationEvent::Acknowledged(Generation(7)));
    assert_eq!(version(&first), Some(1));
    let second = Activation::new(Generation(8), persona(2), AgentPresence::Present, Moment(2))
        .following(Some(&first));
    let second = step(&second, ActivationEvent::Sent);
    assert_eq!(version(&second), Some(1), "the second is only under way");
    let failed = step(
        &second,
        ActivationEvent::Refused(Generation(8), "no".to_owned()),
    );
    // Also after the daemon's restart, which reads it from the store.
    let read: Activation = serde_json::from_str(&serde_json::to_string(&failed).unwrap()).unwrap();
    assert_eq!(version(&read), Some(1));
    let third = Activation::new(
        Generation(9),
        Desired::Nothing,
        AgentPresence::Absent,
        Moment(3),
    )
    .following(Some(&read));
    assert_eq!(version(&third), None);
    let active = step(&second, ActivationEvent::Acknowledged(Generation(8)));
    assert_eq!((version(&active), active.standing.clone()), (Some(2), None));
    let rebooted = step(&active, ActivationEvent::AgentCame(Shown::Nothing));
    assert_eq!(
        version(&rebooted),
        Some(2),
        "a guest that lost it gets it again"
    );
}

#[test]
fn a_successor_that_failed_stays_wanted_and_failed_while_the_one_before_it_is_adjusted() {
    let step = |activation: &Activation, event| match activation.next(event, Moment(5)) {
        Transition::Changed(next) => next,
        other => panic!("{other:?}"),
    };
    let start = |generation, version, before: Option<&Activation>| {
        let generation = Generation(generation);
        let wanted = persona(version);
        let new = Activation::new(generation, wanted, AgentPresence::Present, Moment(1));
        let sent = step(&new.following(before), ActivationEvent::Sent);
        assert!(sent.is_under_way());
        sent
    };
    let first = start(7, 1, None);
    let away = step(&first, ActivationEvent::AgentLeft);
    assert!(away.is_under_way(), "nobody knows how it ended");
    let first = step(&away, ActivationEvent::Acknowledged(Generation(7)));
    let second = start(8, 2, Some(&first));
    let refused = ActivationEvent::Refused(Generation(8), "no".to_owned());
    let second = step(&second, refused);
    assert!(second.failure().is_some() && !second.is_under_way());
    let on = |of: &Activation| of.goes_on().map(|(of, _)| of.persona.version.get());
    assert_eq!(on(&second), Some(1));
    let new = Activation::new(Generation(9), persona(1), AgentPresence::Present, Moment(2));
    let third = new.adjusting(&second);
    let third = step(&third, ActivationEvent::Sent);
    let third = step(&third, ActivationEvent::Acknowledged(Generation(9)));
    assert_eq!((on(&third), third.failure()), (Some(1), Some("no")));
    assert_eq!(third.occasion, Occasion::Adjustment);
    assert_eq!(third.asked_for(), &persona(2));
    assert!(third.satisfies(&persona(2)) && third.satisfies(&persona(1)));
    assert!(!third.satisfies(&persona(3)));
}

#[test]
fn answers_of_another_generation_are_stale() {
    let activation = after(&[
        ActivationEvent::AgentCame(Shown::Nothing),
        ActivationEvent::Sent,
    ]);
    for generation in [Generation(6), Generation(8)] {
        for event in [
            ActivationEvent::Acknowledged(generation),
            ActivationEvent::Refused(generation, String::new()),
            ActivationEvent::Silent(generation),
        ] {
            assert_eq!(activation.next(event, Moment(9)), Transition::Stale);
        }
    }
}

fn any_event() -> impl Strategy<Value = ActivationEvent> {
    let generation = (6..9_u64).prop_map(Generation);
    prop_oneof![
        Just(ActivationEvent::AgentCame(Shown::Nothing)),
        (6..9_u64, 1..3_u32).prop_map(|(generation, version)| shown(generation, version)),
        Just(ActivationEvent::AgentLeft),
        Just(ActivationEvent::Sent),
        generation.clone().prop_map(ActivationEvent::Acknowledged),
        generation
            .clone()
            .prop_map(|generation| ActivationEvent::Refused(generation, "no".to_owned())),
        generation.prop_map(ActivationEvent::Silent),
    ]
}

proptest! {
    #[test]
    fn no_history_sends_more_than_allowed_before_it_is_active(events in proptest::collection::vec(any_event(), 0..40)) {
        let mut activation = Activation::new(Generation(7), persona(1), AgentPresence::Present, Moment(1));
        let mut sent = 0;
        for event in events {
            let Transition::Changed(next) = activation.next(event.clone(), Moment(5)) else { continue };
            if event == ActivationEvent::Sent {
                sent += 1;
            }
            prop_assert!(sent <= MOST_ATTEMPTS);
            prop_assert_eq!(next.generation, activation.generation);
            // Only the guest's own word, about this very generation, makes it active.
            if matches!(next.state, ActivationState::Active { .. }) {
                let own = event == ActivationEvent::Acknowledged(Generation(7)) || event == shown(7, 1);
                prop_assert!(own, "{event:?}");
            }
            if matches!(next.state, ActivationState::Active { .. }) {
                sent = 0;
            }
            activation = next;
        }
    }
}
