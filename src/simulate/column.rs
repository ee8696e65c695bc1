//! What the first line of a trace says of each column: the time, what happened, or the readings of a signal with the
//! unit they are written in.

use persona::Quantity;
use persona::signal::{Event, EventKind, Metric, Named, Signal, Source};

/// One column of a trace.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Column {
    /// When the line was recorded.
    Time,
    /// What happened then.
    Event,
    /// Readings of one signal.
    Signal(SignalColumn),
}

/// A column of readings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SignalColumn {
    pub(super) signal: Signal,
    scale: Scale,
}

/// What brings a number into the base of its unit: a ratio and not a factor, so that `9` in milliseconds is exactly the
/// number that a rule's `9 ms` is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    times: f64,
    over: f64,
}

/// Why the name of a column is none, as the rest of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// Neither a signal nor one of the two other columns.
    #[error(
        "{0}; a column is `time`, `event`, or a metric with its unit, such as `memory.available [MiB]`"
    )]
    Unknown(String),
    /// No such unit.
    #[error("{0}; the unit stands in brackets behind the name, such as `memory.available [MiB]`")]
    Unit(String),
    /// A unit of something else.
    #[error("`{found}` is {kind}, and the metric is {expected}")]
    UnitOfSomethingElse {
        /// The unit.
        found: String,
        /// What it measures.
        kind: String,
        /// What the metric is.
        expected: String,
    },
}

/// Why a cell cannot be read, as the rest of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// No number.
    #[error(
        "`{0}` is no number; write one such as 82.5, with the unit in the first line, or leave the cell empty where there was no reading"
    )]
    NotANumber(String),
    /// A number that the metric cannot have.
    #[error("`{0}` is out of range: {1}")]
    OutOfRange(String, &'static str),
    /// No event.
    #[error(
        "{0}; several events in one cell are separated by `;`, and a feed's name stands in parentheses: `feed.changed(NAME)`"
    )]
    NoEvent(String),
}

impl Column {
    /// Reads a cell of the first line.
    pub(super) fn parse(cell: &str) -> Result<Self, ColumnError> {
        let (name, unit) = match cell.split_once('[') {
            Some((name, rest)) => {
                let unit = rest.trim_end().strip_suffix(']').ok_or_else(|| {
                    ColumnError::Unit(format!("`{}` has no closing bracket", excerpt(cell)))
                })?;
                (name.trim(), Some(unit.trim()))
            }
            None => (cell.trim(), None),
        };
        match name.to_ascii_lowercase().as_str() {
            "time" if unit.is_none() => return Ok(Self::Time),
            "event" | "events" if unit.is_none() => return Ok(Self::Event),
            _ => {}
        }
        let signal = if Named::is_meant_by(name) {
            let named: Named = name
                .parse()
                .map_err(|error| ColumnError::Unknown(format!("{error}")))?;
            Signal::Named(named)
        } else {
            let metric: Metric = name
                .parse()
                .map_err(|error| ColumnError::Unknown(format!("{error}")))?;
            Signal::Metric(metric)
        };
        let scale = match unit {
            Some(unit) => Scale::of(unit, &signal)?,
            None => Scale {
                times: 1.0,
                over: 1.0,
            },
        };
        Ok(Self::Signal(SignalColumn { signal, scale }))
    }
}

impl Scale {
    fn of(unit: &str, signal: &Signal) -> Result<Self, ColumnError> {
        let one = Quantity::parse(&format!("1 {unit}"))
            .map_err(|error| ColumnError::Unit(error.to_string()))?;
        if let Some(expected) = signal.unit()
            && expected != one.unit
        {
            return Err(ColumnError::UnitOfSomethingElse {
                found: unit.to_owned(),
                kind: one.unit.to_string(),
                expected: expected.to_string(),
            });
        }
        Ok(if one.value >= 1.0 {
            Self {
                times: one.value,
                over: 1.0,
            }
        } else {
            Self {
                times: 1.0,
                over: (1.0 / one.value).round(),
            }
        })
    }
}

impl SignalColumn {
    /// Who claims the readings: the best source that the signal can have.
    pub(super) fn source(&self) -> Source {
        match &self.signal {
            Signal::Metric(metric) => metric.best_source(),
            Signal::Named(named) if named.source().is_some() => Source::External,
            Signal::Named(_) => Source::Agent,
        }
    }

    /// Reads a cell; an empty one is no reading.
    pub(super) fn read(&self, cell: &str) -> Result<Option<f64>, CellError> {
        let cell = cell.trim();
        if cell.is_empty() {
            return Ok(None);
        }
        let value: f64 = cell
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .ok_or_else(|| CellError::NotANumber(excerpt(cell)))?;
        let value = value * self.scale.times / self.scale.over;
        let range = match self.signal.unit() {
            Some(persona::Unit::Percent) if !(0.0..=100.0).contains(&value) => {
                "the metric is a percentage from 0 to 100"
            }
            Some(_) if value < 0.0 => "the metric is never negative",
            _ => return Ok(Some(value)),
        };
        Err(CellError::OutOfRange(excerpt(cell), range))
    }
}

/// Reads the events of a cell.
pub(super) fn events(cell: &str) -> Result<Vec<Event>, CellError> {
    cell.split(';')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let (kind, source) = match name.split_once('(') {
                Some((kind, rest)) => {
                    let source = rest.strip_suffix(')').map(str::trim);
                    let source = source.filter(|source| !source.is_empty()).ok_or_else(|| {
                        CellError::NoEvent(format!("`{}` names no feed", excerpt(name)))
                    })?;
                    (kind.trim(), Some(source.to_ascii_lowercase()))
                }
                None => (name, None),
            };
            let kind: EventKind = kind
                .parse()
                .map_err(|error| CellError::NoEvent(format!("{error}")))?;
            Ok(Event { kind, source })
        })
        .collect()
}

/// Enough of a datum to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(column: &str, cell: &str) -> Result<Option<f64>, String> {
        match Column::parse(column) {
            Ok(Column::Signal(column)) => column.read(cell).map_err(|error| error.to_string()),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn readings_come_into_the_base_of_their_unit_exactly() {
        for (column, cell, value) in [
            ("cpu.utilization", "82.5", Some(82.5)),
            ("CPU utilization [%]", " 7 ", Some(7.0)),
            ("memory.available [MiB]", "512", Some(536_870_912.0)),
            ("network.latency [ms]", "9", Some(0.009)),
            ("guest.log.errors [/min]", "30", Some(0.5)),
            ("guest.app.orders", "-3", Some(-3.0)),
            ("external.threatintel.count", "2e3", Some(2000.0)),
            ("cpu.utilization", "", None),
        ] {
            assert_eq!(read(column, cell), Ok(value), "{column}: {cell}");
        }
    }

    #[test]
    fn columns_and_cells_that_mean_nothing_say_why() {
        for (column, cell, said) in [
            ("cpu.utilisation", "1", "did you mean `cpu.utilization`?"),
            ("memory.available [MB", "1", "no closing bracket"),
            ("memory.available [Mb]", "1", "bits or bytes"),
            (
                "memory.available [ms]",
                "1",
                "is a duration, and the metric is a size in bytes",
            ),
            ("guest.app.", "1", "no name of an application's metric"),
            ("cpu.utilization", "high", "is no number"),
            ("cpu.utilization", "NaN", "is no number"),
            ("cpu.utilization", "101", "0 to 100"),
            ("guest.load", "-1", "never negative"),
        ] {
            let found = read(column, cell).unwrap_err();
            assert!(found.contains(said), "{column}, {cell}: {found}");
        }
    }

    #[test]
    fn a_cell_holds_several_events() {
        let read = events("domain.started; feed.changed(ThreatIntel);").unwrap();
        let names: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["EVENT(domain.started)", "EVENT(feed.changed(threatintel))"]
        );
        for bad in ["domain.start", "feed.changed(", "feed.changed()"] {
            assert!(events(bad).is_err(), "{bad}");
        }
    }
}
