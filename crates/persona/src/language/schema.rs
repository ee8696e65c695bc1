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
            definition.insert("allOf".to_owned(), Value::Array(required));
        }
        self.definitions.insert(name.to_owned(), definition);
        reference
    }

    fn key(&mut self, owner: &str, key: &'static Key) -> Value {
        let name = format!("{owner}.{}", key.name);
        let mut schema = self.shape(&name, &key.shape);
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
                    {"type": "object", "additionalProperties": number, "maxProperties": most},
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
                    "additionalProperties": self.shape(name, inner),
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
#[expect(
    clippy::disallowed_methods,
    reason = "the tests read the documents of other tests; the crate itself reads no file"
)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::sample;
    use super::*;
    use crate::document::{self, Format, Node, SourceText};
    use crate::problem::Kind;
    use crate::read::load;

    /// What a document is to editors: plain scalars by the core schema of YAML.
    fn instance(node: &Node) -> Value {
        match &node.value {
            document::Value::Quoted(text) => json!(text),
            document::Value::Plain(_) if node.is_empty() => Value::Null,
            document::Value::Plain(text) => match text.as_str() {
                "true" | "True" | "TRUE" => json!(true),
                "false" | "False" | "FALSE" => json!(false),
                _ => text
                    .parse::<i64>()
                    .map(Value::from)
                    .or_else(|_| text.parse::<f64>().map(Value::from))
                    .unwrap_or_else(|_| json!(text)),
            },
            document::Value::List(items) => items.iter().map(instance).collect(),
            document::Value::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), instance(&entry.value)))
                    .collect(),
            ),
        }
    }

    /// What the schema has against an instance.
    fn complaints(instance: &Value) -> Vec<String> {
        static VALIDATOR: LazyLock<jsonschema::Validator> =
            LazyLock::new(|| jsonschema::draft202012::new(&schema()).unwrap());
        let say = |error: jsonschema::ValidationError<'_>| {
            format!("{} at {}", error, error.instance_path())
        };
        VALIDATOR.iter_errors(instance).map(say).collect()
    }

    fn source<'a>(name: &'a str, text: &'a [u8], format: Format) -> SourceText<'a> {
        SourceText {
            name,
            text,
            format,
            persona_name: Some("x"),
        }
    }

    /// The documents of a folder, each with its instance and the kinds of its errors.
    fn documents(folder: &str) -> Vec<(String, Option<Value>, Vec<Kind>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let format = match path.extension().and_then(|ending| ending.to_str()) {
                Some("yaml") => Format::Yaml,
                Some("json") => Format::Json,
                Some("toml") => Format::Toml,
                _ => continue,
            };
            let text = fs::read(&path).unwrap();
            let name = path.display().to_string();
            let source = source(&name, &text, format);
            let (_, tree) = document::parse(&source, &mut Vec::new());
            let kinds = match load(&source) {
                Ok(_) => Vec::new(),
                Err(problems) => problems.iter().map(|problem| problem.kind).collect(),
            };
            found.push((name, tree.as_ref().map(instance), kinds));
        }
        assert!(!found.is_empty(), "{}", folder.display());
        found
    }

    #[test]
    fn the_schema_is_a_schema() {
        let schema = schema();
        jsonschema::meta::validate(&schema).unwrap();
        assert!(schema.to_string().len() < 200_000);
    }

    #[test]
    fn what_the_readers_take_is_valid_by_the_schema() {
        for folder in ["tests/accept", "tests/seeds", "../../examples/personas"] {
            for (name, instance, kinds) in documents(folder) {
                assert_eq!(kinds, [], "{name}");
                assert_eq!(complaints(&instance.unwrap()), [""; 0], "{name}");
            }
        }
    }

    #[test]
    fn what_is_refused_for_its_shape_is_not_valid() {
        let mut refused = 0;
        for (name, instance, kinds) in documents("tests/reject") {
            let shape = [Kind::UnknownKey, Kind::WrongType];
            let Some(instance) = instance.filter(|_| kinds.iter().any(|kind| shape.contains(kind)))
            else {
                continue;
            };
            refused += 1;
            assert_ne!(complaints(&instance), [""; 0], "{name}");
        }
        assert!(refused >= 3, "{refused}");
        for (text, valid) in [
            ("{}", true),
            ("name: web", true),
            ("persona_web: {cpu: 4}", false),
            ("persona_web: {description: x}", true),
            ("persona_web: {}\nname: x", false),
            ("nmae: web", false),
            ("base_configuration: {cpu: {maxx: 4}}", false),
            ("base_configuration: {memory: 4}", false),
            ("base_configuration: {memory: 4 GiB, cpu: 2 cores}", true),
            ("base_configuration: {memory: 4 GB/s}", false),
            ("adaptation_rules: [{when: a > 1}]", false),
            (
                "adaptation_rules: [{Condition: a > 1, ACTION: isolate}]",
                true,
            ),
            ("adaptation_rules: IF a THEN b", false),
            ("default_persona: maybe", false),
            ("trust_levels: {notify: 2}", false),
            ("software_stack: [[nginx]]", false),
            ("priority_metrics: 3", false),
            ("external_data_sources: [{frequency: 5m}]", false),
            ("external_data_sources: [{url: 'ftp://x/y'}]", false),
            ("os_settings: {anything: [a, 1]}", true),
            ("os_settings: {anything: {a: 1}}", false),
            ("restricted_commands: [/bin/sh]", false),
            ("pre_activation_script: {timeout: 5s}", false),
            ("description:", false),
        ] {
            let source = source("test", text.as_bytes(), Format::Yaml);
            let (_, tree) = document::parse(&source, &mut Vec::new());
            let found = complaints(&instance(&tree.unwrap()));
            assert_eq!(found.is_empty(), valid, "{text}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn any_document_of_the_table_is_valid_by_the_schema(document in sample::document()) {
            prop_assert_eq!(complaints(&document), [""; 0], "{}", document);
        }
    }
}
