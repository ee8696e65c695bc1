//! What the actions of rules did to the metrics that their persona prioritises: the mean of a while before an action
//! against the mean of as long a while after it, and how sure one can be of the difference. Advisory: no plan looks at
//! it. The daemon feeds each tick's readings and the begin and end of each step; it keeps the [`Tally`] of each rule.
//!
//! What is measured is that one came after the other. A load that falls by itself after a machine has grown counts for
//! the growth, too; many actions at different times make that rarer, and the interval says how far they disagree.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use persona::domain::DomainId;
use persona::signal::{Metric, Signals};
use persona::units::Moment;
use persona::{Digest, Persona};
use serde::{Deserialize, Serialize};

use crate::plan::Step;
use crate::report::Wish;
use crate::state::Ending;

/// Over how long a time is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// So long before and after an action its metrics are averaged: long enough for a mean of metrics that come each
    /// five seconds, short beside the minutes between two actions of a rule.
    pub window: Duration,
    /// So long after a change nothing is counted: the guest brings CPUs online and drops caches, and rates still average
    /// over the time before.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            settle: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// Less than this of a window says nothing.
    fn least(self) -> Duration {
        self.window / 2
    }

    /// Readings are kept in slices of this length.
    fn slice(self) -> Duration {
        self.window / 12
    }
}

/// Fewer readings make no mean.
const READINGS: u32 = 3;

/// A step that has not ended by then was lost.
const LOST: Duration = Duration::from_secs(600);

/// Beyond this many, earlier differences count half as much, so that a rule is judged by what it does of late.
const REMEMBERED: u32 = 200;

/// The mean of some readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> Option<f64> {
        (self.count >= READINGS).then(|| self.sum / f64::from(self.count))
    }
}

/// The last minute of one metric.
#[derive(Clone, Debug)]
struct Course {
    metric: Metric,
    slices: VecDeque<(Moment, Mean)>,
    last: Option<Moment>,
}

impl Course {
    /// Takes a reading that was not seen before; tells its value and age.
    fn take(
        &mut self,
        timing: Timing,
        signals: &dyn Signals,
        now: Moment,
    ) -> Option<(f64, Moment)> {
        let reading = signals.reading(self.metric).filter(|it| it.is_fresh(now))?;
        if self.last.is_some_and(|last| reading.at <= last) {
            return None;
        }
        self.last = Some(reading.at);
        while self
            .slices
            .front()
            .is_some_and(|(from, _)| now.since(*from) > timing.window)
        {
            self.slices.pop_front();
        }
        match self.slices.back_mut() {
            Some((from, mean)) if reading.at.since(*from) < timing.slice() => {
                mean.add(reading.value)
            }
            _ => {
                let mut mean = Mean::default();
                mean.add(reading.value);
                self.slices.push_back((reading.at, mean));
            }
        }
        // A rate averages over its period, so one whole period has to lie after whatever it is to tell of.
        Some((
            reading.value,
            Moment(reading.at.0.saturating_sub(millis(reading.period))),
        ))
    }

    /// The mean since a moment and before another, when it is of long enough a time. What is past by `now` is looked at in
    /// whole slices, since nobody knows any more where in one it lies.
    fn mean(&self, timing: Timing, since: Moment, before: Moment, now: Moment) -> Option<f64> {
        let mut mean = Mean::default();
        let mut first = None;
        for (from, slice) in &self.slices {
            let whole = before == now || from.after(timing.slice()) <= before;
            if *from >= since && whole && before.since(*from) <= timing.window {
                first.get_or_insert(*from);
                mean.sum += slice.sum;
                mean.count += slice.count;
            }
        }
        first.filter(|first| before.since(*first) >= timing.least())?;
        mean.value()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An action whose impact is being measured.
#[derive(Clone, Debug)]
struct Open {
    rule: String,
    began: Moment,
    /// Steps under way.
    pending: u32,
    ended: Option<Moment>,
    before: Vec<Option<f64>>,
    after: Vec<Mean>,
}

/// One domain.
#[derive(Clone, Debug)]
struct Watch {
    persona: Digest,
    instance: Option<u32>,
    courses: Vec<Course>,
    open: Option<Open>,
    /// The end of the last change of anything.
    disturbed: Option<Moment>,
}

/// What one action came to, for one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Which domain.
    pub domain: DomainId,
    /// The rule.
    pub rule: String,
    /// Which metric.
    pub metric: Metric,
    /// Its mean before the action, in the metric's unit.
    pub before: f64,
    /// Its mean after it.
    pub after: f64,
}

/// The actions of all domains that are being measured.
#[derive(Clone, Debug, Default)]
pub struct Impacts {
    timing: Timing,
    domains: BTreeMap<DomainId, Watch>,
}

impl Impacts {
    /// Measures by other times than before; what is being measured is over.
    pub fn set_timing(&mut self, timing: Timing) {
        if self.timing != timing {
            self.timing = timing;
            self.domains.clear();
        }
    }

    /// Takes a tick's readings of a domain, and tells what has been measured to its end.
    pub fn observe(
        &mut self,
        domain: DomainId,
        instance: Option<u32>,
        persona: &Persona,
        signals: &dyn Signals,
        now: Moment,
    ) -> Vec<Measured> {
        let timing = self.timing;
        let same = self
            .domains
            .get(&domain)
            .is_some_and(|watch| watch.persona == persona.digest && watch.instance == instance);
        if !same {
            let courses = persona.prioritised_metrics().into_iter();
            let watch = Watch {
                persona: persona.digest.clone(),
                instance,
                courses: courses
                    .map(|metric| Course {
                        metric,
                        slices: VecDeque::new(),
                        last: None,
                    })
                    .collect(),
                open: None,
                disturbed: None,
            };
            self.domains.insert(domain, watch);
        }
        let Some(watch) = self.domains.get_mut(&domain) else {
            return Vec::new();
        };
        for (index, course) in watch.courses.iter_mut().enumerate() {
            let Some((value, measured_from)) = course.take(timing, signals, now) else {
                continue;
            };
            if let Some(open) = &mut watch.open
                && let Some(ended) = open.ended
                && measured_from >= ended
                && now.since(ended) >= timing.settle
            {
                open.after[index].add(value);
            }
        }
        let due = |open: &mut Open| match open.ended {
            Some(ended) => now.since(ended) >= timing.settle + timing.window,
            None => now.since(open.began) >= LOST,
        };
        // After a gap the time behind the action was not watched.
        let watched = |open: &Open| {
            open.ended.is_some_and(|ended| {
                now.since(ended) < timing.settle + timing.window + timing.least()
            })
        };
        let Some(open) = watch.open.take_if(due).filter(watched) else {
            return Vec::new();
        };
        let figures = watch.courses.iter().zip(&open.before).zip(&open.after);
        figures
            .filter_map(|((course, before), after)| {
                Some(Measured {
                    domain,
                    rule: open.rule.clone(),
                    metric: course.metric,
                    before: (*before)?,
                    after: after.value()?,
                })
            })
            .collect()
    }

    /// A step begins. Further steps of the same rule belong to the same action; a step of anybody else ends the
    /// measuring, because nobody could tell the two apart.
    pub fn begin(&mut self, step: &Step, now: Moment) {
        let rule = match &step.by {
            Wish::Rule(rule) => Some(rule),
            _ => None,
        };
        self.begin_action(step.domain, rule.map(String::as_str), now);
    }

    /// As [`Impacts::begin`], of anything that changes the machine; without a rule it is somebody else's.
    pub fn begin_action(&mut self, domain: DomainId, rule: Option<&str>, now: Moment) {
        self.begin_since(domain, rule, now, now);
    }

    /// An action that is told of when it is over, as those are that guests take. One that began longer ago than is averaged over
    /// was not watched: it measures nothing, and disturbs nothing that is being measured.
    pub fn took_place(&mut self, domain: DomainId, rule: Option<&str>, began: Moment, now: Moment) {
        let began = began.min(now);
        if now.since(began) > self.timing.window {
            return;
        }
        self.begin_since(domain, rule, began, now);
        self.end_action(domain, rule, Ending::Applied, now);
    }

    fn begin_since(&mut self, domain: DomainId, rule: Option<&str>, began: Moment, now: Moment) {
        let timing = self.timing;
        let Some(watch) = self.domains.get_mut(&domain) else {
            return;
        };
        if let Some(open) = &mut watch.open
            && rule == Some(open.rule.as_str())
        {
            open.pending += 1;
            open.ended = None;
            open.after.fill(Mean::default());
            return;
        }
        let since = watch
            .disturbed
            .map_or(Moment(0), |disturbed| disturbed.after(timing.settle));
        watch.open = rule.map(|rule| Open {
            rule: rule.to_owned(),
            began: now,
            pending: 1,
            ended: None,
            before: watch
                .courses
                .iter()
                .map(|course| course.mean(timing, since, began, now))
                .collect(),
            after: vec![Mean::default(); watch.courses.len()],
        });
    }

    /// A step ended.
    pub fn end(&mut self, step: &Step, ending: Ending, now: Moment) {
        let rule = match &step.by {
            Wish::Rule(rule) => Some(rule.as_str()),
            _ => None,
        };
        self.end_action(step.domain, rule, ending, now);
    }

    /// As [`Impacts::end`], of anything that changes the machine.
    pub fn end_action(
        &mut self,
        domain: DomainId,
        rule: Option<&str>,
        ending: Ending,
        now: Moment,
    ) {
        let Some(watch) = self.domains.get_mut(&domain) else {
            return;
        };
        let changed = matches!(ending, Ending::Applied | Ending::Partial);
        if ending != Ending::Refused {
            watch.disturbed = Some(now);
        }
        let Some(open) = watch.open.as_mut() else {
            return;
        };
        if rule != Some(open.rule.as_str()) {
            return;
        }
        open.pending = open.pending.saturating_sub(1);
        if !changed {
            // Nobody knows what the machine is like now, or nothing was done.
            watch.open = None;
        } else if open.pending == 0 {
            open.ended = Some(now);
        }
    }

    /// Somebody else changed the machine.
    pub fn disturb(&mut self, domain: DomainId, now: Moment) {
        if let Some(watch) = self.domains.get_mut(&domain) {
            (watch.open, watch.disturbed) = (None, Some(now));
        }
    }

    /// Forgets a domain that no longer runs or has no persona.
    pub fn forget(&mut self, domain: DomainId) {
        self.domains.remove(&domain);
    }
}

/// The differences that a rule's actions made to one metric: their number, mean and spread (Welford's method).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    actions: u32,
    before: f64,
    mean: f64,
    squares: f64,
}

impl Tally {
    /// Adds one action.
    pub fn add(&mut self, before: f64, after: f64) {
        if !before.is_finite() || !after.is_finite() {
            return;
        }
        if self.actions >= REMEMBERED {
            self.actions /= 2;
            self.squares /= 2.0;
        }
        self.actions += 1;
        let count = f64::from(self.actions);
        self.before += (before - self.before) / count;
        let difference = after - before;
        let off = difference - self.mean;
        self.mean += off / count;
        self.squares += off * (difference - self.mean);
    }

    /// How many actions it is made of.
    pub fn actions(&self) -> u32 {
        self.actions
    }

    /// The mean before the actions, in the metric's unit.
    pub fn before(&self) -> f64 {
        self.before
    }

    /// The mean of what came after less what came before.
    pub fn change(&self) -> f64 {
        self.mean
    }

    /// Half of the interval that holds the true mean with 95 percent confidence; `None` for a single action.
    pub fn margin(&self) -> Option<f64> {
        Some(self.error()? * student(self.actions - 1)[P95])
    }

    /// How sure one can be that the metric rises or falls at all.
    pub fn confidence(&self) -> Confidence {
        let Some(error) = self.error() else {
            return Confidence::None;
        };
        let reached = |least: f64| self.mean.abs() > least * error;
        let levels = [
            Confidence::P80,
            Confidence::P90,
            Confidence::P95,
            Confidence::P99,
        ];
        let row = student(self.actions - 1);
        let best = levels.into_iter().zip(row).rev();
        best.into_iter()
            .find(|(_, least)| reached(*least))
            .map_or(Confidence::None, |(level, _)| level)
    }

    /// The standard error of the mean.
    fn error(&self) -> Option<f64> {
        let freedom = f64::from(self.actions.checked_sub(1).filter(|freedom| *freedom > 0)?);
        Some((self.squares / freedom / f64::from(self.actions)).sqrt())
    }
}

/// How sure one can be that a difference is no accident, by Student's t-test on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Confidence {
    /// Less than 80 percent.
    None,
    /// 80 percent.
    P80,
    /// 90 percent.
    P90,
    /// 95 percent.
    P95,
    /// 99 percent.
    P99,
}

impl Confidence {
    /// In percent; `None` where there is none to speak of.
    pub fn percent(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::P80 => Some(80),
            Self::P90 => Some(90),
            Self::P95 => Some(95),
            Self::P99 => Some(99),
        }
    }
}

/// The place of 95 percent in a row of [`STUDENT`].
const P95: usize = 2;

/// Critical values of Student's t for 80, 90, 95 and 99 percent on both sides, by degrees of freedom.
const STUDENT: [(u32, [f64; 4]); 15] = [
    (1, [3.078, 6.314, 12.706, 63.657]),
    (2, [1.886, 2.920, 4.303, 9.925]),
    (3, [1.638, 2.353, 3.182, 5.841]),
    (4, [1.533, 2.132, 2.776, 4.604]),
    (5, [1.476, 2.015, 2.571, 4.032]),
    (6, [1.440, 1.943, 2.447, 3.707]),
    (7, [1.415, 1.895, 2.365, 3.499]),
    (8, [1.397, 1.860, 2.306, 3.355]),
    (9, [1.383, 1.833, 2.262, 3.250]),
    (10, [1.372, 1.812, 2.228, 3.169]),
    (12, [1.356, 1.782, 2.179, 3.055]),
    (15, [1.341, 1.753, 2.131, 2.947]),
    (20, [1.325, 1.725, 2.086, 2.845]),
    (30, [1.310, 1.697, 2.042, 2.750]),
    (120, [1.289, 1.658, 1.980, 2.617]),
];

/// The row of the most degrees of freedom that are there: between two rows the stricter one.
fn student(freedom: u32) -> [f64; 4] {
    let rows = STUDENT.iter().rev();
    rows.into_iter()
        .find(|(least, _)| *least <= freedom)
        .map_or([f64::INFINITY; 4], |(_, row)| *row)
}
