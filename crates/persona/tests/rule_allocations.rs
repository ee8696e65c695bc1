//! What the evaluation of a rule allocates: nothing, once its windows have grown.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on should stop, and its values are small"
)]

mod counting;

use std::time::Duration;

use counting::{allocations, held};
use persona::rule::{Condition, Function, Trail, Truth, Windows};
use persona::signal::{Event, Named};
use persona::{Metric, Moment, Reading, Signals, Source};

/// Everything has a reading at each second.
struct Second(u64);

impl Second {
    fn reading(&self) -> Reading {
        Reading {
            value: (self.0 % 97) as f64,
            source: Source::Host,
            at: self.now(),
            period: Duration::from_secs(1),
        }
    }

    fn now(&self) -> Moment {
        Moment(self.0 * 1000)
    }
}

impl Signals for Second {
    fn reading(&self, _: Metric) -> Option<Reading> {
        Some(Self::reading(self))
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        named.id().is_multiple_of(2).then(|| Self::reading(self))
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        event.source.is_none().then(|| self.now())
    }
}

#[test]
fn a_warm_rule_allocates_nothing() {
    let functions = Function::ALL.map(|function| match function {
        Function::Rate => "rate(cpu.utilization, 1m) > 0.5/s".to_owned(),
        _ => format!("{}(cpu.utilization, 1m) > 40%", function.name()),
    });
    let text = format!(
        "({}) FOR 10s AND (guest.app.orders + 2 * external.feed.count - -1 > 5 FOR 5s OR agent.lost AND \
         NOT feed.changed(feed)) AND memory.available / memory.size BETWEEN 0.1 AND 0.9 AND \
         trust_levels[notify] > low AND priority_metrics[cost] < 0.5 AND anomaly(guest.load) < 3",
        functions.join(" OR ")
    );
    let condition = Condition::parse(&text).unwrap();
    let mut windows = Windows::default();
    let mut truths = [0; 3];
    let mut run = |windows: &mut Windows, from: u64, to: u64| {
        for second in from..to {
            let signals = Second(second);
            let truth = condition.evaluate(
                &signals,
                Some(Source::Agent),
                windows,
                signals.now(),
                &mut Trail::Off,
            );
            truths[truth as usize] += 1;
        }
    };
    run(&mut windows, 1000, 1100);
    let (before, held_before) = (allocations(), held());
    assert!(before > 0, "allocations are counted");
    run(&mut windows, 1100, 2000);
    assert_eq!(allocations() - before, 0, "evaluation");
    assert_eq!(held(), held_before, "evaluation gives nothing back either");
    windows.clear();
    run(&mut windows, 2000, 2100);
    assert!(
        truths[Truth::Unknown as usize] > 0 && truths[Truth::False as usize] > 0,
        "{truths:?}"
    );

    let before = allocations();
    for second in 0..100 {
        condition.would_hold(&Second(second), Moment(second * 1000));
    }
    assert_eq!(allocations() - before, 0, "projection");
}
