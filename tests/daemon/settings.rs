//! Settings of the guest from the document to the guest and back into `status` and audit, with the real agent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use virt_persona::command::{Command, DomainName};
use virt_persona::view::{ActivationState, DomainView};

use crate::agent::{Agent, built};
use crate::stage::{Stage, until};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
agent_channel = 'FOLDER/guest/agent.sock'
";

const DOCUMENT: &str = "name: front
os_settings: {sysctl: {vm.swappiness: 1, vm.dirty_ratio: 5}, editor: nano}
";

#[test]
fn settings_are_in_force_in_the_guest_and_what_it_keeps_is_told() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    for (path, text) in [
        ("proc/sys/vm/swappiness", "60\n"),
        ("proc/sys/vm/dirty_ratio", "20\n"),
        ("etc/sysctl.d/60-mine.conf", "vm.dirty_ratio = 30\n"),
    ] {
        let path = guest.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(DOCUMENT);
    daemon.apply("web", "front");
    let active = |domain: &DomainView| domain.activation.state == ActivationState::Active;
    // The guest has no such editor; the others come about.
    let domain = daemon.wait_domain(web, "it is active", |domain| {
        active(domain) && domain.activation.detail.is_some()
    });
    let detail = domain.activation.detail.unwrap();
    assert!(
        detail.contains(
            "1 setting cannot be had in this guest: editor (the guest has no program nano"
        ),
        "{detail}"
    );
    let swappiness = || fs::read_to_string(guest.join("proc/sys/vm/swappiness")).unwrap();
    assert_eq!(swappiness(), "1\n");

    let editor = guest.join("usr/bin/nano");
    fs::create_dir_all(editor.parent().unwrap()).unwrap();
    fs::write(&editor, "").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&editor, executable).unwrap();
    daemon.apply("web", "front");
    let told = "3 settings are in force; kept as the guest has them: \
                sysctl vm.dirty_ratio (/etc/sysctl.d/60-mine.conf sets it, and comes later)";
    daemon.wait_domain(web, "all that can be had is", |domain| {
        active(domain) && domain.activation.detail.as_deref() == Some(told)
    });
    // It is still told after a restart of the daemon.
    daemon.stop();
    let daemon = stage.start();
    daemon.wait_domain(web, "it is active and told", |domain| {
        active(domain) && domain.activation.detail.as_deref() == Some(told)
    });
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    // While the agent is not connected again nothing is shown either; the guest itself counts.
    daemon.wait_domain(web, "it is gone", |domain| {
        domain.activation.state == ActivationState::None && swappiness() == "60\n"
    });
}

/// The names of a persona as people write them, with what each program is told by its own policy.
#[test]
fn extensions_and_theme_of_a_persona_come_as_policies_and_go_with_it() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    for name in ["code", "firefox-esr", "chromium", "dconf"] {
        let program = guest.join("usr/bin").join(name);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        // What is run of them is the one that compiles the defaults of desktops, and a link is not written to by anybody.
        std::os::unix::fs::symlink("/bin/true", program).unwrap();
    }
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(
        "name: developer
os_settings: {theme: dark}
application_settings:
  ide_extensions: [python, docker, gitlens]
  browser_extensions: [adblock, https everywhere]
",
    );
    daemon.apply("web", "developer");
    let told = "3 settings are in force";
    daemon.wait_domain(web, "it is active and told", |domain| {
        domain.activation.state == ActivationState::Active
            && domain.activation.detail.as_deref() == Some(told)
    });
    let files = [
        ("etc/vscode/policy.json", "eamodio.gitlens"),
        ("etc/firefox/policies/policies.json", "HttpsOnlyMode"),
        (
            "etc/chromium/policies/managed/virt-persona.json",
            "ExtensionInstallForcelist",
        ),
        ("etc/dconf/db/local.d/50-virt-persona", "prefer-dark"),
    ];
    for (path, part) in files {
        let text = fs::read_to_string(guest.join(path)).unwrap();
        assert!(text.contains(part), "{path}: {text}");
    }
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    daemon.wait_domain(web, "they are gone", |domain| {
        let gone = |(path, _): &(&str, &str)| !guest.join(path).exists();
        domain.activation.state == ActivationState::None && files.iter().all(gone)
    });
}

/// The plugin is the one of the examples; the guest has none for the other key.
#[test]
fn keys_of_ones_own_go_to_the_plugins_of_the_guest() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let plugins = guest.join("etc/virt-persona/plugins.d");
    let zones = guest.join("usr/share/zoneinfo/Europe");
    for directory in [&plugins, &zones] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(zones.join("Vienna"), "").unwrap();
    // A copy by another process: nobody can run a program that this one has open for writing.
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/plugins/os_settings.time_zone"
    );
    let copied = std::process::Command::new("cp")
        .arg("--preserve=mode")
        .arg(example)
        .arg(&plugins)
        .status();
    assert!(copied.unwrap().success());
    let link = guest.join("etc/localtime");
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(
        "name: front
os_settings: {time_zone: Europe/Vienna}
application_settings: {games: [chess, go]}
",
    );
    daemon.apply("web", "front");
    let told = "1 setting is in force; 1 setting cannot be had in this guest: \
                application_settings.games (the guest has no plugin \
                /etc/virt-persona/plugins.d/application_settings.games)";
    daemon.wait_domain(web, "it is active and told", |domain| {
        domain.activation.state == ActivationState::Active
            && domain.activation.detail.as_deref() == Some(told)
    });
    let zone = fs::read_link(&link).unwrap();
    assert_eq!(zone.to_str().unwrap(), "/usr/share/zoneinfo/Europe/Vienna");
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    daemon.wait_domain(web, "it is gone", |domain| {
        domain.activation.state == ActivationState::None && fs::read_link(&link).is_err()
    });
}

/// Puts a plugin `slow` into the guest that holds what it is to hold; `VERB` waits for leave.
fn slow_plugin(guest: &Path, verb: &str) {
    let plugin = guest.join("etc/virt-persona/plugins.d/os_settings.slow");
    fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    let text = "#!/bin/sh
        cat >/dev/null
        held=${0%/etc/*}/held
        if [ \"$1\" = VERB ]; then
            : >\"$held.begun\"
            until [ -e \"$held.let-go\" ]; do sleep 0.1; done
        fi
        case $1 in
        probe | verify) [ -e \"$held\" ] && echo '{\"state\":\"held\"}' || echo '{\"state\":\"free\"}' ;;
        plan) echo '{\"state\":\"held\"}' ;;
        apply) touch \"$held\"; echo '{}' ;;
        undo) rm -f \"$held\"; echo '{}' ;;
        esac\n";
    fs::write(&plugin, text.replace("VERB", verb)).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&plugin, executable).unwrap();
}

/// A guest that takes longer than it is waited for, and says that it is at it, is not asked in vain and given up.
#[test]
fn a_guest_that_is_long_at_what_it_was_asked_for_is_waited_for() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let held = guest.join("held");
    slow_plugin(&guest, "undo");
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: front\nos_settings: {slow: much}\n");
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is held", |domain| {
        domain.activation.state == ActivationState::Active && held.exists()
    });
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    daemon.wait_record("the guest is still at it", |record| {
        record.text.contains("the guest is still at it: no persona")
    });
    daemon.wait_domain(web, "it is on its way", |domain| {
        domain.activation.state == ActivationState::Deactivating
    });
    fs::write(guest.join("held.let-go"), "").unwrap();
    daemon.wait_domain(web, "it is gone", |domain| {
        domain.activation.state == ActivationState::None && !held.exists()
    });
    let whole = format!("{:?}", daemon.audit());
    assert!(!whole.contains("no answer yet"), "{whole}");
}

/// It may say so of nothing.
#[test]
fn a_guest_that_says_for_too_long_that_it_is_at_it_has_failed() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    slow_plugin(&guest, "undo");
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: front\nos_settings: {slow: much}\n");
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is held", |domain| {
        domain.activation.state == ActivationState::Active
    });
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    until("the plugin is at it", || guest.join("held.begun").exists());
    stage.suspend(Duration::from_secs(3600));
    daemon.wait_record("it has failed", |record| {
        let reason = "it is still at it, 60 min after its time was over";
        record.text.contains("it failed in the guest: no persona") && record.text.contains(reason)
    });
    let failed = daemon.wait_domain(web, "it has failed", |domain| {
        domain.activation.state == ActivationState::Failed
    });
    assert!(failed.activation.detail.is_some());
}

/// The guest does one thing after the other, and nothing whose time is over.
#[test]
fn what_waited_in_the_guest_until_its_time_was_over_is_asked_for_again() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let held = guest.join("held");
    slow_plugin(&guest, "apply");
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: front\nos_settings: {slow: much}\n");
    daemon.apply("web", "front");
    until("the plugin is at it", || guest.join("held.begun").exists());
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    daemon.wait_record("the guest is still at it", |record| {
        record.text.contains("the guest is still at it: no persona")
    });
    fs::write(guest.join("held.let-go"), "").unwrap();
    daemon.wait_record("its time was over", |record| {
        record.text.contains("no answer yet: no persona") && record.text.contains("(expired)")
    });
    daemon.wait_domain(web, "nothing is held", |domain| {
        domain.activation.state == ActivationState::None && !held.exists()
    });
}

#[test]
fn a_return_by_hand_in_the_guest_is_told_and_left_alone_until_the_next_activation() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: front\nenvironment_variables: {STAGE: one}\n");
    daemon.create("name: back\nenvironment_variables: {STAGE: two}\n");
    let active = |domain: &DomainView| domain.activation.state == ActivationState::Active;
    let holds = |value: &str| {
        let wanted = format!("export STAGE='{value}'\n");
        agent
            .environment()
            .is_some_and(|text| text.contains(&wanted))
    };
    for (persona, value) in [("front", "one"), ("back", "two")] {
        daemon.apply("web", persona);
        daemon.wait_domain(web, "it is active", |domain| active(domain) && holds(value));
    }
    let said = agent.ask(&["rollback"]).unwrap();
    assert!(said.contains("front version 1"), "{said}");
    assert!(holds("one"));
    let told = |domain: &DomainView| {
        let detail = domain.activation.detail.as_deref().unwrap_or_default();
        active(domain) && detail.contains("front@1) by hand")
    };
    let domain = daemon.wait_domain(web, "the return is told", told);
    assert_eq!(domain.persona.unwrap().name, "back");
    let whole = format!("{:?}", daemon.audit());
    assert!(whole.contains("went back to generation"), "{whole}");
    // A daemon that starts anew does not fight it either, and knows it from the greeting.
    daemon.stop();
    let daemon = stage.start();
    daemon.wait_domain(web, "the return is told again", told);
    assert!(holds("one"));
    daemon.apply("web", "back");
    daemon.wait_domain(web, "the persona is back", |domain| {
        active(domain) && domain.activation.detail.is_none()
    });
    assert!(holds("two"));
}

#[test]
fn what_the_guests_owner_customised_is_told_left_alone_and_back_with_the_persona() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: front\nenvironment_variables: {STAGE: one}\n");
    daemon.create("name: back\nenvironment_variables: {STAGE: two}\n");
    let active = |domain: &DomainView| domain.activation.state == ActivationState::Active;
    let holds = |value: &str| {
        let wanted = format!("export STAGE='{value}'\n");
        agent
            .environment()
            .is_some_and(|text| text.contains(&wanted))
    };
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is active", |domain| active(domain) && holds("one"));
    let said = agent.ask(&["customize", "environment.STAGE=mine"]).unwrap();
    assert!(said.contains("customised under front"), "{said}");
    let told = |domain: &DomainView| {
        let detail = domain.activation.detail.as_deref().unwrap_or_default();
        active(domain) && detail.contains("in the guest 1 customisation: environment.STAGE")
    };
    daemon.wait_domain(web, "the customisation is told", told);
    assert!(holds("mine"));
    let whole = format!("{:?}", daemon.audit());
    assert!(whole.contains("the guest has its own way"), "{whole}");
    daemon.apply("web", "back");
    daemon.wait_domain(web, "the other persona has none of it", |domain| {
        active(domain) && domain.activation.detail.is_none() && holds("two")
    });
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is there again", |domain| {
        told(domain) && holds("mine")
    });
    agent
        .ask(&["customize", "--remove", "environment.STAGE"])
        .unwrap();
    daemon.wait_domain(web, "it is over", |domain| {
        let detail = domain.activation.detail.as_deref().unwrap_or_default();
        active(domain) && !detail.contains("in the guest") && holds("one")
    });
}

#[test]
fn whether_people_are_held_to_restricted_commands_is_told_as_it_is_now() {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let _agent = Agent::start(&guest);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create("name: held\nrestricted_commands: [nosuch]\n");
    daemon.apply("web", "held");
    let says = |what: &'static str| {
        move |domain: &DomainView| {
            let detail = domain.activation.detail.as_deref().unwrap_or_default();
            domain.activation.state == ActivationState::Active && detail.contains(what)
        }
    };
    let away = "not held to restricted_commands now: virt-persona-gate does not run";
    daemon.wait_domain(web, "nobody holds them", says(away));
    let mut gate = std::process::Command::new(built("VIRT_PERSONA_TEST_GATE", "virt-persona-gate"))
        .arg("--state")
        .arg(guest.join("state"))
        .arg("--root")
        .arg(&guest)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    daemon.wait_domain(
        web,
        "the gate does",
        says("are held to restricted_commands now"),
    );
    gate.kill().unwrap();
    gate.wait().unwrap();
    daemon.wait_domain(web, "it does no more", says(away));
    let told = daemon.told("activation").join("\n");
    assert_eq!(told.matches(away).count(), 2, "{told}");
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(off.is_ok(), "{off:?}");
    daemon.wait_domain(web, "nothing is restricted", |domain| {
        domain.activation.detail.is_none()
    });
}
