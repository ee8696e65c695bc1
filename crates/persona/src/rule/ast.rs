//! A rule as values: condition, actions, windows. How a text becomes a rule is in `parse`, what a condition is worth
//! at a moment in `eval`, how it is printed in `print`. The planner and the agent read these types.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::model::Class;
use crate::signal::{Metric, Source, Unit};
use crate::units::Bytes;

/// One rule of a persona: when it holds, what is done, until when, how often, how important.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Unique in its persona.
    pub name: String,
    /// Fires when this becomes true.
    pub when: Condition,
    /// What is done then, in order.
    pub then: Vec<Action>,
    /// Undone when this becomes true; without it the effect stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Condition>,
    /// Least time between two changes of one resource by this rule.
    #[serde(serialize_with = "crate::quantity::serialize_duration")]
    pub cooldown: Duration,
    /// The higher wins where two rules want different things of one resource.
    pub priority: i32,
    /// Evidence from a less trusted source counts as unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The line of the document, from 1.
    pub line: u32,
    /// The rule in canonical text form, for `explain`.
    pub text: String,
}

impl Rule {
    /// Between two changes of one resource, where a rule does not say otherwise.
    pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(60);
}

/// A condition with its `FOR` windows numbered. Made by the parser alone, so it is typed and within limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub(crate) expr: Expr,
}

impl Condition {
    /// The condition in canonical text form.
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// The metrics it reads, each once, in the order of the text.
    pub fn metrics(&self) -> impl Iterator<Item = Metric> + use<> {
        let mut found = Vec::new();
        self.expr.visit_metrics(&mut |metric| {
            if !found.contains(&metric) {
                found.push(metric);
            }
        });
        found.into_iter()
    }
}

impl Serialize for Condition {
    /// As its canonical text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A truth-valued expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// True when all are.
    And(Vec<Expr>),
    /// True when one is.
    Or(Vec<Expr>),
    /// True when the other is false.
    Not(Box<Expr>),
    /// Two sums of one unit, compared.
    Compare {
        left: Value,
        op: Comparison,
        right: Value,
    },
    /// `value BETWEEN low AND high`, both ends included.
    Between {
        value: Value,
        low: Value,
        high: Value,
    },
    /// True when the inner one has been true for the whole window. `slot` is its place in [`super::Holds`].
    Held {
        inner: Box<Expr>,
        window: Duration,
        slot: usize,
    },
}

impl Expr {
    pub(crate) fn visit_metrics(&self, visit: &mut impl FnMut(Metric)) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.visit_metrics(visit))
            }
            Self::Not(inner) | Self::Held { inner, .. } => inner.visit_metrics(visit),
            Self::Compare { left, right, .. } => {
                left.visit_metrics(visit);
                right.visit_metrics(visit);
            }
            Self::Between { value, low, high } => {
                value.visit_metrics(visit);
                low.visit_metrics(visit);
                high.visit_metrics(visit);
            }
        }
    }
}

/// How two quantities are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// An arithmetic expression; units were checked when it was parsed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A number, in the base of its unit.
    Number { value: f64, unit: Unit },
    /// The latest reading.
    Metric(Metric),
    /// The other sign.
    Negate(Box<Value>),
    /// Two values and what joins them.
    Binary {
        left: Box<Value>,
        op: Arithmetic,
        right: Box<Value>,
    },
}

impl Value {
    pub(crate) fn visit_metrics(&self, visit: &mut impl FnMut(Metric)) {
        match self {
            Self::Number { .. } => {}
            Self::Metric(metric) => visit(*metric),
            Self::Negate(inner) => inner.visit_metrics(visit),
            Self::Binary { left, right, .. } => {
                left.visit_metrics(visit);
                right.visit_metrics(visit);
            }
        }
    }
}

/// The four operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Bring the vCPUs to this number.
    SetVcpus(u32),
    /// This many vCPUs more.
    AddVcpus(u32),
    /// This many vCPUs less.
    RemoveVcpus(u32),
    /// Bring the memory to this size.
    SetMemory(Bytes),
    /// More memory.
    AddMemory(MemoryAmount),
    /// Less memory.
    RemoveMemory(MemoryAmount),
    /// Tell people.
    Notify(String),
}

impl Serialize for Action {
    /// As its canonical text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How much memory is added or removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryAmount {
    /// A size.
    Size(Bytes),
    /// Percent of what the guest has when the rule fires.
    Percent(f64),
}

impl MemoryAmount {
    /// The amount where the guest has `now`.
    pub fn of(self, now: Bytes) -> Bytes {
        match self {
            Self::Size(size) => size,
            Self::Percent(percent) => {
                // The parser admits percentages in (0, 1000] and sizes far below 2^53, so the product is a whole
                // number of bytes after rounding.
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss
                )]
                Bytes((now.0 as f64 * percent / 100.0).round() as u64)
            }
        }
    }
}

/// What an action changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Virtual CPUs.
    Vcpus,
    /// Guest memory.
    Memory,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpus => "vcpus",
            Self::Memory => "memory",
        })
    }
}

/// Which way an action moves its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More than before.
    Grow,
    /// Less than before.
    Shrink,
    /// To a fixed amount: which way depends on what there is.
    To,
}

impl Action {
    /// What it changes; `None` where it changes nothing of the machine.
    pub fn resource(&self) -> Option<Resource> {
        match self {
            Self::SetVcpus(_) | Self::AddVcpus(_) | Self::RemoveVcpus(_) => Some(Resource::Vcpus),
            Self::SetMemory(_) | Self::AddMemory(_) | Self::RemoveMemory(_) => {
                Some(Resource::Memory)
            }
            Self::Notify(_) => None,
        }
    }

    /// Which way it moves its resource; `None` where it has none.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::AddVcpus(_) | Self::AddMemory(_) => Some(Direction::Grow),
            Self::RemoveVcpus(_) | Self::RemoveMemory(_) => Some(Direction::Shrink),
            Self::SetVcpus(_) | Self::SetMemory(_) => Some(Direction::To),
            Self::Notify(_) => None,
        }
    }

    /// The trust class under which it is done.
    pub fn class(&self) -> Class {
        match self.resource() {
            Some(_) => Class::ResourceScaling,
            None => Class::Notify,
        }
    }
}
