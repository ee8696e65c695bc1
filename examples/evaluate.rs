//! Replays recorded CPU utilisation of real machines through the planner, one machine at a time, and prints what two
//! example personas would have made of it: changes, vCPU-hours, and how long a machine had too few vCPUs.
//!
//! `cargo run --release --example evaluate -- DIRECTORY [PERSONA...]`
//!
//! Reads `DIRECTORY/planetlab/*.csv`: a row is a machine's name and its utilisation in percent every five minutes of a
//! day. 100 % is taken as the persona's `max` of vCPUs, so that a machine of that size which never changes is what it
//! is compared with. What the recording does not have is simple here and said so in the output: utilisation stays the
//! same between two samples, a change takes effect at once, no machine waits for the host, memory is never changed.

#![allow(clippy::print_stdout, reason = "an example reports on its terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::{Metric, Reading, Signals, Source};
use persona::units::{Bytes, Moment};
use persona::{CpuBounds, Format, Persona, SourceText};
use planner::snapshot::{Ability, Domain, Host, Memory, Run, Strain, Vcpus};
use planner::{Ending, Policy, Snapshot, State};

/// What is replayed where no persona is named: one that is quick and one that is slow.
const PERSONAS: [&str; 2] = [
    "examples/personas/database.yaml",
    "examples/personas/ci-runner.yaml",
];

/// Time between two samples of a recording.
const SAMPLE: Duration = Duration::from_secs(300);

/// Time between two plans. The daemon's is a second; ten times as long is still short beside the windows of the rules,
/// and a tenth of the work.
const TICK: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let result = match arguments.next() {
        Some(data) => evaluate(&data, arguments.collect()),
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

const NO_DATA: &str = "give a directory that holds planetlab/*.csv (a row is a name, then CPU utilisation in percent every 5 minutes)";

fn evaluate(data: &Path, mut personas: Vec<PathBuf>) -> Result<(), String> {
    if personas.is_empty() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        personas.extend(PERSONAS.iter().map(|name| repository.join(name)));
    }
    let personas = personas
        .iter()
        .map(|path| read_persona(path))
        .collect::<Result<Vec<_>, _>>()?;
    let days = recordings(data)?;
    println!(
        "Recorded utilisation through the planner, a plan every {} s. 100 % is the persona's max of vCPUs; \"fixed\" is a\n\
         machine of that size. Every machine has the host to itself and each change takes effect at once; the recording\n\
         has no memory figures, so memory stays. Figures are means over machines, of one day.\n",
        TICK.as_secs()
    );
    println!(
        "{:<12} {:<14} {:>8} {:>8} {:>8} {:>12} {:>10} {:>16} {:>12}",
        "day",
        "persona",
        "machines",
        "grown",
        "shrunk",
        "vCPU-hours",
        "of fixed",
        "too few vCPUs",
        "work waiting"
    );
    for (day, text) in &days {
        for persona in &personas {
            let mut total = Outcome::default();
            let mut machines = 0_u32;
            for (index, line) in text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
            {
                let samples =
                    samples(line).map_err(|what| format!("{day}, line {}: {what}", index + 1))?;
                total.add(&replay(persona, &samples));
                machines += 1;
            }
            if machines == 0 {
                return Err(format!("{day} holds no machine"));
            }
            let mean = |value: f64| value / f64::from(machines);
            println!(
                "{:<12} {:<14} {:>8} {:>8.2} {:>8.2} {:>12.2} {:>9.1}% {:>12.1} min {:>11.2}%",
                day,
                persona.name.as_str(),
                machines,
                mean(f64::from(total.grown)),
                mean(f64::from(total.shrunk)),
                mean(total.vcpu_hours),
                total.vcpu_hours / total.fixed_hours * 100.0,
                mean(total.short_hours) * 60.0,
                if total.demand_hours > 0.0 {
                    total.unserved_hours / total.demand_hours * 100.0
                } else {
                    0.0
                },
            );
        }
    }
    println!(
        "\n\"too few vCPUs\" is the time in which a machine's work needed more vCPUs than it had; \"work waiting\" is the share of\n\
         all work that fell beyond what the vCPUs of the moment could do."
    );
    Ok(())
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
    let persona = persona::load(&source)
        .map_err(|problems| problems.to_string())?
        .persona;
    match &persona.base.cpu {
        Some(CpuBounds { max: Some(_), .. }) => Ok(persona),
        _ => Err(format!(
            "the persona {name} has no base_configuration.cpu.max, which a recording is measured by"
        )),
    }
}

/// The files of a directory, by name.
fn recordings(data: &Path) -> Result<Vec<(String, String)>, String> {
    let folder = data.join("planetlab");
    let entries = fs::read_dir(&folder)
        .map_err(|error| format!("cannot read {} ({error}); {NO_DATA}", folder.display()))?;
    let mut days = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| format!("cannot list {}: {error}", folder.display()))?
            .path();
        if path.extension().is_some_and(|end| end == "csv") {
            let text = fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let day = path
                .file_stem()
                .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            days.push((day, text));
        }
    }
    if days.is_empty() {
        return Err(format!(
            "{} holds no .csv file; {NO_DATA}",
            folder.display()
        ));
    }
    days.sort();
    Ok(days)
}

/// The samples of one machine.
fn samples(line: &str) -> Result<Vec<f64>, String> {
    let samples = line
        .split(',')
        .skip(1)
        .map(|field| match field.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
            _ => Err(format!("`{field}` is no percentage")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if samples.is_empty() {
        Err("a name without samples".to_owned())
    } else {
        Ok(samples)
    }
}

/// What became of one machine, or of several together.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    grown: u32,
    shrunk: u32,
    vcpu_hours: f64,
    fixed_hours: f64,
    demand_hours: f64,
    unserved_hours: f64,
    short_hours: f64,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.grown += other.grown;
        self.shrunk += other.shrunk;
        self.vcpu_hours += other.vcpu_hours;
        self.fixed_hours += other.fixed_hours;
        self.demand_hours += other.demand_hours;
        self.unserved_hours += other.unserved_hours;
        self.short_hours += other.short_hours;
    }
}

/// A machine of the recording: what a sample says of it.
struct Machine {
    vcpus: u32,
    demand: f64,
    now: Moment,
}

impl Signals for Machine {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let value = match metric {
            Metric::CpuUtilization => (self.demand / f64::from(self.vcpus) * 100.0).min(100.0),
            Metric::VcpuCount => f64::from(self.vcpus),
            Metric::CpuSteal | Metric::CpuThrottled => 0.0,
            _ => return None,
        };
        Some(Reading {
            value,
            source: Source::Host,
            at: self.now,
            period: TICK,
        })
    }
}

/// One machine from its first sample to its last, begun with the persona's `initial`, or its `min`.
fn replay(persona: &Persona, samples: &[f64]) -> Outcome {
    let id = DomainId([1; 16]);
    let (policy, mut state, mut outcome) =
        (Policy::default(), State::default(), Outcome::default());
    let bounds = persona.base.cpu.as_ref();
    let largest = bounds.and_then(|cpu| cpu.max).unwrap_or(1);
    let first = bounds.map_or(1, |cpu| cpu.initial.unwrap_or(cpu.min));
    let memory = persona
        .base
        .memory
        .as_ref()
        .map_or(Bytes::from_mib(512), |memory| {
            memory.initial.unwrap_or(memory.min)
        });
    let mut machine = Machine {
        vcpus: first,
        demand: 0.0,
        now: Moment(1_000_000),
    };
    let hours = TICK.as_secs_f64() / 3600.0;
    let ticks = SAMPLE.as_secs() / TICK.as_secs();
    for percent in samples {
        machine.demand = percent / 100.0 * f64::from(largest);
        for _ in 0..ticks {
            machine.now = machine.now.after(TICK);
            let snapshot = Snapshot {
                host: Host {
                    vcpus: largest,
                    memory,
                },
                strain: Strain::default(),
                domains: vec![domain(id, persona, &machine, largest, memory)],
            };
            let plan = planner::plan(&snapshot, &mut state, &policy, machine.now);
            for step in plan
                .steps
                .iter()
                .filter(|step| step.resource == Resource::Vcpus)
            {
                if step.to > step.from {
                    outcome.grown += 1;
                } else {
                    outcome.shrunk += 1;
                }
                machine.vcpus = u32::try_from(step.to).unwrap_or(largest);
                state.begin(step, machine.now);
                state.finish(step, Ending::Applied, Some(step.to), &policy, machine.now);
            }
            let missing = (machine.demand - f64::from(machine.vcpus)).max(0.0);
            outcome.vcpu_hours += f64::from(machine.vcpus) * hours;
            outcome.fixed_hours += f64::from(largest) * hours;
            outcome.demand_hours += machine.demand * hours;
            outcome.unserved_hours += missing * hours;
            if missing > 0.0 {
                outcome.short_hours += hours;
            }
        }
    }
    outcome
}

fn domain<'a>(
    id: DomainId,
    persona: &'a Persona,
    machine: &'a Machine,
    largest: u32,
    memory: Bytes,
) -> Domain<'a> {
    Domain {
        id,
        name: "recorded",
        persona: Some(persona),
        run: Run::Running,
        instance: Some(1),
        vcpus: Vcpus {
            maximum: largest,
            fixed: 1,
            plugged: machine.vcpus,
            online: Some(machine.vcpus),
            weight: 1,
            ability: Ability::Both,
        },
        memory: Memory {
            boot: memory,
            requested: memory,
            plugged: memory,
            maximum: memory,
            minimum: memory,
            block: Bytes::from_mib(2),
            ability: Ability::NoMemoryDevice,
        },
        signals: machine,
        shifted_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: &str = "
name: quick
base_configuration:
  cpu: {min: 1, initial: 2, max: 4}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 20s THEN add 1 vcpus COOLDOWN 20s
  - IF cpu.utilization < 30% FOR 20s THEN remove 1 vcpus COOLDOWN 20s
";

    fn quick() -> Persona {
        let source = SourceText {
            name: "quick.yaml",
            text: QUICK.as_bytes(),
            format: Format::Yaml,
            persona_name: None,
        };
        persona::load(&source).unwrap().persona
    }

    #[test]
    fn a_machine_that_is_busy_grows_to_its_max_and_is_short_until_then() {
        let outcome = replay(&quick(), &[100.0]);
        assert_eq!((outcome.grown, outcome.shrunk), (2, 0));
        assert!((outcome.demand_hours - 4.0 / 12.0).abs() < 1e-9);
        assert!(
            outcome.unserved_hours > 0.0 && outcome.short_hours < 3.0 / 60.0,
            "{outcome:?}"
        );
        // What it was given and what waited make up what it asked for, since it was never given more.
        assert!((outcome.vcpu_hours + outcome.unserved_hours - outcome.demand_hours).abs() < 1e-9);
    }

    #[test]
    fn a_machine_that_idles_shrinks_to_its_min_and_is_never_short() {
        let outcome = replay(&quick(), &[0.0, 0.0]);
        assert_eq!((outcome.grown, outcome.shrunk), (0, 1));
        assert!(
            outcome.short_hours == 0.0 && outcome.vcpu_hours < outcome.fixed_hours / 2.0,
            "{outcome:?}"
        );
    }

    #[test]
    fn a_field_that_is_no_percentage_is_named() {
        assert_eq!(samples("vm0,1,2.5"), Ok(vec![1.0, 2.5]));
        for bad in ["vm0,1,x", "vm0,101", "vm0,NaN", "vm0"] {
            assert!(samples(bad).is_err(), "{bad}");
        }
    }
}
