//! `diff`: in what two personas differ in meaning. Files are read here; stored versions, and bases that are stored, come
//! from the daemon, which is asked only where there is one to ask for.

use std::path::Path;

use persona::Difference;
use serde::Serialize;

use super::layers::{Given, Known, Outcome};
use super::screen::{Cell, Screen, Table};
use super::{CliError, Ended, Global, format_of, read_bytes};
use crate::bus::Client;
use crate::command::PersonaRef;
use crate::view::DocumentFormat;

/// The shape of `diff --json`.
#[derive(Debug, Serialize)]
struct Compared<'a> {
    /// The first, as it was named.
    before: &'a str,
    /// The second, as it was named.
    after: &'a str,
    /// What differs; nothing where both mean the same.
    differences: &'a [Difference],
}

/// The daemon, once it is needed.
struct Daemon<'a> {
    global: &'a Global,
    client: Option<Client>,
}

impl Daemon<'_> {
    async fn document(&mut self, name: &str, version: Option<u32>) -> Result<Given, CliError> {
        if self.client.is_none() {
            self.client = Some(Client::connect(self.global.bus()).await?);
        }
        let Some(client) = &self.client else {
            return Err(CliError::Argument(crate::command::Refusal::Stopping));
        };
        let shown = client.show(name, version).await?;
        Ok(Given {
            shown: format!("{name}@{}", shown.version.version),
            text: shown.document.into_bytes(),
            format: shown.version.format.into(),
            name: Some(name.to_owned()),
        })
    }
}

/// Compares two files or stored versions.
///
/// # Errors
/// Where one of them cannot be read or is not valid.
pub(super) async fn diff(
    global: &Global,
    before: &str,
    after: &str,
    screen: &mut Screen,
) -> Result<Ended, CliError> {
    let mut daemon = Daemon {
        global,
        client: None,
    };
    let old = read(&mut daemon, before).await?;
    let new = read(&mut daemon, after).await?;
    let (Some(one), Some(other)) = (old.persona(), new.persona()) else {
        let (name, outcome) = if old.persona().is_none() {
            (before, old)
        } else {
            (after, new)
        };
        return Err(CliError::Incomparable {
            name: name.to_owned(),
            reason: reason(outcome),
        });
    };
    let differences = persona::difference(one, other);
    if global.json {
        screen.json(&Compared {
            before,
            after,
            differences: &differences,
        })?;
    } else if !differences.is_empty() {
        let mut table = Table::new(&["VALUE", "BEFORE", "AFTER"]);
        for difference in &differences {
            table.row(vec![
                Cell::new(&difference.path),
                Cell::maybe(difference.before.as_deref()),
                Cell::maybe(difference.after.as_deref()),
            ]);
        }
        screen.table(&table)?;
    }
    Ok(if differences.is_empty() {
        Ended::Well
    } else {
        Ended::Badly
    })
}

/// What looks like a file or is one is read as a file; else it is a stored version.
async fn read(daemon: &mut Daemon<'_>, named: &str) -> Result<Outcome, CliError> {
    let path = Path::new(named);
    let is_file =
        named == "-" || named.contains('/') || format_of(path).is_some() || path.is_file();
    let (given, version) = if is_file {
        let text = read_bytes(path)?;
        let given = Given {
            shown: named.to_owned(),
            format: format_of(path)
                .unwrap_or_else(|| DocumentFormat::of_text(&text))
                .into(),
            text,
            // Files that do not name their persona are compared all the same, and do not differ in that.
            name: Some("unnamed".to_owned()),
        };
        (given, None)
    } else {
        let reference = PersonaRef::parse(named).map_err(CliError::Argument)?;
        let given = daemon.document(&reference.name, reference.version).await?;
        (given, reference.version)
    };
    let mut known = Known::default();
    known.add(version, given.clone());
    // Each round finds one more base, and there are only so many that a composition takes.
    for _ in 0..=persona::LARGEST_LINEAGE {
        let Some(missing) = known.missing() else {
            break;
        };
        let base = daemon
            .document(missing.name.as_str(), missing.version)
            .await?;
        known.add(missing.version, base);
    }
    Ok(known.read(&given))
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Wrong(problems) => format!("it is not valid:\n{problems}"),
        Outcome::Tangled { reason } => reason,
        Outcome::Part { missing, .. } => format!("it builds on `{missing}`, which is not there"),
        Outcome::Whole(_) => "it is not valid".to_owned(),
    }
}
