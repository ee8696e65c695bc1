//! The daemon and the command line of virt-persona.

pub mod hypervisor;
pub mod observe;
