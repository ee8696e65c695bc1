//! What applications of a guest say, from the socket in the guest to a rule of the persona and to what `status` shows. The
//! agent is the real program.

use std::fs;

use persona::domain::DomainId;
use virt_persona::command::{Command, Reply};
use virt_persona::view::{ActivationState, DomainView, ReadingView};

use crate::agent::Agent;
use crate::stage::{Running, Stage};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
agent_channel = 'FOLDER/guest/agent.sock'
";

fn start(document: &str) -> (Stage, Agent, DomainId, Running) {
    let stage = Stage::new(WEB);
    let root = stage.path().join("guest");
    fs::create_dir_all(&root).unwrap();
    let agent = Agent::start(&root);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(document);
    daemon.apply("web", "front");
    daemon.wait_domain(web, "its guest has confirmed the persona", |domain| {
        domain.activation.state == ActivationState::Active
    });
    (stage, agent, web, daemon)
}

fn shown<'d>(domain: &'d DomainView, metric: &str) -> Option<&'d ReadingView> {
    domain
        .readings
        .iter()
        .find(|reading| reading.metric == metric)
}

#[test]
fn a_rule_fires_on_what_an_application_says_and_status_shows_it() {
    let (_stage, agent, web, daemon) = start(
        "name: front\nadaptation_rules:\n  - IF guest.app.queue > 100 FOR 1s THEN notify \"the queue is long\"\n",
    );
    agent.emit(&["queue=7", "orders+=3"]);
    let calm = daemon.wait_domain(web, "what was said is shown", |domain| {
        shown(domain, "guest.app.queue").is_some()
    });
    let queue = shown(&calm, "guest.app.queue").unwrap();
    assert_eq!(
        (queue.value, queue.source),
        (Some(7.0), Some(persona::Source::Agent))
    );
    assert!(queue.age_ms.is_some());
    let orders = shown(&calm, "guest.app.orders").unwrap();
    assert_eq!(orders.value, Some(3.0));
    assert!(daemon.told("action").is_empty());
    agent.emit(&["queue=250"]);
    daemon.wait_record("the rule has fired", |record| {
        record.text.contains("the queue is long")
    });
}

#[test]
fn what_learning_domains_do_not_list_stays_in_the_guest() {
    let (stage, agent, web, daemon) = start(
        "name: front\nlearning_domains: [cpu]\nadaptation_rules:\n  - IF guest.app.queue > 100 THEN notify \"the queue is long\"\n",
    );
    daemon.wait_domain(web, "its load is shown", |domain| {
        shown(domain, "guest.load").is_some_and(|load| load.value == Some(0.5))
    });
    let socket = stage
        .path()
        .join("guest/run/virt-persona-agent/metrics.sock");
    assert!(!socket.exists(), "nobody listens to applications");
    let updated = daemon.ask(Command::UpdatePersona {
        name: "front".into(),
        document: "name: front\nlearning_domains: [application API calls]\nadaptation_rules:\n  - IF guest.app.queue > 100 THEN notify \"the queue is long\"\n".into(),
        format: None,
        note: None,
    });
    assert!(matches!(updated, Ok(Reply::Stored(_))), "{updated:?}");
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    agent.emit(&["queue=250"]);
    let domain = daemon.wait_domain(web, "what was said is shown", |domain| {
        shown(domain, "guest.app.queue").is_some()
    });
    assert!(shown(&domain, "guest.load").is_none_or(|load| load.value.is_none()));
    daemon.wait_record("the rule has fired", |record| {
        record.text.contains("the queue is long")
    });
}
