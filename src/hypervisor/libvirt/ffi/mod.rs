//! The daemon's only unsafe code: what the `virt` crate does not wrap. Event registration is in `events`, bulk
//! statistics and the state of a domain in `stats`, what limits a domain in `parameters`. What it all means is decided outside.
#![allow(unsafe_code)]

mod events;
mod parameters;
mod stats;

pub(super) use self::events::{Notice, Sink, Subscription, What, subscribe};
pub(super) use self::parameters::{Value, disk_limits, set_disk, set_interface, set_scheduler};
pub(super) use self::stats::{
    DiskFigure, DiskValue, Figures, Wanted, all_domain_stats, domain_state,
};
