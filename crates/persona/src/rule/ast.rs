//! A rule as values: condition, actions, windows. How a text becomes a rule is in `parse`, what a condition is worth
//! at a moment in `eval`, how it is printed in `print`. The planner and the agent read these types.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::window::Function;
use crate::model::{Class, Level, PersonaName};
use crate::shared::SharedText;
use crate::signal::{Event, Signal, Source, Unit};
use crate::units::Bytes;

/// One rule of a persona: when it holds, what is done, until when, how often, how important.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Unique in its persona.
    pub name: SharedText,
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
    pub text: SharedText,
}

impl Rule {
    /// Between two changes of one resource, where a rule does not say otherwise.
    pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(60);
}

/// A condition with its windows numbered. Made by the parser alone, so it is typed and within limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub(crate) expr: Expr,
    /// Its comparisons in canonical text form, in the order in which they are evaluated.
    pub(crate) comparisons: Vec<SharedText>,
}

impl Condition {
    pub(crate) fn new(expr: Expr) -> Self {
        let mut comparisons = Vec::new();
        expr.visit_comparisons(&mut |comparison| comparisons.push(comparison.to_string().into()));
        Self { expr, comparisons }
    }

    /// The condition in canonical text form.
    pub fn text(&self) -> String {
        self.to_string()
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
    /// True for a while after it happened.
    Event(Event),
    /// True when the inner one has been true for the whole window. `slot` is its place in [`super::Windows`].
    Held {
        inner: Box<Expr>,
        window: Duration,
        slot: usize,
    },
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
    Signal(Signal),
    /// A function over the readings of a window. `slot` is its place in [`super::Windows`].
    Function {
        function: Function,
        signal: Signal,
        window: Duration,
        slot: usize,
    },
    /// `anomaly(metric)`: how far the metric is from what is usual, in standard deviations. Nothing computes it.
    Anomaly(Signal),
    /// `predicted(metric, duration)`: the metric in a while. Nothing computes it.
    Predicted { signal: Signal, ahead: Duration },
    /// `priority_metrics[NAME]`: the weight that the document gives, 0 to 1; `None` until the document is known, and
    /// where it gives none.
    Priority { name: String, weight: Option<f64> },
    /// `trust_levels[CLASS]`; `None` until the document is known.
    Trust { class: Class, level: Option<Level> },
    /// A level of trust.
    Level(Level),
    /// The other sign.
    Negate(Box<Value>),
    /// Two values and what joins them.
    Binary {
        left: Box<Value>,
        op: Arithmetic,
        right: Box<Value>,
    },
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
    /// Let the domain have no more of something than this.
    SetLimit(Limit),
    /// Switch a feature of the guest on: a name for a drop-in of the guest.
    EnableFeature(String),
    /// Switch it off.
    DisableFeature(String),
    /// Run a script of `response_scripts` in the guest.
    Run(String),
    /// Do what the list of `automated_responses` says.
    Respond(String),
    /// Give a setting of the persona another value.
    Apply {
        /// Its key, such as `os_settings.theme`.
        key: String,
        /// The value.
        value: String,
    },
    /// Install a package in the guest.
    InstallPackage(String),
    /// Remove a package that the persona installed.
    RemovePackage(String),
    /// Let nothing pass to and from the addresses of an external source.
    BlockAddresses {
        /// Its name; empty until the document says which one is meant.
        source: String,
    },
    /// Let it pass again.
    UnblockAddresses {
        /// Its name; empty until the document says which one is meant.
        source: String,
    },
    /// Cut the machine off the network.
    Isolate,
    /// Undo isolation.
    Restore,
    /// Send what comes in on a port elsewhere.
    Redirect {
        /// The port of the guest.
        port: u16,
        /// Where to, as name or address.
        host: String,
        /// To which port there.
        to: u16,
    },
    /// Give the domain another persona.
    ActivatePersona(PersonaName),
    /// Give it back the persona before.
    Revert,
    /// Tell people.
    Notify(String),
    /// Call a webhook of the daemon's configuration.
    CallWebhook(String),
}

/// An upper bound that an action sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Bits a second in each direction, over all interfaces.
    NetworkBandwidth(f64),
    /// Requests a second, over all disks.
    DiskIops(f64),
    /// Bytes a second, over all disks.
    DiskBandwidth(f64),
    /// Weight against other domains where there is not enough CPU for all, 1 to 10000; 1000 is what a domain without a
    /// persona has.
    CpuWeight(u32),
    /// Percent of one host CPU: 250% is two and a half.
    CpuCap(f64),
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
            _ => None,
        }
    }

    /// The limit that it sets; `None` where it sets none.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::SetLimit(limit) => Some(*limit),
            _ => None,
        }
    }

    /// Whether it wants the machine to be so for as long as the rule has its say, as against a call that is made once.
    pub fn is_kept_up(&self) -> bool {
        self.resource().is_some() || self.limit().is_some()
    }

    /// Which way it moves its resource; `None` where it has none.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::AddVcpus(_) | Self::AddMemory(_) => Some(Direction::Grow),
            Self::RemoveVcpus(_) | Self::RemoveMemory(_) => Some(Direction::Shrink),
            Self::SetVcpus(_) | Self::SetMemory(_) => Some(Direction::To),
            _ => None,
        }
    }

    /// The trust class under which it is done. What a `respond` does has the classes of its own actions; the list
    /// itself is as harmless as a notice.
    pub fn class(&self) -> Class {
        match self {
            Self::SetVcpus(_)
            | Self::AddVcpus(_)
            | Self::RemoveVcpus(_)
            | Self::SetMemory(_)
            | Self::AddMemory(_)
            | Self::RemoveMemory(_)
            | Self::SetLimit(_) => Class::ResourceScaling,
            Self::EnableFeature(_)
            | Self::DisableFeature(_)
            | Self::Apply { .. }
            | Self::InstallPackage(_)
            | Self::RemovePackage(_) => Class::FileSystemModification,
            Self::Run(_) => Class::CommandExecution,
            Self::BlockAddresses { .. }
            | Self::UnblockAddresses { .. }
            | Self::Isolate
            | Self::Restore
            | Self::Redirect { .. } => Class::NetworkAccess,
            Self::ActivatePersona(_) | Self::Revert => Class::PersonaChange,
            Self::Respond(_) | Self::Notify(_) | Self::CallWebhook(_) => Class::Notify,
        }
    }

    /// Whether it brings about a state that can be taken back, as against something that happens once.
    pub fn lasts(&self) -> bool {
        !matches!(
            self,
            Self::Run(_)
                | Self::Respond(_)
                | Self::Notify(_)
                | Self::CallWebhook(_)
                | Self::Revert
                | Self::Restore
        )
    }

    /// Whether this version does it; where not, a sentence says so.
    pub fn performed(&self) -> Performed {
        match self {
            _ if self.is_kept_up() => Performed::Here,
            Self::Notify(_) | Self::Respond(_) => Performed::Here,
            Self::ActivatePersona(_) | Self::Revert => Performed::Here,
            Self::Run(_) | Self::EnableFeature(_) | Self::DisableFeature(_) => Performed::Here,
            Self::Apply { .. } | Self::InstallPackage(_) | Self::RemovePackage(_) => {
                Performed::Here
            }
            _ => {
                Performed::NotYet("it is recorded when it is called for, and nothing else happens")
            }
        }
    }
}

/// Whether an action takes effect in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performed {
    /// Yes.
    Here,
    /// No, and this follows.
    NotYet(&'static str),
}
