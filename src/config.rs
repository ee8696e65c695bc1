//! The daemon's configuration: `/etc/virt-persona/virt-personad.toml`, every key optional, unknown keys an error. What
//! the numbers mean and why they are what they are stands beside each. Read by the daemon at start and on reload, and
//! by `virt-personad --check-config`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::units::Bytes;
use planner::Policy;
use serde::Deserialize;

use crate::hypervisor::HostFacts;
use crate::record::Bound;

/// Where the configuration is looked for unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/virt-persona/virt-personad.toml";

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Connection to the hypervisor.
    pub hypervisor: HypervisorSection,
    /// Where things are kept.
    pub paths: PathsSection,
    /// The rhythm of the daemon.
    pub tick: TickSection,
    /// What all domains may have together.
    pub budget: BudgetSection,
    /// vCPU changes.
    pub vcpu: VcpuSection,
    /// Memory changes.
    pub memory: MemorySection,
    /// What guests have to say.
    pub agent: AgentSection,
    /// What waits for people.
    pub approvals: ApprovalsSection,
    /// The record of what was decided and done.
    pub audit: AuditSection,
    /// What is measured of the effects of actions.
    pub effects: EffectsSection,
    /// What was seen of each domain, tick by tick.
    pub recording: RecordingSection,
}

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

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("failed to read the configuration {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be; the parser shows the line.
    #[error("the configuration {} is not valid", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("the configuration {} has {key} = {value}, which must be {range}", path.display())]
    Range {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
}

impl Config {
    /// Reads a file; one that is absent at the default place means all defaults.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && path == Path::new(DEFAULT_PATH) =>
            {
                String::new()
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.into(),
                    source,
                });
            }
        };
        Self::parse(&text, path)
    }

    /// Parses and validates a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.into(),
            source: Box::new(source),
        })?;
        config.validate(path)?;
        Ok(config)
    }

    /// The planner's numbers.
    pub fn policy(&self) -> Policy {
        Policy {
            memory_change_minimum: Bytes::from_mib(self.memory.change_minimum_mib),
            memory_growth_ratio: self.memory.boot_ratio_maximum,
            hold: Duration::from_secs(self.memory.hold_s),
            proposal_expiry: Duration::from_secs(self.approvals.expire_s),
            proposal_grace: Duration::from_secs(self.approvals.withdraw_s),
            ..Policy::default()
        }
    }

    fn validate(&self, path: &Path) -> Result<(), ConfigError> {
        let check = |good, key, value: String, range| {
            if good {
                Ok(())
            } else {
                Err(ConfigError::Range {
                    path: path.into(),
                    key,
                    value,
                    range,
                })
            }
        };
        let tick = &self.tick;
        check(
            (100..=60_000).contains(&tick.interval_ms),
            "tick.interval_ms",
            tick.interval_ms.to_string(),
            "100 to 60000",
        )?;
        check(
            (1000..=600_000).contains(&tick.slow_interval_ms),
            "tick.slow_interval_ms",
            tick.slow_interval_ms.to_string(),
            "1000 to 600000",
        )?;
        check(
            (100..=60_000).contains(&tick.telemetry_ms),
            "tick.telemetry_ms",
            tick.telemetry_ms.to_string(),
            "100 to 60000",
        )?;
        let ratio = self.budget.vcpus_per_core;
        check(
            ratio.is_finite() && (0.1..=64.0).contains(&ratio),
            "budget.vcpus_per_core",
            ratio.to_string(),
            "0.1 to 64",
        )?;
        check(
            self.budget.memory_reserve_percent <= 90,
            "budget.memory_reserve_percent",
            self.budget.memory_reserve_percent.to_string(),
            "0 to 90",
        )?;
        check(
            (1..=600).contains(&self.vcpu.deadline_s),
            "vcpu.deadline_s",
            self.vcpu.deadline_s.to_string(),
            "1 to 600",
        )?;
        check(
            (1..=3600).contains(&self.memory.deadline_s),
            "memory.deadline_s",
            self.memory.deadline_s.to_string(),
            "1 to 3600",
        )?;
        check(
            (1..=65_536).contains(&self.memory.change_minimum_mib),
            "memory.change_minimum_mib",
            self.memory.change_minimum_mib.to_string(),
            "1 to 65536",
        )?;
        check(
            (1..=64).contains(&self.memory.boot_ratio_maximum),
            "memory.boot_ratio_maximum",
            self.memory.boot_ratio_maximum.to_string(),
            "1 to 64",
        )?;
        check(
            (1..=60).contains(&self.agent.consent_s),
            "agent.consent_s",
            self.agent.consent_s.to_string(),
            "1 to 60",
        )?;
        check(
            (1..=2_592_000).contains(&self.approvals.expire_s),
            "approvals.expire_s",
            self.approvals.expire_s.to_string(),
            "1 to 2592000",
        )?;
        check(
            (1..=86_400).contains(&self.approvals.withdraw_s),
            "approvals.withdraw_s",
            self.approvals.withdraw_s.to_string(),
            "1 to 86400",
        )?;
        check(
            (100..=100_000_000).contains(&self.audit.records),
            "audit.records",
            self.audit.records.to_string(),
            "100 to 100000000",
        )?;
        check(
            (1..=3600).contains(&self.effects.window_s),
            "effects.window_s",
            self.effects.window_s.to_string(),
            "1 to 3600",
        )?;
        check(
            self.effects.settle_s <= 600,
            "effects.settle_s",
            self.effects.settle_s.to_string(),
            "0 to 600",
        )?;
        check(
            self.recording.mib_per_domain <= 1024,
            "recording.mib_per_domain",
            self.recording.mib_per_domain.to_string(),
            "0 to 1024",
        )?;
        check(
            (1..=8760).contains(&self.recording.hours),
            "recording.hours",
            self.recording.hours.to_string(),
            "1 to 8760",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("test.toml")).map_err(|error| match error {
            ConfigError::Parse { source, .. } => source.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn an_empty_configuration_is_all_defaults() {
        assert_eq!(check(""), Ok(Config::default()));
    }

    #[test]
    fn the_packaged_configuration_is_the_defaults() {
        let text = include_str!("../packaging/virt-personad.toml");
        assert_eq!(check(text), Ok(Config::default()));
        // Every line that is commented out shows a default too: with the marks taken away it must still be one.
        let bare: String = text
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(rest) if rest.contains(" = ") && !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(check(&bare), Ok(Config::default()));
        assert!(
            bare.lines()
                .filter(|line| line.contains(" = ") && !line.starts_with('#'))
                .count()
                > 10
        );
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = check("[tick]\nintervall_ms = 5\n").unwrap_err();
        assert!(
            error.contains("intervall_ms") && error.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let error = check("[tick]\ninterval_ms = 5\n").unwrap_err();
        assert!(
            error.contains("tick.interval_ms = 5") && error.contains("100 to 60000"),
            "{error}"
        );
        assert!(check("[budget]\nvcpus_per_core = nan\n").is_err());
    }

    #[test]
    fn the_budget_keeps_the_larger_reserve_for_the_host() {
        let host = |memory| HostFacts {
            cores: 2,
            memory,
            library_version: String::new(),
            emulator_version: String::new(),
        };
        let budget = BudgetSection::default();
        assert_eq!(
            budget.of(&host(Bytes::from_mib(4096))).memory,
            Bytes::from_mib(3072)
        );
        assert_eq!(
            budget.of(&host(Bytes(100 * Bytes::GIB))).memory,
            Bytes(90 * Bytes::GIB)
        );
        assert_eq!(budget.of(&host(Bytes::from_mib(512))).memory, Bytes(0));
        assert_eq!(budget.of(&host(Bytes(0))).vcpus, 8);
    }
}
