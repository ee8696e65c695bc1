//! The memory load: anonymous pages, touched and held, growing and shrinking in steps to what is wanted.
//!
//! It grows only while the kernel's `MemAvailable` stays above what it is to leave, and goes on when there is more: so
//! a load may want more than the guest has, and takes what growth of the guest brings, without waking the OOM killer.
//! A thread of its own does it, as touching pages takes its time; it sleeps while nothing is to be done.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memmap2::MmapMut;

use crate::witness;

/// What is taken or given back at once.
const STEP: usize = 4 << 20;
/// The distance at which pages are written: the size of a page on x86_64.
const PAGE: usize = 4096;
/// How often a load that wants more than there is looks again.
const RETRY: Duration = Duration::from_millis(250);

/// What there is to say about the memory load, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemoryStatus {
    /// What the host asked to hold.
    pub(crate) wanted: u64,
    /// What is held and was written to.
    pub(crate) held: u64,
    /// What is left available to the rest of the guest.
    pub(crate) leave: u64,
}

#[derive(Default)]
struct Shared {
    status: Mutex<MemoryStatus>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, MemoryStatus> {
        // Three numbers are whole at any time, so a poisoned lock is still good.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory load of this guest.
pub(crate) struct MemoryLoad(Arc<Shared>);

impl MemoryLoad {
    /// No load, and a thread that waits for one. `available` tells how many bytes the guest could still give.
    ///
    /// # Errors
    /// The thread is refused.
    pub(crate) fn start(available: fn() -> Option<u64>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let holder = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("memory".to_owned())
            .stack_size(64 << 10)
            .spawn(move || hold(&holder, available))?;
        Ok(Self(shared))
    }

    /// Sets what is to be held and what is left to others.
    pub(crate) fn set(&self, wanted: u64, leave: u64) {
        let mut status = self.0.lock();
        status.wanted = wanted;
        status.leave = leave;
        drop(status);
        self.0.changed.notify_all();
    }

    /// What there is to say now.
    pub(crate) fn status(&self) -> MemoryStatus {
        *self.0.lock()
    }
}

/// The next step of the holder.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Rest,
    Grow,
    Shrink,
    Wait,
}

fn next_step(status: MemoryStatus, available: Option<u64>) -> Step {
    let step = STEP as u64;
    if status.held > status.wanted {
        Step::Shrink
    } else if status.wanted - status.held < step {
        // Memory is held in whole steps: never more than is wanted.
        Step::Rest
    } else if available.is_some_and(|available| available >= status.leave.saturating_add(step)) {
        Step::Grow
    } else {
        Step::Wait
    }
}

fn hold(shared: &Shared, available: fn() -> Option<u64>) {
    let mut held: Vec<MmapMut> = Vec::new();
    let mut status = shared.lock();
    loop {
        status = match next_step(*status, available()) {
            Step::Rest => shared
                .changed
                .wait(status)
                .unwrap_or_else(PoisonError::into_inner),
            Step::Wait => {
                shared
                    .changed
                    .wait_timeout(status, RETRY)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            Step::Shrink => {
                held.pop();
                status.held = (held.len() * STEP) as u64;
                status
            }
            Step::Grow => {
                drop(status);
                match MmapMut::map_anon(STEP) {
                    Ok(mut pages) => {
                        for (number, page) in pages.chunks_mut(PAGE).enumerate() {
                            // Each page differs, so that nothing can merge them.
                            page[..8].copy_from_slice(
                                &((held.len() * STEP + number) as u64 + 1).to_ne_bytes(),
                            );
                        }
                        held.push(pages);
                    }
                    Err(error) => {
                        witness::log(&format!("guest-load: mmap of {STEP} bytes: {error}"));
                        std::thread::sleep(RETRY);
                    }
                }
                let mut status = shared.lock();
                status.held = (held.len() * STEP) as u64;
                status
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn check(held: u64, wanted: u64, available: Option<u64>, expected: Step) {
        let status = MemoryStatus {
            wanted: wanted * MIB,
            held: held * MIB,
            leave: 64 * MIB,
        };
        let step = next_step(status, available.map(|mib| mib * MIB));
        assert_eq!(
            step, expected,
            "held {held}, wanted {wanted}, available {available:?}"
        );
    }

    #[test]
    fn it_grows_only_into_what_is_available_beyond_what_it_leaves() {
        check(0, 100, Some(68), Step::Grow);
        check(0, 100, Some(67), Step::Wait);
        check(0, 100, None, Step::Wait);
        check(100, 100, Some(500), Step::Rest);
        check(100, 103, Some(500), Step::Rest);
        check(100, 40, None, Step::Shrink);
    }

    #[test]
    fn it_holds_what_is_wanted_and_gives_it_back() {
        let load = MemoryLoad::start(|| Some(u64::MAX)).expect("thread");
        let until = |held| {
            while load.status().held != held {
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        load.set(20 * MIB, 0);
        until(20 * MIB);
        load.set(9 * MIB, 0);
        until(8 * MIB);
        load.set(0, 0);
        until(0);
    }
}
