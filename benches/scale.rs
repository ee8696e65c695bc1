//! What a tick costs on a host of 1,000 domains: 200 live processes in control groups of their own, and 800 whose files
//! are records of such a one. A tick each second, as the daemon ticks, so that nothing stays warm that would not; user
//! and system time apart, beside the bare reads of the same files.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports on its terminal and may fail"
)]

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use virt_persona::hypervisor::DomainId;
use virt_persona::observe::{Emulator, Roots};

#[path = "fleet/mod.rs"]
mod fleet;
#[path = "ticker/mod.rs"]
mod ticker;
use fleet::{CHILD, DOMAINS, Fleet, VCPUS, be_an_emulator};

/// Domains whose files are records.
const RECORDED: u32 = 800;

/// Ticks that are measured, a second apart.
const TICKS: u32 = 40;

/// Open files.
const DESCRIPTORS: u64 = 262_144;

/// Numbers of processes that no kernel gives.
const FIRST_NUMBER: u32 = 1 << 23;

fn main() {
    if std::env::args().any(|argument| argument == CHILD) {
        be_an_emulator();
        return;
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches` only wants to know that it starts.
        return;
    }
    // As the daemon's unit has it, where that is allowed; what is there may do.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS);
    let mut fleet = Fleet::start();
    let folder = tempfile::tempdir().unwrap();
    let mut recorded = record(folder.path(), fleet.children[0].id());
    let roots = Roots {
        proc: folder.path().join("proc"),
        cgroup: folder.path().join("cgroup"),
        ..Roots::default()
    };
    fleet
        .ticker
        .add(roots, std::mem::take(&mut recorded.domains));
    measure(&mut fleet, &recorded);
    fleet.stop();
}

/// The recorded domains, and files of every second one for the bare reads, which are read twice: a process may not
/// have as many files open as both sides would take.
struct Recorded {
    domains: Vec<(DomainId, Emulator, Vec<virt_persona::hypervisor::Interface>)>,
    files: Vec<File>,
}

/// Records a live process so many times, each under a number of its own.
fn record(folder: &Path, pid: u32) -> Recorded {
    let mut recorded = Recorded {
        domains: Vec::new(),
        files: Vec::new(),
    };
    let live = PathBuf::from(format!("/proc/{pid}"));
    let groups = fs::read_to_string(live.join("cgroup")).unwrap();
    for index in 0..RECORDED {
        let number = FIRST_NUMBER + index;
        let process = folder.join(format!("proc/{number}"));
        fs::create_dir_all(&process).unwrap();
        for name in ["stat", "statm"] {
            let text = fs::read_to_string(live.join(name)).unwrap();
            let own = text.replacen(&format!("{pid} "), &format!("{number} "), 1);
            fs::write(process.join(name), own).unwrap();
        }
        let mut files = vec![File::open(process.join("statm")).unwrap()];
        let old = groups.lines().find_map(|line| {
            let (_, name) = line.rsplit_once("/qemu-")?;
            Some(name.split('/').next()?.to_owned())
        });
        let own = old
            .as_ref()
            .map(|_| format!("{}-recorded.libvirt-qemu", DOMAINS + index));
        let text = match (&old, &own) {
            (Some(old), Some(own)) => groups.replace(old, own),
            _ => groups.clone(),
        };
        fs::write(process.join("cgroup"), &text).unwrap();
        if let (Some(old), Some(own)) = (&old, &own) {
            record_groups(folder, &groups, old, own, &mut files);
        }
        for task in fs::read_dir(live.join("task")).unwrap() {
            let task = task.unwrap();
            let to = process.join("task").join(task.file_name());
            fs::create_dir_all(&to).unwrap();
            for name in ["comm", "schedstat", "stat"] {
                fs::write(to.join(name), fs::read(task.path().join(name)).unwrap()).unwrap();
            }
            let comm = fs::read_to_string(to.join("comm")).unwrap();
            if comm.starts_with("CPU ") {
                files.push(File::open(to.join("schedstat")).unwrap());
            }
        }
        if index % 2 == 0 {
            recorded.files.append(&mut files);
        }
        let mut id = [0xff; 16];
        id[..4].copy_from_slice(&index.to_be_bytes());
        let emulator = Emulator {
            pid: number,
            instance: None,
            vcpus_plugged: VCPUS,
        };
        recorded.domains.push((DomainId(id), emulator, Vec::new()));
    }
    recorded
}

/// Copies the files of a live process's groups, under the name of another.
fn record_groups(folder: &Path, groups: &str, old: &str, own: &str, files: &mut Vec<File>) {
    let root = Path::new("/sys/fs/cgroup");
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if !path.contains(old) {
            continue;
        }
        let hierarchy = match (controllers, root.join("cgroup.controllers").exists()) {
            ("", true) => "",
            ("", false) => "unified",
            (name, _) => name,
        };
        let from = root.join(hierarchy).join(path.trim_start_matches('/'));
        let to = folder
            .join("cgroup")
            .join(hierarchy)
            .join(path.replace(old, own).trim_start_matches('/'));
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(&from).into_iter().flatten().flatten() {
            // Some files of a group can only be written.
            if let Ok(text) = fs::read(file.path()) {
                fs::write(to.join(file.file_name()), text).unwrap();
            }
        }
        files.extend(File::open(to.join("cpu.stat")).ok());
    }
    if root.join("cgroup.controllers").exists() {
        let _ = fs::copy(
            root.join("cgroup.controllers"),
            folder.join("cgroup/cgroup.controllers"),
        );
    }
}

/// User and system time of the process, in microseconds.
fn times() -> (f64, f64) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    #[allow(clippy::cast_precision_loss)]
    let micros = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64;
    (micros(usage.user_time()), micros(usage.system_time()))
}

fn measure(fleet: &mut Fleet, recorded: &Recorded) {
    let mut buffer = vec![0; 8 << 10];
    let all = usize::try_from(DOMAINS + RECORDED).unwrap();
    // Rates need two samples.
    fleet.tick();
    assert_eq!(fleet.tick(), all, "a domain could not be sampled");
    let (mut ticks, mut bare, mut reads) = ((0.0, 0.0), (0.0, 0.0), 0);
    let mut longest = Duration::ZERO;
    for _ in 0..TICKS {
        std::thread::sleep(Duration::from_millis(500));
        let (before, began) = (times(), Instant::now());
        fleet.tick();
        longest = longest.max(began.elapsed());
        let after = times();
        ticks = (ticks.0 + after.0 - before.0, ticks.1 + after.1 - before.1);
        std::thread::sleep(Duration::from_millis(500));
        let before = times();
        reads += fleet.read_bare(&mut buffer);
        for file in recorded.files.iter().chain(&recorded.files) {
            black_box(file.read_at(&mut buffer, 0).unwrap());
            reads += 1;
        }
        let after = times();
        bare = (bare.0 + after.0 - before.0, bare.1 + after.1 - before.1);
    }
    let each = f64::from(TICKS);
    let (user, system) = (ticks.0 / each, ticks.1 / each);
    let (bare_user, bare_system) = (bare.0 / each, bare.1 / each);
    println!(
        "tick of {all} domains ({DOMAINS} live, {RECORDED} recorded), one a second, mean of {TICKS}:\n  \
         user {user:.0} us ({:.2} % of a core), system {system:.0} us, together {:.1} us a domain; longest {longest:.1?}\n  \
         the same {} reads alone: user {bare_user:.0} us, system {bare_system:.0} us, together {:.1} us a domain; ratio {:.2}",
        user / 10_000.0,
        (user + system) / f64::from(DOMAINS + RECORDED),
        reads / usize::try_from(TICKS).unwrap(),
        (bare_user + bare_system) / f64::from(DOMAINS + RECORDED),
        (user + system) / (bare_user + bare_system),
    );
}
