//! Settings by plugins, with the real agent in a file tree of its own: the one of the examples, and some that do what they should not.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use agent_protocol::{
    Activation, ActivationReply, Operation, SettingLine, SettingOutcome, Settings,
    message::{DeactivationReply, OpStatus, ReplyBody},
};
use harness::{
    Guest, Peer, activate, activation,
    debian::{debian, program, tree},
    fresh_id, ok,
    plugin::{by_key, plugin},
    recovered, settled, stride, wait_for,
};

const ZONE: &str = "os_settings.time_zone";
const EXAMPLE: &str = include_str!("../../examples/plugins/os_settings.time_zone");

fn settings(values: &[(&str, &str)]) -> Settings {
    Settings {
        other: by_key(values),
        ..Settings::default()
    }
}

fn wanted(generation: u64, values: &[(&str, &str)]) -> Operation {
    activate(Activation {
        settings: settings(values),
        ..activation(generation, &[])
    })
}

fn by_name(lines: Vec<SettingLine>) -> BTreeMap<String, (SettingOutcome, String)> {
    lines
        .into_iter()
        .map(|line| (line.setting, (line.outcome, line.reason)))
        .collect()
}

fn hold(
    peer: &mut Peer,
    generation: u64,
    values: &[(&str, &str)],
) -> BTreeMap<String, (SettingOutcome, String)> {
    let reply: ActivationReply = ok(peer.ask(wanted(generation, values)));
    by_name(reply.settings.unwrap().lines)
}

fn let_go(peer: &mut Peer, generation: u64) -> BTreeMap<String, (SettingOutcome, String)> {
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation }));
    by_name(reply.settings.unwrap().lines)
}

fn verbs(guest: &Guest, key: &str) -> Vec<String> {
    let text = guest.read(&format!("verbs.{key}")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn failure(body: ReplyBody) -> String {
    match body {
        ReplyBody::Ok(value) => panic!("{value}"),
        ReplyBody::Err(error) => {
            assert_eq!(error.code.as_str(), "setting_refused", "{error}");
            error.message
        }
    }
}

#[test]
fn the_plugin_of_the_examples_brings_its_setting_about_and_back() {
    let guest = debian();
    program(
        &guest,
        &format!("etc/virt-persona/plugins.d/{ZONE}"),
        EXAMPLE,
    );
    for zone in ["Europe/Vienna", "Etc/UTC"] {
        guest.write(&format!("usr/share/zoneinfo/{zone}"), "");
    }
    let link = guest.path("etc/localtime");
    let leads_to = || fs::read_link(&link).unwrap().display().to_string();
    symlink("../usr/share/zoneinfo/Etc/UTC", &link).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    let vienna = [(ZONE, "Europe/Vienna")];
    assert_eq!(hold(&mut peer, 1, &vienna)[ZONE].0, SettingOutcome::Applied);
    assert_eq!(leads_to(), "/usr/share/zoneinfo/Europe/Vienna");
    // Nothing is left to do the second time.
    let written = fs::symlink_metadata(&link).unwrap();
    assert_eq!(
        hold(&mut peer, 2, &vienna)[ZONE].0,
        SettingOutcome::Unchanged
    );
    let now = fs::symlink_metadata(&link).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&written),
        std::os::unix::fs::MetadataExt::ino(&now)
    );
    let (outcome, reason) = &hold(&mut peer, 3, &[(ZONE, "Nowhere/Atall")])[ZONE];
    assert_eq!(*outcome, SettingOutcome::Refused);
    assert!(
        reason.contains("there is no time zone Nowhere/Atall"),
        "{reason}"
    );
    assert_eq!(leads_to(), "../usr/share/zoneinfo/Etc/UTC");
    // What leads there already is left as it is.
    let lines = hold(&mut peer, 4, &[(ZONE, "Etc/UTC")]);
    assert_eq!(lines[ZONE].0, SettingOutcome::Unchanged);
    hold(&mut peer, 5, &vienna);
    assert_eq!(let_go(&mut peer, 6)[ZONE].0, SettingOutcome::Restored);
    assert_eq!(leads_to(), "../usr/share/zoneinfo/Etc/UTC");
}

#[test]
fn what_people_in_the_guest_have_changed_is_kept() {
    let guest = debian();
    plugin(&guest, "a.x", "");
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &[("a.x", "one")]);
    guest.write("etc/of.a.x", "mine");
    assert_eq!(
        hold(&mut peer, 2, &[("a.x", "two")])["a.x"].0,
        SettingOutcome::Kept
    );
    assert_eq!(let_go(&mut peer, 3)["a.x"].0, SettingOutcome::Kept);
    assert_eq!(guest.read("etc/of.a.x").unwrap(), "mine");
    let applied = |verb: &&String| *verb == "apply" || *verb == "undo";
    assert_eq!(verbs(&guest, "a.x").iter().filter(applied).count(), 1);
}

#[test]
fn a_setting_without_a_plugin_or_with_one_of_anybodys_is_left_out_and_told() {
    let guest = debian();
    for key in ["a.open", "a.link", "a.plain", "a.good"] {
        plugin(&guest, key, "");
    }
    let path = |key: &str| guest.path(&format!("etc/virt-persona/plugins.d/{key}"));
    let mode = |key: &str, mode: u32| {
        fs::set_permissions(path(key), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("a.open", 0o777);
    mode("a.plain", 0o644);
    fs::rename(path("a.link"), guest.path("elsewhere")).unwrap();
    symlink(guest.path("elsewhere"), path("a.link")).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    let keys = ["a.none", "a.open", "a.link", "a.plain", "a.good", "a/../b"];
    // A key that leads elsewhere does not even leave the host.
    let body = peer.ask(wanted(1, &keys.map(|key| (key, "one"))));
    assert!(matches!(body, ReplyBody::Err(_)), "{body:?}");
    let lines = hold(
        &mut peer,
        2,
        &[&keys[..5], &["a/b"]]
            .concat()
            .iter()
            .map(|key| (*key, "one"))
            .collect::<Vec<_>>(),
    );
    for (key, why) in [
        (
            "a.none",
            "the guest has no plugin /etc/virt-persona/plugins.d/a.none",
        ),
        ("a/b", "the guest has no plugin"),
        ("a.open", "may be written by others than root"),
        ("a.link", "is no file"),
        ("a.plain", "is not executable"),
    ] {
        let (outcome, reason) = &lines[key];
        assert_eq!(*outcome, SettingOutcome::Refused, "{key}");
        assert!(reason.contains(why), "{key}: {reason}");
        assert_eq!(verbs(&guest, key), [""; 0], "{key}");
    }
    assert_eq!(lines["a.good"].0, SettingOutcome::Applied);
    fs::set_permissions(
        guest.path("etc/virt-persona/plugins.d"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let (outcome, reason) = &hold(&mut peer, 3, &[("a.good", "two")])["a.good"];
    // It is no longer asked, so what it has set stays, and that is what is said.
    assert_eq!(*outcome, SettingOutcome::Refused, "{reason}");
    assert_eq!(guest.read("etc/of.a.good").unwrap(), "one");
}

#[test]
fn answers_that_are_none_leave_the_setting_out_with_the_reason() {
    let cases = [
        ("rubbish", "echo rubbish; exit 0", "no object of JSON"),
        ("silent", "exit 0", "no object of JSON"),
        ("list", "echo '[1]'; exit 0", "no object of JSON"),
        ("stateless", "echo '{}'; exit 0", "has no `state`"),
        ("null", "echo '{\"state\":null}'; exit 0", "has no `state`"),
        (
            "large",
            "head -c 5000 /dev/zero | tr '\\0' x | sed 's/^/{\"state\":\"/; s/$/\"}/'; exit 0",
            "larger than 4096 bytes",
        ),
        (
            "flood",
            "head -c 1000000 /dev/zero | tr '\\0' x; exit 0",
            "more than 16384 bytes",
        ),
        (
            "broken",
            "echo 'why it is broken' >&2; exit 7",
            "ended with exit status: 7",
        ),
        (
            "sorry",
            "echo '{\"error\":\"no such thing\"}'; exit 1",
            "it says: no such thing",
        ),
        ("killed", "kill -9 $$", "signal: 9"),
        ("hanging", "sleep 1000", "did not end within 10 s"),
        // Its own child holds the output open.
        (
            "forking",
            "sleep 1000 & trap '' TERM; wait",
            "did not end within 10 s",
        ),
    ];
    let guest = &debian();
    for (key, when, _) in cases {
        plugin(guest, &format!("a.{key}"), when);
    }
    plugin(guest, "a.good", "");
    let (_agent, mut peer, _) = guest.greet();
    let keys: Vec<String> = cases.iter().map(|(key, ..)| format!("a.{key}")).collect();
    let mut values: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "one")).collect();
    values.push(("a.good", "one"));
    let lines = hold(&mut peer, 1, &values);
    for (key, _, why) in cases {
        let (outcome, reason) = &lines[&format!("a.{key}")];
        assert_eq!(*outcome, SettingOutcome::Refused, "{key}");
        assert!(reason.contains(why), "{key}: {reason}");
    }
    assert_eq!(lines["a.good"].0, SettingOutcome::Applied);
    assert_eq!(guest.read("etc/of.a.good").unwrap(), "one");
}

#[test]
fn a_plugin_that_fails_or_lies_while_it_does_undoes_everything() {
    for (key, when, why) in [
        (
            "liar",
            "if [ $1 = apply ]; then echo '{}'; exit 0; fi",
            r#"z.liar is "" after its plugin was told "one""#,
        ),
        (
            "failing",
            "if [ $1 = apply ]; then echo half >\"$file\"; exit 3; fi",
            "z.failing: apply by its plugin failed: it ended with exit status: 3",
        ),
        (
            "blind",
            "if [ $1 = verify ]; then echo '{\"error\":\"nobody reads it\"}'; exit 0; fi",
            "z.blind: verify by its plugin failed: it says: nobody reads it",
        ),
    ] {
        let guest = debian();
        plugin(&guest, "a.good", "");
        let bad = format!("z.{key}");
        plugin(&guest, &bad, when);
        let before = tree(&guest);
        let (_agent, mut peer, _) = guest.greet();
        let both = Settings {
            sysctl: [("vm.swappiness".to_owned(), "1".to_owned())].into(),
            ..settings(&[("a.good", "one"), (&bad, "one")])
        };
        let said = failure(peer.ask(activate(Activation {
            settings: both,
            ..activation(1, &[])
        })));
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("not undone"), "{said}");
        assert_eq!(tree(&guest), before, "{key}");
        assert!(verbs(&guest, "a.good").contains(&"undo".to_owned()));
    }
}

#[test]
fn a_plugin_that_is_gone_or_cannot_undo_does_not_hold_a_persona_fast() {
    let guest = debian();
    plugin(&guest, "a.gone", "");
    plugin(&guest, "a.oneway", "[ $1 != undo ] || exit 1");
    plugin(&guest, "a.good", "");
    let (_agent, mut peer, _) = guest.greet();
    hold(
        &mut peer,
        1,
        &[("a.gone", "one"), ("a.oneway", "one"), ("a.good", "one")],
    );
    fs::remove_file(guest.path("etc/virt-persona/plugins.d/a.gone")).unwrap();
    let lines = let_go(&mut peer, 2);
    for (key, why) in [
        ("a.gone", "does not say how it is"),
        ("a.oneway", "does not bring back"),
    ] {
        let (outcome, reason) = &lines[key];
        assert_eq!(*outcome, SettingOutcome::Kept, "{key}");
        assert!(reason.contains(why), "{key}: {reason}");
        assert!(guest.path(&format!("etc/of.{key}")).exists());
    }
    assert_eq!(lines["a.good"].0, SettingOutcome::Restored);
    assert!(!guest.path("etc/of.a.good").exists());
}

#[test]
fn an_agent_that_is_killed_while_a_plugin_works_has_it_done_again() {
    let guest = debian();
    plugin(
        &guest,
        "a.slow",
        "if [ $1 = apply ]; then : >\"$root/began\"; while [ ! -e \"$root/may\" ]; do sleep 0.05; done; fi",
    );
    let (agent, mut peer, _) = guest.greet();
    let request = fresh_id();
    peer.post(&request, wanted(1, &[("a.slow", "one")]));
    wait_for(&guest.path("began"));
    assert_eq!(guest.read("etc/of.a.slow"), None);
    agent.kill();
    guest.write("may", "");
    let (_agent, mut peer, _) = guest.greet();
    recovered(&mut peer);
    let status = settled(&mut peer, &request);
    let done = matches!(&status, OpStatus::Done { result } if matches!(result, ReplyBody::Ok(_)));
    assert!(done, "{status:?}");
    assert_eq!(guest.read("etc/of.a.slow").unwrap(), "one");
    assert_eq!(let_go(&mut peer, 2)["a.slow"].0, SettingOutcome::Restored);
    assert_eq!(guest.read("etc/of.a.slow"), None);
}

/// As in `settings.rs`: the agent is killed at every second point between two calls of plugins and file operations of an activation.
#[test]
fn a_kill_at_any_point_leaves_the_old_or_the_new_state_of_plugins() {
    let old = &[("a.one", "old"), ("a.two", "old")];
    let new = &[("a.one", "new"), ("a.three", "new")];
    let made = || {
        let guest = debian();
        for key in ["a.one", "a.two", "a.three"] {
            plugin(&guest, key, "");
        }
        guest
    };
    let expected = [&old[..], &new[..]].map(|values| {
        let guest = made();
        let (_agent, mut peer, _) = guest.greet();
        hold(&mut peer, 1, old);
        hold(&mut peer, 2, values);
        tree(&guest)
    });
    let ready = made();
    let (agent, mut peer, _) = ready.greet();
    hold(&mut peer, 1, old);
    agent.kill();
    let mut fates = [0, 0];
    for point in (1..).step_by(stride(2)) {
        let guest = ready.copy();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let request = fresh_id();
        let survived = guest.ask_doomed(&mut agent, &request, wanted(2, new));
        agent.kill();
        let (_agent, mut peer, _) = guest.greet();
        recovered(&mut peer);
        let status = settled(&mut peer, &request);
        let has_new = match &status {
            OpStatus::Done {
                result: ReplyBody::Ok(_),
            } => true,
            OpStatus::Unknown => false,
            other => panic!("point {point}: {other:?}"),
        };
        assert_eq!(
            tree(&guest),
            expected[usize::from(has_new)],
            "point {point}"
        );
        fates[usize::from(has_new)] += 1;
        if survived {
            break;
        }
    }
    assert!(
        fates[0] > 1 && fates[1] > 10,
        "the points did not cover the sequence (release builds have none): {fates:?}"
    );
}
