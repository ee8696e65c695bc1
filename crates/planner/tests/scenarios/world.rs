//! Machines under a given load, and the daemon's part of the loop. A machine follows every step at once unless a test says
//! otherwise; what real machines do is for the live tests.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue, Resource};
use persona::signal::{Metric, Reading, Signals, Source};
use persona::units::{Bytes, Moment};
use persona::{Format, Persona, SourceText};
use planner::report::{DomainReport, Reason, ResourceReport, Verdict};
use planner::snapshot::{
    Ability, Balloon, Dimm, Domain, Host, KnobReading, Knobs, Memory, Run, Strain, Vcpus,
};
use planner::{
    Consent, Detail, Ending, LimitStep, Means, Other, Plan, Policy, Snapshot, State, Step, Veto,
    plan, plan_among,
};

pub(crate) const WEB: &str = "
name: web
base_configuration:
  cpu: {min: 1, max: 4}
  memory: {min: 512 MiB, max: 1536 MiB, reservation: 512 MiB}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN 4s
  - IF cpu.utilization < 30% FOR 5s THEN remove 1 vcpus COOLDOWN 4s
  - IF memory.utilization > 85% FOR 2s THEN add 256 MiB memory COOLDOWN 2s
  - IF memory.utilization < 40% FOR 5s THEN remove 128 MiB memory COOLDOWN 2s
";

pub(crate) fn persona(text: &str) -> Persona {
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

/// A machine under a given load, in vCPUs and bytes that its work needs.
pub(crate) struct Machine {
    pub(crate) id: DomainId,
    pub(crate) name: String,
    pub(crate) persona: Persona,
    pub(crate) run: Run,
    pub(crate) instance: Option<u32>,
    pub(crate) vcpus: u32,
    /// What the guest told last, where that is not what it has.
    pub(crate) shown: Option<u32>,
    pub(crate) maximum: u32,
    /// vCPUs that stay plugged whatever the guest has online.
    pub(crate) plugged: Option<u32>,
    /// vCPUs that are never removed, and what bounds a change of the others.
    pub(crate) fixed: u32,
    pub(crate) ability: Ability,
    /// What its knobs show; those that nobody has looked at are never turned.
    pub(crate) knobs: Knobs,
    pub(crate) memory: u64,
    pub(crate) load: f64,
    pub(crate) used: u64,
    /// What the kernel keeps for itself and does not count as its total.
    pub(crate) hidden: u64,
    /// What it was asked to have, where it does not follow.
    pub(crate) requested: Option<u64>,
    /// The pressure on its memory as the host measures it.
    pub(crate) pressure: f64,
    /// What the guest itself shows of its need: its pressure, and its major faults.
    pub(crate) need: (Option<f64>, Option<f64>),
    /// Whose word its use of CPUs is.
    pub(crate) cpu_source: Source,
    /// What a balloon beside the memory device leaves.
    pub(crate) balloon: Option<u64>,
    /// What DIMMs can add to its two gigabytes.
    pub(crate) dimms: u64,
    /// Metrics that nobody measures.
    pub(crate) silent: Vec<Metric>,
    pub(crate) readings: Vec<Reading>,
}

pub(crate) const METRICS: [Metric; 5] = [
    Metric::CpuUtilization,
    Metric::MemoryUtilization,
    Metric::MemoryAvailable,
    Metric::MemorySize,
    Metric::MemoryPressure,
];

impl Machine {
    pub(crate) fn new(number: u8, text: &str) -> Self {
        Self {
            id: DomainId([number; 16]),
            name: format!("machine-{number}"),
            persona: persona(text),
            run: Run::Running,
            instance: Some(1),
            vcpus: 1,
            shown: None,
            maximum: 4,
            plugged: None,
            fixed: 1,
            ability: Ability::Both,
            knobs: Knobs::default(),
            memory: 512 * Bytes::MIB,
            load: 0.5,
            used: 300 * Bytes::MIB,
            hidden: 0,
            requested: None,
            pressure: 0.0,
            need: (None, None),
            cpu_source: Source::Host,
            balloon: None,
            dimms: 0,
            silent: Vec::new(),
            readings: Vec::new(),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn measure(&mut self, now: Moment) {
        let total = self.memory - self.hidden;
        let available = total.saturating_sub(self.used) as f64;
        // What a cap leaves of the CPUs is all that the load can use of them.
        let cap = match self.knobs.reading(Knob::CpuCap).value() {
            Some(KnobValue::At(cap)) => cap as f64 / 1e6,
            _ => f64::INFINITY,
        };
        let values = [
            (self.load.min(cap) / f64::from(self.vcpus) * 100.0).min(100.0),
            (1.0 - available / total as f64) * 100.0,
            available,
            total as f64,
            self.pressure,
        ];
        let sources = [
            self.cpu_source,
            Source::Balloon,
            Source::Balloon,
            Source::Agent,
            Source::Host,
        ];
        self.readings = values
            .into_iter()
            .zip(sources)
            .map(|(value, source)| Reading {
                value,
                source,
                at: now,
                period: Duration::from_secs(1),
            })
            .collect();
    }

    pub(crate) fn domain(&self) -> Domain<'_> {
        Domain {
            id: self.id,
            name: &self.name,
            persona: Some(&self.persona),
            run: self.run,
            instance: self.instance,
            vcpus: Vcpus {
                maximum: self.maximum,
                fixed: self.fixed,
                plugged: self.plugged.unwrap_or(self.vcpus),
                online: Some(self.shown.unwrap_or(self.vcpus)),
                weight: 1,
                ability: self.ability,
            },
            memory: Memory {
                boot: Bytes::from_mib(512),
                requested: Bytes(self.requested.unwrap_or(self.memory)),
                plugged: Bytes(self.memory),
                maximum: Bytes::from_mib(2048),
                minimum: Bytes::from_mib(512),
                block: Bytes::from_mib(2),
                means: planner::Means::Usual,
                balloon: self.balloon.map(|left| Balloon {
                    left: Bytes(left),
                    minimum: Bytes::from_mib(128),
                    most: Bytes::from_mib(512),
                    block: Bytes::from_mib(1),
                }),
                dimm: (self.dimms > 0).then(|| Dimm {
                    most: Bytes(2048 * Bytes::MIB + self.dimms),
                    piece: Bytes::from_mib(256),
                }),
                ability: Ability::Both,
            },
            knobs: self.knobs,
            signals: self,
            shifted_by: None,
            adjusted_by: &[],
        }
    }
}

impl Signals for Machine {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        if self.silent.contains(&metric) {
            return None;
        }
        let need = match metric {
            Metric::GuestMemoryPressure => Some((self.need.0, Source::Agent)),
            Metric::GuestMajorFaults => Some((self.need.1, Source::Balloon)),
            _ => None,
        };
        if let Some((value, source)) = need {
            return Some(Reading {
                value: value?,
                source,
                ..*self.readings.first()?
            });
        }
        let index = METRICS.iter().position(|known| *known == metric)?;
        self.readings.get(index).copied()
    }
}

/// A host with its machines, and the daemon's part of the loop.
pub(crate) struct World {
    pub(crate) machines: Vec<Machine>,
    pub(crate) host: Host,
    pub(crate) strain: Strain,
    pub(crate) state: State,
    pub(crate) policy: Policy,
    pub(crate) now: Moment,
    /// What every step comes to.
    pub(crate) ending: Ending,
    /// What every turn of a knob comes to.
    pub(crate) turn_ending: Ending,
    /// Every turn of a knob.
    pub(crate) turns: Vec<LimitStep>,
    /// What guests say that are asked before they become smaller.
    pub(crate) veto: Option<Veto>,
    /// Seconds until a step has ended.
    pub(crate) delay: u64,
    /// Steps under way, with the second at which each ends.
    pub(crate) under_way: Vec<(u64, Step)>,
    /// Every step that was taken, with its second.
    pub(crate) steps: Vec<(u64, Resource, u64, u64)>,
    /// The same, whole.
    pub(crate) taken: Vec<(u64, Step)>,
}

pub(crate) const START: u64 = 1_000_000;

impl World {
    pub(crate) fn new(machines: Vec<Machine>) -> Self {
        Self {
            machines,
            host: Host {
                vcpus: 64,
                memory: Bytes(64 * Bytes::GIB),
            },
            strain: Strain::default(),
            state: State::default(),
            policy: Policy::default(),
            now: Moment(START),
            ending: Ending::Applied,
            turn_ending: Ending::Applied,
            turns: Vec::new(),
            veto: None,
            delay: 0,
            under_way: Vec::new(),
            steps: Vec::new(),
            taken: Vec::new(),
        }
    }

    pub(crate) fn second(&self) -> u64 {
        (self.now.0 - START) / 1000
    }

    pub(crate) fn tick(&mut self) -> Plan {
        self.now = self.now.after(Duration::from_secs(1));
        self.end_steps();
        for machine in &mut self.machines {
            machine.measure(self.now);
        }
        let snapshot = Snapshot {
            host: self.host,
            strain: self.strain,
            domains: self.machines.iter().map(Machine::domain).collect(),
        };
        let before = self.state.clone();
        let plan = plan(&snapshot, &mut self.state, &self.policy, self.now);
        self.is_made_alone_too(&plan, &before);
        for step in &plan.steps {
            self.state.begin(step, self.now);
            self.steps
                .push((self.second(), step.resource, step.from, step.to));
            self.taken.push((self.second(), step.clone()));
            self.under_way
                .push((self.second() + self.delay, step.clone()));
        }
        for turn in &plan.limits {
            self.turn(turn);
        }
        if self.delay == 0 {
            self.end_steps();
        }
        plan
    }

    /// What a plan decides for a machine it decides for it alone as well, among the recorded claims of the others.
    fn is_made_alone_too(&self, whole: &Plan, before: &State) {
        for (index, machine) in self.machines.iter().enumerate() {
            let others = self.machines.iter().enumerate();
            let others: Vec<Other> = others
                .filter(|(other, _)| *other != index)
                .map(|(other, machine)| Other {
                    name: machine.name.clone(),
                    stakes: [0, 1].map(|slot| whole.stakes[slot][other].clone()),
                })
                .collect();
            let snapshot = Snapshot {
                host: self.host,
                strain: self.strain,
                domains: vec![machine.domain()],
            };
            let mut state = before.clone();
            state.domains.retain(|id, _| *id == machine.id);
            let all = Detail::All;
            let alone = plan_among(&snapshot, &others, &mut state, &self.policy, self.now, all);
            let reports = [&alone.reports[0], &whole.reports[index]].map(unnumbered);
            assert_eq!(reports[0], reports[1]);
            let own = whole.steps.iter().filter(|step| step.domain == machine.id);
            assert!(own.eq(&alone.steps), "{alone:?}");
            assert_eq!(alone.host, whole.host);
            assert_eq!(state.domain(machine.id), self.state.domain(machine.id));
            // Of one machine every few ticks, because each comparison costs two plans.
            let rounds = 5 * self.machines.len() as u64;
            if self.second() % rounds == index as u64 {
                let there = if self.second().is_multiple_of(2) {
                    others.as_slice()
                } else {
                    &[]
                };
                self.is_done_without_a_word_too(&snapshot, there, before);
            }
        }
    }

    fn turn(&mut self, turn: &LimitStep) {
        self.state.begin_limit(turn, self.now);
        self.turns.push(turn.clone());
        let machines = self.machines.iter_mut();
        let mut own = machines.filter(|machine| machine.id == turn.domain);
        let machine = own.next().expect("known");
        if self.turn_ending == Ending::Applied {
            let devices = 1;
            let value = turn.to;
            machine.knobs = machine
                .knobs
                .with(turn.knob, KnobReading::Set { devices, value });
        }
        let shown = Some(machine.knobs.reading(turn.knob));
        self.state
            .finish_limit(turn, self.turn_ending, shown, &self.policy, self.now);
    }

    /// What is done does not depend on how much is said.
    fn is_done_without_a_word_too(
        &self,
        snapshot: &Snapshot<'_>,
        others: &[Other],
        before: &State,
    ) {
        let [said, silent] = [Detail::All, Detail::Deeds].map(|detail| {
            let mut state = before.clone();
            let plan = plan_among(snapshot, others, &mut state, &self.policy, self.now, detail);
            (plan, state)
        });
        let deeds = |plan: &Plan| {
            (
                plan.steps.clone(),
                plan.calls.clone(),
                plan.returns.clone(),
                plan.limits.clone(),
                plan.drifts.clone(),
                plan.stalls.clone(),
                plan.reports[0].resources.clone(),
            )
        };
        assert_eq!(deeds(&said.0), deeds(&silent.0));
        let id = snapshot.domains[0].id;
        assert_eq!(said.1.domain(id), silent.1.domain(id));
    }

    fn end_steps(&mut self) {
        let second = self.second();
        let (due, later) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(at, _)| *at <= second);
        self.under_way = later;
        let due: Vec<(u64, Step)> = due;
        for (_, step) in due {
            let machine = self
                .machines
                .iter_mut()
                .find(|machine| machine.id == step.domain)
                .expect("known");
            let refusal = self
                .veto
                .as_ref()
                .filter(|_| step.to < step.from && step.consent == Consent::Asked);
            if self.ending == Ending::Applied && refusal.is_none() {
                match step.resource {
                    Resource::Vcpus => machine.vcpus = u32::try_from(step.to).expect("few"),
                    Resource::Memory => {
                        if step.means == Means::Balloon
                            && let Some(left) = &mut machine.balloon
                        {
                            *left = *left + step.to - step.from;
                        }
                        machine.memory = step.to;
                    }
                }
            }
            let asked = match step.resource {
                Resource::Vcpus => u64::from(machine.plugged.unwrap_or(machine.vcpus)),
                Resource::Memory => machine.memory,
            };
            match refusal {
                Some(veto) => self
                    .state
                    .veto(&step, veto, Some(asked), &self.policy, self.now),
                None => self
                    .state
                    .finish(&step, self.ending, Some(asked), &self.policy, self.now),
            }
        }
    }

    pub(crate) fn run(&mut self, seconds: u64) -> Plan {
        let mut last = self.tick();
        for _ in 1..seconds {
            last = self.tick();
        }
        last
    }

    pub(crate) fn verdict(plan: &Plan, resource: Resource) -> &Verdict {
        &Self::line(plan, 0, resource).verdict
    }

    /// What the plan says of one resource of one machine.
    pub(crate) fn line(plan: &Plan, machine: usize, resource: Resource) -> &ResourceReport {
        plan.reports[machine]
            .resources
            .iter()
            .find(|line| line.resource == resource)
            .expect("the persona manages both")
    }

    pub(crate) fn vcpu_steps(&self) -> Vec<(u64, u64)> {
        self.steps
            .iter()
            .filter(|step| step.1 == Resource::Vcpus)
            .map(|step| (step.0, step.3))
            .collect()
    }
}

/// A report without what is counted over all domains: the numbers of proposals, and whether there is room for one more.
fn unnumbered(report: &DomainReport) -> DomainReport {
    let mut report = report.clone();
    for line in &mut report.resources {
        if let Verdict::No(reason @ (Reason::Proposed { .. } | Reason::TooManyProposals)) =
            &mut line.verdict
        {
            *reason = Reason::TooManyProposals;
        }
    }
    report
}
