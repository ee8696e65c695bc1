//! What the host offers to its domains: hardware virtualisation, control groups, pressure, addresses, huge pages. Read
//! when somebody asks, not at each tick. Called by `doctor` and by the adoption of domains. Formats: proc(5),
//! `Documentation/admin-guide/cgroup-v2.rst` of the kernel.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use persona::units::Bytes;

use super::parse;

/// Where it is read from; paths, so that a folder can stand for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// procfs.
    pub proc: PathBuf,
    /// The mount point of the unified hierarchy, or the folder with those of version 1.
    pub cgroup: PathBuf,
    /// The size of a transparent huge page.
    pub huge_page: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
            huge_page: "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size".into(),
        }
    }
}

/// Whether the kernel offers hardware virtualisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// It does.
    Offered,
    /// It does not: the CPU cannot, the firmware forbids it, or its module is not loaded.
    Absent,
}

/// The control groups that are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// One hierarchy, with these controllers.
    Version2(Vec<String>),
    /// One hierarchy a controller.
    Version1(Vec<String>),
    /// None.
    Absent,
}

/// Whether the kernel tells how long work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// It does.
    Told,
    /// It was built without, or started with `psi=0`.
    NotTold,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facilities {
    /// Hardware virtualisation.
    pub kvm: Kvm,
    /// Control groups.
    pub groups: Groups,
    /// Pressure stall information.
    pub pressure: Pressure,
    /// Physical addresses of the CPU, in bits.
    pub address_bits: Option<u8>,
    /// The size of a transparent huge page.
    pub huge_page: Option<Bytes>,
    /// The size of a reserved huge page, where none is named.
    pub reserved_page: Option<Bytes>,
}

/// Controllers that say something of a domain.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "cpuset", "io", "blkio", "memory"];

impl Facilities {
    /// Looks at the host. What cannot be read is not there.
    pub fn read(places: &Places) -> Self {
        let address_bits =
            start_of(&places.proc.join("cpuinfo")).and_then(|text| address_bits(&text));
        let reserved_page = fs::read(places.proc.join("meminfo"))
            .ok()
            .and_then(|text| parse::require_keyed(&text, "Hugepagesize").ok())
            .map(Bytes::from_kib);
        let huge_page = fs::read_to_string(&places.huge_page)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map(Bytes);
        // A kernel that was started with `psi=0` has the file and refuses to be asked.
        let pressure = match fs::read(places.proc.join("pressure/memory")) {
            Ok(_) => Pressure::Told,
            Err(_) => Pressure::NotTold,
        };
        Self {
            kvm: kvm(&places.proc),
            groups: groups(&places.cgroup),
            pressure,
            address_bits,
            huge_page,
            reserved_page,
        }
    }
}

/// The kernel's list of small devices has it also where the daemon sees no devices, as its unit has it.
fn kvm(proc: &Path) -> Kvm {
    let list = fs::read_to_string(proc.join("misc")).unwrap_or_default();
    let offered = list
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some("kvm"));
    if offered { Kvm::Offered } else { Kvm::Absent }
}

fn groups(root: &Path) -> Groups {
    if let Ok(text) = fs::read_to_string(root.join("cgroup.controllers")) {
        return Groups::Version2(text.split_whitespace().map(str::to_owned).collect());
    }
    let mounted = |name: &&str| root.join(name).join("cgroup.procs").exists();
    let found: Vec<String> = CONTROLLERS
        .iter()
        .filter(|name| mounted(name))
        .map(|name| (*name).to_owned())
        .collect();
    if found.is_empty() {
        Groups::Absent
    } else {
        Groups::Version1(found)
    }
}

/// The first kilobytes of a file: `cpuinfo` says the same of each of hundreds of CPUs.
fn start_of(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(path)
        .ok()?
        .take(8192)
        .read_to_end(&mut start)
        .ok()?;
    Some(String::from_utf8_lossy(&start).into_owned())
}

/// `address sizes : 46 bits physical, 48 bits virtual`
fn address_bits(cpuinfo: &str) -> Option<u8> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("address sizes"))?;
    let (_, sizes) = line.split_once(':')?;
    sizes.trim().split_once(" bits physical")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places {
            proc: folder.join("proc"),
            cgroup: folder.join("cgroup"),
            huge_page: folder.join("hpage_pmd_size"),
        }
    }

    #[test]
    fn a_host_that_says_all_of_it_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        fs::create_dir_all(places.proc.join("pressure")).unwrap();
        fs::create_dir_all(&places.cgroup).unwrap();
        for (path, text) in [
            (
                places.proc.join("cpuinfo"),
                "processor\t: 0\naddress sizes\t: 46 bits physical, 48 bits virtual\n",
            ),
            (
                places.proc.join("meminfo"),
                "MemTotal: 8 kB\nHugepagesize:       1048576 kB\n",
            ),
            (places.proc.join("pressure/memory"), "some avg10=0.00\n"),
            (
                places.cgroup.join("cgroup.controllers"),
                "cpuset cpu io memory\n",
            ),
            (places.huge_page.clone(), "2097152\n"),
            (places.proc.join("misc"), "235 autofs\n232 kvm\n"),
        ] {
            fs::write(path, text).unwrap();
        }
        assert_eq!(
            Facilities::read(&places),
            Facilities {
                kvm: Kvm::Offered,
                groups: Groups::Version2(
                    ["cpuset", "cpu", "io", "memory"]
                        .map(str::to_owned)
                        .to_vec()
                ),
                pressure: Pressure::Told,
                address_bits: Some(46),
                huge_page: Some(Bytes::from_mib(2)),
                reserved_page: Some(Bytes::from_mib(1024)),
            }
        );
    }

    #[test]
    fn a_host_that_says_nothing_has_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let nothing = Facilities {
            kvm: Kvm::Absent,
            groups: Groups::Absent,
            pressure: Pressure::NotTold,
            address_bits: None,
            huge_page: None,
            reserved_page: None,
        };
        assert_eq!(Facilities::read(&places), nothing);
        fs::create_dir_all(places.cgroup.join("memory")).unwrap();
        fs::write(places.cgroup.join("memory/cgroup.procs"), "").unwrap();
        let groups = Facilities::read(&places).groups;
        assert_eq!(groups, Groups::Version1(vec!["memory".into()]));
    }
}
