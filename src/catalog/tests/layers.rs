//! Bases and overrides over a real store: what composes, what is refused, what is made again after a restart.

use proptest::prelude::*;

use super::*;

const BASE: &str =
    "name: base\nbase_configuration:\n  cpu: {min: 1, max: 4}\n  memory: {max: 4 GiB}\n";
const BASE_LARGER: &str =
    "name: base\nbase_configuration:\n  cpu: {min: 2, max: 8}\n  memory: {max: 4 GiB}\n";
const DERIVED: &str = "name: web\nextends: base\nbase_configuration: {memory: {min: 2 GiB}}\n";

impl Bench {
    fn lay(
        &mut self,
        tag: &str,
        text: &str,
        priority: i32,
    ) -> Result<Option<Mapping>, CatalogueError> {
        let tag: Tag = tag.parse().unwrap();
        let fragment = Fragment {
            format: Format::Yaml,
            text: text.to_owned(),
        };
        fragment.check(&tag)?;
        let digest = self.catalogue.hold(fragment);
        self.commit(|catalogue, batch| catalogue.map_override(batch, tag, digest, priority))
    }

    fn cpu_max(&self, reference: &str) -> Option<u32> {
        let (_, persona) = self.catalogue.persona(&reference.parse().unwrap()).unwrap();
        persona.base.cpu.unwrap().max
    }

    fn refusal(&mut self, text: &str, expect: Expect) -> String {
        self.add(text, expect).unwrap_err().to_string()
    }
}

/// The versions of a persona's layers, the lowest first.
fn layers(bench: &Bench, reference: &str) -> String {
    let binding = Binding {
        persona: reference.parse().unwrap(),
        origin: Origin::Explicit,
        overrides: Vec::new(),
    };
    let composition = bench.catalogue.composition(&binding).unwrap();
    let shown: Vec<_> = composition.versions().map(ToString::to_string).collect();
    shown.join(" ")
}

#[test]
fn a_persona_follows_the_current_version_of_its_base_or_stays_at_a_pinned_one() {
    let mut bench = Bench::new();
    stored(bench.add(BASE, Expect::New));
    stored(bench.add(DERIVED, Expect::New));
    stored(bench.add("name: fixed\nextends: [base@1]", Expect::New));
    assert_eq!(
        (bench.cpu_max("web"), bench.cpu_max("fixed")),
        (Some(4), Some(4))
    );
    stored(bench.add(BASE_LARGER, Expect::Existing));
    assert_eq!(
        (bench.cpu_max("web"), bench.cpu_max("fixed")),
        (Some(8), Some(4))
    );
    assert_eq!(layers(&bench, "web"), "base@2 web@1");
    assert_eq!(layers(&bench, "fixed"), "base@1 fixed@1");
    let mut bench = bench.reopen();
    assert_eq!(bench.cpu_max("web"), Some(8));
    let one = VersionNumber::new(1).unwrap();
    bench
        .commit(|c, batch| c.set_current(batch, &name("base"), one))
        .unwrap();
    assert_eq!(bench.cpu_max("web"), Some(4));
    // What it says itself is the same, whatever its base says.
    let same = "extends: [base]\nname: web\nbase_configuration:\n  memory:\n    min: 2 GiB\n";
    assert!(matches!(
        bench
            .add(&same.replace("[base]", "base"), Expect::Existing)
            .unwrap(),
        Added::Unchanged(_)
    ));
}

#[test]
fn each_base_lies_once_below_what_builds_on_it_and_a_later_one_over_an_earlier() {
    let mut bench = Bench::new();
    for text in [
        "name: root\nenvironment_variables: {WHO: root, ROOT: '1'}",
        "name: left\nextends: root\nenvironment_variables: {WHO: left, L: '1'}",
        "name: right\nextends: root\nenvironment_variables: {WHO: right}",
        "name: top\nextends: [left, right]",
        "name: turned\nextends: [right, left, root]",
    ] {
        stored(bench.add(text, Expect::New));
    }
    let who = |bench: &Bench, reference: &str| {
        let (_, persona) = bench
            .catalogue
            .persona(&reference.parse().unwrap())
            .unwrap();
        persona.environment["WHO"].expose().to_owned()
    };
    assert_eq!(layers(&bench, "top"), "root@1 left@1 right@1 top@1");
    assert_eq!(layers(&bench, "turned"), "root@1 right@1 left@1 turned@1");
    assert_eq!(
        (who(&bench, "top"), who(&bench, "turned")),
        ("right".to_owned(), "left".to_owned())
    );
}

#[test]
fn bases_that_cannot_be_are_refused_by_name() {
    let mut bench = Bench::new();
    stored(bench.add("name: base", Expect::New));
    stored(bench.add("name: a\nextends: base", Expect::New));
    stored(bench.add("name: b\nextends: a", Expect::New));
    assert_eq!(
        bench.refusal("name: c\nextends: bas", Expect::New),
        "persona `c` builds on `bas`, and there is no persona `bas`; there are a, b, base"
    );
    assert_eq!(
        bench.refusal("name: c\nextends: base@7", Expect::New),
        "persona `base` has no version 7; its newest is 1"
    );
    assert_eq!(
        bench.refusal("name: base\nextends: b", Expect::Existing),
        "personas build on each other in a circle: base -> b -> a -> base; take one of them out of `extends`"
    );
    for depth in 1..=16 {
        let below = if depth == 1 {
            "base".to_owned()
        } else {
            format!("d{}", depth - 1)
        };
        stored(bench.add(&format!("name: d{depth}\nextends: {below}"), Expect::New));
    }
    assert_eq!(
        bench.refusal("name: d17\nextends: d16", Expect::New),
        "persona `d17` builds on too much: at most 16 personas one on the other and 64 in all"
    );
    // Problems of the document itself come first, all of them.
    let error = bench.add(
        "name: c\nextends: nobody\nrols: x\nbase_configuration: {cpu: {max: -1}}",
        Expect::New,
    );
    assert!(matches!(error, Err(CatalogueError::Invalid(problems)) if problems.len() == 2));
}

#[test]
fn a_base_is_not_changed_to_what_breaks_those_who_build_on_it() {
    let mut bench = Bench::new();
    stored(bench.add(BASE, Expect::New));
    stored(bench.add(DERIVED, Expect::New));
    stored(bench.add(
        "name: shop\nextends: web\nbase_configuration: {cpu: {min: 3}}",
        Expect::New,
    ));
    stored(bench.add(
        "name: fixed\nextends: base@1\nbase_configuration: {memory: {min: 3 GiB}}",
        Expect::New,
    ));
    let small = "name: base\nbase_configuration:\n  cpu: {max: 2}\n  memory: {max: 1 GiB}\n";
    assert_eq!(
        bench.refusal(small, Expect::Existing),
        "others build on `base` and would not be valid with it: \
         `shop`: shop@1 on base@2, web@1 is no valid persona: `min` (2 GiB) is above `max` (1 GiB) (web@1, line 3); and 1 more; \
         `web`: web@1 on base@2 is no valid persona: `min` (2 GiB) is above `max` (1 GiB) (web@1, line 3)"
    );
    assert_eq!(
        bench.catalogue.current(&name("base")).unwrap().number.get(),
        1
    );
    let contradiction = bench.add(
        "name: other\nextends: base\nbase_configuration: {cpu: {min: 5}}",
        Expect::New,
    );
    assert!(matches!(contradiction, Err(CatalogueError::Invalid(_))));
    let mut bench = bench.reopen();
    assert_eq!(stored(bench.add(BASE_LARGER, Expect::Existing)), 2);
}

#[test]
fn a_base_is_deleted_only_by_force_and_what_is_in_force_can_be_made_again() {
    let mut bench = Bench::new();
    stored(bench.add(BASE, Expect::New));
    stored(bench.add(DERIVED, Expect::New));
    bench.bind(VM, "web").unwrap();
    let Some(Wanted::Started(before)) = bench.want(VM, &[], Insistence::Keep) else {
        panic!("not started")
    };
    let delete =
        |bench: &mut Bench, how| bench.commit(|c, batch| c.delete(batch, &name("base"), how));
    let error = delete(&mut bench, Deletion::IfUnused).unwrap_err();
    assert_eq!(
        error.to_string(),
        "persona `base` is in use by domain 07070707-0707-0707-0707-070707070707, persona web; free them of it first, or force it"
    );
    delete(&mut bench, Deletion::Forced).unwrap();
    for _ in 0..2 {
        bench = bench.reopen();
        let composition = bench
            .catalogue
            .activation(VM)
            .unwrap()
            .compositions()
            .next()
            .unwrap();
        let composed = bench.catalogue.effective(composition).unwrap();
        let Desired::Persona { digest, .. } = &before.desired else {
            panic!("nothing")
        };
        assert_eq!(&composed.persona.digest, digest);
    }
    let Resolution::Bound(binding) = bench.catalogue.resolve(VM, &[]) else {
        panic!("unbound")
    };
    assert!(matches!(
        bench.catalogue.desired(&binding),
        Err(CatalogueError::NoBase { .. })
    ));
}

#[test]
fn a_default_persona_that_cannot_be_made_is_still_the_default_after_a_restart() {
    let mut bench = Bench::new();
    stored(bench.add(BASE, Expect::New));
    let text = "name: usual\nextends: base\ndefault_persona: true\n";
    stored(bench.add(text, Expect::New));
    bench
        .commit(|c, batch| c.delete(batch, &name("base"), Deletion::Forced))
        .unwrap();
    bench = bench.reopen();
    assert_eq!(bench.catalogue.default_persona(), Some(&name("usual")));
    let Resolution::Bound(binding) = bench.catalogue.resolve(VM, &[]) else {
        panic!("unbound, so what is in force would be taken away")
    };
    assert!(matches!(
        bench.catalogue.desired(&binding),
        Err(CatalogueError::NoBase { .. })
    ));
}

#[test]
fn overrides_of_a_domains_tags_lie_over_its_persona_by_priority() {
    let mut bench = Bench::new();
    stored(bench.add(BASE, Expect::New));
    stored(bench.add(DERIVED, Expect::New));
    bench.map("front", "web", 0).unwrap();
    let over = |max: u32| format!("base_configuration: {{cpu: {{max: {max}}}}}");
    bench.lay("small", &over(2), 1).unwrap();
    bench.lay("large", &over(16), 2).unwrap();
    let max = |bench: &Bench, tags: &[&str]| {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        match bench.catalogue.resolve(VM, &tags) {
            Resolution::Bound(binding) => {
                let composition = bench.catalogue.composition(&binding).unwrap();
                bench
                    .catalogue
                    .effective(&composition)
                    .unwrap()
                    .persona
                    .base
                    .cpu
                    .unwrap()
                    .max
            }
            other => panic!("{other:?}"),
        }
    };
    let check = |bench: &Bench| {
        assert_eq!(max(bench, &["front"]), Some(4));
        assert_eq!(max(bench, &["small", "front"]), Some(2));
        assert_eq!(max(bench, &["large", "front", "small"]), Some(16));
    };
    check(&bench);
    let mut bench = bench.reopen();
    check(&bench);
    bench.lay("large", &over(16), 1).unwrap();
    let tags = ["front".to_owned(), "small".to_owned(), "large".to_owned()];
    let Resolution::Conflict(conflict) = bench.catalogue.resolve(VM, &tags) else {
        panic!("no conflict")
    };
    assert_eq!(
        conflict.to_string(),
        "overrides of priority 1 set `base_configuration.cpu.max` differently: that of tag `large` on line 1, that of \
         tag `small` on line 1; give one of them a higher priority"
    );
    bench
        .lay("large", "environment_variables: {A: x}", 1)
        .unwrap();
    assert_eq!(
        max(&bench, &["front", "small", "large"]),
        Some(2),
        "they touch different values"
    );
    let refused = bench.lay("bad", "base_configuration: {cpus: 2}\nname: x", 0);
    assert!(
        matches!(refused, Err(CatalogueError::InvalidOverride(problems)) if problems.len() == 2)
    );
}

#[test]
fn an_override_is_a_new_activation_that_a_restart_makes_again_and_nothing_keeps_it_for_ever() {
    let mut bench = Bench::new();
    stored(bench.add(BASE, Expect::New));
    bench.map("front", "base", 0).unwrap();
    let Some(Wanted::Started(plain)) = bench.want(VM, &["front"], Insistence::Keep) else {
        panic!("not started")
    };
    bench
        .lay("prod", "environment_variables: {STAGE: prod}", 0)
        .unwrap();
    let Some(Wanted::Started(laid)) = bench.want(VM, &["front", "prod"], Insistence::Keep) else {
        panic!("not started")
    };
    assert!(laid.generation > plain.generation);
    // Other words for the same are no new activation.
    bench
        .lay(
            "prod",
            "# the stage\nenvironment_variables:\n  STAGE: prod\n",
            3,
        )
        .unwrap();
    assert!(matches!(
        bench.want(VM, &["front", "prod"], Insistence::Keep),
        Some(Wanted::Unchanged(_))
    ));
    let texts = |bench: &Bench| bench.catalogue.store.all::<Fragment>().unwrap().len();
    let mut bench = bench.reopen();
    assert_eq!(
        texts(&bench),
        1,
        "what nothing names any more is removed at the start"
    );
    bench
        .commit(|c, batch| c.unmap(batch, &"prod".parse().unwrap()))
        .unwrap();
    bench = bench.reopen();
    let composition = bench
        .catalogue
        .activation(VM)
        .unwrap()
        .compositions()
        .last()
        .unwrap();
    let composed = bench.catalogue.effective(composition).unwrap();
    assert_eq!(composed.persona.environment["STAGE"].expose(), "prod");
    bench.commit(|c, batch| c.forget(batch, VM));
    assert_eq!(texts(&bench.reopen()), 0);
}

#[test]
fn activations_of_earlier_versions_of_the_store_are_read() {
    let mut bench = Bench::new();
    stored(bench.add(WEB, Expect::New));
    bench.bind(VM, "web").unwrap();
    let Some(Wanted::Started(now)) = bench.want(VM, &[], Insistence::Keep) else {
        panic!("not started")
    };
    let Desired::Persona { digest, .. } = &now.desired else {
        panic!("nothing")
    };
    let old = serde_json::json!({
        "generation": now.generation, "state": "pending", "attempts": 0, "wanted_at": 20,
        "desired": {"persona": {"name": "web", "version": 1, "digest": digest, "origin": {"kind": "explicit"}}},
        "standing": {"name": "web", "version": 1},
    });
    let read: Activation = serde_json::from_value(old).unwrap();
    assert_eq!(read.desired, now.desired);
    assert_eq!(read.standing.unwrap().persona.to_string(), "web@1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_tags_and_of_their_mapping_does_not_matter(
        laid in proptest::collection::btree_map("[a-d]", (0..3_i32, "[x-z]", "[A-B]"), 0..4),
        seed in 0..24_usize,
    ) {
        let mut laid: Vec<_> = laid.into_iter().collect();
        let outcome = |laid: &[(String, (i32, String, String))]| {
            let mut bench = Bench::new();
            stored(bench.add(WEB, Expect::New));
            bench.bind(VM, "web").unwrap();
            for (tag, (priority, value, key)) in laid {
                bench.lay(tag, &format!("environment_variables: {{{key}: {value}}}"), *priority).unwrap();
            }
            let tags: Vec<String> = laid.iter().map(|(tag, _)| tag.clone()).collect();
            match bench.catalogue.resolve(VM, &tags) {
                Resolution::Bound(binding) => {
                    let composition = bench.catalogue.composition(&binding).unwrap();
                    format!("{}", bench.catalogue.digest(&composition).unwrap())
                }
                Resolution::Conflict(conflict) => conflict.to_string(),
                Resolution::Unbound => "unbound".to_owned(),
            }
        };
        let there = outcome(&laid);
        let count = laid.len();
        (0..count).for_each(|n| laid.swap(n, (seed + n * 5) % count));
        prop_assert_eq!(there, outcome(&laid));
    }
}
