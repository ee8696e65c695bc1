//! What the simulated domain starts with and may grow to: what is wished for, and what the persona or the recording says where
//! nothing is. What becomes of the sizes in a replay is in `machine`. `cli` and `evaluate` say what is wished for.

use persona::rule::{Action, Resource};
use persona::{Bytes, Persona};
use planner::snapshot::Host;
use serde::Serialize;

use crate::record::DomainFrame;

/// How the load of the trace goes with the size of the domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// The readings are played as they are, whatever the domain has.
    #[default]
    Open,
    /// The readings of CPU and memory were recorded at the domain's start size: the same work is less of a larger domain.
    Closed,
}

/// What is wished for the domain and its host; where nothing is said, the persona's base configuration decides.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// vCPUs at the start.
    pub vcpus: Option<u32>,
    /// vCPUs that the trace was recorded at, where they are not those of the start.
    pub vcpus_recorded: Option<u32>,
    /// The definition's limit of vCPUs.
    pub vcpus_most: Option<u32>,
    /// Memory at the start.
    pub memory: Option<Bytes>,
    /// The most memory that the mechanism can give.
    pub memory_most: Option<Bytes>,
    /// vCPUs that the host has for all domains, of which this is the only one.
    pub host_vcpus: Option<u32>,
    /// Memory that the host has for all domains.
    pub host_memory: Option<Bytes>,
    /// How the load goes with the size.
    pub load: Load,
}

/// What the domain starts with, and what bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// vCPUs at the start.
    pub vcpus: u32,
    /// vCPUs that the trace was recorded at, which a closed load goes by.
    pub vcpus_recorded: u32,
    /// The definition's limit of vCPUs.
    pub vcpus_most: u32,
    /// Memory at the start, in bytes.
    pub memory: Bytes,
    /// The least memory that the mechanism can leave, in bytes.
    pub memory_least: Bytes,
    /// The most memory that the mechanism can give, in bytes.
    pub memory_most: Bytes,
    /// What the host has for all domains.
    pub host: Host,
    /// How the load goes with the size.
    pub load: Load,
}

/// Why there is no such domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Larger than it may be.
    #[error(
        "the domain would start with {start} and may have {most} at most; give both, as START:MAX"
    )]
    StartAboveMost {
        /// The start.
        start: String,
        /// The limit.
        most: String,
    },
}

/// Where neither the persona nor the command line says how much memory there is: what small guests boot with.
const USUAL_MEMORY: Bytes = Bytes::from_mib(1024);

/// Where nothing bounds the growth, the domain may become so many times as large as it starts, so that the replay shows
/// growth and ends somewhere.
const ROOM: u32 = 4;

impl Sizes {
    /// The sizes for a persona.
    ///
    /// # Errors
    /// Where a start is above its limit.
    pub fn of(persona: &Persona, setting: &Setting) -> Result<Self, SettingError> {
        let (cpu, memory) = (persona.base.cpu.as_ref(), persona.base.memory.as_ref());
        let vcpus = setting
            .vcpus
            .or(cpu.map(|cpu| cpu.initial.unwrap_or(cpu.min)))
            .unwrap_or(1)
            .max(1);
        let vcpus_most = setting
            .vcpus_most
            .or(cpu.and_then(|cpu| cpu.max))
            .unwrap_or_else(|| {
                let set = u32::try_from(largest(persona, Resource::Vcpus)).unwrap_or(u32::MAX);
                vcpus.saturating_mul(ROOM).max(set)
            });
        let start = setting
            .memory
            .or(memory.map(|memory| memory.initial.unwrap_or(memory.min)))
            .unwrap_or(USUAL_MEMORY);
        let memory_most = setting
            .memory_most
            .or(memory.and_then(|memory| memory.max))
            .unwrap_or_else(|| {
                let room = start.0.saturating_mul(ROOM.into());
                Bytes(room.max(largest(persona, Resource::Memory)))
            });
        within(vcpus, vcpus_most, start, memory_most)?;
        Ok(Self {
            vcpus,
            vcpus_recorded: setting.vcpus_recorded.unwrap_or(vcpus),
            vcpus_most,
            memory: start,
            memory_least: memory.map_or(start, |memory| memory.min.min(start)),
            memory_most,
            host: Host {
                vcpus: setting.host_vcpus.unwrap_or(vcpus_most),
                memory: setting.host_memory.unwrap_or(memory_most),
            },
            load: setting.load,
        })
    }
}

impl Sizes {
    /// The sizes of a recording, and whether they are those that were recorded.
    ///
    /// # Errors
    /// Where a start is above its limit.
    pub fn recorded(
        frame: &DomainFrame,
        budget: Host,
        setting: &Setting,
    ) -> Result<(Self, Follows), SettingError> {
        let present = frame.vcpus.online.unwrap_or(frame.vcpus.plugged);
        let vcpus = setting.vcpus.unwrap_or(present);
        let vcpus_most = setting.vcpus_most.unwrap_or(frame.vcpus.maximum);
        let memory = setting.memory.unwrap_or(frame.memory.requested);
        let memory_most = setting.memory_most.unwrap_or(frame.memory.maximum);
        within(vcpus, vcpus_most, memory, memory_most)?;
        let sizes = Self {
            vcpus,
            vcpus_recorded: present,
            vcpus_most,
            memory,
            memory_least: frame.memory.minimum.min(memory),
            memory_most,
            host: Host {
                vcpus: setting.host_vcpus.unwrap_or(budget.vcpus),
                memory: setting.host_memory.unwrap_or(budget.memory),
            },
            load: setting.load,
        };
        let follows = if setting.asks_for_sizes() {
            Follows::Itself
        } else {
            Follows::Recording
        };
        Ok((sizes, follows))
    }
}

impl Setting {
    /// Whether the domain or its host are to be others than what a recording has.
    fn asks_for_sizes(&self) -> bool {
        self.vcpus.is_some()
            || self.vcpus_most.is_some()
            || self.memory.is_some()
            || self.memory_most.is_some()
            || self.host_vcpus.is_some()
            || self.host_memory.is_some()
    }
}

/// What the size of the simulated domain goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The recording, as long as it is decided as it was.
    Recording,
    /// The steps of the replay, which take effect at once.
    Itself,
}

/// Whether a start is within its limit.
fn within(
    vcpus: u32,
    vcpus_most: u32,
    memory: Bytes,
    memory_most: Bytes,
) -> Result<(), SettingError> {
    if vcpus > vcpus_most {
        return Err(SettingError::StartAboveMost {
            start: format!("{vcpus} vCPUs"),
            most: vcpus_most.to_string(),
        });
    }
    if memory > memory_most {
        return Err(SettingError::StartAboveMost {
            start: memory.to_string(),
            most: memory_most.to_string(),
        });
    }
    Ok(())
}

/// The largest amount that a rule brings a resource to.
fn largest(persona: &Persona, resource: Resource) -> u64 {
    let set = |action: &Action| match (action, resource) {
        (Action::SetVcpus(count), Resource::Vcpus) => Some(u64::from(*count)),
        (Action::SetMemory(size), Resource::Memory) => Some(size.0),
        _ => None,
    };
    let actions = persona
        .rules
        .iter()
        .flat_map(|rule| persona.actions(rule).filter_map(set));
    actions.max().unwrap_or(0)
}
