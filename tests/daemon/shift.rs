//! Shifts of persona: what a rule gives, what gives it back, what goes before it, and that no two personas hand a machine to
//! and fro for ever.

use persona::domain::DomainId;
use virt_persona::command::{Command, DomainName, Reply};
use virt_persona::hypervisor::RunState;
use virt_persona::view::{DomainView, Origin};

use crate::stage::{Running, Stage, mib};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
tags = ['day']
guest = { memory_used_mib = 100 }
";

/// Shifts when more than 70 % of the memory are in use, and back below 40 %.
const DAY: &str = "
name: day
adaptation_rules:
  - name: busy
    when: memory.utilization > 70% FOR 1s
    then: activate persona night
    until: memory.utilization < 40% FOR 1s
    cooldown: 1s
";

const NIGHT: &str = "name: night\nbase_configuration:\n  cpu: {min: 1, max: 3}\n";

fn stage() -> (Stage, Running) {
    let stage = Stage::new(WEB);
    let daemon = stage.start();
    (stage, daemon)
}

/// With this persona by its tag, and night to shift to.
fn shifting(day: &str) -> (Stage, Running, DomainId) {
    let (stage, daemon) = stage();
    let web = stage.id("web");
    daemon.create(day);
    daemon.create(NIGHT);
    daemon.map("day", "day");
    (stage, daemon, web)
}

/// The same, and it has shifted.
fn shifted(day: &str) -> (Stage, Running, DomainId) {
    let (stage, daemon, web) = shifting(day);
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_domain(web, "it has shifted", has("night"));
    (stage, daemon, web)
}

/// Waits until less of the memory is in use than so many percent.
fn wait_used_below(daemon: &Running, web: DomainId, percent: f64) {
    daemon.wait_domain(web, "less is in use", |domain| {
        let mut readings = domain.readings.iter();
        let used = readings.find(|of| of.metric == "memory.utilization");
        used.is_some_and(|of| of.value.is_some_and(|value| value < percent))
    });
}

/// Neither the rule of the day is true from now on nor its until.
fn dip(stage: &Stage, daemon: &Running, web: DomainId) {
    stage.simulated.set_memory_used(web, mib(256));
    wait_used_below(daemon, web, 60.0);
    ticks(daemon);
}

#[track_caller]
fn approve(daemon: &Running, id: u64) {
    let approved = daemon.ask(Command::Approve { id });
    assert!(matches!(approved, Ok(Reply::Proposal(_))), "{approved:?}");
}

fn has(name: &str) -> impl Fn(&DomainView) -> bool {
    move |domain| {
        let bound = domain.persona.as_ref();
        bound.is_some_and(|bound| bound.name == name)
    }
}

/// Waits for some ticks, in which whatever was going to happen has happened.
fn ticks(daemon: &Running) {
    let now = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > now + 25);
}

fn bindings(daemon: &Running, word: &str) -> Vec<String> {
    let told = daemon.told("binding").into_iter();
    told.filter(|text| text.contains(word)).collect()
}

#[test]
fn a_rule_gives_another_persona_and_its_until_gives_back_the_one_before() {
    let (stage, daemon, web) = shifting(DAY);
    daemon.wait_domain(web, "the tag's persona is there", has("day"));
    stage.simulated.set_memory_used(web, mib(400));
    let shifted = daemon.wait_domain(web, "it has shifted", has("night"));
    let bound = shifted.persona.unwrap();
    assert_eq!(
        (
            bound.origin,
            bound.rule.as_deref(),
            bound.shifted_from.as_deref()
        ),
        (Origin::Shift, Some("busy"), Some("day@1"))
    );
    daemon.wait_domain(web, "its bounds are in force", |domain| {
        domain.vcpus.persona_max == Some(3)
    });
    let effective = daemon.ask(Command::Effective {
        domain: DomainName("web".into()),
    });
    assert!(
        matches!(&effective, Ok(Reply::Effective(view)) if view.document.contains("name: night")),
        "{effective:?}"
    );
    let explained = daemon.ask(Command::Explain {
        domain: DomainName("web".into()),
        at: None,
    });
    assert!(
        matches!(&explained, Ok(Reply::Explain(view)) if view.persona.as_ref().is_some_and(|of| of.rule.is_some())),
        "{explained:?}"
    );
    // Nobody who has the persona's document looks at the until any more, and it is watched all the same.
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_domain(web, "it is back", has("day"));
    assert_eq!(
        bindings(&daemon, "busy")
            .iter()
            .filter(|text| !text.contains("generation"))
            .collect::<Vec<_>>(),
        [
            "rule busy of day@1 shifts the domain to persona night",
            "the until of rule busy of day@1 holds, which gives the domain the persona of its tags back"
        ]
    );
}

#[test]
fn a_shift_holds_over_restarts_of_daemon_and_domain_and_its_until_is_watched_again() {
    let (stage, daemon, web) = shifted(DAY);
    daemon.kill();
    let daemon = stage.start();
    let shifted = daemon.wait_domain(web, "it still has it", has("night"));
    assert_eq!(shifted.persona.unwrap().origin, Origin::Shift);
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    stage.simulated.set_state(web, RunState::Running);
    ticks(&daemon);
    daemon.wait_domain(web, "it still has it", has("night"));
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_domain(web, "it is back", has("day"));
}

#[test]
fn revert_gives_back_the_persona_before_and_without_one_says_so_once() {
    let (stage, daemon) = stage();
    let web = stage.id("web");
    daemon.create(
        "name: day\nadaptation_rules:\n  - IF memory.utilization > 70% FOR 1s THEN activate persona night COOLDOWN 1s\n",
    );
    daemon.create(
        "name: night\nadaptation_rules:\n  - name: calm\n    when: memory.utilization < 40% FOR 1s\n    then: revert\n    cooldown: 1s\n",
    );
    daemon.map("day", "day");
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_domain(web, "it has shifted", has("night"));
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_domain(web, "it is back", has("day"));
    let back = bindings(&daemon, "calm of night@1");
    assert_eq!(
        back,
        ["rule calm of night@1 gives the domain the persona of its tags back"]
    );
    // By its tag it is nobody's shift.
    daemon.map("day", "night");
    let told = daemon.wait_domain(web, "it is told", |domain| {
        domain
            .problems
            .iter()
            .any(|text| text.contains("no persona before"))
    });
    assert!(has("night")(&told));
    ticks(&daemon);
    let refusals = daemon.told("refusal");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

#[test]
fn what_a_person_applies_goes_before_a_shift_and_ends_it() {
    let (_stage, daemon, web) = shifted(DAY);
    daemon.apply("web", "day");
    let domain = daemon.wait_domain(web, "the person's is there", has("day"));
    assert_eq!(domain.persona.unwrap().origin, Origin::Applied);
    assert_eq!(
        bindings(&daemon, "ends, because"),
        ["the shift to persona night ends, because root applied day"]
    );
    // Its rule holds, and waits for the person.
    daemon.wait_record("the rule is refused", |record| {
        record.kind == "refusal" && record.text.contains("root applied day")
    });
    ticks(&daemon);
    assert_eq!(daemon.told("refusal").len(), 1);
    assert!(has("day")(&daemon.view().domains[&web]));
    let freed = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(matches!(freed, Ok(Reply::Applied(_))), "{freed:?}");
    assert!(has("day")(&daemon.view().domains[&web]));
}

#[test]
fn a_person_takes_a_shift_back_and_other_tags_end_it() {
    let (stage, daemon, web) =
        shifted(&DAY.replace("    until: memory.utilization < 40% FOR 1s\n", ""));
    daemon.create("name: other\n");
    daemon.map("other", "other");
    stage.simulated.set_memory_used(web, mib(100));
    wait_used_below(&daemon, web, 40.0);
    let back = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(matches!(back, Ok(Reply::Applied(_))), "{back:?}");
    assert!(has("day")(&daemon.view().domains[&web]));
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_domain(web, "it has shifted again", has("night"));
    stage.simulated.set_tags(web, &["other"]);
    daemon.wait_domain(web, "its tags decide", has("other"));
    assert_eq!(
        bindings(&daemon, "ends, because"),
        ["the shift to persona night ends, because its tags give it other now"]
    );
}

#[test]
fn an_approved_shift_takes_place_although_the_load_has_dipped_and_is_carried_out_only_then() {
    let (stage, daemon) = stage();
    let web = stage.id("web");
    daemon.create(&format!("{DAY}trust_levels: {{persona_change: low}}\n"));
    daemon.map("day", "day");
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_domain(web, "it is proposed", |domain| !domain.proposals.is_empty());
    dip(&stage, &daemon, web);
    // What it names is not there, which ends it with the reason.
    approve(&daemon, 1);
    daemon.wait_record("it cannot be carried out", |record| {
        record.text.contains("proposal 1 cannot be carried out")
    });
    assert_eq!(daemon.told("refusal").len(), 1);
    assert!(has("day")(&daemon.view().domains[&web]));

    daemon.create(NIGHT);
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_domain(web, "it is proposed again", |domain| {
        domain.proposals.iter().any(|proposal| proposal.id == 2)
    });
    dip(&stage, &daemon, web);
    approve(&daemon, 2);
    daemon.wait_domain(web, "it has shifted", has("night"));
    daemon.wait_record("it is carried out", |record| {
        record.text.contains("proposal 2 is carried out")
    });
    let records = daemon.audit();
    let place = |words: &str| {
        records
            .iter()
            .position(|record| record.text.contains(words))
    };
    let (shifted, done) = (
        place("shifts the domain to persona night"),
        place("proposal 2 is carried out"),
    );
    assert!(shifted.is_some() && shifted < done, "{records:#?}");
}

#[test]
fn a_persona_that_is_not_there_is_refused_once_and_taken_once_it_is() {
    let (stage, daemon) = stage();
    let web = stage.id("web");
    daemon.create(DAY);
    daemon.map("day", "day");
    stage.simulated.set_memory_used(web, mib(400));
    let told = daemon.wait_domain(web, "it is told", |domain| {
        domain.problems.iter().any(|text| text.contains("`night`"))
    });
    assert!(has("day")(&told));
    ticks(&daemon);
    let refusals = daemon.told("refusal");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].contains("rule busy asks for `activate persona night`"));
    daemon.create(NIGHT);
    // The next time that the rule begins to hold.
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_domain(web, "the rule rests", |domain| domain.problems.is_empty());
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_domain(web, "it has shifted", has("night"));
}

#[test]
fn trust_decides_whether_a_rule_may_change_the_persona() {
    for (level, kind, word) in [
        ("none", "refusal", "persona_change is none"),
        ("low", "proposal", "proposed as 1: activate persona night"),
    ] {
        let (stage, daemon, web) =
            shifting(&format!("{DAY}trust_levels: {{persona_change: {level}}}\n"));
        stage.simulated.set_memory_used(web, mib(400));
        daemon.wait_record("it is not done", |record| {
            record.kind == kind && record.text.contains(word)
        });
        ticks(&daemon);
        assert!(has("day")(&daemon.view().domains[&web]));
        if level == "low" {
            approve(&daemon, 1);
            daemon.wait_domain(web, "it has shifted", has("night"));
        }
    }
    shifted(&format!("{DAY}trust_levels: {{persona_change: medium}}\n"));
}

#[test]
fn two_personas_that_call_for_each_other_are_cut_off_and_that_is_said() {
    let (stage, daemon) = stage();
    let web = stage.id("web");
    let calls = |name: &str, other: &str| {
        format!(
            "name: {name}\nadaptation_rules:\n  - IF memory.utilization > 1% THEN activate persona {other} COOLDOWN 1s\n"
        )
    };
    daemon.create(&calls("day", "night"));
    daemon.create(&calls("night", "day"));
    daemon.map("day", "day");
    let told = daemon.wait_domain(web, "it is cut off", |domain| {
        domain
            .problems
            .iter()
            .any(|text| text.contains("shifted 6 times within 60 min"))
    });
    let shifts = || {
        let all = bindings(&daemon, "shifts the domain");
        all.len()
    };
    assert_eq!(shifts(), 6);
    ticks(&daemon);
    assert_eq!(shifts(), 6);
    assert!(has(&told.persona.unwrap().name)(
        &daemon.view().domains[&web]
    ));
    // Also for the next daemon.
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_record("it is cut off again", |record| {
        record.kind == "refusal" && record.text.contains("shifted 6 times")
    });
    assert_eq!(bindings(&daemon, "shifts the domain").len(), 6);
}

#[test]
fn a_persona_that_a_shift_is_of_is_in_use_and_deleted_by_force_with_the_shift() {
    let (_stage, daemon, web) = shifted(DAY);
    let delete = |force| {
        daemon.ask(Command::DeletePersona {
            name: "night".into(),
            force,
        })
    };
    let refused = delete(virt_persona::command::Force::No);
    assert!(refused.is_err(), "{refused:?}");
    let done = delete(virt_persona::command::Force::Yes);
    assert!(matches!(done, Ok(Reply::Done(_))), "{done:?}");
    assert!(has("day")(&daemon.view().domains[&web]));
}
