//! The daemon and the command line of virt-persona.

pub mod act;
pub mod config;
pub mod bus;
pub mod command;
pub mod hypervisor;
pub mod view;
pub mod store;
