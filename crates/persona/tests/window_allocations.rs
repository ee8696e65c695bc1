//! What windows allocate. A program of its own, because it replaces the allocator of the whole process.
#![allow(clippy::cast_precision_loss, reason = "the values of tests are small")]

mod counting;

use std::time::Duration;

use counting::{allocations, held};
use persona::Moment;
use persona::rule::window::{Function, Window};

/// Milliseconds by which a reading is late: no order, the same in each run.
fn late(n: u64, most: u64) -> u64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % (most + 1)
}

/// Pushes `readings` from the `first` on and looks at the window twice after each. Gives how often it was known.
fn feed(window: &mut Window, first: u64, readings: u64, period: u64) -> usize {
    let mut known = 0;
    for n in first..first + readings {
        let at = n * period + late(n, period * 9 / 10);
        // Values that rise, fall and repeat.
        let value = (late(n, 900) + n % 500) as f64;
        window.push(Moment(at), value, Duration::from_millis(period));
        for now in [at, at + period] {
            known += usize::from(window.value(Moment(now)).is_some());
        }
    }
    known
}

#[test]
fn a_warm_window_allocates_nothing_and_a_dense_one_stays_small() {
    // Length and period in milliseconds: five minutes of a reading a second, a window of few readings, and one that is
    // full, with twenty readings in each slice.
    for (length, period) in [(300_000, 1000), (60_000, 5000), (204_800, 10)] {
        for function in Function::ALL {
            let held_before = held();
            let mut window = Window::new(function, Duration::from_millis(length));
            let in_a_length = length / period;
            feed(&mut window, 0, in_a_length, period);
            let before = allocations();
            assert!(before > 0, "allocations are counted");
            let known = feed(&mut window, in_a_length, 3 * in_a_length, period);
            window.clear();
            feed(&mut window, 5 * in_a_length, in_a_length, period);
            let allocated = allocations() - before;
            let held_now = held().wrapping_sub(held_before);
            assert_eq!(allocated, 0, "{function} over {length} ms");
            assert!(
                held_now <= 64 << 10,
                "{function} over {length} ms holds {held_now} bytes"
            );
            assert!(known > 0, "{function} over {length} ms");
        }
    }
}
