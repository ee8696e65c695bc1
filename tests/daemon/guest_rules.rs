//! Rules that a guest evaluates itself, from the persona to the audit. The agent is the real program.

use std::fs;
use std::path::{Path, PathBuf};

use persona::domain::DomainId;
use virt_persona::command::Command;
use virt_persona::view::{
    ActivationState, AgentState, AuditRecordView, DomainView, ProposalView, RuleState,
};

use crate::adjust::ticks;
use crate::agent::Agent;
use crate::relay::{PAGE, Relay};
use crate::stage::{Running, Stage, until};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
agent_channel = 'FOLDER/guest/agent.sock'
";

/// What shows that the first rule is quiet again is what the second one does.
const DOCUMENT: &str = r#"name: front
response_scripts:
  drain: echo drained >> DRAINED
  calm: echo calmed >> CALMED
adaptation_rules:
  - name: drain
    when: guest.app.queue > 10
    then: [run drain, notify "the queue is long"]
    cooldown: 0s
  - name: calm
    when: guest.app.queue < 5
    then: run calm
    cooldown: 0s
"#;

struct Set {
    stage: Stage,
    agent: Agent,
    web: DomainId,
    guest: PathBuf,
}

/// A domain under a persona whose rule writes a line into a file of the guest.
fn start(rest: &str, owner: &str) -> (Set, Running) {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    fs::create_dir_all(guest.join("etc/virt-persona")).unwrap();
    fs::write(guest.join("etc/virt-persona/agent.toml"), owner).unwrap();
    let agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    let file = |name: &str| guest.join(name).display().to_string();
    let document = DOCUMENT
        .replace("DRAINED", &file("drained"))
        .replace("CALMED", &file("calmed"));
    daemon.create(&format!("{document}{rest}"));
    daemon.apply("web", "front");
    daemon.wait_domain(web, "its guest has confirmed the persona", |domain| {
        domain.activation.state == ActivationState::Active
    });
    let set = Set {
        stage,
        agent,
        web,
        guest,
    };
    (set, daemon)
}

fn lines(guest: &Path, file: &str) -> usize {
    let text = fs::read_to_string(guest.join(file)).unwrap_or_default();
    text.lines().count()
}

fn wait_for_lines(guest: &Path, file: &str, count: usize) {
    until("so many lines are written", || lines(guest, file) >= count);
}

fn of_guest(daemon: &Running) -> Vec<AuditRecordView> {
    let told = daemon.audit().into_iter();
    told.filter(|record| record.text.contains("in the guest rule drain fired"))
        .collect()
}

#[test]
fn a_rule_of_the_guest_is_done_there_and_audited_once_also_while_the_host_is_away() {
    let (set, daemon) = start("", "");
    let Set {
        stage,
        agent,
        web,
        guest,
    } = set;
    let shown = daemon.wait_domain(web, "the agent is there", |domain| {
        domain.agent.state == AgentState::Connected
    });
    let detail = shown.activation.detail.unwrap_or_default();
    assert!(
        detail.contains("2 rules are in force in the guest"),
        "{detail}"
    );
    agent.emit(&["queue=20"]);
    let record = daemon.wait_record("the rule has fired in the guest", |record| {
        record.text.contains("in the guest rule drain fired")
    });
    assert!(
        record
            .text
            .ends_with("run drain: done; notify \"the queue is long\": done"),
        "{}",
        record.text
    );
    assert_eq!(record.detail["source"], "guest");
    assert_eq!(
        record.detail["record"]["readings"][0]["signal"],
        "guest.app.queue"
    );
    let explained = daemon.explain("web");
    let rule = &explained.rules[0];
    assert_eq!(rule.state, RuleState::InGuest);
    // The host saw the same figure, and left to the guest what the guest does.
    daemon.wait_domain(web, "the host sees the figure", |domain| {
        let mut readings = domain.readings.iter();
        readings.any(|reading| reading.metric == "guest.app.queue" && reading.value == Some(20.0))
    });
    let asks = |record: &AuditRecordView| record.text.starts_with("rule drain");
    assert!(!daemon.audit().iter().any(asks));

    daemon.stop();
    fire_again(&agent, &guest, 2);
    let daemon = stage.start();
    daemon.wait_record("what happened meanwhile is known", |_| {
        of_guest(&daemon).len() == 2
    });
    // A host that was killed asks again, and knows what it knows.
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_domain(web, "the agent is there", |domain| {
        domain.agent.state == AgentState::Connected
    });
    fire_again(&agent, &guest, 3);
    daemon.wait_record("what happened since is known", |_| {
        of_guest(&daemon).len() == 3
    });
}

/// Makes the rule quiet and has it fire once more, so many times in all.
fn fire_again(agent: &Agent, guest: &Path, times: usize) {
    agent.emit(&["queue=1"]);
    wait_for_lines(guest, "calmed", times - 1);
    agent.emit(&["queue=30"]);
    wait_for_lines(guest, "drained", times);
}

#[test]
fn what_the_guests_owner_does_not_allow_is_told_and_not_done() {
    let (set, daemon) = start("", "[allow]\nrules = false\n");
    let shown = daemon.wait_domain(set.web, "it is told", |domain| {
        domain
            .problems
            .iter()
            .any(|problem| problem.contains("rule drain is not in force in the guest"))
    });
    let detail = shown.activation.detail.unwrap_or_default();
    assert!(
        detail.contains("2 rules cannot be in force in this guest: drain"),
        "{detail}"
    );
    // The host hears the figure, and has nobody who does it.
    set.agent.emit(&["queue=20"]);
    daemon.wait_record("the host says that nothing is done", |record| {
        record
            .text
            .contains("rule drain asks for: run drain; nothing is done in the guest")
    });
    assert_eq!(lines(&set.guest, "drained"), 0);
}

#[test]
fn what_the_guests_owner_allows_later_is_done_once_in_the_guest() {
    let (set, daemon) = start("", "[allow]\nrules = false\n");
    let absent = |domain: &DomainView| {
        let mut problems = domain.problems.iter();
        problems.any(|problem| problem.contains("rule drain is not in force in the guest"))
    };
    daemon.wait_domain(set.web, "it is told", absent);
    let Set { agent, guest, .. } = set;
    drop(agent);
    fs::write(guest.join("etc/virt-persona/agent.toml"), "").unwrap();
    let agent = Agent::start(&guest);
    daemon.wait_domain(set.web, "the agent says that it evaluates it", |domain| {
        domain.agent.state == AgentState::Connected && !absent(domain)
    });
    agent.emit(&["queue=20"]);
    daemon.wait_record("the rule has fired in the guest", |_| {
        of_guest(&daemon).len() == 1
    });
    daemon.wait_domain(set.web, "the host sees the figure", |domain| {
        let mut readings = domain.readings.iter();
        readings.any(|reading| reading.metric == "guest.app.queue" && reading.value == Some(20.0))
    });
    let of_host = |record: &AuditRecordView| record.text.contains("rule drain of the host");
    assert!(!daemon.audit().iter().any(of_host));
    assert_eq!(lines(&guest, "drained"), 1);
}

#[test]
fn a_rule_that_the_agent_does_not_measure_is_evaluated_by_the_host_and_done_in_the_guest() {
    let rule = "  - name: slow\n    when: guest.app.slow > 0 OR network.latency > 1m\n    then: run calm\n";
    let (set, daemon) = start(rule, "[probe]\ntargets = []\n");
    let shown = daemon.wait_domain(set.web, "it is told", |domain| {
        let mut problems = domain.problems.iter();
        problems.any(|problem| problem.contains("rule slow is not in force in the guest"))
    });
    let detail = shown.activation.detail.unwrap_or_default();
    assert!(
        detail.contains("slow (the agent does not measure `network.latency`)"),
        "{detail}"
    );
    set.agent.emit(&["slow=1"]);
    daemon.wait_record("it was done in the guest", |record| {
        record.text.contains("rule slow of the host was obeyed")
            && record.text.ends_with("run calm: done")
    });
}

#[test]
fn a_rule_that_the_guest_refused_is_the_hosts_also_where_another_persona_has_failed_since() {
    let rule = "  - name: slow\n    when: guest.app.slow > 0 OR network.latency > 1m\n    then: run calm\n";
    let (set, daemon) = start(rule, "[probe]\ntargets = []\n");
    let absent = |domain: &DomainView| {
        let mut problems = domain.problems.iter();
        problems.any(|problem| problem.contains("rule slow is not in force in the guest"))
    };
    daemon.wait_domain(set.web, "it is told", absent);
    daemon.create("name: other\npre_activation_script: exit 3\n");
    daemon.apply("web", "other");
    daemon.wait_domain(set.web, "it is told on", |domain| {
        domain.activation.state == ActivationState::Failed && absent(domain)
    });
    set.agent.emit(&["slow=1"]);
    daemon.wait_record("it was done in the guest", |record| {
        record.text.contains("rule slow of the host was obeyed")
            && record.text.ends_with("run calm: done")
    });
}

#[test]
fn a_guest_that_repeats_what_its_rules_did_is_asked_no_more_than_a_bounded_number_of_times() {
    const RECORDS_AN_HOUR: u32 = 1_000;
    let stage = Stage::new(&WEB.replace("guest/agent.sock", "channel.sock"));
    let guest = stage.path().join("guest");
    let relay = Relay::start(&stage.path().join("channel.sock"), Agent::socket(&guest));
    relay.repeat_records();
    let _agent = Agent::start(&guest);
    let daemon = stage.start();
    let most = RECORDS_AN_HOUR / PAGE;
    until("it is asked as often as may be", || {
        relay.questions() >= most
    });
    ticks(&daemon);
    assert_eq!(relay.questions(), most);
    let told = daemon.told("action").len();
    assert_eq!(told, 2 * PAGE as usize, "each is recorded once");
}

#[test]
fn a_failed_login_is_answered_in_the_guest_and_heard_of_on_the_host() {
    let rule = "  - name: guard\n    when: EVENT(login.failed) FOR 1s\n    then: run calm\n  - IF EVENT(login.failed) THEN notify \"somebody failed to log in\"\n";
    let (set, daemon) = start(rule, "");
    let guarded = |record: &AuditRecordView| {
        record.text.contains("in the guest rule guard fired")
            && record.text.ends_with("run calm: done")
    };
    let heard = |record: &AuditRecordView| record.text.contains("somebody failed to log in");
    // What was before somebody looked is no event, so one follows the other until it is seen.
    until("both have answered it", || {
        let audit = daemon.audit();
        let answered = audit.iter().any(guarded) && audit.iter().any(heard);
        if !answered {
            crate::telemetry::fail_logins(&set.stage, 1);
        }
        answered
    });
    let explained = daemon.explain("web");
    let guard = explained.rules.iter().find(|rule| rule.name == "guard");
    assert_eq!(guard.map(|rule| rule.state), Some(RuleState::InGuest));
    let of_host = |record: &AuditRecordView| record.text.starts_with("rule guard");
    assert!(!daemon.audit().iter().any(of_host));
}

#[test]
fn a_rule_whose_trust_needs_a_person_is_proposed_on_the_host_and_done_when_approved() {
    let (set, daemon) = start("trust_levels: {command_execution: low}\n", "");
    set.agent.emit(&["queue=20"]);
    let of_drain = |proposal: &&ProposalView| proposal.text.contains("run drain");
    let waits = daemon.wait_domain(set.web, "it waits for a person", |domain| {
        domain.proposals.iter().any(|proposal| of_drain(&proposal))
    });
    assert_eq!(lines(&set.guest, "drained"), 0);
    let id = waits.proposals.iter().find(of_drain).unwrap().id;
    let approved = daemon.ask(Command::Approve { id });
    assert!(approved.is_ok(), "{approved:?}");
    daemon.wait_record("it was done in the guest", |record| {
        record.text.contains("rule drain of the host was obeyed")
            && record.text.ends_with("run drain: done")
    });
    assert_eq!(lines(&set.guest, "drained"), 1);
}

#[test]
fn a_rule_of_the_host_has_the_guest_act() {
    let rule = "  - name: always\n    when: memory.size > 1 MiB AND guest.app.go > 0\n    then: run calm\n";
    let (set, daemon) = start(rule, "");
    set.agent.emit(&["go=1"]);
    daemon.wait_record("it was done in the guest", |record| {
        record.text.contains("rule always of the host was obeyed")
            && record.text.ends_with("run calm: done")
    });
    assert_eq!(lines(&set.guest, "calmed"), 1);
}
