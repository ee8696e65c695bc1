//! The agent keeps to its budget: size, memory, threads, and no wake-up while nobody talks to it. qemu-guest-agent runs in the
//! same guest and is measured the same way; what it shows is printed beside, as a scale and not as a bound.

use crate::harness::{StateDisk, Variant};
use crate::scene::{Guest, Scene, must};
use crate::{Use, turn};

const MOST_BYTES: u64 = 4 << 20;
const MOST_RSS_KIB: u64 = 6 << 10;
const MOST_THREADS: usize = 3;

/// Rules that the guest evaluates itself, of all that it measures and notices; none of them fires.
const WATCHED: &str = "name: watched
adaptation_rules:
  - {name: load, when: guest.load > 1000, then: enable feature calm}
  - {name: processes, when: guest.processes > 1000000, then: enable feature calm}
  - name: pressure
    when: avg(guest.memory.pressure, 1m) > 99%
    then: enable feature calm
  - {name: disks, when: guest.disk.free < 0.001% OR guest.disk.inodes < 0.001%, then: enable feature calm}
  - {name: errors, when: guest.log.errors > 1000000/s, then: enable feature calm}
  - {name: logins, when: EVENT(login.failed) AND guest.auth.failures > 1000000/s, then: enable feature calm}
  - {name: network, when: network.latency > 1h, then: enable feature calm}
  - {name: oom, when: EVENT(guest.oom) AND guest.app.queue > 1, then: enable feature calm}
";

/// What a program of the guest is like at one moment.
struct Footprint {
    rss_kib: u64,
    own_kib: u64,
    threads: Vec<String>,
}

impl Footprint {
    fn of(guest: &Guest<'_>, program: &str) -> (u64, Self) {
        let pid = guest.pid_of(program);
        let rollup = guest.read(&format!("/proc/{pid}/smaps_rollup"));
        let rollup = rollup.unwrap_or_else(|| panic!("{program} does not run"));
        let footprint = Self {
            rss_kib: number(&rollup, "Rss:"),
            own_kib: number(&rollup, "Anonymous:"),
            threads: must(guest.witness.list(&format!("/proc/{pid}/task"))),
        };
        (pid, footprint)
    }
}

/// How often each thread of a process has gone to sleep of its own will.
fn switches(guest: &Guest<'_>, pid: u64, threads: &[String]) -> Vec<u64> {
    let of = |thread: &String| {
        guest
            .read(&format!("/proc/{pid}/task/{thread}/status"))
            .map_or(0, |status| number(&status, "voluntary_ctxt_switches:"))
    };
    threads.iter().map(of).collect()
}

#[test]
fn the_agent_is_small_and_sleeps_while_the_daemon_is_away() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-agent", Variant::Qga, |spec| {
        spec.state_disk = StateDisk::Ext4;
    });
    let web = Guest::of(&domain);
    scene.store("name: plain\nlearning_domains: [cpu, processes, disk, system logs, network traffic]\nenvironment_variables: {COLOUR: green}\npost_activation_script: {text: 'true', timeout: 20s}\n");
    scene.apply(&web, "plain");
    scene.until("the agent reports all that it can measure here", || {
        let readings = scene.status(&web)["readings"].to_string();
        let measured = ["guest.load", "guest.processes", "guest.disk.free"];
        measured.iter().all(|metric| readings.contains(metric))
    });

    let size = must(scene.agent_program().metadata()).len();
    assert!(size <= MOST_BYTES, "the agent's program has {size} bytes");
    scene.until("qemu-ga runs", || {
        must(web.witness.kill("qemu-ga", "SIGCONT")).len() == 1
    });

    scene.kill_daemon();
    let guest = &web;
    // What looks at disks and logs is a thread that ends with the look.
    scene.until("the agent has no more threads than it keeps", || {
        let (_, agent) = Footprint::of(guest, "virt-persona-agent");
        (1..=MOST_THREADS).contains(&agent.threads.len())
    });
    let (pid, agent) = Footprint::of(guest, "virt-persona-agent");
    let (other_pid, other) = Footprint::of(guest, "qemu-ga");
    let rss = agent.rss_kib;
    assert!((1..=MOST_RSS_KIB).contains(&rss), "{rss} KiB");
    let threads = &agent.threads;
    // It notices that the host has gone and settles; from then on it does not wake up at all.
    scene.until(
        "the agent sleeps for five seconds of the guest's time without a wake-up",
        || {
            let look = || switches(guest, pid, threads);
            let sum = |counts: &[u64]| counts.iter().sum::<u64>();
            let others = || sum(&switches(guest, other_pid, &other.threads));
            let (before, others_before, since) = (look(), others(), guest.status().uptime);
            scene.until("five seconds pass in the guest", || {
                guest.status().uptime >= since + 5.0
            });
            let (after, others_after) = (look(), others());
            for (name, of, woke) in [
                ("the agent", &agent, sum(&after).saturating_sub(sum(&before))),
                ("qemu-ga", &other, others_after.saturating_sub(others_before)),
            ] {
                println!(
                    "{name}: {} KiB resident, {} KiB of them its own, {} threads, woke {woke} times in five seconds",
                    of.rss_kib,
                    of.own_kib,
                    of.threads.len()
                );
            }
            before.iter().all(|count| *count > 0) && after == before
        },
    );

    scene.start_daemon();
    scene.until_active(&web, "plain");

    // Rules of its own make it wake, and not grow.
    scene.store(WATCHED);
    scene.apply(&web, "watched");
    scene.until_active(&web, "watched");
    let detail = scene.status(&web)["activation"]["detail"].to_string();
    let in_force = "8 rules are in force in the guest";
    assert!(detail.contains(in_force), "{detail}");
    scene.kill_daemon();
    let since = guest.status().uptime;
    scene.until("they were looked at many times", || {
        guest.status().uptime >= since + 60.0
    });
    let (before, since) = (switches(guest, pid, threads), guest.status().uptime);
    scene.until("a minute passes in the guest", || {
        guest.status().uptime >= since + 60.0
    });
    // What looks at disks and logs is a thread that ends with the look.
    scene.until("the agent has no more threads than it keeps", || {
        let (_, agent) = Footprint::of(guest, "virt-persona-agent");
        agent.threads.len() <= MOST_THREADS
    });
    let (_, agent) = Footprint::of(guest, "virt-persona-agent");
    let woke: u64 = switches(guest, pid, threads)
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .sum();
    println!(
        "the agent with 8 rules of its own: {} KiB resident, {} KiB of them its own, {} threads, woke {woke} times in a minute",
        agent.rss_kib,
        agent.own_kib,
        agent.threads.len()
    );
    assert!(agent.rss_kib <= MOST_RSS_KIB, "{} KiB", agent.rss_kib);
    assert!(woke > 0, "nobody looks at the rules");

    scene.start_daemon();
    scene.until_active(&web, "watched");
}

fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in {text}"))
}
