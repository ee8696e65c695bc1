//! What rules of the host call for while the guest cannot be asked: it waits, over restarts of daemon and agent, is done once when the
//! agent is there, and goes with a reason where it has lost its purpose; and rules that never went to the guest are brought there.
//! The agent is the real program.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::domain::DomainId;
use serde::{Deserialize, Serialize};
use virt_persona::store::{Store, Stored, Tree};
use virt_persona::view::{ActivationState, AgentState, DomainView};

use crate::adjust::ticks;
use crate::agent::Agent;
use crate::relay::{Message, Relay, Side};
use crate::stage::{Running, Stage, mib, until};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
guest = { memory_used_mib = 100 }
agent_channel = 'FOLDER/channel.sock'
";

/// What the guest's memory shows is the host's, so that it is known without the agent, whose own figure is another.
const DOCUMENT: &str = "
name: front
response_scripts:
  drain: echo drained >> DRAINED
adaptation_rules:
  - {name: drain, when: memory.utilization > 70%, then: run drain, source: balloon}
  - {name: cache, when: memory.utilization > 70%, then: enable feature cache, until: memory.utilization < 30%, source: balloon}
";

struct Set {
    stage: Stage,
    relay: Relay,
    web: DomainId,
    guest: PathBuf,
}

/// A domain whose guest has the persona, and whose agent has ended since.
fn without_an_agent() -> (Set, Running) {
    let (set, agent, daemon) = start(DOCUMENT);
    drop(agent);
    set.relay.cut();
    daemon.wait_domain(set.web, "the agent is gone", |domain| {
        domain.agent.state != AgentState::Connected
    });
    (set, daemon)
}

fn start(document: &str) -> (Set, Agent, Running) {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let on = guest.join("cache").display().to_string();
    let feature = guest.join("etc/virt-persona/features.d/cache");
    fs::create_dir_all(feature.parent().unwrap()).unwrap();
    let text = format!(
        "#!/bin/sh\ncase $1 in\nstatus) [ -e {on} ];;\nenable) touch {on}; echo on >> {on}.log;;\ndisable) rm {on};;\nesac\n"
    );
    fs::write(&feature, text).unwrap();
    fs::set_permissions(&feature, fs::Permissions::from_mode(0o755)).unwrap();
    let agent = Agent::start(&guest);
    let relay = Relay::start(&stage.path().join("channel.sock"), Agent::socket(&guest));
    let web = stage.id("web");
    let daemon = stage.start();
    let drained = guest.join("drained").display().to_string();
    daemon.create(&document.replace("DRAINED", &drained));
    let name = document.trim_start().lines().next().unwrap();
    daemon.apply("web", name.strip_prefix("name: ").unwrap());
    active(&daemon, web);
    let set = Set {
        stage,
        relay,
        web,
        guest,
    };
    (set, agent, daemon)
}

fn active(daemon: &Running, web: DomainId) {
    daemon.wait_domain(web, "its guest has the persona", |domain| {
        domain.activation.state == ActivationState::Active
    });
}

fn wait_waiting(daemon: &Running, web: DomainId, what: &str) {
    daemon.wait_domain(web, what, |domain| {
        domain.problems.iter().any(|problem| problem.contains(what))
    });
}

fn wait_dropped(daemon: &Running, what: &str) {
    daemon.wait_record(what, |record| {
        record.kind == "refusal" && record.text.contains(what)
    });
}

fn lines(guest: &Path, file: &str) -> usize {
    let text = fs::read_to_string(guest.join(file)).unwrap_or_default();
    text.lines().count()
}

const BOTH_WAIT: &str =
    "2 calls of rules wait for the guest's agent: run drain, enable feature cache";

#[test]
fn what_is_called_for_without_an_agent_waits_for_it_and_is_done_once() {
    let (set, daemon) = without_an_agent();
    set.stage.simulated.set_memory_used(set.web, mib(450));
    wait_waiting(&daemon, set.web, BOTH_WAIT);
    daemon.kill();
    let daemon = set.stage.start();
    wait_waiting(&daemon, set.web, BOTH_WAIT);
    let agent = Agent::start(&set.guest);
    for rule in ["drain", "cache"] {
        daemon.wait_record("it was done", |record| {
            record
                .text
                .contains(&format!("rule {rule} of the host was obeyed"))
                && record.text.ends_with(": done")
        });
    }
    // Nothing of it is asked for once more, by whichever daemon.
    daemon.kill();
    let daemon = set.stage.start();
    set.stage.simulated.set_memory_used(set.web, mib(100));
    daemon.wait_record("the feature is switched off again", |record| {
        record.text.contains("disable feature cache: done")
    });
    // Once for each time that it was called for: on a host so busy that a figure is out of date a rule may fire again.
    let told = |kind: &str, text: &str| {
        let told = daemon.told(kind);
        told.iter().filter(|record| record.contains(text)).count()
    };
    let asked = told("decision", "rule drain asks for");
    daemon.wait_record("each is told", |_| {
        told("action", "rule drain of the host was obeyed") >= asked
    });
    drop(agent);
    assert_eq!(told("action", "rule drain of the host was obeyed"), asked);
    assert_eq!(lines(&set.guest, "drained"), asked);
    assert_eq!(lines(&set.guest, "cache.log"), 1, "{:#?}", daemon.audit());
}

#[test]
fn what_was_not_begun_before_the_until_came_is_not_begun_at_all() {
    let (set, daemon) = without_an_agent();
    set.stage.simulated.set_memory_used(set.web, mib(450));
    wait_waiting(&daemon, set.web, BOTH_WAIT);
    set.stage.simulated.set_memory_used(set.web, mib(100));
    wait_dropped(
        &daemon,
        "rule cache asks for: enable feature cache; nothing is done in the guest: the until of the rule came before",
    );
    wait_dropped(
        &daemon,
        "takes back: enable feature cache; nothing is done in the guest: what it would take back was never begun",
    );
    // The other rule has no `until`: what it called for is still to be done.
    let _agent = Agent::start(&set.guest);
    daemon.wait_record("the script was run", |record| {
        record.text.ends_with("run drain: done")
    });
    assert_eq!(lines(&set.guest, "cache.log"), 0);
}

#[test]
fn a_script_that_waited_too_long_is_not_run_and_a_feature_goes_on_waiting() {
    let (set, daemon) = without_an_agent();
    set.stage.simulated.set_memory_used(set.web, mib(450));
    wait_waiting(&daemon, set.web, BOTH_WAIT);
    // What rules look at is out of date after the sleep, and they shall not fire anew when it is known again.
    set.stage.simulated.set_memory_used(set.web, mib(256));
    set.stage.suspend(Duration::from_secs(2 * 3_600));
    wait_dropped(
        &daemon,
        "rule drain asks for: run drain; nothing is done in the guest: it has waited for its agent for 60 min",
    );
    let _agent = Agent::start(&set.guest);
    daemon.wait_record("the feature is on", |record| {
        record.text.ends_with("enable feature cache: done")
    });
    assert_eq!(lines(&set.guest, "drained"), 0);
}

#[test]
fn what_another_persona_or_another_machine_called_for_is_not_done() {
    let (set, daemon) = without_an_agent();
    set.stage.simulated.set_memory_used(set.web, mib(450));
    wait_waiting(&daemon, set.web, BOTH_WAIT);
    set.stage.simulated.restart(set.web);
    wait_dropped(
        &daemon,
        "run drain; nothing is done in the guest: the machine that it was called for is no more",
    );
    // The new machine is as short of memory as the one before.
    wait_waiting(&daemon, set.web, BOTH_WAIT);
    daemon.create("name: other\n");
    daemon.apply("web", "other");
    wait_dropped(
        &daemon,
        "run drain; nothing is done in the guest: its persona is no longer in force",
    );
    wait_dropped(
        &daemon,
        "cache; nothing is done in the guest: its persona is no longer in force",
    );
    let _agent = Agent::start(&set.guest);
    active(&daemon, set.web);
    assert_eq!(lines(&set.guest, "drained"), 0);
    assert_eq!(lines(&set.guest, "cache.log"), 0);
}

#[test]
fn what_was_cut_off_on_its_way_is_done_under_what_rules_adjusted_meanwhile() {
    let full = "  - {name: full, when: memory.utilization > 90%, then: apply environment_variables.TIER = full, source: balloon}\n";
    let (set, _agent, daemon) = start(&format!("{DOCUMENT}{full}"));
    set.relay.stop_at("drain", Message::Call, Side::Before);
    set.stage.simulated.set_memory_used(set.web, mib(400));
    set.relay.wait_until_stopped();
    set.stage.simulated.set_memory_used(set.web, mib(490));
    daemon.wait_record("it is to be adjusted", |record| {
        record.text.starts_with("rules adjust the persona")
    });
    set.relay.cut();
    daemon.wait_domain(set.web, "it is adjusted", |domain| {
        let detail = domain.activation.detail.as_deref().unwrap_or_default();
        domain.activation.state == ActivationState::Active && detail.contains("TIER = full")
    });
    for deed in ["run drain: done", "enable feature cache: done"] {
        daemon.wait_record("it was done", |record| record.text.ends_with(deed));
    }
    // Once for each time that it was called for.
    until("each is done", || {
        let told = daemon.told("decision");
        let asked = told
            .iter()
            .filter(|text| text.contains("asks for: run drain"));
        lines(&set.guest, "drained") == asked.count()
    });
}

#[test]
fn what_waits_for_a_guest_that_goes_back_by_hand_is_not_done() {
    let (set, agent, daemon) = start("name: plain\n");
    let drained = set.guest.join("drained").display().to_string();
    daemon.create(&DOCUMENT.replace("DRAINED", &drained));
    daemon.apply("web", "front");
    active(&daemon, set.web);
    set.relay.stop_at("drain", Message::Call, Side::Before);
    set.stage.simulated.set_memory_used(set.web, mib(450));
    set.relay.wait_until_stopped();
    let said = agent.ask(&["rollback"]).unwrap();
    assert!(said.contains("plain version 1"), "{said}");
    // Whoever is started anew: the guest says it, and the host knows what waits.
    daemon.kill();
    drop(agent);
    let _agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    for (deed, known) in [
        ("run drain", "it is not known whether the guest has done it"),
        ("enable feature cache", "nothing is done in the guest"),
    ] {
        wait_dropped(
            &daemon,
            &format!(
                "{deed}; {known}: somebody in the guest went back to another generation by hand"
            ),
        );
    }
    ticks(&daemon);
    assert_eq!(lines(&set.guest, "drained"), 0);
    assert_eq!(lines(&set.guest, "cache.log"), 0);
}

/// One rule that runs a script and adjusts the persona besides. It holds all the time, and that is always known.
const MIXED: &str = "
name: front
environment_variables: {TIER: calm}
response_scripts:
  drain: echo drained >> DRAINED
adaptation_rules:
  - {name: mixed, when: host.memory.available > 1 MiB, then: [run drain, apply environment_variables.TIER = busy]}
";

#[test]
fn what_a_rule_runs_beside_an_adjustment_is_not_run_again_by_the_next_daemon() {
    let (set, _agent, daemon) = start(MIXED);
    let adjusted = |domain: &DomainView| {
        let detail = domain.activation.detail.as_deref().unwrap_or_default();
        domain.activation.state == ActivationState::Active && detail.contains("TIER = busy")
    };
    daemon.wait_domain(set.web, "it is adjusted", adjusted);
    daemon.wait_record("the script was run", |record| {
        record.text.ends_with("run drain: done")
    });
    daemon.kill();
    let daemon = set.stage.start();
    daemon.wait_domain(set.web, "the agent is there", |domain| {
        domain.agent.state == AgentState::Connected
    });
    let asked = |what: &str| {
        let told = daemon.told("decision");
        let asked = told.iter().filter(|text| text.contains(what));
        asked.count()
    };
    // What waits for its turn is known nowhere else, so it is called for again.
    until("the rule has begun anew", || {
        asked("rule mixed asks for: apply") == 2
    });
    ticks(&daemon);
    daemon.wait_domain(set.web, "it is adjusted still", adjusted);
    assert_eq!(asked("rule mixed asks for: run drain"), 1);
    assert_eq!(lines(&set.guest, "drained"), 1);
}

#[test]
fn what_a_rule_switched_beside_an_adjustment_that_failed_goes_back_under_the_next_daemon() {
    let document = DOCUMENT.replace(
        "then: enable feature cache",
        "then: [enable feature cache, apply os_settings.sysctl.vm.laptop_mode = 5]",
    );
    let (set, _agent, daemon) = start(&document);
    // It can be read, and nobody can write to it.
    let folder = set.guest.join("proc/sys/vm");
    fs::create_dir_all(&folder).unwrap();
    symlink("/proc/version", folder.join("laptop_mode")).unwrap();
    set.stage.simulated.set_memory_used(set.web, mib(450));
    daemon.wait_record("the guest refused the one", |record| {
        record.kind == "refusal" && record.text.contains("vm.laptop_mode")
    });
    daemon.wait_record("the other was done", |record| {
        record.text.ends_with("enable feature cache: done")
    });
    active(&daemon, set.web);
    // Neither the condition nor the `until` holds when the next daemon comes.
    set.stage.simulated.set_memory_used(set.web, mib(256));
    ticks(&daemon);
    daemon.kill();
    let daemon = set.stage.start();
    ticks(&daemon);
    set.stage.simulated.set_memory_used(set.web, mib(100));
    daemon.wait_record("the feature is switched off again", |record| {
        record.text.ends_with("disable feature cache: done")
    });
}

#[test]
fn a_persona_that_stands_after_another_has_failed_has_its_calls_done() {
    let (set, agent, daemon) = start(DOCUMENT);
    daemon.create("name: other\npre_activation_script: exit 3\n");
    let fails = || {
        daemon.apply("web", "other");
        daemon.wait_domain(set.web, "the other one fails", |domain| {
            domain.activation.state == ActivationState::Failed
        });
    };
    let is_run = |times: usize| {
        set.stage.simulated.set_memory_used(set.web, mib(450));
        until("the script is run", || {
            lines(&set.guest, "drained") >= times
        });
        until("the feature is on", || set.guest.join("cache").exists());
        set.stage.simulated.set_memory_used(set.web, mib(100));
        until("the feature is off", || !set.guest.join("cache").exists());
    };
    // The guest had no persona when it connected, also where it has said something else of itself since.
    fails();
    let own = agent.ask(&["customize", "environment.STAGE=mine"]);
    assert!(own.is_ok(), "{own:?}");
    daemon.wait_record("it is told", |record| {
        record.text.contains("the guest has its own way")
    });
    is_run(1);
    // It had this one, and got it again since.
    set.relay.cut();
    daemon.wait_record("it is connected again", |_| {
        let told = daemon.told("connection");
        let told = told.iter().filter(|text| text.contains("is connected"));
        told.count() == 2
    });
    daemon.apply("web", "front");
    active(&daemon, set.web);
    fails();
    is_run(2);
    assert_eq!(brought(&daemon), 0);
}

/// A rule of the guest, and a script that shall run once for each activation.
const OWN_RULE: &str = "
name: front
response_scripts:
  drain: echo drained >> DRAINED
pre_activation_script: echo begun >> DRAINED.pre
adaptation_rules:
  - {name: drain, when: guest.app.queue > 10, then: run drain}
";

/// What is known of rules in guests, as a daemon that sent none has left it.
#[derive(Serialize, Deserialize)]
struct Older {
    seen: Vec<(String, u64)>,
}

impl Stored for Older {
    const TREE: Tree = Tree::GuestRules;
}

/// The guest evaluates the rule, and nothing was run again for that.
fn is_in_force(set: &Set, agent: &Agent, daemon: &Running) {
    agent.emit(&["queue=20"]);
    daemon.wait_record("the rule has fired in the guest", |record| {
        record.text.contains("in the guest rule drain fired")
    });
    assert_eq!(lines(&set.guest, "drained.pre"), 1);
    assert_eq!(brought(daemon), 1);
}

fn brought(daemon: &Running) -> usize {
    let told = daemon.told("activation");
    let brought = |text: &&String| text.contains("its rules are not in the guest yet");
    told.iter().filter(brought).count()
}

#[test]
fn rules_of_a_persona_that_an_earlier_version_activated_are_brought_to_the_guest_once() {
    let (set, agent, daemon) = start(OWN_RULE);
    daemon.stop();
    drop(agent);
    // As a host and an agent left it that knew no rules of guests.
    let kept = set.guest.join("state/gen");
    for file in fs::read_dir(kept).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let activation = record["activation"].as_object_mut().unwrap();
        activation.remove("rules").unwrap();
        fs::write(file.path(), record.to_string()).unwrap();
    }
    {
        let store = Store::open(set.stage.path().join("state")).unwrap();
        store.put(set.web.0, &Older { seen: Vec::new() }).unwrap();
    }
    let agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    daemon.wait_record("they are brought", |record| {
        record.text.contains("its rules are not in the guest yet")
    });
    active(&daemon, set.web);
    is_in_force(&set, &agent, &daemon);
    // Not again, whoever is started anew.
    daemon.kill();
    drop(agent);
    let agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    daemon.wait_domain(set.web, "the agent is there", |domain| {
        domain.agent.state == AgentState::Connected
    });
    is_in_force(&set, &agent, &daemon);
}

#[test]
fn rules_go_to_an_agent_that_was_too_old_for_them_when_a_newer_one_comes() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let agent = Agent::start(&guest);
    let relay = Relay::start(&stage.path().join("channel.sock"), Agent::socket(&guest));
    relay.make_older(true);
    let web = stage.id("web");
    let daemon = stage.start();
    let drained = guest.join("drained").display().to_string();
    daemon.create(&OWN_RULE.replace("DRAINED", &drained));
    daemon.apply("web", "front");
    active(&daemon, web);
    daemon.wait_domain(web, "it is said", |domain| {
        let mut problems = domain.problems.iter();
        problems.any(|problem| problem.contains("the agent is too old to evaluate rules"))
    });
    let set = Set {
        stage,
        relay,
        web,
        guest,
    };
    assert_eq!(brought(&daemon), 0);
    set.relay.make_older(false);
    set.relay.cut();
    daemon.wait_record("they are brought", |record| {
        record.text.contains("its rules are not in the guest yet")
    });
    active(&daemon, set.web);
    is_in_force(&set, &agent, &daemon);
}
