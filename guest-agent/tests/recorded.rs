//! The agent against recorded hosts: of this version, of one that speaks the next version too, and of one that speaks only
//! later ones. What it says has to be what it said when the recording was made, byte for byte.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;
#[path = "../../tests/fixtures/channel/transcript.rs"]
mod transcript;

use agent_protocol::{Decoder, frame, limits::MAX_FRAME};
use harness::{Guest, Peer};
use std::io::Read as _;
use transcript::{Side, settled, transcript};

/// What differs from run to run.
const VARIES: [&str; 5] = ["inst", "boot_id", "agent_version", "at_ms", "duration_ms"];

fn texts(decoder: &mut Decoder, mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(text) = decoder.next_frame(&mut bytes) {
        texts.push(text.to_owned());
    }
    texts
}

/// Plays the host's lines, each when all before it have been answered as recorded.
fn replay(name: &str) {
    let guest = Guest::new();
    let mut agent = guest.start();
    let Peer { mut stream, .. } = guest.connect(&mut agent);
    let mut decoder = Decoder::new(MAX_FRAME);
    let mut wrong = Vec::new();
    let mut heard: std::collections::VecDeque<String> = [].into();
    for (number, line) in transcript(name).into_iter().enumerate() {
        if line.side == Side::Host {
            let frame = frame::encode(&line.text, MAX_FRAME).unwrap();
            std::io::Write::write_all(&mut stream, &frame).unwrap();
            continue;
        }
        while heard.is_empty() {
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            assert_ne!(
                length, 0,
                "the agent closed the connection before line {number}"
            );
            heard.extend(texts(&mut decoder, &buffer[..length]));
        }
        let said = heard.pop_front().unwrap();
        let said = settled(&said, &line.text, &VARIES);
        if said != line.text {
            wrong.push(format!(
                "message {number}\nrecorded {}\nsaid     {said}",
                line.text
            ));
        }
    }
    assert!(wrong.is_empty(), "{name}\n{}", wrong.join("\n"));
    assert!(heard.is_empty(), "more than recorded: {heard:?}");
}

#[test]
fn a_recorded_host_of_version_1_gets_the_recorded_answers() {
    replay("version-1.txt");
}

#[test]
fn a_recorded_host_of_the_next_version_is_served_in_the_common_one() {
    replay("next-host.txt");
}

#[test]
fn a_recorded_host_of_later_versions_alone_is_told_what_the_agent_speaks() {
    replay("later-host.txt");
}
