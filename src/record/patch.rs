//! What has changed between two JSON values of the same shape, and back. The explanation of a decision is long and the
//! next one mostly the same: only what differs is kept.

use serde_json::{Map, Value};

/// What stands in a patch for a value that is replaced.
const WHOLE: &str = "=";
/// What stands in a patch for the members, or the elements, that differ.
const PARTS: &str = "~";

/// What makes `new` of `old`; nothing where they are the same.
pub(super) fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let parts: Option<Map<String, Value>> = match (old, new) {
        (Value::Object(old), Value::Object(new)) if old.keys().eq(new.keys()) => Some(
            old.iter()
                .zip(new.values())
                .filter_map(|((key, old), new)| Some((key.clone(), difference(old, new)?)))
                .collect(),
        ),
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => Some(
            old.iter()
                .zip(new)
                .enumerate()
                .filter_map(|(index, (old, new))| Some((index.to_string(), difference(old, new)?)))
                .collect(),
        ),
        _ => None,
    };
    let (word, value) = match parts {
        Some(parts) => (PARTS, Value::Object(parts)),
        None => (WHOLE, new.clone()),
    };
    Some(Value::Object(Map::from_iter([(word.to_owned(), value)])))
}

/// Makes the new value of an old one; false where the patch does not fit.
#[must_use]
pub(super) fn apply(value: &mut Value, patch: Value) -> bool {
    let Value::Object(mut patch) = patch else {
        return false;
    };
    if let Some(whole) = patch.remove(WHOLE) {
        *value = whole;
        return true;
    }
    let Some(Value::Object(parts)) = patch.remove(PARTS) else {
        return false;
    };
    parts.into_iter().all(|(key, patch)| {
        let part = match value {
            Value::Object(members) => members.get_mut(&key),
            Value::Array(elements) => {
                let index: Option<usize> = key.parse().ok();
                index.and_then(|index| elements.get_mut(index))
            }
            _ => None,
        };
        part.is_some_and(|part| apply(part, patch))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0_i64..4).prop_map(Value::from),
            "[=~a]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[=~ab]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_new_value_of_the_old_one(old in value(), new in value()) {
            let mut made = old.clone();
            match difference(&old, &new) {
                Some(patch) => prop_assert!(apply(&mut made, patch)),
                None => prop_assert_eq!(&old, &new),
            }
            prop_assert_eq!(made, new);
        }
    }

    #[test]
    fn only_what_differs_is_kept() {
        let old = json!({"text": "a long one", "truth": true, "looked": [1, 2]});
        let new = json!({"text": "a long one", "truth": true, "looked": [1, 3]});
        let patch = difference(&old, &new).unwrap();
        assert_eq!(patch, json!({"~": {"looked": {"~": {"1": {"=": 3}}}}}));
        assert!(!apply(&mut json!([]), patch));
    }
}
