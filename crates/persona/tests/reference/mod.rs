//! A slow evaluator of conditions that is right at a glance: it carries nothing and computes each value anew from the
//! whole history. `agreement` holds the crate's evaluator to it.

use std::time::Duration;

use persona::rule::{Function, Truth};
use persona::signal::{Event, EventKind};
use persona::{Metric, Moment, Reading, Signals, Source};
use proptest::prelude::*;

/// What conditions read: percentages all, so that any two of them go together.
pub(crate) const METRICS: [Metric; 3] = [
    Metric::CpuUtilization,
    Metric::MemoryUtilization,
    Metric::CpuSteal,
];
/// Which events happen.
pub(crate) const EVENTS: [EventKind; 2] = [EventKind::AgentLost, EventKind::GuestOom];

/// What there is to see at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub now: Moment,
    pub readings: [Option<Reading>; 3],
    /// When each event happened last.
    pub happened: [Option<Moment>; 2],
}

impl Signals for Step {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let index = METRICS.iter().position(|other| *other == metric)?;
        self.readings[index]
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        let index = EVENTS.iter().position(|kind| *kind == event.kind)?;
        self.happened[index]
    }
}

/// A sum of percentages.
#[derive(Clone, Debug)]
pub(crate) enum Sum {
    Number(u32),
    Metric(usize),
    /// With the window in milliseconds.
    Function(Function, usize, u64),
    Anomaly(usize),
    Negate(Box<Sum>),
    Add(Box<Sum>, Box<Sum>),
    Subtract(Box<Sum>, Box<Sum>),
    Half(Box<Sum>),
}

/// A condition, apart from the crate's own types.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    Above(Sum, Sum),
    AtMost(Sum, Sum),
    /// The middle one between the others.
    Between(Sum, Sum, Sum),
    /// The first over the second, compared with a plain number.
    RatioAbove(Sum, Sum, u32),
    /// Of a metric, over a window, compared with hundredths a second.
    RateAbove(usize, u64, u32),
    Event(usize),
    Not(Box<Model>),
    And(Vec<Model>),
    Or(Vec<Model>),
    Held(Box<Model>, u64),
}

impl Sum {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(number) => format!("{number}%"),
            Self::Metric(metric) => METRICS[*metric].to_string(),
            Self::Function(function, metric, window) => {
                format!("{}({}, {window}ms)", function.name(), METRICS[*metric])
            }
            // A plain number, which is brought to a percentage.
            Self::Anomaly(metric) => format!("anomaly({}) * 1%", METRICS[*metric]),
            Self::Negate(inner) => format!("-({})", inner.text()),
            Self::Add(one, other) => format!("({} + {})", one.text(), other.text()),
            Self::Subtract(one, other) => format!("({} - {})", one.text(), other.text()),
            Self::Half(inner) => format!("(({}) / 2)", inner.text()),
        }
    }

    fn metrics(&self, found: &mut Vec<usize>) {
        match self {
            Self::Number(_) | Self::Anomaly(_) => {}
            Self::Metric(metric) | Self::Function(_, metric, _) => found.push(*metric),
            Self::Negate(inner) | Self::Half(inner) => inner.metrics(found),
            Self::Add(one, other) | Self::Subtract(one, other) => {
                one.metrics(found);
                other.metrics(found);
            }
        }
    }
}

impl Model {
    pub(crate) fn text(&self) -> String {
        let join = |parts: &[Self], word: &str| {
            let texts: Vec<_> = parts.iter().map(Self::text).collect();
            format!("({})", texts.join(word))
        };
        match self {
            Self::Above(one, other) => format!("{} > {}", one.text(), other.text()),
            Self::AtMost(one, other) => format!("{} <= {}", one.text(), other.text()),
            Self::Between(low, value, high) => {
                format!(
                    "{} BETWEEN {} AND {}",
                    value.text(),
                    low.text(),
                    high.text()
                )
            }
            Self::RatioAbove(one, other, number) => {
                format!("({}) / ({}) > {number}", one.text(), other.text())
            }
            Self::RateAbove(metric, window, hundredths) => {
                format!("rate({}, {window}ms) > {hundredths}.37/s", METRICS[*metric])
            }
            Self::Event(event) => EVENTS[*event].name().to_owned(),
            Self::Not(inner) => format!("NOT ({})", inner.text()),
            Self::And(parts) => join(parts, " AND "),
            Self::Or(parts) => join(parts, " OR "),
            Self::Held(inner, window) => format!("(({}) FOR {window}ms)", inner.text()),
        }
    }

    /// What it reads.
    fn metrics(&self) -> Vec<usize> {
        let mut found = Vec::new();
        match self {
            Self::Above(one, other)
            | Self::AtMost(one, other)
            | Self::RatioAbove(one, other, _) => {
                one.metrics(&mut found);
                other.metrics(&mut found);
            }
            Self::Between(low, value, high) => {
                [low, value, high]
                    .into_iter()
                    .for_each(|sum| sum.metrics(&mut found));
            }
            Self::RateAbove(metric, _, _) => found.push(*metric),
            Self::Event(_) => {}
            Self::Not(inner) | Self::Held(inner, _) => found = inner.metrics(),
            Self::And(parts) | Self::Or(parts) => {
                found = parts.iter().flat_map(Self::metrics).collect();
            }
        }
        found
    }
}

/// All that happened, and which evidence counts.
pub(crate) struct History<'a> {
    pub steps: &'a [Step],
    pub demanded: Option<Source>,
}

impl History<'_> {
    /// The reading that counts at one of the steps.
    fn reading(&self, index: usize, metric: usize) -> Option<Reading> {
        let step = &self.steps[index];
        let reading = step.readings[metric]?;
        let trusted = self
            .demanded
            .is_none_or(|demanded| reading.source >= demanded);
        let age = step.now.0.saturating_sub(reading.at.0);
        let fresh = u128::from(age) <= 3 * reading.period.as_millis();
        (trusted && fresh && reading.value.is_finite()).then_some(reading)
    }

    /// A function over all readings that ever counted.
    fn function(
        &self,
        index: usize,
        function: Function,
        metric: usize,
        window: u64,
    ) -> Option<f64> {
        let mut run: Vec<Reading> = Vec::new();
        for step in 0..=index {
            let Some(reading) = self.reading(step, metric) else {
                continue;
            };
            if let Some(last) = run.last() {
                if reading.at <= last.at {
                    continue;
                }
                if u128::from(reading.at.0 - last.at.0) > 3 * last.period.as_millis() {
                    run.clear();
                }
            }
            run.push(reading);
        }
        let (first, last) = (run.first()?, run.last()?);
        let now = self.steps[index].now.0.max(last.at.0);
        let stands = |reading: &Reading| u64::try_from(3 * reading.period.as_millis()).unwrap();
        if now - last.at.0 > stands(last) || now - first.at.0 + stands(first) < window {
            return None;
        }
        let counting: Vec<&Reading> = run
            .iter()
            .filter(|reading| now - reading.at.0 < window)
            .collect();
        let mut values: Vec<f64> = counting.iter().map(|reading| reading.value).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        if count == 0 {
            return None;
        }
        let rank = |percent: usize| Some(values[(percent * count).div_ceil(100) - 1]);
        let (oldest, latest) = (counting[0], counting[count - 1]);
        let change = latest.value - oldest.value;
        match function {
            // Values are small whole numbers, so that sums of them are exact in any order.
            Function::Avg => Some(values.iter().sum::<f64>() / count as f64),
            Function::Min => Some(values[0]),
            Function::Max => Some(values[count - 1]),
            Function::P50 => rank(50),
            Function::P90 => rank(90),
            Function::P95 => rank(95),
            Function::P99 => rank(99),
            Function::Rate | Function::Delta if count < 2 => None,
            Function::Rate => Some(change / ((latest.at.0 - oldest.at.0) as f64 / 1000.0)),
            Function::Delta => Some(change),
        }
    }

    fn sum(&self, index: usize, sum: &Sum) -> Option<f64> {
        match sum {
            Sum::Number(number) => Some(f64::from(*number)),
            Sum::Metric(metric) => self.reading(index, *metric).map(|reading| reading.value),
            Sum::Function(function, metric, window) => {
                self.function(index, *function, *metric, *window)
            }
            Sum::Anomaly(_) => None,
            Sum::Negate(inner) => Some(-self.sum(index, inner)?),
            Sum::Add(one, other) => Some(self.sum(index, one)? + self.sum(index, other)?),
            Sum::Subtract(one, other) => Some(self.sum(index, one)? - self.sum(index, other)?),
            Sum::Half(inner) => Some(self.sum(index, inner)? / 2.0),
        }
    }

    /// What the condition is worth at one of the steps.
    pub(crate) fn worth(&self, index: usize, model: &Model) -> Truth {
        let known = |truth: Option<bool>| truth.map_or(Truth::Unknown, Truth::from);
        let sum = |sum| self.sum(index, sum);
        let all = |parts: &[Model]| -> Vec<Truth> {
            parts.iter().map(|part| self.worth(index, part)).collect()
        };
        match model {
            Model::Above(one, other) => known(sum(one).zip(sum(other)).map(|(a, b)| a > b)),
            Model::AtMost(one, other) => known(sum(one).zip(sum(other)).map(|(a, b)| a <= b)),
            Model::Between(low, value, high) => {
                let ends = sum(low).zip(sum(high));
                known(
                    sum(value)
                        .zip(ends)
                        .map(|(value, (low, high))| low <= value && value <= high),
                )
            }
            Model::RatioAbove(one, other, number) => {
                let ratio = sum(one).zip(sum(other)).map(|(a, b)| a / b);
                let ratio = ratio.filter(|ratio| ratio.is_finite());
                known(ratio.map(|ratio| ratio > f64::from(*number)))
            }
            Model::RateAbove(metric, window, whole) => {
                let rate = self.function(index, Function::Rate, *metric, *window);
                known(rate.map(|rate| rate > f64::from(*whole) + 0.37))
            }
            Model::Event(event) => {
                let now = self.steps[index].now;
                let at = self.steps[index].happened[*event];
                at.is_some_and(|at| at <= now && now.0 - at.0 <= 30_000)
                    .into()
            }
            Model::Not(inner) => match self.worth(index, inner) {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                Truth::Unknown => Truth::Unknown,
            },
            Model::And(parts) => {
                let worth = all(parts);
                if worth.contains(&Truth::False) {
                    Truth::False
                } else if worth.contains(&Truth::Unknown) {
                    Truth::Unknown
                } else {
                    Truth::True
                }
            }
            Model::Or(parts) => {
                let worth = all(parts);
                if worth.contains(&Truth::True) {
                    Truth::True
                } else if worth.contains(&Truth::Unknown) {
                    Truth::Unknown
                } else {
                    Truth::False
                }
            }
            Model::Held(inner, window) => {
                let now = self.worth(index, inner);
                if now != Truth::True {
                    return now;
                }
                let mut first = index;
                while first > 0
                    && !self.looked_away(first, inner)
                    && self.worth(first - 1, inner) == Truth::True
                {
                    first -= 1;
                }
                (self.steps[index].now.0 - self.steps[first].now.0 >= *window).into()
            }
        }
    }

    /// Whether so much time lies before a step that no reading of the condition would have lasted through it.
    fn looked_away(&self, index: usize, model: &Model) -> bool {
        let step = &self.steps[index];
        let gap = u128::from(step.now.0 - self.steps[index - 1].now.0);
        let metrics = model.metrics();
        let readings = metrics.iter().filter_map(|metric| step.readings[*metric]);
        let shortest = readings.map(|reading| reading.period.as_millis()).min();
        shortest.is_some_and(|period| gap > 3 * period)
    }
}

/// Times are multiples of this, so that no window puts two readings into one slice.
const GRAIN: u64 = 50;

/// What comes of a metric in one step.
fn came() -> impl Strategy<Value = Option<(f64, Source, u64, u64)>> {
    let value = prop_oneof![12 => (0_u32..101).prop_map(f64::from), 1 => Just(f64::NAN)];
    let source =
        prop_oneof![6 => Just(Source::Host), 1 => Just(Source::Balloon), 1 => Just(Source::Agent)];
    let age = prop_oneof![6 => Just(0_u64), 2 => 1_u64..20, 1 => 20_u64..120];
    let period = prop_oneof![8 => Just(1000_u64), 1 => Just(500), 1 => Just(2000)];
    prop_oneof![9 => (value, source, age, period).prop_map(Some), 1 => Just(None)]
}

/// A history with jitter, gaps, readings that are late, double or missing, and events.
pub(crate) fn history() -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![4 => Just(20_u64), 4 => 1_u64..30, 1 => 55_u64..70, 1 => 61_u64..1200];
    let events = prop::collection::vec(prop_oneof![10 => Just(false), 1 => Just(true)], 2);
    let step = (gap, prop::collection::vec(came(), 3), events);
    prop::collection::vec(step, 1..40).prop_map(|steps| {
        let mut now = 1_000_000;
        let mut happened = [None; 2];
        let mut history: Vec<Step> = Vec::new();
        for (gap, came, events) in steps {
            now += gap * GRAIN;
            for (index, happens) in events.into_iter().enumerate() {
                happened[index] = if happens {
                    Some(Moment(now))
                } else {
                    happened[index]
                };
            }
            let mut readings = [None; 3];
            for (index, came) in came.into_iter().enumerate() {
                readings[index] = came.map(|(value, source, age, period)| Reading {
                    value,
                    source,
                    at: Moment(now - age * GRAIN),
                    period: Duration::from_millis(period),
                });
            }
            history.push(Step {
                now: Moment(now),
                readings,
                happened,
            });
        }
        history
    })
}

fn metric() -> impl Strategy<Value = usize> {
    // Mostly one metric, so that windows over it are often covered.
    prop_oneof![3 => Just(0_usize), 1 => 1_usize..3]
}

fn window() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 20_u64..100, 1 => 100_u64..200].prop_map(|n| n * GRAIN)
}

fn sum() -> impl Strategy<Value = Sum> {
    let functions = Function::ALL
        .into_iter()
        .filter(|function| *function != Function::Rate);
    let function = prop::sample::select(functions.collect::<Vec<_>>());
    let leaf = prop_oneof![
        4 => (0_u32..101).prop_map(Sum::Number),
        5 => metric().prop_map(Sum::Metric),
        5 => (function, metric(), window()).prop_map(|(function, metric, window)| Sum::Function(function, metric, window)),
        1 => metric().prop_map(Sum::Anomaly),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            inner.clone().prop_map(|inner| Sum::Negate(Box::new(inner))),
            two().prop_map(|(one, other)| Sum::Add(Box::new(one), Box::new(other))),
            two().prop_map(|(one, other)| Sum::Subtract(Box::new(one), Box::new(other))),
            inner.clone().prop_map(|inner| Sum::Half(Box::new(inner))),
        ]
    })
}

/// A condition without windows of its own.
fn plain() -> impl Strategy<Value = Model> {
    prop_oneof![
        4 => (metric(), 0_u32..101).prop_map(|(metric, number)| Model::Above(Sum::Metric(metric), Sum::Number(number))),
        3 => (sum(), sum()).prop_map(|(one, other)| Model::Above(one, other)),
        2 => (sum(), sum()).prop_map(|(one, other)| Model::AtMost(one, other)),
        1 => (sum(), sum(), sum()).prop_map(|(low, value, high)| Model::Between(low, value, high)),
        1 => (sum(), sum(), 0_u32..3).prop_map(|(one, other, number)| Model::RatioAbove(one, other, number)),
        1 => (metric(), window(), 0_u32..20).prop_map(|(metric, window, whole)| Model::RateAbove(metric, window, whole)),
        1 => (0_usize..2).prop_map(Model::Event),
    ]
    // What measures nothing is no condition, and turned ends of BETWEEN are refused.
    .prop_filter("measures nothing", |model| {
        matches!(model, Model::Event(_)) || !model.metrics().is_empty()
    })
    .prop_filter("turned", |model| {
        !matches!(model, Model::Between(Sum::Number(low), _, Sum::Number(high)) if low > high)
    })
}

/// Any condition.
pub(crate) fn model() -> impl Strategy<Value = Model> {
    plain()
        .prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Model::Not(Box::new(inner))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Model::And),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Model::Or),
                (inner, 1_u64..4000)
                    .prop_map(|(inner, window)| Model::Held(Box::new(inner), window)),
            ]
        })
        // Several of them still are one rule within its limits.
        .prop_filter("large", |model| {
            let text = model.text();
            let operations = text.matches(['+', '-', '/', '*']).count();
            text.matches("ms)").count() <= 3 && operations <= 12 && text.len() < 800
        })
}
