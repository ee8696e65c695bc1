//! apk of Alpine. It keeps a list of what was asked for (`/etc/apk/world`) and removes by itself what nothing there needs. It fetches
//! while it installs, unless the guest has a cache set up. Written by its documentation; it has not been run on Alpine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use agent_protocol::VersionWish;

use super::manager::{Change, Manager, Order, Tool, Versions};
use crate::setting::SettingError;

const DATABASE: &str = "/lib/apk/db/installed";
/// Seconds to wait for apk's lock.
const WAIT: [&str; 2] = ["--wait", "600"];

#[derive(Debug)]
pub(super) struct Apk;

impl Manager for Apk {
    fn name(&self) -> &'static str {
        "apk"
    }

    fn installed(&self, tool: &mut Tool<'_, '_>) -> Result<Versions, SettingError> {
        let path = tool.machine.guest.path(DATABASE);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(database(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Versions::new()),
            Err(source) => Err(SettingError::Read { path, source }),
        }
    }

    fn refresh(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(&["apk", "update", "--quiet"], WAIT).map(drop)
    }

    fn available(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeMap<String, Vec<String>>, SettingError> {
        let said = tool.run(&["apk", "policy"], names.iter().copied())?;
        Ok(policy(&said))
    }

    fn foresee(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<Change, SettingError> {
        let words = words(orders);
        let fixed = ["apk", "add", "--simulate", "--upgrade"];
        let said = tool.run(&fixed, words.iter().map(String::as_str))?;
        Ok(steps(&said))
    }

    fn fetch(&self, _: &[Order], _: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        Ok(())
    }

    fn install(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        let words = words(orders);
        let fixed = ["apk", "add", "--no-progress", "--upgrade", WAIT[0], WAIT[1]];
        tool.run(&fixed, words.iter().map(String::as_str)).map(drop)
    }

    fn repair(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(&["apk", "fix", "--no-progress"], WAIT).map(drop)
    }

    fn want(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(
            &["apk", "add", "--no-progress", WAIT[0], WAIT[1]],
            names.iter().copied(),
        )
        .map(drop)
    }

    /// Nothing is entered here: leaving the list of what was asked for and being removed are one thing to apk.
    fn unneeded(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError> {
        self.foresee_removal(names, tool)
    }

    fn foresee_removal(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError> {
        let said = tool.run(&["apk", "del", "--simulate"], names.iter().copied())?;
        Ok(steps(&said).gone)
    }

    fn remove(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(
            &["apk", "del", "--no-progress", WAIT[0], WAIT[1]],
            names.iter().copied(),
        )
        .map(drop)
    }
}

/// The list of what was asked for bears the wish, so that a later upgrade heeds it.
fn words(orders: &[Order]) -> Vec<String> {
    let word = |order: &Order| {
        let sign = match &order.wish {
            VersionWish::Any | VersionWish::Latest => return order.name.clone(),
            VersionWish::Equal(_) => "~",
            VersionWish::AtLeast(_) => ">=",
            VersionWish::Above(_) => ">",
            VersionWish::AtMost(_) => "<=",
            VersionWish::Below(_) => "<",
        };
        format!(
            "{}{sign}{}",
            order.name,
            order.wish.version().unwrap_or_default()
        )
    };
    orders.iter().map(word).collect()
}

/// `P:` is a package's name, `V:` its version; an empty line ends it.
fn database(text: &str) -> Versions {
    let mut packages = Versions::new();
    let mut name = "";
    for line in text.lines() {
        match line.split_once(':') {
            Some(("P", value)) => name = value,
            Some(("V", version)) => drop(packages.insert(name.to_owned(), version.to_owned())),
            _ => {}
        }
    }
    packages
}

/// `NAME policy:`, then each version with a colon behind it, then where it is to be had.
fn policy(said: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = None;
    for line in said.lines() {
        if let Some(known) = line.strip_suffix(" policy:") {
            name = Some(known.to_owned());
        } else if let (Some(name), Some(version)) = (
            &name,
            line.strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
                .and_then(|rest| rest.strip_suffix(':')),
        ) {
            found
                .entry(name.clone())
                .or_default()
                .push(version.to_owned());
        }
    }
    found
}

/// `(1/2) Installing NAME (VERSION)`, `(2/2) Purging NAME (VERSION)`.
fn steps(said: &str) -> Change {
    let mut change = Change::default();
    for line in said.lines() {
        let mut words = line.split_whitespace().skip(1);
        match (words.next(), words.next()) {
            (Some("Installing"), Some(name)) => drop(change.fresh.insert(name.to_owned())),
            (Some("Purging"), Some(name)) => drop(change.gone.insert(name.to_owned())),
            _ => {}
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apk_writes_is_read() {
        let text = "C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:nginx\nV:1.24.0-r7\n";
        let versions = database(text);
        assert_eq!(versions["musl"], "1.2.4-r2");
        assert_eq!(versions["nginx"], "1.24.0-r7");
        let said = "nginx policy:\n  1.24.0-r7:\n    lib/apk/db/installed\n  1.26.0-r1:\n    https://dl-cdn.alpinelinux.org/main\n";
        assert_eq!(policy(said)["nginx"], ["1.24.0-r7", "1.26.0-r1"]);
        let change = steps(
            "(1/3) Installing pcre (8.45-r3)\n(2/3) Upgrading a (1 -> 2)\n(3/3) Purging b (1)\nOK: 8 MiB\n",
        );
        assert_eq!(change.fresh, ["pcre".to_owned()].into());
        assert_eq!(change.gone, ["b".to_owned()].into());
    }
}
