//! The tables of the configuration: each key with its default, and why that is what it is. Ranges are checked by the file
//! above.

use std::path::PathBuf;
use std::time::Duration;

use persona::units::Bytes;
use serde::Deserialize;

use crate::hypervisor::HostFacts;
use crate::record::Bound;

/// `[hypervisor]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HypervisorSection {
    /// libvirt's URI.
    pub uri: String,
}

impl Default for HypervisorSection {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
        }
    }
}

/// `[paths]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathsSection {
    /// The store.
    pub state: PathBuf,
    /// Lock files of the channels.
    pub run: PathBuf,
}

impl Default for PathsSection {
    fn default() -> Self {
        Self {
            state: "/var/lib/virt-persona".into(),
            run: "/run/virt-persona".into(),
        }
    }
}

/// `[tick]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TickSection {
    /// Milliseconds between two looks at every domain. A second is short enough for `FOR 3s` and costs next to nothing.
    pub interval_ms: u64,
    /// Milliseconds between two bulk calls to libvirt, for figures that only it has.
    pub slow_interval_ms: u64,
    /// Milliseconds between two reports of a guest agent.
    pub telemetry_ms: u64,
}

impl Default for TickSection {
    fn default() -> Self {
        Self {
            interval_ms: 1000,
            slow_interval_ms: 5000,
            telemetry_ms: 1000,
        }
    }
}

impl TickSection {
    /// Between two looks at every domain.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// Between two bulk calls.
    pub fn slow_interval(&self) -> Duration {
        Duration::from_millis(self.slow_interval_ms)
    }
}

/// `[budget]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetSection {
    /// vCPUs a host CPU. Four is what most hosts run well with, since machines are rarely busy together; a pinned domain
    /// counts this many times over, because its CPUs are its own.
    pub vcpus_per_core: f64,
    /// Share of the host's memory that is kept for the host, in percent; memory is never promised twice.
    pub memory_reserve_percent: u32,
    /// At least so many MiB are kept for the host.
    pub memory_reserve_minimum_mib: u64,
}

impl Default for BudgetSection {
    fn default() -> Self {
        Self {
            vcpus_per_core: 4.0,
            memory_reserve_percent: 10,
            memory_reserve_minimum_mib: 1024,
        }
    }
}

impl BudgetSection {
    /// What all domains of this host may have together.
    pub fn of(&self, host: &HostFacts) -> planner::snapshot::Host {
        let reserve = (host.memory.0 / 100 * u64::from(self.memory_reserve_percent))
            .max(Bytes::from_mib(self.memory_reserve_minimum_mib).0);
        // The ratio is validated to be finite, positive and small; cores are few.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let vcpus = (f64::from(host.cores) * self.vcpus_per_core).floor() as u32;
        planner::snapshot::Host {
            vcpus,
            memory: Bytes(host.memory.0.saturating_sub(reserve)),
        }
    }
}

/// Whether a vCPU that the guest no longer uses is also unplugged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VcpuRemoval {
    /// Unplugged under KVM, only taken offline in the guest under emulation: there an unplug that never ends also
    /// breaks the next growth until libvirtd restarts.
    #[default]
    Auto,
    /// Never unplugged.
    Offline,
    /// Always unplugged.
    Unplug,
}

/// `[vcpu]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VcpuSection {
    /// Whether a vCPU that the guest no longer uses is also unplugged.
    pub removal: VcpuRemoval,
    /// Seconds in which a step has to be seen by host and guest.
    pub deadline_s: u64,
}

impl Default for VcpuSection {
    fn default() -> Self {
        Self {
            removal: VcpuRemoval::Auto,
            deadline_s: 10,
        }
    }
}

/// Whether memory may grow by DIMMs where nothing else has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DimmGrowth {
    /// Yes. What a DIMM brings can be taken back by a balloon only, and the DIMM itself stays until the domain ends.
    Growth,
    /// No: growth that nothing takes back shall be somebody's decision.
    #[default]
    Off,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemorySection {
    /// Seconds in which a step has to be seen by host and guest. Plugging a gigabyte takes a guest a second or two;
    /// giving memory back takes longer, because pages have to move.
    pub deadline_s: u64,
    /// Smaller changes are not made, in MiB.
    pub change_minimum_mib: u64,
    /// Memory is never grown beyond this many times what the guest booted with. What is plugged is meant to be movable, and
    /// the kernel's own tables then have to live in the boot memory; guests were seen to fail from three to four times on.
    pub boot_ratio_maximum: u32,
    /// Whether memory may grow by DIMMs where nothing else has room.
    pub dimm: DimmGrowth,
    /// Seconds for which a change by hand, of memory or vCPUs, is respected.
    pub hold_s: u64,
}

impl Default for MemorySection {
    fn default() -> Self {
        Self {
            deadline_s: 20,
            change_minimum_mib: 64,
            boot_ratio_maximum: 4,
            dimm: DimmGrowth::Off,
            hold_s: 1800,
        }
    }
}

/// What is made of a guest that asks for memory at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeedWord {
    /// It grows within its persona's bounds and its fair share.
    #[default]
    Honour,
    /// Guests are not listened to.
    Ignore,
}

/// Who is asked in a guest that has no agent of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandInWord {
    /// qemu-guest-agent, as far as it can.
    #[default]
    QemuGuestAgent,
    /// Nobody.
    None,
}

/// What becomes of users of a guest who ask for another persona.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchWord {
    /// They get it, where the persona in force lists it.
    #[default]
    Honour,
    /// Guests are not listened to.
    Ignore,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSection {
    /// Seconds in which a guest has to agree to become smaller. Its hooks have a second less; what they stop for is
    /// meant to be short, since the host waits.
    pub consent_s: u64,
    /// Whether a guest may ask for memory at once.
    pub need: NeedWord,
    /// Who stands in for the agent where there is none.
    pub stand_in: StandInWord,
    /// Whether users of a guest may ask for another persona.
    pub switch: SwitchWord,
}

impl Default for AgentSection {
    fn default() -> Self {
        Self {
            consent_s: 5,
            need: NeedWord::Honour,
            stand_in: StandInWord::QemuGuestAgent,
            switch: SwitchWord::Honour,
        }
    }
}

/// `[approvals]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalsSection {
    /// Seconds after which a proposal that nobody decided ends. After an hour the figures behind it say little of the
    /// present; where its rule still holds, a new one follows with the figures of that moment.
    pub expire_s: u64,
    /// Seconds for which a proposal stays when nothing wants it any more. Load sways, and what a person is reading shall
    /// not vanish at each dip.
    pub withdraw_s: u64,
}

impl Default for ApprovalsSection {
    fn default() -> Self {
        Self {
            expire_s: 3600,
            withdraw_s: 60,
        }
    }
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Records that are kept; the oldest go first.
    pub records: u64,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { records: 100_000 }
    }
}

/// `[effects]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EffectsSection {
    /// Seconds before and after an action over which its metrics are averaged.
    pub window_s: u64,
    /// Seconds after an action that count for neither side.
    pub settle_s: u64,
}

impl Default for EffectsSection {
    fn default() -> Self {
        let timing = planner::impact::Timing::default();
        Self {
            window_s: timing.window.as_secs(),
            settle_s: timing.settle.as_secs(),
        }
    }
}

/// `[recording]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordingSection {
    /// MiB on disk for each domain, and four times as much for the host; 0 records nothing. Four hold about a day of a
    /// busy domain and weeks of the decisions on an idle one. The host's ring has a line for each tick, with its need and
    /// each claim that has changed, so it is the shorter one: a day or two on a quiet host, less where many domains
    /// change. Decisions are told as far back as the domain's ring goes, replays begin where the host's does.
    pub mib_per_domain: u64,
    /// Nothing older is kept: a week is as long as people ask back for.
    pub hours: u64,
}

impl Default for RecordingSection {
    fn default() -> Self {
        Self {
            mib_per_domain: 4,
            hours: 168,
        }
    }
}

impl EffectsSection {
    /// As the planner has it.
    pub fn timing(&self) -> planner::impact::Timing {
        planner::impact::Timing {
            window: Duration::from_secs(self.window_s),
            settle: Duration::from_secs(self.settle_s),
        }
    }
}

impl RecordingSection {
    /// How much is kept; nothing where it is off.
    pub fn bound(&self) -> Option<Bound> {
        (self.mib_per_domain > 0).then(|| Bound {
            bytes: Bytes::from_mib(self.mib_per_domain).0,
            age: Duration::from_secs(self.hours * 3600),
        })
    }
}
