//! Limits end to end: the base configuration and rules turn knobs, what was there before comes back, a hand is
//! respected, and what cannot be done is told. Also what goes back of memory, and the daemon's retirement.

use std::time::Duration;

use persona::rule::{Knob, KnobValue};
use virt_persona::command::{Command, DomainName, Reply};
use virt_persona::hypervisor::limits::Reading;
use virt_persona::hypervisor::simulated::{CallName, Called, Fault};
use virt_persona::hypervisor::{DomainId, Limits};
use virt_persona::view::{Change, DomainView, Held, LimitView, RetiredView};

use crate::stage::{ELASTIC, Running, Stage, mib};

const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
interfaces = ['vnet0', 'vnet1']
disks = [{ target = 'vda' }, { target = 'vdb' }]
guest = { memory_used_mib = 300 }
";

/// Its rules are moved by what the guest uses of its memory, which a test can set.
const BOUNDED: &str = "
name: bounded
base_configuration:
  cpu: {min: 1, share: 2000}
  network_bandwidth: 100 Mbit/s
  disk: {iops: 1000, bandwidth: 50 MiB/s}
adaptation_rules:
  - IF memory.utilization > 80% THEN set disk iops to 200, set cpu cap to 50% UNTIL memory.utilization < 70% COOLDOWN 1s
";

fn shown(stage: &Stage, knob: Knob) -> KnobValue {
    let limits = stage.simulated.limits_of(stage.id("web")).unwrap();
    match limits.shown(knob) {
        Reading::Set { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn wait_limits(
    stage: &Stage,
    daemon: &Running,
    what: &str,
    mut good: impl FnMut(&Limits) -> bool,
) -> DomainView {
    let web = stage.id("web");
    daemon.wait_domain(web, what, |_| {
        stage
            .simulated
            .limits_of(web)
            .is_some_and(|limits| good(&limits))
    })
}

fn deactivate(daemon: &Running) {
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(matches!(off, Ok(Reply::Applied(_))), "{off:?}");
}

fn bounded(stage: &Stage) -> Running {
    let daemon = stage.start();
    daemon.create(BOUNDED);
    daemon.apply("web", "bounded");
    settled(stage, &daemon);
    daemon
}

/// What the base configuration says is in force, and nothing is under way.
#[track_caller]
fn settled(stage: &Stage, daemon: &Running) {
    let web = stage.id("web");
    daemon.wait_domain(
        web,
        "its limits are as the base configuration says",
        |domain| {
            domain.limits.len() == 4
                && domain
                    .limits
                    .iter()
                    .all(|limit| Some(&limit.present) == limit.wanted.as_ref())
        },
    );
}

fn line(domain: &DomainView, knob: Knob) -> Option<&LimitView> {
    domain.limits.iter().find(|line| line.limit == knob)
}

#[test]
fn limits_are_set_shown_and_given_back_exactly() {
    let stage = Stage::new(WEB);
    let untouched = stage.simulated.limits_of(stage.id("web")).unwrap();
    let daemon = bounded(&stage);
    let limits = stage.simulated.limits_of(stage.id("web")).unwrap();
    assert_eq!(limits.cpu.shares, Some(2048));
    let iops: Vec<_> = limits.disks.iter().map(|disk| disk.iops).collect();
    assert_eq!(iops, [1000, 1000]);
    assert_eq!(limits.disks[0].group, limits.disks[1].group);
    assert!(limits.disks[0].group.is_some());
    let average: Vec<_> = limits.interfaces.iter().map(|one| one.inbound).collect();
    assert_eq!(average, [6250, 6250]);
    let view = daemon.view();
    let weight = line(&view.domains[&stage.id("web")], Knob::CpuWeight).cloned();
    assert_eq!(weight.and_then(|line| line.original), Some("1000".into()));

    deactivate(&daemon);
    let view = wait_limits(&stage, &daemon, "everything is as before", |limits| {
        limits.disks == untouched.disks && limits.interfaces == untouched.interfaces
    });
    daemon.wait_domain(view.id, "nothing is left to be shown", |domain| {
        domain.limits.is_empty()
    });
    assert_eq!(shown(&stage, Knob::CpuWeight), KnobValue::At(1000));
    let actions = daemon.told("action");
    assert_eq!(actions.len(), 8, "{actions:#?}");
    assert!(actions.iter().all(|text| text.contains(": applied")));
    assert_eq!(daemon.told("drift"), [""; 0]);
}

#[test]
fn a_rules_limits_stand_until_its_until_and_over_a_crash() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = bounded(&stage);
    stage.simulated.set_memory_used(web, mib(450));
    daemon.wait_domain(web, "the rule has its say", |domain| {
        let cap = line(domain, Knob::CpuCap);
        let iops = line(domain, Knob::DiskIops);
        cap.is_some_and(|line| line.present == "50%")
            && iops.is_some_and(|line| line.present == "200/s")
    });
    // Its condition holds no more, and its until does not hold yet.
    stage.simulated.set_memory_used(web, mib(380));
    daemon.kill();
    let daemon = stage.start();
    let ticks = daemon.wait("it runs again", |view| view.manager.ticks > 0);
    daemon.wait("it has gone on for a while", |view| {
        view.manager.ticks > ticks.manager.ticks + 30
    });
    assert_eq!(shown(&stage, Knob::CpuCap), KnobValue::At(500_000));
    stage.simulated.set_memory_used(web, mib(100));
    wait_limits(&stage, &daemon, "what the rule did is undone", |limits| {
        limits.shown(Knob::CpuCap)
            == Reading::Set {
                devices: 1,
                value: KnobValue::Unlimited,
            }
            && limits.disks.iter().all(|disk| disk.iops == 1000)
    });
    daemon.wait_record("the until undid it", |record| {
        record.kind == "action" && record.text.contains("because of the until of rule")
    });
    assert_eq!(daemon.told("drift"), [""; 0]);
    deactivate(&daemon);
    wait_limits(
        &stage,
        &daemon,
        "the crash has not lost what was before",
        |limits| {
            limits
                .disks
                .iter()
                .all(|disk| disk.iops == 0 && disk.bytes == 0)
        },
    );
}

#[test]
fn a_limit_set_by_hand_is_seen_held_and_not_given_back() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = bounded(&stage);
    stage.simulated.set_limits_by_hand(web, |limits| {
        limits.set(Knob::DiskIops, KnobValue::At(42));
    });
    let held = daemon.wait_domain(web, "the hand is seen", |domain| {
        line(domain, Knob::DiskIops).is_some_and(|line| line.held_until.is_some())
    });
    let line = line(&held, Knob::DiskIops).cloned().unwrap();
    assert_eq!((line.present, line.original), ("42/s".into(), None));
    let drifts = daemon.told("drift");
    assert!(
        drifts[0].contains("the disk iops by hand from 1000/s to 42/s"),
        "{drifts:?}"
    );
    deactivate(&daemon);
    wait_limits(&stage, &daemon, "the rest is given back", |limits| {
        limits.disks.iter().all(|disk| disk.bytes == 0)
            && limits.interfaces.iter().all(|one| one.outbound == 0)
    });
    assert_eq!(shown(&stage, Knob::DiskIops), KnobValue::At(42));
}

#[test]
fn what_cannot_be_limited_is_told_and_not_tried() {
    let stage = Stage::new(&WEB.replace("'vnet1'", "''"));
    let web = stage.id("web");
    stage
        .simulated
        .set_limits_by_hand(web, |limits| limits.disks[0].other = true);
    let daemon = stage.start();
    daemon.create(BOUNDED);
    daemon.apply("web", "bounded");
    daemon.wait_domain(web, "what can be done is done", |domain| {
        line(domain, Knob::CpuWeight).is_some_and(|line| line.present == "2000")
    });
    let explained = daemon.ask(Command::Explain {
        domain: DomainName("web".into()),
        at: None,
    });
    let Ok(Reply::Explain(explained)) = explained else {
        panic!("{explained:?}")
    };
    let told = |knob| {
        let mut lines = explained.limits.iter();
        lines
            .find(|line| line.limit == knob)
            .map_or("", |line| line.sentence.as_str())
    };
    let network = told(Knob::NetworkBandwidth);
    assert!(network.contains("no device on the host"), "{network}");
    let disk = told(Knob::DiskIops);
    assert!(disk.contains("take <iotune> out of it"), "{disk}");
    assert!(explained.summary.contains(disk), "{}", explained.summary);
    let tried =
        stage.simulated.calls().into_iter().filter(
            |call| matches!(call, Called::SetLimit { knob, .. } if *knob != Knob::CpuWeight),
        );
    assert_eq!(tried.count(), 0);
}

#[test]
fn a_refused_limit_is_said_in_the_hypervisors_words_and_tried_again() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let message = "cgroup CPU controller is not mounted".to_owned();
    stage
        .simulated
        .fail_next(web, CallName::SetLimit, Fault::Refuse { message });
    let daemon = stage.start();
    daemon.create("name: heavy\nbase_configuration: {cpu: {min: 1, share: 500}}\n");
    daemon.apply("web", "heavy");
    wait_limits(&stage, &daemon, "the second try is a success", |limits| {
        limits.cpu.shares == Some(512)
    });
    let actions = daemon.told("action");
    assert!(
        actions[0].contains(": refused") && actions[0].contains("is not mounted"),
        "{actions:#?}"
    );
}

#[test]
fn memory_goes_back_to_what_it_was_before_the_persona_but_never_below_live_use() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now == 768);
    deactivate(&daemon);
    // 1.3 times the use, in steps of 64 MiB at least.
    daemon.wait_memory(web, |now| (650..768).contains(&now));
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_memory(web, |now| now == 512);
    let actions = daemon.told("action");
    let back = actions
        .iter()
        .filter(|text| text.contains("because of what was there before"));
    assert!(back.count() > 1, "{actions:#?}");
    let calls = stage.simulated.calls().len();
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it has gone on for a while", |view| {
        view.manager.ticks > ticks + 10
    });
    assert_eq!(stage.simulated.calls().len(), calls);
}

#[test]
fn a_retired_daemon_gives_everything_back_and_manages_nothing_until_it_is_started_anew() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = bounded(&stage);
    let left = |daemon: &Running| match daemon.ask(Command::Retire) {
        Ok(Reply::Retired(RetiredView { left })) => left,
        other => panic!("{other:?}"),
    };
    let first = left(&daemon);
    assert!(
        first.iter().all(|sentence| sentence.starts_with("web: ")),
        "{first:?}"
    );
    assert!(!first.is_empty());
    daemon.wait_domain(web, "nothing is left", |domain| domain.limits.is_empty());
    daemon.wait("and the answer says so", |_| left_nothing(&stage, web));
    assert_eq!(left(&daemon), [""; 0]);
    assert!(daemon.view().manager.problems[0].contains("retired"));
    assert_eq!(shown(&stage, Knob::DiskIops), KnobValue::Unlimited);
    // The binding is kept, so the next start manages it again.
    assert!(daemon.view().domains[&web].persona.is_some());
    daemon.stop();
    let daemon = stage.start();
    settled(&stage, &daemon);
}

fn left_nothing(stage: &Stage, web: DomainId) -> bool {
    let limits = stage.simulated.limits_of(web).unwrap();
    let disks = limits
        .disks
        .iter()
        .all(|disk| disk.iops == 0 && disk.bytes == 0);
    disks && limits.interfaces.iter().all(|one| one.inbound == 0)
}

#[test]
fn a_hold_leaves_limits_alone_over_the_domains_restart_until_it_is_released() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = bounded(&stage);
    let held = daemon.ask(Command::Hold {
        domain: DomainName("web".into()),
        resource: Some(Held::Limits),
        length: Duration::from_secs(3600),
    });
    let Ok(Reply::Held(holds)) = held else {
        panic!("{held:?}")
    };
    assert_eq!(holds.len(), 1, "{holds:?}");
    assert_eq!(holds[0].resource, Held::Limits);
    assert_eq!(holds[0].reason, "root wants them left alone");
    assert_eq!(
        daemon.told("hold"),
        ["root wants limits left alone for 3600 s"]
    );
    let before = stage.simulated.limits_of(web).unwrap();
    stage.simulated.set_memory_used(web, mib(450));
    daemon.wait_domain(web, "the rule's wish is held", |domain| {
        line(domain, Knob::DiskIops)
            .is_some_and(|line| line.wanted.as_deref() == Some("200/s") && line.present == "1000/s")
    });
    let explained = daemon.ask(Command::Explain {
        domain: DomainName("web".into()),
        at: None,
    });
    let Ok(Reply::Explain(explained)) = explained else {
        panic!("{explained:?}")
    };
    assert!(
        explained.summary.contains("root wants it left alone"),
        "{}",
        explained.summary
    );
    // A machine that is started anew begins with its definition, and that is left too.
    stage.simulated.restart(web);
    daemon.kill();
    let daemon = stage.start();
    daemon.wait_domain(web, "it is still held", |domain| {
        domain
            .holds
            .iter()
            .any(|hold| hold.resource == Held::Limits)
            && line(domain, Knob::DiskIops).is_some_and(|line| line.wanted.is_some())
    });
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it has gone on for a while", |view| {
        view.manager.ticks > ticks + 20
    });
    assert_eq!(shown(&stage, Knob::DiskIops), KnobValue::Unlimited);
    assert_eq!(before.disks[0].iops, 1000);
    let released = daemon.ask(Command::Release {
        domain: DomainName("web".into()),
    });
    assert!(
        matches!(released, Ok(Reply::Done(Change::Changed))),
        "{released:?}"
    );
    wait_limits(&stage, &daemon, "the rule has its say", |limits| {
        limits.disks.iter().all(|disk| disk.iops == 200)
    });
}

#[test]
fn a_limit_of_a_persona_that_may_only_propose_is_set_when_it_is_approved() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(
        "
name: shy
adaptation_rules:
  - IF memory.utilization > 80% THEN set disk iops to 200 UNTIL memory.utilization < 70%
trust_levels: {resource_scaling: low}
",
    );
    daemon.apply("web", "shy");
    stage.simulated.set_memory_used(web, mib(450));
    let domain = daemon.wait_domain(web, "it is proposed", |domain| !domain.proposals.is_empty());
    let proposal = &domain.proposals[0];
    assert_eq!(proposal.action.as_deref(), Some("set disk iops to 200/s"));
    assert!(
        proposal
            .text
            .starts_with("disk iops from no limit to 200/s"),
        "{}",
        proposal.text
    );
    assert_eq!(shown(&stage, Knob::DiskIops), KnobValue::Unlimited);
    let approved = daemon.ask(Command::Approve { id: proposal.id });
    assert!(matches!(approved, Ok(Reply::Proposal(_))), "{approved:?}");
    wait_limits(&stage, &daemon, "it is set", |limits| {
        limits.disks.iter().all(|disk| disk.iops == 200)
    });
    daemon.wait_domain(web, "it is carried out", |domain| {
        domain.proposals.is_empty()
    });
    let told = daemon.told("proposal");
    assert!(
        told.iter().any(|text| text.contains("is carried out")),
        "{told:#?}"
    );
    // Its end asks nobody.
    stage.simulated.set_memory_used(web, mib(100));
    wait_limits(&stage, &daemon, "it is taken back", |limits| {
        limits.disks.iter().all(|disk| disk.iops == 0)
    });
}
