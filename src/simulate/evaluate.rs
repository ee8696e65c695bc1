//! Whole days of recorded machines through the replay, each machine by itself and as many at once as there are CPUs. A
//! machine of the recording is a row of CPU utilisation; 100 % is taken as the persona's `max` of vCPUs, so that a machine
//! of that size which never changes is what it is compared with. Reading files and printing is not here: `make evaluate`
//! does both.

use std::convert::Infallible;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use persona::signal::{Metric, Signal, Source};
use persona::{Moment, Persona};
use planner::Detail;

use super::replay::{Outcome, ReplayError, moments};
use super::sizes::{Load, Setting, SettingError, Sizes};
use super::survey::{Survey, Surveyed};
use super::trace::{Moments, Row, TraceError};
use super::when::TimeForm;

/// Time between two samples of a recording.
pub const SAMPLE: Duration = Duration::from_secs(300);

/// Time between two plans. The daemon's is a second; ten times as long is still short beside the windows of the rules,
/// and a tenth of the work.
pub const TICK: Duration = Duration::from_secs(10);

/// A recorded machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Its name.
    pub name: String,
    /// CPU utilisation in percent, every five minutes.
    pub samples: Vec<f64>,
}

/// What became of one machine, a day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Day {
    /// Times that vCPUs were added.
    pub grown: f64,
    /// Times that vCPUs were removed.
    pub shrunk: f64,
    /// vCPUs times hours.
    pub vcpu_hours: f64,
    /// The same in percent of a machine that always has the persona's `max`.
    pub of_fixed: f64,
    /// Minutes in which the work needed more vCPUs than there were.
    pub short_minutes: f64,
    /// Work that fell beyond what the vCPUs of the moment could do, in percent of all.
    pub waiting: f64,
}

/// Why machines cannot be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluateError {
    /// A sample that is none.
    #[error("line {line}: `{field}` is no percentage")]
    NoPercentage {
        /// The line, from 1.
        line: usize,
        /// What stands there.
        field: String,
    },
    /// A row without samples.
    #[error("line {0}: a name without samples")]
    NoSamples(usize),
    /// Nothing at all.
    #[error("it holds no machine")]
    NoMachine,
    /// Nothing to measure a recording by.
    #[error("the persona {0} has no base_configuration.cpu.max, which a recording is measured by")]
    NoMaximum(String),
    /// The persona's own sizes.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

fn percentage(field: &str, line: usize) -> Result<f64, EvaluateError> {
    match field.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err(EvaluateError::NoPercentage {
            line,
            field: field.trim().chars().take(40).collect(),
        }),
    }
}

/// Rows of a name and the samples of a day, as the PlanetLab traces have them.
///
/// # Errors
/// The first line that is none.
pub fn rows(text: &str) -> Result<Vec<Recording>, EvaluateError> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(index, line)| {
        let mut fields = line.split(',');
        let name = fields.next().unwrap_or_default().trim().to_owned();
        let samples = fields
            .map(|field| percentage(field, index + 1))
            .collect::<Result<Vec<_>, _>>()?;
        if samples.is_empty() {
            return Err(EvaluateError::NoSamples(index + 1));
        }
        Ok(Recording { name, samples })
    });
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() {
        return Err(EvaluateError::NoMachine);
    }
    Ok(rows)
}

/// One machine, of which each line is a time and its utilisation, as the Numenta Anomaly Benchmark has them.
///
/// # Errors
/// The first line that is none.
pub fn column(name: &str, text: &str) -> Result<Recording, EvaluateError> {
    let lines = text.lines().enumerate().skip(1);
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let samples = lines
        .map(|(index, line)| {
            let (_, field) = line
                .rsplit_once(',')
                .ok_or(EvaluateError::NoSamples(index + 1))?;
            percentage(field, index + 1)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if samples.is_empty() {
        return Err(EvaluateError::NoMachine);
    }
    Ok(Recording {
        name: name.to_owned(),
        samples,
    })
}

/// Replays every machine by itself. The result is in their order.
///
/// # Errors
/// Where the persona has no `max` of vCPUs.
pub fn evaluate(persona: &Persona, machines: &[Recording]) -> Result<Vec<Day>, EvaluateError> {
    let most = persona.base.cpu.as_ref().and_then(|cpu| cpu.max);
    let most = most.ok_or_else(|| EvaluateError::NoMaximum(persona.name.to_string()))?;
    let sizes = Sizes::of(
        persona,
        &Setting {
            vcpus_recorded: Some(most),
            load: Load::Closed,
            ..Setting::default()
        },
    )?;
    let next = AtomicUsize::new(0);
    let days = Mutex::new(vec![Day::default(); machines.len()]);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(machines.len()) {
            scope.spawn(|| {
                while let Some((index, machine)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    machines.get(index).map(|machine| (index, machine))
                } {
                    let day = replay(persona, sizes, &machine.samples);
                    let mut days = days
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    days[index] = day;
                }
            });
        }
    });
    Ok(days
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn replay(persona: &Persona, sizes: Sizes, samples: &[f64]) -> Day {
    let first = Moment(1_000_000);
    let of = |metric| Surveyed {
        period: TICK,
        ..Surveyed::new(Signal::Metric(metric), Source::Host)
    };
    let metrics = [
        Metric::CpuUtilization,
        Metric::CpuSteal,
        Metric::CpuThrottled,
    ];
    let ticks = u64::try_from(samples.len()).unwrap_or(0) * (SAMPLE.as_secs() / TICK.as_secs());
    let survey = Survey {
        form: TimeForm::Seconds,
        first,
        end: Moment(first.0 + ticks * TICK.as_secs() * 1000),
        tick: TICK,
        lines: ticks,
        columns: metrics.map(of).to_vec(),
    };
    let rows = Samples {
        samples,
        first,
        ticks: 0,
    };
    let played = moments(persona, sizes, &survey, rows, Detail::Deeds, &mut |_| {
        Ok::<(), Infallible>(())
    });
    let outcome = match played {
        Ok(outcome) => outcome,
        // Samples are read without fail and nobody else is told.
        Err(ReplayError::Trace(_)) => return Day::default(),
        Err(ReplayError::Told(never)) => match never {},
    };
    day(&outcome, sizes)
}

#[allow(clippy::cast_precision_loss, reason = "changes of some days are few")]
fn day(outcome: &Outcome, sizes: Sizes) -> Day {
    let totals = &outcome.totals;
    let days = (totals.seconds / 86_400.0).max(f64::MIN_POSITIVE);
    let count = |kind| totals.actions.get(kind).copied().unwrap_or(0) as f64 / days;
    let work = totals.work.unwrap_or_default();
    let fixed = f64::from(sizes.vcpus_recorded) * totals.seconds / 3600.0;
    let share = |part: f64, of: f64| if of > 0.0 { part / of * 100.0 } else { 0.0 };
    Day {
        grown: count("vcpus-grow"),
        shrunk: count("vcpus-shrink"),
        vcpu_hours: totals.vcpu_hours / days,
        of_fixed: share(totals.vcpu_hours, fixed),
        short_minutes: work.waiting_seconds / 60.0 / days,
        waiting: share(work.waiting_vcpu_hours, work.vcpu_hours),
    }
}

/// Samples as moments: each is measured again at every tick until the next, because the recording says nothing else.
struct Samples<'a> {
    samples: &'a [f64],
    first: Moment,
    ticks: u64,
}

impl Moments for Samples<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, TraceError> {
        let index = self.ticks / (SAMPLE.as_secs() / TICK.as_secs());
        let sample = usize::try_from(index).ok();
        let Some(percent) = sample.and_then(|index| self.samples.get(index)) else {
            return Ok(false);
        };
        row.at = Moment(self.first.0 + self.ticks * TICK.as_secs() * 1000);
        row.events.clear();
        row.values.clear();
        row.values.extend([Some(*percent), Some(0.0), Some(0.0)]);
        self.ticks += 1;
        Ok(true)
    }
}

/// The middle one of some figures; 0 where there is none.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use persona::{Format, SourceText};

    use super::*;

    const QUICK: &str = "
name: quick
base_configuration:
  cpu: {min: 1, initial: 2, max: 4}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 20s THEN add 1 vcpus COOLDOWN 20s
  - IF cpu.utilization < 30% FOR 20s THEN remove 1 vcpus COOLDOWN 20s
";

    fn quick(samples: &[&[f64]]) -> Vec<Day> {
        let source = SourceText {
            name: "quick.yaml",
            text: QUICK.as_bytes(),
            format: Format::Yaml,
            persona_name: None,
        };
        let machines: Vec<Recording> = samples
            .iter()
            .map(|samples| Recording {
                name: String::new(),
                samples: samples.to_vec(),
            })
            .collect();
        evaluate(&persona::load(&source).unwrap().persona, &machines).unwrap()
    }

    #[test]
    fn a_machine_that_is_busy_grows_to_its_max_and_is_short_until_then() {
        let day = quick(&[&[100.0; 288]])[0];
        assert!((day.grown, day.shrunk) == (2.0, 0.0), "{day:?}");
        assert!(
            day.short_minutes > 0.0 && day.short_minutes < 3.0,
            "{day:?}"
        );
        // What it was given and what waited make up what it asked for, since it was never given more.
        assert!(
            (day.vcpu_hours + day.waiting / 100.0 * 96.0 - 96.0).abs() < 1e-9,
            "{day:?}"
        );
    }

    #[test]
    fn a_machine_that_idles_shrinks_to_its_min_and_is_never_short() {
        let day = quick(&[&[0.0; 288]])[0];
        assert!((day.grown, day.shrunk) == (0.0, 1.0), "{day:?}");
        assert!(day.short_minutes == 0.0 && day.of_fixed < 26.0, "{day:?}");
    }

    #[test]
    fn machines_are_evaluated_each_by_itself_and_in_their_order() {
        let (idle, busy) = ([0.0; 12], [100.0; 12]);
        let alone = [quick(&[&idle])[0], quick(&[&busy])[0]];
        let many: Vec<&[f64]> = (0..20)
            .map(|index| if index % 2 == 0 { &idle[..] } else { &busy[..] })
            .collect();
        for (index, day) in quick(&many).into_iter().enumerate() {
            assert_eq!(day, alone[index % 2]);
        }
    }

    #[test]
    fn rows_and_columns_are_read_and_what_is_no_percentage_is_named() {
        assert_eq!(rows("vm0,1,2.5\n\n").unwrap()[0].samples, [1.0, 2.5]);
        for bad in ["vm0,1,x", "vm0,101", "vm0,NaN", "vm0", ""] {
            assert!(rows(bad).is_err(), "{bad}");
        }
        let text = "timestamp,value\n2014-02-14 14:30:00,0.132\n2014-02-14 14:35:00,7\n";
        assert_eq!(column("a", text).unwrap().samples, [0.132, 7.0]);
        let bad = column("a", "timestamp,value\n2014,high\n").unwrap_err();
        assert_eq!(bad.to_string(), "line 2: `high` is no percentage");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(
            median([3.0, 1.0, 2.0].into_iter()).to_bits(),
            2.0_f64.to_bits()
        );
        assert_eq!(
            median([4.0, 1.0, 2.0, 3.0].into_iter()).to_bits(),
            2.5_f64.to_bits()
        );
        assert_eq!(median(std::iter::empty()).to_bits(), 0.0_f64.to_bits());
    }
}
