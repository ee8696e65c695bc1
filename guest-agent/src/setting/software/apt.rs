//! apt and dpkg. What is installed is read from dpkg's own status file; the rest by apt-get, apt-cache and apt-mark.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead as _, BufReader},
};

use super::manager::{Change, Manager, Order, Tool, Versions};
use crate::setting::SettingError;

const STATUS: &str = "/var/lib/dpkg/status";
/// Files of configuration that people have changed stay; what waits for dpkg's lock waits ten minutes; nothing is removed.
const INSTALL: [&str; 8] = [
    "-q",
    "-y",
    "--no-remove",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    LOCK,
];
const LOCK: &str = "-oDPkg::Lock::Timeout=600";

#[derive(Debug)]
pub(super) struct Apt;

impl Manager for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn installed(&self, tool: &mut Tool<'_, '_>) -> Result<Versions, SettingError> {
        let path = tool.machine.guest.path(STATUS);
        let read = || -> io::Result<Versions> {
            let mut packages = Versions::new();
            let mut stanza = Stanza::default();
            // Line by line: the file has megabytes, of which little is needed.
            for line in BufReader::new(File::open(&path)?).split(b'\n') {
                stanza.take(&String::from_utf8_lossy(&line?), &mut packages);
            }
            stanza.take("", &mut packages);
            Ok(packages)
        };
        match read() {
            Ok(packages) => Ok(packages),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Versions::new()),
            Err(source) => Err(SettingError::Read { path, source }),
        }
    }

    fn refresh(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(&["apt-get", "-q", LOCK, "update"], []).map(drop)
    }

    fn available(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeMap<String, Vec<String>>, SettingError> {
        let said = tool.ask(&["apt-cache", "madison"], names.iter().copied())?;
        Ok(madison(&said))
    }

    fn foresee(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<Change, SettingError> {
        let words = words(orders);
        let fixed = ["apt-get", "-s", "-qq", "install"];
        let said = tool.run(&fixed, words.iter().map(String::as_str))?;
        Ok(simulation(&said))
    }

    fn fetch(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        let words = words(orders);
        let fixed = ["apt-get", "-q", "-y", "-d", "--no-remove", LOCK, "install"];
        tool.run(&fixed, words.iter().map(String::as_str)).map(drop)
    }

    fn install(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        let words = words(orders);
        let fixed: Vec<&str> = ["apt-get"].into_iter().chain(INSTALL).collect();
        let rest = ["install"]
            .into_iter()
            .chain(words.iter().map(String::as_str));
        tool.run(&fixed, rest).map(drop)
    }

    fn repair(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(
            &["dpkg", "--force-confdef", "--force-confold"],
            ["--configure", "-a"],
        )?;
        let fixed: Vec<&str> = ["apt-get"].into_iter().chain(INSTALL).collect();
        tool.run(&fixed, ["-f", "install"]).map(drop)
    }

    fn want(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(&["apt-mark", "manual"], names.iter().copied())
            .map(drop)
    }

    fn unneeded(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError> {
        tool.run(&["apt-mark", "auto"], names.iter().copied())?;
        let said = tool.run(&["apt-get", "-s", "-qq", "autoremove"], [])?;
        Ok(simulation(&said).gone)
    }

    fn foresee_removal(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError> {
        let fixed = ["apt-get", "-s", "-qq", "--no-auto-remove", "remove"];
        let said = tool.run(&fixed, names.iter().copied())?;
        Ok(simulation(&said).gone)
    }

    fn remove(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        let fixed = ["apt-get", "-q", "-y", "--no-auto-remove", LOCK, "remove"];
        tool.run(&fixed, names.iter().copied()).map(drop)
    }
}

fn words(orders: &[Order]) -> Vec<String> {
    let word = |order: &Order| format!("{}={}", order.name, order.version);
    orders.iter().map(word).collect()
}

/// One package of the status file, as far as it was read.
#[derive(Default)]
struct Stanza {
    name: String,
    architecture: String,
    version: String,
    installed: bool,
}

impl Stanza {
    /// Takes a line; an empty one ends the package.
    fn take(&mut self, line: &str, packages: &mut Versions) {
        if line.is_empty() {
            let done = std::mem::take(self);
            if done.installed && !done.name.is_empty() {
                // Of another architecture it is named with that.
                let full = format!("{}:{}", done.name, done.architecture);
                packages.insert(full, done.version.clone());
                packages.insert(done.name, done.version);
            }
            return;
        }
        let Some((field, value)) = line.split_once(": ") else {
            return;
        };
        match field {
            "Package" => value.clone_into(&mut self.name),
            "Architecture" => value.clone_into(&mut self.architecture),
            "Version" => value.clone_into(&mut self.version),
            // What is half installed is there; what has left only its configuration is not.
            "Status" => {
                self.installed =
                    !value.ends_with(" config-files") && !value.ends_with(" not-installed")
            }
            _ => {}
        }
    }
}

/// `Inst NAME (...)` is new, `Inst NAME [OLD] (...)` another version of what is there, `Remv NAME [OLD]` is gone.
fn simulation(said: &str) -> Change {
    let mut change = Change::default();
    for line in said.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("Inst"), Some(name), Some(next)) if !next.starts_with('[') => {
                change.fresh.insert(name.to_owned());
            }
            (Some("Remv"), Some(name), _) => {
                change.gone.insert(name.to_owned());
            }
            _ => {}
        }
    }
    change
}

/// ` NAME | VERSION | SOURCE Packages`
fn madison(said: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in said.lines() {
        let mut cells = line.split('|').map(str::trim);
        if let (Some(name), Some(version), Some(source)) =
            (cells.next(), cells.next(), cells.next())
            && source.ends_with("Packages")
        {
            found
                .entry(name.to_owned())
                .or_default()
                .push(version.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_says_what_is_there() {
        let text = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nDescription: x\n more\n\n\
                    Package: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                    Package: c\nStatus: install ok half-configured\nArchitecture: i386\nVersion: 4\n";
        let (mut packages, mut stanza) = (Versions::new(), Stanza::default());
        for line in text.split('\n') {
            stanza.take(line, &mut packages);
        }
        let expected = [
            ("a", "1:2-3"),
            ("a:amd64", "1:2-3"),
            ("c", "4"),
            ("c:i386", "4"),
        ];
        assert_eq!(
            packages,
            expected
                .map(|(name, version)| (name.to_owned(), version.to_owned()))
                .into()
        );
    }

    #[test]
    fn a_simulation_tells_new_from_newer() {
        let said = "NOTE: This is only a simulation!\nRemv old [1.0]\nInst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64]) []\n\
                    Inst nginx (1.22.1-9 Debian:12.1/stable [amd64])\nConf nginx (1.22.1-9 Debian:12.1/stable [amd64])\n";
        let change = simulation(said);
        assert_eq!(change.fresh, ["nginx".to_owned()].into());
        assert_eq!(change.gone, ["old".to_owned()].into());
    }

    #[test]
    fn sources_say_their_versions() {
        let said = "     nano |      7.2-1 | http://deb.debian.org/debian bookworm/main amd64 Packages\n\
                    nano | 7.2-1 | http://deb.debian.org/debian bookworm/main Sources\nN: Unable to locate package x\n";
        assert_eq!(
            madison(said),
            [("nano".to_owned(), vec!["7.2-1".to_owned()])].into()
        );
    }
}
