//! What the agent of a guest measures, and what applications of it say, to a rule of the persona and to what `status` shows.
//! The agent is the real program.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use persona::domain::DomainId;
use virt_persona::command::{Command, Reply};
use virt_persona::view::{ActivationState, DomainView, ReadingView};

use crate::agent::Agent;
use crate::stage::{Running, Stage, until};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
agent_channel = 'FOLDER/guest/agent.sock'
";

fn start(document: &str) -> (Stage, Agent, DomainId, Running) {
    start_with(document, |_| {})
}

/// With more in the guest before its agent begins.
fn start_with(document: &str, prepare: impl FnOnce(&Stage)) -> (Stage, Agent, DomainId, Running) {
    let stage = Stage::new(WEB);
    prepare(&stage);
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

/// Failed logins as sshd writes them down, each a record of one size.
pub(crate) fn fail_logins(stage: &Stage, count: usize) {
    let record = if cfg!(target_arch = "aarch64") {
        400
    } else {
        384
    };
    let path = guest_file(stage, "var/log/btmp");
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(&vec![0; count * record]).unwrap();
}

/// Whether a record of any kind has this text.
fn is_told(daemon: &Running, text: &str) -> bool {
    let audit = daemon.audit();
    audit.iter().any(|record| record.text.contains(text))
}

/// A guest with a disk, a process and failed logins.
fn full(stage: &Stage) {
    let mounts = guest_file(stage, "proc/self/mounts");
    fs::write(mounts, "/dev/vda1 / ext4 rw,relatime 0 0\n").unwrap();
    guest_file(stage, "proc/1/comm");
    fail_logins(stage, 2);
}

fn guest_file(stage: &Stage, path: &str) -> PathBuf {
    let path = stage.path().join("guest").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
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
    assert!(!is_told(&daemon, "the queue is long"));
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
    until("the socket is there", || socket.exists());
    agent.emit(&["queue=250"]);
    let domain = daemon.wait_domain(web, "what was said is shown", |domain| {
        shown(domain, "guest.app.queue").is_some()
    });
    assert!(shown(&domain, "guest.load").is_none_or(|load| load.value.is_none()));
    daemon.wait_record("the rule has fired", |record| {
        record.text.contains("the queue is long")
    });
}

#[test]
fn rules_fire_on_a_full_disk_and_on_failed_logins() {
    let (stage, _agent, web, daemon) = start_with(
        "name: front\nadaptation_rules:\n  - IF guest.disk.free <= 100% THEN notify \"the disk has a share\"\n  - IF EVENT(login.failed) THEN notify \"somebody tried\"\n",
        full,
    );
    daemon.wait_record("the rule on the disk has fired", |record| {
        record.text.contains("the disk has a share")
    });
    // What looks at the disk has looked at the logins, too.
    let domain = daemon.wait_domain(web, "the disk is shown", |domain| {
        shown(domain, "guest.disk.free").is_some_and(|free| free.value.is_some())
    });
    let free = shown(&domain, "guest.disk.free").unwrap();
    assert_eq!(free.source, Some(persona::Source::Agent));
    assert!(free.age_ms.is_some() && free.value.is_some_and(|free| (0.0..=100.0).contains(&free)));
    let told = is_told(&daemon, "somebody tried");
    assert!(!told, "what was before is no event");
    fail_logins(&stage, 1);
    daemon.wait_record("the rule on the login has fired", |record| {
        record.text.contains("somebody tried")
    });
}

#[test]
fn nothing_of_a_kind_that_is_not_listed_leaves_the_guest() {
    let (_stage, _agent, web, daemon) = start_with(
        "name: front\nlearning_domains: [disk]\nadaptation_rules:\n  - IF guest.auth.failures > 1/min OR guest.processes > 1 OR network.latency > 1ms THEN notify \"x\"\n",
        full,
    );
    let domain = daemon.wait_domain(web, "the disk is shown", |domain| {
        shown(domain, "guest.disk.free").is_some_and(|free| free.value.is_some())
    });
    for metric in [
        "guest.auth.failures",
        "guest.log.errors",
        "guest.processes",
        "network.latency",
        "guest.load",
    ] {
        let value = shown(&domain, metric).and_then(|reading| reading.value);
        assert_eq!(value, None, "{metric}");
    }
}
