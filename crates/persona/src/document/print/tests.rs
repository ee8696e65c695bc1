//! Printing and reading back.

use proptest::prelude::*;

use super::*;
use crate::document::comments::comments;
use crate::document::{Format, SourceText, parse};

fn read(format: Format, document: &str) -> (Text, Option<Node>) {
    let source = SourceText {
        name: "test",
        text: document.as_bytes(),
        format,
        persona_name: None,
    };
    let mut problems = Vec::new();
    let (text, tree) = parse(&source, &mut problems);
    assert_eq!(tree.is_none(), !problems.is_empty(), "{problems:?}");
    (text, tree)
}

fn printed(format: Format, document: &str) -> Printed {
    let (text, tree) = read(format, document);
    let tree = tree.unwrap_or_else(|| panic!("does not parse: {document}"));
    print(&tree, &text, &comments(&text, 0, format))
}

/// A tree without places, where a text is a text however it is written.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Nothing,
    /// A number or a truth value.
    Value(String),
    Text(String),
    List(Vec<Shape>),
    Map(Vec<(String, Shape)>),
}

fn shape(node: &Node) -> Shape {
    match &node.value {
        _ if node.is_empty() => Shape::Nothing,
        Value::Plain(text) if scalar::is_value(text) => Shape::Value(text.clone()),
        Value::Plain(text) | Value::Quoted(text) => Shape::Text(text.clone()),
        Value::List(items) => Shape::List(items.iter().map(shape).collect()),
        Value::Map(entries) => {
            let pair = |entry: &Entry| (entry.key.clone(), shape(&entry.value));
            Shape::Map(entries.iter().map(pair).collect())
        }
    }
}

#[test]
fn documents_print_in_one_style_with_their_comments() {
    for (format, document, expected) in [
        (
            Format::Yaml,
            include_str!("cases/style.yaml"),
            include_str!("cases/style.out"),
        ),
        (
            Format::Yaml,
            include_str!("cases/comments.yaml"),
            include_str!("cases/comments.out"),
        ),
        (
            Format::Toml,
            include_str!("cases/tables.toml"),
            include_str!("cases/tables.out"),
        ),
        (
            Format::Json,
            include_str!("cases/object.json"),
            include_str!("cases/object.out"),
        ),
    ] {
        let first = printed(format, document);
        assert_eq!(first.text, expected, "{document}");
        assert_eq!(first.left_out, []);
        assert_eq!(printed(Format::Yaml, expected).text, expected);
    }
}

#[test]
fn a_comment_that_stands_with_what_is_not_in_the_tree_comes_back() {
    let document = "a: 1 # one\nb: 2 # two\n# three\nc: 3\n";
    let (text, tree) = read(Format::Yaml, document);
    let mut tree = tree.unwrap();
    let Value::Map(entries) = &mut tree.value else {
        panic!("{tree:?}")
    };
    entries.remove(1);
    let printed = print(&tree, &text, &comments(&text, 0, Format::Yaml));
    assert_eq!(printed.text, "a: 1 # one\n# three\nc: 3\n");
    let lost: Vec<_> = printed
        .left_out
        .iter()
        .map(|lost| &text.text[lost.at.clone()])
        .collect();
    assert_eq!(lost, ["# two"]);
}

#[test]
fn keys_in_another_order_take_their_comments_along() {
    let document = "# of b\nb:\n  # of x\n  x: 1\na: 2 # of a\n";
    let (text, tree) = read(Format::Yaml, document);
    let mut tree = tree.unwrap();
    let Value::Map(entries) = &mut tree.value else {
        panic!("{tree:?}")
    };
    entries.reverse();
    let printed = print(&tree, &text, &comments(&text, 0, Format::Yaml));
    assert_eq!(printed.text, "a: 2 # of a\n# of b\nb:\n  # of x\n  x: 1\n");
}

#[test]
fn json_prints_as_json() {
    let (_, tree) = read(
        Format::Json,
        "{\"a\": [1, -2.50e3, true, null, \"1\", \"\\u00e9\\n\"], \"b\": {}, \"c\": [], \"d\": {\"e\": {}}}",
    );
    assert_eq!(
        print_json(&tree.unwrap()),
        "{\n  \"a\": [\n    1,\n    -2.50e3,\n    true,\n    null,\n    \"1\",\n    \"é\\n\"\n  ],\n  \"b\": {},\n  \"c\": [],\n  \"d\": {\n    \"e\": {}\n  }\n}\n"
    );
    let (_, tree) = read(Format::Yaml, "[0x1F, .inf, 1., 01, +1, True, -1]");
    assert_eq!(
        print_json(&tree.unwrap())
            .split_whitespace()
            .collect::<String>(),
        "[\"0x1F\",\".inf\",\"1.\",\"01\",\"+1\",\"True\",-1]"
    );
}

fn scalar() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        4 => "[a-z]{1,12}",
        2 => "[ -~]{0,30}",
        2 => "[\\PC\n\t ]{0,12}",
        2 => "( {0,2}[a-z#:'\"\\-|>]{0,4}\n){1,5}[a-z]{0,3}",
        1 => "[ \n\ta]{0,6}",
        1 => "[0-9_:.eE+\\-x]{0,6}",
        1 => any::<String>(),
        1 => prop::sample::select(vec!["yes", "NO", "null", "~", "true", "", "---", "...", "- a", "? a", "<<", "=", ".inf", "1:30"])
            .prop_map(str::to_owned),
        1 => "[a-z ]{900,1200}",
    ];
    let values = prop::sample::select(vec!["", "null", "1", "-1.5", "true", "0x1F", ".nan", "1e9"]);
    prop_oneof![
        // Line ends of other kinds are evened out when a text is read.
        4 => texts.prop_map(|text| Value::Quoted(text.replace('\r', ""))),
        1 => values.prop_map(|value| Value::Plain(value.to_owned())),
    ]
}

fn tree() -> impl Strategy<Value = Node> {
    let node = |value| Node { value, at: 0..0 };
    let key = prop_oneof![6 => "[a-z_]{1,8}", 1 => "[ -~é]{0,10}", 1 => "[\\PC\n]{0,6}", 1 => "[a-z]{1000,1100}"];
    let inner = scalar()
        .prop_map(node)
        .prop_recursive(5, 40, 5, move |inner| {
            let entry = (key.clone(), inner.clone()).prop_map(|(key, value)| Entry {
                key,
                key_at: 0..0,
                value,
            });
            prop_oneof![
                prop::collection::vec(inner, 0..5).prop_map(move |items| node(Value::List(items))),
                prop::collection::vec(entry, 0..5)
                    .prop_map(move |entries| node(Value::Map(entries))),
            ]
        });
    inner.prop_filter("an empty document is refused", |node| !node.is_empty())
}

/// Pieces of documents with comments in all sorts of places.
fn commented() -> impl Strategy<Value = String> {
    const PIECES: [&str; 30] = [
        "a:",
        "b:",
        "c: 1",
        "- ",
        "-",
        "  ",
        "    ",
        "\n",
        "\n",
        "\n",
        "\n\n",
        " # one",
        "# two\n",
        "  # three\n",
        " #\n",
        "[1, 2]",
        "[x, # four\n  y]",
        "{k: v, # five\n l: w}",
        " |\n",
        " >-\n",
        "text",
        "'it''s'",
        "\"q\"",
        "&n ",
        "*n",
        "? ",
        ": ",
        "---",
        "null",
        "[]",
    ];
    prop::collection::vec(prop::sample::select(PIECES.as_slice()), 0..24)
        .prop_map(|pieces| pieces.concat())
}

/// A tree as text, with comments behind and between lines: before each line what is put there and how deep.
fn interspersed() -> impl Strategy<Value = String> {
    let line = (
        any::<bool>(),
        prop::option::weighted(0.2, 0_usize..6),
        0_u8..10,
    );
    (tree(), prop::collection::vec(line, 20)).prop_map(|(tree, comments)| {
        let text = print(&tree, &Text::new(""), &[]).text;
        let mut out = String::new();
        for ((index, line), (behind, own, blank)) in
            text.lines().enumerate().zip(comments.iter().cycle())
        {
            if *blank == 0 {
                out.push('\n');
            }
            if let Some(indent) = own {
                out.push_str(&format!("{}# own {index}\n", " ".repeat(*indent)));
            }
            out.push_str(line);
            if *behind {
                out.push_str(&format!(" # behind {index}"));
            }
            out.push('\n');
        }
        out
    })
}

/// Printed twice, with nothing lost on the way.
fn check_stable(format: Format, document: &str) -> Result<(), TestCaseError> {
    let source = SourceText {
        name: "test",
        text: document.as_bytes(),
        format,
        persona_name: None,
    };
    let (text, Some(tree)) = parse(&source, &mut Vec::new()) else {
        return Ok(());
    };
    let found = comments(&text, 0, format);
    let once = print(&tree, &text, &found);
    let (again, reread) = read(Format::Yaml, &once.text);
    let reread = reread.unwrap();
    prop_assert_eq!(shape(&reread), shape(&tree), "{}", once.text);
    let kept = comments(&again, 0, Format::Yaml);
    let words = |text: &Text, comments: &[Comment]| {
        let mut words: Vec<_> = comments
            .iter()
            .map(|comment| text.text[comment.at.clone()].trim_end().to_owned())
            .collect();
        words.sort();
        words
    };
    let mut all = words(&again, &kept);
    all.extend(words(&text, &once.left_out));
    all.sort();
    prop_assert_eq!(all, words(&text, &found), "{}", once.text);
    let twice = print(&reread, &again, &kept);
    prop_assert_eq!(twice.text, once.text);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_reads_back_as_the_same_tree(tree in tree()) {
        let once = print(&tree, &Text::new(""), &[]).text;
        let (text, reread) = read(Format::Yaml, &once);
        let reread = reread.unwrap_or_else(|| panic!("{once}"));
        prop_assert_eq!(shape(&reread), shape(&tree), "{}", once);
        prop_assert_eq!(print(&reread, &text, &[]).text, once);
        let json = print_json(&reread);
        let (_, from_json) = read(Format::Json, &json);
        let from_json = from_json.unwrap_or_else(|| panic!("{json}"));
        prop_assert_eq!(print_json(&from_json), json);
    }

    #[test]
    fn comments_are_kept_and_printing_again_changes_nothing(document in commented()) {
        check_stable(Format::Yaml, &document)?;
    }

    #[test]
    fn comments_between_and_behind_the_lines_of_any_tree_are_kept(document in interspersed()) {
        check_stable(Format::Yaml, &document)?;
    }
}

#[test]
fn the_largest_documents_print_in_bounded_time() {
    for line in ["- # c\n  a: 1 # d\n\n", "# c\n- 1\n", "- # c\n"] {
        check_stable(Format::Yaml, &line.repeat(6_000)).unwrap();
    }
    check_stable(Format::Yaml, &format!("a: 1\n{}", "#\n".repeat(100_000))).unwrap();
}

#[test]
fn whole_documents_print_stably() {
    for (format, document) in [
        (
            Format::Yaml,
            include_str!("../../../tests/accept/whole.yaml"),
        ),
        (
            Format::Yaml,
            include_str!("../../../tests/accept/rooted.yaml"),
        ),
        (
            Format::Yaml,
            include_str!("../../../../../examples/personas/demo-web.yaml"),
        ),
        (
            Format::Toml,
            include_str!("../../../tests/accept/tables.toml"),
        ),
        (
            Format::Json,
            include_str!("../../../tests/accept/tabbed.json"),
        ),
    ] {
        check_stable(format, document).unwrap();
    }
}
