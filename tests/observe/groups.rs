//! Where a domain's groups are and what is in them, by recorded files of both versions.

use std::path::Path;
use std::time::Duration;

use persona::units::Bytes;
use virt_persona::observe::Figure;
use virt_persona::observe::Missing;
use virt_persona::observe::cgroup::{
    CpuQuota, MemoryParts, Throttling, Version, locate, own_group, parse_cfs_quota, parse_cpu_max,
    parse_memory_parts, parse_throttling, parse_usage,
};
use virt_persona::observe::parse::FormatError;

use super::tree::{DOMAIN, Tree, V1_GROUP, V2_GROUP, at};

#[test]
fn a_domains_own_group_is_told_from_a_shared_one() {
    let scope = r"/machine.slice/machine-qemu\x2d1\x2dweb.scope";
    let nested = format!("{scope}/libvirt");
    let plain = "/machine/qemu-1-web.libvirt-qemu";
    let cases = [
        (format!("{scope}/libvirt/emulator"), Some(nested.as_str())),
        (format!("{scope}/libvirt/vcpu3"), Some(nested.as_str())),
        (format!("{scope}/libvirt"), Some(nested.as_str())),
        (format!("{scope}/emulator"), Some(scope)),
        (scope.to_owned(), Some(scope)),
        (format!("{plain}/emulator"), Some(plain)),
        (format!("{plain}/iothread1"), Some(plain)),
        (
            "/machine/gold.partition/qemu-9-db.libvirt-qemu".to_owned(),
            Some("/machine/gold.partition/qemu-9-db.libvirt-qemu"),
        ),
        ("/".to_owned(), None),
        ("/machine.slice".to_owned(), None),
        ("/libvirt/emulator".to_owned(), None),
        ("/user.slice/user-0.slice/session-1.scope".to_owned(), None),
        ("/system.slice/libvirtd.service".to_owned(), None),
        (format!("/../..{plain}"), None),
        (String::new(), None),
    ];
    for (path, expected) in cases {
        assert_eq!(own_group(&path), expected, "{path}");
    }
}

#[test]
fn the_unified_hierarchy_has_all_figures_in_libvirts_nested_group() {
    let tree = Tree::v2(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    let groups = observer.sample_groups(DOMAIN).unwrap();
    assert_eq!(groups.cpu_time, Ok(Duration::from_micros(91_234_567)));
    let quota = CpuQuota::Limited {
        quota: Duration::from_millis(200),
        period: Duration::from_millis(100),
    };
    assert_eq!(groups.quota, Ok(quota));
    assert_eq!(groups.memory, Ok(Bytes(4_512_677_888)));
    let parts = MemoryParts {
        anonymous: Bytes::from_mib(4096),
        file: Bytes::from_mib(128),
    };
    assert_eq!(groups.memory_parts, Ok(parts));
}

#[test]
fn with_both_versions_each_figure_comes_from_where_the_domain_is_alone() {
    let tree = Tree::v1(1);
    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    let groups = observer.sample_groups(DOMAIN).unwrap();
    // The emulator's cpuacct group is the host's root; its own time is in the unified hierarchy.
    assert_eq!(groups.cpu_time, Ok(Duration::from_micros(2_658_861)));
    assert_eq!(groups.quota, Ok(CpuQuota::Unlimited));
    assert_eq!(groups.memory, Ok(Bytes(32_493_568)));
    let parts = MemoryParts {
        anonymous: Bytes(29_655_040),
        file: Bytes(2_322_432),
    };
    assert_eq!(groups.memory_parts, Ok(parts));
}

#[test]
fn controllers_mounted_together_are_found_under_their_joined_name() {
    let tree = Tree::new(1);
    let text = include_str!("../fixtures/cgroup-v1/proc-cgroup-machined");
    tree.process("cgroup", text);
    let group = r"machine.slice/machine-qemu\x2d1\x2dweb.scope";
    let usage = include_str!("../fixtures/cgroup-v1/cpuacct.usage");
    tree.write(&format!("cgroup/cpu,cpuacct/{group}/cpuacct.usage"), usage);
    let root = tree.path("cgroup");
    let location = locate(text.as_bytes(), &root).unwrap();
    let cpu = location.cpu.unwrap();
    assert_eq!(cpu.directory, root.join("cpu,cpuacct").join(group));
    assert_eq!(cpu.version, Version::V1);
    assert_eq!(location.pressure, Err(Missing::NoUnifiedHierarchy));

    let mut observer = tree.attached(1);
    observer.sample_domain(DOMAIN, None, at(0));
    let groups = observer.sample_groups(DOMAIN).unwrap();
    assert_eq!(groups.cpu_time, Ok(Duration::from_nanos(2_658_861_123)));
}

#[test]
fn a_group_that_cannot_be_located_is_a_reason() {
    let malformed = Missing::Malformed {
        figure: Figure::Groups,
        problem: FormatError::MissingField("hierarchy:controllers:path"),
    };
    let cases: [(&[u8], Missing); 6] = [
        (b"0::/\n", Missing::NoOwnGroup),
        (b"", Missing::NoOwnGroup),
        (b"0:", malformed),
        (b"x::/a\n", malformed),
        (b"99999999999::/a\n", malformed),
        (b"0::/\xff\n", malformed),
    ];
    for (text, expected) in cases {
        assert_eq!(
            locate(text, Path::new("/nowhere")),
            Err(expected),
            "{:?}",
            text.escape_ascii().to_string()
        );
    }
}

#[test]
fn quotas_of_both_versions_are_limits_or_none() {
    let limited = |quota, period| {
        Ok(CpuQuota::Limited {
            quota: Duration::from_micros(quota),
            period: Duration::from_micros(period),
        })
    };
    let v2: [(&[u8], _); 9] = [
        (b"max 100000\n", Ok(CpuQuota::Unlimited)),
        (b"50000 100000\n", limited(50_000, 100_000)),
        (b"max\n", Err(FormatError::MissingField("period"))),
        (b"50000\n", Err(FormatError::MissingField("period"))),
        (b"50000 0\n", Err(FormatError::OutOfRange("period"))),
        (b"-1 100000\n", Err(FormatError::NotANumber("quota"))),
        (b"max max\n", Err(FormatError::NotANumber("period"))),
        (
            b"99999999999999999999 1\n",
            Err(FormatError::NotANumber("quota")),
        ),
        (b"", Err(FormatError::Empty)),
    ];
    for (text, expected) in v2 {
        assert_eq!(
            parse_cpu_max(text),
            expected,
            "{:?}",
            text.escape_ascii().to_string()
        );
    }
    let v1: [(&[u8], &[u8], _); 5] = [
        (b"-1\n", b"100000\n", Ok(CpuQuota::Unlimited)),
        (b"50000\n", b"100000\n", limited(50_000, 100_000)),
        (b"-2\n", b"100000\n", Err(FormatError::NotANumber("quota"))),
        (b"50000\n", b"", Err(FormatError::MissingField("period"))),
        (b"", b"100000\n", Err(FormatError::Empty)),
    ];
    for (quota, period, expected) in v1 {
        assert_eq!(
            parse_cfs_quota(quota, period),
            expected,
            "{:?}",
            quota.escape_ascii().to_string()
        );
    }
}

#[test]
fn throttling_is_read_in_the_units_of_its_version() {
    let v1 = include_bytes!("../fixtures/cgroup-v1/cpu.stat");
    let v2 = include_bytes!("../fixtures/cgroup-v2/cpu.stat");
    let expected = |periods, throttled, millis| {
        Ok(Some(Throttling {
            periods,
            throttled,
            lost: Duration::from_millis(millis),
        }))
    };
    assert_eq!(parse_throttling(v1, Version::V1), expected(420, 42, 2_100));
    assert_eq!(
        parse_throttling(v2, Version::V2),
        expected(1_000, 250, 12_500)
    );
    let uncontrolled = include_bytes!("../fixtures/cgroup-v1/unified-cpu.stat");
    assert_eq!(parse_throttling(uncontrolled, Version::V2), Ok(None));
    // However short it is cut, a number is never read short.
    for end in 0..v2.len() {
        if let Ok(Some(cut)) = parse_throttling(&v2[..end], Version::V2) {
            assert_eq!(Ok(Some(cut)), expected(1_000, 250, 12_500));
        }
    }
    assert_eq!(parse_throttling(b"", Version::V2), Err(FormatError::Empty));
}

#[test]
fn usage_and_memory_are_read_in_the_units_of_their_version() {
    assert_eq!(
        parse_usage(b"2658861123\n", Version::V1),
        Ok(Duration::from_nanos(2_658_861_123))
    );
    assert_eq!(
        parse_usage(b"usage_usec 12\n", Version::V2),
        Ok(Duration::from_micros(12))
    );
    assert_eq!(
        parse_usage(b"usage_usec -12\n", Version::V2),
        Err(FormatError::NotANumber("usage_usec"))
    );
    assert_eq!(
        parse_usage(b"user_usec 12\n", Version::V2),
        Err(FormatError::MissingField("usage_usec"))
    );
    assert_eq!(
        parse_memory_parts(b"anon 1\n", Version::V2),
        Err(FormatError::MissingField("file"))
    );
    assert_eq!(
        parse_memory_parts(b"anon 1\nfile 2\n", Version::V1),
        Err(FormatError::MissingField("total_rss"))
    );
}

#[test]
fn the_group_paths_of_the_fixtures_are_those_of_the_trees() {
    let v2 = include_str!("../fixtures/cgroup-v2/proc-cgroup").trim_start_matches("0::/");
    assert!(v2.starts_with(V2_GROUP));
    assert!(include_str!("../fixtures/cgroup-v1/proc-cgroup").contains(V1_GROUP));
}
