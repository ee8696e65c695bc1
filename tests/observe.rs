//! The observer over trees of recorded kernel files, and over real processes of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod observe {
    pub(crate) mod tree;

    mod disks;
    mod domains;
    mod groups;
    mod guests;
    mod interfaces;
    mod processes;
    mod slow;
}
