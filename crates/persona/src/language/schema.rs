//! The JSON Schema of persona documents (draft 2020-12), from the table of the language. Editors complete canonical keys by
//! it and mark what cannot be; every document that the readers take is valid by it. What holds between values, and what
//! the rule language says, is the readers' alone.

use serde_json::{Map, Value, json};

use super::{
    Absent, Effect, Key, Names, Others, PACKAGE, ROOT, RULE, SECRET, SOURCE, Shape, Table, WEIGHT,
    Word, squash,
};
use crate::limits;
use crate::quantity;
use crate::signal::Unit;

/// The schema of a persona document.
pub fn schema() -> Value {
    let mut writer = Writer::default();
    let persona = writer.table("persona", &ROOT);
    let mut root = Map::new();
    root.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    root.insert("title".to_owned(), json!("virt-persona document"));
    // A root `persona_NAME` may stand around all keys.
    let named = json!({
        "type": "object",
        "patternProperties": {"^[Pp][Ee][Rr][Ss][Oo][Nn][Aa]_.": persona.clone()},
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
    });
    root.insert("anyOf".to_owned(), json!([persona, named]));
    root.insert("$defs".to_owned(), Value::Object(writer.definitions));
    Value::Object(root)
}

/// Numbers and truth values are the text that stands there.
const SCALAR: [&str; 3] = ["string", "number", "boolean"];

/// Collects a definition for each table.
#[derive(Default)]
struct Writer {
    definitions: Map<String, Value>,
}

impl Writer {
    /// A map of known keys, by reference.
    fn table(&mut self, name: &str, table: &'static Table) -> Value {
        let reference = json!({"$ref": format!("#/$defs/{name}")});
        if self.definitions.contains_key(name) {
            return reference;
        }
        // Its place is taken first, so that it is written once.
        self.definitions.insert(name.to_owned(), Value::Null);
        let mut properties = Map::new();
        let mut spellings = Map::new();
        let mut required = Vec::new();
        for key in table.keys {
            properties.insert(key.name.to_owned(), self.key(name, key));
            let pattern = pattern_of(key);
            let place = format!("#/$defs/{name}/properties/{}", key.name);
            spellings.insert(pattern.clone(), json!({"$ref": place}));
            if matches!(key.absent, Absent::Refused) {
                // One of the names in the map is this key, in whatever spelling.
                let none = json!({"propertyNames": {"not": {"pattern": pattern}}});
                required.push(json!({"not": none}));
            }
        }
        let others = match table.others {
            Others::Refused => json!(false),
            Others::Kept => json!({
                "description": "for a plugin of the guest that knows it",
                "anyOf": [{"type": SCALAR}, {"type": "array", "items": {"type": SCALAR}}],
            }),
        };
        let mut definition = json!({
            "type": "object",
            "properties": properties,
            "patternProperties": spellings,
            "additionalProperties": others,
        });
        if !required.is_empty()
            && let Value::Object(definition) = &mut definition
        {
            // What has a name may change the one of the same name in a persona below it, and say no more than that.
            let (word, value) = match table.key("name") {
                Some(key) => {
                    let named =
                        json!({"not": {"propertyNames": {"not": {"pattern": pattern_of(key)}}}});
                    ("anyOf", vec![named, json!({"allOf": required})])
                }
                None => ("allOf", required),
            };
            definition.insert(word.to_owned(), Value::Array(value));
        }
        self.definitions.insert(name.to_owned(), definition);
        reference
    }

    fn key(&mut self, owner: &str, key: &'static Key) -> Value {
        let name = format!("{owner}.{}", key.name);
        let mut schema = or_nothing(self.shape(&name, &key.shape));
        let mut sentences = vec![key.meaning.to_owned()];
        match key.absent {
            Absent::Means(means) => sentences.push(format!("without it: {means}")),
            Absent::Refused => sentences.push("required".to_owned()),
            Absent::Nothing => {}
        }
        if let Effect::Inactive(sentence) = key.effect {
            sentences.push(format!("this version does not act on it: {sentence}"));
        }
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), json!(sentences.join("; ")));
        }
        schema
    }

    fn shape(&mut self, name: &str, shape: &'static Shape) -> Value {
        match shape {
            Shape::Text(most) => json!({"type": SCALAR, "maxLength": most}),
            Shape::PersonaName | Shape::Label => json!({"type": SCALAR, "pattern": NAME}),
            Shape::Reference => json!({"type": SCALAR, "pattern": REFERENCE}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Whole(least, most) => json!({
                "type": ["integer", "string"],
                "minimum": least,
                "maximum": most,
                "pattern": quantities(&[Unit::Count]),
            }),
            Shape::Number => json!({
                "type": ["number", "string"],
                "minimum": 0,
                "pattern": quantities(&[Unit::Count]),
            }),
            Shape::Quantity(units, example) => {
                let bare = if units.contains(&Unit::Count) {
                    json!(["string", "number"])
                } else {
                    json!("string")
                };
                json!({"type": bare, "minimum": 0, "pattern": quantities(units), "examples": [example]})
            }
            Shape::Choice(words) => choice(words),
            Shape::Frequency => json!({"anyOf": [
                {"enum": ["never", "hourly", "daily", "weekly", "monthly"]},
                {"type": "string", "pattern": any_case("never|hourly|daily|weekly|monthly")},
                {"type": "string", "pattern": quantities(&[Unit::Duration])},
            ]}),
            Shape::Decay => {
                let times = format!(
                    "({}|[^/]*(/|[Pp][Ee][Rr])[^/]*)",
                    inner(&quantities(&[Unit::Duration]))
                );
                json!({"type": "string", "pattern": format!("^{times}$"), "examples": ["7d", "10%/day"]})
            }
            Shape::TimeOfDay => {
                json!({"type": "string", "pattern": r"^\s*[0-9]{1,2}:[0-9]{1,2}(:00)?\s*$", "examples": ["08:00"]})
            }
            Shape::Url => json!({
                "type": "string",
                "pattern": r"^\s*([Hh][Tt][Tt][Pp][Ss]?|[Ff][Ii][Ll][Ee]):",
                "maxLength": limits::LONGEST_URL,
            }),
            Shape::Path => json!({"type": "string", "pattern": r"^/\S*[^/\s]$"}),
            Shape::Command => json!({"type": SCALAR, "pattern": r"^[^/\s]+$"}),
            Shape::Metric | Shape::Package => json!({"type": SCALAR, "minLength": 1}),
            Shape::Endpoint => json!({
                "type": "string",
                "pattern": format!(r"^\s*{}(/|\s|$)", group(&any_case_words("tcp|udp|sctp|icmp|any"))),
            }),
            Shape::Level => json!({"anyOf": [
                {"enum": ["none", "low", "medium", "high"]},
                {"type": "string", "pattern": any_case("none|low|medium|high|[0-9.]+")},
                {"type": "number", "minimum": 0, "maximum": 1},
            ]}),
            Shape::Version => json!({"type": SCALAR, "examples": ["latest", "1.24", ">=1.22"]}),
            Shape::Action => json!({"type": "string", "examples": ["add 1 vcpus"]}),
            Shape::Condition => {
                json!({"type": "string", "examples": ["cpu.utilization > 80% FOR 5m"]})
            }
            Shape::Rule => {
                let keys = self.table("rule", &RULE);
                json!({"anyOf": [{"type": "string", "examples": ["IF cpu.utilization > 80% THEN add 1 vcpus"]}, keys]})
            }
            Shape::Software => {
                let keys = self.table("package", &PACKAGE);
                json!({"anyOf": [{"type": SCALAR, "examples": ["nginx (latest version)"]}, keys]})
            }
            Shape::Source => self.table("source", &SOURCE),
            Shape::Variable => {
                let keys = self.table("variable", &SECRET);
                let most = limits::LONGEST_VARIABLE;
                json!({"anyOf": [{"type": SCALAR, "maxLength": most}, keys]})
            }
            Shape::Weights => {
                let weight = self.table("weight", &WEIGHT);
                let number = self.shape(name, &Shape::Number);
                let most = limits::MOST_WEIGHTS;
                json!({"anyOf": [
                    {"type": "object", "additionalProperties": or_nothing(number), "maxProperties": most},
                    {"type": "array", "items": {"anyOf": [{"type": "string"}, weight]}, "maxItems": most},
                ]})
            }
            Shape::List(inner, most) => {
                json!({"type": "array", "items": self.shape(name, inner), "maxItems": most})
            }
            Shape::Many(inner, most) => {
                let one = self.shape(name, inner);
                json!({"anyOf": [one, {"type": "array", "items": one.clone(), "maxItems": most}]})
            }
            Shape::Map(table) => self.table(name, table),
            Shape::Spelt(single, table) => {
                // A script has the same keys wherever it stands.
                let name = if std::ptr::eq(*table, &raw const super::SCRIPT) {
                    "script"
                } else {
                    name
                };
                let keys = self.table(name, table);
                match table.key(single) {
                    Some(key) => json!({"anyOf": [self.shape(name, &key.shape), keys]}),
                    None => keys,
                }
            }
            Shape::Dictionary(names, inner, most) => {
                let mut schema = json!({
                    "type": "object",
                    "additionalProperties": or_nothing(self.shape(name, inner)),
                    "maxProperties": most,
                });
                if let (Names::Labels, Value::Object(schema)) = (names, &mut schema) {
                    schema.insert("propertyNames".to_owned(), json!({"pattern": NAME}));
                }
                schema
            }
        }
    }
}

/// The same, or no value: a document that builds on others takes away what they say so. The readers tell where there is
/// nothing to take away.
fn or_nothing(mut schema: Value) -> Value {
    let nothing = || json!({"type": "null"});
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.push(nothing());
        return schema;
    }
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push(json!("null")),
        Some(kind) => *kind = json!([kind.clone(), "null"]),
        None => return json!({"anyOf": [schema, nothing()]}),
    }
    schema
}

/// A name, which is lowered.
const NAME: &str = r"^\s*[A-Za-z0-9][A-Za-z0-9._-]{0,62}\s*$";
/// A name with or without a version.
const REFERENCE: &str = r"^\s*[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[0-9]+)?\s*$";

/// The canonical words for completion, and all that is read as one of them.
fn choice(words: &[Word]) -> Value {
    let names: Vec<&str> = words.iter().map(|Word(word, _)| *word).collect();
    let all = words
        .iter()
        .flat_map(|Word(word, others)| std::iter::once(word).chain(others.iter()));
    let spellings: Vec<String> = all.map(|word| loose(word)).collect();
    let pattern = format!("^({})$", spellings.join("|"));
    json!({"anyOf": [{"enum": names}, {"type": "string", "pattern": pattern}]})
}

/// Every spelling of a key.
fn pattern_of(key: &Key) -> String {
    let names = std::iter::once(&key.name).chain(key.aliases);
    let spellings: Vec<String> = names.map(|name| loose(name)).collect();
    format!("^({})$", spellings.join("|"))
}

/// A word in any case, with or without blanks, hyphens and underscores, as [`squash`] evens it out.
fn loose(word: &str) -> String {
    let gap = "[-_ ]*";
    let letters: Vec<String> = squash(word).chars().map(letter).collect();
    format!("{gap}{}{gap}", letters.join(gap))
}

/// A character in either case.
fn letter(c: char) -> String {
    if c.is_ascii_alphabetic() {
        format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase())
    } else if matches!(c, '%' | '/') || c.is_ascii_digit() {
        c.to_string()
    } else {
        format!(r"\{c}")
    }
}

/// Words with `|` between them, each in any case; what stands in brackets stays.
fn any_case_words(words: &str) -> Vec<String> {
    let word = |word: &str| {
        if word.starts_with('[') {
            word.to_owned()
        } else {
            word.chars().map(letter).collect()
        }
    };
    words.split('|').map(word).collect()
}

fn group(words: &[String]) -> String {
    format!("({})", words.join("|"))
}

fn any_case(words: &str) -> String {
    format!(r"^\s*{}\s*$", group(&any_case_words(words)))
}

/// A number with a unit of one of these kinds.
fn quantities(units: &[Unit]) -> String {
    let mut spellings = Vec::new();
    for unit in units {
        let (exact, any) = quantity::spellings(*unit);
        spellings.extend(exact.into_iter().map(str::to_owned));
        spellings.extend(
            any.into_iter()
                .map(|name| name.chars().map(letter).collect()),
        );
        if *unit == Unit::Count {
            spellings.push(String::new());
        }
    }
    format!(r"^\s*[0-9]+(\.[0-9]+)?\s*({})\s*$", spellings.join("|"))
}

/// A pattern without its anchors.
fn inner(pattern: &str) -> String {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    pattern.strip_suffix('$').unwrap_or(pattern).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::sample;
    use super::*;

    static VALIDATOR: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::draft202012::new(&schema()).unwrap());

    #[test]
    fn the_schema_is_a_schema_of_a_size_that_editors_load() {
        let schema = schema();
        jsonschema::meta::validate(&schema).unwrap();
        assert!(schema.to_string().len() < 200_000);
    }

    proptest! {
        #[test]
        fn any_document_of_the_table_is_valid_by_the_schema(document in sample::document()) {
            let complaints: Vec<String> =
                VALIDATOR.iter_errors(&document).map(|error| error.to_string()).collect();
            prop_assert_eq!(complaints, [""; 0], "{}", document);
        }
    }
}
