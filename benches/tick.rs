//! What a tick up to its plan costs: sampling and planning for many domains beside the bare reads of the same files, and the parsers of the tick
//! beside those of the `procfs` crate. The domains are processes of its own with threads named like vCPUs, in
//! control groups named like libvirt's where it may make them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports on its terminal and may fail"
)]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use divan::Bencher;
use nix::time::{ClockId, clock_gettime};
use persona::units::Moment;
use procfs::prelude::*;
use virt_persona::hypervisor::{DomainId, Interface};
use virt_persona::observe::host::{parse_cpu_times, parse_memory};
use virt_persona::observe::network::parse_device;
use virt_persona::observe::parse::parse_pressure;
use virt_persona::observe::procfs::{parse_resident_pages, parse_schedstat};
use virt_persona::observe::{Emulator, Observer, Roots};

#[path = "ticker/mod.rs"]
mod ticker;
use ticker::Ticker;

const DOMAINS: u32 = 200;
const VCPUS: u32 = 4;
const CHILD: &str = "--be-an-emulator";

fn main() {
    if std::env::args().any(|argument| argument == CHILD) {
        be_an_emulator();
        return;
    }
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratio();
    }
    fleet().stop();
}

/// Threads that sleep until the parent ends.
fn be_an_emulator() {
    // A thread gets its name when it begins, not when it is made.
    let named = Arc::new(Barrier::new(VCPUS as usize + 1));
    for index in 0..VCPUS {
        let named = Arc::clone(&named);
        let sleep = move || {
            named.wait();
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new()
            .name(format!("CPU {index}/TCG"))
            .spawn(sleep)
            .unwrap();
    }
    named.wait();
    std::io::stdout().write_all(b"ready\n").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Turns of the files that are not read at each tick, in ticks: pressure, and what tells of paging.
const PRESSURE_TURN: usize = 2;
const PAGING_TURN: usize = 5;

struct Fleet {
    ticker: Ticker,
    /// What is read at each tick.
    bare: Vec<File>,
    /// What is read at turns.
    pressure: Vec<File>,
    paging: Vec<File>,
    /// The table of network devices, for the taps.
    table: File,
    rounds: usize,
    taps: Vec<String>,
    children: Vec<Child>,
    groups: Vec<PathBuf>,
}

fn fleet() -> MutexGuard<'static, Fleet> {
    static FLEET: OnceLock<Mutex<Fleet>> = OnceLock::new();
    FLEET
        .get_or_init(|| Mutex::new(Fleet::start()))
        .lock()
        .unwrap()
}

impl Fleet {
    fn start() -> Self {
        let mut emulators = Vec::new();
        let mut fleet = Self {
            ticker: Ticker::new(Vec::new()),
            bare: Vec::new(),
            pressure: Vec::new(),
            paging: Vec::new(),
            table: File::open("/proc/net/dev").unwrap(),
            rounds: 0,
            taps: Vec::new(),
            children: Vec::new(),
            groups: Vec::new(),
        };
        for number in 0..DOMAINS {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .arg(CHILD)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut [0; 6])
                .unwrap();
            let pid = child.id();
            fleet.children.push(child);
            let cpu_group = fleet.make_groups(number, pid);
            let interface = fleet.make_tap(number);
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let emulator = Emulator {
                pid,
                instance: None,
                vcpus_plugged: VCPUS,
            };
            emulators.push((DomainId(id), emulator, interface));
            let process = PathBuf::from(format!("/proc/{pid}"));
            for task in fs::read_dir(process.join("task")).unwrap() {
                let task = task.unwrap().path();
                if fs::read_to_string(task.join("comm"))
                    .unwrap()
                    .starts_with("CPU ")
                {
                    fleet.bare.push(File::open(task.join("schedstat")).unwrap());
                }
            }
            fleet.bare.push(File::open(process.join("statm")).unwrap());
            fleet.paging.push(File::open(process.join("stat")).unwrap());
            fleet
                .bare
                .extend(cpu_group.and_then(|group| File::open(group.join("cpu.stat")).ok()));
        }
        if fleet.groups.is_empty() {
            println!("no control group could be made (not root?): measured without");
        }
        if fleet.taps.is_empty() {
            println!("no tap could be made (not root, or no `ip`?): measured without");
        }
        fleet.ticker = Ticker::new(emulators);
        fleet
    }

    /// Makes the tap of a domain with one network interface.
    fn make_tap(&mut self, number: u32) -> Vec<Interface> {
        let name = format!("vpb{}-{number}", std::process::id());
        if !ip_tuntap("add", &name) {
            return Vec::new();
        }
        self.taps.push(name.clone());
        vec![Interface { device: Some(name) }]
    }

    /// Puts the process into groups of its own; gives the one with quota and throttling.
    fn make_groups(&mut self, number: u32, pid: u32) -> Option<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let bases = if root.join("cgroup.controllers").exists() {
            vec![root.to_owned()]
        } else {
            vec![root.join("cpu"), root.join("memory"), root.join("unified")]
        };
        let mut cpu = None;
        for base in bases {
            let parent = base.join(format!("virt-persona-bench-{}", std::process::id()));
            let group = parent.join(format!("qemu-{number}-bench.libvirt-qemu"));
            if fs::create_dir_all(&group).is_ok() {
                self.groups.push(group.clone());
                if fs::write(group.join("cgroup.procs"), pid.to_string()).is_err() {
                    continue;
                }
                let open = |name: &str| File::open(group.join(name)).ok();
                let names = ["cpu.pressure", "memory.pressure", "io.pressure"];
                self.pressure.extend(names.into_iter().filter_map(open));
                self.paging.extend(open("memory.stat"));
                cpu = cpu.or(Some(group));
            }
        }
        cpu
    }

    fn tick(&mut self) -> usize {
        self.ticker.tick()
    }

    /// Reads what a tick reads, and nothing else; how many reads that were.
    fn read_bare(&mut self, buffer: &mut [u8]) -> usize {
        self.rounds += 1;
        let turn = |files: &[File], every: usize| {
            let size = files.len().div_ceil(every);
            let from = (self.rounds % every * size).min(files.len());
            from..(from + size).min(files.len())
        };
        let files = self
            .bare
            .iter()
            .chain(&self.pressure[turn(&self.pressure, PRESSURE_TURN)])
            .chain(&self.paging[turn(&self.paging, PAGING_TURN)]);
        let mut reads = 0;
        for file in files {
            black_box(file.read_at(buffer, 0).unwrap());
            reads += 1;
        }
        if self.taps.is_empty() {
            return reads;
        }
        let mut offset = 0;
        loop {
            let read = self.table.read_at(buffer, offset).unwrap();
            reads += 1;
            offset += u64::try_from(read).unwrap();
            if read == 0 {
                return reads;
            }
        }
    }

    fn stop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for tap in &self.taps {
            ip_tuntap("del", tap);
        }
        for group in &self.groups {
            let _ = fs::remove_dir(group);
        }
        for group in &self.groups {
            if let Some(parent) = group.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Adds or deletes a tap; whether it could be done.
fn ip_tuntap(action: &str, name: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(["tuntap", action, "dev", name, "mode", "tap"]);
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// CPU time of the process, in seconds.
fn cpu_time() -> f64 {
    Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap()).as_secs_f64()
}

/// CPU time of ticks over that of the bare reads, taken by turns so that both see the same machine.
fn print_ratio() {
    const ROUNDS: usize = 200;
    let mut fleet = fleet();
    let mut buffer = vec![0; 8 << 10];
    fleet.tick();
    let (mut ticks, mut reads, mut files) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let start = cpu_time();
        assert_eq!(fleet.tick(), fleet.children.len());
        let middle = cpu_time();
        files += fleet.read_bare(&mut buffer);
        ticks.push(middle - start);
        reads.push(cpu_time() - middle);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e6
    };
    let (tick, read) = (median(&mut ticks), median(&mut reads));
    println!(
        "tick of {DOMAINS} domains with {VCPUS} vCPUs: {tick:.0} us of CPU time, {:.1} us a domain; the same {} reads \
         alone: {read:.0} us; ratio {:.2}",
        tick / f64::from(DOMAINS),
        files / ROUNDS,
        tick / read
    );
}

#[divan::bench]
fn tick_of_200_domains(bencher: Bencher<'_, '_>) {
    let mut fleet = fleet();
    fleet.tick();
    bencher.bench_local(|| fleet.tick());
}

#[divan::bench]
fn bare_reads_of_200_domains(bencher: Bencher<'_, '_>) {
    let mut fleet = fleet();
    let mut buffer = vec![0; 8 << 10];
    bencher.bench_local(|| fleet.read_bare(&mut buffer));
}

#[divan::bench]
fn host(bencher: Bencher<'_, '_>) {
    let mut observer = Observer::new(Roots::default(), Duration::from_secs(1));
    let mut now = 0;
    bencher.bench_local(|| {
        now += 1_000;
        observer.sample_host(Moment(now))
    });
}

/// By hand, and by the `procfs` crate.
mod parsers {
    use super::*;

    const SCHEDSTAT: &[u8] = b"210851270 10518785 136\n";
    const STATM: &[u8] = include_bytes!("../tests/fixtures/procfs/statm");
    const PRESSURE: &[u8] = include_bytes!("../tests/fixtures/cgroup-v2/cpu.pressure");

    #[divan::bench]
    fn schedstat_here() -> u64 {
        parse_schedstat(black_box(SCHEDSTAT)).unwrap().run
    }

    #[divan::bench]
    fn schedstat_procfs() -> u64 {
        procfs::process::Schedstat::from_read(black_box(SCHEDSTAT))
            .unwrap()
            .sum_exec_runtime
    }

    #[divan::bench]
    fn statm_here() -> Option<u64> {
        parse_resident_pages(black_box(STATM)).unwrap()
    }

    #[divan::bench]
    fn statm_procfs() -> u64 {
        procfs::process::StatM::from_read(black_box(STATM))
            .unwrap()
            .resident
    }

    #[divan::bench]
    fn pressure_here() -> f64 {
        parse_pressure(black_box(PRESSURE)).unwrap()
    }

    #[divan::bench]
    fn pressure_procfs() -> f32 {
        procfs::CpuPressure::from_buf_read(black_box(PRESSURE))
            .unwrap()
            .some
            .avg10
    }

    #[divan::bench]
    fn network_device_here() -> u64 {
        let line = b"vnet0: 1296 16 0 2 0 0 0 0 4830 61 0 0 0 0 0 0\n";
        parse_device(black_box(line)).unwrap().1.bytes
    }

    #[divan::bench]
    fn meminfo_here(bencher: Bencher<'_, '_>) {
        let text = fs::read("/proc/meminfo").unwrap();
        bencher.bench(|| parse_memory(black_box(&text)).unwrap());
    }

    #[divan::bench]
    fn meminfo_procfs(bencher: Bencher<'_, '_>) {
        let text = fs::read("/proc/meminfo").unwrap();
        bencher.bench(|| {
            procfs::Meminfo::from_buf_read(black_box(text.as_slice()))
                .unwrap()
                .mem_total
        });
    }

    #[divan::bench]
    fn host_cpu_times_here(bencher: Bencher<'_, '_>) {
        let text = fs::read("/proc/stat").unwrap();
        bencher.bench(|| parse_cpu_times(black_box(&text)).unwrap());
    }
}
