//! Adoption of definitions as people's tools write them: what is added, what is refused with its reason, and that all
//! else stays.

use persona::units::Bytes;
use proptest::prelude::*;

use super::*;

const UEFI: &str = include_str!("../../tests/fixtures/adopt/virt-install-uefi.xml");
const I440FX: &str = include_str!("../../tests/fixtures/adopt/virt-manager-i440fx.xml");
const MINIMAL: &str = include_str!("../../tests/fixtures/adopt/minimal.xml");
const TWO_CELLS: &str = include_str!("../../tests/fixtures/adopt/two-cells.xml");
const MAX_MEMORY: &str = include_str!("../../tests/fixtures/adopt/with-max-memory.xml");
/// As libvirt prints a domain that has all of it.
const PREPARED: &str = include_str!("../../tests/fixtures/domains/prepared-off.xml");
/// One that runs, without a controller.
const RUNNING: &str = include_str!("../../tests/fixtures/domains/plain.xml");
/// One that runs with memory hot-plug, a controller, and all devices.
const STARTED: &str = include_str!("../../tests/fixtures/domains/started.xml");

fn host() -> Host {
    Host {
        facts: HostFacts {
            cores: 16,
            memory: Bytes(64 * Bytes::GIB),
            library_version: "9.0.0".into(),
            emulator_version: "7.2.22".into(),
        },
        address_bits: Some(46),
        huge_page: Some(Bytes::from_mib(2)),
        reserved_page: Some(Bytes::from_mib(2)),
    }
}

fn definition(text: &str) -> Definition {
    Definition::read(text.to_owned()).unwrap()
}

fn off(text: &str) -> Definitions {
    Definitions {
        persistent: Some(definition(text)),
        live: None,
    }
}

fn adopt_on(host: &Host, text: &str, wish: AdoptWish) -> Adoption {
    prepare(&off(text), wish, host).unwrap()
}

fn adopt(text: &str) -> Adoption {
    adopt_on(&host(), text, AdoptWish::default())
}

fn line<'a>(adoption: &'a Adoption, subject: &str) -> &'a Line {
    let found = adoption.lines.iter().find(|line| line.subject == subject);
    found.unwrap_or_else(|| panic!("{subject}: {:#?}", adoption.lines))
}

/// The new definition, which has all that the old one had, line by line, except these.
#[track_caller]
fn made(before: &str, adoption: &Adoption, changed: &[&str]) -> String {
    let text = adoption.definition.clone().expect("something to add");
    for old in before.lines().map(str::trim) {
        let kept = text.lines().any(|new| new.trim() == old);
        let excepted = changed.iter().any(|part| old.contains(part));
        assert!(kept || excepted, "{old} is gone from\n{text}");
    }
    // The second time there is nothing to add.
    let again = adopt(&text);
    assert!(again.is_empty(), "{again:#?}");
    text
}

#[test]
fn a_virt_install_domain_gets_all_of_it_and_keeps_what_nobody_here_knows() {
    let adoption = adopt(UEFI);
    let text = made(UEFI, &adoption, &["<vcpu ", "<cpu mode", "<memballoon"]);
    for part in [
        "<vcpu placement='static' current='2'>8</vcpu>",
        "<maxMemory slots='4' unit='KiB'>16777216</maxMemory>",
        "<cpu mode='host-passthrough' check='none' migratable='on'>",
        "<numa><cell id='0' cpus='0-7' memory='4194304' unit='KiB'/></numa>",
        "<memballoon model='virtio' freePageReporting='on'>",
        "<stats period='2'/>",
        "<size unit='KiB'>12582912</size><node>0</node><block unit='KiB'>2048</block><requested unit='KiB'>0</requested>",
        "<channel type='unix'><target type='virtio' name='org.virtpersona.agent.0'/></channel>",
        "passwd='a&gt;b\"c'",
        "<!-- kept by nobody but a file -->",
        "<qemu:arg value='-fw_cfg'/>",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // It had a controller, and needs no other.
    assert_eq!(text.matches("virtio-serial' index").count(), 1);
    assert!(adoption.live.is_empty());
    assert!(
        adoption
            .lines
            .iter()
            .all(|line| line.when == When::NextStart),
        "{adoption:#?}"
    );
    let after = definition(&text).description;
    assert_eq!(after.memory_boot, Bytes::from_mib(4096));
    assert_eq!((after.vcpus_plugged, after.vcpus_maximum), (2, 8));
}

#[test]
fn the_smallest_definition_gets_all_of_it() {
    let adoption = adopt(MINIMAL);
    let text = adoption.definition.clone().unwrap();
    for part in [
        "<vcpu current='1'>4</vcpu>",
        "<maxMemory slots='4' unit='KiB'>2097152</maxMemory>",
        "<cpu><numa><cell id='0' cpus='0-3' memory='524288' unit='KiB'/></numa></cpu>",
        "<controller type='virtio-serial' index='0'/>",
        "<size unit='KiB'>1572864</size>",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // It says nothing of a balloon, which libvirt would have added.
    assert_eq!(line(&adoption, "balloon statistics").when, When::Never);
    assert!(adopt(&text).is_empty());
}

#[test]
fn what_a_person_turned_off_stays_off_and_a_topology_grows_by_sockets() {
    let adoption = adopt(I440FX);
    let text = made(I440FX, &adoption, &["<vcpu ", "<topology"]);
    assert!(
        text.contains("<vcpu placement='static' cpuset='0-7' current='4'>16</vcpu>"),
        "{text}"
    );
    assert!(
        text.contains("<topology sockets='4' dies='1' cores='4' threads='1'/>"),
        "{text}"
    );
    assert!(text.contains("<memballoon model='none'/>"), "{text}");
    let balloon = line(&adoption, "balloon statistics");
    assert_eq!(balloon.when, When::Never);
    assert!(balloon.why.contains("turned off"), "{balloon:?}");
    // The balloon of the boot is not touched: what it took from the 8 GiB stays taken.
    assert!(text.contains("<currentMemory unit='KiB'>6291456</currentMemory>"));
    assert!(text.contains("memory='8388608'"), "{text}");
}

#[test]
fn several_numa_cells_and_reserved_pages_are_respected() {
    let adoption = adopt(TWO_CELLS);
    let text = made(TWO_CELLS, &adoption, &[]);
    let vcpus = line(&adoption, "vCPUs at most");
    assert_eq!(vcpus.when, When::Never);
    assert!(vcpus.why.contains("2 NUMA cells"), "{vcpus:?}");
    assert_eq!(line(&adoption, "NUMA cell").when, When::Already);
    // 1 GiB pages: the device's blocks are no smaller, and the host has 64 GiB, which is less than four times.
    assert!(text.contains("<block unit='KiB'>1048576</block>"), "{text}");
    assert!(text.contains("<size unit='KiB'>33554432</size>"), "{text}");
    let limit = line(&adoption, "memory at most");
    assert!(limit.why.contains("the host has"), "{limit:?}");
    assert_eq!(line(&adoption, "free page reporting").when, When::Never);
    assert_eq!(line(&adoption, "balloon statistics").when, When::Already);

    let odd = TWO_CELLS.replace("16777216", "16777000");
    let limit = adopt(&odd);
    let limit = line(&limit, "memory at most");
    assert_eq!(limit.when, When::Never);
    assert!(limit.why.contains("backed by pages of 1 GiB"), "{limit:?}");
}

#[test]
fn a_maximum_that_somebody_prepared_is_kept_and_its_slots_suffice() {
    let adoption = adopt(MAX_MEMORY);
    let text = made(MAX_MEMORY, &adoption, &["<maxMemory", "<memballoon"]);
    assert!(
        text.contains("<maxMemory slots='2' unit='KiB'>16777216</maxMemory>"),
        "{text}"
    );
    // 16 GiB less 4 at boot and 1 in a DIMM.
    assert!(text.contains("<size unit='KiB'>11534336</size>"), "{text}");
    assert_eq!(line(&adoption, "vCPUs at most").when, When::Already);

    let wish = AdoptWish {
        max_vcpus: Some(10),
        max_memory: Some(Bytes(32 * Bytes::GIB)),
    };
    let more = adopt_on(&host(), MAX_MEMORY, wish).definition.unwrap();
    assert!(more.contains("slots='2' unit='KiB'>33554432<"), "{more}");
    assert!(more.contains("cpus='0-9'"), "{more}");
    assert!(
        more.contains("<vcpu id='9' enabled='no' hotpluggable='yes'/>"),
        "{more}"
    );
    assert!(more.contains("current='2'>10</vcpu>"), "{more}");
}

#[test]
fn a_domain_that_has_all_of_it_is_left_alone_and_grows_only_when_that_is_asked_for() {
    let mut adoption =
        adopt(&PREPARED.replace("model='virtio'>", "model='virtio' freePageReporting='on'>"));
    assert!(adoption.is_empty(), "{adoption:#?}");
    adoption.lines.retain(|line| line.when != When::Already);
    assert_eq!(adoption.lines, []);

    let wish = AdoptWish {
        max_vcpus: Some(2),
        max_memory: Some(Bytes(Bytes::GIB)),
    };
    let less = adopt_on(&host(), PREPARED, wish);
    assert!(
        line(&less, "vCPUs at most")
            .why
            .contains("nothing is taken away")
    );
    assert!(
        line(&less, "memory at most")
            .why
            .contains("nothing is taken away")
    );

    let wish = AdoptWish {
        max_vcpus: Some(6),
        max_memory: Some(Bytes(8 * Bytes::GIB)),
    };
    let more = adopt_on(&host(), PREPARED, wish).definition.unwrap();
    assert!(more.contains("<size unit='KiB'>7864320</size>"), "{more}");
    assert!(more.contains("unit='KiB'>8388608</maxMemory>"), "{more}");
    assert_eq!(more.matches("virtio-mem").count(), 1);
}

#[test]
fn what_does_not_fit_into_the_addresses_of_the_cpu_is_cut_to_what_does() {
    let mut big = host();
    big.facts.memory = Bytes(4096 * Bytes::GIB);
    let wish = AdoptWish {
        max_memory: Some(Bytes(2048 * Bytes::GIB)),
        ..AdoptWish::default()
    };
    let most = |host: &Host, text: &str| {
        let adoption = adopt_on(host, text, wish);
        let limit = line(&adoption, "memory at most");
        assert!(limit.why.contains("physical address"), "{limit:?}");
        definition(adoption.definition.as_deref().unwrap())
            .description
            .memory_maximum
            .unwrap()
    };
    // A named model has 40 bits whatever the host has.
    assert_eq!(most(&big, I440FX), Bytes(981 * Bytes::GIB));
    // A passed-through one has the host's.
    big.address_bits = Some(39);
    assert_eq!(most(&big, UEFI), Bytes(469 * Bytes::GIB));
    big.address_bits = None;
    assert_eq!(most(&big, UEFI), Bytes(21 * Bytes::GIB));
    big.address_bits = Some(46);
    assert_eq!(
        adopt_on(&big, UEFI, wish).lines[1].then,
        Bytes(2048 * Bytes::GIB).to_string()
    );
}

#[test]
fn what_cannot_be_prepared_is_refused_with_a_sentence() {
    let refused = |text: &str| prepare(&off(text), AdoptWish::default(), &host()).unwrap_err();
    for (from, to, word) in [
        ("arch=\"x86_64\"", "arch=\"aarch64\"", "aarch64"),
        ("machine=\"q35\"", "machine=\"microvm\"", "microvm"),
        ("type='qemu'", "type='lxc'", "lxc"),
    ] {
        let error = refused(&MINIMAL.replace(from, to));
        assert!(error.to_string().contains(word), "{error}");
    }
    let transient = Definitions {
        persistent: None,
        live: Some(definition(RUNNING)),
    };
    assert_eq!(
        prepare(&transient, AdoptWish::default(), &host()),
        Err(AdoptError::Transient)
    );
    for (from, to, subject, word) in [
        ("<acpi/>", "", "vCPUs at most", "ACPI"),
        ("<acpi/>", "", "memory at most", "ACPI"),
        (
            "<devices/>",
            "<memoryBacking><locked/></memoryBacking><devices/>",
            "memory at most",
            "locked",
        ),
        (
            "<devices/>",
            "<launchSecurity type='sev'/><devices/>",
            "memory at most",
            "encrypted",
        ),
        (
            "<devices/>",
            "<memtune><hard_limit unit='KiB'>1048576</hard_limit></memtune><devices/>",
            "memory at most",
            "hard_limit",
        ),
        (
            "<devices/>",
            "<cpu><topology sockets='1' cores='8' threads='1'/></cpu><devices/>",
            "vCPUs at most",
            "sockets of 8",
        ),
    ] {
        assert!(MINIMAL.contains(from));
        let adoption = adopt(&MINIMAL.replace(from, to));
        let found = line(&adoption, subject);
        assert_eq!(found.when, When::Never, "{found:?}");
        assert!(found.why.contains(word), "{found:?}");
        // The other parts are added all the same.
        assert!(adoption.definition.is_some());
    }
    let mut old = host();
    old.facts.library_version = "7.0.0".into();
    let adoption = adopt_on(&old, MINIMAL, AdoptWish::default());
    assert!(
        line(&adoption, "memory at most")
            .why
            .contains("libvirt 7.0.0")
    );
}

#[test]
fn a_running_domain_gets_at_once_what_libvirt_can_add_and_the_rest_at_its_next_start() {
    let running = RUNNING.replace("<clock ", "<features><acpi/></features><clock ");
    // Without controller and memory hot-plug: the statistics alone.
    let plain = Definitions {
        persistent: Some(definition(&running)),
        live: Some(definition(&running)),
    };
    let adoption = prepare(&plain, AdoptWish::default(), &host()).unwrap();
    assert_eq!(adoption.live, [LiveStep::BalloonPeriod(2)]);
    assert_eq!(line(&adoption, "agent channel").when, When::NextStart);
    assert_eq!(line(&adoption, "balloon statistics").when, When::Now);

    // With both: channel and device too.
    let without = |text: &str, from: &str, to: &str| {
        let begin = text.find(from).unwrap();
        let end = begin + text[begin..].find(to).unwrap() + to.len();
        format!("{}{}", &text[..begin], &text[end..])
    };
    let bare = without(STARTED, "<memory model='virtio-mem'>", "</memory>");
    let agent = bare.find("org.virtpersona.agent.0").unwrap();
    let begin = bare[..agent].rfind("<channel").unwrap();
    let end = agent + bare[agent..].find("</channel>").unwrap() + "</channel>".len();
    let bare = format!("{}{}", &bare[..begin], &bare[end..]);
    let ready = Definitions {
        persistent: Some(definition(&bare)),
        live: Some(definition(&bare)),
    };
    let adoption = prepare(&ready, AdoptWish::default(), &host()).unwrap();
    let attached: Vec<_> = adoption
        .live
        .iter()
        .map(|step| match step {
            LiveStep::Attach { what, device } => {
                tree::parse(device).unwrap();
                *what
            }
            LiveStep::BalloonPeriod(_) => "statistics",
        })
        .collect();
    assert_eq!(attached, ["virtio-mem device", "agent channel"]);
    assert_eq!(line(&adoption, "virtio-mem device").when, When::Now);
    assert_eq!(line(&adoption, "agent channel").when, When::Now);

    // What is in the definition and not in what runs is told so, and is no change.
    let waiting = Definitions {
        persistent: Some(definition(&adopt(&running).definition.unwrap())),
        live: Some(definition(&running)),
    };
    let adoption = prepare(&waiting, AdoptWish::default(), &host()).unwrap();
    assert_eq!(adoption.definition, None);
    assert_eq!(adoption.live, [LiveStep::BalloonPeriod(2)]);
    assert_eq!(line(&adoption, "memory at most").when, When::NextStart);
}

#[test]
fn blocks_and_hard_limits_are_reckoned_from_what_is_written() {
    let mut big = host();
    big.facts.memory = Bytes(4096 * Bytes::GIB);
    let up_to = |gib: u64| AdoptWish {
        max_memory: Some(Bytes(gib * Bytes::GIB)),
        ..AdoptWish::default()
    };
    for device in [
        "<hostdev mode='subsystem' type='pci'/>",
        "<interface type='hostdev'/>",
        "<interface type='vdpa'/>",
        "<disk type='nvme'/>",
    ] {
        let text = MINIMAL.replace("<devices/>", &format!("<devices>{device}</devices>"));
        for (gib, block) in [(64, 2), (512, 16), (600, 32)] {
            let made = adopt_on(&big, &text, up_to(gib)).definition.unwrap();
            let devices = definition(&made).description.virtio_mem;
            assert_eq!(devices[0].block, Bytes::from_mib(block), "{gib} {device}");
            assert!(devices[0].size.0 / devices[0].block.0 <= 32_768);
        }
    }
    let plain = MINIMAL.replace(
        "<devices/>",
        "<devices><interface type='network'/></devices>",
    );
    let made = adopt_on(&big, &plain, up_to(512)).definition.unwrap();
    assert!(made.contains("<block unit='KiB'>2048</block>"), "{made}");

    let limited = MINIMAL.replace(
        "<devices/>",
        "<memtune><hard_limit unit='GiB'>1</hard_limit></memtune><devices/>",
    );
    let when = |host: &Host, gib: u64| {
        let adoption = adopt_on(host, &limited, up_to(gib));
        line(&adoption, "memory at most").clone()
    };
    assert_eq!(when(&big, 1).when, When::NextStart);
    let more = when(&big, 16);
    assert_eq!(more.when, When::Never);
    assert!(more.why.contains("grown to 16 GiB"), "{more:?}");
    // The host has no more than the limit.
    let mut small = host();
    small.facts.memory = Bytes(Bytes::GIB);
    assert_eq!(when(&small, 16).when, When::NextStart);
}

/// Parts that a definition may have.
fn any_definition() -> impl Strategy<Value = String> {
    let cpu = prop::sample::select(vec![
        "",
        "<cpu mode='host-passthrough'/>",
        "<cpu mode='host-model'><!-- a --></cpu>",
        "<cpu mode='custom'><model>qemu64</model><topology sockets='1' cores='2' threads='1'/></cpu>",
        "<cpu><numa><cell id='0' cpus='0-1' memory='1048576' unit='KiB'/></numa></cpu>",
        "<cpu><numa><cell id='0' cpus='0' memory='524288'/><cell id='1' cpus='1' memory='524288'/></numa></cpu>",
    ]);
    let most = prop::sample::select(vec![
        "",
        "<maxMemory slots='1' unit='KiB'>1048576</maxMemory>",
        "<maxMemory slots='16' unit='KiB'>16777216</maxMemory>",
    ]);
    let balloon = prop::sample::select(vec![
        "",
        "<memballoon model='none'/>",
        "<memballoon model=\"virtio\"/>",
        "<memballoon model='virtio'><stats period='0'/></memballoon>",
        "<memballoon model='virtio' freePageReporting='off'><stats period='5'/><driver iommu='on'/></memballoon>",
    ]);
    let devices = prop::sample::subsequence(
        vec![
            "<controller type='virtio-serial' index='3'/>",
            "<channel type='unix'><target type='virtio' name='org.virtpersona.agent.0'/></channel>",
            "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>",
            "<hostdev mode='subsystem' type='pci'/>",
            "<x:own xmlns:x='urn:x'><x:y z='a>b'/></x:own>",
        ],
        0..=5,
    );
    let vcpu = prop::sample::select(vec!["<vcpu>2</vcpu>", "<vcpu current='2'>4</vcpu>"]);
    let machine = prop::sample::select(vec!["q35", "pc-i440fx-7.2", "pc-q35-rhel9.4.0"]);
    let kind = prop::sample::select(vec!["kvm", "qemu"]);
    (cpu, most, balloon, devices, vcpu, machine, kind).prop_map(
        |(cpu, most, balloon, devices, vcpu, machine, kind)| {
            let maximum = if cpu.contains("<numa>") { most } else { "" };
            format!(
                "<domain type='{kind}'>\n<name>a</name>\n<uuid>5f9d7c2b-53d5-4d9a-a0d2-0c1d2e3f4a5b</uuid>\n{maximum}\n<memory unit='KiB'>1048576</memory>\n{vcpu}\n<os><type arch='x86_64' machine='{machine}'>hvm</type></os>\n<features><acpi/></features>\n{cpu}\n<devices>\n{}\n{balloon}\n</devices>\n</domain>\n",
                devices.join("\n")
            )
        },
    )
}

/// Names and attributes of all elements, however deep.
fn elements(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = vec![tree::parse(text).unwrap()];
    while let Some(element) = open.pop() {
        found.push(format!("{:?} {}", element.namespace, element.name));
        open.extend(element.children);
    }
    found.sort();
    found
}

proptest! {
    #[test]
    fn whatever_the_definition_the_second_adoption_changes_nothing_and_no_element_is_lost(
        text in any_definition(),
        max_vcpus in prop::option::of(1_u32..20),
        gib in prop::option::of(0_u64..100),
    ) {
        let wish = AdoptWish { max_vcpus, max_memory: gib.map(|gib| Bytes(gib * Bytes::GIB)) };
        let first = adopt_on(&host(), &text, wish);
        let after = first.definition.unwrap_or_else(|| text.clone());
        let again = adopt_on(&host(), &after, wish);
        prop_assert!(again.is_empty(), "{again:#?}\n{after}");
        let mut left = elements(&after);
        for element in elements(&text) {
            let place = left.iter().position(|other| *other == element);
            prop_assert!(place.is_some(), "{element} is lost in\n{after}");
            left.remove(place.unwrap());
        }
        let (before, made) = (definition(&text).description, definition(&after).description);
        prop_assert_eq!(before.memory_boot, made.memory_boot);
        prop_assert_eq!(before.vcpus_plugged, made.vcpus_plugged);
        prop_assert!(made.vcpus_maximum >= before.vcpus_maximum);
        // What is in a slot fits, and what may be plugged fits below the maximum.
        let devices: u64 = made.virtio_mem.iter().map(|device| device.size.0).sum();
        if devices > 0 {
            prop_assert!(made.memory_maximum.unwrap().0 >= made.memory_boot.0 + devices);
            prop_assert!(made.numa_nodes > 0);
        }
        prop_assert_eq!(undo::put_back(&text, Some(&after), &after).unwrap().unwrap_or(text.clone()), text);
    }
}
