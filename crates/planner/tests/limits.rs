//! Knobs: who has the say over each, what lasts, what a hand does, and that what was there before comes back, after
//! whatever has happened. The hypervisor's part is done at once here, or fails when a test says so.

// A test stops where something is not as it must be, also in the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::signal::{Metric, Reading, Signals, Source};
use persona::units::{Bytes, Moment};
use persona::{Format, Persona, SourceText};
use planner::limit::{LimitReason, LimitReport, LimitVerdict};
use planner::report::{Reason, Wish};
use planner::snapshot::{
    Ability, Domain, Host, KnobReading, Knobs, Memory, Obstacle, Run, Strain, Vcpus,
};
use planner::{Ending, Plan, Policy, Snapshot, State, plan};
use proptest::prelude::*;

const ID: DomainId = DomainId([3; 16]);

/// Each rule is moved by a metric of its own.
const BUSY: &str = "
name: busy
base_configuration:
  cpu: {min: 1, max: 4, share: 2000}
  disk: {iops: 1000}
adaptation_rules:
  - IF disk.read.iops > 500/s THEN set disk iops to 500 UNTIL disk.read.iops < 100/s COOLDOWN 10s
  - IF disk.write.iops > 500/s THEN set disk iops to 200 UNTIL disk.write.iops < 100/s COOLDOWN 10s PRIORITY 5
  - IF cpu.steal > 50% THEN set cpu cap to 400% COOLDOWN 10s
  - IF cpu.steal < 10% THEN set cpu cap to 100% COOLDOWN 10s
";

const QUIET: &str = "name: quiet\nadaptation_rules:\n  - IF cpu.steal > 99% THEN notify \"much\"\n";

fn persona(text: &str) -> Persona {
    let source = SourceText {
        name: "test.yaml",
        text: text.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    };
    persona::load(&source)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .persona
}

struct Figures {
    values: Vec<(Metric, f64)>,
    at: Moment,
}

impl Signals for Figures {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let (_, value) = self.values.iter().find(|(of, _)| *of == metric)?;
        Some(Reading {
            value: *value,
            source: Source::Host,
            at: self.at,
            period: Duration::from_secs(1),
        })
    }
}

/// One machine and the daemon's part of the loop.
struct World {
    persona: Option<Persona>,
    knobs: Knobs,
    figures: Figures,
    vcpus: u32,
    memory: u64,
    instance: u32,
    state: State,
    now: Moment,
    /// What the hypervisor does with turns.
    ending: Ending,
    steps: Vec<(Knob, KnobValue, Wish)>,
    drifts: usize,
}

const fn set(value: KnobValue) -> KnobReading {
    KnobReading::Set { devices: 2, value }
}

const fn at(amount: u64) -> KnobValue {
    KnobValue::At(amount)
}

fn originally() -> Knobs {
    Knobs::new(|knob| {
        set(match knob {
            Knob::CpuWeight => at(1000),
            Knob::DiskIops => at(7777),
            _ => KnobValue::Unlimited,
        })
    })
}

impl World {
    fn new(text: &str) -> Self {
        Self {
            persona: Some(persona(text)),
            knobs: originally(),
            figures: Figures {
                values: vec![
                    (Metric::DiskReadIops, 300.0),
                    (Metric::DiskWriteIops, 300.0),
                    (Metric::CpuSteal, 30.0),
                ],
                at: Moment(0),
            },
            vcpus: 1,
            memory: 512,
            instance: 1,
            state: State::default(),
            now: Moment(1_000_000),
            ending: Ending::Applied,
            steps: Vec::new(),
            drifts: 0,
        }
    }

    fn measure(&mut self, metric: Metric, value: f64) {
        for (of, known) in &mut self.figures.values {
            if *of == metric {
                *known = value;
            }
        }
    }

    fn turn_by_hand(&mut self, knob: Knob, value: KnobValue) {
        self.knobs = self.knobs.with(knob, set(value));
    }

    /// One second, with all that it comes to done.
    fn tick(&mut self) -> Plan {
        self.now = self.now.after(Duration::from_secs(1));
        self.figures.at = self.now;
        let policy = Policy::default();
        let memory = Bytes::from_mib(self.memory);
        let domain = Domain {
            id: ID,
            name: "machine",
            persona: self.persona.as_ref(),
            run: Run::Running,
            instance: Some(self.instance),
            vcpus: Vcpus {
                maximum: 4,
                fixed: 1,
                plugged: self.vcpus,
                online: Some(self.vcpus),
                weight: 1,
                ability: Ability::Both,
            },
            memory: Memory {
                boot: Bytes::from_mib(512),
                requested: memory,
                plugged: memory,
                maximum: Bytes::from_mib(4096),
                minimum: Bytes::from_mib(512),
                block: Bytes::from_mib(2),
                means: planner::Means::Usual,
                balloon: None,
                dimm: None,
                ability: Ability::Both,
            },
            knobs: self.knobs,
            signals: &self.figures,
            shifted_by: None,
            adjusted_by: &[],
        };
        let snapshot = Snapshot {
            host: Host {
                vcpus: 64,
                memory: Bytes::from_mib(65_536),
            },
            strain: Strain::default(),
            domains: vec![domain],
        };
        let plan = plan(&snapshot, &mut self.state, &policy, self.now);
        self.drifts += plan.limit_drifts.len();
        for step in &plan.limits {
            self.state.begin_limit(step, self.now);
            self.steps.push((step.knob, step.to, step.by.clone()));
            if self.ending == Ending::Applied {
                self.knobs = self.knobs.with(step.knob, set(step.to));
            }
            let shown = Some(self.knobs.reading(step.knob));
            self.state
                .finish_limit(step, self.ending, shown, &policy, self.now);
        }
        for step in &plan.steps {
            self.state.begin(step, self.now);
            match step.resource {
                persona::rule::Resource::Vcpus => self.vcpus = step.to.try_into().unwrap(),
                persona::rule::Resource::Memory => self.memory = step.to / Bytes::MIB,
            }
            self.state
                .finish(step, Ending::Applied, Some(step.to), &policy, self.now);
        }
        plan
    }

    fn ticks(&mut self, seconds: u32) {
        for _ in 0..seconds {
            let _ = self.tick();
        }
    }

    fn value(&self, knob: Knob) -> KnobValue {
        self.knobs.reading(knob).value().unwrap()
    }

    /// The daemon is killed and reads its state back.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.state).unwrap();
        self.state = serde_json::from_str(&text).unwrap();
        self.state.resume(&Policy::default(), self.now);
    }

    fn line(plan: &Plan, knob: Knob) -> LimitReport {
        let lines = &plan.reports[0].limits;
        lines.iter().find(|line| line.knob == knob).unwrap().clone()
    }
}

#[test]
fn the_base_configuration_is_brought_about_and_what_was_there_comes_back_without_a_persona() {
    let mut world = World::new(BUSY);
    world.ticks(2);
    assert_eq!(
        world.steps,
        [
            (Knob::CpuWeight, at(2000), Wish::Base),
            (Knob::DiskIops, at(1000), Wish::Base)
        ]
    );
    world.persona = None;
    world.ticks(3);
    assert_eq!(world.knobs, originally());
    assert_eq!(world.steps[2].2, Wish::Restore);
    assert_eq!(world.steps.len(), 4);
    let carried = world.state.domain(ID).unwrap();
    assert!(!carried.has_something_to_give_back());
    assert_eq!(world.drifts, 0);
}

#[test]
fn another_persona_that_is_silent_gives_back_too() {
    let mut world = World::new(BUSY);
    world.ticks(2);
    world.persona = Some(persona(QUIET));
    world.ticks(2);
    assert_eq!(world.knobs, originally());
}

#[test]
fn the_highest_priority_that_holds_or_stands_has_the_say_until_its_until() {
    let mut world = World::new(BUSY);
    world.ticks(12);
    world.measure(Metric::DiskReadIops, 600.0);
    world.ticks(1);
    assert_eq!(world.value(Knob::DiskIops), at(500));
    // Its cooldown keeps the other rule waiting, and then it goes before.
    world.measure(Metric::DiskWriteIops, 600.0);
    let waits = World::line(&world.tick(), Knob::DiskIops);
    assert!(
        matches!(
            waits.verdict,
            LimitVerdict::No(LimitReason::Guard(Reason::Cooldown(_)))
        ),
        "{waits:?}"
    );
    world.ticks(10);
    assert_eq!(world.value(Knob::DiskIops), at(200));
    // Neither condition holds any more, and both effects stand.
    world.measure(Metric::DiskReadIops, 300.0);
    world.measure(Metric::DiskWriteIops, 300.0);
    world.ticks(20);
    assert_eq!(world.value(Knob::DiskIops), at(200));
    world.measure(Metric::DiskWriteIops, 50.0);
    world.ticks(1);
    assert_eq!(world.value(Knob::DiskIops), at(500));
    world.measure(Metric::DiskReadIops, 50.0);
    world.ticks(1);
    assert_eq!(world.value(Knob::DiskIops), at(1000));
    let by = &world.steps.last().unwrap().2;
    assert!(matches!(by, Wish::Undo(_)), "{by:?}");
}

#[test]
fn without_until_a_value_stays_until_another_rule_changes_it_and_over_restarts() {
    let mut world = World::new(BUSY);
    world.ticks(2);
    world.measure(Metric::CpuSteal, 60.0);
    world.ticks(1);
    world.measure(Metric::CpuSteal, 30.0);
    world.ticks(20);
    world.restart();
    world.ticks(20);
    assert_eq!(world.value(Knob::CpuCap), at(4_000_000));
    assert_eq!(world.drifts, 0);
    world.measure(Metric::CpuSteal, 5.0);
    world.ticks(1);
    assert_eq!(world.value(Knob::CpuCap), at(1_000_000));
    world.measure(Metric::CpuSteal, 30.0);
    world.ticks(20);
    assert_eq!(world.value(Knob::CpuCap), at(1_000_000));
    world.persona = None;
    world.ticks(2);
    assert_eq!(world.knobs, originally());
}

#[test]
fn an_effect_that_stands_is_undone_after_a_restart_too() {
    let mut world = World::new(BUSY);
    world.ticks(12);
    world.measure(Metric::DiskReadIops, 600.0);
    world.ticks(1);
    world.measure(Metric::DiskReadIops, 300.0);
    world.ticks(1);
    world.restart();
    world.ticks(2);
    assert_eq!(world.value(Knob::DiskIops), at(500));
    world.measure(Metric::DiskReadIops, 50.0);
    world.ticks(1);
    assert_eq!(world.value(Knob::DiskIops), at(1000));
}

#[test]
fn a_turn_by_hand_is_seen_respected_and_then_what_is_given_back() {
    let mut world = World::new(BUSY);
    world.ticks(2);
    world.turn_by_hand(Knob::DiskIops, at(42));
    let line = World::line(&world.tick(), Knob::DiskIops);
    assert!(
        matches!(
            line.verdict,
            LimitVerdict::No(LimitReason::Guard(Reason::Held { .. }))
        ),
        "{line:?}"
    );
    assert_eq!((world.drifts, line.original), (1, None));
    world.ticks(60);
    assert_eq!(world.value(Knob::DiskIops), at(42));
    world.ticks(30 * 60);
    assert_eq!(world.value(Knob::DiskIops), at(1000));
    world.persona = None;
    world.ticks(2);
    assert_eq!(world.value(Knob::DiskIops), at(42));
    assert_eq!(world.drifts, 1);
}

#[test]
fn a_hands_turn_is_left_when_the_persona_goes_while_it_is_held() {
    let mut world = World::new(BUSY);
    world.ticks(2);
    world.turn_by_hand(Knob::CpuWeight, at(3000));
    world.ticks(1);
    world.persona = None;
    world.ticks(2 * 60 * 60);
    assert_eq!(world.value(Knob::CpuWeight), at(3000));
    assert_eq!(world.value(Knob::DiskIops), at(7777));
}

#[test]
fn a_device_more_is_no_hands_work_and_gets_its_part() {
    let mut world = World::new(BUSY);
    world.ticks(2);
    world.knobs = world
        .knobs
        .with(Knob::DiskIops, KnobReading::Uneven { devices: 3 });
    world.ticks(1);
    assert_eq!(world.value(Knob::DiskIops), at(1000));
    assert_eq!(world.drifts, 0);
}

#[test]
fn what_cannot_be_turned_is_told_and_not_tried() {
    for (reading, sentence) in [
        (
            KnobReading::Unable(Obstacle::OwnLimits),
            "limits devices in its own way",
        ),
        (KnobReading::Unable(Obstacle::NoDevice), "has no disk"),
        (KnobReading::Uneven { devices: 2 }, "not limited alike"),
        (KnobReading::Unknown, "nobody has looked"),
    ] {
        let mut world = World::new(BUSY);
        world.knobs = world.knobs.with(Knob::DiskIops, reading);
        let plan = world.tick();
        let LimitVerdict::No(reason) = World::line(&plan, Knob::DiskIops).verdict else {
            panic!("{reading:?}")
        };
        let told = reason.sentence(Knob::DiskIops);
        assert!(told.contains(sentence), "{told}");
        assert!(plan.limits.iter().all(|step| step.knob != Knob::DiskIops));
    }
}

#[test]
fn no_trust_turns_nothing_and_still_gives_back() {
    let distrusting = format!("{BUSY}trust_levels: {{resource_scaling: none}}\n");
    let mut world = World::new(&distrusting);
    let line = World::line(&world.tick(), Knob::DiskIops);
    assert!(
        matches!(
            line.verdict,
            LimitVerdict::No(LimitReason::Guard(Reason::NotTrusted(_)))
        ),
        "{line:?}"
    );
    assert_eq!(world.steps, []);
    let mut world = World::new(BUSY);
    world.ticks(2);
    world.persona = Some(persona(
        "name: shy\ntrust_levels: {resource_scaling: none}\n",
    ));
    world.ticks(2);
    assert_eq!(world.knobs, originally());
}

#[test]
fn a_turn_that_fails_waits_longer_each_time_and_ends_in_quarantine() {
    let mut world = World::new("name: slow\nbase_configuration: {disk: {iops: 1000}}\n");
    world.ending = Ending::Refused;
    world.ticks(60);
    assert_eq!(world.steps.len(), 3, "{:?}", world.steps);
    let line = World::line(&world.tick(), Knob::DiskIops);
    assert!(
        matches!(
            line.verdict,
            LimitVerdict::No(LimitReason::Guard(Reason::Quarantined { .. }))
        ),
        "{line:?}"
    );
}

#[test]
fn what_is_shown_in_the_mechanisms_granularity_is_not_turned_again() {
    let mut world = World::new("name: net\nbase_configuration: {network_bandwidth: 100 Mbit/s}\n");
    let plan = world.tick();
    assert_eq!(plan.limits.len(), 1);
    world.turn_by_hand(Knob::NetworkBandwidth, at(99_984_000));
    // As if that had been what the turn ended with.
    world.state = State::default();
    world.knobs = originally();
    world.now = world.now.after(Duration::from_secs(1));
    let policy = Policy::default();
    let plan = world.tick();
    let step = &plan.limits[0];
    world.state.begin_limit(step, world.now);
    let rounded = set(at(99_984_000));
    world.knobs = world.knobs.with(Knob::NetworkBandwidth, rounded);
    world
        .state
        .finish_limit(step, Ending::Applied, Some(rounded), &policy, world.now);
    world.steps.clear();
    world.ticks(5);
    assert_eq!((world.steps.len(), world.drifts), (0, 0));
}

#[test]
fn vcpus_and_memory_go_back_step_by_step_within_the_guard() {
    let grown = "
name: grown
base_configuration:
  cpu: {min: 3, max: 4}
  memory: {min: 2 GiB, max: 4 GiB}
";
    let mut world = World::new(grown);
    world
        .figures
        .values
        .extend([(Metric::MemoryAvailable, 3.9e9), (Metric::MemorySize, 4e9)]);
    world.ticks(20);
    assert_eq!((world.vcpus, world.memory), (3, 2048));
    world.persona = None;
    let first = world.tick();
    assert!(first.steps.iter().all(|step| step.by == Wish::Restore));
    assert_eq!(world.vcpus, 2);
    assert!(world.memory < 2048 && world.memory > 512);
    world.ticks(60);
    assert_eq!((world.vcpus, world.memory), (1, 512));
    assert!(!world.state.domain(ID).unwrap().has_something_to_give_back());
}

#[test]
fn memory_in_use_is_not_taken_back_and_a_hands_word_ends_the_wish() {
    let mut world = World::new("name: big\nbase_configuration: {memory: {min: 2 GiB}}\n");
    world.figures.values.extend([
        (Metric::MemoryAvailable, 0.5e9),
        (Metric::MemorySize, 2.0 * 1024.0 * 1024.0 * 1024.0),
    ]);
    world.ticks(20);
    assert_eq!(world.memory, 2048);
    world.persona = None;
    world.ticks(30);
    assert!(world.memory > 1500, "{}", world.memory);
    world.memory = 1024;
    world.ticks(60);
    assert_eq!(world.memory, 1024);
}

#[derive(Clone, Debug)]
enum Deed {
    Busy,
    Quiet,
    Nobody,
    Read(u16),
    Write(u16),
    Steal(u8),
    Restart,
    Fails,
    Works,
    Wait(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        Just(Deed::Busy),
        Just(Deed::Quiet),
        Just(Deed::Nobody),
        (0..1000u16).prop_map(Deed::Read),
        (0..1000u16).prop_map(Deed::Write),
        (0..100u8).prop_map(Deed::Steal),
        Just(Deed::Restart),
        Just(Deed::Fails),
        Just(Deed::Works),
        (0..30u8).prop_map(Deed::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happened_every_knob_is_as_before_when_the_persona_is_gone(
        deeds in prop::collection::vec(deed(), 0..40)
    ) {
        let mut world = World::new(BUSY);
        for deed in deeds {
            match deed {
                Deed::Busy => world.persona = Some(persona(BUSY)),
                Deed::Quiet => world.persona = Some(persona(QUIET)),
                Deed::Nobody => world.persona = None,
                Deed::Read(value) => world.measure(Metric::DiskReadIops, value.into()),
                Deed::Write(value) => world.measure(Metric::DiskWriteIops, value.into()),
                Deed::Steal(value) => world.measure(Metric::CpuSteal, value.into()),
                Deed::Restart => world.restart(),
                Deed::Fails => world.ending = Ending::Refused,
                Deed::Works => world.ending = Ending::Applied,
                Deed::Wait(seconds) => world.ticks(seconds.into()),
            }
            world.ticks(1);
        }
        world.persona = None;
        world.ending = Ending::Applied;
        // Longer than any quarantine.
        world.ticks(11 * 60);
        prop_assert_eq!(world.knobs, originally());
        prop_assert_eq!(world.drifts, 0);
        prop_assert!(!world.state.domain(ID).is_some_and(|carried| carried.has_something_to_give_back()));
    }
}

#[test]
fn a_persons_hold_keeps_every_knob_as_it_is_over_the_machines_end_and_a_release_ends_it() {
    let mut world = World::new(BUSY);
    let until = world.now.after(Duration::from_secs(3600));
    world.state.hold_limits(ID, until, "anna");
    let line = World::line(&world.tick(), Knob::DiskIops);
    let LimitVerdict::No(reason) = line.verdict else {
        panic!("{line:?}")
    };
    let sentence = reason.sentence(Knob::DiskIops);
    assert!(sentence.contains("anna wants it left alone"), "{sentence}");
    world.instance = 2;
    world.ticks(60);
    world.restart();
    world.persona = None;
    world.ticks(60);
    world.persona = Some(persona(BUSY));
    world.ticks(60);
    assert_eq!(world.steps, []);
    assert!(world.state.release(ID));
    world.ticks(2);
    assert_eq!(world.value(Knob::DiskIops), at(1000));
    // What was turned before stays, and nothing is given back while it is held.
    let until = world.now.after(Duration::from_secs(600));
    world.state.hold_limits(ID, until, "anna");
    world.persona = None;
    world.ticks(590);
    assert_eq!(world.value(Knob::DiskIops), at(1000));
    world.ticks(30);
    assert_eq!(world.knobs, originally());
}
