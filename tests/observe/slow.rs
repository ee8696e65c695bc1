//! Figures that are read at turns: pressure of the domain's group, and memory that came back from a disk.

use persona::signal::{Metric, Signals, Source};
use virt_persona::observe::{Emulator, Figure, Missing};

use super::tree::{DOMAIN, Tree, V1_GROUP, V2_GROUP, at, emulator, outcome};

const PRESSURE: [(Metric, &str, Figure); 3] = [
    (Metric::CpuPressure, "cpu", Figure::GroupCpuPressure),
    (
        Metric::MemoryPressure,
        "memory",
        Figure::GroupMemoryPressure,
    ),
    (Metric::DiskPressure, "io", Figure::GroupIoPressure),
];

/// `some` of this many hundredths of a percent.
fn pressure(hundredths: u32) -> String {
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    format!("some avg10={whole}.{rest:02} avg60=0.00 avg300=0.00 total=1\n")
}

/// `/proc/PID/stat` with so many major faults.
fn stat(major_faults: u64) -> String {
    let text = include_str!("../fixtures/procfs/stat");
    assert!(text.contains(" 9664 0 6 0 "), "{text}");
    text.replace(" 9664 0 6 0 ", &format!(" 9664 0 {major_faults} 0 "))
}

#[test]
fn pressure_is_that_of_the_domains_own_group_and_is_read_every_other_second() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    let first = observer.sample_domain(DOMAIN, None, at(0));
    for (metric, expected) in [
        (Metric::CpuPressure, 12.5),
        (Metric::MemoryPressure, 1.75),
        (Metric::DiskPressure, 0.0),
    ] {
        assert_eq!(outcome(&first, metric), Ok(expected), "{metric}");
        let reading = first.readings.reading(metric).unwrap();
        assert_eq!((reading.source, reading.at), (Source::Host, at(0)));
        assert_eq!(reading.period.as_secs(), 2, "{metric}");
    }
    for (_, name, _) in PRESSURE {
        tree.write(
            &format!("cgroup/{V2_GROUP}/{name}.pressure"),
            &pressure(9_905),
        );
    }
    let mut read = Vec::new();
    for second in 1..=8 {
        let sample = observer.sample_domain(DOMAIN, None, at(second));
        let reading = sample.readings.reading(Metric::CpuPressure).unwrap();
        let expected = if reading.at == at(0) { 12.5 } else { 99.05 };
        assert_eq!(reading.value, expected, "{second}");
        assert!(at(second).since(reading.at).as_secs() < 2, "{second}");
        read.push(reading.at);
    }
    read.dedup();
    assert!((4..=5).contains(&read.len()), "{read:?}");
}

#[test]
fn without_a_group_of_version_2_pressure_is_unknown_for_a_reason_and_no_other_figure_is() {
    type Change = fn(&Tree);
    let cases: [(&str, Change, [Missing; 3]); 4] = [
        (
            "the emulator is in a group of its user's session",
            |tree| tree.process("cgroup", "0::/user.slice/session-1.scope\n1:cpu:/a\n"),
            [Missing::NoOwnGroup; 3],
        ),
        (
            "version 2 is not mounted",
            |tree| {
                std::fs::remove_dir_all(tree.path("cgroup/unified")).unwrap();
                // Where it has been mounted once, processes still name their group in it.
            },
            [Missing::NoUnifiedHierarchy; 3],
        ),
        (
            "processes have no group of version 2",
            |tree| {
                let text = include_str!("../fixtures/cgroup-v1/proc-cgroup");
                let text = text.split("0::").next().unwrap();
                tree.process("cgroup", text);
            },
            [Missing::NoUnifiedHierarchy; 3],
        ),
        (
            "the kernel keeps no pressure",
            |tree| {
                let group = tree.path(&format!("cgroup/unified/{V1_GROUP}"));
                std::fs::remove_file(group.join("cpu.pressure")).unwrap();
            },
            PRESSURE.map(|(_, _, figure)| Missing::NotOffered(figure)),
        ),
    ];
    for (name, change, reasons) in cases {
        let tree = Tree::v1(1);
        change(&tree);
        let mut observer = tree.attached(1);
        observer.sample_domain(DOMAIN, None, at(0));
        let sample = observer.sample_domain(DOMAIN, None, at(5));
        for ((metric, ..), reason) in PRESSURE.into_iter().zip(reasons) {
            assert_eq!(outcome(&sample, metric), Err(reason), "{name}: {metric}");
        }
        let utilization = outcome(&sample, Metric::CpuUtilization);
        assert_eq!(utilization, Ok(0.0), "{name}");
        let faults = outcome(&sample, Metric::MemoryMajorFaults);
        assert_eq!(faults, Ok(0.0), "{name}");
    }
}

#[test]
fn a_pressure_that_cannot_be_is_unknown() {
    let tree = Tree::v2(1);
    let path = format!("cgroup/{V2_GROUP}/memory.pressure");
    tree.write(&path, "some avg10=101.00 avg60=0.00\n");
    let mut observer = tree.attached(1);
    let sample = observer.sample_domain(DOMAIN, None, at(0));
    let reason = outcome(&sample, Metric::MemoryPressure).unwrap_err();
    assert!(matches!(reason, Missing::Malformed { .. }), "{reason}");
    assert_eq!(outcome(&sample, Metric::CpuPressure), Ok(12.5));
}

#[test]
fn memory_that_came_back_from_a_disk_is_counted_a_second() {
    /// What it is, a domain there, the file, and its text with a place for the count.
    type Case = (&'static str, fn() -> Tree, String, &'static str);
    let cases: [Case; 3] = [
        (
            "a kernel that counts swap-ins",
            || Tree::v2(1),
            format!("cgroup/{V2_GROUP}/memory.stat"),
            "anon 1\nfile 2\nworkingset_refault_anon 9999\npswpin {}\n",
        ),
        (
            "a kernel that does not",
            || Tree::v2(1),
            format!("cgroup/{V2_GROUP}/memory.stat"),
            "anon 1\nfile 2\nworkingset_refault_anon {}\n",
        ),
        (
            "version 1",
            || Tree::v1(1),
            format!("cgroup/memory/{V1_GROUP}/memory.stat"),
            "workingset_refault_anon 0\ntotal_workingset_refault_anon {}\n",
        ),
    ];
    for (name, tree, path, text) in cases {
        let tree = tree();
        let set = |pages: u64, faults: u64| {
            tree.write(&path, &text.replace("{}", &pages.to_string()));
            tree.process("stat", &stat(faults));
        };
        set(500, 6);
        let mut observer = tree.attached(1);
        let first = observer.sample_domain(DOMAIN, None, at(0));
        for metric in [Metric::MemorySwapIn, Metric::MemoryMajorFaults] {
            assert_eq!(outcome(&first, metric), Err(Missing::FirstSample), "{name}");
        }
        set(600, 26);
        let sample = observer.sample_domain(DOMAIN, None, at(5));
        assert_eq!(outcome(&sample, Metric::MemorySwapIn), Ok(20.0), "{name}");
        assert_eq!(
            outcome(&sample, Metric::MemoryMajorFaults),
            Ok(4.0),
            "{name}"
        );
        let reading = sample.readings.reading(Metric::MemorySwapIn).unwrap();
        assert_eq!(
            (reading.source, reading.period.as_secs()),
            (Source::Host, 5)
        );
        set(599, 27);
        let back = observer.sample_domain(DOMAIN, None, at(10));
        let went_back = Err(Missing::CounterWentBack(Figure::GroupSwapIns));
        assert_eq!(outcome(&back, Metric::MemorySwapIn), went_back, "{name}");
        assert_eq!(outcome(&back, Metric::MemoryMajorFaults), Ok(0.2), "{name}");
        set(599, 27);
        let next = observer.sample_domain(DOMAIN, None, at(15));
        assert_eq!(outcome(&next, Metric::MemorySwapIn), Ok(0.0), "{name}");
    }
}

#[test]
fn swap_ins_that_nothing_counts_are_unknown() {
    let tree = Tree::v2(1);
    tree.write(
        &format!("cgroup/{V2_GROUP}/memory.stat"),
        "anon 1\nfile 2\n",
    );
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    let sample = observer.sample_domain(DOMAIN, None, at(5));
    let not_offered = Err(Missing::NotOffered(Figure::GroupSwapIns));
    assert_eq!(outcome(&sample, Metric::MemorySwapIn), not_offered);

    let shared = Tree::new(1);
    let mut observer = shared.attached(1);
    let sample = observer.sample_domain(DOMAIN, None, at(0));
    let no_group = Err(Missing::NoOwnGroup);
    assert_eq!(outcome(&sample, Metric::MemorySwapIn), no_group);
}

#[test]
fn counters_of_another_group_or_process_are_not_compared_with_those_before() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    let elsewhere = r"machine.slice/machine-qemu\x2d2\x2dweb.scope/libvirt";
    tree.process("cgroup", &format!("0::/{elsewhere}/emulator\n"));
    tree.write(
        &format!("cgroup/{elsewhere}/memory.stat"),
        "anon 1\nfile 2\npswpin 70000\n",
    );
    observer.refresh(DOMAIN);
    let moved = observer.sample_domain(DOMAIN, None, at(5));
    assert_eq!(
        outcome(&moved, Metric::MemorySwapIn),
        Err(Missing::FirstSample)
    );
    assert_eq!(outcome(&moved, Metric::MemoryMajorFaults), Ok(0.0));
    let next = observer.sample_domain(DOMAIN, None, at(10));
    assert_eq!(outcome(&next, Metric::MemorySwapIn), Ok(0.0));

    let another = Emulator {
        instance: Some(2),
        ..emulator(1)
    };
    observer.attach(DOMAIN, another);
    let anew = observer.sample_domain(DOMAIN, None, at(15));
    for metric in [Metric::MemorySwapIn, Metric::MemoryMajorFaults] {
        assert_eq!(outcome(&anew, metric), Err(Missing::FirstSample));
    }
}
