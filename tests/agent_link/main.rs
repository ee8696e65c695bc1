//! The host end of the agent's channel, over real sockets, against a guest that the test plays: honest, late, rebooting,
//! silent, lying and flooding. Time stands still but where a test moves it.

#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

mod agent_binary;
mod line;
mod peer;
mod recorded;
mod simulated;
mod situations;

use agent_protocol::limits::ASKS_BURST;
use agent_protocol::message::{HelloReason, HelloRefused, Ping};
use agent_protocol::version::VersionRange;
use agent_protocol::{
    Answer, Ask, Asked, GuestMessage, GuestUser, HostMessage, Need, Operation, Part, Parts,
    RequestId, SessionId, Told,
};
use peer::{DOMAIN, Host, advance, report, seconds};
use persona::domain::DomainId;
use serde_json::json;
use virt_persona::agent::{
    AgentError, AgentEvent, AgentReply, LinkState, LostReason, Needs, Overflow, Running, Switches,
};

const OTHER: DomainId = DomainId([0x0e; 16]);

fn deactivate() -> Operation {
    Operation::Deactivate { generation: 4 }
}

fn deactivated() -> serde_json::Value {
    json!({"generation": 4, "outcome": "changed"})
}

/// Begins a request and lets it run beside the test.
fn ask(
    host: &Host,
    id: &str,
    operation: Operation,
) -> tokio::task::JoinHandle<Result<AgentReply, AgentError>> {
    let (registry, id) = (host.registry.clone(), RequestId::new(id).unwrap());
    tokio::spawn(async move {
        registry
            .request(DOMAIN, Some(id), operation, seconds(300))
            .await
    })
}

fn connected(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::Connected { .. })
}

fn lost(event: &AgentEvent, expected: LostReason) {
    assert!(
        matches!(event, AgentEvent::Lost { reason } if *reason == expected),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hello_names_the_domain_and_its_answer_makes_a_session() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    let hello = peer.hello().await;
    assert_eq!(
        (hello.vm_uuid, hello.host_id.as_str()),
        (DOMAIN.to_string(), "host-1")
    );
    assert_eq!(
        (hello.reason, hello.telemetry_ms),
        (HelloReason::Connect, Some(1000))
    );
    peer.acknowledge().await;
    let AgentEvent::Connected { facts } = host.event().await else {
        panic!("not connected")
    };
    assert_eq!(
        (facts.boot_id.as_str(), facts.agent_version.as_str()),
        ("boot-1", "0.1")
    );
    assert!(matches!(
        host.registry.state(DOMAIN),
        Some(LinkState::Connected(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_a_ping_returns() {
    let host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    host.registry.connected(DOMAIN).await;
    let answer = ask(&host, "cpus", Operation::OnlineCpus { target: 2 });
    let request = peer.request().await;
    assert_eq!(
        (request.id.as_str(), request.ttl_ms, &request.op),
        ("cpus", 300_000, &Operation::OnlineCpus { target: 2 })
    );
    peer.reply(
        &request,
        json!({"online": "0-1", "present": "0-3", "outcome": "changed"}),
    )
    .await;
    assert!(
        matches!(answer.await.unwrap(), Ok(AgentReply::OnlineCpus { online, .. }) if online.count() == 2)
    );

    let registry = host.registry.clone();
    let round_trip = tokio::spawn(async move { registry.ping(DOMAIN).await });
    let n = peer.ping().await;
    peer.pong(n).await;
    assert_eq!(round_trip.await.unwrap(), Ok(seconds(0)));
}

#[tokio::test(start_paused = true)]
async fn a_body_longer_than_a_frame_arrives_in_pieces() {
    let host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    host.registry.connected(DOMAIN).await;
    let activation = agent_protocol::Activation {
        generation: 4,
        persona: "p".into(),
        version: 1,
        digest: "d".into(),
        environment: (0..20)
            .map(|i| (format!("V{i}"), "x".repeat(10_000)))
            .collect(),
        settings: agent_protocol::Settings::default(),
        pre: None,
        post: None,
        commands: agent_protocol::CommandTable::default(),
        rules: agent_protocol::GuestRules::default(),
        adjusted: None,
    };
    let operation = Operation::Activate {
        activation: Box::new(activation),
    };
    let answer = ask(&host, "big", operation.clone());
    let mut assembler = agent_protocol::Assembler::new();
    let body = loop {
        let (_, message) = peer.next().await.unwrap();
        if let agent_protocol::HostMessage::Chunk(chunk) = message
            && let Some(body) = assembler.take(&chunk).unwrap()
        {
            break body;
        }
    };
    let request: agent_protocol::Request = serde_json::from_slice(&body).unwrap();
    assert_eq!(request.op, operation);
    peer.reply(&request, json!({"generation": 4, "outcome": "changed"}))
        .await;
    assert!(matches!(
        answer.await.unwrap(),
        Ok(AgentReply::Activated(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn pings_and_short_requests_go_between_the_pieces_of_a_long_one() {
    let host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    host.registry.connected(DOMAIN).await;
    let activation = agent_protocol::Activation {
        generation: 4,
        persona: "p".into(),
        version: 1,
        digest: "d".into(),
        // Far more than the socket takes while nobody reads: in JSON each quotation mark takes two bytes.
        environment: (0..25)
            .map(|i| (format!("V{i}"), "\"".repeat(10_000)))
            .collect(),
        settings: agent_protocol::Settings::default(),
        pre: None,
        post: None,
        commands: agent_protocol::CommandTable::default(),
        rules: agent_protocol::GuestRules::default(),
        adjusted: None,
    };
    let operation = Operation::Activate {
        activation: Box::new(activation),
    };
    let _long = ask(&host, "long", operation);
    advance(seconds(0)).await;
    let _next = ask(&host, "next", deactivate());
    let _cpus = ask(&host, "cpus", Operation::OnlineCpus { target: 2 });
    let registry = host.registry.clone();
    tokio::spawn(async move { registry.ping(DOMAIN).await });
    advance(seconds(0)).await;
    let mut order = Vec::new();
    while order.last() != Some(&"next".to_owned()) {
        match peer.next().await.unwrap().1 {
            agent_protocol::HostMessage::Chunk(chunk) if chunk.last => {
                order.push("long".to_owned())
            }
            agent_protocol::HostMessage::Request(request) => order.push(request.id.to_string()),
            agent_protocol::HostMessage::Ping(_) => order.push("ping".to_owned()),
            _ => {}
        }
    }
    assert_eq!(order, ["ping", "cpus", "long", "next"]);
}

#[tokio::test(start_paused = true)]
async fn frames_may_come_byte_by_byte_cut_or_twice() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    peer.hello().await;
    let ack = peer.ack(1);
    let frame = peer.frame(&ack);
    peer.raw(&frame[..frame.len() / 2]).await;
    for byte in frame {
        peer.raw(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(connected(&host.event().await));
    let report = report(2);
    let frame = peer.frame(&report);
    peer.raw(&[&frame[..], &frame[..]].concat()).await;
    let AgentEvent::Telemetry(slot) = host.event().await else {
        panic!("no telemetry")
    };
    assert_eq!(slot.take().unwrap().online.count(), 2);
    peer.telemetry(3).await;
    let AgentEvent::Telemetry(slot) = host.event().await else {
        panic!("no telemetry")
    };
    assert_eq!(
        slot.take().unwrap().online.count(),
        3,
        "the repeated frame made no event"
    );
}

#[tokio::test(start_paused = true)]
async fn answers_of_an_earlier_session_count_for_nothing() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut old = guest.connect().await;
    assert!(connected(&host.event().await));
    let answer = ask(&host, "change", deactivate());
    let request = old.request().await;
    let stale = old.frame(&GuestMessage::Reply(
        agent_protocol::Reply::ok(
            request.id.clone(),
            &json!({"generation": 99, "outcome": "changed"}),
        )
        .unwrap(),
    ));
    drop(old);
    lost(&host.event().await, LostReason::Closed);
    advance(seconds(1)).await;
    let mut peer = guest.accept().await;
    peer.raw(&stale).await;
    peer.hello().await;
    peer.raw(&stale).await;
    peer.acknowledge().await;
    peer.raw(&stale).await;
    let query = peer.request().await;
    assert_eq!(query.op, Operation::OpStatus { id: request.id });
    peer.reply(
        &query,
        json!({"state": "done", "result": {"ok": deactivated()}}),
    )
    .await;
    let reply = answer.await.unwrap();
    assert!(
        matches!(reply, Ok(AgentReply::Deactivated { generation: 4, .. })),
        "{reply:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_ack_under_another_session_id_is_no_answer() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    peer.hello().await;
    let right = peer.sid.replace(SessionId::from_random([9; 16]));
    peer.acknowledge().await;
    peer.sid = right;
    peer.boot_id = "the true one".to_owned();
    peer.acknowledge().await;
    let AgentEvent::Connected { facts } = host.event().await else {
        panic!("not connected")
    };
    assert_eq!(facts.boot_id.as_str(), "the true one");
}

#[tokio::test(start_paused = true)]
async fn versions_that_do_not_meet_are_told_once_and_tried_again() {
    let mut host = Host::with(|config| config.versions = VersionRange { min: 1, max: 2 });
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    assert_eq!(peer.hello().await.v, VersionRange { min: 1, max: 2 });
    let refusal = GuestMessage::HelloRefused(HelloRefused {
        error: "version".to_owned(),
        have: VersionRange { min: 5, max: 6 },
    });
    peer.send(&refusal).await;
    let event = host.event().await;
    assert!(
        matches!(event, AgentEvent::Incompatible { versions } if versions.theirs.min == 5),
        "{event:?}"
    );
    let error = host
        .registry
        .request(DOMAIN, None, Operation::Report, seconds(1))
        .await;
    assert!(matches!(error, Err(AgentError::VersionMismatch { .. })));

    advance(seconds(1)).await;
    let mut peer = guest.accept().await;
    peer.hello().await;
    peer.send(&refusal).await;
    peer.closed().await;
    advance(seconds(1)).await;
    // The version before the newest is spoken too.
    let _peer = guest.connect().await;
    let event = host.event().await;
    assert!(
        matches!(&event, AgentEvent::Connected { facts } if facts.protocol == 1),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_ack_of_a_version_that_was_not_offered_is_no_session() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    peer.hello().await;
    let ack = peer.ack(77);
    peer.send(&ack).await;
    assert!(matches!(
        host.event().await,
        AgentEvent::Incompatible { .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_second_boot_gets_a_session_of_its_own() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    let first = peer.sid.clone();
    let cpus = ask(&host, "cpus", Operation::OnlineCpus { target: 2 });
    peer.request().await;
    let change = ask(&host, "change", deactivate());
    peer.request().await;

    // QEMU keeps the socket open over a reset: the new boot speaks on the old connection.
    (peer.boot_id, peer.inst) = ("boot-2".to_owned(), "inst-2".to_owned());
    peer.announce().await;
    lost(&host.event().await, LostReason::AgentRestarted);
    advance(seconds(1)).await;
    let mut peer = guest.accept().await;
    assert_eq!(peer.hello().await.reason, HelloReason::Reboot);
    assert_ne!(peer.sid, first);
    peer.boot_id = "boot-2".to_owned();
    peer.acknowledge().await;
    assert!(connected(&host.event().await));
    assert!(
        matches!(cpus.await.unwrap(), Err(AgentError::Interrupted { .. })),
        "meant for the boot before"
    );
    let query = peer.request().await;
    peer.reply(&query, json!({"state": "unknown"})).await;
    let again = peer.request().await;
    assert_eq!((again.id.as_str(), &again.op), ("change", &deactivate()));
    peer.reply(&again, deactivated()).await;
    assert!(change.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_late_is_greeted_on_its_announcement() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    peer.hello().await;
    let first = peer.sid.clone();
    advance(seconds(2)).await;
    peer.announce().await;
    peer.hello().await;
    assert_ne!(peer.sid, first);
    peer.acknowledge().await;
    assert!(connected(&host.event().await));
}

#[tokio::test(start_paused = true)]
async fn three_unanswered_pings_open_the_connection_again() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    for _ in 0..3 {
        advance(seconds(10)).await;
        peer.ping().await;
    }
    advance(seconds(10)).await;
    lost(&host.event().await, LostReason::Silent);
    peer.closed().await;
    for attempt in 1..=3 {
        advance(seconds(2)).await;
        let mut silent = guest.accept().await;
        let expected = HelloReason::Heartbeat;
        assert_eq!(silent.hello().await.reason, expected, "attempt {attempt}");
        advance(seconds(40)).await;
        silent.closed().await;
    }
    assert!(matches!(host.event().await, AgentEvent::Unresponsive));
    assert_eq!(host.registry.state(DOMAIN), Some(LinkState::Unresponsive));
    advance(seconds(1)).await;
    let _peer = guest.connect().await;
    assert!(connected(&host.event().await), "it comes back by itself");
}

#[tokio::test(start_paused = true)]
async fn any_valid_frame_keeps_the_heartbeat_quiet() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    for _ in 0..5 {
        advance(seconds(9)).await;
        peer.pong(0).await;
        // A round trip of a request puts the frame before it behind us.
        let answer = ask(
            &host,
            "sync",
            Operation::OpStatus {
                id: RequestId::new("x").unwrap(),
            },
        );
        let request = peer.request().await;
        peer.reply(&request, json!({"state": "unknown"})).await;
        assert!(answer.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_domain_is_not_held_to_the_heartbeat() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    assert_eq!(peer.credit().await, 8);
    host.registry.set_running(DOMAIN, Running::Paused);
    advance(seconds(0)).await;
    for _ in 0..100 {
        advance(seconds(10)).await;
    }
    // The first thing that the guest finds is the request below: no ping went before it, and the connection stands.
    let answer = ask(&host, "r", deactivate());
    let (_, message) = peer.next().await.unwrap();
    let agent_protocol::HostMessage::Request(request) = message else {
        panic!("{message:?}")
    };
    peer.reply(&request, deactivated()).await;
    assert!(answer.await.unwrap().is_ok());
    host.registry.set_running(DOMAIN, Running::Yes);
    advance(seconds(0)).await;
    advance(seconds(10)).await;
    peer.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_cut_off_and_disturbs_no_other_link() {
    let mut host = Host::new();
    let bad = host.guest(DOMAIN, "bad");
    let good = host.guest(OTHER, "good");
    let mut flooder = bad.connect().await;
    assert!(connected(&host.event().await));
    let mut honest = good.connect().await;
    assert!(connected(&host.event().await));

    let flood = [0x1e_u8, b'{', b'}', b'\n'].repeat(300);
    flooder.raw(&flood).await;
    let AgentEvent::Misbehaved { misconduct } = host.event().await else {
        panic!("not told")
    };
    assert!(misconduct.undecodable > 0 || misconduct.flooded.is_some());
    loop {
        match host.event().await {
            AgentEvent::Lost { reason } => break assert_eq!(reason, LostReason::Flooded),
            AgentEvent::Misbehaved { misconduct } => {
                assert_eq!(misconduct.flooded, Some(Overflow::Frames));
            }
            other => panic!("{other:?}"),
        }
    }
    flooder.closed().await;
    let refusal = host
        .registry
        .request(DOMAIN, None, Operation::Report, seconds(1))
        .await;
    assert!(matches!(refusal, Err(AgentError::Flooding { pause, .. }) if pause == seconds(1)));
    // A renewal does not shorten the penalty, nor does a flood on the next connection leave it as short.
    host.registry.renew(DOMAIN, HelloReason::Reboot);
    advance(std::time::Duration::from_millis(900)).await;
    assert!(matches!(
        host.registry.state(DOMAIN),
        Some(LinkState::Flooding { .. })
    ));
    advance(seconds(1)).await;
    let mut flooder = bad.connect().await;
    assert!(connected(&host.event().await));
    flooder.raw(&flood).await;
    flooder.closed().await;
    assert!(
        matches!(host.registry.state(DOMAIN), Some(LinkState::Flooding { pause }) if pause == seconds(2))
    );

    let registry = host.registry.clone();
    let round_trip = tokio::spawn(async move { registry.ping(OTHER).await });
    let n = honest.ping().await;
    honest.pong(n).await;
    assert!(round_trip.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn bytes_without_frames_are_a_flood_too() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    peer.raw(&vec![b'x'; 2 << 20]).await;
    let event = host.event().await;
    assert!(
        matches!(event, AgentEvent::Misbehaved { misconduct } if misconduct.flooded == Some(Overflow::Bytes)),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn telemetry_beyond_credit_is_dropped_and_the_latest_report_holds() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    assert_eq!(peer.credit().await, 8);
    for online in 1..=8 {
        peer.telemetry(online).await;
    }
    peer.telemetry(1).await;
    let AgentEvent::Telemetry(slot) = host.event().await else {
        panic!("no telemetry")
    };
    let event = host.event().await;
    assert!(
        matches!(event, AgentEvent::Misbehaved { misconduct } if misconduct.uncredited == 1),
        "one unread report makes one event: {event:?}"
    );
    assert_eq!(slot.take().unwrap().online.count(), 8);
    advance(seconds(5)).await;
    assert_eq!(peer.credit().await, 8);
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_told_in_each_session_which_parts_of_reports_are_wanted() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    let parts = Parts::BASE.with(Part::Applications);
    host.registry.collect(DOMAIN, parts);
    assert_eq!(peer.parts().await, parts);
    host.registry.collect(DOMAIN, parts);
    host.registry.renew(DOMAIN, HelloReason::Revert);
    peer.closed().await;
    advance(seconds(1)).await;
    let mut peer = guest.connect().await;
    assert_eq!(peer.parts().await, parts);
    host.registry.collect(DOMAIN, Parts::BASE);
    assert_eq!(peer.parts().await, Parts::BASE);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_nobody_takes_does_not_silence_the_next() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    for online in 1..=3 {
        peer.telemetry(online).await;
        assert!(matches!(host.event().await, AgentEvent::Telemetry(_)));
    }
}

fn need(bytes: u64) -> GuestMessage {
    GuestMessage::Need(Need {
        memory_bytes: bytes,
        reason: "im\u{1b}[31mport".to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn needs_that_come_too_fast_or_cannot_be_are_dropped_and_counted() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    let hello = peer.hello().await;
    assert!(hello.feats.iter().any(|feat| feat == "need"), "{hello:?}");
    peer.acknowledge().await;
    assert!(connected(&host.event().await));
    peer.send(&need(1 << 28)).await;
    let event = host.event().await;
    assert!(
        matches!(&event, AgentEvent::Needs { more, reason } if more.0 == 1 << 28 && !reason.as_str().contains('\u{1b}')),
        "{event:?}"
    );
    for _ in 0..50 {
        peer.send(&need(1 << 28)).await;
    }
    let event = host.event().await;
    assert!(
        matches!(event, AgentEvent::Misbehaved { misconduct } if misconduct.refused_needs >= 1),
        "{event:?}"
    );
    advance(seconds(2)).await;
    peer.send(&need(0)).await;
    peer.send(&need(u64::MAX)).await;
    peer.send(&need(7)).await;
    loop {
        match host.event().await {
            AgentEvent::Needs { more, .. } => break assert_eq!(more.0, 7),
            AgentEvent::Misbehaved { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_listen_to_needs_says_so_and_takes_none() {
    let mut host = Host::with(|config| config.needs = Needs::Ignore);
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    assert_eq!(peer.hello().await.feats, [""; 0]);
    peer.acknowledge().await;
    assert!(connected(&host.event().await));
    peer.send(&need(1)).await;
    let event = host.event().await;
    assert!(
        matches!(event, AgentEvent::Misbehaved { misconduct } if misconduct.refused_needs == 1),
        "{event:?}"
    );
}

fn look(number: u64) -> GuestMessage {
    GuestMessage::Ask(Ask {
        ask_id: RequestId::new(format!("a-{number}")).unwrap(),
        user: GuestUser {
            name: "a\u{1b}[31mda".to_owned(),
            uid: 1000,
        },
        what: Asked::Offers,
    })
}

#[tokio::test(start_paused = true)]
async fn asks_of_users_count_up_to_a_pace_and_are_answered_in_the_session_that_stands() {
    let mut host = Host::with(|config| config.switches = Switches::Honour);
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.accept().await;
    let hello = peer.hello().await;
    assert!(hello.feats.iter().any(|feat| feat == "switch"), "{hello:?}");
    peer.acknowledge().await;
    assert!(connected(&host.event().await));
    for number in 0..60 {
        peer.send(&look(number)).await;
    }
    let mut passed = 0;
    loop {
        match host.event().await {
            AgentEvent::Asks(ask) => {
                assert!(!ask.user.name.contains('\u{1b}'), "{ask:?}");
                passed += 1;
            }
            AgentEvent::Misbehaved { misconduct } => {
                assert!(misconduct.refused_asks >= 1, "{misconduct:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=2 * ASKS_BURST).contains(&passed), "{passed}");
    let told = Told {
        ask_id: RequestId::new("a-0").unwrap(),
        answer: Answer::refused("not now"),
    };
    host.registry.tell(DOMAIN, told.clone()).unwrap();
    loop {
        let (_, message) = peer.next().await.unwrap();
        if let HostMessage::Told(answer) = message {
            break assert_eq!(*answer, told);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_is_counted_and_not_shown() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    peer.telemetry(9).await;
    let event = host.event().await;
    assert!(
        matches!(event, AgentEvent::Misbehaved { misconduct } if misconduct.refused_reports == 1),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revert_ends_the_session_and_a_late_hint_of_a_reboot_asks_for_proof_only() {
    let mut host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    host.registry.renew(DOMAIN, HelloReason::Reboot);
    let n = peer.ping().await;
    peer.pong(n).await;
    let answer = ask(&host, "r", deactivate());
    let request = peer.request().await;
    peer.reply(&request, deactivated()).await;
    assert!(answer.await.unwrap().is_ok());
    advance(seconds(3)).await;
    assert!(matches!(
        host.registry.state(DOMAIN),
        Some(LinkState::Connected(_))
    ));

    host.registry.renew(DOMAIN, HelloReason::Revert);
    lost(&host.event().await, LostReason::Reverted);
    peer.closed().await;
    advance(seconds(1)).await;
    let mut peer = guest.accept().await;
    assert_eq!(peer.hello().await.reason, HelloReason::Revert);
    peer.acknowledge().await;
    assert!(connected(&host.event().await));
    // Without proof the young session ends.
    host.registry.renew(DOMAIN, HelloReason::Reboot);
    peer.ping().await;
    advance(seconds(2)).await;
    lost(&host.event().await, LostReason::Silent);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_moves_is_followed_and_one_that_is_given_up_is_closed() {
    let mut host = Host::new();
    let first = host.guest(DOMAIN, "one");
    let mut peer = first.connect().await;
    assert!(connected(&host.event().await));
    let second = host.guest(DOMAIN, "two");
    lost(&host.event().await, LostReason::Moved);
    peer.closed().await;
    let mut peer = second.connect().await;
    assert!(connected(&host.event().await));
    let answer = ask(&host, "r", deactivate());
    peer.request().await;
    host.registry.detach(DOMAIN);
    peer.closed().await;
    assert!(matches!(
        answer.await.unwrap(),
        Err(AgentError::Interrupted {
            reason: LostReason::Detached,
            ..
        })
    ));
    assert_eq!(host.registry.state(DOMAIN), None);
    let refusal = host.registry.ping(DOMAIN).await;
    assert!(matches!(refusal, Err(AgentError::NotAttached { .. })));
}

#[tokio::test(start_paused = true)]
async fn two_daemons_do_not_share_a_channel() {
    let mut host = Host::new();
    let run = host.directory.path().join("run");
    let second = Host::with(|config| config.run_directory = run);
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    assert!(connected(&host.event().await));
    second
        .registry
        .attach(DOMAIN, host.socket("a"), Running::Yes);
    advance(seconds(1)).await;
    let refusal = second.registry.ping(DOMAIN).await;
    assert!(
        matches!(refusal, Err(AgentError::OwnedElsewhere { .. })),
        "{refusal:?}"
    );
    host.registry.detach(DOMAIN);
    peer.closed().await;
    advance(seconds(30)).await;
    let _peer = guest.connect().await;
    assert!(second.registry.connected(DOMAIN).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_ends_at_its_deadline() {
    let host = Host::new();
    let guest = host.guest(DOMAIN, "a");
    let mut peer = guest.connect().await;
    host.registry.connected(DOMAIN).await;
    let answer = ask(&host, "r", deactivate());
    let request = peer.request().await;
    for _ in 0..31 {
        advance(seconds(10)).await;
        // The agent lives; it only does not answer this.
        while let Ok(Some((_, message))) = tokio::time::timeout(seconds(0), peer.next()).await {
            if let agent_protocol::HostMessage::Ping(Ping { n }) = message {
                peer.pong(n).await;
            }
        }
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        answer.await.unwrap(),
        Err(AgentError::TimedOut {
            operation: "deactivate",
            ..
        })
    ));
    peer.reply(&request, deactivated()).await;
}
