//! Guests that take part: hooks that refuse a shrink, that are told of a growth, and needs. The agent is the real program;
//! its reports are switched off, because the tree that it looks at does not follow the simulated machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use persona::domain::DomainId;
use virt_persona::view::ActivationState;

use crate::agent::Agent;
use crate::stage::{ELASTIC, Running, Stage, mib, until};

const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
agent_channel = 'FOLDER/guest/agent.sock'
";

const ROOMY: &str = "name: roomy\nbase_configuration: {memory: {min: 512 MiB, max: 1 GiB}}\n";

fn with_agent() -> (Stage, Agent, DomainId) {
    let stage = Stage::new(WEB);
    let root = stage.path().join("guest");
    fs::create_dir_all(root.join("etc/virt-persona")).unwrap();
    fs::write(
        root.join("etc/virt-persona/agent.toml"),
        "[allow]\ntelemetry = false\n",
    )
    .unwrap();
    let agent = Agent::start(&root);
    let web = stage.id("web");
    (stage, agent, web)
}

fn start(stage: &Stage, web: DomainId, document: &str, name: &str) -> Running {
    let daemon = stage.start();
    daemon.create(document);
    daemon.apply("web", name);
    daemon.wait_domain(web, "its guest has confirmed the persona", |domain| {
        domain.activation.state == ActivationState::Active
    });
    daemon
}

fn hook(stage: &Stage, path: &str, text: &str) -> PathBuf {
    let path = stage.path().join("guest/etc/virt-persona/hooks").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Says a need until the agent has told the host, since it does so every other second at most.
fn say_need(agent: &Agent, amount: &str) {
    until("the agent tells the host", || match agent.need(amount) {
        Ok(()) => true,
        Err(why) => {
            assert!(why.contains("was told"), "{why}");
            false
        }
    });
}

#[test]
fn a_guest_that_refuses_to_shrink_is_asked_again_explained_and_not_taken_for_stuck() {
    let (stage, _agent, web) = with_agent();
    let no = hook(
        &stage,
        "pre-shrink.d/backup",
        "echo retry-after=1; echo a backup runs; exit 75",
    );
    let daemon = start(&stage, web, ELASTIC, "elastic");
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_memory(web, |now| now == 640);
    stage.simulated.set_memory_used(web, mib(100));
    let refused = |text: &str| text.contains(": refused") && text.contains("a backup runs");
    daemon.wait_record("the guest refused", |record| {
        record.kind == "action" && refused(&record.text)
    });
    daemon.wait_explained("web", "the guest refused it", |explained| {
        let reason = "the guest refused it: hook backup: a backup runs";
        explained.summary.contains(reason)
    });
    // As many times as would put a mechanism that fails into quarantine.
    for vetoes in 1..=3 {
        stage.sleep_after_failures(&daemon, vetoes);
    }
    assert_eq!(
        daemon.view().domains[&web].memory.plugged,
        Some(mib(640)),
        "nothing was taken without consent"
    );
    let summary = daemon.explain("web").summary;
    assert!(!summary.contains("stuck"), "{summary}");
    fs::remove_file(no).unwrap();
    daemon.wait_memory(web, |now| now == 512);
}

#[test]
fn a_need_is_honoured_at_once_within_bounds_and_the_guest_is_told_of_its_growth() {
    let (stage, agent, web) = with_agent();
    let told = stage.path().join("told");
    let text = format!(
        "echo $VIRT_PERSONA_RESOURCE $VIRT_PERSONA_FROM $VIRT_PERSONA_TO >>{}; echo the pool is broken; exit 1",
        told.display()
    );
    hook(&stage, "post-grow.d/pool", &text);
    let daemon = start(&stage, web, ROOMY, "roomy");
    say_need(&agent, "256M");
    daemon.wait_memory(web, |now| now == 768);
    daemon.wait_record("the step is applied in spite of the hook", |record| {
        record.kind == "action"
            && record.text.contains("the guest's own need: applied")
            && record.text.contains("the pool is broken")
    });
    assert_eq!(
        fs::read_to_string(&told).unwrap(),
        format!("memory {} {}\n", 512 << 20, 768 << 20)
    );
    say_need(&agent, "8G");
    daemon.wait_memory(web, |now| now == 1024);
    daemon.wait_record("the second step is over", |record| {
        record.kind == "action" && record.text.contains("768 MiB -> 1 GiB")
    });
    say_need(&agent, "64M");
    daemon.wait_explained("web", "it is at its max", |explained| {
        let summary = &explained.summary;
        summary.contains("the guest's own need") && summary.contains("the persona's max")
    });
    assert_eq!(daemon.told("action").len(), 2);
}
