//! Knobs of a persona that may only propose: a person is asked, and what was approved lasts as long as the wish.

use std::time::Duration;

use persona::rule::{Knob, KnobValue};
use planner::limit::{LimitReason, LimitVerdict};
use planner::proposal::{Proposal, Subject, Turn};
use planner::report::Reason;
use planner::snapshot::{KnobReading, Knobs};
use planner::{Ending, Plan};

use crate::world::{Machine, World, persona};

const SHY: &str = "
name: shy
adaptation_rules:
  - IF cpu.utilization > 50% THEN set disk iops to 200 UNTIL cpu.utilization < 20% COOLDOWN 10s
trust_levels: {resource_scaling: low}
";

const fn set(value: KnobValue) -> KnobReading {
    KnobReading::Set { devices: 1, value }
}

/// A machine whose knobs limit nothing, and whose rule holds.
fn busy(text: &str) -> World {
    World::new(vec![Machine {
        load: 0.9,
        knobs: Knobs::new(|_| set(KnobValue::Unlimited)),
        ..Machine::new(1, text)
    }])
}

fn iops(world: &World) -> KnobValue {
    let reading = world.machines[0].knobs.reading(Knob::DiskIops);
    reading.value().expect("it was looked at")
}

#[track_caller]
fn only(world: &World) -> Proposal {
    let mut open = world.state.proposals.open();
    let found = open.next().expect("a proposal").clone();
    assert_eq!(open.next(), None);
    found
}

fn ticks(world: &mut World, seconds: u32) -> Vec<(u64, Turn)> {
    let plans: Vec<Plan> = (0..seconds).map(|_| world.tick()).collect();
    let news = plans.iter().flat_map(|plan| &plan.proposals);
    news.map(|news| (news.proposal.id, news.turn)).collect()
}

fn approve(world: &mut World) {
    let id = only(world).id;
    let now = world.now;
    let approved = world.state.proposals.approve(id, "anna", now);
    assert!(approved.is_ok(), "{approved:?}");
}

#[test]
fn what_is_approved_is_set_until_the_until_and_that_asks_nobody() {
    let mut world = busy(SHY);
    let plan = world.run(3);
    let proposal = only(&world);
    assert!(matches!(
        proposal.what,
        Subject::Limit {
            knob: Knob::DiskIops,
            from: Some(KnobValue::Unlimited),
            to: KnobValue::At(200)
        }
    ));
    let text = proposal.sentence();
    assert!(
        text.starts_with("disk iops from no limit to 200/s, because of rule"),
        "{text}"
    );
    assert_eq!(proposal.why[0].metric, "cpu.utilization");
    let line = &plan.reports[0].limits[0];
    let LimitVerdict::No(LimitReason::Guard(reason)) = &line.verdict else {
        panic!("{line:?}")
    };
    assert!(
        matches!(reason, Reason::Proposed { id: 1, .. }),
        "{reason:?}"
    );
    assert_eq!(world.turns, []);

    approve(&mut world);
    assert_eq!(ticks(&mut world, 3), [(1, Turn::CarriedOut)]);
    assert_eq!(iops(&world), KnobValue::At(200));
    // It stands although the rule's condition holds no more.
    world.machines[0].load = 0.3;
    assert_eq!(ticks(&mut world, 300), []);
    assert_eq!(iops(&world), KnobValue::At(200));
    world.machines[0].load = 0.1;
    assert_eq!(ticks(&mut world, 3), []);
    assert_eq!(iops(&world), KnobValue::Unlimited);
    // The next time is another wish.
    world.machines[0].load = 0.9;
    assert_eq!(ticks(&mut world, 15), [(2, Turn::Made)]);
    assert_eq!(iops(&world), KnobValue::Unlimited);
}

#[test]
fn a_turn_that_failed_or_a_device_that_came_needs_no_further_word_and_a_hand_does() {
    let mut world = busy(SHY);
    let _ = world.run(3);
    approve(&mut world);
    world.turn_ending = Ending::Refused;
    assert_eq!(ticks(&mut world, 3), []);
    world.turn_ending = Ending::Applied;
    assert_eq!(ticks(&mut world, 10), [(1, Turn::CarriedOut)]);
    world.machines[0].knobs = world.machines[0]
        .knobs
        .with(Knob::DiskIops, KnobReading::Uneven { devices: 2 });
    assert_eq!(ticks(&mut world, 15), []);
    assert_eq!(iops(&world), KnobValue::At(200));

    world.machines[0].knobs = world.machines[0]
        .knobs
        .with(Knob::DiskIops, set(KnobValue::At(777)));
    let found = ticks(&mut world, 31 * 60);
    assert_eq!(found, [(2, Turn::Made)]);
    assert_eq!(iops(&world), KnobValue::At(777));
}

#[test]
fn a_rejected_limit_is_proposed_again_when_its_cause_was_gone_once() {
    let mut world = busy(SHY);
    let _ = world.run(3);
    let now = world.now;
    let rejected = world.state.proposals.reject(1, "anna", now);
    assert!(rejected.is_ok());
    assert_eq!(ticks(&mut world, 600), []);
    world.machines[0].load = 0.1;
    let _ = ticks(&mut world, 120);
    world.machines[0].load = 0.9;
    assert_eq!(ticks(&mut world, 3), [(2, Turn::Made)]);
    assert_eq!(world.turns, []);
}

#[test]
fn nobodys_word_for_long_ends_a_proposal_and_so_does_a_wish_that_ends() {
    let mut world = busy(SHY);
    let _ = world.run(3);
    let hour = u32::try_from(world.policy.proposal_expiry.as_secs()).unwrap_or(0);
    let found = ticks(&mut world, hour);
    assert_eq!(found, [(1, Turn::Expired), (2, Turn::Made)]);
    world.machines[0].load = 0.3;
    assert_eq!(ticks(&mut world, 120), [(2, Turn::Unwanted)]);
    world.machines[0].load = 0.9;
    assert_eq!(ticks(&mut world, 2), [(3, Turn::Made)]);
    world.machines[0].persona = persona(&SHY.replace("200", "300"));
    let found = ticks(&mut world, 2);
    assert_eq!(found, [(3, Turn::PersonaChanged), (4, Turn::Made)]);
    assert_eq!(world.turns, []);
}

#[test]
fn what_the_base_configuration_wants_of_a_knob_is_asked_for_too_and_kept() {
    let text = "
name: base
base_configuration: {disk: {iops: 500}}
trust_levels: {resource_scaling: low}
";
    let mut world = busy(text);
    let _ = world.run(3);
    // It waits for as long as the base configuration wants it, and is not told again.
    assert_eq!(ticks(&mut world, 600), []);
    let now = world.now;
    let rejected = world.state.proposals.reject(1, "anna", now);
    assert!(rejected.is_ok());
    assert_eq!(ticks(&mut world, 600), []);

    let mut world = busy(text);
    let _ = world.run(3);
    approve(&mut world);
    let _ = world.run(3);
    assert_eq!(iops(&world), KnobValue::At(500));
    let text = serde_json::to_string(&world.state).unwrap_or_default();
    world.state = serde_json::from_str(&text).expect("what was written");
    world.state.resume(&world.policy, world.now);
    world.machines[0].knobs = world.machines[0]
        .knobs
        .with(Knob::DiskIops, KnobReading::Uneven { devices: 3 });
    world.now = world.now.after(Duration::from_secs(60));
    assert_eq!(ticks(&mut world, 5), []);
    assert_eq!(iops(&world), KnobValue::At(500));
}
