//! Machines that want what others hold: who gives way, on whose word, when the one in need gets it, and what each is told.

use std::time::Duration;

use persona::rule::Resource;
use persona::units::Bytes;
use planner::Plan;
use planner::report::{Limit, Reason, Verdict, Wish};
use planner::snapshot::{HostMemory, Run, Strain};
use planner::stage::Stage;

use crate::world::{Machine, World};

/// Grows on what the host measures and never shrinks by itself.
const GREEDY: &str = "
name: greedy
base_configuration:
  cpu: {min: 1, max: 8, reservation: 1}
  memory: {min: 512 MiB, max: 2 GiB, reservation: 512 MiB}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 2s THEN add 1 vcpus COOLDOWN 2s
  - IF memory.pressure > 20% FOR 2s THEN add 128 MiB memory COOLDOWN 2s
  - IF memory.utilization > 90% FOR 2s THEN add 128 MiB memory COOLDOWN 2s
";

const MIB: u64 = Bytes::MIB;

/// Longer than it takes until it is known what is idle.
const WATCHED: u64 = 70;

fn machine(number: u8, vcpus: u32, load: f64) -> Machine {
    let mut machine = Machine::new(number, GREEDY);
    machine.maximum = 8;
    machine.vcpus = vcpus;
    machine.load = load;
    machine
}

/// One machine with six vCPUs of which it uses one, on a host with nothing left.
fn full_host(load: f64) -> World {
    let mut world = World::new(vec![machine(1, 6, 1.0), machine(2, 2, load)]);
    world.host.vcpus = 8;
    world
}

fn verdict(plan: &Plan, machine: usize, resource: Resource) -> &Verdict {
    &World::line(plan, machine, resource).verdict
}

fn sizes(world: &World) -> Vec<u32> {
    world.machines.iter().map(|machine| machine.vcpus).collect()
}

#[test]
fn what_one_does_not_use_goes_to_one_that_holds_less_for_its_share() {
    let mut world = full_host(4.0);
    let _ = world.run(400);
    // Four is where both hold the same; the first uses one of its own and would give no more than to the equal share.
    assert_eq!(sizes(&world), [3, 5], "{:?}", world.taken);
    let donations = world
        .taken
        .iter()
        .filter(|(_, step)| step.by == Wish::Donation("machine-2".into()))
        .count();
    assert_eq!(donations, 3);
}

#[test]
fn nothing_is_taken_before_it_is_known_to_be_idle_for_a_while() {
    let mut world = full_host(4.0);
    let plan = world.run(60);
    assert_eq!(sizes(&world), [6, 2]);
    assert!(matches!(
        verdict(&plan, 1, Resource::Vcpus),
        Verdict::No(Reason::Budget { budget: 8, .. })
    ));
    // A peak within the last minute is use.
    let mut world = full_host(4.0);
    for second in 0..600 {
        world.machines[0].load = if second % 50 == 0 { 4.4 } else { 0.5 };
        let _ = world.tick();
    }
    assert_eq!(sizes(&world), [6, 2]);
}

#[test]
fn growth_waits_until_what_it_is_paid_with_is_free_and_is_told_so() {
    let mut world = full_host(4.0);
    world.delay = 5;
    let plan = (0..200)
        .map(|_| world.tick())
        .find(|plan| !plan.steps.is_empty())
        .expect("one gives way");
    assert_eq!(plan.steps.len(), 1, "the decrease alone: {:?}", plan.steps);
    assert_eq!((plan.steps[0].from, plan.steps[0].to), (6, 5));
    let donor = World::line(&plan, 0, Resource::Vcpus);
    assert_eq!(donor.by, Some(Wish::Donation("machine-2".into())));
    assert_eq!(donor.verdict, Verdict::Step(5));
    for _ in 0..4 {
        let plan = world.tick();
        assert_eq!(plan.steps, [], "nobody is asked twice");
        assert_eq!(
            verdict(&plan, 1, Resource::Vcpus),
            &Verdict::No(Reason::Awaiting { amount: 1 })
        );
        assert!(plan.host.vcpus_granted <= 8);
    }
    let plan = world.tick();
    assert_eq!((plan.steps[0].from, plan.steps[0].to), (2, 3));
}

#[test]
fn a_gift_that_fails_is_no_loan() {
    let mut world = full_host(4.0);
    world.ending = planner::Ending::Refused;
    let plan = world.run(300);
    assert_eq!(sizes(&world), [6, 2]);
    assert!(world.taken.iter().all(|(_, step)| step.to < step.from));
    // Three times, and then the mechanism is left alone, and others are told that there is nothing.
    assert_eq!(world.taken.len(), 3);
    assert!(matches!(
        verdict(&plan, 1, Resource::Vcpus),
        Verdict::No(Reason::Budget { .. })
    ));
}

#[test]
fn floors_hold_whoever_is_in_need() {
    let cases: [(&str, &str, f64, u32); 4] = [
        ("reservation: 1}", "reservation: 5}", 0.1, 5),
        ("{min: 1, max: 8, res", "{min: 4, max: 8, res", 0.1, 4),
        // 1.3 times 3.5 are 4.6.
        ("reservation: 1}", "reservation: 1}", 3.5, 5),
        // Without a word on vCPUs in its base configuration it does not manage them.
        ("  cpu: {min: 1, max: 8, reservation: 1}\n", "", 0.1, 6),
    ];
    for (from, to, load, left) in cases {
        let mut world = full_host(7.9);
        let text = GREEDY.replacen(from, to, 1);
        let mut donor = Machine::new(1, &text);
        (donor.maximum, donor.vcpus, donor.load) = (8, 6, load);
        world.machines[0] = donor;
        // The one in need has a share that outweighs everything.
        let text = GREEDY.replacen("reservation: 1}", "reservation: 1, share: 9000}", 1);
        let mut needy = Machine::new(2, &text);
        (needy.maximum, needy.vcpus, needy.load) = (8, 2, 7.9);
        world.machines[1] = needy;
        let _ = world.run(700);
        assert_eq!(sizes(&world), [left, 8 - left], "{to} under {load}");
    }
}

#[test]
fn who_may_not_be_changed_or_cannot_be_judged_gives_nothing() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 4] = [
        ("unknown use", |world| {
            world.machines[0].silent = vec![persona::signal::Metric::CpuUtilization];
        }),
        ("a hand", |world| {
            world.state.hold(
                world.machines[0].id,
                Resource::Vcpus,
                world.now.after(Duration::from_secs(9000)),
                "root",
            );
        }),
        ("paused", |world| world.machines[0].run = Run::Paused),
        ("low trust", |world| {
            let text = format!("{GREEDY}trust_levels: {{resource_scaling: low}}\n");
            world.machines[0].persona = Machine::new(1, &text).persona;
        }),
    ];
    for (what, change) in changes {
        let mut world = full_host(4.0);
        let _ = world.tick();
        change(&mut world);
        let _ = world.run(300);
        assert_eq!(sizes(&world), [6, 2], "{what}");
    }
}

#[test]
fn nothing_is_taken_that_a_growth_rule_of_the_donor_would_bring_back() {
    // One vCPU of 2.2 in use leaves a floor of three; the rule would want more at four already.
    let text = GREEDY.replacen("cpu.utilization > 80%", "cpu.utilization > 50%", 1);
    let mut world = full_host(4.0);
    let mut donor = Machine::new(1, &text);
    (donor.maximum, donor.vcpus, donor.load) = (8, 5, 2.2);
    world.machines[0] = donor;
    world.host.vcpus = 7;
    let _ = world.run(300);
    assert_eq!(sizes(&world), [5, 2]);
}

#[test]
fn one_that_gives_something_back_by_itself_is_not_asked_in_the_same_second() {
    let text = format!("{GREEDY}  - IF cpu.utilization < 30% FOR 70s THEN remove 1 vcpus\n");
    for onset in 60..80 {
        let mut world = full_host(0.5);
        let mut donor = Machine::new(1, &text);
        (donor.maximum, donor.vcpus, donor.load) = (8, 6, 1.0);
        world.machines[0] = donor;
        for second in 0..90 {
            if second == onset {
                world.machines[1].load = 4.0;
            }
            let plan = world.tick();
            let of_donor = plan.steps.iter().filter(|step| step.to < step.from);
            assert!(of_donor.count() <= 1, "{:?}", plan.steps);
        }
        assert!(world.machines[0].vcpus < 6);
    }
}

/// Two machines of 512 MiB and 1.5 GiB, of which the larger uses 300 MiB, on a host of 2 GiB.
fn full_of_memory() -> World {
    let mut world = World::new(vec![machine(1, 1, 0.1), machine(2, 1, 0.1)]);
    world.machines[0].memory = 1536 * MIB;
    world.machines[1].used = 480 * MIB;
    world.host.memory = Bytes(2048 * MIB);
    world
}

#[test]
fn a_guests_claim_takes_no_memory_from_another_and_the_hosts_word_does() {
    let mut world = full_of_memory();
    let plan = world.run(2 * WATCHED);
    assert_eq!(world.machines[0].memory, 1536 * MIB);
    assert!(matches!(
        verdict(&plan, 1, Resource::Memory),
        Verdict::No(Reason::GuestAlone { .. })
    ));
    world.machines[1].pressure = 50.0;
    world.machines[1].used = 200 * MIB;
    let _ = world.run(2 * WATCHED);
    assert!(world.machines[0].memory < 1536 * MIB);
    assert!(world.machines[1].memory > 512 * MIB);
    assert!(world.machines[0].memory + world.machines[1].memory <= 2048 * MIB);
}

#[test]
fn a_gift_is_one_shrink_step_a_minute_however_large_the_need() {
    let text = GREEDY.replacen("add 128 MiB", "add 1 GiB", 1);
    let mut world = full_of_memory();
    let mut needy = Machine::new(2, &text);
    (needy.pressure, needy.used) = (50.0, 200 * MIB);
    world.machines[1] = needy;
    let _ = world.run(400);
    let gifts: Vec<(u64, u64)> = world
        .taken
        .iter()
        .filter(|(_, step)| step.to < step.from)
        .map(|(second, step)| (*second, (step.from - step.to) / MIB))
        .collect();
    assert!(gifts.len() > 3, "{gifts:?}");
    // 5 % of 1.5 GiB, in blocks of 2 MiB.
    assert!(gifts.iter().all(|(_, size)| *size <= 76), "{gifts:?}");
    for pair in gifts.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= 60, "{gifts:?}");
    }
}

#[test]
fn a_guests_claim_brings_its_reservation_back_and_no_more() {
    let text = GREEDY.replacen("reservation: 512 MiB", "reservation: 768 MiB", 1);
    let mut world = full_of_memory();
    let mut promised = Machine::new(2, &text);
    // It always says that it is in need.
    (promised.used, promised.maximum) = (480 * MIB, 8);
    world.machines[1] = promised;
    for _ in 0..900 {
        world.machines[1].used = world.machines[1].memory * 94 / 100;
        let _ = world.tick();
    }
    assert_eq!(world.machines[1].memory, 768 * MIB, "{:?}", world.taken);
    // What is given comes in pieces, of which less than the last one may be over; that is free for both.
    let left = world.machines[0].memory / MIB;
    assert!((1280 - 63..=1280).contains(&left), "{left}");
}

#[test]
fn on_a_scarce_host_nobody_grows_above_its_share_and_on_a_critical_one_memory_keeps_to_reservations()
 {
    let pressed = |cpu, memory| Strain {
        cpu_pressure: Some(cpu),
        memory_pressure: Some(memory),
        memory: None,
    };
    let mut world = World::new(vec![machine(1, 1, 7.9), machine(2, 1, 0.1)]);
    world.machines[0].pressure = 50.0;
    world.host.vcpus = 6;
    world.host.memory = Bytes(2560 * MIB);
    world.strain = pressed(70.0, 30.0);
    let plan = world.run(60);
    assert_eq!(sizes(&world), [3, 1], "half of the host is its share");
    assert_eq!(world.machines[0].memory, 1280 * MIB);
    assert_eq!(
        verdict(&plan, 0, Resource::Vcpus),
        &Verdict::No(Reason::HostShort(Stage::Scarce))
    );
    assert_eq!(plan.host.vcpus_stage, Stage::Scarce);

    let mut world = World::new(vec![machine(1, 1, 7.9), machine(2, 1, 0.1)]);
    world.machines[0].pressure = 50.0;
    world.host.vcpus = 6;
    world.strain = pressed(95.0, 60.0);
    let plan = world.run(60);
    assert_eq!(sizes(&world), [3, 1]);
    assert_eq!(world.machines[0].memory, 512 * MIB);
    assert_eq!(
        verdict(&plan, 0, Resource::Memory),
        &Verdict::No(Reason::HostShort(Stage::Critical))
    );
    let line = World::line(&plan, 0, Resource::Memory);
    assert!(
        line.clamps
            .iter()
            .any(|clamp| clamp.limit == Limit::HostReservation),
        "{line:?}"
    );
}

#[test]
fn growth_leaves_the_host_a_tenth_of_its_memory_but_reservations_are_served() {
    let text = GREEDY.replacen("reservation: 512 MiB", "reservation: 640 MiB", 1);
    let mut world = World::new(vec![machine(1, 1, 0.1), Machine::new(2, &text)]);
    for machine in &mut world.machines {
        machine.pressure = 50.0;
        machine.used = 100 * MIB;
    }
    // What is available does not follow the machines here: something else uses it.
    world.strain.memory = Some(HostMemory {
        total: Bytes(10_000 * MIB),
        available: Bytes(1_050 * MIB),
    });
    let plan = world.run(60);
    assert_eq!(world.machines[0].memory, 512 * MIB);
    assert_eq!(world.machines[1].memory, 640 * MIB);
    assert_eq!(
        verdict(&plan, 0, Resource::Memory),
        &Verdict::No(Reason::HostMemory {
            available: 1_050 * MIB,
            kept: 1_000 * MIB
        })
    );
}

#[test]
fn what_the_host_can_spare_is_not_spent_again_while_a_step_is_under_way() {
    let mut world = World::new(vec![machine(1, 1, 0.1), machine(2, 1, 0.1)]);
    for machine in &mut world.machines {
        machine.used = 100 * MIB;
    }
    world.machines[0].pressure = 50.0;
    // Room for one step of 128 MiB above what the host keeps; the host does not see what is on its way.
    world.strain.memory = Some(HostMemory {
        total: Bytes(10_000 * MIB),
        available: Bytes(1_150 * MIB),
    });
    world.delay = 30;
    let _ = world.run(5);
    world.machines[1].pressure = 50.0;
    let _ = world.run(20);
    let grown: Vec<u64> = world
        .steps
        .iter()
        .map(|step| (step.3 - step.2) / MIB)
        .collect();
    assert_eq!(grown.iter().sum::<u64>(), 128, "{grown:?}");
}

#[test]
fn what_a_starting_machine_begins_with_is_kept_for_it() {
    let text = GREEDY.replacen("{min: 1, max: 8", "{min: 1, initial: 4, max: 8", 1);
    let mut starting = Machine::new(2, &text);
    starting.maximum = 8;
    starting.run = Run::Starting;
    let mut world = World::new(vec![machine(1, 2, 9.0), starting]);
    world.host.vcpus = 8;
    let _ = world.run(60);
    assert_eq!(sizes(&world), [4, 1], "four of eight are kept");
    world.machines[1].run = Run::Running;
    let _ = world.run(60);
    assert_eq!(sizes(&world), [4, 4]);
    // A machine that never gets that far does not keep it for ever.
    let text = text.replacen("max: 8, res", "max: 8, share: 1, res", 1);
    let mut stuck = Machine::new(2, &text);
    (stuck.maximum, stuck.run) = (8, Run::Paused);
    let mut world = World::new(vec![machine(1, 2, 9.0), stuck]);
    world.host.vcpus = 8;
    let _ = world.tick();
    world.machines[1].run = Run::Running;
    world.state.hold(
        world.machines[1].id,
        Resource::Vcpus,
        world.now.after(Duration::from_secs(9000)),
        "root",
    );
    let _ = world.run(200);
    assert_eq!(sizes(&world), [4, 1]);
    let _ = world.run(200);
    assert_eq!(sizes(&world), [7, 1]);
}

#[test]
fn one_that_is_starting_gives_nothing() {
    let text = GREEDY.replacen("{min: 1, max: 8", "{min: 1, initial: 4, max: 8", 1);
    let mut world = full_of_memory();
    world.machines[0].persona = Machine::new(1, &text).persona;
    (world.machines[1].pressure, world.machines[1].used) = (50.0, 200 * MIB);
    // It has the memory that it begins with, and waits for its vCPUs.
    world.machines[0].run = Run::Paused;
    let _ = world.tick();
    world.machines[0].run = Run::Running;
    world.state.hold(
        world.machines[0].id,
        Resource::Vcpus,
        world.now.after(Duration::from_secs(9000)),
        "root",
    );
    let _ = world.run(250);
    assert_eq!(world.machines[0].memory, 1536 * MIB);
    let _ = world.run(100);
    assert!(world.machines[0].memory < 1536 * MIB);
}

#[test]
fn a_guest_that_does_not_follow_is_set_aside_counted_and_named() {
    let mut world = full_of_memory();
    world.machines[1].pressure = 50.0;
    world.machines[1].used = 200 * MIB;
    // Somebody asked it for less an hour ago, and it gives nothing back.
    world.machines[0].requested = Some(1024 * MIB);
    let mut stalls = Vec::new();
    for _ in 0..300 {
        stalls.extend(world.tick().stalls);
    }
    assert_eq!(stalls.len(), 1, "it is told once: {stalls:?}");
    assert_eq!((stalls[0].asked, stalls[0].shown), (1024 * MIB, 1536 * MIB));
    assert_eq!(
        world.machines[1].memory,
        512 * MIB,
        "what it holds still is not there for others"
    );
    assert!(world.taken.is_empty(), "{:?}", world.taken);
    // One that moves, however slowly, is none.
    let mut world = full_of_memory();
    world.machines[0].requested = Some(1024 * MIB);
    for _ in 0..300 {
        world.machines[0].memory -= 2 * MIB / 2;
        assert_eq!(world.tick().stalls, []);
    }
}

#[test]
fn priorities_decide_which_resource_is_fought_for_where_both_are_short() {
    const CPU: &str = "priority_metrics: {cpu.utilization: 3, memory.pressure: 1}\n";
    const MEMORY: &str = "priority_metrics: {performance: 1, memory.pressure: 1}\n";
    let machine = |number, priorities: &str| {
        let text = format!("{GREEDY}{priorities}");
        let mut machine = Machine::new(number, &text);
        (machine.maximum, machine.load, machine.pressure) = (8, 7.9, 50.0);
        machine.used = 100 * MIB;
        machine
    };
    let cases = [
        // Of equals the first gets what is left over of each.
        ("", "", [3, 2], [704, 640], false),
        (CPU, MEMORY, [3, 2], [640, 704], true),
        (MEMORY, CPU, [2, 3], [704, 640], true),
        // Who prefers one leaves the other to who prefers none.
        ("", CPU, [2, 3], [704, 640], true),
    ];
    for (first, second, vcpus, memory, moved) in cases {
        let mut world = World::new(vec![machine(1, first), machine(2, second)]);
        // After one step of everybody there is enough for one more vCPU and one more piece of memory.
        world.host.vcpus = 5;
        world.host.memory = Bytes(1344 * MIB);
        let mut told = false;
        for _ in 0..60 {
            let plan = world.tick();
            let mut lines = plan.reports.iter().flat_map(|report| &report.resources);
            told |= lines.any(|line| {
                let mut limits = line.clamps.iter().map(|clamp| clamp.limit);
                limits.any(|limit| limit == Limit::Priorities)
            });
        }
        let have: Vec<u64> = world
            .machines
            .iter()
            .map(|machine| machine.memory / MIB)
            .collect();
        assert_eq!(
            (sizes(&world), have, told),
            (vcpus.to_vec(), memory.to_vec(), moved),
            "{first:?} {second:?}"
        );
    }
}
