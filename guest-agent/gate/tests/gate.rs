//! The real gate on a small tree of its own: what people cannot open or run while a table says so, whatever way they take,
//! who can, and how it follows tables, packages and links. Nothing here waits for a time: it waits for what is shown.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod guest;

use std::{
    fs,
    io::Read as _,
    os::unix::{
        fs::{chown, lchown, symlink},
        net::UnixDatagram,
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use guest::{Gate, Guest, HUNG, PERSON, SERVICE, is_persons, is_root, run, wait};

/// Ways to what `nc` does, each with whether it worked.
fn attacks(guest: &Guest) -> Vec<(&'static str, bool)> {
    let nc = guest.path("usr/bin/nc");
    let with = |program: &str, arguments: &[&Path]| {
        let mut command = Command::new(program);
        command.args(arguments);
        run(PERSON, command)
    };
    let copied = guest.path("home/copy");
    let _ = fs::remove_file(&copied);
    let copy = with("cp", &[&nc, &copied]);
    let loader = Command::new("sh")
        .args([
            "-c",
            "ls /lib64/ld-linux*.so.* /lib/ld-linux*.so.* 2>/dev/null",
        ])
        .output()
        .unwrap();
    let loader = String::from_utf8(loader.stdout).unwrap();
    let mut ways = vec![
        ("its path", guest.runs(PERSON, "usr/bin/nc")),
        ("a symbolic link", guest.runs(PERSON, "home/link")),
        ("a link of his own", guest.runs(PERSON, "home/own")),
        ("a hard link", guest.runs(PERSON, "opt/hard")),
        ("a copy", copy && guest.runs(PERSON, "home/copy")),
        ("reading it", with("cat", &[&nc])),
    ];
    // Without a loader in its usual place there is no such way.
    if let Some(loader) = loader.lines().next() {
        ways.push(("the loader", with(loader, &[&nc])));
    }
    ways
}

#[test]
fn a_person_reaches_a_restricted_program_by_no_path_and_everybody_else_does() {
    let guest = Guest::new();
    symlink(guest.path("usr/bin/nc"), guest.path("home/link")).unwrap();
    symlink(guest.path("usr/bin/nc"), guest.path("home/own")).unwrap();
    lchown(guest.path("home/own"), Some(PERSON), None).unwrap();
    fs::hard_link(guest.path("usr/bin/nc"), guest.path("opt/hard")).unwrap();
    let _gate = guest.gate();
    let all = |expected: bool| {
        for (way, worked) in attacks(&guest) {
            assert_eq!(worked, expected, "{way}");
        }
    };
    guest.held(None, 0);
    all(true);

    guest.restrict(1, &["nc"]);
    guest.held(Some(1), 1);
    all(false);
    assert!(guest.runs(PERSON, "usr/bin/other"));
    let person = is_persons();
    for user in [0, SERVICE] {
        assert_eq!(guest.runs(user, "usr/bin/nc"), !person, "{user}");
    }

    guest.restrict(2, &["other"]);
    guest.held(Some(2), 1);
    all(true);
    assert!(!guest.runs(PERSON, "usr/bin/other"));

    guest.free();
    guest.held(None, 0);
    all(true);
    assert!(guest.runs(PERSON, "usr/bin/other"));
}

#[test]
fn a_program_that_is_replaced_comes_or_is_linked_anew_is_marked_again() {
    let guest = Guest::new();
    fs::create_dir(guest.path("etc")).unwrap();
    guest.program("opt/one");
    guest.program("opt/two");
    symlink("../opt/one", guest.path("etc/alternative")).unwrap();
    symlink("../../etc/alternative", guest.path("usr/bin/tool")).unwrap();
    let _gate = guest.gate();
    guest.restrict(1, &["nc", "tool", "later"]);
    guest.held(Some(1), 2);
    assert_eq!(guest.standing().unwrap().absent, ["later"]);
    let refused = |path: &str| {
        wait(path, || !guest.runs(PERSON, path));
    };
    refused("usr/bin/nc");
    refused("opt/one");
    assert!(guest.runs(PERSON, "opt/two"));

    // As a package manager does it.
    guest.program("usr/bin/.new");
    fs::rename(guest.path("usr/bin/.new"), guest.path("usr/bin/nc")).unwrap();
    refused("usr/bin/nc");
    // As an administrator chooses between alternatives.
    symlink("../opt/two", guest.path("etc/.new")).unwrap();
    fs::rename(guest.path("etc/.new"), guest.path("etc/alternative")).unwrap();
    refused("opt/two");
    wait("the other alternative is free", || {
        guest.runs(PERSON, "opt/one")
    });
    guest.program("usr/local/bin/later");
    refused("usr/local/bin/later");
    guest.held(Some(1), 3);
}

#[test]
fn a_gate_that_is_killed_lets_all_through_and_the_next_one_holds_the_table_again() {
    let guest = Guest::new();
    guest.restrict(1, &["nc"]);
    let mut gate = guest.gate();
    guest.held(Some(1), 1);
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
    let second = guest.command().stderr(Stdio::piped()).spawn().unwrap();
    let second = second.wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        String::from_utf8(second.stderr)
            .unwrap()
            .contains("another gate runs")
    );

    gate.kill();
    assert!(guest.runs(PERSON, "usr/bin/nc"));
    let _gate = guest.gate();
    guest.held(Some(1), 1);
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
}

#[test]
fn a_damaged_table_is_told_and_what_held_before_still_does() {
    let guest = Guest::new();
    guest.restrict(1, &["nc"]);
    let _gate = guest.gate();
    guest.held(Some(1), 1);
    fs::write(guest.path("state/gate/new"), "{").unwrap();
    fs::rename(
        guest.path("state/gate/new"),
        guest.path("state/gate/table.json"),
    )
    .unwrap();
    wait("the damage is told", || {
        guest.standing().is_some_and(|now| {
            now.problems
                .iter()
                .any(|problem| problem.contains("cannot be understood"))
        })
    });
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
    guest.restrict(2, &["nc"]);
    guest.held(Some(2), 1);
    assert_eq!(guest.standing().unwrap().problems, [""; 0]);
}

#[test]
fn who_was_refused_what_is_in_the_journal_and_the_service_manager_hears_that_the_judge_lives() {
    let guest = Guest::new();
    guest.restrict(1, &["nc"]);
    // It says here why there can be none; what the next one says goes elsewhere.
    guest.gate().kill();
    let manager = UnixDatagram::bind(guest.path("notify")).unwrap();
    manager.set_read_timeout(Some(HUNG)).unwrap();
    let child = guest
        .command()
        .env("NOTIFY_SOCKET", guest.path("notify"))
        .env("WATCHDOG_USEC", "30000")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut gate = Gate(child);
    let mut heard = [false; 2];
    while heard != [true; 2] {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        match &buffer[..length] {
            b"READY=1" => heard[0] = true,
            b"WATCHDOG=1" => heard[1] = true,
            other => panic!("{other:?}"),
        }
    }
    // Ready means that the table is held.
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
    let mut stderr = gate.0.stderr.take().unwrap();
    let mut text = String::new();
    while !text.contains("was refused to") {
        let mut buffer = [0; 512];
        let length = stderr.read(&mut buffer).unwrap();
        assert!(length > 0, "the gate ended: {text}");
        text.push_str(str::from_utf8(&buffer[..length]).unwrap());
    }
    gate.kill();
    stderr.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.contains("was refused"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines, ["virt-persona-gate: `nc` was refused to user 1000"]);
}

#[test]
fn without_privilege_it_says_what_it_needs_and_is_not_tried_again() {
    let guest = Guest::new();
    let mut command = guest.command();
    if is_root() {
        chown(guest.path("run"), Some(PERSON), None).unwrap();
        chown(guest.path("state"), Some(PERSON), None).unwrap();
        command.uid(PERSON).gid(PERSON);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("CAP_SYS_ADMIN"), "{said}");
    let standing = guest.standing().unwrap();
    assert!(standing.problems[0].contains("CAP_SYS_ADMIN"));
}
