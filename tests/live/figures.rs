//! What is measured of a real emulator: its disk by libvirt's bulk call, its major faults by files; and what people are
//! told of figures that its host does not have. That the figures are right is for `tests/observe`; here they are there.

use serde_json::Value;

use crate::harness::{Network, StateDisk, Variant};
use crate::scene::{Guest, Scene, list, text};
use crate::{Use, turn};

/// The reading of a metric in `status`; null where there is none.
fn reading(scene: &Scene, web: &Guest<'_>, metric: &str) -> Value {
    let readings = list(&scene.status(web)["readings"]);
    let found = readings.into_iter().find(|one| one["metric"] == metric);
    found.unwrap_or_default()
}

/// Why `explain` says that a metric is not known; empty where it is.
fn missing(scene: &Scene, web: &Guest<'_>, metric: &str) -> String {
    let rules = list(&scene.explain(web)["rules"]);
    let mut looked = rules.iter().flat_map(|rule| list(&rule["looked"]));
    let found = looked.find(|looked| looked["metric"] == metric);
    text(&found.unwrap_or_default()["missing"])
}

#[test]
fn disk_and_process_are_measured_and_what_the_host_does_not_have_is_said() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-figures", Variant::Full, |spec| {
        spec.state_disk = StateDisk::Ext4;
        spec.network = Network::User;
    });
    let web = Guest::of(&domain);
    for metric in [
        "disk.read.iops",
        "disk.write.iops",
        "disk.read.bandwidth",
        "disk.write.bandwidth",
        "memory.major_faults",
    ] {
        scene.until(&format!("{metric} is measured"), || {
            let seen = reading(&scene, &web, metric);
            seen["source"] == "host" && seen["value"].is_f64()
        });
    }

    scene.store(
        "
name: watchful
environment_variables: {WRITTEN: yes it is}
adaptation_rules:
  - IF disk.write.bandwidth > 0 KiB/s AND disk.latency > 0ms THEN notify \"it writes\"
  - IF network.rx.bandwidth > 1 Mbit/s THEN notify \"it receives\"
  - IF memory.pressure > 10% OR memory.swap_in > 10/s THEN notify \"it swaps\"
",
    );
    scene.apply(&web, "watchful");
    // The agent has kept what it was told on its disk, and the guest's kernel writes that in a while.
    scene.until("the write is seen", || {
        let said = scene.said(&web, "decision");
        said.iter().any(|text| text.contains("it writes"))
    });
    // A libvirtd without privileges gives its emulators neither taps nor control groups.
    for (metric, reason) in [
        ("network.rx.bandwidth", "as in user mode"),
        ("memory.pressure", "no control group of its own"),
        ("memory.swap_in", "no control group of its own"),
    ] {
        let said = missing(&scene, &web, metric);
        assert!(said.contains(reason), "{metric}: {said}");
        assert_eq!(reading(&scene, &web, metric), Value::Null, "{metric}");
    }
}
