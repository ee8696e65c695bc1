//! Any text as a rule: it is read or refused, its canonical text is read back as the same rule, and evaluating it ends.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::{Corpus, fuzz_target};
use persona::rule::{Rule, Trail, Windows};
use persona::signal::{Event, Named};
use persona::{Metric, Moment, Reading, Signals, Source};

/// The same value for everything.
struct Everything {
    value: f64,
    now: Moment,
}

impl Everything {
    fn at_present(&self) -> Reading {
        Reading {
            value: self.value,
            source: Source::Host,
            at: self.now,
            period: Duration::from_secs(1),
        }
    }
}

impl Signals for Everything {
    fn reading(&self, _: Metric) -> Option<Reading> {
        Some(self.at_present())
    }

    fn named(&self, _: &Named) -> Option<Reading> {
        Some(self.at_present())
    }

    fn happened(&self, _: &Event) -> Option<Moment> {
        Some(self.now)
    }
}

fuzz_target!(|text: &str| -> Corpus {
    let rule = match Rule::parse("fuzzed", text) {
        Ok(rule) => rule,
        Err(problems) => {
            assert!(problems.has_errors());
            let _ = problems.to_string();
            return Corpus::Keep;
        }
    };
    match Rule::parse("fuzzed", &rule.text) {
        Ok(again) => assert_eq!(again, rule),
        Err(problems) => panic!("`{}` is not read back: {problems}", rule.text),
    }
    let mut holds = Windows::default();
    for step in 0..4_u32 {
        let now = Moment(u64::from(step) * 1000);
        let value = f64::from(step) * 40.0;
        let mut trail = Trail::recording();
        rule.when.evaluate(
            &Everything { value, now },
            rule.source,
            &mut holds,
            now,
            &mut trail,
        );
        rule.when.would_hold(&Everything { value, now }, now);
    }
    Corpus::Keep
});
