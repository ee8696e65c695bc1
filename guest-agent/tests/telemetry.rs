//! What the real agent says of disks, logs and round trips: where it is wanted, with its age, and without making anybody wait.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::TcpListener,
};

use agent_protocol::{
    Collect, GuestMessage, HostMessage, Operation, Part, Parts, Report,
    message::{Credit, Hello, JournalState},
};
use harness::{Agent, Guest, Peer, ok, wait};

const JOURNAL: &str = "var/log/journal/0123456789abcdef0123456789abcdef/system.journal";
const RECORD: usize = if cfg!(target_arch = "aarch64") {
    400
} else {
    384
};

fn collect(peer: &mut Peer, parts: &[Part]) {
    let parts = parts.iter().copied().collect();
    peer.send(&HostMessage::Collect(Collect { parts }));
    peer.expect_silence_until_pong();
}

fn report(peer: &mut Peer) -> Report {
    ok(peer.ask(Operation::Report))
}

/// Asks until a report is as it is waited for: a look takes its time, and the next begins some seconds after it.
fn until(peer: &mut Peer, done: impl Fn(&Report) -> bool) -> Report {
    harness::until("the report is as it is waited for", || {
        Some(report(peer)).filter(|report| done(report))
    })
}

/// A recorded file of journald in which `threes` records have priority 3, beside one of each of 0 to 2.
fn journal(guest: &Guest, path: &str, threes: u64) {
    let mut bytes = vec![0; 524_288];
    for line in include_str!("fixtures/journal/plain.txt").lines() {
        let Some((at, hex)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let at = usize::from_str_radix(at, 16).unwrap();
        for (n, byte) in bytes[at..at + 16].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
        }
    }
    let value = b"PRIORITY=3";
    let payload = bytes.windows(value.len()).position(|at| at == value);
    // The count is the last of the eight words of the object, before its value.
    let count = payload.unwrap() - 8;
    bytes[count..count + 8].copy_from_slice(&threes.to_le_bytes());
    let path = guest.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Another file in its place at once, as nobody sees half of what journald writes.
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

fn fail_logins(guest: &Guest, count: usize) {
    let path = guest.path("var/log/btmp");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(&vec![0; count * RECORD]).unwrap();
}

/// A guest with a disk, a journal, failed logins, and a machine to probe.
fn full() -> (Guest, TcpListener) {
    let guest = Guest::new();
    let near = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = near.local_addr().unwrap();
    guest.write(
        "etc/virt-persona/agent.toml",
        &format!("[probe]\ntargets = [\"{address}\"]\n"),
    );
    guest.write("proc/self/mounts", "/dev/vda1 / ext4 rw,relatime 0 0\n");
    guest.write("proc/vmstat", "pgfault 9\noom_kill 3\n");
    guest.write("proc/1/comm", "init\n");
    guest.write("proc/27/comm", "sshd\n");
    journal(&guest, JOURNAL, 3);
    fail_logins(&guest, 2);
    (guest, near)
}

fn greet(guest: &Guest) -> (Agent, Peer) {
    let (agent, peer, _) = guest.greet();
    (agent, peer)
}

#[test]
fn disks_logs_and_round_trips_come_with_their_age_once_they_were_looked_at() {
    let (guest, _near) = full();
    let (_agent, mut peer) = greet(&guest);
    collect(
        &mut peer,
        &[Part::Disk, Part::Logs, Part::Network, Part::Processes],
    );
    let first = until(&mut peer, |report| report.network.is_some());
    assert!(first.check().is_ok(), "{first:?}");
    let disk = first.disk.unwrap();
    assert!(
        disk.space_free
            .is_some_and(|free| (0.0..=100.0).contains(&free))
    );
    let logs = first.logs.unwrap();
    assert_eq!(
        (logs.errors, logs.failed_logins),
        (Some(0), Some(0)),
        "what was before"
    );
    assert!(first.network.unwrap().round_trip_us.is_some());
    assert_eq!((first.process_count, first.oom_kills), (Some(2), Some(3)));

    fail_logins(&guest, 4);
    journal(&guest, JOURNAL, 5);
    // Each is looked at in its turn, so one look may show the one and not the other.
    let later = until(&mut peer, |report| {
        let logs = report.logs.unwrap();
        (logs.errors, logs.failed_logins) == (Some(2), Some(4))
    });
    let older = until(&mut peer, |report| {
        report.logs.unwrap().age_ms > later.logs.unwrap().age_ms
    });
    assert_eq!(
        older.logs.unwrap().errors,
        Some(2),
        "it is said with its age until the next look"
    );
}

#[test]
fn what_is_not_wanted_does_not_leave_the_guest() {
    let (guest, _near) = full();
    let (_agent, mut peer) = greet(&guest);
    // Before the host has said what it wants.
    let parts = |report: &Report| {
        (
            report.disk.is_some(),
            report.logs.is_some(),
            report.network.is_some(),
        )
    };
    assert_eq!(parts(&report(&mut peer)), (false, false, false));
    for (part, expected) in [
        (Part::Disk, (true, false, false)),
        (Part::Logs, (false, true, false)),
        (Part::Network, (false, false, true)),
    ] {
        collect(&mut peer, &[part]);
        let report = until(&mut peer, |report| parts(report) == expected);
        assert_eq!((report.process_count, report.load1), (None, None));
    }
    collect(&mut peer, &[]);
    assert_eq!(parts(&report(&mut peer)), (false, false, false));
}

#[test]
fn what_the_guest_cannot_measure_is_absent_and_no_zero() {
    let guest = Guest::new();
    guest.write("etc/virt-persona/agent.toml", "[probe]\ntargets = []\n");
    guest.write(JOURNAL, "LPKSHHRH and no more");
    guest.write("proc/self/mounts", "/dev/vda1 /not-there ext4 rw 0 0\n");
    let (_agent, mut peer) = greet(&guest);
    collect(&mut peer, &[Part::Disk, Part::Logs, Part::Network]);
    let report = until(&mut peer, |report| report.logs.is_some());
    let (disk, logs) = (report.disk.unwrap(), report.logs.unwrap());
    assert_eq!((disk.space_free, disk.inodes_free), (None, None));
    assert_eq!((logs.errors, logs.failed_logins), (None, None));
    assert_eq!(report.network.unwrap().round_trip_us, None);
    assert_eq!(report.oom_kills, None);
}

#[test]
fn a_place_that_never_answers_keeps_nobody_waiting() {
    let (guest, _near) = full();
    // Nobody writes to it, so who opens it waits for ever.
    fs::remove_file(guest.path(JOURNAL)).unwrap();
    nix::unistd::mkfifo(&guest.path(JOURNAL), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (_agent, mut peer) = greet(&guest);
    collect(&mut peer, &[Part::Disk, Part::Logs]);
    for _ in 0..100 {
        let report = report(&mut peer);
        assert_eq!((report.disk, report.logs), (None, None));
    }
}

#[test]
fn a_write_that_is_stuck_is_told_as_a_frozen_file_system_until_it_comes_through() {
    let guest = Guest::new();
    // The first start of all writes before it listens.
    let (agent, _, _) = guest.greet();
    agent.kill();
    std::fs::remove_file(guest.path("socket")).unwrap();
    let mut command = guest.command();
    // It waits within its first write until it is answered.
    command.env("VIRT_PERSONA_AGENT_ASK_AT_POINTS", "yes");
    let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut agent = Agent { child };
    let mut peer = guest.connect(&mut agent);
    let greeting = || Hello {
        telemetry_ms: Some(100),
        ..harness::greeting()
    };
    peer.hello_with(greeting());
    let wish = harness::activation(1, &[("A", "1")]);
    peer.post(&harness::fresh_id(), harness::activate(wish));
    let told = |peer: &mut Peer, journal: Option<JournalState>| {
        wait(&format!("a report says {journal:?}"), || {
            peer.send(&HostMessage::Credit(Credit { frames: 1 }));
            match peer.receive() {
                GuestMessage::Telemetry(telemetry) => telemetry.journal == journal,
                GuestMessage::Reply(_) => false,
                other => panic!("{other:?}"),
            }
        });
    };
    told(&mut peer, None);
    told(&mut peer, Some(JournalState::Frozen));
    let profile = "etc/profile.d/50-virt-persona.sh";
    assert_eq!(guest.read(profile), None);
    // Every further question is answered by the end of its input.
    drop(agent.child.stdin.take());
    told(&mut peer, None);
    wait("it is made active", || guest.read(profile).is_some());
}

#[test]
fn nobody_looks_while_nobody_wants_to_know() {
    let (guest, _near) = full();
    let (agent, mut peer) = greet(&guest);
    let tasks = format!("/proc/{}/task", agent.child.id());
    let threads = || fs::read_dir(&tasks).unwrap().count();
    for _ in 0..20 {
        report(&mut peer);
        assert_eq!(threads(), 3);
    }
    collect(&mut peer, &[Part::Logs]);
    until(&mut peer, |report| report.logs.is_some());
    // The thread ends with its look.
    wait("the thread has ended", || threads() <= 3);
    let mut none: Parts = Parts::NONE;
    none = none.with(Part::Cpu);
    peer.send(&HostMessage::Collect(Collect { parts: none }));
    peer.expect_silence_until_pong();
    assert_eq!(report(&mut peer).logs, None);
}
