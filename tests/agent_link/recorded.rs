//! The host's end against recorded agents: of this version, of one that speaks the next version too, and of one that speaks
//! only later ones. What the host says has to be what it said when the recording was made, byte for byte.

use std::collections::VecDeque;

use agent_protocol::version::VersionRange;
use agent_protocol::{
    Assembler, DecodeError, HostMessage, Operation, Request, Stamp, decode_host,
    envelope::decode_request_body,
};
use virt_persona::agent::{AgentEvent, LinkState};

use super::peer::{DOMAIN, Host, seconds};
use transcript::{Line, Side, raw_field, settled, transcript};

#[path = "../fixtures/channel/transcript.rs"]
mod transcript;

/// What differs from run to run. The range of versions is looked at on its own: it grows with each version.
const VARIES: [&str; 2] = ["sid", "now_unix_ms"];

/// The requests that a recording has the host make, in their order, each with the number of the line that it begins at.
fn requests(lines: &[Line]) -> VecDeque<(usize, Request)> {
    let mut assembler = Assembler::new();
    let mut began = Vec::new();
    let mut requests = VecDeque::new();
    for (number, line) in lines.iter().enumerate() {
        if line.side == Side::Guest {
            continue;
        }
        match decode_host(&line.text) {
            Ok((_, HostMessage::Request(request))) => requests.push_back((number, request)),
            Ok((_, HostMessage::Chunk(chunk))) => {
                began.push(number);
                if let Some(body) = assembler.take(&chunk).unwrap() {
                    let request = decode_request_body(&body, &Stamp::outside()).unwrap();
                    requests.push_back((began[0], request));
                    began.clear();
                }
            }
            Ok(_) => {}
            Err(DecodeError::Request { source, .. }) => panic!("line {number}: {source}"),
            Err(error) => panic!("line {number}: {error}"),
        }
    }
    requests
}

/// Plays the guest's lines; the host makes the recorded requests and pings. Gives the host back with what happened.
async fn replay(name: &str) -> Host {
    let host = Host::with(|config| config.telemetry = seconds(3600));
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    let lines = transcript(name);
    let mut requests = requests(&lines);
    let mut answers = VecDeque::new();
    let mut wrong = Vec::new();
    let mut sid = (String::new(), String::new());
    for (number, line) in lines.iter().enumerate() {
        if line.side == Side::Guest {
            let text = line.text.replace(&sid.0, &sid.1);
            peer.raw(&agent_protocol::frame::encode(&text, 32_768).unwrap())
                .await;
            if raw_field(&line.text, "msg") == Some("\"reply\"") {
                let answer: tokio::task::JoinHandle<Result<_, _>> = answers.pop_front().unwrap();
                let answer = answer.await.unwrap();
                let succeeds = line.text.contains("\"ok\":");
                assert_eq!(answer.is_ok(), succeeds, "message {number}: {answer:?}");
            }
            continue;
        }
        if requests.front().is_some_and(|(at, _)| *at == number) {
            let (_, request) = requests.pop_front().unwrap();
            let registry = host.registry.clone();
            host.registry.connected(DOMAIN).await;
            answers.push_back(tokio::spawn(async move {
                let deadline = std::time::Duration::from_millis(request.ttl_ms);
                registry
                    .request(DOMAIN, Some(request.id), request.op, deadline)
                    .await
            }));
        }
        if raw_field(&line.text, "msg") == Some("\"ping\"") {
            let registry = host.registry.clone();
            tokio::spawn(async move { registry.ping(DOMAIN).await });
        }
        let mut said = peer.text().await.expect("the connection is open");
        if raw_field(&line.text, "msg") == Some("\"hello\"") {
            let ours = raw_field(&said, "sid").unwrap().to_owned();
            sid = (raw_field(&line.text, "sid").unwrap().to_owned(), ours);
            let ranges = [&said, &line.text].map(|text| {
                let HostMessage::Hello(hello) = decode_host(text).unwrap().1 else {
                    panic!("no hello")
                };
                hello.v
            });
            let [VersionRange { min, max }, recorded] = ranges;
            assert!(
                min <= recorded.max && recorded.max <= max,
                "version {} is no longer spoken",
                recorded.max
            );
            let (range, recorded) = (
                format!("\"v\":[{min},{max}]"),
                format!("\"v\":[{},{}]", recorded.min, recorded.max),
            );
            said = said.replacen(&range, &recorded, 1);
        }
        let said = settled(&said, &line.text, &VARIES);
        if said != line.text {
            wrong.push(format!(
                "message {number}\nrecorded {}\nsaid     {said}",
                line.text
            ));
        }
    }
    assert!(wrong.is_empty(), "{name}\n{}", wrong.join("\n"));
    assert!(requests.is_empty() && answers.is_empty());
    host
}

#[tokio::test(start_paused = true)]
async fn a_recorded_agent_of_version_1_is_asked_as_recorded() {
    let host = replay("version-1.txt").await;
    assert!(
        matches!(host.registry.state(DOMAIN), Some(LinkState::Connected(facts)) if facts.protocol == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_recorded_agent_of_the_next_version_is_spoken_to_in_the_common_one() {
    let host = replay("next-agent.txt").await;
    let Some(LinkState::Connected(facts)) = host.registry.state(DOMAIN) else {
        panic!("not connected")
    };
    assert_eq!((facts.protocol, facts.newest_generation), (1, 4));
    let asked = host
        .registry
        .request(DOMAIN, None, Operation::Report, seconds(0))
        .await;
    assert!(asked.is_err(), "nobody answers any more");
}

#[tokio::test(start_paused = true)]
async fn a_recorded_agent_of_later_versions_alone_is_told_as_incompatible() {
    let mut host = replay("later-agent.txt").await;
    let event = host.event().await;
    assert!(
        matches!(&event, AgentEvent::Incompatible { versions } if versions.theirs == (VersionRange { min: 2, max: 3 })),
        "{event:?}"
    );
}
