//! A lab on this machine for the live tests and for the demo: a libvirtd and a bus of its own, test guests with a witness
//! in each, the real daemon and the real command line. Nothing of the host's own libvirt, bus or configuration is
//! touched, and nothing is left behind however the program ends (`guard`).
//!
//! Nothing here is skipped where something is missing: it is a [`Failure`] that says what to do. Every wait is bounded.

mod daemon;
mod domain;
mod guest;
mod lab;
mod leftovers;
mod outcome;
mod services;
mod witness;

pub(crate) use daemon::{Daemon, Host};
pub(crate) use domain::{Domain, DomainSpec, MemoryDevice, Network, StateDisk, Variant};
pub(crate) use guest::{TestGuest, repository};
pub(crate) use lab::{Lab, Programs};
pub(crate) use outcome::{Failure, Outcome, ensure, eventually};
pub(crate) use witness::{GuestStatus, Witness};
