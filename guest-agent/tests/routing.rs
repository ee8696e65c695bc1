//! What the real agent leaves for people who log in: the table for the gate, links of overridden commands and the way to them,
//! and what `status` says of the gate.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use agent_protocol::{
    ActivationReply, CommandTable, GateStanding, GateTable, Operation, SettingOutcome,
    message::{OpStatus, ReplyBody},
};
use harness::{Guest, Peer, activate, activation, code, fresh_id, ok, script};
use nix::fcntl::{Flock, FlockArg};

const PROFILE: &str = "etc/profile.d/51-virt-persona-commands.sh";
const ENVIRONMENT: &str = "etc/environment.d/51-virt-persona-commands.conf";
const SUDOERS_D: &str = "etc/sudoers.d/51-virt-persona-commands";
const SHIM: &str = "run/virt-persona-agent/shims/deploy";

fn wish(generation: u64, overrides: &[(&str, &str)], restricted: &[&str]) -> Operation {
    let mut wish = activation(generation, &[]);
    wish.commands = table(overrides, restricted);
    activate(wish)
}

fn table(overrides: &[(&str, &str)], restricted: &[&str]) -> CommandTable {
    let overrides = overrides.iter();
    CommandTable {
        overrides: overrides
            .map(|(name, path)| ((*name).to_owned(), (*path).to_owned()))
            .collect(),
        restricted: restricted.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn restricted(guest: &Guest) -> Option<(u64, Vec<String>)> {
    let table: GateTable = serde_json::from_str(&guest.read("state/gate/table.json")?).unwrap();
    assert_eq!(table.persona, "web");
    assert!(
        table
            .path
            .split(':')
            .any(|directory| directory == "/usr/bin")
    );
    Some((table.generation, table.restricted))
}

fn shim(guest: &Guest) -> Option<String> {
    let target = fs::read_link(guest.path(SHIM)).ok()?;
    Some(target.to_str().unwrap().to_owned())
}

/// The answer comes from the thread that puts things right at its start, after it has.
fn settle(peer: &mut Peer) {
    ok::<OpStatus>(peer.ask(Operation::OpStatus { id: fresh_id() }));
}

fn status(guest: &Guest) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg("status")
        .arg("--state")
        .arg(guest.path("state"))
        .arg("--root")
        .arg(guest.path(""))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_persona_s_commands_hold_for_people_until_it_goes_and_over_a_restart_of_the_guest() {
    let guest = Guest::new();
    guest.write(
        "etc/sudoers",
        "Defaults secure_path=\"/usr/sbin:/usr/bin\"\n@includedir /etc/sudoers.d\n",
    );
    let (agent, mut peer, _) = guest.greet();
    let overrides = [("deploy", "/opt/safe-deploy"), ("nc", "/opt/safe-nc")];
    ok::<serde_json::Value>(peer.ask(wish(1, &overrides, &["nc", "tcpdump"])));
    let expected = Some((1, vec!["nc".to_owned(), "tcpdump".to_owned()]));
    assert_eq!(restricted(&guest), expected);
    assert_eq!(shim(&guest).as_deref(), Some("/opt/safe-deploy"));
    // It is restricted as well, and that goes first.
    assert!(fs::symlink_metadata(guest.path("run/virt-persona-agent/shims/nc")).is_err());
    let program = format!(
        "PATH=/usr/bin; . {0}; . {0}; echo $PATH",
        guest.path(PROFILE).display()
    );
    let shell = Command::new("/bin/sh").args(["-euc", &program]).output();
    assert_eq!(
        String::from_utf8(shell.unwrap().stdout).unwrap(),
        "/run/virt-persona-agent/shims:/usr/bin\n"
    );
    assert!(guest.read(ENVIRONMENT).unwrap().contains("shims:${PATH:-"));
    let sudoers = guest.read(SUDOERS_D).unwrap();
    let path = "Defaults secure_path=\"/run/virt-persona-agent/shims:/usr/sbin:/usr/bin\"\n";
    assert!(sudoers.ends_with(path), "{sudoers}");
    let mode = fs::metadata(guest.path(SUDOERS_D)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o440);

    // What is under /run is gone after a restart of the guest, and somebody touched the rest.
    agent.kill();
    fs::remove_dir_all(guest.path("run/virt-persona-agent")).unwrap();
    guest.write("state/gate/table.json", "tampered");
    let (agent, mut peer, _) = guest.greet();
    settle(&mut peer);
    assert_eq!(restricted(&guest), expected);
    assert_eq!(shim(&guest).as_deref(), Some("/opt/safe-deploy"));

    ok::<serde_json::Value>(peer.ask(wish(2, &[], &["nc"])));
    assert_eq!(restricted(&guest), Some((2, vec!["nc".to_owned()])));
    assert_eq!(shim(&guest), None);
    assert_eq!(guest.read(PROFILE), None);
    assert_eq!(guest.read(ENVIRONMENT), None);
    assert_eq!(guest.read(SUDOERS_D), None);
    ok::<serde_json::Value>(peer.ask(Operation::Deactivate { generation: 3 }));
    assert_eq!(restricted(&guest), None);
    drop(agent);
}

#[test]
fn a_persona_that_fails_leaves_the_commands_of_the_one_before() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    ok::<serde_json::Value>(peer.ask(wish(1, &[("deploy", "/opt/one")], &["nc"])));
    let mut broken = activation(2, &[]);
    broken.commands = table(&[("deploy", "/opt/two")], &["ss"]);
    broken.post = script("exit 1");
    assert_eq!(code(peer.ask(activate(broken))), "post_failed");
    assert_eq!(restricted(&guest), Some((1, vec!["nc".to_owned()])));
    assert_eq!(shim(&guest).as_deref(), Some("/opt/one"));

    // A file of somebody else is not written over, and then nothing of the persona holds.
    ok::<serde_json::Value>(peer.ask(wish(3, &[], &["nc"])));
    guest.write(PROFILE, "export MINE=1\n");
    let refused = peer.ask(wish(4, &[("deploy", "/opt/two")], &["ss"]));
    assert_eq!(code(refused), "storage");
    assert_eq!(restricted(&guest), Some((3, vec!["nc".to_owned()])));
    assert_eq!(shim(&guest), None);
    ok::<serde_json::Value>(peer.ask(Operation::Deactivate { generation: 5 }));
    assert_eq!(guest.read(PROFILE).as_deref(), Some("export MINE=1\n"));
}

#[test]
fn the_guest_s_owner_can_leave_people_free_and_commands_of_the_host_are_refused_still() {
    let guest = Guest::new();
    guest.write(
        "etc/virt-persona/agent.toml",
        "[allow]\ngate = false\ncommands = true\n",
    );
    let (agent, mut peer, _) = guest.greet();
    ok::<serde_json::Value>(peer.ask(wish(1, &[("deploy", "/opt/one")], &["nc"])));
    assert_eq!(restricted(&guest), None);
    assert_eq!(shim(&guest), None);
    assert!(status(&guest).contains("the guest's owner does not allow more"));
    let command = agent_protocol::Command {
        argv: vec!["nc".to_owned()],
        user: "root".to_owned(),
        cwd: "/".to_owned(),
        timeout_ms: 600_000,
        env: [].into(),
    };
    let command = Box::new(command);
    match peer.ask(Operation::Exec { command }) {
        ReplyBody::Err(error) => assert_eq!(error.code.as_str(), "restricted"),
        ReplyBody::Ok(value) => panic!("{value}"),
    }

    // He changes his mind.
    agent.kill();
    guest.write("etc/virt-persona/agent.toml", "[allow]\n");
    let (agent, mut peer, _) = guest.greet();
    settle(&mut peer);
    assert!(restricted(&guest).is_some() && shim(&guest).is_some());
    agent.kill();
    guest.write("etc/virt-persona/agent.toml", "[allow]\ngate = false\n");
    let (_agent, mut peer, _) = guest.greet();
    settle(&mut peer);
    assert!(restricted(&guest).is_none() && shim(&guest).is_none());
}

#[test]
fn status_says_whether_people_are_held_to_the_table_and_why_not() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    ok::<serde_json::Value>(peer.ask(wish(1, &[], &[])));
    assert!(!status(&guest).contains("gate:"));
    let told = |peer: &mut Peer| {
        let reply = ok::<ActivationReply>(peer.ask(wish(2, &[], &["nc", "frob"])));
        let lines = reply.settings.unwrap().lines;
        assert_eq!(
            (lines.len(), lines[0].setting.as_str()),
            (1, "restricted_commands")
        );
        (lines[0].outcome, lines[0].reason.clone())
    };
    let (outcome, reason) = told(&mut peer);
    assert_eq!(outcome, SettingOutcome::Refused);
    assert!(
        reason.ends_with("virt-persona-gate does not run in the guest"),
        "{reason}"
    );
    let shown = status(&guest);
    assert!(shown.contains("restricted: nc, frob\n"), "{shown}");
    assert!(
        shown.contains("to commands from the host only, because virt-persona-gate does not run\n"),
        "{shown}"
    );

    // As the gate writes it.
    let say = |standing: &GateStanding| {
        guest.write(
            "run/virt-persona-gate/standing.json",
            &serde_json::to_string(standing).unwrap(),
        );
    };
    let mut standing = GateStanding {
        problems: vec!["the kernel does not".to_owned()],
        ..GateStanding::default()
    };
    say(&standing);
    assert!(status(&guest).contains("does not run: the kernel does not\n"));
    guest.write("run/virt-persona-gate/lock", "");
    let lock = File::open(guest.path("run/virt-persona-gate/lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    standing.problems.clear();
    say(&standing);
    assert!(status(&guest).contains("only until the gate has read the table\n"));
    standing = GateStanding {
        generation: Some(2),
        files: 1,
        directories: 0,
        absent: vec!["frob".to_owned()],
        problems: vec!["cannot watch /x".to_owned()],
    };
    say(&standing);
    let shown = status(&guest);
    assert_eq!(told(&mut peer), (SettingOutcome::Unchanged, String::new()));
    for part in [
        "gate: they are refused to people who log in, too; files marked: 1\n",
        "gate: no program has these names now: frob\n",
        "gate: cannot watch /x\n",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!status(&guest).contains("gate: strict"));

    // The owner wants more, which the gate has still to do.
    drop(agent);
    guest.write("etc/virt-persona/agent.toml", "[gate]\nstrict = true\n");
    let (_agent, mut peer, _) = guest.greet();
    settle(&mut peer);
    let table: GateTable =
        serde_json::from_str(&guest.read("state/gate/table.json").unwrap()).unwrap();
    assert!(table.strict);
    assert!(status(&guest).contains("gate: strict does not hold"));
    standing.directories = 4;
    say(&standing);
    let shown = status(&guest);
    assert!(
        shown.contains("by its name, too; directories marked: 4\n"),
        "{shown}"
    );
    drop(lock);
    assert!(status(&guest).contains("does not run"));
}
