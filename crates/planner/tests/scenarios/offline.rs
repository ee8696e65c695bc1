//! vCPUs that the guest took offline and that something in it brings back.

use persona::rule::{Knob, KnobValue, Resource};
use planner::offline::Then;
use planner::report::{Verdict, Wish};
use planner::snapshot::{KnobReading, Knobs};
use planner::{Ending, Plan};

use crate::world::{Machine, World};

const CALM: &str = "
name: calm
base_configuration:
  cpu: {min: 1, max: 4}
adaptation_rules:
  - IF cpu.utilization > 90% FOR 3s THEN add 1 vcpus COOLDOWN 4s
  - IF cpu.utilization < 10% FOR 3s THEN remove 1 vcpus COOLDOWN 4s
";

/// Four vCPUs, of which the guest has just taken two offline; no rule wants anything of it any more.
fn offline() -> World {
    let mut world = World::new(vec![Machine {
        vcpus: 4,
        plugged: Some(4),
        load: 0.25,
        ..Machine::new(1, CALM)
    }]);
    let _ = world.run(30);
    assert_eq!(world.machines[0].vcpus, 2);
    world.machines[0].load = 1.0;
    let _ = world.run(30);
    assert_eq!(world.machines[0].vcpus, 2);
    world.taken.clear();
    world
}

/// All are back, and what the next seconds come to.
fn back(world: &mut World) -> Vec<Plan> {
    world.machines[0].vcpus = 4;
    (0..10).map(|_| world.tick()).collect()
}

#[test]
fn what_comes_back_is_taken_offline_again_three_times_and_then_left_and_said() {
    let mut world = offline();
    for times in 1..=3 {
        let plans = back(&mut world);
        let found: Vec<_> = plans.iter().flat_map(|plan| &plan.back_online).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (
                found[0].online,
                found[0].wanted,
                found[0].times,
                found[0].then
            ),
            (4, 2, times, Then::Again)
        );
        assert_eq!(world.machines[0].vcpus, 2);
    }
    let steps: Vec<_> = world.taken.iter().map(|(_, step)| step).collect();
    assert_eq!(steps.len(), 6);
    assert!(steps.iter().all(|step| step.by == Wish::BackOnline));

    let plans = back(&mut world);
    let last = plans.last().unwrap();
    assert_eq!(plans[0].back_online[0].then, Then::Left);
    let Verdict::No(reason) = World::verdict(last, Resource::Vcpus) else {
        panic!("{last:?}")
    };
    let sentence = reason.sentence(Resource::Vcpus);
    assert!(sentence.contains("4 times, so it is left"), "{sentence}");
    let _ = world.run(300);
    assert_eq!(world.machines[0].vcpus, 4);

    // A person's word begins the count anew.
    world.state.release(world.machines[0].id);
    let _ = world.run(10);
    assert_eq!(world.machines[0].vcpus, 2);
}

#[test]
fn where_a_cap_can_be_set_it_stands_for_what_is_left() {
    let mut world = offline();
    world.machines[0].knobs = Knobs::new(|knob| KnobReading::Set {
        devices: 1,
        value: if knob == Knob::CpuWeight {
            KnobValue::At(1000)
        } else {
            KnobValue::Unlimited
        },
    });
    for _ in 0..4 {
        let _ = back(&mut world);
    }
    let cap = world.machines[0].knobs.reading(Knob::CpuCap).value();
    // One CPU a step.
    assert_eq!(cap, Some(KnobValue::At(2_000_000)));
    assert_eq!(world.machines[0].vcpus, 4);
}

#[test]
fn growth_a_hand_and_long_quiet_begin_anew_and_a_rule_that_grows_goes_first() {
    let mut world = offline();
    for _ in 0..3 {
        let _ = back(&mut world);
    }
    // Long quiet.
    let _ = world.run(25 * 60);
    let plans = back(&mut world);
    assert_eq!(plans[0].back_online[0].times, 1);
    assert_eq!(world.machines[0].vcpus, 2);

    // Three are wanted now, so three is what stays.
    world.machines[0].load = 2.2;
    let _ = world.run(10);
    assert_eq!(world.machines[0].vcpus, 3);
    let plans = back(&mut world);
    assert!(plans.iter().all(|plan| plan.back_online.is_empty()));
    assert_eq!(world.machines[0].vcpus, 4);

    // A hand.
    let mut world = offline();
    world.machines[0].maximum = 5;
    world.machines[0].plugged = Some(5);
    let plans = back(&mut world);
    assert!(plans.iter().all(|plan| plan.back_online.is_empty()));
}

#[test]
fn a_step_that_fails_leaves_nothing_to_be_kept_offline() {
    let mut world = World::new(vec![Machine {
        vcpus: 4,
        plugged: Some(4),
        load: 0.25,
        ..Machine::new(1, CALM)
    }]);
    world.ending = Ending::Refused;
    let _ = world.run(60);
    let state = world.state.domain(world.machines[0].id).unwrap();
    assert_eq!(state.offline, None);
}
