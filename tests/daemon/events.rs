//! What happens to a domain, as the rules hear of it: each thing once, and nothing of what was before the daemon.

use std::time::Duration;

use virt_persona::hypervisor::{HypervisorEvent, RunState};
use virt_persona::view::ActivationState;

use crate::agent::Agent;
use crate::stage::{Running, Stage};

/// A notice that has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(30);

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
agent_channel = 'FOLDER/guest/agent.sock'
";

/// Tells of everything that the daemon itself can know.
const TELLTALE: &str = "
name: telltale
adaptation_rules:
  - IF EVENT(domain.started) THEN notify \"started\"
  - IF EVENT(domain.rebooted) THEN notify \"rebooted\"
  - IF EVENT(domain.paused) THEN notify \"paused\"
  - IF EVENT(domain.resumed) THEN notify \"resumed\"
  - IF EVENT(agent.connected) THEN notify \"connected\"
  - IF EVENT(agent.lost) THEN notify \"lost\"
";

fn telltale(stage: &Stage) -> Running {
    let daemon = stage.start();
    daemon.create(TELLTALE);
    daemon.apply("web", "telltale");
    daemon
}

/// The last word of each notice so far, in their order.
fn notices(daemon: &Running) -> Vec<String> {
    let told = daemon.told("decision");
    let says = |text: &String| text.rsplit(' ').next().unwrap_or_default().to_owned();
    let notices = told.iter().filter(|text| text.contains(" says: "));
    notices.map(says).collect()
}

/// Waits for a number of notices, and for some ticks more in which no other must come.
#[track_caller]
fn wait_notices(daemon: &Running, expected: &[&str]) {
    let began = std::time::Instant::now();
    while notices(daemon).len() < expected.len() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 10);
    assert_eq!(notices(daemon), expected);
}

#[test]
fn an_agent_that_comes_and_goes_is_told_of_once_each() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let agent = Agent::start(&stage.path().join("guest"));
    let daemon = telltale(&stage);
    daemon.wait_domain(web, "it is active", |domain| {
        domain.activation.state == ActivationState::Active
    });
    wait_notices(&daemon, &["connected"]);
    // The daemon renews the session then, and the same agent comes back: neither lost nor connected.
    stage
        .simulated
        .emit(HypervisorEvent::Rebooted { domain: web });
    wait_notices(&daemon, &["connected", "rebooted"]);
    drop(agent);
    wait_notices(&daemon, &["connected", "rebooted", "lost"]);
}

#[test]
fn a_domain_that_ran_before_the_daemon_has_not_started_and_one_that_starts_has() {
    let stage = Stage::new("[[domain]]\nname = 'web'\nmemory_mib = 512\n");
    let web = stage.id("web");
    let daemon = telltale(&stage);
    wait_notices(&daemon, &[]);
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    stage.simulated.set_state(web, RunState::Running);
    wait_notices(&daemon, &["started"]);
}

#[test]
fn pauses_and_reboots_are_told_of() {
    let stage = Stage::new("[[domain]]\nname = 'web'\nmemory_mib = 512\n");
    let web = stage.id("web");
    let daemon = telltale(&stage);
    wait_notices(&daemon, &[]);
    stage.simulated.set_state(web, RunState::Paused);
    // While it is paused, not when it runs again.
    wait_notices(&daemon, &["paused"]);
    stage.simulated.set_state(web, RunState::Running);
    wait_notices(&daemon, &["paused", "resumed"]);
    stage
        .simulated
        .emit(HypervisorEvent::Rebooted { domain: web });
    wait_notices(&daemon, &["paused", "resumed", "rebooted"]);
}
