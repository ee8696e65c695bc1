//! Memory follows a load and goes back after it: with virtio-mem beyond the boot size, with the balloon alone below it,
//! and never below what the guest uses.

use crate::harness::Variant;
use crate::scene::{Guest, MIB, Scene};
use crate::{Use, turn};

#[test]
fn memory_grows_under_load_and_shrinks_after_it_but_never_below_live_use() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-memory");
    let web = Guest::of(&domain);
    let at_boot = web.memory();
    scene.store(
        "
name: hungry
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB}
adaptation_rules:
  - {name: grow, when: memory.utilization > 88% FOR 1s, then: add 256 MiB memory, cooldown: 1s, priority: 10}
  - {name: shrink, when: memory.utilization < 80% FOR 1s, then: remove 128 MiB memory, cooldown: 1s}
",
    );
    scene.apply(&web, "hungry");

    // It cannot hold all of it before it has grown.
    web.load_memory(600 * MIB);
    scene.until(
        "the guest holds what did not fit into its boot memory",
        || web.status().memory_held == 600 * MIB,
    );
    let grown = web.memory();
    assert!(grown > at_boot + 200 * MIB, "{grown} after {at_boot}");
    let witness = web.pid_of("guest-load");

    // The shrink rule holds on until live use with its margin stands against it.
    scene.until(
        "live use is what keeps the guest from shrinking further",
        || {
            let limits = scene.limits(&web, "memory");
            limits.iter().any(|limit| limit == "live-use")
                && scene.summary(&web).contains("memory stays")
        },
    );
    assert_eq!(
        web.status().memory_held,
        600 * MIB,
        "nothing was taken from under the load"
    );
    assert_eq!(
        web.pid_of("guest-load"),
        witness,
        "the guest's OOM killer took nobody"
    );
    assert!(web.memory() > 600 * MIB + 100 * MIB, "{}", web.memory());

    web.rest();
    scene.until("the guest is back at its boot memory", || {
        let status = scene.status(&web);
        status["memory"]["plugged"] == 512 * MIB && web.memory().abs_diff(at_boot) < 16 * MIB
    });
    assert_eq!(
        web.pid_of("guest-load"),
        witness,
        "the guest's OOM killer took nobody"
    );
    let steps = scene.said(&web, "action");
    for step in &steps {
        assert!(
            step.contains(": applied"),
            "a step was not applied: {steps:#?}"
        );
    }
}

#[test]
fn a_domain_with_a_balloon_alone_shrinks_and_returns_to_its_boot_size_at_most() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-balloon", Variant::Balloon, |_| {});
    let web = Guest::of(&domain);
    let at_boot = web.memory();
    scene.store(
        "
name: modest
base_configuration:
  memory: {min: 256 MiB, max: 2 GiB}
adaptation_rules:
  - {name: grow, when: memory.utilization > 80% FOR 1s, then: add 128 MiB memory, cooldown: 1s, priority: 10}
  - {name: shrink, when: memory.utilization < 50% FOR 1s, then: remove 64 MiB memory, cooldown: 1s}
",
    );
    scene.apply(&web, "modest");
    assert_eq!(scene.status(&web)["memory"]["mechanism"], "balloon");
    assert_eq!(scene.status(&web)["memory"]["domain_max"], 512 * MIB);

    scene.until("the guest is down at the persona's minimum", || {
        scene.status(&web)["memory"]["plugged"] == 256 * MIB
    });
    let small = web.memory();
    assert!(small < at_boot - 200 * MIB, "{small} of {at_boot}");

    web.load_memory(500 * MIB);
    scene.until(
        "the boot size is what keeps the guest from growing further",
        || {
            let summary = scene.summary(&web);
            summary.contains("memory stays at 512 MiB")
                && summary.contains("the most that the domain's definition allows")
        },
    );
    assert_eq!(web.memory(), at_boot);
    let check = scene.check(&web, "memory");
    assert_eq!(check["state"], "warn", "{check}");
    assert!(
        check["sentence"].to_string().contains("only the balloon"),
        "{check}"
    );
}
