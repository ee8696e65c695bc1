//! Definitions of domains as libvirt prints them, whole and damaged, and what is read of them.

use super::super::super::Limits;
use super::*;

/// Definitions as libvirt 9.0 printed them.
const STARTED: &str = include_str!("../../../../tests/fixtures/domains/started.xml");
const GROWN: &str = include_str!("../../../../tests/fixtures/domains/grown.xml");
const PINNED: &str = include_str!("../../../../tests/fixtures/domains/pinned-kvm-off.xml");
const TWO_NODES: &str = include_str!("../../../../tests/fixtures/domains/two-nodes-off.xml");
const PREPARED: &str = include_str!("../../../../tests/fixtures/domains/prepared-off.xml");
const INTERFACES: &str = include_str!("../../../../tests/fixtures/domains/interfaces.xml");
const PLAIN: &str = include_str!("../../../../tests/fixtures/domains/plain.xml");

fn check(xml: &str, state: RunState, expected: DomainDescription, agent_alias: Option<&str>) {
    let read = read_domain(xml, state).unwrap();
    assert_eq!(read.description, expected);
    assert_eq!(read.agent_alias.as_deref(), agent_alias);
}

fn started() -> DomainDescription {
    DomainDescription {
        id: DomainId::parse("51da93fd-10ac-4dab-ac1a-a09d0d4bca20").unwrap(),
        name: "example-a".into(),
        instance: Some(5),
        state: RunState::Running,
        arrival: Arrival::Started,
        guest_os: None,
        acceleration: Acceleration::Emulated,
        vcpus_maximum: 4,
        vcpus_plugged: 1,
        vcpus_fixed: 1,
        vcpus_pinned: false,
        memory_boot: Bytes::from_mib(512),
        memory_maximum: Some(Bytes::from_mib(4096)),
        memory_dimms: Bytes(0),
        address_bits: AddressBits::Of(40),
        numa_nodes: 1,
        virtio_mem: vec![VirtioMem {
            alias: "virtiomem0".into(),
            node: 0,
            size: Bytes::from_mib(1024),
            block: Bytes::from_mib(2),
            requested: Bytes(0),
            current: Bytes(0),
        }],
        dimm_slots: 7,
        balloon_current: Some(Bytes::from_mib(512)),
        balloon_period: Some(Duration::from_secs(1)),
        interfaces: Vec::new(),
        limits: Limits::default(),
        virtio_serial: true,
        agent_channel: Some(
            "/var/lib/libvirt/qemu/channel/target/domain-5-example-a/org.virtpersona.agent.0"
                .into(),
        ),
        qemu_guest_agent: true,
        tags: Vec::new(),
        tags_problem: None,
        process: None,
    }
}

#[test]
fn a_domain_that_has_just_started_is_described() {
    check(STARTED, RunState::Running, started(), Some("channel0"));
}

#[test]
fn what_was_plugged_is_described_and_is_no_part_of_boot_memory_and_balloon() {
    let mut expected = started();
    expected.vcpus_plugged = 3;
    expected.virtio_mem[0].requested = Bytes::from_mib(256);
    expected.virtio_mem[0].current = Bytes::from_mib(256);
    expected.tags = vec!["web".into(), "tier & one".into()];
    check(GROWN, RunState::Running, expected, Some("channel0"));
}

#[test]
fn a_pinned_kvm_domain_without_numa_and_balloon_is_described() {
    let expected = DomainDescription {
        id: DomainId::parse("9c7ea61b-c1cb-44b7-abe1-61a52604e19e").unwrap(),
        name: "example-k".into(),
        instance: None,
        state: RunState::Off,
        arrival: Arrival::Started,
        guest_os: None,
        acceleration: Acceleration::Kvm,
        vcpus_maximum: 2,
        vcpus_plugged: 2,
        vcpus_fixed: 2,
        vcpus_pinned: true,
        memory_boot: Bytes::from_mib(2048),
        memory_maximum: None,
        memory_dimms: Bytes(0),
        address_bits: AddressBits::Of(40),
        numa_nodes: 0,
        virtio_mem: Vec::new(),
        dimm_slots: 0,
        balloon_current: None,
        balloon_period: None,
        interfaces: Vec::new(),
        limits: Limits::default(),
        virtio_serial: true,
        // The emulator would connect to it: it is somebody else's.
        agent_channel: None,
        qemu_guest_agent: false,
        tags: vec!["db".into()],
        tags_problem: None,
        process: None,
    };
    check(PINNED, RunState::Off, expected, None);
}

#[test]
fn an_interface_names_the_hosts_device_where_it_has_one() {
    let devices = |xml: &str, state| {
        let read = read_domain(xml, state).unwrap().description;
        let devices = read.interfaces.into_iter();
        devices
            .map(|interface| interface.device)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        devices(INTERFACES, RunState::Running),
        [Some("vnet0".into()), None]
    );
    assert_eq!(devices(STARTED, RunState::Running), []);
}

#[test]
fn memory_devices_and_individual_vcpus_of_a_definition_are_described() {
    let read = read_domain(TWO_NODES, RunState::Off).unwrap().description;
    assert_eq!(read.numa_nodes, 2);
    assert_eq!(read.memory_boot, Bytes::from_mib(1024));
    assert_eq!(read.balloon_current, Some(Bytes::from_mib(1024)));
    assert_eq!(read.balloon_period, None);
    assert_eq!(
        (read.vcpus_plugged, read.vcpus_fixed, read.vcpus_maximum),
        (2, 1, 4)
    );
    let devices: Vec<_> = read
        .virtio_mem
        .iter()
        .map(|d| (d.node, d.size, d.requested))
        .collect();
    assert_eq!(devices, [(1, Bytes::from_mib(512), Bytes::from_mib(128))]);
}

#[test]
fn memory_that_was_never_plugged_is_no_part_of_the_balloon_of_a_domain_that_is_off() {
    let read = read_domain(PREPARED, RunState::Off).unwrap().description;
    assert_eq!(read.memory_boot, Bytes::from_mib(512));
    assert_eq!(read.balloon_current, Some(Bytes::from_mib(512)));
    assert_eq!(read.agent_channel, None);
    assert_eq!(read.instance, None);
    assert_eq!(read.tags, ["web", "tier & one"]);
}

#[test]
fn a_domain_without_any_preparation_is_described() {
    let read = read_domain(PLAIN, RunState::Running).unwrap();
    let description = read.description;
    assert_eq!(description.memory_boot, Bytes::from_mib(64));
    assert_eq!(description.memory_maximum, None);
    assert_eq!(description.balloon_current, Some(Bytes::from_mib(64)));
    assert!(!description.virtio_serial);
    assert_eq!(description.agent_channel, None);
    assert_eq!(description.tags_problem, None);
}

#[test]
fn memory_devices_count_into_memory_where_there_are_no_cells() {
    let xml = "<domain type='qemu'><uuid>9c7ea61bc1cb44b7abe161a52604e19e</uuid><name>a</name>
            <memory unit='MiB'>768</memory><vcpu>1</vcpu><devices><memory model='dimm'><target>
            <size unit='MiB'>256</size></target></memory></devices></domain>";
    let read = read_domain(xml, RunState::Off).unwrap().description;
    assert_eq!(read.memory_boot, Bytes::from_mib(512));
}

#[track_caller]
fn tags_of(metadata: &str) -> Result<Vec<String>, String> {
    let xml = PLAIN.replace("<vcpu ", &format!("<metadata>{metadata}</metadata><vcpu "));
    let read = read_domain(&xml, RunState::Running).unwrap().description;
    match read.tags_problem {
        Some(problem) => {
            assert!(read.tags.is_empty());
            Err(problem)
        }
        None => Ok(read.tags),
    }
}

#[test]
fn tags_are_read_whatever_the_prefix() {
    let uri = MetadataElement::Tags.uri();
    assert_eq!(tags_of("").unwrap(), [""; 0]);
    assert_eq!(tags_of("<a:b xmlns:a='urn:c'/>").unwrap(), [""; 0]);
    assert_eq!(
        tags_of(&format!(
            "<q:instance xmlns:q='{uri}'><q:tag> web </q:tag><q:later/><q:tag>a&#38;b</q:tag><q:tag>web</q:tag></q:instance>"
        ))
        .unwrap(),
        ["web", "a&b"]
    );
    assert_eq!(
        tags_of(&format!(
            "<instance xmlns='{uri}'><tag><![CDATA[<]]></tag></instance>"
        ))
        .unwrap(),
        ["<"]
    );
}

#[test]
fn tags_that_cannot_be_read_are_a_problem_and_not_an_empty_list() {
    let uri = MetadataElement::Tags.uri();
    for (metadata, word) in [
        (
            format!("<q:tags xmlns:q='{uri}'/>"),
            "`tags` instead of `instance`",
        ),
        (
            format!("<q:instance xmlns:q='{uri}'><tag>a</tag></q:instance>"),
            "not in its namespace",
        ),
        (
            format!("<q:instance xmlns:q='{uri}'><q:tag/></q:instance>"),
            "empty",
        ),
    ] {
        let problem = tags_of(&metadata).unwrap_err();
        assert!(problem.contains(word), "{problem}");
    }
}

#[test]
fn text_that_is_no_domain_is_refused_with_a_sentence() {
    let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
    for (xml, word) in [
        ("", "ends before"),
        ("<domain>", "ends before"),
        ("<network/>", "`network` instead of `domain`"),
        ("<domain><name>a</name></domain>", "no `uuid`"),
        (deep.as_str(), "nested"),
        ("<domain><a:b/></domain>", "bound to no namespace"),
        ("<domain>&nonsense;</domain>", "nonsense"),
    ] {
        let problem = read_domain(xml, RunState::Off).unwrap_err();
        assert!(problem.contains(word), "{xml}: {problem}");
    }
    for (from, to, word) in [
        ("<vcpu placement='static'>1<", "<vcpu>many<", "`many`"),
        ("unit='KiB'>65536<", "unit='parsec'>65536<", "`parsec`"),
        ("c3e76de1-", "zzzzzzzz-", "UUID"),
    ] {
        assert!(PLAIN.contains(from), "{from}");
        let problem = read_domain(&PLAIN.replace(from, to), RunState::Off).unwrap_err();
        assert!(problem.contains(word), "{problem}");
    }
}

#[test]
fn a_resized_device_is_the_whole_element_with_one_number_changed() {
    let device = resize_virtio_mem(GROWN, "virtiomem0", Bytes::from_mib(64))
        .unwrap()
        .unwrap();
    assert!(
        device.starts_with("<memory model='virtio-mem'>"),
        "{device}"
    );
    assert!(device.ends_with("</memory>"), "{device}");
    assert!(
        device.contains("<requested unit='KiB'>65536</requested>"),
        "{device}"
    );
    assert!(
        device.contains("<block unit='KiB'>2048</block>"),
        "{device}"
    );
    assert!(device.contains("<alias name='virtiomem0'/>"), "{device}");
    parse(&device).unwrap();
    assert_eq!(
        resize_virtio_mem(GROWN, "virtiomem1", Bytes(0)).unwrap(),
        None
    );
    assert_eq!(
        resize_virtio_mem(PLAIN, "virtiomem0", Bytes(0)).unwrap(),
        None
    );
}
