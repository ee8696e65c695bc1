//! `simulate`: replays recorded metrics through a persona's rules, without the daemon. Opens the trace and prints what is
//! told; the replay itself is in `crate::simulate`.

use std::fs::File;
use std::io;
use std::path::Path;

use persona::{Effective, Persona};
use serde::Serialize;

use super::CliError;
use super::args::{self, Simulate};
use super::check::read;
use super::layers::{Known, Outcome as Read};
use super::screen::{Cell, Colour, Screen, Style, Table, clean};
use crate::simulate::{
    Happening, Load, Outcome, ReplayError, Setting, Sizes, Survey, TraceError, What, replay,
};
use crate::view::ProblemView;

/// So many happenings are kept for `--json`; further ones are counted.
const MOST_KEPT: usize = 100_000;

/// Why a trace cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceProblem {
    /// The file.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A pipe, or a folder.
    #[error("it is no regular file; a trace is read twice, so write it to a file first")]
    NoFile,
    /// What is in it.
    #[error(transparent)]
    Content(#[from] TraceError),
}

/// The shape of `simulate --json`.
#[derive(Debug, Serialize)]
struct Simulated<'a> {
    /// The persona's name.
    persona: &'a str,
    /// Its content digest.
    digest: String,
    /// What was played.
    trace: Played,
    /// The domain and its host.
    domain: Sizes,
    /// Warnings of the document.
    warnings: Vec<ProblemView>,
    /// What happened, in the order of time.
    happenings: Vec<Happening>,
    /// Further ones that were not kept.
    left_out: u64,
    /// The rules and the totals.
    #[serde(flatten)]
    outcome: Outcome,
}

/// The trace.
#[derive(Debug, Serialize)]
struct Played {
    /// The file.
    file: String,
    /// From when, as it says it.
    from: String,
    /// To when: its last line and one step more.
    to: String,
    /// Its lines.
    lines: u64,
    /// Its columns of readings.
    columns: Vec<PlayedColumn>,
}

/// A column of readings.
#[derive(Debug, Serialize)]
struct PlayedColumn {
    /// What is read.
    signal: String,
    /// The median time between two readings, in seconds.
    period: f64,
    /// Readings.
    readings: u64,
}

/// Carries `simulate` out.
///
/// # Errors
/// Where the persona is not valid, the trace cannot be played, or the output cannot be written.
pub(super) fn simulate(what: &Simulate, json: bool, screen: &mut Screen) -> Result<(), CliError> {
    let effective = load(what, json)?;
    let persona = &effective.persona;
    let sizes = Sizes::of(persona, &setting(what))?;
    let path = what.trace.display().to_string();
    let problem = |source| CliError::Trace {
        path: path.clone(),
        source,
    };
    let survey =
        Survey::of(open(&what.trace).map_err(problem)?).map_err(|error| problem(error.into()))?;
    let trace = Played {
        file: path.clone(),
        from: survey.form.show(survey.first),
        to: survey.form.show(survey.end),
        lines: survey.lines,
        columns: survey
            .columns
            .iter()
            .map(|column| PlayedColumn {
                signal: column.signal.to_string(),
                period: column.period.as_secs_f64(),
                readings: column.readings,
            })
            .collect(),
    };
    let (mut happenings, mut left_out) = (Vec::new(), 0);
    if !json {
        heading(persona, &trace, &sizes, screen)?;
    }
    let mut tell = |happening: Happening| -> io::Result<()> {
        if !json {
            return line(&happening, screen);
        }
        if happenings.len() < MOST_KEPT {
            happenings.push(happening);
        } else {
            left_out += 1;
        }
        Ok(())
    };
    let again = open(&what.trace).map_err(problem)?;
    let outcome =
        replay(persona, sizes, &survey, again, &mut tell).map_err(|error| match error {
            ReplayError::Trace(error) => problem(error.into()),
            ReplayError::Told(error) => CliError::Output(error),
        })?;
    if json {
        screen.json(&Simulated {
            persona: persona.name.as_str(),
            digest: persona.digest.to_string(),
            trace,
            domain: sizes,
            warnings: effective.warnings.iter().map(ProblemView::from).collect(),
            happenings,
            left_out,
            outcome,
        })?;
    } else {
        summary(&outcome, screen)?;
    }
    Ok(())
}

fn setting(what: &Simulate) -> Setting {
    Setting {
        vcpus: what.vcpus.map(|range| range.start),
        vcpus_most: what.vcpus.and_then(|range| range.most),
        memory: what.memory.map(|range| range.start),
        memory_most: what.memory.and_then(|range| range.most),
        host_vcpus: what.host_vcpus,
        host_memory: what.host_memory,
        load: match what.load {
            args::Load::Open => Load::Open,
            args::Load::Closed => Load::Closed,
        },
    }
}

/// The persona with all that it builds on.
fn load(what: &Simulate, json: bool) -> Result<Effective, CliError> {
    let mut known = Known::default();
    for base in &what.bases {
        known.add(None, read(base, None)?);
    }
    let document = read(&what.persona, what.name.as_deref())?;
    let path = what.persona.display().to_string();
    match known.read(&document) {
        Read::Whole(effective) => Ok(*effective),
        Read::Wrong(problems) => Err(invalid(&what.persona, json, &problems)),
        Read::Part { missing, .. } => Err(CliError::NoBase {
            path,
            base: missing.to_string(),
        }),
        Read::Tangled { reason } => Err(CliError::Tangled { path, reason }),
    }
}

/// Shows what is wrong with the document on standard error, as `check` does.
fn invalid(path: &Path, json: bool, problems: &persona::Problems) -> CliError {
    if !json {
        let mut screen = Screen::stderr();
        let style = match screen.colour() {
            Colour::On => persona::Style::Colour,
            Colour::Off => persona::Style::Plain,
        };
        // Nothing is left to do where even the reason cannot be written.
        let _ = screen.raw(&problems.render(style));
    }
    CliError::Invalid {
        path: path.display().to_string(),
        problems: problems.iter().map(ProblemView::from).collect(),
    }
}

fn open(path: &Path) -> Result<File, TraceProblem> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(TraceProblem::NoFile);
    }
    Ok(file)
}

fn heading(
    persona: &Persona,
    trace: &Played,
    sizes: &Sizes,
    screen: &mut Screen,
) -> io::Result<()> {
    screen.heading(&clean(&format!(
        "{} on {}, {} to {}",
        persona.name, trace.file, trace.from, trace.to
    )))?;
    screen.line(&format!(
        "vcpus {} of at most {}, memory {} of at most {}; the host has {} vCPUs and {}; {}",
        sizes.vcpus,
        sizes.vcpus_most,
        sizes.memory,
        sizes.memory_most,
        sizes.host.vcpus,
        sizes.host.memory,
        match sizes.load {
            Load::Open => "readings are played as they are",
            Load::Closed => "the load is that of the start size",
        }
    ))?;
    screen.line("")
}

fn line(happening: &Happening, screen: &mut Screen) -> io::Result<()> {
    let style = match happening.what {
        What::Change { .. } => Style::Good,
        What::Call { .. } => Style::Plain,
        What::Refused { .. } => Style::Warning,
    };
    let at = screen.colour().paint(style, &happening.at);
    screen.line(&format!("{at}  {}", clean(&happening.text)))
}

fn summary(outcome: &Outcome, screen: &mut Screen) -> io::Result<()> {
    let silent = outcome
        .rules
        .iter()
        .filter_map(|rule| Some((rule, rule.why.as_ref()?)));
    let mut silent = silent.peekable();
    if silent.peek().is_some() {
        screen.line("")?;
        screen.heading("Rules that never fired")?;
        for (rule, why) in silent {
            let text = format!("{} (line {}): {}", rule.name, rule.line, why.text);
            screen.line(&clean(&text))?;
        }
    }
    let totals = &outcome.totals;
    screen.line("")?;
    screen.heading("Totals")?;
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row(vec![Cell::new(name), Cell::new(value)]);
    let span = |seconds: f64| {
        let share = if totals.seconds > 0.0 {
            seconds / totals.seconds * 100.0
        } else {
            0.0
        };
        format!("{seconds:.0} s, {share:.1} % of the time")
    };
    row("played", format!("{:.0} s", totals.seconds));
    row("vCPU-hours", format!("{:.2}", totals.vcpu_hours));
    row("GiB-hours", format!("{:.2}", totals.gib_hours));
    row(
        "changes",
        format!("{}, {:.1} an hour", totals.changes, totals.changes_per_hour),
    );
    for (kind, times) in &totals.actions {
        row(kind, times.to_string());
    }
    row("under-provisioned", span(totals.short_seconds));
    row("  CPUs at 95 % or more", span(totals.saturated_seconds));
    row("  growth refused by a limit", span(totals.refused_seconds));
    screen.table(&table)
}
