//! Kernel parameters: a drop-in of sysctl.d(5) for the next start, and the live value. A file of the guest's that comes later
//! in the order of sysctl.d wins at a start, so it wins at once: its parameters are left alone.

use std::{collections::BTreeMap, fs};

use agent_protocol::{SettingOutcome, Settings};

use super::{Guest, MARK, Machine, Resource, SettingError, State, Wishes};

const FILE: &str = "50-virt-persona.conf";
const PATH: &str = "/etc/sysctl.d/50-virt-persona.conf";
/// The setting's name of the file.
pub(crate) const DROP_IN: &str = "sysctl at the next start";
/// In the order of precedence: a file hides those of the same name in later directories.
const DIRECTORIES: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

pub(super) fn wish(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    let guest = machine.guest;
    let later = later_files(guest);
    let mut text = format!("{MARK}\n");
    let empty = text.len();
    for (key, value) in &settings.sysctl {
        let setting = format!("sysctl {key}");
        let place = place_of(key);
        if let Some(reason) = missing(guest, &place) {
            wishes.refuse(&setting, reason);
            continue;
        }
        let setter = later
            .iter()
            .find(|(_, text)| keys(text).any(|key| covers(&key, &place)));
        if let Some((path, _)) = setter {
            let reason = format!("{path} sets it, and comes later");
            wishes.line(&setting, SettingOutcome::Kept, &reason);
            continue;
        }
        text.push_str(&format!("{key} = {}\n", value.trim()));
        let value = State::Value(value.trim().to_owned());
        wishes.resource(&setting, Resource::Kernel(place), value);
    }
    if text.len() > empty {
        wishes.file(DROP_IN, PATH, text, None);
    }
    Ok(())
}

/// Why a parameter cannot be set in this guest; one that cannot be read cannot be verified, nor put back.
fn missing(guest: Guest<'_>, place: &str) -> Option<&'static str> {
    let path = guest.path("/proc/sys").join(place);
    if !path.is_file() {
        Some(
            "the guest's kernel has no such parameter, or the module that it belongs to is not loaded",
        )
    } else if fs::read(path).is_err() {
        Some("the guest's kernel does not let it be read")
    } else {
        None
    }
}

/// Where a parameter lies below `/proc/sys`: of `.` and `/`, the one that comes first separates (sysctl.d(5)).
pub(crate) fn place_of(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// Files that are read after the agent's own, with their text.
fn later_files(guest: Guest<'_>) -> Vec<(String, String)> {
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        // A directory that is not there has no files.
        for entry in fs::read_dir(guest.path(directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.ends_with(".conf") && name.as_str() > FILE {
                let path = format!("{directory}/{name}");
                files.entry(name).or_insert(path);
            }
        }
    }
    let last = "/etc/sysctl.conf".to_owned();
    files
        .into_values()
        .chain([last])
        .filter_map(|path| {
            let text = fs::read_to_string(guest.path(&path)).ok()?;
            Some((path, text))
        })
        .collect()
}

fn keys(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (key, _) = line.split_once('=')?;
        let key = key.trim().trim_start_matches('-');
        (!line.starts_with(['#', ';'])).then(|| place_of(key))
    })
}

/// Whether a key of a file, in which a `*` stands for one part, is this parameter.
fn covers(pattern: &str, place: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), place.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if pattern == part || pattern == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        for (key, place) in [
            ("vm.swappiness", "vm/swappiness"),
            ("net.ipv4.conf.eth0/100.x", "net/ipv4/conf/eth0.100/x"),
            ("net/ipv4/conf/eth0.100/x", "net/ipv4/conf/eth0.100/x"),
        ] {
            assert_eq!(place_of(key), place);
        }
    }

    #[test]
    fn a_file_sets_what_it_names_and_what_its_stars_stand_for() {
        let text = "# vm.a = 1\n-vm.b=2\n net/ipv4/conf/*/c = 3\n";
        let found: Vec<String> = keys(text).collect();
        assert_eq!(found, ["vm/b", "net/ipv4/conf/*/c"]);
        assert!(covers(&found[1], "net/ipv4/conf/eth0/c"));
        assert!(!covers(&found[1], "net/ipv4/conf/eth0"));
    }
}
