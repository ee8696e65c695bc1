//! Users of a guest who choose another persona: through the real agent's own socket to the daemon and back. The program that
//! people use is driven in `chooser`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use agent_protocol::local::{LOCAL_SOCKET, LocalAnswer, LocalCode, LocalRequest};
use agent_protocol::switching::Course;
use agent_protocol::{Answer, Offer, Offers};
use virt_persona::command::{Command, Reply};
use virt_persona::hypervisor::DomainId;
use virt_persona::view::ActivationState;

use crate::agent::Agent;
use crate::stage::{Running, Stage};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
agent_channel = 'FOLDER/guest/agent.sock'
";

pub(crate) const DAY: &str = "name: day
allowed_switches: [night, huge, gone, broken]
environment_variables: {WHO: day, KEY: {secret: of-the-day}}
";
const NIGHT: &str = "name: night
description: Batch work while nobody looks
allowed_switches: [day]
environment_variables: {WHO: night, KEY: {secret: of-the-night}}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 5m THEN set vcpus to 2
";
const HUGE: &str = "name: huge\nbase_configuration: {cpu: {min: 64}}\n";
const BROKEN: &str = "name: broken\npre_activation_script: 'echo no such disk; exit 3'\n";
const OTHER: &str = "name: other\n";

pub(crate) fn stage() -> (Stage, Agent, PathBuf) {
    let stage = Stage::new(WEB);
    let root = stage.path().join("guest");
    let agent = Agent::start(&root);
    (stage, agent, root)
}

/// The daemon with the personas, of which `first` is active.
pub(crate) fn start(stage: &Stage, first: &str) -> (Running, DomainId) {
    let web = stage.id("web");
    let daemon = stage.start();
    for document in [first, NIGHT, HUGE, BROKEN, OTHER] {
        daemon.create(document);
    }
    daemon.apply("web", "day");
    active(&daemon, web, "day");
    (daemon, web)
}

pub(crate) fn active(daemon: &Running, web: DomainId, name: &str) {
    daemon.wait_domain(web, "the persona is active", |domain| {
        let bound = domain.persona.as_ref();
        domain.activation.state == ActivationState::Active
            && bound.is_some_and(|bound| bound.name == name)
    });
}

pub(crate) fn low() -> String {
    format!("{DAY}trust_levels: {{persona_change: low}}\n")
}

/// A program of the guest that has asked something.
struct Client(BufReader<UnixStream>);

impl Client {
    fn ask(root: &Path, request: &LocalRequest) -> Self {
        let mut stream = UnixStream::connect(root.join(LOCAL_SOCKET)).unwrap();
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        stream.write_all(&line).unwrap();
        Self(BufReader::new(stream))
    }

    fn switch(root: &Path, persona: &str) -> Self {
        let persona = persona.to_owned();
        Self::ask(root, &LocalRequest::Switch { persona })
    }

    fn next(&mut self) -> LocalAnswer {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn host(&mut self) -> Answer {
        match self.next() {
            LocalAnswer::Host(answer) => answer,
            other => panic!("{other:?}"),
        }
    }
}

fn offers(root: &Path) -> Offers {
    match Client::ask(root, &LocalRequest::Personas).host() {
        Answer::Offers(offers) => offers,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(root: &Path, persona: &str) -> String {
    match Client::switch(root, persona).host() {
        Answer::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn switches(root: &Path, persona: &str) {
    let mut client = Client::switch(root, persona);
    let named = persona.to_owned();
    assert_eq!(client.host(), Answer::Accepted { persona: named });
    let last = client.host();
    assert!(
        matches!(&last, Answer::Active { persona: now, .. } if now == persona),
        "{last:?}"
    );
}

fn offer<'a>(offers: &'a Offers, name: &str) -> &'a Offer {
    let mut all = offers.offers.iter();
    all.find(|offer| offer.persona == name).unwrap()
}

#[test]
fn a_user_of_the_guest_chooses_among_what_the_persona_lists_and_is_told_the_end() {
    let (stage, agent, root) = stage();
    let (daemon, web) = start(&stage, DAY);
    let seen = offers(&root);
    assert_eq!(seen.current.as_deref(), Some("day"));
    let names: Vec<&str> = seen.offers.iter().map(|of| of.persona.as_str()).collect();
    // What the host does not hold is not shown.
    assert_eq!(names, ["broken", "huge", "night"]);
    let night = offer(&seen, "night");
    assert_eq!(night.course, Course::AtOnce);
    assert_eq!(night.description, "Batch work while nobody looks");
    let changes = format!("{:?}", night.changes);
    assert!(
        changes.contains("environment_variables.WHO") && changes.contains("Some(\"night\")"),
        "{changes}"
    );
    // Secrets stay secret, and of the host's rules it is only said that they differ.
    assert!(!changes.contains("of-the-night"), "{changes}");
    assert!(!changes.contains("cpu.utilization"), "{changes}");
    assert!(changes.contains("rules"), "{changes}");
    let Course::Refused { reason } = &offer(&seen, "huge").course else {
        panic!("it is too large")
    };
    assert!(reason.contains("64 vCPUs"), "{reason}");

    switches(&root, "night");
    active(&daemon, web, "night");
    assert!(agent.environment().unwrap().contains("night"));
    let told = daemon.told("binding").join("\n");
    assert!(
        told.contains("the guest's user root (uid 0) switched to persona night"),
        "{told}"
    );
    switches(&root, "day");
    active(&daemon, web, "day");
}

#[test]
fn a_switch_back_to_what_the_tags_give_takes_the_word_back() {
    let (stage, _agent, root) = stage();
    let (daemon, web) = start(&stage, DAY);
    daemon.map("shop", "day");
    stage.simulated.set_tags(web, &["shop"]);
    daemon.wait_domain(web, "it has the tag", |domain| domain.tags == ["shop"]);
    switches(&root, "night");
    switches(&root, "day");
    daemon.wait_record("the word is taken back", |record| {
        record.kind == "binding" && record.text.contains("which its tags give")
    });
    let bound = daemon.wait_domain(web, "the tag decides", |domain| {
        let bound = domain.persona.as_ref();
        bound.is_some_and(|bound| bound.tag.as_deref() == Some("shop"))
    });
    assert_eq!(bound.persona.unwrap().name, "day");
}

#[test]
fn what_the_persona_does_not_list_is_refused_and_recorded_once() {
    let (stage, agent, root) = stage();
    let (daemon, web) = start(&stage, DAY);
    // Whether the host has such a persona is not told.
    for name in ["other", "nosuch", "../day", "Day"] {
        let reason = refused(&root, name);
        assert!(reason.contains("does not let users"), "{name}: {reason}");
    }
    assert!(refused(&root, "gone").contains("has no persona"));
    assert!(refused(&root, "huge").contains("this machine can have 4"));
    assert!(refused(&root, "huge").contains("64 vCPUs"));
    let huge = daemon.told("refusal");
    let huge = huge.iter().filter(|text| text.contains("huge")).count();
    assert_eq!(huge, 1);
    active(&daemon, web, "day");

    // The wish that failed in the guest leaves what was before in force.
    let mut client = Client::switch(&root, "broken");
    assert!(matches!(client.host(), Answer::Accepted { .. }));
    let Answer::Failed { reason } = client.host() else {
        panic!("its script fails")
    };
    assert!(reason.contains("pre"), "{reason}");
    assert!(agent.environment().unwrap().contains("day"));
}

#[test]
fn without_a_persona_there_is_nothing_to_choose() {
    let (stage, _agent, root) = stage();
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.wait_domain(web, "its agent is there", |domain| {
        domain.agent.state == virt_persona::view::AgentState::Connected
    });
    assert_eq!(offers(&root), Offers::default());
    assert!(refused(&root, "day").contains("no persona is in force"));
    let status = Client::ask(&root, &LocalRequest::Status).next();
    assert!(format!("{status:?}").contains("Listens"), "{status:?}");
}

#[test]
fn where_trust_says_so_a_person_approves_or_rejects_and_the_user_is_told() {
    let (stage, agent, root) = stage();
    let (daemon, web) = start(&stage, &low());
    assert_eq!(offer(&offers(&root), "night").course, Course::Approval);

    let mut client = Client::switch(&root, "night");
    let Answer::Waits {
        proposal,
        expires_in_ms,
    } = client.host()
    else {
        panic!("it waits")
    };
    assert!(expires_in_ms > 0);
    let seen = daemon.wait_domain(web, "it is shown", |domain| !domain.proposals.is_empty());
    assert_eq!(seen.proposals[0].id, proposal);
    let text = &seen.proposals[0].text;
    assert!(
        text.contains("activate persona night") && text.contains("root (uid 0)"),
        "{text}"
    );
    assert!(offers(&root).under_way.unwrap().contains("night"));
    let rejected = daemon.ask(Command::Reject { id: proposal });
    assert!(matches!(rejected, Ok(Reply::Proposal(_))), "{rejected:?}");
    let Answer::Failed { reason } = client.host() else {
        panic!("it was rejected")
    };
    assert!(reason.contains("rejected"), "{reason}");
    assert!(refused(&root, "night").contains("rejected"));
    assert!(agent.environment().unwrap().contains("day"));

    let mut client = Client::switch(&root, "broken");
    let Answer::Waits { proposal, .. } = client.host() else {
        panic!("it waits")
    };
    let approved = daemon.ask(Command::Approve { id: proposal });
    assert!(matches!(approved, Ok(Reply::Proposal(_))), "{approved:?}");
    assert!(matches!(client.host(), Answer::Accepted { .. }));
    assert!(matches!(client.host(), Answer::Failed { .. }));
    daemon.wait_record("what was approved is carried out", |record| {
        record.kind == "proposal" && record.text.contains("is carried out")
    });
}

#[test]
fn a_flood_of_asks_is_slowed_in_the_guest_and_the_host_goes_on() {
    let (stage, _agent, root) = stage();
    let (daemon, web) = start(&stage, DAY);
    let mut slowed = 0;
    for _ in 0..40 {
        match Client::ask(&root, &LocalRequest::Personas).next() {
            LocalAnswer::Host(Answer::Offers(_)) => {}
            LocalAnswer::No(no) if no.code == LocalCode::TooSoon => slowed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(slowed > 0, "none was slowed");
    active(&daemon, web, "day");
    // A guest in which somebody asks too often is no guest that misbehaves.
    assert_eq!(
        daemon.view().domains[&web].agent.state,
        virt_persona::view::AgentState::Connected
    );
    fs::metadata(root.join(LOCAL_SOCKET)).unwrap();
}
