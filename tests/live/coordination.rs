//! Guests that take part: one whose hook refuses keeps its memory, and one that is suddenly short gets more at once.

use std::time::Instant;

use crate::scene::{Guest, MIB, Scene, must};
use crate::{Use, turn};

/// Puts a hook there that refuses every shrink, and grows as the load wants.
const STUBBORN: &str = "
name: stubborn
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB}
pre_activation_script:
  timeout: 20s
  text: |
    mkdir -p /etc/virt-persona/hooks/pre-shrink.d
    printf '#!/bin/sh\\necho a backup runs\\nexit 75\\n' >/etc/virt-persona/hooks/pre-shrink.d/backup
    chmod 755 /etc/virt-persona/hooks/pre-shrink.d/backup
adaptation_rules:
  - {name: grow, when: memory.utilization > 80% FOR 1s, then: add 256 MiB memory, cooldown: 1s, priority: 10}
  - {name: shrink, when: memory.utilization < 50% FOR 1s, then: remove 128 MiB memory, cooldown: 1s}
";

#[test]
fn a_guest_whose_hook_refuses_keeps_its_memory_and_explain_says_why() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-stubborn");
    let web = Guest::of(&domain);
    scene.store(STUBBORN);
    scene.apply(&web, "stubborn");
    web.load_memory(500 * MIB);
    scene.until("the guest holds its load", || {
        web.status().memory_held == 500 * MIB
    });
    web.rest();
    scene.until(
        "the guest has refused to shrink, and explain says so",
        || {
            scene
                .summary(&web)
                .contains("the guest refused it: hook backup: a backup runs")
        },
    );
    let grown = web.memory();
    let refusals = || {
        let said = scene.said(&web, "action");
        let refused = said.iter().filter(|text| text.contains("a backup runs"));
        refused.count()
    };
    scene.until("it was asked more than once", || refusals() >= 2);
    assert_eq!(web.memory(), grown, "nothing was taken without consent");
    assert!(
        must(domain.memory_device()).requested > 0,
        "what had come is still asked for"
    );
}

/// Grows by needs alone.
const QUIET: &str = "
name: quiet
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB}
pre_activation_script:
  timeout: 20s
  text: |
    (while :; do cat /dev/vda; done >/dev/null 2>&1) &
";

#[test]
fn a_guest_that_is_suddenly_short_of_memory_grows_by_its_own_word_at_once() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_with_disk("vpt-needy");
    let web = Guest::of(&domain);
    scene.store(QUIET);
    scene.apply(&web, "quiet");
    assert_eq!(must(domain.memory_device()).requested, 0);
    // Its disk is read all the while, and soon nothing of it can be kept in memory.
    must(web.witness.load_memory(700 * MIB, 8 * MIB));
    let daemon = scene.daemon();
    let heard = || must(daemon.borrow().log()).contains("the guest needs memory");
    scene.until_at_once("the guest's word has reached the host", heard);
    let began = Instant::now();
    scene.until_at_once("QEMU is asked for more memory", || {
        must(domain.memory_device()).requested > 0
    });
    eprintln!(
        "from the guest's message to the request in QEMU, as seen by looking at both: {:?}",
        began.elapsed()
    );
    scene.until("the guest has more", || {
        let said = scene.said(&web, "action");
        said.iter()
            .any(|text| text.contains("the guest's own need: applied"))
    });
}
