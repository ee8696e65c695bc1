//! The generated sections of the documentation beside what the tables say now. Setting `UPDATE_GOLDENS` writes them anew.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests read the documentation; the crate itself reads no file"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::path::Path;

use persona::documentation;

const PAGES: [&str; 2] = ["persona-format.md", "rules.md"];
const END: &str = "<!-- end -->";

/// The page with every generated section as the tables have it, and the names of the sections.
fn made(page: &str) -> (String, Vec<String>) {
    let sections = documentation();
    let mut parts = page.split("<!-- generated: ");
    let mut text = parts.next().unwrap().to_owned();
    let mut names = Vec::new();
    for part in parts {
        let (name, rest) = part.split_once(" -->\n").unwrap();
        let (_, behind) = rest
            .split_once(END)
            .unwrap_or_else(|| panic!("`{name}` has no end"));
        let section = sections.iter().find(|(known, _)| *known == name);
        let (_, section) = section.unwrap_or_else(|| panic!("there is no section `{name}`"));
        text.push_str(&format!(
            "<!-- generated: {name} -->\n{section}{END}{behind}"
        ));
        names.push(name.to_owned());
    }
    (text, names)
}

#[test]
fn generated_sections_say_what_the_tables_say_and_each_stands_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut found = Vec::new();
    for page in PAGES {
        let path = folder.join(page);
        let text = fs::read_to_string(&path).unwrap();
        let (expected, names) = made(&text);
        found.extend(names);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&path, &expected).unwrap();
        } else {
            assert!(
                text == expected,
                "{page} is stale; run the test with UPDATE_GOLDENS=1"
            );
        }
    }
    found.sort();
    let mut expected: Vec<_> = documentation().iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
