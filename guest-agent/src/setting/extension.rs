//! Extensions, by the policy files that the programs themselves read. Browsers install what is listed and keep it. Visual Studio Code
//! has a policy for what may be installed, and none that installs, so its own command does that at each graphical login.

use std::collections::BTreeMap;

use agent_protocol::{SettingOutcome, Settings};
use serde_json::{Value, json};

use super::{MARK, Machine, SettingError, Wishes, refused};

/// Extensions that a list of allowed ones does not name.
const ALL_OTHERS: &str = "*";
const IDE: &str = "ide_extensions";
const BROWSERS: &str = "browser_extensions";
const CODE_POLICY: &str = "/etc/vscode/policy.json";
const CODE_LOGIN: &str = "/etc/xdg/autostart/virt-persona-ide-extensions.desktop";
const FIREFOX_POLICY: &str = "/etc/firefox/policies/policies.json";
/// Programs of Chromium's kind, with the directory in which each merges policy files.
const CHROMIUMS: [(&str, &str); 4] = [
    ("chromium", "/etc/chromium/policies/managed"),
    ("chromium-browser", "/etc/chromium-browser/policies/managed"),
    ("google-chrome", "/etc/opt/chrome/policies/managed"),
    ("google-chrome-stable", "/etc/opt/chrome/policies/managed"),
];

/// Names that people use for extensions of Visual Studio Code.
const IDE_NAMES: [(&str, &str); 12] = [
    ("python", "ms-python.python"),
    ("docker", "ms-azuretools.vscode-docker"),
    ("gitlens", "eamodio.gitlens"),
    ("rust", "rust-lang.rust-analyzer"),
    ("rust-analyzer", "rust-lang.rust-analyzer"),
    ("go", "golang.go"),
    ("c++", "ms-vscode.cpptools"),
    ("java", "redhat.java"),
    ("jupyter", "ms-toolsai.jupyter"),
    ("yaml", "redhat.vscode-yaml"),
    ("eslint", "dbaeumer.vscode-eslint"),
    ("prettier", "esbenp.prettier-vscode"),
];

/// What an extension of browsers is to each kind of them.
struct Known {
    name: &'static str,
    /// Firefox's identifier, and the name that its archive has it by.
    firefox: (&'static str, &'static str),
    /// Chrome's identifier.
    chromium: &'static str,
}

const BROWSER_NAMES: [Known; 4] = [
    Known {
        name: "adblock",
        firefox: ("jid1-NIfFY2CA8fy1tg@jetpack", "adblock-for-firefox"),
        chromium: "gighmmpiobklfepjocnamgkkbiglidom",
    },
    Known {
        name: "ublock origin",
        firefox: ("uBlock0@raymondhill.net", "ublock-origin"),
        // What it is called where its older form is no longer taken.
        chromium: "ddkjiahejlhfcafbddmgiahcphecmpfh",
    },
    Known {
        name: "privacy badger",
        firefox: ("jid1-MnnxcxisBPnSXQ@jetpack", "privacy-badger17"),
        chromium: "pkehgijcmpdhfbdbbnkijodmdjhbjlgp",
    },
    Known {
        name: "bitwarden",
        firefox: (
            "{446900e4-71c2-419f-a6a7-df9c091e268b}",
            "bitwarden-password-manager",
        ),
        chromium: "nngceckbapebfimnlniiiahkandclblb",
    },
];

/// What the browsers have taken in themselves: the extension of this name is no longer maintained.
const HTTPS: &str = "https everywhere";

pub(super) fn wish_ide(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    if settings.ide_extensions.is_empty() {
        return Ok(());
    }
    let Some(code) = machine.guest.program("code") else {
        let reason = "the guest has no Visual Studio Code (the program code); is its package installed (software_stack)?";
        return Err(refused(IDE, reason));
    };
    let mut allowed = BTreeMap::new();
    for name in &settings.ide_extensions {
        match ide_identifier(name) {
            Some(identifier) => drop(allowed.insert(identifier, true)),
            None => unknown(IDE, name, "as PUBLISHER.NAME", wishes),
        }
    }
    if allowed.is_empty() {
        return Ok(());
    }
    let install: String = allowed
        .keys()
        .map(|identifier| format!(" --install-extension {identifier}"))
        .collect();
    // A list of allowed extensions switches all others off, also those that the listed ones need; a persona asks for some to be
    // there, and not for the rest to go.
    allowed.insert(ALL_OTHERS.to_owned(), true);
    // Policies whose setting is no text are a text of JSON: every version that reads the file understands that.
    let policy = json!({ "AllowedExtensions": json!(allowed).to_string() });
    wishes.file(IDE, CODE_POLICY, pretty(&policy), None);
    let text = format!(
        "{MARK}\n[Desktop Entry]\nType=Application\nName=Extensions of Visual Studio Code\nExec={code}{install}\n\
         NoDisplay=true\nTerminal=false\n"
    );
    wishes.file(IDE, CODE_LOGIN, text, None);
    Ok(())
}

pub(super) fn wish_browsers(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    if settings.browser_extensions.is_empty() {
        return Ok(());
    }
    let guest = machine.guest;
    let firefox = ["firefox", "firefox-esr"]
        .iter()
        .any(|program| guest.program(program).is_some());
    let mut directories: Vec<&str> = CHROMIUMS
        .iter()
        .filter(|(program, _)| guest.program(program).is_some())
        .map(|(_, directory)| *directory)
        .collect();
    directories.dedup();
    if !firefox && directories.is_empty() {
        let reason = "the guest has none of the browsers firefox, chromium and google-chrome; is its package installed (software_stack)?";
        return Err(refused(BROWSERS, reason));
    }
    let (mut of_firefox, mut of_chromium) = (BTreeMap::new(), Vec::new());
    let mut https = false;
    for name in &settings.browser_extensions {
        let lowered = name.to_ascii_lowercase().replace(['-', '_'], " ");
        let known = BROWSER_NAMES.iter().find(|known| known.name == lowered);
        if lowered == HTTPS {
            https = true;
        } else if let Some(known) = known {
            let (identifier, archived) = known.firefox;
            of_firefox.insert(identifier.to_owned(), installed_from(archived));
            of_chromium.push(known.chromium.to_owned());
        } else if is_firefox(name) && firefox {
            of_firefox.insert(name.clone(), installed_from(name));
        } else if is_chromium(name) && !directories.is_empty() {
            of_chromium.push(name.clone());
        } else if is_firefox(name) || is_chromium(name) {
            let setting = format!("{BROWSERS} {name}");
            let reason = "the guest has no browser of the kind that the identifier is of";
            wishes.line(&setting, SettingOutcome::Refused, reason);
        } else {
            let how = "as Firefox has it (with @ or in braces) or Chrome (32 letters)";
            unknown(BROWSERS, name, how, wishes);
        }
    }
    let mut policies = serde_json::Map::new();
    if !of_firefox.is_empty() {
        policies.insert("ExtensionSettings".to_owned(), json!(of_firefox));
    }
    if https {
        policies.insert("HttpsOnlyMode".to_owned(), json!("enabled"));
    }
    if firefox && !policies.is_empty() {
        let text = pretty(&json!({ "policies": policies }));
        wishes.file(BROWSERS, FIREFOX_POLICY, text, None);
    }
    let mut policies = serde_json::Map::new();
    if !of_chromium.is_empty() {
        policies.insert("ExtensionInstallForcelist".to_owned(), json!(of_chromium));
    }
    if https {
        policies.insert("HttpsOnlyMode".to_owned(), json!("force_enabled"));
    }
    for directory in directories {
        if !policies.is_empty() {
            let path = format!("{directory}/virt-persona.json");
            wishes.file(BROWSERS, &path, pretty(&json!(policies)), None);
        }
    }
    Ok(())
}

fn unknown(setting: &str, name: &str, how: &str, wishes: &mut Wishes) {
    let setting = format!("{setting} {name}");
    let reason = format!("no extension is known by this name; give its identifier, {how}");
    wishes.line(&setting, SettingOutcome::Refused, &reason);
}

/// A name as people say it, or an identifier.
fn ide_identifier(name: &str) -> Option<String> {
    let lowered = name.to_ascii_lowercase();
    if let Some((_, identifier)) = IDE_NAMES.iter().find(|(known, _)| *known == lowered) {
        return Some((*identifier).to_owned());
    }
    let (publisher, rest) = lowered.split_once('.')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    (plain(publisher) && plain(rest)).then_some(lowered)
}

fn is_firefox(name: &str) -> bool {
    let braced = name.starts_with('{') && name.ends_with('}');
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | '{' | '}');
    (braced || name.contains('@')) && name.chars().all(allowed)
}

fn is_chromium(name: &str) -> bool {
    name.len() == 32 && name.chars().all(|c| ('a'..='p').contains(&c))
}

/// Firefox's own archive has each by its identifier, too.
fn installed_from(archived: &str) -> Value {
    let archived = archived
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('@', "%40");
    json!({
        "installation_mode": "force_installed",
        "install_url": format!("https://addons.mozilla.org/firefox/downloads/latest/{archived}/latest.xpi"),
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_identifiers_are_told_from_what_is_neither() {
        for (name, identifier) in [
            ("Python", Some("ms-python.python")),
            ("rust-lang.Rust-Analyzer", Some("rust-lang.rust-analyzer")),
            ("nosuch", None),
            ("--x.y", None),
            ("a.b_c", None),
            ("a.b; reboot", None),
        ] {
            assert_eq!(ide_identifier(name).as_deref(), identifier, "{name}");
        }
        assert!(
            is_firefox("uBlock0@raymondhill.net")
                && is_firefox("{446900e4}")
                && !is_firefox("adblock")
        );
        for known in &BROWSER_NAMES {
            assert!(
                is_firefox(known.firefox.0) && is_chromium(known.chromium),
                "{}",
                known.name
            );
        }
    }
}
