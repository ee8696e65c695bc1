//! Random hosts under random loads, in a closed loop: what must hold in every second, whatever the machines do.

use persona::rule::Resource;
use persona::units::Bytes;
use planner::report::{Verdict, Wish};
use planner::snapshot::Strain;
use planner::stage::Stage;
use planner::{Ending, Snapshot, State, plan};
use proptest::prelude::*;

use crate::world::{Machine, World};

/// Seconds between two changes by the same rule.
const COOLDOWN: u64 = 10;

/// A load over time, in vCPUs.
#[derive(Clone, Debug)]
enum Wave {
    Still(f64),
    Square {
        low: f64,
        high: f64,
        half: u64,
    },
    Sine {
        middle: f64,
        swing: f64,
        period: f64,
    },
    Noise {
        most: f64,
        seed: u64,
    },
}

impl Wave {
    #[allow(clippy::cast_precision_loss)]
    fn at(&self, second: u64) -> f64 {
        match self {
            Self::Still(load) => *load,
            Self::Square { low, high, half } => {
                if (second / half).is_multiple_of(2) {
                    *low
                } else {
                    *high
                }
            }
            Self::Sine {
                middle,
                swing,
                period,
            } => {
                let turn = second as f64 / period * std::f64::consts::TAU;
                (middle + swing * turn.sin()).max(0.0)
            }
            Self::Noise { most, seed } => {
                // A multiplicative hash is noise enough, and the same in every run.
                let mixed = (second + 1)
                    .wrapping_mul(seed | 1)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed >> 40) as f64 / (1u64 << 24) as f64 * most
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Spec {
    vcpus: u32,
    reservation: u32,
    share: u32,
    shrinks: bool,
    wave: Wave,
}

impl Spec {
    /// The thresholds lie where the waves pass them.
    fn machine(&self, number: u8) -> Machine {
        let Self {
            reservation, share, ..
        } = self;
        let mut text = format!(
            "
name: wave-{number}
base_configuration:
  cpu: {{min: 1, max: 6, reservation: {reservation}, share: {share}}}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN {COOLDOWN}s
"
        );
        if self.shrinks {
            text.push_str(&format!(
                "  - IF cpu.utilization < 40% FOR 3s THEN remove 1 vcpus COOLDOWN {COOLDOWN}s\n"
            ));
        }
        let mut machine = Machine::new(number, &text);
        (machine.maximum, machine.vcpus) = (6, self.vcpus);
        machine
    }
}

fn wave() -> impl Strategy<Value = Wave> {
    prop_oneof![
        (0.0..6.0).prop_map(Wave::Still),
        (0.0..3.0, 1.0..6.0, 1u64..40).prop_map(|(low, more, half)| Wave::Square {
            low,
            high: low + more,
            half
        }),
        (0.5..4.0, 0.1..3.0, 5.0..120.0).prop_map(|(middle, swing, period)| Wave::Sine {
            middle,
            swing,
            period
        }),
        (0.5..6.0, any::<u64>()).prop_map(|(most, seed)| Wave::Noise { most, seed }),
    ]
}

prop_compose! {
    fn spec(wave: impl Strategy<Value = Wave>)(
        vcpus in 1u32..6,
        reservation in 1u32..4,
        share in 100u32..4000,
        shrinks in any::<bool>(),
        wave in wave,
    ) -> Spec {
        Spec { vcpus, reservation, share, shrinks, wave }
    }
}

fn world(specs: &[Spec], more: u32) -> World {
    let machines = specs
        .iter()
        .zip(1..)
        .map(|(spec, number)| spec.machine(number))
        .collect();
    let mut world = World::new(machines);
    world.host.vcpus = specs.iter().map(|spec| spec.vcpus).sum::<u32>() + more;
    world
}

fn load(world: &mut World, specs: &[Spec]) {
    let second = world.second() + 1;
    for (machine, spec) in world.machines.iter_mut().zip(specs) {
        machine.load = spec.wave.at(second);
    }
}

/// What every machine has or has on its way.
fn held(world: &World) -> u64 {
    let on_its_way = |machine: &Machine| {
        let steps = world.under_way.iter();
        let of = steps.filter(|(_, step)| step.domain == machine.id);
        of.map(|(_, step)| step.to).max().unwrap_or(0)
    };
    world
        .machines
        .iter()
        .map(|machine| u64::from(machine.vcpus).max(on_its_way(machine)))
        .sum()
}

/// What live use needs, with its margin.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn needed(load: f64) -> u64 {
    (load * 1.3).ceil() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn under_waves_the_budget_and_every_floor_hold_and_nobody_flaps(
        specs in proptest::collection::vec(spec(wave()), 1..6),
        more in 0u32..4,
        delay in 0u64..4,
        pressure in proptest::option::of(0.0..100.0),
        ending in prop_oneof![4 => Just(Ending::Applied), 1 => Just(Ending::Refused)],
    ) {
        let mut world = world(&specs, more);
        (world.delay, world.ending) = (delay, ending);
        world.strain.cpu_pressure = pressure;
        let budget = u64::from(world.host.vcpus);
        for _ in 0..300 {
            load(&mut world, &specs);
            let plan = world.tick();
            prop_assert!(held(&world) <= budget, "{} of {budget}", held(&world));
            prop_assert!(plan.host.vcpus_granted <= budget);
            let down = plan.steps.iter().take_while(|step| step.to < step.from).count();
            prop_assert!(plan.steps[down..].iter().all(|step| step.to > step.from), "decreases first");
            let mut changed: Vec<_> = plan.steps.iter().map(|step| (step.domain, step.resource)).collect();
            changed.sort_unstable();
            changed.dedup();
            prop_assert_eq!(changed.len(), plan.steps.len(), "one step a resource");
            for step in plan.steps.iter().filter(|step| matches!(step.by, Wish::Donation(_))) {
                let index = world.machines.iter().position(|machine| machine.id == step.domain).expect("known");
                // What happens within the step's delay nobody can know before.
                let now = needed((specs[index].wave.at(world.second()) * 1000.0).floor() / 1000.0);
                let floor = now.max(u64::from(specs[index].reservation)).min(6);
                prop_assert!(step.to >= floor, "{step:?} crosses {floor}");
            }
        }
        for machine in &world.machines {
            let changes: Vec<u64> = world
                .taken
                .iter()
                .filter(|(_, step)| step.domain == machine.id && step.resource == Resource::Vcpus)
                .map(|(second, _)| *second)
                .collect();
            for three in changes.windows(3) {
                prop_assert!(ending != Ending::Applied || three[2] - three[0] >= COOLDOWN, "{changes:?}");
            }
        }
    }

    #[test]
    fn memory_under_waves_does_not_flap_and_is_never_shrunk_below_use(
        wave in wave(),
        grow in 70u32..90,
        shrink in 30u32..60,
        delay in 0u64..4,
    ) {
        let text = format!(
            "
name: wave
base_configuration:
  memory: {{min: 512 MiB, max: 2 GiB}}
adaptation_rules:
  - IF memory.utilization > {grow}% FOR 3s THEN add 128 MiB memory COOLDOWN {COOLDOWN}s
  - IF memory.utilization < {shrink}% FOR 3s THEN remove 128 MiB memory COOLDOWN {COOLDOWN}s
"
        );
        let mut world = World::new(vec![Machine::new(1, &text)]);
        world.delay = delay;
        for _ in 0..300 {
            // A vCPU of the wave is as good as 256 MiB; no guest uses more than it has.
            let load = wave.at(world.second() + 1) * 256.0;
            let machine = &mut world.machines[0];
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let used = load as u64 * Bytes::MIB;
            machine.used = used.min(machine.memory * 95 / 100);
            let used = machine.used;
            for step in world.tick().steps {
                prop_assert!(step.to >= step.from || step.to >= used * 13 / 10, "{step:?} with {used} in use");
            }
        }
        let changes: Vec<u64> = world.taken.iter().map(|(second, _)| *second).collect();
        for three in changes.windows(3) {
            prop_assert!(three[2] - three[0] >= COOLDOWN, "{changes:?}");
        }
    }

    #[test]
    fn under_steady_loads_a_host_comes_to_rest_and_nobody_starves_below_its_reservation(
        specs in proptest::collection::vec(spec((0.0..6.0).prop_map(Wave::Still)), 1..5),
    ) {
        let mut world = world(&specs, 0);
        // The budget covers what everybody uses with its margin and every reservation; what is held may be more.
        let floors: u64 = specs.iter().map(|spec| needed(spec.wave.at(0)).clamp(spec.reservation.into(), 6)).sum();
        let budget = u64::from(world.host.vcpus).max(floors);
        world.host.vcpus = u32::try_from(budget).expect("few");
        for _ in 0..1000 {
            load(&mut world, &specs);
            let _ = world.tick();
        }
        let last = world.taken.last().map_or(0, |(second, _)| *second);
        prop_assert!(last < 800, "still at it: {:?}", world.taken.last());
        for (machine, spec) in world.machines.iter().zip(&specs) {
            let wants = machine.load / f64::from(machine.vcpus) > 0.8;
            prop_assert!(!wants || machine.vcpus >= spec.reservation, "{spec:?} has {}", machine.vcpus);
        }
        // A further plan on the same figures asks for nothing more.
        let plan = world.tick();
        prop_assert_eq!(plan.steps, []);
        for report in &plan.reports {
            for line in &report.resources {
                prop_assert!(!matches!(line.verdict, Verdict::Step(_)));
            }
        }
    }

    #[test]
    fn the_order_in_which_domains_are_listed_does_not_matter(
        specs in proptest::collection::vec(spec(wave()), 2..6),
        more in 0u32..3,
        turn in 1usize..5,
    ) {
        let mut world = world(&specs, more);
        for _ in 0..150 {
            load(&mut world, &specs);
            // What the same second comes to for the machines in another order, without carrying it out.
            for machine in &mut world.machines {
                machine.measure(world.now.after(std::time::Duration::from_secs(1)));
            }
            let mut state: State = world.state.clone();
            let mut domains: Vec<_> = world.machines.iter().map(Machine::domain).collect();
            domains.rotate_left(turn % specs.len());
            let snapshot = Snapshot { host: world.host, strain: world.strain, domains };
            let now = world.now.after(std::time::Duration::from_secs(1));
            let mut other = plan(&snapshot, &mut state, &world.policy, now).steps;
            let mut steps = world.tick().steps;
            other.sort_by_key(|step| step.domain);
            steps.sort_by_key(|step| step.domain);
            prop_assert_eq!(other, steps);
        }
    }
}

#[test]
fn a_host_that_sways_around_a_mark_changes_its_stage_seldom() {
    let mut world = World::new(vec![Machine::new(1, "name: calm\n")]);
    let mut changes = 0;
    let mut before = Stage::Plenty;
    for second in 0..600 {
        let available = if second % 2 == 0 { 950 } else { 1300 };
        world.strain = Strain {
            memory: Some(planner::snapshot::HostMemory {
                total: Bytes(10_000),
                available: Bytes(available),
            }),
            ..Strain::default()
        };
        let stage = world.tick().host.memory_stage;
        changes += u32::from(stage != before);
        before = stage;
    }
    assert_eq!((changes, before), (1, Stage::Tight));
}
