//! What was seen at one moment: the host, and each domain with its persona and its readings. Built by the daemon,
//! read by every stage; nothing here is decided.

use persona::Persona;
use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue, Resource, Rule};
use persona::signal::{Metric, Signals};
use persona::units::{Bytes, Moment};
use serde::{Deserialize, Serialize};

use crate::mechanism::Means;

/// Everything a plan is made from.
pub struct Snapshot<'a> {
    /// What all domains may have together.
    pub host: Host,
    /// What the host itself shows of its need.
    pub strain: Strain,
    /// Every domain, managed or not: what an unmanaged one has is not there for others.
    pub domains: Vec<Domain<'a>>,
}

/// The host's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// vCPUs that all domains may have together.
    pub vcpus: u32,
    /// Memory that all domains may have together.
    pub memory: Bytes,
}

impl Host {
    /// The budget of one resource, in vCPUs or bytes.
    pub fn budget(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Vcpus => u64::from(self.vcpus),
            Resource::Memory => self.memory.0,
        }
    }
}

/// What the host itself shows of its need; a figure that is absent or too old is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Strain {
    /// Its memory.
    pub memory: Option<HostMemory>,
    /// `host.memory.pressure`, in percent.
    pub memory_pressure: Option<f64>,
    /// `host.cpu.pressure`, in percent.
    pub cpu_pressure: Option<f64>,
}

/// The host's memory, what is kept for the host included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemory {
    /// All that it has.
    pub total: Bytes,
    /// What it could use without swapping.
    pub available: Bytes,
}

impl HostMemory {
    /// What is available, in percent of all.
    #[allow(clippy::cast_precision_loss)]
    pub fn available_percent(&self) -> f64 {
        self.available.0 as f64 * 100.0 / self.total.0.max(1) as f64
    }
}

/// One domain.
#[derive(Clone, Copy)]
pub struct Domain<'a> {
    /// UUID.
    pub id: DomainId,
    /// Name, for reports.
    pub name: &'a str,
    /// The persona in force; `None` leaves the domain alone.
    pub persona: Option<&'a Persona>,
    /// Whether it can be changed.
    pub run: Run,
    /// Number of the running instance: what was seen of an earlier one says nothing of this one.
    pub instance: Option<u32>,
    /// vCPUs.
    pub vcpus: Vcpus,
    /// Memory.
    pub memory: Memory,
    /// What limits it otherwise.
    pub knobs: Knobs,
    /// Readings.
    pub signals: &'a dyn Signals,
    /// The rule, of another persona, that gave the domain the one that it has; its `until` gives the one before back.
    pub shifted_by: Option<&'a Rule>,
    /// Rules that have adjusted something of the persona in the guest, which their `until` takes back.
    pub adjusted_by: &'a [String],
}

/// Whether a domain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// Its vCPUs run.
    Running,
    /// It holds its resources but cannot answer.
    Paused,
    /// It holds nothing yet, and will soon hold what its definition and its persona begin with.
    Starting,
    /// It holds nothing.
    Off,
}

/// vCPUs of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vcpus {
    /// The definition's limit.
    pub maximum: u32,
    /// Never removed: boot vCPUs that are not hot-pluggable.
    pub fixed: u32,
    /// Plugged, as the hypervisor says.
    pub plugged: u32,
    /// Online, as the guest says.
    pub online: Option<u32>,
    /// What one of them counts for in the host's budget: more than one where they are pinned, because a pinned one
    /// keeps a host CPU to itself.
    pub weight: u32,
    /// What bounds a change, when anything does.
    pub ability: Ability,
}

/// Memory of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What it boots with, or what the deflated balloon leaves.
    pub boot: Bytes,
    /// What was asked for: boot memory plus the requested hot-plugged, or the balloon's target.
    pub requested: Bytes,
    /// What the hypervisor says is there.
    pub plugged: Bytes,
    /// The most that the mechanism can give.
    pub maximum: Bytes,
    /// The least that the mechanism can leave.
    pub minimum: Bytes,
    /// Changes are multiples of this.
    pub block: Bytes,
    /// By what it is changed; the planner itself says when it is another than the usual one.
    #[serde(default)]
    pub means: Means,
    /// The balloon beside virtio-mem devices; absent where it is the usual mechanism itself.
    #[serde(default)]
    pub balloon: Option<Balloon>,
    /// What DIMMs could add; absent where none can be added, or shall not.
    #[serde(default)]
    pub dimm: Option<Dimm>,
    /// What bounds a change, when anything does.
    pub ability: Ability,
}

/// A balloon beside virtio-mem devices. It takes from what is not theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// What it leaves now.
    pub left: Bytes,
    /// What it leaves at least.
    pub minimum: Bytes,
    /// What is there when it is deflated.
    pub most: Bytes,
    /// Its granularity.
    pub block: Bytes,
}

/// What DIMMs could add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimm {
    /// The size of the whole machine with all of them.
    pub most: Bytes,
    /// Each is a multiple of this.
    pub piece: Bytes,
}

/// What each knob of a domain shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs([KnobReading; Knob::ALL.len()]);

impl Knobs {
    /// What `read` says of each.
    pub fn new(read: impl Fn(Knob) -> KnobReading) -> Self {
        Self(Knob::ALL.map(read))
    }

    /// With another reading of one of them.
    #[must_use]
    pub fn with(mut self, knob: Knob, reading: KnobReading) -> Self {
        self.0[knob as usize] = reading;
        self
    }

    /// One of them.
    pub fn reading(self, knob: Knob) -> KnobReading {
        self.0[knob as usize]
    }
}

/// What a knob shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnobReading {
    /// What it is set to.
    Set {
        /// Over how many devices it spreads; 1 where it is of the whole machine.
        devices: u32,
        /// The value over all of them.
        value: KnobValue,
    },
    /// Its devices are not limited alike, so there is no one value.
    Uneven {
        /// How many devices there are.
        devices: u32,
    },
    /// It cannot be turned.
    Unable(Obstacle),
    /// Nobody has looked.
    #[default]
    Unknown,
}

impl KnobReading {
    /// The value over all devices, where there is one.
    pub fn value(self) -> Option<KnobValue> {
        match self {
            Self::Set { value, .. } => Some(value),
            Self::Uneven { .. } | Self::Unable(_) | Self::Unknown => None,
        }
    }

    /// How many devices there are, where it is known.
    pub fn devices(self) -> Option<u32> {
        match self {
            Self::Set { devices, .. } | Self::Uneven { devices } => Some(devices),
            Self::Unable(_) | Self::Unknown => None,
        }
    }
}

/// Why a knob cannot be turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// The domain has no such device.
    NoDevice,
    /// An interface has no device on the host, as in user mode, so nothing there can limit it.
    NoHostDevice,
    /// The definition limits devices in its own way (bursts, reads and writes apart), which one value over all would
    /// overwrite and could not give back.
    OwnLimits,
    /// The hypervisor cannot be asked at the moment.
    NoHypervisor,
}

/// Whether a mechanism is there to change a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// It can grow and shrink.
    Both,
    /// The definition has no hot-pluggable vCPUs: its maximum equals what it has.
    NoHotplugVcpus,
    /// No virtio-mem device and no balloon.
    NoMemoryDevice,
    /// Growth is possible, but nothing in the guest brings hot-plugged CPUs online or takes them offline.
    NoGuestAgent,
    /// The hypervisor cannot be asked at the moment: nothing could be done, and nothing verified.
    NoHypervisor,
}

impl Domain<'_> {
    /// What one unit of the resource counts for in the host's budget.
    pub fn weight(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Vcpus => u64::from(self.vcpus.weight.max(1)),
            Resource::Memory => 1,
        }
    }

    /// What it has, as an upper bound, in its own units; steps in flight come on top.
    pub fn held(&self, resource: Resource) -> u64 {
        match (self.run, resource) {
            (Run::Off, _) => return 0,
            // Nothing is online before the guest runs; all that the definition begins with will be.
            (Run::Starting, Resource::Vcpus) => return u64::from(self.vcpus.plugged),
            (Run::Starting | Run::Running | Run::Paused, _) => {}
        }
        match resource {
            // A CPU that the guest has taken offline runs nothing: it is given back even while its device stays.
            Resource::Vcpus => u64::from(
                self.vcpus
                    .online
                    .unwrap_or(self.vcpus.plugged)
                    .min(self.vcpus.plugged),
            ),
            Resource::Memory => self.memory.requested.max(self.memory.plugged).0,
        }
    }

    /// What the planner compares its wishes with: what is in force, as far as it is known.
    pub fn present(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Vcpus => u64::from(self.vcpus.online.unwrap_or(self.vcpus.plugged)),
            Resource::Memory => self.memory.requested.0,
        }
    }

    /// What the hypervisor was asked for last, which is what a change by hand changes.
    pub fn asked(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Vcpus => u64::from(self.vcpus.plugged),
            Resource::Memory => self.memory.requested.0,
        }
    }

    /// The limits of the definition: (least, most).
    pub fn limits(&self, resource: Resource) -> (u64, u64) {
        match resource {
            Resource::Vcpus => (
                u64::from(self.vcpus.fixed.max(1)),
                u64::from(self.vcpus.maximum),
            ),
            Resource::Memory => (self.memory.minimum.0, self.memory.maximum.0),
        }
    }

    /// What bounds a change of the resource.
    pub fn ability(&self, resource: Resource) -> Ability {
        match resource {
            Resource::Vcpus => self.vcpus.ability,
            Resource::Memory => self.memory.ability,
        }
    }

    /// A fresh value of a metric, or nothing.
    pub fn value(&self, metric: Metric, now: Moment) -> Option<f64> {
        self.signals
            .reading(metric)
            .filter(|reading| reading.is_fresh(now))
            .map(|reading| reading.value)
    }
}
