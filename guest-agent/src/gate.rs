//! Whether the gate holds people who log in to the persona's restricted commands, for `status` and for the host's answer. The gate is a program
//! of its own; it says so under /run, and by a lock that it holds for as long as it runs.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use agent_protocol::{
    GateStanding, GateState, GateTable,
    gate::{GATE_DIRECTORY, LOCK_FILE, STANDING_FILE, TABLE_FILE},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    setting::{Holding, Resource},
    store::Record,
};

/// Nothing where the generation restricts no command.
pub(crate) fn describe(state: &Path, root: &Path, record: Option<&Record>) -> Vec<String> {
    let activation = record.and_then(|record| record.activation.as_ref());
    let restricted = activation
        .map(|activation| activation.commands.restricted.as_slice())
        .unwrap_or_default();
    if restricted.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("restricted: {}", restricted.join(", "))];
    lines.extend(closed(root, record.map_or(&[], |record| &record.held)));
    let only = "gate: they are refused to commands from the host only";
    let Some(table) = table(state) else {
        lines.push(format!(
            "{only}, because the guest's owner does not allow more (`gate` in agent.toml)"
        ));
        return lines;
    };
    let standing = standing(root);
    let generation = record.map(|record| record.generation);
    if !runs(root) {
        let why = standing.problems.first();
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        lines.push(format!(
            "{only}, because virt-persona-gate does not run{why}"
        ));
        return lines;
    }
    if standing.generation != generation {
        lines.push(format!("{only} until the gate has read the table"));
    } else {
        lines.push(format!(
            "gate: they are refused to people who log in, too; files marked: {}",
            standing.files
        ));
        if table.strict {
            lines.push(match standing.directories {
                0 => "gate: strict does not hold yet; see what it says of directories".to_owned(),
                count => format!(
                    "gate: strict: a file is refused by its name, too; directories marked: {count}"
                ),
            });
        }
        if !standing.absent.is_empty() {
            let absent = standing.absent.join(", ");
            lines.push(format!("gate: no program has these names now: {absent}"));
        }
    }
    let problems = standing.problems.iter();
    lines.extend(problems.map(|problem| format!("gate: {problem}")));
    lines
}

/// Which programs are closed to all but their owner and group, and which of them somebody has opened since.
fn closed(root: &Path, held: &[Holding]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut count = 0;
    for holding in held {
        let Resource::Program(path) = &holding.resource else {
            continue;
        };
        // One that is not there now is held for when it comes back.
        let Ok(found) = fs::metadata(root.join(path.trim_start_matches('/'))) else {
            continue;
        };
        let mode = found.permissions().mode() & 0o7777;
        if mode & 0o007 == 0 {
            count += 1;
        } else {
            lines.push(format!(
                "fail_closed does not hold for {path}, which somebody has opened to others: mode {mode:04o}"
            ));
        }
    }
    if count > 0 {
        let text =
            "fail_closed: closed to all but their owner and group, whatever becomes of the gate";
        lines.insert(0, format!("{text}; files: {count}"));
    }
    lines
}

/// The generation, where it restricts commands.
pub(crate) fn restricting(record: &Record) -> Option<u64> {
    let commands = &record.activation.as_ref()?.commands;
    (!commands.restricted.is_empty()).then_some(record.generation)
}

/// Whether the gate holds people to the table of this generation. What is looked at is memory, so nobody waits for a disk.
pub(crate) fn state(root: &Path, generation: u64) -> GateState {
    if runs(root) && standing(root).generation == Some(generation) {
        GateState::Holds
    } else {
        GateState::Away
    }
}

/// The table that the gate is to hold people to; one that is damaged is none of its words.
fn table(state: &Path) -> Option<GateTable> {
    match fs::read(state.join(TABLE_FILE)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(_) => None,
    }
}

/// What the gate says of itself; nothing where there is none.
fn standing(root: &Path) -> GateStanding {
    fs::read(root.join(GATE_DIRECTORY).join(STANDING_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// A gate that runs has locked its file.
pub(crate) fn runs(root: &Path) -> bool {
    let Ok(file) = File::open(root.join(GATE_DIRECTORY).join(LOCK_FILE)) else {
        return false;
    };
    matches!(
        Flock::lock(file, FlockArg::LockSharedNonblock),
        Err((_, Errno::EWOULDBLOCK))
    )
}
