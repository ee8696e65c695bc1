//! The whole daemon with a thousand simulated domains: its CPU time a second while nothing happens, its memory, and
//! what it costs when every domain is changed at once. There is no emulator behind such a domain, so what reading
//! procfs and control groups costs is not in here; `tick` has that.

use std::fmt::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::WATCHED;
use crate::figures::{Resident, cpu_time};
use crate::harness::{Failure, Lab, Outcome, ensure, eventually};

const DOMAINS: usize = 1_000;

/// Wants more memory at once; the persona before it is content.
const LARGER: &str = "
name: larger
base_configuration:
  memory: {min: 768 MiB, max: 1536 MiB}
trust_levels: {resource_scaling: high}
";

const CHANGES: Duration = Duration::from_secs(300);

/// The daemon, ended with this value.
struct Simulated(Child);

impl Drop for Simulated {
    fn drop(&mut self) {
        // It may have ended by itself, which the measurements say.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn measure(lab: &Lab) -> Outcome<()> {
    let directory = lab.directory().join("simulated");
    std::fs::create_dir(&directory)?;
    let (config, scenario) = (
        directory.join("config.toml"),
        directory.join("scenario.toml"),
    );
    let shown = directory.display();
    std::fs::write(
        &config,
        format!("[paths]\nstate = \"{shown}/state\"\nrun = \"{shown}/run\"\n"),
    )?;
    std::fs::write(&scenario, scenario_text())?;
    let documents = [("measured", crate::ticker::PERSONA), ("larger", LARGER)];
    for (name, text) in documents {
        std::fs::write(directory.join(format!("{name}.yaml")), text)?;
    }
    let log = std::fs::File::create(directory.join("daemon.log"))?;
    let child = lab
        .command(lab.daemon_program())
        .arg("--config")
        .arg(&config)
        .arg("--simulate")
        .arg(&scenario)
        .args(["--bus", lab.bus()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let pid = child.id();
    let _daemon = Simulated(child);
    eventually(
        "all simulated domains are known",
        Duration::from_secs(60),
        || {
            let known = domains(lab)?.len();
            ensure(known == DOMAINS, || format!("{known} are"))
        },
    )?;
    for (name, _) in documents {
        let path = directory.join(format!("{name}.yaml"));
        lab.persona(&["create", &path.display().to_string()])?;
    }
    lab.persona(&["map", "all", "measured"])?;
    std::thread::sleep(Duration::from_secs(5));
    let before = cpu_time(pid)?;
    std::thread::sleep(WATCHED);
    let quiet = (cpu_time(pid)? - before).as_secs_f64() * 1e3 / WATCHED.as_secs_f64();
    let resident = Resident::of(pid)?;
    println!(
        "daemon with {DOMAINS} simulated domains: {quiet:.1} ms of CPU time a tick, all included; {} KiB resident ({} KiB its own)",
        resident.all, resident.anonymous
    );
    let before = cpu_time(pid)?;
    // The tag means another persona: every domain is bound anew and then given memory.
    lab.persona(&["map", "all", "larger"])?;
    let bound = cpu_time(pid)?;
    eventually("every domain has its memory", CHANGES, || {
        let larger = domains(lab)?
            .iter()
            .filter(|domain| has_memory(domain))
            .count();
        // Looking is not free either: it is done rarely enough not to matter.
        std::thread::sleep(Duration::from_secs(1));
        ensure(larger == DOMAINS, || {
            format!("{larger} of {DOMAINS} have it")
        })
    })?;
    let after = cpu_time(pid)?;
    println!(
        "the same when a tag of all {DOMAINS} is mapped anew: {:.0} ms to bind them, {:.0} ms until each has its memory",
        (bound - before).as_secs_f64() * 1e3,
        (after - bound).as_secs_f64() * 1e3
    );
    Ok(())
}

fn domains(lab: &Lab) -> Outcome<Vec<serde_json::Value>> {
    let answer = lab.persona(&["domains"])?;
    answer
        .as_array()
        .cloned()
        .ok_or_else(|| Failure::new("`virt-persona domains` did not answer with a list"))
}

fn has_memory(domain: &serde_json::Value) -> bool {
    domain["memory"]["plugged"].as_u64() >= Some(768 << 20)
}

fn scenario_text() -> String {
    let mut text = "deadline_ms = 10000\n[host]\ncores = 1024\nmemory_mib = 4194304\n".to_owned();
    for number in 0..DOMAINS {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[domain]]\nname = \"vpb-{number}\"\nvcpus_maximum = 4\nmemory_mib = 512\nmemory_maximum_mib = 2048\ntags = [\"all\"]\n\
             virtio_mem = [{{ alias = \"virtiomem0\", size_mib = 1024 }}]\nguest = {{ memory_used_mib = 300 }}\n"
        );
    }
    text
}
