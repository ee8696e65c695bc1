//! Samples emulators by process number, once a second, and prints what each sample says and what a tick costs in
//! CPU time: to set beside `virsh domstats` on the same domains.
//!
//! `cargo run --release --example observe -- TICKS PID...`

#![allow(clippy::print_stdout, reason = "an example reports on its terminal")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use persona::signal::{Metric, Signals};
use persona::units::Moment;
use virt_persona::hypervisor::DomainId;
use virt_persona::observe::{Emulator, Observer, Readings, Roots};

const DOMAIN: [Metric; 4] = [
    Metric::CpuUtilization,
    Metric::CpuSteal,
    Metric::CpuThrottled,
    Metric::MemoryHostRss,
];
const HOST: [Metric; 4] = [
    Metric::HostCpuUtilization,
    Metric::HostMemoryAvailable,
    Metric::HostCpuPressure,
    Metric::HostMemoryPressure,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let ticks: u32 = arguments
        .next()
        .ok_or("usage: observe TICKS PID...")?
        .parse()?;
    let pids = arguments
        .map(|pid| pid.parse())
        .collect::<Result<Vec<u32>, _>>()?;
    let mut observer = Observer::new(Roots::default(), Duration::from_secs(1));
    let id = |pid: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&pid.to_be_bytes());
        DomainId(id)
    };
    for pid in &pids {
        let emulator = Emulator {
            pid: *pid,
            instance: None,
            vcpus_plugged: 0,
        };
        observer.attach(id(*pid), emulator);
    }
    for tick in 0..ticks {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let now = Moment(u64::try_from(millis)?);
        let start = cpu_time()?;
        let host = observer.sample_host(now);
        let samples: Vec<_> = pids
            .iter()
            .map(|pid| observer.sample_domain(id(*pid), None, now))
            .collect();
        let cost = cpu_time()?.saturating_sub(start);
        println!("tick {tick}: {} us of CPU time", cost.as_micros());
        print("host", &host.readings, HOST);
        for (pid, sample) in pids.iter().zip(&samples) {
            print(
                &format!("{pid} {:?}", sample.vcpu_basis),
                &sample.readings,
                DOMAIN,
            );
            if tick + 1 == ticks {
                println!("    {:?}", observer.sample_groups(id(*pid)));
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn print(name: &str, readings: &Readings, metrics: [Metric; 4]) {
    println!("  {name}");
    for metric in metrics {
        match readings.reading(metric) {
            Some(reading) => println!("    {metric:?} {:.2}", reading.value),
            None => println!("    {metric:?} unknown: {:?}", readings.missing(metric)),
        }
    }
}

fn cpu_time() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from)
}
