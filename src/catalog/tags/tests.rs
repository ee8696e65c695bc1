//! Which persona tags, mappings and the default come to, and the laws of it.

use proptest::prelude::*;

use super::*;

fn mappings(entries: &[(&str, &str, i32)]) -> BTreeMap<Tag, Mapping> {
    let mapping = |persona: &str, priority| Mapping {
        target: Target::Persona(persona.parse().unwrap()),
        priority,
    };
    entries
        .iter()
        .map(|(tag, persona, priority)| (tag.parse().unwrap(), mapping(persona, *priority)))
        .collect()
}

/// `persona via origin`, `conflict TAGS`, or `unbound`.
fn outcome(
    explicit: Option<&str>,
    tags: &[&str],
    entries: &[(&str, &str, i32)],
    default: Option<&str>,
) -> String {
    let explicit = explicit.map(|text| ExplicitBinding {
        persona: text.parse().unwrap(),
        by: "root".to_owned(),
        at: Moment(1),
    });
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let default = default.map(|name| name.parse().unwrap());
    match resolve(
        explicit.as_ref(),
        &tags,
        &mappings(entries),
        default.as_ref(),
    ) {
        Resolution::Bound(binding) => format!("{} via {}", binding.persona, binding.origin),
        Resolution::Conflict(Conflict::Personas { candidates, .. }) => {
            let tags: Vec<_> = candidates.iter().map(|(tag, _)| tag.as_str()).collect();
            format!("conflict {}", tags.join(" "))
        }
        Resolution::Conflict(conflict) => conflict.to_string(),
        Resolution::Unbound => "unbound".to_owned(),
    }
}

#[test]
fn explicit_wins_over_tags_and_tags_over_the_default() {
    let entries = [
        ("web", "front", 5),
        ("db", "database@3", 9),
        ("prod", "front", 5),
    ];
    let check = |explicit, tags: &[&str], default, expected: &str| {
        assert_eq!(
            outcome(explicit, tags, &entries, default),
            expected,
            "{explicit:?} {tags:?} {default:?}"
        );
    };
    check(
        Some("other@2"),
        &["web", "db"],
        Some("base"),
        "other@2 via explicit",
    );
    check(
        None,
        &["web", "db"],
        Some("base"),
        "database@3 via tag db (priority 9)",
    );
    check(
        None,
        &["web"],
        Some("base"),
        "front via tag web (priority 5)",
    );
    check(
        None,
        &["web", "prod", "web"],
        None,
        "front via tag prod (priority 5)",
    );
    check(None, &["unknown"], Some("base"), "base via default");
    check(None, &[], None, "unbound");
}

#[test]
fn equal_priorities_for_different_personas_are_a_conflict_unless_outranked() {
    let entries = [
        ("a", "one", 5),
        ("b", "two", 5),
        ("c", "one@1", 5),
        ("top", "three", 6),
    ];
    let check = |tags: &[&str], expected: &str| {
        assert_eq!(outcome(None, tags, &entries, Some("base")), expected)
    };
    check(&["b", "a"], "conflict a b");
    check(&["a", "c"], "conflict a c");
    check(&["a", "b", "top"], "three via tag top (priority 6)");
}

#[test]
fn tags_and_references_are_checked() {
    for good in ["web", "tier:front/eu-1", "käse", "a+b"] {
        assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        "+web",
        "-web",
        "a b",
        "a\tb",
        "a<b",
        "a\u{0}",
        &"x".repeat(64),
    ] {
        assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
    }
    assert_eq!(
        "Web@12".parse::<PersonaRef>().unwrap().to_string(),
        "web@12"
    );
    for bad in [
        "web@",
        "web@0",
        "web@-1",
        "web@1@2",
        "@1",
        "web@4294967296",
        "-",
    ] {
        assert!(bad.parse::<PersonaRef>().is_err(), "{bad:?}");
    }
}

#[test]
fn overrides_are_laid_by_rising_priority_over_whatever_persona_there_is() {
    let mut mappings = mappings(&[("web", "front", 5)]);
    for (tag, priority) in [("z", 1), ("b", 7), ("a", 7), ("other", 9)] {
        let target = Target::Override {
            digest: Digest::of_bytes(tag.as_bytes()),
        };
        mappings.insert(tag.parse().unwrap(), Mapping { target, priority });
    }
    let explicit = ExplicitBinding {
        persona: "own@2".parse().unwrap(),
        by: "root".to_owned(),
        at: Moment(1),
    };
    let default = "base".parse().unwrap();
    let check = |explicit, tags: &[&str], persona: &str, laid: &str| {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let resolution = resolve(explicit, &tags, &mappings, Some(&default));
        let Resolution::Bound(binding) = resolution else {
            panic!("{resolution:?}")
        };
        let order: Vec<_> = binding
            .overrides
            .iter()
            .map(|laid| laid.tag.as_str())
            .collect();
        assert_eq!(
            (
                binding.persona.to_string().as_str(),
                order.join(" ").as_str()
            ),
            (persona, laid),
            "{tags:?}"
        );
    };
    check(None, &["b", "web", "z", "a"], "front", "z a b");
    check(None, &["a", "z"], "base", "z a");
    check(Some(&explicit), &["a", "web", "b"], "own@2", "a b");
    let nothing = resolve(None, &["a".to_owned()], &mappings, None);
    assert_eq!(
        nothing,
        Resolution::Unbound,
        "an override alone is no persona"
    );
}

#[test]
fn mappings_of_earlier_versions_of_the_store_are_read() {
    let old = serde_json::json!({"persona": {"name": "web", "pin": 3}, "priority": 4});
    let mapping: Mapping = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(mapping.persona().unwrap().to_string(), "web@3");
    assert_eq!(serde_json::to_value(&mapping).unwrap(), old);
}

fn any_entries() -> impl Strategy<Value = Vec<(String, String, i32)>> {
    proptest::collection::vec(("[a-f]", "[p-r](@[12])?", 0..3_i32), 0..8)
}

proptest! {
    #[test]
    fn the_order_of_tags_does_not_matter(entries in any_entries(), tags in proptest::collection::vec("[a-h]", 0..6), seed in 0..720_usize) {
        let entries: Vec<_> = entries.iter().map(|(t, p, n)| (t.as_str(), p.as_str(), *n)).collect();
        let mappings = mappings(&entries);
        let mut shuffled = tags.clone();
        (0..shuffled.len()).for_each(|n| { let len = shuffled.len(); shuffled.swap(n, (seed + n * 5) % len) });
        shuffled.extend(tags.first().cloned());
        prop_assert_eq!(resolve(None, &tags, &mappings, None), resolve(None, &shuffled, &mappings, None));
    }

    #[test]
    fn nothing_outranks_what_is_bound_and_a_conflict_has_rivals(entries in any_entries(), tags in proptest::collection::vec("[a-h]", 0..6)) {
        let entries: Vec<_> = entries.iter().map(|(t, p, n)| (t.as_str(), p.as_str(), *n)).collect();
        let mappings = mappings(&entries);
        let carried: Vec<_> = mappings.iter().filter(|(tag, _)| tags.contains(&tag.0)).collect();
        match resolve(None, &tags, &mappings, None) {
            Resolution::Bound(Binding { persona, origin: Origin::Tag { tag, priority }, .. }) => {
                prop_assert_eq!(&mappings[&tag], &Mapping { target: Target::Persona(persona.clone()), priority });
                prop_assert!(tags.contains(&tag.0));
                let rules = carried.iter().all(|(_, m)| m.priority < priority || (m.priority == priority && m.persona() == Some(&persona)));
                prop_assert!(rules);
            }
            Resolution::Bound(binding) => prop_assert!(false, "bound without a tag: {binding:?}"),
            Resolution::Conflict(Conflict::Personas { priority, candidates }) => {
                prop_assert!(carried.iter().all(|(_, m)| m.priority <= priority));
                let rivals = carried.iter().filter(|(_, m)| m.priority == priority).count();
                prop_assert_eq!(candidates.len(), rivals);
                prop_assert!(candidates.iter().any(|(_, persona)| *persona != candidates[0].1));
            }
            Resolution::Conflict(conflict) => prop_assert!(false, "no override is mapped: {conflict}"),
            Resolution::Unbound => prop_assert!(carried.is_empty()),
        }
    }
}
