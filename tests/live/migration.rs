//! A guest that migrates between two hosts, each with its libvirtd and its daemon, and back: who lets go of it and who takes
//! it up, with which persona, and what it has before and after. The two are on this one machine, which libvirt only
//! believes where each has a host's name and number of its own.

use crate::harness::{DomainSpec, Variant};
use crate::scene::{Guest, MIB, Scene, must, texts};
use crate::{Use, turn};

const TAG: &str = "vpt-travelling";

/// Grows at once, and later under load; tells what it hears of.
const DOCUMENT: &str = "
name: travelling
base_configuration:
  cpu: {min: 1, initial: 2, max: 3}
  memory: {min: 512 MiB, initial: 768 MiB, max: 1280 MiB}
adaptation_rules:
  - IF EVENT(domain.started) THEN notify \"started\"
  - IF EVENT(migration.finished) THEN notify \"arrived\", add 1 vcpus
  - {name: grow, when: memory.utilization > 85% FOR 1s, then: add 256 MiB memory, cooldown: 1s}
";

fn host(name: &str) -> Scene {
    let scene = Scene::start_on_host(name);
    scene.store(DOCUMENT);
    scene.map(TAG, "travelling", 0);
    scene
}

fn notices(scene: &Scene, text: &str) -> usize {
    let said = texts(&scene.audit(None), "decision");
    let notice = format!("says: {text}");
    said.iter().filter(|said| said.contains(&notice)).count()
}

fn times(scene: &Scene, part: &str) -> usize {
    let said = texts(&scene.audit(None), "connection");
    said.iter().filter(|said| said.contains(part)).count()
}

const GONE: &str = "the domain has gone to another host";
const COME: &str = "the domain has come from another host";

/// Waits until the daemon, libvirt and the guest itself show so many vCPUs and so much memory, and the persona is active.
fn until_it_has(scene: &Scene, guest: &Guest<'_>, vcpus: u32, mib: u64) {
    let what = format!("{vcpus} vCPUs and {mib} MiB are there, and the persona is active");
    scene.until(&what, || {
        let status = scene.status(guest);
        status["vcpus"]["plugged"] == vcpus
            && status["memory"]["plugged"] == mib * MIB
            && status["memory"]["requested"] == mib * MIB
            && status["agent"]["state"] == "connected"
            && scene.is_active(guest, "travelling")
            && status["persona"]["tag"] == TAG
            && must(guest.domain.live_vcpus()) == vcpus
            && must(guest.domain.memory_device()).current == (mib - 512) * MIB
            // Its connection was to the emulator before.
            && guest.witness.status().is_ok_and(|seen| seen.online().ok() == Some(vcpus))
    });
    let shown = guest.memory() / MIB;
    // The kernel keeps some for itself from the start.
    assert!((mib - 160..=mib).contains(&shown), "{shown} of {mib} MiB");
}

#[test]
fn a_guest_that_migrates_is_let_go_and_taken_up_with_its_persona_and_what_it_has_and_goes_on() {
    let _turn = turn(Use::WholeHost);
    let (east, west) = (host("vpt-east"), host("vpt-west"));
    let there = must(DomainSpec::new("vpt-travels", Variant::Full).define(east.lab()));
    must(there.start());
    must(there.wait_until_up());
    must(there.tag(&[TAG]));
    let at_east = Guest::of(&there);
    until_it_has(&east, &at_east, 2, 768);
    let boot = at_east.boot_id();

    must(there.migrate(west.lab(), &["--persistent"]));
    east.until("the one host has let go of it", || {
        east.status(&at_east)["state"] == "off" && times(&east, GONE) == 1
    });
    // Its definition stays, and so does what it is to be.
    assert_eq!(east.status(&at_east)["persona"]["name"], "travelling");
    let here = there.gone_to(west.lab());
    let at_west = Guest::of(&here);
    west.until("the other knows it", || here.status().is_ok());
    // An emulator that has taken a machine over may add a vCPU that the guest cannot bring online; this one does not.
    until_it_has(&west, &at_west, 3, 768);
    let actions = west.said(&at_west, "action");
    assert!(
        actions[0].contains("2 vCPUs -> 3 vCPUs because of rule rule-2: applied"),
        "it came with two: {actions:?}"
    );
    assert_eq!(at_west.boot_id(), boot, "the guest itself went on");
    west.until("it has arrived", || {
        times(&west, COME) == 1 && notices(&west, "arrived") == 1
    });

    // Load of the guest is followed where it is now.
    must(at_west.witness.load_memory(700 * MIB, 8 * MIB));
    until_it_has(&west, &at_west, 3, 1024);
    at_west.rest();

    must(here.migrate(east.lab(), &["--undefinesource"]));
    west.until("it is forgotten where it is no longer defined", || {
        let records = west.audit(None).into_iter();
        let mut texts = records.map(|record| record["text"].to_string());
        times(&west, GONE) == 1
            && texts.any(|text| text.contains("domain vpt-travels is no longer defined"))
    });
    until_it_has(&east, &at_east, 3, 1024);
    assert_eq!(at_east.boot_id(), boot, "the guest itself went on");
    east.until("it is back", || {
        times(&east, COME) == 1 && notices(&east, "arrived") == 1
    });

    assert_eq!(notices(&west, "started"), 0, "it has not started there");
    for scene in [&east, &west] {
        assert_eq!(texts(&scene.audit(None), "drift"), [""; 0]);
        for outcome in texts(&scene.audit(None), "action") {
            assert!(outcome.contains(": applied"), "{outcome}");
        }
    }
}
