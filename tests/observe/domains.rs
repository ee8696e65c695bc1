//! Rates of one domain: what is known when, and what nothing can be said of.

use std::fs;

use persona::signal::{Metric, Signals, Source};
use proptest::prelude::*;
use virt_persona::observe::procfs::ThreadTimes;
use virt_persona::observe::vcpu::{VcpuWork, percent_of};
use virt_persona::observe::{Emulator, Figure, Missing, VcpuBasis};

use super::tree::{DOMAIN, PID, Tree, V1_GROUP, V2_GROUP, at, emulator, outcome, tid};

const HOST_METRICS: [Metric; 17] = [
    Metric::CpuUtilization,
    Metric::CpuSteal,
    Metric::CpuThrottled,
    Metric::CpuPressure,
    Metric::MemoryHostRss,
    Metric::MemoryPressure,
    Metric::MemorySwapIn,
    Metric::MemoryMajorFaults,
    Metric::DiskPressure,
    Metric::NetworkRxBandwidth,
    Metric::NetworkTxBandwidth,
    Metric::NetworkRxPackets,
    Metric::NetworkTxPackets,
    Metric::NetworkRxErrors,
    Metric::NetworkTxErrors,
    Metric::NetworkRxDrops,
    Metric::NetworkTxDrops,
];

#[test]
fn the_first_sample_has_no_rate_and_the_second_one_has() {
    let tree = Tree::v2(2);
    tree.run(0, 5_000, 0);
    let mut observer = tree.attached(2);
    let first = observer.sample_domain(DOMAIN, Some(2), at(0));
    for metric in [
        Metric::CpuUtilization,
        Metric::CpuSteal,
        Metric::CpuThrottled,
    ] {
        assert_eq!(outcome(&first, metric), Err(Missing::FirstSample));
    }
    assert_eq!(first.vcpu_basis, None);
    assert!(outcome(&first, Metric::MemoryHostRss).unwrap() > 0.0);

    tree.run(0, 5_900, 50);
    tree.run(1, 300, 150);
    let second = observer.sample_domain(DOMAIN, Some(2), at(1));
    assert_eq!(outcome(&second, Metric::CpuUtilization), Ok(60.0));
    assert_eq!(outcome(&second, Metric::CpuSteal), Ok(10.0));
    let reading = second.readings.reading(Metric::CpuUtilization).unwrap();
    assert_eq!((reading.source, reading.at), (Source::Host, at(1)));
    assert_eq!(second.vcpu_basis, Some(VcpuBasis::Guest(2)));
}

#[test]
fn utilisation_is_over_the_vcpus_that_are_online_and_says_when_the_guest_was_silent() {
    let cases = [
        (Some(1), [800, 0, 0, 0], 80.0, VcpuBasis::Guest(1)),
        (Some(4), [800, 0, 0, 0], 20.0, VcpuBasis::Guest(4)),
        (None, [800, 0, 0, 0], 20.0, VcpuBasis::Plugged(4)),
        // More than there are, and none at all, are no claims that could make the share smaller or infinite.
        (Some(1_000), [800, 0, 0, 0], 20.0, VcpuBasis::Guest(4)),
        (Some(0), [20, 0, 0, 0], 2.0, VcpuBasis::Guest(1)),
        // Three vCPUs ran: a guest that claims one would seem three times as busy as it is.
        (
            Some(1),
            [200, 200, 200, 0],
            20.0,
            VcpuBasis::Contradicted(3),
        ),
    ];
    for (online, run, utilization, basis) in cases {
        let tree = Tree::v2(4);
        let mut observer = tree.attached(4);
        observer.sample_domain(DOMAIN, online, at(0));
        for (index, run) in (0..).zip(run) {
            tree.run(index, run, 0);
        }
        let sample = observer.sample_domain(DOMAIN, online, at(1));
        let value = outcome(&sample, Metric::CpuUtilization).unwrap();
        assert!(
            (value - utilization).abs() < 1e-9,
            "{online:?} {run:?}: {value}"
        );
        assert_eq!(sample.vcpu_basis, Some(basis), "{online:?} {run:?}");
    }
}

#[test]
fn a_counter_that_goes_back_makes_that_sample_unknown_and_the_next_one_known() {
    let tree = Tree::v2(1);
    tree.run(0, 9_000, 9_000);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    tree.run(0, 100, 9_000);
    let back = observer.sample_domain(DOMAIN, None, at(1));
    let went_back = Err(Missing::CounterWentBack(Figure::ThreadTimes));
    assert_eq!(outcome(&back, Metric::CpuUtilization), went_back);
    assert_eq!(outcome(&back, Metric::CpuSteal), went_back);
    tree.run(0, 600, 9_000);
    let next = observer.sample_domain(DOMAIN, None, at(2));
    assert_eq!(outcome(&next, Metric::CpuUtilization), Ok(50.0));
}

#[test]
fn a_clock_that_stands_or_goes_back_gives_no_rate() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(10));
    tree.run(0, 400, 0);
    let stands = observer.sample_domain(DOMAIN, None, at(10));
    assert_eq!(
        outcome(&stands, Metric::CpuUtilization),
        Err(Missing::NoTimePassed)
    );
    let back = observer.sample_domain(DOMAIN, None, at(5));
    assert_eq!(
        outcome(&back, Metric::CpuUtilization),
        Err(Missing::FirstSample)
    );
    tree.run(0, 900, 0);
    let next = observer.sample_domain(DOMAIN, None, at(6));
    assert_eq!(outcome(&next, Metric::CpuUtilization), Ok(50.0));
}

#[test]
fn a_vcpu_plugged_since_counts_from_the_sample_after_it_was_seen() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, Some(1), at(0));
    tree.run(0, 500, 0);
    tree.add_vcpu(1);
    // What the thread did before it was seen is not of this sample.
    tree.run(1, 700, 0);
    observer.attach(DOMAIN, emulator(2));
    let plugged = observer.sample_domain(DOMAIN, Some(1), at(1));
    assert_eq!(outcome(&plugged, Metric::CpuUtilization), Ok(50.0));
    tree.run(0, 1_500, 0);
    tree.run(1, 1_700, 0);
    let online = observer.sample_domain(DOMAIN, Some(2), at(2));
    assert_eq!(outcome(&online, Metric::CpuUtilization), Ok(100.0));
}

#[test]
fn threads_are_looked_for_again_when_told_and_after_thirty_seconds() {
    for (told, second, basis) in [(true, 1, 2), (false, 1, 1), (false, 30, 2)] {
        let tree = Tree::v2(1);
        let mut observer = tree.attached(1);
        observer.sample_domain(DOMAIN, None, at(0));
        tree.add_vcpu(1);
        if told {
            observer.refresh(DOMAIN);
        }
        observer.sample_domain(DOMAIN, None, at(second));
        let sample = observer.sample_domain(DOMAIN, None, at(second + 1));
        assert_eq!(
            sample.vcpu_basis,
            Some(VcpuBasis::Plugged(basis)),
            "{told} {second}"
        );
    }
}

#[test]
fn a_thread_that_gets_its_name_late_is_found_soon_but_not_waited_for_without_end() {
    for (named_at, seen) in [(1, 2), (20, 1)] {
        let tree = Tree::v2(1);
        let mut observer = tree.attached(2);
        for second in 0..named_at {
            observer.sample_domain(DOMAIN, None, at(second));
        }
        tree.add_vcpu(1);
        observer.sample_domain(DOMAIN, None, at(named_at));
        let sample = observer.sample_domain(DOMAIN, None, at(named_at + 1));
        let basis = Some(VcpuBasis::Plugged(seen));
        assert_eq!(sample.vcpu_basis, basis, "named at {named_at}");
    }
}

#[test]
fn emulation_in_one_thread_is_measured_as_one() {
    let tree = Tree::new(0);
    tree.process("task/6580/comm", "ALL CPUs/TCG\n");
    tree.process("task/6580/schedstat", "0 0 0\n");
    let mut observer = tree.attached(4);
    observer.sample_domain(DOMAIN, Some(4), at(0));
    tree.process("task/6580/schedstat", "900000000 0 0\n");
    let sample = observer.sample_domain(DOMAIN, Some(4), at(1));
    assert_eq!(outcome(&sample, Metric::CpuUtilization), Ok(90.0));
}

#[test]
fn a_quota_that_held_back_is_a_share_of_periods() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    let path = format!("cgroup/{V2_GROUP}/cpu.stat");
    tree.write(
        &path,
        "usage_usec 1\nnr_periods 1010\nnr_throttled 254\nthrottled_usec 13000000\n",
    );
    let sample = observer.sample_domain(DOMAIN, None, at(1));
    assert_eq!(outcome(&sample, Metric::CpuThrottled), Ok(40.0));
    // No period at all: nothing was held back, and that is known.
    let idle = observer.sample_domain(DOMAIN, None, at(2));
    assert_eq!(outcome(&idle, Metric::CpuThrottled), Ok(0.0));
    tree.write(
        &path,
        "usage_usec 1\nnr_periods 3\nnr_throttled 0\nthrottled_usec 0\n",
    );
    let reset = observer.sample_domain(DOMAIN, None, at(3));
    let went_back = Err(Missing::CounterWentBack(Figure::GroupThrottling));
    assert_eq!(outcome(&reset, Metric::CpuThrottled), went_back);
}

#[test]
fn a_quota_on_single_vcpus_counts_though_the_domain_has_none() {
    let tree = Tree::v1(2);
    let vcpu = format!("cgroup/cpu/{V1_GROUP}/vcpu1");
    tree.write(&format!("{vcpu}/cpu.cfs_quota_us"), "50000\n");
    tree.write(&format!("{vcpu}/cpu.cfs_period_us"), "100000\n");
    tree.write(
        &format!("{vcpu}/cpu.stat"),
        "nr_periods 10\nnr_throttled 1\nthrottled_time 5\n",
    );
    let mut observer = tree.attached(2);
    let first = observer.sample_domain(DOMAIN, None, at(0));
    assert_eq!(
        outcome(&first, Metric::CpuThrottled),
        Err(Missing::FirstSample)
    );
    tree.write(
        &format!("{vcpu}/cpu.stat"),
        "nr_periods 20\nnr_throttled 10\nthrottled_time 500\n",
    );
    let sample = observer.sample_domain(DOMAIN, None, at(1));
    assert_eq!(outcome(&sample, Metric::CpuThrottled), Ok(90.0));
}

#[test]
fn a_group_shared_with_others_gives_no_throttling_and_the_rest_is_known() {
    let tree = Tree::new(1);
    tree.process("cgroup", "0::/user.slice/user-1000.slice/session-1.scope\n");
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    tree.run(0, 250, 0);
    let sample = observer.sample_domain(DOMAIN, None, at(1));
    assert_eq!(
        outcome(&sample, Metric::CpuThrottled),
        Err(Missing::NoOwnGroup)
    );
    assert_eq!(outcome(&sample, Metric::CpuUtilization), Ok(25.0));
    assert!(outcome(&sample, Metric::MemoryHostRss).is_ok());
    assert_eq!(observer.sample_groups(DOMAIN), Err(Missing::NoOwnGroup));
}

#[test]
fn a_process_number_given_to_another_process_is_never_believed() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    // The same number, as busy as can be, started later.
    let stat = include_str!("../fixtures/procfs/stat").replace(" 98801 ", " 99999 ");
    tree.process("stat", &stat);
    tree.run(0, 1_000, 0);
    observer.refresh(DOMAIN);
    for second in 1..4 {
        let sample = observer.sample_domain(DOMAIN, None, at(second));
        for metric in HOST_METRICS {
            assert_eq!(outcome(&sample, metric), Err(Missing::ProcessReplaced));
        }
    }
    // Until the hypervisor names it as the domain's.
    observer.attach(
        DOMAIN,
        Emulator {
            instance: Some(2),
            ..emulator(1)
        },
    );
    observer.sample_domain(DOMAIN, None, at(4));
    tree.run(0, 1_500, 0);
    let sample = observer.sample_domain(DOMAIN, None, at(5));
    assert_eq!(outcome(&sample, Metric::CpuUtilization), Ok(50.0));
}

#[test]
fn another_instance_starts_anew_and_the_same_one_goes_on() {
    let tree = Tree::v2(1);
    for (instance, expected) in [(1, Ok(50.0)), (2, Err(Missing::FirstSample))] {
        tree.run(0, 0, 0);
        let mut observer = tree.attached(1);
        observer.sample_domain(DOMAIN, None, at(0));
        tree.run(0, 500, 0);
        observer.attach(
            DOMAIN,
            Emulator {
                instance: Some(instance),
                ..emulator(1)
            },
        );
        let sample = observer.sample_domain(DOMAIN, None, at(1));
        assert_eq!(outcome(&sample, Metric::CpuUtilization), expected);
    }
}

#[test]
fn what_cannot_be_read_says_why_and_harms_no_other_domain() {
    let good = virt_persona::hypervisor::DomainId([8; 16]);
    type Breakage = fn(&Tree);
    let cases: [(&str, Breakage, Missing); 4] = [
        (
            "no process",
            |tree| fs::remove_file(tree.path(&format!("proc/{PID}/stat"))).unwrap(),
            Missing::ProcessEnded,
        ),
        (
            "no vCPU",
            |tree| tree.process(&format!("task/{}/comm", tid(0)), "qemu-system-x86\n"),
            Missing::NoVcpuThreads,
        ),
        (
            "half a line",
            |tree| tree.process(&format!("task/{}/schedstat", tid(0)), "12 3"),
            Missing::Malformed {
                figure: Figure::ThreadTimes,
                problem: virt_persona::observe::parse::FormatError::MissingField("end of line"),
            },
        ),
        (
            "a zombie",
            |tree| {
                tree.process(
                    "stat",
                    &include_str!("../fixtures/procfs/stat").replace(") S", ") Z"),
                )
            },
            Missing::ProcessEnded,
        ),
    ];
    for (name, breakage, reason) in cases {
        let tree = Tree::v2(1);
        for path in [
            "stat",
            "statm",
            "cgroup",
            "task/10/comm",
            "task/10/schedstat",
        ] {
            let from = path.replace("/10/", &format!("/{}/", tid(0)));
            let text = fs::read_to_string(tree.path(&format!("proc/{PID}/{from}"))).unwrap();
            tree.write(&format!("proc/9/{path}"), &text);
        }
        breakage(&tree);
        let mut observer = tree.attached(1);
        observer.attach(
            good,
            Emulator {
                pid: 9,
                ..emulator(1)
            },
        );
        observer.sample_domain(DOMAIN, None, at(0));
        observer.sample_domain(good, None, at(0));
        let broken = observer.sample_domain(DOMAIN, None, at(1));
        assert_eq!(
            outcome(&broken, Metric::CpuUtilization),
            Err(reason),
            "{name}"
        );
        let whole = observer.sample_domain(good, None, at(1));
        assert_eq!(outcome(&whole, Metric::CpuUtilization), Ok(0.0), "{name}");
    }
}

#[test]
fn a_domain_that_is_not_attached_is_unknown() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.detach(DOMAIN);
    let sample = observer.sample_domain(DOMAIN, None, at(0));
    for metric in HOST_METRICS {
        assert_eq!(outcome(&sample, metric), Err(Missing::NotAttached));
    }
    assert_eq!(sample.readings.problem(), Some(Missing::NotAttached));
}

#[test]
fn a_process_that_lost_its_memory_has_no_resident_size_of_zero() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    tree.process("statm", "0 0 0 0 0 0 0\n");
    let sample = observer.sample_domain(DOMAIN, None, at(0));
    assert_eq!(
        outcome(&sample, Metric::MemoryHostRss),
        Err(Missing::ProcessEnded)
    );
}

proptest! {
    #[test]
    fn a_share_of_any_counters_that_grow_is_a_percentage(
        starts in prop::collection::vec((0..u64::MAX / 2, 0..u64::MAX / 2), 1..8),
        growth in prop::collection::vec((0..u64::MAX / 2, 0..u64::MAX / 2), 8),
        millis in 1..u64::from(u32::MAX),
        online in prop::option::of(any::<u32>()),
    ) {
        let elapsed = std::time::Duration::from_millis(millis);
        let mut work = VcpuWork::default();
        for ((run, wait), (more_run, more_wait)) in starts.iter().zip(&growth) {
            let before = ThreadTimes { run: *run, wait: *wait, slices: 0 };
            let after = ThreadTimes { run: run + more_run, wait: wait + more_wait, slices: 0 };
            prop_assert_eq!(work.add(before, after, elapsed), Ok(()));
        }
        let threads = u32::try_from(starts.len()).unwrap();
        let vcpus = work.basis(online).vcpus();
        prop_assert!((1..=threads).contains(&vcpus));
        for time in [work.run, work.wait] {
            let percent = percent_of(time, elapsed, vcpus).unwrap();
            prop_assert!((0.0..=100.0).contains(&percent), "{percent}");
        }
    }

    #[test]
    fn a_share_of_a_counter_that_shrank_is_unknown(run in 1..u64::MAX, back in 1..u64::MAX) {
        let before = ThreadTimes { run, wait: 0, slices: 0 };
        let after = ThreadTimes { run: run.saturating_sub(back), wait: 0, slices: 0 };
        let mut work = VcpuWork::default();
        let outcome = work.add(before, after, std::time::Duration::from_secs(1));
        prop_assert_eq!(outcome, Err(Missing::CounterWentBack(Figure::ThreadTimes)));
    }
}
