//! Any bytes as what the daemon gets from a guest, in a session whose id it knows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| agent_protocol::fuzz::from_guest(data));
