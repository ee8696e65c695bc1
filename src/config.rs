//! The daemon's configuration: `/etc/virt-persona/virt-personad.toml`, every key optional, unknown keys an error. What
//! the numbers mean and why they are what they are stands beside each. Read by the daemon at start and on reload, and
//! by `virt-personad --check-config`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::units::Bytes;
use planner::Policy;
use serde::Deserialize;

mod sections;

pub use self::sections::{
    AgentSection, ApprovalsSection, AuditSection, BudgetSection, DimmGrowth, EffectsSection,
    HypervisorSection, MemorySection, NeedWord, PathsSection, RecordingSection, StandInWord,
    SwitchWord, TickSection, VcpuRemoval, VcpuSection,
};

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
    use crate::hypervisor::HostFacts;

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
