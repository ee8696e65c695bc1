//! What the pure crates cost: one plan for a host of many domains, by what the domains are doing, and reading persona
//! documents. The daemon makes one plan a tick, so a plan of 1,000 domains has to be a small part of a second.

#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]

use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use persona::domain::DomainId;
use persona::signal::{Metric, Reading, Signals, Source};
use persona::units::{Bytes, Moment};
use persona::{Format, Persona, SourceText};
use planner::snapshot::{Ability, Domain, Host, Knobs, Memory, Run, Strain, Vcpus};
use planner::{Policy, Snapshot, State};

const DOMAINS: u32 = 1_000;
const DEMO_WEB: &str = include_str!("../examples/personas/demo-web.yaml");
const DATABASE: &str = include_str!("../examples/personas/database.yaml");
const CI_RUNNER: &str = include_str!("../examples/personas/ci-runner.yaml");

fn main() {
    divan::main();
}

fn read(text: &str) -> Persona {
    let source = SourceText {
        name: "benchmark.yaml",
        text: text.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    };
    persona::load(&source).unwrap().persona
}

/// What all domains show in one plan.
struct Figures {
    cpu: f64,
    memory: f64,
    now: Moment,
}

impl Signals for Figures {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let (value, source) = match metric {
            Metric::CpuUtilization => (self.cpu, Source::Host),
            Metric::MemoryUtilization => (self.memory, Source::Balloon),
            Metric::MemoryAvailable => (512e6 * (1.0 - self.memory / 100.0), Source::Balloon),
            Metric::MemorySize => (512e6, Source::Agent),
            _ => return None,
        };
        Some(Reading {
            value,
            source,
            at: self.now,
            period: Duration::from_secs(1),
        })
    }
}

fn domain<'a>(number: u32, persona: &'a Persona, figures: &'a Figures) -> Domain<'a> {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Domain {
        id: DomainId(id),
        name: "benchmark",
        persona: Some(persona),
        run: Run::Running,
        instance: Some(1),
        vcpus: Vcpus {
            maximum: 4,
            fixed: 1,
            plugged: 2,
            online: Some(2),
            weight: 1,
            ability: Ability::Both,
        },
        memory: Memory {
            boot: Bytes::from_mib(512),
            requested: Bytes::from_mib(768),
            plugged: Bytes::from_mib(768),
            maximum: Bytes::from_mib(2048),
            minimum: Bytes::from_mib(512),
            block: Bytes::from_mib(2),
            means: planner::Means::Usual,
            balloon: None,
            dimm: None,
            ability: Ability::Both,
        },
        knobs: Knobs::default(),
        signals: figures,
        shifted_by: None,
        adjusted_by: &[],
    }
}

/// Plans a second after second; no step is carried out, so that every plan meets the same work.
fn plans(bencher: Bencher<'_, '_>, cpu: f64, memory: f64, steps: usize) {
    let persona = read(DEMO_WEB);
    let (policy, mut state) = (Policy::default(), State::default());
    let host = Host {
        vcpus: 4 * DOMAINS,
        memory: Bytes::from_mib(4096 * u64::from(DOMAINS)),
    };
    let mut now = Moment(1_000_000);
    let mut plan = || {
        now = now.after(Duration::from_secs(1));
        let figures = Figures { cpu, memory, now };
        let domains = (0..DOMAINS)
            .map(|number| domain(number, &persona, &figures))
            .collect();
        let snapshot = Snapshot {
            host,
            strain: Strain::default(),
            domains,
        };
        planner::plan(&snapshot, &mut state, &policy, now)
    };
    // The windows of the rules fill first.
    let settled = (0..10).map(|_| plan().steps.len()).last();
    assert_eq!(settled, Some(steps));
    bencher.counter(ItemsCount::new(DOMAINS)).bench_local(plan);
}

/// No rule holds, as most of the time.
#[divan::bench]
fn plan_of_1000_content_domains(bencher: Bencher<'_, '_>) {
    plans(bencher, 45.0, 60.0, 0);
}

/// Every domain wants a vCPU and memory, and the whole host is arbitrated.
#[divan::bench]
fn plan_of_1000_growing_domains(bencher: Bencher<'_, '_>) {
    plans(bencher, 95.0, 80.0, 2_000);
}

/// A document, from text to a persona with checked rules.
#[divan::bench(args = ["demo-web", "database", "ci-runner"])]
fn document(bencher: Bencher<'_, '_>, name: &str) {
    let text = match name {
        "database" => DATABASE,
        "ci-runner" => CI_RUNNER,
        _ => DEMO_WEB,
    };
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench(|| read(black_box(text)));
}
