//! What goes through a domain's network interfaces, by a table of the host's devices.

use persona::signal::{Metric, Signals, Source};
use virt_persona::hypervisor::Interface;
use virt_persona::observe::{Figure, Missing, Observer};

use super::tree::{DOMAIN, Tree, at, outcome};

const METRICS: [Metric; 8] = [
    Metric::NetworkRxBandwidth,
    Metric::NetworkRxPackets,
    Metric::NetworkRxErrors,
    Metric::NetworkRxDrops,
    Metric::NetworkTxBandwidth,
    Metric::NetworkTxPackets,
    Metric::NetworkTxErrors,
    Metric::NetworkTxDrops,
];

/// A device with what the host received on it and sent: bytes, packets, errors, drops.
type Row<'a> = (&'a str, [u64; 4], [u64; 4]);

/// As the kernel prints it, behind the devices of the host itself.
fn show(tree: &Tree, rows: &[Row<'_>]) {
    let mut text = include_str!("../fixtures/procfs/net-dev")
        .split_inclusive('\n')
        .take(4)
        .collect::<String>();
    for (name, received, sent) in rows {
        let half = |[bytes, packets, errors, drops]: &[u64; 4]| {
            format!("{bytes:7} {packets:7} {errors:4} {drops:4}    0     0          0         0")
        };
        text.push_str(&format!("{name:>6}: {} {}\n", half(received), half(sent)));
    }
    tree.write("proc/net/dev", &text);
}

/// A tree in which these devices are taps.
fn with_taps(taps: &[&str]) -> Tree {
    let tree = Tree::v2(1);
    for tap in taps {
        tree.write(&format!("net/{tap}/tun_flags"), "0x5002\n");
    }
    tree
}

fn interfaces(devices: &[Option<&str>]) -> Vec<Interface> {
    let interface = |device: &Option<&str>| Interface {
        device: device.map(Into::into),
    };
    devices.iter().map(interface).collect()
}

fn attached(tree: &Tree, devices: &[Option<&str>]) -> Observer {
    let mut observer = tree.attached(1);
    observer.follow_interfaces(DOMAIN, &interfaces(devices));
    observer
}

#[track_caller]
fn check(observer: &mut Observer, second: u64, expected: Result<[f64; 8], Missing>) {
    let sample = observer.sample_domain(DOMAIN, None, at(second));
    for (index, metric) in METRICS.into_iter().enumerate() {
        let expected = expected.map(|values| values[index]);
        assert_eq!(outcome(&sample, metric), expected, "{metric} at {second}");
    }
}

#[test]
fn what_the_host_receives_on_a_tap_is_what_the_guest_sends() {
    let tree = with_taps(&["vnet0"]);
    show(&tree, &[("vnet0", [100, 1, 0, 0], [1_000, 10, 0, 0])]);
    let mut observer = attached(&tree, &[Some("vnet0")]);
    check(&mut observer, 0, Err(Missing::FirstSample));
    show(&tree, &[("vnet0", [350, 3, 4, 6], [2_000, 20, 8, 10])]);
    let rates = [4_000.0, 5.0, 4.0, 5.0, 1_000.0, 1.0, 2.0, 3.0];
    check(&mut observer, 2, Ok(rates));
    let sample = observer.sample_domain(DOMAIN, None, at(3));
    let reading = sample.readings.reading(METRICS[0]).unwrap();
    assert_eq!((reading.source, reading.at), (Source::Host, at(3)));
    assert_eq!(reading.period.as_secs(), 1);
}

#[test]
fn a_macvtap_device_is_the_guests_own_end() {
    let tree = with_taps(&[]);
    tree.write("net/macvtap0/address", "52:54:00:00:00:01\n");
    show(&tree, &[("macvtap0", [100, 1, 0, 0], [1_000, 10, 0, 0])]);
    let mut observer = attached(&tree, &[Some("macvtap0")]);
    check(&mut observer, 0, Err(Missing::FirstSample));
    show(&tree, &[("macvtap0", [225, 2, 3, 4], [1_500, 15, 6, 7])]);
    let rates = [1_000.0, 1.0, 3.0, 4.0, 4_000.0, 5.0, 6.0, 7.0];
    check(&mut observer, 1, Ok(rates));
}

#[test]
fn all_interfaces_count_together_and_one_that_nothing_counts_makes_the_sum_unknown() {
    type Case = (&'static [Option<&'static str>], Result<f64, Missing>);
    let zero = [0; 4];
    let cases: [Case; 5] = [
        (&[Some("vnet1"), Some("vnet10")], Ok(88.0)),
        // A name is not taken for another one that it begins.
        (&[Some("vnet1")], Ok(80.0)),
        (&[Some("vnet1"), None], Err(Missing::NoTap)),
        (&[Some("vnet1"), Some("gone0")], Err(Missing::NoTap)),
        (&[], Err(Missing::NoInterface)),
    ];
    for (devices, expected) in cases {
        let tree = with_taps(&["vnet1", "vnet10"]);
        show(&tree, &[("vnet10", zero, zero), ("vnet1", zero, zero)]);
        let mut observer = attached(&tree, devices);
        observer.sample_domain(DOMAIN, None, at(0));
        let ten = [0, 10, 0, 0];
        show(
            &tree,
            &[
                ("vnet10", zero, [1, 1, 0, 0]),
                ("vnet1", ten, [10, 10, 0, 0]),
            ],
        );
        let sample = observer.sample_domain(DOMAIN, None, at(1));
        assert_eq!(outcome(&sample, METRICS[0]), expected, "{devices:?}");
        // The rest of the domain is known all the same.
        assert!(outcome(&sample, Metric::CpuUtilization).is_ok());
    }
}

#[test]
fn interfaces_may_come_and_go_and_be_counted_anew() {
    let tree = with_taps(&["vnet0", "vnet1"]);
    let row = |name, bytes| (name, [0; 4], [bytes, 0, 0, 0]);
    let bits = |bits: f64| {
        let mut rates = [0.0; 8];
        rates[0] = bits;
        Ok(rates)
    };
    show(&tree, &[row("vnet0", 0)]);
    let mut observer = attached(&tree, &[Some("vnet0")]);
    check(&mut observer, 0, Err(Missing::FirstSample));
    // One is plugged: it counts from the second sample on, and the other keeps its counters.
    observer.follow_interfaces(DOMAIN, &interfaces(&[Some("vnet1"), Some("vnet0")]));
    show(&tree, &[row("vnet1", 7_000), row("vnet0", 10)]);
    check(&mut observer, 1, bits(80.0));
    show(&tree, &[row("vnet1", 7_001), row("vnet0", 20)]);
    check(&mut observer, 2, bits(88.0));
    // A device of the same name that counts from zero.
    show(&tree, &[row("vnet1", 0), row("vnet0", 30)]);
    let went_back = Missing::CounterWentBack(Figure::NetworkDevices);
    check(&mut observer, 3, Err(went_back));
    show(&tree, &[row("vnet1", 5), row("vnet0", 40)]);
    check(&mut observer, 4, bits(120.0));
    // One is gone from the host before the hypervisor says so.
    show(&tree, &[row("vnet0", 50)]);
    check(&mut observer, 5, Err(Missing::NoTap));
    observer.follow_interfaces(DOMAIN, &interfaces(&[Some("vnet0")]));
    show(&tree, &[row("vnet0", 60)]);
    check(&mut observer, 6, bits(80.0));
}

#[test]
fn a_line_or_a_table_that_cannot_be_read_says_why() {
    let tree = with_taps(&["vnet0"]);
    let table = "Inter-|\n face |\n vnet0: 1 2 3\n";
    tree.write("proc/net/dev", table);
    let mut observer = attached(&tree, &[Some("vnet0")]);
    let sample = observer.sample_domain(DOMAIN, None, at(0));
    let reason = outcome(&sample, METRICS[0]).unwrap_err();
    assert!(matches!(reason, Missing::Malformed { .. }), "{reason}");

    std::fs::remove_file(tree.path("proc/net/dev")).unwrap();
    let mut observer = attached(&tree, &[Some("vnet0")]);
    let not_offered = Missing::NotOffered(Figure::NetworkDevices);
    check(&mut observer, 0, Err(not_offered));
}
