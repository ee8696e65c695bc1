//! The channel of the real agent against a peer that truncates, duplicates, floods, splits and lies.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{fs, io::Read as _, os::unix::net::UnixStream, thread};

use agent_protocol::{
    GuestMessage, HostMessage, Operation, Report, Stamp, VersionRange,
    limits::{ACTIVATIONS_WAITING_MAX, MAX_FRAME, MAX_FRAME_BEFORE_HELLO},
    message::{Credit, HelloReason, JournalState, OnlineCpusReply, OpStatus, Ping},
};
use harness::{
    Agent, Guest, Peer, activate, activation, code, fresh_id, fresh_session, greeting, ok, script,
    wait,
};

#[test]
fn nothing_is_done_before_a_hello() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    let early = fresh_id();
    peer.post(&early, activate(activation(1, &[("A", "1")])));
    peer.send(&HostMessage::Ping(Ping { n: 1 }));
    peer.hello();
    assert_eq!(
        ok::<OpStatus>(peer.ask(Operation::OpStatus { id: early })),
        OpStatus::Unknown
    );
    assert_eq!(guest.read("etc/profile.d/50-virt-persona.sh"), None);
}

#[test]
fn the_agent_announces_itself_outside_any_session() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let (stamp, message) = guest.connect(&mut agent).try_receive().unwrap().unwrap();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(stamp, Stamp::outside());
    assert!(
        matches!(message, GuestMessage::Announce(announce) if announce.boot_id == boot_id.trim())
    );
}

#[test]
fn broken_frames_are_dropped_and_the_next_one_counts() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let long = format!(
        "\u{1e}{{\"msg\":\"ping\",\"x\":\"{}\"}}\n",
        "x".repeat(MAX_FRAME)
    );
    for broken in [
        &b"\x1e{\"msg\":\"ping\",\"n\":"[..],
        b"\x1e{\"msg\":\0\"ping\"}\n",
        b"\x1e\xff\xfe\n",
        b"\x1e[[[[\n",
        b"ping\n\n",
        long.as_bytes(),
    ] {
        peer.raw(broken);
        peer.expect_silence_until_pong();
    }
    let nested = format!("\u{1e}{}\n", "[".repeat(20_000));
    peer.raw(nested.as_bytes());
    peer.expect_silence_until_pong();
}

#[test]
fn before_a_hello_only_short_frames_are_taken() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    let mut hello = greeting();
    hello.host_id = "x".repeat(MAX_FRAME_BEFORE_HELLO);
    peer.send(&HostMessage::Hello(hello));
    let ack = peer.hello();
    assert_eq!(ack.max_frame, MAX_FRAME);
    peer.expect_silence_until_pong();
}

#[test]
fn frames_of_another_session_and_repeated_frames_are_dropped() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let mut foreign = fresh_session();
    let ping = HostMessage::Ping(Ping { n: 99 });
    let frame = agent_protocol::encode_host(&foreign.stamp(), &ping, MAX_FRAME).unwrap();
    peer.raw(&frame);
    peer.expect_silence_until_pong();
    let frame = peer.frame(&ping);
    peer.raw(&frame);
    peer.raw(&frame);
    assert_eq!(peer.receive(), GuestMessage::Pong(Ping { n: 99 }));
    peer.raw(&frame);
    peer.expect_silence_until_pong();
}

#[test]
fn a_second_hello_begins_a_session_and_ends_the_one_before() {
    let guest = Guest::new();
    let (_agent, mut peer, first) = guest.greet();
    let mut old = std::mem::replace(&mut peer.session, fresh_session());
    let second = peer.hello();
    assert_eq!(first.inst, second.inst);
    let frame =
        agent_protocol::encode_host(&old.stamp(), &HostMessage::Ping(Ping { n: 5 }), MAX_FRAME)
            .unwrap();
    peer.raw(&frame);
    peer.expect_silence_until_pong();
}

#[test]
fn a_repeated_hello_of_the_same_session_is_dropped_and_a_newer_one_answered() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    let frame = peer.frame(&HostMessage::Hello(greeting()));
    peer.raw(&frame);
    assert!(matches!(peer.receive(), GuestMessage::HelloAck(_)));
    peer.raw(&frame);
    peer.expect_silence_until_pong();
    peer.hello();
    peer.expect_silence_until_pong();
}

#[test]
fn a_host_of_another_protocol_is_told_what_the_agent_speaks() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    let mut hello = greeting();
    hello.v = VersionRange { min: 7, max: 9 };
    peer.send(&HostMessage::Hello(hello));
    let GuestMessage::HelloRefused(refused) = peer.receive() else {
        panic!("not refused")
    };
    assert_eq!(
        (refused.error.as_str(), refused.have),
        ("version", agent_protocol::SUPPORTED)
    );
    peer.session = fresh_session();
    peer.hello();
}

#[test]
fn bytes_that_come_one_by_one_are_the_same_frames() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    for message in [
        HostMessage::Hello(greeting()),
        HostMessage::Ping(Ping { n: 7 }),
    ] {
        for byte in peer.frame(&message) {
            peer.raw(&[byte]);
        }
    }
    assert!(matches!(peer.receive(), GuestMessage::HelloAck(_)));
    assert_eq!(peer.receive(), GuestMessage::Pong(Ping { n: 7 }));
}

#[test]
fn a_flood_that_is_not_read_is_held_back_and_then_answered_in_order() {
    const PINGS: u64 = 20_000;
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    let frames: Vec<Vec<u8>> = (0..PINGS)
        .map(|n| peer.frame(&HostMessage::Ping(Ping { n })))
        .collect();
    let mut writer = Peer::new(peer.stream.try_clone().unwrap());
    let flood = thread::spawn(move || frames.iter().for_each(|frame| writer.raw(frame)));
    for n in 0..PINGS {
        assert_eq!(peer.receive(), GuestMessage::Pong(Ping { n }));
    }
    flood.join().unwrap();
    let peak = agent.status_field("VmHWM")[0];
    assert!(peak < 32 * 1024, "a flood made the agent use {peak} KiB");
}

#[test]
fn a_request_that_cannot_be_served_is_answered_with_its_reason() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    assert_eq!(
        code(peer.ask(Operation::Unknown("dance".to_owned()))),
        "unsupported"
    );
    let mut bad = activation(1, &[("A", "1")]);
    bad.persona.clear();
    assert_eq!(code(peer.ask(activate(bad))), "malformed");
    let late = fresh_id();
    peer.post_within(&late, activate(activation(1, &[("A", "1")])), 0);
    assert_eq!(code(peer.answer(&late)), "expired");
    let stamp = serde_json::to_string(&peer.session.stamp()).unwrap();
    let fields = stamp.trim_matches(['{', '}']);
    peer.raw(format!("\u{1e}{{\"msg\":\"request\",{fields},\"id\":\"odd\",\"ttl_ms\":1,\"op\":\"online_cpus\"}}\n").as_bytes());
    assert_eq!(code(peer.answer(&harness::id("odd"))), "malformed");
}

#[test]
fn a_request_that_waited_longer_than_its_time_is_not_done() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let (first, second) = (fresh_id(), fresh_id());
    let release = guest.path("release");
    let mut slow = activation(1, &[]);
    slow.pre = script(&format!(
        "while ! test -e {}; do sleep 0.01; done",
        release.display()
    ));
    peer.post(&first, activate(slow));
    peer.post_within(&second, activate(activation(2, &[("A", "1")])), 1);
    peer.expect_silence_until_pong();
    thread::sleep(std::time::Duration::from_millis(5));
    fs::write(release, "").unwrap();
    ok::<serde_json::Value>(peer.answer(&first));
    assert_eq!(code(peer.answer(&second)), "expired");
    assert_eq!(guest.read("etc/profile.d/50-virt-persona.sh"), None);
}

#[test]
fn only_a_few_activations_wait_and_the_next_is_refused() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let mut slow = activation(1, &[]);
    slow.pre = script("sleep 1000");
    for _ in 0..ACTIVATIONS_WAITING_MAX {
        peer.post(&fresh_id(), activate(slow.clone()));
    }
    assert_eq!(code(peer.ask(activate(slow))), "busy");
}

#[test]
fn after_a_revert_the_disk_counts_and_not_what_is_remembered() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    ok::<serde_json::Value>(peer.ask(activate(activation(1, &[("A", "one")]))));
    let copied = |from: &str, to: &str| {
        let copy = std::process::Command::new("cp")
            .arg("-a")
            .args([guest.path(from), guest.path(to)])
            .status();
        assert!(copy.unwrap().success());
    };
    copied("state", "snapshot");
    copied("etc", "snapshot-etc");
    ok::<serde_json::Value>(peer.ask(activate(activation(2, &[("A", "two")]))));
    fs::remove_dir_all(guest.path("state")).unwrap();
    copied("snapshot", "state");
    fs::remove_dir_all(guest.path("etc")).unwrap();
    copied("snapshot-etc", "etc");
    peer.session = fresh_session();
    let mut hello = greeting();
    hello.reason = HelloReason::Revert;
    assert_eq!(peer.hello_with(hello).journal, JournalState::Recovering);
    ok::<OpStatus>(peer.ask(Operation::OpStatus { id: fresh_id() }));
    assert!(
        guest
            .read("etc/profile.d/50-virt-persona.sh")
            .unwrap()
            .contains("A='one'")
    );
    assert_eq!(peer.hello().active.unwrap().generation, 1);
}

#[test]
fn the_guests_owner_decides_what_the_host_may_ask() {
    let guest = Guest::new();
    guest.write(
        "etc/virt-persona/agent.toml",
        "[allow]\nscripts = false\ntelemetry = false\ncpus = false\n",
    );
    let (_agent, mut peer, _) = guest.greet();
    let mut scripted = activation(1, &[]);
    scripted.pre = script("true");
    assert_eq!(code(peer.ask(activate(scripted))), "forbidden");
    assert_eq!(code(peer.ask(Operation::Report)), "forbidden");
    assert_eq!(
        code(peer.ask(Operation::OnlineCpus { target: 1 })),
        "forbidden"
    );
    ok::<serde_json::Value>(peer.ask(activate(activation(1, &[]))));
}

#[test]
fn a_policy_that_cannot_be_understood_stops_the_agent() {
    let guest = Guest::new();
    guest.write("etc/virt-persona/agent.toml", "[allow]\nscript = false\n");
    let output = guest.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("agent.toml") && text.contains("script"),
        "{text}"
    );
}

#[test]
fn telemetry_comes_against_credit_only() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    let mut hello = greeting();
    hello.telemetry_ms = Some(100);
    peer.hello_with(hello);
    peer.send(&HostMessage::Credit(Credit { frames: 3 }));
    for _ in 0..3 {
        let GuestMessage::Telemetry(telemetry) = peer.receive() else {
            panic!("no telemetry")
        };
        let report = telemetry.report.check().unwrap();
        assert_eq!(
            (
                report.online.to_string().as_str(),
                report.memory_available_kib,
                report.processes
            ),
            ("0-1", 400, Some(77))
        );
    }
    // As long as three reports would take; that none comes is seen in no other way.
    thread::sleep(std::time::Duration::from_millis(300));
    peer.expect_silence_until_pong();
    peer.send(&HostMessage::Credit(Credit { frames: 1 }));
    assert!(matches!(peer.receive(), GuestMessage::Telemetry(_)));
    let report: Report = ok(peer.ask(Operation::Report));
    assert_eq!((report.present_count, report.load1), (3, Some(0.5)));
}

/// Waits until the thread of the channel has gone to sleep so many times, as it does between two reports.
fn awake(agent: &Agent, times: u64) {
    let slept = || agent.status_field("voluntary_ctxt_switches")[0];
    let before = slept();
    wait("the agent goes on", || slept() >= before + times);
}

#[test]
fn a_host_that_does_not_read_loses_old_reports_and_no_answers() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    let mut hello = greeting();
    hello.telemetry_ms = Some(100);
    peer.hello_with(hello);
    peer.send(&HostMessage::Credit(Credit { frames: 64 }));
    // Fills the socket both ways: the agent can write nothing until this end reads.
    let mut frames = Vec::new();
    let mut whole = 0;
    peer.stream.set_nonblocking(true).unwrap();
    let rest = loop {
        let frame = peer.frame(&HostMessage::Ping(Ping { n: whole }));
        match std::io::Write::write(&mut &peer.stream, &frame) {
            Ok(length) if length == frame.len() => whole += 1,
            Ok(length) => break frame[length..].to_vec(),
            Err(_) => {
                // The agent may still have been reading. Where it is not, it wakes for its next reports and leaves this as it is.
                awake(&agent, 3);
                match std::io::Write::write(&mut &peer.stream, &frame) {
                    Ok(length) if length == frame.len() => whole += 1,
                    Ok(length) => break frame[length..].to_vec(),
                    Err(_) => break frame,
                }
            }
        }
    };
    frames.push(rest);
    // So many reports do not wait.
    awake(&agent, 15);
    peer.stream.set_nonblocking(false).unwrap();
    let mut writer = Peer::new(peer.stream.try_clone().unwrap());
    let last = thread::spawn(move || frames.iter().for_each(|frame| writer.raw(frame)));
    let (mut pongs, mut dropped) = (0, 0);
    while pongs <= whole || dropped == 0 {
        match peer.receive() {
            GuestMessage::Pong(pong) => {
                assert_eq!(pong.n, pongs);
                pongs += 1;
            }
            GuestMessage::Telemetry(telemetry) => dropped = telemetry.report.dropped,
            other => panic!("{other:?}"),
        }
    }
    last.join().unwrap();
}

#[test]
fn the_next_client_is_served_when_the_one_before_has_gone() {
    let guest = Guest::new();
    let (_agent, peer, first) = guest.greet();
    let mut waiting = Peer::new(UnixStream::connect(guest.path("socket")).unwrap());
    waiting.send(&HostMessage::Hello(greeting()));
    waiting.stream.set_nonblocking(true).unwrap();
    assert!(
        waiting.stream.read(&mut [0]).is_err(),
        "nothing is said to a client that waits"
    );
    waiting.stream.set_nonblocking(false).unwrap();
    drop(peer);
    let GuestMessage::HelloAck(second) = waiting.receive() else {
        panic!("not greeted")
    };
    assert_eq!(
        (second.inst, second.journal),
        (first.inst, JournalState::Clean)
    );
}

#[test]
fn cpus_are_switched_and_an_order_is_obeyed_once() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let order = fresh_id();
    peer.post(&order, Operation::OnlineCpus { target: 3 });
    let first = peer.answer(&order);
    assert_eq!(
        ok::<OnlineCpusReply>(first.clone()).online.to_string(),
        "0-2"
    );
    assert_eq!(
        guest.read("sys/devices/system/cpu/cpu2/online").as_deref(),
        Some("1")
    );
    let reply: OnlineCpusReply = ok(peer.ask(Operation::OnlineCpus { target: 1 }));
    assert_eq!(reply.online.to_string(), "0");
    peer.post(&order, Operation::OnlineCpus { target: 3 });
    assert_eq!(peer.answer(&order), first);
    assert_eq!(
        guest.read("sys/devices/system/cpu/cpu2/online").as_deref(),
        Some("0"),
        "it was not obeyed again"
    );
    assert_eq!(code(peer.ask(Operation::OnlineCpus { target: 9 })), "cpu");
}

#[test]
fn an_order_is_remembered_across_a_restart_and_so_are_held_cpus() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    let order = fresh_id();
    peer.post(&order, Operation::OnlineCpus { target: 1 });
    let answer = peer.answer(&order);
    harness::wait_for(&guest.path("state/held-cpus.json"));
    harness::wait_for(&guest.path(&format!("state/results/{order}")));
    agent.kill();
    guest.write("sys/devices/system/cpu/cpu1/online", "1");
    let (_agent, mut peer, _) = guest.greet();
    peer.post(&order, Operation::OnlineCpus { target: 1 });
    assert_eq!(peer.answer(&order), answer);
    assert_eq!(
        guest.read("sys/devices/system/cpu/cpu1/online").as_deref(),
        Some("1"),
        "it was not obeyed again"
    );
}

#[test]
fn an_agent_without_a_host_does_not_wake() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    ok::<serde_json::Value>(peer.ask(activate(activation(1, &[("A", "1")]))));
    drop(peer);
    // The agent is quiet again once it has taken note of the end.
    let mut before = agent.status_field("voluntary_ctxt_switches");
    wait("the agent is quiet", || {
        thread::sleep(std::time::Duration::from_millis(200));
        let now = agent.status_field("voluntary_ctxt_switches");
        std::mem::replace(&mut before, now.clone()) == now
    });
    // That nothing happens is seen in no other way than by waiting.
    thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(agent.status_field("voluntary_ctxt_switches"), before);
    assert!(before.len() <= 3, "{} threads", before.len());
}

#[test]
fn an_inherited_connection_is_served_to_its_end() {
    use std::os::{fd::AsRawFd as _, unix::process::CommandExt as _};
    let guest = Guest::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"));
    command
        .args(["--transport", "fd:3", "--state"])
        .arg(guest.path("state"))
        .arg("--root")
        .arg(guest.path(""));
    let fd = theirs.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe, and the descriptor stays open until after the fork.
    unsafe {
        command.pre_exec(move || {
            if nix::libc::dup2(fd, 3) < 0 || nix::libc::fcntl(3, nix::libc::F_SETFD, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        })
    };
    let mut child = command.spawn().unwrap();
    drop(theirs);
    let mut peer = Peer::new(ours);
    peer.hello();
    drop(peer);
    assert!(child.wait().unwrap().success());
}
