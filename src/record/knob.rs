//! What a domain's knobs show, as lines tell it: those that differ from the frame before. Called by `line`.

use std::collections::BTreeMap;

use persona::rule::Knob;
use planner::snapshot::{KnobReading, Knobs};

/// Knobs that show something else than before.
pub(super) type Changed = BTreeMap<Knob, KnobReading>;

/// What has changed; before the first line nobody has looked at any.
pub(super) fn changed(before: Option<Knobs>, now: Knobs) -> Changed {
    let before = before.unwrap_or_default();
    let differs = |knob: &Knob| before.reading(*knob) != now.reading(*knob);
    let knobs = Knob::ALL.into_iter().filter(differs);
    knobs.map(|knob| (knob, now.reading(knob))).collect()
}

/// The knobs after a change.
pub(super) fn after(before: Knobs, changed: &Changed) -> Knobs {
    let with = |knobs: Knobs, (knob, reading): (&Knob, &KnobReading)| knobs.with(*knob, *reading);
    changed.iter().fold(before, with)
}

#[cfg(test)]
mod tests {
    use persona::rule::KnobValue;
    use planner::snapshot::Obstacle;
    use proptest::prelude::*;

    use super::*;

    fn reading() -> impl Strategy<Value = KnobReading> {
        prop_oneof![
            (1..3_u32, 0..3_u64).prop_map(|(devices, at)| KnobReading::Set {
                devices,
                value: KnobValue::At(at),
            }),
            Just(KnobReading::Set {
                devices: 1,
                value: KnobValue::Unlimited,
            }),
            Just(KnobReading::Uneven { devices: 2 }),
            Just(KnobReading::Unable(Obstacle::NoDevice)),
            Just(KnobReading::Unknown),
        ]
    }

    fn knobs() -> impl Strategy<Value = Knobs> {
        prop::array::uniform5(reading())
            .prop_map(|readings| Knobs::new(|knob| readings[knob as usize]))
    }

    proptest! {
        #[test]
        fn what_has_changed_makes_the_new_knobs_of_the_old_ones(
            old in prop::option::of(knobs()), new in knobs()
        ) {
            let text = serde_json::to_string(&changed(old, new)).unwrap();
            let read = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(after(old.unwrap_or_default(), &read), new);
            prop_assert!(changed(Some(new), new).is_empty());
        }
    }
}
