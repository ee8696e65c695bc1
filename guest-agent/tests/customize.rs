//! What people in the guest want otherwise than the persona says, asked for or changed by hand, by the real agent in a file
//! tree of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::process::Command;

use agent_protocol::{
    Activation, ActivationReply, Customized, Operation, SettingOutcome, Settings,
    message::DeactivationReply, settings::LoggingLevel,
};
use harness::{
    Guest, Peer, activate, activation,
    debian::{debian, program, tree},
    fresh_id, greeting, ok, recovered, script,
};

const PROFILE: &str = "etc/profile.d/50-virt-persona.sh";
const ENVIRONMENT: &str = "etc/environment.d/50-virt-persona.conf";
const SYSCTL_D: &str = "etc/sysctl.d/50-virt-persona.conf";
const SWAPPINESS: &str = "proc/sys/vm/swappiness";

/// A persona of a name, with a variable, a kernel parameter, a level of logging, an editor and a service.
fn persona(generation: u64, name: &str, value: &str) -> Activation {
    let settings = Settings {
        sysctl: [("vm.swappiness".to_owned(), value.to_owned())].into(),
        services: [("cron".to_owned(), true)].into(),
        logging_level: Some(LoggingLevel::Warning),
        editor: Some("nano".to_owned()),
        ..Settings::default()
    };
    Activation {
        settings,
        persona: name.to_owned(),
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

fn customize(guest: &Guest, words: &[&str]) -> String {
    by_hand(guest, &[&["customize"], words].concat()).unwrap()
}

fn hold(peer: &mut Peer, wish: Activation) -> ActivationReply {
    ok(peer.ask(activate(wish)))
}

fn let_go(peer: &mut Peer, generation: u64) -> DeactivationReply {
    ok(peer.ask(Operation::Deactivate { generation }))
}

fn told(peer: &mut Peer) -> Option<Customized> {
    peer.hello_with(greeting()).customized
}

/// The value of a variable in both files; they must agree.
fn variable(guest: &Guest, name: &str) -> Option<String> {
    let value = |path, begin: String, end| {
        let text = guest.read(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(&*begin));
        line.map(|line| line.strip_suffix(end).unwrap().to_owned())
    };
    let profile = value(PROFILE, format!("export {name}='"), "'");
    let other = value(ENVIRONMENT, format!("{name}=\""), "\"");
    assert_eq!(profile, other, "the files differ");
    profile
}

fn edit(guest: &Guest, path: &str, from: &str, to: &str) {
    let text = guest.read(path).unwrap();
    assert!(text.contains(from), "{text}");
    guest.write(path, &text.replace(from, to));
}

#[test]
fn a_customisation_holds_at_once_is_told_and_comes_back_with_its_persona() {
    let guest = debian();
    let before = tree(&guest);
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    let plain = tree(&guest);
    assert_eq!(told(&mut peer), None);
    assert_eq!(
        customize(&guest, &["environment.A=mine"]),
        "environment.A is customised under web\n"
    );
    customize(&guest, &["sysctl.vm.swappiness=9"]);
    customize(&guest, &["service.cron.service=disabled"]);
    customize(&guest, &["logging_level=debug"]);
    customize(&guest, &["editor=zsh"]);
    let customised = tree(&guest);
    let look = |guest: &Guest| {
        assert_eq!(variable(guest, "A").as_deref(), Some("mine"));
        assert_eq!(variable(guest, "EDITOR").as_deref(), Some("/usr/bin/zsh"));
        assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "9");
        assert!(
            guest
                .read(SYSCTL_D)
                .unwrap()
                .ends_with("\nvm.swappiness = 9\n")
        );
        assert_eq!(guest.read("units/active.cron.service"), None);
        let journald = guest
            .read("etc/systemd/journald.conf.d/50-virt-persona.conf")
            .unwrap();
        assert!(journald.contains("MaxLevelStore=debug"), "{journald}");
    };
    look(&guest);
    // The host is told how many and which, and no values; what it made active stays so.
    let ack = peer.hello_with(greeting());
    assert_eq!(ack.active.unwrap().generation, 1);
    let customized = ack.customized.unwrap();
    assert_eq!(customized.count, 5);
    assert!(customized.keys.contains(&"environment.A".to_owned()));
    let status = by_hand(&guest, &["status"]).unwrap();
    assert!(
        status.contains("customised: environment.A=mine (under web)\n"),
        "{status}"
    );

    // Another persona has none of it, and neither has none; it comes back with the first, in another version too.
    hold(&mut peer, persona(2, "db", "7"));
    assert_eq!(variable(&guest, "A").as_deref(), Some("7"));
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "7");
    assert_eq!(told(&mut peer), None);
    hold(&mut peer, persona(3, "web", "2"));
    look(&guest);
    assert_eq!(told(&mut peer).unwrap().count, 5);
    let_go(&mut peer, 4);
    assert_eq!(tree(&guest), before);
    agent.kill();
    let (_agent, mut peer, _) = guest.greet();
    let reply = hold(&mut peer, persona(5, "web", "1"));
    assert_eq!(tree(&guest), customised);
    let lines = reply.settings.unwrap().lines;
    let line = |setting: &str| lines.iter().find(|line| line.setting == setting).unwrap();
    for setting in [
        "environment_variables A",
        "sysctl vm.swappiness",
        "logging_level",
        "editor",
    ] {
        let line = line(setting);
        assert_eq!(line.outcome, SettingOutcome::Kept, "{lines:?}");
        assert!(line.reason.contains("customize"), "{lines:?}");
    }

    // Without them all is as the persona says.
    let list = customize(&guest, &[]);
    assert_eq!(list.lines().count(), 5, "{list}");
    for line in list.lines() {
        let key = line.split('=').next().unwrap();
        customize(&guest, &["--remove", key]);
    }
    assert_eq!(tree(&guest), plain);
    assert_eq!(told(&mut peer), None);
    assert_eq!(customize(&guest, &[]), "");
}

#[test]
fn a_sticky_one_holds_under_every_persona_unless_that_has_its_own() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    customize(&guest, &["environment.A=all", "--sticky"]);
    customize(&guest, &["environment.A=web"]);
    assert_eq!(variable(&guest, "A").as_deref(), Some("web"));
    hold(&mut peer, persona(2, "db", "7"));
    assert_eq!(variable(&guest, "A").as_deref(), Some("all"));
    customize(&guest, &["--remove", "environment.A"]);
    assert_eq!(variable(&guest, "A").as_deref(), Some("7"));
    hold(&mut peer, persona(3, "web", "1"));
    assert_eq!(variable(&guest, "A").as_deref(), Some("web"));
    let_go(&mut peer, 4);
    assert_eq!(variable(&guest, "A"), None);
    // Without a persona only what holds under every one can be said, and it waits for the next.
    let no = by_hand(&guest, &["customize", "environment.A=x"]).unwrap_err();
    assert!(no.contains("--sticky"), "{no}");
    customize(&guest, &["environment.B=all", "--sticky"]);
    assert_eq!(variable(&guest, "B"), None);
    hold(&mut peer, persona(5, "db", "7"));
    assert_eq!(variable(&guest, "B").as_deref(), Some("all"));
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence_and_changes_nothing() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    let refused = |words: &[&str], part: &str| {
        let said = by_hand(&guest, &[&["customize"], words].concat()).unwrap_err();
        assert!(said.contains(part), "{words:?}: {said}");
    };
    refused(&["editor=nano"], "no persona is active");
    hold(&mut peer, persona(1, "web", "1"));
    let held = tree(&guest);
    for (word, part) in [
        ("restricted_commands=nc", "cannot be customised"),
        ("lines./etc/profile=x", "written into the file itself"),
        ("environment.1A=x", "no valid name"),
        ("sysctl.vm.swappiness=", "on one line"),
        ("sysctl.no.such=1", "no such parameter"),
        (
            "service.nowhere=enabled",
            "there is no unit nowhere.service",
        ),
        ("service.cron=on", "enabled and disabled"),
        ("editor=emacs", "the guest has no program emacs"),
        ("logging_level=loud", "emergency, alert"),
        ("auto_update_frequency=often", "never, hourly"),
    ] {
        refused(&[word], part);
    }
    refused(
        &[&format!("environment.A={}", "x".repeat(2_049))],
        "2048 bytes",
    );
    refused(&["--remove", "environment.A"], "is not customised");
    assert_eq!(tree(&guest), held);
    assert_eq!(customize(&guest, &[]), "");
    for number in 0..64 {
        customize(&guest, &[&format!("environment.X{number}=1")]);
    }
    refused(&["editor=zsh"], "64 customisations are kept already");
    assert_eq!(told(&mut peer).unwrap().count, 64);
    assert_eq!(told(&mut peer).unwrap().keys.len(), 8);
}

#[test]
fn what_the_program_of_a_setting_refuses_leaves_all_as_it_was() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    let held = tree(&guest);
    guest.write("broken.ssh.service", "");
    std::fs::remove_file(guest.path("units/active.ssh.service")).unwrap();
    let said = by_hand(&guest, &["customize", "service.ssh=enabled"]).unwrap_err();
    assert!(said.contains("failed"), "{said}");
    assert_eq!(customize(&guest, &[]), "");
    let mut after = tree(&guest);
    after.insert(
        "units/active.ssh.service".to_owned(),
        held["units/active.ssh.service"].clone(),
    );
    assert_eq!(after, held);
}

#[test]
fn variables_changed_by_hand_in_either_file_are_kept_and_come_back() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    let web = |generation, value: &str| {
        let mut wish = persona(generation, "web", value);
        let more = [("B", "b"), ("C", "c")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        wish.environment.extend(more);
        wish
    };
    hold(&mut peer, web(1, "1"));
    edit(&guest, PROFILE, "export A='1'\n", "export A=mine\n");
    edit(&guest, ENVIRONMENT, "B=\"b\"\n", "");
    let text = guest.read(PROFILE).unwrap();
    guest.write(
        PROFILE,
        &format!("{text}export D=\"d d\"\n# mine\numask 27\n"),
    );
    let look = |guest: &Guest, c: &str| {
        assert_eq!(variable(guest, "A").as_deref(), Some("mine"));
        assert_eq!(variable(guest, "B"), None);
        assert_eq!(variable(guest, "C").as_deref(), Some(c));
        assert_eq!(variable(guest, "D").as_deref(), Some("d d"));
        let text = guest.read(PROFILE).unwrap();
        assert!(text.ends_with("\n# mine\numask 27\n"), "{text}");
    };
    // A new version of the persona that changes the same: the guest's stays, and that is said.
    let mut next = web(2, "2");
    next.environment.insert("C".to_owned(), "new".to_owned());
    let reply = hold(&mut peer, next);
    look(&guest, "new");
    let lines = reply.settings.unwrap().lines;
    let kept = |name: &str| {
        let setting = format!("environment_variables {name}");
        lines.iter().any(|line| {
            line.setting == setting
                && line.outcome == SettingOutcome::Kept
                && line.reason.contains("changed in the guest")
        })
    };
    assert!(
        kept("A") && kept("B") && kept("D") && !kept("C"),
        "{lines:?}"
    );
    assert_eq!(told(&mut peer).unwrap().count, 4);

    hold(&mut peer, persona(3, "db", "7"));
    assert_eq!(variable(&guest, "A").as_deref(), Some("7"));
    assert!(!guest.read(PROFILE).unwrap().contains("umask"));
    hold(&mut peer, web(4, "4"));
    look(&guest, "c");
    // Made as the persona says it is no change any more.
    edit(&guest, PROFILE, "export A='mine'", "export A='4'");
    hold(&mut peer, web(5, "5"));
    assert_eq!(variable(&guest, "A").as_deref(), Some("5"));
    let_go(&mut peer, 6);
    assert_eq!((guest.read(PROFILE), guest.read(ENVIRONMENT)), (None, None));
}

#[test]
fn a_change_is_kept_when_the_agent_starts_and_when_an_activation_fails() {
    let guest = debian();
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    agent.kill();
    edit(&guest, PROFILE, "export A='1'", "export A='mine'");
    let (_agent, mut peer, _) = guest.greet();
    let customized = harness::until("the change is told", || told(&mut peer));
    assert_eq!(customized.keys, ["environment.A"]);
    assert_eq!(variable(&guest, "A").as_deref(), Some("mine"));
    edit(&guest, ENVIRONMENT, "A=\"mine\"", "A=\"other\"");
    let mut fails = persona(2, "db", "7");
    fails.post = script("exit 1");
    assert_eq!(harness::code(peer.ask(activate(fails))), "post_failed");
    assert_eq!(variable(&guest, "A").as_deref(), Some("other"));
    assert_eq!(told(&mut peer).unwrap().count, 1);
}

#[test]
fn parameters_changed_in_their_file_are_kept_hold_and_come_back() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    edit(&guest, SYSCTL_D, "vm.swappiness = 1", "vm.swappiness=9");
    hold(&mut peer, persona(2, "web", "2"));
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "9");
    assert!(
        guest
            .read(SYSCTL_D)
            .unwrap()
            .ends_with("\nvm.swappiness = 9\n")
    );
    hold(&mut peer, persona(3, "db", "7"));
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "7");
    assert!(
        guest
            .read(SYSCTL_D)
            .unwrap()
            .ends_with("\nvm.swappiness = 7\n")
    );
    hold(&mut peer, persona(4, "web", "1"));
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "9");
    // With anything else in it the file is somebody's, and what the persona says lies beside.
    let text = guest.read(SYSCTL_D).unwrap() + "# mine\n";
    guest.write(SYSCTL_D, &text);
    hold(&mut peer, persona(5, "db", "7"));
    assert_eq!(guest.read(SYSCTL_D).unwrap(), text);
    let beside = guest.read(&format!("{SYSCTL_D}.virt-persona-new")).unwrap();
    assert!(beside.ends_with("\nvm.swappiness = 7\n"), "{beside}");
}

#[test]
fn units_and_parameters_changed_by_hand_stay_and_come_back_with_the_persona() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    for verb in ["disable", "stop"] {
        let done = Command::new(guest.path("usr/bin/systemctl"))
            .args([verb, "cron.service"])
            .status();
        assert!(done.unwrap().success());
    }
    guest.write(SWAPPINESS, "33\n");
    let_go(&mut peer, 2);
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "33");
    // Whoever is back finds it so again, though somebody else has changed it meanwhile.
    guest.write(SWAPPINESS, "60\n");
    guest.write("units/enabled.cron.service", "");
    guest.write("units/active.cron.service", "");
    hold(&mut peer, persona(3, "web", "1"));
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "33");
    assert_eq!(guest.read("units/active.cron.service"), None);
    assert_eq!(told(&mut peer).unwrap().count, 2);
    let list = customize(&guest, &[]);
    assert!(
        list.contains("service.cron=disabled (under web, found changed)"),
        "{list}"
    );
    // It can be given up, too.
    customize(&guest, &["--remove", "service.cron"]);
    assert!(guest.read("units/active.cron.service").is_some());
    customize(&guest, &["--remove", "sysctl.vm.swappiness"]);
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "1");
}

#[test]
fn what_root_asks_for_goes_before_what_is_there() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    guest.write(SWAPPINESS, "33\n");
    customize(&guest, &["sysctl.vm.swappiness=9"]);
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "9");
    // What was before any persona is known all along.
    let_go(&mut peer, 2);
    assert_eq!(guest.read(SWAPPINESS).unwrap().trim(), "60");
}

#[test]
fn a_rollback_has_the_customisations_of_its_generation_and_loses_none() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, persona(1, "web", "1"));
    customize(&guest, &["environment.A=mine"]);
    let first = tree(&guest);
    hold(&mut peer, persona(2, "db", "7"));
    customize(&guest, &["editor=zsh"]);
    let second = tree(&guest);
    by_hand(&guest, &["rollback"]).unwrap();
    assert_eq!(tree(&guest), first);
    customize(&guest, &["environment.B=more"]);
    assert_eq!(variable(&guest, "B").as_deref(), Some("more"));
    by_hand(&guest, &["rollback", "2"]).unwrap();
    assert_eq!(tree(&guest), second);
    hold(&mut peer, persona(3, "web", "1"));
    assert_eq!(variable(&guest, "A").as_deref(), Some("mine"));
    assert_eq!(variable(&guest, "B").as_deref(), Some("more"));
}

#[test]
fn the_answer_of_before_is_given_again_after_a_customisation() {
    let guest = debian();
    let (_agent, mut peer, _) = guest.greet();
    let (request, wish) = (fresh_id(), persona(1, "web", "1"));
    peer.post(&request, activate(wish.clone()));
    let first = peer.answer(&request);
    customize(&guest, &["environment.A=mine"]);
    peer.post(&request, activate(wish.clone()));
    assert_eq!(peer.answer(&request), first);
    // Nor does the host's same generation under another request end it.
    hold(&mut peer, wish);
    assert_eq!(variable(&guest, "A").as_deref(), Some("mine"));
}

/// Kills the agent at each point of a customisation, until one passes all of them.
#[test]
fn a_kill_at_any_point_of_a_customisation_leaves_all_of_it_or_none() {
    let ready = debian();
    program(&ready, "usr/bin/vi", "#!/bin/sh\n");
    let (agent, mut peer, _) = ready.greet();
    hold(&mut peer, persona(1, "web", "1"));
    let old = tree(&ready);
    customize(&ready, &["sysctl.vm.swappiness=9"]);
    let new = tree(&ready);
    customize(&ready, &["--remove", "sysctl.vm.swappiness"]);
    assert_eq!(tree(&ready), old);
    agent.kill();
    let (mut stayed, mut came) = (0, 0);
    for point in 1.. {
        let guest = ready.copy();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let mut peer = guest.connect(&mut agent);
        peer.hello();
        let survived = by_hand(&guest, &["customize", "sysctl.vm.swappiness=9"]).is_ok();
        agent.kill();
        let (_agent, mut peer, _) = guest.greet();
        let ack = recovered(&mut peer);
        assert!(!guest.path("state/journal.json").exists(), "point {point}");
        if ack.customized.is_some() {
            assert_eq!(tree(&guest), new, "point {point}");
            came += 1;
        } else {
            assert_eq!(tree(&guest), old, "point {point}");
            assert!(!survived, "point {point}");
            stayed += 1;
        }
        if survived {
            break;
        }
    }
    assert!(
        stayed > 0 && came > 5,
        "the points did not cover the sequence (release builds have none): {stayed}, {came}"
    );
}
