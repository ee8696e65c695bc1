//! What the host, its domains and their guests do now: figures for the snapshot that the planner decides on.
//! Changes nothing and decides nothing; reads files of procfs and control groups, and takes over what the
//! hypervisor and the guest agent delivered. Called by the daemon's tick.
//!
//! A tick is file reads only: each file is opened once and read at offset 0 into one buffer. A value that cannot be
//! had is unknown with a reason, never zero, and a domain that cannot be read harms no other.
//!
//! An open domain costs three descriptors, one a vCPU, one more for each vCPU with a quota, and six for its groups. What
//! changes slowly or costs much (pressure, paging) is read at turns, which differ from domain to domain.

pub mod applications;
pub mod cgroup;
mod descriptor;
pub mod disk;
pub mod domain;
pub mod facilities;
pub mod guest;
pub mod guest_faults;
pub mod guest_figures;
pub mod host;
mod meter;
pub mod network;
pub mod paging;
pub mod parse;
mod pressure;
pub mod procfs;
mod rate;
pub mod reading;
pub mod vcpu;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use persona::units::Moment;

pub use self::applications::Applications;
pub use self::cgroup::GroupSample;
pub use self::disk::DiskRates;
pub use self::domain::DomainSample;
pub use self::facilities::{Facilities, Groups, Kvm, Places, Pressure};
pub use self::guest::GuestReport;
pub use self::guest_faults::GuestFaults;
pub use self::guest_figures::{GuestFigures, Noticed, Seen};
pub use self::host::HostReadings;
pub use self::reading::{Figure, Missing, Readings};
pub use self::vcpu::VcpuBasis;

use self::descriptor::Buffer;
use self::domain::{DomainObserver, Followed};
use self::host::HostObserver;
use self::meter::Metered;
use self::network::DeviceTable;
use self::reading::Stamp;
use crate::hypervisor::{DomainDescription, DomainId, Interface, VcpuMeter};

/// Where the kernel's files are. Paths, so that a folder can stand for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// procfs.
    pub proc: PathBuf,
    /// The mount point of the unified hierarchy, or the folder with those of version 1.
    pub cgroup: PathBuf,
    /// The folder of sysfs with one of each network device.
    pub net: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
            net: "/sys/class/net".into(),
        }
    }
}

/// The process that runs a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// Its number.
    pub pid: u32,
    /// The hypervisor's number of the running instance.
    pub instance: Option<u32>,
    /// vCPUs plugged; a change makes the next sample look for threads again.
    pub vcpus_plugged: u32,
}

impl Emulator {
    /// The emulator of a running domain; `None` when it has none.
    pub fn of(description: &DomainDescription) -> Option<Self> {
        Some(Self {
            pid: description.process?,
            instance: description.instance,
            vcpus_plugged: description.vcpus_plugged,
        })
    }
}

/// Observes the host and the domains attached to it.
#[derive(Debug)]
pub struct Observer {
    roots: Roots,
    period: Duration,
    page: u64,
    buffer: Buffer,
    host: HostObserver,
    devices: DeviceTable,
    domains: BTreeMap<DomainId, DomainObserver>,
    metered: Option<Metered>,
}

impl Observer {
    /// An observer that is going to be asked once a `period`, which decides when a reading is too old. Opens nothing.
    pub fn new(roots: Roots, period: Duration) -> Self {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            roots,
            period,
            // sysconf(3) has no way to fail for the page size; 4 KiB is the smallest that Linux has.
            page: page
                .and_then(|page| u64::try_from(page).ok())
                .unwrap_or(4096),
            buffer: Buffer::default(),
            host: HostObserver::new(),
            devices: DeviceTable::new(),
            domains: BTreeMap::new(),
            metered: None,
        }
    }

    /// The same, with the vCPU times of a meter for the domains that it knows.
    pub fn with_meter(self, meter: Arc<dyn VcpuMeter>) -> Self {
        Self {
            metered: Some(Metered::new(meter)),
            ..self
        }
    }

    /// From here on it is asked once a `period`.
    pub fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// Observes `domain` from here on. Attaching again to the same instance keeps its counters; to another process
    /// or instance starts anew.
    pub fn attach(&mut self, domain: DomainId, emulator: Emulator) {
        if let Some(known) = self.domains.get_mut(&domain)
            && known.follow(emulator) == Followed::Same
        {
            return;
        }
        let observer = DomainObserver::attach(&self.roots, emulator, &mut self.buffer);
        self.domains.insert(domain, observer);
    }

    /// The network interfaces of `domain` are these from here on; those that it had keep their counters. Nothing is done
    /// for a domain that is not attached.
    pub fn follow_interfaces(&mut self, domain: DomainId, interfaces: &[Interface]) {
        if let Some(observer) = self.domains.get_mut(&domain) {
            observer.follow_interfaces(interfaces, &self.roots);
        }
    }

    /// Stops observing `domain` and closes its files.
    pub fn detach(&mut self, domain: DomainId) {
        self.domains.remove(&domain);
        if let Some(metered) = &mut self.metered {
            metered.forget(domain);
        }
    }

    /// Makes the next sample of `domain` look for its threads, groups and quotas again: for a device event, or a
    /// quota that was set. Otherwise that is done every 30 s.
    pub fn refresh(&mut self, domain: DomainId) {
        if let Some(observer) = self.domains.get_mut(&domain) {
            observer.refresh();
        }
    }

    /// Samples the host.
    pub fn sample_host(&mut self, now: Moment) -> HostReadings {
        let stamp = Stamp {
            at: now,
            period: self.period,
        };
        self.host.sample(&self.roots.proc, stamp, &mut self.buffer)
    }

    /// Samples a domain. `online` is the number of vCPUs that the guest says are online.
    pub fn sample_domain(
        &mut self,
        domain: DomainId,
        online: Option<u32>,
        now: Moment,
    ) -> DomainSample {
        let stamp = Stamp {
            at: now,
            period: self.period,
        };
        let mut sample = match self.domains.get_mut(&domain) {
            Some(observer) => observer.sample(
                &self.roots,
                online,
                self.page,
                stamp,
                &mut self.devices,
                &mut self.buffer,
            ),
            None => DomainSample::unknown(Missing::NotAttached),
        };
        if let Some(metered) = &mut self.metered {
            metered.sample(domain, online, stamp, &mut sample);
        }
        sample
    }

    /// Figures of a domain's groups that no metric of a rule is made of: for `status` and the slow path, because
    /// `memory.stat` costs the kernel more than all of a tick. Known after the domain's first sample.
    ///
    /// # Errors
    /// Why the domain has no groups that can be read.
    pub fn sample_groups(&mut self, domain: DomainId) -> Result<GroupSample, Missing> {
        let observer = self.domains.get(&domain).ok_or(Missing::NotAttached)?;
        observer.sample_groups(&mut self.buffer)
    }
}
