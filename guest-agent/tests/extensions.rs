//! Extensions and theme by the real agent in a file tree of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use agent_protocol::{
    Activation, ActivationReply, Operation, SettingOutcome, Settings, message::DeactivationReply,
};
use serde_json::Value;

use harness::{
    activate, activation,
    debian::{debian, program, tree},
    ok,
};

const CODE: &str = "etc/vscode/policy.json";
const CODE_LOGIN: &str = "etc/xdg/autostart/virt-persona-ide-extensions.desktop";
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
    let allowed = json(CODE)["AllowedExtensions"].clone();
    assert_eq!(allowed, r#"{"*":true,"ms-python.python":true}"#);
    let login = guest.read(CODE_LOGIN).unwrap();
    let install = "Exec=/usr/bin/code --install-extension ms-python.python\n";
    assert!(login.contains(install), "{login}");
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

/// What is published of Visual Studio Code's policies, as far as the agent writes them: `code_policies.json`.
fn published() -> Value {
    serde_json::from_str(include_str!("code_policies.json")).unwrap()
}

/// Whether a key of `extensions.allowed` is of a kind that is published.
fn kind_of_key(key: &str) -> Option<&'static str> {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    match key.split('.').collect::<Vec<_>>()[..] {
        ["*"] => Some("all"),
        [publisher] if plain(publisher) => Some("publisher"),
        [publisher, name] if plain(publisher) && plain(name) => Some("extension"),
        _ => None,
    }
}

/// What is wrong with a policy file, by what is published.
fn faults(policy: &str) -> Vec<String> {
    let published = published();
    let mut faults = Vec::new();
    let Ok(Value::Object(policies)) = serde_json::from_str(policy) else {
        return vec!["it is no object of JSON".to_owned()];
    };
    for (name, value) in policies {
        let known = &published["policies"][&name];
        if known.is_null() {
            faults.push(format!("{name} is no policy"));
            continue;
        }
        // A text is read as JSON where the setting is none.
        let value = match (known["type"].as_str().unwrap(), value) {
            ("object", Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
            (_, value) => value,
        };
        let Value::Object(entries) = value else {
            faults.push(format!("{name} is not of type {}", known["type"]));
            continue;
        };
        for (key, value) in entries {
            let values = kind_of_key(&key).map(|kind| known["entries"][kind].clone());
            let values = values.unwrap_or_default();
            if !values.as_array().is_some_and(|all| all.contains(&value)) {
                faults.push(format!("{name} does not take {key}: {value}"));
            }
        }
    }
    faults
}

#[test]
fn the_policy_of_visual_studio_code_is_of_the_published_shape() {
    let guest = debian();
    program(&guest, "usr/bin/code", "#!/bin/sh\n");
    let (_agent, mut peer, _) = guest.greet();
    let names = [
        "python",
        "Docker",
        "gitlens",
        "rust-lang.rust-analyzer",
        "go",
        "c++",
        "java",
        "jupyter",
        "yaml",
        "eslint",
        "prettier",
        "Some-Publisher.some-Name",
        "no.such.name",
        "no_such.name",
    ];
    let settings = Settings {
        ide_extensions: names.map(str::to_owned).into(),
        ..Settings::default()
    };
    let reply: ActivationReply = ok(peer.ask(activate(Activation {
        settings,
        ..activation(1, &[])
    })));
    let refused: Vec<_> = reply.settings.unwrap().lines;
    let refused: Vec<_> = refused
        .iter()
        .filter(|line| line.outcome == SettingOutcome::Refused)
        .map(|line| line.setting.as_str())
        .collect();
    assert_eq!(
        refused,
        ["ide_extensions no.such.name", "ide_extensions no_such.name"]
    );
    let published = published();
    assert_eq!(format!("/{CODE}"), published["file"]);
    assert_eq!(faults(&guest.read(CODE).unwrap()), Vec::<String>::new());
    // What the check is worth.
    for wrong in [
        "[]",
        r#"{"Extensions": {}}"#,
        r#"{"AllowedExtensions": ["a.b"]}"#,
        r#"{"AllowedExtensions": "a.b"}"#,
        r#"{"AllowedExtensions": {"a.b": "yes"}}"#,
        r#"{"AllowedExtensions": {"a.b.c": true}}"#,
        r#"{"AllowedExtensions": {"*": "stable"}}"#,
    ] {
        assert_ne!(faults(wrong), Vec::<String>::new(), "{wrong}");
    }
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
