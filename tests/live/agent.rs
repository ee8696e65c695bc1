//! The agent keeps to its budget: size, memory, threads, and no wake-up while nobody talks to it.

use crate::scene::{Guest, Scene, must};
use crate::{Use, turn};

const MOST_BYTES: u64 = 4 << 20;
const MOST_RSS_KIB: u64 = 6 << 10;
const MOST_THREADS: usize = 3;

#[test]
fn the_agent_is_small_and_sleeps_while_the_daemon_is_away() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-agent");
    let web = Guest::of(&domain);
    scene.store("name: plain\nenvironment_variables: {COLOUR: green}\npost_activation_script: {text: 'true', timeout: 20s}\n");
    scene.apply(&web, "plain");
    scene.until("the agent reports", || {
        scene.status(&web)["readings"]
            .to_string()
            .contains("guest.load")
    });

    let size = must(scene.agent_program().metadata()).len();
    assert!(size <= MOST_BYTES, "the agent's program has {size} bytes");
    let guest = &web;
    let pid = guest.pid_of("virt-persona-agent");
    let rollup = guest
        .read(&format!("/proc/{pid}/smaps_rollup"))
        .expect("the agent runs");
    let rss = number(&rollup, "Rss:");
    assert!(rss > 0 && rss <= MOST_RSS_KIB, "{rollup}");
    let threads = must(guest.witness.list(&format!("/proc/{pid}/task")));
    assert!((1..=MOST_THREADS).contains(&threads.len()), "{threads:?}");

    scene.kill_daemon();
    let guest = &web;
    let switches = || -> Vec<u64> {
        threads
            .iter()
            .map(|thread| {
                guest
                    .read(&format!("/proc/{pid}/task/{thread}/status"))
                    .map_or(0, |status| number(&status, "voluntary_ctxt_switches:"))
            })
            .collect()
    };
    // It notices that the host has gone and settles; from then on it does not wake up at all.
    scene.until(
        "the agent sleeps for five seconds of the guest's time without a wake-up",
        || {
            let (before, since) = (switches(), guest.status().uptime);
            scene.until("five seconds pass in the guest", || {
                guest.status().uptime >= since + 5.0
            });
            before.iter().all(|count| *count > 0) && switches() == before
        },
    );

    scene.start_daemon();
    scene.until_active(&web, "plain");
}

fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in {text}"))
}
