//! The daemon and the command line of virt-persona, in the order in which they are best read: what people ask and see,
//! what is kept, what the daemon watches, what it does, and the task that ties it together.

pub mod command;
pub mod config;
pub mod view;

pub mod audit;
pub mod catalog;
pub mod store;

pub mod agent;
pub mod hypervisor;
pub mod observe;

pub mod stand_in;

pub mod act;
pub mod adopt;

pub mod record;

pub mod daemon;

pub mod simulate;

pub mod bus;
pub mod cli;
