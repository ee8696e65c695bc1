//! `virt-persona-agent status` and `history`: the active persona, what of the guest it holds, and the generations that are
//! kept, read from the state directory without the running agent.

use std::{fmt::Write as _, path::Path, sync::Arc};

use agent_protocol::{SettingOutcome, message::clean_text};

use crate::{
    customize::described,
    durable::{Gauge, Writer},
    gate,
    setting::{Holding, Resource, Role, State},
    store::{Fate, Record, Store, StoreError},
};

/// A text for people; the first line is the active persona.
pub(crate) fn describe(state: &Path, root: &Path) -> Result<String, StoreError> {
    let store = open(state)?;
    let current = store.current();
    let generation = match current {
        Some(Record {
            generation,
            rollback: Some(rollback),
            ..
        }) => format!(
            " (generation {}, gone back to by hand instead of {generation})",
            rollback.to
        ),
        Some(record) if record.activation.is_some() => {
            format!(" (generation {})", record.generation)
        }
        _ => String::new(),
    };
    let mut text = match current.and_then(|record| record.activation.as_ref()) {
        Some(active) => format!(
            "active: {} version {}{generation}\n",
            active.persona, active.version
        ),
        None => format!("active: none{generation}\n"),
    };
    // Writing to a string cannot fail.
    for holding in store.current().into_iter().flat_map(|record| &record.held) {
        let _ = writeln!(text, "{}", shown(&held(holding)));
    }
    for said in store
        .current()
        .into_iter()
        .flat_map(|record| &record.settings)
    {
        let outcome = match said.outcome {
            SettingOutcome::Kept => "kept as it is",
            SettingOutcome::Refused => "cannot be had",
            _ => continue,
        };
        let told = format!("{outcome}: {}: {}", said.setting, said.reason);
        let _ = writeln!(text, "{}", shown(&told));
    }
    for own in store
        .current()
        .into_iter()
        .flat_map(|record| &record.overlay)
    {
        let _ = writeln!(text, "customised: {}", shown(&described(own)));
    }
    for line in gate::describe(state, root, store.current()) {
        let _ = writeln!(text, "{}", shown(&line));
    }
    let owned = store
        .current()
        .into_iter()
        .flat_map(|record| &record.software);
    for (package, role) in owned {
        let why = match role {
            Role::Asked => "asked for",
            Role::Needed => "needed by another",
        };
        let _ = writeln!(text, "installed: package {} ({why})", shown(package));
    }
    for record in newest_first(&store)? {
        let _ = writeln!(text, "{}", shown(&line(&record)));
    }
    Ok(text)
}

/// A line for each thing that is customised, under whatever persona.
pub(crate) fn customizations(state: &Path) -> Result<String, StoreError> {
    let store = open(state)?;
    let own = store.current().map_or(&[][..], |record| &record.own);
    let lines = own
        .iter()
        .map(|own| format!("{}\n", shown(&described(own))));
    Ok(lines.collect())
}

/// A line for each generation, the newest first.
pub(crate) fn history(state: &Path) -> Result<String, StoreError> {
    let store = open(state)?;
    let rollback = |record: &Record| record.rollback.as_ref().map(|rollback| rollback.to);
    let current = store.current();
    let current = current.map(|record| rollback(record).unwrap_or(record.generation));
    let mut text = String::new();
    for record in newest_first(&store)? {
        let holds = if current == Some(record.generation) {
            ", holds"
        } else {
            ""
        };
        let time = date(record.at_unix_s);
        let _ = writeln!(
            text,
            "{}",
            shown(&format!("{time}  {}{holds}", line(&record)))
        );
    }
    Ok(text)
}

fn open(state: &Path) -> Result<Store, StoreError> {
    Store::view(state, Writer::new(Arc::new(Gauge::default())))
}

fn newest_first(store: &Store) -> Result<Vec<Record>, StoreError> {
    let numbers = store.generations()?.into_iter().rev();
    let records = numbers.filter_map(|number| store.record(number).transpose());
    records.collect()
}

/// One line without control characters.
fn shown(text: &str) -> String {
    clean_text(text, 400).replace('\n', " ")
}

fn line(record: &Record) -> String {
    let what = match &record.activation {
        Some(activation) => format!("{} version {}", activation.persona, activation.version),
        None => "no persona".to_owned(),
    };
    let fate = match record.fate {
        Fate::Prepared => "under way, or cut off",
        Fate::Activated => "activated",
        Fate::Deactivated => "deactivated",
        Fate::Failed => "failed",
    };
    let why = record
        .error
        .as_ref()
        .map(|error| format!(": {}", error.message))
        .unwrap_or_default();
    format!("generation {}: {what}, {fate}{why}", record.generation)
}

fn held(holding: &Holding) -> String {
    let before = state(&holding.before);
    match &holding.resource {
        Resource::File(path) => format!("held: file {path} ({})", holding.setting),
        Resource::Kernel(_) => {
            let (setting, now) = (&holding.setting, state(&holding.written));
            format!("held: {setting}: {now} (before: {before})")
        }
        Resource::Unit(unit) => {
            let now = state(&holding.written);
            format!("held: unit {unit}: {now} (before: {before})")
        }
        Resource::Program(path) => {
            let now = state(&holding.written);
            format!("held: permissions of {path}: {now} (before: {before})")
        }
        Resource::Override(path) => {
            let now = state(&holding.written);
            format!("held: dpkg-statoverride of {path}: {now} (before: {before})")
        }
        Resource::Plugin(key) => {
            let now = state(&holding.written);
            format!("held: {key}: {now} (before: {before})")
        }
    }
}

fn state(state: &State) -> String {
    match state {
        State::Absent => "absent".to_owned(),
        State::Text { .. } => "there".to_owned(),
        State::Value(value) => value.clone(),
        State::Program { mode, .. } => format!("{mode:04o}"),
        State::Opaque(value) => value.to_string(),
        State::Unknown => "unknown".to_owned(),
        State::Through { counterpart, value } => format!("0, by {counterpart} = {value}"),
        State::Unit { enabling, running } => {
            format!("{enabling:?}, {running:?}").to_ascii_lowercase()
        }
    }
}

/// Seconds since 1970 as a date and time in UTC, by the civil calendar (Hinnant's `civil_from_days`).
fn date(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_285_535, "2026-11-21 18:25:35 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
