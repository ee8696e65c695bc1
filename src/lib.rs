//! The daemon and the command line of virt-persona.

pub mod agent;
pub mod hypervisor;
