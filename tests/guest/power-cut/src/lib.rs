//! The daemon's store, compiled from the daemon's own sources, without the rest of the daemon: so that it fits into
//! a static program. Used by the program of this crate alone.

#[path = "../../../../src/store/mod.rs"]
pub mod store;
