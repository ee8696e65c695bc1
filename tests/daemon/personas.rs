//! The persona path end to end, with the real agent in a tree of its own: what is active in the guest, what is in force,
//! and what holds when tags, documents or the guest are not as they should be.

use std::fs;

use virt_persona::command::{Command, DomainName, Refusal, Reply};
use virt_persona::hypervisor::simulated::{CallName, Fault};
use virt_persona::hypervisor::{MetadataElement, RunState};
use virt_persona::view::{ActivationState, DomainView};

use crate::agent::Agent;
use crate::stage::{Running, Stage, until};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
agent_channel = 'FOLDER/guest/agent.sock'
";

const NO_AGENT: &str = "[[domain]]\nname = 'web'\nmemory_mib = 512\nvcpus_maximum = 4\n";

fn document(name: &str, max: u32, role: &str) -> String {
    format!(
        "name: {name}\nbase_configuration:\n  cpu: {{min: 1, max: {max}}}\nenvironment_variables:\n  APP_ROLE: {role}\n"
    )
}

fn with_agent() -> (Stage, Agent) {
    let stage = Stage::new(WEB);
    let agent = Agent::start(&stage.path().join("guest"));
    (stage, agent)
}

fn active(version: u32) -> impl Fn(&DomainView) -> bool {
    move |domain| {
        domain.activation.state == ActivationState::Active
            && domain
                .persona
                .as_ref()
                .is_some_and(|bound| bound.version == version)
    }
}

fn in_force(domain: &DomainView) -> Option<u32> {
    domain.vcpus.persona_max
}

fn update(daemon: &Running, name: &str, document: &str) {
    let updated = daemon.ask(Command::UpdatePersona {
        name: name.into(),
        document: document.into(),
        format: None,
        note: None,
    });
    assert!(matches!(updated, Ok(Reply::Stored(_))), "{updated:?}");
}

fn tag(add: &[&str], remove: &[&str]) -> Command {
    let owned = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect();
    Command::Tag {
        domain: DomainName("web".into()),
        add: owned(add),
        remove: owned(remove),
    }
}

#[test]
fn a_persona_is_active_in_the_guest_and_shown_in_the_domains_metadata() {
    let (stage, agent) = with_agent();
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("front", 2, "front"));
    daemon.map("front", "front");
    stage.simulated.set_tags(web, &["front"]);
    let domain = daemon.wait_domain(web, "it is active", active(1));
    assert!(agent.environment().unwrap().contains("APP_ROLE"));
    let bound = domain.persona.unwrap();
    assert_eq!((bound.tag.as_deref(), bound.pinned), (Some("front"), false));
    while stage
        .simulated
        .metadata(web, MetadataElement::Status)
        .is_none()
    {
        std::thread::yield_now();
    }
    let status = stage
        .simulated
        .metadata(web, MetadataElement::Status)
        .unwrap();
    assert!(status.contains("persona='front' version='1'"), "{status}");
    assert!(status.contains(&format!("generation='{}'", bound.generation)));
    stage.simulated.set_tags(web, &[]);
    daemon.wait_domain(web, "it is gone", |domain| {
        domain.persona.is_none() && domain.activation.state == ActivationState::None
    });
    while stage
        .simulated
        .metadata(web, MetadataElement::Status)
        .is_some()
    {
        std::thread::yield_now();
    }
    assert!(!agent.environment().unwrap_or_default().contains("APP_ROLE"));
}

#[test]
fn a_failed_activation_leaves_the_earlier_persona_in_force_also_after_a_restart() {
    let (stage, agent) = with_agent();
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("front", 2, "first"));
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is active", active(1));
    let bad = document("front", 3, "second")
        + "pre_activation_script:\n  text: |\n    #!/bin/sh\n    echo no database >&2\n    exit 3\n  timeout: 5s\n";
    update(&daemon, "front", &bad);
    let failed = |domain: &DomainView| domain.activation.state == ActivationState::Failed;
    let domain = daemon.wait_domain(web, "it has failed", failed);
    assert_eq!(in_force(&domain), Some(2));
    assert!(agent.environment().unwrap().contains("first"));
    daemon.kill();
    let daemon = stage.start();
    let domain = daemon.wait_domain(web, "it is still failed", failed);
    assert_eq!(in_force(&domain), Some(2), "the first holds");
    assert!(agent.environment().unwrap().contains("first"));
    // What a person mends is tried again.
    update(&daemon, "front", &document("front", 4, "third"));
    let domain = daemon.wait_domain(web, "the third is active", active(3));
    assert_eq!(in_force(&domain), Some(4));
}

#[test]
fn a_persona_that_only_the_guest_knows_of_is_taken_back() {
    let (stage, agent) = with_agent();
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("front", 2, "front"));
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is active", active(1));
    daemon.kill();
    // Another store: nobody here ever gave the domain a persona.
    let daemon = stage.start_on("another");
    let is_ours = || agent.environment().unwrap_or_default().contains("APP_ROLE");
    daemon.wait_record("the guest gave it up", |record| {
        record.kind == "activation" && record.text.contains("confirms: no persona")
    });
    assert!(
        !is_ours(),
        "{:?} {:#?}",
        agent.environment(),
        daemon.audit()
    );
    daemon.wait_domain(web, "there is none", |domain| domain.persona.is_none());
}

#[test]
fn a_kill_during_an_activation_loses_nothing_and_runs_no_script_twice() {
    let (stage, agent) = with_agent();
    let web = stage.id("web");
    let count = stage.path().join("count");
    let daemon = stage.start();
    let slow = document("front", 2, "front")
        + &format!(
            "pre_activation_script:\n  text: |\n    #!/bin/sh\n    echo run >> {}\n    sleep 1\n  timeout: 20s\n",
            count.display()
        );
    daemon.create(&slow);
    daemon.apply("web", "front");
    until("the script runs", || count.exists());
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_domain(web, "it is active", active(1));
    assert_eq!(fs::read_to_string(&count).unwrap(), "run\n");
    assert!(agent.environment().unwrap().contains("APP_ROLE"));
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_domain(web, "it is active at once", active(1));
    daemon.wait_record("the agent is there", |record| {
        record.kind == "connection" && record.text.contains("the agent")
    });
    assert_eq!(fs::read_to_string(&count).unwrap(), "run\n");
}

#[test]
fn a_domain_that_starts_anew_has_its_persona_activated_anew() {
    let (stage, agent) = with_agent();
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("front", 2, "front"));
    daemon.apply("web", "front");
    let before = daemon.wait_domain(web, "it is active", active(1));
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    drop(agent);
    // A guest without a disk: nothing of before is there.
    fs::remove_dir_all(stage.path().join("guest")).unwrap();
    stage.simulated.set_state(web, RunState::Running);
    let agent = Agent::start(&stage.path().join("guest"));
    daemon.wait_record("it was confirmed again", |record| {
        record.kind == "activation" && record.seq > 0 && agent.environment().is_some()
    });
    let after = daemon.wait_domain(web, "it is active", |domain| {
        active(1)(domain) && domain.instance != before.instance
    });
    assert_eq!(after.agent.state, virt_persona::view::AgentState::Connected);
    let confirmed = |text: &&String| text.starts_with("the guest confirms");
    until("it is confirmed twice", || {
        daemon.told("activation").iter().filter(confirmed).count() >= 2
    });
    assert!(agent.environment().unwrap().contains("APP_ROLE"));
}

#[test]
fn a_conflict_of_tags_leaves_what_was_in_force_also_after_a_restart() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    for (name, max) in [("one", 2), ("two", 3)] {
        daemon.create(&document(name, max, name));
        daemon.map(name, name);
    }
    stage.simulated.set_tags(web, &["one"]);
    daemon.wait_domain(web, "one is in force", |domain| in_force(domain) == Some(2));
    stage.simulated.set_tags(web, &["one", "two"]);
    let conflict = |domain: &DomainView| !domain.problems.is_empty() && domain.tags.len() == 2;
    let domain = daemon.wait_domain(web, "the conflict is said", conflict);
    assert_eq!(in_force(&domain), Some(2));
    daemon.kill();
    let daemon = stage.start();
    let domain = daemon.wait_domain(web, "the conflict is said", conflict);
    assert_eq!(in_force(&domain), Some(2));
    assert_eq!(domain.persona.unwrap().name, "one");
    stage.simulated.set_tags(web, &["two"]);
    daemon.wait_domain(web, "two is in force", |domain| in_force(domain) == Some(3));
}

#[test]
fn tags_that_cannot_be_read_take_no_persona_away_and_are_not_overwritten() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("one", 2, "one"));
    daemon.map("one", "one");
    stage.simulated.set_tags(web, &["one"]);
    daemon.wait_domain(web, "one is in force", |domain| in_force(domain) == Some(2));
    stage
        .simulated
        .spoil_tags(web, "the element <tga> is not known");
    let said = |domain: &DomainView| domain.problems.iter().any(|text| text.contains("<tga>"));
    let domain = daemon.wait_domain(web, "the problem is said", said);
    assert_eq!(in_force(&domain), Some(2));
    let refused = daemon.ask(tag(&["two"], &[]));
    assert!(
        matches!(&refused, Err(Refusal::Refused { reason }) if reason.contains("<tga>")),
        "{refused:?}"
    );
    daemon.kill();
    let daemon = stage.start();
    let domain = daemon.wait_domain(web, "the problem is said", said);
    assert_eq!(in_force(&domain), Some(2));
    stage.simulated.set_tags(web, &["one"]);
    daemon.wait_domain(web, "all is well", |domain| !said(domain));
}

#[test]
fn tags_of_two_callers_at_once_are_both_kept() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    let slow = Fault::Slow { ms: 200 };
    stage.simulated.fail_next(web, CallName::SetMetadata, slow);
    let answers = [
        daemon.begin(tag(&["one"], &[])),
        daemon.begin(tag(&["two"], &[])),
        daemon.begin(tag(&["three"], &["one"])),
    ];
    let answers = answers.map(|answer| daemon.finish(answer));
    let tags = |tags: &[&str]| Ok(Reply::Tags(tags.iter().map(|&tag| tag.into()).collect()));
    assert_eq!(answers[0], tags(&["one"]));
    assert_eq!(answers[1], tags(&["one", "two"]));
    assert_eq!(answers[2], tags(&["two", "three"]));
    assert_eq!(daemon.view().domains[&web].tags, ["two", "three"]);
}

#[test]
fn tags_that_the_hypervisor_refuses_are_not_recorded_as_set() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    let message = "read-only".to_owned();
    stage
        .simulated
        .fail_next(web, CallName::SetMetadata, Fault::Refuse { message });
    let refused = daemon.ask(tag(&["one"], &[]));
    assert!(
        matches!(&refused, Err(Refusal::Hypervisor { reason }) if reason.contains("read-only")),
        "{refused:?}"
    );
    assert_eq!(daemon.told("binding"), [""; 0]);
    assert!(daemon.told("refusal")[0].contains("read-only"));
    assert_eq!(daemon.view().domains[&web].tags, [""; 0]);
}

#[test]
fn a_pinned_binding_is_shown_as_one_and_stays_at_its_version() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("one", 2, "one"));
    daemon.apply("web", "one@1");
    update(&daemon, "one", &document("one", 3, "one"));
    let bound = daemon.view().domains[&web].persona.clone().unwrap();
    assert_eq!((bound.version, bound.pinned), (1, true));
    daemon.apply("web", "one");
    let bound = daemon.view().domains[&web].persona.clone().unwrap();
    assert_eq!((bound.version, bound.pinned), (2, false));
}

#[test]
fn a_status_that_could_not_be_written_is_written_with_the_next_description() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("one", 2, "one"));
    let message = "not now".to_owned();
    stage
        .simulated
        .fail_next(web, CallName::SetMetadata, Fault::Refuse { message });
    daemon.apply("web", "one");
    // Two descriptions, in case that the first comes before the refusal.
    for state in [RunState::Paused, RunState::Running] {
        stage.simulated.set_state(web, state);
        daemon.wait_domain(web, "it is described", |domain| domain.state == state);
    }
    while stage
        .simulated
        .metadata(web, MetadataElement::Status)
        .is_none()
    {
        std::thread::yield_now();
    }
}

#[test]
fn a_domain_that_is_no_longer_defined_takes_its_binding_with_it() {
    let stage = Stage::new(NO_AGENT);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&document("one", 2, "one"));
    daemon.apply("web", "one");
    stage.simulated.remove_domain(web);
    daemon.wait("it is gone", |view| view.domains.is_empty());
    let deleted = daemon.ask(Command::DeletePersona {
        name: "one".into(),
        force: virt_persona::command::Force::No,
    });
    assert!(matches!(deleted, Ok(Reply::Done(_))), "{deleted:?}");
    assert!(
        daemon
            .told("binding")
            .iter()
            .any(|text| text.contains("no longer defined"))
    );
}
