//! The evaluator against a slow one that is right at a glance, and against the laws of its logic: random conditions over
//! random histories.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on should stop, and its values are small"
)]

mod reference;

use persona::rule::{Condition, Trail, Truth, Windows};
use persona::{Reading, Source};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reference::{History, Model, Step, history, model};

/// The truth at each step.
fn over_time(text: &str, steps: &[Step], demanded: Option<Source>) -> Vec<Truth> {
    let condition = Condition::parse(text).unwrap_or_else(|problems| panic!("{text}:\n{problems}"));
    let mut windows = Windows::default();
    steps
        .iter()
        .map(|step| condition.evaluate(step, demanded, &mut windows, step.now, &mut Trail::Off))
        .collect()
}

fn demanded() -> impl Strategy<Value = Option<Source>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Source::Host)),
        1 => Just(Some(Source::Balloon)),
    ]
}

/// A text in which two conditions stand for letters.
fn of(pattern: &str, a: &Model, b: &Model) -> String {
    let part = |letter| match letter {
        'a' => format!("({})", a.text()),
        'b' => format!("({})", b.text()),
        other => other.to_string(),
    };
    pattern.chars().map(part).collect()
}

/// Pairs of texts that are worth the same in Kleene's logic, whatever a and b are.
const LAWS: [(&str, &str); 10] = [
    ("NOT (NOT a)", "a"),
    ("NOT (a AND b)", "(NOT a) OR (NOT b)"),
    ("NOT (a OR b)", "(NOT a) AND (NOT b)"),
    ("a AND b", "b AND a"),
    ("a OR b", "b OR a"),
    ("a AND (a OR b)", "a"),
    ("a OR (a AND b)", "a"),
    ("a AND a", "a"),
    ("a AND (b OR a)", "(a AND b) OR (a AND a)"),
    ("a OR (b AND a)", "(a OR b) AND (a OR a)"),
];

proptest! {
    // Each case walks a history many times over.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn evaluation_agrees_with_looking_back(model in model(), steps in history(), demanded in demanded()) {
        let found = over_time(&model.text(), &steps, demanded);
        let history = History { steps: &steps, demanded };
        for (index, found) in found.into_iter().enumerate() {
            prop_assert_eq!(found, history.worth(index, &model), "{} at {}", model.text(), index);
        }
    }

    #[test]
    fn windows_that_were_stored_go_on_as_if_they_had_not_been(
        model in model(),
        steps in history(),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = model.text();
        // Functions start anew, so they are left out of what must not change.
        prop_assume!(!text.contains(", "));
        let condition = Condition::parse(&text).unwrap();
        let cut = cut.index(steps.len());
        let mut windows = Windows::default();
        let mut found = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            if index == cut {
                windows = serde_json::from_str(&serde_json::to_string(&windows).unwrap()).unwrap();
            }
            found.push(condition.evaluate(step, None, &mut windows, step.now, &mut Trail::Off));
        }
        prop_assert_eq!(found, over_time(&text, &steps, None));
    }

    #[test]
    fn the_laws_of_the_logic_hold(a in model(), b in model(), steps in history()) {
        for (one, other) in LAWS {
            let (one_text, other_text) = (of(one, &a, &b), of(other, &a, &b));
            let (left, right) = (over_time(&one_text, &steps, None), over_time(&other_text, &steps, None));
            prop_assert_eq!(left, right, "{} is {}", one, other);
        }
    }

    #[test]
    fn what_was_known_stays_so_when_more_is_known(
        model in model(),
        steps in history(),
        hidden in prop::collection::vec(any::<bool>(), 3),
    ) {
        // Only what depends on the moment alone: with more known a window may also end sooner.
        let text = model.text();
        prop_assume!(!text.contains("FOR") && !text.contains(", "));
        let fewer: Vec<Step> = steps.iter().map(|step| without(step, &hidden)).collect();
        let (less, more) = (over_time(&text, &fewer, None), over_time(&text, &steps, None));
        for (less, more) in less.into_iter().zip(more) {
            prop_assert!(less == Truth::Unknown || less == more, "{text}: {less} became {more}");
        }
    }
}

/// The same step without some of its readings.
fn without(step: &Step, hidden: &[bool]) -> Step {
    let mut step = step.clone();
    let readings: &mut [Option<Reading>] = &mut step.readings;
    for (reading, hidden) in readings.iter_mut().zip(hidden) {
        *reading = reading.filter(|_| !hidden);
    }
    step
}

#[test]
fn the_random_conditions_are_worth_something() {
    let mut runner = TestRunner::deterministic();
    let (mut counts, mut functions) = ([0_usize; 3], 0_usize);
    for _ in 0..400 {
        let model = model().new_tree(&mut runner).unwrap().current();
        let steps = history().new_tree(&mut runner).unwrap().current();
        let has_function = model.text().contains(", ");
        for truth in over_time(&model.text(), &steps, None) {
            counts[match truth {
                Truth::True => 0,
                Truth::False => 1,
                Truth::Unknown => 2,
            }] += 1;
            functions += usize::from(has_function && truth == Truth::True);
        }
    }
    let all: usize = counts.iter().sum();
    assert!(counts.iter().all(|count| count * 10 > all), "{counts:?}");
    assert!(functions > 100, "{functions}");
}
