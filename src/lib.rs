//! The daemon and the command line of virt-persona, in the order in which they are best read: what people ask and see,
//! what the daemon watches, what it does, and the task that ties it together.

pub mod command;
pub mod view;

pub mod agent;
pub mod hypervisor;
pub mod observe;

pub mod act;

pub mod store;

pub mod bus;
pub mod cli;
pub mod config;
