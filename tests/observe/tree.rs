//! Folders that stand for procfs and the control groups of one domain with process 6575.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::signal::{Metric, Signals};
use persona::units::Moment;
use tempfile::TempDir;
use virt_persona::hypervisor::DomainId;
use virt_persona::observe::{DomainSample, Emulator, Missing, Observer, Roots};

pub(crate) const PID: u32 = 6575;
pub(crate) const DOMAIN: DomainId = DomainId([7; 16]);
pub(crate) const V2_GROUP: &str = r"machine.slice/machine-qemu\x2d1\x2dweb.scope/libvirt";
pub(crate) const V1_GROUP: &str = "machine/qemu-1-web.libvirt-qemu";

pub(crate) struct Tree(TempDir);

impl Tree {
    /// A process with `vcpus` vCPU threads, and no groups.
    pub(crate) fn new(vcpus: u32) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.process("stat", include_str!("../fixtures/procfs/stat"));
        tree.process("statm", include_str!("../fixtures/procfs/statm"));
        tree.process("task/6575/comm", "qemu-system-x86\n");
        tree.process("cgroup", "0::/\n");
        tree.write("proc/net/dev", include_str!("../fixtures/procfs/net-dev"));
        fs::create_dir(tree.path("cgroup")).unwrap();
        for index in 0..vcpus {
            tree.add_vcpu(index);
        }
        tree
    }

    /// As libvirt with machined on the unified hierarchy.
    pub(crate) fn v2(vcpus: u32) -> Self {
        let tree = Self::new(vcpus);
        tree.process("cgroup", include_str!("../fixtures/cgroup-v2/proc-cgroup"));
        tree.write("cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        for (name, text) in [
            ("cpu.stat", include_str!("../fixtures/cgroup-v2/cpu.stat")),
            ("cpu.max", include_str!("../fixtures/cgroup-v2/cpu.max")),
            (
                "memory.current",
                include_str!("../fixtures/cgroup-v2/memory.current"),
            ),
            (
                "memory.stat",
                include_str!("../fixtures/cgroup-v2/memory.stat"),
            ),
            (
                "cpu.pressure",
                include_str!("../fixtures/cgroup-v2/cpu.pressure"),
            ),
            (
                "memory.pressure",
                include_str!("../fixtures/cgroup-v2/memory.pressure"),
            ),
            (
                "io.pressure",
                include_str!("../fixtures/cgroup-v2/io.pressure"),
            ),
        ] {
            tree.write(&format!("cgroup/{V2_GROUP}/{name}"), text);
        }
        for index in 0..vcpus {
            let line = format!("0::/{V2_GROUP}/vcpu{index}\n");
            tree.process(&format!("task/{}/cgroup", tid(index)), &line);
            tree.write(
                &format!("cgroup/{V2_GROUP}/vcpu{index}/cpu.max"),
                "max 100000\n",
            );
        }
        tree
    }

    /// As libvirt without machined where version 1 has the controllers and the unified hierarchy is beside it.
    pub(crate) fn v1(vcpus: u32) -> Self {
        let tree = Self::new(vcpus);
        tree.process("cgroup", include_str!("../fixtures/cgroup-v1/proc-cgroup"));
        for (name, text) in [
            (
                "cpu/{}/cpu.stat",
                include_str!("../fixtures/cgroup-v1/cpu.stat"),
            ),
            (
                "cpu/{}/cpu.cfs_quota_us",
                include_str!("../fixtures/cgroup-v1/cpu.cfs_quota_us"),
            ),
            (
                "cpu/{}/cpu.cfs_period_us",
                include_str!("../fixtures/cgroup-v1/cpu.cfs_period_us"),
            ),
            (
                "memory/{}/memory.usage_in_bytes",
                include_str!("../fixtures/cgroup-v1/memory.usage_in_bytes"),
            ),
            (
                "memory/{}/memory.stat",
                include_str!("../fixtures/cgroup-v1/memory.stat"),
            ),
            (
                "unified/{}/cpu.stat",
                include_str!("../fixtures/cgroup-v1/unified-cpu.stat"),
            ),
            (
                "unified/{}/cpu.pressure",
                include_str!("../fixtures/cgroup-v2/cpu.pressure"),
            ),
        ] {
            tree.write(&format!("cgroup/{}", name.replace("{}", V1_GROUP)), text);
        }
        // The whole host's usage, which must never be taken for the domain's.
        tree.write("cgroup/cpuacct/cpuacct.usage", "999999999999\n");
        for index in 0..vcpus {
            let line =
                format!("2:cpuacct:/\n1:cpu:/{V1_GROUP}/vcpu{index}\n0::/{V1_GROUP}/vcpu{index}\n");
            tree.process(&format!("task/{}/cgroup", tid(index)), &line);
            tree.write(
                &format!("cgroup/cpu/{V1_GROUP}/vcpu{index}/cpu.cfs_quota_us"),
                "-1\n",
            );
        }
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes in place, so that an open descriptor sees it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn process(&self, path: &str, text: &str) {
        self.write(&format!("proc/{PID}/{path}"), text);
    }

    pub(crate) fn add_vcpu(&self, index: u32) {
        self.process(
            &format!("task/{}/comm", tid(index)),
            &format!("CPU {index}/KVM\n"),
        );
        self.run(index, 0, 0);
    }

    /// Sets what a vCPU's thread ran and waited for since it began, in milliseconds.
    pub(crate) fn run(&self, index: u32, run: u64, wait: u64) {
        let text = format!("{} {} 1\n", run * 1_000_000, wait * 1_000_000);
        self.process(&format!("task/{}/schedstat", tid(index)), &text);
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots {
            proc: self.path("proc"),
            cgroup: self.path("cgroup"),
            net: self.path("net"),
        }
    }

    pub(crate) fn observer(&self) -> Observer {
        Observer::new(self.roots(), Duration::from_secs(1))
    }

    pub(crate) fn attached(&self, vcpus: u32) -> Observer {
        let mut observer = self.observer();
        observer.attach(DOMAIN, emulator(vcpus));
        observer
    }
}

pub(crate) fn tid(index: u32) -> u32 {
    PID + 1 + index
}

pub(crate) const fn emulator(vcpus_plugged: u32) -> Emulator {
    Emulator {
        pid: PID,
        instance: Some(1),
        vcpus_plugged,
    }
}

/// A moment by its second.
pub(crate) const fn at(second: u64) -> Moment {
    Moment(1_000_000 + second * 1_000)
}

/// The value of a metric, or why there is none.
pub(crate) fn outcome(sample: &DomainSample, metric: Metric) -> Result<f64, Missing> {
    match sample.readings.reading(metric) {
        Some(reading) => Ok(reading.value),
        None => Err(sample.readings.missing(metric).unwrap()),
    }
}
