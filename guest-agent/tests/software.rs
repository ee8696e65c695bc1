//! The software stack by the real agent in a file tree of its own, whose package manager is a small program with apt's words.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::collections::BTreeMap;

use agent_protocol::{
    Activation, ActivationReply, Operation, Package, SettingOutcome, Settings, SettingsReply,
    VersionWish,
    message::{DeactivationReply, OpStatus, ReplyBody},
};
use harness::{
    Guest, Peer, activate, activation, code,
    debian::debian,
    fresh_id, ok,
    packages::{by_hand, packages, with_packages},
    recovered, script, settled, stride,
};

fn guest() -> Guest {
    let guest = debian();
    with_packages(&guest);
    guest
}

fn stack(wanted: &[(&str, VersionWish)]) -> Settings {
    let package = |(name, version): &(&str, VersionWish)| Package {
        name: (*name).to_owned(),
        version: version.clone(),
    };
    Settings {
        software: wanted.iter().map(package).collect(),
        ..Settings::default()
    }
}

fn any(names: &[&str]) -> Settings {
    let wanted: Vec<_> = names.iter().map(|name| (*name, VersionWish::Any)).collect();
    stack(&wanted)
}

fn with(generation: u64, settings: Settings) -> Activation {
    Activation {
        settings,
        ..activation(generation, &[])
    }
}

type Lines = BTreeMap<String, (SettingOutcome, String)>;

fn lines(reply: Option<SettingsReply>) -> Lines {
    reply
        .unwrap()
        .lines
        .into_iter()
        .map(|line| (line.setting, (line.outcome, line.reason)))
        .collect()
}

fn hold(peer: &mut Peer, generation: u64, settings: Settings) -> Lines {
    let reply: ActivationReply = ok(peer.ask(activate(with(generation, settings))));
    lines(reply.settings)
}

fn let_go(peer: &mut Peer, generation: u64) -> Lines {
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation }));
    lines(reply.settings)
}

fn sentence(body: ReplyBody) -> String {
    match body {
        ReplyBody::Ok(value) => panic!("{value}"),
        ReplyBody::Err(error) => error.message,
    }
}

const SITE: [&str; 4] = [
    "library 1.0-1 auto",
    "old 1-1",
    "server 2.4.10-1 auto",
    "site 1-1",
];

#[test]
fn packages_come_with_the_persona_and_only_those_go_with_it() {
    use SettingOutcome::{Applied, Restored, Unchanged};
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    let before = packages(&guest);
    let said = hold(&mut peer, 1, any(&["site", "old"]));
    assert_eq!(said["package site"], (Applied, "1-1".to_owned()));
    assert_eq!(said["package old"].0, Unchanged);
    assert_eq!(packages(&guest), SITE);
    let calls = guest.read("calls").unwrap();
    let place = |part: &str| {
        calls
            .find(part)
            .unwrap_or_else(|| panic!("{part}: {calls}"))
    };
    assert!(
        place(" -d ") < place("--force-confold"),
        "it is fetched before anything changes: {calls}"
    );
    let said = let_go(&mut peer, 2);
    assert_eq!(said["package site"].0, Restored);
    assert!(!said.contains_key("package old"), "{said:?}");
    assert_eq!(packages(&guest), before);
}

#[test]
fn the_same_packages_in_a_new_generation_change_nothing() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, any(&["site"]));
    let calls = guest.read("calls").unwrap();
    let said = hold(&mut peer, 2, any(&["site"]));
    assert_eq!(said["package site"].0, SettingOutcome::Unchanged);
    assert_eq!(guest.read("calls").unwrap(), calls);
    let_go(&mut peer, 3);
    assert_eq!(packages(&guest), ["old 1-1"]);
}

#[test]
fn what_another_persona_or_the_guest_needs_stays() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, any(&["site"]));
    // What came along is asked for itself now, and what needed it goes.
    hold(&mut peer, 2, any(&["server"]));
    assert_eq!(
        packages(&guest),
        ["library 1.0-1 auto", "old 1-1", "server 2.4.10-1"]
    );
    // Somebody in the guest installs what needs the library, too.
    by_hand(&guest, &["install", "tool=5-1"]);
    let said = let_go(&mut peer, 3);
    assert_eq!(said["package server"].0, SettingOutcome::Restored);
    assert_eq!(
        packages(&guest),
        ["library 1.0-1 auto", "old 1-1", "tool 5-1"]
    );
}

#[test]
fn what_the_guests_own_package_needs_is_kept_and_said() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, any(&["library"]));
    by_hand(&guest, &["install", "tool=5-1"]);
    let said = let_go(&mut peer, 2);
    let reason = "something else in the guest needs it".to_owned();
    assert_eq!(said["package library"], (SettingOutcome::Kept, reason));
    assert_eq!(
        packages(&guest),
        ["library 1.0-1 auto", "old 1-1", "tool 5-1"]
    );
    // It belongs to the guest now.
    let said = hold(&mut peer, 3, any(&["library"]));
    assert_eq!(said["package library"].0, SettingOutcome::Unchanged);
    ok::<DeactivationReply>(peer.ask(Operation::Deactivate { generation: 4 }));
    assert_eq!(
        packages(&guest),
        ["library 1.0-1 auto", "old 1-1", "tool 5-1"]
    );
}

#[test]
fn versions_are_chosen_upgraded_and_never_downgraded() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(
        &mut peer,
        1,
        stack(&[("server", VersionWish::Equal("2.2".to_owned()))]),
    );
    assert!(packages(&guest).contains(&"server 2.2-1".to_owned()));
    let wanted = [
        ("server", VersionWish::AtLeast("2.3".to_owned())),
        ("old", VersionWish::Latest),
    ];
    let said = hold(&mut peer, 2, stack(&wanted));
    assert_eq!(said["package server"].0, SettingOutcome::Applied);
    assert_eq!(
        said["package old"].1,
        "2-1 instead of 1-1, which does not come back"
    );
    assert!(packages(&guest).contains(&"server 2.4.10-1".to_owned()));
    let wanted = [("server", VersionWish::Below("2.3".to_owned()))];
    let said = hold(&mut peer, 3, stack(&wanted));
    assert_eq!(said["package server"].0, SettingOutcome::Kept);
    assert!(
        said["package server"].1.contains("nothing is downgraded"),
        "{said:?}"
    );
    let_go(&mut peer, 4);
    // What was there before any persona stays, in the newer version.
    assert_eq!(packages(&guest), ["old 2-1"]);
}

#[test]
fn what_cannot_be_installed_is_left_out_and_said() {
    let guest = guest();
    guest.write("apt/conflicts/tool", "old\n");
    let (_agent, mut peer, _) = guest.greet();
    let newer = stack(&[("server", VersionWish::Above("3".to_owned()))]);
    for (generation, settings, package, part) in [
        (
            1,
            any(&["nosuch"]),
            "package nosuch",
            "the guest's package sources do not have it",
        ),
        (
            2,
            newer,
            "package server",
            "have 2.4.10-1, 2.2-1, and it is to be >3",
        ),
        (3, any(&["tool"]), "package tool", "it would remove old"),
    ] {
        let said = hold(&mut peer, generation, settings);
        assert_eq!(said[package].0, SettingOutcome::Refused);
        assert!(said[package].1.contains(part), "{said:?}");
        assert_eq!(packages(&guest), ["old 1-1"], "{said:?}");
    }
    // The others come about, and what was left out comes once it can be had.
    hold(&mut peer, 4, any(&["nosuch", "site"]));
    assert_eq!(packages(&guest), SITE);
    guest.write("apt/archive/nosuch", "1-1\n");
    let said = hold(&mut peer, 5, any(&["nosuch", "site"]));
    assert_eq!(said["package nosuch"].0, SettingOutcome::Applied);
    let_go(&mut peer, 6);
    assert_eq!(packages(&guest), ["old 1-1"]);
}

#[test]
fn without_a_package_manager_all_packages_are_left_out() {
    let guest = guest();
    std::fs::remove_file(guest.path("usr/bin/apt-get")).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    let said = hold(&mut peer, 1, any(&["site"]));
    assert_eq!(said["package site"].0, SettingOutcome::Refused);
    assert!(
        said["package site"].1.contains("apt-get, dnf and apk"),
        "{said:?}"
    );
}

#[test]
fn what_fails_is_undone_with_all_that_came_before_it() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    let before = packages(&guest);
    guest.write("no-network", "");
    let said = sentence(peer.ask(activate(with(1, any(&["site"])))));
    assert!(said.contains("Unable to fetch some archives"), "{said}");
    assert_eq!(packages(&guest), before);
    std::fs::remove_file(guest.path("no-network")).unwrap();
    guest.write("broken.server", "");
    let said = sentence(peer.ask(activate(with(2, any(&["site"])))));
    assert!(said.contains("dpkg returned an error code"), "{said}");
    assert_eq!(packages(&guest), before);
    std::fs::remove_file(guest.path("broken.server")).unwrap();
    let mut wish = with(3, any(&["site"]));
    wish.post = script("exit 1");
    assert_eq!(code(peer.ask(activate(wish))), "post_failed");
    assert_eq!(packages(&guest), before);
    hold(&mut peer, 4, any(&["site"]));
    assert_eq!(packages(&guest), SITE);
}

#[test]
fn a_lock_that_nobody_gives_back_fails_it_in_its_words_and_leaves_what_was() {
    const LOCK: &str = "Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?";
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, any(&["site"]));
    guest.write("locked", "");
    let body = peer.ask(activate(with(2, any(&["tool"]))));
    assert_eq!(code(body.clone()), "setting_refused");
    let said = sentence(body);
    assert!(
        said.contains(LOCK) && !said.contains("not undone"),
        "{said}"
    );
    assert_eq!(packages(&guest), SITE);
    assert!(!guest.path("usr/bin/tool").exists());
    assert!(!guest.path("state/journal.json").exists());
    // It waits ten minutes for it, wherever it needs it.
    let calls = guest.read("calls").unwrap();
    let needs = |call: &&str| {
        let simulated = call.starts_with("apt-get -s ");
        call.starts_with("apt-get ") && !simulated && !call.starts_with("apt-get install old")
    };
    let without: Vec<&str> = calls
        .lines()
        .filter(needs)
        .filter(|call| !call.contains("-oDPkg::Lock::Timeout=600"))
        .collect();
    assert!(without.is_empty(), "{without:?}");
    // Where it is only about removing, the persona goes all the same.
    let said = let_go(&mut peer, 3);
    assert_eq!(said["package site"].0, SettingOutcome::Kept);
    assert!(said["package site"].1.contains(LOCK), "{said:?}");
    assert_eq!(packages(&guest), SITE);
    std::fs::remove_file(guest.path("locked")).unwrap();
    hold(&mut peer, 4, any(&["tool"]));
    assert_eq!(
        packages(&guest),
        ["library 1.0-1 auto", "old 1-1", "tool 5-1"]
    );
}

#[test]
fn what_cannot_be_undone_for_a_lock_is_said() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    guest.write("broken.server", "");
    guest.write("locks.server", "");
    let said = sentence(peer.ask(activate(with(1, any(&["site"])))));
    assert!(
        said.contains("dpkg returned an error code")
            && said.contains("and not undone")
            && said.contains("Unable to acquire the dpkg frontend lock"),
        "{said}"
    );
}

#[test]
fn settings_find_what_the_software_stack_has_installed() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    let settings = Settings {
        editor: Some("tool".to_owned()),
        ..any(&["tool"])
    };
    hold(&mut peer, 1, settings);
    let profile = guest.read("etc/profile.d/50-virt-persona.sh").unwrap();
    assert!(
        profile.contains("export EDITOR='/usr/bin/tool'\n"),
        "{profile}"
    );
}

#[test]
fn what_somebody_in_the_guest_has_removed_stays_so() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, any(&["site"]));
    by_hand(&guest, &["remove", "site"]);
    let there = packages(&guest);
    let said = hold(&mut peer, 2, any(&["site"]));
    assert_eq!(said["package site"].0, SettingOutcome::Kept);
    assert_eq!(packages(&guest), there);
    let_go(&mut peer, 3);
    assert!(!packages(&guest).iter().any(|line| line.starts_with("site")));
}

#[test]
fn a_package_that_cannot_be_removed_is_tried_again() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, any(&["site"]));
    let mark = guest.read("usr/bin/apt-mark").unwrap();
    guest.write(
        "usr/bin/apt-mark",
        "#!/bin/sh\necho 'E: it is locked'\nexit 100\n",
    );
    let said = let_go(&mut peer, 2);
    assert_eq!(said["package site"].0, SettingOutcome::Kept);
    assert!(said["package site"].1.contains("it is locked"), "{said:?}");
    assert_eq!(packages(&guest), SITE);
    guest.write("usr/bin/apt-mark", &mark);
    hold(&mut peer, 3, any(&["old"]));
    assert_eq!(packages(&guest), ["old 1-1"]);
}

/// Kills the agent at every third point between two file operations and programs of an activation that installs and removes packages.
/// A file takes four points and a program two, so that every kind of point has its turn.
#[test]
fn a_kill_at_any_point_leaves_the_old_or_the_new_packages() {
    let ready = guest();
    let (agent, mut peer, _) = ready.greet();
    hold(&mut peer, 1, any(&["site"]));
    agent.kill();
    let expected = [&SITE[..], &["library 1.0-1 auto", "old 1-1", "tool 5-1"]];
    let mut fates = [0, 0];
    for point in (1..).step_by(stride(3)) {
        let guest = ready.copy();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let request = fresh_id();
        let survived = guest.ask_doomed(&mut agent, &request, activate(with(2, any(&["tool"]))));
        agent.kill();
        let (_agent, mut peer, _) = guest.greet();
        recovered(&mut peer);
        let status = settled(&mut peer, &request);
        let has_new = matches!(
            &status,
            OpStatus::Done {
                result: ReplyBody::Ok(_)
            }
        );
        assert!(
            has_new || status == OpStatus::Unknown,
            "point {point}: {status:?}"
        );
        assert_eq!(
            packages(&guest),
            expected[usize::from(has_new)],
            "point {point}"
        );
        fates[usize::from(has_new)] += 1;
        let_go(&mut peer, 3);
        assert_eq!(packages(&guest), ["old 1-1"], "point {point}");
        assert!(!guest.path("state/journal.json").exists(), "point {point}");
        if survived {
            break;
        }
    }
    assert!(
        fates[0] > 0 && fates[1] > 5,
        "the points did not cover the sequence (release builds have none): {fates:?}"
    );
}
