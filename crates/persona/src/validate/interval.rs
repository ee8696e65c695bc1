//! Conditions as ranges of what they look at: what a comparison with a number leaves of the values of one metric, and
//! the facts that all have to be true at once for a condition to be.

use std::fmt;
use std::time::Duration;

use crate::quantity::Quantity;
use crate::rule::{Arithmetic, Comparison, Expr, Function, Value};
use crate::signal::{Signal, Unit};

/// A range of numbers. The ends belong to it where they are closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
    low_open: bool,
    high_open: bool,
}

impl Interval {
    const ALL: Self = Self {
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
        low_open: true,
        high_open: true,
    };

    pub(super) fn closed(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            low_open: false,
            high_open: false,
        }
    }

    /// The values for which a comparison with `number` is true; `None` where they are no range.
    fn of(op: Comparison, number: f64) -> Option<Self> {
        let all = Self::ALL;
        Some(match op {
            Comparison::Less | Comparison::LessOrEqual => Self {
                high: number,
                high_open: op == Comparison::Less,
                ..all
            },
            Comparison::Greater | Comparison::GreaterOrEqual => Self {
                low: number,
                low_open: op == Comparison::Greater,
                ..all
            },
            Comparison::Equal => Self::closed(number, number),
            Comparison::NotEqual => return None,
        })
    }

    /// What is in both.
    pub(super) fn and(self, other: Self) -> Self {
        let (low, low_open) = match self.low.total_cmp(&other.low) {
            std::cmp::Ordering::Less => (other.low, other.low_open),
            std::cmp::Ordering::Equal => (self.low, self.low_open || other.low_open),
            std::cmp::Ordering::Greater => (self.low, self.low_open),
        };
        let (high, high_open) = match self.high.total_cmp(&other.high) {
            std::cmp::Ordering::Less => (self.high, self.high_open),
            std::cmp::Ordering::Equal => (self.high, self.high_open || other.high_open),
            std::cmp::Ordering::Greater => (other.high, other.high_open),
        };
        Self {
            low,
            high,
            low_open,
            high_open,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.low > self.high || (self.touches_one() && (self.low_open || self.high_open))
    }

    /// Whether something is in both, or one begins where the other ends, so that the least change leads from one to the
    /// other. A single value is left and entered by a step, so one beside it does not count.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let both = self.and(*other);
        let single = self.touches_one() || other.touches_one();
        !both.is_empty() || (both.touches_one() && !single)
    }

    /// Whether all of `other` is in it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.and(*other) == *other
    }

    /// Every value multiplied, and kept at or below `most`.
    pub(super) fn scaled(self, factor: f64, most: f64) -> Self {
        let high = self.high * factor;
        Self {
            low: (self.low * factor).min(most),
            high: high.min(most),
            high_open: self.high_open && high <= most,
            low_open: self.low_open && self.low * factor <= most,
        }
    }

    // Both ends are numbers of the document or what became of equal ones.
    #[allow(clippy::float_cmp)]
    fn touches_one(&self) -> bool {
        self.low == self.high
    }
}

/// What a comparison looks at: a metric, or a function over its readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Subject<'a> {
    pub(super) signal: &'a Signal,
    over: Option<(Function, Duration)>,
}

impl<'a> Subject<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Signal(signal) => Some(Self { signal, over: None }),
            Value::Function {
                function,
                signal,
                window,
                ..
            } => Some(Self {
                signal,
                over: Some((*function, *window)),
            }),
            _ => None,
        }
    }

    /// The metric whose value this comes to when nothing changes.
    pub(super) fn settles_at(&self) -> Option<&'a Signal> {
        match self.over {
            Some((Function::Rate | Function::Delta, _)) => None,
            _ => Some(self.signal),
        }
    }

    /// All values that it can have.
    pub(super) fn domain(&self) -> Interval {
        let Signal::Metric(metric) = self.signal else {
            return Interval::ALL;
        };
        let most = match metric.unit() {
            Unit::Percent => 100.0,
            _ => f64::INFINITY,
        };
        match self.over {
            Some((Function::Rate, _)) => Interval::ALL,
            Some((Function::Delta, _)) => Interval::closed(-most, most),
            _ => Interval::closed(0.0, most),
        }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.over {
            None => self.signal.fmt(f),
            Some((function, _)) => write!(f, "{}({})", function.name(), self.signal),
        }
    }
}

/// Something that has to be true of one subject for a condition to be true.
#[derive(Clone, Debug)]
pub(super) struct Fact<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) interval: Interval,
    /// As a person says it behind the subject: `above 80%`.
    pub(super) text: String,
    /// For how long it has to be so.
    pub(super) held: Duration,
}

/// What a condition asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    /// All of these have to be true.
    pub(super) all: Vec<Fact<'a>>,
    /// Of each of these one has to be true; whether they are said or denied.
    pub(super) choices: Vec<(&'a [Expr], Sign)>,
    /// Whether it asks for nothing else.
    pub(super) complete: bool,
}

/// Whether something is said or denied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sign {
    Said,
    Denied,
}

impl Sign {
    fn not(self) -> Self {
        match self {
            Self::Said => Self::Denied,
            Self::Denied => Self::Said,
        }
    }
}

impl<'a> Facts<'a> {
    pub(super) fn of(expr: &'a Expr, sign: Sign) -> Self {
        let mut facts = Self {
            complete: true,
            ..Self::default()
        };
        facts.gather(expr, sign, Duration::ZERO);
        facts
    }

    fn gather(&mut self, expr: &'a Expr, sign: Sign, held: Duration) {
        match (expr, sign) {
            (Expr::And(parts), Sign::Said) | (Expr::Or(parts), Sign::Denied) => {
                for part in parts {
                    self.gather(part, sign, held);
                }
            }
            (Expr::And(parts), Sign::Denied) | (Expr::Or(parts), Sign::Said) => {
                self.choices.push((parts, sign));
                self.complete = false;
            }
            (Expr::Not(inner), _) => self.gather(inner, sign.not(), held),
            (Expr::Held { inner, window, .. }, Sign::Said) => {
                self.gather(inner, sign, held.saturating_add(*window));
            }
            (Expr::Compare { left, op, right }, _) => {
                let op = if sign == Sign::Said {
                    *op
                } else {
                    op.opposite()
                };
                match Fact::of(left, op, right, held) {
                    Some(fact) => self.all.push(fact),
                    None => self.complete = false,
                }
            }
            (Expr::Between { value, low, high }, Sign::Said) => {
                let ends = [
                    Fact::of(value, Comparison::GreaterOrEqual, low, held),
                    Fact::of(value, Comparison::LessOrEqual, high, held),
                ];
                for end in ends {
                    self.complete &= end.is_some();
                    self.all.extend(end);
                }
            }
            (Expr::Held { .. } | Expr::Between { .. }, Sign::Denied) | (Expr::Event(_), _) => {
                self.complete = false;
            }
        }
    }

    /// The range of one metric, once it lasts, in which all facts about it are true; `None` without any.
    pub(super) fn range_of(&self, signal: &Signal) -> Option<Interval> {
        let about = |fact: &&Fact<'_>| fact.subject.settles_at() == Some(signal);
        let ranges = self.all.iter().filter(about).map(|fact| fact.interval);
        ranges.reduce(Interval::and)
    }

    /// The one metric on which all depends.
    pub(super) fn only_signal(&self) -> Option<&'a Signal> {
        let signal = self.all.first()?.subject.settles_at()?;
        let same = |fact: &Fact<'_>| fact.subject.settles_at() == Some(signal);
        (self.complete && self.all.iter().all(same)).then_some(signal)
    }

    /// What is said of one metric: `cpu.utilization is above 80%`.
    pub(super) fn text_of(&self, signal: &Signal) -> String {
        let mut about = self
            .all
            .iter()
            .filter(|fact| fact.subject.settles_at() == Some(signal));
        let Some(first) = about.next() else {
            return String::new();
        };
        let rest: String = about.map(|fact| format!(" and {}", fact.text)).collect();
        format!("{} is {}{rest}", first.subject, first.text)
    }
}

impl<'a> Fact<'a> {
    fn of(left: &'a Value, op: Comparison, right: &'a Value, held: Duration) -> Option<Self> {
        let (subject, op, number) = match (Subject::of(left), Subject::of(right)) {
            (Some(subject), None) => (subject, op, right),
            (None, Some(subject)) => (subject, op.turned(), left),
            _ => return None,
        };
        let (number, unit) = constant(number)?;
        let side = match op {
            Comparison::Less => "below",
            Comparison::LessOrEqual => "at most",
            Comparison::Greater => "above",
            Comparison::GreaterOrEqual => "at least",
            Comparison::Equal => "exactly",
            Comparison::NotEqual => return None,
        };
        let value = number.abs();
        let minus = if number < 0.0 { "-" } else { "" };
        Some(Self {
            subject,
            interval: Interval::of(op, number)?,
            text: format!("{side} {minus}{}", Quantity { value, unit }),
            held,
        })
    }
}

/// The value of what looks at nothing.
fn constant(value: &Value) -> Option<(f64, Unit)> {
    match value {
        Value::Number { value, unit } => Some((*value, *unit)),
        Value::Negate(inner) => constant(inner).map(|(value, unit)| (-value, unit)),
        Value::Binary { left, op, right } => {
            let ((one, unit), (other, other_unit)) = (constant(left)?, constant(right)?);
            let (number, unit) = match op {
                Arithmetic::Add => (one + other, unit),
                Arithmetic::Subtract => (one - other, unit),
                Arithmetic::Multiply if unit == Unit::Count => (one * other, other_unit),
                Arithmetic::Multiply => (one * other, unit),
                Arithmetic::Divide if unit == other_unit => (one / other, Unit::Count),
                Arithmetic::Divide => (one / other, unit),
            };
            number.is_finite().then_some((number, unit))
        }
        _ => None,
    }
}

impl Comparison {
    /// True where this one is false.
    fn opposite(self) -> Self {
        match self {
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
        }
    }

    /// The same with the sides changed over.
    fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::Equal | Self::NotEqual => self,
        }
    }
}
