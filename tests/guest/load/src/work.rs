//! The CPU load: jobs of fixed work, their cost, and the threads that carry them out at the rate of `schedule`.
//!
//! No thread is bound to a CPU: the kernel spreads them over the CPUs that are online, also over one that comes later.
//! Without a load there is no thread and nothing wakes up.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::sched_getcpu;
use nix::time::{ClockId, clock_gettime};

use crate::command::Offered;
use crate::schedule::{Completions, Schedule};

/// Iterations of the integer mix in one job. Under emulation that is some milliseconds: enough jobs a second that one
/// more or less does not show in the rate, few enough that handing them out costs nothing.
pub(crate) const ITERATIONS_PER_JOB: u32 = 1_000_000;
/// Jobs that a calibration measures: about half a second of them under emulation, as the speed of a shared host changes
/// from moment to moment.
const CALIBRATION_JOBS: usize = 100;
/// Jobs that the first calibration measures, while the guest still starts.
const FIRST_CALIBRATION_JOBS: usize = 15;
/// The fastest jobs that a calibration leaves aside: under emulation a CPU clock is now and then seen to stand still.
const CALIBRATION_OUTLIERS: usize = 3;

/// Why the CPU load cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// The kernel does not tell the thread's CPU time.
    #[error("cannot read CLOCK_THREAD_CPUTIME_ID")]
    Clock(#[source] nix::Error),
    /// The thread's CPU time does not advance.
    #[error("CLOCK_THREAD_CPUTIME_ID stands still")]
    ClockStands,
    /// A worker thread was refused.
    #[error("cannot start a worker thread")]
    Thread(#[source] std::io::Error),
}

/// What one job costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calibration {
    /// CPU time of a job that nothing disturbed: of the fastest, after [`CALIBRATION_OUTLIERS`].
    pub(crate) undisturbed: Duration,
    /// CPU time of the job in the middle. Under emulation a thread's CPU time includes what the host gave to others and
    /// how slow a busy host is, so this is what a job costs as things are, and the measure of a demand.
    pub(crate) median: Duration,
}

impl Calibration {
    /// Thousandths of a job a second that one vCPU carries out as things are.
    pub(crate) fn capacity_milli(&self) -> u64 {
        let nanos = self.median.as_nanos().max(1);
        u64::try_from(1_000_000_000_000 / nanos).unwrap_or(u64::MAX)
    }

    /// The rate, in thousandths of a job a second, that keeps `demand_milli` thousandths of one vCPU busy.
    pub(crate) fn rate_milli(&self, demand_milli: u64) -> u64 {
        u64::try_from(u128::from(self.capacity_milli()) * u128::from(demand_milli) / 1000)
            .unwrap_or(u64::MAX)
    }
}

/// Measures what a job costs, in short, for a start.
///
/// # Errors
/// As [`calibrate`].
pub(crate) fn calibrate_first() -> Result<Calibration, WorkError> {
    measure(FIRST_CALIBRATION_JOBS)
}

/// Measures what a job costs.
///
/// # Errors
/// [`WorkError::Clock`] when the thread's CPU clock cannot be read (`clock_gettime(2)`), [`WorkError::ClockStands`] when
/// it does not advance.
pub(crate) fn calibrate() -> Result<Calibration, WorkError> {
    measure(CALIBRATION_JOBS)
}

fn measure(jobs: usize) -> Result<Calibration, WorkError> {
    let mut costs = Vec::with_capacity(jobs);
    for seed in 0..jobs {
        let before = thread_cpu_time()?;
        run_job(seed as u64);
        costs.push(thread_cpu_time()?.saturating_sub(before));
    }
    settle(costs).ok_or(WorkError::ClockStands)
}

/// Chooses from the measured costs; `None` when a job seems to have cost nothing.
fn settle(mut costs: Vec<Duration>) -> Option<Calibration> {
    costs.sort_unstable();
    let undisturbed = *costs.get(CALIBRATION_OUTLIERS)?;
    let median = *costs.get(costs.len() / 2)?;
    (!median.is_zero()).then_some(Calibration {
        undisturbed,
        median,
    })
}

fn thread_cpu_time() -> Result<Duration, WorkError> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .map_err(WorkError::Clock)
}

/// One job: a fixed number of dependent integer steps, which no compiler and no processor can shorten.
fn run_job(seed: u64) -> u64 {
    let mut x = black_box(seed | 1);
    for _ in 0..ITERATIONS_PER_JOB {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    black_box(x)
}

/// What there is to say about the CPU load.
#[derive(Debug, Clone)]
pub(crate) struct CpuStatus {
    /// Jobs done since the program started.
    pub(crate) done: u64,
    /// Jobs that this load dropped because too many waited.
    pub(crate) dropped: u64,
    /// Jobs that are due and not begun.
    pub(crate) waiting: u64,
    /// Jobs a second that are offered; 0 without a load.
    pub(crate) offered_rate: f64,
    /// Jobs a second that were done in the last window; `None` before the first whole second.
    pub(crate) rate: Option<f64>,
    /// Worker threads.
    pub(crate) threads: u16,
    /// Jobs of this load that ended on each CPU.
    pub(crate) by_cpu: BTreeMap<usize, u64>,
}

struct State {
    /// Counts loads: a worker of an earlier load sees by it that it is to end.
    generation: u64,
    schedule: Option<Schedule>,
    completions: Completions,
    threads: u16,
    by_cpu: BTreeMap<usize, u64>,
}

struct Shared {
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that could panic, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CPU load of this guest.
pub(crate) struct CpuLoad(Arc<Shared>);

impl CpuLoad {
    /// No load.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            state: Mutex::new(State {
                generation: 0,
                schedule: None,
                completions: Completions::default(),
                threads: 0,
                by_cpu: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        }))
    }

    /// Starts a load in place of the one that runs, and says its rate in jobs a second.
    ///
    /// # Errors
    /// [`WorkError::Thread`] when a thread is refused; then there is no load.
    pub(crate) fn start(
        &self,
        threads: u16,
        offered: Offered,
        calibration: Calibration,
    ) -> Result<f64, WorkError> {
        let rate_milli = match offered {
            Offered::RateMilli(rate) => rate,
            Offered::DemandMilli(demand) => calibration.rate_milli(demand),
        };
        let (generation, rate) = {
            let mut state = self.0.lock();
            let now = self.0.began.elapsed();
            let schedule = Schedule::new(now, rate_milli);
            let rate = schedule.rate();
            state.generation += 1;
            state.schedule = Some(schedule);
            state.completions.restart(now);
            state.threads = threads;
            state.by_cpu.clear();
            (state.generation, rate)
        };
        self.0.changed.notify_all();
        for number in 0..threads {
            let shared = Arc::clone(&self.0);
            let started = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .stack_size(64 << 10)
                .spawn(move || work(&shared, generation));
            if let Err(error) = started {
                self.stop();
                return Err(WorkError::Thread(error));
            }
        }
        Ok(rate)
    }

    /// Ends the load: each worker finishes the job in its hands and leaves.
    pub(crate) fn stop(&self) {
        let mut state = self.0.lock();
        state.generation += 1;
        state.schedule = None;
        state.threads = 0;
        drop(state);
        self.0.changed.notify_all();
    }

    /// What there is to say now.
    pub(crate) fn status(&self) -> CpuStatus {
        let state = self.0.lock();
        let now = self.0.began.elapsed();
        let schedule = state.schedule.as_ref();
        CpuStatus {
            done: state.completions.total(),
            dropped: schedule.map_or(0, Schedule::dropped),
            waiting: schedule.map_or(0, |schedule| schedule.waiting(now)),
            offered_rate: schedule.map_or(0.0, Schedule::rate),
            rate: state.completions.rate(now),
            threads: state.threads,
            by_cpu: state.by_cpu.clone(),
        }
    }
}

/// A worker's life: take a job, wait until it is due, do it, count it.
fn work(shared: &Shared, generation: u64) {
    let mut seed = 0;
    while wait_for_job(shared, generation) {
        seed = run_job(seed);
        let cpu = sched_getcpu().unwrap_or(usize::MAX);
        let mut state = shared.lock();
        if state.generation == generation {
            *state.by_cpu.entry(cpu).or_default() += 1;
        }
        let now = shared.began.elapsed();
        state.completions.record(now);
    }
}

/// Takes the next job and waits until it is due; `false` when the load has ended.
fn wait_for_job(shared: &Shared, generation: u64) -> bool {
    let mut state = shared.lock();
    if state.generation != generation {
        return false;
    }
    let Some(schedule) = state.schedule.as_mut() else {
        return false;
    };
    let due = schedule.take(shared.began.elapsed());
    loop {
        if state.generation != generation {
            return false;
        }
        let left = due.saturating_sub(shared.began.elapsed());
        if left.is_zero() {
            return true;
        }
        state = shared
            .changed
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALIBRATION: Calibration = Calibration {
        undisturbed: Duration::from_millis(5),
        median: Duration::from_millis(5),
    };

    #[test]
    fn demand_becomes_a_rate_by_what_a_job_costs_as_things_are() {
        assert_eq!(CALIBRATION.capacity_milli(), 200_000);
        assert_eq!(CALIBRATION.rate_milli(1000), 200_000);
        assert_eq!(CALIBRATION.rate_milli(250), 50_000);
    }

    #[test]
    fn a_clock_that_stood_still_and_a_busy_host_do_not_set_the_cost() {
        let mut costs = vec![Duration::from_millis(5); 15];
        costs.extend([Duration::ZERO, Duration::ZERO]);
        costs.extend([Duration::from_millis(40); 8]);
        let calibration = settle(costs).expect("most of them are sound");
        assert_eq!(calibration.undisturbed, Duration::from_millis(5));
        assert_eq!(calibration.median, Duration::from_millis(5));
        assert!(settle(vec![Duration::ZERO; 25]).is_none());
    }

    #[test]
    fn the_same_seed_is_the_same_work() {
        assert_eq!(run_job(3), run_job(3));
        assert_ne!(run_job(3), run_job(5));
    }

    #[test]
    fn jobs_are_counted_once_each_and_stop_ends_them() {
        let load = CpuLoad::new();
        assert_eq!(
            load.start(2, Offered::RateMilli(50_000), CALIBRATION)
                .expect("threads"),
            50.0
        );
        while load.status().done < 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let running = load.status();
        assert_eq!(running.threads, 2);
        assert!(
            running.by_cpu.values().sum::<u64>() >= 20,
            "each job ended on some CPU: {:?}",
            running.by_cpu
        );
        load.stop();
        // At most the two jobs in hand end after this; then only the test holds the shared state.
        while Arc::strong_count(&load.0) > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let stopped = load.status();
        assert!(stopped.done >= running.done);
        assert_eq!(
            (stopped.threads, stopped.waiting, stopped.offered_rate),
            (0, 0, 0.0)
        );
    }
}
