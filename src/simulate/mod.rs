//! Recorded metrics through a persona's rules: what would have been done when, and why. The planner is the daemon's own
//! with guard and arbitration; the domain is simulated. Reads no file and prints nothing: `cli` opens the trace and
//! shows what is told. Read the modules in this order:
//!
//! ```text
//! when       how a trace says when
//! column     its first line: what each column is
//! line       its lines as cells, one at a time
//! trace      its lines as readings and events
//! survey     a first pass: from when to when, and how often each column has a reading
//! sizes      what the simulated domain starts with and may grow to
//! machine    the simulated domain, and what the rules read of it
//! replay     the second pass: a tick a second, or those that were recorded
//! happening  what is told while it goes
//! tally      what it comes to
//! evaluate   whole days of recorded machines, all at once
//! ```

mod column;
pub mod evaluate;
mod happening;
mod line;
mod machine;
mod replay;
mod sizes;
mod survey;
mod tally;
mod trace;
mod when;
mod words;

pub use column::{CellError, ColumnError};
pub use happening::{Bound, Happening, Sample, What};
pub use line::LineError;
pub use replay::{Outcome, ReplayError, replay, replay_recording};
pub use sizes::{Follows, Load, Setting, SettingError, Sizes};
pub use survey::{Recorded, Survey, Surveyed, TICK};
pub use tally::{RuleOutcome, Silence, Totals, Why, Work};
pub use trace::TraceError;
pub use when::TimeForm;
