//! vCPUs follow a load and go back after it, seen from inside the guest; a change by hand is respected.

use crate::scene::{Guest, Scene, must, texts};
use crate::{Use, turn};

const GROWER: &str = "
name: grower
base_configuration:
  cpu: {min: 1, max: 3}
adaptation_rules:
  - {name: grow, when: cpu.utilization > 10% FOR 1s, then: add 1 vcpus, cooldown: 1s, priority: 10}
  - {name: shrink, when: cpu.utilization < 4% FOR 2s, then: remove 1 vcpus, cooldown: 1s}
";

/// It takes back and adds nothing, so whatever grows was changed by hand, however busy the guest is after its start.
const TAKER: &str = "
name: taker
base_configuration:
  cpu: {min: 1, max: 3}
adaptation_rules:
  - {name: shrink, when: cpu.utilization < 4% FOR 2s, then: remove 1 vcpus, cooldown: 1s}
";

#[test]
fn vcpus_grow_under_load_shrink_after_it_and_grow_again() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-vcpus");
    let web = Guest::of(&domain);
    scene.store(GROWER);
    must(domain.tag(&["vpt-grow"]));
    scene.map("vpt-grow", "grower", 0);
    scene.until_active(&web, "grower");
    assert_eq!(web.online(), "0");

    for round in [
        "the first time",
        "again, with CPUs that were taken back before",
    ] {
        web.load_cpus();
        scene.until(&format!("the guest has three CPUs online {round}"), || {
            web.online() == "0-2"
        });
        let explained = scene.explain_resource(&web, "vcpus");
        assert_eq!(explained["action"]["outcome"], "applied", "{explained}");
        web.rest();
        scene.until(&format!("the guest is back at one CPU {round}"), || {
            web.online() == "0"
        });
        scene.until("the daemon sees it too", || {
            scene.status(&web)["vcpus"]["guest"] == 1
        });
        let plugged = &scene.status(&web)["vcpus"]["plugged"];
        if scene.lab().guest().is_emulated() {
            assert_eq!(
                plugged, 3,
                "an emulated vCPU is only taken offline, or the next growth fails"
            );
        } else {
            assert_eq!(plugged, 1);
        }
    }
    let steps = scene.said(&web, "action");
    assert!(steps.len() >= 8, "{steps:#?}");
    for step in &steps {
        assert!(
            step.contains(": applied"),
            "a step was not applied: {steps:#?}"
        );
    }
}

#[test]
fn a_change_by_hand_is_seen_shown_and_respected_for_as_long_as_configured() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("[memory]\nhold_s = 15\n");
    let domain = scene.boot_full("vpt-hand");
    let web = Guest::of(&domain);
    scene.store(TAKER);
    scene.apply(&web, "taker");

    must(domain.virsh("setvcpus", &["3", "--live"]));
    // The guest is idle, so the rule wants to shrink it; only the hold stands against it.
    scene.until(
        "the hold is what keeps an idle guest at three vCPUs",
        || {
            let summary = scene.summary(&web);
            summary.contains("rule shrink") && summary.contains("somebody changed it by hand")
        },
    );
    let status = scene.status(&web);
    assert_eq!(status["holds"][0]["resource"], "vcpus", "{status}");
    assert!(
        status["holds"][0]["reason"].to_string().contains("by hand"),
        "{status}"
    );
    assert_eq!(
        web.online(),
        "0-2",
        "the agent brings online what is plugged"
    );
    let drifts = scene.said(&web, "drift");
    assert_eq!(drifts.len(), 1, "{drifts:#?}");
    for said in ["from 1 vCPU to 3 vCPUs", "respected for 15 s"] {
        assert!(drifts[0].contains(said), "{drifts:#?}");
    }

    scene.until("the guest is back at one CPU when the hold is over", || {
        web.online() == "0"
    });
    let records = scene.audit(Some(&web));
    let of = |kind: &str| records.iter().find(|record| record["kind"] == kind);
    // From when on it may be changed again, as the daemon said when it saw the change; the record is a moment later.
    let until = of("drift").and_then(|drift| drift["detail"]["until"].as_u64());
    let shrunk = of("decision").and_then(|decision| decision["detail"]["at"].as_u64());
    assert!(
        until.zip(shrunk).is_some_and(|(until, at)| at >= until),
        "{until:?} {shrunk:?}: {records:#?}"
    );
    assert_eq!(
        texts(&records, "drift").len(),
        1,
        "what the daemon does itself is no drift: {records:#?}"
    );
}
