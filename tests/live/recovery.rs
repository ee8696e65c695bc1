//! The daemon killed in mid-action, libvirtd restarted, an emulator that hangs: nothing is lost, nothing is done twice,
//! and nobody else waits.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::Domain;
use crate::scene::{Guest, MIB, Scene, must, texts};
use crate::{Use, turn};

const SCALED: &str = "
name: scaled
environment_variables: {COLOUR: green}
base_configuration:
  cpu: {min: 1, max: 3}
  memory: {min: 512 MiB, max: 1536 MiB}
adaptation_rules:
  - {name: more-cpu, when: cpu.utilization > 10% FOR 1s, then: add 1 vcpus, cooldown: 1s, priority: 10}
  - {name: less-cpu, when: cpu.utilization < 4% FOR 2s, then: remove 1 vcpus, cooldown: 1s}
  - {name: more-memory, when: memory.utilization > 80% FOR 1s, then: add 128 MiB memory, cooldown: 1s, priority: 10}
pre_activation_script: {text: 'echo pre >>/run/vpt-runs; sleep 3', timeout: 30s}
post_activation_script: {text: echo post >>/run/vpt-runs, timeout: 20s}
";
const RUNS: &str = "/run/vpt-runs";

#[test]
fn a_daemon_killed_in_mid_action_goes_on_where_it_was() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-killed");
    let web = Guest::of(&domain);
    scene.store(SCALED);
    must(domain.tag(&["vpt-scaled"]));
    scene.map("vpt-scaled", "scaled", 0);

    // In the middle of an activation.
    scene.until("the first script runs", || web.read(RUNS).is_some());
    scene.kill_daemon();
    scene.start_daemon();
    scene.until_active(&web, "scaled");
    assert_eq!(
        web.read(RUNS).as_deref(),
        Some("pre\npost\n"),
        "each script runs once"
    );

    // In the middle of a memory step: the request is with the hypervisor, and the outcome is not recorded. The daemon
    // looks at the outcome a while after the request, so a kill at once is in between; where the host was too busy for
    // that, the next step is taken.
    web.load_memory(1000 * MIB);
    let mut cut_off = None;
    for _ in 0..5 {
        let before = requested(&domain);
        scene.until_at_once("a step is with the hypervisor", || {
            requested(&domain) > before
        });
        scene.kill_daemon();
        scene.start_daemon();
        let records = scene.audit(Some(&web));
        let last = records
            .iter()
            .rfind(|record| record["kind"] == "decision" || record["kind"] == "action")
            .cloned();
        if let Some(last) = last.filter(|last| last["kind"] == "decision") {
            cut_off = Some((last, records));
            break;
        }
    }
    let (_, before) = cut_off.expect("no kill met a step under way");

    scene.until("memory grows on until the load fits", || {
        web.status().memory_held == 1000 * MIB
    });
    // In the middle of a vCPU step as well, as far as the moment is met.
    web.load_cpus();
    scene.until_at_once("a vCPU is plugged", || must(domain.live_vcpus()) > 1);
    scene.kill_daemon();
    scene.start_daemon();
    scene.until("all vCPUs are online in the end", || web.online() == "0-2");

    let records = scene.audit(Some(&web));
    assert_eq!(
        records[..before.len()],
        before[..],
        "records of before the kill are not there as they were"
    );
    assert_eq!(
        texts(&records, "drift"),
        [""; 0],
        "its own work was taken for a hand's"
    );
    let status = scene.status(&web);
    assert_eq!(status["holds"], serde_json::json!([]), "{status}");
    assert!(scene.is_active(&web, "scaled"), "{status}");
    assert_eq!(
        web.read(RUNS).as_deref(),
        Some("pre\npost\n"),
        "a script ran again"
    );
    assert_eq!(scene.cli(&["list"])[0]["name"], "scaled");
    assert_eq!(scene.cli(&["maps"])[0]["tag"], "vpt-scaled");
}

#[test]
fn a_restart_of_libvirtd_is_survived_and_scaling_goes_on() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-libvirtd");
    let web = Guest::of(&domain);
    scene.store(SCALED);
    scene.apply(&web, "scaled");
    must(scene.lab().restart_libvirtd());
    scene.until("the daemon has lost libvirtd and found it again", || {
        let said = texts(&scene.audit(None), "connection");
        let lost = said
            .iter()
            .position(|text| text.starts_with("not connected to"));
        lost.is_some_and(|lost| {
            said[lost..]
                .iter()
                .any(|text| text.starts_with("connected to"))
        })
    });
    scene.until("the agent is talked to", || {
        scene.status(&web)["agent"]["state"] == "connected"
    });
    web.load_cpus();
    scene.until("vCPUs grow", || web.online() == "0-2");
    web.rest();
    scene.until("vCPUs shrink", || web.online() == "0");
    assert!(scene.is_active(&web, "scaled"));
    assert_eq!(
        web.read(RUNS).as_deref(),
        Some("pre\npost\n"),
        "a script ran again"
    );
    assert_eq!(scene.said(&web, "drift"), [""; 0]);
}

#[test]
fn a_domain_that_hangs_keeps_no_other_waiting_and_is_well_again_afterwards() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domains = scene.boot_two(["vpt-hung", "vpt-other"]);
    let (hung, other) = (Guest::of(&domains[0]), Guest::of(&domains[1]));
    scene.store(SCALED);
    for guest in [&hung, &other] {
        scene.apply(guest, "scaled");
    }
    let stopped = Stopped::stop(&domains[0]);
    // Calls about the hung domain are under way when the other one needs something.
    scene.until("the daemon notices that the guest hangs", || {
        scene.status(&hung)["agent"]["state"] != "connected"
    });
    // On a busy host a guest that has just booted may have passed a threshold before.
    let before = scene.said(&hung, "decision");
    other.load_cpus();
    scene.until("the other domain grows", || other.online() == "0-2");
    other.rest();
    scene.until("the other domain shrinks", || other.online() == "0");
    assert_eq!(
        scene.said(&hung, "decision"),
        before,
        "something was tried with a guest that hangs"
    );

    drop(stopped);
    scene.until("the agent is back", || {
        scene.status(&hung)["agent"]["state"] == "connected"
    });
    hung.load_cpus();
    scene.until("the domain that hung grows too", || hung.online() == "0-2");
    assert_eq!(
        hung.read(RUNS).as_deref(),
        Some("pre\npost\n"),
        "a script ran again"
    );
}

/// What the hypervisor is asked to give the domain beyond its boot memory, in bytes.
fn requested(domain: &Domain) -> u64 {
    must(domain.memory_device()).requested
}

/// A QEMU that does not run on until this value ends.
struct Stopped(Pid);

impl Stopped {
    fn stop(domain: &Domain) -> Self {
        let pid = Pid::from_raw(must(i32::try_from(must(domain.qemu_pid()))));
        must(kill(pid, Signal::SIGSTOP));
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Where it has ended, there is nothing to go on.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
