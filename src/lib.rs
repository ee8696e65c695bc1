//! The daemon and the command line of virt-persona.

pub mod act;
pub mod audit;
pub mod catalog;
pub mod config;
pub mod hypervisor;
pub mod store;
