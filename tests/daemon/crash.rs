//! The daemon killed at several moments of a step and started anew on the same store, while the machine goes on: nothing
//! is lost, nothing is claimed that was not seen, and its own work is not taken for somebody else's.

use virt_persona::hypervisor::Hypervisor;
use virt_persona::hypervisor::simulated::{CallName, Fault};

use crate::stage::{ELASTIC, Running, Stage, mib, until};

const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 500, follow_ms = PACE }
";

/// Kills the daemon when `moment` has come, starts it anew, and looks whether all goes on as if nothing had been.
#[track_caller]
fn survives(pace: u64, fault: Option<Fault>, moment: impl FnOnce(&Stage, &Running)) {
    let stage = Stage::new(&WEB.replace("PACE", &pace.to_string()));
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    if let Some(fault) = fault {
        stage
            .simulated
            .fail_next(web, CallName::SetVirtioMem, fault);
    }
    daemon.apply("web", "elastic");
    moment(&stage, &daemon);
    let before = daemon.audit();
    daemon.kill();

    let daemon = stage.start();
    let bound = daemon.view().domains[&web].persona.clone();
    assert_eq!(bound.map(|bound| bound.name).as_deref(), Some("elastic"));
    let after = daemon.audit();
    assert_eq!(after[..before.len()], before, "the audit is what it was");
    daemon.wait_memory(web, |now| now == 768);
    assert_eq!(daemon.told("drift"), [""; 0], "its own work is no hand's");
    assert!(daemon.view().domains[&web].holds.is_empty());
    // Each claim of success was true: amounts go up one after another, and each was there.
    let mut last = 512;
    for record in daemon.audit() {
        if record.kind == "action" && record.detail["ending"] == "applied" {
            let plugged = record.detail["plugged"].as_u64().unwrap() / (1 << 20);
            assert!(plugged > last && plugged <= 768, "{}", record.text);
            assert_eq!(record.detail["plugged"], record.detail["requested"]);
            last = plugged;
        }
    }
    daemon.stop();
}

fn decided(daemon: &Running) {
    daemon.wait_record("a step is decided", |record| record.kind == "decision");
}

fn asked(stage: &Stage) {
    until("the hypervisor is asked", || {
        !stage.simulated.calls().is_empty()
    });
}

#[test]
fn killed_when_a_step_is_decided() {
    survives(50, None, |_, daemon| decided(daemon));
}

#[test]
fn killed_while_the_hypervisor_is_asked() {
    survives(50, Some(Fault::Slow { ms: 1000 }), |stage, daemon| {
        decided(daemon);
        asked(stage);
    });
}

#[test]
fn killed_when_the_answer_was_lost() {
    survives(50, Some(Fault::AnswerLost), |stage, _| asked(stage));
}

#[test]
fn killed_while_the_guest_follows() {
    survives(700, None, |stage, _| {
        asked(stage);
    });
}

#[test]
fn killed_when_the_effect_is_there_and_not_yet_recorded() {
    survives(10, None, |stage, _| {
        let web = stage.id("web");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let there = || {
            let shown = runtime.block_on(stage.simulated.describe(web)).unwrap();
            shown.virtio_mem[0].current == mib(128)
        };
        until("the effect is there", there);
    });
}

#[test]
fn killed_when_a_step_has_just_been_recorded() {
    survives(10, None, |_, daemon| {
        daemon.wait_record("a step has ended", |record| record.kind == "action");
    });
}

#[test]
fn a_cooldown_goes_on_over_a_restart() {
    let stage = Stage::new(&WEB.replace("PACE", "10"));
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(&ELASTIC.replace("COOLDOWN 1s", "COOLDOWN 1h"));
    daemon.apply("web", "elastic");
    daemon.wait_memory(web, |now| now == 640);
    daemon.wait_record("the step has ended", |record| record.kind == "action");
    daemon.kill();
    let daemon = stage.start();
    // Long enough for the rule's window and for another step.
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 30);
    assert_eq!(daemon.told("decision").len(), 1);
    assert_eq!(daemon.view().domains[&web].memory.requested, Some(mib(640)));
}

#[test]
fn a_stop_waits_for_the_step_under_way_and_records_its_end() {
    let stage = Stage::new(&WEB.replace("PACE", "100"));
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    decided(&daemon);
    daemon.stop();
    let daemon = stage.start();
    let records = daemon.audit();
    let stopped = records
        .iter()
        .position(|record| record.text == "the daemon stops")
        .expect("it says that it stops");
    let decided = records[..stopped]
        .iter()
        .filter(|record| record.kind == "decision");
    let ended = records[..stopped]
        .iter()
        .filter(|record| record.kind == "action");
    assert_eq!(decided.count(), ended.count());
}
