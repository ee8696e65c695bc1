//! One domain as the host sees it: files of its emulator and groups at each tick, counters of the last tick, and
//! the rates between them. The clock is the caller's. Called by [`Observer`](super::Observer) alone.
//!
//! ```text
//! attached --first sample--> scanned --tick--> tick --tick--> tick ...     every 30 s, or told so: scanned again
//!     |                                          |           (where nothing says so: for what changed alone)
//!     +-- process not there, or another one -----+--> ended (until attached again)
//! ```

use std::path::Path;
use std::time::Duration;

use persona::signal::Metric;
use persona::units::Moment;

use super::cgroup::{self, Group, GroupFiles, GroupSample, Mark, ThrottlingChange, ThrottlingFile};
use super::descriptor::{Buffer, Descriptor};
use super::network::{DeviceTable, Network};
use super::paging::Paging;
use super::pressure::Pressure;
use super::procfs::{self, Process, Thread, ThreadTimes, VcpuName};
use super::reading::{Figure, Missing, Readings, Stamp};
use super::vcpu::{VcpuBasis, VcpuWork, percent_of};
use super::{Emulator, Roots};
use crate::hypervisor::Interface;

/// How long a list of threads and groups is believed when nothing says that it changed.
const RESCAN: Duration = Duration::from_secs(30);

/// How much earlier than that the first look again may come, so that domains which were found together are not looked at
/// together for ever.
const SPREAD: Duration = Duration::from_secs(15);

/// How many samples in a row look again because fewer threads than plugged vCPUs were found: QEMU names a thread a
/// little after it made it. Not for ever, because the hypervisor may count a vCPU that the guest gave back long ago.
const EARLY_SCANS: u8 = 5;

/// What one tick says of one domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DomainSample {
    /// What the host measured.
    pub readings: Readings,
    /// What utilisation and steal were divided by; `None` where they are unknown.
    pub vcpu_basis: Option<VcpuBasis>,
}

impl DomainSample {
    /// A domain of which nothing can be said.
    pub(super) const fn unknown(reason: Missing) -> Self {
        let mut readings = Readings::unknown(Missing::NotMeasured);
        readings.fill_domain(reason);
        Self {
            readings,
            vcpu_basis: None,
        }
    }
}

#[derive(Debug)]
struct VcpuThread {
    name: VcpuName,
    tid: u32,
    schedstat: Descriptor,
    previous: Option<ThreadTimes>,
    /// Its memberships when its group was found.
    memberships: Option<Mark>,
    /// Its own group below the domain's.
    group: Option<Group>,
    /// Only where libvirt's `vcpu_quota` limits this thread.
    throttling: Option<ThrottlingFile>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// Everything, as if nothing were known: something changed.
    Whole,
    /// What shows that something changed: threads that were not there, other memberships, quotas. A tenth of the files.
    Changes,
}

/// One domain's open files and last counters.
#[derive(Debug)]
pub(super) struct DomainObserver {
    emulator: Emulator,
    process: Result<Process, Missing>,
    resident: Result<Descriptor, Missing>,
    threads: Result<Vec<VcpuThread>, Missing>,
    /// All threads at the last scan, by number.
    listed: Vec<Thread>,
    groups: Result<GroupFiles, Missing>,
    /// The process's memberships when its groups were found.
    memberships: Option<Mark>,
    throttling: Result<ThrottlingFile, Missing>,
    pressure: Pressure,
    paging: Paging,
    network: Network,
    scanned: Option<Moment>,
    early_scans: u8,
    previous: Option<Moment>,
}

impl DomainObserver {
    /// Takes hold of the process; its threads and groups are looked for at the first sample.
    pub(super) fn attach(roots: &Roots, emulator: Emulator, buffer: &mut Buffer) -> Self {
        Self {
            emulator,
            process: Process::open(&roots.proc, emulator.pid, buffer),
            resident: Err(Missing::NotMeasured),
            threads: Err(Missing::NotMeasured),
            listed: Vec::new(),
            groups: Err(Missing::NotMeasured),
            memberships: None,
            throttling: Err(Missing::NotMeasured),
            pressure: Pressure::new(emulator.pid),
            paging: Paging::new(emulator.pid),
            network: Network::default(),
            scanned: None,
            early_scans: EARLY_SCANS,
            previous: None,
        }
    }

    /// Whether `emulator` is the one that is observed; another number of vCPUs makes the next sample look again.
    pub(super) fn follow(&mut self, emulator: Emulator) -> Followed {
        if (emulator.pid, emulator.instance) != (self.emulator.pid, self.emulator.instance) {
            return Followed::Another;
        }
        if self.process.is_err() {
            return Followed::Another;
        }
        if emulator.vcpus_plugged != self.emulator.vcpus_plugged {
            self.refresh();
        }
        self.emulator = emulator;
        Followed::Same
    }

    /// Makes the next sample look for threads and groups again.
    pub(super) fn refresh(&mut self) {
        self.scanned = None;
        self.early_scans = EARLY_SCANS;
    }

    /// Takes over the network interfaces of the definition.
    pub(super) fn follow_interfaces(&mut self, interfaces: &[Interface], roots: &Roots) {
        self.network.follow(interfaces, &roots.net);
    }

    /// Reads everything once.
    pub(super) fn sample(
        &mut self,
        roots: &Roots,
        online: Option<u32>,
        page: u64,
        stamp: Stamp,
        table: &mut DeviceTable,
        buffer: &mut Buffer,
    ) -> DomainSample {
        let due = match self.scanned {
            None => Some(Scan::Whole),
            Some(scanned) => (stamp.at.since(scanned) >= RESCAN).then_some(Scan::Changes),
        };
        if let Some(scan) = due
            && let Err(reason) = self.scan(scan, roots, stamp.at, buffer)
        {
            self.previous = None;
            return DomainSample::unknown(reason);
        }
        let process = match &self.process {
            Ok(process) => process,
            Err(reason) => return DomainSample::unknown(*reason),
        };
        let mut sample = DomainSample::unknown(Missing::NotMeasured);
        let set = &mut sample.readings;
        let groups = self.groups.as_ref().map_err(|reason| *reason);
        self.pressure.sample(stamp, buffer, set);
        self.paging.sample(process, groups, stamp, buffer, set);
        self.network.sample(table, &roots.proc, stamp, set);
        if self.pressure.is_gone() || self.paging.is_gone() {
            self.scanned = None;
        }
        let resident = self.read_resident(page, buffer);
        set.set(
            Metric::MemoryHostRss,
            resident.map(|bytes| stamp.host(bytes)),
        );
        set.set(
            Metric::CpuThrottled,
            self.read_throttled(buffer)
                .map(|percent| stamp.host(percent)),
        );
        match self.read_work(stamp.at, buffer) {
            Ok((work, elapsed)) => {
                let basis = work.basis(online);
                let percent = |time| {
                    percent_of(time, elapsed, basis.vcpus())
                        .map(|value| stamp.host(value))
                        .ok_or(Missing::NoTimePassed)
                };
                set.set(Metric::CpuUtilization, percent(work.run));
                set.set(Metric::CpuSteal, percent(work.wait));
                sample.vcpu_basis = Some(basis);
            }
            Err(reason) => {
                set.set(Metric::CpuUtilization, Err(reason));
                set.set(Metric::CpuSteal, Err(reason));
            }
        }
        // Something that went away may mean that the whole process did.
        if self.scanned.is_none()
            && let Ok(process) = &self.process
            && let Err(reason) = process.verify(buffer)
        {
            self.close(reason);
            return DomainSample::unknown(reason);
        }
        sample
    }

    /// Figures of the groups that no rate is made of.
    pub(super) fn sample_groups(&self, buffer: &mut Buffer) -> Result<GroupSample, Missing> {
        self.groups
            .as_ref()
            .map(|groups| groups.sample(buffer))
            .map_err(|reason| *reason)
    }

    fn close(&mut self, reason: Missing) {
        self.process = Err(reason);
        self.resident = Err(reason);
        self.threads = Err(reason);
        self.groups = Err(reason);
        self.memberships = None;
        self.throttling = Err(reason);
        self.pressure.open(Err(reason));
        self.previous = None;
    }

    /// How much earlier than usual this domain is looked at again for the first time.
    fn spread(&self) -> u64 {
        // Numbers of processes are near each other; the golden ratio spreads them evenly.
        let spread = u64::from(self.emulator.pid).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread % u64::try_from(SPREAD.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Looks for threads and groups; keeps the descriptors and counters of those that it knows.
    fn scan(
        &mut self,
        scan: Scan,
        roots: &Roots,
        now: Moment,
        buffer: &mut Buffer,
    ) -> Result<(), Missing> {
        // A process that could not be read for want of descriptors or permission is tried again; one that was not
        // there is not, because the number may be another's when it appears.
        if let Err(Missing::Unreadable { .. }) = self.process {
            self.process = Process::open(&roots.proc, self.emulator.pid, buffer);
        }
        let process = self.process.as_ref().map_err(|reason| *reason)?;
        // A number that is known is still that thread's: where a vCPU's thread ends or begins, all is looked for.
        let known = match scan {
            Scan::Whole => &[],
            Scan::Changes => self.listed.as_slice(),
        };
        let listed = process.threads(known).inspect(|listed| {
            self.listed.clone_from(listed);
        });
        let listed = listed.and_then(|listed| procfs::vcpu_threads(&listed));
        let below = self.scan_groups(scan, roots, buffer)?;
        let process = self.process.as_ref().map_err(|reason| *reason)?;
        if self.resident.is_err() {
            self.resident = process.open_resident();
        }
        let threads = listed.map(|listed| {
            let mut known =
                std::mem::replace(&mut self.threads, Err(Missing::NotMeasured)).unwrap_or_default();
            let groups = self.groups.as_ref().ok();
            let adopt = |(name, tid)| {
                let mut thread = adopt_thread(process, &mut known, name, tid)?;
                let folder = process.directory().join("task").join(tid.to_string());
                thread.find_group(below, &folder, groups, roots, buffer);
                Some(thread)
            };
            listed.into_iter().filter_map(adopt).collect::<Vec<_>>()
        });
        // All that was opened by path above is this process's only if it is still there.
        if let Err(reason) = process.verify(buffer) {
            self.close(reason);
            return Err(reason);
        }
        // Without vCPU threads (the emulator has just begun) the next sample looks again.
        self.scanned = match &threads {
            Err(_) => None,
            Ok(threads) if self.early_scans > 0 && self.is_short(threads) => {
                self.early_scans -= 1;
                None
            }
            Ok(_) if scan == Scan::Whole => Some(Moment(now.0.saturating_sub(self.spread()))),
            Ok(_) => Some(now),
        };
        self.threads = threads;
        Ok(())
    }

    /// Looks for the groups. The result is what has to be looked for below them.
    fn scan_groups(
        &mut self,
        scan: Scan,
        roots: &Roots,
        buffer: &mut Buffer,
    ) -> Result<Scan, Missing> {
        let process = self.process.as_ref().map_err(|reason| *reason)?;
        let text = cgroup::read_memberships(process.directory(), buffer);
        let mark = text.as_ref().ok().map(|text| Mark::of(text));
        let settled = match &self.groups {
            Ok(groups) => {
                let pressure = groups.location().pressure.is_err() || self.pressure.is_whole();
                groups.is_whole() && self.throttling.is_ok() && pressure
            }
            Err(reason) => *reason == Missing::NoOwnGroup,
        };
        if scan == Scan::Changes && settled && mark.is_some() && mark == self.memberships {
            return Ok(Scan::Changes);
        }
        self.memberships = mark;
        match text.and_then(|text| cgroup::locate(text, &roots.cgroup)) {
            Ok(location) => {
                let known = self
                    .groups
                    .as_ref()
                    .is_ok_and(|groups| *groups.location() == location);
                if !known || self.throttling.is_err() {
                    self.throttling = match &location.cpu {
                        Some(group) => ThrottlingFile::open(group),
                        None => Err(Missing::NoOwnGroup),
                    };
                }
                if !known {
                    self.paging.group_changed();
                }
                self.pressure
                    .open(location.pressure.as_ref().map_err(|reason| *reason));
                // Opened anew also where it is the same place: a file that appeared since is found so, and a slow
                // figure has no counter that could be lost.
                self.groups = Ok(GroupFiles::open(location));
            }
            Err(reason) => {
                self.groups = Err(reason);
                self.throttling = Err(reason);
                self.pressure.open(Err(reason));
            }
        }
        Ok(Scan::Whole)
    }

    /// Whether there are fewer vCPU threads than plugged vCPUs.
    fn is_short(&self, threads: &[VcpuThread]) -> bool {
        let plugged = usize::try_from(self.emulator.vcpus_plugged).unwrap_or(usize::MAX);
        threads.len() < plugged && threads.iter().all(|thread| thread.name != VcpuName::All)
    }

    fn read_resident(&mut self, page: u64, buffer: &mut Buffer) -> Result<f64, Missing> {
        let figure = Figure::ResidentMemory;
        let file = self.resident.as_ref().map_err(|reason| *reason)?;
        let outcome = file.read(buffer).map_err(procfs::ended).and_then(|text| {
            procfs::parse_resident_pages(text)
                .map_err(|problem| Missing::Malformed { figure, problem })?
                .ok_or(Missing::ProcessEnded)
        });
        if outcome == Err(Missing::ProcessEnded) {
            self.scanned = None;
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "an f64 counts bytes exactly up to 8 PiB"
        )]
        outcome.map(|pages| pages.saturating_mul(page) as f64)
    }

    /// The larger of what the domain's own quota and what those of its vCPUs held back.
    fn read_throttled(&mut self, buffer: &mut Buffer) -> Result<f64, Missing> {
        let mut outcome = match &mut self.throttling {
            Ok(file) => file.advance(buffer).map(ThrottlingChange::percent),
            Err(reason) => Err(*reason),
        };
        if let Err(reason @ Missing::Gone(_)) = outcome {
            self.throttling = Err(reason);
            self.scanned = None;
        }
        let mut vcpus = None::<ThrottlingChange>;
        for thread in self.threads.iter_mut().flatten() {
            let Some(file) = &mut thread.throttling else {
                continue;
            };
            match file.advance(buffer) {
                Ok(change) => {
                    let sum = vcpus.get_or_insert_default();
                    sum.periods = sum.periods.saturating_add(change.periods);
                    sum.throttled = sum.throttled.saturating_add(change.throttled);
                }
                // A quota found at the last scan counts from the next sample on.
                Err(Missing::FirstSample) => {}
                Err(Missing::Gone(_)) => {
                    thread.throttling = None;
                    self.scanned = None;
                }
                Err(reason) => outcome = Err(reason),
            }
        }
        match (outcome, vcpus) {
            (Ok(domain), Some(vcpus)) => Ok(domain.max(vcpus.percent())),
            (Err(Missing::NoOwnGroup | Missing::NotOffered(_)), Some(vcpus)) => Ok(vcpus.percent()),
            (outcome, _) => outcome,
        }
    }

    /// What the vCPU threads did since the previous sample.
    fn read_work(
        &mut self,
        now: Moment,
        buffer: &mut Buffer,
    ) -> Result<(VcpuWork, Duration), Missing> {
        let threads = self.threads.as_mut().map_err(|reason| *reason)?;
        if self.previous == Some(now) {
            return Err(Missing::NoTimePassed);
        }
        // A clock that went back gives no rate; the sample becomes the base of the next one.
        let elapsed = self
            .previous
            .filter(|previous| *previous < now)
            .map(|previous| now.since(previous));
        self.previous = Some(now);
        let mut work = VcpuWork::default();
        let mut problem = None;
        let mut gone = false;
        threads.retain_mut(|thread| {
            let previous = thread.previous.take();
            let times = thread.schedstat.read(buffer).and_then(|text| {
                procfs::parse_schedstat(text).map_err(|problem| Missing::Malformed {
                    figure: Figure::ThreadTimes,
                    problem,
                })
            });
            match times {
                Ok(times) => {
                    thread.previous = Some(times);
                    if let (Some(previous), Some(elapsed)) = (previous, elapsed)
                        && let Err(reason) = work.add(previous, times, elapsed)
                    {
                        problem = Some(reason);
                    }
                    true
                }
                // An unplugged vCPU: the others still count.
                Err(Missing::Gone(_)) => {
                    gone = true;
                    false
                }
                Err(reason) => {
                    problem = Some(reason);
                    true
                }
            }
        });
        if gone {
            self.scanned = None;
        }
        match (problem, elapsed) {
            (Some(reason), _) => Err(reason),
            (None, Some(elapsed)) if work.threads > 0 => Ok((work, elapsed)),
            (None, _) => Err(Missing::FirstSample),
        }
    }
}

/// What [`DomainObserver::follow`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// The emulator that is observed already.
    Same,
    /// One to attach to.
    Another,
}

/// A thread with its descriptors, those that are open already where it is known; `None` when it ended meanwhile.
fn adopt_thread(
    process: &Process,
    known: &mut Vec<VcpuThread>,
    name: VcpuName,
    tid: u32,
) -> Option<VcpuThread> {
    let index = known
        .iter()
        .position(|thread| (thread.name, thread.tid) == (name, tid));
    if let Some(index) = index {
        return Some(known.swap_remove(index));
    }
    let directory = process.directory().join("task").join(tid.to_string());
    Some(VcpuThread {
        name,
        tid,
        schedstat: Descriptor::open(&directory.join("schedstat"), Figure::ThreadTimes).ok()?,
        previous: None,
        memberships: None,
        group: None,
        throttling: None,
    })
}

impl VcpuThread {
    /// Looks for the thread's own group, and whether a quota limits it.
    fn find_group(
        &mut self,
        scan: Scan,
        folder: &Path,
        groups: Option<&GroupFiles>,
        roots: &Roots,
        buffer: &mut Buffer,
    ) {
        let domain = groups.and_then(|groups| groups.location().cpu.as_ref());
        let text = domain.and_then(|_| cgroup::read_memberships(folder, buffer).ok());
        let mark = text.map(Mark::of);
        if scan == Scan::Whole || mark != self.memberships {
            let group = text.zip(domain).and_then(|(text, domain)| {
                cgroup::locate_thread(text, &roots.cgroup, domain)
                    .ok()
                    .flatten()
            });
            self.memberships = mark;
            self.group = group;
        }
        let limited = self.group.as_ref().filter(|group| {
            matches!(
                cgroup::read_quota(group, buffer),
                Ok(cgroup::CpuQuota::Limited { .. })
            )
        });
        match limited {
            None => self.throttling = None,
            Some(group) if self.throttling.is_none() => {
                self.throttling = ThrottlingFile::open(group).ok()
            }
            Some(_) => {}
        }
    }
}
