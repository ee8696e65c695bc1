//! The simulated domain: how large it is, and what the planner sees of it. Every step takes effect at once, which a real guest
//! does not do; what plays the readings is in `replay`, what the domain starts with in `sizes`, what rules read of it in `signals`.

mod signals;

use std::time::Duration;

use persona::rule::{Knob, KnobValue, Resource};
use persona::signal::{Event, Metric, Signal, Signals, Source};
use persona::{Bytes, DomainId, Moment, Persona};
use planner::snapshot::{Ability, Domain, KnobReading, Knobs, Memory, Run, Vcpus};

use super::sizes::{Follows, Load, Sizes};
use super::survey::Survey;
use super::trace::Row;
use crate::record::DomainFrame;

use signals::derived_from;

/// The granularity of virtio-mem in a guest with pages of 4 KiB.
const BLOCK: Bytes = Bytes::from_mib(2);

/// What a domain has that nobody gave a weight.
const USUAL_WEIGHT: u64 = 1000;

/// A knob of one device.
fn set(value: KnobValue) -> KnobReading {
    KnobReading::Set { devices: 1, value }
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
}
