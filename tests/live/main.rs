//! The real daemon on real libvirt and QEMU, with what comes of it seen from inside the guests.
//!
//! Each test has its own libvirtd, bus and daemon, so none sees another's domains or touches the host's own; but for one of
//! `limits`, which begins a domain of its own under the host's. They share the host's CPUs, though: a test that measures load
//! has all of them, others go two at a time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod adopt;
mod agent;
mod budget;
mod coordination;
mod figures;
#[allow(dead_code, unused_imports, reason = "the demo uses the rest of it")]
mod harness;
mod lifecycle;
mod limits;
mod memory;
mod migration;
mod personas;
mod prerequisites;
mod process;
mod recovery;
mod scene;
mod stand_in;
mod vcpus;

use std::sync::{Condvar, Mutex, PoisonError};

/// How much of the host a test needs.
#[derive(Clone, Copy)]
enum Use {
    /// It loads vCPUs and looks at what the load comes to.
    WholeHost,
    /// It waits most of the time.
    PartOfHost,
}

/// Tests that wait may go two at a time; one that loads the host takes both places.
const PLACES: u32 = 2;

static TAKEN: Mutex<u32> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// A test's turn; it ends with this value.
struct Turn(u32);

/// Waits until there is room for the test.
fn turn(needs: Use) -> Turn {
    let places = match needs {
        Use::WholeHost => PLACES,
        Use::PartOfHost => 1,
    };
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut taken = FREED
        .wait_while(taken, |taken| *taken + places > PLACES)
        .unwrap_or_else(PoisonError::into_inner);
    *taken += places;
    Turn(places)
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        FREED.notify_all();
    }
}
