//! The examples in `examples/personas/`: each loads with exactly the warnings that say what this version does not act on,
//! stays calm on a calm machine, and has rules that fire for their cause and for no other. Traces are made here, by scene:
//! a calm time, then what a rule waits for, then calm again. Also `docs/personas.md`, which is made of the examples.
// What is missing ends the test, and seconds of a scene are exact in an f64.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use persona::{
    Bytes, Effective, Format, Kind, Layer, LayerKind, Persona, Severity, SourceText, compose,
};
use virt_persona::simulate::{Happening, Outcome, Setting, Sizes, Survey, replay};

/// One example with the machine that it is tried on.
struct Example {
    name: &'static str,
    base: Option<&'static str>,
    /// vCPUs and MiB at the start: room in both directions.
    start: (u32, u64),
    /// What a calm machine shows, by column; nothing for what only a scene shows.
    calm: &'static [(&'static str, Option<f64>)],
    scenes: &'static [Scene],
}

/// What makes one rule fire.
#[derive(Clone, Copy)]
struct Scene {
    rule: &'static str,
    /// Seconds that it lasts.
    lasts: u64,
    /// Seconds before which the rule does not fire: its window.
    not_before: u64,
    /// Columns from and to; what is not named stays calm.
    shows: &'static [(&'static str, f64, f64)],
    /// What happens at its beginning.
    event: &'static str,
    /// Other rules that have a cause as well.
    also: &'static [&'static str],
}

const fn scene(
    rule: &'static str,
    lasts: u64,
    not_before: u64,
    shows: &'static [(&'static str, f64, f64)],
) -> Scene {
    Scene {
        rule,
        lasts,
        not_before,
        shows,
        event: "",
        also: &[],
    }
}

const fn event(rule: &'static str, event: &'static str) -> Scene {
    Scene {
        event,
        ..scene(rule, 30, 0, &[])
    }
}

/// Seconds of calm before each scene: longer than the windows of most functions, which have to be covered first.
const LEAD: u64 = 1000;
/// Seconds of calm behind it.
const AFTER: u64 = 60;
/// Seconds between two lines.
const STEP: usize = 5;

const EXAMPLES: [Example; 11] = [
    Example {
        name: "web-server",
        base: None,
        start: (4, 4096),
        calm: &[
            ("cpu.utilization", Some(50.0)),
            ("memory.utilization", Some(60.0)),
            ("network.latency", Some(0.08)),
            ("guest.app.requests", Some(0.0)),
            ("guest.log.errors", Some(0.0)),
            ("guest.disk.free", Some(50.0)),
            ("external.threatintel.count", Some(400.0)),
            ("threat.detection_rate", Some(0.0)),
        ],
        scenes: &[
            scene("grow-cpu", 60, 30, &[("cpu.utilization", 90.0, 90.0)]),
            scene("shrink-cpu", 700, 595, &[("cpu.utilization", 10.0, 10.0)]),
            scene("grow-memory", 60, 30, &[("memory.utilization", 92.0, 92.0)]),
            scene(
                "shrink-memory",
                1900,
                1795,
                &[("memory.utilization", 30.0, 30.0)],
            ),
            scene("far-visitors", 120, 10, &[("network.latency", 0.2, 0.2)]),
            scene(
                "errors-under-load",
                400,
                200,
                &[
                    ("guest.app.requests", 0.0, 120_000.0),
                    ("guest.log.errors", 1.0, 1.0),
                ],
            ),
            scene("trigger-1", 310, 300, &[("guest.disk.free", 5.0, 5.0)]),
            scene(
                "feed-threatintel",
                20,
                0,
                &[("threat.detection_rate", 1.0, 1.0)],
            ),
        ],
    },
    Example {
        name: "database",
        base: None,
        start: (6, 20 * 1024),
        calm: &[
            ("cpu.utilization", Some(50.0)),
            ("cpu.steal", Some(1.0)),
            ("cpu.throttled", Some(0.0)),
            ("memory.utilization", Some(70.0)),
            ("guest.memory.pressure", Some(2.0)),
            ("disk.latency", Some(0.004)),
            ("guest.app.connections", Some(120.0)),
        ],
        scenes: &[
            scene("grow-cpu", 200, 120, &[("cpu.utilization", 85.0, 85.0)]),
            scene("shrink-cpu", 1900, 1800, &[("cpu.utilization", 10.0, 10.0)]),
            scene(
                "grow-memory",
                60,
                30,
                &[("guest.memory.pressure", 20.0, 20.0)],
            ),
            scene(
                "shrink-memory",
                3700,
                3600,
                &[
                    ("memory.utilization", 35.0, 35.0),
                    ("guest.memory.pressure", 0.0, 0.0),
                ],
            ),
            event("after-oom", "guest.oom"),
            scene("slow-disk", 310, 100, &[("disk.latency", 0.03, 0.03)]),
            scene(
                "leaking-connections",
                600,
                300,
                &[("guest.app.connections", 120.0, 620.0)],
            ),
            scene(
                "tell-of-throttling",
                310,
                300,
                &[("cpu.throttled", 10.0, 10.0)],
            ),
        ],
    },
    Example {
        name: "ci-runner",
        base: None,
        start: (4, 4096),
        calm: &[
            ("cpu.utilization", Some(50.0)),
            ("memory.utilization", Some(60.0)),
            ("host.cpu.pressure", Some(5.0)),
            ("guest.app.jobs.waiting", Some(1.0)),
            ("guest.disk.free", Some(50.0)),
        ],
        scenes: &[
            scene("rule-1", 60, 15, &[("cpu.utilization", 95.0, 95.0)]),
            scene("rule-2", 400, 300, &[("cpu.utilization", 5.0, 5.0)]),
            scene("rule-3", 60, 15, &[("memory.utilization", 90.0, 90.0)]),
            scene("rule-4", 700, 600, &[("memory.utilization", 20.0, 20.0)]),
            scene("rule-5", 100, 60, &[("host.cpu.pressure", 60.0, 60.0)]),
            scene("queue", 60, 20, &[("guest.app.jobs.waiting", 30.0, 30.0)]),
            scene("full-disk", 100, 60, &[("guest.disk.free", 5.0, 5.0)]),
        ],
    },
    Example {
        name: "developer-desktop",
        base: None,
        start: (4, 8192),
        calm: &[
            ("cpu.utilization", Some(50.0)),
            ("memory.utilization", Some(65.0)),
            ("guest.memory.pressure", Some(0.0)),
            ("guest.processes", Some(300.0)),
        ],
        scenes: &[
            scene("feel-quick", 30, 10, &[("cpu.utilization", 95.0, 95.0)]),
            scene("compile-done", 1000, 400, &[("cpu.utilization", 5.0, 5.0)]),
            scene("more-room", 60, 20, &[("memory.utilization", 95.0, 95.0)]),
            scene(
                "give-back",
                1900,
                1795,
                &[("memory.utilization", 30.0, 30.0)],
            ),
            scene("runaway", 130, 120, &[("guest.processes", 900.0, 900.0)]),
            event("agent-gone", "agent.lost"),
        ],
    },
    Example {
        name: "data-analyst",
        base: None,
        start: (4, 16 * 1024),
        calm: &[
            ("cpu.utilization", Some(40.0)),
            ("memory.utilization", Some(55.0)),
            ("disk.write.bandwidth", Some(1e6)),
            ("disk.latency", Some(0.001)),
        ],
        scenes: &[
            scene(
                "table-is-loading",
                300,
                100,
                &[("memory.utilization", 55.0, 85.0)],
            ),
            // Slowly, so that the trend alone says nothing.
            scene(
                "nearly-full",
                900,
                830,
                &[("memory.utilization", 55.0, 97.0)],
            ),
            scene(
                "tables-are-closed",
                3700,
                3595,
                &[("memory.utilization", 20.0, 20.0)],
            ),
            scene("parallel-cell", 100, 60, &[("cpu.utilization", 90.0, 90.0)]),
            scene("idle-kernels", 1900, 1000, &[("cpu.utilization", 5.0, 5.0)]),
            Scene {
                also: &["idle-kernels"],
                ..scene("forgotten", 7400, 7000, &[("cpu.utilization", 1.0, 1.0)])
            },
            scene(
                "spilling",
                150,
                120,
                &[
                    ("disk.write.bandwidth", 4e8, 4e8),
                    ("disk.latency", 0.02, 0.02),
                ],
            ),
        ],
    },
    Example {
        name: "security-auditor",
        base: None,
        start: (2, 4096),
        calm: &[
            ("cpu.utilization", Some(50.0)),
            ("guest.auth.failures", Some(0.01)),
            ("network.tx.bandwidth", Some(1e6)),
            ("threat.detection_rate", Some(0.0)),
        ],
        scenes: &[
            scene("long-scan", 310, 200, &[("cpu.utilization", 95.0, 95.0)]),
            scene("guessing", 130, 120, &[("guest.auth.failures", 0.5, 0.5)]),
            Scene {
                event: "login.failed",
                ..scene("break-in", 30, 0, &[("network.tx.bandwidth", 8e7, 8e7)])
            },
            event("reboot", "domain.rebooted"),
            scene(
                "hands-needed",
                70,
                60,
                &[("threat.detection_rate", 2.0, 2.0)],
            ),
            event("new-weaknesses", "feed.changed(cve)"),
        ],
    },
    Example {
        name: "hardened-kiosk",
        base: None,
        start: (1, 1024),
        calm: &[
            ("cpu.utilization", Some(50.0)),
            ("memory.available [MiB]", Some(300.0)),
            ("guest.processes", Some(80.0)),
            ("threat.detection_rate", Some(0.0)),
        ],
        scenes: &[
            scene("rush-hour", 70, 60, &[("cpu.utilization", 98.0, 98.0)]),
            scene(
                "leaking-page",
                40,
                10,
                &[("memory.available [MiB]", 50.0, 50.0)],
            ),
            scene(
                "strangers-program",
                30,
                10,
                &[("guest.processes", 200.0, 200.0)],
            ),
            scene("attack", 20, 0, &[("threat.detection_rate", 1.0, 1.0)]),
            event("started", "domain.resumed"),
        ],
    },
    Example {
        name: "automated-testing",
        base: None,
        start: (1, 2048),
        calm: &[
            ("cpu.utilization", Some(30.0)),
            ("memory.available [MiB]", Some(1200.0)),
            ("host.cpu.pressure", Some(5.0)),
            ("guest.app.tests.running", None),
            ("guest.app.tests.failed", None),
        ],
        scenes: &[
            scene("run", 60, 5, &[("guest.app.tests.running", 40.0, 40.0)]),
            Scene {
                also: &["run"],
                ..scene(
                    "short-of-memory",
                    60,
                    10,
                    &[
                        ("memory.available [MiB]", 300.0, 300.0),
                        ("guest.app.tests.running", 40.0, 40.0),
                    ],
                )
            },
            scene(
                "breaking",
                200,
                95,
                &[("guest.app.tests.failed", 0.0, 200.0)],
            ),
            scene("step-back", 60, 30, &[("host.cpu.pressure", 50.0, 50.0)]),
            event("stand-in", "domain.started"),
            scene(
                "lend-it-out",
                7300,
                7100,
                &[("guest.app.tests.running", 0.0, 0.0)],
            ),
        ],
    },
    Example {
        name: "production-shop",
        base: None,
        start: (12, 32 * 1024),
        calm: &SHOP,
        scenes: &[
            scene("grow-cpu", 100, 60, &[("cpu.utilization", 90.0, 90.0)]),
            SHOP_SCENES[0],
            SHOP_SCENES[1],
            SHOP_SCENES[2],
            SHOP_SCENES[3],
        ],
    },
    Example {
        name: "staging-twin",
        base: Some("production-shop"),
        start: (2, 6 * 1024),
        calm: &SHOP,
        scenes: &[
            scene("grow-cpu", 100, 60, &[("cpu.utilization", 90.0, 90.0)]),
            SHOP_SCENES[0],
            SHOP_SCENES[1],
            SHOP_SCENES[2],
            SHOP_SCENES[3],
            scene("load-test", 60, 5, &[("guest.app.load.test", 1.0, 1.0)]),
        ],
    },
    Example {
        name: "demo-web",
        base: None,
        start: (2, 1024),
        calm: &[
            ("cpu.utilization", Some(40.0)),
            ("memory.utilization", Some(60.0)),
        ],
        scenes: &[
            scene("grow-cpu", 10, 3, &[("cpu.utilization", 90.0, 90.0)]),
            scene("shrink-cpu", 15, 6, &[("cpu.utilization", 5.0, 5.0)]),
            scene("grow-memory", 10, 2, &[("memory.utilization", 90.0, 90.0)]),
            scene(
                "shrink-memory",
                10,
                4,
                &[("memory.utilization", 20.0, 20.0)],
            ),
        ],
    },
];

const SHOP: [(&str, Option<f64>); 4] = [
    ("cpu.utilization", Some(50.0)),
    ("memory.utilization", Some(65.0)),
    ("guest.app.checkout.seconds", Some(1.2)),
    ("guest.app.load.test", None),
];

/// Of the rules that staging has from production.
const SHOP_SCENES: [Scene; 4] = [
    scene("shrink-cpu", 1300, 1195, &[("cpu.utilization", 10.0, 10.0)]),
    scene("grow-memory", 60, 30, &[("memory.utilization", 92.0, 92.0)]),
    scene(
        "shrink-memory",
        3700,
        3595,
        &[("memory.utilization", 20.0, 20.0)],
    ),
    scene(
        "slow-checkout",
        60,
        0,
        &[("guest.app.checkout.seconds", 4.0, 4.0)],
    ),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/personas")
}

fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.yaml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(example: &Example) -> Effective {
    let own = text(example.name);
    let base = example.base.map(|base| (base, text(base)));
    let layer = |name, text, kind| Layer {
        source: SourceText {
            name,
            text,
            format: Format::Yaml,
            persona_name: None,
        },
        tag: None,
        kind,
    };
    let mut layers = Vec::new();
    if let Some((name, text)) = &base {
        layers.push(layer(name, text.as_bytes(), LayerKind::Base));
    }
    layers.push(layer(example.name, own.as_bytes(), LayerKind::Persona));
    compose(&layers).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A trace with one scene in it, or none.
fn trace(example: &Example, scene: Option<&Scene>) -> String {
    let mut text = "time,event".to_owned();
    for (column, _) in example.calm {
        let _ = write!(text, ",{column}");
    }
    text.push('\n');
    let (begins, lasts) = scene.map_or((LEAD * 8, 0), |scene| (LEAD, scene.lasts));
    let ends = begins + lasts;
    for at in (0..ends + AFTER).step_by(STEP) {
        let inside = scene.filter(|_| (begins..ends).contains(&at));
        let event = inside
            .filter(|_| at == begins)
            .map_or("", |scene| scene.event);
        let _ = write!(text, "{at},{event}");
        for (column, calm) in example.calm {
            let shown = inside.and_then(|scene| {
                let (_, from, to) = scene.shows.iter().find(|(name, ..)| name == column)?;
                Some(from + (to - from) * ((at - begins) as f64 / lasts as f64))
            });
            match shown.or(*calm) {
                Some(value) => {
                    let _ = write!(text, ",{value}");
                }
                None => text.push(','),
            }
        }
        text.push('\n');
    }
    text
}

fn play(persona: &Persona, start: (u32, u64), trace: &str) -> (Outcome, Vec<Happening>) {
    let survey = Survey::of(trace.as_bytes()).unwrap();
    let setting = Setting {
        vcpus: Some(start.0),
        memory: Some(Bytes::from_mib(start.1)),
        ..Setting::default()
    };
    let sizes = Sizes::of(persona, &setting).unwrap();
    let mut told = Vec::new();
    let outcome = replay(
        persona,
        sizes,
        &survey,
        trace.as_bytes(),
        &mut |happening| {
            told.push(happening);
            Ok::<(), Infallible>(())
        },
    )
    .unwrap();
    (outcome, told)
}

#[test]
fn every_example_has_a_place_here() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let here: BTreeSet<String> = EXAMPLES
        .iter()
        .map(|example| example.name.to_owned())
        .collect();
    assert_eq!(files, here);
}

#[test]
fn examples_load_and_are_warned_of_what_this_version_does_not_act_on_alone() {
    let mut found = String::new();
    for example in &EXAMPLES {
        let effective = load(example);
        assert_eq!(effective.persona.name.as_str(), example.name);
        let _ = writeln!(found, "{}", example.name);
        for problem in effective.warnings.iter() {
            assert_eq!(problem.severity, Severity::Warning);
            assert_eq!(problem.kind, Kind::NotYetSupported, "{problem:?}");
            let _ = writeln!(found, "  {}", problem.message);
        }
    }
    golden("tests/fixtures/personas.warnings", &found);
}

#[test]
fn a_calm_machine_is_left_alone() {
    for example in &EXAMPLES {
        let persona = load(example).persona;
        let (_, told) = play(&persona, example.start, &trace(example, None));
        assert!(told.is_empty(), "{}: {told:#?}", example.name);
    }
}

#[test]
fn every_rule_fires_for_its_cause_and_for_no_other() {
    let mut wrong = String::new();
    for example in &EXAMPLES {
        let persona = load(example).persona;
        let rules: BTreeSet<&str> = persona
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        let tried: BTreeSet<&str> = example.scenes.iter().map(|scene| scene.rule).collect();
        assert_eq!(rules, tried, "{}", example.name);
        for scene in example.scenes {
            let (outcome, told) = play(&persona, example.start, &trace(example, Some(scene)));
            let mut complain = |what: String| {
                let _ = writeln!(wrong, "{}, {}: {what}", example.name, scene.rule);
                for happening in told.iter().take(5) {
                    let _ = writeln!(wrong, "    {} {}", happening.at, happening.text);
                }
            };
            for rule in &outcome.rules {
                let expected = rule.name == scene.rule || scene.also.contains(&rule.name.as_str());
                if expected != (rule.fired > 0) {
                    complain(format!(
                        "{} fired {} times; {:?}",
                        rule.name, rule.fired, rule.why
                    ));
                }
                let first = rule
                    .first
                    .as_ref()
                    .map(|first| first.parse::<u64>().unwrap());
                let in_time = LEAD + scene.not_before..=LEAD + scene.lasts;
                if let Some(first) =
                    first.filter(|first| rule.name == scene.rule && !in_time.contains(first))
                {
                    complain(format!("first at {first} and not in {in_time:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Compares with a file of the repository, or writes it with `UPDATE_GOLDEN=1`.
fn golden(path: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found,
        expected,
        "{}; UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}
