//! The simulated domain: what it starts with, what it may grow to, and the readings that the rules see of it. Every step
//! takes effect at once, which a real guest does not do; what plays the readings is in `replay`.

use std::time::Duration;

use persona::rule::{Action, Knob, KnobValue, Resource};
use persona::signal::{Event, Metric, Named, Reading, Signal, Signals, Source};
use persona::{Bytes, DomainId, Moment, Persona};
use planner::snapshot::{Ability, Domain, Host, KnobReading, Knobs, Memory, Run, Vcpus};
use serde::Serialize;

use super::survey::Survey;
use super::trace::Row;
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

/// The granularity of virtio-mem in a guest with pages of 4 KiB.
const BLOCK: Bytes = Bytes::from_mib(2);

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

/// What a domain has that nobody gave a weight.
const USUAL_WEIGHT: u64 = 1000;

/// A knob of one device.
fn set(value: KnobValue) -> KnobReading {
    KnobReading::Set { devices: 1, value }
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

/// The domain at one moment of the replay.
pub(super) struct Machine {
    pub(super) sizes: Sizes,
    pub(super) vcpus: u32,
    pub(super) memory: Bytes,
    knobs: Knobs,
    pub(super) now: Moment,
    /// Time between two plans.
    tick: Duration,
    columns: Vec<Track>,
    /// Where the column of each metric is.
    metrics: [Option<usize>; Metric::ALL.len()],
    /// When each event that a rule waits for last happened.
    events: Vec<(Event, Option<Moment>)>,
    /// The domain as it was recorded, where a recording is played.
    pub(super) recorded: Option<DomainFrame>,
    pub(super) follows: Follows,
}

/// The latest reading of a column.
struct Track {
    signal: Signal,
    source: Source,
    period: Duration,
    latest: Option<(f64, Moment)>,
}

impl Machine {
    pub(super) fn new(persona: &Persona, sizes: Sizes, survey: &Survey) -> Self {
        let mut metrics = [None; Metric::ALL.len()];
        for (index, column) in survey.columns.iter().enumerate() {
            if let Signal::Metric(metric) = column.signal {
                metrics[metric as usize] = Some(index);
            }
        }
        let mut events: Vec<(Event, Option<Moment>)> = Vec::new();
        for rule in &persona.rules {
            for event in [Some(&rule.when), rule.until.as_ref()]
                .into_iter()
                .flatten()
                .flat_map(|condition| condition.events())
            {
                if !events.iter().any(|(known, _)| known == event) {
                    events.push((event.clone(), None));
                }
            }
        }
        Self {
            sizes,
            vcpus: sizes.vcpus,
            memory: sizes.memory,
            // It starts as the base configuration has it, as with its sizes.
            knobs: Knobs::new(|knob| {
                let usual = match knob {
                    Knob::CpuWeight => KnobValue::At(USUAL_WEIGHT),
                    _ => KnobValue::Unlimited,
                };
                set(knob.base(&persona.base).unwrap_or(usual))
            }),
            now: survey.first,
            tick: survey.tick,
            columns: survey
                .columns
                .iter()
                .map(|column| Track {
                    signal: column.signal.clone(),
                    source: column.source,
                    period: column.period,
                    latest: None,
                })
                .collect(),
            metrics,
            events,
            recorded: None,
            follows: Follows::Itself,
        }
    }

    /// Takes over a line of the trace.
    pub(super) fn take(&mut self, row: &Row) {
        for (track, value) in self.columns.iter_mut().zip(&row.values) {
            if let Some(value) = value {
                track.latest = Some((*value, row.at));
            }
        }
        for event in &row.events {
            for (waited, at) in &mut self.events {
                // A rule that names no source waits for every one.
                let meant = waited.source.is_none() || waited.source == event.source;
                if waited.kind == event.kind && meant {
                    *at = Some(row.at);
                }
            }
        }
    }

    /// Takes over a tick of a recording.
    pub(super) fn show(&mut self, frame: &DomainFrame) {
        if self.follows == Follows::Recording {
            self.vcpus = frame.vcpus.online.unwrap_or(frame.vcpus.plugged);
            self.memory = frame.memory.requested;
            self.knobs = frame.knobs;
        }
        self.recorded = Some(frame.clone());
    }

    /// Whether the persona of this digest was in force at the recorded tick.
    pub(super) fn has(&self, digest: &persona::Digest) -> bool {
        let frame = self.recorded.as_ref();
        let mark = frame.and_then(|frame| frame.persona.as_ref());
        mark.is_some_and(|mark| mark.digest == *digest)
    }

    /// A step took effect.
    pub(super) fn change(&mut self, resource: Resource, to: u64) {
        match resource {
            // The guard keeps steps within the limits, which are of this type.
            Resource::Vcpus => self.vcpus = u32::try_from(to).unwrap_or(self.sizes.vcpus_most),
            Resource::Memory => self.memory = Bytes(to),
        }
    }

    /// A knob was turned.
    pub(super) fn turn(&mut self, knob: Knob, to: KnobValue) -> KnobReading {
        self.knobs = self.knobs.with(knob, set(to));
        set(to)
    }

    /// Whether a signal is ever read in this replay.
    pub(super) fn knows(&self, signal: &Signal) -> bool {
        match signal {
            Signal::Metric(metric) => {
                self.own(*metric).is_some()
                    || self.metrics[*metric as usize].is_some()
                    || derived_from(*metric)
                        .is_some_and(|other| self.metrics[other as usize].is_some())
            }
            Signal::Named(_) => self.columns.iter().any(|track| track.signal == *signal),
        }
    }

    /// The domain as the planner sees it.
    pub(super) fn domain<'a>(&'a self, id: DomainId, persona: &'a Persona) -> Domain<'a> {
        if let Some(frame) = &self.recorded {
            return self.recorded_domain(frame, id, persona);
        }
        Domain {
            id,
            name: "simulated",
            persona: Some(persona),
            run: Run::Running,
            instance: Some(1),
            vcpus: Vcpus {
                maximum: self.sizes.vcpus_most,
                fixed: 1,
                plugged: self.vcpus,
                online: Some(self.vcpus),
                weight: 1,
                ability: Ability::Both,
            },
            memory: Memory {
                boot: self.sizes.memory_least,
                requested: self.memory,
                plugged: self.memory,
                maximum: self.sizes.memory_most,
                minimum: self.sizes.memory_least,
                block: BLOCK,
                means: planner::Means::Usual,
                balloon: None,
                dimm: None,
                ability: Ability::Both,
            },
            knobs: self.knobs,
            signals: self,
            shifted_by: None,
            adjusted_by: &[],
        }
    }

    fn recorded_domain<'a>(
        &'a self,
        frame: &'a DomainFrame,
        id: DomainId,
        persona: &'a Persona,
    ) -> Domain<'a> {
        let (mut vcpus, mut memory) = (frame.vcpus, frame.memory);
        if self.follows == Follows::Itself {
            vcpus.plugged = self.vcpus;
            vcpus.online = Some(self.vcpus);
            vcpus.maximum = self.sizes.vcpus_most;
            memory.requested = self.memory;
            memory.plugged = self.memory;
            memory.maximum = self.sizes.memory_most;
        }
        Domain {
            id,
            name: &frame.name,
            persona: Some(persona),
            run: frame.run,
            instance: frame.instance,
            vcpus,
            memory,
            knobs: self.knobs,
            signals: self,
            // A shift of personas is not played: the persona is the one that is given.
            shifted_by: None,
            adjusted_by: &[],
        }
    }

    /// What the load is a share of: the size at which a reading was recorded.
    #[allow(clippy::cast_precision_loss)]
    fn recorded_size(&self) -> (u32, f64) {
        self.recorded.as_ref().map_or(
            (self.sizes.vcpus_recorded, self.sizes.memory.0 as f64),
            |frame| {
                let vcpus = frame.vcpus.online.unwrap_or(frame.vcpus.plugged);
                (vcpus, frame.memory.plugged.0 as f64)
            },
        )
    }

    /// The work of a closed load in vCPUs, whatever the domain has.
    pub(super) fn work(&self) -> Option<f64> {
        if self.sizes.load == Load::Open {
            return None;
        }
        let reading = match &self.recorded {
            Some(frame) => frame.signals.reading(Metric::CpuUtilization),
            None => self.track(self.metrics[Metric::CpuUtilization as usize]?),
        };
        let reading = reading.filter(|reading| reading.is_fresh(self.now))?;
        Some(reading.value / 100.0 * f64::from(self.recorded_size().0))
    }

    fn track(&self, index: usize) -> Option<Reading> {
        let track = &self.columns[index];
        let (value, at) = track.latest?;
        Some(Reading {
            value,
            source: track.source,
            at,
            period: track.period,
        })
    }

    /// What the simulated domain itself shows, whatever the trace says of the recorded one.
    #[allow(clippy::cast_precision_loss)]
    fn own(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::VcpuCount => Some(f64::from(self.vcpus)),
            Metric::MemorySize => Some(self.memory.0 as f64),
            _ => None,
        }
    }

    /// A reading of the recorded domain as the simulated one would show it.
    #[allow(clippy::cast_precision_loss)]
    fn scaled(&self, metric: Metric, value: f64) -> f64 {
        if self.sizes.load == Load::Open {
            return value;
        }
        let ((vcpus, start), size) = (self.recorded_size(), self.memory.0 as f64);
        match metric {
            Metric::CpuUtilization => {
                (value * f64::from(vcpus) / f64::from(self.vcpus.max(1))).min(100.0)
            }
            Metric::MemoryUtilization => (value * start / size.max(1.0)).min(100.0),
            Metric::MemoryAvailable => (size - (start - value)).max(0.0),
            _ => value,
        }
    }
}

/// The one of the guest's two figures of memory that the other can be computed from.
fn derived_from(metric: Metric) -> Option<Metric> {
    match metric {
        Metric::MemoryAvailable => Some(Metric::MemoryUtilization),
        Metric::MemoryUtilization => Some(Metric::MemoryAvailable),
        _ => None,
    }
}

impl Signals for Machine {
    #[allow(clippy::cast_precision_loss)]
    fn reading(&self, metric: Metric) -> Option<Reading> {
        if let Some(frame) = &self.recorded
            && self.follows == Follows::Recording
        {
            return frame.signals.reading(metric);
        }
        if let Some(value) = self.own(metric) {
            return Some(Reading {
                value,
                source: Source::Host,
                at: self.now,
                period: self.tick,
            });
        }
        if let Some(frame) = &self.recorded {
            let mut reading = frame.signals.reading(metric)?;
            reading.value = self.scaled(metric, reading.value);
            return Some(reading);
        }
        if let Some(index) = self.metrics[metric as usize] {
            let mut reading = self.track(index)?;
            reading.value = self.scaled(metric, reading.value);
            return Some(reading);
        }
        // A share and an amount of the same memory: the daemon computes one of the other as well.
        let other = derived_from(metric)?;
        let mut reading = self.track(self.metrics[other as usize]?)?;
        let size = self.memory.0 as f64;
        let value = self.scaled(other, reading.value);
        reading.value = match metric {
            Metric::MemoryAvailable => (1.0 - value / 100.0) * size,
            _ => (1.0 - value / size.max(1.0)).clamp(0.0, 1.0) * 100.0,
        };
        Some(reading)
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        if let Some(frame) = &self.recorded {
            return frame.signals.named(named);
        }
        let of = |track: &Track| matches!(&track.signal, Signal::Named(own) if own == named);
        self.track(self.columns.iter().position(of)?)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        if let Some(frame) = &self.recorded {
            return frame.signals.happened(event);
        }
        let (_, at) = self.events.iter().find(|(waited, _)| waited == event)?;
        *at
    }
}
