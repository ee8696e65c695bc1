//! The real procfs: a child that this test starts, and the host it runs on.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use persona::signal::{Metric, Signals};
use persona::units::Moment;
use virt_persona::observe::{Emulator, Missing, Observer, Roots, VcpuBasis};

use super::tree::{DOMAIN, outcome};

/// A hung test shall end with a message; no test passes or fails by this time.
const HUNG: Duration = Duration::from_secs(60);

/// Waits until something is there.
#[track_caller]
fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < HUNG, "it never happened that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process whose one thread has a vCPU's name and is busy. It ends with the test, however that ends: as a
/// loop that looks for its parent.
struct BusyVcpu(Child);

impl BusyVcpu {
    fn start() -> Self {
        let script = "printf 'CPU 0/TCG' > /proc/$$/comm; while kill -0 \"$PPID\"; do :; done";
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let vcpu = Self(child);
        let comm = format!("/proc/{}/comm", vcpu.0.id());
        found("it has the name", || {
            let named = std::fs::read_to_string(&comm).unwrap() == "CPU 0/TCG\n";
            named.then_some(())
        });
        vcpu
    }

    fn emulator(&self) -> Emulator {
        Emulator {
            pid: self.0.id(),
            instance: Some(1),
            vcpus_plugged: 1,
        }
    }

    fn run_time(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for BusyVcpu {
    fn drop(&mut self) {
        // It may have been ended by the test; both calls are harmless then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_busy_vcpu_thread_is_seen_working_and_its_end_makes_it_unknown() {
    let mut vcpu = BusyVcpu::start();
    let mut observer = Observer::new(Roots::default(), Duration::from_secs(1));
    observer.attach(DOMAIN, vcpu.emulator());
    let first = observer.sample_domain(DOMAIN, None, Moment(1_000));
    assert_eq!(
        outcome(&first, Metric::CpuUtilization),
        Err(Missing::FirstSample)
    );
    assert!(outcome(&first, Metric::MemoryHostRss).unwrap() > 0.0);

    // Work, not time, is waited for: the clock that the observer sees is this test's own.
    let start = vcpu.run_time();
    found("it has worked", || {
        (vcpu.run_time() >= start + 20_000_000).then_some(())
    });
    let second = observer.sample_domain(DOMAIN, None, Moment(2_000));
    let utilization = outcome(&second, Metric::CpuUtilization).unwrap();
    assert!(utilization >= 2.0, "{utilization}");
    assert_eq!(second.vcpu_basis, Some(VcpuBasis::Plugged(1)));

    vcpu.0.kill().unwrap();
    vcpu.0.wait().unwrap();
    for second in 3..6 {
        let ended = observer.sample_domain(DOMAIN, None, Moment(second * 1_000));
        for metric in [
            Metric::CpuUtilization,
            Metric::CpuSteal,
            Metric::CpuThrottled,
            Metric::MemoryHostRss,
        ] {
            assert_eq!(outcome(&ended, metric), Err(Missing::ProcessEnded));
        }
    }
}

#[test]
fn a_process_that_is_no_emulator_has_no_vcpus() {
    let mut observer = Observer::new(Roots::default(), Duration::from_secs(1));
    let pid = std::process::id();
    observer.attach(
        DOMAIN,
        Emulator {
            pid,
            instance: None,
            vcpus_plugged: 1,
        },
    );
    let sample = observer.sample_domain(DOMAIN, None, Moment(1_000));
    assert_eq!(
        outcome(&sample, Metric::CpuUtilization),
        Err(Missing::NoVcpuThreads)
    );
}

#[test]
fn readings_last_as_long_as_the_period_that_holds() {
    let mut observer = Observer::new(Roots::default(), Duration::from_secs(1));
    let mut period = || {
        let sample = observer.sample_host(Moment(1_000));
        let reading = sample.readings.reading(Metric::HostMemoryAvailable);
        let period = reading.unwrap().period;
        observer.set_period(Duration::from_secs(7));
        period
    };
    assert_eq!((period().as_secs(), period().as_secs()), (1, 7));
}

#[test]
fn the_host_shows_its_memory_its_cpus_and_from_the_second_sample_its_work() {
    let mut observer = Observer::new(Roots::default(), Duration::from_secs(1));
    let first = observer.sample_host(Moment(1_000));
    let total = first.memory_total.unwrap();
    let available = first
        .readings
        .reading(Metric::HostMemoryAvailable)
        .unwrap()
        .value;
    assert!(available > 0.0 && available <= total.0 as f64);
    assert!(first.cores_online.unwrap() >= 1);
    assert_eq!(
        first.readings.missing(Metric::HostCpuUtilization),
        Some(Missing::FirstSample)
    );

    // Until the kernel's tick has counted something.
    let mut second = 1;
    let utilization = found("the host has worked", || {
        second += 1;
        let sample = observer.sample_host(Moment(second * 1_000));
        let reading = sample.readings.reading(Metric::HostCpuUtilization);
        if reading.is_none() {
            assert_eq!(
                sample.readings.missing(Metric::HostCpuUtilization),
                Some(Missing::NoTimePassed)
            );
        }
        reading.map(|reading| reading.value)
    });
    assert!((0.0..=100.0).contains(&utilization));
}

#[test]
fn a_host_without_pressure_files_has_unknown_pressure_and_known_memory() {
    let tree = tempfile::tempdir().unwrap();
    let memory = "MemTotal:       1000 kB\nMemFree:        10 kB\nMemAvailable:   400 kB\n";
    std::fs::write(tree.path().join("meminfo"), memory).unwrap();
    let roots = Roots {
        proc: tree.path().to_owned(),
        cgroup: tree.path().to_owned(),
        net: tree.path().to_owned(),
    };
    let sample = Observer::new(roots, Duration::from_secs(1)).sample_host(Moment(1_000));
    let available = sample
        .readings
        .reading(Metric::HostMemoryAvailable)
        .unwrap();
    assert_eq!(available.value, 400.0 * 1024.0);
    for metric in [
        Metric::HostCpuPressure,
        Metric::HostMemoryPressure,
        Metric::HostCpuUtilization,
    ] {
        assert!(
            matches!(
                sample.readings.missing(metric),
                Some(Missing::NotOffered(_))
            ),
            "{metric:?}"
        );
    }
}
