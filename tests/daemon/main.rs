//! The whole daemon on a simulated hypervisor. `control` and `crash` and `personas` run it inside the test, so that the
//! machine can be moved while it runs and the daemon can be stopped dead; `program` and `life` run the real programs on
//! a message bus of their own. Guest agents are the real program on a unix socket. Nothing of the host is touched.

// A test stops where something is not as it must be, also in the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

mod agent;
mod older;
mod paused;
mod program;
mod recording;
mod relay;
mod stage;

mod adjust;
mod adjust_faults;
mod adopt;
mod approvals;
mod calls;
mod chooser;
mod control;
mod coordination;
mod crash;
mod doctor;
mod effects;
mod events;
mod exec;
mod guest_rules;
mod layers;
mod life;
mod lifecycle;
mod limits;
mod matrix;
mod personas;
mod quota;
mod refusals;
mod replay;
mod rollout;
mod settings;
mod shift;
mod switching;
mod telemetry;
mod tray;
