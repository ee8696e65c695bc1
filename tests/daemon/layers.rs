//! Personas that build on others and overrides of tags, end to end: what is in force, what is refused, what a restart
//! makes again, and what people are told of it.

use virt_persona::command::{Command, DomainName, Force, Mode, PersonaRef, Refusal, Reply};
use virt_persona::view::{Change, DomainView, EffectiveView, PlanView};

use crate::stage::{Running, Stage};

const WEB: &str = "[[domain]]\nname = 'web'\nmemory_mib = 512\nvcpus_maximum = 8\n";
const BASE: &str = "name: base\nbase_configuration:\n  cpu: {min: 1, max: 4}\n";
const FRONT: &str = "name: front\nextends: base\nenvironment_variables: {ROLE: front}\n\
    adaptation_rules:\n  - {name: up, when: cpu.utilization > 80%, then: add 1 vcpus}\n";

fn stored(daemon: &Running, name: &str, document: &str) -> Result<Reply, Refusal> {
    daemon.ask(Command::UpdatePersona {
        name: name.into(),
        document: document.into(),
        format: None,
        note: None,
    })
}

fn lay(daemon: &Running, tag: &str, document: &str, priority: i32) -> Result<Reply, Refusal> {
    daemon.ask(Command::MapOverride {
        tag: tag.into(),
        document: document.into(),
        format: None,
        priority,
    })
}

fn max(domain: &DomainView) -> Option<u32> {
    domain.vcpus.persona_max
}

fn web() -> DomainName {
    DomainName("web".into())
}

fn effective(daemon: &Running) -> EffectiveView {
    match daemon.ask(Command::Effective { domain: web() }) {
        Ok(Reply::Effective(effective)) => *effective,
        other => panic!("{other:?}"),
    }
}

fn plan(daemon: &Running, persona: &str) -> PlanView {
    let command = Command::Apply {
        domain: web(),
        persona: PersonaRef::parse(persona).unwrap(),
        mode: Mode::DryRun,
    };
    match daemon.ask(command) {
        Ok(Reply::Plan(plan)) => plan,
        other => panic!("{other:?}"),
    }
}

fn reason(refused: Result<Reply, Refusal>) -> String {
    refused.unwrap_err().to_string()
}

#[test]
fn a_base_that_changes_changes_what_builds_on_it_and_a_restart_keeps_it() {
    let stage = Stage::new(WEB);
    let id = stage.id("web");
    let daemon = stage.start();
    daemon.create(BASE);
    daemon.create(FRONT);
    daemon.map("front", "front");
    stage.simulated.set_tags(id, &["front"]);
    let before = daemon.wait_domain(id, "it is in force", |domain| max(domain) == Some(4));
    let bound = before.persona.unwrap();
    assert_eq!(
        (bound.name.as_str(), bound.bases),
        ("front", vec!["base@1".to_owned()])
    );
    stored(&daemon, "base", &BASE.replace("max: 4", "max: 6")).unwrap();
    let after = daemon.wait_domain(id, "the new base is in force", |domain| {
        max(domain) == Some(6)
    });
    let after = after.persona.unwrap();
    assert_eq!(
        (after.version, after.bases.as_slice()),
        (1, ["base@2".to_owned()].as_slice())
    );
    assert!(after.generation > bound.generation);
    assert_ne!(after.digest, bound.digest);
    // Other words for the same are no new activation.
    stored(
        &daemon,
        "base",
        &format!("# the same\n{}", BASE.replace("max: 4", "max: 6")),
    )
    .unwrap();
    assert_eq!(
        daemon.view().domains[&id]
            .persona
            .as_ref()
            .unwrap()
            .generation,
        after.generation
    );
    daemon.kill();
    let daemon = stage.start();
    let again = daemon.wait_domain(id, "it is in force again", |domain| max(domain) == Some(6));
    assert_eq!(again.persona.unwrap().generation, after.generation);
    let refused = reason(stored(&daemon, "base", "name: base\nextends: front\n"));
    assert!(refused.contains("base -> front -> base"), "{refused}");
    let refused = reason(daemon.ask(Command::DeletePersona {
        name: "base".into(),
        force: Force::No,
    }));
    assert!(refused.contains("persona front"), "{refused}");
}

#[test]
fn a_base_that_is_gone_leaves_what_is_in_force_and_is_told_as_a_problem() {
    let stage = Stage::new(WEB);
    let id = stage.id("web");
    let daemon = stage.start();
    daemon.create(BASE);
    daemon.create(FRONT);
    daemon.apply("web", "front");
    daemon.wait_domain(id, "it is in force", |domain| max(domain) == Some(4));
    daemon
        .ask(Command::DeletePersona {
            name: "base".into(),
            force: Force::Yes,
        })
        .unwrap();
    let told = |domain: &DomainView| {
        domain
            .problems
            .iter()
            .any(|text| text.contains("there is no persona `base`"))
    };
    let check = |daemon: &Running| {
        let domain = daemon.wait_domain(id, "the problem is told", told);
        assert_eq!(max(&domain), Some(4), "what holds goes on to hold");
        assert!(daemon.explain("web").problems[0].contains("there is no persona `base`"));
        assert!(daemon.view().personas["front"].problem.is_some());
    };
    check(&daemon);
    assert!(daemon.told("refusal")[0].contains("there is no persona `base`"));
    daemon.kill();
    let daemon = stage.start();
    check(&daemon);
    daemon.create(BASE);
    daemon.wait_domain(id, "it is well again", |domain| {
        !told(domain) && max(domain) == Some(4)
    });
}

#[test]
fn overrides_of_tags_are_laid_over_a_domains_persona_and_taken_off() {
    let stage = Stage::new(WEB);
    let id = stage.id("web");
    let daemon = stage.start();
    daemon.create(BASE);
    daemon.create(FRONT);
    daemon.apply("web", "front");
    let mapped = lay(
        &daemon,
        "prod",
        "base_configuration: {cpu: {max: 8}}\nadaptation_rules: [{name: up, priority: 7}]\n",
        0,
    );
    assert!(matches!(mapped, Ok(Reply::Mapped(view)) if view.change == Change::Changed));
    let again = lay(
        &daemon,
        "prod",
        "base_configuration: {cpu: {max: 8}}\nadaptation_rules: [{name: up, priority: 7}]\n",
        0,
    );
    assert!(matches!(again, Ok(Reply::Mapped(view)) if view.change == Change::Unchanged));
    stage.simulated.set_tags(id, &["prod"]);
    let domain = daemon.wait_domain(id, "the override is in force", |domain| {
        max(domain) == Some(8)
    });
    assert_eq!(domain.persona.unwrap().overrides, ["prod"]);
    let shown = effective(&daemon);
    for line in [
        "    min: 1 # base@1:3",
        "    max: 8 # override:1 (tag prod)",
        "  ROLE: front # front@1:3",
        "    priority: 7 # override:2 (tag prod)",
    ] {
        assert!(
            shown.document.lines().any(|found| found == line),
            "{line} in {}",
            shown.document
        );
    }
    let value = shown
        .values
        .iter()
        .find(|value| value.path == "base_configuration.cpu.max")
        .unwrap();
    assert_eq!(
        (value.origin.tag.as_deref(), value.origin.line),
        (Some("prod"), 1)
    );
    // The rule is explained from the first tick on that looked at it.
    let explained = daemon.wait_explained("web", "its rule was looked at", |explained| {
        !explained.rules.is_empty()
    });
    let rule = explained.rules.into_iter().next().unwrap();
    assert_eq!(rule.origin.unwrap().document, "front@1");
    // What a persona would come to with the domain's tags, each value with where it is from.
    daemon.create("name: other\nextends: front\nenvironment_variables: {ROLE: other}\n");
    let lines = plan(&daemon, "other").lines;
    let line = |subject: &str| {
        let line = lines.iter().find(|line| line.subject == subject);
        let line = line.unwrap_or_else(|| panic!("no {subject} in {lines:?}"));
        (line.now.clone(), line.then.clone(), line.from.clone())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        line("environment_variables.ROLE"),
        (some("front"), some("other"), "other@1, line 3".to_owned())
    );
    assert!(
        !lines
            .iter()
            .any(|line| line.subject == "base_configuration.cpu.max"),
        "it stays"
    );
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_domain(id, "it is in force again", |domain| max(domain) == Some(8));
    stage.simulated.set_tags(id, &[]);
    daemon.wait_domain(id, "it is taken off", |domain| max(domain) == Some(4));
}

#[test]
fn an_override_that_is_wrong_or_breaks_a_persona_in_use_is_refused() {
    let stage = Stage::new(WEB);
    let id = stage.id("web");
    let daemon = stage.start();
    daemon.create(BASE);
    daemon.apply("web", "base");
    stage.simulated.set_tags(id, &["prod"]);
    daemon.wait_domain(id, "it has the tag", |domain| domain.tags == ["prod"]);
    let refused = lay(
        &daemon,
        "prod",
        "name: x\nbase_configuration: {cpu: {min: 3, max: 2}}\nnonsense: 1\n",
        0,
    );
    assert!(
        matches!(&refused, Err(Refusal::InvalidPersona { problems, .. }) if problems.len() == 3),
        "{refused:?}"
    );
    let refused = reason(lay(
        &daemon,
        "prod",
        "base_configuration: {cpu: {min: 5}}\n",
        0,
    ));
    assert_eq!(
        refused,
        "with this override domain `web` would have no valid persona: `min` (5) is above `max` (4) (override, line 1)"
    );
    assert!(daemon.view().mappings.is_empty());
    lay(&daemon, "other", "base_configuration: {cpu: {min: 5}}\n", 0).unwrap();
    // The tag comes all the same; what is in force holds.
    stage.simulated.set_tags(id, &["other"]);
    let domain = daemon.wait_domain(id, "the problem is told", |domain| {
        let told = |text: &String| text.contains("`min` (5) is above `max` (4)");
        domain.problems.iter().any(told)
    });
    assert_eq!(max(&domain), Some(4));
}

#[test]
fn overrides_of_equal_priority_that_differ_are_a_conflict_and_the_last_good_state_holds() {
    let stage = Stage::new(WEB);
    let id = stage.id("web");
    let daemon = stage.start();
    daemon.create(BASE);
    daemon.apply("web", "base");
    let over = |max: u32| format!("base_configuration: {{cpu: {{max: {max}}}}}\n");
    lay(&daemon, "five", &over(5), 3).unwrap();
    lay(&daemon, "six", &over(6), 3).unwrap();
    stage.simulated.set_tags(id, &["five"]);
    daemon.wait_domain(id, "five is in force", |domain| max(domain) == Some(5));
    stage.simulated.set_tags(id, &["five", "six"]);
    let told = |domain: &DomainView| {
        domain
            .problems
            .iter()
            .any(|text| text.contains("set `base_configuration.cpu.max` differently"))
    };
    let domain = daemon.wait_domain(id, "the conflict is told", told);
    assert_eq!(max(&domain), Some(5));
    assert!(daemon.explain("web").problems[0].contains("give one of them a higher priority"));
    assert!(daemon.told("refusal")[0].contains("tag `five`"));
    let refused = daemon.ask(Command::Apply {
        domain: web(),
        persona: PersonaRef::parse("base@1").unwrap(),
        mode: Mode::Apply,
    });
    assert!(
        matches!(refused, Err(Refusal::Conflict { .. })),
        "{refused:?}"
    );
    daemon.kill();
    let daemon = stage.start();
    let domain = daemon.wait_domain(id, "the conflict is told", told);
    assert_eq!(max(&domain), Some(5));
    lay(&daemon, "six", &over(6), 4).unwrap();
    daemon.wait_domain(id, "six is in force", |domain| {
        !told(domain) && max(domain) == Some(6)
    });
}
