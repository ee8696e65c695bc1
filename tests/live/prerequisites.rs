//! Domains that lack what live scaling needs: the doctor says what is missing and how to mend it, and nothing is tried.

use crate::harness::Variant;
use crate::scene::{Guest, MIB, Scene, texts};
use crate::{Use, turn};

#[test]
fn without_an_agent_no_vcpu_is_touched_and_memory_is_managed_all_the_same() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-alone", Variant::NoAgent, |_| {});
    let web = Guest::of(&domain);
    let at_boot = web.memory();
    scene.store(
        "
name: both
base_configuration:
  cpu: {min: 1, max: 3}
  memory: {min: 512 MiB, max: 1 GiB}
adaptation_rules:
  - {name: more-cpu, when: cpu.utilization > 10% FOR 1s, then: add 1 vcpus, cooldown: 1s}
  - {name: more-memory, when: memory.utilization > 70% FOR 1s, then: add 256 MiB memory, cooldown: 1s}
",
    );
    scene.bind(&web, "both");
    web.load_cpus();
    web.load_memory(500 * MIB);
    scene.until("the rule for vCPUs holds and is not followed for want of an agent", || {
        scene.summary(&web).contains("vCPUs stay at 1 vCPU although rule more-cpu wants 2 vCPUs, because no agent in the guest can bring CPUs online")
    });
    scene.until("memory has grown without an agent", || {
        web.memory() >= at_boot + 200 * MIB && web.status().memory_held == 500 * MIB
    });
    assert_eq!(
        web.present(),
        "0",
        "a vCPU was plugged that nobody can bring online"
    );
    let check = scene.check(&web, "agent");
    assert!(
        check["sentence"]
            .to_string()
            .contains("nobody answers on the agent's channel"),
        "{check}"
    );
    assert!(
        check["mend"]
            .to_string()
            .contains("install and start virt-persona-agent"),
        "{check}"
    );
    assert_eq!(
        scene.status(&web)["activation"]["state"],
        "waiting_for_agent"
    );
    let records = scene.audit(Some(&web));
    for kind in ["decision", "action"] {
        let steps = texts(&records, kind);
        assert!(
            steps.iter().all(|step| step.starts_with("memory")),
            "{steps:#?}"
        );
    }
    scene.until("the step says that no agent could confirm it", || {
        scene
            .said(&web, "action")
            .iter()
            .any(|step| step.contains(": applied") && step.contains("no agent could confirm it"))
    });
}

#[test]
fn without_hotplug_prerequisites_the_doctor_says_what_to_mend_and_nothing_is_tried() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-fixed", Variant::Fixed, |_| {});
    let web = Guest::of(&domain);
    scene.store(
        "
name: more
base_configuration:
  cpu: {min: 2, max: 4}
  memory: {min: 512 MiB, initial: 1 GiB, max: 2 GiB}
adaptation_rules:
  - {name: more-cpu, when: cpu.utilization > 10% FOR 1s, then: add 1 vcpus, cooldown: 1s}
  - {name: more-memory, when: memory.utilization > 60% FOR 1s, then: add 256 MiB memory, cooldown: 1s}
",
    );
    scene.bind(&web, "more");
    web.load_cpus();
    web.load_memory(300 * MIB);
    scene.until(
        "vCPUs and memory are both wanted, and both are refused with the reason",
        || {
            let summary = scene.summary(&web);
            summary.contains("the domain's definition has no hot-pluggable vCPUs")
                && summary.contains("memory stays at 512 MiB although")
        },
    );
    for (name, state, sentence, mend) in [
        (
            "vcpu-hotplug",
            "fail",
            "none can be added or removed",
            "<vcpu current=",
        ),
        ("memory", "warn", "only the balloon", "virtio-mem"),
        (
            "agent",
            "fail",
            "no channel for the agent",
            "org.virtpersona.agent.0",
        ),
    ] {
        let check = scene.check(&web, name);
        assert_eq!(check["state"], state, "{check}");
        assert!(check["sentence"].to_string().contains(sentence), "{check}");
        assert!(check["mend"].to_string().contains(mend), "{check}");
    }
    assert!(
        scene.status(&web)["problems"]
            .to_string()
            .contains("no hot-pluggable vCPUs")
    );
    assert_eq!(scene.status(&web)["agent"]["state"], "no_channel");
    assert_eq!(web.present(), "0");
    let records = scene.audit(Some(&web));
    for kind in ["decision", "action"] {
        assert_eq!(texts(&records, kind), [""; 0], "something was tried");
    }
}
