//! The persona document and its rule language.

pub mod signal;
pub mod units;
