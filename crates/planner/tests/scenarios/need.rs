//! Guests that ask for memory at once: what they get, how often, and what they do not get by asking.

use persona::rule::Resource;
use persona::units::{Bytes, Moment};
use planner::report::{Limit, Reason, Verdict, Wish};
use planner::{Heard, Plan};

use crate::world::{Machine, START, WEB, World};

const MIB: u64 = Bytes::MIB;

fn world() -> World {
    let mut world = World::new(vec![Machine::new(1, WEB)]);
    let _ = world.tick();
    world
}

fn need(world: &mut World, mib: u64) -> Heard {
    let id = world.machines[0].id;
    world
        .state
        .need(id, Bytes::from_mib(mib), &world.policy, world.now)
}

fn steps(plan: &Plan) -> Vec<(u64, Wish)> {
    let steps = plan.steps.iter();
    steps.map(|step| (step.to / MIB, step.by.clone())).collect()
}

#[test]
fn a_need_is_a_step_at_once_and_only_one() {
    let mut world = world();
    assert_eq!(need(&mut world, 256), Heard::Taken);
    assert_eq!(steps(&world.tick()), [(768, Wish::Need)]);
    assert_eq!(world.machines[0].memory, 768 * MIB);
    for _ in 0..30 {
        assert!(steps(&world.tick()).iter().all(|(_, by)| *by != Wish::Need));
    }
}

#[test]
fn a_need_that_is_said_before_the_first_look_counts() {
    let mut world = World::new(vec![Machine::new(1, WEB)]);
    assert_eq!(need(&mut world, 256), Heard::Taken);
    assert_eq!(steps(&world.tick()), [(768, Wish::Need)]);
}

#[test]
fn a_need_goes_before_a_shrink_and_waits_for_no_cooldown() {
    let mut world = world();
    world.machines[0].memory = 1024 * MIB;
    world.machines[0].used = 250 * MIB;
    while world.machines[0].memory == 1024 * MIB {
        let _ = world.tick();
    }
    let shrunk = world.machines[0].memory / MIB;
    assert_eq!(need(&mut world, 128), Heard::Taken);
    assert_eq!(steps(&world.tick()), [(shrunk + 128, Wish::Need)]);
}

#[test]
fn the_personas_max_bounds_a_need() {
    let mut world = world();
    need(&mut world, 64 * 1024);
    let plan = world.tick();
    assert_eq!(steps(&plan), [(1536, Wish::Need)]);
    let _ = world.tick();
    assert_eq!(need(&mut world, 64), Heard::Taken);
    assert_eq!(
        World::verdict(&world.tick(), Resource::Memory),
        &Verdict::No(Reason::AtLimit(Limit::PersonaMaximum))
    );
}

#[test]
fn only_a_need_that_is_new_or_twice_as_large_is_worth_a_plan_at_once() {
    let mut world = world();
    // The host has nothing, so that it goes on to hold.
    world.host.memory = Bytes::from_mib(512);
    assert_eq!(need(&mut world, 64), Heard::Taken);
    let mut plans = 0;
    // A guest that asks for a little more each time, and one that goes up and down.
    for more in (65..256).chain([1, 256, 1, 256, 255]) {
        plans += u32::from(need(&mut world, more) == Heard::Taken);
        assert_eq!(steps(&world.tick()), []);
    }
    assert_eq!(plans, 2, "at 128 and at 256 MiB");
    for _ in 0..11 {
        let _ = world.tick();
    }
    assert_eq!(need(&mut world, 64), Heard::Taken);
    // What is said again is what the next tick plans for.
    assert_eq!(need(&mut world, 128), Heard::Taken);
    assert_eq!(need(&mut world, 100), Heard::Repeated);
    world.host.memory = Bytes::from_mib(8192);
    assert!(matches!(steps(&world.tick())[..], [(_, Wish::Need)]));
}

#[test]
fn a_need_is_over_after_a_while() {
    let mut world = world();
    // The host has nothing when it is said, and much when it is over.
    let rich = std::mem::replace(&mut world.host.memory, Bytes::from_mib(512));
    need(&mut world, 256);
    for _ in 0..11 {
        assert_eq!(steps(&world.tick()), []);
    }
    world.host.memory = rich;
    assert_eq!(steps(&world.tick()), []);
}

#[test]
fn needs_are_served_six_times_a_minute() {
    let mut world = world();
    world.machines[0].persona = crate::world::persona(
        "{name: wide, base_configuration: {memory: {min: 512 MiB, max: 2 GiB}}}",
    );
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..120 {
        refused += u32::from(need(&mut world, 64) == Heard::TooMany);
        let plan = world.tick();
        served.extend(plan.steps.iter().map(|_| (world.now.0 - START) / 1000));
    }
    assert!(
        served.windows(7).all(|seven| seven[6] - seven[0] >= 60),
        "{served:?}"
    );
    assert_eq!(served.len(), 12, "{served:?}");
    assert!(refused > 50);
}

#[test]
fn memory_that_the_persona_does_not_manage_is_not_given() {
    let mut world = world();
    world.machines[0].persona =
        crate::world::persona("{name: cpus, base_configuration: {cpu: {min: 1, max: 2}}}");
    need(&mut world, 256);
    assert_eq!(steps(&world.tick()), []);
}

#[test]
fn a_need_takes_nothing_from_another() {
    let idle = "{name: idle, base_configuration: {memory: {min: 512 MiB, max: 2 GiB}}}";
    let mut rich = Machine::new(2, idle);
    rich.memory = 2048 * MIB;
    rich.used = 100 * MIB;
    let mut world = World::new(vec![Machine::new(1, idle), rich]);
    world.host.memory = Bytes::from_mib(2560);
    let _ = world.run(120);
    for second in 0..60 {
        // One that holds is worth no further plan.
        let heard = match second {
            0 => Heard::Taken,
            _ => Heard::Repeated,
        };
        assert_eq!(need(&mut world, 256), heard);
        let plan = world.tick();
        assert_eq!(steps(&plan), []);
        assert!(matches!(
            World::verdict(&plan, Resource::Memory),
            Verdict::No(Reason::GuestAlone { .. })
        ));
    }
}

#[test]
fn a_stored_state_without_needs_and_vetoes_is_read() {
    let mut state = planner::State::default();
    let machine = Machine::new(1, WEB);
    state.need(
        machine.id,
        Bytes::from_mib(1),
        &planner::Policy::default(),
        Moment(1),
    );
    let mut stored = serde_json::to_value(state.domain(machine.id)).unwrap();
    assert_eq!(stored.get("needs"), None);
    for resource in ["vcpus", "memory"] {
        stored[resource].as_object_mut().unwrap().remove("vetoes");
    }
    let read: planner::state::DomainState = serde_json::from_value(stored).unwrap();
    assert_eq!(read.memory.vetoes, None);
}
