//! What rules cost: documents read, and conditions evaluated beside `cel` and `rhai` on the same conditions in one run.
//! The others get their variables set before the clock runs, while ours look up each reading, its age and its source.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and its arguments; the crate itself does not"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports on its terminal and may fail"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use persona::rule::{Condition, Trail, Truth, Windows};
use persona::{Format, Metric, Moment, Reading, Signals, Source, SourceText};

/// The first has every key of the language.
const DOCUMENTS: [(&str, &str); 4] = [
    ("whole", include_str!("../tests/seeds/whole.yaml")),
    (
        "demo-web",
        include_str!("../../../examples/personas/demo-web.yaml"),
    ),
    (
        "database",
        include_str!("../../../examples/personas/database.yaml"),
    ),
    (
        "ci-runner",
        include_str!("../../../examples/personas/ci-runner.yaml"),
    ),
];

/// One condition in each language.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    ours: &'static str,
    cel: &'static str,
    rhai: &'static str,
}

const CASES: [Case; 5] = [
    Case {
        name: "threshold",
        ours: "cpu.utilization > 80%",
        cel: "cpu > 80.0",
        rhai: "cpu > 80.0",
    },
    Case {
        name: "and, or, not",
        ours: "cpu.utilization > 80% AND (memory.utilization > 99% OR NOT guest.load > 40)",
        cel: "cpu > 80.0 && (memory > 99.0 || !(load > 40.0))",
        rhai: "cpu > 80.0 && (memory > 99.0 || !(load > 40.0))",
    },
    Case {
        name: "arithmetic",
        ours: "(memory.size - memory.available) / memory.size > 0.4",
        cel: "(size - available) / size > 0.4",
        rhai: "(size - available) / size > 0.4",
    },
    Case {
        name: "between",
        ours: "cpu.utilization BETWEEN 20% AND 99%",
        cel: "cpu >= 20.0 && cpu <= 99.0",
        rhai: "cpu >= 20.0 && cpu <= 99.0",
    },
    Case {
        // The others have no windows over time: they only compare.
        name: "typical",
        ours: "cpu.utilization > 80% AND memory.utilization > 60% FOR 5m",
        cel: "cpu > 80.0 && memory > 60.0",
        rhai: "cpu > 80.0 && memory > 60.0",
    },
];

/// What is read, by the names of the others.
const VALUES: [(Metric, &str, f64); 5] = [
    (Metric::CpuUtilization, "cpu", 90.0),
    (Metric::MemoryUtilization, "memory", 70.0),
    (Metric::GuestLoad, "load", 3.0),
    (Metric::MemorySize, "size", 4e9),
    (Metric::MemoryAvailable, "available", 2e9),
];

/// Readings by metric, as whoever collects them keeps them.
struct Readings([Option<Reading>; Metric::ALL.len()]);

impl Readings {
    fn at(now: Moment) -> Self {
        let mut readings = [None; Metric::ALL.len()];
        for (metric, _, value) in VALUES {
            readings[metric as usize] = Some(Reading {
                value,
                source: Source::Host,
                at: now,
                period: Duration::from_secs(1),
            });
        }
        Self(readings)
    }
}

impl Signals for Readings {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        self.0[metric as usize]
    }
}

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratios();
    }
}

#[divan::bench(args = DOCUMENTS.map(|(name, _)| name))]
fn document(bencher: Bencher<'_, '_>, name: &str) {
    let (_, text) = DOCUMENTS.iter().find(|(other, _)| *other == name).unwrap();
    bencher
        .counter(ItemsCount::new(1_usize))
        .counter(BytesCount::of_str(text))
        .bench(|| {
            persona::load(&SourceText {
                name: "benchmark.yaml",
                text: black_box(text.as_bytes()),
                format: Format::Yaml,
                persona_name: None,
            })
            .unwrap()
        });
}

#[divan::bench(args = CASES.map(|case| case.name))]
fn rule(bencher: Bencher<'_, '_>, name: &str) {
    let evaluate = ours(named(name).ours);
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(evaluate);
}

/// A new reading at each evaluation, as once a second.
#[divan::bench(args = ["avg", "max", "p95", "rate"])]
fn function(bencher: Bencher<'_, '_>, name: &str) {
    let unit = if name == "rate" { "/s" } else { "%" };
    let condition = Condition::parse(&format!("{name}(cpu.utilization, 5m) > 80{unit}")).unwrap();
    let mut windows = Windows::default();
    let mut now = 0;
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        now += 1000;
        let now = Moment(now);
        condition.evaluate(&Readings::at(now), None, &mut windows, now, &mut Trail::Off)
    });
}

fn named(name: &str) -> Case {
    CASES.into_iter().find(|case| case.name == name).unwrap()
}

/// The evaluation of a condition that is true.
fn ours(text: &str) -> impl FnMut() -> bool + use<> {
    let condition = Condition::parse(text).unwrap();
    let mut windows = Windows::default();
    let start = Moment(1_000_000);
    let mut step = |readings: &Readings, now: Moment| {
        condition.evaluate(
            black_box(readings),
            Some(Source::Balloon),
            &mut windows,
            now,
            &mut Trail::Off,
        ) == Truth::True
    };
    // Until a window of five minutes is fulfilled.
    for second in 0..=300 {
        let now = start.after(Duration::from_secs(second));
        step(&Readings::at(now), now);
    }
    let now = start.after(Duration::from_secs(300));
    let readings = Readings::at(now);
    move || {
        condition.evaluate(
            black_box(&readings as &dyn Signals),
            Some(Source::Balloon),
            &mut windows,
            now,
            &mut Trail::Off,
        ) == Truth::True
    }
}

fn cel(text: &str) -> impl FnMut() -> bool + use<> {
    let program = cel::Program::compile(text).unwrap();
    let mut context = cel::Context::default();
    for (_, name, value) in VALUES {
        context.add_variable(name, value).unwrap();
    }
    move || program.execute(black_box(&context)).unwrap() == cel::Value::Bool(true)
}

fn rhai(text: &str) -> impl FnMut() -> bool + use<> {
    let engine = rhai::Engine::new();
    let program = engine.compile_expression(text).unwrap();
    let mut scope = rhai::Scope::new();
    for (_, name, value) in VALUES {
        scope.push(name, value);
    }
    move || {
        engine
            .eval_ast_with_scope::<bool>(black_box(&mut scope), &program)
            .unwrap()
    }
}

/// The least time of one evaluation over many rounds, in nanoseconds: what disturbs a round only makes it longer.
fn least(evaluate: &mut impl FnMut() -> bool) -> f64 {
    const EACH: u32 = 2_000;
    let start = Instant::now();
    for _ in 0..EACH {
        black_box(evaluate());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(EACH)
}

/// The three take turns, so that what disturbs the machine disturbs all of them.
fn print_ratios() {
    const ROUNDS: usize = 200;
    println!("one evaluation, the least of {ROUNDS} rounds in which the three take turns:");
    for case in CASES {
        let (mut ours, mut cel, mut rhai) = (ours(case.ours), cel(case.cel), rhai(case.rhai));
        assert!(
            ours() && cel() && rhai(),
            "{}: all three are true",
            case.name
        );
        let mut best = [f64::INFINITY; 3];
        for _ in 0..ROUNDS {
            let round = [least(&mut ours), least(&mut cel), least(&mut rhai)];
            for (best, round) in best.iter_mut().zip(round) {
                *best = best.min(round);
            }
        }
        let [ours, cel, rhai] = best;
        println!(
            "  {:<13} {ours:6.1} ns   cel {cel:7.1} ns = {:5.1} times   rhai {rhai:7.1} ns = {:5.1} times",
            case.name,
            cel / ours,
            rhai / ours
        );
    }
}
