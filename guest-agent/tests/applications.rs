//! What applications of the guest say, from their end of the socket to the report of the real agent.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    process::{Command, Output},
};

use agent_protocol::{
    AppKind, Collect, HostMessage, Operation, Part, Parts, Report, limits::APP_FIGURES_MAX,
};
use harness::{Agent, Guest, Peer, ok, wait, wait_for};

const SOCKET: &str = "run/virt-persona-agent/metrics.sock";

fn collect(peer: &mut Peer, parts: Parts) {
    peer.send(&HostMessage::Collect(Collect { parts }));
    // What is done about it is done behind the turn that answers.
    peer.expect_silence_until_pong();
    peer.expect_silence_until_pong();
}

/// An agent whose host wants to know what applications say.
fn listening(guest: &Guest) -> (Agent, Peer) {
    let (agent, mut peer, _) = guest.greet();
    collect(&mut peer, Parts::BASE.with(Part::Applications));
    wait_for(&guest.path(SOCKET));
    (agent, peer)
}

fn emit(guest: &Guest, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg("--root")
        .arg(guest.path(""))
        .arg("emit")
        .args(words)
        .output()
        .unwrap()
}

fn say(guest: &Guest, datagram: &[u8]) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(datagram, guest.path(SOCKET)).unwrap();
}

fn report(peer: &mut Peer) -> Report {
    ok(peer.ask(Operation::Report))
}

fn figures(peer: &mut Peer) -> Vec<(String, f64)> {
    let checked = report(peer).check().unwrap();
    let figures = checked.app.into_iter();
    figures.map(|figure| (figure.name, figure.value)).collect()
}

#[test]
fn what_applications_say_goes_with_the_next_report() {
    let guest = Guest::new();
    let (_agent, mut peer) = listening(&guest);
    let said = emit(&guest, &["queue=17", "latency=350", "ms", "requests+=2"]);
    assert!(said.status.success(), "{said:?}");
    say(&guest, b"requests:3|c\nqueue:-2|g\n");
    assert_eq!(
        figures(&mut peer),
        [
            ("latency".to_owned(), 0.35),
            ("queue".to_owned(), 15.0),
            ("requests".to_owned(), 5.0)
        ]
    );
    let app = report(&mut peer).app;
    assert_eq!(
        (app[1].kind, app[2].kind),
        (AppKind::Gauge, AppKind::Counter)
    );
    assert!(app[1].every_ms.is_some() && app[0].every_ms.is_none());
}

#[test]
fn broken_lines_long_datagrams_and_floods_harm_nothing() {
    let guest = Guest::new();
    let (agent, mut peer) = listening(&guest);
    for broken in [
        &b"\xff\xfe"[..],
        b"",
        b"\n\n\0",
        b"a\x1b[2J=1",
        b"a=1e999",
        &[b'x'; 9000],
    ] {
        say(&guest, broken);
    }
    say(&guest, b"nonsense\nqueue=1\nqueue=nan");
    assert_eq!(figures(&mut peer), [("queue".to_owned(), 1.0)]);
    // Waits where the agent reads no faster, and goes on.
    for n in 0..3000 {
        say(&guest, format!("f{n}=1").as_bytes());
    }
    assert!(figures(&mut peer).len() <= APP_FIGURES_MAX);
    peer.expect_silence_until_pong();
    // What is its own: the pages of a program that was built for tests say nothing of floods.
    assert!(agent.status_field("RssAnon")[0] < 2 * 1024);
}

#[test]
fn the_socket_is_there_for_every_user_while_the_host_wants_it_and_only_then() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    peer.expect_silence_until_pong();
    let refused = emit(&guest, &["queue=1"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(1) && text.contains("nobody takes figures"),
        "{text}"
    );
    collect(&mut peer, Parts::NONE.with(Part::Applications));
    wait_for(&guest.path(SOCKET));
    let mode = guest.path(SOCKET).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    assert!(emit(&guest, &["hits+=1"]).status.success());
    assert_eq!(figures(&mut peer), [("hits".to_owned(), 1.0)]);
    drop(peer);
    wait("nobody listens any more", || !guest.path(SOCKET).exists());
    let mut agent = agent;
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    collect(&mut peer, Parts::NONE.with(Part::Applications));
    wait_for(&guest.path(SOCKET));
    assert!(emit(&guest, &["hits+=2"]).status.success());
    assert_eq!(
        figures(&mut peer),
        [("hits".to_owned(), 3.0)],
        "a counter goes on over a session's end"
    );
}

#[test]
fn parts_that_the_host_does_not_want_do_not_leave_the_guest() {
    let guest = Guest::new();
    guest.write(
        "proc/pressure/cpu",
        "some avg10=1.00 avg60=0.00 avg300=0.00 total=9\n",
    );
    let (_agent, mut peer) = listening(&guest);
    assert!(emit(&guest, &["queue=1"]).status.success());
    let all = report(&mut peer);
    assert!(all.load1.is_some() && all.psi_cpu_some_avg10.is_some() && all.processes.is_some());
    assert_eq!(all.app.len(), 1);
    collect(&mut peer, Parts::NONE);
    let id = harness::fresh_id();
    peer.post(&id, Operation::Report);
    let agent_protocol::message::ReplyBody::Ok(value) = peer.answer(&id) else {
        panic!("no report")
    };
    let keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "at_ms",
            "dropped",
            "memory_available_kib",
            "memory_total_kib",
            "online",
            "online_count",
            "present_count",
            "swap_free_kib",
            "swap_total_kib"
        ]
    );
}

#[test]
fn the_owner_says_who_may_say_figures() {
    let guest = Guest::new();
    guest.write("etc/virt-persona/agent.toml", "[allow]\nmetrics = false\n");
    let (_agent, mut peer, _) = guest.greet();
    collect(&mut peer, Parts::NONE.with(Part::Applications));
    peer.expect_silence_until_pong();
    assert!(!guest.path(SOCKET).exists());

    let guest = Guest::new();
    guest.write(
        "etc/virt-persona/agent.toml",
        "[allow]\nmetrics = [\"root\", \"nobody-there\"]\n",
    );
    let (_agent, mut peer) = listening(&guest);
    assert!(emit(&guest, &["queue=1"]).status.success());
    assert_eq!(
        figures(&mut peer).len(),
        1,
        "root of this guest is who runs the test"
    );
}
