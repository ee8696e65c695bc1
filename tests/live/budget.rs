//! Two domains that together want more than the host's budget: what each gets, and why it does not get more.

use crate::scene::{Guest, Scene, must};
use crate::{Use, turn};

#[test]
fn two_domains_share_the_budget_and_are_told_why_they_do_not_get_more() {
    let _turn = turn(Use::WholeHost);
    // Three vCPUs for the two of them; the half keeps the division of odd numbers of cores from rounding down.
    let cores = u32::try_from(must(std::thread::available_parallelism()).get()).unwrap_or(1);
    // Neither its own load nor other work here makes this host one that is short of CPUs: then nobody would grow above its
    // share, and the third vCPU would go to neither.
    let scene = Scene::start_on_calm_host(&format!(
        "[budget]\nvcpus_per_core = {}\n",
        3.5 / f64::from(cores)
    ));
    let domains = scene.boot_two(["vpt-left", "vpt-right"]);
    let guests = [Guest::of(&domains[0]), Guest::of(&domains[1])];
    scene.store(
        "
name: greedy
base_configuration:
  cpu: {min: 1, max: 3}
adaptation_rules:
  - {name: grow, when: cpu.utilization > 10% FOR 1s, then: add 1 vcpus, cooldown: 1s, priority: 10}
  - {name: shrink, when: cpu.utilization < 4% FOR 2s, then: remove 1 vcpus, cooldown: 1s}
",
    );
    for guest in &guests {
        scene.apply(guest, "greedy");
    }
    let held = || -> u32 { guests.iter().map(cpus).sum() };
    for guest in &guests {
        guest.load_cpus();
    }
    scene.until(
        "the budget is spent, and both want more and are told so",
        || {
            assert!(held() <= 3, "more than the budget is in use");
            held() == 3
                && guests.iter().all(|guest| {
                    scene
                        .summary(guest)
                        .contains("the host's budget is 3 vCPUs")
                })
        },
    );
    let (winner, loser) = if cpus(&guests[0]) == 2 {
        (&guests[0], &guests[1])
    } else {
        (&guests[1], &guests[0])
    };
    scene.until("the one that got less is told who holds the rest", || {
        let summary = scene.summary(loser);
        summary.contains("although rule grow wants 2 vCPUs")
            && summary.contains("the host's budget is 3 vCPUs and other domains hold 2 vCPUs of it")
            && scene.limits(loser, "vcpus") == ["budget"]
    });
    winner.rest();
    scene.until("what the one gives back goes to the other", || {
        assert!(held() <= 3, "more than the budget is in use");
        cpus(loser) == 2 && cpus(winner) == 1
    });
}

fn cpus(guest: &Guest<'_>) -> u32 {
    must(guest.status().online())
}
