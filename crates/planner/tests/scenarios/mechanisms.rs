//! The second ways: the balloon while a memory device is stuck, a DIMM where nothing else has room; and what a guest does
//! late, or cannot do before it reboots.

use persona::rule::Resource;
use persona::units::Bytes;
use planner::report::{Reason, Verdict};
use planner::{Ending, Means};

use crate::world::{Machine, World};

const MIB: u64 = Bytes::MIB;

const BREATHING: &str = "
name: breathing
base_configuration:
  cpu: {min: 1, max: 4}
  memory: {min: 256 MiB, max: 8 GiB}
adaptation_rules:
  - IF memory.utilization > 85% FOR 2s THEN add 100 MiB memory COOLDOWN 2s
  - IF memory.utilization < 40% FOR 2s THEN remove 128 MiB memory COOLDOWN 2s
  - IF cpu.utilization > 80% FOR 2s THEN add 1 vcpus COOLDOWN 2s
  - IF cpu.utilization < 20% FOR 2s THEN remove 1 vcpus COOLDOWN 2s
";

fn machine() -> Machine {
    Machine {
        memory: 1024 * MIB,
        used: 200 * MIB,
        ..Machine::new(1, BREATHING)
    }
}

fn memory_steps(world: &World) -> Vec<(Means, u64, u64)> {
    let steps = world.taken.iter().map(|(_, step)| step);
    steps
        .filter(|step| step.resource == Resource::Memory)
        .map(|step| (step.means, step.from / MIB, step.to / MIB))
        .collect()
}

/// A world whose device has failed until it is left alone.
fn stuck(machine: Machine) -> World {
    let mut world = World::new(vec![machine]);
    world.ending = Ending::Refused;
    while world
        .state
        .domains
        .values()
        .next()
        .is_none_or(|state| state.memory.quarantined_until.is_none())
    {
        let _ = world.tick();
    }
    world.ending = Ending::Applied;
    world.taken.clear();
    world
}

#[test]
fn a_stuck_device_is_left_alone_and_the_balloon_takes_and_gives_in_its_place() {
    let mut world = stuck(Machine {
        balloon: Some(512 * MIB),
        ..machine()
    });
    let quarantine = world.state.domains[&world.machines[0].id].memory.clone();
    let _ = world.run(60);
    let steps = memory_steps(&world);
    assert!(steps.len() > 3, "{steps:?}");
    assert!(
        steps
            .iter()
            .all(|step| step.0 == Means::Balloon && step.2 < step.1),
        "{steps:?}"
    );
    assert!(
        world.taken[0]
            .1
            .sentence()
            .contains("by the balloon, since the memory device is stuck")
    );
    assert_eq!(
        world.state.domains[&world.machines[0].id]
            .memory
            .quarantined_until,
        quarantine.quarantined_until,
        "the balloon's success says nothing of the device"
    );
    // Never below the balloon's own floor, whatever the device holds.
    assert!(world.machines[0].balloon >= Some(128 * MIB));

    // The guest needs it again: the balloon gives back what it took, and no more.
    world.taken.clear();
    world.machines[0].used = 1000 * MIB;
    let _ = world.run(60);
    let steps = memory_steps(&world);
    assert!(
        !steps.is_empty() && steps.iter().all(|step| step.0 == Means::Balloon),
        "{steps:?}"
    );
    assert_eq!(world.machines[0].balloon, Some(512 * MIB));
    assert_eq!(world.machines[0].memory, 1024 * MIB);
}

#[test]
fn without_a_balloon_a_stuck_device_stops_everything() {
    let mut world = stuck(machine());
    let plan = world.run(30);
    assert_eq!(memory_steps(&world), []);
    assert!(matches!(
        World::verdict(&plan, Resource::Memory),
        Verdict::No(Reason::Quarantined { .. })
    ));
}

#[test]
fn the_quarantine_ends_and_the_device_is_used_again() {
    let mut world = stuck(Machine {
        balloon: Some(512 * MIB),
        ..machine()
    });
    // In use is what lets neither rule hold.
    world.machines[0].used = 600 * MIB;
    let _ = world.run(world.policy.quarantine.as_secs() + 2);
    assert_eq!(memory_steps(&world), []);
    world.machines[0].used = 200 * MIB;
    let _ = world.run(10);
    assert_eq!(memory_steps(&world)[0].0, Means::Usual);
}

#[test]
fn a_dimm_is_added_where_the_usual_mechanism_has_no_room_and_in_whole_pieces() {
    let full = |dimms: u64| Machine {
        memory: 1900 * MIB,
        used: 1850 * MIB,
        dimms,
        ..machine()
    };
    let grow = |dimms: u64| {
        let mut world = World::new(vec![full(dimms)]);
        world.policy.memory_growth_ratio = 16;
        // The guest is short, but not so short that it could not hold the page structs.
        for _ in 0..60 {
            let machine = &mut world.machines[0];
            machine.used = machine.memory - machine.memory / 10;
            let _ = world.tick();
        }
        memory_steps(&world)
    };
    let steps = grow(600 * MIB);
    assert_eq!(
        steps,
        [
            (Means::Usual, 1900, 2000),
            // What is left of the device goes first, however little it is.
            (Means::Usual, 2000, 2048),
            (Means::Dimm, 2048, 2304),
            (Means::Dimm, 2304, 2560),
        ]
    );
    // Without room for DIMMs, or leave to use them, the machine ends at what its definition allows.
    assert_eq!(grow(0).last(), Some(&(Means::Usual, 1900, 2000)));
}

#[test]
fn a_dimm_is_added_within_the_budget_or_not_at_all() {
    let mut world = World::new(vec![Machine {
        memory: 2048 * MIB,
        used: 1900 * MIB,
        dimms: 1024 * MIB,
        ..machine()
    }]);
    world.policy.memory_growth_ratio = 16;
    world.host.memory = Bytes::from_mib(2048 + 255);
    let plan = world.run(10);
    assert_eq!(memory_steps(&world), []);
    assert!(matches!(
        World::verdict(&plan, Resource::Memory),
        Verdict::No(_)
    ));
    world.host.memory = Bytes::from_mib(2048 + 256);
    let _ = world.run(10);
    assert_eq!(memory_steps(&world), [(Means::Dimm, 2048, 2304)]);
}

#[test]
fn no_cpu_is_added_to_a_guest_that_cannot_bring_one_up_before_it_has_rebooted() {
    let mut world = World::new(vec![Machine {
        load: 3.9,
        used: 600 * MIB,
        ..machine()
    }]);
    let _ = world.tick();
    let id = world.machines[0].id;
    world.state.needs_reboot(id);
    let plan = world.run(20);
    assert_eq!(world.vcpu_steps(), []);
    assert_eq!(
        World::verdict(&plan, Resource::Vcpus),
        &Verdict::No(Reason::NeedsReboot)
    );
    world.state.rebooted(id);
    let _ = world.run(5);
    assert!(!world.vcpu_steps().is_empty());
}

#[test]
fn a_removal_that_comes_late_is_no_change_by_hand_and_one_that_nobody_asked_for_is() {
    for (asked_for, drifts) in [(true, 0), (false, 1)] {
        // Two vCPUs are plugged, of which the guest was to give one back; it has grown again since.
        let mut world = World::new(vec![Machine {
            load: 1.0,
            vcpus: 2,
            used: 600 * MIB,
            ..machine()
        }]);
        let _ = world.run(2);
        let id = world.machines[0].id;
        if asked_for {
            world.state.may_come_late(id, Resource::Vcpus, 1);
        }
        let text = serde_json::to_string(&world.state).expect("serialises");
        world.state = serde_json::from_str(&text).expect("parses");
        world.machines[0].vcpus = 1;
        assert_eq!(world.tick().drifts.len(), drifts);
        // Only once: what comes after that is somebody's doing.
        world.machines[0].vcpus = 2;
        assert_eq!(world.tick().drifts.len(), 1);
    }
}
