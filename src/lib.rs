//! The daemon and the command line of virt-persona.

pub mod bus;
pub mod cli;
pub mod command;
pub mod hypervisor;
pub mod view;
