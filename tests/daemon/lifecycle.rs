//! What becomes of a domain and of its host, as docs/lifecycle.md says it: each with what the daemon keeps, forgets, and
//! tells of it.

use std::time::Duration;

use persona::units::Bytes;
use virt_persona::command::{Command, DomainName, Reply};
use virt_persona::hypervisor::simulated::{AsItWas, Scenario};
use virt_persona::hypervisor::{HypervisorEvent, Lifecycle, RunState};
use virt_persona::view::{DomainView, HoldView};

use crate::stage::{ELASTIC, Running, Stage, mib};

const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
tags = ['elastic']
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
";

/// Holds are about vCPUs, which no rule of it changes; it tells of starts and arrivals.
const ELASTIC_TELLS: &str = "
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB}
  cpu: {min: 1, max: 4}
adaptation_rules:
  - IF EVENT(domain.started) THEN notify \"started\"
  - IF EVENT(domain.rebooted) THEN notify \"rebooted\"
  - IF EVENT(migration.finished) THEN notify \"arrived\"
";

const AS_IT_WAS: AsItWas = AsItWas {
    vcpus: 2,
    device: Bytes(0),
};

const HOUR: Duration = Duration::from_secs(3600);

fn telling() -> (Stage, Running) {
    let stage = Stage::new(WEB);
    let daemon = stage.start();
    daemon.create(&format!("name: elastic\n{ELASTIC_TELLS}"));
    daemon.map("elastic", "elastic");
    daemon.wait_domain(stage.id("web"), "it has its persona", |domain| {
        domain.persona.is_some()
    });
    (stage, daemon)
}

/// Waits for some ticks, in which whatever was going to happen has happened.
fn ticks(daemon: &Running) {
    let now = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > now + 15);
}

fn notices(daemon: &Running) -> Vec<String> {
    let told = daemon.told("decision").into_iter();
    told.filter(|text| text.contains(" says: ")).collect()
}

#[track_caller]
fn told(daemon: &Running, text: &str) {
    daemon.wait_record(&format!("says {text}"), |record| record.text.contains(text));
}

fn by_hand(domain: &DomainView) -> Option<&HoldView> {
    let mut holds = domain.holds.iter();
    holds.find(|hold| hold.reason.contains("by hand"))
}

#[test]
fn a_domain_that_comes_from_another_host_has_arrived_and_not_started() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    let comes = Scenario::parse(
        "[[domain]]\nname = 'guest'\nmemory_mib = 512\nstate = 'off'\ntags = ['elastic']\nvcpus_maximum = 4\n",
    )
    .unwrap();
    let guest = stage.simulated.add_domain(comes.domains[0].clone());
    daemon.wait_domain(guest, "it is known", |_| true);
    // It is seen before it is told.
    stage.simulated.turn_unheard(guest, RunState::Paused);
    stage
        .simulated
        .emit(HypervisorEvent::Tuned { domain: guest });
    daemon.wait_domain(guest, "it is on its way", |domain| {
        domain.state == RunState::Paused
    });
    ticks(&daemon);
    stage.simulated.emit(HypervisorEvent::Lifecycle {
        domain: guest,
        change: Lifecycle::Arriving,
    });
    ticks(&daemon);
    assert_eq!(notices(&daemon), [""; 0]);
    stage
        .simulated
        .turn_into(guest, RunState::Running, Lifecycle::Arrived);
    told(&daemon, "says: arrived");
    told(&daemon, "has come from another host");
    ticks(&daemon);
    assert_eq!(notices(&daemon).len(), 1, "{:?}", notices(&daemon));
    // Its tags came with it, and with them its persona.
    let domain = daemon.wait_domain(guest, "it has its persona", |domain| {
        domain.persona.is_some()
    });
    assert_eq!(domain.persona.unwrap().tag.as_deref(), Some("elastic"));
    assert_eq!(daemon.told("drift"), [""; 0]);
    // And it goes on, leaving its definition here.
    stage
        .simulated
        .turn_into(guest, RunState::Off, Lifecycle::Departed);
    told(&daemon, "has gone to another host");
    let left = daemon.wait_domain(guest, "it is off", |domain| domain.state == RunState::Off);
    assert!(left.persona.is_some());
    assert!(daemon.view().domains.contains_key(&web));
}

#[test]
fn a_start_that_nobody_told_is_one_as_soon_as_the_machine_runs() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    stage.simulated.turn_unheard(web, RunState::Off);
    stage.simulated.turn_unheard(web, RunState::Paused);
    stage.simulated.emit(HypervisorEvent::Tuned { domain: web });
    daemon.wait_domain(web, "it is there", |domain| {
        domain.state == RunState::Paused
    });
    ticks(&daemon);
    assert_eq!(notices(&daemon), [""; 0]);
    stage.simulated.turn_unheard(web, RunState::Running);
    stage.simulated.emit(HypervisorEvent::Tuned { domain: web });
    told(&daemon, "says: started");
    ticks(&daemon);
    assert_eq!(notices(&daemon).len(), 1, "{:?}", notices(&daemon));
}

#[test]
fn what_happened_before_a_revert_is_not_heard_of_again_after_it() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    stage
        .simulated
        .emit(HypervisorEvent::Rebooted { domain: web });
    told(&daemon, "says: rebooted");
    stage.simulated.revert(web, AS_IT_WAS);
    told(&daemon, "was reverted to a snapshot");
    ticks(&daemon);
    assert_eq!(notices(&daemon).len(), 1, "{:?}", notices(&daemon));
}

#[test]
fn a_revert_is_told_and_taken_for_nobodys_hand() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    ticks(&daemon);
    stage.simulated.set_vcpus_by_hand(web, 3);
    daemon.wait_domain(web, "the hand is seen", |domain| by_hand(domain).is_some());
    stage.simulated.revert(web, AS_IT_WAS);
    told(&daemon, "was reverted to a snapshot");
    let after = daemon.wait_domain(web, "it is as it was", |domain| {
        domain.vcpus.plugged == Some(2) && by_hand(domain).is_none()
    });
    ticks(&daemon);
    assert_eq!(reverts(&daemon), 1, "told in two pieces it is one");
    assert!(after.persona.is_some());
    ticks(&daemon);
    assert_eq!(daemon.told("drift").len(), 1, "{:?}", daemon.told("drift"));
    assert_eq!(notices(&daemon), [""; 0], "the guest did not start");
    // The emulator is the same, and what was forgotten does not come back out of the store.
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_domain(web, "it has its persona", |domain| domain.persona.is_some());
    ticks(&daemon);
    assert!(by_hand(&daemon.view().domains[&web]).is_none());
}

/// A domain that was asked to grow and does not follow, with the step under way for as long as a test takes.
fn stuck() -> (Stage, Running) {
    let stage = Stage::new(&WEB.replace("300 }", "300, follow_ms = 1000000 }"));
    let daemon = stage.start_with("[memory]\ndeadline_s = 3600\n");
    daemon.create(ELASTIC);
    daemon.map("elastic", "elastic");
    let web = stage.id("web");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait("more is asked for", |_| {
        let shown = stage.simulated.shown(web);
        shown.is_some_and(|shown| shown.requested > mib(512))
    });
    (stage, daemon)
}

fn reverts(daemon: &Running) -> usize {
    let told = daemon.told("connection");
    told.iter().filter(|text| text.contains("reverted")).count()
}

#[test]
fn a_revert_in_another_emulator_is_one_record_and_no_start_also_where_it_is_seen_before_it_is_told()
{
    let (stage, daemon) = telling();
    let web = stage.id("web");
    ticks(&daemon);
    for reverted in 1..=2 {
        let before = daemon.view().domains[&web].instance;
        stage.simulated.revert_begins(web, AS_IT_WAS);
        daemon.wait_domain(web, "the other emulator is seen", |domain| {
            domain.instance != before && domain.state == RunState::Running
        });
        ticks(&daemon);
        stage.simulated.revert_is_told(web);
        ticks(&daemon);
        assert_eq!(reverts(&daemon), reverted);
        assert_eq!(notices(&daemon), [""; 0]);
    }
    assert_eq!(daemon.told("drift"), [""; 0]);
    // A start after it is one.
    stage.simulated.restart(web);
    told(&daemon, "says: started");
    assert_eq!(reverts(&daemon), 2);
}

#[test]
fn a_revert_in_the_middle_of_a_memory_step_ends_it() {
    let (stage, daemon) = stuck();
    let web = stage.id("web");
    stage.simulated.revert(
        web,
        AsItWas {
            vcpus: 1,
            device: mib(64),
        },
    );
    told(&daemon, "was reverted to a snapshot");
    told(&daemon, "by somebody else or by a revert");
    ticks(&daemon);
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn a_hand_in_the_middle_of_a_memory_step_is_seen_and_held() {
    let (stage, daemon) = stuck();
    let web = stage.id("web");
    stage.simulated.set_memory_by_hand(web, mib(64));
    told(&daemon, "by somebody else or by a revert");
    daemon.wait_domain(web, "the hand is held", |domain| by_hand(domain).is_some());
    assert_eq!(daemon.told("drift").len(), 1, "{:?}", daemon.told("drift"));
}

#[test]
fn what_was_asked_for_before_a_pause_comes_after_it_and_is_nobodys_hand() {
    let stage = Stage::new(&WEB.replace(
        "memory_used_mib = 300",
        "memory_used_mib = 300, follow_ms = 300",
    ));
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.map("elastic", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_domain(web, "more is asked for", |domain| {
        domain.memory.requested > Some(mib(512))
    });
    stage.simulated.set_state(web, RunState::Paused);
    daemon.wait_domain(web, "it is paused", |domain| {
        domain.state == RunState::Paused
    });
    ticks(&daemon);
    stage.simulated.set_state(web, RunState::Running);
    daemon.wait_memory(web, |now| now >= 640);
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn a_domain_that_was_saved_goes_on_with_what_it_had() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.map("elastic", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now >= 768);
    stage
        .simulated
        .turn_into(web, RunState::Off, Lifecycle::Stopped);
    daemon.wait_domain(web, "it is saved", |domain| domain.state == RunState::Off);
    stage
        .simulated
        .turn_into(web, RunState::Running, Lifecycle::Restored);
    daemon.wait_domain(web, "it runs", |domain| domain.state == RunState::Running);
    // So libvirt tells that what was restored runs.
    stage.simulated.emit(HypervisorEvent::Lifecycle {
        domain: web,
        change: Lifecycle::Reverted,
    });
    ticks(&daemon);
    let told = daemon.told("connection");
    assert!(
        told.iter().all(|text| !text.contains("reverted")),
        "{told:?}"
    );
    assert!(daemon.view().domains[&web].memory.plugged >= Some(mib(768)));
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_memory(web, |now| now == 512);
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn a_crash_is_told_and_what_is_kept_for_a_look_at_it_is_held() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    // on_crash preserve: the emulator keeps what it has.
    stage
        .simulated
        .turn_into(web, RunState::Other, Lifecycle::Crashed);
    told(&daemon, "the domain crashed");
    let crashed = daemon.wait_domain(web, "it is seen", |domain| domain.state == RunState::Other);
    assert_eq!(crashed.memory.plugged, Some(mib(512)));
    stage
        .simulated
        .turn_into(web, RunState::Off, Lifecycle::Stopped);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    stage.simulated.set_state(web, RunState::Running);
    told(&daemon, "says: started");
    // on_crash restart: the same emulator boots the guest again.
    stage.simulated.emit(HypervisorEvent::Lifecycle {
        domain: web,
        change: Lifecycle::Crashed,
    });
    stage
        .simulated
        .emit(HypervisorEvent::Rebooted { domain: web });
    told(&daemon, "says: rebooted");
    let domain = daemon.wait_domain(web, "it runs", |domain| domain.state == RunState::Running);
    assert!(domain.persona.is_some());
}

#[test]
fn a_renamed_domain_is_the_same_under_its_new_name() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    daemon.apply("web", "elastic");
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    stage.simulated.rename(web, "shop");
    let domain = daemon.wait_domain(web, "it has its name", |domain| domain.name == "shop");
    assert!(domain.persona.is_some());
    told(&daemon, "domain web is now called shop");
    stage.simulated.set_state(web, RunState::Running);
    daemon.wait_record("of the new name", |record| {
        record.domain_name.as_deref() == Some("shop")
    });
    let done = daemon.ask(Command::Deactivate {
        domain: DomainName("shop".into()),
    });
    assert!(matches!(done, Ok(Reply::Applied(_))), "{done:?}");
}

#[test]
fn an_undefined_domain_is_forgotten_when_it_is_off_also_where_it_is_defined_anew() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    daemon.create("name: other\n");
    daemon.apply("web", "other");
    // While it runs it is transient, and keeps its persona.
    stage.simulated.undefine(web);
    ticks(&daemon);
    assert!(daemon.view().domains[&web].persona.is_some());
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait("it is gone", |view| !view.domains.contains_key(&web));
    told(
        &daemon,
        "domain web is no longer defined, so its persona is forgotten",
    );
    // The same UUID again: nothing is left of what a person applied.
    let mut scenario = Scenario::parse(WEB).unwrap().domains.remove(0);
    scenario.id = Some(web);
    scenario.state = RunState::Off;
    stage.simulated.add_domain(scenario.clone());
    let has = |name: &'static str| {
        move |domain: &DomainView| domain.persona.as_ref().is_some_and(|of| of.name == name)
    };
    daemon.wait_domain(web, "its tag decides", has("elastic"));
    daemon.apply("web", "other");
    stage.simulated.undefine(web);
    stage.simulated.add_domain(scenario.clone());
    daemon.wait_domain(web, "its tag decides again", has("elastic"));
}

#[test]
fn what_was_undefined_while_the_daemon_was_away_is_forgotten_and_what_was_defined_anew_is_not() {
    let stage = Stage::new(&format!(
        "{WEB}\n[[domain]]\nname = 'old'\nmemory_mib = 256\nstate = 'off'\n"
    ));
    let (web, old) = (stage.id("web"), stage.id("old"));
    let daemon = stage.start();
    daemon.create("name: other\n");
    daemon.apply("web", "other");
    daemon.apply("old", "other");
    daemon.kill();
    stage.simulated.remove_domain(old);
    stage.simulated.remove_domain(web);
    let mut scenario = Scenario::parse(WEB).unwrap().domains.remove(0);
    scenario.id = Some(web);
    stage.simulated.add_domain(scenario);
    let daemon = stage.start();
    told(
        &daemon,
        &format!("domain {old} is no longer defined, so its persona is forgotten"),
    );
    // Nobody can tell one that was defined anew from one that was changed.
    let domain = daemon.wait_domain(web, "it is found", |_| true);
    assert_eq!(domain.persona.unwrap().name, "other");
}

#[test]
fn a_sleep_of_the_host_counts_for_no_window_and_load_is_followed_afterwards() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&format!(
        "{ELASTIC}  - IF memory.utilization > 1% FOR 1h THEN notify \"an hour\"\n"
    ));
    daemon.map("elastic", "elastic");
    let before = daemon.wait_domain(web, "it is measured", |domain| {
        let used = domain
            .readings
            .iter()
            .find(|of| of.metric == "memory.utilization");
        used.is_some_and(|of| of.value.is_some())
    });
    assert_eq!(before.memory.plugged, Some(mib(512)));
    ticks(&daemon);
    stage.suspend(8 * HOUR);
    ticks(&daemon);
    assert_eq!(notices(&daemon), [""; 0], "nobody looked for eight hours");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now >= 768);
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn steps_of_the_wall_clock_change_nothing_while_the_daemon_runs() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    ticks(&daemon);
    stage.simulated.set_vcpus_by_hand(web, 3);
    let held = daemon.wait_domain(web, "the hand is seen", |domain| by_hand(domain).is_some());
    for hours in [-48, 96] {
        stage.step_wall_clock(hours * 3_600_000);
        ticks(&daemon);
        let now = daemon.wait_domain(web, "figures are fresh", |domain| {
            let used = domain
                .readings
                .iter()
                .find(|of| of.metric == "memory.utilization");
            used.is_some_and(|of| of.value.is_some())
        });
        assert_eq!(by_hand(&now), by_hand(&held));
    }
}

#[test]
fn after_a_step_back_of_the_wall_clock_a_restart_holds_nothing_for_longer_than_it_may() {
    let (stage, daemon) = telling();
    let web = stage.id("web");
    ticks(&daemon);
    stage.simulated.set_vcpus_by_hand(web, 3);
    daemon.wait_domain(web, "the hand is seen", |domain| by_hand(domain).is_some());
    daemon.kill();
    stage.step_wall_clock(-48 * 3_600_000);
    let daemon = stage.start();
    let now = daemon.wait_domain(web, "it is still held", |domain| by_hand(domain).is_some());
    let ends = by_hand(&now).unwrap().until.unwrap();
    let started = daemon.view().manager.started;
    assert!(ends.since(started) <= HOUR / 2 + Duration::from_secs(60));
    // And a step forward ends it, as the time that has passed for all that can be known.
    daemon.kill();
    stage.step_wall_clock(96 * 3_600_000);
    let daemon = stage.start();
    daemon.wait_domain(web, "it is held no longer", |domain| {
        by_hand(domain).is_none() && domain.persona.is_some()
    });
    assert_eq!(daemon.told("drift").len(), 1);
}
