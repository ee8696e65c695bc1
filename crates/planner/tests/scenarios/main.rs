//! Whole passes over small hosts, tick by tick: what is done when, and why not when not.

// A test says what went wrong by panicking; clippy's exception for tests does not reach their helper functions.
#![allow(clippy::panic)]

mod adapting;
mod asked_limits;
mod consent;
mod mechanisms;
mod need;
mod offline;
mod quota;
mod relief;
mod sharing;
mod trust;
mod waves;
mod world;
