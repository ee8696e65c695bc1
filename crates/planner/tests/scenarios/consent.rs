//! Guests that refuse to become smaller: what their own rules want waits, what others are to have does not wait for ever.

use std::time::Duration;

use persona::rule::Resource;
use persona::units::Bytes;
use planner::report::{Reason, Verdict, Wish};
use planner::{Consent, Veto};

use crate::world::{Machine, WEB, World};

const MIB: u64 = Bytes::MIB;

fn veto(retry_after: Option<Duration>) -> Option<Veto> {
    Some(Veto {
        reason: "a backup runs".into(),
        retry_after,
    })
}

/// A machine with more memory than its rules leave it, whose guest refuses.
fn large(retry_after: Option<Duration>) -> World {
    let mut machine = Machine::new(1, WEB);
    machine.memory = 1024 * MIB;
    machine.used = 200 * MIB;
    let mut world = World::new(vec![machine]);
    world.veto = veto(retry_after);
    world
}

fn attempts(world: &World) -> Vec<u64> {
    let memory = world
        .steps
        .iter()
        .filter(|step| step.1 == Resource::Memory && step.3 < step.2);
    memory.map(|step| step.0).collect()
}

#[test]
fn a_refusal_is_respected_explained_and_no_failure_of_the_mechanism() {
    let mut world = large(None);
    let plan = world.run(600);
    assert_eq!(world.machines[0].memory, 1024 * MIB);
    let attempts = attempts(&world);
    assert!(attempts.len() > 10, "{attempts:?}");
    assert!(
        attempts.windows(2).all(|pair| pair[1] - pair[0] >= 30),
        "{attempts:?}"
    );
    let slot = &world.state.domain(world.machines[0].id).unwrap().memory;
    assert_eq!((slot.failures, slot.quarantined_until), (0, None));
    let Verdict::No(Reason::Vetoed { reason, .. }) = World::verdict(&plan, Resource::Memory) else {
        panic!("{plan:?}")
    };
    assert_eq!(reason, "a backup runs");
    assert!(
        world
            .taken
            .iter()
            .all(|(_, step)| step.consent == Consent::Asked),
        "its own rule is never put above the guest's word"
    );
    // Growth does not wait for the end of a refusal.
    world.machines[0].used = 950 * MIB;
    let _ = world.run(5);
    assert!(world.machines[0].memory > 1024 * MIB);
}

#[test]
fn a_guest_says_when_it_wants_to_be_asked_again_within_bounds() {
    for (after, least) in [(0, 5), (90, 90), (86_400, 300)] {
        let mut world = large(Some(Duration::from_secs(after)));
        let _ = world.run(1000);
        let attempts = attempts(&world);
        assert!(
            attempts
                .windows(2)
                .all(|pair| (least..least + 3).contains(&(pair[1] - pair[0]))),
            "{after}: {attempts:?}"
        );
    }
}

#[test]
fn a_guest_that_agrees_again_shrinks_and_its_refusals_are_forgotten() {
    let mut world = large(None);
    let _ = world.run(100);
    world.veto = None;
    let _ = world.run(60);
    assert!(world.machines[0].memory < 1024 * MIB);
    let slot = &world.state.domain(world.machines[0].id).unwrap().memory;
    assert_eq!(slot.vetoes, None);
}

/// Grows on what the host measures and never shrinks by itself.
const GREEDY: &str = "
name: greedy
base_configuration:
  cpu: {min: 1, max: 8, reservation: 1}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 2s THEN add 1 vcpus COOLDOWN 2s
";

/// One machine with six vCPUs of which it uses one and gives none, and one that needs more, on a host with nothing left.
fn lender(retry_after: Option<Duration>) -> World {
    let machine = |number, vcpus, load| {
        let mut machine = Machine::new(number, GREEDY);
        machine.maximum = 8;
        machine.vcpus = vcpus;
        machine.load = load;
        machine
    };
    let mut world = World::new(vec![machine(1, 6, 1.0), machine(2, 2, 4.0)]);
    world.host.vcpus = 8;
    world.veto = veto(retry_after);
    world
}

#[test]
fn what_another_needs_is_given_after_three_refusals_without_consent() {
    let mut world = lender(None);
    let _ = world.run(400);
    let gifts: Vec<_> = world
        .taken
        .iter()
        .filter(|(_, step)| matches!(step.by, Wish::Donation(_)))
        .map(|(_, step)| step.consent)
        .collect();
    assert_eq!(
        gifts[..4],
        [
            Consent::Asked,
            Consent::Asked,
            Consent::Asked,
            Consent::Overruled { vetoes: 3 }
        ]
    );
    assert!(world.machines[0].vcpus < 6 && world.machines[1].vcpus > 2);
    // It is asked again about the next one.
    assert_eq!(gifts.get(4), Some(&Consent::Asked));
}

#[test]
fn no_wait_that_a_guest_asks_for_keeps_what_another_needs_longer_than_the_patience() {
    let mut world = lender(Some(Duration::from_secs(86_400)));
    let _ = world.run(70 + 300 + 30);
    assert!(world.machines[0].vcpus < 6, "{:?}", world.taken);
}

#[test]
fn what_is_above_the_personas_max_goes_without_consent_in_the_end() {
    let mut world = large(None);
    world.machines[0].memory = 2048 * MIB;
    let plan = world.run(60 * 60);
    let line = World::line(&plan, 0, Resource::Memory);
    assert!(
        // What is left is less than the least change.
        world.machines[0].memory < (1536 + 64) * MIB,
        "{line:?} after {:?}",
        world.steps
    );
}
