//! What docs/lifecycle.md says of pauses, saves, snapshots, stops, renames and undefined domains, with a real libvirt and
//! one guest: what is recorded, what rules hear of, whose hand a change is, and which persona is in force afterwards.

use serde_json::Value;

use crate::harness::{Domain, DomainSpec, Variant};
use crate::scene::{Guest, Scene, must, texts};
use crate::{Use, turn};

const TAG: &str = "vpt-living";
const ENVIRONMENT: &str = "/etc/profile.d/50-virt-persona.sh";

/// It changes nothing by itself and tells what it hears of.
fn document(colour: &str) -> String {
    format!(
        "
name: living
environment_variables: {{COLOUR: {colour}}}
base_configuration:
  cpu: {{min: 1, max: 3}}
  memory: {{min: 512 MiB, max: 1536 MiB}}
adaptation_rules:
  - IF EVENT(domain.started) THEN notify \"started\"
  - IF EVENT(domain.rebooted) THEN notify \"rebooted\"
  - IF EVENT(domain.paused) THEN notify \"paused\"
  - IF EVENT(domain.resumed) THEN notify \"resumed\"
  - IF EVENT(migration.finished) THEN notify \"arrived\"
"
    )
}

/// How often a rule has told this.
fn notices(scene: &Scene, text: &str) -> usize {
    let said = texts(&scene.audit(None), "decision");
    let notice = format!("says: {text}");
    said.iter().filter(|said| said.contains(&notice)).count()
}

fn is_told(scene: &Scene, part: &str) -> bool {
    let said = texts(&scene.audit(None), "connection");
    said.iter().any(|said| said.contains(part))
}

fn drifts(scene: &Scene) -> Vec<String> {
    texts(&scene.audit(None), "drift")
}

/// What the daemon shows of a domain; null while it knows none of this name.
fn shown(scene: &Scene, name: &str) -> Value {
    scene.lab().persona(&["status", name]).unwrap_or_default()
}

/// An empty qcow2 image of 64 MiB, by QEMU's `docs/interop/qcow2.txt`: `qemu-img` is not on every host that has QEMU.
fn empty_qcow2() -> Vec<u8> {
    const CLUSTER: u64 = 1 << 16;
    let mut image = vec![0; 4 * 65_536];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes()); // version
    put(20, &16_u32.to_be_bytes()); // bits of a cluster's size
    put(24, &(64_u64 << 20).to_be_bytes()); // size of the disk
    put(36, &1_u32.to_be_bytes()); // entries of the first table of clusters
    put(40, &(3 * CLUSTER).to_be_bytes()); // where it is
    put(48, &CLUSTER.to_be_bytes()); // the table of blocks of reference counts
    put(56, &1_u32.to_be_bytes()); // its clusters
    put(65_536, &(2 * CLUSTER).to_be_bytes()); // its one block
    // The four clusters that this is are used once each.
    put(2 * 65_536, &[0, 1, 0, 1, 0, 1, 0, 1]);
    image
}

/// A running guest with a disk that can hold snapshots, which the guest itself does not use.
fn boot(scene: &Scene, name: &str) -> Domain {
    let domain = must(DomainSpec::new(name, Variant::Full).define(scene.lab()));
    let files = scene.lab().domain_files();
    let disk = files.join(format!("{name}.qcow2")).display().to_string();
    must(std::fs::write(&disk, empty_qcow2()));
    // Its owner is the one of the directory, as whom QEMU runs.
    let owner = std::os::unix::fs::MetadataExt::uid(&must(std::fs::metadata(&files)));
    must(std::os::unix::fs::chown(&disk, Some(owner), None));
    let qcow2 = ["--driver", "qemu", "--subdriver", "qcow2"];
    let place = [&disk, "sda", "--targetbus", "sata", "--config"];
    must(domain.virsh("attach-disk", &[&place[..], &qcow2].concat()));
    must(domain.start());
    must(domain.wait_until_up());
    scene.until("the daemon knows it", || domain.status().is_ok());
    domain
}

#[test]
fn a_machine_is_paused_saved_reverted_stopped_renamed_and_undefined_as_documented() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = boot(&scene, "vpt-living");
    let web = Guest::of(&domain);
    scene.store(&document("green"));
    scene.store("name: other\n");
    must(domain.tag(&[TAG]));
    scene.map(TAG, "living", 0);
    scene.until_active(&web, "living");
    scene.until("its start was heard of", || notices(&scene, "started") > 0);
    let boot_id = web.boot_id();

    paused_and_resumed(&scene, &web);
    saved_and_restored(&scene, &web);
    scene.until("the guest itself went on", || web.boot_id() == boot_id);
    reverted(&scene, &web);
    scene.until("the guest itself went on", || web.boot_id() == boot_id);
    stopped_renamed_and_started(&scene, &domain);
    undefined_and_defined_anew(&scene);
    for never in ["rebooted", "arrived"] {
        assert_eq!(notices(&scene, never), 0, "{never}");
    }
    assert_eq!(drifts(&scene).len(), 1, "{:?}", drifts(&scene));
}

fn paused_and_resumed(scene: &Scene, web: &Guest<'_>) {
    // libvirt tells of a first run as of a resumption, so there may be some before.
    let heard = (notices(scene, "paused"), notices(scene, "resumed"));
    must(web.domain.virsh("suspend", &[]));
    scene.until("it is paused", || scene.status(web)["state"] == "paused");
    must(web.domain.virsh("resume", &[]));
    scene.until("it runs", || scene.status(web)["state"] == "running");
    scene.until("both were heard of", || {
        notices(scene, "paused") > heard.0 && notices(scene, "resumed") > heard.1
    });
    scene.until("its agent is there", || {
        scene.status(web)["agent"]["state"] == "connected" && scene.is_active(web, "living")
    });
    assert_eq!(drifts(scene), [""; 0]);
}

fn saved_and_restored(scene: &Scene, web: &Guest<'_>) {
    let before = scene.status(web);
    let starts = notices(scene, "started");
    must(web.domain.virsh("managedsave", &[]));
    scene.until("it is off", || scene.status(web)["state"] == "off");
    must(web.domain.start());
    scene.until("its agent is back", || {
        let now = scene.status(web);
        now["agent"]["state"] == "connected" && scene.is_active(web, "living")
    });
    let after = scene.status(web);
    assert_ne!(after["instance"], before["instance"]);
    for resource in ["vcpus", "memory"] {
        let plugged = |status: &Value| status[resource]["plugged"].clone();
        assert_eq!(plugged(&after), plugged(&before), "{resource}");
    }
    scene.until("the start was heard of", || {
        notices(scene, "started") > starts
    });
    assert!(!is_told(scene, "reverted"), "a restore is no revert");
    assert_eq!(drifts(scene), [""; 0]);
}

fn reverted(scene: &Scene, web: &Guest<'_>) {
    must(web.domain.virsh("snapshot-create-as", &["green"]));
    // After the snapshot come another version of the persona and a hand.
    let path = scene.lab().directory().join("persona.yaml");
    must(std::fs::write(&path, document("blue")));
    scene.cli(&["update", "living", &path.display().to_string()]);
    let colour = |colour: &str| {
        // The revert cuts the witness's line as well.
        let environment = web.witness.read(ENVIRONMENT);
        environment.is_ok_and(|text| text.contains(colour))
    };
    scene.until("the guest is blue", || {
        scene.is_active(web, "living") && colour("blue")
    });
    must(web.domain.virsh("setvcpus", &["2", "--live"]));
    let by_hand = || scene.status(web)["holds"].to_string().contains("by hand");
    scene.until("the hand is seen", by_hand);

    let starts = notices(scene, "started");
    must(web.domain.virsh("snapshot-revert", &["green"]));
    scene.until("the revert is recorded", || {
        is_told(scene, "was reverted to a snapshot")
    });
    scene.until("it is as it was", || {
        let now = scene.status(web);
        now["state"] == "running" && now["vcpus"]["plugged"] == 1 && !by_hand()
    });
    // The guest's memory is the one of the snapshot, with what was active then.
    scene.until("the guest is blue again", || {
        scene.is_active(web, "living") && colour("blue")
    });
    assert_eq!(drifts(scene).len(), 1, "{:?}", drifts(scene));
    // libvirt has told all three pieces of it by now.
    let told = texts(&scene.audit(None), "connection");
    let reverts = told.iter().filter(|said| said.contains("was reverted"));
    assert_eq!(reverts.count(), 1, "{told:?}");
    assert_eq!(notices(scene, "started"), starts, "it is no start");
}

fn stopped_renamed_and_started(scene: &Scene, domain: &Domain) {
    // libvirt renames no domain that has snapshots, and deletes none of one that is off without `qemu-img`.
    must(domain.virsh("snapshot-delete", &["green"]));
    must(domain.destroy());
    scene.until("it is off", || {
        shown(scene, domain.name())["state"] == "off"
    });
    must(domain.virsh("domrename", &["vpt-renamed"]));
    scene.until("it has its name", || {
        shown(scene, "vpt-renamed")["persona"]["name"] == "living"
    });
    assert!(is_told(
        scene,
        "domain vpt-living is now called vpt-renamed"
    ));
    assert_eq!(shown(scene, "vpt-living"), Value::Null);
    let starts = notices(scene, "started");
    must(scene.lab().virsh(&["start", "vpt-renamed"]));
    scene.until("the start was heard of", || {
        notices(scene, "started") > starts
    });
    scene.until("the guest has its persona", || {
        let now = shown(scene, "vpt-renamed");
        now["agent"]["state"] == "connected" && now["activation"]["state"] == "active"
    });
}

fn undefined_and_defined_anew(scene: &Scene) {
    let name = "vpt-renamed";
    let bound = |persona: &str| shown(scene, name)["persona"]["name"] == persona;
    scene.cli(&["apply", name, "other"]);
    scene.until("it has what was applied", || bound("other"));
    must(scene.lab().virsh(&["destroy", name]));
    scene.until("it is off", || shown(scene, name)["state"] == "off");
    assert!(bound("other"));
    let definition = must(scene.lab().virsh(&["dumpxml", "--inactive", name]));
    let file = scene.lab().directory().join("anew.xml");
    must(std::fs::write(&file, definition));
    must(scene.lab().virsh(&["undefine", name]));
    scene.until("it is forgotten", || {
        let records = scene.audit(None).into_iter();
        let mut texts = records.map(|record| record["text"].to_string());
        texts.any(|text| text.contains(&format!("domain {name} is no longer defined")))
    });
    must(scene.lab().virsh(&["define", &file.display().to_string()]));
    scene.until("its tag decides", || bound("living"));
}
