//! Whole days of recorded machines through the replay of `simulate`, and what two example personas would have made of
//! them: changes, vCPU-hours, and how long a machine had too few vCPUs. Reads the files and prints the table; the replay is
//! `virt_persona::simulate`'s.
//!
//! `cargo run --release --example evaluate -- DIRECTORY [PERSONA...]`
//!
//! Reads `DIRECTORY/planetlab/*.csv` (a row is a machine's name and its CPU utilisation in percent every five minutes of a
//! day) and `DIRECTORY/nab/realAWSCloudwatch/*cpu_utilization*.csv` (a machine each: a time and its utilisation in each
//! line), whichever is there.

#![allow(clippy::print_stdout, reason = "an example reports on its terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use persona::{Format, Persona, SourceText};
use virt_persona::simulate::evaluate::{self, Day, Recording, TICK, median};

/// What is replayed where no persona is named: one that is quick and one that is slow.
const PERSONAS: [&str; 2] = [
    "examples/personas/database.yaml",
    "examples/personas/ci-runner.yaml",
];

const NO_DATA: &str = "give a directory that holds planetlab/*.csv (a row is a name, then CPU utilisation in percent every 5 minutes) or nab/realAWSCloudwatch/*cpu_utilization*.csv";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let result = match arguments.next() {
        Some(data) => report(&data, arguments.collect()),
        None => Err(NO_DATA.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("evaluate: {sentence}");
            }
            ExitCode::FAILURE
        }
    }
}

fn report(data: &Path, mut personas: Vec<PathBuf>) -> Result<(), String> {
    if personas.is_empty() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        personas.extend(PERSONAS.iter().map(|name| repository.join(name)));
    }
    let personas = personas
        .iter()
        .map(|path| read_persona(path))
        .collect::<Result<Vec<_>, _>>()?;
    let sets = recordings(data)?;
    let began = Instant::now();
    println!(
        "Recorded utilisation through the planner, a plan every {} s. 100 % is the persona's max of vCPUs; \"fixed\" is a\n\
         machine of that size. Every machine has the host to itself and each change takes effect at once; the recording\n\
         has no memory figures, so memory stays. Figures are a machine and day: the mean, and the median below it.\n",
        TICK.as_secs()
    );
    println!(
        "{:<12} {:<14} {:>8} {:>8} {:>8} {:>12} {:>10} {:>16} {:>12}",
        "recording",
        "persona",
        "machines",
        "grown",
        "shrunk",
        "vCPU-hours",
        "of fixed",
        "too few vCPUs",
        "work waiting"
    );
    let mut machines = 0;
    for (name, set) in &sets {
        for persona in &personas {
            let days = evaluate::evaluate(persona, set).map_err(|error| error.to_string())?;
            machines += days.len();
            line(
                [name, persona.name.as_str(), &days.len().to_string()],
                |figure| mean(days.iter().map(figure)),
            );
            line(["", "", ""], |figure| median(days.iter().map(figure)));
        }
    }
    println!(
        "\n\"too few vCPUs\" is the time in which a machine's work needed more vCPUs than it had; \"work waiting\" is the share of\n\
         all work that fell beyond what the vCPUs of the moment could do. {machines} replays took {:.1} s.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn line([name, persona, machines]: [&str; 3], of: impl Fn(fn(&Day) -> f64) -> f64) {
    println!(
        "{name:<12} {persona:<14} {machines:>8} {:>8.2} {:>8.2} {:>12.2} {:>9.1}% {:>12.1} min {:>11.2}%",
        of(|day| day.grown),
        of(|day| day.shrunk),
        of(|day| day.vcpu_hours),
        of(|day| day.of_fixed),
        of(|day| day.short_minutes),
        of(|day| day.waiting),
    );
}

#[allow(clippy::cast_precision_loss, reason = "machines are some thousands")]
fn mean(figures: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = figures.len().max(1) as f64;
    figures.sum::<f64>() / count
}

fn read_persona(path: &Path) -> Result<Persona, String> {
    let text = fs::read(path)
        .map_err(|error| format!("cannot read the persona {}: {error}", path.display()))?;
    let name = path.display().to_string();
    let format = Format::of_file_name(&name).unwrap_or(Format::Yaml);
    let source = SourceText {
        name: &name,
        text: &text,
        format,
        persona_name: None,
    };
    let loaded = persona::load(&source).map_err(|problems| problems.to_string())?;
    Ok(loaded.persona)
}

/// Each set of machines with its name.
fn recordings(data: &Path) -> Result<Vec<(String, Vec<Recording>)>, String> {
    if !data.is_dir() {
        return Err(format!(
            "there is no directory {}; {NO_DATA}",
            data.display()
        ));
    }
    let mut sets = Vec::new();
    for (stem, path, text) in files(&data.join("planetlab"))? {
        let rows = evaluate::rows(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        sets.push((stem, rows));
    }
    let mut nab = Vec::new();
    for (stem, path, text) in files(&data.join("nab/realAWSCloudwatch"))? {
        if stem.contains("cpu_utilization") {
            let row = evaluate::column(&stem, &text);
            nab.push(row.map_err(|error| format!("{}: {error}", path.display()))?);
        }
    }
    if !nab.is_empty() {
        sets.push(("nab".to_owned(), nab));
    }
    if sets.is_empty() {
        return Err(format!("{} holds no recording; {NO_DATA}", data.display()));
    }
    Ok(sets)
}

/// The .csv files of a folder, by name; none where it is not there.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|error| format!("cannot list {}: {error}", folder.display()))?
            .path();
        if path.extension().is_some_and(|end| end == "csv") {
            let text = fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            found.push((stem.into_owned(), path, text));
        }
    }
    found.sort();
    Ok(found)
}
