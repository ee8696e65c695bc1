//! What a condition is worth at a moment: three-valued logic over readings, and the state of its windows.
//! Which rules fire and what follows is not here (the planner decides). The planner and the agent call this.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ast::{Arithmetic, Comparison, Condition, Expr, Value};
use super::window::{Function, Window};
use crate::model::Level;
use crate::shared::SharedText;
use crate::signal::{EventKind, Reading, Signal, Signals, Source, stands};
use crate::units::Moment;

/// True, false, or not known. The logic is Kleene's: unknown is whatever the known parts do not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// A reading that would decide it is absent, too old, or from a source that does not count.
    Unknown,
}

impl Truth {
    /// True where both are, false where one is.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            _ => Self::Unknown,
        }
    }

    /// True where one is, false where both are.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::True, _) | (_, Self::True) => Self::True,
            (Self::False, Self::False) => Self::False,
            _ => Self::Unknown,
        }
    }

    /// The opposite; unknown stays unknown.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }

    /// Whether it is true; unknown is not.
    pub fn is_true(self) -> bool {
        self == Self::True
    }
}

impl From<bool> for Truth {
    fn from(known: bool) -> Self {
        if known { Self::True } else { Self::False }
    }
}

impl std::fmt::Display for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::True => "true",
            Self::False => "false",
            Self::Unknown => "unknown",
        })
    }
}

/// The windows of one rule, carried from one evaluation to the next: since when what a `FOR` waits for is true, and the
/// readings that a function takes together. One value serves `when` and `until` of the same rule: their windows have
/// numbers of their own, fixed when the rule is loaded.
///
/// The windows of functions are not stored: after a restart a function is unknown until its window is covered again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows {
    /// By number; `None` where nothing is held, and where a function has the number.
    holds: Vec<Option<Hold>>,
    /// By number; `None` where no function has it.
    #[serde(skip)]
    functions: Vec<Option<Window>>,
}

/// A condition that is true without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hold {
    /// Since when.
    since: Moment,
    /// When it was last looked at.
    looked: Moment,
}

impl Windows {
    /// Forgets all windows: each starts anew at the next evaluation.
    pub fn clear(&mut self) {
        self.holds.clear();
        // Those of functions keep their room, so that a rule stays free of allocation.
        self.functions.iter_mut().flatten().for_each(Window::clear);
    }

    fn hold(&mut self, slot: usize) -> &mut Option<Hold> {
        if self.holds.len() <= slot {
            self.holds.resize(slot + 1, None);
        }
        &mut self.holds[slot]
    }

    fn function(&mut self, slot: usize, function: Function, length: Duration) -> &mut Window {
        if self.functions.len() <= slot {
            self.functions.resize_with(slot + 1, || None);
        }
        self.functions[slot].get_or_insert_with(|| Window::new(function, length))
    }
}

/// What an evaluation looked at, for `explain`. Switched off it costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Trail {
    /// Keeps nothing.
    #[default]
    Off,
    /// Keeps every comparison.
    On(Vec<Looked>),
}

/// One metric in one comparison of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Looked {
    /// The metric or what an application or an external source names.
    pub signal: Signal,
    /// Its latest reading, counted or not.
    pub reading: Option<Reading>,
    /// What the comparison came to.
    pub verdict: Truth,
    /// The comparison in canonical text.
    pub comparison: SharedText,
    /// For how long the `FOR` around it has been true.
    pub held_for: Option<Duration>,
    /// For how long it must be.
    pub needs: Option<Duration>,
}

impl Trail {
    /// A trail that keeps what is looked at.
    pub fn recording() -> Self {
        Self::On(Vec::new())
    }

    /// What was kept.
    pub fn looked(&self) -> &[Looked] {
        match self {
            Self::Off => &[],
            Self::On(looked) => looked,
        }
    }

    /// The same, taken.
    pub fn into_looked(self) -> Vec<Looked> {
        match self {
            Self::Off => Vec::new(),
            Self::On(looked) => looked,
        }
    }
}

impl Condition {
    /// What the condition is worth `now`. Readings below `demanded`, absent ones and ones older than three of their
    /// own periods are unknown. Every part is evaluated each time, also where the outcome is already decided, so that
    /// each window sees every moment and every reading. Without a trail nothing is allocated once the windows of
    /// functions have grown to their size.
    pub fn evaluate(
        &self,
        signals: &dyn Signals,
        demanded: Option<Source>,
        windows: &mut Windows,
        now: Moment,
        trail: &mut Trail,
    ) -> Truth {
        let windows = Carry::Kept(windows);
        Evaluation {
            signals,
            demanded,
            now,
            windows,
            trail,
            comparisons: self.comparisons.iter(),
            shortest_period: None,
        }
        .truth(&self.expr)
    }

    /// Whether the condition would hold if these readings lasted: a `FOR` counts as satisfied when what it waits for
    /// is true, averages and percentiles are the reading itself, and nothing changes. For readings that are projected
    /// and not measured.
    pub fn would_hold(&self, signals: &dyn Signals, now: Moment) -> Truth {
        let (windows, trail) = (Carry::Lasting, &mut Trail::Off);
        Evaluation {
            signals,
            demanded: None,
            now,
            windows,
            trail,
            comparisons: self.comparisons.iter(),
            shortest_period: None,
        }
        .truth(&self.expr)
    }
}

/// How windows are treated.
enum Carry<'a> {
    /// Counted, in the state that the caller carries.
    Kept(&'a mut Windows),
    /// As if everything had been as it is for long enough.
    Lasting,
}

struct Evaluation<'a> {
    signals: &'a dyn Signals,
    demanded: Option<Source>,
    now: Moment,
    windows: Carry<'a>,
    trail: &'a mut Trail,
    /// The texts of the comparisons that are still to come, as far as the trail keeps them.
    comparisons: std::slice::Iter<'a, SharedText>,
    /// Within a `FOR`: the shortest period of the readings that were looked at in it, [`Duration::MAX`] without any.
    shortest_period: Option<Duration>,
}

impl Evaluation<'_> {
    fn truth(&mut self, expr: &Expr) -> Truth {
        match expr {
            Expr::And(parts) => parts
                .iter()
                .fold(Truth::True, |truth, part| truth.and(self.truth(part))),
            Expr::Or(parts) => parts
                .iter()
                .fold(Truth::False, |truth, part| truth.or(self.truth(part))),
            Expr::Not(inner) => self.truth(inner).not(),
            Expr::Compare { left, op, right } => {
                let verdict = match (self.value(left), self.value(right)) {
                    (Some(left), Some(right)) => op.compare(left, right).into(),
                    _ => Truth::Unknown,
                };
                self.record(expr, verdict);
                verdict
            }
            Expr::Between { value, low, high } => {
                let verdict = match (self.value(value), self.value(low), self.value(high)) {
                    (Some(value), Some(low), Some(high)) => (low <= value && value <= high).into(),
                    _ => Truth::Unknown,
                };
                self.record(expr, verdict);
                verdict
            }
            Expr::Event(event) => {
                let lasts = |at: Moment| self.now.since(at) <= EventKind::LASTS && at <= self.now;
                self.signals.happened(event).is_some_and(lasts).into()
            }
            Expr::Held {
                inner,
                window,
                slot,
            } => self.held(inner, *window, *slot),
        }
    }

    fn held(&mut self, inner: &Expr, window: Duration, slot: usize) -> Truth {
        let first = self.trail.looked().len();
        let outer = self.shortest_period.replace(Duration::MAX);
        let truth = self.truth(inner);
        let period = std::mem::replace(&mut self.shortest_period, outer).unwrap_or(Duration::MAX);
        if let Some(outer) = &mut self.shortest_period {
            *outer = period.min(*outer);
        }
        let now = self.now;
        let Carry::Kept(windows) = &mut self.windows else {
            return truth;
        };
        let hold = windows.hold(slot);
        if truth != Truth::True {
            *hold = None;
            self.annotate(first, Duration::ZERO, window);
            return truth;
        }
        // Where nobody looked for as long as it takes a reading to become unknown, nobody knows what was between.
        let since = match hold {
            Some(hold) if stands(hold.looked, period, now) => hold.since,
            _ => now,
        };
        *hold = Some(Hold { since, looked: now });
        let held_for = now.since(since);
        self.annotate(first, held_for, window);
        (held_for >= window).into()
    }

    /// The value of the latest reading, its moment and period, where it counts. Not as a [`Reading`]: copying one, with
    /// the padding behind its source, costs as much as the whole comparison.
    #[inline(always)]
    fn reading(&mut self, signal: &Signal) -> Option<(f64, Moment, Duration)> {
        let reading = match signal {
            Signal::Metric(metric) => self.signals.reading(*metric)?,
            Signal::Named(named) => self.signals.named(named)?,
        };
        if let Some(shortest) = &mut self.shortest_period {
            *shortest = reading.period.min(*shortest);
        }
        let trusted = self
            .demanded
            .is_none_or(|demanded| reading.source >= demanded);
        (trusted && reading.is_fresh(self.now)).then_some((
            reading.value,
            reading.at,
            reading.period,
        ))
    }

    fn function(
        &mut self,
        function: Function,
        signal: &Signal,
        length: Duration,
        slot: usize,
    ) -> Option<f64> {
        let reading = self.reading(signal);
        let Carry::Kept(windows) = &mut self.windows else {
            return reading.map(|(value, _, _)| match function {
                Function::Rate | Function::Delta => 0.0,
                _ => value,
            });
        };
        let window = windows.function(slot, function, length);
        if let Some((value, at, period)) = reading {
            window.push(at, value, period);
        }
        window.value(self.now)
    }

    /// What a value comes to, without a call for what most sums are made of.
    #[inline]
    fn value(&mut self, value: &Value) -> Option<f64> {
        match value {
            Value::Number { value, .. } => Some(*value),
            Value::Signal(signal) => self.reading(signal).map(|(value, _, _)| value),
            other => self.computed(other),
        }
    }

    fn computed(&mut self, value: &Value) -> Option<f64> {
        let computed = match value {
            Value::Number { value, .. } => *value,
            Value::Signal(signal) => self.reading(signal)?.0,
            Value::Function {
                function,
                signal,
                window,
                slot,
            } => self.function(*function, signal, *window, *slot)?,
            Value::Anomaly(_) | Value::Predicted { .. } => return None,
            Value::Priority { weight, .. } => (*weight)?,
            Value::Trust { level, .. } => f64::from(level.map(Level::rank)?),
            Value::Level(level) => f64::from(level.rank()),
            Value::Negate(inner) => -self.value(inner)?,
            Value::Binary { left, op, right } => {
                // Both sides are read before either decides: the window above must know every reading's period.
                let (left, right) = (self.value(left), self.value(right));
                let (left, right) = (left?, right?);
                match op {
                    Arithmetic::Add => left + right,
                    Arithmetic::Subtract => left - right,
                    Arithmetic::Multiply => left * right,
                    Arithmetic::Divide => left / right,
                }
            }
        };
        // A division by zero has no value, so nothing is known of it.
        computed.is_finite().then_some(computed)
    }

    #[inline]
    fn record(&mut self, comparison: &Expr, verdict: Truth) {
        if let Trail::On(_) = self.trail {
            self.keep(comparison, verdict);
        }
    }

    #[cold]
    fn keep(&mut self, comparison: &Expr, verdict: Truth) {
        let Trail::On(looked) = self.trail else {
            return;
        };
        // Every comparison is evaluated each time, in this order.
        let Some(text) = self.comparisons.next() else {
            return;
        };
        let first = looked.len();
        let mut keep = |signal: &Signal| {
            if looked[first..].iter().any(|entry| entry.signal == *signal) {
                return;
            }
            let reading = self.signals.signal(signal);
            let comparison = text.clone();
            looked.push(Looked {
                signal: signal.clone(),
                reading,
                verdict,
                comparison,
                held_for: None,
                needs: None,
            });
        };
        comparison.visit_signals(&mut keep);
    }

    fn annotate(&mut self, first: usize, held_for: Duration, needs: Duration) {
        let Trail::On(looked) = self.trail else {
            return;
        };
        // The innermost window says most about a comparison, and it was here first.
        for entry in looked[first..]
            .iter_mut()
            .filter(|entry| entry.needs.is_none())
        {
            entry.held_for = Some(held_for);
            entry.needs = Some(needs);
        }
    }
}

impl Comparison {
    #[inline]
    // Equality of measured values is rarely what one wants, but it is what was asked for.
    #[allow(clippy::float_cmp)]
    fn compare(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }
}
