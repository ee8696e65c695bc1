//! Extensions and theme by the real agent in a file tree of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use agent_protocol::{
    Activation, ActivationReply, Operation, SettingOutcome, Settings, message::DeactivationReply,
};
use harness::{
    activate, activation,
    debian::{debian, program, tree},
    ok,
};

const FIREFOX: &str = "etc/firefox/policies/policies.json";

fn wanted(generation: u64) -> Operation {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    activate(Activation {
        settings: Settings {
            theme: Some("dark".to_owned()),
            ide_extensions: list(&["python", "nosuch"]),
            browser_extensions: list(&["adblock", "https everywhere", "nosuch"]),
            ..Settings::default()
        },
        ..activation(generation, &[])
    })
}

#[test]
fn policies_come_with_the_persona_and_go_with_it() {
    let guest = debian();
    for name in ["code", "firefox-esr", "chromium", "dconf"] {
        program(&guest, &format!("usr/bin/{name}"), "#!/bin/sh\n");
    }
    let before = tree(&guest);
    let (_agent, mut peer, _) = guest.greet();
    let reply: ActivationReply = ok(peer.ask(wanted(1)));
    let refused: Vec<String> = reply
        .settings
        .unwrap()
        .lines
        .into_iter()
        .filter(|line| line.outcome == SettingOutcome::Refused)
        .map(|line| line.setting)
        .collect();
    assert_eq!(
        refused,
        ["ide_extensions nosuch", "browser_extensions nosuch"]
    );
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_str(&guest.read(path).unwrap()).unwrap()
    };
    // The value of a policy whose setting is an object is a text.
    let allowed = json("etc/vscode/policy.json")["AllowedExtensions"].clone();
    assert_eq!(allowed, r#"{"ms-python.python":true}"#);
    let policies = json(FIREFOX)["policies"].clone();
    let adblock = &policies["ExtensionSettings"]["jid1-NIfFY2CA8fy1tg@jetpack"];
    assert_eq!(adblock["installation_mode"], "force_installed");
    assert_eq!(policies["HttpsOnlyMode"], "enabled");
    let policies = json("etc/chromium/policies/managed/virt-persona.json");
    assert_eq!(
        policies["ExtensionInstallForcelist"][0],
        "gighmmpiobklfepjocnamgkkbiglidom"
    );
    let theme = guest.read("etc/dconf/db/local.d/50-virt-persona").unwrap();
    assert!(theme.contains("color-scheme='prefer-dark'\n"), "{theme}");
    ok::<DeactivationReply>(peer.ask(Operation::Deactivate { generation: 2 }));
    assert_eq!(tree(&guest), before);
}

#[test]
fn a_policy_of_the_guests_own_stays() {
    let guest = debian();
    program(&guest, "usr/bin/firefox-esr", "#!/bin/sh\n");
    guest.write(FIREFOX, "{\"policies\": {}}\n");
    let (_agent, mut peer, _) = guest.greet();
    let reply: ActivationReply = ok(peer.ask(wanted(1)));
    let lines = reply.settings.unwrap().lines;
    let of = |setting: &str| {
        lines
            .iter()
            .find(|line| line.setting == setting)
            .unwrap()
            .outcome
    };
    assert_eq!(of("browser_extensions"), SettingOutcome::Kept);
    assert_eq!(of("ide_extensions"), SettingOutcome::Refused);
    assert_eq!(of("theme"), SettingOutcome::Refused);
    assert_eq!(guest.read(FIREFOX).unwrap(), "{\"policies\": {}}\n");
}
