//! What the planner saw at one tick: the host, and one domain with its readings. Values that can be kept, in contrast to
//! the snapshot itself, which borrows from the daemon's state.

use std::collections::BTreeMap;

use persona::domain::DomainId;
use persona::signal::{Event, EventKind, Metric, Named, Reading, Signal, Signals};
use persona::units::{Bytes, Moment};
use planner::snapshot::{Domain, Host, KnobReading, Knobs, Memory, Run, Strain, Vcpus};
use planner::stage::HostState;
use planner::state::DomainState;
use planner::{Ending, LimitStep, Other, Policy, Step};
use serde::{Deserialize, Serialize};

/// The host at one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostFrame {
    /// What all domains may have together.
    pub budget: Host,
    /// What the host showed of its own need.
    pub strain: Strain,
    /// How short it was, before the plan of this tick.
    pub stages: HostState,
    /// The planner's numbers.
    pub policy: Policy,
    /// What each domain claimed in the plan of this tick.
    pub domains: BTreeMap<DomainId, Other>,
}

/// One domain at one tick.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainFrame {
    /// Its name.
    pub name: String,
    /// Whether it could be changed.
    pub run: Run,
    /// The number of the running instance.
    pub instance: Option<u32>,
    /// Its vCPUs.
    pub vcpus: Vcpus,
    /// Its memory.
    pub memory: Memory,
    /// What limits it otherwise; unknown in a recording that does not tell it.
    pub knobs: Knobs,
    /// The persona in force.
    pub persona: Option<PersonaMark>,
    /// Readings and events.
    pub signals: Signalled,
}

/// Which persona was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonaMark {
    /// Its name.
    pub name: String,
    /// Its content, with all that it builds on.
    pub digest: persona::Digest,
}

/// Readings and events as rules read them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signalled {
    /// One for each metric of the catalogue, in its order.
    pub(super) metrics: Vec<Option<Reading>>,
    /// What applications and external sources named, as far as the persona's rules read it.
    pub(super) named: Vec<(Named, Reading)>,
    /// When each event last happened.
    pub(super) events: Vec<(Event, Moment)>,
}

/// Why the carried state is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// The daemon has just begun to look at the domain: windows are empty.
    Start,
    /// Now and then, as a place to begin a replay at; it is what a replay has come to by itself.
    Point,
    /// It was changed between two ticks, by a person or by an event.
    Touched,
}

/// The carried state before the plan of a tick. Windows are not in it: a replay that begins here fills them anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateNote {
    /// Why it is told.
    pub why: Why,
    /// The state; nothing where there was none.
    pub state: Option<DomainState>,
}

/// A step that ended between two ticks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Moment,
    /// Which.
    pub step: Step,
    /// How.
    pub ending: Ending,
    /// What the hypervisor showed as asked for then.
    pub asked: Option<u64>,
}

/// A turn of a knob that ended between two ticks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnEnded {
    /// When.
    pub at: Moment,
    /// Which.
    pub step: LimitStep,
    /// How.
    pub ending: Ending,
    /// What the knob showed then, where it was known.
    pub shown: Option<KnobReading>,
}

/// What a guest said that it needs, between two ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// When.
    pub at: Moment,
    /// How much more memory.
    pub more: Bytes,
}

impl DomainFrame {
    /// What the planner sees of a domain.
    pub fn of(domain: &Domain<'_>) -> Self {
        let signals = domain.signals;
        let metrics = Metric::ALL.map(|metric| signals.reading(metric)).to_vec();
        let happened = |event: Event| signals.happened(&event).map(|at| (event, at));
        let mut named = Vec::new();
        let mut events: Vec<(Event, Moment)> = EventKind::ALL
            .into_iter()
            .filter_map(|kind| happened(Event { kind, source: None }))
            .collect();
        for condition in domain.persona.into_iter().flat_map(|persona| {
            let rules = persona.rules.iter();
            rules.flat_map(|rule| {
                [Some(&rule.when), rule.until.as_ref()]
                    .into_iter()
                    .flatten()
            })
        }) {
            for signal in condition.signals() {
                if let Signal::Named(name) = signal
                    && let Some(reading) = signals.named(name)
                    && !named.iter().any(|(known, _)| known == name)
                {
                    named.push((name.clone(), reading));
                }
            }
            for event in condition.events() {
                if event.source.is_some() && !events.iter().any(|(known, _)| known == event) {
                    events.extend(happened(event.clone()));
                }
            }
        }
        // In an order that does not depend on which was seen first.
        named.sort_by(|(one, _): &(Named, Reading), (other, _)| one.cmp(other));
        events.sort();
        Self {
            name: domain.name.to_owned(),
            run: domain.run,
            instance: domain.instance,
            vcpus: domain.vcpus,
            memory: domain.memory,
            knobs: domain.knobs,
            persona: domain.persona.map(|persona| PersonaMark {
                name: persona.name.to_string(),
                digest: persona.digest.clone(),
            }),
            signals: Signalled {
                metrics,
                named,
                events,
            },
        }
    }
}

impl Signalled {
    /// Every reading that is there.
    pub fn readings(&self) -> impl Iterator<Item = (Signal, Reading)> + '_ {
        let metrics = Metric::ALL.into_iter().zip(&self.metrics);
        let metrics =
            metrics.filter_map(|(metric, reading)| Some((Signal::Metric(metric), (*reading)?)));
        let named = self.named.iter();
        metrics.chain(named.map(|(named, reading)| (Signal::Named(named.clone()), *reading)))
    }
}

impl Signals for Signalled {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        self.metrics.get(metric as usize).copied().flatten()
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        let (_, reading) = self.named.iter().find(|(known, _)| known == named)?;
        Some(*reading)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        let (_, at) = self.events.iter().find(|(known, _)| known == event)?;
        Some(*at)
    }
}
