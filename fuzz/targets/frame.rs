//! Any bytes as what comes over the channel from either side: frames, messages, bodies in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    agent_protocol::fuzz::stream(data);
    if let Ok(text) = std::str::from_utf8(data) {
        agent_protocol::fuzz::chunks(text);
    }
});
