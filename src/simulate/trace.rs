//! A trace: comma-separated values whose first line names the columns. Read as a stream, a line at a time, so that its
//! length costs no memory; what is wrong with it is said with line and column.

use std::io::Read;

use persona::Moment;
use persona::signal::{Event, Signal};

use super::column::{self, CellError, Column, ColumnError, SignalColumn};
use super::line::{LineError, Lines};
use super::when::TimeForm;

/// Why a trace cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A line cannot be read.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Nothing behind the first line.
    #[error(
        "the trace holds no readings; the first line names the columns, and each further line is a moment"
    )]
    Empty,
    /// The first line has no such column.
    #[error(
        "line 1 has no column `time`; the first line names the columns, such as `time,cpu.utilization,memory.available [MiB]`"
    )]
    NoTime(u64),
    /// No column of readings, and none of events.
    #[error("line {0} names neither a metric nor `event`, so there is nothing to play")]
    NoColumns(u64),
    /// A column that means nothing.
    #[error("line {line}, column {column}: {error}")]
    Column {
        /// The line of the names, from 1.
        line: u64,
        /// Its number, from 1.
        column: usize,
        /// Why.
        error: ColumnError,
    },
    /// Two columns of one name.
    #[error(
        "line 1, column {column}: `{name}` is there twice; a trace has one column for each metric"
    )]
    Twice {
        /// The line of the names, from 1.
        line: u64,
        /// The number of the second, from 1.
        column: usize,
        /// The name.
        name: String,
    },
    /// Too few or too many cells.
    #[error(
        "line {line} has {found} cells and the line of the names has {expected}; leave a cell empty where there was no reading"
    )]
    Cells {
        /// The line, from 1.
        line: u64,
        /// Cells of the line.
        found: usize,
        /// Cells of the first line.
        expected: usize,
    },
    /// A cell that cannot be read.
    #[error("line {line}, column {column} ({name}): {error}")]
    Cell {
        /// The line, from 1.
        line: u64,
        /// The number of the column, from 1.
        column: usize,
        /// Its name.
        name: String,
        /// Why.
        error: CellError,
    },
    /// No time, or one of another form than those before.
    #[error(
        "line {line}, column {column} (time): `{found}` is {what}; write seconds (12.5), HH:MM:SS (the hours may go on beyond 24) or RFC 3339 (2026-01-31T08:00:00Z), the same in every line"
    )]
    Time {
        /// The line, from 1.
        line: u64,
        /// The number of the column, from 1.
        column: usize,
        /// The text.
        found: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Earlier than the line before.
    #[error(
        "line {line}: the time `{found}` is before that of the line above; sort the lines by time, and where HH:MM:SS passes midnight go on with 24:00:00"
    )]
    Back {
        /// The line, from 1.
        line: u64,
        /// The text.
        found: String,
    },
    /// Longer than can be played.
    #[error("the trace spans more than {most} days; cut it into parts")]
    TooLong {
        /// Days that can be played.
        most: u64,
    },
    /// A recording that ends before its first tick.
    #[error("the recording holds no tick; record the domain while it is there and the daemon runs")]
    NoTicks,
    /// A recording that cannot be read.
    #[error(transparent)]
    Recording(#[from] crate::record::TraceError),
    /// The file was written to meanwhile.
    #[error("the trace was changed while it was being played; wait until it is complete")]
    Changed,
}

/// One line.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// When.
    pub(super) at: Moment,
    /// One for each column of readings; `None` where there was none.
    pub(super) values: Vec<Option<f64>>,
    /// What happened.
    pub(super) events: Vec<Event>,
}

/// Where the moments of a replay come from, one after another.
pub(super) trait Moments {
    /// Reads the next moment into `row`; false at the end.
    fn next(&mut self, row: &mut Row) -> Result<bool, TraceError>;
}

impl<R: Read> Moments for Rows<R> {
    fn next(&mut self, row: &mut Row) -> Result<bool, TraceError> {
        self.read(row)
    }
}

/// The lines of a trace behind the first.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    columns: Vec<Column>,
    form: Option<TimeForm>,
    last: Moment,
}

impl<R: Read> Rows<R> {
    /// Reads the first line.
    pub(super) fn open(source: R) -> Result<Self, TraceError> {
        let mut lines = Lines::new(source);
        if !lines.next()? {
            return Err(TraceError::Empty);
        }
        let line = lines.number();
        let mut columns = Vec::with_capacity(lines.cells().len());
        for (index, cell) in lines.cells().enumerate() {
            let parsed = Column::parse(cell).map_err(|error| TraceError::Column {
                line,
                column: index + 1,
                error,
            })?;
            if columns.iter().any(|column| same(column, &parsed)) {
                return Err(TraceError::Twice {
                    line,
                    column: index + 1,
                    name: cell.to_owned(),
                });
            }
            columns.push(parsed);
        }
        if !columns.contains(&Column::Time) {
            return Err(TraceError::NoTime(line));
        }
        if columns.len() == 1 {
            return Err(TraceError::NoColumns(line));
        }
        Ok(Self {
            lines,
            columns,
            form: None,
            last: Moment(0),
        })
    }

    /// The columns of readings, in the order of [`Row::values`].
    pub(super) fn signals(&self) -> impl Iterator<Item = &SignalColumn> {
        self.columns.iter().filter_map(|column| match column {
            Column::Signal(column) => Some(column),
            Column::Time | Column::Event => None,
        })
    }

    /// How the trace says when; known from the first line of readings on.
    pub(super) fn form(&self) -> Option<TimeForm> {
        self.form
    }

    /// Reads the next line into `row`; false at the end.
    fn read(&mut self, row: &mut Row) -> Result<bool, TraceError> {
        if !self.lines.next()? {
            return Ok(false);
        }
        let line = self.lines.number();
        let cells = self.lines.cells();
        if cells.len() != self.columns.len() {
            return Err(TraceError::Cells {
                line,
                found: cells.len(),
                expected: self.columns.len(),
            });
        }
        row.values.clear();
        row.events.clear();
        for (index, (cell, column)) in cells.zip(&self.columns).enumerate() {
            let wrong = |name: String, error| TraceError::Cell {
                line,
                column: index + 1,
                name,
                error,
            };
            match column {
                Column::Time => {
                    row.at = time(&mut self.form, self.last, cell, line, index + 1)?;
                }
                Column::Event => {
                    row.events =
                        column::events(cell).map_err(|error| wrong("event".into(), error))?;
                }
                Column::Signal(column) => {
                    let value = column
                        .read(cell)
                        .map_err(|error| wrong(column.signal.to_string(), error))?;
                    row.values.push(value);
                }
            }
        }
        self.last = row.at;
        Ok(true)
    }
}

/// Whether two columns are of one thing.
fn same(one: &Column, other: &Column) -> bool {
    let signal = |column: &Column| -> Option<Signal> {
        match column {
            Column::Signal(column) => Some(column.signal.clone()),
            Column::Time | Column::Event => None,
        }
    };
    one == other || (signal(one).is_some() && signal(one) == signal(other))
}

fn time(
    form: &mut Option<TimeForm>,
    last: Moment,
    cell: &str,
    line: u64,
    column: usize,
) -> Result<Moment, TraceError> {
    let wrong = |what| TraceError::Time {
        line,
        column,
        found: cell.chars().take(40).collect(),
        what,
    };
    let found = TimeForm::of(cell).ok_or_else(|| wrong("no time"))?;
    let form = *form.get_or_insert(found);
    let at = form
        .read(cell)
        .ok_or_else(|| wrong("a time of another form than those above"))?;
    if at < last {
        return Err(TraceError::Back {
            line,
            found: cell.to_owned(),
        });
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Row>, TraceError> {
        let mut rows = Rows::open(text.as_bytes())?;
        let (mut row, mut found) = (Row::default(), Vec::new());
        while rows.next(&mut row)? {
            found.push(row.clone());
        }
        Ok(found)
    }

    #[test]
    fn lines_are_read_with_quotes_comments_and_empty_cells() {
        let text = "\u{feff}\"time\", cpu.utilization ,event,guest.app.orders [/min]\r\n\
                    # recorded on the first host\r\n0,50,,\r\n60,,domain.started;agent.lost,\"120\"\r\n";
        let rows = all(text).unwrap();
        assert_eq!(rows[0].values, [Some(50.0), None]);
        assert_eq!(rows[1].values, [None, Some(2.0)]);
        assert_eq!((rows[1].at, rows[1].events.len()), (Moment(60_000), 2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_column() {
        for (text, said) in [
            ("", "no readings"),
            ("cpu.utilization\n1\n", "no column `time`"),
            ("time\n1\n", "nothing to play"),
            (
                "time,cpu\n1,1\n",
                "line 1, column 2: there is no metric `cpu`",
            ),
            (
                "time,cpu load,cpu.utilization\n",
                "line 1, column 3: `cpu.utilization` is there twice",
            ),
            (
                "time,cpu load\n1\n",
                "line 2 has 1 cells and the line of the names has 2",
            ),
            (
                "time,cpu load\n1,5\n\n2,x\n",
                "line 4, column 2 (cpu.utilization): `x` is no number",
            ),
            (
                "time,cpu load\nnow,5\n",
                "line 2, column 1 (time): `now` is no time",
            ),
            (
                "time,cpu load\n5,5\n00:06,5\n",
                "line 3, column 1 (time): `00:06` is a time of another form",
            ),
            (
                "time,cpu load\n23:59,5\n00:00,5\n",
                "line 3: the time `00:00` is before",
            ),
            (
                "time,event\n5,agent.los\n",
                "line 2, column 2 (event): there is no event `agent.los`; did you mean `agent.lost`?",
            ),
        ] {
            let error = all(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
