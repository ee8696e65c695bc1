//! Frames as lines of JSON. A line holds what differs from the frame before, and a reading that is measured anew at each
//! tick with the same value is not written again: an idle domain costs nearly nothing. Both directions keep the same
//! frame, so that what is read is what was written, to the last digit.

use std::collections::BTreeMap;
use std::time::Duration;

use persona::domain::DomainId;
use persona::signal::{Event, EventKind, Metric, Named, Reading, Source};
use persona::units::Moment;
use planner::snapshot::{Host, Memory, Run, Strain, Vcpus};
use planner::stage::HostState;
use planner::{LimitStep, Other, Policy, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frame::{
    DomainFrame, Ended, HostFrame, Needed, PersonaMark, Signalled, StateNote, TurnEnded,
};
use super::knob::{Changed, after, changed};

/// A line of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct HostLine {
    pub(super) at: Moment,
    /// Nothing before this line counts.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(super) whole: bool,
    /// Ticks before this one that could not be written.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(super) lost: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<Host>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strain: Option<StrainLine>,
    /// Where they differ from the frame before: stages have hysteresis, so they do not follow from the figures of a tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stages: Option<HostState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
    /// Claims that have changed; nothing for a domain that is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    domains: BTreeMap<DomainId, Option<Other>>,
}

/// As [`Strain`], with numbers that come back as they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StrainLine {
    memory: Option<planner::snapshot::HostMemory>,
    memory_pressure: Option<Number>,
    cpu_pressure: Option<Number>,
}

/// A line of a domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DomainLine {
    pub(super) at: Moment,
    /// Nothing before this line counts.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(super) whole: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<MachineLine>,
    /// Readings that have changed; nothing for one that is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    readings: BTreeMap<String, Option<ReadingLine>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    events: BTreeMap<String, Option<Moment>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<StateNote>,
    /// Steps that ended before this tick.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ended: Vec<Ended>,
    /// What knobs show that have changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    knobs: Changed,
    /// Turns of knobs that ended before this tick.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) turned: Vec<TurnEnded>,
    /// Turns of knobs that this tick began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) turns: Vec<LimitStep>,
    /// What the guest said that it needs, before this tick.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) needs: Vec<Needed>,
    /// Steps that this tick began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<Step>,
    /// How the explanation of the decision differs from the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) decision: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct MachineLine {
    name: String,
    run: Run,
    instance: Option<u32>,
    vcpus: Vcpus,
    memory: Memory,
    persona: Option<PersonaMark>,
}

/// A reading: its value alone where it was measured at this very tick by the source and with the period of the one
/// before; else value, source, age and period in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum ReadingLine {
    Value(Number),
    Whole(Number, Source, i64, u64),
}

/// A number that comes back as it was: a whole one as it is, any other as the shortest text that means it, because the
/// parser of JSON rounds numbers by its own ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Text(String),
}

/// Beyond it not every whole number is one of floating point.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_not(flag: &bool) -> bool {
    !*flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

impl Number {
    #[allow(clippy::cast_possible_truncation, reason = "whole and in range")]
    fn of(value: f64) -> Self {
        let negative_zero = value == 0.0 && value.is_sign_negative();
        if value.fract() == 0.0 && value.abs() < EXACT && !negative_zero {
            Self::Whole(value as i64)
        } else {
            Self::Text(value.to_string())
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "what is written is exact")]
    fn read(&self) -> Result<f64, LineError> {
        match self {
            Self::Whole(value) => Ok(*value as f64),
            Self::Text(text) => text.parse().map_err(|_| LineError::Number(text.clone())),
        }
    }
}

/// Why a line does not go with those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// No number.
    #[error("`{0}` is no number")]
    Number(String),
    /// No metric, or no event, of this version.
    #[error("`{0}` is neither a metric nor an event of this version")]
    Name(String),
    /// A change of what was never told.
    #[error("it tells a change of something that no line before it has")]
    Change,
}

/// The host's frame as it was told last.
#[derive(Clone, Debug, Default)]
pub(super) struct HostCodec {
    pub(super) frame: Option<HostFrame>,
}

impl HostCodec {
    /// The line of a frame.
    pub(super) fn write(&mut self, at: Moment, lost: u64, frame: HostFrame) -> HostLine {
        let before = self.frame.as_ref();
        let whole = before.is_none();
        let gone = before.into_iter().flat_map(|before| before.domains.keys());
        let gone = gone
            .filter(|id| !frame.domains.contains_key(id))
            .map(|id| (*id, None));
        let changed = frame
            .domains
            .iter()
            .filter(|(id, other)| before.and_then(|before| before.domains.get(id)) != Some(other));
        let line = HostLine {
            at,
            whole,
            lost,
            budget: (before.map(|before| before.budget) != Some(frame.budget))
                .then_some(frame.budget),
            strain: (before.map(|before| before.strain) != Some(frame.strain)).then(|| {
                StrainLine {
                    memory: frame.strain.memory,
                    memory_pressure: frame.strain.memory_pressure.map(Number::of),
                    cpu_pressure: frame.strain.cpu_pressure.map(Number::of),
                }
            }),
            stages: (before.map(|before| before.stages) != Some(frame.stages))
                .then_some(frame.stages),
            policy: (before.map(|before| &before.policy) != Some(&frame.policy))
                .then(|| frame.policy.clone()),
            domains: gone
                .chain(changed.map(|(id, other)| (*id, Some(other.clone()))))
                .collect(),
        };
        self.frame = Some(frame);
        line
    }

    /// Takes a line over into the frame.
    pub(super) fn read(&mut self, line: HostLine) -> Result<(), LineError> {
        if line.whole {
            self.frame = None;
        }
        let number = |number: Option<Number>| number.map(|number| number.read()).transpose();
        let strain = match line.strain {
            Some(strain) => Some(Strain {
                memory: strain.memory,
                memory_pressure: number(strain.memory_pressure)?,
                cpu_pressure: number(strain.cpu_pressure)?,
            }),
            None => None,
        };
        let frame = match &mut self.frame {
            Some(frame) => frame,
            none => {
                let (Some(budget), Some(policy)) = (line.budget, line.policy.clone()) else {
                    return Err(LineError::Change);
                };
                none.insert(HostFrame {
                    budget,
                    strain: Strain::default(),
                    stages: line.stages.unwrap_or_default(),
                    policy,
                    domains: BTreeMap::new(),
                })
            }
        };
        frame.budget = line.budget.unwrap_or(frame.budget);
        frame.strain = strain.unwrap_or(frame.strain);
        frame.stages = line.stages.unwrap_or(frame.stages);
        if let Some(policy) = line.policy {
            frame.policy = policy;
        }
        for (id, other) in line.domains {
            match other {
                Some(other) => frame.domains.insert(id, other),
                None => frame.domains.remove(&id),
            };
        }
        Ok(())
    }
}

/// The frame of one domain as it was told last.
#[derive(Clone, Debug, Default)]
pub(super) struct DomainCodec {
    pub(super) frame: Option<DomainFrame>,
    /// The tick of the frame.
    at: Moment,
}

impl DomainCodec {
    /// Another tick: what is measured at each has been measured again, unless a line says something else.
    pub(super) fn advance(&mut self, at: Moment) {
        let before = std::mem::replace(&mut self.at, at);
        let Some(frame) = &mut self.frame else { return };
        let named = frame.signals.named.iter_mut().map(|(_, reading)| reading);
        for reading in frame.signals.metrics.iter_mut().flatten().chain(named) {
            if reading.at == before {
                reading.at = at;
            }
        }
    }

    /// What has changed since the frame before; the caller adds what else there is to tell.
    pub(super) fn write(&mut self, at: Moment, frame: DomainFrame) -> DomainLine {
        self.advance(at);
        let before = self.frame.as_ref();
        let mut line = DomainLine {
            at,
            whole: before.is_none(),
            ..DomainLine::default()
        };
        if before.is_none_or(|before| !before.is_same_machine(&frame)) {
            line.machine = Some(MachineLine {
                name: frame.name.clone(),
                run: frame.run,
                instance: frame.instance,
                vcpus: frame.vcpus,
                memory: frame.memory,
                persona: frame.persona.clone(),
            });
        }
        line.knobs = changed(before.map(|before| before.knobs), frame.knobs);
        let nothing = Signalled::default();
        let old = before.map_or(&nothing, |before| &before.signals);
        let mut tell = |name: &str, before: Option<Reading>, now: Option<Reading>| {
            if before != now {
                let reading = now.map(|now| ReadingLine::of(now, before, at));
                line.readings.insert(name.to_owned(), reading);
            }
        };
        for metric in Metric::ALL {
            let read =
                |signals: &Signalled| signals.metrics.get(metric as usize).copied().flatten();
            tell(metric.name(), read(old), read(&frame.signals));
        }
        let find = |signals: &Signalled, named: &Named| {
            let mut all = signals.named.iter();
            all.find(|(known, _)| known == named)
                .map(|(_, reading)| *reading)
        };
        for (named, _) in frame.signals.named.iter().chain(&old.named) {
            tell(
                &named.to_string(),
                find(old, named),
                find(&frame.signals, named),
            );
        }
        for (event, at) in &frame.signals.events {
            if !old.events.contains(&(event.clone(), *at)) {
                line.events.insert(event_name(event), Some(*at));
            }
        }
        for (event, _) in &old.events {
            if !frame.signals.events.iter().any(|(known, _)| known == event) {
                line.events.insert(event_name(event), None);
            }
        }
        self.frame = Some(frame);
        line
    }

    /// Takes a line over into the frame, after the tick was told to [`Self::advance`].
    pub(super) fn read(&mut self, line: &DomainLine) -> Result<(), LineError> {
        if line.whole {
            self.frame = None;
        }
        if let Some(machine) = &line.machine {
            let before = self.frame.take();
            let knobs = before.as_ref().map(|frame| frame.knobs);
            let signals = before.map_or_else(
                || Signalled {
                    metrics: vec![None; Metric::ALL.len()],
                    ..Signalled::default()
                },
                |frame| frame.signals,
            );
            let machine = machine.clone();
            self.frame = Some(DomainFrame {
                name: machine.name,
                run: machine.run,
                instance: machine.instance,
                vcpus: machine.vcpus,
                memory: machine.memory,
                knobs: knobs.unwrap_or_default(),
                persona: machine.persona,
                signals,
            });
        }
        let frame = self.frame.as_mut().ok_or(LineError::Change)?;
        frame.knobs = after(frame.knobs, &line.knobs);
        let signals = &mut frame.signals;
        for (name, reading) in &line.readings {
            if Named::is_meant_by(name) {
                let named: Named = name.parse().map_err(|_| LineError::Name(name.clone()))?;
                let slot = signals.named.iter().position(|(known, _)| *known == named);
                let before = slot.map(|slot| signals.named.remove(slot).1);
                if let Some(reading) = reading {
                    signals.named.push((named, reading.read(before, line.at)?));
                }
            } else {
                let metric: Metric = name.parse().map_err(|_| LineError::Name(name.clone()))?;
                // The frame has a slot for each metric of this version.
                let slot = &mut signals.metrics[metric as usize];
                let before = slot.take();
                if let Some(reading) = reading {
                    *slot = Some(reading.read(before, line.at)?);
                }
            }
        }
        for (name, at) in &line.events {
            let event = event_named(name).ok_or_else(|| LineError::Name(name.clone()))?;
            signals.events.retain(|(known, _)| *known != event);
            signals.events.extend(at.map(|at| (event, at)));
        }
        signals.named.sort_by(|(one, _), (other, _)| one.cmp(other));
        signals.events.sort();
        Ok(())
    }
}

impl DomainLine {
    /// A tick in which nothing has changed.
    pub(super) fn nothing(at: Moment) -> Self {
        Self {
            at,
            ..Self::default()
        }
    }

    /// Whether there is anything to tell.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::nothing(self.at)
    }
}

impl DomainFrame {
    fn is_same_machine(&self, other: &Self) -> bool {
        (self.run, self.instance, self.vcpus, self.memory)
            == (other.run, other.instance, other.vcpus, other.memory)
            && self.name == other.name
            && self.persona == other.persona
    }
}

impl ReadingLine {
    fn of(reading: Reading, before: Option<Reading>, at: Moment) -> Self {
        let value = Number::of(reading.value);
        let same =
            |before: Reading| (before.source, before.period) == (reading.source, reading.period);
        if reading.at == at && before.is_some_and(same) {
            return Self::Value(value);
        }
        let millis = |moment: Moment| i64::try_from(moment.0).unwrap_or(i64::MAX);
        let period = u64::try_from(reading.period.as_millis()).unwrap_or(u64::MAX);
        let age = millis(at).saturating_sub(millis(reading.at));
        Self::Whole(value, reading.source, age, period)
    }

    fn read(&self, before: Option<Reading>, at: Moment) -> Result<Reading, LineError> {
        match self {
            Self::Value(value) => Ok(Reading {
                value: value.read()?,
                at,
                ..before.ok_or(LineError::Change)?
            }),
            Self::Whole(value, source, age, period) => Ok(Reading {
                value: value.read()?,
                source: *source,
                at: Moment(at.0.saturating_add_signed(age.saturating_neg())),
                period: Duration::from_millis(*period),
            }),
        }
    }
}

fn event_name(event: &Event) -> String {
    match &event.source {
        Some(source) => format!("{}({source})", event.kind.name()),
        None => event.kind.name().to_owned(),
    }
}

fn event_named(name: &str) -> Option<Event> {
    let (kind, source) = match name.split_once('(') {
        Some((kind, rest)) => (kind, Some(rest.strip_suffix(')')?.to_owned())),
        None => (name, None),
    };
    let kind = EventKind::named(kind)?;
    Some(Event { kind, source })
}

#[cfg(test)]
mod tests;
