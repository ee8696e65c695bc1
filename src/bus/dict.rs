//! Views as `a{sv}` dictionaries and back. The keys are those of the JSON shapes. An absent key is unknown or empty,
//! because D-Bus has no null; a whole number is always `x`, another number `d`, so a key never changes its type.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zbus::{OwnedVariant, Variant};

/// A dictionary on the wire.
pub(super) type Dict = HashMap<String, OwnedVariant>;

/// A view as a dictionary. What is no JSON object gives an empty one; views are structures, so that is a fault of this
/// program, which is logged.
pub(super) fn to_dict<T: Serialize>(view: &T) -> Dict {
    match serde_json::to_value(view) {
        Ok(Value::Object(map)) => object_dict(map)
            .into_iter()
            .filter_map(|(key, value)| Some((key, OwnedVariant::try_from(value).ok()?)))
            .collect(),
        other => {
            tracing::error!(?other, "a view is no structure, so it cannot be shown");
            Dict::new()
        }
    }
}

/// Views as dictionaries.
pub(super) fn to_dicts<'a, T: Serialize + 'a>(views: impl IntoIterator<Item = &'a T>) -> Vec<Dict> {
    views.into_iter().map(to_dict).collect()
}

/// A dictionary as the view it was.
///
/// # Errors
/// Where a key that must be there is absent or has another type.
pub(super) fn from_dict<T: DeserializeOwned>(dict: Dict) -> Result<T, serde_json::Error> {
    let map: Map<String, Value> = dict
        .into_iter()
        .map(|(key, value)| (key, to_json(&value)))
        .collect();
    serde_json::from_value(Value::Object(map))
}

fn object_dict(map: Map<String, Value>) -> HashMap<String, Variant<'static>> {
    map.into_iter()
        .filter_map(|(key, value)| Some((key, to_variant(value)?)))
        .collect()
}

fn to_variant(value: Value) -> Option<Variant<'static>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => Variant::from(truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Variant::from(whole),
            // Nothing that is counted here reaches 2^63; the largest number says at least "a great many".
            (None, Some(_)) => Variant::from(i64::MAX),
            (None, None) => Variant::from(number.as_f64()?),
        },
        Value::String(text) => Variant::from(text),
        Value::Object(map) => Variant::from(object_dict(map)),
        Value::Array(items) if items.is_empty() => return None,
        Value::Array(items) if items.iter().all(Value::is_object) => Variant::from(
            items
                .into_iter()
                .filter_map(|item| match item {
                    Value::Object(map) => Some(object_dict(map)),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        Value::Array(items) if items.iter().all(Value::is_string) => Variant::from(
            items
                .into_iter()
                .filter_map(|item| match item {
                    Value::String(text) => Some(text),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        Value::Array(items) => {
            Variant::from(items.into_iter().filter_map(to_variant).collect::<Vec<_>>())
        }
    })
}

fn to_json(value: &Variant<'_>) -> Value {
    match value {
        Variant::Bool(truth) => Value::from(*truth),
        Variant::U8(n) => Value::from(*n),
        Variant::I16(n) => Value::from(*n),
        Variant::U16(n) => Value::from(*n),
        Variant::I32(n) => Value::from(*n),
        Variant::U32(n) => Value::from(*n),
        Variant::I64(n) => Value::from(*n),
        Variant::U64(n) => Value::from(*n),
        Variant::F64(n) => Value::from(*n),
        Variant::Str(text) => Value::from(text.as_str()),
        Variant::ObjectPath(path) => Value::from(path.as_str()),
        Variant::Signature(signature) => Value::from(signature.to_string()),
        Variant::Variant(inner) => to_json(inner),
        Variant::Array(items) => items.iter().map(to_json).collect(),
        Variant::Structure(fields) => fields.fields().iter().map(to_json).collect(),
        Variant::Dict(dict) => Value::Object(
            dict.iter()
                .filter_map(|(key, value)| match key {
                    Variant::Str(key) => Some((key.as_str().to_owned(), to_json(value))),
                    _ => None,
                })
                .collect(),
        ),
        // A descriptor has no meaning in text.
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn round(value: Value) -> Value {
        from_dict(to_dict(&value)).expect("an object")
    }

    #[test]
    fn what_is_known_survives_the_wire() {
        let value = json!({
            "name": "web", "count": 3, "negative": -3, "share": 0.5, "whole": 5.0, "yes": true,
            "inner": {"a": {"b": 1}}, "list": [{"x": 1}, {"y": "z"}], "words": ["a", "b"], "mixed": [1, "a"],
        });
        assert_eq!(round(value.clone()), value);
    }

    #[test]
    fn what_is_unknown_or_empty_is_absent() {
        let value = json!({"unknown": null, "empty": [], "inner": {"unknown": null}});
        assert_eq!(round(value), json!({"inner": {}}));
    }

    #[test]
    fn a_number_keeps_its_type_whatever_its_value() {
        let signature = |value: Value| {
            to_dict(&json!({ "n": value }))["n"]
                .value_signature()
                .to_string()
        };
        for whole in [json!(0), json!(7), json!(-7), json!(u64::MAX)] {
            assert_eq!(signature(whole), "x");
        }
        for fraction in [json!(0.0), json!(5.0), json!(-0.5)] {
            assert_eq!(signature(fraction), "d");
        }
    }
}
