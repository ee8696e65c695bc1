//! The control path up to the plan, for emulators that run: what the daemon does each tick, without the view that it
//! publishes. Shared by the benchmarks; carries nothing out.

use std::time::Duration;

use persona::domain::DomainId;
use persona::units::{Bytes, Moment};
use persona::{Format, Persona, SourceText};
use planner::snapshot::{Ability, Domain, Host, Knobs, Memory, Run, Strain, Vcpus};
use planner::{Policy, Snapshot, State};
use virt_persona::hypervisor::Interface;
use virt_persona::observe::{Emulator, Observer, Readings, Roots};

/// Four rules like those of the examples, and windows that nothing here fills, so that a tick looks at everything and
/// changes nothing.
pub(crate) const PERSONA: &str = "
name: measured
base_configuration:
  cpu: {min: 1, max: 4}
  memory: {min: 512 MiB, max: 1536 MiB}
adaptation_rules:
  - IF cpu.utilization > 60% FOR 2h THEN add 1 vcpus COOLDOWN 3s
  - IF cpu.utilization < 25% FOR 2h THEN remove 1 vcpus COOLDOWN 4s
  - IF memory.utilization > 75% FOR 2h THEN add 128 MiB memory COOLDOWN 2s
  - IF memory.utilization < 45% FOR 2h THEN remove 64 MiB memory COOLDOWN 2s
trust_levels: {resource_scaling: high}
";

/// Observer, planner and what they carry from tick to tick.
pub(crate) struct Ticker {
    /// One for each place where files are read.
    observers: Vec<Observer>,
    persona: Persona,
    policy: Policy,
    state: State,
    /// With the number of its observer.
    emulators: Vec<(DomainId, Emulator, usize)>,
    now: Moment,
}

impl Ticker {
    /// Domains with their emulators and network interfaces.
    pub(crate) fn new(domains: Vec<(DomainId, Emulator, Vec<Interface>)>) -> Self {
        let source = SourceText {
            name: "measured.yaml",
            text: PERSONA.as_bytes(),
            format: Format::Yaml,
            persona_name: None,
        };
        let mut ticker = Self {
            observers: Vec::new(),
            // The document is the constant above.
            persona: persona::load(&source).unwrap().persona,
            policy: Policy::default(),
            state: State::default(),
            emulators: Vec::new(),
            now: Moment(1_000_000),
        };
        ticker.add(Roots::default(), domains);
        ticker
    }

    /// Further domains, whose files are below other roots.
    pub(crate) fn add(&mut self, roots: Roots, domains: Vec<(DomainId, Emulator, Vec<Interface>)>) {
        let mut observer = Observer::new(roots, Duration::from_secs(1));
        for (id, emulator, interfaces) in domains {
            observer.attach(id, emulator);
            observer.follow_interfaces(id, &interfaces);
            self.emulators.push((id, emulator, self.observers.len()));
        }
        self.observers.push(observer);
    }

    /// One tick; how many domains could be sampled.
    pub(crate) fn tick(&mut self) -> usize {
        // As the daemon ticks, so that what is read at turns has its share. One tick in thirty looks for threads and
        // groups again, which a median leaves out.
        self.now = Moment(self.now.0 + 1_000);
        let now = self.now;
        let host = self.observers[0].sample_host(now);
        let mut sampled = 0;
        let mut readings: Vec<Readings> = Vec::with_capacity(self.emulators.len());
        for (id, emulator, observer) in &self.emulators {
            let sample =
                self.observers[*observer].sample_domain(*id, Some(emulator.vcpus_plugged), now);
            sampled += usize::from(sample.vcpu_basis.is_some());
            let mut of_domain = sample.readings;
            of_domain.absorb(&host.readings, now);
            readings.push(of_domain);
        }
        let domains = self
            .emulators
            .iter()
            .zip(&readings)
            .map(|((id, emulator, _), readings)| domain(*id, emulator, &self.persona, readings))
            .collect();
        let host = Host {
            vcpus: 4096,
            memory: Bytes::from_mib(4 << 20),
        };
        let snapshot = Snapshot {
            host,
            strain: Strain::default(),
            domains,
        };
        let plan = planner::plan(&snapshot, &mut self.state, &self.policy, now);
        assert!(
            plan.steps.is_empty(),
            "a step was planned: {:?}",
            plan.steps
        );
        sampled
    }
}

fn domain<'a>(
    id: DomainId,
    emulator: &Emulator,
    persona: &'a Persona,
    readings: &'a Readings,
) -> Domain<'a> {
    let boot = Bytes::from_mib(512);
    Domain {
        id,
        name: "measured",
        persona: Some(persona),
        run: Run::Running,
        instance: emulator.instance,
        vcpus: Vcpus {
            maximum: 4,
            fixed: 1,
            plugged: emulator.vcpus_plugged,
            online: Some(emulator.vcpus_plugged),
            weight: 1,
            ability: Ability::Both,
        },
        memory: Memory {
            boot,
            requested: boot,
            plugged: boot,
            maximum: Bytes::from_mib(1536),
            minimum: boot,
            block: Bytes::from_mib(2),
            means: planner::Means::Usual,
            balloon: None,
            dimm: None,
            ability: Ability::Both,
        },
        knobs: Knobs::default(),
        signals: readings,
        shifted_by: None,
        adjusted_by: &[],
    }
}
