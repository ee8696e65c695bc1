//! The control path end to end: memory follows what the guest uses, through every fault that the hypervisor can have,
//! and the audit claims nothing that was not seen.

use persona::signal::Source;
use virt_persona::hypervisor::simulated::{CallName, Called, Fault};
use virt_persona::hypervisor::{HypervisorEvent, RunState};
use virt_persona::view::{OutcomeWord, TruthWord};

use crate::stage::{ELASTIC, Running, Stage, mib, until};

const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
";

/// Its guest has an agent, so that vCPUs are changed.
const TALKING: &str = "
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
agent_channel = 'FOLDER/web.sock'
guest = { agent = 'simulated' }
";

fn elastic(stage: &Stage) -> Running {
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    daemon
}

/// Every action follows its decision, and every amount that is claimed lies within the bounds.
#[track_caller]
fn honest(daemon: &Running) {
    let mut open = 0;
    for record in daemon.audit() {
        match record.kind.as_str() {
            "decision" => open += 1,
            "action" => {
                assert!(open > 0, "an action without a decision: {}", record.text);
                open -= 1;
                let detail = &record.detail;
                if detail["ending"] == "applied" {
                    assert_eq!(detail["plugged"], detail["requested"], "{}", record.text);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn memory_grows_under_use_until_the_rule_no_longer_holds_and_shrinks_back_to_the_minimum() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = elastic(&stage);
    stage.simulated.set_memory_used(web, mib(500));
    // 500 of 768 is the first that is not above 70 %.
    let grown = daemon.wait_memory(web, |now| now >= 768);
    assert_eq!(grown.memory.plugged, Some(mib(768)));
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_memory(web, |now| now == 512);
    daemon.wait_record("the last step is applied", |record| {
        record.kind == "action" && record.text.contains("plugged 512 MiB")
    });
    let actions = daemon.told("action");
    assert!(
        actions.iter().all(|text| text.contains(": applied")),
        "{actions:#?}"
    );
    // Growth in steps of the rule; shrinking in smaller ones, because a guest needs time for them.
    assert!(actions.len() >= 6, "{actions:#?}");
    assert_eq!(daemon.told("drift"), [""; 0]);
    honest(&daemon);
    // Readings from before the last change count for nothing, so it takes one more look.
    let explained = daemon.wait_explained("web", "the second rule holds", |explained| {
        explained.rules[1].truth == TruthWord::True
    });
    assert_eq!(explained.rules.len(), 2);
    let looked = &explained.rules[1].looked[0];
    assert!(looked.value.is_some() && looked.source.is_some() && looked.age_ms.is_some());
    assert!(
        explained.summary.contains("512 MiB"),
        "{}",
        explained.summary
    );
}

/// The first step meets the fault and ends so; then the machine grows to where it shall be.
#[track_caller]
fn grows_through(fault: Fault, ending: &str, word: &str) {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = elastic(&stage);
    stage
        .simulated
        .fail_next(web, CallName::SetVirtioMem, fault);
    stage.simulated.set_memory_used(web, mib(500));
    // The first of these that leaves the use below 70 %, from whatever the first step came to.
    let done = daemon.wait_memory(web, |now| now > 714);
    let plugged = done.memory.plugged.map_or(0, |plugged| plugged.0);
    daemon.wait_record("the last step is applied", |record| {
        record.kind == "action" && record.detail["plugged"] == plugged
    });
    let actions = daemon.told("action");
    assert!(actions[0].contains(ending), "{actions:#?}");
    assert!(actions[0].contains(word), "{actions:#?}");
    assert_eq!(daemon.told("drift"), [""; 0]);
    honest(&daemon);
}

#[test]
fn a_refused_growth_is_refused_in_the_hypervisors_words_and_tried_again() {
    let message = "the moon is full".into();
    grows_through(Fault::Refuse { message }, ": refused", "the moon is full");
}

#[test]
fn a_slow_growth_is_applied() {
    grows_through(Fault::Slow { ms: 200 }, ": applied", "plugged 640 MiB");
}

#[test]
fn a_partial_growth_is_partly_applied_and_its_rest_taken_back() {
    grows_through(
        Fault::Partial { reaches_mib: 64 },
        ": partly applied",
        "taken back",
    );
}

#[test]
fn a_growth_whose_answer_was_lost_is_applied_because_it_is_seen() {
    grows_through(Fault::AnswerLost, ": applied", "did not end within");
}

#[test]
fn a_growth_whose_call_hangs_is_of_unknown_outcome_and_tried_again() {
    grows_through(Fault::Hang { ms: 800 }, ": of unknown outcome", "not known");
}

#[test]
fn a_growth_whose_events_are_lost_is_applied() {
    grows_through(Fault::EventsLost, ": applied", "plugged 640 MiB");
}

#[test]
fn a_growth_whose_events_come_twice_is_one_growth() {
    grows_through(Fault::EventsDuplicated, ": applied", "plugged 640 MiB");
}

#[test]
fn a_mechanism_that_keeps_failing_is_left_alone_and_that_is_shown() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = elastic(&stage);
    for _ in 0..3 {
        let message = "no".into();
        stage
            .simulated
            .fail_next(web, CallName::SetVirtioMem, Fault::Refuse { message });
    }
    stage.simulated.set_memory_used(web, mib(500));
    let held = daemon.wait_domain(web, "it is in quarantine", |domain| {
        !domain.holds.is_empty()
    });
    assert!(
        held.holds[0].reason.contains("did not take effect"),
        "{held:?}"
    );
    assert_eq!(daemon.told("action").len(), 3);
}

#[test]
fn one_hung_domain_does_not_delay_another() {
    let two = format!(
        "{WEB}{}",
        WEB.replace("deadline_ms = 2000", "")
            .replace("'web'", "'db'")
    );
    // What hangs here hangs for longer than any test may take.
    let stage = Stage::new(&two);
    let (web, db) = (stage.id("web"), stage.id("db"));
    let daemon = elastic(&stage);
    daemon.apply("db", "elastic");
    for call in [CallName::SetVirtioMem, CallName::Describe] {
        stage
            .simulated
            .fail_next(web, call, Fault::Hang { ms: 20_000 });
    }
    stage.simulated.set_memory_used(web, mib(500));
    stage.simulated.set_memory_used(db, mib(500));
    daemon.wait_memory(db, |now| now == 768);
    let hung = &daemon.view().domains[&web];
    assert_eq!(hung.memory.plugged, Some(mib(512)));
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 3);
}

#[test]
fn a_change_by_hand_is_respected_and_still_is_after_a_restart() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: one\nbase_configuration:\n  cpu: {min: 1, max: 4}\n");
    daemon.apply("web", "one");
    daemon.wait("it was planned for", |view| view.manager.ticks > 5);
    stage.simulated.set_vcpus_by_hand(web, 3);
    let held = |domain: &virt_persona::view::DomainView| {
        domain
            .holds
            .iter()
            .any(|hold| hold.reason.contains("by hand"))
    };
    let before = daemon.wait_domain(web, "the hand is seen", held);
    daemon.kill();
    let daemon = stage.start();
    let after = daemon.wait_domain(web, "it is still respected", held);
    assert_eq!(before.holds[0].until, after.holds[0].until);
    let drifts = daemon.told("drift");
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    assert!(drifts[0].contains("from 1 vCPU to 3 vCPUs"), "{drifts:?}");
}

#[test]
fn a_change_by_hand_while_the_daemons_own_is_being_confirmed_is_respected() {
    let stage = Stage::new(TALKING);
    let web = stage.id("web");
    let slow = Fault::Slow { ms: 1_000 };
    stage.simulated.fail_next(web, CallName::GuestCpus, slow);
    let daemon = stage.start();
    daemon.create("name: two\nbase_configuration:\n  cpu: {min: 2, max: 4}\n");
    daemon.apply("web", "two");
    // The daemon has plugged the second vCPU and waits for the guest to show it.
    let plugged = Called::SetVcpus {
        domain: web,
        count: 2,
    };
    until("the second vCPU is plugged", || {
        stage.simulated.calls().contains(&plugged)
    });
    stage.simulated.set_vcpus_by_hand(web, 3);
    daemon.wait_domain(web, "the hand is seen", |domain| {
        let mut holds = domain.holds.iter();
        holds.any(|hold| hold.reason.contains("by hand"))
    });
    let drifts = daemon.told("drift");
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    assert!(drifts[0].contains("from 2 vCPUs to 3 vCPUs"), "{drifts:?}");
}

#[test]
fn a_lost_connection_counts_as_no_failure_and_growth_goes_on_afterwards() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = elastic(&stage);
    // The first step is done, the second is wanted at once.
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_record("the first step is applied", |record| {
        record.kind == "action"
    });
    stage.simulated.disconnect("it is restarted");
    let ticks = daemon
        .wait("that is seen", |view| {
            view.manager.hypervisor.state == virt_persona::view::HypervisorState::Disconnected
        })
        .manager
        .ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 30);
    let begun = daemon.told("decision").len();
    let ended = daemon.told("action").len();
    assert_eq!(begun, ended, "nothing is begun without a hypervisor");
    stage.simulated.reconnect();
    daemon.wait_memory(web, |now| now == 768);
    let refused = daemon
        .told("action")
        .iter()
        .filter(|text| text.contains(": refused"))
        .count();
    // At most the step that was decided in the very moment of the loss.
    assert!(refused <= 1, "{:#?}", daemon.told("action"));
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn a_domain_that_is_started_anew_in_mid_step_is_served_as_the_new_one_it_is() {
    let stage = Stage::new(&WEB.replace(
        "memory_used_mib = 300",
        "memory_used_mib = 500, follow_ms = 400",
    ));
    let web = stage.id("web");
    let daemon = elastic(&stage);
    daemon.wait_record("a step is begun", |record| record.kind == "decision");
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    assert_eq!(daemon.view().domains[&web].memory.plugged, None);
    stage.simulated.set_state(web, RunState::Running);
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now == 768);
    assert_eq!(daemon.told("drift"), [""; 0]);
    let end = daemon.wait_record("the first step ended", |record| record.kind == "action");
    assert!(
        end.text.contains("of unknown outcome") || end.text.contains("refused"),
        "{}",
        end.text
    );
}

#[test]
fn a_paused_domain_is_left_alone() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = elastic(&stage);
    stage.simulated.set_state(web, RunState::Paused);
    daemon.wait_domain(web, "it is paused", |domain| {
        domain.state == RunState::Paused
    });
    stage.simulated.set_memory_used(web, mib(500));
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 25);
    assert_eq!(daemon.told("decision"), [""; 0]);
    stage.simulated.set_state(web, RunState::Running);
    daemon.wait_memory(web, |now| now == 768);
}

#[test]
fn memory_grows_by_the_balloon_where_there_is_no_device_but_never_beyond_the_boot_memory() {
    let stage = Stage::new(
        "[[domain]]\nname = 'web'\nmemory_mib = 1024\nballoon = 'silent'\nguest = { memory_used_mib = 200 }\n",
    );
    let web = stage.id("web");
    let daemon = elastic(&stage);
    let asked = |call: &Called| matches!(call, Called::SetBalloonPeriod { .. });
    daemon.wait_memory(web, |now| now < 1024);
    assert!(
        stage.simulated.calls().iter().any(asked),
        "statistics were turned on"
    );
    stage.simulated.set_memory_used(web, mib(740));
    daemon.wait_memory(web, |now| now == 1024);
}

#[test]
fn a_step_ends_with_its_outcome_shown_as_the_last_decision() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = elastic(&stage);
    stage.simulated.set_memory_used(web, mib(500));
    let domain = daemon.wait_domain(web, "a step was applied", |domain| {
        domain
            .last_decision
            .as_ref()
            .is_some_and(|decision| decision.outcome == Some(OutcomeWord::Applied))
    });
    let decision = domain.last_decision.unwrap();
    assert_eq!((decision.from, decision.to), (Some(mib(512).0), mib(640).0));
    assert!(decision.rule.is_some());
}

#[test]
fn events_about_domains_that_nobody_knows_do_no_harm() {
    let stage = Stage::new(WEB);
    let daemon = elastic(&stage);
    let domain = persona::domain::DomainId([9; 16]);
    stage.simulated.emit(HypervisorEvent::Rebooted { domain });
    stage.simulated.emit(HypervisorEvent::Balloon {
        domain,
        current: mib(1),
    });
    stage
        .simulated
        .emit(HypervisorEvent::MetadataChanged { domain, uri: None });
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 2);
    assert_eq!(daemon.view().domains.len(), 1);
    daemon.stop();
}

#[test]
fn a_rule_sees_what_goes_through_the_disks_and_what_has_no_disk_is_unknown() {
    let stage = Stage::new(
        "
[[domain]]
name = 'web'
memory_mib = 512
disks = [{ target = 'vda', reads_per_s = 150 }, { target = 'vdb', reads_per_s = 50, writes_per_s = 100 }]
[[domain]]
name = 'bare'
memory_mib = 512
",
    );
    let [web, bare] = ["web", "bare"].map(|name| stage.id(name));
    let daemon = stage.start();
    daemon.create(
        "
name: busy
adaptation_rules:
  - IF disk.read.iops > 20/s AND disk.write.bandwidth > 40 KiB/s AND disk.latency > 1ms THEN notify \"the disks are busy\"
",
    );
    for domain in ["web", "bare"] {
        daemon.apply(domain, "busy");
    }
    daemon.wait_record("the rule fires", |record| {
        record.domain == Some(web) && record.text.contains("the disks are busy")
    });
    let seen = daemon.wait_domain(web, "its disks are measured", |seen| {
        seen.readings
            .iter()
            .any(|reading| reading.metric == "disk.read.iops" && reading.value.is_some())
    });
    let reading = |metric: &str| {
        let found = seen
            .readings
            .iter()
            .find(|reading| reading.metric == metric);
        found.unwrap_or_else(|| panic!("{metric}: {:?}", seen.readings))
    };
    assert_eq!(reading("disk.latency").value, Some(0.002));
    assert_eq!(reading("disk.latency").source, Some(Source::Host));
    // The load is as steady as the machine that runs the test lets it be; its parts keep their relation.
    let ratio =
        reading("disk.read.iops").value.unwrap() / reading("disk.write.iops").value.unwrap();
    assert!((1.9..2.1).contains(&ratio), "{ratio}");
    let view = daemon.view();
    let bare = &view.domains[&bare].readings;
    assert!(
        !bare
            .iter()
            .any(|reading| reading.metric.starts_with("disk.")),
        "{bare:?}"
    );
}
