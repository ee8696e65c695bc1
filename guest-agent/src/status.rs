//! `virt-persona-agent status`: the active persona and the history, read from the state directory without the running agent.

use std::{fmt::Write as _, path::Path, sync::Arc};

use agent_protocol::message::clean_text;

use crate::{
    durable::{Gauge, Writer},
    store::{Fate, Record, Store, StoreError},
};

/// A text for people; the first line is the active persona.
pub(crate) fn describe(state: &Path) -> Result<String, StoreError> {
    let store = Store::view(state, Writer::new(Arc::new(Gauge::default())))?;
    let mut text = match store.current().and_then(Record::active) {
        Some(active) => format!(
            "active: {} version {} (generation {})\n",
            active.persona, active.version, active.generation
        ),
        None => "active: none\n".to_owned(),
    };
    for generation in store.generations()?.into_iter().rev() {
        if let Some(record) = store.record(generation)? {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line(&record));
        }
    }
    Ok(text)
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
    clean_text(
        &format!("generation {}: {what}, {fate}{why}", record.generation),
        400,
    )
    .replace('\n', " ")
}
