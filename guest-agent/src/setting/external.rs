//! Settings that the agent does not know itself, by plugins: programs in a directory of the guest, each named after the one key that it
//! is for. One call is one verb, with one document of JSON on its input and one on its output. How a setting is, is a value that only
//! the plugin understands; comparing it, keeping what people in the guest have changed, the journal and undoing are the same as for
//! every other resource ([`super::plan()`], [`Machine`]).

use std::{fs, path::PathBuf, time::Duration};

use agent_protocol::{
    Settings,
    limits::{PLUGIN_ANSWER_MAX, PLUGIN_DO_MS, PLUGIN_LOOK_MS, PLUGIN_STATE_MAX},
};
use serde_json::{Map, Value, json};

use super::{Machine, Resource, SettingError, State, Wishes, plan::Purpose};
use crate::{
    log::{chain, log},
    owned::{runnable, trusted},
    program::Ended,
    script::ScriptError,
};

/// Where plugins lie.
const DIRECTORY: &str = "/etc/virt-persona/plugins.d";
/// The version of the documents.
const VERSION: u32 = 1;

/// What a plugin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// How is it?
    Probe,
    /// How will it be with these values?
    Plan,
    /// Make it so.
    Apply,
    /// How is it, for whoever reads it?
    Verify,
    /// Make it as it was.
    Undo,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Verify => "verify",
            Self::Undo => "undo",
        }
    }

    fn time(self) -> Duration {
        Duration::from_millis(match self {
            Self::Probe | Self::Plan | Self::Verify => PLUGIN_LOOK_MS,
            Self::Apply | Self::Undo => PLUGIN_DO_MS,
        })
    }
}

/// Why a plugin is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginError {
    #[error("the guest has no plugin {0}")]
    Missing(String),
    #[error("{path:?} {why}, so it is not run")]
    NotTrusted { path: PathBuf, why: String },
    #[error("it does not run")]
    Run(#[source] ScriptError),
    #[error("it did not end within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("it ended with {0}")]
    Ended(std::process::ExitStatus),
    #[error("it answers more than {PLUGIN_ANSWER_MAX} bytes")]
    Flood,
    #[error("its answer is no object of JSON")]
    Rubbish(#[source] serde_json::Error),
    #[error("its answer has no `state`")]
    NoState,
    #[error("its `state` is larger than {PLUGIN_STATE_MAX} bytes")]
    LargeState,
    #[error("it says: {0}")]
    Says(String),
}

/// A setting that no plugin brings about is left out: the guest is without it, as it is without a program.
pub(super) fn wish(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    for (key, values) in &settings.other {
        let planned = state(machine, key, Verb::Probe, Map::new()).and_then(|state_now| {
            let arguments = [("values", json!(values)), ("state", state_now)];
            state(machine, key, Verb::Plan, named(arguments))
        });
        match planned {
            Ok(planned) => {
                let resource = Resource::Plugin(key.clone());
                wishes.resource(key, resource, State::Opaque(planned));
            }
            Err(error) => wishes.refuse(key, &chain(&error)),
        }
    }
    Ok(())
}

/// How a setting is; a plugin that does not say it, or is gone, stops nothing.
pub(super) fn probe(machine: &mut Machine<'_>, key: &str) -> State {
    match state(machine, key, Verb::Probe, Map::new()) {
        Ok(found) => State::Opaque(found),
        Err(error) => {
            log!(
                "{key}: its plugin does not say how it is: {}",
                chain(&error)
            );
            State::Unknown
        }
    }
}

/// Makes a setting so, and looks whether it is: for the persona by `apply` and `verify`, on the way back by `undo` and `probe`.
pub(super) fn settle(
    machine: &mut Machine<'_>,
    key: &str,
    wanted: &Value,
    purpose: Purpose,
) -> Result<(), SettingError> {
    let (deed, look) = match purpose {
        Purpose::Hold => (Verb::Apply, Verb::Verify),
        Purpose::Release => (Verb::Undo, Verb::Probe),
    };
    let failed = |verb: Verb| {
        move |source| SettingError::Plugin {
            setting: key.to_owned(),
            verb: verb.name(),
            source,
        }
    };
    let with_state = || named([("state", wanted.clone())]);
    ask(machine, key, deed, with_state()).map_err(failed(deed))?;
    let found = state(machine, key, look, with_state()).map_err(failed(look))?;
    if found == *wanted {
        return Ok(());
    }
    Err(SettingError::PluginNotTaken {
        setting: key.to_owned(),
        wanted: wanted.clone(),
        found,
    })
}

fn named<const N: usize>(arguments: [(&str, Value); N]) -> Map<String, Value> {
    arguments
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What a plugin says of how its setting is, or will be.
fn state(
    machine: &mut Machine<'_>,
    key: &str,
    verb: Verb,
    arguments: Map<String, Value>,
) -> Result<Value, PluginError> {
    let state = ask(machine, key, verb, arguments)?
        .remove("state")
        .filter(|state| !state.is_null())
        .ok_or(PluginError::NoState)?;
    if state.to_string().len() > PLUGIN_STATE_MAX {
        return Err(PluginError::LargeState);
    }
    Ok(state)
}

fn ask(
    machine: &mut Machine<'_>,
    key: &str,
    verb: Verb,
    mut document: Map<String, Value>,
) -> Result<Map<String, Value>, PluginError> {
    let program = find(machine, key)?;
    document.insert("version".to_owned(), json!(VERSION));
    document.insert("verb".to_owned(), json!(verb.name()));
    document.insert("setting".to_owned(), json!(key));
    let input = format!("{}\n", Value::Object(document));
    let (time, keep) = (verb.time(), PLUGIN_ANSWER_MAX);
    let ended = machine
        .converse(program, verb.name(), input, time, keep)
        .map_err(PluginError::Run)?;
    answer(&ended, time)
}

/// The plugin of a key, if root alone can have put it there.
fn find(machine: &Machine<'_>, key: &str) -> Result<PathBuf, PluginError> {
    // Keys may have characters that lead elsewhere as names of files.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
    let path = format!("{DIRECTORY}/{key}");
    let directory = machine.guest.path(DIRECTORY);
    let program = directory.join(key);
    if !key.chars().all(plain) || fs::symlink_metadata(&program).is_err() {
        return Err(PluginError::Missing(path));
    }
    let above = directory.parent().unwrap_or(&directory);
    for directory in [above, &directory] {
        trusted(directory).map_err(|why| PluginError::NotTrusted {
            path: directory.to_owned(),
            why,
        })?;
    }
    runnable(&program).map_err(|why| PluginError::NotTrusted {
        path: program.clone(),
        why,
    })?;
    Ok(program)
}

fn answer(ended: &Ended, time: Duration) -> Result<Map<String, Value>, PluginError> {
    if ended.timed_out {
        return Err(PluginError::Slow(time));
    }
    let answer: Result<Map<String, Value>, _> = serde_json::from_str(&ended.output);
    let said = answer
        .as_ref()
        .ok()
        .and_then(|answer| answer.get("error"))
        .map(|error| error.as_str().map_or(error.to_string(), str::to_owned));
    if let Some(said) = said {
        return Err(PluginError::Says(said));
    }
    if !ended.status.success() {
        return Err(PluginError::Ended(ended.status));
    }
    if ended.output_truncated {
        return Err(PluginError::Flood);
    }
    answer.map_err(PluginError::Rubbish)
}
