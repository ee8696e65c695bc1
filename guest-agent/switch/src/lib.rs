//! What `virt-persona-switch` and `virt-persona-tray` have in common: questions to the agent on its own socket, and the words
//! in which they and their answers are shown. The programs themselves are elsewhere: the chooser beside this file, the tray in
//! a crate of its own.

pub mod client;
pub mod text;
