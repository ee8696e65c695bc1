//! What the carried state makes of an end at a bad moment: a crash in mid-step, a restart of the domain, a clock that
//! was set back. Here the steps themselves are only noted; that they are carried out is for the other tests.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::{Metric, Reading, Signals};
use persona::units::{Bytes, Moment};
use persona::{Format, Persona, SourceText};
use planner::report::{Reason, Verdict, Wish};
use planner::snapshot::{Ability, Domain, Host, Knobs, Memory, Run, Strain, Vcpus};
use planner::{Ending, Plan, Policy, Snapshot, State, Step, plan};

const ID: DomainId = DomainId([7; 16]);
const NOW: Moment = Moment(1_000_000_000);

struct Silence;

impl Signals for Silence {
    fn reading(&self, _: Metric) -> Option<Reading> {
        None
    }
}

fn persona() -> Persona {
    let source = SourceText {
        name: "test.yaml",
        text: b"name: web\nbase_configuration:\n  cpu: {min: 1, max: 4}\n",
        format: Format::Yaml,
        persona_name: None,
    };
    persona::load(&source).expect("a good document").persona
}

/// What a pass over a machine with so many vCPUs comes to.
fn pass(state: &mut State, instance: u32, vcpus: u32, ability: Ability, now: Moment) -> Plan {
    let persona = persona();
    let boot = Bytes::from_mib(512);
    let domain = Domain {
        id: ID,
        name: "machine",
        persona: Some(&persona),
        run: Run::Running,
        instance: Some(instance),
        vcpus: Vcpus {
            maximum: 8,
            fixed: 1,
            plugged: vcpus,
            online: Some(vcpus),
            weight: 1,
            ability,
        },
        memory: Memory {
            boot,
            requested: boot,
            plugged: boot,
            maximum: boot,
            minimum: boot,
            block: Bytes::from_mib(2),
            means: planner::Means::Usual,
            balloon: None,
            dimm: None,
            ability: Ability::NoMemoryDevice,
        },
        knobs: Knobs::default(),
        signals: &Silence,
        shifted_by: None,
        adjusted_by: &[],
    };
    let snapshot = Snapshot {
        host: Host {
            vcpus: 64,
            memory: Bytes::from_mib(8192),
        },
        strain: Strain::default(),
        domains: vec![domain],
    };
    plan(&snapshot, state, &Policy::default(), now)
}

fn step(instance: u32, from: u64, to: u64, effect: Option<&str>) -> Step {
    Step {
        domain: ID,
        instance: Some(instance),
        resource: Resource::Vcpus,
        from,
        to,
        means: planner::Means::Usual,
        by: Wish::Rule("grow".into()),
        effect: effect.map(str::to_owned),
        consent: planner::Consent::Asked,
    }
}

/// The state after a crash of the daemon, read back from the store.
fn after_crash(state: &State, now: Moment) -> State {
    let text = serde_json::to_string(state).expect("a state can be written");
    let mut state: State = serde_json::from_str(&text).expect("and read");
    state.resume(&Policy::default(), now);
    state
}

#[test]
fn a_step_that_was_done_while_the_daemon_died_is_not_taken_for_a_hands_work() {
    let mut state = State::default();
    let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
    state.begin(&step(1, 1, 2, None), NOW);
    let mut state = after_crash(&state, NOW);
    let plan = pass(
        &mut state,
        1,
        2,
        Ability::Both,
        NOW.after(Duration::from_secs(9)),
    );
    assert_eq!(plan.drifts, []);
    let slot = &state.domain(ID).expect("known").vcpus;
    assert_eq!((slot.held_until, &slot.in_flight), (None, &None));
}

#[test]
fn an_effect_whose_step_ended_with_the_daemon_will_still_be_undone() {
    let mut state = State::default();
    let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
    state.begin(&step(1, 1, 2, Some("burst")), NOW);
    let state = after_crash(&state, NOW);
    let effects = &state.domain(ID).expect("known").effects;
    assert_eq!(effects.len(), 1);
    assert_eq!((effects[0].rule.as_str(), effects[0].before), ("burst", 1));
}

#[test]
fn an_effect_of_unknown_outcome_will_be_undone_too() {
    let mut state = State::default();
    let grow = step(1, 1, 2, Some("burst"));
    for (ending, effects) in [(Ending::Refused, 0), (Ending::Unknown, 1)] {
        state.begin(&grow, NOW);
        state.finish(&grow, ending, Some(1), &Policy::default(), NOW);
        assert_eq!(state.domain(ID).expect("known").effects.len(), effects);
    }
}

#[test]
fn the_end_of_an_earlier_instances_step_does_not_end_the_present_ones() {
    let mut state = State::default();
    let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
    let old = step(1, 1, 2, None);
    state.begin(&old, NOW);
    let _ = pass(&mut state, 2, 1, Ability::Both, NOW);
    let present = step(2, 1, 2, None);
    state.begin(&present, NOW);
    state.finish(&old, Ending::Refused, Some(1), &Policy::default(), NOW);
    let slot = &state.domain(ID).expect("known").vcpus;
    assert!(
        slot.in_flight.is_some(),
        "the present step is still under way"
    );
    assert_eq!(slot.failures, 0);
    state.finish(&present, Ending::Applied, Some(2), &Policy::default(), NOW);
    assert_eq!(state.domain(ID).expect("known").vcpus.in_flight, None);
}

#[test]
fn dates_from_before_the_clock_was_set_back_hold_nothing_up_for_longer_than_they_may() {
    let policy = Policy::default();
    let mut state = State::default();
    let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
    let year = Duration::from_secs(365 * 86_400);
    let grow = step(1, 1, 2, None);
    state.begin(&grow, NOW.after(year));
    state.finish(&grow, Ending::Applied, Some(2), &policy, NOW.after(year));
    state.hold(ID, Resource::Memory, NOW.after(year), "root");
    let state = after_crash(&state, NOW);
    let state = state.domain(ID).expect("known");
    assert_eq!(state.vcpus.changed_at, Some(NOW));
    let longest = NOW.after(policy.longest_hold);
    assert_eq!(state.memory.held_until, Some(longest));
}

#[test]
fn two_changes_by_hand_are_both_seen() {
    let mut state = State::default();
    let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
    let grow = step(1, 1, 4, None);
    state.begin(&grow, NOW);
    state.finish(&grow, Ending::Applied, Some(4), &Policy::default(), NOW);
    for (vcpus, from) in [(2, 4), (3, 2)] {
        let plan = pass(&mut state, 1, vcpus, Ability::Both, NOW);
        let seen: Vec<_> = plan
            .drifts
            .iter()
            .map(|drift| (drift.from, drift.to))
            .collect();
        assert_eq!(seen, [(from, u64::from(vcpus))]);
    }
}

#[test]
fn nothing_is_begun_while_the_hypervisor_is_not_connected_and_explain_says_so() {
    let mut state = State::default();
    // More than the persona's maximum, which is to be mended at once.
    let plan = pass(&mut state, 1, 6, Ability::NoHypervisor, NOW);
    assert_eq!(plan.steps, []);
    let verdict = &plan.reports[0].resources[0].verdict;
    assert_eq!(*verdict, Verdict::No(Reason::Unable(Ability::NoHypervisor)));
    let Verdict::No(reason) = verdict else { return };
    assert!(reason.sentence(Resource::Vcpus).contains("not connected"));
}

#[test]
fn a_step_that_was_not_tried_is_no_failure() {
    let policy = Policy::default();
    let mut state = State::default();
    let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
    let grow = step(1, 1, 2, None);
    for _ in 0..10 {
        state.begin(&grow, NOW);
        state.untried(&grow, Some(1));
        let slot = &state.domain(ID).expect("known").vcpus;
        assert_eq!((slot.failures, slot.retry_at), (0, None));
        assert_eq!((&slot.in_flight, slot.target), (&None, None));
    }
    // That of an earlier instance leaves the present one's step as it is.
    state.begin(&grow, NOW);
    state.untried(&step(0, 1, 2, None), Some(1));
    assert!(state.domain(ID).expect("known").vcpus.in_flight.is_some());
    state.finish(&grow, Ending::Refused, Some(1), &policy, NOW);
    assert_eq!(state.domain(ID).expect("known").vcpus.failures, 1);
}

#[test]
fn a_success_that_never_lasts_ends_in_quarantine_and_another_step_between_does_not() {
    let policy = Policy::default();
    let mut state = State::default();
    let _ = pass(&mut state, 1, 3, Ability::Both, NOW);
    let mut succeed_at = |from, to, now| {
        let step = step(1, from, to, None);
        state.begin(&step, now);
        state.finish(&step, Ending::Applied, Some(3), &policy, now);
        state.domain(ID).expect("known").vcpus.quarantined_until
    };
    for day in 0..5 {
        let at = Moment(NOW.0 - 86_400_000 * (5 - day));
        assert_eq!(succeed_at(3, 2, at), None, "it is another day");
    }
    let mut succeed = |from, to| succeed_at(from, to, NOW);
    for _ in 0..5 {
        assert_eq!(succeed(3, 2), None);
        assert_eq!(succeed(2, 3), None);
    }
    assert_eq!(succeed(3, 2), None);
    assert_eq!(succeed(3, 2), None);
    let until = Some(NOW.after(policy.quarantine));
    assert_eq!(succeed(3, 2), until);
    assert_eq!(succeed(3, 2), until, "each further one puts it back");
    assert_eq!(succeed(2, 1), None, "it has moved on");
}

#[test]
fn what_is_plugged_beyond_a_step_while_it_is_carried_out_is_a_hands_work() {
    for (hand, told) in [(3, 1), (2, 0)] {
        let mut state = State::default();
        let _ = pass(&mut state, 1, 1, Ability::Both, NOW);
        let grow = step(1, 1, 2, None);
        state.begin(&grow, NOW);
        let plugged = Some(u64::from(hand));
        state.finish(&grow, Ending::Applied, plugged, &Policy::default(), NOW);
        let later = NOW.after(Duration::from_secs(1));
        let plan = pass(&mut state, 1, hand, Ability::Both, later);
        assert_eq!(plan.drifts.len(), told, "{hand}");
        if let Some(drift) = plan.drifts.first() {
            assert_eq!((drift.from, drift.to), (2, 3));
        }
        let slot = &state.domain(ID).expect("known").vcpus;
        assert_eq!(slot.held_until.is_some(), told == 1, "{hand}");
    }
}

#[test]
fn what_is_unplugged_beyond_a_step_is_a_hands_work_and_what_was_plugged_before_is_not() {
    let mut state = State::default();
    let _ = pass(&mut state, 1, 4, Ability::Both, NOW);
    let shrink = step(1, 4, 3, None);
    state.begin(&shrink, NOW);
    // Taken offline in the guest, and the device stays.
    state.finish(&shrink, Ending::Applied, Some(4), &Policy::default(), NOW);
    let later = NOW.after(Duration::from_secs(1));
    assert_eq!(pass(&mut state, 1, 4, Ability::Both, later).drifts, []);
    let shrink = step(1, 3, 2, None);
    state.begin(&shrink, later);
    state.finish(&shrink, Ending::Applied, Some(1), &Policy::default(), later);
    let later = later.after(Duration::from_secs(1));
    let drifts = pass(&mut state, 1, 1, Ability::Both, later).drifts;
    assert_eq!(drifts.len(), 1);
    assert_eq!((drifts[0].from, drifts[0].to), (2, 1));
}
