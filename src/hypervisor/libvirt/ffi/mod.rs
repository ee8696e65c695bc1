//! The daemon's only unsafe code: what the `virt` crate does not wrap. Event registration is in `events`, bulk
//! statistics and the state of a domain in `stats`. What it all means is decided outside.
#![allow(unsafe_code)]

mod events;
mod stats;

pub(super) use self::events::{Notice, Sink, Subscription, What, subscribe};
pub(super) use self::stats::{
    DiskFigure, DiskValue, Figures, Wanted, all_domain_stats, domain_state,
};
