//! The persona document and its rule language.

pub mod domain;
pub mod signal;
pub mod units;
