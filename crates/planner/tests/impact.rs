//! What is measured of the actions of rules: means before and after them, kept apart from whatever else happened.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::{Metric, Reading, Signals, Source};
use persona::units::Moment;
use persona::{Format, Persona, SourceText};
use planner::impact::{Confidence, Impacts, Measured, Tally};
use planner::report::Wish;
use planner::{Ending, Step};
use proptest::prelude::*;

const DOMAIN: DomainId = DomainId([7; 16]);

struct One(Reading);

impl Signals for One {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        (metric == Metric::CpuUtilization).then_some(self.0)
    }
}

fn persona() -> Persona {
    let source = SourceText {
        name: "test.yaml",
        text: b"name: test\npriority_metrics: {cpu.utilization: 1}\n",
        format: Format::Yaml,
        persona_name: None,
    };
    persona::load(&source).expect("a persona").persona
}

fn step(by: Wish) -> Step {
    Step {
        domain: DOMAIN,
        instance: Some(1),
        resource: Resource::Vcpus,
        from: 1,
        to: 2,
        means: planner::Means::Usual,
        by,
        effect: None,
        consent: planner::Consent::Asked,
    }
}

fn rule(name: &str) -> Step {
    step(Wish::Rule(name.into()))
}

/// A machine whose utilisation a test sets second by second.
struct Scene {
    impacts: Impacts,
    persona: Persona,
    second: u64,
    instance: u32,
    measured: Vec<Measured>,
}

impl Scene {
    fn new() -> Self {
        Self {
            impacts: Impacts::default(),
            persona: persona(),
            second: 1000,
            instance: 1,
            measured: Vec::new(),
        }
    }

    fn now(&self) -> Moment {
        Moment(self.second * 1000)
    }

    fn run(&mut self, seconds: u64, value: f64) -> &mut Self {
        for _ in 0..seconds {
            self.second += 1;
            let now = self.now();
            let reading = One(Reading {
                value,
                source: Source::Host,
                at: now,
                period: Duration::from_secs(1),
            });
            let instance = Some(self.instance);
            let measured = self
                .impacts
                .observe(DOMAIN, instance, &self.persona, &reading, now);
            self.measured.extend(measured);
        }
        self
    }

    fn act(&mut self, step: &Step, ending: Ending) -> &mut Self {
        self.impacts.begin(step, self.now());
        self.impacts.end(step, ending, self.now());
        self
    }

    fn figures(&self) -> Vec<(&str, f64, f64)> {
        let figures = self.measured.iter();
        figures
            .map(|it| (it.rule.as_str(), it.before, it.after))
            .collect()
    }
}

#[test]
fn an_action_is_the_mean_of_a_minute_before_and_of_a_minute_after_it() {
    let mut scene = Scene::new();
    scene.run(70, 90.0).act(&rule("grow"), Ending::Applied);
    // What is still settling counts for neither side.
    scene.run(9, 70.0).run(60, 40.0);
    assert_eq!(scene.figures(), []);
    scene.run(2, 40.0);
    assert_eq!(scene.figures(), [("grow", 90.0, 40.0)]);
    scene.run(200, 40.0);
    assert_eq!(scene.measured.len(), 1);
}

#[test]
fn steps_of_one_rule_are_one_action() {
    let mut scene = Scene::new();
    scene.run(70, 90.0).act(&rule("grow"), Ending::Applied);
    scene.run(20, 70.0).act(&rule("grow"), Ending::Applied);
    scene.run(75, 30.0);
    assert_eq!(scene.figures(), [("grow", 90.0, 30.0)]);
}

#[test]
fn what_others_do_meanwhile_is_not_put_down_to_the_rule() {
    type Disturb = fn(&mut Scene);
    let cases: [(&str, Disturb); 6] = [
        ("another rule's action", |scene| {
            scene.act(&rule("shrink"), Ending::Applied);
        }),
        ("a gift", |scene| {
            scene.act(&step(Wish::Donation("other".into())), Ending::Applied);
        }),
        ("a failed step", |scene| {
            scene.act(&rule("grow"), Ending::Unknown);
        }),
        ("a change by hand", |scene| {
            let now = scene.now();
            scene.impacts.disturb(DOMAIN, now);
        }),
        ("a restart", |scene| scene.instance += 1),
        ("a gap", |scene| scene.second += 100),
    ];
    for (name, disturb) in cases {
        let mut scene = Scene::new();
        scene.run(70, 90.0).act(&rule("grow"), Ending::Applied);
        scene.run(20, 40.0);
        disturb(&mut scene);
        scene.run(100, 40.0);
        assert_eq!(scene.figures(), [], "{name}");
    }
}

#[test]
fn nothing_is_measured_where_there_was_too_little_before() {
    let mut scene = Scene::new();
    scene.run(20, 90.0).act(&rule("grow"), Ending::Applied);
    scene.run(100, 40.0);
    assert_eq!(scene.figures(), []);
    // Nor where the time before belongs to another change.
    scene.act(&rule("shrink"), Ending::Applied).run(25, 60.0);
    scene.act(&rule("grow"), Ending::Applied).run(100, 40.0);
    assert_eq!(scene.figures(), []);
}

#[test]
fn a_refused_step_leaves_no_trace() {
    let mut scene = Scene::new();
    scene.run(70, 90.0).act(&rule("grow"), Ending::Refused);
    scene.run(1, 90.0).act(&rule("grow"), Ending::Applied);
    scene.run(75, 40.0);
    assert_eq!(scene.figures(), [("grow", 90.0, 40.0)]);
}

#[test]
fn confidence_grows_with_what_agrees_and_not_with_what_differs() {
    let tally = |differences: &[f64]| {
        let mut tally = Tally::default();
        for difference in differences {
            tally.add(80.0, 80.0 + difference);
        }
        tally
    };
    assert_eq!(tally(&[]).confidence(), Confidence::None);
    let one = tally(&[-30.0]);
    assert_eq!((one.margin(), one.confidence()), (None, Confidence::None));
    // Mean -30, deviation 2, three of them: t = 25.98 with two degrees of freedom.
    let agreed = tally(&[-28.0, -30.0, -32.0]);
    assert_eq!(agreed.confidence(), Confidence::P99);
    assert!((agreed.change() + 30.0).abs() < 1e-9);
    assert!((agreed.margin().expect("three actions") - 4.303 * 2.0 / 3_f64.sqrt()).abs() < 1e-9);
    assert_eq!(
        tally(&[-30.0, 30.0, 10.0, -12.0]).confidence(),
        Confidence::None
    );
    assert_eq!(tally(&[0.0, 0.0, 0.0]).confidence(), Confidence::None);
    let mut odd = tally(&[-1.0]);
    odd.add(f64::NAN, 3.0);
    assert_eq!(odd.actions(), 1);
}

proptest! {
    #[test]
    fn the_mean_of_differences_is_the_mean(differences in proptest::collection::vec(-100.0..100.0f64, 1..150)) {
        let mut tally = Tally::default();
        for difference in &differences {
            tally.add(50.0, 50.0 + difference);
        }
        #[allow(clippy::cast_precision_loss)]
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        prop_assert!((tally.change() - mean).abs() < 1e-6);
        // What is very sure is sure at every lower level: the margin leaves zero out.
        if tally.confidence() >= Confidence::P95 {
            prop_assert!(tally.margin().is_some_and(|margin| margin < tally.change().abs()));
        }
    }

    #[test]
    fn old_actions_count_less_and_less(first in -50.0..50.0f64, then in -50.0..50.0f64) {
        let mut tally = Tally::default();
        for _ in 0..200 {
            tally.add(0.0, first);
        }
        for _ in 0..2000 {
            tally.add(0.0, then);
        }
        prop_assert!(tally.actions() <= 200);
        prop_assert!((tally.change() - then).abs() < 1.0, "{}", tally.change());
    }
}
