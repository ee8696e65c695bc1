//! Memory follows a load and goes back after it: with virtio-mem beyond the boot size, with the balloon alone below it,
//! and never below what the guest uses.

use crate::harness::{StateDisk, Variant};
use crate::scene::{Guest, MIB, Scene, list, must};
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

/// Takes half of the memory from a guest that idles. The guest's disk is read all the while, so that what is read of it
/// has to go and come again as soon as memory is short.
const FRUGAL: &str = "
name: frugal
base_configuration:
  memory: {min: 256 MiB, max: 512 MiB}
pre_activation_script:
  timeout: 20s
  text: |
    (while :; do cat /dev/vda; done >/dev/null 2>&1) &
adaptation_rules:
  - {name: shrink, when: memory.utilization < 60% FOR 1s, then: remove 64 MiB memory, cooldown: 1s}
";

/// Grows by nothing: no rule, and a guest's word is not enough.
const WARY: &str = "
name: frugal
trust_levels: {resource_scaling: low}
base_configuration:
  memory: {min: 256 MiB, max: 512 MiB}
";

#[test]
fn what_the_balloon_took_goes_back_to_a_guest_in_need_without_a_rule() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-missing", Variant::Balloon, |spec| {
        spec.state_disk = StateDisk::Ext4;
    });
    let web = Guest::of(&domain);
    let at_boot = web.memory();
    scene.store(FRUGAL);
    scene.apply(&web, "frugal");
    scene.until("half of it is taken", || {
        must(domain.balloon()) == 256 * MIB && web.memory() < at_boot - 200 * MIB
    });
    let path = scene.lab().directory().join("persona.yaml");
    must(std::fs::write(&path, WARY));
    scene.cli(&["update", "frugal", &path.display().to_string()]);
    scene.until("no rule is left", || {
        scene.is_active(&web, "frugal") && list(&scene.explain(&web)["rules"]).is_empty()
    });
    assert_eq!(must(domain.balloon()), 256 * MIB);

    let began = std::time::Instant::now();
    must(web.witness.load_memory(400 * MIB, 8 * MIB));
    scene.until("the guest has back what it misses", || {
        let said = scene.said(&web, "action");
        let returned = "misses the memory that was taken from it: applied";
        said.iter().any(|text| text.contains(returned)) && must(domain.balloon()) == 512 * MIB
    });
    eprintln!("from the load to its return: {:?}", began.elapsed());
    assert_eq!(web.memory(), at_boot, "the guest itself shows it");
    scene.until("the guest holds what it needs", || {
        web.status().memory_held == 400 * MIB
    });
}

#[test]
fn memory_grows_by_a_dimm_where_nothing_else_has_room_and_that_is_allowed() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("[memory]\ndimm = \"growth\"\n");
    let domain = scene.boot("vpt-dimm", Variant::Full, |spec| spec.virtio_mem_mib = 128);
    let web = Guest::of(&domain);
    let at_boot = web.memory();
    scene.store(
        "
name: wide
base_configuration:
  memory: {min: 512 MiB, initial: 896 MiB, max: 1 GiB}
",
    );
    let began = std::time::Instant::now();
    scene.apply(&web, "wide");
    scene.until("device and DIMM are there for the daemon", || {
        scene.status(&web)["memory"]["plugged"] == 896 * MIB
    });
    eprintln!("from 512 to 896 MiB: {:?}", began.elapsed());
    assert_eq!(must(domain.memory_device()).current, 128 * MIB);
    let xml = must(domain.live_xml());
    let dimms: Vec<&str> = xml.split("<memory model='dimm'").skip(1).collect();
    assert_eq!(dimms.len(), 1, "{xml}");
    assert!(dimms[0].contains("<size unit='KiB'>262144</size>"), "{xml}");
    scene.until("the guest itself shows all of it", || {
        web.memory() > at_boot + (128 + 256 - 16) * MIB
    });
    let steps = scene.said(&web, "action");
    for step in &steps {
        assert!(
            step.contains(": applied"),
            "a step was not applied: {steps:#?}"
        );
    }
}
