//! Any bytes as what an agent gets from a host, in whatever session its own bytes begin.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| agent_protocol::fuzz::from_host(data));
