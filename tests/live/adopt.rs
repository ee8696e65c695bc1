//! A domain without anything that live scaling needs is adopted on a real libvirt: what is shown, what comes at the next
//! start, that its memory then grows, and that its definition is put back to the last byte.

use serde_json::Value;

use crate::harness::{DomainSpec, Variant};
use crate::scene::{Guest, MIB, Scene, list, must, text};
use crate::{Use, turn};

fn line(adoption: &Value, subject: &str) -> Value {
    let lines = list(&adoption["lines"]);
    let found = lines.into_iter().find(|line| line["subject"] == subject);
    found.unwrap_or_else(|| panic!("{subject}: {adoption:#}"))
}

#[test]
fn a_plain_domain_is_adopted_grows_after_its_next_start_and_is_put_back_to_the_last_byte() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let name = "vpt-adopted";
    let domain = must(DomainSpec::new(name, Variant::Plain).define(scene.lab()));
    must(domain.start());
    scene.until("the daemon knows it", || domain.status().is_ok());
    let definition = || must(domain.virsh("dumpxml", &["--inactive", "--security-info"]));
    let before = definition();
    for part in [
        "virtio-serial",
        "virtio-mem",
        "maxMemory",
        "<numa>",
        "<channel",
    ] {
        assert!(!before.contains(part), "it has {part} already:\n{before}");
    }

    let wishes = ["--max-vcpus", "3", "--max-memory", "1536 MiB"];
    let adopt = |more: &[&str]| scene.cli(&[&["adopt", name][..], more].concat());
    let plan = adopt(&[&wishes[..], &["--dry-run"]].concat());
    assert_eq!(plan["state"], "planned", "{plan:#}");
    for subject in [
        "vCPUs at most",
        "memory at most",
        "NUMA cell",
        "virtio-mem device",
        "agent channel",
    ] {
        assert_eq!(line(&plan, subject)["when"], "next_start", "{plan:#}");
    }
    assert_eq!(definition(), before, "a dry run changed the definition");

    let done = adopt(&[&wishes[..], &["--yes"]].concat());
    assert_eq!(done["state"], "done", "{done:#}");
    assert_eq!(done["notes"], plan["notes"], "{done:#}");
    let prepared = definition();
    for part in [
        "virtio-serial",
        "<memory model='virtio-mem'>",
        "<maxMemory slots='4' unit='KiB'>1572864</maxMemory>",
        "<vcpu placement='static' current='1'>",
        "org.virtpersona.agent.0",
        "freePageReporting='on'",
    ] {
        assert!(prepared.contains(part), "{part} is not in\n{prepared}");
    }
    let again = adopt(&[&wishes[..], &["--yes"]].concat());
    assert_eq!(again["state"], "unchanged", "{again:#}");
    assert_eq!(definition(), prepared);

    // A reboot is not enough; a start is.
    must(domain.destroy());
    must(domain.start());
    let guest = Guest::of(&domain);
    scene.store(
        "
name: grows
base_configuration:
  memory: {min: 512 MiB, max: 1024 MiB}
adaptation_rules:
  - {name: grow, when: memory.utilization > 1% FOR 1s, then: add 256 MiB memory, cooldown: 1s}
",
    );
    scene.apply(&guest, "grows");
    scene.until(
        "libvirt and the guest show all the memory that the persona allows",
        || {
            let seen = scene.status(&guest)["memory"]["guest"].as_u64();
            must(domain.memory_device()).current == 512 * MIB
                && seen.is_some_and(|seen| seen > 900 * MIB)
        },
    );

    // What a person changed since is not lost.
    must(domain.virsh("desc", &["--config", "--new-desc", "somebody was here"]));
    let refused = scene.refused(&["adopt", name, "--undo", "--yes"]);
    assert!(
        refused.contains("+ <description>somebody was here</description>"),
        "{refused}"
    );
    must(domain.virsh("desc", &["--config", "--new-desc", ""]));
    let undone = scene.cli(&["adopt", name, "--undo", "--yes"]);
    assert_eq!(undone["state"], "done", "{undone:#}");
    assert!(
        text(&undone["notes"][0]).contains("keeps all that it was started with"),
        "{undone:#}"
    );
    // The daemon's own word on the persona in force is no part of it.
    let without_metadata = |xml: &str| match xml.split_once("  <metadata>") {
        Some((head, rest)) => {
            let (_, tail) = rest.split_once("</metadata>\n").unwrap_or_default();
            format!("{head}{tail}")
        }
        None => xml.to_owned(),
    };
    assert_eq!(without_metadata(&definition()), before);
    let kinds = scene.said(&guest, "adoption");
    assert_eq!(kinds.len(), 2, "{kinds:?}");
}
