//! What a replay tells while it goes: a change, something that a rule calls for, or a wish that a limit refuses; each
//! with the figures behind it. As values for programs, and as one line for people.

use std::fmt::Write;

use persona::rule::{Action, Condition, Knob, KnobValue, Looked, Performed, Resource, Truth};
use persona::signal::{Signal, Signals, Source};
use persona::{Moment, Unit};
use planner::Edge;
use planner::report::{Clamp, Limit};
use serde::Serialize;

use super::words;

/// One thing that happens in a replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happening {
    /// When, as the trace says it.
    pub at: String,
    /// Seconds since the trace began.
    pub seconds: f64,
    /// The rule, where it is one's doing.
    pub rule: Option<String>,
    /// Who wants it, in words.
    pub by: String,
    /// What was looked at.
    pub samples: Vec<Sample>,
    /// What follows.
    #[serde(flatten)]
    pub what: What,
    /// The same as one line for people, without the time.
    pub text: String,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// A resource changes.
    Change {
        /// Which.
        resource: Resource,
        /// Before, in vCPUs or bytes.
        from: u64,
        /// What was wanted before any limit.
        wanted: u64,
        /// The limits that changed what was wanted, in the order they were applied.
        clamps: Vec<Bound>,
        /// After.
        to: u64,
    },
    /// A limit changes.
    Limit {
        /// Which.
        knob: Knob,
        /// Before.
        from: Option<KnobValue>,
        /// After.
        to: KnobValue,
    },
    /// A rule calls for something that is done once.
    Call {
        /// The action, as rules write it.
        action: String,
        /// Whether it is to be done or taken back.
        edge: Edge,
        /// Whether this version does it.
        performed: bool,
    },
    /// A wish is refused; told when it begins.
    Refused {
        /// Which resource.
        resource: Resource,
        /// What it is, in vCPUs or bytes.
        present: u64,
        /// What was wanted.
        wanted: u64,
        /// The limits that changed what was wanted, in the order they were applied.
        clamps: Vec<Bound>,
        /// Why nothing is done.
        reason: String,
    },
}

/// A limit that changed a wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Its name.
    pub limit: Limit,
    /// Before.
    pub from: u64,
    /// After.
    pub to: u64,
}

/// A figure that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Of what.
    pub signal: Signal,
    /// Its value in the base of its unit; `null` where it is unknown.
    pub value: Option<f64>,
    /// Its unit; `null` where nobody declares one.
    pub unit: Option<Unit>,
    /// Who claims it.
    pub source: Option<Source>,
    /// How old it is, in seconds.
    pub age: Option<f64>,
    /// The comparison it stands in.
    pub comparison: Option<String>,
    /// What the comparison came to.
    pub verdict: Option<Truth>,
    /// For how many seconds the `FOR` around it has been true.
    pub held_for: Option<f64>,
    /// For how many seconds it must be.
    pub needs: Option<f64>,
}

impl Sample {
    /// What an evaluation looked at.
    pub(super) fn looked(looked: &Looked, now: Moment) -> Self {
        Self {
            signal: looked.signal.clone(),
            value: looked
                .reading
                .filter(|reading| reading.is_fresh(now))
                .map(|reading| reading.value),
            unit: looked.signal.unit(),
            source: looked.reading.map(|reading| reading.source),
            age: looked
                .reading
                .map(|reading| now.since(reading.at).as_secs_f64()),
            comparison: Some(looked.comparison.to_string()),
            verdict: Some(looked.verdict),
            held_for: looked.held_for.map(|held| held.as_secs_f64()),
            needs: looked.needs.map(|needs| needs.as_secs_f64()),
        }
    }

    /// What a condition reads, where no evaluation kept it.
    pub(super) fn read(condition: &Condition, signals: &dyn Signals, now: Moment) -> Vec<Self> {
        let read = |signal: &Signal| {
            let reading = signals.signal(signal);
            Self {
                signal: signal.clone(),
                value: reading
                    .filter(|reading| reading.is_fresh(now))
                    .map(|reading| reading.value),
                unit: signal.unit(),
                source: reading.map(|reading| reading.source),
                age: reading.map(|reading| now.since(reading.at).as_secs_f64()),
                comparison: None,
                verdict: None,
                held_for: None,
                needs: None,
            }
        };
        condition.signals().map(read).collect()
    }

    fn text(&self) -> String {
        let value = self.value.map_or_else(
            || "unknown".to_owned(),
            |value| words::value(value, self.unit),
        );
        let held = match (self.held_for, self.needs) {
            (Some(held), Some(_)) if held > 0.0 => format!(" for {}", words::seconds(held)),
            _ => String::new(),
        };
        format!("{} {value}{held}", self.signal)
    }
}

impl Bound {
    pub(super) fn all(clamps: &[Clamp]) -> Vec<Self> {
        clamps
            .iter()
            .map(|clamp| Self {
                limit: clamp.limit,
                from: clamp.from,
                to: clamp.to,
            })
            .collect()
    }
}

impl What {
    /// What follows, in words.
    fn text(&self, action: Option<&Action>) -> String {
        match self {
            Self::Change {
                resource,
                from,
                wanted,
                clamps,
                to,
            } => {
                let wish = wish(*resource, *wanted, clamps);
                let show = |amount| words::amount(*resource, amount);
                format!("{wish}{resource} {} -> {}", show(*from), show(*to))
            }
            Self::Limit { knob, from, to } => {
                let from = from.map_or_else(|| "unknown".to_owned(), |from| knob.text(from));
                format!("{knob} {from} -> {}", knob.text(*to))
            }
            Self::Call {
                action: text,
                edge: Edge::Ends,
                ..
            } => format!("would take back: {text}"),
            Self::Call {
                action: text,
                edge: Edge::Begins,
                ..
            } => match action.map(|action| (action, action.performed())) {
                Some((Action::Notify(notice), _)) => format!("would tell: {notice}"),
                Some((_, Performed::NotYet(_))) => {
                    format!("would call: {text} (this version records it only)")
                }
                _ => format!("would call: {text}"),
            },
            Self::Refused {
                resource,
                present,
                wanted,
                clamps,
                reason,
            } => {
                let stays = match resource {
                    Resource::Vcpus => "stay",
                    Resource::Memory => "stays",
                };
                let wish = wish(*resource, *wanted, clamps);
                let present = words::amount(*resource, *present);
                format!("{wish}{resource} {stays} at {present}, because {reason}")
            }
        }
    }
}

/// What is wanted, and each limit in its order, where a limit changed it.
fn wish(resource: Resource, wanted: u64, clamps: &[Bound]) -> String {
    if clamps.is_empty() {
        return String::new();
    }
    let mut text = format!("wants {}", words::amount(resource, wanted));
    for clamp in clamps {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            ", {}: {}",
            clamp.limit,
            words::amount(resource, clamp.to)
        );
    }
    text + "; "
}

/// Who wants something, and what it rests on.
pub(super) struct Cause {
    /// The rule, where it is one's doing.
    pub(super) rule: Option<String>,
    /// In words.
    pub(super) by: String,
    /// What was looked at.
    pub(super) samples: Vec<Sample>,
    /// The condition, where it looked at no figure.
    pub(super) condition: Option<String>,
}

impl Happening {
    /// Puts the line together.
    pub(super) fn new(
        (at, seconds): (String, f64),
        cause: Cause,
        what: What,
        action: Option<&Action>,
    ) -> Self {
        let mut looked: Vec<String> = Vec::new();
        for sample in &cause.samples {
            let text = sample.text();
            // A metric that stands in two comparisons is shown once.
            if !looked.contains(&text) {
                looked.push(text);
            }
        }
        looked.extend(cause.condition);
        let mut text = cause.by.clone();
        if !looked.is_empty() {
            text.push_str(": ");
            text.push_str(&looked.join(", "));
        }
        text.push_str("; ");
        text.push_str(&what.text(action));
        Self {
            at,
            seconds,
            rule: cause.rule,
            by: cause.by,
            samples: cause.samples,
            what,
            text,
        }
    }
}
