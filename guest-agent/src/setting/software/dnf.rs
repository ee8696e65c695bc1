//! dnf (4 and 5) and rpm. What a transaction would do is read from its table, since dnf has no form of it for programs.

use std::collections::{BTreeMap, BTreeSet};

use super::manager::{Change, Manager, Order, Tool, Versions, failed};
use crate::setting::SettingError;

/// Waits for another dnf, rather than failing.
const WAIT: &str = "--setopt=exit_on_lock=False";
/// Of what is removed, what it needed is a decision of its own.
const NO_MORE: &str = "--setopt=clean_requirements_on_remove=False";

#[derive(Debug)]
pub(super) struct Dnf;

impl Manager for Dnf {
    fn name(&self) -> &'static str {
        "dnf"
    }

    fn installed(&self, tool: &mut Tool<'_, '_>) -> Result<Versions, SettingError> {
        let said = tool.run(&["rpm", "-qa", "--qf", "%{NAME} %{EVR}\\n"], [])?;
        Ok(pairs(&said).collect())
    }

    fn refresh(&self, tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(&["dnf", "-q", WAIT, "--refresh", "makecache"], [])
            .map(drop)
    }

    fn available(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeMap<String, Vec<String>>, SettingError> {
        let fixed = ["dnf", "-q", WAIT, "repoquery", "--qf", "%{name} %{evr}\\n"];
        let said = tool.run(&fixed, names.iter().copied())?;
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, version) in pairs(&said) {
            found.entry(name).or_default().push(version);
        }
        Ok(found)
    }

    fn foresee(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<Change, SettingError> {
        let words = words(orders);
        let fixed = ["dnf", WAIT, "--assumeno", "install"];
        // That nobody agreed is a failure, too.
        let said = tool.ask(&fixed, words.iter().map(String::as_str))?;
        let wrong = ["Error:", "No match for argument", "Problem"];
        match said
            .lines()
            .find(|line| wrong.iter().any(|word| line.trim_start().starts_with(word)))
        {
            Some(line) => Err(failed("dnf --assumeno install", line)),
            None => Ok(table(&said)),
        }
    }

    fn fetch(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        let words = words(orders);
        let fixed = ["dnf", "-q", "-y", WAIT, "--downloadonly", "install"];
        tool.run(&fixed, words.iter().map(String::as_str)).map(drop)
    }

    fn install(&self, orders: &[Order], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        let words = words(orders);
        let fixed = ["dnf", "-q", "-y", WAIT, "install"];
        tool.run(&fixed, words.iter().map(String::as_str)).map(drop)
    }

    /// An rpm transaction that was cut off has packages that are wholly there and packages that are not; the next one goes on.
    fn repair(&self, _: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        Ok(())
    }

    fn want(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        mark(tool, ["install", "user"], names)
    }

    fn unneeded(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError> {
        mark(tool, ["remove", "dependency"], names)?;
        let fixed = ["dnf", "-q", WAIT, "repoquery", "--unneeded"];
        let said = tool.run(&fixed, ["--qf", "%{name} %{evr}\\n"])?;
        Ok(pairs(&said).map(|(name, _)| name).collect())
    }

    fn foresee_removal(
        &self,
        names: &[&str],
        tool: &mut Tool<'_, '_>,
    ) -> Result<BTreeSet<String>, SettingError> {
        // Fails when something that stays needs one of them.
        tool.run(&["rpm", "-e", "--test"], names.iter().copied())?;
        Ok(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn remove(&self, names: &[&str], tool: &mut Tool<'_, '_>) -> Result<(), SettingError> {
        tool.run(
            &["dnf", "-q", "-y", WAIT, NO_MORE, "remove"],
            names.iter().copied(),
        )
        .map(drop)
    }
}

/// dnf 4 and dnf 5 have other words for the same.
fn mark(tool: &mut Tool<'_, '_>, verbs: [&str; 2], names: &[&str]) -> Result<(), SettingError> {
    let [old, new] = verbs;
    let done = tool.run(
        &["dnf", "-q", "-y", WAIT, "mark", old],
        names.iter().copied(),
    );
    match done {
        Ok(_) => Ok(()),
        Err(_) => tool
            .run(
                &["dnf", "-q", "-y", WAIT, "mark", new],
                names.iter().copied(),
            )
            .map(drop),
    }
}

fn words(orders: &[Order]) -> Vec<String> {
    let word = |order: &Order| format!("{}-{}", order.name, order.version);
    orders.iter().map(word).collect()
}

/// Lines of a name and a version; an epoch of 0 is none.
fn pairs(said: &str) -> impl Iterator<Item = (String, String)> + '_ {
    said.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, version, rest) = (words.next()?, words.next()?, words.next());
        let plain = version.starts_with(|c: char| c.is_ascii_digit()) || version.contains('-');
        let version = version.strip_prefix("0:").unwrap_or(version);
        (plain && rest.is_none()).then(|| (name.to_owned(), version.to_owned()))
    })
}

/// The table of a transaction: under `Installing:` and the like one package a line, which begins with one blank; what did not
/// fit goes on in the next, which begins with more.
fn table(said: &str) -> Change {
    #[derive(Clone, Copy)]
    enum Part {
        Fresh,
        Gone,
        Other,
    }
    let mut change = Change::default();
    let mut part = Part::Other;
    for line in said.lines() {
        if !line.starts_with(' ') {
            part = match line.trim_end() {
                head if head.starts_with("Installing") && head.ends_with(':') => Part::Fresh,
                head if head.starts_with("Removing") && head.ends_with(':') => Part::Gone,
                _ => Part::Other,
            };
            continue;
        }
        let Some(name) = line
            .strip_prefix(' ')
            .filter(|rest| !rest.starts_with(' '))
            .and_then(|rest| rest.split_whitespace().next())
        else {
            continue;
        };
        match part {
            Part::Fresh => change.fresh.insert(name.to_owned()),
            Part::Gone => change.gone.insert(name.to_owned()),
            Part::Other => false,
        };
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_transaction_is_read() {
        let said = "Dependencies resolved.\n================\n Package      Arch   Version    Repository  Size\n================\n\
                    Installing:\n greeting     noarch 2-1        local       6.1 k\nInstalling dependencies:\n \
                    a-library-of-a-very-long-name-that-fills-the-line\n              noarch 1-1        local       6.1 k\n\
                    Upgrading:\n glibc        x86_64 2.3-1      local       6.1 k\n\nTransaction Summary\n================\n\
                    Install  2 Packages\n\nTotal download size: 12 k\nOperation aborted.\n";
        let change = table(said);
        let expected = [
            "greeting",
            "a-library-of-a-very-long-name-that-fills-the-line",
        ];
        assert_eq!(change.fresh, expected.map(str::to_owned).into());
        assert_eq!(change.gone, BTreeSet::new());
    }

    #[test]
    fn versions_are_read_without_an_empty_epoch() {
        let said =
            "Last metadata expiration check: 0:00:01 ago.\n\ngreeting 0:2-1\n\nother 1:3-1.fc40\n";
        let found: Vec<_> = pairs(said).collect();
        let expected = [("greeting", "2-1"), ("other", "1:3-1.fc40")];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
