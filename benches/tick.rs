//! What a tick up to its plan costs: sampling and planning for many domains beside the bare reads of the same files, and the parsers of the tick
//! beside those of the `procfs` crate. The domains are processes of its own with threads named like vCPUs, in
//! control groups named like libvirt's where it may make them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports on its terminal and may fail"
)]

use std::fs;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use divan::Bencher;
use nix::time::{ClockId, clock_gettime};
use persona::units::Moment;
use procfs::prelude::*;
use virt_persona::observe::host::{parse_cpu_times, parse_memory};
use virt_persona::observe::network::parse_device;
use virt_persona::observe::parse::parse_pressure;
use virt_persona::observe::procfs::{parse_resident_pages, parse_schedstat};
use virt_persona::observe::{Observer, Roots};

#[path = "fleet/mod.rs"]
mod fleet;
#[path = "ticker/mod.rs"]
mod ticker;
use fleet::{CHILD, DOMAINS, Fleet, VCPUS, be_an_emulator};

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

fn fleet() -> MutexGuard<'static, Fleet> {
    static FLEET: OnceLock<Mutex<Fleet>> = OnceLock::new();
    FLEET
        .get_or_init(|| Mutex::new(Fleet::start()))
        .lock()
        .unwrap()
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
