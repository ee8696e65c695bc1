//! A first pass over a trace: whether all of it can be read, from when to when it goes, and how often each column has a
//! reading. The replay needs the last before it begins: a reading is too old after three periods of its column.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::time::Duration;

use persona::signal::{Signal, Source};
use persona::{Moment, Persona};
use planner::snapshot::Host;

use super::trace::{Moments, Row, Rows, TraceError};
use super::when::TimeForm;
use crate::record::{DomainFrame, PersonaMark, Trace};

/// Time between two plans, as in the daemon.
pub const TICK: Duration = Duration::from_secs(1);

/// A longer trace would be played for minutes.
const MOST_DAYS: u64 = 400;

/// What a trace holds.
#[derive(Clone, Debug)]
pub struct Survey {
    /// How it says when.
    pub form: TimeForm,
    /// Its first line's time.
    pub first: Moment,
    /// One step behind its last line's time: what is recorded last lasts as long as the rest.
    pub end: Moment,
    /// Time between two plans.
    pub tick: Duration,
    /// Lines.
    pub lines: u64,
    /// Its columns of readings, in their order.
    pub columns: Vec<Surveyed>,
}

/// A column of readings.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// What is read.
    pub signal: Signal,
    /// Who claims it.
    pub source: Source,
    /// The median time between two readings, a tick at least.
    pub period: Duration,
    /// Readings.
    pub readings: u64,
    /// The least and the most, where there is a reading.
    pub range: Option<(f64, f64)>,
}

impl Survey {
    /// Reads a whole trace.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn of(trace: impl Read) -> Result<Self, TraceError> {
        let mut rows = Rows::open(trace)?;
        let mut columns: Vec<(Surveyed, Steps)> = rows
            .signals()
            .map(|column| {
                (
                    Surveyed::new(column.signal.clone(), column.source()),
                    Steps::default(),
                )
            })
            .collect();
        let (mut row, mut lines, mut steps) = (Row::default(), 0, Steps::default());
        let mut first = None;
        while rows.next(&mut row)? {
            lines += 1;
            first.get_or_insert(row.at);
            steps.step(row.at);
            for ((column, steps), value) in columns.iter_mut().zip(&row.values) {
                if let Some(value) = *value {
                    steps.step(row.at);
                    column.note(value);
                }
            }
        }
        let (Some(first), Some(form)) = (first, rows.form()) else {
            return Err(TraceError::Empty);
        };
        let most = Duration::from_secs(MOST_DAYS * 86_400);
        if row.at.since(first) > most {
            return Err(TraceError::TooLong { most: MOST_DAYS });
        }
        Ok(Self {
            form,
            first,
            end: row.at.after(steps.median(TICK)),
            tick: TICK,
            lines,
            columns: columns
                .into_iter()
                .map(|(column, steps)| Surveyed {
                    period: steps.median(TICK),
                    ..column
                })
                .collect(),
        })
    }

    /// Reads a whole recording.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn of_recording(mut trace: Trace<impl BufRead>) -> Result<(Self, Recorded), TraceError> {
        let mut columns: BTreeMap<Signal, (Surveyed, Option<Moment>)> = BTreeMap::new();
        let (mut first, mut last, mut ticks, mut steps) = (None, Moment(0), 0, Steps::default());
        let mut about = None;
        while let Some(tick) = trace.tick()? {
            first.get_or_insert(tick.at);
            last = tick.at;
            ticks += 1;
            steps.step(tick.at);
            let about = about.get_or_insert_with(|| Recorded {
                domain: tick.domain.name.clone(),
                frame: tick.domain.clone(),
                budget: tick.host.budget,
                personas: Vec::new(),
                lost: 0,
            });
            about.lost += tick.lost;
            if let Some(persona) = &tick.domain.persona
                && about.personas.last() != Some(persona)
            {
                about.personas.push(persona.clone());
            }
            for (signal, reading) in tick.domain.signals.readings() {
                let (column, at) = columns.entry(signal.clone()).or_insert_with(|| {
                    let mut column = Surveyed::new(signal, reading.source);
                    column.period = reading.period;
                    (column, None)
                });
                if at.replace(reading.at) != Some(reading.at) {
                    column.note(reading.value);
                }
            }
        }
        let (Some(first), Some(about)) = (first, about) else {
            return Err(TraceError::NoTicks);
        };
        let tick = steps.median(Duration::from_millis(1));
        let survey = Self {
            form: TimeForm::Date,
            first,
            end: last.after(tick),
            tick,
            lines: ticks,
            columns: columns.into_values().map(|(column, _)| column).collect(),
        };
        Ok((survey, about))
    }

    /// The column of a signal.
    pub fn column(&self, signal: &Signal) -> Option<&Surveyed> {
        self.columns.iter().find(|column| column.signal == *signal)
    }
}

impl Surveyed {
    pub(super) fn new(signal: Signal, source: Source) -> Self {
        Self {
            signal,
            source,
            period: TICK,
            readings: 0,
            range: None,
        }
    }

    fn note(&mut self, value: f64) {
        self.readings += 1;
        self.range = Some(match self.range {
            None => (value, value),
            Some((least, most)) => (least.min(value), most.max(value)),
        });
    }
}

/// What a recording is of.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The domain's name.
    pub domain: String,
    /// The domain at the first tick.
    pub frame: DomainFrame,
    /// What the host had for all domains then.
    pub budget: Host,
    /// The personas that were in force, one after another.
    pub personas: Vec<PersonaMark>,
    /// Ticks that could not be recorded.
    pub lost: u64,
}

impl Recorded {
    /// Whether a persona was in force at some time.
    pub fn has(&self, persona: &Persona) -> bool {
        self.personas
            .iter()
            .any(|mark| mark.digest == persona.digest)
    }
}

/// Most lengths of steps that are told apart; beyond it they are told apart half as finely.
const MOST_LENGTHS: usize = 4096;

/// How long the steps between moments are, in memory that does not grow with their number.
struct Steps {
    before: Option<Moment>,
    /// Milliseconds, in multiples of `grain`, and how often.
    lengths: BTreeMap<u64, u64>,
    grain: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            before: None,
            lengths: BTreeMap::new(),
            grain: 1,
        }
    }
}

impl Steps {
    fn step(&mut self, at: Moment) {
        let Some(before) = self.before.replace(at).filter(|before| *before != at) else {
            return;
        };
        let length = at.0.saturating_sub(before.0);
        *self.lengths.entry(length / self.grain).or_default() += 1;
        if self.lengths.len() > MOST_LENGTHS {
            self.grain *= 2;
            let finer = std::mem::take(&mut self.lengths);
            for (length, times) in finer {
                *self.lengths.entry(length / 2).or_default() += times;
            }
        }
    }

    /// The median, and no less than `least`.
    fn median(&self, least: Duration) -> Duration {
        let steps: u64 = self.lengths.values().sum();
        let mut passed = 0;
        let median = self.lengths.iter().find(|(_, times)| {
            passed += *times;
            passed * 2 >= steps
        });
        let median = median.map_or(0, |(length, _)| length * self.grain);
        Duration::from_millis(median).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_of_a_column_is_its_median_step_and_a_second_at_least() {
        let text = "time,cpu load,memory usage,guest.load\n0,1,5,\n5,2,,\n10,3,,\n15,1,40,\n60,9,80,\n60.2,9,,1\n";
        let survey = Survey::of(text.as_bytes()).unwrap();
        let seconds: Vec<u64> = survey
            .columns
            .iter()
            .map(|column| column.period.as_secs())
            .collect();
        assert_eq!(seconds, [5, 15, 1]);
        assert_eq!(survey.columns[0].range, Some((1.0, 9.0)));
        assert_eq!((survey.first, survey.end), (Moment(0), Moment(65_200)));
        assert_eq!((survey.lines, survey.columns[2].readings), (6, 1));
    }

    #[test]
    fn steps_of_any_length_take_bounded_memory() {
        let mut steps = Steps::default();
        let mut at = 0;
        for length in 1000..60_000 {
            at += length;
            steps.step(Moment(at));
        }
        assert!(steps.lengths.len() <= MOST_LENGTHS);
        let median = steps.median(TICK).as_secs_f64();
        assert!((29.0..32.0).contains(&median), "{median}");
    }

    #[test]
    fn a_trace_of_one_line_lasts_a_tick_and_an_endless_one_is_refused() {
        let survey = Survey::of("time,cpu load\n08:00,50\n".as_bytes()).unwrap();
        assert_eq!(survey.end.since(survey.first), TICK);
        let long = "time,cpu load\n0,50\n99999999,50\n";
        assert!(matches!(
            Survey::of(long.as_bytes()),
            Err(TraceError::TooLong { .. })
        ));
        assert!(matches!(
            Survey::of("time,cpu load\n".as_bytes()),
            Err(TraceError::Empty)
        ));
    }
}
