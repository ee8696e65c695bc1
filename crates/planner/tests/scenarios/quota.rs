//! A cap in the place of a removal of vCPUs that cannot be done: what it leaves, who may lower it further, and when it goes.

use persona::rule::{Knob, KnobValue, Resource};
use planner::report::{Reason, Verdict, Wish};
use planner::snapshot::{Ability, KnobReading, Knobs};
use planner::{Ending, Veto};

use crate::world::{Machine, World, persona};

const ELASTIC: &str = "
name: elastic
base_configuration:
  cpu: {min: 1, max: 4}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN 4s
  - IF cpu.utilization < 40% FOR 5s THEN remove 1 vcpus COOLDOWN 4s
";

const fn cpus(cpus: u64) -> KnobValue {
    KnobValue::At(cpus * 1_000_000)
}

fn uncapped() -> Knobs {
    Knobs::new(|_| KnobReading::Set {
        devices: 1,
        value: KnobValue::Unlimited,
    })
    .with(
        Knob::CpuWeight,
        KnobReading::Set {
            devices: 1,
            value: KnobValue::At(1000),
        },
    )
}

/// Four vCPUs with little to do, of which none can be removed.
fn rigid() -> Machine {
    Machine {
        vcpus: 4,
        fixed: 4,
        load: 0.5,
        knobs: uncapped(),
        ability: Ability::NoHotplugVcpus,
        ..Machine::new(1, ELASTIC)
    }
}

fn cap(world: &World) -> KnobValue {
    let knobs = world.machines[0].knobs;
    let reading = knobs.reading(Knob::CpuCap);
    reading.value().expect("these machines show their cap")
}

fn said(plan: &planner::Plan) -> String {
    match World::verdict(plan, Resource::Vcpus) {
        Verdict::No(reason) => reason.sentence(Resource::Vcpus),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_removed_is_capped_step_by_step_and_that_is_said() {
    let mut world = World::new(vec![rigid()]);
    let plan = world.run(10);
    assert_eq!(cap(&world), cpus(3));
    let sentence = said(&plan);
    assert!(
        sentence.starts_with("4 vCPUs stay plugged; the domain is capped at 3 CPUs instead: "),
        "{sentence}"
    );
    assert!(sentence.contains("no hot-pluggable vCPUs"), "{sentence}");
    let first = world.turns[0].sentence();
    assert!(
        first.contains("no limit -> 300% because of rule")
            && first.contains("capped at 3 CPUs instead"),
        "{first}"
    );
    let _ = world.run(60);
    // Half a CPU is in use: of two that is a quarter, and of one it would be so much that no rule takes it.
    assert_eq!(cap(&world), cpus(1));
    assert_eq!(world.machines[0].vcpus, 4);
    assert_eq!(world.vcpu_steps(), []);
}

#[test]
fn a_capped_domain_is_as_busy_as_what_it_has_left_and_grows_until_the_cap_is_gone() {
    let mut world = World::new(vec![rigid()]);
    let _ = world.run(70);
    assert_eq!(cap(&world), cpus(1));
    world.machines[0].load = 4.0;
    let mut seen = vec![cap(&world)];
    for _ in 0..60 {
        let _ = world.tick();
        if seen.last() != Some(&cap(&world)) {
            seen.push(cap(&world));
        }
    }
    assert_eq!(
        seen,
        [cpus(1), cpus(2), cpus(3), KnobValue::Unlimited],
        "one CPU a step"
    );
    let state = world.state.domain(world.machines[0].id).unwrap();
    assert_eq!(state.quota, None);
    assert!(!state.limits.contains_key(&Knob::CpuCap));
}

#[test]
fn below_what_the_definition_fixes_a_cap_takes_over_and_is_gone_before_a_vcpu_is_added() {
    let mut world = World::new(vec![Machine {
        fixed: 2,
        ability: Ability::Both,
        ..rigid()
    }]);
    let _ = world.run(80);
    assert_eq!(world.machines[0].vcpus, 2);
    assert_eq!(cap(&world), cpus(1));
    world.machines[0].load = 4.0;
    world.steps.clear();
    while world.machines[0].vcpus < 3 {
        let _ = world.tick();
        assert!(world.second() < 200);
    }
    assert_eq!(cap(&world), KnobValue::Unlimited);
    // It was taken away at an earlier moment than the vCPU was added.
    let off = world.turns.last().unwrap();
    assert_eq!(off.to, KnobValue::Unlimited);
    assert_eq!(world.vcpu_steps().len(), 1);
}

#[test]
fn a_stuck_mechanism_is_stood_in_for_until_the_removal_takes_place() {
    let mut world = World::new(vec![Machine {
        fixed: 1,
        ability: Ability::Both,
        ..rigid()
    }]);
    world.machines[0].load = 1.0;
    world.ending = Ending::Refused;
    let plan = world.run(120);
    let sentence = said(&plan);
    assert!(
        sentence.contains("stay plugged") && sentence.contains("is stuck and left alone"),
        "{sentence}"
    );
    // One CPU in use of two is half of them, which no rule takes.
    assert_eq!(cap(&world), cpus(2));
    assert_eq!(world.machines[0].vcpus, 4);
    world.ending = Ending::Applied;
    let _ = world.run(15 * 60);
    assert_eq!(world.machines[0].vcpus, 2);
    assert_eq!(cap(&world), KnobValue::Unlimited);
    let state = world.state.domain(world.machines[0].id).unwrap();
    assert_eq!(state.quota, None);
}

#[test]
fn without_an_agent_a_cap_waits_until_it_is_clear_that_none_comes() {
    let mut world = World::new(vec![Machine {
        fixed: 1,
        ability: Ability::NoGuestAgent,
        ..rigid()
    }]);
    let _ = world.run(30);
    assert_eq!(cap(&world), KnobValue::Unlimited);
    // It comes, and goes once more.
    world.machines[0].ability = Ability::Both;
    world.machines[0].load = 2.0;
    let _ = world.run(5);
    world.machines[0].load = 0.5;
    world.machines[0].ability = Ability::NoGuestAgent;
    let vcpus = world.machines[0].vcpus;
    let _ = world.run(50);
    assert_eq!(cap(&world), KnobValue::Unlimited);
    let _ = world.run(60);
    assert_eq!(cap(&world), cpus(1));
    assert_eq!(world.machines[0].vcpus, vcpus);
}

#[test]
fn a_guests_refusal_is_no_failure_and_is_not_got_around() {
    let mut world = World::new(vec![Machine {
        fixed: 1,
        ability: Ability::Both,
        ..rigid()
    }]);
    world.veto = Some(Veto {
        reason: "a backup runs".into(),
        retry_after: None,
    });
    let _ = world.run(300);
    assert_eq!(world.machines[0].vcpus, 4);
    assert_eq!(world.turns, []);
}

#[test]
fn the_smaller_cap_counts_whoever_set_it() {
    // A person's, from before.
    let half = KnobValue::At(500_000);
    let shown = KnobReading::Set {
        devices: 1,
        value: half,
    };
    let mut world = World::new(vec![Machine {
        knobs: uncapped().with(Knob::CpuCap, shown),
        load: 0.1,
        ..rigid()
    }]);
    let _ = world.run(60);
    assert_eq!(cap(&world), half);
    assert_eq!(world.turns, []);

    // A rule's.
    let text = format!("{ELASTIC}  - IF memory.utilization > 1% THEN set cpu cap to 150%\n");
    for (load, least) in [(1.4, KnobValue::At(1_500_000)), (0.5, cpus(1))] {
        let mut world = World::new(vec![Machine {
            load,
            persona: persona(&text),
            ..rigid()
        }]);
        let _ = world.run(120);
        assert_eq!(cap(&world), least);
    }

    // A hand's, also after what it changed was ours.
    let mut world = World::new(vec![rigid()]);
    let _ = world.run(10);
    assert_eq!(cap(&world), cpus(3));
    world.machines[0].knobs = uncapped().with(Knob::CpuCap, shown);
    let _ = world.run(2 * 60 * 60);
    assert_eq!(cap(&world), half);
}

#[test]
fn the_cap_goes_with_its_persona_and_comes_back_after_a_restart_of_the_daemon() {
    let mut world = World::new(vec![rigid()]);
    let _ = world.run(10);
    let text = serde_json::to_string(&world.state).unwrap();
    world.state = serde_json::from_str(&text).unwrap();
    world.state.resume(&world.policy, world.now);
    let plan = world.run(1);
    assert!(said(&plan).contains("capped at 3 CPUs"), "{}", said(&plan));
    assert_eq!(cap(&world), cpus(3));

    world.machines[0].persona = persona("name: silent\n");
    let _ = world.run(2);
    assert_eq!(cap(&world), KnobValue::Unlimited);
    let by = &world.turns.last().unwrap().by;
    assert_eq!(*by, Wish::Restore);
}

#[test]
fn nobody_caps_below_min_reservation_or_without_trust_and_a_hold_holds() {
    for (key, least) in [
        ("cpu: {min: 2, max: 4}", 2),
        ("cpu: {min: 1, max: 4, reservation: 3}", 3),
    ] {
        let mut machine = rigid();
        machine.persona = persona(&ELASTIC.replace("cpu: {min: 1, max: 4}", key));
        let mut world = World::new(vec![machine]);
        let _ = world.run(60);
        assert_eq!(cap(&world), cpus(least));
    }
    let mut distrusting = rigid();
    let text = format!("{ELASTIC}trust_levels: {{resource_scaling: none}}\n");
    distrusting.persona = persona(&text);
    let mut world = World::new(vec![distrusting]);
    let _ = world.run(60);
    assert_eq!(world.turns, []);

    let mut world = World::new(vec![rigid()]);
    let id = world.machines[0].id;
    let until = world.now.after(std::time::Duration::from_secs(300));
    world.state.hold(id, Resource::Vcpus, until, "anna");
    let _ = world.run(60);
    assert_eq!(world.turns, []);
}

#[test]
fn a_cap_that_has_to_be_approved_is_proposed_first() {
    let text = format!("{ELASTIC}trust_levels: {{resource_scaling: low}}\n");
    let mut world = World::new(vec![Machine {
        persona: persona(&text),
        load: 1.0,
        ..rigid()
    }]);
    let plan = world.run(10);
    assert!(
        matches!(
            World::verdict(&plan, Resource::Vcpus),
            Verdict::No(Reason::Proposed { .. })
        ),
        "{}",
        said(&plan)
    );
    assert_eq!(world.turns, []);
    let id = world.state.proposals.open().next().unwrap().id;
    world
        .state
        .proposals
        .approve(id, "anna", world.now)
        .unwrap();
    let _ = world.run(10);
    assert_eq!(cap(&world), cpus(3));
}

#[test]
fn a_cap_that_cannot_be_set_claims_nothing() {
    let mut world = World::new(vec![rigid()]);
    world.turn_ending = Ending::Refused;
    let _ = world.run(120);
    assert_eq!(cap(&world), KnobValue::Unlimited);
    // What is not in force makes nobody seem busier, and the wish goes no further.
    assert!(world.turns.iter().all(|turn| turn.to == cpus(3)));
    world.machines[0].load = 4.0;
    let _ = world.run(20);
    let state = world.state.domain(world.machines[0].id).unwrap();
    assert!(
        state
            .quota
            .as_ref()
            .is_none_or(|quota| quota.over.is_some())
    );
}
