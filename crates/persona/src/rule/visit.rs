//! Walks over conditions: what they read, what they wait for, and the values that a document fills in. What a condition
//! is worth is in `eval`.

use std::time::Duration;

use super::ast::{Condition, Expr, Rule, Value};
use crate::model::{PriorityMetrics, TrustLevels};
use crate::signal::{Event, Signal};

impl Rule {
    /// Fills in what the rule looks up in its document, `priority_metrics[…]` and `trust_levels[…]`. Until then a
    /// comparison with such a value is unknown, and stays so where the document gives no weight of that name.
    pub fn resolve(&mut self, priorities: &PriorityMetrics, trust: &TrustLevels) {
        let mut fill = |value: &mut Value| match value {
            Value::Priority { name, weight } => *weight = priorities.weight(name),
            Value::Trust { class, level } => *level = Some(trust.level(*class)),
            _ => {}
        };
        self.when.expr.visit_values(&mut fill);
        if let Some(until) = &mut self.until {
            until.expr.visit_values(&mut fill);
        }
    }

    /// The names that the rule looks up in `priority_metrics`, in the order of the text.
    pub fn priorities(&self) -> impl Iterator<Item = &str> {
        let mut found = Vec::new();
        let conditions = std::iter::once(&self.when).chain(&self.until);
        for condition in conditions {
            condition.expr.visit_leaves(&mut |value| {
                if let Value::Priority { name, .. } = value {
                    found.push(name.as_str());
                }
            });
        }
        found.into_iter()
    }
}

impl Condition {
    /// What it reads, each once, in the order of the text.
    pub fn signals(&self) -> impl Iterator<Item = &Signal> {
        let mut found: Vec<&Signal> = Vec::new();
        self.expr.visit_signals(&mut |signal| {
            if !found.contains(&signal) {
                found.push(signal);
            }
        });
        found.into_iter()
    }

    /// The events it waits for, each once, in the order of the text.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        let mut found: Vec<&Event> = Vec::new();
        self.expr.visit_events(&mut |event| {
            if !found.contains(&event) {
                found.push(event);
            }
        });
        found.into_iter()
    }

    /// The shortest time over which it looks: of a `FOR`, or of a function. `None` where it looks at the moment alone.
    pub fn shortest_window(&self) -> Option<Duration> {
        let mut shortest: Option<Duration> = None;
        let mut take = |window: Duration| {
            shortest = Some(shortest.map_or(window, |before| before.min(window)));
        };
        self.expr.visit_held(&mut take);
        self.expr.visit_leaves(&mut |value| {
            if let Value::Function { window, .. } = value {
                take(*window);
            }
        });
        shortest
    }

    /// How many functions over windows it has.
    pub fn functions(&self) -> usize {
        let mut count = 0;
        self.expr.visit_leaves(&mut |value| {
            count += usize::from(matches!(value, Value::Function { .. }));
        });
        count
    }

    /// Whether readings and events are all that it needs: nothing of its document, and nothing learnt.
    pub fn rests_on_observation(&self) -> bool {
        let mut observed = true;
        self.expr.visit_leaves(&mut |value| {
            observed &= matches!(
                value,
                Value::Number { .. } | Value::Signal(_) | Value::Function { .. }
            );
        });
        observed
    }
}

impl Expr {
    fn visit_held(&self, visit: &mut impl FnMut(Duration)) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.visit_held(visit));
            }
            Self::Not(inner) => inner.visit_held(visit),
            Self::Held { inner, window, .. } => {
                visit(*window);
                inner.visit_held(visit);
            }
            Self::Compare { .. } | Self::Between { .. } | Self::Event(_) => {}
        }
    }

    pub(crate) fn visit_signals<'a>(&'a self, visit: &mut impl FnMut(&'a Signal)) {
        self.visit_leaves(&mut |value| match value {
            Value::Signal(signal)
            | Value::Function { signal, .. }
            | Value::Anomaly(signal)
            | Value::Predicted { signal, .. } => visit(signal),
            _ => {}
        });
    }

    pub(crate) fn visit_events<'a>(&'a self, visit: &mut impl FnMut(&'a Event)) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.visit_events(visit))
            }
            Self::Not(inner) | Self::Held { inner, .. } => inner.visit_events(visit),
            Self::Compare { .. } | Self::Between { .. } => {}
            Self::Event(event) => visit(event),
        }
    }

    /// Every comparison, in the order of the text.
    pub(super) fn visit_comparisons<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.visit_comparisons(visit))
            }
            Self::Not(inner) | Self::Held { inner, .. } => inner.visit_comparisons(visit),
            Self::Compare { .. } | Self::Between { .. } => visit(self),
            Self::Event(_) => {}
        }
    }

    /// Every value that has no other in it, in the order of the text.
    pub(crate) fn visit_leaves<'a>(&'a self, visit: &mut impl FnMut(&'a Value)) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.visit_leaves(visit))
            }
            Self::Not(inner) | Self::Held { inner, .. } => inner.visit_leaves(visit),
            Self::Compare { left, right, .. } => {
                left.visit_leaves(visit);
                right.visit_leaves(visit);
            }
            Self::Between { value, low, high } => {
                value.visit_leaves(visit);
                low.visit_leaves(visit);
                high.visit_leaves(visit);
            }
            Self::Event(_) => {}
        }
    }

    /// The same for a visitor that changes them.
    fn visit_values(&mut self, visit: &mut impl FnMut(&mut Value)) {
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter_mut().for_each(|part| part.visit_values(visit))
            }
            Self::Not(inner) | Self::Held { inner, .. } => inner.visit_values(visit),
            Self::Compare { left, right, .. } => {
                left.visit_values(visit);
                right.visit_values(visit);
            }
            Self::Between { value, low, high } => {
                value.visit_values(visit);
                low.visit_values(visit);
                high.visit_values(visit);
            }
            Self::Event(_) => {}
        }
    }
}

impl Value {
    fn visit_leaves<'a>(&'a self, visit: &mut impl FnMut(&'a Value)) {
        match self {
            Self::Negate(inner) => inner.visit_leaves(visit),
            Self::Binary { left, right, .. } => {
                left.visit_leaves(visit);
                right.visit_leaves(visit);
            }
            leaf => visit(leaf),
        }
    }

    fn visit_values(&mut self, visit: &mut impl FnMut(&mut Self)) {
        match self {
            Self::Negate(inner) => inner.visit_values(visit),
            Self::Binary { left, right, .. } => {
                left.visit_values(visit);
                right.visit_values(visit);
            }
            leaf => visit(leaf),
        }
    }
}
