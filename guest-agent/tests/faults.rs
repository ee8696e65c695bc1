//! Faults of the disk and files of somebody's in the way, in mid-sequence: whatever fails, also the way back, the guest is one
//! whole generation once the fault is gone, and what has nothing to do with the fault goes on.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{collections::BTreeMap, fs};

use agent_protocol::{
    Activation, ActivationReply, CommandTable, Operation, Package, SettingOutcome, Settings,
    VersionWish,
    message::{DeactivationReply, OpStatus, ReplyBody},
    settings::LoggingLevel,
};
use harness::{
    Guest, Peer, activate, activation, code,
    debian::{debian, tree},
    fresh_id, ok,
    packages::{packages, with_packages},
    recovered, script, settled, wait_for,
};

const JOURNALD: &str = "etc/systemd/journald.conf.d/50-virt-persona.conf";
const PROFILE: &str = "etc/profile.d/50-virt-persona.sh";
const COMMANDS: &str = "etc/profile.d/51-virt-persona-commands.sh";
/// A directory where the agent writes a file before it takes the place of another: the file cannot be written, by root neither.
const IN_THE_WAY: &str = "etc/profile.d/.50-virt-persona.sh.tmp";

fn old() -> Activation {
    Activation {
        settings: level(LoggingLevel::Warning),
        ..activation(1, &[("COLOUR", "green")])
    }
}

fn new() -> Activation {
    Activation {
        settings: level(LoggingLevel::Debug),
        ..activation(2, &[("COLOUR", "red")])
    }
}

fn level(level: LoggingLevel) -> Settings {
    Settings {
        logging_level: Some(level),
        ..Settings::default()
    }
}

fn hold(peer: &mut Peer, wanted: Activation) {
    let ActivationReply { .. } = ok(peer.ask(activate(wanted)));
}

fn with_override(wanted: Activation) -> Activation {
    let commands = CommandTable {
        overrides: [("nc".to_owned(), "/usr/bin/true".to_owned())].into(),
        ..CommandTable::default()
    };
    Activation { commands, ..wanted }
}

/// Whether the new generation is there; that it is neither is a failure.
fn has_new(guest: &Guest, trees: &[BTreeMap<String, (Vec<u8>, u32)>; 2], point: u32) -> bool {
    let found = tree(guest);
    let which = trees.iter().position(|tree| *tree == found);
    let which = which.unwrap_or_else(|| panic!("point {point}: a mixture: {found:?}"));
    assert!(!guest.path("state/journal.json").exists(), "point {point}");
    let current = guest.read("state/current").unwrap();
    let current: serde_json::Value = serde_json::from_str(&current).unwrap();
    assert_eq!(current["generation"], 1 + which as u64, "point {point}");
    which == 1
}

/// What the guest is like in each of the two generations.
fn trees() -> [BTreeMap<String, (Vec<u8>, u32)>; 2] {
    [&[old()][..], &[old(), new()]].map(|wanted| {
        let guest = debian();
        let (_agent, mut peer, _) = guest.greet();
        for wanted in wanted {
            hold(&mut peer, wanted.clone());
        }
        tree(&guest)
    })
}

#[test]
fn a_fault_that_strikes_the_way_back_as_well_leaves_one_generation() {
    let trees = trees();
    let guest = debian();
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, old());
    fs::create_dir(guest.path(IN_THE_WAY)).unwrap();
    let request = fresh_id();
    peer.post(&request, activate(new()));
    assert_eq!(code(peer.answer(&request)), "storage");
    // Another start, with the fault still there, gets no further.
    agent.kill();
    let (agent, mut peer, _) = guest.greet();
    peer.expect_silence_until_pong();
    agent.kill();
    fs::remove_dir(guest.path(IN_THE_WAY)).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    recovered(&mut peer);
    assert!(!has_new(&guest, &trees, 0));
    let status = settled(&mut peer, &request);
    let OpStatus::Done {
        result: ReplyBody::Err(error),
    } = status
    else {
        panic!("{status:?}");
    };
    assert_eq!(error.code.as_str(), "storage");
    hold(
        &mut peer,
        Activation {
            generation: 3,
            ..new()
        },
    );
    assert!(guest.read(JOURNALD).unwrap().contains("debug"));
}

/// Kills the agent at each point between two operations of an activation that runs into a fault, with its way back.
#[test]
fn a_kill_at_any_point_of_an_activation_that_fails_leaves_one_generation() {
    let trees = trees();
    let ready = debian();
    let (agent, mut peer, _) = ready.greet();
    hold(&mut peer, old());
    agent.kill();
    for point in 1.. {
        let guest = ready.copy();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let request = fresh_id();
        fs::create_dir(guest.path(IN_THE_WAY)).unwrap();
        let survived = guest.ask_doomed(&mut agent, &request, activate(new()));
        agent.kill();
        fs::remove_dir(guest.path(IN_THE_WAY)).unwrap();
        let (_agent, mut peer, _) = guest.greet();
        recovered(&mut peer);
        has_new(&guest, &trees, point);
        if survived {
            assert!(point > 20, "there are more points than {point}");
            return;
        }
    }
}

#[test]
fn packages_that_a_failed_activation_does_without_are_still_there() {
    let guest = debian();
    with_packages(&guest);
    let site = Settings {
        software: vec![Package {
            name: "site".to_owned(),
            version: VersionWish::Any,
        }],
        ..Settings::default()
    };
    let (_agent, mut peer, _) = guest.greet();
    let with_site = Activation {
        settings: site.clone(),
        ..activation(1, &[])
    };
    hold(&mut peer, with_site);
    let there = packages(&guest);
    assert!(
        there.iter().any(|name| name.starts_with("site")),
        "{there:?}"
    );
    // Somebody's file comes after it was looked for, and is found when all else is done.
    let path = guest.path(COMMANDS);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = format!("echo mine >{}", path.display());
    let without = Activation {
        pre: script(&text),
        ..with_override(activation(2, &[]))
    };
    assert_eq!(code(peer.ask(activate(without))), "storage");
    assert_eq!(packages(&guest), there);
    // Where it is there from the beginning, nothing is begun.
    let without = Activation {
        pre: script("exit 1"),
        ..with_override(activation(3, &[]))
    };
    assert_eq!(code(peer.ask(activate(without))), "storage");
    assert_eq!(guest.read(COMMANDS).unwrap(), "mine\n");
    assert_eq!(packages(&guest), there);
    fs::remove_file(path).unwrap();
    hold(&mut peer, with_override(activation(4, &[])));
    assert!(
        packages(&guest)
            .iter()
            .all(|name| !name.starts_with("site"))
    );
}

#[test]
fn a_file_with_bytes_that_are_no_text_is_kept_as_any_change() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, old());
    let mut bytes = fs::read(guest.path(JOURNALD)).unwrap();
    bytes.extend(b"# f\xfcr\n");
    fs::write(guest.path(JOURNALD), &bytes).unwrap();
    hold(&mut peer, new());
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation: 3 }));
    let lines = reply.settings.unwrap().lines;
    let line = lines.iter().find(|line| line.setting == "logging_level");
    assert_eq!(line.unwrap().outcome, SettingOutcome::Kept);
    assert_eq!(fs::read(guest.path(JOURNALD)).unwrap(), bytes);
}

#[test]
fn somebodys_environment_file_does_not_keep_commands_from_being_replaced() {
    let guest = debian();
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, with_override(old()));
    let shim = guest.path("run/virt-persona-agent/shims/nc");
    assert!(shim.is_symlink());
    agent.kill();
    guest.write(PROFILE, "export MINE=1\n");
    // As after a start of the guest.
    fs::remove_dir_all(guest.path("run/virt-persona-agent")).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    recovered(&mut peer);
    wait_for(&shim);
    assert_eq!(guest.read(PROFILE).unwrap(), "export MINE=1\n");
}
