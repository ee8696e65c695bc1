//! Guests in need: nothing is taken from them, and what was taken from them goes back.

use std::time::Duration;

use persona::rule::Resource;
use persona::units::Bytes;
use planner::report::{Limit, Reason, Verdict, Wish};
use planner::{Policy, State};
use proptest::prelude::*;

use crate::world::{Machine, World};

/// Takes memory whenever little of it is used, and gives none by a rule.
const MISER: &str = "
name: miser
base_configuration:
  cpu: {min: 1, max: 1}
  memory: {min: 512 MiB, max: 2048 MiB}
adaptation_rules:
  - IF memory.utilization < 60% FOR 2s THEN remove 128 MiB memory COOLDOWN 1s
";

const MIB: u64 = Bytes::MIB;

fn miser() -> Machine {
    Machine {
        memory: 1024 * MIB,
        used: 200 * MIB,
        ..Machine::new(1, MISER)
    }
}

fn memory_steps(world: &World) -> Vec<(u64, u64)> {
    world
        .steps
        .iter()
        .filter(|step| step.1 == Resource::Memory)
        .map(|step| (step.2 / MIB, step.3 / MIB))
        .collect()
}

#[test]
fn nothing_is_taken_from_a_guest_that_shows_need_itself() {
    for need in [
        (Some(23.0), None),
        (None, Some(450.0)),
        (Some(10.0), Some(0.0)),
    ] {
        let mut world = World::new(vec![Machine { need, ..miser() }]);
        let plan = world.run(20);
        assert_eq!(world.steps, [], "{need:?}");
        let Verdict::No(reason) = World::verdict(&plan, Resource::Memory) else {
            panic!("{:?}", World::verdict(&plan, Resource::Memory));
        };
        assert!(matches!(reason, Reason::Pressed(_)), "{reason:?}");
        let sentence = reason.sentence(Resource::Memory);
        let figure = ["23 %", "450 pages", "10 %"];
        assert!(
            figure.iter().any(|figure| sentence.contains(figure)),
            "{sentence}"
        );
    }
    // The agent knows better than the count of faults, which a program that starts raises too.
    let need = (Some(0.0), Some(450.0));
    let mut world = World::new(vec![Machine { need, ..miser() }]);
    let _ = world.run(20);
    assert!(!world.steps.is_empty());
}

#[test]
fn what_was_taken_goes_back_at_once_without_a_rule_and_then_the_guest_is_spared() {
    let mut world = World::new(vec![miser()]);
    while world.machines[0].memory == 1024 * MIB {
        let _ = world.tick();
    }
    let _ = world.run(5);
    let low = world.machines[0].memory;
    assert!(low < 1024 * MIB);
    world.steps.clear();
    world.taken.clear();
    world.machines[0].need = (Some(30.0), None);
    while world.machines[0].memory < 1024 * MIB {
        let _ = world.tick();
        assert!(world.second() < 60, "{:?}", world.steps);
    }
    assert_eq!(memory_steps(&world), [(low / MIB, 1024)]);
    assert_eq!(world.taken[0].1.by, Wish::Return);

    // The need is over, the rule holds, and still nothing is taken for a while.
    world.machines[0].need = (Some(0.0), None);
    world.steps.clear();
    let plan = world.run(60);
    assert_eq!(world.steps, []);
    let Verdict::No(Reason::Spared { left }) = World::verdict(&plan, Resource::Memory) else {
        panic!("{:?}", World::verdict(&plan, Resource::Memory));
    };
    assert!(*left < world.policy.spare);
    let _ = world.run(world.policy.spare.as_secs());
    assert!(!world.steps.is_empty(), "it may be tried again");
}

#[test]
fn the_pause_grows_with_each_return_and_a_restart_of_the_daemon_keeps_it() {
    let mut world = World::new(vec![miser()]);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        while world.machines[0].memory == 1024 * MIB {
            let _ = world.tick();
        }
        world.machines[0].need = (None, Some(900.0));
        while world.machines[0].memory < 1024 * MIB {
            let _ = world.tick();
        }
        world.machines[0].need = (None, Some(0.0));
        let text = serde_json::to_string(&world.state).expect("serialises");
        world.state = serde_json::from_str::<State>(&text).expect("parses");
        world.state.resume(&world.policy, world.now);
        let began = world.second();
        while world.machines[0].memory == 1024 * MIB {
            let _ = world.tick();
        }
        pauses.push(world.second() - began);
    }
    let spare = world.policy.spare.as_secs();
    assert!(
        pauses[1] > 2 * spare - 30 && pauses[2] > 4 * spare - 30,
        "{pauses:?}"
    );
    assert!(pauses[0] < spare + 30, "{pauses:?}");
}

/// A miser from which some memory was taken, and how much it has left.
fn taken_from(more: &str) -> (World, u64) {
    let text = format!("{MISER}{more}");
    let mut world = World::new(vec![Machine {
        memory: 1024 * MIB,
        used: 200 * MIB,
        ..Machine::new(1, &text)
    }]);
    let _ = world.run(200);
    let low = world.machines[0].memory;
    assert!(low + 128 * MIB < 1024 * MIB, "{}", low / MIB);
    world.steps.clear();
    world.taken.clear();
    (world, low)
}

#[test]
fn at_medium_trust_what_is_free_goes_back_without_a_persons_word() {
    let (mut world, low) = taken_from("trust_levels: {resource_scaling: medium}\n");
    // Less is free than what it had, so the claim is contested.
    world.host.memory = Bytes(low + 64 * MIB);
    world.machines[0].need = (Some(30.0), None);
    let _ = world.run(20);
    assert_eq!(memory_steps(&world), [(low / MIB, low / MIB + 64)]);
    assert_eq!(world.state.proposals.open().count(), 0);
}

#[test]
fn a_rule_that_grows_on_the_hosts_word_goes_before_a_return_that_finds_nothing_free() {
    let grows = "  - IF memory.pressure > 20% FOR 2s THEN add 128 MiB memory COOLDOWN 2s\n";
    let (mut world, low) = taken_from(grows);
    let donor = "name: donor\nbase_configuration:\n  memory: {min: 512 MiB, max: 2 GiB, reservation: 512 MiB}\n";
    world.machines.push(Machine {
        memory: 1536 * MIB,
        ..Machine::new(2, donor)
    });
    world.host.memory = Bytes(low + 1536 * MIB);
    world.machines[0].need = (Some(30.0), None);
    let _ = world.run(10);
    assert_eq!(
        world.steps,
        [],
        "nothing is free, and a guest's word takes nothing"
    );
    world.machines[0].pressure = 50.0;
    let _ = world.run(600);
    let grown = world.taken.iter().map(|(_, step)| step);
    let by: Vec<&Wish> = grown
        .filter(|step| step.to > step.from)
        .map(|step| &step.by)
        .collect();
    assert!(by.contains(&&Wish::Rule("rule-2".to_owned())), "{by:?}");
    assert!(world.machines[0].memory > low);
}

#[test]
fn a_return_is_over_when_nothing_is_known_of_the_need_for_some_minutes() {
    let (mut world, low) = taken_from("");
    world.host.memory = Bytes(low);
    world.machines[0].need = (Some(30.0), None);
    let _ = world.run(10);
    world.machines[0].need = (None, None);
    let returning = |world: &World| {
        let state = world.state.domain(world.machines[0].id);
        state.is_some_and(|state| state.relief.returning)
    };
    let _ = world.run(240);
    assert!(returning(&world), "a short silence ends nothing");
    let _ = world.run(120);
    assert!(!returning(&world));
    world.host.memory = Bytes(64 * Bytes::GIB);
    let _ = world.run(10);
    assert_eq!(world.steps, []);
}

#[test]
fn what_was_being_taken_when_the_daemon_ended_counts_as_taken() {
    let mut world = World::new(vec![miser()]);
    world.delay = 30;
    while world.under_way.is_empty() {
        let _ = world.tick();
    }
    let now = world.now;
    world.state.resume(&world.policy, now);
    let state = world.state.domain(world.machines[0].id).expect("carried");
    assert_eq!(state.relief.before, Some(1024 * MIB));
}

#[test]
fn a_short_need_and_one_before_any_shrink_return_nothing() {
    let mut world = World::new(vec![Machine {
        need: (Some(50.0), None),
        ..miser()
    }]);
    let _ = world.run(60);
    assert_eq!(world.steps, [], "nothing was taken, so nothing goes back");
    world.machines[0].need = (Some(0.0), None);
    while world.machines[0].memory == 1024 * MIB {
        let _ = world.tick();
    }
    world.steps.clear();
    world.machines[0].need = (Some(50.0), None);
    let _ = world.run(world.policy.guest_need_window.as_secs() - 1);
    world.machines[0].need = (Some(0.0), None);
    let _ = world.tick();
    assert!(
        world.steps.iter().all(|step| step.3 < step.2),
        "{:?}",
        world.steps
    );
}

#[test]
fn what_a_hand_took_is_not_given_back() {
    let mut world = World::new(vec![miser()]);
    while world.machines[0].memory == 1024 * MIB {
        let _ = world.tick();
    }
    let _ = world.tick();
    world.machines[0].memory = 640 * MIB;
    assert_eq!(world.tick().drifts.len(), 1);
    world.steps.clear();
    world.machines[0].need = (Some(60.0), None);
    let _ = world.run(60);
    assert_eq!(world.steps, []);
}

#[test]
fn a_balloon_gives_back_without_room_for_page_structs_and_a_device_does_not() {
    // Nothing is free in either guest; the one below its boot size has its page structs already.
    let text = MISER.replace("memory.utilization < 60%", "memory.utilization > 60%");
    let text = text.replace("remove", "add");
    let machine = |memory: u64| Machine {
        memory: memory * MIB,
        used: memory * MIB,
        ..Machine::new(1, &text)
    };
    let mut world = World::new(vec![machine(256)]);
    let _ = world.run(20);
    assert_eq!(world.machines[0].memory, 512 * MIB, "{:?}", world.steps);
    let mut world = World::new(vec![machine(512)]);
    let plan = world.run(20);
    assert_eq!(
        World::verdict(&plan, Resource::Memory),
        &Verdict::No(Reason::AtLimit(Limit::PageStructs))
    );
}

#[test]
fn memory_grows_to_a_multiple_of_the_boot_memory_at_most() {
    let text = MISER.replace("memory.utilization < 60%", "memory.utilization >= 0%");
    let text = text.replace("remove", "add");
    let mut world = World::new(vec![Machine::new(1, &text)]);
    world.policy = Policy {
        memory_growth_ratio: 3,
        ..Policy::default()
    };
    let plan = world.run(120);
    assert_eq!(world.machines[0].memory, 3 * 512 * MIB);
    assert_eq!(
        World::verdict(&plan, Resource::Memory),
        &Verdict::No(Reason::AtLimit(Limit::BootRatio))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the guest uses and shows of its need: no step takes from one in need, or below live use with its margin,
    /// and no shrink follows a return before the pause is over.
    #[test]
    fn no_floor_is_crossed_and_nothing_is_taken_from_a_guest_in_need(
        course in prop::collection::vec(
            (50u64..900, prop::option::of(0.0..40.0f64), prop::option::of(0.0..600.0f64), 1u64..40),
            1..30,
        ),
    ) {
        let mut world = World::new(vec![miser()]);
        let mut returned: Option<u64> = None;
        for (used, pressure, faults, seconds) in course {
            let machine = &mut world.machines[0];
            machine.used = (used * MIB).min(machine.memory);
            machine.need = (pressure, faults);
            for _ in 0..seconds {
                let used = world.machines[0].used;
                world.taken.clear();
                let _ = world.tick();
                for (second, step) in &world.taken {
                    if step.to > step.from {
                        if step.by == Wish::Return {
                            returned.get_or_insert(*second);
                        }
                        continue;
                    }
                    let in_need = pressure.map_or(faults >= Some(200.0), |value| value >= 10.0);
                    prop_assert!(!in_need, "{step:?} at {pressure:?} {faults:?}");
                    prop_assert!(step.to >= used / 100 * 130, "{step:?} with {used} in use");
                    if let Some(at) = returned.take() {
                        let pause = Duration::from_secs(second - at);
                        // The pause began with the need, a step at most before what it gave back.
                        prop_assert!(pause + Duration::from_secs(60) > world.policy.spare, "{pause:?}");
                    }
                }
            }
        }
    }
}
