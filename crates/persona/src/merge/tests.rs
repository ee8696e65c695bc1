//! What holds for every merge, and the cases by which it is explained.

use proptest::prelude::*;

use super::*;
use crate::document::{Format, SourceText, Text, parse_into};

fn read(text: &mut Text, name: &str, tag: Option<&str>, document: &str) -> Node {
    let source = SourceText {
        name,
        text: document.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    };
    let mut problems = Vec::new();
    parse_into(text, &source, tag, &mut problems).unwrap_or_else(|| panic!("{problems:?}"))
}

/// Values without their places.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Nothing,
    Text(String),
    List(Vec<Shape>),
    Map(Vec<(String, Shape)>),
}

fn shape(node: &Node) -> Shape {
    if node.is_empty() {
        return Shape::Nothing;
    }
    match &node.value {
        Value::Plain(text) | Value::Quoted(text) => Shape::Text(text.clone()),
        Value::List(items) => Shape::List(items.iter().map(shape).collect()),
        Value::Map(entries) => {
            let pair = |entry: &Entry| (entry.key.clone(), shape(&entry.value));
            Shape::Map(entries.iter().map(pair).collect())
        }
    }
}

/// The same with the keys of every map in order.
fn sorted(shape: Shape) -> Shape {
    match shape {
        Shape::List(items) => Shape::List(items.into_iter().map(sorted).collect()),
        Shape::Map(entries) => {
            let pair = |(key, value)| (key, sorted(value));
            let mut entries: Vec<_> = entries.into_iter().map(pair).collect();
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            Shape::Map(entries)
        }
        scalar => scalar,
    }
}

fn layers(documents: &[&str]) -> Shape {
    let mut text = Text::default();
    let trees = documents
        .iter()
        .map(|document| read(&mut text, "test", None, document));
    let merged = trees.reduce(|base, over| merge(base, over, strategy).unwrap());
    shape(&settle(merged.unwrap()))
}

#[test]
fn layers_merge_as_their_keys_say() {
    for (documents, expected) in [
        (
            vec!["{a: 1, b: {c: 2, d: 3}}", "{b: {d: 4, e: 5}, f: 6}"],
            "{a: 1, b: {c: 2, d: 4, e: 5}, f: 6}",
        ),
        (vec!["{a: 1, b: {c: 2}}", "{a: null, b: {c: }}"], "{b: {}}"),
        (vec!["{b: {c: 2}}", "{b: ~}", "{b: {d: 3}}"], "{b: {d: 3}}"),
        (vec!["{a: {b: 1}}", "{a: 2}", "{a: [3]}"], "{a: [3]}"),
        (vec!["{a: [1, 2]}", "{a: [3]}"], "{a: [3]}"),
        (
            vec![
                "{restricted_commands: [nc, su]}",
                "{restricted_commands: [nmap, nc]}",
            ],
            "{restricted_commands: [nc, su, nmap]}",
        ),
        (
            vec!["{restricted_commands: [nc]}", "{restricted_commands: null}"],
            "{restricted_commands: [nc]}",
        ),
        (
            vec![
                "{a: {restricted_commands: [nc]}}",
                "{a: {restricted_commands: [su]}}",
            ],
            "{a: {restricted_commands: [su]}}",
        ),
        (
            vec![
                "{adaptation_rules: [{name: a, when: x, then: [p, q]}, IF y, {name: b}]}",
                "{adaptation_rules: [{name: c}, IF y, {name: a, then: [r]}, IF z, {when: w}]}",
            ],
            "{adaptation_rules: [{name: a, when: x, then: [r]}, IF y, {name: b}, {name: c}, IF z, {when: w}]}",
        ),
        (
            vec![
                "{adaptation_rules: [{name: a, when: x}, {name: a, when: y}]}",
                "{adaptation_rules: [{name: a, when: z}]}",
            ],
            "{adaptation_rules: [{name: a, when: z}, {name: a, when: y}]}",
        ),
        (
            vec!["{adaptation_rules: [{name: a}]}", "{adaptation_rules: }"],
            "{}",
        ),
        (
            vec![
                "{performance_profile: [{at: '08:00', iops: 1}]}",
                "{performance_profile: [{at: '09:00', iops: 2}, {at: '08:00', iops: 3}]}",
            ],
            "{performance_profile: [{at: '08:00', iops: 3}, {at: '09:00', iops: 2}]}",
        ),
    ] {
        assert_eq!(layers(&documents), layers(&[expected]), "{documents:?}");
    }
}

#[test]
fn the_same_key_twice_in_one_document_stays_there_twice() {
    let found = layers(&["{a: 1, a: 2}", "{a: 3}"]);
    let pair = |value: &str| ("a".to_owned(), Shape::Text(value.to_owned()));
    assert_eq!(found, Shape::Map(vec![pair("3"), pair("2")]));
}

#[test]
fn each_value_keeps_its_origin() {
    let mut text = Text::default();
    let base = read(&mut text, "base@3", None, "a: 1\nb:\n  c: 2\n  d: 3\n");
    let over = read(&mut text, "over.yaml", Some("web"), "# c\nb:\n  d: 4\n");
    let merged = merge(base, over, strategy).unwrap();
    let found = |path: &[&str]| {
        let mut node = &merged;
        for key in path {
            let Value::Map(entries) = &node.value else {
                panic!("{path:?}")
            };
            node = &entries
                .iter()
                .find(|entry| entry.key == *key)
                .unwrap()
                .value;
        }
        let origin = text.origin(&node.at);
        (origin.document, origin.line, origin.tag)
    };
    let base = |line| ("base@3".to_owned(), line, None);
    assert_eq!(found(&["a"]), base(1));
    assert_eq!(found(&["b", "c"]), base(3));
    let web = Some("web".to_owned());
    assert_eq!(found(&["b", "d"]), ("over.yaml".to_owned(), 3, web));
}

#[test]
fn what_together_is_too_large_is_refused() {
    let mut text = Text::default();
    let list = |key: &str| {
        let items: String = (0..limits::MOST_VALUES / 2)
            .map(|item| format!("{item},"))
            .collect();
        format!("{{{key}: [{items}]}}")
    };
    let one = read(&mut text, "one", None, &list("a"));
    let other = read(&mut text, "other", None, &list("b"));
    let error = merge(one, other, strategy).unwrap_err();
    assert_eq!(
        error.to_string(),
        "together the documents have 20005 values; at most 20000 are read"
    );
}

/// A text, or nothing.
fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]", 1 => Just("null".to_owned())]
}

/// An item of a list that merges by key: a map with a name, one without, or a text; no name twice.
fn rules() -> impl Strategy<Value = Vec<String>> {
    let rule = prop_oneof![
        3 => ("[a-d]", scalar(), prop::collection::vec("[x-z]", 0..3))
            .prop_map(|(name, when, then)| (name.clone(), format!("{{name: {name}, when: {when}, then: [{}]}}", then.join(", ")))),
        1 => "[x-z]".prop_map(|text| (text.clone(), text)),
    ];
    prop::collection::vec(rule, 0..5).prop_map(|mut rules| {
        rules.sort();
        rules.dedup_by(|one, other| one.0 == other.0);
        rules.into_iter().map(|(_, text)| text).collect()
    })
}

/// A map of these keys and values in some order, each there or not.
fn map_of(entries: Vec<(&'static str, BoxedStrategy<String>)>) -> BoxedStrategy<String> {
    let entry = |(key, value): (&'static str, BoxedStrategy<String>)| {
        prop::option::weighted(0.7, value.prop_map(move |value| format!("{key}: {value}")))
    };
    let entries: Vec<_> = entries.into_iter().map(entry).collect();
    entries
        .prop_map(|entries| entries.into_iter().flatten().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|entries| format!("{{{}}}", entries.join(", ")))
        .boxed()
}

/// A document whose values have the kinds that the language gives them. Nothing removes a map or a list by key.
fn document() -> BoxedStrategy<String> {
    let texts = || {
        let texts = prop::collection::vec("[a-d]", 0..4);
        texts.prop_map(|texts| format!("[{}]", texts.join(", ")))
    };
    let list = |items: BoxedStrategy<Vec<String>>| {
        items
            .prop_map(|items| format!("[{}]", items.join(", ")))
            .boxed()
    };
    let or_nothing = |value: BoxedStrategy<String>| {
        prop_oneof![5 => value, 1 => Just("null".to_owned())].boxed()
    };
    let cpu = map_of(vec![("min", scalar().boxed()), ("max", scalar().boxed())]);
    map_of(vec![
        ("name", scalar().boxed()),
        (
            "base_configuration",
            map_of(vec![("cpu", cpu), ("disk", scalar().boxed())]),
        ),
        ("learning_domains", or_nothing(texts().boxed())),
        ("restricted_commands", or_nothing(texts().boxed())),
        ("adaptation_rules", list(rules().boxed())),
    ])
}

/// Every path to a single value outside of lists, with the value.
fn scalars(shape: &Shape, path: &str, found: &mut Vec<(String, Shape)>) {
    match shape {
        Shape::Map(entries) => {
            for (key, value) in entries {
                scalars(value, &format!("{path}/{key}"), found);
            }
        }
        Shape::List(_) => {}
        scalar => found.push((path.to_owned(), scalar.clone())),
    }
}

proptest! {
    #[test]
    fn merging_is_associative(one in document(), two in document(), three in document()) {
        let mut text = Text::default();
        let mut tree = |document: &str| read(&mut text, "test", None, document);
        let (one, two, three) = (tree(&one), tree(&two), tree(&three));
        let lay = |base: &Node, over: &Node| merge(base.clone(), over.clone(), strategy).unwrap();
        let left = lay(&lay(&one, &two), &three);
        let right = lay(&one, &lay(&two, &three));
        prop_assert_eq!(sorted(shape(&left)), sorted(shape(&right)));
        prop_assert_eq!(sorted(shape(&settle(left))), sorted(shape(&settle(right))));
    }

    #[test]
    fn an_empty_map_changes_nothing(document in document()) {
        let mut text = Text::default();
        let tree = read(&mut text, "test", None, &document);
        let empty = read(&mut text, "empty", None, "{}");
        // Texts of a set are in it once, however often they were written.
        let lay = |base: &Node, over: &Node| merge(base.clone(), over.clone(), strategy).unwrap();
        let below = lay(&empty, &tree);
        let above = lay(&tree, &empty);
        prop_assert_eq!(shape(&below), shape(&tree));
        prop_assert_eq!(shape(&above), shape(&tree));
        prop_assert_eq!(above.at, tree.at);
    }

    #[test]
    fn the_later_wins_wherever_it_says_something(one in document(), two in document()) {
        let mut text = Text::default();
        let over = read(&mut text, "test", None, &two);
        let mut said = Vec::new();
        scalars(&shape(&over), "", &mut said);
        let base = read(&mut text, "test", None, &one);
        let mut before = Vec::new();
        scalars(&shape(&base), "", &mut before);
        let merged = settle(merge(base, over, strategy).unwrap());
        let mut now = Vec::new();
        scalars(&shape(&merged), "", &mut now);
        for (path, value) in &said {
            let found = now.iter().find(|(other, _)| other == path).map(|(_, value)| value);
            prop_assert_eq!(found, Some(value).filter(|value| **value != Shape::Nothing), "{}", path);
        }
        for (path, value) in before.iter().filter(|(_, value)| *value != Shape::Nothing) {
            if !said.iter().any(|(other, _)| other == path) {
                prop_assert!(now.contains(&(path.clone(), value.clone())), "{path}");
            }
        }
    }

    #[test]
    fn the_order_of_keys_changes_nothing_but_the_order_of_keys(
        one in document(),
        (two, shuffled) in prop::collection::vec(("[a-f]", "[0-9]"), 0..6).prop_flat_map(|mut entries| {
            entries.sort();
            entries.dedup_by(|one, other| one.0 == other.0);
            (Just(entries.clone()), Just(entries).prop_shuffle())
        }),
    ) {
        let write = |entries: &[(String, String)]| {
            let lines: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", lines.join(", "))
        };
        let (two, shuffled) = (write(&two), write(&shuffled));
        prop_assert_eq!(sorted(layers(&[&one, &two])), sorted(layers(&[&one, &shuffled])));
        prop_assert_eq!(sorted(layers(&[&two, &one])), sorted(layers(&[&shuffled, &one])));
    }
}
