//! `simulate`: replays recorded metrics, or a recording of the daemon's, through a persona's rules, without the daemon. Opens the trace and prints what is
//! told; the replay itself is in `crate::simulate`.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use persona::{Effective, Persona};
use serde::Serialize;

use super::CliError;
use super::args::{self, Simulate};
use super::check::read;
use super::layers::{Known, Outcome as Read};
use super::screen::{Cell, Colour, Screen, Style, Table, clean};
use crate::record::{Trace, is_recording};
use crate::simulate::{
    Follows, Happening, Load, Outcome, Recorded, ReplayError, Setting, Sizes, Survey, TraceError,
    What, replay, replay_recording,
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
    /// What is known of a recording; `null` where readings alone were played.
    recording: Option<Faithful>,
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

/// How a replay goes with what was recorded.
#[derive(Debug, Serialize)]
struct Faithful {
    /// The domain.
    domain: String,
    /// Whether the persona was in force at some time of it.
    was_in_force: bool,
    /// Ticks that could not be recorded.
    lost: u64,
    /// When it was first decided otherwise than then; `null` where everything was decided as it was.
    left: Option<String>,
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
    let path = what.trace.display().to_string();
    let problem = |source| CliError::Trace {
        path: path.clone(),
        source,
    };
    let wrong = |error: TraceError| problem(error.into());
    let setting = setting(what);
    let (survey, sizes, recorded) = if is_recorded(&what.trace).map_err(problem)? {
        let (survey, about) =
            Survey::of_recording(recording(&what.trace).map_err(problem)?).map_err(wrong)?;
        let (sizes, follows) = Sizes::recorded(&about.frame, about.budget, &setting)?;
        (survey, sizes, Some((about, follows)))
    } else {
        let sizes = Sizes::of(persona, &setting)?;
        let survey = Survey::of(open(&what.trace).map_err(problem)?).map_err(wrong)?;
        (survey, sizes, None)
    };
    let trace = played(&path, &survey);
    let (mut happenings, mut left_out) = (Vec::new(), 0);
    if !json {
        heading(persona, &trace, &sizes, recorded.as_ref(), screen)?;
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
    let failed = |error| match error {
        ReplayError::Trace(error) => wrong(error),
        ReplayError::Told(error) => CliError::Output(error),
    };
    let (outcome, recording) = match recorded {
        Some((about, follows)) => {
            let again = recording(&what.trace).map_err(problem)?;
            let seen = (&survey, &about);
            let (outcome, left) =
                replay_recording(persona, (sizes, follows), seen, again, &mut tell)
                    .map_err(failed)?;
            let faithful = Faithful {
                was_in_force: about.has(persona),
                lost: about.lost,
                left: left.map(|at| survey.form.show(at)),
                domain: about.domain,
            };
            (outcome, Some(faithful))
        }
        None => {
            let again = open(&what.trace).map_err(problem)?;
            let outcome = replay(persona, sizes, &survey, again, &mut tell).map_err(failed)?;
            (outcome, None)
        }
    };
    if json {
        screen.json(&Simulated {
            persona: persona.name.as_str(),
            digest: persona.digest.to_string(),
            trace,
            recording,
            domain: sizes,
            warnings: effective.warnings.iter().map(ProblemView::from).collect(),
            happenings,
            left_out,
            outcome,
        })?;
    } else {
        summary(&outcome, recording.as_ref(), screen)?;
    }
    Ok(())
}

/// What is said of a trace.
fn played(path: &str, survey: &Survey) -> Played {
    Played {
        file: path.to_owned(),
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
    }
}

fn setting(what: &Simulate) -> Setting {
    Setting {
        vcpus: what.vcpus.map(|range| range.start),
        vcpus_most: what.vcpus.and_then(|range| range.most),
        memory: what.memory.map(|range| range.start),
        memory_most: what.memory.and_then(|range| range.most),
        host_vcpus: what.host_vcpus,
        host_memory: what.host_memory,
        vcpus_recorded: None,
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
    // A base that builds on the persona itself makes a circle, and is no file that was not given.
    known.add(None, document.clone());
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

/// Whether it is a recording of the daemon's, as against readings.
fn is_recorded(path: &Path) -> Result<bool, TraceProblem> {
    let mut beginning = Vec::new();
    open(path)?.take(64).read_to_end(&mut beginning)?;
    Ok(is_recording(&beginning))
}

fn recording(path: &Path) -> Result<Trace<BufReader<File>>, TraceProblem> {
    Trace::open(BufReader::new(open(path)?)).map_err(|error| TraceProblem::Content(error.into()))
}

fn heading(
    persona: &Persona,
    trace: &Played,
    sizes: &Sizes,
    recorded: Option<&(Recorded, Follows)>,
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
            Load::Closed => "the load is that of the recorded size",
        }
    ))?;
    if let Some((about, follows)) = recorded {
        let text = match (follows, about.has(persona)) {
            (Follows::Itself, _) => {
                "sizes are those that were asked for, and not those that were recorded"
            }
            (Follows::Recording, true) => {
                "this persona was in force then; what was decided is decided again"
            }
            (Follows::Recording, false) => "this persona was not in force then",
        };
        screen.line(&clean(&format!("{}: {text}", about.domain)))?;
    }
    screen.line("")
}

fn line(happening: &Happening, screen: &mut Screen) -> io::Result<()> {
    let style = match happening.what {
        What::Change { .. } | What::Limit { .. } => Style::Good,
        What::Call { .. } => Style::Plain,
        What::Refused { .. } => Style::Warning,
    };
    let at = screen.colour().paint(style, &happening.at);
    screen.line(&format!("{at}  {}", clean(&happening.text)))
}

fn summary(outcome: &Outcome, recording: Option<&Faithful>, screen: &mut Screen) -> io::Result<()> {
    if let Some(recording) = recording {
        screen.line("")?;
        screen.line(&match &recording.left {
            None => "all was decided as it was then".to_owned(),
            Some(at) => format!(
                "decided otherwise than then from {at} on; from there sizes are the replay's own"
            ),
        })?;
        if recording.lost > 0 {
            screen.line(&format!(
                "{} ticks are not in the recording",
                recording.lost
            ))?;
        }
    }
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
