//! What `doctor` finds on hosts and domains that have each of the known troubles, and that a domain without any is told to
//! be well.

use virt_persona::command::{Command, Reply};
use virt_persona::hypervisor::RunState;
use virt_persona::view::{ActivationState, CheckState, CheckView, DomainView};

use crate::agent::Agent;
use crate::stage::{ELASTIC, Running, Stage, mib};

fn checks(daemon: &Running) -> Vec<CheckView> {
    match daemon.ask(Command::Doctor { domain: None }) {
        Ok(Reply::Doctor(doctor)) => doctor.checks,
        other => panic!("{other:?}"),
    }
}

/// The checks of this name about a domain, or the host.
fn of(daemon: &Running, domain: Option<&str>, name: &str) -> Vec<CheckView> {
    let mut found = checks(daemon);
    found.retain(|check| check.domain.as_deref() == domain && check.name == name);
    found
}

#[track_caller]
fn found(daemon: &Running, domain: Option<&str>, name: &str, state: CheckState, part: &str) {
    let checks = of(daemon, domain, name);
    assert!(
        checks
            .iter()
            .any(|check| check.state == state && check.sentence.contains(part)),
        "{domain:?} {name}: {checks:#?}"
    );
    for check in checks.iter().filter(|check| check.state != CheckState::Ok) {
        assert!(check.mend.is_some(), "{check:?}");
    }
}

const HOST: &str = "
deadline_ms = 2000
[host]
cores = 4
memory_mib = 4096

[[domain]]
name = 'well'
acceleration = 'kvm'
vcpus_maximum = 4
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]

[[domain]]
name = 'windows'
acceleration = 'kvm'
vcpus = 2
vcpus_maximum = 4
memory_mib = 1024
dimms_mib = 256
guest_os = 'http://microsoft.com/win/10'
arrival = 'migrated'

[[domain]]
name = 'huge'
vcpus_maximum = 4
memory_mib = 512
memory_maximum_mib = 1073741824
virtio_mem = [{ alias = 'virtiomem0', size_mib = 16384 }]
balloon = 'silent'

[[domain]]
name = 'wide'
vcpus_maximum = 4
memory_mib = 2048
memory_maximum_mib = 1040000
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
";

#[test]
fn each_known_trouble_of_a_host_and_its_domains_is_found_with_its_mend() {
    let stage = Stage::new(HOST);
    let daemon = stage.start();
    daemon.wait("the host is known", |view| {
        view.manager.host.cores.is_some() && view.manager.host.memory_granted.is_some()
    });
    use CheckState::{Fail, Ok, Warn};
    found(&daemon, None, "versions", Ok, "no trouble is known");
    // 4 GiB at boot on a host that keeps 1 of its 4.
    found(&daemon, None, "commitment", Warn, "4 domains run");
    for name in [
        "kvm",
        "control-groups",
        "pressure",
        "budget",
        "need",
        "hypervisor",
    ] {
        assert_eq!(of(&daemon, None, name).len(), 1, "{name}");
    }
    found(&daemon, Some("windows"), "vcpu-removal", Warn, "Windows");
    found(
        &daemon,
        Some("windows"),
        "vcpu-after-migration",
        Warn,
        "live migration",
    );
    found(
        &daemon,
        Some("windows"),
        "vcpu-online",
        Warn,
        "without an agent",
    );
    found(&daemon, Some("windows"), "memory-dimm", Warn, "256 MiB");
    found(&daemon, Some("windows"), "memory", Warn, "only the balloon");
    found(&daemon, Some("huge"), "memory", Warn, "bookkeeping");
    found(&daemon, Some("huge"), "address-bits", Fail, "40 bits");
    found(&daemon, Some("huge"), "balloon-statistics", Warn, "off");
    found(&daemon, Some("wide"), "address-bits", Warn, "too few");
    for name in [
        "vcpu-removal",
        "vcpu-online",
        "vcpu-after-migration",
        "memory-dimm",
        "address-bits",
        "memory-stuck",
    ] {
        assert_eq!(of(&daemon, Some("well"), name), [], "{name}");
    }
    found(&daemon, Some("well"), "vcpu-hotplug", Ok, "1 to 4 vCPUs");
    found(&daemon, Some("well"), "memory", Ok, "1 GiB");
    // A migration is remembered although the hypervisor forgets it with a pause; a start ends it.
    let windows = stage.id("windows");
    for state in [RunState::Paused, RunState::Running] {
        stage.simulated.set_state(windows, state);
        daemon.wait_domain(windows, "its state is seen", |domain| domain.state == state);
    }
    found(
        &daemon,
        Some("windows"),
        "vcpu-after-migration",
        Warn,
        "live migration",
    );
}

#[test]
fn memory_that_a_guest_does_not_give_is_found_stuck() {
    let stage = Stage::new(
        "
deadline_ms = 2000
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
faults = [
  { call = 'set-virtio-mem', fault = 'partial', reaches_mib = 0 },
  { call = 'set-virtio-mem', fault = 'partial', reaches_mib = 0 },
  { call = 'set-virtio-mem', fault = 'partial', reaches_mib = 0 },
  { call = 'set-virtio-mem', fault = 'partial', reaches_mib = 0 },
  { call = 'set-virtio-mem', fault = 'partial', reaches_mib = 0 },
  { call = 'set-virtio-mem', fault = 'partial', reaches_mib = 0 },
]
",
    );
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    stage.sleep_after_failures(&daemon, 1);
    stage.sleep_after_failures(&daemon, 2);
    let began = std::time::Instant::now();
    let fails = |check: &CheckView| check.state == CheckState::Fail;
    while !of(&daemon, Some("web"), "memory-stuck").iter().any(fails) {
        assert!(began.elapsed().as_secs() < 120, "{:#?}", checks(&daemon));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    found(
        &daemon,
        Some("web"),
        "memory-stuck",
        CheckState::Fail,
        "does not follow",
    );
}

#[test]
fn a_guest_that_can_write_nothing_is_told_of_until_it_can() {
    let stage = Stage::new(
        "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
agent_channel = 'FOLDER/guest/agent.sock'
",
    );
    let mut agent = Agent::start_frozen(&stage.path().join("guest"));
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: front\nenvironment_variables: {COLOUR: green}\n");
    daemon.apply("web", "front");
    let says = |domain: &DomainView| {
        let detail = domain.activation.detail.as_deref().unwrap_or_default();
        detail.contains("the guest's file system is frozen or its disk does not answer")
    };
    daemon.wait_domain(web, "it is frozen", says);
    found(
        &daemon,
        Some("web"),
        "agent",
        CheckState::Fail,
        "the guest's file system is frozen",
    );
    agent.thaw();
    daemon.wait_domain(web, "it is active and not frozen", |domain| {
        domain.activation.state == ActivationState::Active && !says(domain)
    });
    let checks = of(&daemon, Some("web"), "agent");
    assert!(
        checks.iter().all(|check| check.state == CheckState::Ok),
        "{checks:?}"
    );
}
