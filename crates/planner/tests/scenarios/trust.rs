//! What trust lets be done, what waits for a person, and what a person's word and a guest's word are worth.

use std::time::Duration;

use persona::rule::Resource;
use persona::signal::Source;
use persona::units::Bytes;
use persona::{Class, Level};
use planner::proposal::{Proposal, Standing, Subject, Turn};
use planner::propose::MOST_PROPOSALS;
use planner::report::{Reason, Verdict, Wish};
use planner::trust::{Deed, Payer, Permit, Undoing, permit};
use planner::{Heard, Plan};

use crate::world::{Machine, WEB, World, persona};

const MIB: u64 = Bytes::MIB;

/// One machine with this trust for its resources, and what it is loaded with.
fn trusting(level: &str, load: f64) -> World {
    let text = format!("{WEB}trust_levels: {{resource_scaling: {level}}}\n");
    World::new(vec![Machine {
        load,
        ..Machine::new(1, &text)
    }])
}

/// The one proposal of a world.
#[track_caller]
fn only(world: &World) -> Proposal {
    let mut open = world.state.proposals.open();
    let found = open.next().expect("a proposal").clone();
    assert_eq!(open.next(), None);
    found
}

fn turns(plans: &[Plan]) -> Vec<(u64, Turn)> {
    let news = plans.iter().flat_map(|plan| &plan.proposals);
    news.map(|news| (news.proposal.id, news.turn)).collect()
}

fn ticks(world: &mut World, seconds: u64) -> Vec<Plan> {
    (0..seconds).map(|_| world.tick()).collect()
}

#[test]
fn every_level_permits_what_the_language_says() {
    let levels = [Level::None, Level::Low, Level::Medium, Level::High];
    let words = ["none", "low", "medium", "high"];
    for (class, key) in Class::ALL {
        for (level, word) in levels.into_iter().zip(words) {
            let persona = persona(&format!("name: t\ntrust_levels: {{{key}: {word}}}\n"));
            for evidence in [
                Source::External,
                Source::Agent,
                Source::Balloon,
                Source::Host,
            ] {
                for undoing in [Undoing::Possible, Undoing::Impossible] {
                    for payer in [Payer::Nobody, Payer::Others] {
                        let deed = Deed {
                            class,
                            evidence,
                            undoing,
                            payer,
                        };
                        let sure = evidence == Source::Host || payer == Payer::Nobody;
                        let expected = match level {
                            Level::None => Permit::Never,
                            Level::Low => Permit::Propose,
                            Level::Medium if sure && undoing == Undoing::Possible => Permit::Act,
                            Level::Medium => Permit::Propose,
                            Level::High => Permit::Act,
                        };
                        assert_eq!(permit(&persona.trust, deed), expected, "{word} {deed:?}");
                    }
                }
            }
        }
        // What a document does not name, it does.
        let silent = persona("name: t\n");
        assert_eq!(silent.trust.level(class), Level::High);
    }
}

#[test]
fn with_trust_none_nothing_is_done_and_nothing_proposed() {
    let mut world = trusting("none", 3.9);
    let plan = world.run(30);
    assert_eq!(world.steps, []);
    assert_eq!(
        World::verdict(&plan, Resource::Vcpus),
        &Verdict::No(Reason::NotTrusted(Level::None))
    );
    assert_eq!(world.state.proposals.open().count(), 0);
}

#[test]
fn with_trust_low_a_wish_is_proposed_once_and_keeps_its_number_while_its_figures_change() {
    let mut world = trusting("low", 0.9);
    let plans = ticks(&mut world, 5);
    let first = only(&world);
    assert_eq!(first.id, 1);
    assert_eq!(first.by, Wish::Rule("rule-1".to_owned()).clone());
    assert_eq!(
        first.what,
        Subject::Step {
            resource: Resource::Vcpus,
            from: 1,
            to: 2
        }
    );
    assert_eq!(first.why[0].metric, "cpu.utilization");
    assert_eq!(first.why[0].source, Source::Host);
    assert_eq!(turns(&plans), [(1, Turn::Made)]);
    world.machines[0].load = 0.95;
    let plans = ticks(&mut world, 30);
    let later = only(&world);
    assert_eq!((later.id, later.created), (1, first.created));
    assert!(later.why[0].value > first.why[0].value && later.why[0].at > first.why[0].at);
    assert_eq!(turns(&plans), []);
    assert_eq!(world.steps, [], "nothing changes without a person");
    assert_eq!(
        World::verdict(plans.last().expect("a plan"), Resource::Vcpus),
        &Verdict::No(Reason::Proposed {
            id: 1,
            level: Level::Low
        })
    );
}

#[test]
fn what_is_approved_is_done_and_no_more_than_that() {
    let mut world = trusting("low", 3.9);
    let _ = world.run(5);
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    let plans = ticks(&mut world, 30);
    // One vCPU was approved, and the rule that still holds asks for the next.
    assert_eq!(world.vcpu_steps().len(), 1);
    assert_eq!(world.machines[0].vcpus, 2);
    assert_eq!(
        turns(&plans),
        [(1, Turn::CarriedOut), (2, Turn::Made)],
        "{:?}",
        world.steps
    );
    assert_eq!(
        only(&world).what,
        Subject::Step {
            resource: Resource::Vcpus,
            from: 2,
            to: 3
        }
    );
}

#[test]
fn a_fixed_amount_is_approved_as_a_whole_and_reached_in_steps_with_every_guard_in_force() {
    let text = "
name: fixed
base_configuration:
  cpu: {min: 1, max: 4}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN set vcpus to 16 COOLDOWN 4s
trust_levels: {resource_scaling: low}
";
    let mut world = World::new(vec![Machine {
        load: 9.0,
        ..Machine::new(1, text)
    }]);
    world.host.vcpus = 3;
    let _ = world.run(5);
    // Sixteen are wanted, and the persona's max is four.
    assert!(matches!(only(&world).what, Subject::Step { to: 4, .. }));
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    let plan = world.run(30);
    let sizes: Vec<u64> = world.vcpu_steps().iter().map(|step| step.1).collect();
    assert_eq!(sizes, [2, 3], "one vCPU a step, and the budget holds");
    assert!(matches!(
        World::verdict(&plan, Resource::Vcpus),
        Verdict::No(Reason::Budget { .. })
    ));
    assert!(matches!(only(&world).standing, Standing::Approved { .. }));
    world.host.vcpus = 8;
    let plans = ticks(&mut world, 10);
    assert_eq!(world.machines[0].vcpus, 4);
    assert_eq!(turns(&plans), [(1, Turn::CarriedOut)]);
}

#[test]
fn memory_goes_down_as_far_as_it_was_approved_in_the_usual_small_steps() {
    let text = "
name: shrinks
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB, reservation: 512 MiB}
adaptation_rules:
  - IF memory.utilization < 40% FOR 5s THEN remove 300 MiB memory COOLDOWN 2s
trust_levels: {resource_scaling: low}
";
    let mut world = World::new(vec![Machine {
        memory: 1536 * MIB,
        used: 100 * MIB,
        ..Machine::new(1, text)
    }]);
    let _ = world.run(10);
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    let _ = world.run(60);
    // What is left is less than the least change.
    let left = world.machines[0].memory / MIB;
    assert!((1236..1300).contains(&left), "{left}: {:?}", world.steps);
    assert_eq!(world.state.proposals.get(1), None);
    assert!(world.steps.len() > 2, "{:?}", world.steps);
}

#[test]
fn what_is_rejected_is_not_proposed_again_until_its_cause_was_gone_once_and_a_cooldown_has_passed()
{
    let mut world = trusting("low", 0.9);
    let _ = world.run(5);
    let now = world.now;
    world.state.proposals.reject(1, "ann", now).expect("open");
    let plan = world.run(200);
    assert_eq!(world.state.proposals.open().count(), 0);
    assert_eq!(
        World::verdict(&plan, Resource::Vcpus),
        &Verdict::No(Reason::Rejected { id: 1 })
    );
    world.machines[0].load = 0.5;
    let _ = world.run(1);
    world.machines[0].load = 0.9;
    let plans = ticks(&mut world, 5);
    assert_eq!(turns(&plans), [(2, Turn::Made)]);
    // Within the cooldown of four seconds a dip is not enough.
    let now = world.now;
    world.state.proposals.reject(2, "ann", now).expect("open");
    world.machines[0].load = 0.5;
    let _ = world.run(1);
    world.machines[0].load = 0.9;
    let plans = ticks(&mut world, 3);
    assert_eq!(turns(&plans), []);
    assert_eq!(world.steps, []);
}

#[test]
fn what_nothing_wants_any_more_is_withdrawn_after_a_while_and_what_nobody_decides_expires() {
    let mut world = trusting("low", 0.9);
    let _ = world.run(5);
    world.machines[0].load = 0.5;
    let grace = world.policy.proposal_grace.as_secs();
    let expiry = world.policy.proposal_expiry.as_secs();
    let plans = ticks(&mut world, grace - 1);
    assert_eq!(turns(&plans), []);
    let plans = ticks(&mut world, 1);
    assert_eq!(turns(&plans), [(1, Turn::Unwanted)]);

    world.machines[0].load = 0.9;
    let made = ticks(&mut world, 5);
    assert_eq!(turns(&made), [(2, Turn::Made)]);
    let plans = ticks(&mut world, expiry);
    // The rule still holds, so the next one has the figures of its own hour.
    assert_eq!(turns(&plans), [(2, Turn::Expired), (3, Turn::Made)]);
    let now = world.now;
    let proposals = &mut world.state.proposals;
    assert!(proposals.approve(2, "ann", now).is_err());
    // What was approved ends with its time too, where nothing came of it.
    proposals.approve(3, "ann", now).expect("open");
    world.host.vcpus = 1;
    let plans = ticks(&mut world, expiry);
    assert!(turns(&plans).contains(&(3, Turn::Expired)));
    assert_eq!(world.steps, []);
}

#[test]
fn another_persona_or_another_machine_ends_what_was_proposed_and_what_was_approved() {
    type Change = fn(&mut World);
    let changes: [(Change, Turn); 3] = [
        (
            |world| {
                let text = format!("{WEB}trust_levels: {{resource_scaling: none}}\n");
                world.machines[0].persona = persona(&text);
            },
            Turn::PersonaChanged,
        ),
        (
            |world| world.machines[0].instance = Some(2),
            Turn::NotRunning,
        ),
        (
            |world| world.machines[0].run = planner::snapshot::Run::Off,
            Turn::NotRunning,
        ),
    ];
    for (change, turn) in changes {
        for approved in [false, true] {
            let mut world = trusting("low", 3.9);
            let _ = world.run(5);
            if approved {
                // Nothing can come of it at once, because no vCPU is free.
                world.host.vcpus = 1;
                let now = world.now;
                world.state.proposals.approve(1, "ann", now).expect("open");
                let _ = world.tick();
            }
            change(&mut world);
            let plan = world.tick();
            assert_eq!(turns(&[plan]), [(1, turn)]);
            world.host.vcpus = 64;
            let _ = world.run(2);
            assert_eq!(world.steps, []);
        }
    }
}

/// A machine that is busy, with a rule that does something once under low trust.
fn calling(action: &str, class: &str) -> World {
    let text = format!(
        "name: calls\nadaptation_rules:\n  - IF cpu.utilization > 80% FOR 2s THEN {action}\ntrust_levels: {{{class}: low}}\n"
    );
    let mut world = World::new(vec![Machine {
        load: 3.9,
        ..Machine::new(1, &text)
    }]);
    let _ = world.run(5);
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    world
}

#[test]
fn what_was_approved_for_another_machine_or_persona_is_not_done_also_where_the_machine_is_paused() {
    for run in [
        planner::snapshot::Run::Running,
        planner::snapshot::Run::Paused,
    ] {
        let mut world = calling("notify \"busy\"", "notify");
        world.machines[0].run = run;
        assert_eq!(
            world.tick().calls.len(),
            1,
            "on the machine that it was for"
        );

        let mut world = calling("notify \"busy\"", "notify");
        world.machines[0].run = run;
        world.machines[0].instance = Some(2);
        let plan = world.tick();
        assert_eq!(plan.calls, []);
        assert_eq!(turns(&[plan]), [(1, Turn::NotRunning)]);

        let mut world = calling("notify \"busy\"", "notify");
        world.machines[0].run = run;
        // The same rule and the same action, in a document that says something else.
        let text = "name: calls\nadaptation_rules:\n  - IF cpu.utilization > 99% FOR 1h THEN notify \"busy\"\ntrust_levels: {notify: low}\n";
        world.machines[0].persona = persona(text);
        let plan = world.tick();
        assert_eq!(plan.calls, []);
        assert_eq!(turns(&[plan]), [(1, Turn::PersonaChanged)]);
    }
}

#[test]
fn an_approved_change_of_persona_is_called_for_once_and_waits_until_somebody_says_what_came_of_it()
{
    let mut world = calling("activate persona night", "persona_change");
    world.machines[0].load = 0.1;
    let plan = world.tick();
    let approved: Vec<_> = plan.calls.iter().map(|call| call.approved).collect();
    assert_eq!(approved, [Some(1)]);
    assert_eq!(turns(&[plan]), []);
    assert_eq!(
        ticks(&mut world, 100)
            .iter()
            .map(|plan| plan.calls.len())
            .sum::<usize>(),
        0
    );
    // A restart forgets what was on its way.
    let now = world.now;
    world.state.resume(&world.policy, now);
    assert_eq!(world.tick().calls.len(), 1);
    let told = world.state.proposals.settle(1, Turn::CarriedOut);
    assert_eq!(
        told.map(|news| (news.proposal.id, news.turn)),
        Some((1, Turn::CarriedOut))
    );
    assert_eq!(world.state.proposals.settle(1, Turn::CarriedOut), None);
    assert_eq!(world.state.proposals.open().count(), 0);
}

#[test]
fn what_a_guest_says_never_raises_what_a_person_may_have_read() {
    let mut world = trusting("low", 0.5);
    let _ = world.tick();
    let id = world.machines[0].id;
    for mib in [128, 1024, 256] {
        let heard = world
            .state
            .need(id, Bytes::from_mib(mib), &world.policy, world.now);
        assert!(matches!(heard, Heard::Taken | Heard::Repeated), "{heard:?}");
        let _ = world.tick();
        let open = only(&world);
        assert_eq!(open.by, Wish::Need);
        assert!(
            matches!(open.what, Subject::Step { to, .. } if to == 640 * MIB),
            "{:?}",
            open.what
        );
    }
}

#[test]
fn proposals_and_their_numbers_survive_being_stored() {
    let mut world = trusting("low", 3.9);
    let _ = world.run(5);
    let text = serde_json::to_string(&world.state).expect("serialises");
    let mut back: planner::State = serde_json::from_str(&text).expect("parses");
    assert_eq!(
        back.proposals.open().collect::<Vec<_>>(),
        world.state.proposals.open().collect::<Vec<_>>()
    );
    // The daemon was down for longer than a proposal stays without being wanted.
    world.now = world.now.after(Duration::from_secs(600));
    back.resume(&world.policy, world.now);
    world.state = back;
    let plans = ticks(&mut world, 30);
    assert_eq!(turns(&plans), []);
    let now = world.now;
    world.state.proposals.reject(1, "ann", now).expect("open");
    let text = serde_json::to_string(&world.state).expect("serialises");
    world.state = serde_json::from_str(&text).expect("parses");
    world.machines[0].load = 0.5;
    let _ = world.run(10);
    world.machines[0].load = 3.9;
    let plans = ticks(&mut world, 5);
    assert_eq!(turns(&plans), [(2, Turn::Made)]);
}

#[test]
fn a_store_without_proposals_and_holds_by_command_loads() {
    let mut world = trusting("high", 3.9);
    let _ = world.run(5);
    let mut value = serde_json::to_value(&world.state).expect("serialises");
    value.as_object_mut().expect("a map").remove("proposals");
    for domain in value["domains"]
        .as_object_mut()
        .expect("a map")
        .values_mut()
    {
        for resource in ["vcpus", "memory"] {
            domain[resource]
                .as_object_mut()
                .expect("a map")
                .remove("held_by");
        }
    }
    let back: planner::State = serde_json::from_value(value).expect("parses");
    assert_eq!(back.proposals, planner::propose::Proposals::default());
}

#[test]
fn no_more_is_proposed_than_anybody_reads() {
    let text = format!("{WEB}trust_levels: {{resource_scaling: low}}\n");
    let many = u8::try_from(MOST_PROPOSALS + 5).expect("few");
    let machines = (0..many).map(|number| Machine {
        load: 3.9,
        ..Machine::new(number, &text)
    });
    let mut world = World::new(machines.collect());
    world.host.vcpus = 4096;
    let plan = world.run(4);
    assert_eq!(world.state.proposals.open().count(), MOST_PROPOSALS);
    assert_eq!(
        World::line(&plan, usize::from(many) - 1, Resource::Vcpus).verdict,
        Verdict::No(Reason::TooManyProposals)
    );
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    let _ = world.run(2);
    assert_eq!(world.machines[0].vcpus, 2);
    assert_eq!(world.state.proposals.open().count(), MOST_PROPOSALS);
}

#[test]
fn a_base_configuration_under_low_trust_is_proposed_too_and_its_word_is_the_documents() {
    let text = "
name: small
base_configuration:
  cpu: {min: 3, max: 4}
trust_levels: {resource_scaling: low}
";
    let mut world = World::new(vec![Machine::new(1, text)]);
    let _ = world.tick();
    let made = only(&world);
    assert_eq!((made.by, made.why.len()), (Wish::Minimum, 0));
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    let _ = world.run(10);
    assert_eq!(world.machines[0].vcpus, 3);
}

#[test]
fn an_effect_that_was_approved_is_undone_only_when_that_is_approved_too() {
    let text = "
name: undone
base_configuration:
  cpu: {min: 1, max: 4}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN set vcpus to 3 UNTIL cpu.utilization < 20% FOR 3s COOLDOWN 2s
trust_levels: {resource_scaling: low}
";
    let mut world = World::new(vec![Machine {
        load: 2.0,
        ..Machine::new(1, text)
    }]);
    let _ = world.run(5);
    let now = world.now;
    world.state.proposals.approve(1, "ann", now).expect("open");
    let _ = world.run(10);
    assert_eq!(world.machines[0].vcpus, 3);
    world.machines[0].load = 0.1;
    let _ = world.run(10);
    assert_eq!(world.machines[0].vcpus, 3);
    let back = only(&world);
    assert_eq!(back.by, Wish::Undo("rule-1".to_owned()));
    let now = world.now;
    world
        .state
        .proposals
        .approve(back.id, "ann", now)
        .expect("open");
    let _ = world.run(10);
    assert_eq!(world.machines[0].vcpus, 1);
}

/// A machine that has memory to spare and one whose guest alone says that it needs more, on a host that is full.
fn full_of_memory(level: &str) -> World {
    let rules = "
base_configuration:
  cpu: {min: 1, max: 8}
  memory: {min: 512 MiB, max: 2 GiB, reservation: 512 MiB}
adaptation_rules:
  - IF memory.utilization > 85% FOR 2s THEN add 128 MiB memory COOLDOWN 2s
";
    let donor = Machine {
        memory: 1536 * MIB,
        ..Machine::new(1, &format!("name: donor\n{rules}"))
    };
    let text = format!("name: needy\n{rules}trust_levels: {{resource_scaling: {level}}}\n");
    let needy = Machine {
        used: 480 * MIB,
        ..Machine::new(2, &text)
    };
    let mut world = World::new(vec![donor, needy]);
    world.host.memory = Bytes(2048 * MIB);
    world
}

#[test]
fn what_a_guest_claims_takes_nothing_from_another_at_any_level_and_a_persons_word_does() {
    for level in ["none", "low", "medium", "high"] {
        let mut world = full_of_memory(level);
        let _ = world.run(400);
        let sizes = [0, 1].map(|index: usize| world.machines[index].memory / MIB);
        assert_eq!(sizes, [1536, 512], "{level}: {:?}", world.taken);
    }
    let mut world = full_of_memory("low");
    let _ = world.run(5);
    let now = world.now;
    let id = only(&world).id;
    world.state.proposals.approve(id, "ann", now).expect("open");
    for _ in 0..400 {
        // It always says that it is in need.
        world.machines[1].used = world.machines[1].memory * 94 / 100;
        let _ = world.tick();
    }
    let sizes = [0, 1].map(|index: usize| world.machines[index].memory / MIB);
    assert!(sizes[0] < 1536, "{sizes:?}");
    assert_eq!(sizes[1], 640, "as far as it was approved: {sizes:?}");
    assert!(sizes[0] + sizes[1] <= 2048, "{sizes:?}");
}

#[test]
fn a_claim_that_medium_trust_is_not_enough_for_is_put_to_a_person() {
    let rules = "
base_configuration:
  memory: {min: 512 MiB, max: 2 GiB, reservation: 512 MiB}
adaptation_rules:
  - IF memory.utilization > 85% FOR 2s THEN add 256 MiB memory COOLDOWN 1h
trust_levels: {resource_scaling: medium}
";
    let machine = |number| Machine {
        used: 480 * MIB,
        ..Machine::new(number, &format!("name: both\n{rules}"))
    };
    let mut world = World::new(vec![machine(1), machine(2)]);
    // There is room for a part of what the two want together.
    world.host.memory = Bytes((1024 + 300) * MIB);
    let plan = world.run(5);
    let id = world.state.proposals.open().next().expect("a proposal").id;
    assert!(matches!(
        World::line(&plan, 0, Resource::Memory).verdict,
        Verdict::No(Reason::Proposed {
            level: Level::Medium,
            ..
        })
    ));
    assert_eq!(world.steps, []);
    let now = world.now;
    world.state.proposals.approve(id, "ann", now).expect("open");
    let _ = world.run(5);
    assert!(world.machines[0].memory > 512 * MIB);
    assert_eq!(world.machines[1].memory, 512 * MIB);
}

#[test]
fn a_rule_that_demands_a_source_is_unknown_below_it_and_true_from_it_on() {
    let sources = [Source::Agent, Source::Balloon, Source::Host];
    for (demand, word) in sources.into_iter().zip(["agent", "balloon", "host"]) {
        for source in sources {
            let text = format!(
                "
name: demands
base_configuration:
  cpu: {{min: 1, max: 4}}
adaptation_rules:
  - name: grow
    when: cpu.utilization > 80% FOR 2s
    then: [add 1 vcpus]
    cooldown: 1h
    source: {word}
"
            );
            let mut world = World::new(vec![Machine {
                load: 3.9,
                cpu_source: source,
                ..Machine::new(1, &text)
            }]);
            let plan = world.run(10);
            let grown = u32::from(source >= demand);
            assert_eq!(world.machines[0].vcpus, 1 + grown, "{word} from {source}");
            let rule = &plan.reports[0].rules[0];
            assert_eq!(rule.demands, Some(demand));
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn under_low_trust_every_step_was_approved_and_goes_no_further(
        seconds in proptest::collection::vec((0_u8..45, 0_u8..6), 1..80),
    ) {
        let mut world = trusting("low", 0.5);
        let mut approved = Vec::new();
        for (load, word) in seconds {
            world.machines[0].load = f64::from(load) / 10.0;
            let plan = world.tick();
            for step in &plan.steps {
                let covered = approved.iter().any(|proposal: &Proposal| {
                    let Subject::Step { resource, from, to } = proposal.what else {
                        return false;
                    };
                    let range = from.min(to)..=from.max(to);
                    resource == step.resource
                        && proposal.by == step.by
                        && range.contains(&step.from)
                        && range.contains(&step.to)
                });
                proptest::prop_assert!(covered, "{step:?} by none of {approved:?}");
            }
            let mut open = world.state.proposals.open();
            let first = open.find(|proposal| proposal.standing == Standing::Open).cloned();
            drop(open);
            let now = world.now;
            if let Some(first) = first {
                let proposals = &mut world.state.proposals;
                if word == 0 {
                    approved.push(proposals.approve(first.id, "ann", now).expect("open").clone());
                } else if word == 1 {
                    proposals.reject(first.id, "ann", now).expect("open");
                }
            }
        }
    }
}
