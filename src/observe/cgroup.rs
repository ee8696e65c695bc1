//! A domain's control groups: where they are, and what is read from them. Hierarchies of version 2, of version 1
//! and both beside each other (each controller where it lives). Rates are made in `domain`, which calls this.
//!
//! ```text
//! libvirt with machined:  /machine.slice/machine-qemu\x2d1\x2dNAME.scope/libvirt/{emulator,vcpu0}   version 2
//!                         /machine.slice/machine-qemu\x2d1\x2dNAME.scope/{emulator,vcpu0}           version 1
//! libvirt alone:          /machine/qemu-1-NAME.libvirt-qemu/{emulator,vcpu0}                        both
//! ```
//!
//! Where both versions are mounted, a controller belongs to one of them, but version 2 accounts CPU time and
//! pressure of every group without any controller. The emulator may sit in a shared group (`/`, a user's session):
//! figures of such a group are those of other processes too, and are never taken for the domain's.
//!
//! Formats: `Documentation/admin-guide/cgroup-v2.rst`, `Documentation/scheduler/sched-bwc.rst`,
//! `Documentation/admin-guide/cgroup-v1/{cpuacct,memory}.rst` of the kernel.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::procfs::ProcessCGroups;
use ::procfs::prelude::*;
use persona::units::Bytes;

use super::descriptor::{Buffer, Descriptor};
use super::paging::parse_swap_ins;
use super::parse::{self, FormatError};
use super::reading::{Figure, Missing};

/// The version of a hierarchy, which decides names and units of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A control group that is the domain's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its folder.
    pub directory: PathBuf,
    /// Of which hierarchy.
    pub version: Version,
}

/// Where the figures of a domain are; `None` where the group is not its own or the controller is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Quota and throttling.
    pub cpu: Option<Group>,
    /// CPU time.
    pub usage: Option<Group>,
    /// Memory.
    pub memory: Option<Group>,
    /// Pressure, which only version 2 has; or why there is none.
    pub pressure: Result<Group, Missing>,
}

/// The part of a path of `/proc/PID/cgroup` up to the group that holds the whole domain; `None` when no part of
/// it is a domain's group.
///
/// libvirt nests a group `libvirt` in the scope that machined made, and sets its limits there.
pub fn own_group(path: &str) -> Option<&str> {
    let mut end = None;
    let mut offset = 0;
    for component in path.split_inclusive('/') {
        offset += component.len();
        let name = component.trim_end_matches('/');
        if name == ".." {
            return None;
        }
        let machine = name.ends_with(".libvirt-qemu")
            || (name.starts_with("machine-qemu") && name.ends_with(".scope"));
        let nested = name == "libvirt" && end == Some(offset - component.len());
        if machine || nested {
            end = Some(offset);
        }
    }
    end.map(|end| path[..end].trim_end_matches('/'))
}

/// Finds the domain's groups below `root` from the text of `/proc/PID/cgroup`.
pub fn locate(text: &[u8], root: &Path) -> Result<Location, Missing> {
    let memberships = parse_memberships(text)?;
    let controller = |name: &str| match directory(&memberships, root, Some(name)) {
        Found::Own(directory) => Some(Group {
            directory,
            version: Version::V1,
        }),
        Found::Shared => None,
        Found::NotMounted => unified(&memberships, root),
    };
    let location = Location {
        cpu: controller("cpu"),
        usage: controller("cpuacct").or_else(|| unified(&memberships, root)),
        memory: controller("memory"),
        pressure: match directory(&memberships, root, None) {
            Found::Own(directory) => Ok(Group {
                directory,
                version: Version::V2,
            }),
            Found::Shared => Err(Missing::NoOwnGroup),
            Found::NotMounted => Err(Missing::NoUnifiedHierarchy),
        },
    };
    let none = [&location.cpu, &location.usage, &location.memory];
    if none.iter().all(|group| group.is_none()) && location.pressure.is_err() {
        return Err(Missing::NoOwnGroup);
    }
    Ok(location)
}

/// The group of a single thread that has the CPU controller: libvirt gives each vCPU a group below the domain's
/// and puts `vcpu_quota` there. `None` when the thread has no group below `domain`.
pub fn locate_thread(text: &[u8], root: &Path, domain: &Group) -> Result<Option<Group>, Missing> {
    let memberships = parse_memberships(text)?;
    let name = match domain.version {
        Version::V1 => Some("cpu"),
        Version::V2 => None,
    };
    let Some((base, path)) = mounted(&memberships, root, name) else {
        return Ok(None);
    };
    let directory = base.join(path.trim_start_matches('/'));
    let below = directory != domain.directory && directory.starts_with(&domain.directory);
    Ok((below && !path.contains("..")).then_some(Group {
        directory,
        version: domain.version,
    }))
}

/// Reads the `cgroup` file of a process or thread from its folder. Off the tick: opens and closes.
pub(super) fn read_memberships<'b>(
    folder: &Path,
    buffer: &'b mut Buffer,
) -> Result<&'b [u8], Missing> {
    let figure = Figure::Groups;
    let text = Descriptor::open(&folder.join("cgroup"), figure).and_then(|file| file.read(buffer));
    text.map_err(|reason| match reason {
        Missing::NotOffered(figure) | Missing::Gone(figure) => Missing::Unreadable {
            figure,
            kind: std::io::ErrorKind::NotFound,
        },
        other => other,
    })
}

/// A text of memberships, as far as it has to be told from another one of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    pub(super) fn of(text: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(hasher.finish())
    }
}

fn parse_memberships(text: &[u8]) -> Result<ProcessCGroups, Missing> {
    ProcessCGroups::from_buf_read(text).map_err(|_| Missing::Malformed {
        figure: Figure::Groups,
        problem: FormatError::MissingField("hierarchy:controllers:path"),
    })
}

enum Found {
    Own(PathBuf),
    Shared,
    NotMounted,
}

fn unified(memberships: &ProcessCGroups, root: &Path) -> Option<Group> {
    match directory(memberships, root, None) {
        Found::Own(directory) => Some(Group {
            directory,
            version: Version::V2,
        }),
        Found::Shared | Found::NotMounted => None,
    }
}

fn directory(memberships: &ProcessCGroups, root: &Path, controller: Option<&str>) -> Found {
    let Some((base, path)) = mounted(memberships, root, controller) else {
        return Found::NotMounted;
    };
    match own_group(path) {
        Some(group) => Found::Own(base.join(group.trim_start_matches('/'))),
        None => Found::Shared,
    }
}

/// Mount point and path of the hierarchy that has `controller`, or of the unified one.
fn mounted<'m>(
    memberships: &'m ProcessCGroups,
    root: &Path,
    controller: Option<&str>,
) -> Option<(PathBuf, &'m str)> {
    let membership = memberships.0.iter().find(|membership| match controller {
        Some(name) => membership.controllers.iter().any(|other| other == name),
        None => membership.hierarchy == 0 && membership.controllers.is_empty(),
    })?;
    let base = match controller {
        // Several controllers in one hierarchy are mounted under their joined names, usually with a link for each.
        Some(name) => [name.to_owned(), membership.controllers.join(",")]
            .iter()
            .map(|name| root.join(name))
            .find(|base| base.is_dir())?,
        None if root.join("cgroup.controllers").exists() => root.to_owned(),
        None => Some(root.join("unified")).filter(|base| base.is_dir())?,
    };
    Some((base, &membership.pathname))
}

/// The CPU bandwidth that a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuQuota {
    /// As much as there is.
    Unlimited,
    /// At most `quota` of CPU time in each `period`.
    Limited {
        /// CPU time.
        quota: Duration,
        /// In this much time.
        period: Duration,
    },
}

/// `cpu.max`: `max PERIOD` or `QUOTA PERIOD`, in microseconds.
pub fn parse_cpu_max(text: &[u8]) -> Result<CpuQuota, FormatError> {
    let mut fields = parse::fields(text);
    let quota = fields.next().ok_or(FormatError::Empty)?;
    let period = fields.next().ok_or(FormatError::MissingField("period"))?;
    if quota == b"max" {
        parse::parse_count(period, "period")?;
        return Ok(CpuQuota::Unlimited);
    }
    limited(quota, period)
}

/// `cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of -1 is none.
pub fn parse_cfs_quota(quota: &[u8], period: &[u8]) -> Result<CpuQuota, FormatError> {
    match quota.trim_ascii() {
        b"" => Err(FormatError::Empty),
        b"-1" => Ok(CpuQuota::Unlimited),
        quota => limited(quota, period.trim_ascii()),
    }
}

fn limited(quota: &[u8], period: &[u8]) -> Result<CpuQuota, FormatError> {
    let period = parse::parse_count(period, "period")?;
    if period == 0 {
        return Err(FormatError::OutOfRange("period"));
    }
    Ok(CpuQuota::Limited {
        quota: Duration::from_micros(parse::parse_count(quota, "quota")?),
        period: Duration::from_micros(period),
    })
}

/// How often a group's quota held it back, since the group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group wanted to run.
    pub periods: u64,
    /// Those in which it used up its quota.
    pub throttled: u64,
    /// Time that its CPUs lost by that.
    pub lost: Duration,
}

/// The throttling lines of `cpu.stat`; `None` where the group has none because it has no CPU controller.
pub fn parse_throttling(text: &[u8], version: Version) -> Result<Option<Throttling>, FormatError> {
    let Some(periods) = parse::parse_keyed(text, "nr_periods")? else {
        return Ok(None);
    };
    let lost = match version {
        Version::V1 => Duration::from_nanos(parse::require_keyed(text, "throttled_time")?),
        Version::V2 => Duration::from_micros(parse::require_keyed(text, "throttled_usec")?),
    };
    Ok(Some(Throttling {
        periods,
        throttled: parse::require_keyed(text, "nr_throttled")?,
        lost,
    }))
}

/// CPU time of a group: `usage_usec` of `cpu.stat` in version 2, `cpuacct.usage` in nanoseconds in version 1.
pub fn parse_usage(text: &[u8], version: Version) -> Result<Duration, FormatError> {
    match version {
        Version::V1 => parse::parse_single(text, "cpuacct.usage").map(Duration::from_nanos),
        Version::V2 => parse::require_keyed(text, "usage_usec").map(Duration::from_micros),
    }
}

/// What `memory.stat` says of the kinds of memory, of the group and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryParts {
    /// Memory of processes: the guest's memory, for the most part.
    pub anonymous: Bytes,
    /// Page cache, which the kernel can take back.
    pub file: Bytes,
}

/// `memory.stat`.
pub fn parse_memory_parts(text: &[u8], version: Version) -> Result<MemoryParts, FormatError> {
    let (anonymous, file) = match version {
        Version::V1 => ("total_rss", "total_cache"),
        Version::V2 => ("anon", "file"),
    };
    Ok(MemoryParts {
        anonymous: Bytes(parse::require_keyed(text, anonymous)?),
        file: Bytes(parse::require_keyed(text, file)?),
    })
}

/// Reads the quota of a group. Off the tick: opens and closes.
pub(super) fn read_quota(group: &Group, buffer: &mut Buffer) -> Result<CpuQuota, Missing> {
    let figure = Figure::GroupQuota;
    let open = |name: &str| Descriptor::open(&group.directory.join(name), figure);
    match group.version {
        Version::V2 => parse_cpu_max(open("cpu.max")?.read(buffer)?),
        Version::V1 => {
            let mut quota = [0; 24];
            let text = open("cpu.cfs_quota_us")?.read(buffer)?.trim_ascii();
            let length = text.len().min(quota.len());
            quota[..length].copy_from_slice(&text[..length]);
            parse_cfs_quota(&quota[..length], open("cpu.cfs_period_us")?.read(buffer)?)
        }
    }
    .map_err(|problem| Missing::Malformed { figure, problem })
}

/// `cpu.stat` of a group, kept open for its throttling.
#[derive(Debug)]
pub(super) struct ThrottlingFile {
    descriptor: Descriptor,
    version: Version,
    previous: Option<Throttling>,
}

/// What a quota did between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ThrottlingChange {
    pub(super) periods: u64,
    pub(super) throttled: u64,
}

impl ThrottlingChange {
    /// Share of the periods that were cut short, in percent. No period is a known zero: nothing wanted to run
    /// under a quota, so none held it back.
    #[allow(
        clippy::cast_precision_loss,
        reason = "periods of one sample: a handful"
    )]
    pub(super) fn percent(self) -> f64 {
        match self.periods {
            0 => 0.0,
            periods => (self.throttled as f64 / periods as f64 * 100.0).min(100.0),
        }
    }
}

impl ThrottlingFile {
    pub(super) fn open(group: &Group) -> Result<Self, Missing> {
        Ok(Self {
            descriptor: Descriptor::open(
                &group.directory.join("cpu.stat"),
                Figure::GroupThrottling,
            )?,
            version: group.version,
            previous: None,
        })
    }

    /// The change since the previous call.
    pub(super) fn advance(&mut self, buffer: &mut Buffer) -> Result<ThrottlingChange, Missing> {
        let figure = Figure::GroupThrottling;
        let previous = self.previous.take();
        let current = parse_throttling(self.descriptor.read(buffer)?, self.version)
            .map_err(|problem| Missing::Malformed { figure, problem })?
            .ok_or(Missing::NotOffered(figure))?;
        self.previous = Some(current);
        let previous = previous.ok_or(Missing::FirstSample)?;
        let change = |before: u64, after: u64| {
            after
                .checked_sub(before)
                .ok_or(Missing::CounterWentBack(figure))
        };
        Ok(ThrottlingChange {
            periods: change(previous.periods, current.periods)?,
            throttled: change(previous.throttled, current.throttled)?,
        })
    }
}

/// Figures of a domain's groups that no rate is made of. Each by itself known, or not for a reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupSample {
    /// CPU time of the whole emulator, vCPUs and all other threads.
    pub cpu_time: Result<Duration, Missing>,
    /// The domain's own quota (`global_quota` of libvirt); those of single vCPUs are not in it.
    pub quota: Result<CpuQuota, Missing>,
    /// Memory charged to the domain, page cache included.
    pub memory: Result<Bytes, Missing>,
    /// What it consists of.
    pub memory_parts: Result<MemoryParts, Missing>,
}

/// The files behind a [`GroupSample`], kept open.
#[derive(Debug)]
pub(super) struct GroupFiles {
    location: Location,
    usage: Result<Descriptor, Missing>,
    memory: Result<Descriptor, Missing>,
    memory_stat: Result<Descriptor, Missing>,
}

impl GroupFiles {
    pub(super) fn open(location: Location) -> Self {
        let usage = open_in(
            &location.usage,
            Figure::GroupCpuUsage,
            "cpuacct.usage",
            "cpu.stat",
        );
        let memory = open_in(
            &location.memory,
            Figure::GroupMemory,
            "memory.usage_in_bytes",
            "memory.current",
        );
        let memory_stat = open_in(
            &location.memory,
            Figure::GroupMemoryParts,
            "memory.stat",
            "memory.stat",
        );
        Self {
            location,
            usage,
            memory,
            memory_stat,
        }
    }

    pub(super) const fn location(&self) -> &Location {
        &self.location
    }

    /// Whether all files are open that the location promises.
    pub(super) const fn is_whole(&self) -> bool {
        let Self {
            location,
            usage,
            memory,
            memory_stat,
        } = self;
        (usage.is_ok() || location.usage.is_none())
            && ((memory.is_ok() && memory_stat.is_ok()) || location.memory.is_none())
    }

    /// Pages that came back from swap since the group was made.
    pub(super) fn read_swap_ins(&self, buffer: &mut Buffer) -> Result<u64, Missing> {
        let figure = Figure::GroupSwapIns;
        let version = version(&self.location.memory);
        read(&self.memory_stat, figure, buffer, |text| {
            parse_swap_ins(text, version)
        })?
        .ok_or(Missing::NotOffered(figure))
    }

    pub(super) fn sample(&self, buffer: &mut Buffer) -> GroupSample {
        let usage = version(&self.location.usage);
        let memory = version(&self.location.memory);
        GroupSample {
            cpu_time: read(&self.usage, Figure::GroupCpuUsage, buffer, |text| {
                parse_usage(text, usage)
            }),
            quota: match &self.location.cpu {
                Some(group) => read_quota(group, buffer),
                None => Err(Missing::NoOwnGroup),
            },
            memory: read(&self.memory, Figure::GroupMemory, buffer, |text| {
                parse::parse_single(text, "memory").map(Bytes)
            }),
            memory_parts: read(
                &self.memory_stat,
                Figure::GroupMemoryParts,
                buffer,
                |text| parse_memory_parts(text, memory),
            ),
        }
    }
}

fn version(group: &Option<Group>) -> Version {
    // Without a group there is no file either, so the version is never looked at.
    group.as_ref().map_or(Version::V2, |group| group.version)
}

fn open_in(
    group: &Option<Group>,
    figure: Figure,
    v1: &str,
    v2: &str,
) -> Result<Descriptor, Missing> {
    let group = group.as_ref().ok_or(Missing::NoOwnGroup)?;
    let name = match group.version {
        Version::V1 => v1,
        Version::V2 => v2,
    };
    Descriptor::open(&group.directory.join(name), figure)
}

fn read<T>(
    file: &Result<Descriptor, Missing>,
    figure: Figure,
    buffer: &mut Buffer,
    parse: impl FnOnce(&[u8]) -> Result<T, FormatError>,
) -> Result<T, Missing> {
    let file = file.as_ref().map_err(|reason| *reason)?;
    parse(file.read(buffer)?).map_err(|problem| Missing::Malformed { figure, problem })
}
