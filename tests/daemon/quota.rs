//! A CPU cap in the place of a removal of vCPUs that cannot be done, end to end: set and read back, told in status, explain
//! and audit, and taken away when it is no longer needed.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use virt_persona::command::{Command, DomainName, Reply};
use virt_persona::hypervisor::limits::Reading;
use virt_persona::hypervisor::simulated::{Conduct, Curve, Load, Simulated};

use crate::paused::{House, on_a_paused_clock};
use crate::stage::{Running, Stage, mib};

/// Three vCPUs, none of which can be removed.
const RIGID: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
memory_mib = 512
vcpus = 3
vcpus_maximum = 3
vcpus_fixed = 3
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 100 }
";

/// Moved by what the guest uses of its memory, which a test can set.
const NARROW: &str = "
name: narrow
base_configuration:
  cpu: {min: 1, max: 3}
adaptation_rules:
  - IF memory.utilization > 80% THEN set vcpus to 1 UNTIL memory.utilization < 70% COOLDOWN 1s
";

const fn cpus(cpus: u64) -> KnobValue {
    KnobValue::At(cpus * 1_000_000)
}

fn cap(simulated: &Simulated, id: DomainId) -> KnobValue {
    match simulated.limits_of(id).unwrap().shown(Knob::CpuCap) {
        Reading::Set { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

/// A daemon that has capped the domain at one CPU.
fn capped(stage: &Stage) -> Running {
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(NARROW);
    daemon.apply("web", "narrow");
    stage.simulated.set_memory_used(web, mib(460));
    daemon.wait_domain(web, "it is capped at one CPU", |_| {
        cap(&stage.simulated, web) == cpus(1)
    });
    daemon
}

#[track_caller]
fn uncapped(stage: &Stage, daemon: &Running) {
    let web = stage.id("web");
    daemon.wait_domain(web, "the cap is gone", |domain| {
        let status = domain.problems.join("\n");
        cap(&stage.simulated, web) == KnobValue::Unlimited
            && !status.contains("capped")
            && domain.limits.is_empty()
    });
    assert_eq!(stage.simulated.shown(web).unwrap().vcpus, 3);
}

#[test]
fn vcpus_that_stay_are_capped_told_and_the_cap_goes_with_the_until() {
    let stage = Stage::new(RIGID);
    let web = stage.id("web");
    let daemon = capped(&stage);
    let sentence = "3 vCPUs stay plugged; the domain is capped at 1 CPU instead: ";
    daemon.wait_domain(web, "status says so", |domain| {
        let said = domain
            .problems
            .iter()
            .any(|text| text.starts_with(sentence));
        said && domain.limits.iter().any(|limit| limit.present == "100%")
    });
    let explained = daemon.ask(Command::Explain {
        domain: DomainName("web".into()),
        at: None,
    });
    let Ok(Reply::Explain(explained)) = explained else {
        panic!("{explained:?}")
    };
    assert!(explained.summary.contains(sentence), "{explained:#?}");
    let actions = daemon.told("action");
    assert!(
        actions.iter().any(|text| text.contains("200% -> 100%")
            && text.contains("the domain is capped at 1 CPU instead: applied (shown 100%)")),
        "{actions:#?}"
    );
    stage.simulated.set_memory_used(web, mib(100));
    uncapped(&stage, &daemon);
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn a_cap_survives_a_crash_and_goes_when_the_persona_does_or_the_daemon_retires() {
    let stage = Stage::new(RIGID);
    let web = stage.id("web");
    let daemon = capped(&stage);
    daemon.kill();
    let daemon = stage.start();
    let ticks = daemon.wait("it runs again", |view| view.manager.ticks > 0);
    daemon.wait("it has gone on for a while", |view| {
        view.manager.ticks > ticks.manager.ticks + 20
    });
    assert_eq!(cap(&stage.simulated, web), cpus(1));
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(matches!(off, Ok(Reply::Applied(_))), "{off:?}");
    uncapped(&stage, &daemon);

    daemon.apply("web", "narrow");
    daemon.wait_domain(web, "it is capped again", |_| {
        cap(&stage.simulated, web) == cpus(1)
    });
    let retired = daemon.ask(Command::Retire);
    assert!(matches!(retired, Ok(Reply::Retired(_))), "{retired:?}");
    uncapped(&stage, &daemon);
}

#[test]
fn a_cap_by_hand_that_leaves_less_is_never_exceeded() {
    let stage = Stage::new(RIGID);
    let web = stage.id("web");
    let half = KnobValue::At(500_000);
    stage
        .simulated
        .set_limits_by_hand(web, |limits| limits.set(Knob::CpuCap, half));
    let daemon = stage.start();
    daemon.create(NARROW);
    daemon.apply("web", "narrow");
    stage.simulated.set_memory_used(web, mib(460));
    daemon.wait_domain(web, "it counts as capped", |domain| {
        domain
            .problems
            .iter()
            .any(|text| text.contains("capped at 1 CPU"))
    });
    assert_eq!(cap(&stage.simulated, web), half);
    assert_eq!(daemon.told("action"), [""; 0]);
}

const ELASTIC: &str = "
name: elastic
base_configuration:
  cpu: {min: 1, max: 3}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN 5s
  - IF cpu.utilization < 30% FOR 3s THEN remove 1 vcpus COOLDOWN 5s
";

/// A guest with an agent, and three vCPUs of which two can be removed.
const SOFT: &str = "
[[domain]]
name = 'web'
acceleration = 'kvm'
vcpus = 3
vcpus_maximum = 3
memory_mib = 512
agent_channel = 'FOLDER/web.sock'
guest = { agent = 'simulated', unplug = 'completes' }
";

const fn load(cpus: f64) -> Load {
    Load {
        cpu: Some(Curve::Constant { value: cpus }),
        memory: None,
    }
}

#[test]
fn a_guest_that_refuses_to_give_cpus_up_is_capped_until_it_gives_them_up() {
    on_a_paused_clock(Duration::from_millis(50), async {
        let house = House::new(SOFT, "").await;
        let web = house.id("web");
        let simulated = &house.simulated;
        simulated.set_load(web, load(0.4));
        simulated.behave(web, Some(Conduct::RefusesCpus));
        let daemon = house.start().await;
        daemon.create(ELASTIC).await;
        daemon.apply("web", "elastic").await;
        let hour = Duration::from_secs(3600);
        let narrow = daemon.until(hour, |_| cap(simulated, web) == cpus(2)).await;
        assert!(narrow.is_some(), "{:#?}", daemon.audit().await);
        assert_eq!(simulated.shown(web).unwrap().online, 3);

        // It is as busy as the two that are left: it grows, and no vCPU is added for that.
        simulated.set_load(web, load(3.0));
        let wide = daemon
            .until(hour, |_| cap(simulated, web) == KnobValue::Unlimited)
            .await;
        assert!(wide.is_some(), "{:#?}", daemon.audit().await);
        simulated.set_load(web, load(0.4));
        let narrow = daemon.until(hour, |_| cap(simulated, web) == cpus(2)).await;
        assert!(narrow.is_some(), "{:#?}", daemon.audit().await);

        simulated.behave(web, None);
        let removed = daemon
            .until(hour, |view| {
                simulated.shown(web).unwrap().vcpus == 1
                    && cap(simulated, web) == KnobValue::Unlimited
                    && view.domains[&web].limits.is_empty()
            })
            .await;
        assert!(removed.is_some(), "{:#?}", daemon.audit().await);
        daemon.stop().await;
    });
}

/// As [`SOFT`], under emulation, where what the guest takes offline stays plugged.
const KEPT: &str = "
[[domain]]
name = 'web'
vcpus = 2
vcpus_maximum = 2
memory_mib = 512
agent_channel = 'FOLDER/web.sock'
guest = { agent = 'simulated' }
";

#[test]
fn cpus_that_something_in_the_guest_brings_back_are_taken_offline_again_three_times_and_then_capped()
 {
    on_a_paused_clock(Duration::from_millis(50), async {
        let house = House::new(KEPT, "").await;
        let web = house.id("web");
        let simulated = &house.simulated;
        simulated.set_load(web, load(0.2));
        let daemon = house.start().await;
        daemon.create(ELASTIC).await;
        daemon.apply("web", "elastic").await;
        let minutes = Duration::from_secs(300);
        let online = |cpus: u32| {
            move |view: &virt_persona::view::View| {
                simulated.shown(web).unwrap().online == cpus
                    && view.domains[&web].vcpus.guest == Some(cpus)
            }
        };
        let one = daemon.until(minutes, online(1)).await;
        assert!(one.is_some(), "{:#?}", daemon.audit().await);
        // Half of one CPU: no rule wants anything.
        simulated.set_load(web, load(0.5));
        for times in 1..=3 {
            simulated.bring_cpus_online(web);
            assert!(daemon.until(minutes, online(2)).await.is_some());
            let again = daemon.until(minutes, online(1)).await;
            assert!(again.is_some(), "{times}: {:#?}", daemon.audit().await);
            let checks = doctor(&daemon).await;
            assert!(
                checks.contains(&format!("taken offline, {times} times so far")),
                "{checks}"
            );
        }
        simulated.bring_cpus_online(web);
        let capped = daemon
            .until(minutes, |_| cap(simulated, web) == cpus(1))
            .await;
        let audit = daemon.audit().await;
        assert!(capped.is_some(), "{audit:#?}");
        let told = |text: &str| {
            audit
                .iter()
                .filter(|record| record.text.contains(text))
                .count()
        };
        assert_eq!(told("they are taken offline again"), 3, "{audit:#?}");
        assert_eq!(
            told("tried often enough, so they are left"),
            1,
            "{audit:#?}"
        );
        assert_eq!(told("because of the removal before"), 8, "{audit:#?}");
        assert_eq!(simulated.shown(web).unwrap().online, 2);
        let checks = doctor(&daemon).await;
        assert!(
            checks.contains("was to keep 1 vCPUs online and has 2"),
            "{checks}"
        );
        daemon.stop().await;
    });
}

async fn doctor(daemon: &crate::paused::Resident) -> String {
    match daemon.ask(Command::Doctor { domain: None }).await {
        Ok(Reply::Doctor(doctor)) => format!("{doctor:?}"),
        other => panic!("{other:?}"),
    }
}
