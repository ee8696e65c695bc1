//! Going back to an earlier generation by hand, by the real agent in a file tree of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{fs, process::Command};

use agent_protocol::{
    Activation, ActivationReply, Operation, Package, Settings, VersionWish,
    activation::{Adjusted, Change, ScriptsRun},
    message::DeactivationReply,
    settings::LoggingLevel,
};
use harness::{
    Guest, Peer, activate, activation,
    debian::{debian, tree},
    ok,
    packages::{packages, with_packages},
    plugin::{by_key, plugin},
    recovered, script, stride,
};

const PROFILE: &str = "etc/profile.d/50-virt-persona.sh";

/// A guest with a plugin.
fn guest() -> Guest {
    let guest = debian();
    plugin(&guest, "app.size", "");
    guest
}

/// A persona with a variable, a kernel parameter, a level of logging, a service and a setting by a plugin.
fn persona(generation: u64, value: &str) -> Activation {
    let settings = Settings {
        sysctl: [("vm.swappiness".to_owned(), value.to_owned())].into(),
        services: [("cron".to_owned(), value == "1")].into(),
        logging_level: (value == "1").then_some(LoggingLevel::Warning),
        editor: Some("nano".to_owned()),
        other: by_key(&[("app.size", if value == "1" { "small" } else { "large" })]),
        ..Settings::default()
    };
    Activation {
        settings,
        ..activation(generation, &[("A", value)])
    }
}

/// What root in the guest is told: standard output, or standard error of a refusal.
fn by_hand(guest: &Guest, words: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .args(words)
        .arg("--root")
        .arg(guest.path(""))
        .arg("--state")
        .arg(guest.path("state"))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

fn hold(peer: &mut Peer, wish: Activation) -> ActivationReply {
    ok(peer.ask(activate(wish)))
}

#[test]
fn a_rollback_leaves_every_byte_as_it_was_in_that_generation_and_back_again() {
    let guest = guest();
    let before = tree(&guest);
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "1"));
    let first = tree(&guest);
    hold(&mut peer, persona(2, "7"));
    let second = tree(&guest);
    assert_ne!(first, second);
    let said = by_hand(&guest, &["rollback"]).unwrap();
    assert_eq!(said, "generation 1 (web version 1) holds again\n");
    assert_eq!(tree(&guest), first);
    // Once more changes nothing, and says so.
    let said = by_hand(&guest, &["rollback", "1"]).unwrap();
    assert_eq!(said, "generation 1 (web version 1) holds already\n");
    assert_eq!(tree(&guest), first);
    let said = by_hand(&guest, &["rollback", "2"]).unwrap();
    assert_eq!(said, "generation 2 (web version 2) holds again\n");
    assert_eq!(tree(&guest), second);
    assert!(!guest.path("state/rolled-back.json").exists());
    // What was before any persona is known all along.
    by_hand(&guest, &["rollback"]).unwrap();
    ok::<DeactivationReply>(peer.ask(Operation::Deactivate { generation: 3 }));
    assert_eq!(tree(&guest), before);
    assert!(!guest.path("state/rolled-back.json").exists());
}

#[test]
fn packages_come_and_go_with_a_rollback_and_so_does_what_plugins_do() {
    let guest = guest();
    with_packages(&guest);
    let (_agent, mut peer, _) = guest.greet();
    let with = |generation, value, package: &str| {
        let mut wish = persona(generation, value);
        wish.settings.software = vec![Package {
            name: package.to_owned(),
            version: VersionWish::Any,
        }];
        wish
    };
    hold(&mut peer, with(1, "1", "site"));
    let first = (packages(&guest), tree(&guest));
    assert_eq!(guest.read("etc/of.app.size").unwrap(), "small");
    hold(&mut peer, with(2, "7", "tool"));
    let second = (packages(&guest), tree(&guest));
    assert_eq!(guest.read("etc/of.app.size").unwrap(), "large");
    let (one, other) = (&first.0, &second.0);
    assert!(one.contains(&"site 1-1".to_owned()) && other.contains(&"tool 5-1".to_owned()));
    assert!(!other.contains(&"site 1-1".to_owned()));
    by_hand(&guest, &["rollback"]).unwrap();
    assert_eq!((packages(&guest), tree(&guest)), first);
    by_hand(&guest, &["rollback", "2"]).unwrap();
    assert_eq!((packages(&guest), tree(&guest)), second);
    // One that fails leaves all as it was.
    guest.write("broken.server", "");
    let said = by_hand(&guest, &["rollback", "1"]).unwrap_err();
    assert!(said.contains("dpkg returned an error code"), "{said}");
    assert_eq!((packages(&guest), tree(&guest)), second);
}

#[test]
fn the_host_is_told_keeps_its_generation_and_ends_it_by_the_next_activation() {
    let guest = guest();
    let (agent, mut peer, ack) = guest.greet();
    assert_eq!(ack.rolled_back, None);
    hold(&mut peer, persona(1, "1"));
    hold(&mut peer, persona(2, "7"));
    by_hand(&guest, &["rollback"]).unwrap();
    let told = |ack: agent_protocol::message::HelloAck| {
        let active = ack.active.unwrap();
        let back = ack.rolled_back.unwrap();
        assert_eq!((active.generation, active.digest.as_str()), (2, "digest-2"));
        assert_eq!(
            (back.generation, back.persona.as_deref(), back.version),
            (1, Some("web"), Some(1))
        );
    };
    told(peer.hello_with(harness::greeting()));
    // It outlives the agent.
    agent.kill();
    let (_agent, mut peer, ack) = guest.greet();
    told(ack);
    assert_eq!(guest.read("proc/sys/vm/swappiness").unwrap(), "1\n");
    let status = by_hand(&guest, &["status"]).unwrap();
    assert!(
        status.starts_with(
            "active: web version 1 (generation 1, gone back to by hand instead of 2)\n"
        ),
        "{status}"
    );
    // A second delivery of what the host has done already does not end it; a new activation does.
    let same = hold(&mut peer, persona(2, "7"));
    assert_eq!(same.outcome, Change::Unchanged);
    assert_eq!(guest.read("proc/sys/vm/swappiness").unwrap(), "1\n");
    hold(&mut peer, persona(3, "7"));
    assert_eq!(guest.read("proc/sys/vm/swappiness").unwrap(), "7\n");
    let ack = peer.hello_with(harness::greeting());
    assert_eq!(ack.rolled_back, None);
    assert_eq!(ack.active.unwrap().generation, 3);
}

#[test]
fn a_rollback_runs_no_scripts_and_can_lead_to_no_persona() {
    let guest = guest();
    let before = tree(&guest);
    let (_agent, mut peer, _) = guest.greet();
    ok::<DeactivationReply>(peer.ask(Operation::Deactivate { generation: 1 }));
    let mut wish = persona(2, "1");
    let runs = guest.path("runs");
    wish.pre = script(&format!("echo pre >>{}", runs.display()));
    wish.post = script(&format!("echo post >>{}", runs.display()));
    hold(&mut peer, wish);
    let held = tree(&guest);
    by_hand(&guest, &["rollback"]).unwrap();
    assert_eq!(tree(&guest), before);
    by_hand(&guest, &["rollback", "2"]).unwrap();
    assert_eq!(tree(&guest), held);
    assert_eq!(guest.read("runs").unwrap(), "pre\npost\n");
    let status = by_hand(&guest, &["status"]).unwrap();
    assert!(
        status.starts_with("active: web version 2 (generation 2)\n"),
        "{status}"
    );
}

#[test]
fn nobody_goes_back_to_what_never_held_or_is_not_kept() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    let refused = |words: &[&str], part: &str| {
        let said = by_hand(&guest, words).unwrap_err();
        assert!(said.contains(part), "{said}");
    };
    refused(&["rollback"], "nothing to go back to");
    hold(&mut peer, persona(1, "1"));
    refused(&["rollback"], "no generation before 1 is kept");
    let mut fails = persona(2, "7");
    fails.pre = script("exit 1");
    assert_eq!(harness::code(peer.ask(activate(fails))), "pre_failed");
    for generation in ["2", "77"] {
        refused(&["rollback", generation], "is not kept, or never held");
    }
    // What is kept is bounded, and what holds by hand does not go with its generation.
    for generation in 3..=20 {
        hold(&mut peer, persona(generation, "7"));
    }
    refused(&["rollback", "1"], "is not kept");
    by_hand(&guest, &["rollback", "10"]).unwrap();
    fs::remove_file(guest.path("state/gen/10.json")).unwrap();
    let status = by_hand(&guest, &["status"]).unwrap();
    assert!(status.contains("generation 10, gone back to"), "{status}");
}

#[test]
fn what_people_in_the_guest_changed_is_kept_by_a_rollback_too() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "1"));
    hold(&mut peer, persona(2, "7"));
    guest.write("proc/sys/vm/swappiness", "33\n");
    by_hand(&guest, &["rollback"]).unwrap();
    assert_eq!(guest.read("proc/sys/vm/swappiness").unwrap(), "33\n");
    assert!(guest.read(PROFILE).unwrap().contains("export A='1'\n"));
    let status = by_hand(&guest, &["status"]).unwrap();
    assert!(
        status.contains("kept as it is: sysctl vm.swappiness"),
        "{status}"
    );
}

/// Kills the agent at every third point of a return by hand, until one passes all of them. A file takes four points and a program
/// two, so that every kind of point has its turn.
#[test]
fn a_kill_at_any_point_of_a_rollback_leaves_the_one_or_the_other_generation() {
    let ready = guest();
    let (agent, mut peer, _) = ready.greet();
    hold(&mut peer, persona(1, "1"));
    let old = tree(&ready);
    hold(&mut peer, persona(2, "7"));
    let new = tree(&ready);
    agent.kill();
    let (mut stayed, mut went) = (0, 0);
    for point in (1..).step_by(stride(3)) {
        let guest = ready.copy();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let mut peer = guest.connect(&mut agent);
        peer.hello();
        let survived = by_hand(&guest, &["rollback"]).is_ok();
        agent.kill();
        let (_agent, mut peer, _) = guest.greet();
        let ack = recovered(&mut peer);
        assert!(!guest.path("state/journal.json").exists(), "point {point}");
        match ack.rolled_back {
            Some(back) => {
                assert_eq!(back.generation, 1, "point {point}");
                assert_eq!(tree(&guest), old, "point {point}");
                went += 1;
            }
            None => {
                assert_eq!(tree(&guest), new, "point {point}");
                stayed += 1;
            }
        }
        // From either the host goes on.
        let reply = hold(&mut peer, persona(3, "7"));
        assert_eq!(reply.generation, 3);
        assert_eq!(tree(&guest), new, "point {point}");
        if survived {
            break;
        }
    }
    assert!(
        stayed > 0 && went > 10,
        "the points did not cover the sequence (release builds have none): {stayed}, {went}"
    );
}

#[test]
fn however_often_rules_adjust_a_persona_there_is_a_way_back_to_the_one_before_it() {
    let guest = Guest::new();
    let (_agent, mut peer, _ack) = guest.greet();
    hold(&mut peer, activation(1, &[("A", "before")]));
    hold(&mut peer, activation(2, &[("A", "plain")]));
    for generation in 3..30 {
        let adjusted = Some(Adjusted {
            of: "digest-2".to_owned(),
            scripts: ScriptsRun::UnlessActive,
        });
        let value = generation.to_string();
        hold(
            &mut peer,
            Activation {
                adjusted,
                ..activation(generation, &[("A", &value)])
            },
        );
    }
    let kept = fs::read_dir(guest.path("state/gen")).unwrap().count();
    assert_eq!(kept, 11);
    by_hand(&guest, &["rollback"]).unwrap();
    assert!(guest.read(PROFILE).unwrap().contains("28"));
    by_hand(&guest, &["rollback", "1"]).unwrap();
    assert!(guest.read(PROFILE).unwrap().contains("before"));
}
